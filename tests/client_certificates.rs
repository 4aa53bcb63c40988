//! Certificates that clients show: who is asked, who gets in, what the backend hears of it, and what a reload changes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::fs;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::Value;
use support::backend::{Seen, echo};
use support::gateway::{Gateway, Setup, config, route};
use support::http1::{Answer, ask};
use support::http2::Http2;
use support::pki::{Issued, Pki};
use support::tls::{TLS12, TLS13, Tls};
use support::ws::WebSocket;
use tokio::net::TcpStream;

/// `default.test` and `open.test` ask for nothing, `closed.test` and `other.test` for certificates.
struct Site {
    gateway: Gateway,
    pki: Pki,
    device: Issued,
    seen: Seen,
    routes: String,
}

const FIELDS: &str = "[route.request_headers]\nset = { Client-Cert = \"{certificate}\", \
    X-Subject = \"{certificate_subject}\", X-Print = \"{certificate_fingerprint}\" }\n";

fn closed(options: &str) -> String {
    format!("[[certificate]]\nchain = \"closed.crt\"\nkey = \"closed.key\"\nclient_auth = {{ {options} }}\n")
}

async fn start(options: &str) -> Site {
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate"));
    let (directory, pki) = (setup.path().to_owned(), Pki::new());
    pki.issue(&["default.test"]).write(&directory.join("certs"), "default");
    pki.issue(&["open.test", "also-open.test"]).write(&directory.join("certs"), "open");
    pki.issue(&["closed.test", "same.test"]).write(&directory, "closed");
    pki.issue(&["other.test"]).write(&directory, "other");
    fs::write(directory.join("clients.pem"), pki.intermediate_pem()).unwrap();
    fs::write(directory.join("others.pem"), Pki::new().intermediate_pem()).unwrap();
    fs::write(directory.join("revoked.pem"), pki.revocation_list(&[13], 30)).unwrap();
    let (backend, seen) = echo().await;
    let other = "[[certificate]]\nchain = \"other.crt\"\nkey = \"other.key\"\nclient_auth = { ca = \"others.pem\", required = false }\n";
    let routes = format!("{other}{}{FIELDS}", route("/", backend.address));
    std::mem::forget(backend); // it serves as long as the test runs
    let gateway = setup.start(&config("", &format!("{}{routes}", closed(options))));
    Site { gateway, device: pki.issue_client("device 7", 7), pki, seen, routes }
}

impl Site {
    fn reload(&self, certificate: &str) {
        self.gateway.write_config(&config("", &format!("{certificate}{}", self.routes)));
        self.gateway.reload();
    }

    async fn http1(&self, tls: &Tls, host: &str, fields: &str) -> std::io::Result<Answer> {
        let mut io = tls.connect(self.gateway.address()).await?;
        Ok(ask(&mut io, format!("GET / HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n")).await)
    }

    async fn http2(&self, tls: &Tls, host: &str) -> Http2 {
        Http2::connect(tls.connect(self.gateway.address()).await.unwrap(), host).await
    }
}

/// The connection ends in the handshake, or with its first record.
async fn is_refused(site: &Site, tls: &Tls) -> bool {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let Ok(mut io) = tls.connect(site.gateway.address()).await else { return true };
    let _ = io.write_all(b"GET / HTTP/1.1\r\nHost: closed.test\r\nConnection: close\r\n\r\n").await;
    let mut heard = Vec::new();
    let read = io.read_to_end(&mut heard).await;
    assert!(heard.is_empty() || heard.starts_with(b"HTTP/1.1 200"), "{heard:?}");
    read.is_err() && heard.is_empty()
}

