//! Public configurations of other servers, translated: each is asked what its users ask
//! (`tests/configurations/README.md` says where they come from).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use http::Method;
use support::BoxIo;
use support::backend::{Backend, Seen, echo, serve};
use support::gateway::{Gateway, Setup};
use support::http1::{Answer, Head, ask};
use support::http2::Http2;
use support::pki::Pki;
use support::tls::{TLS13, Tls, acceptor};
use support::ws::WebSocket;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// A gateway with this configuration, certificates for these names, and these servers.
fn start(name: &str, hosts: &[&str], servers: &[(&str, SocketAddr)], fill: impl FnOnce(&Path)) -> Gateway {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/configurations").join(name);
    let mut setup = Setup::new(env!("CARGO_BIN_EXE_wssgate"));
    for (name, address) in servers {
        setup = setup.with(name, address.to_string());
    }
    let setup = setup.with("DOMAIN", "domain.com").with_certificate(hosts);
    fill(setup.path());
    setup.start(&fs::read_to_string(file).unwrap())
}

fn write(directory: &Path, name: &str, content: impl AsRef<[u8]>) {
    let path = directory.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// A connection to the listener of this number, over TLS if `tls`.
async fn connect(gateway: &Gateway, listener: usize, host: &str, tls: bool) -> BoxIo {
    let address = gateway.addresses()[listener];
    if tls {
        Box::new(Tls::new(host, &["http/1.1"]).connect(address).await.unwrap())
    } else {
        Box::new(TcpStream::connect(address).await.unwrap())
    }
}

/// A request over HTTP/1.1; `fields` are whole lines.
async fn get(gateway: &Gateway, host: &str, path: &str, fields: &str) -> Answer {
    let mut io = connect(gateway, 0, host, true).await;
    ask(&mut io, format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n")).await
}

/// A request in plain text to the listener of this number.
async fn get_plain(gateway: &Gateway, listener: usize, host: &str, path: &str) -> Answer {
    let mut io = connect(gateway, listener, host, false).await;
    ask(&mut io, format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await
}

/// A request over HTTP/2.
async fn http2(gateway: &Gateway, host: &str, path: &str) -> support::http2::Answer {
    let io = Tls::new(host, &["h2"]).connect(gateway.address()).await.unwrap();
    let mut client = Http2::connect(io, host).await;
    client.ask(client.request(Method::GET, path)).await
}

/// A WebSocket over TLS that echoes, and the head of the answer to its handshake.
async fn socket(gateway: &Gateway, host: &str, path: &str, fields: &str) -> Head {
    let io = connect(gateway, 0, host, true).await;
    let (mut socket, head) = WebSocket::connect(io, host, path, fields).await.unwrap();
    socket.echoes("hello").await;
    head
}

fn has(head: &Head, fields: &[(&str, &str)]) {
    for (name, value) in fields {
        assert_eq!(head.all(name), [*value], "{name} of {head:?}");
    }
}

fn fields_of(answer: &support::http2::Answer, name: &str) -> Option<String> {
    answer.head.headers.get(name).map(|value| value.to_str().unwrap().to_owned())
}

/// Redirected from plain text to TLS, path and query kept.
async fn is_sent_to_tls(gateway: &Gateway, host: &str, status: u16) {
    let port = gateway.address().port();
    let answer = get_plain(gateway, 1, host, "/a%2Fb?c=d").await;
    let location = answer.head.get("location").unwrap().to_owned();
    assert_eq!(answer.status(), status, "{location}");
    let without_port = location.replace(&format!(":{port}"), "");
    assert_eq!(without_port, format!("https://{host}/a%2Fb?c=d"));
}

/// A server that answers every request with a long page.
async fn page(fields: &str) -> Backend {
    let body = "<p>hello</p>".repeat(300);
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n{fields}Content-Length: {}\r\n\r\n",
        body.len()
    );
    Backend::saying(head + &body).await
}

#[tokio::test]
async fn ssl_offloader() {
    let (backend, seen) = echo().await;
    let gateway = start("ssl_offloader.toml", &["domain.com"], &[("UPSTREAM", backend.address)], |_| {});
    let expect = [
        ("host", "any.example"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-port", "443"),
        ("x-forwarded-for", "127.0.0.1"),
    ];
    assert_eq!(
        get(&gateway, "any.example", "/x?y", "X-Forwarded-For: 6.6.6.6\r\n").await.text(),
        "GET /x?y HTTP/1.1\n"
    );
    has(&seen.last(), &expect);
    assert_eq!(http2(&gateway, "any.example", "/x").await.status(), 200);
    has(&seen.last(), &expect);
    socket(&gateway, "any.example", "/exec", "").await;
    has(&seen.last(), &expect);
    is_sent_to_tls(&gateway, "any.example", 308).await;
    let backend = page("").await;
    let gateway = start("ssl_offloader.toml", &["domain.com"], &[("UPSTREAM", backend.address)], |_| {});
    let answer = get(&gateway, "domain.com", "/", "Accept-Encoding: gzip\r\n").await;
    assert_eq!(answer.head.get("content-encoding"), Some("gzip"));
}

#[tokio::test]
async fn mattermost_behind_nginx() {
    const SECURITY: [(&str, &str); 7] = [
        ("X-Frame-Options", "SAMEORIGIN"),
        ("X-XSS-Protection", "1; mode=block"),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Strict-Transport-Security", "max-age=63072000"),
        ("Permissions-Policy", "interest-cohort=()"),
        ("X-Robots-Tag", "noindex"),
    ];
    let (backend, seen) = echo().await;
    let servers = [("MATTERMOST", backend.address)];
    let gateway = start("mattermost_nginx.toml", &["domain.com"], &servers, |www| {
        write(www, "html/.well-known/acme-challenge/token", "proof");
    });
    let answer = get(&gateway, "domain.com", "/channels", "").await;
    assert_eq!(answer.text(), "GET /channels HTTP/1.1\n");
    has(&answer.head, &SECURITY);
    has(&seen.last(), &[("x-real-ip", "127.0.0.1"), ("x-forwarded-proto", "https"), ("host", "domain.com")]);
    let answer = http2(&gateway, "domain.com", "/").await;
    for (name, value) in SECURITY {
        assert_eq!(fields_of(&answer, name).as_deref(), Some(value), "{name}");
    }
    for path in ["/api/v4/websocket", "/api/v4/users/websocket"] {
        socket(&gateway, "domain.com", path, "").await;
        assert_eq!(seen.last().line, format!("GET {path} HTTP/1.1"));
    }
    assert_eq!(get(&gateway, "domain.com", "/api/v4/posts", "").await.text(), "GET /api/v4/posts HTTP/1.1\n");
    let answer = get(&gateway, "domain.com", "/.well-known/acme-challenge/token", "").await;
    assert_eq!((answer.text().as_str(), answer.head.get("content-type")), ("proof", Some("text/plain")));
    let asked = seen.count();
    let mut io = connect(&gateway, 0, "domain.com", true).await;
    let long = "POST /api/v4/files HTTP/1.1\r\nHost: domain.com\r\nContent-Length: 50000001\r\n\r\n";
    assert_eq!(ask(&mut io, long).await.status(), 413);
    assert_eq!(seen.count(), asked, "the server is not asked");
    is_sent_to_tls(&gateway, "domain.com", 308).await;
    let backend = page("").await;
    let servers = [("MATTERMOST", backend.address)];
    let gateway = start("mattermost_nginx.toml", &["domain.com"], &servers, |www| {
        fs::create_dir_all(www.join("html/.well-known")).unwrap();
    });
    // text/html is not in the list.
    let answer = get(&gateway, "domain.com", "/", "Accept-Encoding: gzip\r\n").await;
    assert_eq!(answer.head.get("content-encoding"), None);
}

#[tokio::test]
async fn portainer_below_a_path() {
    const ALICE: &str = "Authorization: Basic YWxpY2U6c2VjcmV0\r\n";
    const USERS: &str = "alice:$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n";
    let (backend, seen) = echo().await;
    let servers = [("PORTAINER", backend.address)];
    let gateway = start("portainer.toml", &["domain.com"], &servers, |www| write(www, "htpasswd", USERS));
    let answer = get(&gateway, "domain.com", "/portainer", "").await;
    assert_eq!((answer.status(), answer.head.get("location")), (301, Some("/portainer/")));
    let refused = get(&gateway, "domain.com", "/portainer/", "").await;
    assert_eq!(refused.status(), 401);
    assert!(refused.head.get("www-authenticate").unwrap().contains("realm=\"Restricted\""));
    assert_eq!(get(&gateway, "domain.com", "/portainer/", ALICE).await.text(), "GET / HTTP/1.1\n");
    assert_eq!(
        get(&gateway, "domain.com", "/portainer/api/x?y", ALICE).await.text(),
        "GET /api/x?y HTTP/1.1\n"
    );
    socket(&gateway, "domain.com", "/portainer/api/websocket/exec?id=1", ALICE).await;
    assert_eq!(seen.last().line, "GET /api/websocket/exec?id=1 HTTP/1.1");
    let io = connect(&gateway, 0, "domain.com", true).await;
    let refused = WebSocket::connect(io, "domain.com", "/portainer/api/websocket/exec", "").await;
    assert_eq!(refused.err().unwrap().status(), 401);
    assert_eq!(get(&gateway, "domain.com", "/portainerx", ALICE).await.status(), 404);
    let backend = Backend::saying(
        "HTTP/1.1 302 Found\r\nLocation: /auth\r\nX-Frame-Options: DENY\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    let servers = [("PORTAINER", backend.address)];
    let gateway = start("portainer.toml", &["domain.com"], &servers, |www| write(www, "htpasswd", USERS));
    let answer = get(&gateway, "domain.com", "/portainer/", ALICE).await;
    assert_eq!(answer.head.get("location"), Some("/portainer/auth"));
    assert_eq!(answer.head.get("x-frame-options"), None);
}

#[tokio::test]
async fn jitsi() {
    const HOST: &str = "meet.example.com";
    let (backend, seen) = echo().await;
    let script = "let jitsi = 1;\n".repeat(200);
    let gateway = start("jitsi.toml", &[HOST], &[("XMPP", backend.address)], |www| {
        write(www, "jitsi-meet/index.html", "<p>meet</p>".repeat(200));
        write(www, "jitsi-meet/config.js", &script);
        write(www, "jitsi-meet/libs/external_api.min.js", &script);
        write(www, "jitsi-meet/static/404.html", "no such page");
        write(www, "jitsi-meet/.well-known/acme-challenge/token", "proof");
    });
    for room in ["/", "/MyRoom", "/sub/MyRoom", "/My%20Room?jwt=x"] {
        let answer = get(&gateway, HOST, room, "").await;
        assert_eq!(
            (answer.status(), answer.head.get("content-type")),
            (200, Some("text/html; charset=utf-8")),
            "{room}"
        );
        assert!(answer.text().starts_with("<p>meet</p>"));
        has(&answer.head, &[("Strict-Transport-Security", "max-age=31536000")]);
        assert_eq!(http2(&gateway, HOST, room).await.status(), 200);
    }
    let answer = get(&gateway, HOST, "/config.js", "Accept-Encoding: gzip\r\n").await;
    assert_eq!(answer.head.get("content-encoding"), Some("gzip"));
    let answer = get(&gateway, HOST, "/libs/external_api.min.js", "").await;
    assert_eq!(answer.text(), script);
    has(&answer.head, &[("Access-Control-Allow-Origin", "*"), ("Cache-Control", "max-age=2592000")]);
    let etag = answer.head.get("etag").unwrap().to_owned();
    let again = get(&gateway, HOST, "/libs/external_api.min.js", &format!("If-None-Match: {etag}\r\n")).await;
    assert_eq!(again.status(), 304);
    let answer = get(&gateway, HOST, "/external_api.js", "").await;
    assert_eq!(answer.head.get("location"), Some("/libs/external_api.min.js"));
    let missing = get(&gateway, HOST, "/static/nothing.css", "").await;
    assert_eq!((missing.status(), missing.text().as_str()), (404, "no such page"));
    // Both ways to the XMPP server, of the main domain and of a subdomain.
    for front in ["", "/sub"] {
        let mut io = connect(&gateway, 0, HOST, true).await;
        let bosh = format!(
            "POST {front}/http-bind?room=x HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 6\r\n\r\n<body>"
        );
        assert_eq!(ask(&mut io, bosh).await.text(), "POST /http-bind?room=x HTTP/1.1\n", "{front}");
        has(&seen.last(), &[("x-forwarded-for", "127.0.0.1"), ("host", HOST)]);
        let path = format!("{front}/xmpp-websocket?room=x");
        socket(&gateway, HOST, &path, "Sec-WebSocket-Protocol: xmpp\r\n").await;
        assert_eq!(seen.last().line, "GET /xmpp-websocket?room=x HTTP/1.1", "{front}");
        assert_eq!(seen.last().get("sec-websocket-protocol"), Some("xmpp"));
    }
    let answer = get_plain(&gateway, 1, HOST, "/.well-known/acme-challenge/token").await;
    assert_eq!(answer.text(), "proof");
    assert_eq!(get_plain(&gateway, 1, HOST, "/.well-known/acme-challenge/").await.status(), 404);
    is_sent_to_tls(&gateway, HOST, 308).await;
}

#[tokio::test]
async fn fhq_behind_apache() {
    let (plain, seen) = echo().await;
    let pki = Pki::new();
    let tls = acceptor(TLS13, &pki.issue(&["127.0.0.1"]), None);
    let seen_over_tls = Seen::default();
    let heads = seen_over_tls.clone();
    let secure = Backend::start(move |tcp| {
        let (tls, heads) = (tls.clone(), heads.clone());
        async move { serve(tls.accept(tcp).await.unwrap(), &heads).await }
    })
    .await;
    let servers = [("FHQ_WS", plain.address), ("FHQ_WSS", secure.address)];
    let gateway = start("fhq.toml", &["domain.com"], &servers, |www| {
        write(www, "fhq-ca.pem", pki.root_pem());
        write(www, "www/index.html", "the site");
    });
    let secure_listener = gateway.addresses()[1];
    let io = connect(&gateway, 0, "domain.com", false).await;
    let (mut socket, _) = WebSocket::connect(io, "domain.com", "/api-ws/", "").await.unwrap();
    socket.echoes("over plain text").await;
    has(&seen.last(), &[("via", "1.1 wssgate"), ("host", "domain.com")]);
    assert_eq!(seen.last().line, "GET / HTTP/1.1");
    let io = Tls::new("domain.com", &["http/1.1"]).connect(secure_listener).await.unwrap();
    let (mut socket, _) = WebSocket::connect(io, "domain.com", "/api-wss/x", "").await.unwrap();
    socket.echoes("over TLS, twice").await;
    assert_eq!(seen_over_tls.last().line, "GET /x HTTP/1.1");
    // Each only on its own listener.
    let io = connect(&gateway, 0, "domain.com", false).await;
    assert_eq!(WebSocket::connect(io, "domain.com", "/api-wss/", "").await.err().unwrap().status(), 404);
    assert_eq!(get_plain(&gateway, 0, "domain.com", "/").await.text(), "the site");
}

#[tokio::test]
async fn synapse_behind_haproxy() {
    const HOST: &str = "matrix.example.com";
    let (backend, seen) = echo().await;
    let gateway = start("synapse.toml", &[HOST, "example.com"], &[("MATRIX", backend.address)], |_| {});
    // Not decoded and not put in order (AllowEncodedSlashes, nocanon).
    for path in ["/_matrix/client/r0/rooms/%21a%3Ab%2Fc/state", "/_synapse/client/x"] {
        assert_eq!(get(&gateway, HOST, path, "").await.text(), format!("GET {path} HTTP/1.1\n"));
        has(
            &seen.last(),
            &[("x-forwarded-proto", "https"), ("x-forwarded-for", "127.0.0.1"), ("host", HOST)],
        );
        assert_eq!(http2(&gateway, HOST, path).await.text(), format!("GET {path} HTTP/1.1\n"));
    }
    for (host, path) in [(HOST, "/"), (HOST, "/_synapse/admin"), ("example.com", "/_matrix/x")] {
        assert_eq!(get(&gateway, host, path, "").await.status(), 404, "{host}{path}");
    }
    let federation = gateway.addresses()[1];
    let mut io = Tls::new("example.com", &["http/1.1"]).connect(federation).await.unwrap();
    let answer = ask(&mut io, "GET /_matrix/key/v2/server HTTP/1.1\r\nHost: example.com\r\n\r\n").await;
    assert_eq!(answer.text(), "GET /_matrix/key/v2/server HTTP/1.1\n");
    // A client that sends no name of ours gets no certificate.
    assert!(Tls::new("other.example", &["http/1.1"]).connect(gateway.address()).await.is_err());
}

#[tokio::test]
async fn mattermost_behind_caddy() {
    let (backend, seen) = echo().await;
    let hosts = ["domain1.example.com", "domain2.example.com"];
    let gateway = start("mattermost_caddy.toml", &hosts, &[("MATTERMOST", backend.address)], |_| {});
    let expect = [
        ("Strict-Transport-Security", "max-age=31536000; includeSubDomains; preload"),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "DENY"),
        ("X-XSS-Protection", "1; mode=block"),
    ];
    for host in hosts {
        has(&get(&gateway, host, "/", "").await.head, &expect);
        has(&socket(&gateway, host, "/api/v4/websocket", "").await, &expect);
        assert_eq!(seen.last().get("host"), Some(host));
        is_sent_to_tls(&gateway, host, 308).await;
    }
    assert_eq!(get(&gateway, "domain3.example.com", "/", "").await.status(), 404);
}

#[tokio::test]
async fn n8n_behind_apache() {
    const HOST: &str = "your-domain.com";
    let (backend, seen) = echo().await;
    let gateway = start("n8n.toml", &[HOST], &[("N8N", backend.address)], |www| {
        write(www, "public_html/.well-known/acme-challenge/token", "proof");
    });
    socket(&gateway, HOST, "/rest/push?sessionId=1", "").await;
    assert_eq!(seen.last().line, "GET /rest/push?sessionId=1 HTTP/1.1");
    assert_eq!(get(&gateway, HOST, "/workflows", "").await.text(), "GET /workflows HTTP/1.1\n");
    has(&seen.last(), &[("host", HOST)]);
    assert!(seen.last().get("upgrade").is_none(), "only WebSockets are upgrades");
    assert_eq!(get(&gateway, HOST, "/.well-known/acme-challenge/token", "").await.text(), "proof");
    is_sent_to_tls(&gateway, HOST, 301).await;
}

#[tokio::test]
async fn hiveclass_behind_haproxy() {
    const HOST: &str = "school.example.com";
    let (websockets, seen_ws) = echo().await;
    let (http, seen) = echo().await;
    let errors = |www: &Path| {
        for status in [400, 502, 503, 504] {
            write(www, &format!("errors/{status}.html"), format!("sorry: {status}"));
        }
    };
    let servers = [("WS", websockets.address), ("HTTP", http.address)];
    let gateway = start("hiveclass.toml", &[HOST], &servers, errors);
    socket(&gateway, HOST, "/ws/class/7", "").await;
    assert_eq!((seen_ws.count(), seen.count()), (1, 0));
    assert_eq!(get(&gateway, HOST, "/ws", "").await.text(), "GET /ws HTTP/1.1\n");
    socket(&gateway, HOST, "/other", "").await;
    assert_eq!((seen_ws.count(), seen.count()), (1, 2), "both conditions have to be met");
    let servers = [("WS", websockets.address), ("HTTP", Backend::unreachable())];
    let gateway = start("hiveclass.toml", &[HOST], &servers, errors);
    let answer = get(&gateway, HOST, "/", "").await;
    assert_eq!((answer.status(), answer.text().as_str()), (502, "sorry: 502"));
}

#[tokio::test]
async fn crypter_behind_caddy() {
    const HOST: &str = "www.domain.com";
    let (backend, seen) = echo().await;
    let gateway = start("crypter.toml", &[HOST, "domain.com"], &[("API", backend.address)], |www| {
        write(www, "srv/index.html", "<p>application");
        write(www, "srv/app.wasm", "wasm");
        write(www, "srv/app.wasm.br", "smaller");
    });
    for path in ["/", "/user/settings"] {
        assert_eq!(get(&gateway, HOST, path, "").await.text(), "<p>application");
        assert_eq!(http2(&gateway, HOST, path).await.text(), "<p>application");
    }
    let answer = get(&gateway, HOST, "/app.wasm", "Accept-Encoding: gzip, br\r\n").await;
    assert_eq!(answer.text(), "smaller");
    has(&answer.head, &[("content-encoding", "br"), ("content-type", "application/wasm")]);
    assert_eq!(get(&gateway, HOST, "/app.wasm", "").await.text(), "wasm");
    assert_eq!(get(&gateway, HOST, "/api/file/1", "").await.text(), "GET /api/file/1 HTTP/1.1\n");
    let mut io = connect(&gateway, 0, HOST, true).await;
    let long = format!("PUT /api/file HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 100000001\r\n\r\n");
    io.write_all(long.as_bytes()).await.unwrap();
    assert_eq!(support::http1::read_answer(&mut io, false).await.unwrap().status(), 413);
    assert_eq!(seen.count(), 1);
    let answer = get(&gateway, "domain.com", "/a?b", "").await;
    assert_eq!((answer.status(), answer.head.get("location")), (301, Some("https://www.domain.com/a?b")));
}
