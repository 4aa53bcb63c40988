//! Plain requests on their way to a backend and back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, Method};
use support::backend::{Backend, Seen, echo};
use support::gateway::{Gateway, Setup, config, route};
use support::http1::{ask, read_answer, read_head};
use support::http2::{self, Http2};
use support::tls::Tls;
use support::ws::{accept, handshake};
use support::{BoxIo, Io, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Duration;

fn start(routes: &str) -> Gateway {
    Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"]).start(&config("", routes))
}

async fn plain(gateway: &Gateway) -> BoxIo {
    Box::new(TcpStream::connect(gateway.addresses()[1]).await.unwrap())
}

async fn http2(gateway: &Gateway) -> Http2 {
    let io = Tls::new("default.test", &["h2"]).connect(gateway.address()).await.unwrap();
    Http2::connect(io, "default.test").await
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: default.test\r\n\r\n")
}

/// Reads a request's body as its head frames it.
async fn read_body(
    io: &mut (impl Io + ?Sized),
    head: &support::http1::Head,
) -> (Vec<u8>, Vec<(String, String)>) {
    // An answer's body is framed in the same way.
    let mut body = Vec::new();
    if let Some(length) = head.get("content-length") {
        body.resize(length.parse().unwrap(), 0);
        io.read_exact(&mut body).await.unwrap();
        return (body, Vec::new());
    }
    assert_eq!(head.get("transfer-encoding"), Some("chunked"), "{head:?}");
    let mut trailers = Vec::new();
    let mut line = async || {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(io.read_u8().await.unwrap());
        }
        String::from_utf8(line).unwrap().trim_end().to_owned()
    };
    let mut chunks = Vec::new();
    loop {
        let size = usize::from_str_radix(&line().await, 16).unwrap();
        if size == 0 {
            break;
        }
        chunks.push(size);
        // Bodies in these tests are lines of text, so a chunk may be read as such.
        let mut left = size;
        while left > 0 {
            let text = line().await + "\r\n";
            let taken = text.len().min(left);
            body.extend(&text.as_bytes()[..taken]);
            left -= taken;
            if left == 0 && taken == text.len() {
                line().await; // the end of the chunk
            }
        }
    }
    loop {
        let text = line().await;
        let Some((name, value)) = text.split_once(':') else { return (body, trailers) };
        trailers.push((name.to_owned(), value.trim().to_owned()));
    }
}

#[tokio::test]
async fn a_request_has_as_many_fields_as_over_http2_and_no_more() {
    let (backend, seen) = echo().await;
    let gateway = start(&route("/", backend.address));
    for (count, status) in [(90, 200), (101, 200), (2000, 200), (2048, 431)] {
        let fields: String = (0..count).map(|i| format!("X-{i}: v\r\n")).collect();
        let answer = ask(&mut plain(&gateway).await, with(&fields)).await;
        assert_eq!(answer.status(), status, "{count} fields");
    }
    assert_eq!(seen.count(), 3);
}

#[tokio::test]
async fn routes_hosts_and_paths() {
    let (first, seen_first) = echo().await;
    let (second, seen_second) = echo().await;
    let routes = route("/", first.address)
        + &route("/app", second.address)
        + &route("/", second.address).replace("path", "host = \"b.test\"\npath")
        + &route("/only", first.address).replace("path", "host = \"*.c.test\"\npath");
    let gateway = start(&routes);
    let mut io = plain(&gateway).await;
    let mut counts = (0, 0);
    for (host, path, to_second) in [
        ("a.test", "/", false),
        ("a.test", "/apple", false),
        ("a.test", "/app", true),
        ("a.test", "/app/", true),
        ("a.test", "/%61pp/x", true),
        ("a.test", "/app?x=/../y", true),
        ("B.test:80", "/", true),
        ("x.c.test", "/only", false),
        ("x.c.test", "/app", true),
        ("a.test", "/a%2Fb/%zz//c", false),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let answer = ask(&mut io, request).await;
        // Sent on unchanged.
        assert_eq!(answer.text(), format!("GET {path} HTTP/1.1\n"), "{host}");
        if to_second {
            counts.1 += 1;
        } else {
            counts.0 += 1;
        }
        assert_eq!((seen_first.count(), seen_second.count()), counts, "{host} {path}");
    }
    for path in ["/../x", "/a/./b", "/%2e%2e/", "/a/..%2fb", "/a/..;x/b"] {
        assert_eq!(ask(&mut io, get(path)).await.status(), 400, "{path}");
    }
    assert_eq!((seen_first.count(), seen_second.count()), counts);
}

