//! The handshake: with clients over HTTP/1.1 and HTTP/2, with backends good and bad.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::net::SocketAddr;
use std::sync::Arc;

use h2::Reason;
use h2::ext::Protocol;
use http::Method;
use support::backend::{Backend, Seen, echo, echo_frames};
use support::gateway::{Gateway, Setup, config, route};
use support::http1::{Answer, ask, read_head};
use support::http2::{self, Http2};
use support::tls::Tls;
use support::ws::{BINARY, KEY, WebSocket, accept, encode, handshake};
use support::{BoxIo, PATIENCE, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};

fn start(top: &str, routes: &str) -> Gateway {
    Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"]).start(&config(top, routes))
}

async fn http1(gateway: &Gateway) -> BoxIo {
    Box::new(Tls::new("default.test", &["http/1.1"]).connect(gateway.address()).await.unwrap())
}

async fn http2(gateway: &Gateway) -> Http2 {
    let io = Tls::new("default.test", &["h2"]).connect(gateway.address()).await.unwrap();
    Http2::connect(io, "default.test").await
}

async fn plain(gateway: &Gateway) -> BoxIo {
    Box::new(TcpStream::connect(gateway.addresses()[1]).await.unwrap())
}

async fn with_echo() -> (Gateway, Backend, Seen) {
    let (backend, seen) = echo().await;
    (start("", &route("/", backend.address)), backend, seen)
}

#[tokio::test]
async fn over_http1_with_and_without_tls() {
    let (gateway, _backend, seen) = with_echo().await;
    for io in [http1(&gateway).await, plain(&gateway).await] {
        let (mut socket, head) = WebSocket::connect(io, "default.test", "/chat?room=1", "").await.unwrap();
        assert_eq!(head.line, "HTTP/1.1 101 Switching Protocols");
        // The spelling of the RFC, for those who look for it letter by letter.
        assert!(head.fields.iter().any(|(name, _)| name == "Sec-WebSocket-Accept"), "{head:?}");
        socket.echoes("tom").await;
        socket.close(1000).await;
        socket.expect_close(1000).await;
        socket.expect_end().await;
        let asked = seen.last();
        assert_eq!(asked.line, "GET /chat?room=1 HTTP/1.1");
        assert_eq!(asked.get("host"), Some("default.test"));
        assert_eq!(asked.all("sec-websocket-version"), ["13"]);
        assert_eq!(asked.all("connection"), ["Upgrade"]);
        assert!(asked.fields.iter().any(|(name, _)| name == "Sec-WebSocket-Key"), "{asked:?}");
        assert_ne!(asked.get("sec-websocket-key"), Some(KEY), "a key of our own");
    }
    let line = gateway.wait_nth("session", 1);
    assert_eq!(
        (&line["status"], &line["ended_by"], &line["close_code"]),
        (&101.into(), &"client".into(), &1000.into())
    );
    assert_eq!((&line["received_messages"], &line["sent_messages"]), (&1.into(), &1.into()));
    assert_eq!(line["path"], "/chat");
}

#[tokio::test]
async fn over_http2() {
    let (gateway, _backend, seen) = with_echo().await;
    let mut client = http2(&gateway).await;
    let (mut first, head) = client.websocket("/chat", &[("cookie", "a=1"), ("cookie", "b=2")]).await.unwrap();
    assert!(!head.headers.contains_key("sec-websocket-accept") && !head.headers.contains_key("connection"));
    assert_eq!(seen.last().line, "GET /chat HTTP/1.1");
    assert_eq!(seen.last().get("host"), Some("default.test"));
    assert!(seen.last().get("sec-websocket-key").is_some());
    // Many on one connection, and plain requests beside them.
    let (mut second, _) = client.websocket("/chat", &[]).await.unwrap();
    first.echoes("first").await;
    second.echoes("second").await;
    let request = client.request(Method::GET, "/page");
    assert_eq!(client.ask(request).await.text(), "GET /page HTTP/1.1\n");
    second.close(4000).await;
    second.expect_close(4000).await;
    second.expect_end().await;
    first.echoes("still").await;
    let line = gateway.wait("session");
    assert_eq!(
        (&line["protocol"], &line["status"], &line["close_code"]),
        (&"HTTP/2".into(), &200.into(), &4000.into())
    );
}

