//! SIGTERM and SIGINT: an orderly end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::time::{Duration, Instant};

use support::backend::{Backend, echo};
use support::gateway::{Gateway, Setup, config, route};
use support::http1::{ask, read_answer, read_head};
use support::http2::Http2;
use support::soon;
use support::tls::Tls;
use support::ws::WebSocket;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

fn start(top: &str, routes: &str) -> Gateway {
    Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"]).start(&config(top, routes))
}

async fn over_http1(gateway: &Gateway) -> WebSocket {
    let io = Tls::new("default.test", &["http/1.1"]).connect(gateway.address()).await.unwrap();
    WebSocket::connect(io, "default.test", "/", "").await.unwrap().0
}

async fn http2(gateway: &Gateway) -> Http2 {
    let io = Tls::new("default.test", &["h2"]).connect(gateway.address()).await.unwrap();
    Http2::connect(io, "default.test").await
}

/// A backend that hands each session to the test.
async fn handing_over() -> (Backend, mpsc::UnboundedReceiver<WebSocket>) {
    let (tell, told) = mpsc::unbounded_channel();
    let backend = Backend::start(move |tcp| {
        let tell = tell.clone();
        async move { drop(tell.send(WebSocket::serve(tcp, "").await.0)) }
    })
    .await;
    (backend, told)
}

#[tokio::test]
async fn every_socket_gets_a_close_and_the_process_ends_with_the_last() {
    for signal in ["TERM", "INT"] {
        let (backend, _seen) = echo().await;
        let mut gateway = start("drain_window = \"200ms\"", &route("/", backend.address));
        let mut client = http2(&gateway).await;
        let mut sockets = vec![client.websocket("/", &[]).await.unwrap().0];
        for _ in 0..10 {
            sockets.push(over_http1(&gateway).await);
        }
        for socket in &mut sockets {
            socket.echoes("x").await;
        }
        gateway.signal(signal);
        for socket in &mut sockets {
            socket.expect_close(1001).await;
            socket.close(1001).await;
        }
        sockets.clear();
        gateway.ends_well();
        let sessions = gateway.lines("session");
        assert_eq!(sessions.len(), 11);
        assert!(sessions.iter().all(|line| line["ended_by"] == "gateway" && line["close_code"] == 1001));
        gateway.wait("drained: the last connection has ended");
    }
}

#[tokio::test]
async fn a_fragmented_message_in_flight_is_finished_first() {
    let (backend, mut sessions) = handing_over().await;
    let mut gateway = start("drain_window = \"1ms\"", &route("/", backend.address));
    let mut client = over_http1(&gateway).await;
    let mut server = soon(sessions.recv()).await.unwrap();
    // 10 MiB on their way down in fragments, and a text on its way up.
    let fragment = vec![1; 1 << 20];
    server.send(0x02, &fragment).await;
    assert_eq!(client.receive().await.unwrap().b0, 0x02);
    client.send(0x01, "be").await;
    assert_eq!(server.receive().await.unwrap().b0, 0x01);
    gateway.signal("TERM");
    gateway.wait("draining: no new connections are accepted; SIGINT ends the gateway at once");
    let (mut from, mut to) = (client, server);
    for i in 0..9 {
        to.send(if i == 8 { 0x80 } else { 0x00 }, &fragment).await;
        let frame = from.receive().await.unwrap();
        assert_eq!((frame.b0 & 0x0F, frame.payload.len()), (0, 1 << 20), "valid frames only");
    }
    from.expect_close(1001).await;
    from.send(0x80, "gun").await;
    assert_eq!(to.receive().await.unwrap().payload, b"gun");
    to.expect_close(1001).await;
    to.close(1001).await;
    from.close(1001).await;
    from.expect_end().await;
    drop((from, to));
    gateway.ends_well();
}

#[tokio::test]
async fn a_client_in_the_middle_of_a_long_upload_gets_valid_frames_only() {
    let (backend, _seen) = echo().await;
    let mut gateway = start("drain_window = \"1ms\"", &route("/", backend.address));
    let mut client = http2(&gateway).await;
    let over_http2 = client.websocket("/", &[]).await.unwrap().0;
    let mut sockets = [over_http1(&gateway).await, over_http2];
    let fragment = vec![0xA5; 1 << 20];
    for socket in &mut sockets {
        socket.send(0x02, &fragment).await;
        let frame = socket.receive().await.unwrap();
        assert_eq!((frame.b0, frame.payload.len()), (0x02, 1 << 20));
    }
    gateway.signal("TERM");
    gateway.wait("draining: no new connections are accepted; SIGINT ends the gateway at once");
    for i in 1..10 {
        for socket in &mut sockets {
            let b0 = if i == 9 { 0x80 } else { 0x00 };
            socket.send(b0, &fragment).await;
            let frame = socket.receive().await.unwrap();
            assert!(frame.b0 == b0 && frame.payload == fragment, "fragment {i}: {:x}", frame.b0);
        }
    }
    for socket in &mut sockets {
        socket.expect_close(1001).await;
        socket.close(1001).await;
        socket.expect_end().await;
    }
    drop((sockets, client));
    gateway.ends_well();
    let sessions = gateway.lines("session");
    assert!(sessions.iter().all(|line| line["sent_bytes"] == 10 << 20), "{sessions:?}");
}

