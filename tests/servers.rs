//! How servers are reached.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use http::Method;
use std::sync::{Arc, Mutex};

use support::backend::{Backend, Seen, echo_on, serve};
use support::gateway::{Gateway, Setup, config};
use support::http1::ask;
use support::http2::Http2;
use support::pki::Pki;
use support::tls::{TLS12, TLS13, Tls, acceptor};
use support::until;
use support::ws::WebSocket;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

fn setup() -> Setup {
    Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"])
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
    socket_1.expect_close(1000).await;
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

/// An echo server behind TLS: what it has seen, and the kinds of its handshakes.
async fn tls_echo(tls: TlsAcceptor) -> (Backend, Seen, Arc<Mutex<Vec<String>>>) {
    let (seen, kinds) = (Seen::default(), Arc::new(Mutex::new(Vec::new())));
    let (heads, handshakes) = (seen.clone(), kinds.clone());
    let backend = Backend::start(move |tcp| {
        let (tls, heads, handshakes) = (tls.clone(), heads.clone(), handshakes.clone());
        async move {
            let Ok(stream) = tls.accept(tcp).await else { return };
            let session = stream.get_ref().1;
            let certificates = session.peer_certificates().map_or(0, <[_]>::len);
            let kind = format!(
                "{:?} {} {certificates}",
                session.handshake_kind().unwrap(),
                session.server_name().unwrap_or("-")
            );
            handshakes.lock().unwrap().push(kind);
            serve(stream, &heads).await;
        }
    })
    .await;
    (backend, seen, kinds)
}

/// A route to a server, whose settings are in the route or in an upstream.
fn one_server(written: &str, scheme: &str, address: std::net::SocketAddr, lines: &str) -> String {
    match written {
        "route" => format!("[[route]]\npath = \"/\"\nproxy = \"{scheme}://{address}\"\n{lines}"),
        _ => format!(
            "[[upstream]]\nname = \"app\"\nservers = [\"{scheme}://{address}\"]\n{lines}\n\
             [[route]]\npath = \"/\"\nproxy = \"app\"\n"
        ),
    }
}

#[tokio::test]
async fn a_server_behind_tls_gets_requests_and_websockets() {
    for (versions, written) in [(TLS13, "route"), (TLS12, "route"), (TLS13, "upstream")] {
        let setup = setup();
        let pki = Pki::new();
        std::fs::write(setup.path().join("ca.pem"), pki.root_pem()).unwrap();
        pki.issue(&["gateway.test"]).write(setup.path(), "gateway");
        let (server, seen, kinds) =
            tls_echo(acceptor(versions, &pki.issue(&["app.internal"]), Some(pki.root()))).await;
        let tls = format!(
            "[{written}.tls]\nca = \"ca.pem\"\nserver_name = \"app.internal\"\n\
             client_certificate = {{ chain = \"gateway.crt\", key = \"gateway.key\" }}\n"
        );
        let gateway =
            setup.start(&config("workers = 1", &one_server(written, "https", server.address, &tls)));
        let mut h1 = http1(&gateway).await;
        let mut h2 = http2(&gateway).await;
        for _ in 0..3 {
            assert_eq!(ask(&mut h1, get("/x")).await.text(), "GET /x HTTP/1.1\n");
            assert_eq!(h2.ask(h2.request(Method::GET, "/y")).await.text(), "GET /y HTTP/1.1\n");
        }
        assert_eq!(kinds.lock().unwrap().len(), 1, "the connection is kept");
        assert_eq!(seen.last().get("x-forwarded-proto"), Some("https"));
        let (mut first, _) =
            WebSocket::connect(http1(&gateway).await, "default.test", "/ws", "").await.unwrap();
        let (mut second, _) = h2.websocket("/ws", &[]).await.unwrap();
        for text in ["one".to_owned(), "two".to_owned(), "x".repeat(300_000)] {
            first.echoes(&text).await;
            second.echoes(&text).await;
        }
        let expect = ["Full app.internal 2", "Resumed app.internal 2", "Resumed app.internal 2"];
        assert_eq!(*kinds.lock().unwrap(), expect);
        first.close(1000).await;
        first.expect_close(1000).await;
        first.expect_end().await;
        let line = gateway.wait("session");
        assert_eq!(
            (&line["backend"], &line["ended_by"]),
            (&server.address.to_string().into(), &"client".into())
        );
    }
}

#[tokio::test]
async fn a_server_whose_certificate_is_not_valid_is_a_502_that_says_why() {
    let setup = setup();
    let pki = Pki::new();
    std::fs::write(setup.path().join("ca.pem"), pki.root_pem()).unwrap();
    std::fs::write(setup.path().join("other.pem"), Pki::new().root_pem()).unwrap();
    let (server, seen, _) = tls_echo(acceptor(TLS13, &pki.issue(&["app.internal"]), None)).await;
    let plain = Backend::start(|mut tcp: TcpStream| async move {
        assert!(tcp.read(&mut [0; 1024]).await.unwrap() > 0);
        let _ = tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let route = |path: &str, address, tls: &str| {
        format!("[[route]]\npath = \"{path}\"\nproxy = \"https://{address}\"\n[route.tls]\n{tls}\n")
    };
    let routes = [
        route("/name", server.address, "ca = \"ca.pem\""),
        route("/issuer", server.address, "ca = \"other.pem\"\nserver_name = \"app.internal\""),
        // No test is trusted by the system.
        route("/system", server.address, "server_name = \"app.internal\""),
        route("/plain", plain.address, "ca = \"ca.pem\""),
    ];
    // The system's authorities, wherever the test runs.
    let file = setup.path().join("other.pem");
    let setup = setup.with("SSL_CERT_FILE", file);
    let gateway = setup.start(&config("", &routes.concat()));
    for (path, says) in [
        ("/name", "the server's certificate is for app.internal, and not for 127.0.0.1"),
        ("/issuer", "the server's certificate for app.internal is not valid: "),
        ("/system", "the server's certificate for app.internal is not valid: "),
        ("/plain", "the server doesn't speak TLS on this port (first bytes \"HTTP/1.1 400 Bad\")"),
    ] {
        let answer = ask(&mut http1(&gateway).await, get(path)).await;
        assert_eq!(answer.status(), 502, "{path}");
        assert!(!answer.text().contains("internal"), "clients aren't told");
        let line = gateway.wait_for(|line| line["path"] == path, 0, path);
        assert!(line["cause"].as_str().unwrap().starts_with(says), "{line}");
        let refused =
            WebSocket::connect(http1(&gateway).await, "default.test", path, "").await.err().unwrap();
        assert_eq!(refused.status(), 502);
    }
    assert_eq!(seen.count(), 0);
}

#[tokio::test]
async fn the_authorities_of_the_system_are_trusted() {
    let setup = setup();
    let pki = Pki::new();
    std::fs::write(setup.path().join("system.pem"), pki.root_pem()).unwrap();
    let (server, seen, _) = tls_echo(acceptor(TLS13, &pki.issue(&["127.0.0.1"]), None)).await;
    let file = setup.path().join("system.pem");
    let setup = setup.with("SSL_CERT_FILE", file);
    let gateway = setup.start(&config("workers = 1", &one_server("route", "https", server.address, "")));
    let mut io = http1(&gateway).await;
    assert_eq!(ask(&mut io, get("/x")).await.text(), "GET /x HTTP/1.1\n");
    let (mut socket, _) = WebSocket::connect(http1(&gateway).await, "default.test", "/ws", "").await.unwrap();
    socket.echoes("hello").await;
    assert_eq!(seen.count(), 2);
}

#[tokio::test]
async fn without_a_pool_each_request_has_a_connection_of_its_own() {
    for (written, route, connections) in
        [("route", "pool = \"off\"\n", 3), ("upstream", "pool = \"off\"\n", 3), ("upstream", "", 1)]
    {
        let (seen, accepted) = (Seen::default(), Arc::new(Mutex::new(0)));
        let (heads, count) = (seen.clone(), accepted.clone());
        let backend = Backend::start(move |tcp: TcpStream| {
            *count.lock().unwrap() += 1;
            let heads = heads.clone();
            async move { serve(tcp, &heads).await }
        })
        .await;
        let gateway =
            setup().start(&config("workers = 1", &one_server(written, "http", backend.address, route)));
        let mut io = http1(&gateway).await;
        for _ in 0..3 {
            assert_eq!(ask(&mut io, get("/x")).await.status(), 200);
        }
        assert_eq!(*accepted.lock().unwrap(), connections, "{written} {route}");
        assert_eq!(seen.count(), 3);
    }
}

#[tokio::test]
async fn files_for_tls_are_read_before_anything_starts_and_again_at_a_reload() {
    let setup = setup();
    let pki = Pki::new();
    let ca = setup.path().join("ca.pem");
    std::fs::write(&ca, pki.root_pem()).unwrap();
    let (server, _, kinds) = tls_echo(acceptor(TLS13, &pki.issue(&["127.0.0.1"]), None)).await;
    let route = format!(
        "[[route]]\npath = \"/\"\nproxy = \"wss://{}\"\n[route.tls]\nca = [\"ca.pem\"]\n",
        server.address
    );
    let gateway = setup.start(&config("workers = 1", &route));
    let mut io = http1(&gateway).await;
    assert_eq!(ask(&mut io, get("/")).await.status(), 200);
    // With the same authority the kept connection is used again.
    assert_eq!(gateway.reload()["message"], "reloaded");
    assert_eq!(ask(&mut io, get("/")).await.status(), 200);
    assert_eq!(kinds.lock().unwrap().len(), 1);
    std::fs::write(&ca, "nothing").unwrap();
    let refused = gateway.reload();
    assert!(refused.to_string().contains("ca.pem"), "{refused}");
    assert_eq!(ask(&mut io, get("/")).await.status(), 200);
    // With another one it isn't, and the server is not trusted any more.
    std::fs::write(&ca, Pki::new().root_pem()).unwrap();
    assert_eq!(gateway.reload()["message"], "reloaded");
    assert_eq!(ask(&mut http1(&gateway).await, get("/")).await.status(), 502);
}

/// Takes a header of the PROXY protocol, and says it: in version 2, source and destination.
async fn read_header(io: &mut TcpStream) -> String {
    let mut head = [0; 16];
    assert_eq!(io.read_exact(&mut head[..6]).await.unwrap(), 6);
    if &head[..6] == b"PROXY " {
        let mut line = Vec::from(&head[..6]);
        while !line.ends_with(b"\r\n") {
            line.push(io.read_u8().await.unwrap());
        }
        return String::from_utf8(line).unwrap().trim_end().to_owned();
    }
    io.read_exact(&mut head[6..]).await.unwrap();
    assert_eq!(head, *b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c");
    let mut rest = [0; 12];
    io.read_exact(&mut rest).await.unwrap();
    let ip = |at: usize| std::net::Ipv4Addr::from(*rest[at..].first_chunk::<4>().unwrap());
    let port = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
    format!("v2 {} {} {} {}", ip(0), ip(4), port(8), port(10))
}

#[tokio::test]
async fn backends_are_told_the_client_by_the_proxy_protocol() {
    for (version, behind_tls, written) in
        [("v1", false, "route"), ("v2", false, "route"), ("v1", true, "route"), ("v2", true, "upstream")]
    {
        let setup = setup();
        let pki = Pki::new();
        std::fs::write(setup.path().join("ca.pem"), pki.root_pem()).unwrap();
        let (seen, headers) = (Seen::default(), Arc::new(Mutex::new(Vec::new())));
        let (heads, told) = (seen.clone(), headers.clone());
        let tls = acceptor(TLS13, &pki.issue(&["127.0.0.1"]), None);
        let backend = Backend::start(move |mut tcp: TcpStream| {
            let (heads, told, tls) = (heads.clone(), told.clone(), tls.clone());
            async move {
                let header = read_header(&mut tcp).await;
                told.lock().unwrap().push(header);
                if behind_tls {
                    serve(tls.accept(tcp).await.unwrap(), &heads).await;
                } else {
                    serve(tcp, &heads).await;
                }
            }
        })
        .await;
        let scheme = if behind_tls { "https" } else { "http" };
        let ca = if behind_tls { format!("[{written}.tls]\nca = \"ca.pem\"\n") } else { String::new() };
        let lines = format!("proxy_protocol = \"{version}\"\n{ca}");
        let gateway = setup.start(&config(
            "workers = 1\ntrusted_proxies = [\"127.0.0.1\"]",
            &one_server(written, scheme, backend.address, &lines),
        ));
        let expect = |client: &TcpStream, source: &str, port: u16| {
            let to = client.peer_addr().unwrap();
            match version {
                "v1" => format!("PROXY TCP4 {source} {} {port} {}", to.ip(), to.port()),
                _ => format!("v2 {source} {} {port} {}", to.ip(), to.port()),
            }
        };
        // Each client has connections of its own, and keeps them.
        let (mut first, mut second) = (http1(&gateway).await, http1(&gateway).await);
        let mut all = Vec::new();
        for client in [&mut first, &mut second] {
            all.push(expect(client, "127.0.0.1", client.local_addr().unwrap().port()));
        }
        for _ in 0..3 {
            assert_eq!(ask(&mut first, get("/")).await.status(), 200);
            assert_eq!(ask(&mut second, get("/")).await.status(), 200);
        }
        assert_eq!(*headers.lock().unwrap(), all);
        // A client of another proxy, whose port isn't known.
        let other = "GET / HTTP/1.1\r\nHost: default.test\r\nX-Forwarded-For: 192.0.2.9\r\n\r\n";
        assert_eq!(ask(&mut first, other).await.status(), 200);
        assert_eq!(headers.lock().unwrap().last().unwrap(), &expect(&first, "192.0.2.9", 0));
        // It is over when its client's connection is; the other one is used again.
        assert_eq!(ask(&mut first, get("/")).await.status(), 200);
        assert_eq!(headers.lock().unwrap().len(), 3);
        let third = http1(&gateway).await;
        let header = expect(&third, "127.0.0.1", third.local_addr().unwrap().port());
        let (mut socket, _) = WebSocket::connect(third, "default.test", "/ws", "").await.unwrap();
        socket.echoes("hello").await;
        assert_eq!(headers.lock().unwrap().last().unwrap(), &header);
        let mut h2 = http2(&gateway).await;
        for _ in 0..2 {
            assert_eq!(h2.ask(h2.request(Method::GET, "/x")).await.status(), 200);
        }
        assert_eq!(headers.lock().unwrap().len(), 5);
    }
}

#[tokio::test]
async fn a_body_without_a_length_that_fits_is_sent_with_one() {
    for written in ["route", "upstream"] {
        let (backend, seen) = support::backend::echo().await;
        let text = one_server(written, "http", backend.address, "buffer_request = \"1KiB\"\n");
        lengths_are_given(&setup().start(&config("", &text)), &seen).await;
    }
}

async fn lengths_are_given(gateway: &Gateway, seen: &Seen) {
    let mut h1 = http1(gateway).await;
    for (chunks, length) in [(&["hello ", "world"][..], "11"), (&[], "0"), (&[&"x".repeat(1024)], "1024")] {
        let chunks: String = chunks.iter().map(|data| format!("{:x}\r\n{data}\r\n", data.len())).collect();
        let request = format!(
            "POST /x HTTP/1.1\r\nHost: default.test\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"
        );
        assert_eq!(ask(&mut h1, request).await.status(), 200);
        assert_eq!(seen.last().get("content-length"), Some(length));
        assert_eq!(seen.last().get("transfer-encoding"), None);
    }
    let mut h2 = http2(gateway).await;
    let (answer, mut send) = h2.begin(h2.request(Method::POST, "/y"), false).await;
    send.send_data("hello".into(), false).unwrap();
    send.send_data(" again".into(), true).unwrap();
    assert_eq!(support::soon(answer).await.unwrap().status(), 200);
    assert_eq!(seen.last().get("content-length"), Some("11"));
    // What doesn't fit, and what has trailers, goes on in chunks.
    for (data, trailer) in [("x".repeat(1025), ""), ("x".to_owned(), "X-Sum: 1\r\n")] {
        let request = format!(
            "POST /z{} HTTP/1.1\r\nHost: default.test\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
             {:x}\r\n{data}\r\n0\r\n{trailer}\r\n",
            data.len(),
            data.len()
        );
        let mut io = http1(gateway).await;
        io.write_all(request.as_bytes()).await.unwrap();
        let line = format!("POST /z{} HTTP/1.1", data.len());
        // This backend takes chunks for further heads.
        let head = loop {
            match seen.all().into_iter().find(|head| head.line == line) {
                Some(head) => break head,
                None => tokio::task::yield_now().await,
            }
        };
        assert_eq!(head.get("transfer-encoding"), Some("chunked"));
        assert_eq!(head.get("content-length"), None);
    }
}

/// An echo server that notes where connections come from.
async fn noting_peers() -> (Backend, Arc<Mutex<Vec<String>>>) {
    let peers = Arc::new(Mutex::new(Vec::new()));
    let noted = peers.clone();
    let backend = Backend::start(move |tcp| {
        noted.lock().unwrap().push(tcp.peer_addr().unwrap().ip().to_string());
        async move { serve(tcp, &Seen::default()).await }
    })
    .await;
    (backend, peers)
}

#[tokio::test]
async fn connections_come_from_each_source_address_in_turn() {
    let (backend, peers) = noting_peers().await;
    let (probed, probes) = noting_peers().await;
    let (address, probed) = (backend.address, probed.address);
    let gateway = setup().start(&config(
        "workers = 1",
        &format!(
            "[[upstream]]\nname = \"app\"\nservers = \"http://{address}\"\npool = \"off\"\n\
             source_addresses = [\"127.0.0.2\", \"198.51.100.77\", \"127.0.0.3\"]\n\
             [[upstream]]\nname = \"probed\"\nservers = \"http://{probed}\"\n\
             source_addresses = [\"127.0.0.4\", \"127.0.0.5\"]\n\
             [upstream.health]\nprobe = \"http\"\ninterval = \"50ms\"\n\
             [[route]]\npath = \"/\"\nproxy = \"app\"\n\
             [[route]]\npath = \"/probed\"\nproxy = \"probed\"\n\
             [[route]]\npath = \"/raw\"\nproxy = \"tcp://{address}\"\nsource_addresses = [\"127.0.0.6\", \"127.0.0.7\"]\n"
        ),
    ));
    let warned = |line: &serde_json::Value| {
        let problem = line["problem"].as_str().unwrap_or_default();
        problem.contains("source_addresses of app: 198.51.100.77 is not an address of this machine")
    };
    gateway.wait_for(warned, 0, "a warning");
    let take = || std::mem::take(&mut *peers.lock().unwrap());
    let mut h1 = http1(&gateway).await;
    for _ in 0..3 {
        assert_eq!(ask(&mut h1, get("/x")).await.status(), 200);
    }
    // Each in its turn; the one that is not here leaves its turn to the next.
    assert_eq!(take(), ["127.0.0.2", "127.0.0.3", "127.0.0.3"]);
    let mut open = Vec::new();
    for path in ["/ws", "/ws", "/raw", "/raw"] {
        let io = http1(&gateway).await;
        open.push(WebSocket::connect(io, "default.test", path, "").await.unwrap().0);
    }
    open[0].echoes("hello").await;
    assert_eq!(take(), ["127.0.0.2", "127.0.0.3", "127.0.0.6", "127.0.0.7"]);
    let all = |peers: &[String]| ["127.0.0.4", "127.0.0.5"].iter().all(|ip| peers.iter().any(|p| p == ip));
    until(async || all(&probes.lock().unwrap())).await;
    assert!(probes.lock().unwrap().iter().all(|ip| ip == "127.0.0.4" || ip == "127.0.0.5"));
}
