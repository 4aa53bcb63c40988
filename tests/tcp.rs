//! Servers behind `tcp://`: binary messages of a WebSocket are the bytes of their streams.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::net::SocketAddr;
use std::process::Command;
use std::time::Instant;

use serde_json::Value;
use support::backend::Backend;
use support::gateway::{Gateway, Setup, config};
use support::http1::ask;
use support::http2::Http2;
use support::ws::{BINARY, PING, PONG, WebSocket, encode};
use support::{PATIENCE, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Duration, timeout};

fn start(top: &str, routes: &str) -> Gateway {
    Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"]).start(&config(top, routes))
}

fn route(address: SocketAddr, more: &str) -> String {
    format!(
        "[[route]]\npath = \"/vnc\"\nproxy = \"tcp://{address}\"\nsubprotocols = [\"binary\", \"mqtt\"]\n{more}\n"
    )
}

/// A server that hands each connection to the test.
async fn handing_over() -> (Backend, mpsc::UnboundedReceiver<TcpStream>) {
    let (sender, connections) = mpsc::unbounded_channel();
    let backend = Backend::start(move |tcp| {
        let sender = sender.clone();
        async move { drop(sender.send(tcp)) }
    })
    .await;
    (backend, connections)
}

async fn open(gateway: &Gateway) -> WebSocket {
    WebSocket::connect(gateway.connect_tls("http/1.1").await, "default.test", "/vnc", "").await.unwrap().0
}

async fn read(tcp: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    soon(tcp.read_exact(&mut bytes)).await.unwrap();
    bytes
}

/// The payload of so many bytes of binary messages.
async fn recv_bytes(socket: &mut WebSocket, len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < len {
        let frame = socket.receive().await.expect("more");
        assert_eq!(frame.b0, BINARY);
        bytes.extend(frame.payload);
    }
    bytes
}

fn numbers(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 256).to_le_bytes()[0]).collect()
}

#[tokio::test]
async fn bytes_pass_both_ways_over_every_protocol_and_the_log_counts_them() {
    let (backend, mut streams) = handing_over().await;
    let gateway = start("", &route(backend.address, ""));
    let mut http2 = Http2::connect(gateway.connect_tls("h2").await, "default.test").await;
    for protocol in ["tls", "plain", "h2"] {
        let mut socket = match protocol {
            "h2" => http2.websocket("/vnc", &[]).await.unwrap().0,
            "tls" => open(&gateway).await,
            _ => {
                WebSocket::connect(gateway.connect_plain().await, "default.test", "/vnc", "").await.unwrap().0
            }
        };
        let mut stream = soon(streams.recv()).await.unwrap();
        stream.write_all(b"RFB 003.008\n").await.unwrap();
        assert_eq!(recv_bytes(&mut socket, 12).await, b"RFB 003.008\n");
        let big = numbers(300_000);
        for (b0, piece) in [(0x82, &big[..1]), (0x02, &big[1..70_001]), (0x00, &[]), (0x80, &big[70_001..])] {
            socket.send(b0, piece).await;
        }
        assert!(read(&mut stream, big.len()).await == big);
        socket.send(PING, "p").await;
        assert_eq!(socket.receive().await.unwrap().b0, PONG);
        stream.write_all(&big).await.unwrap();
        assert!(recv_bytes(&mut socket, big.len()).await == big);
        socket.close(1000).await;
        assert_eq!(soon(stream.read(&mut [0])).await.unwrap(), 0, "an end in order");
        stream.write_all(b"bye").await.unwrap();
        drop(stream);
        assert_eq!(recv_bytes(&mut socket, 3).await, b"bye");
        socket.expect_close(1000).await;
        socket.expect_end().await;
    }
    for n in 0..3 {
        let line = gateway.wait_nth("session", n);
        assert_eq!((&line["ended_by"], &line["close_code"]), (&"client".into(), &1000.into()), "{line}");
        assert_eq!((&line["received_bytes"], &line["received_messages"]), (&300_000.into(), &2.into()));
        assert_eq!(line["sent_bytes"], 300_015);
        assert_eq!(line["backend"], backend.address.to_string());
    }
}

