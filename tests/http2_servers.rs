//! Servers over HTTP/2: `protocol = "h2"`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use h2::Reason;
use h2::server::Builder;
use http::{HeaderMap, Method, Response};
use support::backend::Backend;
use support::gateway::{Gateway, Setup, config};
use support::http1::ask;
use support::http2::{Http2, read};
use support::http2_server::{
    Exchange, Http2Seen, answer, by_hand, connection, echo, frame, frames, goaway, start,
};
use support::pki::Pki;
use support::tls::{TLS12, TLS13, Tls, acceptor};
use support::ws::WebSocket;
use support::{PATIENCE, backend, soon};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

fn setup() -> Setup {
    Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"])
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
    assert!(line["connect_ms"].is_number() && line["answer_ms"].is_number(), "{line}");
    let line = gateway.wait_nth("request", 1);
    assert!(line["connect_ms"].is_null() && line["answer_ms"].is_number(), "there is a connection: {line}");
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

/// A server that offers WebSockets (RFC 8441).
fn with_websockets() -> Builder {
    let mut builder = Builder::new();
    builder.enable_connect_protocol();
    builder
}

#[tokio::test]
async fn websockets_of_both_kinds_of_clients_are_streams_of_one_connection() {
    let (server, seen) = start(with_websockets(), echo).await;
    let gateway = gateway(server.address, "");
    let mut h2 = http2(&gateway).await;
    let fields = "Sec-WebSocket-Protocol: v2, v1\r\n";
    let (mut first, head) =
        WebSocket::connect(http1(&gateway).await, "default.test", "/ws?a", fields).await.unwrap();
    assert_eq!(head.get("sec-websocket-protocol"), Some("v2"));
    let asked = seen.last();
    assert_eq!(
        (asked.method, asked.uri.to_string()),
        (Method::CONNECT, "http://default.test/ws?a".to_owned())
    );
    for (name, expect) in [
        ("sec-websocket-version", Some("13")),
        ("sec-websocket-key", None),
        ("upgrade", None),
        ("connection", None),
    ] {
        assert_eq!(asked.headers.get(name).map(|value| value.to_str().unwrap()), expect, "{name}");
    }
    let (mut second, head) = h2.websocket("/ws", &[("sec-websocket-protocol", "v1")]).await.unwrap();
    assert_eq!(head.headers["sec-websocket-protocol"], "v1");
    for text in ["one".to_owned(), "two".to_owned(), "x".repeat(500_000)] {
        first.echoes(&text).await;
        second.echoes(&text).await;
    }
    assert_eq!(h2.ask(h2.request(Method::GET, "/")).await.status(), 200);
    assert_eq!(seen.connections(), 1);
    first.close(1000).await;
    first.expect_close(1000).await;
    let line = gateway.wait("session");
    assert_eq!(line["backend_protocol"], "HTTP/2");
    assert_eq!((&line["ended_by"], &line["close_code"]), (&"client".into(), &1000.into()));
    assert!(line["connect_ms"].is_number() && line["answer_ms"].is_number(), "{line}");
    second.close(1000).await;
    second.expect_close(1000).await;
    let line = gateway.wait_nth("session", 1);
    assert!(line["connect_ms"].is_null() && line["answer_ms"].is_number(), "there is a connection: {line}");
}

#[tokio::test]
async fn a_handshake_that_a_server_declines_is_answered_with_what_it_says() {
    let decline = |(request, mut respond): Exchange| async move {
        assert_eq!(request.method(), Method::CONNECT);
        let head = Response::builder().status(403).header("x-why", "no").body(()).unwrap();
        let mut send = respond.send_response(head, false).unwrap();
        send.send_data("not today".into(), true).unwrap();
    };
    let (server, _) = start(with_websockets(), decline).await;
    let gateway = gateway(server.address, "");
    let Err(head) = WebSocket::connect(http1(&gateway).await, "default.test", "/", "").await else {
        panic!("it is open")
    };
    assert_eq!((head.status(), head.get("x-why")), (403, Some("no")));
    let Err(answer) = http2(&gateway).await.websocket("/", &[]).await else { panic!("it is open") };
    assert_eq!((answer.status(), answer.text().as_str()), (403, "not today"));
}

#[tokio::test]
async fn without_an_offer_a_websocket_gets_http1_at_once_and_that_is_remembered() {
    let (server, seen, heads) = of_both(Builder::new(), echo).await;
    let gateway = gateway(server.address, "");
    let mut h2 = http2(&gateway).await;
    for round in 1..=3 {
        let (mut first, _) =
            WebSocket::connect(http1(&gateway).await, "default.test", "/ws", "").await.unwrap();
        let (mut second, _) = h2.websocket("/ws", &[]).await.unwrap();
        first.echoes("one").await;
        second.echoes("two").await;
        assert_eq!((seen.connections(), heads.count()), (1, 2 * round));
    }
    assert_eq!(h2.ask(h2.request(Method::GET, "/")).await.text(), "GET http://default.test/ HTTP/2\n");
    assert_eq!(seen.connections(), 1, "the one that was asked for its settings");
}

/// A server which speaks both on one port, as nginx does: the preface of HTTP/2 decides.
async fn of_both<F, Fut>(builder: Builder, serve: F) -> (Backend, Http2Seen, backend::Seen)
where
    F: Fn(Exchange) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let (seen, heads) = (Http2Seen::default(), backend::Seen::default());
    let (of_http2, of_http1) = (seen.clone(), heads.clone());
    let server = Backend::start(move |tcp| {
        let (seen, heads) = (of_http2.clone(), of_http1.clone());
        let (builder, serve) = (builder.clone(), serve.clone());
        async move {
            let mut front = [0; 3];
            while tcp.peek(&mut front).await.unwrap() < 3 {}
            if &front == b"PRI" {
                connection(tcp, &builder, &seen, serve).await;
            } else {
                backend::serve(tcp, &heads).await;
            }
        }
    })
    .await;
    (server, seen, heads)
}

