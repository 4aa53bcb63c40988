//! How servers are reached.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use http::Method;
use support::backend::echo_on;
use support::gateway::{Gateway, Setup, config};
use support::http1::ask;
use support::http2::Http2;
use support::pki::Pki;
use support::tls::Tls;
use support::ws::WebSocket;
use tokio::net::TcpStream;

fn setup() -> Setup {
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate"));
    Pki::new().issue(&["default.test"]).write(&setup.path().join("certs"), "default");
    setup
}

async fn http2(gateway: &Gateway) -> Http2 {
    let io = Tls::new("default.test", &["h2"]).connect(gateway.address()).await.unwrap();
    Http2::connect(io, "default.test").await
}

async fn http1(gateway: &Gateway) -> TcpStream {
    TcpStream::connect(gateway.addresses()[1]).await.unwrap()
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: default.test\r\n\r\n")
}

#[tokio::test]
async fn a_server_on_a_unix_socket_gets_requests_and_websockets() {
    let setup = setup();
    let socket = setup.path().join("app.sock");
    let (server, seen) = echo_on(&socket);
    let socket = socket.to_str().unwrap();
    let gateway = setup.start(&config(
        "workers = 1",
        &format!(
            "[[route]]\npath = \"/\"\nproxy = \"unix:{socket}\"\n\
             [[route]]\npath = \"/app\"\nproxy = \"http://unix:{socket}:/\"\n\
             [[route]]\npath = \"/gone\"\nproxy = \"unix:{socket}.gone\"\n"
        ),
    ));
    let mut h1 = http1(&gateway).await;
    for (path, got) in [("/x", "/x"), ("/app/y", "/y"), ("/app", "/")] {
        assert_eq!(ask(&mut h1, get(path)).await.text(), format!("GET {got} HTTP/1.1\n"));
    }
    let mut h2 = http2(&gateway).await;
    assert_eq!(h2.ask(h2.request(Method::GET, "/x")).await.text(), "GET /x HTTP/1.1\n");
    let old = ask(&mut http1(&gateway).await, "GET /x HTTP/1.0\r\n\r\n").await;
    assert_eq!((old.status(), seen.last().get("host")), (200, Some("localhost")));

    let (mut socket_1, _) =
        WebSocket::connect(http1(&gateway).await, "default.test", "/app/ws", "").await.unwrap();
    assert_eq!(seen.last().line, "GET /ws HTTP/1.1");
    let (mut socket_2, _) = h2.websocket("/ws", &[]).await.unwrap();
    for text in ["one".to_owned(), "two".to_owned(), "x".repeat(300_000)] {
        socket_1.echoes(&text).await;
        socket_2.echoes(&text).await;
    }
    socket_1.close(1000).await;
    socket_1.hears_close(1000).await;
    let line = gateway.wait("session");
    assert_eq!(line["backend"], format!("unix:{socket}"));

    let answer = ask(&mut h1, get("/gone")).await;
    assert_eq!(answer.status(), 502);
    let line = gateway.wait_for(|line| line["status"] == 502, 0, "a 502");
    assert_eq!(line["backend"], format!("unix:{socket}.gone"));
    let cause = line["cause"].as_str().unwrap();
    assert!(cause.contains(&format!("can't connect to unix:{socket}.gone: No such file")), "{cause}");
    server.abort();
}