#[tokio::test]
async fn subprotocols_cookies_and_credentials_pass() {
    let (gateway, _backend, seen) = with_echo().await;
    let fields = "Sec-WebSocket-Protocol: chat, v2\r\nCookie: session=1\r\nAuthorization: Bearer x\r\n\
                  Origin: https://a.test\r\nUser-Agent: test\r\n";
    let (_, head) = WebSocket::connect(http1(&gateway).await, "default.test", "/", fields).await.unwrap();
    assert_eq!(head.get("sec-websocket-protocol"), Some("chat"));
    let asked = seen.last();
    for (name, value) in [
        ("sec-websocket-protocol", "chat, v2"),
        ("cookie", "session=1"),
        ("authorization", "Bearer x"),
        ("origin", "https://a.test"),
        ("user-agent", "test"),
    ] {
        assert_eq!(asked.all(name), [value], "{name}");
    }
    let fields =
        [("sec-websocket-protocol", "chat"), ("cookie", "a=1"), ("cookie", "b=2"), ("authorization", "y")];
    let mut client = http2(&gateway).await;
    let mut request = client.request(Method::CONNECT, "/");
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    for (name, value) in fields {
        request.headers_mut().append(name, value.parse().unwrap());
    }
    let (response, _send) = client.send(request, false).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["sec-websocket-protocol"]),
        (200, &"chat".parse().unwrap())
    );
    assert_eq!(seen.last().all("cookie"), ["a=1; b=2"]);
}

#[tokio::test]
async fn the_backend_learns_who_the_client_is_and_nothing_it_made_up() {
    let (gateway, _backend, seen) = with_echo().await;
    let spoofed = "X-Real-IP: 6.6.6.6\r\nX-Forwarded-For: 6.6.6.6\r\nx_forwarded_for: 6.6.6.6\r\n\
                   X-Forwarded-Proto: gopher\r\nX-Forwarded-Port: 1\r\nForwarded: for=6.6.6.6\r\nProxy: evil\r\n";
    let (mut socket, _) =
        WebSocket::connect(http1(&gateway).await, "default.test", "/", spoofed).await.unwrap();
    socket.echoes("x").await;
    let mut request = format!("GET / HTTP/1.1\r\nHost: default.test\r\n{spoofed}");
    request += "Connection: X-Real-IP, x-forwarded-for, Host, Via\r\n\r\n";
    assert_eq!(ask(&mut http1(&gateway).await, request).await.status(), 200);
    let (upgraded, asked) = (seen.last(), seen.last());
    for head in [upgraded, asked] {
        assert_eq!(head.all("x-real-ip"), ["127.0.0.1"]);
        assert_eq!(head.all("x-forwarded-for"), ["127.0.0.1"]);
        assert_eq!(head.all("x-forwarded-proto"), ["https"]);
        assert_eq!(head.all("x-forwarded-host"), ["default.test"]);
        assert_eq!(head.all("host"), ["default.test"]);
        for name in ["x_forwarded_for", "x-forwarded-port", "forwarded", "proxy"] {
            assert_eq!(head.get(name), None, "{name}");
        }
    }
}

#[tokio::test]
async fn the_word_of_a_trusted_proxy_is_passed_on() {
    let (backend, seen) = echo().await;
    let gateway = start("trusted_proxies = [\"127.0.0.0/8\"]", &route("/", backend.address));
    let fields = "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: http\r\n";
    let (mut socket, _) =
        WebSocket::connect(http1(&gateway).await, "default.test", "/", fields).await.unwrap();
    assert_eq!(seen.last().all("x-real-ip"), ["203.0.113.9"]);
    assert_eq!(seen.last().all("x-forwarded-for"), ["203.0.113.9, 127.0.0.1"]);
    assert_eq!(seen.last().all("x-forwarded-proto"), ["http"]);
    socket.close(1000).await;
    socket.expect_close(1000).await;
    assert_eq!(gateway.wait("session")["client"], "203.0.113.9");
}

