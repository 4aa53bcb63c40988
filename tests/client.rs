//! Clients' connections: how long they are kept, how they end, and what becomes of uploads that are answered
//! early.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use bytes::Bytes;
use http::Method;
use support::backend::{Backend, echo};
use support::gateway::{Gateway, Setup, config, route};
use support::http1::{ask, read_answer, read_head};
use support::http2::{self, Http2};
use support::soon;
use support::tls::Tls;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

/// `keys` are the listeners'.
fn start(keys: &str, routes: &str) -> Gateway {
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"]);
    setup.start(&config("", routes).replace("[[listener]]", &format!("[[listener]]\n{keys}")))
}

async fn tls(gateway: &Gateway, alpn: &str) -> tokio_rustls::client::TlsStream<TcpStream> {
    Tls::new("default.test", &[alpn]).connect(gateway.address()).await.unwrap()
}

fn post(path: &str, len: usize) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: default.test\r\nContent-Length: {len}\r\n\r\n")
}

const GET: &str = "GET / HTTP/1.1\r\nHost: default.test\r\n\r\n";

#[tokio::test]
async fn an_idle_connection_ends_with_close_notify_at_its_time() {
    let (backend, _) = echo().await;
    let keys = "header_timeout = \"200ms\"\nkeep_alive_timeout = \"1200ms\"";
    let gateway = start(keys, &route("/", backend.address));
    for begun in ["", "POST / HT"] {
        let mut io = tls(&gateway, "http/1.1").await;
        ask(&mut io, post("/", 2) + "ok").await;
        let asked = Instant::now();
        tokio::time::sleep(SECOND / 2).await; // longer than a head may take
        io.write_all(begun.as_bytes()).await.unwrap();
        // rustls says UnexpectedEof where close_notify is missing (RFC 8446 §6.1).
        let ended = soon(io.read(&mut [0; 1])).await;
        assert_eq!(ended.unwrap(), 0, "{begun:?}");
        let lived = asked.elapsed();
        let expect = if begun.is_empty() { 1200 } else { 700 };
        let expect = Duration::from_millis(expect)..Duration::from_millis(expect + 450);
        assert!(expect.contains(&lived), "{begun:?}: {lived:?}");
    }
    // A client that never sent a request has the time of a head.
    let mut io = tls(&gateway, "http/1.1").await;
    let connected = Instant::now();
    assert_eq!(soon(io.read(&mut [0; 1])).await.unwrap(), 0);
    assert!(connected.elapsed() < SECOND);
}

