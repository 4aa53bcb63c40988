//! The how-to pages of the book: the configuration of each is run, and its route asked as its software asks
//! (`support::book` has the rules by which ports, paths and servers become those of a test).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::fs;
use std::path::Path;

use support::backend::{Backend, Seen, echo_at};
use support::book::{fill, page, pages, runnable};
use support::gateway::{Gateway, Setup};
use support::http1::{Answer, Head, ask};
use support::pki::Pki;
use support::tls::Tls;
use support::ws::WebSocket;
use support::{BoxIo, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};

/// A gateway with a configuration of a page.
struct HowTo {
    gateway: Gateway,
    pki: Pki,
    /// What the server behind it has been asked.
    seen: Seen,
    _server: Option<Backend>,
}

/// With the first configuration, in front of an echo.
async fn start(name: &str) -> HowTo {
    start_nth(name, 0).await
}

async fn start_nth(name: &str, nth: usize) -> HowTo {
    let (server, seen) = everywhere().await;
    HowTo { seen, ..in_front_of(name, nth, server) }
}

/// An echo at every address of this machine: lists of servers lead to it, too.
async fn everywhere() -> (Backend, Seen) {
    echo_at(TcpListener::bind("0.0.0.0:0").await.unwrap())
}

fn in_front_of(name: &str, nth: usize, server: Backend) -> HowTo {
    let site = on_port(name, nth, server.address.port());
    HowTo { _server: Some(server), ..site }
}

fn on_port(name: &str, nth: usize, port: u16) -> HowTo {
    let (setup, pki) = (Setup::new(env!("CARGO_BIN_EXE_wssgate")), Pki::new());
    fill(setup.path(), &pki);
    let configuration = runnable(&page(name).configurations()[nth], setup.path(), port);
    HowTo { gateway: setup.start(&configuration), pki, seen: Seen::default(), _server: None }
}

impl HowTo {
    async fn tls(&self, host: &str) -> BoxIo {
        Box::new(Tls::new(host, &["http/1.1"]).connect(self.gateway.address()).await.unwrap())
    }