#[tokio::test]
async fn handshakes_that_are_refused_over_http1() {
    let (gateway, _backend, seen) = with_echo().await;
    let good = handshake("default.test", "/", "");
    for (request, status) in [
        (good.replace("Version: 13", "Version: 8"), 426),
        (good.replace("Sec-WebSocket-Version: 13\r\n", ""), 426),
        (good.replace(KEY, "AAAA"), 400),
        (good.replace(&format!("Sec-WebSocket-Key: {KEY}\r\n"), ""), 400),
        (good.replace("GET ", "POST "), 405),
        (good.replace("Host: default.test\r\n", ""), 400),
        (good.replace("Host: default.test", "Host: default.test\r\nHost: default.test"), 400),
        (good.replace("Host: default.test", "Host: default test"), 400),
        (good.replace("\r\n\r\n", "\r\nContent-Length: 2\r\n\r\nxx"), 400),
        (good.replace("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400),
        ("CONNECT default.test:443 HTTP/1.1\r\nHost: default.test:443\r\n\r\n".into(), 405),
    ] {
        let answer = ask(&mut http1(&gateway).await, &request).await;
        assert_eq!(answer.status(), status, "{request}");
        assert!(answer.text().starts_with(&format!("{status} ")), "{answer:?}");
        if status == 426 {
            assert_eq!(answer.head.get("sec-websocket-version"), Some("13"));
            assert_eq!(answer.head.get("upgrade"), Some("websocket"));
        }
    }
    assert_eq!(seen.count(), 0, "no backend was asked");
}

#[tokio::test]
async fn upgrades_that_are_none_are_served_plainly() {
    let (gateway, _backend, seen) = with_echo().await;
    let good = handshake("default.test", "/", "");
    for request in [
        good.replace("HTTP/1.1", "HTTP/1.0"),
        good.replace("Connection: Upgrade\r\n", ""),
        good.replace("Connection: Upgrade", "Connection: keep-alive"),
        good.replace("Upgrade: websocket", "Upgrade: h2c\r\nHTTP2-Settings: AAAA"),
        good.replace("Upgrade: websocket", "Upgrade: TLS/1.2"),
    ] {
        // The backend echo upgrades whenever it sees a key: only the missing field shows that we asked it not to.
        let request = request.replace(&format!("Sec-WebSocket-Key: {KEY}\r\n"), "");
        let answer = ask(&mut http1(&gateway).await, &request).await;
        assert_eq!(answer.status(), 200, "{request}");
        assert_eq!(seen.last().get("upgrade"), None);
        assert_eq!(seen.last().get("connection"), None);
    }
}

#[tokio::test]
async fn connects_that_are_refused_over_http2_and_end_their_stream_alone() {
    let (gateway, _backend, seen) = with_echo().await;
    let mut client = http2(&gateway).await;
    let (mut bystander, _) = client.websocket("/", &[]).await.unwrap();
    let websocket = |client: &Http2| {
        let mut request = client.request(Method::CONNECT, "/");
        request.extensions_mut().insert(Protocol::from_static("websocket"));
        request
    };

    let mut old = websocket(&client);
    old.headers_mut().insert("sec-websocket-version", "8".parse().unwrap());
    let (response, _send) = client.send(old, false).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["sec-websocket-version"]),
        (400, &"13".parse().unwrap())
    );

    let mut unknown = client.request(Method::CONNECT, "/");
    unknown.extensions_mut().insert(Protocol::from_static("connect-udp"));
    let (response, _send) = client.send(unknown, false).await.unwrap();
    assert_eq!(response.status(), 501);

    let mut ordinary = client.request(Method::CONNECT, "/");
    *ordinary.uri_mut() = "default.test:443".parse().unwrap();
    let (response, _send) = client.send(ordinary, false).await.unwrap();
    assert_eq!(response.status(), 405);

    let mut long = websocket(&client);
    long.headers_mut().insert("content-length", "5".parse().unwrap());
    let (response, _send) = client.send(long, false).await.unwrap();
    assert_eq!(response.status(), 400);

    bystander.echoes("still here").await;
    assert_eq!(seen.count(), 1, "no other backend was asked");
}

/// A frame of HTTP/2 (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let len = u8::try_from(payload.len()).unwrap();
    [&[0, 0, len, kind, flags, 0, 0, 0, stream], payload].concat()
}

/// The next frame that is not for the whole connection: its kind, its stream and its payload. `of_the_connection` gets the others.
async fn read_frame(io: &mut BoxIo, of_the_connection: &mut Vec<(u8, Vec<u8>)>) -> (u8, u8, Vec<u8>) {
    loop {
        let mut head = [0; 9];
        soon(io.read_exact(&mut head)).await.unwrap();
        let [len0, len1, len2, kind, _, _, _, _, stream] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, len0, len1, len2]) as usize];
        soon(io.read_exact(&mut payload)).await.unwrap();
        match stream {
            0 => of_the_connection.push((kind, payload)),
            stream => return (kind, stream, payload),
        }
    }
}

