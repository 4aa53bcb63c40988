//! Sessions that outlive their servers: `session_lost = "redial"`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use support::backend::{Backend, Seen, echo};
use support::gateway::{Gateway, Setup, config};
use support::http1::{Head, ask, read_head};
use support::pki::Pki;
use support::ws::{CLOSE, Frame, PING, PONG, TEXT, WebSocket, accept, encode};
use support::{full_size, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};

/// How a server goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Close with this code, and it reads until it is answered.
    Closes(u16),
    /// Its sockets close as those of a process that is killed.
    Dies,
}

/// What a server was told last.
#[derive(Debug, Clone, Copy)]
struct Orders {
    /// How often it was told to go.
    count: u32,
    fate: Fate,
    /// It takes sessions.
    serves: bool,
}

/// What a server answers to a handshake.
type Answer = Arc<dyn Fn(&Head) -> String + Send + Sync>;

/// A server that echoes texts with its name before them, and goes when it is told to.
struct Server {
    backend: Backend,
    orders: watch::Sender<Orders>,
    seen: Seen,
    /// Texts that it has read whole, by `Wssgate-Session`.
    heard: Heard,
}

type Heard = Arc<Mutex<BTreeMap<String, Vec<String>>>>;

impl Server {
    async fn start(name: &'static str) -> Self {
        Self::answering(name, Arc::new(|head| switching(head, ""))).await
    }

    async fn answering(name: &'static str, answer: Answer) -> Self {
        let (orders, told) = watch::channel(Orders { count: 0, fate: Fate::Dies, serves: true });
        let (seen, heard) = (Seen::default(), Heard::default());
        let all = (seen.clone(), heard.clone());
        let backend = Backend::start(move |tcp| {
            let ((seen, heard), told, answer) = (all.clone(), told.clone(), answer.clone());
            async move {
                let mut tcp = tcp;
                let Some(head) = read_head(&mut tcp).await else { return };
                let Orders { serves, count, .. } = *told.borrow();
                seen.push(head.clone());
                if !serves {
                    return;
                }
                let answer = answer(&head);
                if tcp.write_all(answer.as_bytes()).await.is_err() || !answer.starts_with("HTTP/1.1 101") {
                    return;
                }
                let session = head.get("wssgate-session").unwrap_or_default().to_owned();
                converse(name, tcp, (told, count), |text| {
                    heard.lock().unwrap().entry(session.clone()).or_default().push(text);
                })
                .await;
            }
        })
        .await;
        Self { backend, orders, seen, heard }
    }

    fn address(&self) -> SocketAddr {
        self.backend.address
    }

    fn tell(&self, fate: Fate, serves: bool) {
        self.orders.send_modify(|orders| *orders = Orders { count: orders.count + 1, fate, serves });
    }

    /// It goes, and is there again at once.
    fn restart(&self, fate: Fate) {
        self.tell(fate, true);
    }

    /// It goes.
    fn stop(&self, fate: Fate) {
        self.tell(fate, false);
    }

    /// It is there again.
    fn serve(&self) {
        self.orders.send_modify(|orders| orders.serves = true);
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().values().flatten().cloned().collect()
    }
}

fn switching(head: &Head, fields: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n{fields}\r\n",
        accept(head.get("sec-websocket-key").expect("a key"))
    )
}

async fn converse(
    name: &str,
    tcp: TcpStream,
    (mut told, since): (watch::Receiver<Orders>, u32),
    heard: impl Fn(String),
) {
    let (reads, mut writes) = tcp.into_split();
    let mut socket = WebSocket { io: Box::new(tokio::io::join(reads, tokio::io::sink())), client: false };
    let (mut closes, mut begun) = (false, Vec::new());
    loop {
        let mut reading = std::pin::pin!(async {
            let b0 = socket.io.read_u8().await.ok()?;
            socket.hear_rest(b0).await
        });
        let frame = loop {
            tokio::select! {
                biased;
                fate = told_to_go(&mut told, since), if !closes => match fate {
                    Fate::Closes(code) => {
                        closes = true;
                        if writes.write_all(&encode(CLOSE, &code.to_be_bytes(), false)).await.is_err() {
                            return;
                        }
                    }
                    Fate::Dies => return,
                },
                frame = &mut reading => break frame,
            }
        };
        let Some(frame) = frame else { return };
        let answer = match frame.b0 {
            0x01 => {
                begun = frame.payload;
                continue;
            }
            TEXT | 0x80 => {
                begun.extend(frame.payload);
                let text = String::from_utf8(std::mem::take(&mut begun)).unwrap();
                heard(text.clone());
                if closes {
                    continue;
                }
                encode(TEXT, format!("{name} {text}").as_bytes(), false)
            }
            PING => encode(PONG, &frame.payload, false),
            CLOSE => {
                if !closes {
                    let _ = writes.write_all(&encode(CLOSE, &frame.payload, false)).await;
                }
                return;
            }
            _ => continue,
        };
        if writes.write_all(&answer).await.is_err() {
            return;
        }
    }
}

