//! Each way in which a session can end: there is one line of it in the log, which says who ended it and how.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::process::Command;

use serde_json::Value;
use support::backend::Backend;
use support::gateway::{Gateway, Setup, config};
use support::http2::Http2;
use support::tls::Tls;
use support::ws::{CLOSE, PONG, TEXT, WebSocket, encode};
use support::{full_size, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

const BINARY: &str = env!("CARGO_BIN_EXE_wssgate");

/// Both ends of a session, in the hands of the test.
struct Ends {
    client: WebSocket,
    server: WebSocket,
}

/// How the client comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    Http1,
    /// The same without TLS, over a connection that is reset when it is dropped.
    Resetting,
    Http2,
}

/// A backend that hands each session to the test. Its connections are reset when they are dropped, if it `resets`.
async fn backend(resets: bool) -> (Backend, mpsc::UnboundedReceiver<WebSocket>) {
    let (tell, told) = mpsc::unbounded_channel();
    let backend = Backend::start(move |tcp| {
        let tell = tell.clone();
        async move {
            if resets {
                tcp.set_zero_linger().unwrap();
            }
            drop(tell.send(WebSocket::serve(tcp, "").await.0));
        }
    })
    .await;
    (backend, told)
}

struct Scene {
    gateway: Gateway,
    plain: (Backend, mpsc::UnboundedReceiver<WebSocket>),
    resetting: (Backend, mpsc::UnboundedReceiver<WebSocket>),
}

/// Each ending has a path of its own; below `/resets/` is the backend that resets its connections, and the options of a
/// route are those of the first part of its path.
async fn scene(top: &str) -> Scene {
    scene_of(Setup::new(BINARY), top).await
}

async fn scene_of(setup: Setup, top: &str) -> Scene {
    let (plain, resetting) = (backend(false).await, backend(true).await);
    let mut routes = String::new();
    for (path, address, options) in [
        ("/", plain.0.address, ""),
        ("/resets", resetting.0.address, ""),
        ("/pinged", plain.0.address, "ping_interval = \"100ms\"\npong_timeout = \"200ms\""),
        ("/measured", plain.0.address, "ping_interval = \"100ms\"\npong_timeout = \"30s\""),
        ("/idle", plain.0.address, "idle_timeout = \"200ms\""),
        ("/aged", plain.0.address, "lifetime = \"300ms\""),
        ("/small", plain.0.address, "max_message = \"1KiB\""),
        ("/counted", plain.0.address, "messages = \"1/h\"\non_limit = \"close\""),
    ] {
        routes += &format!("[[route]]\npath = \"{path}\"\nproxy = \"http://{address}\"\n");
        routes += &format!("[route.websocket]\n{options}\n");
    }
    let gateway = setup.with_certificate(&["default.test"]).start(&config(top, &routes));
    Scene { gateway, plain, resetting }
}

impl Scene {
    async fn open(&mut self, path: &str, over: Over) -> Ends {
        let address = self.gateway.address();
        let client = match over {
            Over::Http1 => {
                let io = Tls::new("default.test", &["http/1.1"]).connect(address).await.unwrap();
                WebSocket::connect(io, "default.test", path, "").await.unwrap().0
            }
            Over::Resetting => {
                let io = TcpStream::connect(self.gateway.addresses()[1]).await.unwrap();
                io.set_zero_linger().unwrap();
                WebSocket::connect(io, "default.test", path, "").await.unwrap().0
            }
            Over::Http2 => {
                let io = Tls::new("default.test", &["h2"]).connect(address).await.unwrap();
                let mut client = Http2::connect(io, "default.test").await;
                let (socket, _) = client.websocket(path, &[]).await.unwrap();
                tokio::spawn(client.task); // the connection lives as long as the stream
                socket
            }
        };
        let told = if path.starts_with("/resets/") { &mut self.resetting.1 } else { &mut self.plain.1 };
        Ends { client, server: soon(told.recv()).await.unwrap() }
    }
}

/// Until the peer's stream ends, in whatever way.
async fn until_end(socket: &mut WebSocket) {
    let mut bytes = Vec::new();
    let _ = soon(socket.io.read_to_end(&mut bytes)).await;
}