#[tokio::test]
async fn connections_to_a_backend_are_kept_and_used_again() {
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = connections.clone();
    let backend = Backend::start(move |mut tcp| {
        counter.fetch_add(1, Ordering::SeqCst);
        async move {
            while read_head(&mut tcp).await.is_some() {
                let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            }
        }
    })
    .await;
    // One worker, so that there is one pool.
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"]);
    let gateway = setup.start(&config("workers = 1", &route("/", backend.address)));
    for _ in 0..3 {
        let mut io = plain(&gateway).await;
        for _ in 0..5 {
            assert_eq!(ask(&mut io, get("/")).await.text(), "ok");
        }
    }
    let mut client = http2(&gateway).await;
    for _ in 0..5 {
        let request = client.request(Method::GET, "/");
        assert_eq!(client.ask(request).await.text(), "ok");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

/// A server that logs connections in, as NTLM does, and says who the user of one is. It tells of each connection
/// that ends.
async fn logging_in() -> (Backend, mpsc::UnboundedReceiver<String>) {
    let (tell, told) = mpsc::unbounded_channel();
    let backend = Backend::start(move |mut tcp| {
        let tell = tell.clone();
        async move {
            let mut user = "nobody".to_owned();
            while let Some(head) = read_head(&mut tcp).await {
                let step =
                    head.get("authorization").unwrap_or("").split_once(' ').map(|(_, step)| step.to_owned());
                let (status, challenge) = match step.as_deref() {
                    Some("first") => ("401 Unauthorized", "WWW-Authenticate: NTLM challenge\r\n"),
                    Some(name) => {
                        name.clone_into(&mut user);
                        ("200 OK", "")
                    }
                    None if user == "nobody" => ("401 Unauthorized", "WWW-Authenticate: Negotiate, NTLM\r\n"),
                    None => ("200 OK", ""),
                };
                if status == "200 OK"
                    && let Some(key) = head.get("sec-websocket-key")
                {
                    let answer = format!(
                        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                         X-User: {user}\r\nSec-WebSocket-Accept: {}\r\n\r\n",
                        accept(key)
                    );
                    tcp.write_all(answer.as_bytes()).await.unwrap();
                    let _ = tcp.read_u8().await;
                    break;
                }
                let len = user.len();
                let answer = format!("HTTP/1.1 {status}\r\n{challenge}Content-Length: {len}\r\n\r\n{user}");
                tcp.write_all(answer.as_bytes()).await.unwrap();
            }
            let _ = tell.send(user);
        }
    })
    .await;
    (backend, told)
}

fn with(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: default.test\r\n{fields}\r\n")
}

#[tokio::test]
async fn a_connection_that_a_client_has_logged_in_is_its_own() {
    for pool in ["", "pool = \"off\"\n"] {
        let (backend, mut ended) = logging_in().await;
        let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"]);
        let gateway = setup.start(&config("workers = 1", &(route("/", backend.address) + pool)));
        let mut alice = plain(&gateway).await;
        for (fields, status, user) in [
            ("", 401, "nobody"),
            ("Authorization: NTLM first\r\n", 401, "nobody"),
            ("Authorization: NTLM alice\r\n", 200, "alice"),
            ("", 200, "alice"),
        ] {
            let answer = ask(&mut alice, with(fields)).await;
            assert_eq!((answer.status(), answer.text().as_str()), (status, user), "{pool} {fields:?}");
        }
        // Others never get it, whichever protocol they speak; nor does another user of theirs.
        let mut bob = plain(&gateway).await;
        let mut client = http2(&gateway).await;
        for _ in 0..3 {
            assert_eq!(ask(&mut bob, with("")).await.text(), "nobody");
            assert_eq!(client.ask(client.request(Method::GET, "/")).await.text(), "nobody");
        }
        assert_eq!(ask(&mut bob, with("Authorization: Negotiate bob\r\n")).await.text(), "bob");
        assert_eq!(
            (ask(&mut bob, with("")).await.text(), ask(&mut alice, with("")).await.text()),
            ("bob".into(), "alice".into())
        );
        // Over HTTP/2 the streams may belong to different users.
        let mut request = client.request(Method::GET, "/");
        request.headers_mut().insert("authorization", "Negotiate carol".parse().unwrap());
        assert_eq!(client.ask(request).await.text(), "carol");
        assert_eq!(client.ask(client.request(Method::GET, "/")).await.text(), "nobody");
        // It ends with its client's.
        drop(bob);
        let mut names = Vec::new();
        while !names.contains(&"bob".to_owned()) {
            names.push(soon(ended.recv()).await.unwrap());
        }
        assert!(!names.contains(&"alice".to_owned()), "{names:?}");
        assert_eq!(ask(&mut alice, with("")).await.text(), "alice");
        // A WebSocket is its user's as well.
        alice.write_all(handshake("default.test", "/", "").as_bytes()).await.unwrap();
        let head = read_head(&mut alice).await.unwrap();
        assert_eq!((head.status(), head.get("x-user")), (101, Some("alice")));
    }
}

#[tokio::test]
async fn a_handshake_can_log_its_connection_in() {
    let (backend, _ended) = logging_in().await;
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"]);
    let gateway = setup.start(&config("workers = 1", &route("/", backend.address)));
    let mut io = plain(&gateway).await;
    assert_eq!(
        ask(&mut io, handshake("default.test", "/", "Authorization: NTLM first\r\n")).await.status(),
        401
    );
    assert_eq!(ask(&mut io, with("Authorization: NTLM dave\r\n")).await.text(), "dave");
    io.write_all(handshake("default.test", "/", "").as_bytes()).await.unwrap();
    let head = read_head(&mut io).await.unwrap();
    assert_eq!((head.status(), head.get("x-user")), (101, Some("dave")));
}

#[tokio::test]
async fn a_route_without_a_pool_keeps_no_connection() {
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = connections.clone();
    let backend = Backend::start(move |mut tcp| {
        counter.fetch_add(1, Ordering::SeqCst);
        async move {
            while read_head(&mut tcp).await.is_some() {
                let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            }
        }
    })
    .await;
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"]);
    // The other route's connections are to the same server, and not for this one.
    let routes =
        route("/", backend.address) + "pool = \"off\"\n" + &route("/on", backend.address) + "pool = \"on\"\n";
    let gateway = setup.start(&config("workers = 1", &routes));
    let mut io = plain(&gateway).await;
    for (path, count) in [("/on", 1), ("/on", 1), ("/", 2), ("/", 3), ("/on", 3)] {
        assert_eq!(ask(&mut io, get(path)).await.text(), "ok");
        assert_eq!(connections.load(Ordering::SeqCst), count, "{path}");
    }
}

#[tokio::test]
async fn a_kept_connection_that_the_backend_has_closed_is_no_error() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let backend = Backend::start(move |mut tcp| {
        let tell = tell.clone();
        async move {
            // Answers once, then closes as soon as the next request arrives.
            read_head(&mut tcp).await;
            let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            let _ = tcp.read_u8().await;
            let _ = tell.send(());
        }
    })
    .await;
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"]);
    let gateway = setup.start(&config("workers = 1", &route("/", backend.address)));
    let mut io = plain(&gateway).await;
    for i in 0..5 {
        assert_eq!(ask(&mut io, get("/")).await.text(), "ok", "{i}");
    }
    soon(told.recv()).await.unwrap();
    // What may not be sent twice is not: a POST that the backend has begun to read.
    let post = "POST / HTTP/1.1\r\nHost: default.test\r\nContent-Length: 3\r\n\r\nabc";
    assert_eq!(ask(&mut io, post).await.status(), 502);
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    // The backend answers a line as soon as it has read a line.
    let backend = Backend::start(|mut tcp| async move {
        let head = read_head(&mut tcp).await.unwrap();
        assert_eq!(head.get("transfer-encoding"), Some("chunked"));
        tcp.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
        let mut wire = Vec::new();
        while !wire.ends_with(b"0\r\n\r\n") {
            let byte = tcp.read_u8().await.unwrap();
            wire.push(byte);
            if byte == b'!' {
                tcp.write_all(b"5\r\nheard\r\n").await.unwrap();
            }
        }
        tcp.write_all(b"0\r\n\r\n").await.unwrap();
    })
    .await;
    let gateway = start(&route("/", backend.address));
    let mut io = plain(&gateway).await;
    let head = "POST / HTTP/1.1\r\nHost: default.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    io.write_all(head.as_bytes()).await.unwrap();
    let answer = read_head(&mut io).await.unwrap();
    assert_eq!(answer.get("transfer-encoding"), Some("chunked"));
    for _ in 0..3 {
        io.write_all(b"3\r\nhi!\r\n").await.unwrap();
        let mut chunk = [0; 10];
        soon(io.read_exact(&mut chunk)).await.unwrap();
        assert_eq!(&chunk, b"5\r\nheard\r\n");
    }
    io.write_all(b"0\r\n\r\n").await.unwrap();
    let mut end = [0; 5];
    soon(io.read_exact(&mut end)).await.unwrap();
    assert_eq!(&end, b"0\r\n\r\n");

    let mut client = http2(&gateway).await;
    let request = client.request(Method::POST, "/");
    let (response, mut send) = client.begin(request, false).await;
    let mut body = soon(response).await.unwrap().into_body();
    for _ in 0..3 {
        send.send_data(Bytes::from_static(b"hi!"), false).unwrap();
        assert_eq!(soon(body.data()).await.unwrap().unwrap(), "heard");
    }
    send.send_data(Bytes::new(), true).unwrap();
    assert!(soon(body.data()).await.is_none_or(|end| end.unwrap().is_empty()));
}

#[tokio::test]
async fn an_upload_goes_on_while_the_answer_is_not_read() {
    const LEN: usize = 32 << 20; // more than all buffers on the way hold
    let backend = Backend::start(|mut tcp| async move {
        read_head(&mut tcp).await.unwrap();
        let (mut read, mut write) = tcp.split();
        let answer = async {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LEN}\r\n\r\n");
            write.write_all(head.as_bytes()).await.unwrap();
            write.write_all(&vec![b'a'; LEN]).await.unwrap();
        };
        let body = async { read.read_exact(&mut vec![0; LEN]).await.unwrap() };
        tokio::join!(answer, body);
    })
    .await;
    let gateway = start(&route("/", backend.address));
    let mut io = plain(&gateway).await;
    let head = format!("POST / HTTP/1.1\r\nHost: default.test\r\nContent-Length: {LEN}\r\n\r\n");
    io.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(read_head(&mut io).await.unwrap().status(), 200);
    soon(io.write_all(&vec![b'q'; LEN])).await.unwrap();
    let mut body = vec![0; LEN];
    soon(io.read_exact(&mut body)).await.unwrap();
    assert!(body.iter().all(|&byte| byte == b'a'));
}