#[tokio::test]
async fn a_listener_can_leave_websockets_to_http1() {
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    let (backend, seen) = echo().await;
    let text = config("", &route("/", backend.address));
    for (is_on, answer) in [(true, HEADERS), (false, RST_STREAM)] {
        let word = if is_on { "on" } else { "off" };
        let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"]);
        let to = format!("[[listener]]\nwebsocket_over_http2 = \"{word}\"\n");
        let gateway = setup.start(&text.replacen("[[listener]]\n", &to, 1));
        let mut io: BoxIo =
            Box::new(Tls::new("default.test", &["h2"]).connect(gateway.address()).await.unwrap());
        let field = |name: &str, value: &str| {
            let [name_len, value_len] = [name, value].map(|text| u8::try_from(text.len()).unwrap());
            // Literal, without indexing, with a new name (RFC 7541 §6.2.2).
            [&[0, name_len], name.as_bytes(), &[value_len], value.as_bytes()].concat()
        };
        let fields = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "https"),
            (":path", "/"),
            (":authority", "default.test"),
            ("sec-websocket-version", "13"),
        ];
        let fields: Vec<u8> = fields.into_iter().flat_map(|(name, value)| field(name, value)).collect();
        io.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        io.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
        io.write_all(&frame(HEADERS, 4, 1, &fields)).await.unwrap();
        let mut of_connection = Vec::new();
        let (kind, stream, payload) = read_frame(&mut io, &mut of_connection).await;
        assert_eq!((kind, stream), (answer, 1));
        if kind == RST_STREAM {
            assert_eq!(payload, [0, 0, 0, 1], "PROTOCOL_ERROR");
        }
        let settings = of_connection.iter().find(|(kind, _)| *kind == SETTINGS).unwrap();
        // SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441 §9.1).
        assert_eq!(settings.1.chunks(6).any(|setting| setting == [0, 8, 0, 0, 0, 1]), is_on);
        let mut over_http1 =
            WebSocket::connect(http1(&gateway).await, "default.test", "/", "").await.unwrap().0;
        over_http1.echoes("as ever").await;
    }
    assert_eq!(seen.count(), 3);
}

#[tokio::test]
async fn foreign_origins_are_refused_before_any_backend() {
    let (backend, seen) = echo().await;
    let routes = route("/", backend.address) + "[route.websocket]\norigins = [\"https://good.test\"]\n";
    let gateway = start("", &routes);
    for (origin, welcome) in [
        ("", true),
        ("Origin: https://good.test\r\n", true),
        ("Origin: https://GOOD.test:443\r\n", true),
        ("Origin: https://evil.test\r\n", false),
        ("Origin: http://good.test\r\n", false),
        ("Origin: null\r\n", false),
    ] {
        let before = seen.count();
        let result = WebSocket::connect(http1(&gateway).await, "default.test", "/", origin).await;
        assert_eq!(result.is_ok(), welcome, "{origin:?}");
        if let Err(head) = result {
            assert_eq!((head.status(), seen.count()), (403, before));
        }
    }
    let mut client = http2(&gateway).await;
    let Err(refused) = client.websocket("/", &[("origin", "https://evil.test")]).await else {
        panic!("not allowed")
    };
    assert_eq!(refused.status(), 403);
}

/// What a client over HTTP/1.1, and one over HTTP/2, are told of a backend.
async fn refusals(gateway: &Gateway, path: &str) -> (Answer, http2::Answer) {
    let first = ask(&mut http1(gateway).await, handshake("default.test", path, "")).await;
    let Err(second) = http2(gateway).await.websocket(path, &[]).await else { panic!("a tunnel") };
    (first, second)
}

fn switching(fields: &str) -> String {
    format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n")
}

#[tokio::test]
async fn backends_that_can_not_be_reached_or_say_nothing() {
    let silent = Backend::start(|tcp| async move {
        tokio::time::sleep(2 * PATIENCE).await;
        drop(tcp);
    })
    .await;
    let closing = Backend::start(|tcp| async move { drop(tcp) }).await;
    let routes = route("/refused", Backend::unreachable())
        + &route("/silent", silent.address)
        + "response_timeout = \"300ms\"\n"
        + &route("/closing", closing.address)
        + "[[route]]\npath = \"/nameless\"\nproxy = \"http://no.such.name.invalid\"\n";
    let gateway = start("", &routes);
    for (path, status, cause) in [
        ("/refused", 502, "refused"),
        ("/silent", 504, "response_timeout"),
        ("/closing", 502, "broke before it answered"),
        ("/nameless", 502, "can't be resolved"),
    ] {
        let (first, second) = refusals(&gateway, path).await;
        assert_eq!((first.status(), second.status()), (status, status), "{path}");
        assert!(first.text().starts_with(&format!("{status} ")), "{first:?}");
        let line = gateway.wait_for(|line| line["path"] == path, 1, path);
        assert!(line["cause"].as_str().unwrap().contains(cause), "{line}");
        assert_eq!(line["level"], "WARN");
    }
    assert_eq!(refusals(&gateway, "/nowhere").await.0.status(), 404);
}