async fn told_to_go(told: &mut watch::Receiver<Orders>, since: u32) -> Fate {
    told.wait_for(|orders| orders.count > since).await.map_or(Fate::Dies, |orders| orders.fate)
}

fn setup() -> Setup {
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate"));
    Pki::new().issue(&["default.test"]).write(&setup.path().join("certs"), "default");
    setup
}

fn redialling(servers: &[SocketAddr], lines: &str, more: &str) -> String {
    let servers: Vec<_> = servers.iter().map(|address| format!("\"http://{address}\"")).collect();
    config(
        "workers = 2\n[admin]\naddress = \"127.0.0.3:0\"\n[control]\nsocket = \"control.sock\"",
        &format!(
            "[[upstream]]\nname = \"pool\"\nservers = [{}]\nsession_lost = \"redial\"\n{lines}\n\
             [[route]]\nname = \"chat\"\npath = \"/\"\nproxy = \"pool\"\n{more}",
            servers.join(", ")
        ),
    )
}

fn start(servers: &[SocketAddr], lines: &str) -> Gateway {
    setup().start(&redialling(servers, lines, ""))
}

async fn plain(gateway: &Gateway) -> TcpStream {
    TcpStream::connect(gateway.addresses()[1]).await.unwrap()
}

async fn open_with(gateway: &Gateway, fields: &str) -> (WebSocket, Head) {
    WebSocket::connect(plain(gateway).await, "default.test", "/ws?room=1", fields).await.unwrap()
}

async fn open(gateway: &Gateway) -> WebSocket {
    open_with(gateway, "").await.0
}

/// What the gateway says of its only session.
async fn session(gateway: &Gateway) -> Value {
    let mut socket = tokio::net::UnixStream::connect(gateway.path().join("control.sock")).await.unwrap();
    socket.write_all(b"{\"command\":\"sessions\"}\n").await.unwrap();
    let mut answer = Vec::new();
    let reading = async {
        while answer.iter().filter(|byte| **byte == b'\n').count() < 2 {
            answer.push(socket.read_u8().await.unwrap());
        }
    };
    soon(reading).await;
    serde_json::from_slice::<Value>(answer.split(|byte| *byte == b'\n').next().unwrap()).unwrap()["session"]
        .take()
}

async fn order(gateway: &Gateway, order: Value) {
    let mut socket = tokio::net::UnixStream::connect(gateway.path().join("control.sock")).await.unwrap();
    socket.write_all(format!("{order}\n").as_bytes()).await.unwrap();
    let mut answer = [0; 1];
    soon(socket.read_exact(&mut answer)).await.unwrap();
}