#[tokio::test]
async fn a_request_that_a_server_wants_over_http1_gets_it_and_others_stay_over_http2() {
    let serve = |(request, mut respond): Exchange| async move {
        let (head, mut body) = request.into_parts();
        if head.uri.path() == "/http2" {
            return echo((http::Request::from_parts(head, body), respond)).await;
        }
        // Some of the body has been taken.
        if head.method == Method::POST {
            body.data().await;
        }
        respond.send_reset(Reason::HTTP_1_1_REQUIRED);
    };
    let (server, seen, heads) = of_both(with_websockets(), serve).await;
    let gateway = gateway(server.address, "");
    let mut h1 = http1(&gateway).await;
    assert_eq!(ask(&mut h1, get("/http2")).await.text(), "GET http://default.test/http2 HTTP/2\n");
    let post = "POST /a?b HTTP/1.1\r\nHost: default.test\r\nTE: trailers\r\nConnection: TE\r\nX-A: 1\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(ask(&mut h1, post).await.text(), "POST /a?b HTTP/1.1\n");
    let head = heads.last();
    for (name, value) in [
        ("host", "default.test"),
        ("content-length", "5"),
        ("x-a", "1"),
        ("connection", "TE"),
        ("x-forwarded-proto", "http"),
    ] {
        assert_eq!(head.get(name), Some(value), "{name}");
    }
    assert_eq!(gateway.wait_nth("request", 1).get("backend_protocol"), None, "it had it over HTTP/1.1");
    // One client's request is no reason to ask for others over HTTP/1.1.
    let mut h2 = http2(&gateway).await;
    for (path, line) in [("/b", "GET /b HTTP/1.1\n"), ("/http2", "GET http://default.test/http2 HTTP/2\n")] {
        assert_eq!(h2.ask(h2.request(Method::GET, path)).await.text(), line);
        assert_eq!(ask(&mut h1, get(path)).await.text(), line);
    }
    assert_eq!(seen.count(), 6);
}

#[tokio::test]
async fn a_server_that_ends_its_connection_because_it_wants_http1_gets_all_over_it() {
    const GOAWAY: &[u8] = &[0, 0, 0, 0, 0, 0, 0, 13]; // HTTP_1_1_REQUIRED, and no stream was looked at
    let (heads, connections) = (backend::Seen::default(), Arc::<AtomicUsize>::default());
    let (of_http1, count) = (heads.clone(), connections.clone());
    let server = Backend::start(move |tcp| {
        let (heads, count) = (of_http1.clone(), count.clone());
        async move {
            let mut front = [0; 3];
            while tcp.peek(&mut front).await.unwrap() < 3 {}
            if &front == b"PRI" {
                let number = count.fetch_add(1, Ordering::SeqCst);
                let _ = frames(tcp, &[], number, &|_, _| Some(frame(7, 0, 0, GOAWAY))).await;
            } else {
                backend::serve(tcp, &heads).await;
            }
        }
    })
    .await;
    let gateway = gateway(server.address, "");
    let (mut h1, mut h2) = (http1(&gateway).await, http2(&gateway).await);
    for _ in 0..2 {
        assert_eq!(ask(&mut h1, get("/a")).await.text(), "GET /a HTTP/1.1\n");
        assert_eq!(h2.ask(h2.request(Method::POST, "/b")).await.text(), "POST /b HTTP/1.1\n");
    }
    assert_eq!((connections.load(Ordering::SeqCst), heads.count()), (1, 4));
}

