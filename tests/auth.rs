//! Who sends a request: passwords, authorization servers, and the end of sessions that they no longer allow.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use http::{Method, Request};
use support::backend::{Backend, Seen, echo};
use support::gateway::{Gateway, Setup, config};
use support::http1::{Head, ask, read_head};
use support::http2::Http2;
use support::pki::Pki;
use support::tls::{TLS13, Tls, acceptor};
use support::ws::WebSocket;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The passwords of alice and bob are "secret"; that of carol is "other".
const USERS: &str = "alice:$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n\
    bob:$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1\n\
    carol:{SHA}0JQeaNqPOBUf+Gph/Fn3xc+fyqI=\n";
const ALICE: &str = "Basic YWxpY2U6c2VjcmV0";
const BOB: &str = "Basic Ym9iOnNlY3JldA==";
const WRONG: &str = "Basic YWxpY2U6d3Jvbmc=";
const BASIC: &str = "basic = { file = \"htpasswd\", user_header = \"Remote-User\" }";

fn text(backend: &str, access: &str) -> String {
    let route = format!("[[route]]\npath = \"/\"\nproxy = \"http://{backend}\"\n[route.access]\n{access}\n");
    config("trusted_proxies = [\"127.0.0.0/8\"]", &(route + "[control]\nsocket = \"control.sock\"\n"))
}

/// A gateway with one route to an echoing backend, for which this machine is a trusted proxy.
async fn start(access: &str) -> (Gateway, Seen, String) {
    let (backend, seen) = echo().await;
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"]);
    std::fs::write(setup.path().join("htpasswd"), USERS).unwrap();
    let address = backend.address.to_string();
    std::mem::forget(backend); // it serves as long as the test runs
    (setup.start(&text(&address, access)), seen, address)
}

/// The ways on which a request comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Http1,
    Http2,
    WebSocket1,
    WebSocket2,
}

const WAYS: [Way; 4] = [Way::Http1, Way::Http2, Way::WebSocket1, Way::WebSocket2];

/// What a client is told.
struct Told {
    status: u16,
    fields: Vec<(String, String)>,
    body: String,
    /// Open, if it is one.
    socket: Option<WebSocket>,
}

impl Told {
    fn of(head: &Head, body: String, socket: Option<WebSocket>) -> Self {
        Self { status: head.status(), fields: head.fields.clone(), body, socket }
    }

    fn all(&self, name: &str) -> Vec<&str> {
        let same = self.fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
        same.map(|(_, value)| value.as_str()).collect()
    }

    /// It was let in.
    fn is_in(&self) -> bool {
        matches!(self.status, 101 | 200)
    }
}