async fn metric(gateway: &Gateway, name: &str) -> u64 {
    let mut tcp = TcpStream::connect(gateway.admin()).await.unwrap();
    let page = ask(&mut tcp, "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").await.text();
    page.lines()
        .filter(|line| line.starts_with(name))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

/// Waits until the server has been asked so often.
async fn asked(server: &Server, count: usize) {
    soon(async {
        while server.seen.count() < count {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_client_goes_on_at_another_server() {
    for fate in [Fate::Closes(1001), Fate::Closes(1011), Fate::Closes(1012), Fate::Closes(1013), Fate::Dies] {
        let (a, b) = (Server::start("a").await, Server::start("b").await);
        let gateway = start(&[a.address(), b.address()], "balance = \"round-robin\"");
        let mut socket = open_with(&gateway, "Cookie: c=1\r\nX-Own: 2\r\n").await.0;
        let (first, second) = if a.seen.count() == 1 { (&a, &b) } else { (&b, &a) };
        socket.text("one").await;
        socket.hear().await.unwrap();
        assert_eq!(session(&gateway).await["redials"], 0);
        first.stop(fate);
        asked(second, 1).await;
        socket.text("two").await;
        let echo = socket.hear().await.unwrap();
        assert!(echo.payload.ends_with(b" two"), "{fate:?}: {echo:?}");
        let (before, after) = (first.seen.last(), second.seen.last());
        assert_eq!(after.line, before.line);
        for name in ["cookie", "x-own", "x-real-ip", "host", "via", "wssgate-session"] {
            assert!(before.get(name).is_some() && after.get(name) == before.get(name), "{name}");
        }
        assert_ne!(after.get("sec-websocket-key"), before.get("sec-websocket-key"));
        assert_eq!((before.get("wssgate-resume"), before.get("wssgate-messages")), (None, None));
        assert_eq!((after.get("wssgate-resume"), after.get("wssgate-messages")), (Some("1"), Some("1")));
        assert_eq!(after.get("wssgate-session").unwrap().len(), 32);
        assert_eq!((first.heard(), second.heard()), (vec!["one".to_owned()], vec!["two".to_owned()]));
        let seen = session(&gateway).await;
        assert_eq!((&seen["redials"], &seen["state"]), (&json!(1), &json!("open")));
        assert_eq!(metric(&gateway, "wssgate_backend_redials_total").await, 1);
        socket.close(1000).await;
        socket.hears_close(1000).await;
        drop(socket);
        let line = gateway.wait("session");
        assert_eq!((&line["redials"], &line["backend"]), (&json!(1), &json!(second.address().to_string())));
        assert_eq!((&line["received_messages"], &line["sent_messages"]), (&json!(2), &json!(2)));
    }
}

#[tokio::test]
async fn while_there_is_none_pings_are_answered_and_messages_wait() {
    let server = Server::start("a").await;
    let gateway = start(&[server.address()], "redial_buffer = \"1KiB\"\nredial_rate = \"1000/s\"");
    let mut socket = open(&gateway).await;
    socket.text("one").await;
    socket.hears_text("a one").await;
    server.stop(Fate::Dies);
    asked(&server, 2).await;
    socket.text("two").await;
    socket.send(PING, "there?").await;
    let pong = socket.hear().await.unwrap();
    assert_eq!((pong.b0, &pong.payload[..]), (PONG, &b"there?"[..]));
    assert_eq!(session(&gateway).await["state"], "redialling");
    // Much more than the gateway reads: the rest waits in the socket.
    let texts: Vec<String> = (0..400).map(|n| format!("{n} {:.<500}", "")).collect();
    let (reads, mut writes) = tokio::io::split(socket.io);
    let sent = texts.clone();
    let writing = tokio::spawn(async move {
        for text in sent {
            writes.write_all(&encode(TEXT, text.as_bytes(), true)).await.unwrap();
        }
        writes
    });
    sleep(Duration::from_millis(300)).await;
    server.serve();
    let mut socket = WebSocket { io: Box::new(tokio::io::join(reads, tokio::io::sink())), client: true };
    socket.hears_text("a two").await;
    for text in &texts {
        socket.hears_text(&format!("a {text}")).await;
    }
    drop(writing.await.unwrap());
    let all: Vec<String> = ["one", "two"].map(str::to_owned).into_iter().chain(texts).collect();
    assert_eq!(server.heard(), all);
}

#[tokio::test]
async fn a_message_of_which_a_dead_server_has_a_part_ends_the_session_or_is_repeated() {
    for repeat in [false, true] {
        let server = Server::start("a").await;
        let gateway = start(&[server.address()], &format!("redial_repeat = {repeat}"));
        let mut socket = open(&gateway).await;
        socket.text("one").await;
        socket.hears_text("a one").await;
        let message = encode(TEXT, b"in two parts", true);
        socket.send_raw(&message[..9]).await;
        sleep(Duration::from_millis(100)).await; // it is on its way
        server.restart(Fate::Dies);
        if repeat {
            asked(&server, 2).await;
            socket.send_raw(&message[9..]).await;
            socket.hears_text("a in two parts").await;
            assert_eq!(server.seen.last().get("wssgate-messages"), Some("1"));
        } else {
            socket.hears_close(1011).await;
            socket.close(1011).await;
            drop(socket);
            let line = gateway.wait("session");
            assert_eq!((&line["close_code"], &line["redials"]), (&json!(1011), &json!(0)));
            assert_eq!(line["ended_by"], "gateway");
        }
    }
}

#[tokio::test]
async fn a_server_that_closes_in_order_gets_the_message_under_way() {
    let server = Server::start("a").await;
    let gateway = start(&[server.address()], "");
    let mut socket = open(&gateway).await;
    socket.send(0x01, "in two ").await;
    sleep(Duration::from_millis(100)).await;
    server.restart(Fate::Closes(1012));
    sleep(Duration::from_millis(100)).await;
    assert_eq!(server.seen.count(), 1, "it still has its session");
    socket.send(0x80, "parts").await;
    asked(&server, 2).await;
    socket.text("next").await;
    socket.hears_text("a next").await;
    assert_eq!(server.heard(), ["in two parts", "next"]);
    assert_eq!(server.seen.last().get("wssgate-messages"), Some("1"));
}

#[tokio::test]
async fn a_server_that_refuses_ends_the_session() {
    for (answer, code) in [
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", 1008),
        ("HTTP/1.1 401 Unauthorized\r\nWssgate-Close: 4001\r\nContent-Length: 0\r\n\r\n", 4001),
    ] {
        let answer: Answer = Arc::new(move |head| match head.get("wssgate-resume") {
            None => switching(head, "Wssgate-Secret: 1\r\n"),
            Some(_) => answer.to_owned(),
        });
        let server = Server::answering("a", answer).await;
        let gateway = start(&[server.address()], "");
        let (mut socket, head) = open_with(&gateway, "").await;
        assert_eq!(head.get("wssgate-secret"), None);
        server.restart(Fate::Dies);
        socket.hears_close(code).await;
        socket.close(code).await;
        drop(socket);
        let line = gateway.wait("session");
        assert_eq!((&line["close_code"], &line["ended_by"]), (&json!(code), &json!("gateway")));
        assert_eq!(metric(&gateway, "wssgate_upstream_redials_failed_total").await, 1);
    }
}

#[tokio::test]
async fn the_new_server_has_to_agree_to_the_same() {
    for (first, then, goes_on) in [
        ("Sec-WebSocket-Protocol: chat\r\n", "Sec-WebSocket-Protocol: chat\r\n", true),
        ("Sec-WebSocket-Protocol: chat\r\n", "Sec-WebSocket-Protocol: v2\r\n", false),
        ("Sec-WebSocket-Protocol: chat\r\n", "", false),
        ("", "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n", false),
        (
            "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n",
            "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover; server_no_context_takeover\r\n",
            true,
        ),
    ] {
        let answer: Answer = Arc::new(move |head| {
            switching(head, if head.get("wssgate-resume").is_none() { first } else { then })
        });
        let server = Server::answering("a", answer).await;
        let gateway = start(&[server.address()], "");
        let offers = "Sec-WebSocket-Protocol: chat, v2\r\nSec-WebSocket-Extensions: permessage-deflate\r\n";
        let (mut socket, head) = open_with(&gateway, offers).await;
        assert_eq!(
            server.seen.last().get("sec-websocket-extensions"),
            Some("permessage-deflate; server_no_context_takeover; client_no_context_takeover")
        );
        if let Some(extensions) = head.get("sec-websocket-extensions") {
            assert!(extensions.contains("client_no_context_takeover"), "{extensions}");
        }
        server.restart(Fate::Closes(1012));
        asked(&server, 2).await;
        if goes_on {
            socket.echoes_as("a", "hello").await;
        } else {
            socket.hears_close(1012).await;
        }
    }
}

trait EchoesAs {
    async fn echoes_as(&mut self, name: &str, text: &str);
}

impl EchoesAs for WebSocket {
    async fn echoes_as(&mut self, name: &str, text: &str) {
        self.text(text).await;
        self.hears_text(&format!("{name} {text}")).await;
    }
}

#[tokio::test]
async fn sessions_that_can_t_outlive_their_server_say_so() {
    let answer: Answer = Arc::new(|head| {
        let deflate = head.get("sec-websocket-extensions").is_some();
        switching(head, if deflate { "Sec-WebSocket-Extensions: permessage-deflate\r\n" } else { "" })
    });
    let server = Server::answering("a", answer).await;
    let gateway = start(&[server.address()], "");
    for (fields, why, code) in [
        (format!("Cookie: {}\r\n", "a".repeat(8192)), "the handshake is longer than 8 KiB", 1001),
        (
            "Sec-WebSocket-Extensions: permessage-deflate\r\n".to_owned(),
            "the compression depends on earlier messages",
            1012,
        ),
    ] {
        let (mut socket, _) = open_with(&gateway, &fields).await;
        assert_eq!(session(&gateway).await["no_redial"], why);
        server.restart(Fate::Closes(1001));
        socket.hears_close(code).await;
        socket.close(code).await;
        soon(socket.hears_end()).await;
    }
    assert!(
        server.seen.all()[0].get("wssgate-session").is_none(),
        "it has no name that it could be known by"
    );
}

#[tokio::test]
async fn a_drained_server_is_left() {
    let (a, b) = (Server::start("a").await, Server::start("b").await);
    let gateway = start(&[a.address(), b.address()], "balance = \"round-robin\"");
    let mut socket = open(&gateway).await;
    let (first, second) = if a.seen.count() == 1 { (&a, &b) } else { (&b, &a) };
    socket.text("one").await;
    socket.hear().await.unwrap();
    order(&gateway, json!({ "command": "drain", "target": first.address().to_string() })).await;
    asked(second, 1).await;
    socket.text("two").await;
    assert!(socket.hear().await.unwrap().payload.ends_with(b" two"));
    assert_eq!(second.heard(), ["two"]);
    // And back, although the one has been left before.
    order(&gateway, json!({ "command": "undrain", "target": first.address().to_string() })).await;
    order(&gateway, json!({ "command": "drain", "target": second.address().to_string() })).await;
    asked(first, 2).await;
    socket.text("three").await;
    assert!(socket.hear().await.unwrap().payload.ends_with(b" three"));
    assert_eq!(first.seen.last().get("wssgate-resume"), Some("2"));
    assert_eq!(first.seen.last().get("wssgate-messages"), Some("2"));
}

#[tokio::test]
async fn the_search_has_an_end() {
    let server = Server::start("a").await;
    let gateway = start(&[server.address()], "redial_timeout = \"700ms\"\nredial_interval = \"150ms\"");
    let mut socket = open(&gateway).await;
    let begun = Instant::now();
    server.stop(Fate::Closes(1013));
    socket.hears_close(1013).await;
    assert!((600..5000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    let attempts = server.seen.count();
    assert!((4..12).contains(&attempts), "{attempts}");
    socket.close(1013).await;
    drop(socket);
    let line = gateway.wait("session");
    assert_eq!((&line["close_code"], &line["redials"]), (&json!(1013), &json!(0)));
    gateway.wait("a session ends: it has lost its backend");
}

#[tokio::test]
async fn the_rules_of_access_are_judged_again() {
    let server = Server::start("a").await;
    let gateway = start(&[server.address()], "");
    let mut socket = open(&gateway).await;
    socket.echoes_as("a", "one").await;
    gateway.write_config(&redialling(&[server.address()], "", "[route.access]\ndeny = [\"127.0.0.0/8\"]\n"));
    gateway.reload();
    // The reload itself ends the session, whose backend is not asked again.
    socket.hears_close(3000).await;
    server.restart(Fate::Dies);
    assert_eq!(server.seen.count(), 1);
}

#[tokio::test]
async fn a_reload_may_bring_other_servers() {
    let (a, b) = (Server::start("a").await, Server::start("b").await);
    let gateway = start(&[a.address()], "");
    let mut socket = open(&gateway).await;
    socket.echoes_as("a", "one").await;
    gateway.write_config(&redialling(&[b.address()], "", ""));
    gateway.reload();
    socket.echoes_as("a", "two").await;
    a.stop(Fate::Closes(1012));
    asked(&b, 1).await;
    socket.echoes_as("b", "three").await;
}

#[tokio::test]
async fn fields_between_the_gateway_and_its_servers_are_theirs_alone() {
    let (backend, seen) = echo().await;
    let answers = Backend::saying(
        "HTTP/1.1 200 OK\r\nWssgate-Own: 1\r\nwssgate_own: 2\r\nWssgateway: 3\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    let gateway = setup().start(&config(
        "workers = 1\ntrusted_proxies = [\"127.0.0.0/8\"]",
        &format!(
            "[[route]]\npath = \"/\"\nproxy = \"http://{}\"\n[[route]]\npath = \"/says\"\nproxy = \"http://{}\"\n",
            backend.address, answers.address
        ),
    ));
    let spoofed = "Wssgate-Session: 1\r\nWSSGATE_Resume: 2\r\nwssgate-messages: 3\r\nWssgateway: 4\r\n";
    let request = format!("GET / HTTP/1.1\r\nHost: default.test\r\n{spoofed}\r\n");
    assert_eq!(ask(&mut plain(&gateway).await, request).await.status(), 200);
    drop(open_with(&gateway, spoofed).await);
    for head in seen.all() {
        for name in ["wssgate-session", "wssgate_resume", "wssgate-resume", "wssgate-messages"] {
            assert_eq!(head.get(name), None, "{name}");
        }
        assert_eq!(head.get("wssgateway"), Some("4"));
    }
    let answer = ask(&mut plain(&gateway).await, "GET /says HTTP/1.1\r\nHost: default.test\r\n\r\n").await;
    assert_eq!((answer.head.get("wssgate-own"), answer.head.get("wssgate_own")), (None, None));
    assert_eq!(answer.head.get("wssgateway"), Some("3"));
}

/// What a client of the crowd has seen.
#[derive(Debug, Default)]
struct Tally {
    sent: u64,
    echoes: Vec<u64>,
    ended: Option<u16>,
}

/// Sends numbered texts until told to stop, and hears their echoes; then closes.
async fn member(
    gateway: SocketAddr,
    doors: Arc<Semaphore>,
    stop: watch::Receiver<bool>,
    sent_in_all: Arc<AtomicU64>,
) -> (String, Tally) {
    let door = doors.acquire().await.unwrap();
    let tcp = TcpStream::connect(gateway).await.unwrap();
    let own = format!("{:?}", tcp.local_addr().unwrap());
    let (mut socket, _) =
        WebSocket::connect(tcp, "default.test", "/ws", &format!("X-Own: {own}\r\n")).await.unwrap();
    drop(door);
    let mut tally = Tally::default();
    let mut due = Instant::now() + Duration::from_millis(500).mul_f64(f64::from(rand()) / 256.0);
    let mut closing = false;
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(due), if !closing => {
                if *stop.borrow() {
                    closing = true;
                    socket.close(1000).await;
                    continue;
                }
                socket.text(&tally.sent.to_string()).await;
                tally.sent += 1;
                sent_in_all.fetch_add(1, Ordering::Relaxed);
                due += Duration::from_millis(200);
            }
            b0 = socket.io.read_u8() => {
                let Ok(b0) = b0 else { return (own, tally) };
                let Some(Frame { b0, payload, .. }) = socket.hear_rest(b0).await else { return (own, tally) };
                match b0 {
                    TEXT => {
                        let text = String::from_utf8(payload).unwrap();
                        tally.echoes.push(text.split(' ').nth(1).unwrap().parse().unwrap());
                    }
                    CLOSE => {
                        tally.ended = Some(payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code)));
                        if !closing {
                            socket.close(1000).await;
                        }
                        return (own, tally);
                    }
                    PING => socket.send(PONG, payload).await,
                    other => panic!("{other:#x}"),
                }
            }
        }
    }
}

fn rand() -> u8 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0).to_be_bytes()[0]
}