#[tokio::test]
async fn the_end_is_announced_before_anything_is_thrown_away() {
    let (backend, seen) = echo().await;
    let gateway = start("keep_alive_timeout = \"300ms\"", &route("/", backend.address));
    // A pool asks again as long as it hears no end: each request is answered, or the end came before it.
    let mut asked = 0;
    for round in 0..40 {
        let mut io = tls(&gateway, "http/1.1").await;
        for _ in 0..2 {
            if let Ok(Ok(0)) = tokio::time::timeout(Duration::ZERO, io.read(&mut [0; 1])).await {
                break;
            }
            io.write_all((post("/", 2) + "ok").as_bytes()).await.unwrap();
            let Some(answer) = read_answer(&mut io, false).await else {
                // It crossed the end on its way.
                break;
            };
            assert_eq!(answer.status(), 200);
            asked += 1;
            // Well before and well behind the end, never beside it.
            let pause = if round % 2 == 0 { 150 } else { 600 };
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }
    assert_eq!(asked, 20 * 2 + 20);
    assert_eq!(seen.count(), asked);
}

#[tokio::test]
async fn the_answer_says_how_long_a_connection_is_kept() {
    let (backend, _) = echo().await;
    let gateway = start("keep_alive_timeout = \"30s\"", &route("/", backend.address));
    for (request, expect) in [
        (GET.to_owned(), Some("timeout=29")),
        (post("/nobody", 0), Some("timeout=29")),
        (GET.replace("\r\n\r\n", "\r\nConnection: x, Close\r\n\r\n"), None),
        (GET.replace("1.1", "1.0"), None),
        (post("/", 2).replace("1.1", "1.0") + "ok", None),
    ] {
        let mut io = tls(&gateway, "http/1.1").await;
        let answer = ask(&mut io, &request).await;
        assert_eq!(answer.head.get("keep-alive"), expect, "{request:?} {answer:?}");
        let connection = answer.head.all("connection");
        assert_eq!(connection == ["keep-alive"], expect.is_some(), "{request:?} {connection:?}");
    }
}

#[tokio::test]
async fn every_end_over_http2_is_close_notify() {
    let keys = "header_timeout = \"200ms\"\nkeep_alive_timeout = \"200ms\"";
    let gateway = start(keys, &route("/", Backend::unreachable()));
    for said in ["", "PRI * HTTP/2.0\r\n", "GET / HTTP/1.1\r\nHost: default.test\r\n\r\n"] {
        let mut io = tls(&gateway, "h2").await;
        io.write_all(said.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        soon(io.read_to_end(&mut rest)).await.unwrap_or_else(|e| panic!("{said:?}: {e}"));
    }
    // One that has asked for something and says no more, nor hears the GOAWAY: SETTINGS, HEADERS (GET /).
    let mut io = tls(&gateway, "h2").await;
    io.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let head = b"\x82\x87\x84\x41\x0cdefault.test";
    let mut frame = vec![0, 0, u8::try_from(head.len()).unwrap(), 1, 5, 0, 0, 0, 1];
    frame.extend(head);
    io.write_all(&frame).await.unwrap();
    let mut rest = Vec::new();
    soon(io.read_to_end(&mut rest)).await.unwrap();
    // A frame that ends the connection: DATA on stream 0.
    let mut io = tls(&gateway, "h2").await;
    io.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0").await.unwrap();
    soon(io.read_to_end(&mut rest)).await.unwrap();
}

/// A backend that answers 413 at once, and then `reads` what comes, or closes.
async fn refusing(reads: bool) -> Backend {
    Backend::start(move |mut tcp| async move {
        read_head(&mut tcp).await.unwrap();
        tcp.write_all(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nmuch").await.unwrap();
        if reads {
            let _ = tokio::io::copy(&mut tcp, &mut tokio::io::sink()).await;
        }
    })
    .await
}

const UPLOAD_LEN: usize = 24 << 20; // more than all sockets on the way hold

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_sends_all_before_it_reads() {
    let (reads, closes) = (refusing(true).await, refusing(false).await);
    let routes = route("/reads", reads.address)
        + &route("/closes", closes.address)
        + &route("/dead", Backend::unreachable());
    let gateway = start("", &routes);
    let body = vec![7; UPLOAD_LEN];
    for (path, status) in [("/reads", 413), ("/closes", 413), ("/dead", 502), ("/none", 404)] {
        let mut io = tls(&gateway, "http/1.1").await;
        io.write_all(post(path, UPLOAD_LEN).as_bytes()).await.unwrap();
        soon(io.write_all(&body)).await.unwrap_or_else(|e| panic!("{path}: {e}"));
        io.flush().await.unwrap();
        let answer = read_answer(&mut io, false).await.unwrap_or_else(|| panic!("{path}: no answer"));
        assert_eq!((answer.status(), answer.whole), (status, true), "{path}");
        let mut client = Http2::connect(tls(&gateway, "h2").await, "default.test").await;
        let request = client.request(Method::POST, path);
        let (response, mut send) = client.begin(request, false).await;
        send_slowly(&mut send, UPLOAD_LEN).await;
        assert_eq!(http2::read(soon(response).await.unwrap()).await.status(), status, "{path}");
    }
}

/// Sends so many bytes as windows allow.
async fn send_slowly(send: &mut h2::SendStream<Bytes>, len: usize) {
    let mut left = len;
    while left > 0 {
        send.reserve_capacity(left.min(1 << 16));
        let capacity = soon(std::future::poll_fn(|cx| send.poll_capacity(cx))).await.unwrap().unwrap();
        let chunk = capacity.min(left);
        send.send_data(vec![7; chunk].into(), false).unwrap();
        left -= chunk;
    }
    send.send_data(Bytes::new(), true).unwrap();
}

#[tokio::test]
async fn an_upload_goes_on_behind_a_whole_early_answer() {
    let (told, mut got) = mpsc::unbounded_channel();
    let backend = Backend::start(move |mut tcp| {
        let told = told.clone();
        async move {
            read_head(&mut tcp).await.unwrap();
            let answer = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nok\n";
            tcp.write_all(answer.as_bytes()).await.unwrap();
            let mut body = vec![0; UPLOAD_LEN];
            let got = tcp.read_exact(&mut body).await.map(|_| body.iter().all(|b| *b == 7));
            let _ = told.send(got.unwrap_or(false));
        }
    })
    .await;
    let gateway = start("", &route("/", backend.address));
    let mut io = tls(&gateway, "http/1.1").await;
    io.write_all(post("/", UPLOAD_LEN).as_bytes()).await.unwrap();
    let answer = read_answer(&mut io, false).await.unwrap();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "ok\n"));
    soon(io.write_all(&vec![7; UPLOAD_LEN])).await.unwrap();
    io.flush().await.unwrap();
    assert!(soon(got.recv()).await.unwrap());
    // And the connection is there for more.
    io.write_all(post("/", 0).as_bytes()).await.unwrap();
    assert_eq!(read_answer(&mut io, false).await.unwrap().status(), 200);
    assert!(!soon(got.recv()).await.unwrap()); // it had no body

    let mut client = Http2::connect(tls(&gateway, "h2").await, "default.test").await;
    let mut request = client.request(Method::PUT, "/");
    request.headers_mut().insert("content-length", UPLOAD_LEN.into());
    let (response, mut send) = client.begin(request, false).await;
    assert_eq!(http2::read(soon(response).await.unwrap()).await.text(), "ok\n");
    send_slowly(&mut send, UPLOAD_LEN).await;
    assert!(soon(got.recv()).await.unwrap());
}

/// The beginning of an HTTP/2 connection: preface, empty SETTINGS.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// HEADERS of the `n`th request, which has no body: GET / of default.test.
fn headers(n: u32) -> Vec<u8> {
    let head = b"\x82\x87\x84\x41\x0cdefault.test";
    let mut frame = vec![0, 0, u8::try_from(head.len()).unwrap(), 1, 5];
    frame.extend((2 * n + 1).to_be_bytes());
    frame.extend(head);
    frame
}

/// The type of the next frame that isn't SETTINGS or WINDOW_UPDATE, and the code at its end.
async fn next_code(io: &mut (impl tokio::io::AsyncRead + Unpin)) -> Option<(u8, u32)> {
    loop {
        let mut head = [0; 9];
        io.read_exact(&mut head).await.ok()?;
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(len).unwrap()];
        io.read_exact(&mut payload).await.ok()?;
        match head[3] {
            3 => return Some((3, u32::from_be_bytes(payload[..4].try_into().unwrap()))),
            7 => return Some((7, u32::from_be_bytes(payload[4..8].try_into().unwrap()))),
            _ => {}
        }
    }
}