async fn tell(gateway: &Gateway, way: Way, path: &str, fields: &[(&str, &str)]) -> Told {
    let lines: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    match way {
        Way::Http1 => {
            let mut tcp = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
            let answer =
                ask(&mut tcp, format!("GET {path} HTTP/1.1\r\nHost: default.test\r\n{lines}\r\n")).await;
            Told::of(&answer.head, String::from_utf8_lossy(&answer.body).into_owned(), None)
        }
        Way::WebSocket1 => {
            let tcp = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
            match WebSocket::connect(tcp, "default.test", path, &lines).await {
                Ok((socket, head)) => Told::of(&head, String::new(), Some(socket)),
                Err(head) => Told::of(&head, String::new(), None),
            }
        }
        Way::Http2 | Way::WebSocket2 => {
            let io = Tls::new("default.test", &["h2"]).connect(gateway.address()).await.unwrap();
            let mut client = Http2::connect(io, "default.test").await;
            let lower: Vec<_> = fields.iter().map(|(name, value)| (name.to_lowercase(), *value)).collect();
            if way == Way::WebSocket2 {
                let fields = lower.iter().map(|(name, value)| (&*name.clone().leak(), *value));
                let fields: Vec<(&'static str, &str)> = fields.collect();
                return match client.websocket(path, &fields).await {
                    Ok((socket, answer)) => {
                        std::mem::forget(client);
                        Told {
                            status: answer.status.as_u16(),
                            fields: Vec::new(),
                            body: String::new(),
                            socket: Some(socket),
                        }
                    }
                    Err(answer) => told2(&answer),
                };
            }
            let mut request: Request<()> = client.request(Method::GET, path);
            for (name, value) in lower {
                let name: http::HeaderName = name.parse().unwrap();
                request.headers_mut().append(name, value.parse().unwrap());
            }
            let answer = client.ask(request).await;
            told2(&answer)
        }
    }
}

fn told2(answer: &support::http2::Answer) -> Told {
    let fields = answer.head.headers.iter();
    let fields = fields.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    Told { status: answer.status(), fields, body: answer.text(), socket: None }
}

#[tokio::test]
async fn users_come_in_by_their_passwords_and_others_do_not() {
    let (gateway, seen, _) = start(&format!("{BASIC}\nfailures = \"off\"")).await;
    for way in WAYS {
        for fields in [
            &[][..],
            &[("Authorization", WRONG)],
            &[("Authorization", "Bearer x")],
            &[("Authorization", "Basic !")],
            &[("Authorization", "Basic bm9ib2R5OnNlY3JldA==")],
            &[("Authorization", ALICE), ("Authorization", ALICE)],
        ] {
            let before = seen.count();
            let told = tell(&gateway, way, "/", fields).await;
            assert_eq!(told.status, 401, "{way:?} {fields:?}");
            assert_eq!(told.all("www-authenticate"), ["Basic realm=\"login\", charset=\"UTF-8\""]);
            assert_eq!(seen.count(), before, "{way:?} {fields:?}");
        }
        for (credentials, user) in [(ALICE, "alice"), (BOB, "bob"), (ALICE, "alice")] {
            // This machine is a trusted proxy, and still can't say who the user is.
            let fields = [
                ("Authorization", credentials),
                ("Remote-User", "root"),
                ("Remote_User", "root"),
                ("Connection", if way == Way::Http1 { "Remote-User" } else { "Upgrade" }),
            ];
            let count = if matches!(way, Way::Http1) { 4 } else { 3 };
            let mut told = tell(&gateway, way, "/", &fields[..count]).await;
            assert!(told.is_in(), "{way:?} {}", told.status);
            let head = seen.last();
            assert_eq!(head.all("remote-user"), [user], "{way:?} {head:?}");
            assert_eq!(head.get("remote_user"), None, "{way:?}");
            assert_eq!(head.get("authorization"), None, "{way:?}");
            if let Some(socket) = &mut told.socket {
                socket.echoes("hello").await;
                socket.close(1000).await;
                socket.expect_close(1000).await;
            }
        }
    }
    gateway.wait_nth("session", 5);
    let mut subjects: Vec<_> =
        gateway.lines("session").iter().map(|line| line["subject"].to_string()).collect();
    subjects.sort_unstable();
    assert_eq!(subjects, ["\"alice\"", "\"alice\"", "\"alice\"", "\"alice\"", "\"bob\"", "\"bob\""]);
    let log = gateway.log();
    assert!(!log.contains("secret") && !log.contains("YWxpY2U6"), "{log}");
}

#[tokio::test]
async fn the_password_is_passed_on_where_that_is_asked_for() {
    let (gateway, seen, _) = start("basic = { file = \"htpasswd\", pass_password = true }").await;
    assert!(tell(&gateway, Way::Http1, "/", &[("Authorization", BOB)]).await.is_in());
    assert_eq!(seen.last().get("authorization"), Some(BOB));
    assert_eq!(seen.last().get("remote-user"), None);
}

#[tokio::test]
async fn wrong_passwords_count_against_the_address() {
    let (gateway, _, _) = start(&format!("{BASIC}\nfailures = \"3/h\"")).await;
    let from = |client: &'static str, credentials: &'static str| {
        [("X-Forwarded-For", client), ("Authorization", credentials)]
    };
    for way in [Way::Http1, Way::Http2, Way::WebSocket1] {
        assert_eq!(tell(&gateway, way, "/", &from("192.0.2.1", WRONG)).await.status, 401);
        // What is missing or right does not count.
        assert!(tell(&gateway, way, "/", &from("192.0.2.1", ALICE)).await.is_in() || way == Way::WebSocket1);
        let _ = tell(&gateway, way, "/", &[("X-Forwarded-For", "192.0.2.1")]).await;
    }
    for way in WAYS {
        let told = tell(&gateway, way, "/", &from("192.0.2.1", ALICE)).await;
        assert_eq!(told.status, 429, "{way:?}: a right password is not told from a wrong one");
        let wait: u64 = told.all("retry-after")[0].parse().unwrap();
        assert!((1100..=1200).contains(&wait), "{wait}");
        assert!(tell(&gateway, way, "/", &from("192.0.2.2", ALICE)).await.is_in(), "{way:?}");
    }
    gateway.wait("requests refused with 429");
}

#[tokio::test]
async fn a_hash_that_takes_long_holds_up_no_other_request() {
    let (gateway, _, address) = start(BASIC).await;
    // 2^13 times the work of a cost of 1: some hundred milliseconds, for a user that is not there.
    let slow = "slow:$2y$13$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n";
    std::fs::write(gateway.path().join("htpasswd"), slow).unwrap();
    let open = "[[route]]\npath = \"/open\"\nrespond = { status = 200, body = \"open\" }\n";
    gateway.write_config(&(text(&address, BASIC) + open));
    gateway.reload();
    let waiting = tell(&gateway, Way::Http1, "/", &[("Authorization", BOB)]);
    tokio::pin!(waiting);
    let mut served = 0;
    let told = loop {
        tokio::select! {
            biased;
            told = &mut waiting => break told,
            told = tell(&gateway, Way::Http1, "/open", &[]) => {
                assert_eq!(told.body, "open");
                served += 1;
            }
        }
    };
    assert_eq!(told.status, 401);
    assert!(served > 3, "{served} requests were served while the hash was computed");
}

#[tokio::test]
async fn a_file_that_can_not_be_used_is_told_and_the_old_users_stay() {
    let (gateway, _, _) = start(BASIC).await;
    assert!(gateway.log().contains("carol are hashed by apr1 or {SHA}"), "{}", gateway.log());
    std::fs::write(gateway.path().join("htpasswd"), "alice:plaintext\n").unwrap();
    gateway.signal("HUP");
    gateway.wait("reload refused: the old generation stays in use");
    let log = gateway.log();
    assert!(log.contains("htpasswd: line 1: this is no hash") && !log.contains("plaintext"), "{log}");
    assert!(tell(&gateway, Way::Http1, "/", &[("Authorization", ALICE)]).await.is_in());
}

/// An authorization server, and the questions that it has had.
struct AuthServer {
    address: SocketAddr,
    seen: Seen,
    /// What it answers to those who have the cookie; 0: nothing, and it closes the connection.
    status: Arc<AtomicU16>,
}

/// Lets in who has the cookie `ok`, and sends others to a page.
async fn auth_server() -> AuthServer {
    let (seen, status) = (Seen::default(), Arc::new(AtomicU16::new(200)));
    let (heads, answer) = (seen.clone(), status.clone());
    let server = Backend::start(move |mut tcp| {
        let (heads, answer) = (heads.clone(), answer.clone());
        async move {
            while let Some(head) = read_head(&mut tcp).await {
                let is_in = head.get("cookie").is_some_and(|cookie| cookie.contains("ok"));
                heads.push(head);
                let answer = match answer.load(Ordering::SeqCst) {
                    0 => return,
                    _ if !is_in => "302 Found\r\nLocation: https://login.test/\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n\
                         WWW-Authenticate: Login\r\nContent-Length: 5\r\n\r\nlogin"
                        .to_owned(),
                    status => format!(
                        "{status} Status\r\nRemote-User: alice\r\nX-Group: one\r\nX-Group: two\r\nX-Other: x\r\n\
                         Content-Length: 2\r\n\r\nok"
                    ),
                };
                if tcp.write_all(format!("HTTP/1.1 {answer}").as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    let address = server.address;
    std::mem::forget(server);
    AuthServer { address, seen, status }
}

fn forward(address: SocketAddr) -> String {
    format!(
        "forward = {{ url = \"http://{address}/verify?rd=1\", copy = [\"Remote-User\", \"X-Group\"], timeout = \"1s\" }}"
    )
}

#[tokio::test]
async fn an_authorization_server_decides_who_comes_in() {
    let auth = auth_server().await;
    let (gateway, seen, _) = start(&forward(auth.address)).await;
    for way in WAYS {
        let fields = [("Cookie", "a=ok"), ("Remote_User", "root"), ("X-Group", "root"), ("X-Other", "mine")];
        let mut told = tell(&gateway, way, "/chat?x=1", &fields).await;
        assert!(told.is_in(), "{way:?} {}", told.status);
        let asked = auth.seen.last();
        assert_eq!(asked.line, "GET /verify?rd=1 HTTP/1.1", "{way:?}");
        assert_eq!(asked.all("host"), [auth.address.to_string()]);
        assert_eq!(asked.all("x-forwarded-method"), ["GET"]);
        assert_eq!(asked.all("x-forwarded-uri"), ["/chat?x=1"]);
        assert_eq!(asked.all("x-forwarded-host"), ["default.test"]);
        assert_eq!(asked.all("x-forwarded-for"), ["127.0.0.1"]);
        let is_tls = matches!(way, Way::Http2 | Way::WebSocket2);
        assert_eq!(asked.all("x-forwarded-proto"), [if is_tls { "https" } else { "http" }]);
        assert_eq!((asked.get("cookie"), asked.get("x-other")), (Some("a=ok"), Some("mine")));
        for name in [
            "upgrade",
            "connection",
            "sec-websocket-key",
            "sec-websocket-version",
            "remote_user",
            "x-group",
            "content-length",
        ] {
            assert_eq!(asked.get(name), None, "{way:?} {name}");
        }
        let head = seen.last();
        assert_eq!(head.all("remote-user"), ["alice"], "{way:?}");
        assert_eq!(head.all("x-group"), ["one", "two"], "{way:?}");
        assert_eq!((head.get("remote_user"), head.get("x-other")), (None, Some("mine")));
        if let Some(socket) = &mut told.socket {
            socket.echoes("hello").await;
        }
        let before = seen.count();
        let told = tell(&gateway, way, "/chat", &[("Remote-User", "root")]).await;
        assert_eq!((told.status, told.all("location")), (302, vec!["https://login.test/"]), "{way:?}");
        assert_eq!(told.all("set-cookie"), ["a=b", "c=d"]);
        assert_eq!(told.all("www-authenticate"), ["Login"]);
        assert!(told.body == "login" || way == Way::WebSocket1, "{way:?}");
        assert_eq!(seen.count(), before, "{way:?}");
    }
    gateway.wait_for(|line| line["message"] == "request" && line["subject"] == "alice", 0, "alice's request");
    // A question has no body, whatever the request has.
    let mut tcp = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
    let request = "POST /x HTTP/1.1\r\nHost: default.test\r\nCookie: ok\r\nContent-Length: 3\r\nIf-None-Match: *\r\n\r\nabc";
    assert_eq!(ask(&mut tcp, request).await.status(), 200);
    let asked = auth.seen.last();
    assert_eq!((asked.all("x-forwarded-method"), asked.get("content-length")), (vec!["POST"], None));
    assert_eq!(asked.get("if-none-match"), None);
}

#[tokio::test]
async fn without_an_answer_from_the_authorization_server_no_request_comes_in() {
    let silent = Backend::start(async |tcp| {
        let _held = tcp;
        std::future::pending::<()>().await;
    })
    .await;
    let nonsense = Backend::saying("SSH-2.0-OpenSSH\r\n\r\n").await;
    let switching = Backend::saying(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    )
    .await;
    for (address, status) in [
        (Backend::unreachable(), 503),
        (silent.address, 503),
        (nonsense.address, 502),
        (switching.address, 502),
    ] {
        let (gateway, seen, _) = start(&forward(address)).await;
        for way in WAYS {
            assert_eq!(
                tell(&gateway, way, "/", &[("Cookie", "ok")]).await.status,
                status,
                "{way:?} {address}"
            );
        }
        assert_eq!(seen.count(), 0);
        gateway.wait("the authorization server can't be asked"); // the log is written by a thread of its own
        let told = gateway.lines("the authorization server can't be asked");
        assert!((1..=4).contains(&told.len()), "{told:?}");
    }
}

#[tokio::test]
async fn an_authorization_server_behind_tls_is_trusted_by_its_authorities() {
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"]);
    let pki = Pki::new();
    std::fs::write(setup.path().join("ca.pem"), pki.root_pem()).unwrap();
    std::fs::write(setup.path().join("other.pem"), Pki::new().root_pem()).unwrap();
    let tls = acceptor(TLS13, &pki.issue(&["127.0.0.1"]), None);
    let server = Backend::start(move |tcp| {
        let tls = tls.clone();
        async move {
            let Ok(mut stream) = tls.accept(tcp).await else { return };
            while let Some(head) = read_head(&mut stream).await {
                assert_eq!(head.line, "GET /verify HTTP/1.1");
                let answer = b"HTTP/1.1 204 No Content\r\nRemote-User: alice\r\n\r\n";
                stream.write_all(answer).await.unwrap();
            }
        }
    })
    .await;
    let (backend, seen) = echo().await;
    let address = backend.address.to_string();
    let forward = |ca: &str| {
        let url = format!("https://{}/verify", server.address);
        text(&address, &format!("forward = {{ url = \"{url}\", ca = \"{ca}\", copy = \"Remote-User\" }}"))
    };
    let gateway = setup.start(&forward("ca.pem"));
    for way in WAYS {
        assert!(tell(&gateway, way, "/", &[]).await.is_in(), "{way:?}");
        assert_eq!(seen.last().get("remote-user"), Some("alice"));
    }
    gateway.write_config(&forward("other.pem"));
    gateway.reload();
    assert_eq!(tell(&gateway, Way::Http1, "/", &[]).await.status, 503);
    let line = gateway.wait("the authorization server can't be asked");
    assert!(line["cause"].as_str().unwrap().contains("certificate"), "{line}");
}

#[tokio::test]
async fn live_sessions_are_asked_for_again() {
    let auth = auth_server().await;
    let access = forward(auth.address) + "\nrecheck = \"1s\"\nrecheck_grace = \"2s\"";
    let (gateway, _, _) = start(&access).await;
    for (way, n) in [(Way::WebSocket1, 0), (Way::WebSocket2, 1)] {
        let mut socket = tell(&gateway, way, "/chat", &[("Cookie", "ok")]).await.socket.unwrap();
        socket.echoes("hello").await;
        let before = auth.seen.count();
        while auth.seen.count() < before + 2 {
            socket.echoes("still here").await; // asked twice, and nothing is noticed of it
        }
        assert_eq!(auth.seen.last().all("x-forwarded-uri"), ["/chat"]);
        auth.status.store(403, Ordering::SeqCst);
        socket.expect_close(3000).await;
        socket.close(3000).await;
        auth.status.store(200, Ordering::SeqCst);
        let line = gateway.wait_nth("a session ends: the authorization server refuses it now", n);
        assert_eq!((&line["subject"], &line["status"]), (&"alice".into(), &403.into()));
        assert_eq!(gateway.wait_nth("session", n)["close_code"], 3000);
    }
    // One that can't be asked keeps its sessions for a while.
    let mut socket = tell(&gateway, Way::WebSocket1, "/", &[("Cookie", "ok")]).await.socket.unwrap();
    auth.status.store(0, Ordering::SeqCst);
    gateway.wait("the authorization server can't be asked");
    socket.echoes("still here").await;
    socket.expect_close(3000).await;
    gateway.wait("a session ends: the authorization server could not be asked (recheck_grace)");
}

#[tokio::test]
async fn a_reload_changes_how_often_live_sessions_are_asked_for() {
    let auth = auth_server().await;
    for (n, before) in ["\nrecheck = \"1d\"", ""].into_iter().enumerate() {
        auth.status.store(200, Ordering::SeqCst);
        let (gateway, _, backend) = start(&(forward(auth.address) + before)).await;
        for way in [Way::WebSocket1, Way::WebSocket2] {
            let mut socket = tell(&gateway, way, "/chat", &[("Cookie", "ok")]).await.socket.unwrap();
            socket.echoes("hello").await;
            gateway.write_config(&text(&backend, &(forward(auth.address) + "\nrecheck = \"1s\"")));
            gateway.reload();
            let asked = auth.seen.count();
            while auth.seen.count() == asked {
                socket.echoes("still here").await;
            }
            assert_eq!(auth.seen.last().all("x-forwarded-uri"), ["/chat"], "{n} {way:?}");
            auth.status.store(403, Ordering::SeqCst);
            socket.expect_close(3000).await;
            auth.status.store(200, Ordering::SeqCst);
            gateway.write_config(&text(&backend, &(forward(auth.address) + before)));
            gateway.reload();
        }
    }
}

#[tokio::test]
async fn a_session_is_still_asked_for_after_a_takeover_and_still_has_its_user() {
    let auth = auth_server().await;
    let access = forward(auth.address) + "\nrecheck = \"1s\"";
    let (gateway, _, _) = start(&access).await;
    let mut socket = tell(&gateway, Way::WebSocket1, "/", &[("Cookie", "ok")]).await.socket.unwrap();
    socket.echoes("hello").await;
    gateway.take_over();
    gateway.wait("sessions moved: they go on in the new process");
    socket.echoes("still here").await;
    auth.status.store(401, Ordering::SeqCst);
    socket.expect_close(3000).await;
    socket.close(3000).await;
    let line = gateway.wait("session");
    assert_eq!((&line["subject"], &line["close_code"]), (&"alice".into(), &3000.into()));
}

#[tokio::test]
async fn a_reload_judges_users_and_addresses_of_live_sessions_again() {
    let access = format!("{BASIC}\nfailures = \"off\"");
    let (gateway, _, address) = start(&access).await;
    let open = async |client: &str, credentials: &str| {
        let fields = [("X-Forwarded-For", client), ("Authorization", credentials)];
        tell(&gateway, Way::WebSocket1, "/", &fields).await.socket.unwrap()
    };
    let mut alice = open("192.0.2.1", ALICE).await;
    let mut denied = open("192.0.2.9", BOB).await;
    let mut bob = open("192.0.2.1", BOB).await;
    gateway.reload();
    for socket in [&mut alice, &mut bob, &mut denied] {
        socket.echoes("still here").await;
    }
    // Alice has another password, and one address is denied.
    let users = USERS.replace("alice:$2y$04$abcdefghijklmnopqrstuu2", "alice:$2y$04$abcdefghijklmnopqrstuu3");
    std::fs::write(gateway.path().join("htpasswd"), users).unwrap();
    gateway.write_config(&text(&address, &format!("{access}\ndeny = [\"192.0.2.9\"]")));
    gateway.reload();
    for socket in [&mut alice, &mut denied] {
        socket.expect_close(3000).await;
        socket.close(3000).await;
    }
    let line = gateway.wait("sessions end: their clients are no longer allowed to have them");
    assert_eq!(line["sessions"], 2);
    bob.echoes("still here").await;
    // And one that is removed.
    std::fs::write(gateway.path().join("htpasswd"), USERS.replace("bob:", "rob:")).unwrap();
    gateway.reload();
    bob.expect_close(3000).await;
}

#[tokio::test]
async fn the_sessions_of_a_user_are_counted_and_closed_together() {
    let (gateway, _, _) =
        start(&format!("{BASIC}\nsessions = 2\nrequests = \"5/h\"\nper = \"subject\"")).await;
    let ask = async |way: Way, client: &str, credentials: &str| {
        tell(&gateway, way, "/", &[("X-Forwarded-For", client), ("Authorization", credentials)]).await
    };
    let mut first = ask(Way::WebSocket1, "192.0.2.1", ALICE).await.socket.unwrap();
    let mut second = ask(Way::WebSocket2, "192.0.2.2", ALICE).await.socket.unwrap();
    for way in [Way::WebSocket1, Way::WebSocket2] {
        assert_eq!(ask(way, "192.0.2.3", ALICE).await.status, 429, "{way:?}");
    }
    let mut other = ask(Way::WebSocket1, "192.0.2.1", BOB).await.socket.unwrap();
    assert!(ask(Way::Http2, "192.0.2.4", ALICE).await.is_in(), "the fifth request");
    assert_eq!(ask(Way::Http1, "192.0.2.5", ALICE).await.status, 429);
    assert_eq!(
        ask(Way::Http1, "192.0.2.5", WRONG).await.status,
        401,
        "who is not known does not count as alice"
    );
    let close = Command::new(env!("CARGO_BIN_EXE_wssgate"))
        .args(["close", "--subject", "alice", "--socket"])
        .arg(gateway.path().join("control.sock"))
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8(close.stdout).unwrap(),
        "2 sessions will be closed after the messages in flight\n"
    );
    for socket in [&mut first, &mut second] {
        socket.expect_close(3000).await;
    }
    other.echoes("still here").await;
}

#[tokio::test]
async fn trailers_name_no_user() {
    let (gateway, _, _) = start(BASIC).await;
    let (told, heard) = tokio::sync::oneshot::channel();
    let told = std::sync::Mutex::new(Some(told));
    let backend = Backend::start(move |mut tcp| {
        let told = told.lock().unwrap().take();
        async move {
            let mut wire = Vec::new();
            while !wire.ends_with(b"\r\n\r\n")
                || wire.windows(4).filter(|end| *end == b"\r\n\r\n").count() < 2
            {
                wire.push(tcp.read_u8().await.unwrap());
            }
            told.unwrap().send(String::from_utf8(wire).unwrap()).unwrap();
            tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        }
    })
    .await;
    gateway.write_config(&text(&backend.address.to_string(), BASIC));
    gateway.reload();
    let mut tcp = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
    let request = format!(
        "POST / HTTP/1.1\r\nHost: default.test\r\nAuthorization: {ALICE}\r\nTransfer-Encoding: chunked\r\n\
         Trailer: Remote-User, remote_user, X-Fine\r\n\r\n1\r\na\r\n0\r\nRemote-User: root\r\nremote_user: root\r\nX-Fine: 1\r\n\r\n"
    );
    assert_eq!(ask(&mut tcp, request).await.status(), 200);
    let wire = heard.await.unwrap();
    let (head, trailers) = wire.split_once("\r\n0\r\n").unwrap();
    assert!(head.contains("remote-user: alice\r\n"), "{head}");
    assert_eq!(trailers.to_lowercase(), "x-fine: 1\r\n\r\n");
}