    /// A request to the first listener, over TLS; `fields` are whole lines.
    async fn get(&self, host: &str, path: &str, fields: &str) -> Answer {
        let mut io = self.tls(host).await;
        ask(&mut io, format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n")).await
    }

    /// A WebSocket over TLS that echoes. Returns the head that the server got, and that of the answer.
    async fn echoes(&self, host: &str, path: &str, fields: &str) -> (Head, Head) {
        self.echoes_over(self.tls(host).await, host, path, fields).await
    }

    async fn echoes_over(&self, io: BoxIo, host: &str, path: &str, fields: &str) -> (Head, Head) {
        let (mut socket, answer) = WebSocket::connect(io, host, path, fields).await.unwrap();
        socket.echoes("hello").await;
        let asked = self.seen.last();
        assert_eq!(asked.get("host"), Some(host));
        (asked, answer)
    }

    /// The second listener sends what it is asked to the first.
    async fn redirects(&self, host: &str) {
        let mut tcp = TcpStream::connect(self.gateway.addresses()[1]).await.unwrap();
        let answer = ask(&mut tcp, format!("GET /x?y HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        let port = self.gateway.address().port();
        let location = answer.head.get("location").unwrap().replace(&format!(":{port}"), "");
        assert_eq!((answer.status(), location), (308, format!("https://{host}/x?y")));
    }
}

#[test]
fn every_how_to_is_tried() {
    for page in pages().into_iter().filter(|page| page.name.starts_with("howto/")) {
        let is_tried = include_str!("howto.rs").contains(&format!("\"{}\"", page.name));
        assert!(is_tried, "{} is tried nowhere here", page.name);
    }
}

#[tokio::test]
async fn tutorial() {
    let site = start("tutorial/en.md").await;
    let (asked, _) = site.echoes("domain.com", "/wss", "X-Real-IP: 6.6.6.6\r\n").await;
    assert_eq!((&*asked.line, asked.all("x-real-ip")), ("GET /wss HTTP/1.1", vec!["127.0.0.1"]));
    assert_eq!(site.get("domain.com", "/", "").await.status(), 404);
    site.redirects("domain.com").await;
}

#[tokio::test]
async fn from_nginx() {
    let site = start("howto/nginx.md").await;
    site.echoes("domain.com", "/wss", "").await;
    assert_eq!(site.get("domain.com", "/api/users?id=1", "").await.text(), "GET /users?id=1 HTTP/1.1\n");
    let long = "POST /api/x HTTP/1.1\r\nHost: domain.com\r\nContent-Length: 10485761\r\n\r\n";
    assert_eq!(ask(&mut site.tls("domain.com").await, long).await.status(), 413);
    for path in ["/", "/no/such/file", "/wssx"] {
        assert_eq!(site.get("domain.com", path, "").await.text(), "the site", "{path}");
    }
    site.redirects("domain.com").await;
}

#[tokio::test]
async fn from_apache() {
    let site = start("howto/apache.md").await;
    for host in ["domain.com", "www.domain.com"] {
        assert_eq!(site.echoes(host, "/wss", "").await.0.line, "GET /wss HTTP/1.1");
        assert_eq!(site.echoes(host, "/app/live", "").await.0.line, "GET /live HTTP/1.1");
        assert_eq!(site.get(host, "/app/page", "").await.text(), "GET /page HTTP/1.1\n");
        let page = site.get(host, "/", "").await;
        assert_eq!(page.head.get("strict-transport-security"), Some("max-age=63072000"));
        assert_eq!(page.text(), "the site");
        site.redirects(host).await;
    }
}

#[tokio::test]
async fn from_haproxy() {
    let site = start("howto/haproxy.md").await;
    let (_, answer) = site.echoes("domain.com", "/chat", "").await;
    assert!(answer.get("set-cookie").unwrap().starts_with("SERVER="));
    assert_eq!(site.get("domain.com", "/page", "").await.text(), "GET /page HTTP/1.1\n");
    site.redirects("domain.com").await;
}

#[tokio::test]
async fn from_caddy() {
    let site = start("howto/caddy.md").await;
    site.echoes("domain.com", "/wss", "").await;
    assert_eq!(site.get("domain.com", "/api/users", "").await.text(), "GET /users HTTP/1.1\n");
    assert_eq!(site.get("domain.com", "/no/such/file", "").await.text(), "the site");
    site.redirects("domain.com").await;
}

#[tokio::test]
async fn behind_nginx() {
    let site = start("howto/behind-nginx.md").await;
    let unix = UnixStream::connect(site.gateway.path().join("run/wssgate/http.sock")).await.unwrap();
    let fields = "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\n";
    let (asked, _) = site.echoes_over(Box::new(unix), "domain.com", "/wss", fields).await;
    assert_eq!(asked.all("x-real-ip"), ["203.0.113.7"]);
    assert_eq!(asked.all("x-forwarded-proto"), ["https"]);
}

/// It polls first, and then opens the WebSocket with the cookie that says who has answered.
#[tokio::test]
async fn socket_io() {
    let site = start("howto/socketio.md").await;
    let polled = site.get("domain.com", "/socket.io/?EIO=4&transport=polling", "").await;
    assert_eq!(polled.text(), "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\n");
    let cookie = polled.head.get("set-cookie").unwrap().split(';').next().unwrap();
    assert!(cookie.starts_with("chat_server="), "{cookie}");
    let fields = format!("Cookie: {cookie}; other=1\r\n");
    let (asked, answer) =
        site.echoes("domain.com", "/socket.io/?EIO=4&transport=websocket&sid=x", &fields).await;
    assert_eq!((asked.get("cookie"), answer.get("set-cookie")), (Some("other=1"), None));
}

#[tokio::test]
async fn signalr() {
    let site = start("howto/signalr.md").await;
    let mut io = site.tls("domain.com").await;
    let negotiate =
        "POST /hub/negotiate?negotiateVersion=1 HTTP/1.1\r\nHost: domain.com\r\nContent-Length: 0\r\n\r\n";
    let negotiated = ask(&mut io, negotiate).await;
    assert_eq!(negotiated.text(), "POST /hub/negotiate?negotiateVersion=1 HTTP/1.1\n");
    let cookie = negotiated.head.get("set-cookie").unwrap().split(';').next().unwrap();
    let path = "/hub?id=x&access_token=secret";
    site.echoes("domain.com", path, &format!("Cookie: {cookie}\r\n")).await;
    let line = site.gateway.wait("session");
    assert_eq!(line["path"], "/hub");
    assert!(!site.gateway.all_lines().iter().any(|line| line.to_string().contains("secret")));
}

#[tokio::test]
async fn phoenix() {
    let site = start("howto/phoenix.md").await;
    let fields = "Origin: https://domain.com\r\n";
    for path in ["/socket/websocket?vsn=2.0.0", "/live/websocket?vsn=2.0.0"] {
        let (asked, _) = site.echoes("domain.com", path, fields).await;
        assert_eq!(asked.all("origin"), ["https://domain.com"]);
        assert_eq!(asked.all("x-forwarded-proto"), ["https"]);
    }
    site.redirects("domain.com").await;
}

#[tokio::test]
async fn django_channels() {
    let site = start("howto/django-channels.md").await;
    let fields = "Origin: https://domain.com\r\nX-Forwarded-Proto: http\r\n";
    let (asked, _) = site.echoes("domain.com", "/ws/chat/lobby/", fields).await;
    assert_eq!(asked.all("x-forwarded-proto"), ["https"]);
    let style = site.get("domain.com", "/static/style.css", "").await;
    assert_eq!(style.head.get("cache-control"), Some("max-age=3600"));
    assert_eq!(style.text(), "p { color: teal }");
}

#[tokio::test]
async fn home_assistant() {
    let site = start("howto/home-assistant.md").await;
    let (asked, _) = site.echoes("home.domain.com", "/api/websocket", "").await;
    assert_eq!(asked.all("x-forwarded-for"), ["127.0.0.1"]);
    site.redirects("home.domain.com").await;
}

#[tokio::test]
async fn jupyter() {
    let site = start("howto/jupyter.md").await;
    let fields = "Sec-WebSocket-Protocol: v1.kernel.websocket.jupyter.org\r\n";
    let path = "/jupyter/api/kernels/1/channels?session_id=x";
    let (asked, answer) = site.echoes("domain.com", path, fields).await;
    assert_eq!(asked.line, format!("GET {path} HTTP/1.1"));
    assert_eq!(answer.get("sec-websocket-protocol"), Some("v1.kernel.websocket.jupyter.org"));
}

#[tokio::test]
async fn code_server() {
    let site = start("howto/code-server.md").await;
    let origin = "Origin: https://code.domain.com\r\n";
    let (asked, _) = site.echoes("code.domain.com", "/stable-1/?reconnectionToken=x", origin).await;
    assert_eq!(asked.all("origin"), ["https://code.domain.com"]);
}

/// A server that sends back what it gets, byte for byte.
async fn byte_echo() -> Backend {
    Backend::start(|mut tcp| async move {
        let mut bytes = [0; 1024];
        while let Ok(count @ 1..) = tcp.read(&mut bytes).await {
            if tcp.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
    })
    .await
}

/// A binary message is bytes for the server, and what it sends is a binary message.
async fn carries_bytes(site: &HowTo, host: &str, path: &str, protocol: &str, fields: &str) {
    let fields = format!("Sec-WebSocket-Protocol: {protocol}\r\n{fields}");
    let (mut socket, answer) = WebSocket::connect(site.tls(host).await, host, path, &fields).await.unwrap();
    assert_eq!(answer.get("sec-websocket-protocol"), Some(protocol));
    socket.send(support::ws::BINARY, b"bytes").await;
    let frame = soon(socket.receive()).await.unwrap();
    assert_eq!((frame.b0, &*frame.payload), (support::ws::BINARY, &b"bytes"[..]));
}

#[tokio::test]
async fn novnc() {
    const ALICE: &str = "Authorization: Basic YWxpY2U6c2VjcmV0\r\n";
    let site = in_front_of("howto/novnc.md", 0, byte_echo().await);
    assert_eq!(site.get("vnc.domain.com", "/vnc.html", "").await.status(), 401);
    assert_eq!(site.get("vnc.domain.com", "/vnc.html", ALICE).await.text(), "<title>noVNC</title>");
    let io = site.tls("vnc.domain.com").await;
    let refused = WebSocket::connect(io, "vnc.domain.com", "/websockify", "").await;
    assert_eq!(refused.err().unwrap().status(), 401);
    carries_bytes(&site, "vnc.domain.com", "/websockify", "binary", ALICE).await;
}

#[tokio::test]
async fn mqtt() {
    let site = in_front_of("howto/mqtt.md", 0, byte_echo().await);
    carries_bytes(&site, "domain.com", "/mqtt", "mqtt", "").await;
}

#[tokio::test]
async fn graphql() {
    let site = start("howto/graphql.md").await;
    assert_eq!(
        site.get("domain.com", "/graphql?query=x", "").await.text(),
        "GET /graphql?query=x HTTP/1.1\n"
    );
    let fields = "Sec-WebSocket-Protocol: graphql-transport-ws\r\nOrigin: https://domain.com\r\n";
    let (_, answer) = site.echoes("domain.com", "/graphql", fields).await;
    assert_eq!(answer.get("sec-websocket-protocol"), Some("graphql-transport-ws"));
    let stranger = "Origin: https://other.example\r\n";
    let refused = WebSocket::connect(site.tls("domain.com").await, "domain.com", "/graphql", stranger).await;
    assert_eq!(refused.err().unwrap().status(), 403);
}

/// Who shows no certificate of Cloudflare's doesn't get through, and the client is whom Cloudflare names.
#[tokio::test]
async fn cloudflare() {
    let site = start("howto/cloudflare.md").await;
    let address = site.gateway.address();
    let tls = Tls::new("domain.com", &["http/1.1"]);
    let mut stranger = tls.connect(address).await.unwrap();
    let request = b"GET /wss HTTP/1.1\r\nHost: domain.com\r\n\r\n";
    let sent = stranger.write_all(request).await;
    let mut answer = Vec::new();
    let read = soon(stranger.read_to_end(&mut answer)).await;
    assert!(sent.and(read).is_err() && answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    let tls = tls.showing(&site.pki.issue_client("cloudflare", 7));
    let io = Box::new(tls.connect(address).await.unwrap());
    let (asked, _) = site.echoes_over(io, "domain.com", "/wss", "X-Forwarded-For: 203.0.113.7\r\n").await;
    assert_eq!(asked.all("x-real-ip"), ["203.0.113.7"]);
}

/// A connection to the first listener that a balancer has passed on.
async fn passed_on(site: &HowTo, host: &str) -> BoxIo {
    let mut tcp = TcpStream::connect(site.gateway.address()).await.unwrap();
    tcp.write_all(b"PROXY TCP4 203.0.113.7 192.0.2.1 50000 443\r\n").await.unwrap();
    Box::new(Tls::new(host, &["http/1.1"]).over(tcp).await.unwrap())
}

async fn is_ready(site: &HowTo) {
    let mut tcp = TcpStream::connect(site.gateway.admin()).await.unwrap();
    assert_eq!(ask(&mut tcp, "GET /readyz HTTP/1.1\r\nHost: 10.0.0.1:9180\r\n\r\n").await.status(), 200);
}

#[tokio::test]
async fn aws() {
    let site = start("howto/aws.md").await;
    let io = passed_on(&site, "domain.com").await;
    let (asked, _) = site.echoes_over(io, "domain.com", "/wss", "X-Forwarded-For: 6.6.6.6\r\n").await;
    assert_eq!(asked.all("x-real-ip"), ["203.0.113.7"]);
    is_ready(&site).await;
    let site = start_nth("howto/aws.md", 1).await;
    let tcp = TcpStream::connect(site.gateway.address()).await.unwrap();
    let fields = "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\n";
    let (asked, _) = site.echoes_over(Box::new(tcp), "domain.com", "/wss", fields).await;
    assert_eq!(asked.all("x-real-ip"), ["203.0.113.7"]);
    assert_eq!(asked.all("x-forwarded-proto"), ["https"]);
    is_ready(&site).await;
}

#[tokio::test]
async fn kubernetes() {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/kubernetes/wssgate.toml");
    assert_eq!(page("howto/kubernetes.md").configurations()[0], fs::read_to_string(base).unwrap().trim_end());
    let site = start("howto/kubernetes.md").await;
    site.echoes("domain.com", "/wss", "").await;
    is_ready(&site).await;
}

/// Two of them, with the keys in the same files: the cookie that one has handed out is good for the other.
#[tokio::test]
async fn many_gateways() {
    const PAGE: &str = "howto/many-gateways.md";
    let (server, seen) = everywhere().await;
    let port = server.address.port();
    let two = [(); 2].map(|()| HowTo { seen: seen.clone(), ..on_port(PAGE, 0, port) });
    let mut cookie = None;
    for site in &two {
        let io = passed_on(site, "domain.com").await;
        let fields = cookie.as_ref().map(|cookie| format!("Cookie: {cookie}\r\n")).unwrap_or_default();
        let (asked, answer) = site.echoes_over(io, "domain.com", "/chat", &fields).await;
        assert_eq!(asked.all("x-real-ip"), ["203.0.113.7"]);
        let given = answer.get("set-cookie");
        assert_eq!(given.is_some(), cookie.is_none(), "{given:?} after {cookie:?}");
        cookie = cookie.or(given.map(|given| given.split(';').next().unwrap().to_owned()));
    }
}