#[tokio::test]
async fn a_client_with_a_certificate_is_known_to_the_backend_and_one_without_is_not_let_in() {
    let site = start("ca = \"clients.pem\"").await;
    let whole = format!(":{}:", STANDARD.encode(&site.device.der));
    let spoofed =
        "Client-Cert: :evil:\r\nClient_Cert: :evil:\r\nX-Subject: CN=evil\r\nX_Subject: CN=evil\r\n";
    for versions in [TLS12, TLS13] {
        let plain = Tls::with(versions, Some("closed.test"), &["http/1.1"], &[]);
        assert!(is_refused(&site, &plain).await, "required is the default");
        let stranger = plain.clone().showing(&Pki::new().issue_client("device 7", 7));
        assert!(is_refused(&site, &stranger).await);
        let tls = plain.showing(&site.device);
        let answer = site.http1(&tls, "closed.test", spoofed).await.unwrap();
        assert_eq!(answer.status(), 200);
        let head = site.seen.last();
        assert_eq!(head.all("client-cert"), [&*whole]);
        assert_eq!(head.all("x-subject"), ["CN=device 7,O=Clients"]);
        assert_eq!(head.get("x-print").unwrap().len(), 64);
        assert_eq!((head.get("client_cert"), head.get("x_subject")), (None, None));
        // A host of the same certificate has the same rules.
        assert_eq!(site.http1(&tls, "same.test", "").await.unwrap().status(), 200);
    }
    // Over HTTP/2 and in handshakes of WebSockets, too.
    let h2 = Tls::new("closed.test", &["h2"]).showing(&site.device);
    let mut client = site.http2(&h2, "closed.test").await;
    let mut request = client.request(Method::GET, "/");
    request.headers_mut().append("x_subject", "CN=evil".parse().unwrap());
    assert_eq!(client.ask(request).await.status(), 200);
    assert_eq!(site.seen.last().all("x-subject"), ["CN=device 7,O=Clients"]);
    assert_eq!(site.seen.last().get("x_subject"), None);
    let (mut socket, _) = client.websocket("/", &[]).await.unwrap();
    socket.echoes("over HTTP/2").await;
    assert_eq!(site.seen.last().all("client-cert"), [&*whole]);
    let h1 = Tls::new("closed.test", &["http/1.1"]).showing(&site.device);
    let io = h1.connect(site.gateway.address()).await.unwrap();
    let (mut socket, _) = WebSocket::connect(io, "closed.test", "/", "").await.unwrap();
    socket.echoes("over HTTP/1.1").await;
    assert_eq!(site.seen.last().all("client-cert"), [&*whole]);
    // Other names are not asked, and what clients say of themselves is taken out there, too.
    let tls = Tls::new("open.test", &["http/1.1"]).showing(&site.device);
    assert_eq!(site.http1(&tls, "open.test", spoofed).await.unwrap().status(), 200);
    for name in ["client-cert", "client_cert", "x-subject", "x_subject", "x-print"] {
        assert_eq!(site.seen.last().get(name), None, "{name}");
    }
    for cause in ["the client showed no certificate, which closed.test asks for", "certificate was refused"] {
        let is_refused = |line: &Value| line["cause"].as_str().is_some_and(|told| told.contains(cause));
        site.gateway.wait_for(is_refused, 0, cause);
    }
}

