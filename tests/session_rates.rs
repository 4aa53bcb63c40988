//! What a client of a WebSocket may send: messages and bytes a second.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::time::{Duration, Instant};

use support::backend::echo;
use support::gateway::{Gateway, Setup, config};
use support::http2::Http2;
use support::tls::Tls;
use support::until;
use support::ws::WebSocket;
use tokio::net::TcpStream;

/// A gateway with a route to an echoing backend, one to the echo service, and one whose sessions are redialled.
async fn start(websocket: &str) -> Gateway {
    let (backend, _seen) = echo().await;
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"]);
    let address = backend.address;
    std::mem::forget(backend); // it serves as long as the test runs
    let upstream = format!(
        "[[upstream]]\nname = \"lasting\"\nservers = \"http://{address}\"\nsession_lost = \"redial\"\n"
    );
    let route = |path: &str, action: &str| {
        format!("[[route]]\npath = \"{path}\"\n{action}\n[route.websocket]\n{websocket}\n")
    };
    let routes = route("/", &format!("proxy = \"http://{address}\""))
        + &route("/echo", "service = \"echo\"")
        + &route("/lasting", "proxy = \"lasting\"");
    setup.start(&config("", &(upstream + &routes + "[admin]\naddress = \"127.0.0.3:0\"\n")))
}

async fn open(gateway: &Gateway, path: &str) -> WebSocket {
    let tcp = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
    WebSocket::connect(tcp, "default.test", path, "").await.unwrap().0
}

async fn http2(gateway: &Gateway) -> Http2 {
    let io = Tls::new("default.test", &["h2"]).connect(gateway.address()).await.unwrap();
    Http2::connect(io, "default.test").await
}

/// Sends so many messages at once, gets each back, and says how long that took.
async fn flood(socket: &mut WebSocket, count: usize) -> Duration {
    let begin = Instant::now();
    for n in 0..count {
        socket.text(&format!("message {n}")).await;
    }
    for n in 0..count {
        socket.expect_text(&format!("message {n}")).await;
    }
    begin.elapsed()
}

#[tokio::test]
async fn a_client_that_sends_too_many_messages_is_delayed_and_loses_none() {
    // It is neither pinged nor idle while it has to wait, though that takes longer than both allow.
    let gateway = start(
        "messages = \"4/s\"\nping_interval = \"100ms\"\npong_timeout = \"100ms\"\nidle_timeout = \"200ms\"",
    )
    .await;
    for path in ["/", "/echo", "/lasting"] {
        let took = flood(&mut open(&gateway, path).await, 8).await;
        assert!(took >= Duration::from_millis(950), "{path}: {took:?}");
    }
    let mut client = http2(&gateway).await;
    let (mut socket, _) = client.websocket("/", &[]).await.unwrap();
    let took = flood(&mut socket, 8).await;
    assert!(took >= Duration::from_millis(950), "HTTP/2: {took:?}");
    assert!(gateway.metric("wssgate_session_pauses_total").await >= 4);
    assert_eq!(gateway.metric("wssgate_sessions_limited_total").await, 0);
}

#[tokio::test]
async fn bytes_are_limited_as_messages_are() {
    let gateway = start("bytes = \"1000B/s\"").await;
    for path in ["/", "/echo"] {
        let mut socket = open(&gateway, path).await;
        let begin = Instant::now();
        let text = "x".repeat(2000);
        socket.text(&text).await;
        socket.expect_text(&text).await;
        let took = begin.elapsed();
        assert!(took >= Duration::from_millis(1000), "{path}: {took:?}");
    }
}

#[tokio::test]
async fn a_session_is_closed_where_the_route_says_so() {
    let gateway = start("messages = \"3/h\"\nbytes = \"1KiB/s\"\non_limit = \"close\"").await;
    for (n, path) in ["/", "/echo", "/lasting"].into_iter().enumerate() {
        let mut socket = open(&gateway, path).await;
        flood(&mut socket, 3).await;
        socket.text("one too many").await;
        socket.expect_close(1008).await;
        socket.close(1008).await;
        let line = gateway.wait_nth("session", n);
        assert_eq!(line["close_code"], 1008, "{path}");
        let cause = line["cause"].as_str().unwrap();
        assert_eq!(cause, "client sent more than messages or bytes of its route allow");
        assert_eq!(line["limit"], "messages", "{path}");
    }
    let mut client = http2(&gateway).await;
    let (mut socket, _) = client.websocket("/", &[]).await.unwrap();
    socket.text(&"x".repeat(5000)).await;
    socket.expect_close(1008).await;
    socket.close(1008).await;
    assert_eq!(gateway.wait_nth("session", 3)["limit"], "bytes");
    assert_eq!(gateway.metric("wssgate_sessions_limited_total").await, 4);
}

/// It has been told to end, and ends in the new process or in the old one.
#[tokio::test]
async fn a_session_that_is_over_its_limit_says_so_behind_a_takeover() {
    let gateway = start("messages = \"3/h\"\non_limit = \"close\"").await;
    for (n, path) in ["/", "/echo", "/lasting"].into_iter().enumerate() {
        let mut socket = open(&gateway, path).await;
        flood(&mut socket, 3).await;
        socket.text("one too many").await;
        socket.expect_close(1008).await;
        gateway.take_over();
        socket.close(1008).await;
        let line = gateway.wait_nth("session", n);
        assert_eq!((&line["close_code"], &line["limit"]), (&1008.into(), &"messages".into()), "{path}");
    }
}

#[tokio::test]
async fn what_is_left_of_a_rate_goes_along_at_a_takeover() {
    let gateway = start("messages = \"6/m\"").await;
    let mut socket = open(&gateway, "/").await;
    flood(&mut socket, 6).await;
    // Two more wait, which have been read: they move, and come in their time.
    let begin = Instant::now();
    socket.text("seven").await;
    socket.text("eight").await;
    until(async || gateway.metric("wssgate_session_pauses_total").await > 0).await;
    gateway.take_over();
    gateway.wait("sessions moved: they go on in the new process");
    socket.expect_text("seven").await;
    assert!(begin.elapsed() >= Duration::from_secs(9), "{:?}", begin.elapsed());
    socket.expect_text("eight").await;
    assert!(begin.elapsed() >= Duration::from_secs(19), "{:?}", begin.elapsed());
}