#[tokio::test]
async fn a_websocket_that_a_server_wants_over_http1_gets_it_and_requests_stay_over_http2() {
    let serve = |(request, mut respond): Exchange| async move {
        if request.method() == Method::CONNECT {
            respond.send_reset(Reason::HTTP_1_1_REQUIRED);
        } else {
            echo((request, respond)).await;
        }
    };
    let (server, seen, heads) = of_both(with_websockets(), serve).await;
    let gateway = gateway(server.address, "");
    for _ in 0..2 {
        let (mut socket, _) =
            WebSocket::connect(http1(&gateway).await, "default.test", "/ws", "").await.unwrap();
        socket.echoes("one").await;
    }
    assert_eq!((seen.count(), heads.count()), (2, 2));
    let answer = ask(&mut http1(&gateway).await, get("/x")).await;
    assert_eq!(answer.text(), "GET http://default.test/x HTTP/2\n");
}

#[tokio::test]
async fn a_reset_of_a_tunnel_and_its_end_reach_the_other_side() {
    // The server resets the first, and ends the second without a Close.
    let count = Arc::new(AtomicUsize::new(0));
    let serve = move |(request, mut respond): Exchange| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        async move {
            let mut send = respond.send_response(Response::new(()), false).unwrap();
            request.into_body().data().await.unwrap().unwrap(); // a reset overtakes what is queued
            if number == 0 {
                send.send_reset(Reason::INTERNAL_ERROR);
            } else {
                send.send_data(Bytes::new(), true).unwrap();
            }
        }
    };
    let (server, _) = start(with_websockets(), serve).await;
    let gateway = gateway(server.address, "");
    for n in 0..2 {
        let (mut socket, _) =
            WebSocket::connect(http1(&gateway).await, "default.test", "/ws", "").await.unwrap();
        socket.text("go").await;
        socket.expect_close(1011).await;
        let line = gateway.wait_nth("session", n);
        assert_eq!(line["ended_by"], "backend");
    }

    // A client that is gone ends the stream of its server.
    let (told, mut hears) = tokio::sync::mpsc::unbounded_channel();
    let serve = move |(request, mut respond): Exchange| {
        let told = told.clone();
        async move {
            let _send = respond.send_response(Response::new(()), false).unwrap();
            let mut body = request.into_body();
            let mut reason = None;
            while let Some(data) = body.data().await {
                if let Err(e) = data {
                    reason = e.reason();
                    break;
                }
            }
            told.send(reason).unwrap();
        }
    };
    let (server, _) = start(with_websockets(), serve).await;
    let gateway = self::gateway(server.address, "");
    let (socket, _) = WebSocket::connect(http1(&gateway).await, "default.test", "/ws", "").await.unwrap();
    drop(socket);
    let heard = soon(hears.recv()).await.unwrap();
    assert_eq!(heard, None, "END_STREAM is what FIN is");
}

#[tokio::test]
async fn behind_tls_a_server_has_to_choose_it_by_alpn() {
    for versions in [TLS13, TLS12] {
        let setup = setup();
        let pki = Pki::new();
        std::fs::write(setup.path().join("ca.pem"), pki.root_pem()).unwrap();
        let tls = acceptor(versions, &pki.issue(&["app.internal"]), None);
        let seen = support::http2_server::Http2Seen::default();
        let (of_server, of_both) = (seen.clone(), tls.clone());
        let server = Backend::start(move |tcp| {
            let (tls, seen) = (of_both.clone(), of_server.clone());
            async move {
                let Ok(stream) = tls.accept(tcp).await else { return };
                assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
                connection(stream, &with_websockets(), &seen, echo).await;
            }
        })
        .await;
        let mut old = rustls_server(&pki, versions);
        let mut refusing = (*old).clone();
        refusing.alpn_protocols = vec![b"http/1.1".into()];
        Arc::make_mut(&mut old).alpn_protocols.clear();
        let [old, refusing] = [old, Arc::new(refusing)].map(|tls| async move {
            let tls = tokio_rustls::TlsAcceptor::from(tls);
            Backend::start(move |tcp| {
                let tls = tls.clone();
                async move {
                    if let Ok(stream) = tls.accept(tcp).await {
                        backend::serve(stream, &backend::Seen::default()).await;
                    }
                }
            })
            .await
        });
        let (old, refusing) = (old.await, refusing.await);
        let route = |path: &str, server: SocketAddr| {
            format!(
                "[[route]]\npath = \"{path}\"\nproxy = \"https://{server}\"\nprotocol = \"h2\"\n\
                 [route.tls]\nca = \"ca.pem\"\nserver_name = \"app.internal\"\n"
            )
        };
        let routes =
            [route("/", server.address), route("/old", old.address), route("/refusing", refusing.address)];
        let gateway = setup.start(&config("workers = 1", &routes.concat()));
        let mut h1 = http1(&gateway).await;
        assert_eq!(ask(&mut h1, get("/x")).await.text(), "GET https://default.test/x HTTP/2\n");
        let (mut socket, _) =
            WebSocket::connect(http1(&gateway).await, "default.test", "/ws", "").await.unwrap();
        for text in ["one".to_owned(), "x".repeat(300_000)] {
            socket.echoes(&text).await;
        }
        assert_eq!(seen.connections(), 1);
        for path in ["/old", "/refusing"] {
            assert_eq!(ask(&mut h1, get(path)).await.status(), 502);
            let line = gateway.wait_for(|line| line["path"] == path, 0, "a 502");
            let cause = line["cause"].as_str().unwrap();
            assert!(
                cause.contains(
                    "the server doesn't choose \"h2\" by ALPN; if it doesn't speak HTTP/2, set protocol"
                ),
                "{cause}"
            );
        }
    }
}