#[tokio::test]
async fn backends_that_lie() {
    let mut routes = String::new();
    let mut backends = Vec::new();
    let wrong = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
    for (i, answer) in [
        switching(&format!("Upgrade: websocket\r\nConnection: Upgrade\r\n{wrong}")),
        switching("Upgrade: websocket\r\nConnection: Upgrade\r\n"),
        switching(&format!("Connection: Upgrade\r\n{wrong}")),
        switching(&format!("Upgrade: websocket\r\n{wrong}")),
        switching(""),
        "SSH-2.0-OpenSSH_9.2\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!".to_owned(),
        "HTTP/1.1 1000 Odd\r\nContent-Length: 0\r\n\r\n".to_owned(),
    ]
    .into_iter()
    .enumerate()
    {
        let backend = Backend::saying(answer).await;
        routes += &route(&format!("/{i}"), backend.address);
        backends.push(backend);
    }
    // A true proof, but more than was offered.
    for (name, fields) in [
        ("protocols", "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: soap\r\n"),
        ("extension", "Sec-WebSocket-Extensions: permessage-deflate\r\n"),
    ] {
        let backend = Backend::start(move |tcp| async move {
            let (mut socket, _) = WebSocket::serve(tcp, fields).await;
            let _ = socket.io.read_u8().await;
        })
        .await;
        routes += &route(&format!("/{name}"), backend.address);
        backends.push(backend);
    }
    let gateway = start("", &routes);
    for path in ["/0", "/1", "/2", "/3", "/4", "/5", "/6", "/7", "/protocols", "/extension"] {
        let (first, second) = refusals(&gateway, path).await;
        assert_eq!((first.status(), second.status()), (502, 502), "{path}: {first:?}");
    }
    // Unasked: a 101 to a plain request.
    let answer = ask(&mut http1(&gateway).await, "GET /0 HTTP/1.1\r\nHost: default.test\r\n\r\n").await;
    assert_eq!(answer.status(), 502);
}

#[tokio::test]
async fn careless_backends_open_a_tunnel() {
    let mut routes = String::new();
    let mut backends = Vec::new();
    let cases = [
        ("/length", "Content-Length: 0\r\n", None, None),
        ("/long", "Content-Length: 12\r\n", None, None),
        ("/chunked", "Transfer-Encoding: chunked\r\n", None, None),
        ("/both", "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", None, None),
        ("/empty", "Sec-WebSocket-Protocol: \r\n", Some(""), Some("not offered")),
        ("/other", "Sec-WebSocket-Protocol: soap\r\n", Some("soap"), Some("not offered")),
        (
            "/twice",
            "Sec-WebSocket-Protocol: soap\r\nSec-WebSocket-Protocol: soap\r\n",
            Some("soap"),
            Some("is forwarded once"),
        ),
    ];
    for (path, fields, ..) in cases {
        let backend =
            Backend::start(
                move |tcp| async move { echo_frames(WebSocket::serve(tcp, fields).await.0).await },
            )
            .await;
        routes += &route(path, backend.address);
        backends.push(backend);
    }
    let gateway = start("", &routes);
    for ((path, fields, protocol, repair), backend) in cases.into_iter().zip(&backends) {
        let (mut socket, head) =
            WebSocket::connect(http1(&gateway).await, "default.test", path, "").await.unwrap();
        socket.echoes(fields).await;
        assert_eq!(head.get("sec-websocket-protocol"), protocol, "{fields:?}");
        for framing in ["content-length", "transfer-encoding"] {
            assert_eq!(head.get(framing), None, "{fields:?}");
        }
        let (mut socket, head) = http2(&gateway).await.websocket(path, &[]).await.unwrap();
        socket.echoes(fields).await;
        let seen = head.headers.get("sec-websocket-protocol").map(|value| value.to_str().unwrap());
        assert_eq!(seen, protocol, "{fields:?}");
        assert!(!head.headers.contains_key("content-length"), "{fields:?}");
        if let Some(repair) = repair {
            let address = backend.address.to_string();
            let is_told = |line: &serde_json::Value| {
                line["upstream"] == address.as_str()
                    && line["repair"].as_str().is_some_and(|it| it.contains(repair))
            };
            gateway.wait_for(is_told, 1, repair);
        }
    }
}