#[tokio::test]
async fn the_client_chooses_the_subprotocol() {
    let (backend, _streams) = handing_over().await;
    let gateway = start("", &route(backend.address, ""));
    for (offer, expect) in [
        ("Sec-WebSocket-Protocol: chat, mqtt, binary\r\n", Some("mqtt")),
        ("Sec-WebSocket-Protocol: base64\r\n", None),
        ("", None),
    ] {
        let io = gateway.connect_tls("http/1.1").await;
        let (_, head) = WebSocket::connect(io, "default.test", "/vnc", offer).await.unwrap();
        assert_eq!(head.get("sec-websocket-protocol"), expect, "{offer}");
    }
}

#[tokio::test]
async fn each_end_sees_how_the_other_one_ended() {
    let (backend, mut streams) = handing_over().await;
    let gateway = start("", &route(backend.address, ""));
    // The stream's end, with what was said before, and a half-close.
    let mut socket = open(&gateway).await;
    let mut stream = soon(streams.recv()).await.unwrap();
    stream.write_all(b"last").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(recv_bytes(&mut socket, 4).await, b"last");
    socket.expect_close(1000).await;
    socket.send(BINARY, "on its way").await;
    assert_eq!(read(&mut stream, 10).await, b"on its way");
    socket.close(1000).await;
    socket.expect_end().await;
    assert_eq!(soon(stream.read(&mut [0])).await.unwrap(), 0);
    let line = gateway.wait("session");
    assert_eq!((&line["ended_by"], &line["close_code"]), (&"backend".into(), &1000.into()));
    // Its failure.
    let mut socket = open(&gateway).await;
    let stream = soon(streams.recv()).await.unwrap();
    stream.set_zero_linger().unwrap();
    drop(stream);
    socket.expect_close(1011).await;
    let line = gateway.wait_nth("session", 1);
    assert_eq!((&line["level"], &line["close_code"]), (&"WARN".into(), &1011.into()), "{line}");
    // Text.
    let mut socket = open(&gateway).await;
    let mut stream = soon(streams.recv()).await.unwrap();
    socket.text("text").await;
    socket.expect_close(1003).await;
    assert!(soon(stream.read(&mut [0])).await.is_err(), "a reset: the stream is not whole");
    let line = gateway.wait_nth("session", 2);
    assert_eq!(
        line["cause"],
        "client broke a rule: text message, but this service takes binary messages only"
    );
    // A client that vanishes.
    let mut socket = open(&gateway).await;
    let mut stream = soon(streams.recv()).await.unwrap();
    socket.send(BINARY, "half of an upl").await;
    read(&mut stream, 14).await;
    drop(socket);
    assert!(soon(stream.read(&mut [0])).await.is_err());
}

#[tokio::test]
async fn who_takes_nothing_is_given_no_more() {
    let (backend, mut streams) = handing_over().await;
    let gateway = start("", &route(backend.address, ""));
    let mut socket = open(&gateway).await;
    let mut stream = soon(streams.recv()).await.unwrap();
    let before = gateway.resident_kib();
    let piece = encode(BINARY, &numbers(1 << 20), true);
    let mut sent = 0;
    while timeout(Duration::from_secs(1), socket.io.write(&piece[sent % piece.len()..])).await.is_ok_and(
        |n| {
            sent += n.unwrap();
            sent < 200 << 20
        },
    ) {}
    assert!(sent < 100 << 20, "{sent} bytes wait somewhere");
    let grown = gateway.resident_kib().saturating_sub(before);
    assert!(grown < 8 << 10, "{grown} KiB");
    // The other direction goes on meanwhile.
    stream.write_all(b"meanwhile").await.unwrap();
    assert_eq!(recv_bytes(&mut socket, 9).await, b"meanwhile");
    let mut said = 0;
    while timeout(Duration::from_secs(1), stream.write(&[1; 1 << 16])).await.is_ok_and(|n| {
        said += n.unwrap();
        said < 200 << 20
    }) {}
    assert!(said < 100 << 20, "{said} bytes wait somewhere");
    let grown = gateway.resident_kib().saturating_sub(before);
    assert!(grown < 8 << 10, "{grown} KiB");
}

/// A client that writes all before it reads anything, as some libraries do.
#[tokio::test]
async fn neither_direction_waits_for_the_other() {
    const LEN: usize = 20 << 20;
    let backend = Backend::start(|mut tcp| async move {
        let (mut from, mut to) = tcp.split();
        // All its answers before it reads the first question, if it can.
        let mut sink = tokio::io::sink();
        let (read, wrote) = tokio::join!(tokio::io::copy(&mut from, &mut sink), async {
            to.write_all(&numbers(1 << 20)).await
        });
        let _ = (read, wrote);
    })
    .await;
    let gateway = start("", &route(backend.address, ""));
    let mut socket =
        WebSocket::connect(gateway.connect_plain().await, "default.test", "/vnc", "").await.unwrap().0;
    let question = encode(BINARY, &numbers(LEN), true);
    timeout(PATIENCE, socket.io.write_all(&question)).await.expect("it is taken").unwrap();
    assert!(recv_bytes(&mut socket, 1 << 20).await == numbers(1 << 20));
}