#[tokio::test]
async fn a_get_with_a_body_of_unknown_length_over_http2_keeps_it() {
    let seen = Seen::default();
    let heads = seen.clone();
    let backend = Backend::start(move |mut tcp| {
        let heads = heads.clone();
        async move {
            while let Some(head) = read_head(&mut tcp).await {
                heads.push(head.clone());
                let (body, _) = read_body(&mut tcp, &head).await;
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                tcp.write_all(&[answer.as_bytes(), &body].concat()).await.unwrap();
            }
        }
    })
    .await;
    let gateway = start(&route("/", backend.address));
    let mut client = http2(&gateway).await;
    for method in [Method::GET, Method::POST, Method::DELETE] {
        let request = client.request(method, "/");
        let (response, mut send) = client.begin(request, false).await;
        send.send_data(Bytes::from_static(b"a line\r\n"), true).unwrap();
        let answer = http2::read(soon(response).await.unwrap()).await;
        assert_eq!(answer.text(), "a line\r\n");
    }
    let mut request = client.request(Method::POST, "/");
    request.headers_mut().insert("content-length", "8".parse().unwrap());
    let (response, mut send) = client.begin(request, false).await;
    send.send_data(Bytes::from_static(b"a line\r\n"), true).unwrap();
    assert_eq!(http2::read(soon(response).await.unwrap()).await.text(), "a line\r\n");
    assert_eq!(seen.last().get("content-length"), Some("8"));
}

