//! Who sends a request: passwords, and what the gateway says of their users.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use http::{Method, Request};
use support::backend::{Seen, echo};
use support::gateway::{Gateway, Setup, config};
use support::http1::{Head, ask};
use support::http2::Http2;
use support::pki::Pki;
use support::tls::Tls;
use support::ws::WebSocket;
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
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate"));
    Pki::new().issue(&["default.test"]).write(&setup.path().join("certs"), "default");
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
                socket.hears_close(1000).await;
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
