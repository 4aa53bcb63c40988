//! Tokens (JWT): where they may be, what they have to say, what the backend gets of them, and when a session ends.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use http::Method;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use support::backend::{Seen, echo};
use support::gateway::{Gateway, Setup, config};
use support::http1::{Answer, ask};
use support::http2::Http2;
use support::tls::Tls;
use support::ws::{WebSocket, handshake};
use tokio::net::TcpStream;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "another secret of thirty-two bytes";

struct Site {
    gateway: Gateway,
    seen: Seen,
    backend: std::net::SocketAddr,
}

fn text(backend: std::net::SocketAddr, jwt: &str) -> String {
    let route = format!(
        "[[route]]\npath = \"/\"\nproxy = \"http://{backend}\"\nresponse_headers = {{ set = {{ X-Query = \"q{{query}}\" }} }}\n\
         [route.access]\njwt = {{ {jwt} }}\n[control]\nsocket = \"control.sock\"\n"
    );
    config("", &route)
}

async fn start(jwt: &str) -> Site {
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"]);
    fs::write(setup.path().join("keys.json"), keys(&[("k1", SECRET)])).unwrap();
    let (backend, seen) = echo().await;
    let address = backend.address;
    std::mem::forget(backend); // it serves as long as the test runs
    Site { gateway: setup.start(&text(address, jwt)), seen, backend: address }
}

