//! Upgrades to other protocols than WebSocket: Docker's attach and Kubernetes' exec live on them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::net::SocketAddr;
use std::process::Command;

use h2::ext::Protocol;
use http::Method;
use serde_json::Value;
use support::backend::{Backend, Seen};
use support::gateway::{Gateway, Setup, config};
use support::http1::{Head, ask, read_head};
use support::http2::{self, Http2};
use support::ws::WebSocket;
use support::{BoxIo, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

fn start(top: &str, routes: &str) -> Gateway {
    Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"]).start(&config(top, routes))
}

fn route(address: SocketAddr, upgrade: &str) -> String {
    format!("[[route]]\npath = \"/\"\nproxy = \"http://{address}\"\n{upgrade}\n")
}

const DOCKER: &str = "upgrade = [\"websocket\", \"tcp\", \"SPDY/3.1\"]";

/// A server like Docker's: it reads a request with its body, switches to the protocol that is asked for, says
/// `greeting` right behind the head, and hands the connection to the test. Plain requests get 200.
async fn docker(greeting: &'static str) -> (Backend, mpsc::UnboundedReceiver<(TcpStream, Vec<u8>)>, Seen) {
    let (sender, connections) = mpsc::unbounded_channel();
    let seen = Seen::default();
    let heads = seen.clone();
    let backend = Backend::start(move |mut tcp| {
        let (sender, heads) = (sender.clone(), heads.clone());
        async move {
            let Some(head) = read_head(&mut tcp).await else { return };
            heads.push(head.clone());
            let len = head.get("content-length").map_or(0, |len| len.parse().unwrap());
            let mut body = vec![0; len];
            tcp.read_exact(&mut body).await.unwrap();
            let Some(protocol) = head.get("upgrade") else {
                let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain").await;
                return;
            };
            let protocol = protocol.split(',').next().unwrap();
            let answer = format!(
                "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\n\
                 Upgrade: {protocol}\r\n\r\n{greeting}"
            );
            tcp.write_all(answer.as_bytes()).await.unwrap();
            let _ = sender.send((tcp, body));
        }
    })
    .await;
    (backend, connections, seen)
}

fn request(line: &str, fields: &str, body: &str) -> String {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("{line} HTTP/1.1\r\nHost: default.test\r\n{fields}{length}\r\n{body}")
}

async fn attach(io: &mut BoxIo, fields: &str, body: &str) -> Head {
    let request = request("POST /v1.43/exec/1/start?x=1", fields, body);
    io.write_all(request.as_bytes()).await.unwrap();
    io.flush().await.unwrap();
    read_head(io).await.expect("an answer")
}

const TCP: &str = "Connection: Upgrade\r\nUpgrade: tcp\r\n";

async fn read(io: &mut (impl AsyncReadExt + Unpin), len: usize) -> String {
    let mut bytes = vec![0; len];
    soon(io.read_exact(&mut bytes)).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn bytes_pass_behind_the_101_and_each_direction_ends_by_itself() {
    for first in ["client", "server"] {
        let (backend, mut streams, seen) = docker("greeting").await;
        let gateway = start("", &route(backend.address, DOCKER));
        for mut io in [gateway.connect_tls("http/1.1").await, gateway.connect_plain().await] {
            let head = attach(&mut io, TCP, "{\"Tty\":true}").await;
            assert_eq!((head.status(), head.get("upgrade")), (101, Some("tcp")));
            assert_eq!(head.get("connection"), Some("Upgrade"));
            assert_eq!(head.get("content-type"), Some("application/vnd.docker.raw-stream"));
            let (mut stream, body) = soon(streams.recv()).await.unwrap();
            assert_eq!(body, b"{\"Tty\":true}");
            assert_eq!(read(&mut io, 8).await, "greeting");
            let asked = seen.last();
            assert_eq!(asked.line, "POST /v1.43/exec/1/start?x=1 HTTP/1.1");
            assert_eq!((asked.get("upgrade"), asked.get("connection")), (Some("tcp"), Some("Upgrade")));
            assert_eq!(asked.get("x-forwarded-for"), Some("127.0.0.1").filter(|_| true));
            if first == "client" {
                io.write_all(b"input").await.unwrap();
                io.shutdown().await.unwrap();
                assert_eq!(read(&mut stream, 5).await, "input");
                assert_eq!(soon(stream.read(&mut [0])).await.unwrap(), 0);
                stream.write_all(b"output").await.unwrap();
                drop(stream);
                assert_eq!(read(&mut io, 6).await, "output");
                assert_eq!(soon(io.read(&mut [0])).await.unwrap(), 0);
            } else {
                stream.write_all(b"output").await.unwrap();
                stream.shutdown().await.unwrap();
                assert_eq!(read(&mut io, 6).await, "output");
                assert_eq!(soon(io.read(&mut [0])).await.unwrap(), 0);
                io.write_all(b"input").await.unwrap();
                io.shutdown().await.unwrap();
                assert_eq!(read(&mut stream, 5).await, "input");
                assert_eq!(soon(stream.read(&mut [0])).await.unwrap(), 0);
            }
        }
        for n in 0..2 {
            let line = gateway.wait_nth("session", n);
            assert_eq!((&line["upgrade"], &line["status"]), (&"tcp".into(), &101.into()), "{line}");
            assert_eq!((&line["received_bytes"], &line["sent_bytes"]), (&5.into(), &14.into()));
            assert_eq!(line["ended_by"], if first == "client" { "client" } else { "backend" });
            assert_eq!((&line["close_code"], &line["received_messages"]), (&Value::Null, &Value::Null));
        }
    }
}

#[tokio::test]
async fn only_listed_protocols_are_asked_for() {
    let (backend, mut streams, seen) = docker("").await;
    let gateway = start("", &route(backend.address, DOCKER));
    let mut io = gateway.connect_tls("http/1.1").await;
    let head =
        attach(&mut io, "Connection: upgrade\r\nUpgrade: h2c, spdy/3.1\r\nUpgrade: tcp, x\r\n", "").await;
    assert_eq!((head.status(), head.get("upgrade")), (101, Some("spdy/3.1")));
    assert_eq!(seen.last().get("upgrade"), Some("spdy/3.1, tcp"));
    drop(soon(streams.recv()).await);
    for (upgrade, fields) in [
        (DOCKER, "Connection: Upgrade\r\nUpgrade: SPDY/3, imap\r\n"),
        ("", TCP),
        (
            "upgrade = [\"tcp\"]",
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        ),
        ("upgrade = [\"tcp\"]", "Connection: Upgrade\r\nUpgrade: websocket\r\n"),
        (DOCKER, "Upgrade: tcp\r\n"),
    ] {
        let gateway = start("", &route(backend.address, upgrade));
        let asked = request("GET /x", fields, "");
        let answer = ask(&mut gateway.connect_tls("http/1.1").await, asked).await;
        assert_eq!((answer.status(), answer.text().as_str()), (200, "plain"), "{fields}");
        assert_eq!((seen.last().get("upgrade"), seen.last().get("connection")), (None, None));
        if fields.starts_with("Connection") {
            let message = "the route's `upgrade` lists no protocol that the request asks for; it is served without the upgrade";
            let line = gateway.wait(message);
            assert_eq!((&line["level"], &line["route"]), (&"DEBUG".into(), &"/".into()), "{line}");
        }
    }
}

#[tokio::test]
async fn websockets_go_on_beside_them_unless_they_are_left_out() {
    let (backend, _seen) = support::backend::echo().await;
    let gateway = start("", &route(backend.address, DOCKER));
    let (mut socket, _) =
        WebSocket::connect(gateway.connect_tls("http/1.1").await, "default.test", "/", "").await.unwrap();
    socket.echoes("beside").await;
    let gateway = start("", &route(backend.address, "upgrade = [\"tcp\"]"));
    let mut client = Http2::connect(gateway.connect_tls("h2").await, "default.test").await;
    assert_eq!(client.websocket("/", &[]).await.err().unwrap().status(), 501);
    // Over HTTP/2 no other protocol is passed on.
    let mut asked = client.request(Method::CONNECT, "/");
    asked.extensions_mut().insert(Protocol::from_static("tcp"));
    let (response, _send) = client.send(asked, false).await.unwrap();
    assert_eq!(http2::read(response).await.status(), 501);
}

#[tokio::test]
async fn answers_that_are_no_switch() {
    for (said, status, cause) in [
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno", 404, ""),
        ("HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 502, "not asked for"),
        ("HTTP/1.1 101 X\r\nConnection: Upgrade\r\n\r\n", 502, "or with none"),
        ("HTTP/1.1 101 X\r\nUpgrade: tcp\r\n\r\n", 502, "101 without Connection: Upgrade"),
        ("", 502, "closed without an answer"),
    ] {
        let backend = Backend::saying(said).await;
        let gateway = start("", &route(backend.address, DOCKER));
        let answer = ask(&mut gateway.connect_tls("http/1.1").await, request("POST /", TCP, "")).await;
        assert_eq!(answer.status(), status, "{said}");
        let line = gateway.wait("request");
        assert!(line["cause"].as_str().unwrap_or_default().contains(cause), "{line}");
    }
    let gateway = start("", &route(Backend::unreachable(), DOCKER));
    let answer = ask(&mut gateway.connect_tls("http/1.1").await, request("POST /", TCP, "")).await;
    assert_eq!(answer.status(), 502);
}

#[tokio::test]
async fn a_server_that_does_not_answer_has_response_timeout() {
    let (silent, _held) = (TcpListenerThatSaysNothing::new().await, ());
    let gateway = start("", &route(silent.0, &format!("{DOCKER}\nresponse_timeout = \"200ms\"")));
    let answer = ask(&mut gateway.connect_tls("http/1.1").await, request("POST /", TCP, "")).await;
    assert_eq!(answer.status(), 504);
}

struct TcpListenerThatSaysNothing(SocketAddr, #[expect(dead_code, reason = "it is held open")] Backend);

impl TcpListenerThatSaysNothing {
    async fn new() -> Self {
        let backend = Backend::start(|mut tcp| async move {
            let _ = tokio::io::copy(&mut tcp, &mut tokio::io::sink()).await;
        })
        .await;
        Self(backend.address, backend)
    }
}

#[tokio::test]
async fn a_stream_that_breaks_does_not_look_like_one_that_has_ended() {
    let (backend, mut streams, _) = docker("").await;
    let gateway = start("", &route(backend.address, DOCKER));
    let mut io = gateway.connect_tls("http/1.1").await;
    attach(&mut io, TCP, "").await;
    let (stream, _) = soon(streams.recv()).await.unwrap();
    stream.set_zero_linger().unwrap();
    drop(stream);
    assert!(soon(io.read(&mut [0])).await.is_err(), "no close_notify");
    let line = gateway.wait("session");
    assert_eq!((&line["level"], &line["ended_by"]), (&"WARN".into(), &"backend".into()), "{line}");
    let mut io = gateway.connect_tls("http/1.1").await;
    attach(&mut io, TCP, "").await;
    let (mut stream, _) = soon(streams.recv()).await.unwrap();
    io.write_all(b"some").await.unwrap();
    read(&mut stream, 4).await;
    drop(io); // no close_notify either
    assert!(soon(stream.read(&mut [0])).await.is_err(), "a reset");
}

#[tokio::test]
async fn idle_time_orders_and_drains_end_it_and_operators_see_it() {
    let (backend, mut streams, _) = docker("").await;
    let idle = format!("{DOCKER}\n[route.websocket]\nidle_timeout = \"200ms\"");
    let gateway = start("", &route(backend.address, &idle));
    let mut io = gateway.connect_tls("http/1.1").await;
    attach(&mut io, TCP, "").await;
    let (mut stream, _) = soon(streams.recv()).await.unwrap();
    assert!(soon(stream.read(&mut [0])).await.is_err());
    assert_eq!(gateway.wait("session")["cause"], "idle: no message within idle_timeout");

    let control = "\n[control]\nsocket = \"control.sock\"\n";
    let mut gateway = start("drain_window = \"1ms\"", &(route(backend.address, DOCKER) + control));
    let mut io = gateway.connect_tls("http/1.1").await;
    attach(&mut io, TCP, "").await;
    let (mut stream, _) = soon(streams.recv()).await.unwrap();
    io.write_all(b"abc").await.unwrap();
    io.flush().await.unwrap();
    read(&mut stream, 3).await;
    let sessions = command(&gateway, "sessions --json").await;
    let line: Value = serde_json::from_str(sessions.lines().next().unwrap()).unwrap();
    let session = &line["session"];
    assert_eq!((&session["received_bytes"], &session["state"]), (&3.into(), &"open".into()));
    command(&gateway, &format!("close {}", session["id"])).await;
    assert!(soon(stream.read(&mut [0])).await.is_err());
    assert!(soon(io.read(&mut [0])).await.is_err());
    assert_eq!(gateway.wait("session")["ended_by"], "gateway");

    let mut io = gateway.connect_tls("http/1.1").await;
    attach(&mut io, TCP, "").await;
    let (mut stream, _) = soon(streams.recv()).await.unwrap();
    gateway.signal("TERM");
    assert!(soon(stream.read(&mut [0])).await.is_err());
    drop((io, stream));
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

/// Much in both directions at once, and a reader that is slow.
#[tokio::test]
async fn much_passes_whole_and_no_buffer_grows() {
    const LEN: usize = 30 << 20;
    let (backend, mut streams, _) = docker("").await;
    let gateway = start("", &route(backend.address, DOCKER));
    let mut io = gateway.connect_tls("http/1.1").await;
    attach(&mut io, TCP, "").await;
    let (stream, _) = soon(streams.recv()).await.unwrap();
    let before = gateway.resident_kib();
    async fn pass(io: impl AsyncReadExt + AsyncWriteExt + Unpin, seed: u8) -> u64 {
        let (mut from, mut to) = tokio::io::split(io);
        let (wrong, ()) = tokio::join!(
            async {
                let (mut at, mut wrong, mut buffer) = (0_usize, 0, vec![0; 1 << 16]);
                while let Ok(n @ 1..) = from.read(&mut buffer).await {
                    wrong += buffer[..n]
                        .iter()
                        .enumerate()
                        .filter(|(i, b)| **b != pattern(at + i) ^ !seed)
                        .count() as u64;
                    at += n;
                }
                wrong + (LEN - at) as u64
            },
            async {
                let bytes: Vec<u8> = (0..LEN).map(|i| pattern(i) ^ seed).collect();
                to.write_all(&bytes).await.unwrap();
                to.shutdown().await.unwrap();
            }
        );
        wrong
    }
    let (up, down) = tokio::join!(pass(stream, 0), pass(io, 255));
    assert_eq!((up, down), (0, 0));
    let grown = gateway.resident_kib().saturating_sub(before);
    assert!(grown < 8 << 10, "{grown} KiB");
    let line = gateway.wait("session");
    assert_eq!((&line["received_bytes"], &line["sent_bytes"]), (&LEN.into(), &LEN.into()));
}

/// A byte that depends on its place.
fn pattern(at: usize) -> u8 {
    u8::try_from(at / 3 % 251).unwrap_or_default()
}