const PROTOCOL_ERROR: u32 = 1;
const REFUSED_STREAM: u32 = 7;

/// A backend that never answers, and tells of each request.
async fn mute() -> (Backend, mpsc::UnboundedReceiver<()>) {
    let (told, asked) = mpsc::unbounded_channel();
    let backend = Backend::start(move |mut tcp| {
        let told = told.clone();
        async move {
            while read_head(&mut tcp).await.is_some() {
                let _ = told.send(());
            }
        }
    })
    .await;
    (backend, asked)
}

#[tokio::test]
async fn a_client_has_so_many_streams_and_no_more() {
    let (backend, mut asked) = mute().await;
    let gateway = start("", &route("/", backend.address));
    let (mut read, mut write) = tokio::io::split(tls(&gateway, "h2").await);
    write.write_all(HTTP2).await.unwrap();
    for n in 0..300 {
        write.write_all(&headers(n)).await.unwrap();
    }
    write.flush().await.unwrap();
    for _ in 256..300 {
        assert_eq!(soon(next_code(&mut read)).await, Some((3, REFUSED_STREAM)));
    }
    for _ in 0..256 {
        soon(asked.recv()).await.unwrap();
    }
    assert!(asked.try_recv().is_err());
}

#[tokio::test]
async fn a_list_of_fields_has_an_end_over_http2() {
    let (backend, seen) = echo().await;
    let gateway = start("", &route("/", backend.address));
    let mut client = Http2::connect(tls(&gateway, "h2").await, "default.test").await;
    for (count, status) in [(40, 200), (80, 431)] {
        let mut request = client.request(Method::GET, "/");
        for _ in 0..count {
            request.headers_mut().append("x-long", "x".repeat(1000).parse().unwrap());
        }
        assert_eq!(client.ask(request).await.status(), status, "{count} fields");
    }
    assert_eq!(seen.count(), 1);
}