/// Ends a session in the way that its path names.
async fn end(way: &str, Ends { mut client, mut server }: Ends) {
    match way {
        "/client/fin" => {
            client.io.shutdown().await.unwrap();
            until_end(&mut server).await;
        }
        "/client/cut" => {
            client.send_raw(&encode(TEXT, b"the front", true)[..9]).await;
            drop(client);
            until_end(&mut server).await;
        }
        "/client/reset" => {
            drop(client);
            until_end(&mut server).await;
        }
        "/client/bare" => {
            client.send(CLOSE, []).await;
            assert_eq!(server.receive().await.unwrap().b0, CLOSE);
            server.send(CLOSE, []).await;
            drop(server); // a server ends TCP first (RFC 6455 §7.1.1)
            until_end(&mut client).await;
        }
        "/client/reason" => {
            let close = [&4000_u16.to_be_bytes()[..], "\"\u{1b}[2J\nfin\"".as_bytes()].concat();
            client.send(CLOSE, &close).await;
            assert_eq!(server.receive().await.unwrap().payload, close);
            server.send(CLOSE, &close).await;
            drop(server);
            until_end(&mut client).await;
        }
        "/server/fin" | "/resets/reset" => {
            if way == "/server/fin" {
                server.io.shutdown().await.unwrap();
            }
            drop(server);
            answer_close(&mut client).await;
        }
        "/server/1011" => {
            server.close(1011).await;
            client.expect_close(1011).await;
            client.close(1011).await;
            server.expect_close(1011).await;
            drop(server);
            until_end(&mut client).await;
        }
        "/server/violation" => {
            server.send_raw(&encode(TEXT, b"masked", true)).await;
            until_end_of_both(client, server).await;
        }
        "/client/violation" => {
            client.send_raw(&encode(TEXT, b"not masked", false)).await;
            server.expect_close(1002).await;
            server.close(1002).await;
            until_end(&mut client).await;
        }
        "/small/long" => {
            client.send(TEXT, [b'x'; 1025]).await;
            server.expect_close(1009).await;
            server.close(1009).await;
            until_end(&mut client).await;
        }
        "/counted/limit" => {
            client.text("one").await;
            client.text("one too many").await;
            server.expect_text("one").await;
            until_end_of_both(client, server).await;
        }
        "/idle/idle" | "/aged/lifetime" => until_end_of_both(client, server).await,
        "/pinged/gone" => until_end(&mut server).await, // the client says nothing, but is there
        "/client/stalls" => {
            let flood = encode(2, &vec![0; 1 << 20], false);
            while soon(server.io.write_all(&flood)).await.is_ok() {}
        }
        code => {
            let code = code.rsplit('/').next().unwrap().parse().unwrap();
            let (mut closes, mut answers) = (client, server);
            if way.starts_with("/server/") {
                std::mem::swap(&mut closes, &mut answers);
            }
            closes.close(code).await;
            answers.expect_close(code).await;
            answers.close(code).await;
            closes.expect_close(code).await;
            let (mut client, server) = if closes.client { (closes, answers) } else { (answers, closes) };
            drop(server);
            until_end(&mut client).await;
        }
    }
}

/// Answers the Close that comes, and is there until the stream ends.
async fn answer_close(socket: &mut WebSocket) {
    while let Some(frame) = socket.receive().await {
        if frame.b0 == CLOSE {
            let _ = socket.io.write_all(&encode(CLOSE, &frame.payload, socket.client)).await;
            let _ = socket.io.flush().await;
            break;
        }
    }
    until_end(socket).await;
}

async fn until_end_of_both(mut one: WebSocket, mut other: WebSocket) {
    tokio::join!(answer_close(&mut one), answer_close(&mut other));
}

/// The line of the session with this path, when there is one.
fn line(gateway: &Gateway, path: &str) -> Value {
    gateway.wait_for(|line| line["message"] == "session" && line["path"] == path, 0, path)
}

fn count(gateway: &Gateway, path: &str) -> usize {
    gateway.lines("session").iter().filter(|line| line["path"] == path).count()
}

#[track_caller]
fn check(line: &Value, ended_by: &str, code: u16, cause: &str) {
    assert_eq!((&line["ended_by"], &line["close_code"]), (&ended_by.into(), &code.into()), "{line}");
    assert!(line["cause"].as_str().unwrap().contains(cause), "{line}");
}