#[tokio::test]
async fn an_http2_request_that_ends_in_an_empty_frame_goes_on_without_a_body() {
    let seen = Seen::default();
    let heads = seen.clone();
    let backend = Backend::start(move |mut tcp| {
        let heads = heads.clone();
        async move {
            while let Some(head) = read_head(&mut tcp).await {
                heads.push(head.clone());
                tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            }
        }
    })
    .await;
    let gateway = start(&route("/", backend.address));
    let mut client = http2(&gateway).await;
    for (method, length) in [
        (Method::GET, None),
        (Method::HEAD, None),
        (Method::DELETE, None),
        (Method::OPTIONS, None),
        (Method::GET, Some("0")),
        (Method::POST, Some("0")),
    ] {
        let mut request = client.request(method.clone(), "/");
        if let Some(length) = length {
            request.headers_mut().insert("content-length", length.parse().unwrap());
        }
        let (response, mut send) = client.begin(request, false).await;
        // The head is there and being looked at when the end comes.
        client.ask(client.request(Method::GET, "/other")).await;
        send.send_data(Bytes::new(), true).unwrap();
        assert_eq!(soon(response).await.unwrap().status(), 200, "{method}");
        let head = seen.all().into_iter().rfind(|head| head.line == format!("{method} / HTTP/1.1")).unwrap();
        assert_eq!((head.get("transfer-encoding"), head.get("content-length")), (None, length), "{head:?}");
    }
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let backend = Backend::start(|mut tcp| async move {
        while let Some(head) = read_head(&mut tcp).await {
            assert_eq!(head.get("te"), Some("trailers"));
            let (_, trailers) = read_body(&mut tcp, &head).await;
            let sum = trailers.iter().find(|(name, _)| name.eq_ignore_ascii_case("x-sum")).unwrap().1.clone();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
                 2\r\nok\r\n0\r\nX-Sum: {sum}\r\n\r\n"
            );
            tcp.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    let gateway = start(&route("/", backend.address));
    let request = "POST / HTTP/1.1\r\nHost: default.test\r\nTE: trailers\r\nConnection: TE\r\nTrailer: X-Sum\r\n\
                   Transfer-Encoding: chunked\r\n\r\n4\r\nhi\r\n\r\n0\r\nX-Sum: 42\r\n\r\n";
    let answer = ask(&mut plain(&gateway).await, request).await;
    assert_eq!(answer.text(), "ok");
    assert_eq!(answer.trailers.len(), 1, "{answer:?}");
    assert_eq!(answer.trailers[0].1, "42");

    let mut client = http2(&gateway).await;
    let mut request = client.request(Method::POST, "/");
    request.headers_mut().insert("te", "trailers".parse().unwrap());
    request.headers_mut().insert("trailer", "x-sum".parse().unwrap());
    let (response, mut send) = client.begin(request, false).await;
    send.send_data(Bytes::from_static(b"hi\r\n"), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "43".parse().unwrap());
    send.send_trailers(trailers).unwrap();
    let answer = http2::read(soon(response).await.unwrap()).await;
    assert_eq!((answer.text().as_str(), &answer.trailers.unwrap()["x-sum"]), ("ok", &"43".parse().unwrap()));
}

#[tokio::test]
async fn head_and_statuses_without_bodies() {
    let backend = Backend::start(|mut tcp| async move {
        while let Some(head) = read_head(&mut tcp).await {
            let answer = match head.line.split(' ').nth(1).unwrap() {
                "/304" => "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 12\r\n\r\n",
                "/204" => "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
                "/empty" => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n", // to a HEAD
            };
            tcp.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    let gateway = start(&route("/", backend.address));
    let mut io = plain(&gateway).await;
    let answer = ask(&mut io, "HEAD / HTTP/1.1\r\nHost: default.test\r\n\r\n").await;
    assert_eq!((answer.status(), answer.head.get("content-length")), (200, Some("12")));
    let answer = ask(&mut io, get("/304")).await;
    assert_eq!((answer.status(), answer.head.get("etag")), (304, Some("\"x\"")));
    let answer = ask(&mut io, get("/204")).await;
    assert_eq!((answer.status(), answer.head.get("content-length")), (204, None), "RFC 9110 §8.6");
    assert_eq!(ask(&mut io, get("/empty")).await.head.get("content-length"), Some("0"));

    let mut client = http2(&gateway).await;
    for (method, path, status, length) in [
        (Method::HEAD, "/", 200, Some("12")),
        (Method::GET, "/304", 304, Some("12")),
        (Method::GET, "/204", 204, None),
        (Method::GET, "/empty", 200, Some("0")),
    ] {
        let request = client.request(method, path);
        let answer = client.ask(request).await;
        assert_eq!((answer.status(), answer.body.len()), (status, 0), "{path}");
        let seen = answer.head.headers.get("content-length").map(|len| len.to_str().unwrap());
        assert_eq!(seen, length, "{path}");
        assert!(answer.head.headers.contains_key("date"));
    }
    let lines = gateway.lines("request");
    assert!(lines.iter().all(|line| line["cause"].is_null()), "{lines:?}");
}

#[tokio::test]
async fn a_client_is_told_to_continue_when_the_backend_says_so() {
    let backend = Backend::start(|mut tcp| async move {
        while let Some(head) = read_head(&mut tcp).await {
            assert_eq!(head.get("expect"), Some("100-continue"));
            if head.line.contains("/denied") {
                let answer = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
                tcp.write_all(answer.as_bytes()).await.unwrap();
                // The body must never come.
                assert!(tcp.read_u8().await.is_err());
                return;
            }
            if !head.line.contains("/silent") {
                tcp.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
            }
            let (body, _) = read_body(&mut tcp, &head).await;
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            tcp.write_all(&[answer.as_bytes(), &body].concat()).await.unwrap();
        }
    })
    .await;
    let gateway = start(&route("/", backend.address));
    let post = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: default.test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
        )
    };
    for path in ["/", "/silent"] {
        let mut io = plain(&gateway).await;
        io.write_all(post(path).as_bytes()).await.unwrap();
        assert_eq!(read_head(&mut io).await.unwrap().status(), 100, "{path}");
        io.write_all(b"body").await.unwrap();
        assert_eq!(read_answer(&mut io, false).await.unwrap().text(), "body");
    }
    let mut io = plain(&gateway).await;
    let answer = ask(&mut io, post("/denied")).await;
    assert_eq!(answer.status(), 403, "and no 100 before it");

    let mut client = http2(&gateway).await;
    for (path, status) in [("/", 200), ("/silent", 200), ("/denied", 403)] {
        let mut request = client.request(Method::POST, path);
        request.headers_mut().insert("expect", "100-continue".parse().unwrap());
        request.headers_mut().insert("content-length", "4".parse().unwrap());
        let (mut response, send) = client.begin(request, false).await;
        if status == 200 {
            let informational = soon(std::future::poll_fn(|cx| response.poll_informational(cx))).await;
            assert_eq!(informational.unwrap().unwrap().status(), 100, "{path}");
            send_all(send, Bytes::from_static(b"body")).await;
            assert_eq!(http2::read(soon(response).await.unwrap()).await.text(), "body");
        } else {
            let answer = std::future::poll_fn(|cx| {
                assert!(!matches!(response.poll_informational(cx), Poll::Ready(Some(_))), "no 100");
                Pin::new(&mut response).poll(cx)
            });
            assert_eq!(soon(answer).await.unwrap().status(), status);
        }
    }
}

#[tokio::test]
async fn a_body_that_the_backend_answers_instead_of_asking_for_never_leaves() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let backend = Backend::start(move |mut tcp| {
        let tell = tell.clone();
        async move {
            read_head(&mut tcp).await;
            tcp.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nn").await.unwrap();
            // Longer than a silent backend is waited for.
            let came = tokio::time::timeout(Duration::from_millis(1500), tcp.read_u8()).await;
            let _ = tell.send(came.is_ok());
            tcp.write_all(b"o").await.unwrap();
            let _ = tell.send(tcp.read_u8().await.is_ok());
        }
    })
    .await;
    let gateway = start(&route("/", backend.address));
    let mut io = plain(&gateway).await;
    // The client doesn't wait for long either.
    let post =
        "POST / HTTP/1.1\r\nHost: default.test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\nbody";
    let answer = ask(&mut io, post).await;
    assert_eq!((answer.status(), answer.text().as_str()), (403, "no"));
    assert_eq!((soon(told.recv()).await, soon(told.recv()).await), (Some(false), Some(false)));
}

/// Interim answers of a backend, then its final one; for `/late` that comes when the test says so.
async fn hinting(go_on: Arc<Notify>) -> Backend {
    Backend::start(move |mut tcp| {
        let go_on = go_on.clone();
        async move {
            while let Some(head) = read_head(&mut tcp).await {
                let hints = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nContent-Length: 3\r\n\r\n\
                             HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n\
                             HTTP/1.1 199 Odd\r\nX-Hint: 1\r\n\r\n";
                let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                if head.line.contains("/late") {
                    tcp.write_all(hints.as_bytes()).await.unwrap();
                    go_on.notified().await;
                    tcp.write_all(answer.as_bytes()).await.unwrap();
                } else {
                    tcp.write_all(format!("{hints}{answer}").as_bytes()).await.unwrap();
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn interim_answers_are_passed_on() {
    let go_on = Arc::new(Notify::new());
    let backend = hinting(go_on.clone()).await;
    let gateway = start(&route("/", backend.address));
    let tls: BoxIo =
        Box::new(Tls::new("default.test", &["http/1.1"]).connect(gateway.address()).await.unwrap());
    for mut io in [plain(&gateway).await, tls] {
        // Two requests at once: each answer has its own.
        for requests in [get("/late"), get("/") + &get("/")] {
            io.write_all(requests.as_bytes()).await.unwrap();
            io.flush().await.unwrap();
            for _ in 0..requests.matches("Host").count() {
                for status in [100, 102, 103, 199] {
                    let head = soon(read_head(&mut io)).await.unwrap();
                    assert_eq!(head.status(), status);
                    let links: &[&str] = if status == 103 { &["</a>", "</b>"] } else { &[] };
                    assert_eq!(head.all("link"), links);
                    for field in ["content-length", "connection", "x-hop"] {
                        assert_eq!(head.get(field), None, "{head:?}");
                    }
                }
                if requests.contains("/late") {
                    go_on.notify_one();
                }
                let answer = read_answer(&mut io, false).await.unwrap();
                assert_eq!((answer.status(), answer.text().as_str()), (200, "ok"));
            }
        }
    }
    let mut client = http2(&gateway).await;
    for path in ["/late", "/"] {
        let request = client.request(Method::GET, path);
        let (mut response, _send) = client.begin(request, true).await;
        for status in [100, 102, 103, 199] {
            let hint =
                soon(std::future::poll_fn(|cx| response.poll_informational(cx))).await.unwrap().unwrap();
            assert_eq!(hint.status(), status, "{path}");
            assert_eq!(hint.headers().get_all("link").iter().count(), if status == 103 { 2 } else { 0 });
            assert!(!hint.headers().contains_key("content-length") && !hint.headers().contains_key("x-hop"));
        }
        go_on.notify_one();
        assert_eq!(http2::read(soon(response).await.unwrap()).await.text(), "ok");
    }
}

#[tokio::test]
async fn a_client_of_http_1_0_gets_no_interim_answer() {
    let backend = hinting(Arc::default()).await;
    let gateway = start(&route("/", backend.address));
    let mut io = plain(&gateway).await;
    io.write_all(b"GET / HTTP/1.0\r\nHost: default.test\r\n\r\n").await.unwrap();
    let answer = read_answer(&mut io, false).await.unwrap();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "ok"));
}

#[tokio::test]
async fn big_and_slow_bodies() {
    const LEN: usize = 8 << 20;
    let backend = Backend::start(|mut tcp| async move {
        while let Some(head) = read_head(&mut tcp).await {
            let mut body = vec![0; LEN];
            tcp.read_exact(&mut body).await.unwrap();
            assert_eq!(head.get("content-length"), Some(LEN.to_string().as_str()));
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {LEN}\r\n\r\n");
            tcp.write_all(answer.as_bytes()).await.unwrap();
            tcp.write_all(&body).await.unwrap();
        }
    })
    .await;
    let gateway = start(&route("/", backend.address));
    let body: Vec<u8> = (0..LEN).map(|i| i.to_le_bytes()[0] ^ i.to_le_bytes()[1]).collect();
    let before = gateway.resident_kib();
    let head = format!("POST / HTTP/1.1\r\nHost: default.test\r\nContent-Length: {LEN}\r\n\r\n");
    let answer = ask(&mut plain(&gateway).await, [head.as_bytes(), &body].concat()).await;
    assert!(answer.body == body);

    let mut client = http2(&gateway).await;
    let mut request = client.request(Method::POST, "/");
    request.headers_mut().insert("content-length", LEN.to_string().parse().unwrap());
    let (response, send) = client.begin(request, false).await;
    let sending = tokio::spawn(send_all(send, Bytes::from(body.clone())));
    let answer = http2::read(soon(response).await.unwrap()).await;
    sending.await.unwrap();
    assert!(answer.body == body);
    let grown = gateway.resident_kib().saturating_sub(before);
    assert!(grown < 6 * 1024, "{grown} KiB more for 16 MiB each way");
}

#[tokio::test]
async fn a_slow_upload_is_not_the_backends_fault() {
    let backend = Backend::start(|mut tcp| async move {
        while let Some(head) = read_head(&mut tcp).await {
            let (body, _) = read_body(&mut tcp, &head).await;
            if !head.line.contains("/never") {
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                tcp.write_all(&[answer.as_bytes(), &body].concat()).await.unwrap();
            }
        }
    })
    .await;
    let gateway = start(&(route("/", backend.address) + "response_timeout = \"300ms\"\n"));
    let post = |path| format!("POST {path} HTTP/1.1\r\nHost: default.test\r\nContent-Length: 8\r\n\r\n");
    let mut io = plain(&gateway).await;
    io.write_all(post("/").as_bytes()).await.unwrap();
    for byte in b"slowly.." {
        tokio::time::sleep(Duration::from_millis(100)).await;
        io.write_all(&[*byte]).await.unwrap();
    }
    assert_eq!(read_answer(&mut io, false).await.unwrap().text(), "slowly..");
    // With nothing for half a second, and that not at the end.
    io.write_all((post("/") + "half").as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(800)).await;
    io.write_all(b"half").await.unwrap();
    assert_eq!(read_answer(&mut io, false).await.unwrap().text(), "halfhalf");
    // A backend that has all it needs is on the clock.
    assert_eq!(ask(&mut io, post("/never") + "complete").await.status(), 504);
}

/// Bytes come out of the stream only while it is open.
fn valve(mut io: impl Io + 'static) -> (watch::Sender<bool>, tokio::io::DuplexStream) {
    let (open, mut is_open) = watch::channel(true);
    let (near, mut far) = tokio::io::duplex(4096);
    tokio::spawn(async move {
        let (mut down, mut up) = (vec![0; 4096], vec![0; 4096]);
        loop {
            let flows = *is_open.borrow();
            tokio::select! {
                _ = is_open.changed() => {}
                n = io.read(&mut down), if flows => match n {
                    Ok(n @ 1..) => far.write_all(&down[..n]).await.unwrap(),
                    _ => return,
                },
                n = far.read(&mut up) => match n {
                    Ok(n @ 1..) => {
                        io.write_all(&up[..n]).await.unwrap();
                        io.flush().await.unwrap();
                    }
                    _ => return,
                },
            }
        }
    });
    (open, near)
}

#[tokio::test]
async fn answers_on_their_way_over_http2_are_not_cut() {
    const LEN: usize = 60_000; // each fits into what is queued for its stream
    const REQUESTS: usize = 250; // and together they are more than all sockets on the way hold
    let (told, mut answered) = mpsc::unbounded_channel();
    let backend = Backend::start(move |mut tcp| {
        let told = told.clone();
        async move {
            while read_head(&mut tcp).await.is_some() {
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {LEN}\r\n\r\n");
                tcp.write_all(&[answer.as_bytes(), &[7; LEN]].concat()).await.unwrap();
                told.send(()).unwrap();
            }
        }
    })
    .await;
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"]);
    let routes = route("/", backend.address);
    let config = config("", &routes).replace("[[listener]]", "[[listener]]\nheader_timeout = \"100ms\"");
    let gateway = setup.start(&config);
    let io = Tls::new("default.test", &["h2"]).connect(gateway.address()).await.unwrap();
    let (open, io) = valve(io);
    let mut client = Http2::connect(io, "default.test").await;
    open.send(false).unwrap();
    let mut requests = Vec::new();
    for _ in 0..REQUESTS {
        requests.push(client.begin(client.request(Method::GET, "/"), true).await);
    }
    for _ in 0..REQUESTS {
        soon(answered.recv()).await.unwrap();
    }
    // Longer than a connection without requests may last.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    open.send(true).unwrap();
    for (response, _send) in requests {
        let answer = http2::read(soon(response).await.unwrap()).await;
        assert_eq!((answer.body.len(), answer.reset), (LEN, None));
    }
    let line = gateway.wait_nth("request", REQUESTS - 1);
    assert!(line["duration_ms"].as_u64().unwrap() > 0);
    assert!(gateway.lines("request").iter().all(|line| line["cause"].is_null()));
}

/// In the line of a request: to a new connection, and to the head of the answer.
#[tokio::test]
async fn the_line_says_how_long_a_server_took() {
    const SLOW: Duration = Duration::from_millis(50);
    let backend = Backend::start(|mut tcp| async move {
        while read_head(&mut tcp).await.is_some() {
            tokio::time::sleep(SLOW).await;
            tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        }
    })
    .await;
    let gateway = start(&(route("/", backend.address) + &route("/dead", Backend::unreachable())));
    let mut io = plain(&gateway).await;
    for (n, path) in ["/", "/", "/dead"].into_iter().enumerate() {
        ask(&mut io, get(path)).await;
        let line = gateway.wait_nth("request", n);
        let [connect, answer] = ["connect_ms", "answer_ms"].map(|name| line[name].as_f64());
        assert_eq!(connect.is_some(), n == 0, "the second has a kept connection: {line}");
        assert_eq!(
            answer.is_some_and(|ms| ms >= 50.0 && ms <= line["duration_ms"].as_f64().unwrap() + 1.0),
            n < 2,
            "{line}"
        );
    }
}

#[tokio::test]
async fn an_early_answer_over_http2_is_not_followed_by_a_reset() {
    const LEN: usize = 600_000;
    let backend = Backend::start(|mut tcp| async move {
        read_head(&mut tcp).await.unwrap();
        tcp.write_all(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nmuch").await.unwrap();
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let routes = route("/", backend.address) + &route("/dead", Backend::unreachable());
    let gateway = start(&routes);
    let mut client = http2(&gateway).await;
    for (path, status) in [("/", 413), ("/dead", 502)] {
        let mut request = client.request(Method::POST, path);
        request.headers_mut().insert("content-length", LEN.to_string().parse().unwrap());
        let (response, send) = client.begin(request, false).await;
        assert_eq!(http2::read(soon(response).await.unwrap()).await.status(), status);
        send_all(send, Bytes::from(vec![7; LEN])).await; // fails on a reset
    }
}

#[tokio::test]
async fn methods_for_the_gateway_itself() {
    let (backend, seen) = echo().await;
    let gateway = start(&route("/", backend.address));
    let mut io = plain(&gateway).await;
    let trace = ask(&mut io, get("/").replace("GET", "TRACE")).await;
    assert_eq!(trace.status(), 405);
    let methods = Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
    assert_eq!(trace.head.get("allow"), methods);
    let options =
        |hops| get("/").replace("GET", "OPTIONS").replace("Host", &format!("Max-Forwards: {hops}\r\nHost"));
    let last = ask(&mut io, options(0)).await;
    assert_eq!((last.status(), last.head.get("allow"), seen.count()), (204, methods, 0));
    assert_eq!(ask(&mut io, options(2)).await.status(), 200);
    assert_eq!(seen.last().get("max-forwards"), Some("1"));
}

/// Sends a body as the window allows.
async fn send_all(mut send: h2::SendStream<Bytes>, mut data: Bytes) {
    while !data.is_empty() {
        send.reserve_capacity(data.len());
        while send.capacity() == 0 {
            soon(std::future::poll_fn(|cx| send.poll_capacity(cx))).await.unwrap().unwrap();
        }
        let chunk = data.split_to(send.capacity().min(data.len()));
        send.send_data(chunk, data.is_empty()).unwrap();
    }
}

#[tokio::test]
async fn answers_that_could_be_taken_for_two_are_502() {
    let mut routes = String::new();
    let mut backends = Vec::new();
    for (i, answer) in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-Bad: a\x7fb\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-Bad: a\x01b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 1000 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-Bad: a\0b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-Bad: a\rb\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-Fold: a\r\n b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX Bad: a\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n",
        "HTTP/3.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "",
    ]
    .into_iter()
    .enumerate()
    {
        let backend = Backend::saying(answer).await;
        routes += &route(&format!("/{i}"), backend.address);
        backends.push((answer, backend));
    }
    let gateway = start(&routes);
    let mut io = plain(&gateway).await;
    let mut client = http2(&gateway).await;
    for (i, (said, _)) in backends.iter().enumerate() {
        let path = format!("/{i}");
        let answer = ask(&mut io, get(&path)).await;
        assert_eq!(answer.status(), 502, "{said:?}");
        assert!(answer.text().starts_with("502 "), "{answer:?}");
        let request = client.request(Method::GET, &path);
        assert_eq!(client.ask(request).await.status(), 502, "{said:?}");
    }
}

/// What a careless server says to everything, the repair, and how the client sees it.
const CARELESS: [(&str, &str, u16, &str, Option<&str>); 10] = [
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        "the same Content-Length",
        200,
        "hello",
        Some("5"),
    ),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
        "the same Content-Length",
        200,
        "hello",
        Some("5"),
    ),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "because its body is chunked",
        200,
        "hello",
        None,
    ),
    (
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.0",
        200,
        "hello",
        None,
    ),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nhello", "identity", 200, "hello", None),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello",
        "identity",
        200,
        "hello",
        Some("5"),
    ),
    ("HTTP/1.1 600 Odd\r\nContent-Length: 5\r\n\r\nhello", "above 599", 600, "hello", Some("5")),
    ("HTTP/1.1 999 Odder\r\nContent-Length: 5\r\n\r\nhello", "above 599", 999, "hello", Some("5")),
    ("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", "because it has no body", 204, "", None),
    (
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "because it has no body",
        204,
        "",
        None,
    ),
];

#[tokio::test]
async fn what_a_careless_server_says_is_passed_on_when_it_is_one_answer() {
    let mut routes = String::new();
    let mut backends = Vec::new();
    for (i, (said, ..)) in CARELESS.into_iter().enumerate() {
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = connections.clone();
        let backend = Backend::start(move |mut tcp| {
            counter.fetch_add(1, Ordering::SeqCst);
            async move {
                if read_head(&mut tcp).await.is_some() {
                    let _ = tcp.write_all(said.as_bytes()).await;
                    if !said.contains("chunked") && !said.contains("Content-Length") {
                        return; // its end is the body's
                    }
                    // It would be used again, if the gateway did.
                    while read_head(&mut tcp).await.is_some() {
                        let _ = tcp.write_all(said.as_bytes()).await;
                    }
                }
            }
        })
        .await;
        routes += &route(&format!("/{i}"), backend.address);
        backends.push((backend, connections));
    }
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"]);
    let gateway = setup.start(&config("workers = 1", &routes));
    let mut io = plain(&gateway).await;
    let mut client = http2(&gateway).await;
    for (i, (said, repair, status, body, length)) in CARELESS.into_iter().enumerate() {
        let path = format!("/{i}");
        for _ in 0..2 {
            let answer = ask(&mut io, get(&path)).await;
            assert_eq!((answer.status(), answer.text().as_str()), (status, body), "{said:?}");
            assert_eq!(answer.head.get("content-length"), length, "{said:?}");
        }
        let request = client.request(Method::GET, &path);
        let answer = client.ask(request).await;
        assert_eq!((answer.status(), answer.text().as_str(), answer.reset), (status, body, None), "{said:?}");
        let seen = answer.head.headers.get("content-length").map(|len| len.to_str().unwrap());
        assert_eq!(seen, length, "{said:?}");
        let count = backends[i].1.load(Ordering::SeqCst);
        assert_eq!(count, 3, "a connection was used again after {said:?}");
        let address = backends[i].0.address.to_string();
        let is_told = |line: &serde_json::Value| {
            line["upstream"] == address.as_str()
                && line["repair"].as_str().is_some_and(|it| it.contains(repair))
        };
        assert_eq!(gateway.wait_for(is_told, 2, said)["level"], "DEBUG");
    }
}

#[tokio::test]
async fn answers_that_break_off_never_look_whole() {
    let short = Backend::saying("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello").await;
    let chunks = Backend::saying("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
    let half_chunk = Backend::saying("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhello").await;
    let bad_chunk =
        Backend::saying("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nxyz\r\n").await;
    let routes = route("/short", short.address)
        + &route("/chunks", chunks.address)
        + &route("/half", half_chunk.address)
        + &route("/bad", bad_chunk.address);
    let gateway = start(&routes);
    let mut client = http2(&gateway).await;
    for path in ["/short", "/chunks", "/half", "/bad"] {
        let answer = ask(&mut plain(&gateway).await, get(path)).await;
        assert!(!answer.whole || answer.status() == 502, "{path}: {answer:?}");
        let request = client.request(Method::GET, path);
        let answer = client.ask(request).await;
        assert!(answer.reset == Some(Reason::INTERNAL_ERROR) || answer.status() == 502, "{path}: {answer:?}");
        let line = gateway.wait_for(|line| line["path"] == path, 1, path);
        let cause = line["cause"].as_str().unwrap();
        assert!(cause.contains("was cut off") || cause.contains("backend"), "{line}");
    }
    // The connection goes on.
    let request = client.request(Method::GET, "/nowhere");
    assert_eq!(client.ask(request).await.status(), 404);
}

#[tokio::test]
async fn an_answer_that_ends_with_its_connection_is_whole() {
    let backend = Backend::saying("HTTP/1.0 200 OK\r\n\r\nuntil the end").await;
    let gateway = start(&route("/", backend.address));
    let answer = ask(&mut plain(&gateway).await, get("/")).await;
    assert_eq!((answer.text().as_str(), answer.whole), ("until the end", true));
    let mut client = http2(&gateway).await;
    let request = client.request(Method::GET, "/");
    let answer = client.ask(request).await;
    assert_eq!((answer.text().as_str(), answer.reset), ("until the end", None));
}

#[tokio::test]
async fn requests_that_could_be_taken_for_two() {
    let (backend, seen) = echo().await;
    let gateway = start(&route("/", backend.address));
    // RFC 9112 §6.1: with both, the length is dropped and the connection is not used again.
    let both = "POST / HTTP/1.1\r\nHost: default.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
                0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: default.test\r\n\r\n";
    let mut io = plain(&gateway).await;
    let answer = ask(&mut io, both).await;
    if answer.status() == 200 {
        assert_eq!(answer.head.get("connection"), Some("close"));
    }
    let mut rest = Vec::new();
    let _ = soon(io.read_to_end(&mut rest)).await;
    assert!(!String::from_utf8_lossy(&rest).contains("smuggled"));
    for (request, status) in [
        ("POST / HTTP/1.1\r\nHost: default.test\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        ("POST / HTTP/1.1\r\nHost: default.test\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        ("POST / HTTP/1.1\r\nHost: default.test\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: default.test\r\nX-Fold: a\r\n b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: default.test\r\nX-Nul: a\0b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost : default.test\r\n\r\n", 400),
    ] {
        let answer = ask(&mut plain(&gateway).await, request).await;
        assert_eq!(answer.status(), status, "{request:?}");
    }
    let long = format!("GET / HTTP/1.1\r\nHost: default.test\r\nX-Long: {}\r\n\r\n", "x".repeat(100_000));
    let mut io = plain(&gateway).await;
    // The answer may come before all of it is sent.
    let _ = io.write_all(long.as_bytes()).await;
    assert_eq!(read_answer(&mut io, false).await.unwrap().status(), 431);
    assert!(seen.all().iter().all(|head| !head.line.contains("smuggled")));
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_request_with_it() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let backend = Backend::start(move |mut tcp| {
        let tell = tell.clone();
        async move {
            read_head(&mut tcp).await;
            tell.send("asked").unwrap();
            assert!(tcp.read_u8().await.is_err()); // says nothing, and sees the end
            tell.send("gone").unwrap();
        }
    })
    .await;
    let gateway = start(&route("/", backend.address));
    let mut io = plain(&gateway).await;
    io.write_all(get("/").as_bytes()).await.unwrap();
    assert_eq!(soon(told.recv()).await, Some("asked"));
    drop(io);
    assert_eq!(soon(told.recv()).await, Some("gone"));
    let mut client = http2(&gateway).await;
    let request = client.request(Method::GET, "/");
    let (response, mut send) = client.begin(request, false).await;
    assert_eq!(soon(told.recv()).await, Some("asked"));
    send.send_reset(Reason::CANCEL);
    drop(response);
    assert_eq!(soon(told.recv()).await, Some("gone"));
    let line = gateway.wait_nth("request", 1);
    assert!(line["cause"].as_str().unwrap().contains("the client went away"), "{line}");
}

#[tokio::test]
async fn targets_in_all_their_forms() {
    let (backend, seen) = echo().await;
    let gateway = start(&route("/", backend.address));
    for (target, sent) in [
        ("http://h.test?x=1", "/?x=1"),
        ("http://h.test", "/"),
        ("HTTPS://h.test/a?b", "/a?b"),
        ("/?x=1", "/?x=1"),
        ("//a", "//a"),
        ("/a%2Fb;c", "/a%2Fb;c"),
    ] {
        let mut io = plain(&gateway).await;
        let answer = ask(&mut io, format!("GET {target} HTTP/1.1\r\nHost: h.test\r\n\r\n")).await;
        assert_eq!(answer.text(), format!("GET {sent} HTTP/1.1\n"), "{target}");
    }
    let mut io = plain(&gateway).await;
    let answer = ask(&mut io, "OPTIONS * HTTP/1.1\r\nHost: h.test\r\n\r\n").await;
    assert_eq!(answer.text(), "OPTIONS * HTTP/1.1\n");
    let count = seen.count();
    for target in ["h.test:443", "h.test", "ftp://h.test/", "*", "http://user@h.test/"] {
        let mut io = plain(&gateway).await;
        let answer = ask(&mut io, format!("GET {target} HTTP/1.1\r\nHost: h.test\r\n\r\n")).await;
        assert_eq!(answer.status(), 400, "{target}");
    }
    for coding in ["chunked\r\nTransfer-Encoding: chunked", "chunked, chunked"] {
        let mut io = plain(&gateway).await;
        let head = format!("POST / HTTP/1.1\r\nHost: h.test\r\nTransfer-Encoding: {coding}\r\n\r\n0\r\n\r\n");
        assert_eq!(ask(&mut io, head).await.status(), 400, "{coding}");
    }
    assert_eq!(seen.count(), count);
}

#[tokio::test]
async fn http10_without_a_host_is_served_by_routes_for_any_host() {
    let (any, seen) = echo().await;
    let (named, seen_named) = echo().await;
    let routes =
        route("/", any.address) + &route("/a", named.address).replace("path", "host = \"a.test\"\npath");
    let gateway = start(&routes);
    let mut io = plain(&gateway).await;
    assert_eq!(ask(&mut io, "GET /a HTTP/1.0\r\n\r\n").await.status(), 200);
    let head = seen.last();
    assert_eq!(head.get("host"), Some(&*any.address.to_string()));
    assert_eq!((head.get("x-forwarded-host"), seen_named.count()), (None, 0));
    let mut io = plain(&gateway).await;
    assert_eq!(ask(&mut io, "GET /a HTTP/1.1\r\n\r\n").await.status(), 400);
}

#[tokio::test]
async fn blanks_around_a_value_are_malformed_over_http2() {
    let (backend, seen) = echo().await;
    let gateway = start(&route("/", backend.address));
    let mut http2 = http2(&gateway).await;
    for value in [" a", "a ", "\ta", "a\t", " "] {
        let mut request = http2.request(Method::GET, "/");
        request.headers_mut().insert("x-a", value.parse().unwrap());
        assert_eq!(http2.ask(request).await.status(), 400, "{value:?}");
    }
    assert_eq!(seen.count(), 0);
}

/// A server that answers in a spelling of its own, and tells how its clients spell.
async fn spelling() -> (Backend, mpsc::UnboundedReceiver<support::http1::Head>) {
    let (tell, told) = mpsc::unbounded_channel();
    let backend = Backend::start(move |mut tcp| {
        let tell = tell.clone();
        async move {
            while let Some(head) = read_head(&mut tcp).await {
                let answer = match head.get("sec-websocket-key") {
                    Some(key) => format!(
                        "HTTP/1.1 101 Switching Protocols\r\nUPGRADE: websocket\r\nConnection: Upgrade\r\n\
                         sec-websocket-accept: {}\r\nX-SERVER: 1\r\n\r\n",
                        accept(key)
                    ),
                    None => "HTTP/1.1 200 OK\r\nETag: x\r\nX-SERVER: 1\r\nx-server: 2\r\ncontent-LENGTH: 0\r\n\r\n"
                        .to_owned(),
                };
                let _ = tell.send(head);
                tcp.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    (backend, told)
}

#[tokio::test]
async fn field_names_are_spelt_as_the_route_wants_it() {
    let (backend, mut told) = spelling().await;
    let gateway = start(
        &(route("/", backend.address) + &route("/same", backend.address) + "field_names = \"as-sent\"\n"),
    );
    let names = |head: &support::http1::Head, of: &[&str]| -> Vec<String> {
        let wanted = |name: &&String| of.iter().any(|of| name.eq_ignore_ascii_case(of));
        let mut names: Vec<_> = head.fields.iter().map(|(name, _)| name).filter(wanted).cloned().collect();
        names.sort_unstable();
        names
    };
    let fields = "x-api-KEY: 1\r\nSOAPAction: 2\r\nX-api-key: 3\r\nx-real-ip: 1.1.1.1\r\n";
    for (path, of_client, of_server, accept) in [
        (
            "/",
            ["Soapaction", "X-Api-Key", "X-Api-Key", "X-Real-IP"],
            ["Etag", "X-Server", "X-Server"],
            "Sec-WebSocket-Accept",
        ),
        (
            "/same",
            ["SOAPAction", "X-Real-IP", "X-api-key", "x-api-KEY"],
            ["ETag", "X-SERVER", "x-server"],
            "sec-websocket-accept",
        ),
    ] {
        let mut io = plain(&gateway).await;
        for _ in 0..2 {
            let request = format!("GET {path} HTTP/1.1\r\nHost: default.test\r\n{fields}\r\n");
            let answer = ask(&mut io, request).await;
            let asked = soon(told.recv()).await.unwrap();
            assert_eq!(names(&asked, &["x-api-key", "soapaction", "x-real-ip"]), of_client, "{path}");
            assert_eq!(asked.all("x-api-key"), ["1", "3"]);
            assert_eq!(names(&answer.head, &["etag", "x-server"]), of_server, "{path}");
            assert_eq!(answer.head.get("keep-alive"), Some("timeout=74"));
        }
        io.write_all(handshake("default.test", path, fields).as_bytes()).await.unwrap();
        let head = read_head(&mut io).await.unwrap();
        let asked = soon(told.recv()).await.unwrap();
        assert_eq!(names(&asked, &["x-api-key", "soapaction", "x-real-ip"]), of_client, "{path}");
        assert_eq!(names(&head, &["sec-websocket-accept"]), [accept]);
        // Over HTTP/2 there is one spelling.
        let mut client = http2(&gateway).await;
        let request = client.request(Method::GET, path);
        assert_eq!(client.ask(request).await.status(), 200);
        soon(told.recv()).await.unwrap();
    }
}
