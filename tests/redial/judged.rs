//! The route's rules are judged again before another server gets a session.

use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;
use support::backend::{Backend, Seen};
use support::gateway::Gateway;
use support::http1::read_head;
use support::pki::Pki;
use support::tls::Tls;
use support::until;
use support::ws::WebSocket;
use tokio::io::AsyncWriteExt;
use tokio::time::{Duration, sleep};

use super::conversation::{Fate, switching};
use super::server::{Answer, Server};
use super::{EchoesAs, asked, open, open_with, redialling, session, setup};

/// The password of alice is "secret".
const USERS: &str = "alice:$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n";
const ALICE: &str = "Authorization: Basic YWxpY2U6c2VjcmV0\r\n";
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

/// A gateway in front of `server`, with rules.
fn start(server: &Server, access: &str) -> Gateway {
    let setup = setup();
    fs::write(setup.path().join("htpasswd"), USERS).unwrap();
    let key = json!({ "kty": "oct", "alg": "HS256", "k": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY" });
    fs::write(setup.path().join("keys.json"), json!({ "keys": [key] }).to_string()).unwrap();
    setup.start(&redialling(&[server.address()], "", access))
}

fn reload(gateway: &Gateway, server: &Server, access: &str) {
    gateway.write_config(&redialling(&[server.address()], "", access));
    gateway.reload();
}

/// Its server goes, and the session ends with 3000.
async fn loses_its_server(gateway: &Gateway, server: &Server, mut socket: WebSocket) {
    server.restart(Fate::Dies);
    socket.expect_close(3000).await;
    socket.close(3000).await;
    drop(socket);
    let line = gateway.wait("session");
    assert_eq!((&line["close_code"], &line["ended_by"]), (&json!(3000), &json!("gateway")), "{line}");
}

/// Its server goes, and the session is not passed on to another one, which is not asked.
pub(super) async fn is_ended(gateway: &Gateway, server: &Server, socket: WebSocket) {
    let asked = server.seen.count();
    loses_its_server(gateway, server, socket).await;
    assert_eq!(server.seen.count(), asked);
    assert_eq!(gateway.metric("wssgate_upstream_redials_failed_total").await, 1);
}

#[tokio::test]
async fn a_reload_that_refuses_the_address_ends_a_session_before_it_is_passed_on() {
    let server = Server::start("a").await;
    let gateway = start(&server, "");
    let mut socket = open(&gateway).await;
    socket.echoes_as("a", "one").await;
    server.stop(Fate::Dies);
    until(async || session(&gateway).await["state"] == "redialling").await;
    reload(&gateway, &server, "[route.access]\ndeny = [\"127.0.0.0/8\"]\n");
    server.serve();
    socket.expect_close(3000).await;
    assert!(server.heard().len() == 1, "{:?}", server.heard());
}

/// A session that was opened under other rules is judged by the new ones when another server is to get it, and has
/// nothing to show.
#[tokio::test]
async fn rules_that_are_new_refuse_who_has_shown_nothing() {
    for access in [
        "basic = { file = \"htpasswd\" }",
        "jwt = { jwks = \"keys.json\" }",
        "forward = { url = \"http://127.0.0.1:1/\" }",
    ] {
        let server = Server::start("a").await;
        let gateway = start(&server, "");
        let mut socket = open(&gateway).await;
        reload(&gateway, &server, &format!("[route.access]\n{access}\n"));
        socket.echoes_as("a", "one").await; // it lives on as long as its server does
        is_ended(&gateway, &server, socket).await;
    }
}

#[tokio::test]
async fn rules_of_a_route_that_redials_no_more_are_judged_too() {
    let server = Server::start("a").await;
    let gateway = start(&server, "");
    let mut socket = open(&gateway).await;
    let config = redialling(&[server.address()], "", "[route.access]\nbasic = { file = \"htpasswd\" }\n");
    gateway.write_config(&config.replace("session_lost = \"redial\"\n", ""));
    gateway.reload();
    socket.echoes_as("a", "one").await;
    server.restart(Fate::Dies);
    socket.expect_close(3000).await;
    assert_eq!(server.seen.count(), 1);
}

#[tokio::test]
async fn users_and_tokens_that_are_still_good_go_on() {
    let expiry = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 600;
    let key = EncodingKey::from_secret(SECRET).unwrap();
    let token =
        jsonwebtoken::encode(&Header::default(), &json!({ "sub": "alice", "exp": expiry }), &key).unwrap();
    let bearer = format!("Authorization: Bearer {token}\r\n");
    for (access, fields) in
        [("basic = { file = \"htpasswd\" }", ALICE), ("jwt = { jwks = \"keys.json\" }", &*bearer)]
    {
        let server = Server::start("a").await;
        // Handshakes of one user.
        let rate = "requests = \"2/h\"\nper = \"subject\"";
        let gateway = start(&server, &format!("[route.access]\n{access}\n{rate}\n"));
        let (mut socket, _) = open_with(&gateway, fields).await;
        server.restart(Fate::Closes(1012));
        asked(&server, 2).await;
        socket.echoes_as("a", "two").await;
        assert_eq!(server.seen.last().get("authorization"), None);
        assert_eq!(server.seen.count(), 2);
        server.restart(Fate::Closes(1012));
        until(async || session(&gateway).await["state"] == "redialling").await;
        sleep(Duration::from_millis(500)).await; // which is time for three attempts
        assert_eq!(server.seen.count(), 2);
    }
}

/// Answers with the status that it is told, after so many milliseconds.
struct AuthServer {
    address: SocketAddr,
    status: Arc<AtomicU16>,
    delay: Arc<AtomicU64>,
    seen: Seen,
}

async fn auth_server() -> AuthServer {
    let (seen, status, delay) = (Seen::default(), Arc::new(AtomicU16::new(200)), Arc::<AtomicU64>::default());
    let (heads, answer, wait) = (seen.clone(), status.clone(), delay.clone());
    let server = Backend::start(move |mut tcp| {
        let (heads, answer, wait) = (heads.clone(), answer.clone(), wait.clone());
        async move {
            while let Some(head) = read_head(&mut tcp).await {
                heads.push(head);
                sleep(Duration::from_millis(wait.load(Ordering::SeqCst))).await;
                let status = answer.load(Ordering::SeqCst);
                let answer = format!("HTTP/1.1 {status} Status\r\nContent-Length: 0\r\n\r\n");
                if status == 0 || tcp.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    let address = server.address;
    std::mem::forget(server); // it serves as long as the test runs
    AuthServer { address, status, delay, seen }
}

#[tokio::test]
async fn the_authorization_server_is_asked_again() {
    let server = Server::start("a").await;
    let AuthServer { address, status, seen, .. } = auth_server().await;
    let gateway = start(&server, &format!("[route.access]\nforward = {{ url = \"http://{address}/\" }}\n"));
    let (mut socket, _) = open_with(&gateway, "Cookie: c=1\r\n").await;
    assert_eq!(seen.count(), 1);
    server.restart(Fate::Dies);
    asked(&server, 2).await;
    socket.echoes_as("a", "two").await;
    assert_eq!(seen.count(), 2);
    for head in seen.all() {
        assert_eq!((head.get("cookie"), head.get("x-forwarded-uri")), (Some("c=1"), Some("/ws?room=1")));
    }
    // Without an answer nothing is decided: no server is asked, and the search goes on.
    status.store(0, Ordering::SeqCst);
    server.restart(Fate::Dies);
    until(async || seen.count() >= 4).await;
    assert_eq!(server.seen.count(), 2);
    status.store(204, Ordering::SeqCst);
    socket.echoes_as("a", "three").await;
    status.store(403, Ordering::SeqCst);
    is_ended(&gateway, &server, socket).await;
}

#[tokio::test]
async fn what_the_authorization_server_takes_is_no_time_of_the_servers() {
    let server = Server::start("a").await;
    let auth = auth_server().await;
    let access =
        format!("[route.access]\nforward = {{ url = \"http://{}/\", timeout = \"2s\" }}\n", auth.address);
    let config = redialling(&[server.address()], "redial_timeout = \"500ms\"", &access);
    let gateway = setup().start(&config);
    let mut socket = open(&gateway).await;
    auth.delay.store(1000, Ordering::SeqCst);
    server.restart(Fate::Dies);
    asked(&server, 2).await;
    socket.echoes_as("a", "two").await;
    // One that does not answer ends the search, but is no failure of the server, which has not been asked.
    auth.delay.store(600_000, Ordering::SeqCst);
    server.restart(Fate::Dies);
    socket.expect_close(1011).await;
    assert_eq!(server.seen.count(), 2);
    assert_eq!(gateway.metric("wssgate_backend_failures_total").await, 0);
    assert_eq!(gateway.metric("wssgate_upstream_redials_failed_total").await, 1);
}

/// A configuration by the authority whose certificates clients have to show to "closed.test": "clients.pem", which is that
/// of `pki`, or "others.pem".
pub(super) fn asking_clients(
    setup: &support::gateway::Setup,
    pki: &Pki,
    server: &Server,
) -> impl Fn(&str) -> String + use<> {
    pki.issue(&["closed.test"]).write(setup.path(), "closed");
    fs::write(setup.path().join("clients.pem"), pki.intermediate_pem()).unwrap();
    fs::write(setup.path().join("others.pem"), Pki::new().intermediate_pem()).unwrap();
    let address = server.address();
    move |ca| {
        let certificate = format!(
            "[[certificate]]\nchain = \"closed.crt\"\nkey = \"closed.key\"\nclient_auth = {{ ca = \"{ca}\" }}\n"
        );
        redialling(&[address], "", &certificate)
    }
}

#[tokio::test]
async fn a_client_has_shown_the_certificate_that_is_asked_for() {
    for ca in ["clients.pem", "others.pem"] {
        let server = Server::start("a").await;
        let (setup, pki) = (setup(), Pki::new());
        let of = asking_clients(&setup, &pki, &server);
        let gateway = setup.start(&of("clients.pem"));
        let tls = Tls::new("closed.test", &["http/1.1"]).showing(&pki.issue_client("device 7", 7));
        let io = tls.connect(gateway.address()).await.unwrap();
        let (mut socket, _) = WebSocket::connect(io, "closed.test", "/ws", "").await.unwrap();
        socket.echoes_as("a", "one").await;
        gateway.write_config(&of(ca));
        gateway.reload();
        if ca == "others.pem" {
            is_ended(&gateway, &server, socket).await;
        } else {
            server.restart(Fate::Dies);
            asked(&server, 2).await;
            socket.echoes_as("a", "two").await;
        }
    }
}

/// It has ended while the session had no server: whether that is noticed by the next attempt or by the look once a
/// second, no server gets the session.
#[tokio::test]
async fn a_client_whose_certificate_has_ended_is_not_passed_on() {
    let repeated = Arc::<Mutex<Vec<SystemTime>>>::default();
    let times = repeated.clone();
    let answer: Answer = Arc::new(move |head| match head.get("wssgate-resume") {
        None => switching(head, ""),
        Some(_) => {
            times.lock().unwrap().push(SystemTime::now());
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".to_owned()
        }
    });
    let server = Server::answering("a", answer).await;
    let (setup, pki) = (setup(), Pki::new());
    pki.issue(&["closed.test"]).write(setup.path(), "closed");
    fs::write(setup.path().join("clients.pem"), pki.intermediate_pem()).unwrap();
    let certificate = "[[certificate]]\nchain = \"closed.crt\"\nkey = \"closed.key\"\nclient_auth = { ca = \"clients.pem\" }\n";
    let lines = "redial_interval = \"50ms\"\nredial_rate = \"1000/s\"";
    let gateway = setup.start(&redialling(&[server.address()], lines, certificate));
    let end = SystemTime::now() + Duration::from_secs(4);
    let device = pki.issue_client_for("device 7", 7, Duration::from_secs(4).try_into().unwrap());
    let tls = Tls::new("closed.test", &["http/1.1"]).showing(&device);
    let io = tls.connect(gateway.address()).await.unwrap();
    let (mut socket, _) = WebSocket::connect(io, "closed.test", "/ws", "").await.unwrap();
    socket.echoes_as("a", "one").await;
    loses_its_server(&gateway, &server, socket).await;
    let repeated = repeated.lock().unwrap();
    assert!(repeated.len() > 10, "it has looked for a server: {repeated:?}");
    let last = *repeated.last().unwrap();
    assert!(last < end + Duration::from_millis(300), "{last:?} is after {end:?}");
}
