//! SIGUSR2: another process takes over.
//!
//! `WSSGATE_TEST_SIZE=full cargo test --release -p wssgate --test takeover -- --nocapture` runs the load at its
//! full size: 2,000 new connections a second.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustls::CipherSuite;
use serde_json::Value;
use support::backend::{Backend, echo};
use support::gateway::{Gateway, MOVED, RETIRED, Setup, config, route, send_signal};
use support::http1::{ask, read_answer};
use support::http2::Http2;
use support::tls::{Rekeying, TLS12, TLS13, Tls};
use support::ws::{self, WebSocket};
use support::{BoxIo, PATIENCE, full_size, soon, until};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const BINARY: &str = env!("CARGO_BIN_EXE_wssgate");
const ECHO: &str = "[[route]]\npath = \"/\"\nservice = \"echo\"\n";
/// Sessions stay in the process that has them.
const KEEP: &str = "takeover_sessions = \"keep\"\n";
const HANDED_OVER: &str =
    "handed over: this process accepts no new connections and ends with its last session";
const FAILED: &str = "takeover failed: this process continues to serve, and nothing has changed";

fn setup() -> Setup {
    Setup::new(BINARY).with_certificate(&["default.test"])
}

async fn over_http1(gateway: &Gateway) -> WebSocket {
    let io = Tls::new("default.test", &["http/1.1"]).connect(gateway.address()).await.unwrap();
    WebSocket::connect(io, "default.test", "/", "").await.unwrap().0
}

async fn status(address: SocketAddr) -> u16 {
    let mut io = TcpStream::connect(address).await.unwrap();
    ask(&mut io, "GET / HTTP/1.1\r\nHost: default.test\r\n\r\n").await.status()
}

fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

#[tokio::test]
async fn live_sessions_stay_and_new_ones_go_to_the_new_process() {
    let (backend, _seen) = echo().await;
    let gateway =
        setup().start(&config(&format!("{KEEP}drain_window = \"1ms\""), &route("/", backend.address)));
    let mut live = over_http1(&gateway).await;
    let mut client = {
        let io = Tls::new("default.test", &["h2"]).connect(gateway.address()).await.unwrap();
        Http2::connect(io, "default.test").await
    };
    let (mut tunnel, _) = client.websocket("/", &[]).await.unwrap();
    tunnel.echoes("before").await;
    // A request that was begun with the old process is answered by it.
    let mut begun = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
    begun.write_all(b"GET / HTTP/1.1\r\nHost: default.test\r\n").await.unwrap();
    let old = gateway.pid();
    let new = gateway.take_over();
    let handed = gateway.wait(HANDED_OVER);
    assert_eq!((&handed["pid"], &handed["successor"]), (&old.into(), &new.into()));
    let taken = gateway.wait("taken over");
    assert_eq!((&taken["predecessor"], &taken["sockets"]), (&old.into(), &handed["sockets"]));
    assert!(taken["took_ms"].is_u64() && handed["took_ms"].is_u64());
    // Not a child of the old process.
    let parent = fs::read_to_string(format!("/proc/{new}/status")).unwrap();
    assert!(!parent.contains(&format!("PPid:\t{old}\n")), "{parent}");
    begun.write_all(b"\r\n").await.unwrap();
    let answer = read_answer(&mut begun, false).await.unwrap();
    assert_eq!((answer.status(), answer.head.get("connection")), (200, Some("close")));
    live.echoes("still here").await;
    tunnel.echoes("still here").await;
    let mut fresh = over_http1(&gateway).await;
    fresh.echoes("new").await;
    // The old process takes no orders but to end.
    gateway.signal("HUP");
    gateway.signal("USR2");
    gateway.wait_for(|line| message(line).starts_with("SIGHUP refused"), 0, "a refused SIGHUP");
    gateway.wait_for(|line| message(line).starts_with("SIGUSR2 refused"), 0, "a refused SIGUSR2");
    live.echoes("yet").await;
    assert!(is_running(old));
    live.close(1000).await;
    live.expect_close(1000).await;
    tunnel.close(1000).await;
    tunnel.expect_close(1000).await;
    drop((live, tunnel, client));
    gateway.wait(RETIRED);
    fresh.echoes("alone").await;
    send_signal(new, "TERM");
    fresh.expect_close(1001).await;
    fresh.close(1001).await;
    let mut gateway = gateway;
    gateway.ends_well(); // the old process, too
    let sessions = gateway.lines("session");
    assert_eq!(sessions.len(), 3);
    assert_eq!(sessions.iter().filter(|line| line["ended_by"] == "client").count(), 2);
}

