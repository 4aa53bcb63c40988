//! Sessions that outlive their servers: `session_lost = "redial"`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use support::backend::{Backend, echo};
use support::gateway::{Gateway, Setup, config};
use support::http1::{Head, ask, read_head};
use support::ws::{PING, PONG, TEXT, WebSocket, encode};
use support::{soon, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use conversation::{Fate, switching};
use server::{Answer, Server};

#[path = "redial/conversation.rs"]
mod conversation;
#[path = "redial/http2.rs"]
mod http2;
#[path = "redial/judged.rs"]
mod judged;
#[path = "redial/moving.rs"]
mod moving;
#[path = "redial/server.rs"]
mod server;
#[path = "redial/slow.rs"]
mod slow;

fn setup() -> Setup {
    Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"])
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

/// Waits until the server has been asked so often.
#[track_caller]
fn asked(server: &Server, count: usize) -> impl Future<Output = ()> {
    until(async move || server.seen.count() >= count)
}

#[tokio::test]
async fn the_client_goes_on_at_another_server() {
    for fate in [Fate::Closes(1001), Fate::Closes(1011), Fate::Closes(1012), Fate::Closes(1013), Fate::Dies] {
        let (a, b) = (Server::start("a").await, Server::start("b").await);
        let gateway = start(&[a.address(), b.address()], "balance = \"round-robin\"");
        let mut socket = open_with(&gateway, "Cookie: c=1\r\nX-Own: 2\r\n").await.0;
        let (first, second) = if a.seen.count() == 1 { (&a, &b) } else { (&b, &a) };
        socket.text("one").await;
        socket.receive().await.unwrap();
        assert_eq!(session(&gateway).await["redials"], 0);
        first.stop(fate);
        asked(second, 1).await;
        socket.text("two").await;
        let echo = socket.receive().await.unwrap();
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
        assert_eq!(gateway.metric("wssgate_backend_redials_total").await, 1);
        socket.close(1000).await;
        socket.expect_close(1000).await;
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
    socket.expect_text("a one").await;
    server.stop(Fate::Dies);
    asked(&server, 2).await;
    socket.text("two").await;
    socket.send(PING, "there?").await;
    let pong = socket.receive().await.unwrap();
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
    socket.expect_text("a two").await;
    for text in &texts {
        socket.expect_text(&format!("a {text}")).await;
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
        socket.expect_text("a one").await;
        let message = encode(TEXT, b"in two parts", true);
        socket.send_raw(&message[..9]).await;
        until(async || server.begun() == 2).await;
        server.restart(Fate::Dies);
        if repeat {
            asked(&server, 2).await;
            socket.send_raw(&message[9..]).await;
            socket.expect_text("a in two parts").await;
            assert_eq!(server.seen.last().get("wssgate-messages"), Some("1"));
        } else {
            socket.expect_close(1011).await;
            socket.close(1011).await;
            drop(socket);
            let line = gateway.wait("session");
            assert_eq!((&line["close_code"], &line["redials"]), (&json!(1011), &json!(0)));
            assert_eq!(line["ended_by"], "gateway");
            let cause = line["cause"].as_str().unwrap();
            assert!(cause.contains("in the middle of a message"), "{cause}");
            assert_eq!(gateway.metric(CUT).await, 1);
        }
    }
}

const CUT: &str = "wssgate_upstream_redials_failed_total{upstream=\"pool\",reason=\"cut\"}";

#[tokio::test]
async fn a_message_of_which_the_client_has_a_part_ends_the_session() {
    for (part, code) in
        [(encode(0x01, b"first", false), Some(1011)), (encode(TEXT, b"first", false)[..4].to_vec(), None)]
    {
        let backend = Backend::start(move |mut tcp| {
            let part = part.clone();
            async move {
                let Some(head) = read_head(&mut tcp).await else { return };
                let wire = [switching(&head, "").as_bytes(), &part].concat();
                let _ = tcp.write_all(&wire).await;
                let _ = tcp.read_u8().await; // the client has the part
            }
        })
        .await;
        let gateway = start(&[backend.address], "");
        let mut socket = open(&gateway).await;
        soon(socket.io.read_exact(&mut [0; 4])).await.unwrap();
        socket.text("go").await;
        if let Some(code) = code {
            soon(socket.io.read_exact(&mut [0; 3])).await.unwrap();
            socket.expect_close(code).await;
            socket.close(code).await;
        } else {
            assert!(soon(socket.io.read_u8()).await.is_err(), "nothing can come in the middle of a frame");
        }
        drop(socket);
        let line = gateway.wait("session");
        assert_eq!((&line["close_code"], &line["redials"]), (&json!(1011), &json!(0)), "{line}");
        assert_eq!(line["ended_by"], if code.is_some() { "gateway" } else { "backend" });
        assert_eq!(gateway.metric(CUT).await, 1);
    }
}

#[tokio::test]
async fn a_new_server_is_met_by_one_session_after_the_other() {
    let server = Server::start("a").await;
    let gateway = start(&[server.address()], "redial_rate = \"20/s\"\nredial_interval = \"100ms\"");
    let mut sockets = Vec::new();
    for _ in 0..30 {
        sockets.push(open(&gateway).await);
    }
    let begun = Instant::now();
    server.restart(Fate::Closes(1012));
    asked(&server, 60).await;
    assert!(begun.elapsed() >= Duration::from_millis(29 * 50), "{:?}", begun.elapsed());
    for socket in &mut sockets {
        socket.echoes_as("a", "hello").await;
    }
}

#[tokio::test]
async fn a_server_that_closes_in_order_gets_the_message_under_way() {
    let server = Server::start("a").await;
    let gateway = start(&[server.address()], "");
    let mut socket = open(&gateway).await;
    socket.send(0x01, "in two ").await;
    until(async || server.begun() == 1).await;
    server.restart(Fate::Closes(1012));
    sleep(Duration::from_millis(100)).await;
    assert_eq!(server.seen.count(), 1, "it still has its session");
    socket.send(0x80, "parts").await;
    asked(&server, 2).await;
    socket.text("next").await;
    socket.expect_text("a next").await;
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
        socket.expect_close(code).await;
        socket.close(code).await;
        drop(socket);
        let line = gateway.wait("session");
        assert_eq!((&line["close_code"], &line["ended_by"]), (&json!(code), &json!("gateway")));
        let name = "wssgate_upstream_redials_failed_total{upstream=\"pool\",reason=\"refused\"}";
        assert_eq!(gateway.metric(name).await, 1);
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
            socket.expect_close(1012).await;
        }
    }
}

trait EchoesAs {
    async fn echoes_as(&mut self, name: &str, text: &str);
}

impl EchoesAs for WebSocket {
    async fn echoes_as(&mut self, name: &str, text: &str) {
        self.text(text).await;
        self.expect_text(&format!("{name} {text}")).await;
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
        socket.expect_close(code).await;
        socket.close(code).await;
        soon(socket.expect_end()).await;
    }
    // The first one is as those of other upstreams.
    let name = "wssgate_upstream_redials_failed_total{upstream=\"pool\",reason=\"unable\"}";
    assert_eq!(gateway.metric(name).await, 1);
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
    socket.receive().await.unwrap();
    order(&gateway, json!({ "command": "drain", "target": first.address().to_string() })).await;
    asked(second, 1).await;
    socket.text("two").await;
    assert!(socket.receive().await.unwrap().payload.ends_with(b" two"));
    assert_eq!(second.heard(), ["two"]);
    // And back, although the one has been left before.
    order(&gateway, json!({ "command": "undrain", "target": first.address().to_string() })).await;
    order(&gateway, json!({ "command": "drain", "target": second.address().to_string() })).await;
    asked(first, 2).await;
    socket.text("three").await;
    assert!(socket.receive().await.unwrap().payload.ends_with(b" three"));
    assert_eq!(first.seen.last().get("wssgate-resume"), Some("2"));
    assert_eq!(first.seen.last().get("wssgate-messages"), Some("2"));
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_wssgate"));
    let table =
        command.arg("sessions").arg("--config").arg(gateway.path().join("wssgate.toml")).output().unwrap();
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("open (redials: 2)"), "{table}");
}

#[tokio::test]
async fn the_search_has_an_end() {
    let server = Server::start("a").await;
    let gateway = start(&[server.address()], "redial_timeout = \"700ms\"\nredial_interval = \"150ms\"");
    let mut socket = open(&gateway).await;
    let begun = Instant::now();
    server.stop(Fate::Closes(1013));
    asked(&server, 2).await;
    socket.text("unheard").await;
    socket.expect_close(1013).await;
    assert!((600..5000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    let attempts = server.seen.count();
    assert!((4..12).contains(&attempts), "{attempts}");
    socket.close(1013).await;
    drop(socket);
    let line = gateway.wait("session");
    assert_eq!((&line["close_code"], &line["redials"]), (&json!(1013), &json!(0)));
    gateway.wait("a session ends: it has lost its backend");
    assert_eq!(
        gateway.wait("what a client sent has found no backend")["bytes"],
        encode(TEXT, b"unheard", true).len()
    );
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