#[tokio::test]
async fn each_way_of_the_peers_and_of_the_route_leaves_one_line() {
    let mut scene = scene("drain_window = \"200ms\"\n").await; // connections of HTTP/2 stay until then
    let mut ways = vec![
        ("/client/fin", "client", 1006, "client ended without a Close"),
        ("/client/cut", "client", 1006, "client"),
        ("/client/reset", "client", 1006, "client reset the connection"),
        ("/client/bare", "client", 1005, "closed by client (no code)"),
        ("/client/reason", "client", 4000, "closed by client (4000"),
        ("/client/close/1000", "client", 1000, "closed by client (1000"),
        ("/client/close/1001", "client", 1001, "closed by client (1001"),
        ("/client/close/1003", "client", 1003, "closed by client (1003"),
        ("/client/close/3000", "client", 3000, "closed by client (3000"),
        ("/client/close/4999", "client", 4999, "closed by client (4999"),
        ("/client/violation", "client", 1002, "not masked"),
        ("/small/long", "client", 1009, "1024"),
        ("/counted/limit", "gateway", 1008, "client sent more than messages or bytes"),
        ("/idle/idle", "gateway", 1001, "idle: no message within idle_timeout"),
        ("/aged/lifetime", "gateway", 1001, "the session has reached its lifetime"),
        ("/pinged/gone", "client", 1006, "client answered no ping within pong_timeout"),
        ("/server/fin", "backend", 1011, "backend ended without a Close"),
        ("/resets/reset", "backend", 1011, "backend reset the connection"),
        ("/server/close/1000", "backend", 1000, "closed by backend (1000"),
        ("/server/close/1012", "backend", 1012, "closed by backend (1012"),
        ("/server/1011", "backend", 1011, "closed by backend (1011"),
        ("/server/violation", "backend", 1002, "backend broke a rule"),
    ];
    if full_size() {
        ways.push((
            "/client/stalls",
            "client",
            1006,
            "client took nothing of what waits for it for a minute",
        ));
    }
    let mut paths = Vec::new();
    for (way, ended_by, code, cause) in ways {
        for over in [Over::Http1, Over::Http2] {
            let path = format!("{way}?{over:?}"); // the line has it without the query
            let over = if way == "/client/reset" && over == Over::Http1 { Over::Resetting } else { over };
            let ends = scene.open(&path, over).await;
            end(way, ends).await;
            let nth = usize::from(over == Over::Http2);
            let is_its = |line: &Value| line["message"] == "session" && line["path"] == way;
            let line = scene.gateway.wait_for(is_its, nth, way);
            check(&line, ended_by, code, cause);
            if way == "/client/reason" {
                assert_eq!(line["close_reason"], "\"\u{1b}[2J\nfin\"", "{line}");
            }
            if over != Over::Resetting {
                assert_eq!(line["tls_suite"].as_str().map(|suite| &suite[..4]), Some("TLS_"), "{line}");
                assert_eq!(line["alpn"], if over == Over::Http2 { "h2" } else { "http/1.1" }, "{line}");
            }
            assert!(line["connect_ms"].is_number() && line["answer_ms"].is_number(), "{line}");
        }
        paths.push(way);
    }
    // What is written late would be there when all is over.
    scene.gateway.signal("TERM");
    scene.gateway.ends_well();
    for path in paths {
        assert_eq!(count(&scene.gateway, path), 2, "{path}");
    }
}