/// Many clients whose messages go on while servers come and go. Returns each client's tally, and what servers have read
/// of it, in its order.
async fn crowd(
    servers: &[&Server],
    lines: &str,
    restarts: impl AsyncFnOnce(&Gateway, &AtomicU64),
) -> Vec<(Tally, Vec<u64>)> {
    let count = if full_size() { 2000 } else { 100 };
    let addresses: Vec<_> = servers.iter().map(|server| server.address()).collect();
    let gateway = start(&addresses, &format!("redial_rate = \"5000/s\"\n{lines}"));
    let (stop, stops) = watch::channel(false);
    let sent = Arc::<AtomicU64>::default();
    let doors = Arc::new(Semaphore::new(32)); // so that no handshake waits for long
    let address = gateway.addresses()[1];
    let members: Vec<_> = (0..count)
        .map(|_| tokio::spawn(member(address, doors.clone(), stops.clone(), sent.clone())))
        .collect();
    timeout(Duration::from_secs(120), async {
        while servers.iter().map(|server| server.seen.count()).sum::<usize>() < count {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("all are connected");
    go_on(&sent, count as u64).await;
    restarts(&gateway, &sent).await;
    stop.send_replace(true);
    let mut names = BTreeMap::new();
    for head in servers.iter().flat_map(|server| server.seen.all()) {
        names.insert(head.get("x-own").unwrap().to_owned(), head.get("wssgate-session").unwrap().to_owned());
    }
    let mut all = Vec::new();
    for member in members {
        let (own, tally) = timeout(Duration::from_secs(60), member).await.expect("each ends").unwrap();
        let session = &names[&own];
        let heard = servers.iter().flat_map(|server| server.heard.lock().unwrap().get(session).cloned());
        let mut heard: Vec<u64> = heard.flatten().map(|text| text.parse().unwrap()).collect();
        if servers.len() > 1 {
            heard.sort_unstable(); // one server has its messages in their order: that is looked at below
        }
        for server in servers {
            let of_one = server.heard.lock().unwrap().get(session).cloned().unwrap_or_default();
            let of_one: Vec<u64> = of_one.iter().map(|text| text.parse().unwrap()).collect();
            assert!(of_one.windows(2).all(|pair| pair[0] < pair[1]), "reordered or twice: {of_one:?}");
        }
        all.push((tally, heard));
    }
    let redials: u64 = (0..count).map(|n| gateway.wait_nth("session", n)["redials"].as_u64().unwrap()).sum();
    assert!(redials >= count as u64, "{redials}");
    all
}

/// Waits until so many messages more were sent.
async fn go_on(sent: &AtomicU64, count: u64) {
    let until = sent.load(Ordering::Relaxed) + count;
    let waiting = async {
        while sent.load(Ordering::Relaxed) < until {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(120), waiting).await.expect("messages go on");
}

#[tokio::test]
async fn ten_restarts_in_order_are_noticed_by_no_client() {
    let server = Server::start("a").await;
    let all = crowd(&[&server], "", async |_, sent| {
        for _ in 0..10 {
            server.restart(Fate::Closes(1012));
            go_on(sent, 200).await;
        }
    })
    .await;
    for (tally, heard) in all {
        assert_eq!(tally.ended, Some(1000));
        assert_eq!(heard, Vec::from_iter(0..tally.sent), "each message has arrived exactly once");
        assert!(tally.echoes.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", tally.echoes);
    }
}

#[tokio::test]
async fn ten_deaths_lose_no_more_than_what_the_dead_had() {
    let server = Server::start("a").await;
    let all = crowd(&[&server], "", async |_, sent| {
        for _ in 0..10 {
            server.restart(Fate::Dies);
            go_on(sent, 200).await;
        }
    })
    .await;
    let sessions = all.len();
    let mut missing = 0;
    for (tally, heard) in all {
        assert!(matches!(tally.ended, Some(1000 | 1011)), "{:?}", tally.ended);
        assert!(heard.windows(2).all(|pair| pair[0] < pair[1]), "reordered or twice: {heard:?}");
        assert!(tally.echoes.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", tally.echoes);
        if tally.ended == Some(1000) {
            missing += tally.sent - heard.len() as u64;
        }
    }
    // At most what was on its way to a server when it died.
    assert!(missing <= 10 * sessions as u64, "{missing}");
}

#[tokio::test]
async fn two_servers_are_deployed_one_after_the_other() {
    let (a, b) = (Server::start("a").await, Server::start("b").await);
    let all = crowd(&[&a, &b], "", async |_, sent| {
        for _ in 0..5 {
            for server in [&a, &b] {
                server.stop(Fate::Closes(1001));
                go_on(sent, 200).await;
                server.serve();
                go_on(sent, 100).await;
            }
        }
    })
    .await;
    for (tally, heard) in all {
        assert_eq!(tally.ended, Some(1000));
        assert_eq!(heard, Vec::from_iter(0..tally.sent), "each message has arrived exactly once");
        assert!(tally.echoes.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", tally.echoes);
    }
}