#[tokio::test]
async fn a_connection_is_for_hosts_with_the_same_rules() {
    let site = start("ca = \"clients.pem\"").await;
    let tls = |name: &str, alpn: &str| Tls::new(name, &[alpn]).showing(&site.device);
    for (name, host, status) in [
        ("open.test", "closed.test", 421),
        ("open.test", "CLOSED.test:443", 421),
        ("open.test", "other.test", 421),
        ("default.test", "closed.test", 421),
        ("unknown.test", "closed.test", 421),
        ("closed.test", "open.test", 421),
        ("closed.test", "unknown.test", 421),
        ("closed.test", "same.test", 200),
        ("open.test", "also-open.test", 200),
    ] {
        let answer = site.http1(&tls(name, "http/1.1"), host, "").await.unwrap();
        assert_eq!(answer.status(), status, "{name} {host}");
        let mut client = site.http2(&tls(name, "h2"), &host.to_lowercase()).await;
        let request = client.request(Method::GET, "/");
        assert_eq!(client.ask(request).await.status(), status, "{name} {host}");
        let opened = client.websocket("/", &[]).await.map(|_| 200);
        assert_eq!(opened.unwrap_or_else(|answer| answer.status()), status, "{name} {host}");
    }
    // Without SNI a client has the rules of the default name.
    let nameless = Tls::with(TLS13, None, &["http/1.1"], &[]).showing(&site.device);
    assert_eq!(site.http1(&nameless, "closed.test", "").await.unwrap().status(), 421);
    assert_eq!(site.http1(&nameless, "open.test", "").await.unwrap().status(), 200);
    // No client gets around the rules in plain text; where no certificate is required, there are none to get around.
    for (host, status) in
        [("closed.test", 421), ("other.test", 200), ("open.test", 200), ("unknown.test", 200)]
    {
        let mut tcp = TcpStream::connect(site.gateway.addresses()[1]).await.unwrap();
        let answer = ask(&mut tcp, format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(answer.status(), status, "{host}");
    }
}

#[tokio::test]
async fn optional_and_revoked_certificates() {
    let site = start("ca = [\"clients.pem\"], required = false, crl = \"revoked.pem\"").await;
    let plain = Tls::new("closed.test", &["http/1.1"]);
    assert_eq!(site.http1(&plain, "closed.test", "").await.unwrap().status(), 200);
    assert_eq!(site.seen.last().get("client-cert"), None);
    let tls = plain.clone().showing(&site.device);
    assert_eq!(site.http1(&tls, "closed.test", "").await.unwrap().status(), 200);
    assert_eq!(site.seen.last().get("x-subject"), Some("CN=device 7,O=Clients"));
    assert!(is_refused(&site, &plain.showing(&site.pki.issue_client("thief", 13))).await);
}

#[tokio::test]
async fn a_reload_changes_the_rules_for_old_connections_too() {
    let site = start("ca = \"clients.pem\", required = false").await;
    let tls = Tls::new("closed.test", &["http/1.1"]);
    let get = "GET / HTTP/1.1\r\nHost: closed.test\r\n\r\n";
    let mut old = tls.connect(site.gateway.address()).await.unwrap();
    assert_eq!(ask(&mut old, get).await.status(), 200);
    site.reload(&closed("ca = \"clients.pem\", required = true"));
    assert_eq!(ask(&mut old, get).await.status(), 421);
    assert!(is_refused(&site, &tls).await, "no ticket of before helps");
    let shown = tls.clone().showing(&site.device);
    assert_eq!(site.http1(&shown, "closed.test", "").await.unwrap().status(), 200);
    // A list of revoked certificates is asked by the next handshake.
    site.reload(&closed("ca = \"clients.pem\", crl = \"revoked.pem\""));
    let list = site.gateway.path().join("revoked.pem");
    assert_eq!(site.http1(&shown, "closed.test", "").await.unwrap().status(), 200);
    fs::write(&list, site.pki.revocation_list(&[7], 30)).unwrap();
    site.gateway.reload();
    assert!(is_refused(&site, &shown).await);
    // What can't be used is refused as a whole, and says where.
    fs::write(&list, "nothing").unwrap();
    site.gateway.signal("HUP");
    site.gateway.wait("reload refused: the old generation stays in use");
    let problem =
        site.gateway.wait("this problem prevents the reload")["problem"].as_str().unwrap().to_owned();
    assert!(problem.contains("wssgate.toml:") && problem.contains("revoked.pem"), "{problem}");
    assert!(problem.contains("holds no certificate revocation list"), "{problem}");
    assert!(is_refused(&site, &tls).await);
}

#[tokio::test]
async fn files_of_authorities_are_watched_like_certificates() {
    let site = start("ca = \"clients.pem\"").await;
    let watched = config("", &format!("{}{}", closed("ca = \"clients.pem\""), site.routes));
    site.gateway.write_config(&watched.replace("watch = false", "watch = true"));
    site.gateway.reload();
    let tls = Tls::new("closed.test", &["http/1.1"]).showing(&site.device);
    assert_eq!(site.http1(&tls, "closed.test", "").await.unwrap().status(), 200);
    fs::write(site.gateway.path().join("clients.pem"), Pki::new().intermediate_pem()).unwrap();
    let renewed = site.gateway.wait("renewed");
    assert!(renewed["names_replaced"].as_str().unwrap().contains("closed.test"), "{renewed}");
    assert!(is_refused(&site, &tls).await);
}

#[tokio::test]
async fn a_session_keeps_its_client_through_a_takeover() {
    let site = start("ca = \"clients.pem\"").await;
    let tls = Tls::new("closed.test", &["http/1.1"]).showing(&site.device);
    let io = tls.connect(site.gateway.address()).await.unwrap();
    let (mut socket, _) = WebSocket::connect(io, "closed.test", "/", "").await.unwrap();
    socket.echoes("before").await;
    site.gateway.take_over();
    socket.echoes("after").await;
    socket.close(1000).await;
    socket.expect_close(1000).await;
    drop(socket);
    let line = site.gateway.wait("session");
    assert_eq!(line["subject"], "CN=device 7,O=Clients");
    // Tickets of the old process are good in the new one, under the same rules.
    assert_eq!(site.http1(&tls, "closed.test", "").await.unwrap().status(), 200);
    assert!(is_refused(&site, &Tls::new("closed.test", &["http/1.1"])).await);
}

/// A session lives no longer than what let it in, whatever it has of its own; also after a takeover.
#[tokio::test]
async fn a_session_ends_when_the_certificate_of_its_client_expires() {
    let site = start("ca = \"clients.pem\"").await;
    let brief = site.pki.issue_client_for("brief", 9, Duration::from_secs(4).try_into().unwrap());
    let long = Tls::with(TLS13, Some("closed.test"), &["http/1.1"], &[]).showing(&site.device);
    let brief = Tls::with(TLS13, Some("closed.test"), &["http/1.1"], &[]).showing(&brief);
    let open = async |tls: &Tls| {
        let io = tls.connect(site.gateway.address()).await.unwrap();
        WebSocket::connect(io, "closed.test", "/", "").await.unwrap().0
    };
    let (mut lasting, mut ending) = (open(&long).await, open(&brief).await);
    let h2 = Tls::new("closed.test", &["h2"]).showing(&site.pki.issue_client_for(
        "brief over HTTP/2",
        10,
        Duration::from_secs(4).try_into().unwrap(),
    ));
    let mut client = site.http2(&h2, "closed.test").await;
    let (mut over_http2, _) = client.websocket("/", &[]).await.unwrap();
    site.gateway.take_over();
    ending.echoes("still here").await;
    ending.expect_close(3000).await;
    over_http2.expect_close(3000).await;
    lasting.echoes("still here").await;
    let line = site.gateway.wait("a session ends: its authorization has expired");
    assert!(line["subject"].as_str().unwrap().starts_with("CN=brief"), "{line}");
}
