//! Servers over HTTP/2: `protocol = "h2"`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::net::SocketAddr;

use bytes::Bytes;
use h2::server::Builder;
use http::{HeaderMap, Method};
use support::gateway::{Gateway, Setup, config};
use support::http1::ask;
use support::http2::{Http2, read};
use support::http2_server::{echo, start};
use support::pki::Pki;
use support::soon;
use support::tls::Tls;
use tokio::net::TcpStream;

fn setup() -> Setup {
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate"));
    Pki::new().issue(&["default.test"]).write(&setup.path().join("certs"), "default");
    setup
}

fn gateway(server: SocketAddr, more: &str) -> Gateway {
    setup().start(&config(
        "workers = 1",
        &format!("[[route]]\npath = \"/\"\nproxy = \"http://{server}\"\nprotocol = \"h2\"\n{more}"),
    ))
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
async fn requests_of_both_kinds_of_clients_share_a_connection() {
    let (server, seen) = start(Builder::new(), echo).await;
    let gateway = gateway(server.address, "");
    let (mut h1, mut h2) = (http1(&gateway).await, http2(&gateway).await);
    for _ in 0..3 {
        let answer = ask(&mut h1, get("/a?b")).await;
        assert_eq!(answer.text(), "GET http://default.test/a?b HTTP/2\n");
        let answer = h2.ask(h2.request(Method::GET, "/c")).await;
        assert_eq!(answer.text(), "GET http://default.test/c HTTP/2\n");
    }
    assert_eq!((seen.connections(), seen.count()), (1, 6));
    let head = seen.last();
    for (name, expect) in [
        ("x-forwarded-proto", Some("https")),
        ("x-forwarded-host", Some("default.test")),
        ("via", Some("2.0 wssgate")),
        ("host", None),
        ("connection", None),
    ] {
        assert_eq!(head.headers.get(name).map(|value| value.to_str().unwrap()), expect, "{name}");
    }
    let head = ask(&mut h1, "HEAD /x HTTP/1.1\r\nHost: default.test\r\n\r\n").await;
    assert_eq!((head.status(), head.head.get("x-line")), (200, Some("HEAD http://default.test/x HTTP/2")));
    let old = ask(&mut http1(&gateway).await, "GET /x HTTP/1.0\r\n\r\n").await;
    assert_eq!(old.text(), format!("GET http://{}/x HTTP/2\n", server.address));

    let line = gateway.wait("request");
    assert_eq!(line["backend_protocol"], "HTTP/2");
}

#[tokio::test]
async fn bodies_and_trailers_pass_both_ways() {
    let (server, seen) = start(Builder::new(), echo).await;
    let gateway = gateway(server.address, "");
    let mut h1 = http1(&gateway).await;
    let long = "x".repeat(300_000);
    let request =
        format!("POST /x HTTP/1.1\r\nHost: default.test\r\nContent-Length: {}\r\n\r\n{long}", long.len());
    let answer = ask(&mut h1, request).await;
    assert!(answer.text() == long && answer.whole);
    assert_eq!(seen.last().headers["content-length"], "300000");
    let chunks = "POST /x HTTP/1.1\r\nHost: default.test\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n\
                  2\r\nhe\r\n3\r\nllo\r\n0\r\nX-Sum: 1\r\n\r\n";
    let answer = ask(&mut h1, chunks).await;
    assert_eq!(answer.text(), "hello");
    assert!(!seen.last().headers.contains_key("content-length"));

    let mut h2 = http2(&gateway).await;
    let mut request = h2.request(Method::POST, "/grpc");
    request.headers_mut().insert("te", "trailers".parse().unwrap());
    let (response, mut send) = h2.begin(request, false).await;
    // The answer begins before the request has ended, and each part of one comes after one of the other.
    let mut response = soon(response).await.unwrap();
    for part in ["one", "two"] {
        send.send_data(Bytes::from(part), false).unwrap();
        assert_eq!(soon(response.body_mut().data()).await.unwrap().unwrap(), part);
    }
    send.send_data(Bytes::from(long.clone()), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    send.send_trailers(trailers).unwrap();
    let answer = read(response).await;
    assert!(answer.text() == long);
    assert_eq!(answer.trailers.unwrap()["grpc-status"], "0");
    assert_eq!(seen.last().headers["te"], "trailers");
}