#[tokio::test]
async fn a_plain_request_is_answered_with_426() {
    let (backend, _streams) = handing_over().await;
    let gateway = start("", &route(backend.address, ""));
    let mut io = gateway.connect_plain().await;
    let answer = ask(&mut io, "GET /vnc HTTP/1.1\r\nHost: default.test\r\n\r\n").await;
    assert_eq!((answer.status(), answer.head.get("upgrade")), (426, Some("websocket")));
    assert_eq!(answer.head.get("connection"), Some("Upgrade"));
    assert!(answer.text().contains("WebSocket"), "{}", answer.text());
    let mut client = Http2::connect(gateway.connect_tls("h2").await, "default.test").await;
    let request = client.request(http::Method::GET, "/vnc");
    assert_eq!(client.ask(request).await.status(), 400);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_answer_and_no_session() {
    let gateway = start("", &route(Backend::unreachable(), ""));
    let refused = WebSocket::connect(gateway.connect_tls("http/1.1").await, "default.test", "/vnc", "").await;
    assert_eq!(refused.err().unwrap().status(), 502);
    let line = gateway.wait("request");
    assert!(line["cause"].as_str().unwrap().starts_with("can't connect to 127.0.0.1:"), "{line}");
    let mut client = Http2::connect(gateway.connect_tls("h2").await, "default.test").await;
    assert_eq!(client.websocket("/vnc", &[]).await.err().unwrap().status(), 502);
}

#[tokio::test]
async fn the_rules_of_the_route_hold_for_it() {
    let (backend, mut streams) = handing_over().await;
    let rules = "[route.websocket]\nidle_timeout = \"300ms\"\nping_interval = \"100ms\"\nmax_message = \"1KiB\"\n\
                 origins = [\"https://a.test\"]";
    let gateway = start("", &route(backend.address, rules));
    let mut socket = open(&gateway).await;
    let mut stream = soon(streams.recv()).await.unwrap();
    assert_eq!(socket.receive().await.unwrap().b0, PING);
    loop {
        let frame = socket.receive().await.unwrap();
        if frame.b0 != PING {
            assert_eq!(frame.close_code(), 1001);
            break;
        }
    }
    socket.close(1001).await;
    socket.expect_end().await;
    assert_eq!(soon(stream.read(&mut [0])).await.unwrap(), 0);
    assert_eq!(gateway.wait("session")["cause"], "idle: no message within idle_timeout");
    let mut socket = open(&gateway).await;
    socket.send(BINARY, numbers(1025)).await;
    while socket.receive().await.is_some_and(|frame| {
        frame.b0 == PING || {
            assert_eq!(frame.close_code(), 1009);
            false
        }
    }) {}
    let foreign = WebSocket::connect(
        gateway.connect_tls("http/1.1").await,
        "default.test",
        "/vnc",
        "Origin: https://b.test\r\n",
    );
    assert_eq!(foreign.await.err().unwrap().status(), 403);
}

#[tokio::test]
async fn operators_see_it_and_end_it() {
    let (backend, mut streams) = handing_over().await;
    let control = "[control]\nsocket = \"control.sock\"\n";
    let mut gateway = start("drain_window = \"1ms\"", &(route(backend.address, "") + control));
    let mut socket = open(&gateway).await;
    let mut stream = soon(streams.recv()).await.unwrap();
    socket.send(BINARY, "abc").await;
    read(&mut stream, 3).await;
    let sessions = command(&gateway, "sessions --json").await;
    let line: Value = serde_json::from_str(sessions.lines().next().unwrap()).unwrap();
    let session = &line["session"];
    assert_eq!(session["to"], format!("tcp://{}", backend.address));
    assert_eq!((&session["received_bytes"], &session["sent_bytes"]), (&3.into(), &0.into()));
    command(&gateway, &format!("close {}", session["id"])).await;
    socket.expect_close(1001).await;
    socket.close(1001).await;
    assert_eq!(soon(stream.read(&mut [0])).await.unwrap(), 0);
    // The server is drained by its address, as any other.
    command(&gateway, &format!("drain {}", backend.address)).await;
    let refused = WebSocket::connect(gateway.connect_tls("http/1.1").await, "default.test", "/vnc", "").await;
    assert_eq!(refused.err().unwrap().status(), 503);
    command(&gateway, &format!("undrain {}", backend.address)).await;
    // A message in flight is finished first.
    let mut socket = open(&gateway).await;
    let mut stream = soon(streams.recv()).await.unwrap();
    socket.send(0x02, "to").await;
    read(&mut stream, 2).await;
    gateway.signal("TERM");
    gateway.wait("draining: no new connections are accepted; SIGINT ends the gateway at once");
    socket.send(0x80, "m").await;
    assert_eq!(read(&mut stream, 1).await, b"m");
    socket.expect_close(1001).await;
    socket.close(1001).await;
    socket.expect_end().await;
    drop((socket, stream));
    gateway.ends_well();
}

async fn command(gateway: &Gateway, arguments: &str) -> String {
    let file = gateway.path().join("wssgate.toml");
    let arguments: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
    let output = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wssgate"));
        command.args(arguments).arg("--config").arg(file).env_remove("RUNTIME_DIRECTORY").output().unwrap()
    });
    let output = soon(output).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What an idle session costs, with its sockets' tasks and the keys of its TLS.