fn keys(secrets: &[(&str, &str)]) -> String {
    use base64::Engine;
    let encode = |secret: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(secret);
    let key =
        |(id, secret): &(&str, &str)| json!({ "kty": "oct", "kid": id, "alg": "HS256", "k": encode(secret) });
    json!({ "keys": secrets.iter().map(key).collect::<Vec<_>>() }).to_string()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn sign(secret: &str, id: Option<&str>, claims: &Value) -> String {
    let header = Header { kid: id.map(Into::into), ..Header::new(Algorithm::HS256) };
    encode(&header, claims, &EncodingKey::from_secret(secret.as_bytes()).unwrap()).unwrap()
}

fn good() -> Value {
    json!({ "iss": "issuer.test", "aud": "chat", "sub": "alice", "groups": ["a", "b"], "exp": now() + 600 })
}

impl Site {
    async fn get(&self, target: &str, fields: &str) -> Answer {
        let mut tcp = TcpStream::connect(self.gateway.addresses()[1]).await.unwrap();
        ask(&mut tcp, format!("GET {target} HTTP/1.1\r\nHost: default.test\r\n{fields}\r\n")).await
    }

    async fn socket(&self, target: &str, fields: &str) -> Result<WebSocket, u16> {
        let mut tcp = TcpStream::connect(self.gateway.addresses()[1]).await.unwrap();
        let answer = ask(&mut tcp, handshake("default.test", target, fields)).await;
        if answer.status() != 101 {
            return Err(answer.status());
        }
        Ok(WebSocket::connect(
            TcpStream::connect(self.gateway.addresses()[1]).await.unwrap(),
            "default.test",
            target,
            fields,
        )
        .await
        .unwrap()
        .0)
    }

    /// No log line has a part of the token.
    fn keeps_secret(&self, token: &str) {
        let signature = token.rsplit('.').next().unwrap();
        assert!(!self.gateway.log().contains(signature), "{}", self.gateway.log());
    }
}

#[tokio::test]
async fn tokens_are_judged_and_the_backend_hears_who_it_is() {
    let options = "jwks = \"keys.json\", issuer = \"issuer.test\", audience = [\"chat\"], \
                   headers = { sub = \"X-User\", groups = \"X-Groups\" }";
    let site = start(options).await;
    let token = sign(SECRET, None, &good());
    let spoofed = "X-User: evil\r\nX_User: evil\r\nX-Groups: evil\r\n";
    let answer = site.get("/", &format!("Authorization: Bearer {token}\r\n{spoofed}")).await;
    assert_eq!(answer.status(), 200);
    let head = site.seen.last();
    assert_eq!((head.all("x-user"), head.all("x-groups")), (vec!["alice"], vec!["[\"a\",\"b\"]"]));
    assert_eq!((head.get("x_user"), head.get("authorization")), (None, None));
    let without = site.get("/", spoofed).await;
    assert_eq!((without.status(), without.head.get("www-authenticate")), (401, Some("Bearer")));
    let change = |claim: &str, value: Value| {
        let mut claims = good();
        claims[claim] = value;
        sign(SECRET, None, &claims)
    };
    for (token, says) in [
        (sign(OTHER, None, &good()), "the signature of the token is not valid"),
        (change("exp", json!(now() - 1)), "the token has expired"),
        (change("nbf", json!(now() + 600)), "the token is not valid yet"),
        (change("iss", json!("other.test")), "the token is of another issuer"),
        (change("aud", json!("other")), "the token is for another audience"),
        (change("sub", json!("a\r\nX-Admin: 1")), "a claim of the token"),
        ("a.b.c".to_owned(), "the token is malformed"),
        ("eyJhbGciOiJub25lIn0.eyJleHAiOjk5OTk5OTk5OTl9.".to_owned(), "the token is malformed"),
    ] {
        let before = site.seen.count();
        let answer = site.get("/", &format!("Authorization: Bearer {token}\r\n")).await;
        assert_eq!(answer.status(), 401, "{says}");
        let challenge = answer.head.get("www-authenticate").unwrap();
        assert!(challenge.starts_with("Bearer error=\"invalid_token\", error_description=\""), "{challenge}");
        assert!(challenge.contains(says), "{challenge}");
        assert_eq!(site.seen.count(), before, "the backend was not asked");
        assert!(!answer.text().contains(&*token));
    }
    // The same over HTTP/2, and for WebSockets over both.
    let io = Tls::new("default.test", &["h2"]).connect(site.gateway.address()).await.unwrap();
    let mut client = Http2::connect(io, "default.test").await;
    let mut request = client.request(Method::GET, "/");
    assert_eq!(client.ask(request.clone()).await.status(), 401);
    let bearer = format!("Bearer {token}");
    request.headers_mut().insert("authorization", bearer.parse().unwrap());
    assert_eq!(client.ask(request).await.status(), 200);
    assert_eq!(client.websocket("/", &[]).await.err().map(|answer| answer.status()), Some(401));
    let (mut socket, _) = client.websocket("/", &[("authorization", &bearer)]).await.unwrap();
    socket.echoes("over HTTP/2").await;
    assert_eq!(site.seen.last().get("x-user"), Some("alice"));
    assert_eq!(site.socket("/", "").await.err(), Some(401));
    let mut socket = site.socket("/", &format!("Authorization: {bearer}\r\n")).await.unwrap();
    socket.echoes("over HTTP/1.1").await;
    assert_eq!(site.seen.last().get("authorization"), None);
    socket.close(1000).await;
    site.keeps_secret(&token);
}

#[tokio::test]
async fn tokens_come_from_four_places_and_go_no_further() {
    let from = "from = [\"header\", \"cookie:token\", \"query:token\", \"subprotocol:bearer.\"]";
    let site = start(&format!("jwks = \"keys.json\", {from}")).await;
    let token = sign(SECRET, Some("k1"), &good());
    for (target, fields) in [
        ("/a?b=1".to_owned(), format!("Authorization: Bearer {token}\r\n")),
        ("/a?b=1".to_owned(), format!("Cookie: c=1; token={token}; d=2\r\n")),
        (format!("/a?b=1&token={token}"), String::new()),
        (
            format!("/a?token={token}&b=1"),
            format!("Cookie: token={token}\r\nAuthorization: Bearer {token}\r\n"),
        ),
    ] {
        let answer = site.get(&target, &fields).await;
        assert_eq!((answer.status(), answer.head.get("x-query")), (200, Some("q?b=1")), "{target}");
        let seen = site.seen.last();
        assert_eq!(seen.line, "GET /a?b=1 HTTP/1.1");
        assert!(seen.fields.iter().all(|(_, value)| !value.contains(&token)), "{seen:?}");
        assert_eq!(seen.get("cookie").is_some(), fields.contains("c=1"));
    }
    // Refusals don't repeat it either.
    let bad = format!("{token}x");
    let answer = site.get(&format!("/a?token={bad}&b=1"), "").await;
    assert_eq!((answer.status(), answer.head.get("x-query")), (401, Some("q?b=1")));
    // A subprotocol that carries a token is neither passed on nor echoed.
    let offer = format!("Sec-WebSocket-Protocol: bearer.{token}, chat\r\n");
    let tcp = TcpStream::connect(site.gateway.addresses()[1]).await.unwrap();
    let (mut socket, head) = WebSocket::connect(tcp, "default.test", "/", &offer).await.unwrap();
    socket.echoes("hello").await;
    assert!(head.all("sec-websocket-protocol").iter().all(|name| !name.contains("bearer")), "{head:?}");
    assert_eq!(site.seen.last().all("sec-websocket-protocol"), ["chat"]);
    let alone = format!("Sec-WebSocket-Protocol: bearer.{token}\r\n");
    assert_eq!(site.socket("/", &alone).await.err(), Some(400));
    assert_eq!(site.socket("/", "Sec-WebSocket-Protocol: bearer.x\r\n").await.err(), Some(401));
    let io = Tls::new("default.test", &["h2"]).connect(site.gateway.address()).await.unwrap();
    let mut client = Http2::connect(io, "default.test").await;
    let name = format!("chat, bearer.{token}");
    let (mut socket, answer) = client.websocket("/", &[("sec-websocket-protocol", &name)]).await.unwrap();
    socket.echoes("over HTTP/2").await;
    assert!(!format!("{answer:?}").contains("bearer"));
    site.keeps_secret(&token);
}

#[tokio::test]
async fn a_route_may_pass_the_token_on_but_never_one_of_the_query() {
    let from = "from = [\"header\", \"cookie:token\", \"query:token\"], pass_token = true";
    let site = start(&format!("jwks = \"keys.json\", {from}")).await;
    let token = sign(SECRET, Some("k1"), &good());
    site.get("/", &format!("Authorization: Bearer {token}\r\nCookie: token={token}\r\n")).await;
    assert_eq!(site.seen.last().get("authorization"), Some(&*format!("Bearer {token}")));
    assert_eq!(site.seen.last().get("cookie"), Some(&*format!("token={token}")));
    assert_eq!(site.get(&format!("/?token={token}"), "").await.status(), 200);
    assert_eq!(site.seen.last().line, "GET / HTTP/1.1");
}

#[tokio::test]
async fn a_session_ends_when_its_token_does() {
    let site = start("jwks = \"keys.json\"").await;
    let mut claims = good();
    claims["exp"] = json!(now() + 3);
    let token = sign(SECRET, Some("k1"), &claims);
    let mut short = site.socket("/", &format!("Authorization: Bearer {token}\r\n")).await.unwrap();
    let token = sign(SECRET, Some("k1"), &good());
    let mut long = site.socket("/", &format!("Authorization: Bearer {token}\r\n")).await.unwrap();
    short.echoes("before").await;
    short.expect_close(3000).await;
    assert!(now() >= claims["exp"].as_u64().unwrap());
    long.echoes("still here").await;
    let line = site.gateway.wait("a session ends: its authorization has expired");
    assert_eq!(line["subject"], "alice");
}

#[tokio::test]
async fn a_reload_reads_the_keys_again_and_keeps_them_if_they_are_broken() {
    let site = start("jwks = \"keys.json\"").await;
    let [old, new] = [(SECRET, "k1"), (OTHER, "k2")].map(|(secret, id)| sign(secret, Some(id), &good()));
    let status =
        async |token: &str| site.get("/", &format!("Authorization: Bearer {token}\r\n")).await.status();
    assert_eq!((status(&old).await, status(&new).await), (200, 401));
    let file = site.gateway.path().join("keys.json");
    fs::write(&file, keys(&[("k1", SECRET), ("k2", OTHER)])).unwrap();
    site.gateway.reload();
    assert_eq!((status(&old).await, status(&new).await), (200, 200));
    fs::write(&file, keys(&[("k2", OTHER)])).unwrap();
    site.gateway.reload();
    assert_eq!((status(&old).await, status(&new).await), (401, 200));
    fs::write(&file, "{").unwrap();
    site.gateway.signal("HUP");
    site.gateway.wait("reload refused: the old generation stays in use");
    let problem = site.gateway.wait("this problem prevents the reload");
    let problem = problem["problem"].as_str().unwrap();
    assert!(
        problem.contains("wssgate.toml:") && problem.contains("keys.json is neither a set of keys"),
        "{problem}"
    );
    assert_eq!((status(&old).await, status(&new).await), (401, 200));
    fs::write(&file, keys(&[("k1", SECRET)])).unwrap();
    site.gateway.write_config(&text(site.backend, "jwks = \"keys.json\", issuer = \"other.test\""));
    site.gateway.reload();
    assert_eq!(status(&sign(SECRET, None, &good())).await, 401);
}

/// By the values that were kept of the token: its issuer, its audience and the id of its key.
#[tokio::test]
async fn a_reload_judges_the_tokens_of_live_sessions_again() {
    let options = "jwks = \"keys.json\", issuer = [\"issuer.test\", \"two.test\"]";
    let site = start(options).await;
    let file = site.gateway.path().join("keys.json");
    fs::write(&file, keys(&[("k1", SECRET), ("k2", OTHER)])).unwrap();
    site.gateway.reload();
    let open = async |secret: &str, id: &str, issuer: &str| {
        let mut claims = good();
        claims["iss"] = json!(issuer);
        let token = sign(secret, Some(id), &claims);
        site.socket("/", &format!("Authorization: Bearer {token}\r\n")).await.unwrap()
    };
    let mut first = open(SECRET, "k1", "issuer.test").await;
    let mut second = open(SECRET, "k1", "two.test").await;
    let mut third = open(OTHER, "k2", "issuer.test").await;
    site.gateway.write_config(&text(site.backend, "jwks = \"keys.json\", issuer = \"issuer.test\""));
    site.gateway.reload();
    second.expect_close(3000).await;
    first.echoes("still here").await;
    third.echoes("still here").await;
    fs::write(&file, keys(&[("k1", SECRET)])).unwrap();
    site.gateway.reload();
    third.expect_close(3000).await;
    first.echoes("still here").await;
    site.gateway.write_config(&text(site.backend, "jwks = \"keys.json\", audience = \"another\""));
    site.gateway.reload();
    first.expect_close(3000).await;
}

#[tokio::test]
async fn wrong_tokens_count_against_the_address() {
    let site = start("jwks = \"keys.json\"").await;
    let limited =
        text(site.backend, "jwks = \"keys.json\"").replace("[control]", "failures = \"2/h\"\n[control]");
    site.gateway.write_config(&limited);
    site.gateway.reload();
    let (wrong, right) = (sign(OTHER, Some("k1"), &good()), sign(SECRET, Some("k1"), &good()));
    let status =
        async |token: &str| site.get("/", &format!("Authorization: Bearer {token}\r\n")).await.status();
    assert_eq!(status(&wrong).await, 401);
    // A token that is missing or right does not count.
    assert_eq!((site.get("/", "").await.status(), status(&right).await), (401, 200));
    assert_eq!((status(&wrong).await, status(&right).await), (401, 429));
}