fn message(line: &Value) -> &str {
    line["message"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_retired_process_drains_at_takeover_timeout_and_at_sigterm() {
    for by_signal in [false, true] {
        let (backend, _seen) = echo().await;
        let timeout = if by_signal { "1h" } else { "5s" };
        let top = format!("{KEEP}takeover_timeout = \"{timeout}\"\ndrain_window = \"1ms\"");
        let gateway = setup().start(&config(&top, &route("/", backend.address)));
        let mut live = over_http1(&gateway).await;
        live.echoes("x").await;
        let new = gateway.take_over();
        gateway.wait(HANDED_OVER);
        if by_signal {
            gateway.signal("TERM");
        }
        live.expect_close(1001).await;
        live.close(1001).await;
        live.expect_end().await;
        gateway.wait("drained: the last connection has ended");
        assert!(is_running(new));
        assert_eq!(status(gateway.addresses()[1]).await, 200);
        gateway.ends_with_its_last_process();
    }
}

#[tokio::test]
async fn sessions_move_to_the_new_process() {
    let (backend, seen) = echo().await;
    let gateway = setup().start(&config("", &route("/", backend.address)));
    let plain: BoxIo = Box::new(TcpStream::connect(gateway.addresses()[1]).await.unwrap());
    let mut live = vec![WebSocket::connect(plain, "default.test", "/plain", "").await.unwrap().0];
    for versions in [TLS12, TLS13] {
        let tls = Tls::with(versions, Some("default.test"), &["http/1.1"], &[]);
        let io: BoxIo = Box::new(tls.connect(gateway.address()).await.unwrap());
        live.push(WebSocket::connect(io, "default.test", "/tls", "").await.unwrap().0);
    }
    for socket in &mut live {
        socket.echoes("before").await;
    }
    let old = gateway.pid();
    for round in 0..3 {
        let last = gateway.take_over();
        let moved = gateway.wait_nth(MOVED, round);
        assert_eq!((&moved["sessions_moved"], &moved["sessions_left"]), (&3.into(), &0.into()));
        let taken = gateway.wait_nth("sessions taken over", round);
        assert_eq!(taken["sessions"], 3);
        gateway.wait_nth(RETIRED, round);
        assert!(is_running(last));
        for socket in &mut live {
            socket.echoes("after").await;
        }
    }
    until(async || !is_running(old)).await;
    for socket in &mut live {
        socket.close(1000).await;
        socket.expect_close(1000).await;
        socket.expect_end().await;
    }
    assert_eq!(seen.count(), 3, "the connections to the server are the same");
    let mut lines: Vec<_> = (0..3).map(|n| gateway.wait_nth("session", n)).collect();
    lines.sort_by_key(|line| line["tls"].to_string());
    for (line, (path, tls)) in
        lines.iter().zip([("/tls", "TLSv1.2".into()), ("/tls", "TLSv1.3".into()), ("/plain", Value::Null)])
    {
        assert_eq!((&line["path"], line.get("tls").unwrap_or(&Value::Null)), (&path.into(), &tls), "{line}");
        assert_eq!((&line["received_messages"], &line["sent_messages"]), (&4.into(), &4.into()));
        assert_eq!(
            (&line["ended_by"], &line["close_code"], &line["status"]),
            (&"client".into(), &1000.into(), &101.into())
        );
    }
    assert_eq!(gateway.lines("session").len(), 3);
    gateway.ends_with_its_last_process();
}

/// A socket of one of nine kinds: plain text, and TLS with each suite, and with changes of keys.
async fn socket_of_kind(kind: usize, gateway: &Gateway) -> WebSocket {
    let suites = [
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        CipherSuite::TLS13_AES_128_GCM_SHA256,
        CipherSuite::TLS13_AES_256_GCM_SHA384,
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    let tls = Tls::new("default.test", &["http/1.1"]);
    let io: BoxIo = match kind % 9 {
        0 => Box::new(TcpStream::connect(gateway.addresses()[1]).await.unwrap()),
        n @ 1..=6 => Box::new(tls.with_suite(suites[n - 1]).connect(gateway.address()).await.unwrap()),
        n => {
            let tls = tls.with_suite(suites[n - 4]);
            Box::new(Rekeying::new(tls.connect(gateway.address()).await.unwrap(), 4))
        }
    };
    WebSocket::connect(io, "default.test", "/", "").await.unwrap().0
}

/// The message of this number on this socket.
fn numbered(socket: usize, number: usize, len: usize) -> Vec<u8> {
    let mut message = format!("{socket} {number} ").into_bytes();
    let pattern = (socket * 31 + number * 97) as u64 | 1;
    // By words: a long message would keep the thread of all clients busy for long.
    for i in 1..=len.div_ceil(8) as u64 {
        message.extend_from_slice(&i.wrapping_mul(pattern).to_le_bytes());
    }
    message.truncate(len);
    message
}

/// Sends numbered messages, some of them at once, and compares what comes back, until it is to stop. Returns how many.
async fn converse(index: usize, mut socket: WebSocket, stop: Arc<AtomicBool>, count: Arc<AtomicU64>) -> u64 {
    let (len, at_once) = match index {
        0 => (10 << 20, 1),
        n if n % 10 == 3 => (16 << 10, 8),
        _ => (1 << 10, 2),
    };
    let mut number = 0;
    while !stop.load(Ordering::SeqCst) {
        for n in number..number + at_once {
            socket.send(ws::BINARY, numbered(index, n, len)).await;
        }
        if index % 10 == 3 {
            tokio::time::sleep(Duration::from_millis(100)).await; // a slow reader
        }
        for n in number..number + at_once {
            let frame = loop {
                let frame = socket.receive().await.unwrap_or_else(|| panic!("socket {index} ended at {n}"));
                match frame.b0 {
                    ws::PING => socket.send(ws::PONG, frame.payload).await,
                    _ => break frame,
                }
            };
            assert!(frame.payload == numbered(index, n, len), "socket {index}, message {n}, {:#x}", frame.b0);
        }
        number += at_once;
        count.fetch_add(at_once as u64, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    socket.close(1000).await;
    while socket.receive().await.expect("a Close").b0 == ws::PING {} // of before
    number as u64
}

#[tokio::test]
async fn twenty_takeovers_lose_and_reorder_nothing() {
    let (sockets, takeovers) = if full_size() { (500, 20) } else { (100, 20) };
    let (backend, _seen) = echo().await;
    // All clients are one thread of a machine that may be busy: a pong may take as long as any step here.
    let pings = "[route.websocket]\nping_interval = \"1s\"\npong_timeout = \"20s\"\n";
    let routes = route("/", backend.address) + pings;
    let gateway = Arc::new(setup().start(&config("workers = 2", &routes)));
    let (stop, count) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let mut conversations = JoinSet::new();
    for index in 0..sockets {
        let socket = socket_of_kind(index, &gateway).await;
        conversations.spawn(converse(index, socket, stop.clone(), count.clone()));
    }
    for round in 0..takeovers {
        let before = count.load(Ordering::SeqCst);
        let taken_over = gateway.clone();
        let moved = tokio::task::spawn_blocking(move || {
            taken_over.take_over();
            taken_over.wait_nth(RETIRED, round);
            taken_over.wait_nth(MOVED, round)
        });
        let moved = moved.await.unwrap();
        assert_eq!(
            (&moved["sessions_moved"], &moved["sessions_left"]),
            (&sockets.into(), &0.into()),
            "{moved}"
        );
        soon(async {
            while count.load(Ordering::SeqCst) < before + sockets as u64 {
                tokio::time::sleep(Duration::from_millis(1)).await;
                assert!(conversations.try_join_next().is_none(), "a socket has ended");
            }
        })
        .await;
    }
    stop.store(true, Ordering::SeqCst);
    let mut messages = 0;
    while let Some(conversation) = soon(conversations.join_next()).await {
        messages += conversation.unwrap();
    }
    let lines: Vec<_> = (0..sockets).map(|n| gateway.wait_nth("session", n)).collect();
    let sum = |key: &str| lines.iter().map(|line| line[key].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("received_messages"), sum("sent_messages")), (messages, messages));
    assert_eq!(gateway.lines("session").len(), sockets, "each has one line");
    let frozen = |key: &str| {
        let lines = gateway.lines("sessions taken over");
        lines.iter().map(|line| line[key].as_f64().unwrap()).fold(0.0, f64::max)
    };
    println!(
        "{takeovers} takeovers with {sockets} sockets, {messages} messages; frozen at most {:.1} ms, 99 %: {:.1} ms",
        frozen("frozen_max_ms"),
        frozen("frozen_p99_ms"),
    );
    Arc::into_inner(gateway).unwrap().ends_with_its_last_process();
}

/// A backend that sends so many bytes at once when it is asked to, and what it sends.
async fn flood(len: usize) -> Backend {
    Backend::start(move |tcp| async move {
        let (mut socket, _) = WebSocket::serve(tcp, "").await;
        while let Some(frame) = socket.receive().await {
            let answer = if frame.payload == b"flood" { numbered(7, 7, len) } else { frame.payload };
            if frame.b0 == ws::CLOSE
                || socket.io.write_all(&ws::encode(frame.b0, &answer, false)).await.is_err()
            {
                break;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_session_in_the_middle_of_everything_moves_as_it_is() {
    const LEN: usize = 8 << 20;
    let backend = flood(LEN).await;
    let top = "handover_wait = \"50ms\"\nworkers = 2";
    let gateway = setup().start(&config(top, &route("/", backend.address)));
    let mut live = Vec::new();
    for kind in 0..9 {
        let mut socket = socket_of_kind(kind, &gateway).await;
        socket.text("flood").await; // and it is not read
        // A frame that is half here when the session moves.
        let frame = ws::encode(ws::TEXT, format!("kind {kind}").as_bytes(), true);
        socket.send_raw(&frame[..1 + kind]).await;
        live.push((socket, frame));
    }
    // Until the first bytes of each have filled what there is of buffers, it may still be idle.
    for (socket, _) in &mut live {
        assert_eq!(soon(socket.io.read_u8()).await.unwrap(), ws::TEXT);
    }
    for round in 0..3 {
        gateway.take_over();
        let moved = gateway.wait_nth(MOVED, round);
        assert_eq!((&moved["sessions_moved"], &moved["sessions_left"]), (&9.into(), &0.into()), "{moved}");
        gateway.wait_nth(RETIRED, round);
    }
    for (kind, (socket, frame)) in live.iter_mut().enumerate() {
        let heard = socket.receive_rest(ws::TEXT).await.unwrap();
        assert!(heard.payload == numbered(7, 7, LEN), "kind {kind}");
        socket.send_raw(&frame[1 + kind..]).await;
        socket.expect_text(&format!("kind {kind}")).await;
    }
    drop(live);
    gateway.ends_with_its_last_process();
}

#[tokio::test]
async fn a_new_process_that_is_killed_half_way_loses_what_it_has_and_nothing_else() {
    const LEN: usize = 16 << 20;
    let backend = flood(LEN).await;
    let top = "handover_wait = \"30s\"";
    let gateway = setup().start(&config(top, &route("/", backend.address)));
    let mut quick = Vec::new();
    for kind in 0..5 {
        quick.push(socket_of_kind(kind, &gateway).await);
        quick[kind].echoes("before").await;
    }
    let mut slow = socket_of_kind(4, &gateway).await;
    slow.text("flood").await;
    assert_eq!(soon(slow.io.read_u8()).await.unwrap(), ws::TEXT);
    gateway.signal("USR2");
    let runs = gateway.wait("takeover: the new process runs and reads its configuration");
    // The slow one holds up the end, and no other.
    gateway.wait_for(|line| message(line) == "sessions have moved" && line["moved"] == 5, 0, "a batch");
    for socket in &mut quick {
        socket.echoes("in the new process").await;
    }
    send_signal(u32::try_from(runs["pid"].as_u64().unwrap()).unwrap(), "KILL");
    let failed = gateway.wait(
        "takeover failed: this process continues to serve, but the sessions that the new one had taken are lost",
    );
    assert_eq!(failed["sessions_lost"], 5, "{failed}");
    for socket in &mut quick {
        socket.expect_end().await;
    }
    assert!(slow.receive_rest(ws::TEXT).await.unwrap().payload == numbered(7, 7, LEN));
    slow.echoes("as if nothing had happened").await;
    // Nor has anything else: this process accepts, and can be taken over.
    let mut fresh = socket_of_kind(0, &gateway).await;
    fresh.echoes("fresh").await;
    gateway.take_over();
    assert_eq!(gateway.wait(MOVED)["sessions_moved"], 2);
    slow.echoes("moved").await;
    fresh.echoes("moved").await;
    drop((slow, fresh));
    gateway.ends_with_its_last_process();
}

#[tokio::test]
async fn an_old_process_that_is_killed_half_way_has_been_taken_over() {
    let backend = flood(16 << 20).await;
    let gateway = setup().start(&config("handover_wait = \"30s\"", &route("/", backend.address)));
    let mut quick = Vec::new();
    for kind in 0..5 {
        quick.push(socket_of_kind(kind, &gateway).await);
        quick[kind].echoes("before").await;
    }
    let mut slow = socket_of_kind(4, &gateway).await;
    slow.text("flood").await;
    assert_eq!(soon(slow.io.read_u8()).await.unwrap(), ws::TEXT);
    gateway.signal("USR2");
    gateway.wait_for(|line| message(line) == "sessions have moved" && line["moved"] == 5, 0, "a batch");
    gateway.signal("KILL");
    gateway.wait("the old process has ended in the middle of the takeover");
    gateway.wait("taken over");
    assert_eq!(gateway.wait("sessions taken over")["sessions"], 5);
    for socket in &mut quick {
        socket.echoes("in the new process").await;
    }
    let mut fresh = socket_of_kind(0, &gateway).await;
    fresh.echoes("fresh").await;
    drop((slow, quick, fresh));
    send_signal(gateway.successors()[0], "TERM");
    let mut gateway = gateway;
    assert!(!gateway.wait_end().success(), "the first process was killed");
}

/// The lines of `wssgate sessions --json`.
async fn sessions_of(gateway: &Gateway) -> Vec<Value> {
    let config = gateway.path().join("wssgate.toml");
    let output = tokio::task::spawn_blocking(move || {
        Command::new(BINARY).args(["sessions", "--json", "--config"]).arg(config).output().unwrap()
    });
    let output = soon(output).await.unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter_map(|line| line.get("session").cloned()).collect()
}

#[tokio::test]
async fn what_can_not_move_stays_and_operators_see_both() {
    let (backend, _seen) = echo().await;
    let more = "[[route]]\npath = \"/echo\"\nservice = \"echo\"\n[admin]\naddress = \"127.0.0.3:0\"\n\
                [control]\nsocket = \"control.sock\"\n";
    let text = config("", &(route("/", backend.address) + more));
    let gateway = setup().start(&text);
    let mut moves = over_http1(&gateway).await;
    moves.echoes("one").await;
    let mut client = {
        let io = Tls::new("default.test", &["h2"]).connect(gateway.address()).await.unwrap();
        Http2::connect(io, "default.test").await
    };
    let (mut tunnel, _) = client.websocket("/", &[]).await.unwrap();
    tunnel.echoes("over HTTP/2").await;
    let plain = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
    let mut service = WebSocket::connect(plain, "default.test", "/echo", "").await.unwrap().0;
    service.echoes("at the gateway").await;
    let before = sessions_of(&gateway).await;
    assert_eq!(before.len(), 3);
    let was =
        before.iter().find(|session| session["protocol"] == "HTTP/1.1" && session["route"] == "/").unwrap();
    gateway.take_over();
    let moved = gateway.wait(MOVED);
    assert_eq!((&moved["sessions_moved"], &moved["sessions_left"]), (&2.into(), &1.into()), "{moved}");
    assert_eq!(moved["left"], "http2: 1");
    gateway.wait_nth("control socket", 1);
    let now = sessions_of(&gateway).await;
    assert_eq!(now.len(), 2, "{now:?}");
    let is = now.iter().find(|session| session["id"] == was["id"]).unwrap();
    for key in ["id", "peer", "client", "route", "to", "protocol", "state", "received_messages", "sent_bytes"]
    {
        assert_eq!(is[key], was[key], "{key}");
    }
    assert!(is["age_ms"].as_u64() >= was["age_ms"].as_u64(), "{is}");
    assert!(is["idle_ms"].as_u64() >= was["idle_ms"].as_u64(), "{is}");
    let mut fresh = over_http1(&gateway).await;
    fresh.echoes("new").await;
    let ids: HashSet<_> = sessions_of(&gateway).await.iter().map(|session| session["id"].as_u64()).collect();
    assert_eq!(ids.len(), 3);
    let stays = before.iter().find(|session| session["protocol"] == "HTTP/2").unwrap();
    assert!(!ids.contains(&stays["id"].as_u64()));
    let mut admin = TcpStream::connect(gateway.admin()).await.unwrap();
    let page = ask(&mut admin, "GET /metrics HTTP/1.1\r\nHost: a.test\r\n\r\n").await.text();
    for line in [
        "wssgate_sessions_taken_over_total 2",
        "wssgate_sessions_lost_total 0",
        "wssgate_sessions_left_behind{reason=\"http2\"} 1",
    ] {
        assert!(page.contains(&format!("\n{line}\n")), "{line} in {page}");
    }
    for socket in [&mut moves, &mut tunnel, &mut service] {
        socket.echoes("still").await;
    }
    tunnel.close(1000).await;
    tunnel.expect_close(1000).await;
    drop((tunnel, client));
    gateway.wait(RETIRED);
    moves.echoes("alone").await;
    service.echoes("alone").await;
    drop((moves, service, fresh));
    gateway.ends_with_its_last_process();
}

#[tokio::test]
async fn a_moved_session_is_treated_by_the_new_configuration() {
    for removed in ["drain", "keep"] {
        let (backend, _seen) = echo().await;
        let top = format!("removed_routes = \"{removed}\"\ndrain_window = \"1ms\"");
        let text = config(&top, &(route("/", backend.address) + &route("/gone", backend.address)));
        let gateway = setup().start(&text);
        let mut stays = socket_of_kind(4, &gateway).await;
        stays.echoes("before").await;
        let io = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
        let mut gone = WebSocket::connect(io, "default.test", "/gone", "").await.unwrap().0;
        gone.echoes("before").await;
        gateway.write_config(&config(&top, &route("/", backend.address)));
        gateway.take_over();
        let taken = gateway.wait("sessions taken over");
        let ended = u64::from(removed == "drain");
        assert_eq!((&taken["sessions"], &taken["sessions_ended"]), (&2.into(), &ended.into()));
        if removed == "drain" {
            gone.expect_close(1001).await;
            gone.close(1001).await;
            gone.expect_end().await;
            assert_eq!(gateway.wait("session")["route"], "/gone");
        } else {
            gone.echoes("kept").await;
        }
        stays.echoes("after").await;
        drop((stays, gone));
        gateway.ends_with_its_last_process();
    }
}

#[tokio::test]
async fn the_new_configuration_can_keep_sessions_where_they_are() {
    let (backend, _seen) = echo().await;
    let with = |what: &str| config(&format!("takeover_sessions = \"{what}\""), &route("/", backend.address));
    let gateway = setup().start(&with("move"));
    let old = gateway.pid();
    let mut live = socket_of_kind(4, &gateway).await;
    live.echoes("before").await;
    gateway.write_config(&with("keep"));
    gateway.take_over();
    assert_eq!(gateway.wait(HANDED_OVER)["sessions"], 1);
    live.echoes("in the old process").await;
    assert!(is_running(old) && gateway.lines(MOVED).is_empty());
    drop(live);
    gateway.wait(RETIRED);
    gateway.ends_with_its_last_process();
}

/// As systemd does, if the main process is the first to end.
#[tokio::test]
async fn a_second_sigterm_does_not_hurry_a_retired_process() {
    let (backend, _seen) = echo().await;
    let gateway =
        setup().start(&config(&format!("{KEEP}drain_window = \"2s\""), &route("/", backend.address)));
    let mut live = Vec::new();
    for _ in 0..5 {
        live.push(over_http1(&gateway).await);
    }
    gateway.take_over();
    gateway.wait(HANDED_OVER);
    gateway.signal("TERM");
    gateway.wait("draining: no new connections are accepted; SIGINT ends the gateway at once");
    gateway.signal("TERM");
    for mut live in live {
        live.expect_close(1001).await;
        live.close(1001).await;
        live.expect_end().await;
    }
    gateway.wait("drained: the last connection has ended");
    gateway.ends_with_its_last_process();
}

/// A directory with the program in it, as a symbolic link.
fn linked() -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("wssgate");
    symlink(BINARY, &path).unwrap();
    (directory, path)
}

/// Puts a script at `path`, as an installation would.
fn replace_by_script(path: &Path, script: &str) {
    let new = path.with_extension("new");
    fs::write(&new, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&new, path).unwrap();
}

#[tokio::test]
async fn a_new_process_that_fails_changes_nothing() {
    let (_directory, binary) = linked();
    let text = config("takeover_timeout = \"3s\"", ECHO);
    let gateway = setup().at(&binary).start(&text);
    let mut live = over_http1(&gateway).await;
    let mut failures = 0;
    let mut fails = |why: &str| {
        gateway.signal("USR2");
        let line = gateway.wait_nth(FAILED, failures);
        failures += 1;
        let cause = line["cause"].as_str().unwrap();
        assert!(cause.contains(why), "{cause:?}, not {why:?}");
    };
    // A configuration that can't be carried out; the new one's own words come with it.
    gateway.write_config(&text.replace("default.test", "absent.test"));
    fails("absent.test");
    gateway.write_config(&format!("worker = 3\n{text}"));
    fails("did you mean workers?");
    // An address that is in use.
    let strangers = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = strangers.local_addr().unwrap().to_string();
    gateway.write_config(&text.replacen("127.0.0.2:0", &taken, 1));
    fails("another program listens there already");
    gateway.write_config(&text);
    // Something else than a gateway.
    replace_by_script(&binary, "exit 3");
    fails("exit status: 3");
    replace_by_script(&binary, "exit 0");
    fails("before it sent its first message");
    replace_by_script(&binary, "exec sleep 1000");
    let before = Instant::now();
    fails("was not ready after 3s and has been killed");
    assert!(before.elapsed() >= Duration::from_secs(3));
    fs::remove_file(&binary).unwrap();
    fails("can't be started");
    live.echoes("still").await;
    assert_eq!(status(gateway.addresses()[1]).await, 426);
    // Right again.
    symlink(BINARY, &binary).unwrap();
    gateway.take_over();
    live.echoes("still").await;
    assert_eq!(status(gateway.addresses()[1]).await, 426);
    drop(live);
    gateway.wait(RETIRED);
    gateway.ends_with_its_last_process();
}

/// The configuration is a pipe: the new process stands still in the middle of its start.
#[tokio::test]
async fn a_new_process_that_hangs_is_killed_and_one_thing_is_done_at_a_time() {
    let text = config("takeover_timeout = \"4s\"", ECHO);
    let gateway = setup().start(&text);
    let file = gateway.path().join("wssgate.toml");
    let pipe = gateway.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    fs::rename(&pipe, &file).unwrap();
    gateway.signal("USR2");
    let runs = gateway.wait("takeover: the new process runs and reads its configuration");
    let new = u32::try_from(runs["pid"].as_u64().unwrap()).unwrap();
    gateway.signal("USR2");
    gateway.wait_for(|line| message(line).contains("in progress already"), 0, "a refusal");
    gateway.signal("HUP");
    gateway.wait("SIGHUP waits: a takeover is in progress");
    assert!(gateway.wait(FAILED)["cause"].as_str().unwrap().contains("killed"));
    until(async || !is_running(new)).await;
    // The SIGHUP was not forgotten; a SIGUSR2 waits for the reload.
    gateway.signal("USR2");
    gateway.wait("SIGUSR2 waits: a reload is in progress");
    fs::write(&file, &text).unwrap();
    gateway.wait("reloaded");
    fs::write(&file, &text).unwrap();
    gateway.wait("taken over");
    assert_eq!(status(gateway.addresses()[1]).await, 426);
    gateway.ends_with_its_last_process();
}

#[tokio::test]
async fn a_sighup_during_a_takeover_reaches_the_new_process() {
    let text = config("", ECHO);
    let gateway = setup().start(&text);
    let file = gateway.path().join("wssgate.toml");
    fs::remove_file(&file).unwrap();
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    gateway.signal("USR2");
    gateway.wait("takeover: the new process runs and reads its configuration");
    gateway.signal("HUP");
    gateway.wait("SIGHUP waits: a takeover is in progress");
    fs::write(&file, &text).unwrap();
    gateway.wait("SIGHUP is passed on to the new process");
    // What it read is no longer what there is.
    fs::write(&file, format!("{text}[[route]]\npath = \"/late\"\nservice = \"echo\"\n")).unwrap();
    assert_eq!(gateway.wait("reloaded")["routes"], 2);
    gateway.ends_with_its_last_process();
}

/// The new process has been told before what was drained, and is told again.
#[tokio::test]
async fn what_is_drained_while_the_new_process_starts_stays_drained() {
    const ROUTES: &str = "[[route]]\npath = \"/a\"\nservice = \"echo\"\n[[route]]\npath = \"/b\"\nservice = \"echo\"\n\
                          [control]\nsocket = \"control.sock\"\n";
    let text = config("drain_window = \"1ms\"", ROUTES);
    let gateway = setup().start(&text);
    let wssgate = |args: &[&str]| {
        let mut command = Command::new(BINARY);
        let output =
            command.args(args).arg("--socket").arg(gateway.path().join("control.sock")).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    wssgate(&["drain", "/b"]);
    let file = gateway.path().join("wssgate.toml");
    fs::remove_file(&file).unwrap();
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    gateway.signal("USR2");
    gateway.wait("takeover: the new process runs and reads its configuration");
    wssgate(&["drain", "/a"]);
    wssgate(&["undrain", "/b"]);
    fs::write(&file, &text).unwrap();
    gateway.wait_nth("control socket", 1);
    let status: Value = serde_json::from_str(&wssgate(&["status", "--json"])).unwrap();
    assert_eq!(status["status"]["drained"], serde_json::json!(["/a"]), "{status}");
    gateway.ends_with_its_last_process();
}

#[tokio::test]
async fn a_drain_ends_a_takeover_that_is_not_done() {
    let mut gateway = setup().start(&config("", ECHO));
    let file = gateway.path().join("wssgate.toml");
    fs::remove_file(&file).unwrap();
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    gateway.signal("USR2");
    let runs = gateway.wait("takeover: the new process runs and reads its configuration");
    let new = u32::try_from(runs["pid"].as_u64().unwrap()).unwrap();
    gateway.signal("TERM");
    gateway.wait("drained: the last connection has ended");
    // It may be gone already, or open the file only now: a writer that doesn't wait finds out.
    while is_running(new) {
        let pipe =
            fs::File::options().write(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(&file);
        if let Ok(mut pipe) = pipe {
            pipe.write_all(config("", ECHO).as_bytes()).ok(); // or it went meanwhile
            break;
        }
        tokio::task::yield_now().await;
    }
    gateway.ends_well(); // both
    assert!(gateway.successors().is_empty());
}

#[tokio::test]
async fn a_replaced_binary_is_picked_up() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("wssgate");
    fs::copy(BINARY, &path).unwrap();
    let gateway = setup().at(&path).start(&config("", ECHO));
    let copy = directory.path().join("new");
    fs::copy(BINARY, &copy).unwrap();
    fs::rename(&copy, &path).unwrap();
    assert!(fs::read_link(format!("/proc/{}/exe", gateway.pid())).unwrap().ends_with("wssgate (deleted)"));
    let new = gateway.take_over();
    assert_eq!(fs::read_link(format!("/proc/{new}/exe")).unwrap(), path.canonicalize().unwrap());
    // What it is told and what it is given are the same.
    let of = |pid: u32, what: &str| {
        let mut all: Vec<String> = fs::read_to_string(format!("/proc/{pid}/{what}"))
            .unwrap()
            .split('\0')
            .filter(|entry| !entry.starts_with("WSSGATE_TAKEOVER="))
            .map(Into::into)
            .collect();
        if what == "environ" {
            all.sort();
        }
        all
    };
    let descriptors = |pid: u32| fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let given = (of(new, "cmdline"), of(new, "environ"));
    let next = gateway.take_over();
    assert_eq!((of(next, "cmdline"), of(next, "environ")), given);
    // No descriptor leaks from one to the next. (This one has no old process to talk to any more.)
    gateway.wait_nth(RETIRED, 1);
    let before = descriptors(next);
    let last = gateway.take_over();
    gateway.wait_nth(RETIRED, 2);
    // The one between the two is closed when the new process has seen the old one's end of it go.
    until(async || descriptors(last) <= before).await;
    gateway.ends_with_its_last_process();
}

#[tokio::test]
async fn fewer_and_more_workers() {
    let gateway = setup().start(&config("workers = 4", ECHO));
    let plain = gateway.addresses()[1];
    let mut live = over_http1(&gateway).await;
    for (workers, sockets) in [(1, 8), (2, 8), (6, 8), (3, 12)] {
        gateway.write_config(&config(&format!("workers = {workers}"), ECHO));
        gateway.take_over();
        let taken = gateway.lines("taken over").pop().unwrap();
        assert_eq!(taken["sockets"], sockets, "two listeners' with {workers} workers");
        // The kernel spreads connections over all sockets: each is accepted on.
        for _ in 0..60 {
            assert_eq!(status(plain).await, 426);
        }
    }
    live.echoes("still").await;
    drop(live);
    gateway.ends_with_its_last_process();
}

#[tokio::test]
async fn listeners_come_and_go() {
    let text = config("", ECHO);
    let gateway = setup().start(&text);
    let [first, second] = gateway.addresses()[..] else { panic!() };
    let more = "[[listener]]\naddress = \"127.0.0.3:0\"\ntls = false\n";
    let without = text.replacen("[[listener]]\naddress = \"127.0.0.2:0\"\ntls = false\n", "", 1);
    assert_ne!(text, without);
    gateway.write_config(&format!("{without}{more}"));
    gateway.take_over();
    gateway.wait("no longer listening");
    let third = gateway.addresses()[3];
    assert_eq!(status(third).await, 426);
    assert!(Tls::new("default.test", &[]).connect(first).await.is_ok());
    soon(async { while TcpStream::connect(second).await.is_ok() {} }).await;
    // By the address that it has instead of the one it was given.
    gateway.write_config(&text.replacen("127.0.0.1:0", &first.to_string(), 1));
    gateway.take_over();
    assert!(Tls::new("default.test", &[]).connect(first).await.is_ok());
    assert_eq!(gateway.lines("taken over").pop().unwrap()["sockets"].as_u64(), {
        let workers = gateway.lines("ready").pop().unwrap()["workers"].as_u64().unwrap();
        Some(2 * workers)
    });
    gateway.ends_with_its_last_process();
}

#[tokio::test]
async fn the_admin_listener_is_ready_all_the_time() {
    let admin = "[admin]\naddress = \"127.0.0.4:0\"\n";
    let text = config("", &format!("{admin}{ECHO}"));
    let gateway = setup().start(&text);
    let address = gateway.wait("admin listener")["address"].as_str().unwrap().parse::<SocketAddr>().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let asking = tokio::spawn({
        let stop = stop.clone();
        async move {
            let mut asked = 0;
            while !stop.load(Ordering::SeqCst) {
                let mut io = TcpStream::connect(address).await.unwrap();
                let answer = ask(&mut io, "GET /readyz HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
                assert_eq!(answer.status(), 200, "{}", answer.text());
                asked += 1;
            }
            asked
        }
    });
    let gateway = Arc::new(gateway);
    for _ in 0..3 {
        let gateway = gateway.clone();
        tokio::task::spawn_blocking(move || gateway.take_over()).await.unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    assert!(soon(asking).await.unwrap() > 3);
    let now = gateway.lines("admin listener").pop().unwrap();
    assert_eq!(now["address"], address.to_string());
    // Gone from the configuration, gone with the takeover.
    gateway.write_config(&text.replace(admin, ""));
    gateway.take_over();
    soon(async { while TcpStream::connect(address).await.is_ok() {} }).await;
    Arc::into_inner(gateway).unwrap().ends_with_its_last_process();
}

#[tokio::test]
async fn clients_resume_at_the_new_process() {
    for versions in [TLS12, TLS13] {
        let gateway = setup().start(&config("", ECHO));
        let client = Tls::with(versions, Some("default.test"), &["http/1.1"], &[]);
        let resumes = async || {
            let mut io = client.connect(gateway.address()).await.unwrap();
            let answer = ask(&mut io, "GET / HTTP/1.1\r\nHost: default.test\r\n\r\n").await;
            assert_eq!(answer.status(), 426); // and TLS 1.3's tickets have come
            io.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
        };
        assert!(!resumes().await);
        for _ in 0..2 {
            gateway.take_over();
            gateway.wait_nth(RETIRED, gateway.successors().len() - 1);
            assert!(resumes().await);
        }
        gateway.ends_with_its_last_process();
    }
}

/// Runs what follows as process 1, if that can be had: by root as such, by others in a user namespace.
fn in_a_pid_namespace() -> Option<Command> {
    let ways: [&[&str]; 2] = [&[], &["--user", "--map-root-user"]];
    ways.into_iter().find_map(|way| {
        let unshare = || {
            let mut unshare = Command::new("unshare");
            unshare.args(way).args(["--pid", "--fork", "--kill-child"]);
            unshare
        };
        let probe = unshare().arg("true").stderr(Stdio::null()).status();
        probe.is_ok_and(|status| status.success()).then(unshare)
    })
}

#[test]
fn the_demonstration_and_process_1_are_not_taken_over() {
    let temp = TempDir::new().unwrap();
    let refusal = |mut command: Command, signal: &dyn Fn(u32), expect: &str| {
        let mut child = command
            .current_dir(temp.path())
            .env("XDG_STATE_HOME", temp.path().join("state"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let ready = lines.find(|line| line.contains(" ready "));
        let ready = ready.expect("a line that says so");
        signal(child.id());
        let refused = lines.find(|line| line.contains("SIGUSR2 refused")).expect("a refusal");
        assert!(refused.contains(expect), "{refused}");
        child.kill().unwrap();
        child.wait().unwrap();
        ready
    };
    refusal(Command::new(BINARY), &|pid| send_signal(pid, "USR2"), "the demonstration");
    let setup = setup();
    fs::write(setup.config_file(), config("", ECHO)).unwrap();
    let Some(mut unshare) = in_a_pid_namespace() else {
        // A container's own rules; the refusal has a unit test, too.
        return eprintln!("not run as process 1: this machine makes no PID namespaces");
    };
    unshare.arg(BINARY).arg("--config").arg(setup.config_file());
    let inside = |unshare: u32| {
        let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).unwrap();
        send_signal(children.trim().parse().unwrap(), "USR2");
    };
    let ready = refusal(unshare, &inside, "this is process 1 of a container");
    assert!(ready.contains("pid=1 "), "{ready}");
}

/// What happened to new connections.
#[derive(Default)]
struct Tally {
    stop: AtomicBool,
    messages: AtomicU64,
    served: AtomicU64,
    resumed: AtomicU64,
    failed: Mutex<Vec<String>>,
}

/// How much load, and how many takeovers under it.
struct Load {
    connections_per_second: u32,
    live: usize,
    takeovers: usize,
    /// Between two takeovers, so many connections are served.
    between: u64,
}

impl Load {
    fn sized() -> Self {
        if full_size() {
            Self { connections_per_second: 2000, live: 500, takeovers: 20, between: 2000 }
        } else {
            Self { connections_per_second: 200, live: 20, takeovers: 20, between: 20 }
        }
    }
}

#[test]
fn twenty_takeovers_under_load_refuse_and_reset_nothing() {
    let load = Load::sized();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let backends = runtime();
    let (backend, _seen) = backends.block_on(echo());
    thread::spawn(move || backends.block_on(std::future::pending::<()>()));
    let configured = |workers: usize| {
        config(&format!("takeover_timeout = \"1h\"\nworkers = {workers}"), &route("/", backend.address))
    };
    let gateway = Arc::new(setup().start(&configured(2)));
    let tally = Arc::<Tally>::default();
    let clients = thread::spawn({
        let (gateway, tally) = (gateway.clone(), tally.clone());
        move || runtime().block_on(keep_busy(&gateway, load.connections_per_second, load.live, &tally))
    });
    let reaches = |counter: &AtomicU64, count: u64| {
        let deadline = Instant::now() + PATIENCE;
        while counter.load(Ordering::SeqCst) < count {
            assert!(Instant::now() < deadline && !clients.is_finished(), "the clients stand still");
            thread::sleep(Duration::from_millis(1));
        }
    };
    reaches(&tally.served, load.between);
    let started = Instant::now();
    for n in 0..load.takeovers {
        gateway.write_config(&configured([1, 3, 2][n % 3]));
        gateway.take_over();
        // Every other one is followed by the next at once.
        if n % 2 == 0 {
            reaches(&tally.served, tally.served.load(Ordering::SeqCst) + load.between);
        }
    }
    let took = started.elapsed();
    reaches(&tally.messages, tally.messages.load(Ordering::SeqCst) + 2 * load.live as u64);
    tally.stop.store(true, Ordering::SeqCst);
    let opened = clients.join().unwrap();
    let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
    let failed = tally.failed.lock().unwrap();
    println!(
        "{} takeovers in {took:.1?}: {opened} connections opened, {} served ({} TLS sessions resumed), \
         {} failed; {} messages echoed over {} sockets that were there before",
        load.takeovers,
        count(&tally.served),
        count(&tally.resumed),
        failed.len(),
        count(&tally.messages),
        load.live,
    );
    assert!(failed.is_empty(), "{} failed: {:?}", failed.len(), &failed[..failed.len().min(10)]);
    assert_eq!(count(&tally.served), opened);
    assert!(count(&tally.resumed) > 0);
    assert_eq!(gateway.successors().len(), load.takeovers);
    // Each of the twenty old ones has ended with what came through it.
    gateway.wait_nth(RETIRED, load.takeovers - 1);
    let handed = gateway.lines(HANDED_OVER);
    let slowest = handed.iter().map(|line| line["took_ms"].as_u64().unwrap()).max().unwrap();
    println!("the slowest took {slowest} ms from the signal");
    Arc::into_inner(gateway).unwrap().ends_with_its_last_process();
}

/// Keeps sockets echoing and opens connections, until it is to stop. Returns how many it has opened.
async fn keep_busy(gateway: &Gateway, per_second: u32, live: usize, tally: &Arc<Tally>) -> u64 {
    let [tls, plain] = gateway.addresses()[..] else { panic!() };
    let mut echoing = JoinSet::new();
    for _ in 0..live {
        echoing.spawn(keep_echoing(over_http1(gateway).await, tally.clone()));
    }
    let opened = keep_connecting(plain, tls, per_second, tally).await;
    while let Some(done) = soon(echoing.join_next()).await {
        done.unwrap();
    }
    opened
}

async fn keep_echoing(mut socket: WebSocket, tally: Arc<Tally>) {
    let mut count = 0;
    while !tally.stop.load(Ordering::SeqCst) {
        socket.echoes(&format!("message {count}")).await;
        count += 1;
        tally.messages.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    socket.close(1000).await;
    socket.expect_close(1000).await;
}

/// Opens connections at a steady rate, every 20th over TLS; each has one request. Returns how many,
/// when all have ended.
async fn keep_connecting(plain: SocketAddr, tls: SocketAddr, per_second: u32, tally: &Arc<Tally>) -> u64 {
    let resuming = Tls::new("default.test", &["http/1.1"]);
    let mut tick = tokio::time::interval(Duration::from_secs(1) / per_second);
    let mut connections = JoinSet::new();
    let mut opened = 0;
    while !tally.stop.load(Ordering::SeqCst) {
        tick.tick().await;
        let (tally, resuming) = (tally.clone(), resuming.clone());
        let over_tls = opened % 20 == 0;
        connections.spawn(async move {
            let result = if over_tls {
                match resuming.connect(tls).await {
                    Ok(io) => {
                        if io.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed) {
                            tally.resumed.fetch_add(1, Ordering::SeqCst);
                        }
                        request(io).await
                    }
                    Err(e) => Err(format!("TLS: {e}")),
                }
            } else {
                match TcpStream::connect(plain).await {
                    Ok(io) => request(io).await,
                    Err(e) => Err(format!("connecting: {e}")),
                }
            };
            match result {
                Ok(()) => drop(tally.served.fetch_add(1, Ordering::SeqCst)),
                Err(e) => tally.failed.lock().unwrap().push(e),
            }
        });
        while connections.try_join_next().is_some() {}
        opened += 1;
    }
    while connections.join_next().await.is_some() {}
    opened
}

async fn request(mut io: impl AsyncReadExt + AsyncWriteExt + Unpin) -> Result<(), String> {
    let wire = b"GET / HTTP/1.1\r\nHost: default.test\r\nConnection: close\r\n\r\n";
    io.write_all(wire).await.map_err(|e| format!("writing: {e}"))?;
    io.flush().await.map_err(|e| format!("writing: {e}"))?;
    let mut answer = Vec::new();
    soon(io.read_to_end(&mut answer)).await.map_err(|e| format!("reading: {e}"))?;
    if answer.starts_with(b"HTTP/1.1 200") {
        Ok(())
    } else {
        Err(format!("an answer of {} bytes", answer.len()))
    }
}