#[tokio::test]
async fn a_backend_that_does_not_upgrade_is_passed_on_and_never_a_tunnel() {
    let ok = Backend::saying("HTTP/1.1 200 OK\r\nContent-Length: 6\r\nX-A: b\r\n\r\nhello\n").await;
    let denied = Backend::saying(
        "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 3\r\n\r\nno\n",
    )
    .await;
    let old = Backend::saying(
        "HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 8\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    let routes = route("/ok", ok.address) + &route("/denied", denied.address) + &route("/old", old.address);
    let gateway = start("", &routes);
    let (first, second) = refusals(&gateway, "/ok").await;
    assert_eq!((first.status(), first.text().as_str(), first.head.get("x-a")), (200, "hello\n", Some("b")));
    assert_eq!(second.status(), 502, "200 would open the tunnel");
    let (first, second) = refusals(&gateway, "/denied").await;
    assert_eq!((first.status(), first.text().as_str()), (401, "no\n"));
    assert_eq!(first.head.get("www-authenticate"), Some("Basic"));
    assert_eq!((second.status(), second.text().as_str()), (401, "no\n"));
    let (first, _) = refusals(&gateway, "/old").await;
    assert_eq!((first.status(), first.head.get("sec-websocket-version")), (426, Some("8")));
    // The connection is HTTP's still.
    let mut io = http1(&gateway).await;
    assert_eq!(ask(&mut io, handshake("default.test", "/ok", "")).await.status(), 200);
    assert_eq!(ask(&mut io, "GET /nowhere HTTP/1.1\r\nHost: default.test\r\n\r\n").await.status(), 404);
}

#[tokio::test]
async fn no_byte_of_the_clients_goes_before_the_backends_101_and_none_is_lost() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let backend = Backend::start(move |mut tcp| {
        let tell = tell.clone();
        async move {
            let head = read_head(&mut tcp).await.unwrap();
            // Everything that arrives before the answer would show here.
            let early = tokio::time::timeout(std::time::Duration::from_millis(300), tcp.read_u8()).await;
            tell.send(early.is_ok()).unwrap();
            // The 101 and the first frame in one packet.
            let key = head.get("sec-websocket-key").unwrap();
            let answer = switching(&format!(
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n",
                accept(key)
            ));
            let first = [answer.as_bytes(), &encode(BINARY, b"with the 101", false)].concat();
            tcp.write_all(&first).await.unwrap();
            support::backend::echo_frames(WebSocket { io: Box::new(tcp), client: false }).await;
        }
    })
    .await;
    let gateway = start("", &route("/", backend.address));
    // The handshake and the first frame in one packet.
    let mut io = http1(&gateway).await;
    let request = [handshake("default.test", "/", "").as_bytes(), &encode(BINARY, b"early", true)].concat();
    io.write_all(&request).await.unwrap();
    assert_eq!(read_head(&mut io).await.unwrap().status(), 101);
    let mut socket = WebSocket { io, client: true };
    assert_eq!(socket.receive().await.unwrap().payload, b"with the 101");
    assert_eq!(socket.receive().await.unwrap().payload, b"early");
    assert!(!soon(told.recv()).await.unwrap(), "a byte came before the 101");
    let mut client = http2(&gateway).await;
    let (mut socket, _) = client.websocket("/", &[]).await.unwrap();
    assert_eq!(socket.receive().await.unwrap().payload, b"with the 101");
    assert!(!soon(told.recv()).await.unwrap());
}