#[tokio::test]
async fn for_drain_delay_it_is_not_ready_and_serves_on() {
    const DELAY: Duration = Duration::from_secs(2);
    let (backend, _seen) = echo().await;
    let top = "drain_delay = \"2s\"\ndrain_window = \"1ms\"\ndrain_close_code = 1012";
    let mut gateway = start(top, &(route("/", backend.address) + "[admin]\naddress = \"127.0.0.3:0\"\n"));
    let admin = gateway.admin();
    let readyz = async || {
        let mut io = TcpStream::connect(admin).await.unwrap();
        let answer = ask(&mut io, "GET /readyz HTTP/1.1\r\nHost: admin\r\n\r\n").await;
        (answer.status(), answer.text())
    };
    let mut old = over_http1(&gateway).await;
    assert_eq!(readyz().await.0, 200);
    let before = Instant::now();
    gateway.signal("TERM");
    gateway.wait("about to drain: not ready any more, but connections are still accepted; SIGINT ends the gateway at once");
    assert_eq!(readyz().await, (503, "about to drain: connections are still accepted\n".to_owned()));
    let mut new = over_http1(&gateway).await;
    let mut plain = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
    let request = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    assert_eq!(ask(&mut plain, request).await.status(), 200);
    gateway.signal("HUP");
    gateway.wait("SIGHUP has no effect: the gateway is draining");
    for socket in [&mut old, &mut new] {
        socket.echoes("as if nothing were").await;
    }
    assert!(before.elapsed() < DELAY, "this machine is too slow to show anything");
    for socket in [&mut old, &mut new] {
        socket.expect_close(1012).await;
    }
    assert!(before.elapsed() >= DELAY);
    assert_eq!(readyz().await, (503, "draining: no new connections are accepted\n".to_owned()));
    soon(async { while TcpStream::connect(gateway.address()).await.is_ok() {} }).await;
    for socket in [&mut old, &mut new] {
        socket.close(1012).await;
        socket.expect_end().await;
    }
    drop((old, new, plain));
    gateway.ends_well();
    let sessions = gateway.lines("session");
    assert!(sessions.iter().all(|line| line["close_code"] == 1012), "{sessions:?}");
    assert_ne!(sessions[0]["id"], sessions[1]["id"]);
}

#[tokio::test]
async fn a_second_signal_in_drain_delay_ends_it_at_once() {
    let (backend, _seen) = echo().await;
    let top = "drain_delay = \"30m\"\ndrain_timeout = \"1h\"";
    let mut gateway = start(top, &route("/", backend.address));
    gateway.signal("TERM");
    gateway.wait("about to drain: not ready any more, but connections are still accepted; SIGINT ends the gateway at once");
    gateway.signal("INT");
    assert!(!gateway.wait_end().success());
}

#[tokio::test]
async fn what_does_not_end_is_closed_between_frames_or_cut_at_the_deadline() {
    let (backend, mut sessions) = handing_over().await;
    let mut gateway = start("drain_timeout = \"2s\"\ndrain_window = \"1ms\"", &route("/", backend.address));
    let mut fragments = over_http1(&gateway).await;
    let mut first = soon(sessions.recv()).await.unwrap();
    first.send(0x01, "a fragment").await;
    assert_eq!(fragments.receive().await.unwrap().b0, 0x01);
    let mut frame = over_http1(&gateway).await;
    let mut second = soon(sessions.recv()).await.unwrap();
    second.send_raw(&[0x82, 5, 1]).await;
    let mut begun = [0; 3];
    soon(frame.io.read_exact(&mut begun)).await.unwrap();
    let before = Instant::now();
    gateway.signal("TERM");
    fragments.expect_close(1001).await;
    let cut = soon(frame.io.read_u8()).await.unwrap_err();
    assert_eq!(cut.kind(), std::io::ErrorKind::UnexpectedEof, "{cut}");
    gateway.ends_well();
    assert!(before.elapsed() >= Duration::from_millis(900), "not before its time");
    assert_eq!(gateway.lines("session").len(), 2);
}

#[tokio::test]
async fn requests_in_flight_are_answered_and_no_new_ones_taken() {
    let (go, gone) = tokio::sync::watch::channel(false);
    let backend = Backend::start(move |mut tcp| {
        let mut gone = gone.clone();
        async move {
            read_head(&mut tcp).await;
            gone.wait_for(|go| *go).await.unwrap();
            let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let mut gateway =
        start("", &(route("/", backend.address) + "[[route]]\npath = \"/page\"\nservice = \"console\"\n"));
    let mut idle = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
    assert_eq!(ask(&mut idle, "GET /page/ HTTP/1.1\r\nHost: a.test\r\n\r\n").await.status(), 200);
    let mut busy = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
    busy.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
    let mut client = http2(&gateway).await;
    let request = client.request(http::Method::GET, "/");
    let (response, _send) = client.begin(request, true).await;
    gateway.wait_for(|line| line["message"] == "TLS handshake done", 0, "the handshake");
    let request = client.request(http::Method::GET, "/page/");
    assert_eq!(client.ask(request).await.status(), 200); // so the one before it has arrived
    gateway.signal("TERM");
    assert_eq!(soon(idle.read(&mut [0])).await.unwrap(), 0, "an idle connection ends at once");
    soon(async { while TcpStream::connect(gateway.address()).await.is_ok() {} }).await;
    go.send(true).unwrap();
    let answer = read_answer(&mut busy, false).await.unwrap();
    assert_eq!((answer.text().as_str(), answer.head.get("connection")), ("ok", Some("close")));
    assert_eq!(support::http2::read(soon(response).await.unwrap()).await.text(), "ok");
    drop((busy, client));
    gateway.ends_well();
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let (backend, _seen) = echo().await;
    let mut gateway = start("drain_timeout = \"1h\"\ndrain_window = \"1h\"", &route("/", backend.address));
    let mut socket = over_http1(&gateway).await;
    socket.echoes("x").await;
    gateway.signal("TERM");
    gateway.wait("draining: no new connections are accepted; SIGINT ends the gateway at once");
    socket.echoes("still").await;
    gateway.signal("TERM");
    assert!(!gateway.wait_end().success());
}