#[tokio::test]
async fn what_is_malformed_over_http2_ends_its_stream_alone() {
    let (backend, mut asked) = mute().await;
    let gateway = start("", &route("/", backend.address));
    let (mut read, mut write) = tokio::io::split(tls(&gateway, "h2").await);
    write.write_all(&[HTTP2, &headers(0)].concat()).await.unwrap();
    soon(asked.recv()).await.unwrap();
    let malformed: [&[u8]; 5] = [
        b"\0\x0aconnection\x05close",
        b"\0\x07upgrade\x03h2c",
        b"\0\x02te\x04gzip",
        b"\0\x0econtent-length\x01x",
        b"\x82", // :method again, and behind a field
    ];
    for (n, field) in (1..).zip(malformed) {
        let mut frame = headers(n);
        frame[2] += u8::try_from(field.len()).unwrap();
        frame.extend(field);
        write.write_all(&frame).await.unwrap();
        write.flush().await.unwrap();
        assert_eq!(soon(next_code(&mut read)).await, Some((3, PROTOCOL_ERROR)), "{field:?}");
    }
    // The connection lives, and so do others on it.
    write.write_all(&headers(100)).await.unwrap();
    soon(asked.recv()).await.unwrap();
}

#[tokio::test]
async fn who_lingers_is_not_waited_for_at_a_drain() {
    let mut gateway = start("", &route("/app", Backend::unreachable()));
    let mut io = tls(&gateway, "http/1.1").await;
    io.write_all(post("/none", UPLOAD_LEN).as_bytes()).await.unwrap();
    assert_eq!(read_answer(&mut io, false).await.unwrap().status(), 404);
    // Our end is told; the client keeps its own open.
    assert_eq!(soon(io.read(&mut [0])).await.unwrap(), 0);
    io.write_all(b"more").await.unwrap();
    let signalled = Instant::now();
    gateway.signal("TERM");
    gateway.ends_well();
    assert!(signalled.elapsed() < 3 * SECOND, "{:?}", signalled.elapsed());
}

#[tokio::test]
async fn a_cut_answer_ends_the_connection_at_once_and_without_close_notify() {
    let cut = Backend::saying("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await;
    let gateway = start("", &route("/", cut.address));
    for version in ["1.1", "1.0"] {
        let mut io = tls(&gateway, "http/1.1").await;
        io.write_all(GET.replace("1.1", version).as_bytes()).await.unwrap();
        read_head(&mut io).await.unwrap();
        let begun = Instant::now();
        let mut rest = Vec::new();
        let ended = soon(io.read_to_end(&mut rest)).await;
        assert!(ended.is_err(), "it must not look whole");
        assert_eq!(rest, b"half");
        assert!(begun.elapsed() < SECOND / 2, "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_body_may_be_slow_but_not_endless() {
    let (backend, _) = echo().await;
    let gateway = start("body_rate = \"1KiB/s\"", &route("/", backend.address));
    let mut io = tls(&gateway, "http/1.1").await;
    io.write_all(post("/", 1_000_000).as_bytes()).await.unwrap();
    let begun = Instant::now();
    let (mut read, mut write) = tokio::io::split(io);
    let dripping = async {
        while write.write_all(b"x").await.is_ok() {
            let _ = write.flush().await;
            tokio::time::sleep(SECOND).await;
        }
    };
    let answer = tokio::select! {
        answer = tokio::time::timeout(60 * SECOND, read_answer_slowly(&mut read)) => answer.unwrap(),
        () = dripping => panic!("it was cut without an answer"),
    };
    assert!(answer.contains(" 408 "), "{answer}");
    assert!((19 * SECOND..30 * SECOND).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

async fn read_answer_slowly(io: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut first = [0; 200];
    let n = io.read(&mut first).await.unwrap();
    String::from_utf8_lossy(&first[..n]).into_owned()
}