/// Runs the program against the gateway's control socket.
async fn command(gateway: &Gateway, arguments: &[&str]) {
    let mut command = Command::new(BINARY);
    command.args(arguments).arg("--config").arg(gateway.path().join("wssgate.toml"));
    command.env_remove("RUNTIME_DIRECTORY");
    let output = soon(tokio::task::spawn_blocking(move || command.output().unwrap())).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn each_way_of_the_operator_leaves_one_line() {
    const TOP: &str = "drain_window = \"200ms\"\n[control]\nsocket = \"./control.sock\"\n";
    for over in [Over::Http1, Over::Http2] {
        // Who is closed by its address is not meant to come back.
        for (way, code) in [("/closed", 3000), ("/drained", 1001), ("/reloaded", 1001), ("/stopped", 1001)] {
            let mut scene = scene(TOP).await;
            let Ends { client, server } = scene.open(way, over).await;
            match way {
                "/closed" => command(&scene.gateway, &["close", "--client", "127.0.0.1"]).await,
                "/drained" => command(&scene.gateway, &["drain", "/"]).await,
                "/reloaded" => {
                    scene
                        .gateway
                        .write_config(&config(TOP, "[[route]]\npath = \"/other\"\nservice = \"echo\"\n"));
                    scene.gateway.reload();
                }
                _ => scene.gateway.signal("TERM"),
            }
            until_end_of_both(client, server).await;
            check(&line(&scene.gateway, way), "gateway", code, "ended by the gateway");
            if way != "/stopped" {
                scene.gateway.signal("TERM");
            }
            scene.gateway.ends_well();
            assert_eq!(count(&scene.gateway, way), 1, "{way} {over:?}");
        }
    }
}

/// Neither peer answers, and the gateway is told again.
#[tokio::test]
async fn a_second_signal_leaves_one_line() {
    for over in [Over::Http1, Over::Http2] {
        let mut scene = scene("drain_window = \"1h\"\n").await;
        let ends = scene.open("/cut", over).await;
        scene.gateway.signal("TERM");
        scene.gateway.wait_for(
            |line| line["message"].as_str().is_some_and(|text| text.starts_with("draining")),
            0,
            "draining",
        );
        scene.gateway.signal("TERM");
        scene.gateway.wait_end();
        let line = line(&scene.gateway, "/cut");
        check(&line, "gateway", 1006, "cut: the gateway has ended");
        assert_eq!(count(&scene.gateway, "/cut"), 1, "{over:?}");
        drop(ends);
    }
}

/// A worker's clock fails, which the standard library takes for impossible: its thread panics, with all its sessions.
#[tokio::test]
async fn a_workers_panic_leaves_one_line_a_session() {
    let setup = Setup::new(BINARY);
    let [library, fails] = ["broken_clock.so", "the_clock_fails"].map(|name| setup.path().join(name));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/support/broken_clock.c");
    let made =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).status().unwrap();
    assert!(made.success());
    let setup = setup.with("LD_PRELOAD", &library).with("CLOCK_FAILS", &fails);
    let mut scene = scene_of(setup, "workers = 1\n").await;
    let sessions = [Over::Http1, Over::Http2].map(|over| (format!("/panic/{over:?}"), over));
    let mut ends = Vec::new();
    for (path, over) in &sessions {
        ends.push(scene.open(path, *over).await);
    }
    std::fs::write(&fails, "").unwrap(); // the worker wakes at least once a second
    let status = scene.gateway.wait_end();
    assert_eq!(status.code(), Some(1));
    assert!(!fails.exists());
    for (path, _) in &sessions {
        let line = line(&scene.gateway, path);
        check(&line, "gateway", 1006, "cut: a task of the gateway panicked, which is a bug");
        assert_eq!(count(&scene.gateway, path), 1, "{path}");
    }
    scene.gateway.wait("a task panicked; this is a bug");
    drop(ends);
}

/// The process that ends it writes its line, with what the one before has counted and measured.
#[tokio::test]
async fn a_session_that_has_moved_leaves_one_line() {
    let mut scene = scene("").await;
    let Ends { mut client, mut server } = scene.open("/measured/moves", Over::Http1).await;
    client.text("a long one").await;
    server.expect_text("a long one").await;
    let ping = client.receive().await.unwrap();
    client.send(PONG, ping.payload).await;
    let pid = scene.gateway.take_over();
    client.text("short").await;
    server.expect_text("short").await;
    client.close(1000).await;
    until_end_of_both(client, server).await;
    let line = line(&scene.gateway, "/measured/moves");
    check(&line, "client", 1000, "closed by client (1000");
    assert_eq!((&line["received_messages"], &line["received_largest"]), (&2.into(), &10.into()), "{line}");
    for name in ["connect_ms", "answer_ms", "ping_ms", "ping_min_ms", "ping_max_ms"] {
        assert!(line[name].as_f64().is_some_and(|time| time > 0.0), "{name}: {line}");
    }
    assert_eq!(line["tls_resumed"], false, "{line}");
    support::gateway::send_signal(pid, "TERM");
    scene.gateway.wait_end();
    assert_eq!(count(&scene.gateway, "/measured/moves"), 1);
}