/// A backend that upgrades, is told to go, says `after` and ends, in order or with a reset: not
/// before `seen`, since a reset overtakes what was written.
async fn ending(reset: bool, after: &'static [u8], seen: &Arc<Notify>) -> Backend {
    let seen = seen.clone();
    Backend::start(move |tcp| {
        let seen = seen.clone();
        async move {
            if reset {
                #[allow(deprecated, reason = "the successor is not in every tokio")]
                tcp.set_linger(Some(std::time::Duration::ZERO)).unwrap();
            }
            let (mut socket, _) = WebSocket::serve(tcp, "").await;
            socket.expect_text("go").await;
            socket.send_raw(after).await;
            if !after.is_empty() {
                soon(seen.notified()).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn how_a_backend_ends_is_how_the_stream_ends() {
    let close = encode(support::ws::CLOSE, &1000u16.to_be_bytes(), false).leak();
    let half = &encode(BINARY, b"half a frame", false).leak()[..6];
    let seen = Arc::new(Notify::new());
    let orderly = ending(false, close, &seen).await;
    let lost = ending(false, b"", &seen).await;
    let reset = ending(true, b"", &seen).await;
    let cut = ending(true, half, &seen).await;
    let routes = route("/orderly", orderly.address)
        + &route("/lost", lost.address)
        + &route("/reset", reset.address)
        + &route("/cut", cut.address);
    let gateway = start("", &routes);
    let mut client = http2(&gateway).await;

    let (mut socket, _) = client.websocket("/orderly", &[]).await.unwrap();
    socket.text("go").await;
    socket.expect_close(1000).await;
    seen.notify_one();
    socket.close(1000).await;
    assert_eq!(end_of(&mut socket).await, None, "END_STREAM");

    let (mut socket, _) = client.websocket("/lost", &[]).await.unwrap();
    socket.text("go").await;
    socket.expect_close(1011).await;
    socket.close(1011).await;
    assert_eq!(end_of(&mut socket).await, None, "END_STREAM");

    let (mut socket, _) = client.websocket("/reset", &[]).await.unwrap();
    socket.text("go").await;
    socket.expect_close(1011).await;
    socket.close(1011).await;
    assert_eq!(end_of(&mut socket).await, Some(Reason::CANCEL));

    let (mut socket, _) = client.websocket("/cut", &[]).await.unwrap();
    socket.text("go").await;
    let mut begun = vec![0; half.len()];
    soon(socket.io.read_exact(&mut begun)).await.unwrap();
    assert_eq!(begun, half);
    seen.notify_one();
    assert_eq!(end_of(&mut socket).await, Some(Reason::CANCEL));

    // The same over HTTP/1.1, where TLS has no reset to say.
    for (path, code) in [("/lost", 1011), ("/reset", 1011)] {
        let (mut socket, _) =
            WebSocket::connect(http1(&gateway).await, "default.test", path, "").await.unwrap();
        socket.text("go").await;
        socket.expect_close(code).await;
        socket.close(code).await;
        socket.expect_end().await;
    }
    let (mut socket, _) =
        WebSocket::connect(http1(&gateway).await, "default.test", "/cut", "").await.unwrap();
    socket.text("go").await;
    soon(socket.io.read_exact(&mut begun)).await.unwrap();
    seen.notify_one();
    let end = soon(socket.io.read_u8()).await.unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::UnexpectedEof, "TCP ends without close_notify: {end}");
    let line = gateway.wait_for(|line| line["path"] == "/lost" && line["message"] == "session", 0, "/lost");
    assert_eq!(
        (&line["ended_by"], &line["close_code"], &line["level"]),
        (&"backend".into(), &1011.into(), &"WARN".into())
    );
}

/// `None` for END_STREAM, else the code of RST_STREAM.
async fn end_of(socket: &mut WebSocket) -> Option<Reason> {
    match soon(socket.io.read_u8()).await {
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => None,
        Err(e) => e.into_inner().unwrap().downcast::<h2::Error>().unwrap().reason(),
        Ok(byte) => panic!("byte {byte:#x}"),
    }
}

#[tokio::test]
async fn how_a_client_ends_is_how_the_backends_connection_ends() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let backend = Backend::start(move |tcp| {
        let tell = tell.clone();
        async move {
            let (mut socket, _) = WebSocket::serve(tcp, "").await;
            socket.expect_text("here").await;
            socket.text("yes").await;
            let end = socket.io.read_u8().await.unwrap_err();
            tell.send(end.kind()).unwrap();
        }
    })
    .await;
    let gateway = start("", &route("/", backend.address));
    let mut client = http2(&gateway).await;
    for (reset, expect) in
        [(true, std::io::ErrorKind::ConnectionReset), (false, std::io::ErrorKind::UnexpectedEof)]
    {
        let mut request = client.request(Method::CONNECT, "/");
        request.extensions_mut().insert(Protocol::from_static("websocket"));
        let (response, send) = client.send(request, false).await.unwrap();
        let mut stream = http2::Stream::new(send, response.into_body());
        stream.write_all(&encode(support::ws::TEXT, b"here", true)).await.unwrap();
        let mut answer = [0; 5];
        soon(stream.read_exact(&mut answer)).await.unwrap();
        if reset {
            stream.reset(Reason::CANCEL);
        } else {
            stream.shutdown().await.unwrap();
        }
        assert_eq!(soon(told.recv()).await.unwrap(), expect);
    }
    // A TCP reset, and a TLS client that vanishes, over HTTP/1.1.
    for (linger, expect) in
        [(Some(0), std::io::ErrorKind::ConnectionReset), (None, std::io::ErrorKind::UnexpectedEof)]
    {
        let tls = Tls::new("default.test", &["http/1.1"]).connect(gateway.address()).await.unwrap();
        if linger.is_some() {
            #[allow(deprecated, reason = "the successor is not in every tokio")]
            tls.get_ref().0.set_linger(linger.map(std::time::Duration::from_secs)).unwrap();
        }
        let (mut socket, _) = WebSocket::connect(tls, "default.test", "/", "").await.unwrap();
        socket.text("here").await;
        socket.expect_text("yes").await;
        drop(socket);
        assert_eq!(soon(told.recv()).await.unwrap(), expect);
    }
}

#[tokio::test]
async fn the_host_is_validated_and_authority_wins() {
    let (gateway, _backend, seen) = with_echo().await;
    let status = async |request: &str| ask(&mut plain(&gateway).await, request).await.status();
    assert_eq!(status("GET http://inner.test/x HTTP/1.1\r\nHost: outer.test\r\n\r\n").await, 200);
    assert_eq!((seen.last().line.as_str(), seen.last().get("host")), ("GET /x HTTP/1.1", Some("inner.test")));
    for host in ["a/b", "a b", "user@a", "a:b", "[::1", "a,b"] {
        assert_eq!(status(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await, 400, "{host}");
    }
    for host in ["[::1]:80", "a_b.test", "127.0.0.1", "A.TEST:65535"] {
        assert_eq!(status(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await, 200, "{host}");
        assert_eq!(seen.last().get("host"), Some(host), "as it was sent");
    }
    let mut client = http2(&gateway).await;
    let mut request = client.request(Method::GET, "/");
    request.headers_mut().insert("host", "other.test".parse().unwrap());
    assert_eq!(client.ask(request).await.status(), 400);
    let mut request = client.request(Method::GET, "/");
    request.headers_mut().insert("host", "Default.test".parse().unwrap());
    assert_eq!(client.ask(request).await.status(), 200);
}

#[tokio::test]
async fn one_stalled_socket_does_not_stall_the_others_on_its_connection() {
    let (echo, _seen) = echo().await;
    // A backend that upgrades and then reads nothing.
    let stalled = Backend::start(|tcp| async move {
        let (socket, _) = WebSocket::serve(tcp, "").await;
        tokio::time::sleep(2 * PATIENCE).await;
        drop(socket);
    })
    .await;
    let gateway = start("", &(route("/", echo.address) + &route("/stalled", stalled.address)));
    let mut client = http2(&gateway).await;
    let (mut good, _) = client.websocket("/", &[]).await.unwrap();
    for _ in 0..8 {
        let (mut stalled, _) = client.websocket("/stalled", &[]).await.unwrap();
        // Frames of a byte, which h2 counts as an attack by default, until the window is full.
        let frames = encode(BINARY, b"x", true).repeat(1000);
        tokio::spawn(async move { while stalled.io.write_all(&frames).await.is_ok() {} });
    }
    for i in 0..200 {
        good.echoes(&i.to_string()).await;
    }
    assert!(!client.task.is_finished());
}

/// An address as a route has it.
#[tokio::test]
async fn an_address_may_repeat_the_routes_path() {
    let (backend, seen) = echo().await;
    let address: SocketAddr = backend.address;
    let gateway = start("", &format!("[[route]]\npath = \"/wss\"\nproxy = \"ws://{address}/wss\"\n"));
    let (mut socket, _) =
        WebSocket::connect(http1(&gateway).await, "default.test", "/wss/room", "").await.unwrap();
    socket.echoes("x").await;
    assert_eq!(seen.last().line, "GET /wss/room HTTP/1.1");
}