/// The settings of a TLS server, to be changed.
fn rustls_server(
    pki: &Pki,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Arc<rustls::ServerConfig> {
    acceptor(versions, &pki.issue(&["app.internal"]), None).config().clone()
}

#[tokio::test]
async fn what_is_no_http2_is_a_502_that_says_so() {
    let (http1_only, _) = backend::echo().await;
    let silent = Backend::start(|mut tcp| async move {
        let _ = tokio::io::copy(&mut tcp, &mut tokio::io::sink()).await;
    })
    .await;
    let closing = Backend::start(|tcp| async move { drop(tcp) }).await;
    for (server, status, why) in [
        (&http1_only, 502, "the backend began with what is not HTTP/2"),
        (&silent, 502, "the backend sent no HTTP/2 settings within 1s (connect_timeout)"),
        (&closing, 502, "the backend ended the connection in place of an answer to the HTTP/2 preface"),
    ] {
        let gateway = gateway(server.address, "connect_timeout = \"1s\"\n");
        assert_eq!(ask(&mut http1(&gateway).await, get("/")).await.status(), status);
        let line = gateway.wait("request");
        let cause = line["cause"].as_str().unwrap();
        assert!(cause.contains(why), "{cause}");
    }
}

#[tokio::test]
async fn a_refused_stream_is_sent_again_with_its_body() {
    let count = Arc::new(AtomicUsize::new(0));
    let number = count.clone();
    let serve = move |(request, mut respond): Exchange| {
        let number = number.fetch_add(1, Ordering::Relaxed);
        async move {
            if number.is_multiple_of(2) {
                // Some of the body has been taken.
                let (_, mut body) = request.into_parts();
                if !body.is_end_stream() {
                    body.data().await;
                }
                respond.send_reset(Reason::REFUSED_STREAM);
            } else {
                echo((request, respond)).await;
            }
        }
    };
    let (server, seen) = start(Builder::new(), serve).await;
    let gateway = gateway(server.address, "");
    let mut h1 = http1(&gateway).await;
    assert_eq!(ask(&mut h1, get("/")).await.status(), 200);
    let post = "POST / HTTP/1.1\r\nHost: default.test\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(ask(&mut h1, post).await.text(), "hello", "RFC 9113 §8.7: whatever it is");
    let mut h2 = http2(&gateway).await;
    let request = h2.request(Method::POST, "/");
    let (response, mut send) = h2.begin(request, false).await;
    send.send_data("hel".into(), false).unwrap();
    send.send_data("lo".into(), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "1".parse().unwrap());
    send.send_trailers(trailers).unwrap();
    let answer = read(soon(response).await.unwrap()).await;
    assert_eq!((answer.text().as_str(), answer.trailers.is_some()), ("hello", true));
    assert_eq!((seen.count(), seen.connections()), (6, 1));
}

#[tokio::test]
async fn what_is_behind_the_last_stream_of_goaway_is_sent_again() {
    // The first connection answers stream 1 late, and GOAWAY has come before that.
    let server = by_hand(&[], |number, stream| {
        Some(match (number, stream) {
            (0, 1) => Vec::new(),
            (0, 3) => [goaway(1), answer(1, b"first")].concat(),
            (_, stream) => answer(stream, format!("{number}").as_bytes()),
        })
    })
    .await;
    let gateway = gateway(server.address, "");
    let mut h2 = http2(&gateway).await;
    let request = h2.request(Method::GET, "/");
    let (first, _) = h2.begin(request, true).await;
    // Not idempotent: nothing but the server's word allows it.
    let request = h2.request(Method::POST, "/");
    let (second, _) = h2.begin(request, true).await;
    assert_eq!(read(soon(first).await.unwrap()).await.text(), "first");
    assert_eq!(read(soon(second).await.unwrap()).await.text(), "1");
    assert_eq!(h2.ask(h2.request(Method::GET, "/")).await.text(), "1", "the new connection is kept");
}

#[tokio::test]
async fn a_lost_connection_loses_no_request_that_may_be_repeated() {
    // The first connection serves one request and ends at the next.
    let server = by_hand(
        &[],
        |number, stream| if (number, stream) == (0, 3) { None } else { Some(answer(stream, b"ok")) },
    )
    .await;
    let gateway = gateway(server.address, "");
    let mut h1 = http1(&gateway).await;
    for _ in 0..3 {
        assert_eq!(ask(&mut h1, get("/")).await.text(), "ok");
    }
    // One that may have been acted upon is not.
    let server = by_hand(
        &[],
        |number, stream| if (number, stream) == (0, 3) { None } else { Some(answer(stream, b"ok")) },
    )
    .await;
    let gateway = self::gateway(server.address, "");
    let mut h1 = http1(&gateway).await;
    assert_eq!(ask(&mut h1, get("/")).await.text(), "ok");
    let post = "POST / HTTP/1.1\r\nHost: default.test\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(ask(&mut h1, post).await.status(), 502);
    let line = gateway.wait_for(|line| line["status"] == 502, 0, "a 502");
    let cause = line["cause"].as_str().unwrap();
    assert!(cause.contains("broke before it answered"), "{cause}");
}

#[tokio::test]
async fn a_101_over_http2_reaches_no_client() {
    // A literal field whose name is the eighth of the static table, :status (RFC 7541 §6.2.2, Appendix A).
    let server = by_hand(&[], |_, stream| Some(frame(1, 4, stream, b"\x08\x03101"))).await;
    let gateway = gateway(server.address, "");
    assert_eq!(ask(&mut http1(&gateway).await, get("/")).await.status(), 502);
    let line = gateway.wait("request");
    let cause = line["cause"].as_str().unwrap();
    assert!(cause.contains("not valid HTTP/2: 101 over HTTP/2"), "{cause}");
}

#[tokio::test]
async fn a_graceful_end_lets_streams_go_on() {
    let (server, seen) = start(with_websockets(), echo).await;
    let gateway = gateway(server.address, "");
    let (mut socket, _) = WebSocket::connect(http1(&gateway).await, "default.test", "/ws", "").await.unwrap();
    socket.echoes("before").await;
    seen.go_away.notify_one();
    let mut h1 = http1(&gateway).await;
    let begun = Instant::now();
    while seen.connections() < 2 {
        assert_eq!(ask(&mut h1, get("/")).await.status(), 200, "none is lost meanwhile");
        assert!(begun.elapsed() < PATIENCE);
    }
    socket.echoes("after").await;
}

#[tokio::test]
async fn there_are_as_many_connections_as_open_streams_need() {
    // Two streams each: MAX_CONCURRENT_STREAMS (RFC 9113 §6.5.2).
    let mut builder = with_websockets();
    builder.max_concurrent_streams(2);
    let (server, seen) = start(builder, echo).await;
    let gateway = gateway(server.address, "");
    let mut sockets = Vec::new();
    for _ in 0..5 {
        let (mut socket, _) =
            WebSocket::connect(http1(&gateway).await, "default.test", "/ws", "").await.unwrap();
        socket.echoes("here").await;
        sockets.push(socket);
    }
    assert_eq!(seen.connections(), 3);
    // What becomes free is used again.
    let mut first = sockets.remove(0);
    first.close(1000).await;
    first.expect_close(1000).await;
    gateway.wait("session");
    for _ in 0..2 {
        let (mut socket, _) =
            WebSocket::connect(http1(&gateway).await, "default.test", "/ws", "").await.unwrap();
        socket.echoes("here").await;
        sockets.push(socket);
    }
    assert_eq!(seen.connections(), 3);
    // Many at once wait for one another's connection, and don't make one each.
    let mut asking = tokio::task::JoinSet::new();
    let (server, seen) = start(Builder::new(), echo).await;
    let gateway = self::gateway(server.address, "");
    for _ in 0..20 {
        let address = gateway.addresses()[1];
        asking.spawn(
            async move { ask(&mut TcpStream::connect(address).await.unwrap(), get("/")).await.status() },
        );
    }
    assert!(asking.join_all().await.into_iter().all(|status| status == 200));
    assert_eq!(seen.connections(), 1);
}

#[tokio::test]
async fn streams_whose_clients_dont_read_hold_up_no_other() {
    let flood = |(request, mut respond): Exchange| async move {
        if request.uri().path() != "/flood" {
            return echo((request, respond)).await;
        }
        let mut send = respond.send_response(Response::new(()), false).unwrap();
        loop {
            send.reserve_capacity(16_384);
            match std::future::poll_fn(|cx| send.poll_capacity(cx)).await {
                Some(Ok(0)) => {}
                Some(Ok(n)) if send.send_data(vec![b'x'; n].into(), false).is_ok() => {}
                _ => return,
            }
        }
    };
    let (server, seen) = start(Builder::new(), flood).await;
    let gateway = gateway(server.address, "");
    let mut stalled = Vec::new();
    for _ in 0..100 {
        let mut client = http1(&gateway).await;
        tokio::io::AsyncWriteExt::write_all(&mut client, get("/flood").as_bytes()).await.unwrap();
        client.read_u8().await.unwrap();
        stalled.push(client);
    }
    let mut h1 = http1(&gateway).await;
    let long = "x".repeat(1_000_000);
    for _ in 0..3 {
        let post =
            format!("POST / HTTP/1.1\r\nHost: default.test\r\nContent-Length: {}\r\n\r\n{long}", long.len());
        assert!(ask(&mut h1, post).await.text() == long);
    }
    assert_eq!(seen.connections(), 1);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_taken_for_whole() {
    let half = |(_, mut respond): Exchange| async move {
        let mut send = respond.send_response(Response::new(()), false).unwrap();
        send.send_data("half".into(), false).unwrap();
        // Once that has left.
        std::future::poll_fn(|cx| send.poll_reset(cx).map(drop)).await;
    };
    let released = Arc::new(Semaphore::new(0));
    let gate = released.clone();
    let serve = move |exchange: Exchange| {
        let gate = gate.clone();
        async move {
            tokio::select! {
                () = half(exchange) => {}
                _ = gate.acquire() => {} // dropped: RST_STREAM
            }
        }
    };
    let (server, _) = start(Builder::new(), serve).await;
    let gateway = gateway(server.address, "");
    let mut h2 = http2(&gateway).await;
    let (response, _) = h2.send(h2.request(Method::GET, "/"), true).await.unwrap();
    let (head, mut body) = response.into_parts();
    assert_eq!(soon(body.data()).await.unwrap().unwrap(), "half");
    released.add_permits(1);
    let end = soon(body.data()).await;
    assert!(matches!(end, Some(Err(_))), "{head:?} {end:?}");
    let line = gateway.wait("request");
    let cause = line["cause"].as_str().unwrap();
    assert!(cause.contains("the backend's answer was cut off"), "{cause}");
}

#[tokio::test]
async fn interim_answers_and_100_continue_pass() {
    let serve = |(request, mut respond): Exchange| async move {
        let hints = Response::builder().status(103).header("link", "</a.css>").body(()).unwrap();
        respond.send_informational(hints).unwrap();
        if request.headers().contains_key("expect") {
            respond.send_informational(Response::builder().status(100).body(()).unwrap()).unwrap();
            let body = request.into_body().data().await.unwrap().unwrap();
            let mut send = respond.send_response(Response::new(()), false).unwrap();
            return send.send_data(body, true).unwrap();
        }
        echo((request, respond)).await;
    };
    let (server, _) = start(Builder::new(), serve).await;
    let gateway = gateway(server.address, "");
    let mut h1 = http1(&gateway).await;
    tokio::io::AsyncWriteExt::write_all(&mut h1, get("/").as_bytes()).await.unwrap();
    let hints = support::http1::read_head(&mut h1).await.unwrap();
    assert_eq!((hints.status(), hints.get("link")), (103, Some("</a.css>")));
    assert_eq!(support::http1::read_answer(&mut h1, false).await.unwrap().status(), 200);
    let post = "POST / HTTP/1.1\r\nHost: default.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut h1, post.as_bytes()).await.unwrap();
    let mut told = [0, 0].map(|_| 0);
    for status in &mut told {
        *status = support::http1::read_head(&mut h1).await.unwrap().status();
    }
    told.sort_unstable();
    assert_eq!(told, [100, 103]);
    tokio::io::AsyncWriteExt::write_all(&mut h1, b"hello").await.unwrap();
    assert_eq!(support::http1::read_answer(&mut h1, false).await.unwrap().text(), "hello");
}

#[tokio::test]
async fn a_server_that_answers_nothing_is_a_504_and_a_dead_connection_is_left() {
    // The first connection answers neither requests nor PINGs.
    let server = Backend::start({
        let count = Arc::new(AtomicUsize::new(0));
        move |mut tcp| {
            let number = count.fetch_add(1, Ordering::Relaxed);
            async move {
                if number > 0 {
                    return connection(
                        tcp,
                        &Builder::new(),
                        &support::http2_server::Http2Seen::default(),
                        echo,
                    )
                    .await;
                }
                tokio::io::AsyncWriteExt::write_all(&mut tcp, &frame(4, 0, 0, &[])).await.unwrap();
                let _ = tokio::io::copy(&mut tcp, &mut tokio::io::sink()).await;
            }
        }
    })
    .await;
    let gateway = gateway(server.address, "response_timeout = \"200ms\"\n");
    let mut h1 = http1(&gateway).await;
    assert_eq!(ask(&mut h1, get("/")).await.status(), 504);
    assert_eq!(ask(&mut h1, get("/")).await.status(), 200, "another connection");
}

/// What a command of an operator prints.
async fn command(gateway: &Gateway, words: &'static [&'static str]) -> String {
    let socket = gateway.path().join("control.sock");
    let command = move || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_wssgate"));
        command.args(words).arg("--socket").arg(socket).output().unwrap()
    };
    let output = tokio::task::spawn_blocking(command).await.unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// What `wssgate upstreams --json` says of the first server.
async fn first_server(gateway: &Gateway) -> serde_json::Value {
    let answer: serde_json::Value =
        serde_json::from_str(&command(gateway, &["upstreams", "--json"]).await).unwrap();
    answer["upstreams"][0]["servers"][0].clone()
}

#[tokio::test]
async fn operators_see_connections_and_streams_and_sessions_stay_at_a_takeover() {
    let (server, seen) = start(with_websockets(), echo).await;
    let gateway =
        gateway(server.address, "[control]\nsocket = \"control.sock\"\n[admin]\naddress = \"127.0.0.3:0\"\n");
    let mut sockets = Vec::new();
    for _ in 0..3 {
        let (mut socket, _) =
            WebSocket::connect(http1(&gateway).await, "default.test", "/ws", "").await.unwrap();
        socket.echoes("here").await;
        sockets.push(socket);
    }
    let shown = first_server(&gateway).await;
    assert_eq!((&shown["http2_connections"], &shown["http2_streams"]), (&1.into(), &3.into()), "{shown}");
    for words in [&["upstreams"][..], &["status"]] {
        let table = command(&gateway, words).await;
        let said = format!("{} (HTTP/2: 3 streams on 1 connections)", server.address);
        assert!(table.contains(&said), "{table}");
    }
    let mut admin = TcpStream::connect(gateway.admin()).await.unwrap();
    let page = ask(&mut admin, "GET /metrics HTTP/1.1\r\nHost: a.test\r\n\r\n").await.text();
    for (name, count) in [("connections", 1), ("streams", 3)] {
        let labels = format!("{{upstream=\"{0}\",backend=\"{0}\"}}", server.address);
        let line = format!("wssgate_backend_http2_{name}{labels} {count}");
        assert!(page.contains(&format!("\n{line}\n")), "{line} in {page}");
    }
    gateway.take_over();
    let moved = gateway.wait("sessions moved: they go on in the new process");
    assert_eq!((&moved["sessions_moved"], &moved["sessions_left"]), (&0.into(), &3.into()), "{moved}");
    assert_eq!(moved["left"], "http2: 3");
    for socket in &mut sockets {
        socket.echoes("still").await;
    }
    let (mut fresh, _) = WebSocket::connect(http1(&gateway).await, "default.test", "/ws", "").await.unwrap();
    fresh.echoes("new").await;
    assert_eq!(seen.connections(), 2);
}

#[tokio::test]
async fn probes_speak_what_requests_speak() {
    let down = Arc::new(std::sync::atomic::AtomicBool::new(false));
    for (probe, builder) in [
        ("probe = \"http\"\npath = \"/healthz\"\nstatus = 200\n", Builder::new()),
        ("probe = \"websocket\"\npath = \"/healthz\"\n", with_websockets()),
        ("probe = \"tcp\"\n", Builder::new()),
    ] {
        let is_down = down.clone();
        let serve = move |(request, mut respond): Exchange| {
            let is_down = is_down.load(Ordering::Relaxed);
            async move {
                if is_down && request.uri().path() == "/healthz" {
                    respond.send_response(Response::builder().status(503).body(()).unwrap(), true).unwrap();
                } else {
                    echo((request, respond)).await;
                }
            }
        };
        let (server, seen) = start(builder, serve).await;
        let text = format!(
            "[[route]]\npath = \"/\"\nproxy = \"app\"\n[[upstream]]\nname = \"app\"\nprotocol = \"h2\"\n\
             servers = [\"http://{}\"]\n[upstream.health]\n{probe}interval = \"50ms\"\nrise = 1\nfall = 1\n\
             [control]\nsocket = \"control.sock\"\n",
            server.address
        );
        let gateway = setup().start(&config("workers = 1", &text));
        let probed = async |problem: Option<&str>| {
            soon(async {
                loop {
                    let server = first_server(&gateway).await;
                    let found = server["probe_problem"].as_str();
                    if server["probed_ms"].is_u64()
                        && (found == problem
                            || found.zip(problem).is_some_and(|(is, part)| is.contains(part)))
                    {
                        return;
                    }
                }
            })
            .await;
        };
        probed(None).await;
        if probe.contains("tcp") {
            assert_eq!(seen.count(), 0);
            drop(server);
            probed(Some("can't connect")).await;
        } else {
            down.store(true, Ordering::Relaxed);
            probed(Some("it answered 503")).await;
            down.store(false, Ordering::Relaxed);
            probed(None).await;
            assert!(seen.count() >= 3);
        }
        assert_eq!(ask(&mut http1(&gateway).await, get("/")).await.status() == 200, !probe.contains("tcp"));
    }
}

#[tokio::test]
async fn error_pages_of_a_route_leave_the_answers_of_its_server_alone() {
    let missing = |(_, mut respond): Exchange| async move {
        let head = Response::builder().status(404).header("content-type", "text/css").body(()).unwrap();
        respond.send_response(head, false).unwrap().send_data("own".into(), true).unwrap();
    };
    let (server, _) = start(Builder::new(), missing).await;
    for (more, content_type, body) in [
        ("", "text/css", "own"),
        ("intercept_errors = true\n", "text/html; charset=utf-8", "<p>nothing here"),
    ] {
        let setup = setup();
        std::fs::write(setup.path().join("404.html"), "<p>nothing here").unwrap();
        let route =
            format!("[[route]]\npath = \"/\"\nproxy = \"http://{}\"\nprotocol = \"h2\"\n", server.address);
        let gateway = setup
            .start(&config("workers = 1", &format!("{route}error_pages = {{ 404 = \"404.html\" }}\n{more}")));
        let answer = ask(&mut http1(&gateway).await, get("/")).await;
        assert_eq!((answer.status(), answer.text().as_str()), (404, body), "{more}");
        assert_eq!(answer.head.get("content-type"), Some(content_type), "{more}");
    }
}

#[tokio::test]
async fn another_server_is_asked_as_over_http1() {
    let serve = |status: u16| {
        move |(_, mut respond): Exchange| async move {
            let head = Response::builder().status(status).body(()).unwrap();
            respond.send_response(head, true).unwrap();
        }
    };
    let mut reset = 0;
    let (bad, seen_bad) = start(with_websockets(), serve(503)).await;
    let (resetting, seen_resetting) = start(with_websockets(), |(_, mut respond): Exchange| async move {
        respond.send_reset(Reason::INTERNAL_ERROR);
    })
    .await;
    let (good, seen) = start(with_websockets(), echo).await;
    for (other, of_other) in [(bad.address, &seen_bad), (resetting.address, &seen_resetting)] {
        let text = format!(
            "[[route]]\npath = \"/\"\nproxy = \"app\"\n[[upstream]]\nname = \"app\"\nprotocol = \"h2\"\n\
             balance = \"round-robin\"\nservers = [\"http://{other}\", \"http://{}\"]\n\
             [upstream.retry]\non = [\"connect\", \"broken\", \"503\"]\n[upstream.health]\npassive = \"off\"\n",
            good.address
        );
        let gateway = setup().start(&config("workers = 1", &text));
        let mut h1 = http1(&gateway).await;
        for _ in 0..2 {
            assert_eq!(ask(&mut h1, get("/x")).await.status(), 200);
        }
        for _ in 0..2 {
            let (mut socket, _) =
                WebSocket::connect(http1(&gateway).await, "default.test", "/ws", "").await.unwrap();
            socket.echoes("here").await;
        }
        assert!(of_other.count() >= 2, "it had its turn");
        reset += 1;
    }
    let unreachable = Backend::unreachable();
    let text = format!(
        "[[route]]\npath = \"/\"\nproxy = [\"http://{unreachable}\", \"http://{}\"]\nprotocol = \"h2\"\n",
        good.address
    );
    let gateway = setup().start(&config("workers = 1", &text));
    for _ in 0..3 {
        assert_eq!(ask(&mut http1(&gateway).await, get("/x")).await.status(), 200);
    }
    assert!(seen.count() >= 4 * reset + 3);
}