#[tokio::test]
async fn an_idle_session_holds_no_buffer() {
    const COUNT: u64 = 300;
    let (backend, mut streams) = handing_over().await;
    let gateway = start("workers = 1", &route(backend.address, ""));
    let mut live = Vec::new();
    let mut open_some = async |count: u64| {
        for _ in 0..count {
            let mut socket = open(&gateway).await;
            let mut stream = soon(streams.recv()).await.unwrap();
            socket.send(BINARY, "x").await;
            read(&mut stream, 1).await;
            stream.write_all(b"y").await.unwrap();
            recv_bytes(&mut socket, 1).await;
            live.push((socket, stream));
        }
    };
    open_some(50).await; // what the allocator and the libraries take once
    let before = gateway.resident_kib();
    open_some(COUNT).await;
    let each = (gateway.resident_kib().saturating_sub(before)) * 1024 / COUNT;
    println!("{each} bytes a session");
    assert!(each < 8000, "{each} bytes a session"); // 7,480 in a build for tests, whose tasks are larger
}

#[tokio::test]
async fn a_long_message_is_passed_on_before_it_has_ended() {
    let (backend, mut streams) = handing_over().await;
    let gateway = start("", &route(backend.address, ""));
    let mut http2 = Http2::connect(gateway.connect_tls("h2").await, "default.test").await;
    let socket = http2.websocket("/vnc", &[]).await.unwrap().0;
    let mut stream = soon(streams.recv()).await.unwrap();
    let wire = encode(BINARY, &numbers(5 << 20), true);
    let (_from, mut to) = split(socket.io);
    let (front, rest) = wire.split_at(1 << 20);
    let writing = tokio::spawn({
        let front = front.to_vec();
        async move {
            to.write_all(&front).await.unwrap();
            to
        }
    });
    let heard = read(&mut stream, 15 << 16).await; // it comes in parts of 64 KiB
    assert!(heard == numbers(heard.len()));
    let mut to = soon(writing).await.unwrap();
    let rest = rest.to_vec();
    let writing = tokio::spawn(async move {
        to.write_all(&rest).await.unwrap();
        to
    });
    assert!(read(&mut stream, (5 << 20) - heard.len()).await == numbers(5 << 20)[heard.len()..]);
    soon(writing).await.unwrap();
}

/// TCP's delayed acknowledgement would take 40 ms or more each time.
#[tokio::test]
async fn the_first_bytes_of_a_server_arrive_at_once() {
    let backend = Backend::start(|mut tcp| async move {
        tcp.write_all(b"hello").await.unwrap();
        let _ = tcp.read(&mut [0]).await;
    })
    .await;
    let gateway = start("", &route(backend.address, ""));
    let mut quickest = Duration::MAX;
    for _ in 0..10 {
        let began = Instant::now();
        let io = gateway.connect_plain().await;
        let mut socket = WebSocket::connect(io, "default.test", "/vnc", "").await.unwrap().0;
        assert_eq!(recv_bytes(&mut socket, 5).await, b"hello");
        quickest = quickest.min(began.elapsed());
    }
    assert!(quickest < Duration::from_millis(30), "{quickest:?}");
}
