//! Sessions that move to another process at a moment that doesn't suit them, and processes that stand still.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use support::backend::{Backend, echo, echo_frames};
use support::gateway::{Gateway, MOVED, RETIRED, Setup, config, route, send_signal};
use support::http1::{ask, read_head};
use support::http2::Http2;
use support::tls::{TLS12, TLS13, Tls};
use support::ws::{self, WebSocket};
use support::{BoxIo, Io, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

fn setup() -> Setup {
    Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"])
}

fn message(line: &Value) -> &str {
    line["message"].as_str().unwrap_or_default()
}

async fn plain(gateway: &Gateway, fields: &str) -> Result<WebSocket, u16> {
    let io = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
    WebSocket::connect(io, "default.test", "/", fields)
        .await
        .map(|(socket, _)| socket)
        .map_err(|answer| answer.status())
}

#[tokio::test]
async fn a_session_that_is_opened_during_the_takeover_moves_too() {
    let (asked, answers) = (Arc::<Notify>::default(), Arc::<Notify>::default());
    let backend = Backend::start({
        let (asked, answers) = (asked.clone(), answers.clone());
        move |tcp| {
            let (asked, answers) = (asked.clone(), answers.clone());
            async move {
                let mut first = [0];
                tcp.peek(&mut first).await.unwrap();
                asked.notify_one();
                answers.notified().await;
                echo_frames(WebSocket::serve(tcp, "").await.0).await;
            }
        }
    })
    .await;
    let gateway = setup().start(&config("", &route("/", backend.address)));
    let address = gateway.addresses()[1];
    let opening = tokio::spawn(async move {
        let io = TcpStream::connect(address).await.unwrap();
        WebSocket::connect(io, "default.test", "/", "").await.unwrap().0
    });
    soon(asked.notified()).await;
    gateway.take_over();
    gateway.wait("handed over: this process accepts no new connections and ends with its last session");
    answers.notify_one();
    let mut late = soon(opening).await.unwrap();
    late.echoes("opened by the old process").await;
    let moved = gateway.wait(MOVED);
    assert_eq!((&moved["sessions_moved"], &moved["after_handover"]), (&1.into(), &1.into()), "{moved}");
    gateway.wait(RETIRED);
    late.echoes("it goes on in the new one").await;
    drop(late);
    gateway.ends_with_its_last_process();
}

/// A new process that answers nothing any more: what it has not taken goes on in the old one.
#[tokio::test]
async fn a_new_process_that_stands_still_is_given_up() {
    const LEN: usize = 16 << 20;
    let backend = Backend::start(|tcp| async move {
        let (mut socket, _) = WebSocket::serve(tcp, "").await;
        while let Some(frame) = socket.receive().await {
            let answer = if frame.payload == b"flood" { vec![7; LEN] } else { frame.payload };
            if frame.b0 == ws::CLOSE
                || socket.io.write_all(&ws::encode(frame.b0, &answer, false)).await.is_err()
            {
                break;
            }
        }
    })
    .await;
    let gateway = setup().start(&config("handover_wait = \"30s\"", &route("/", backend.address)));
    let mut quick = plain(&gateway, "").await.unwrap();
    quick.echoes("before").await;
    // It is in the middle of a write, and moves when that is done.
    let mut slow = plain(&gateway, "").await.unwrap();
    slow.text("flood").await;
    assert_eq!(soon(slow.io.read_u8()).await.unwrap(), ws::TEXT);
    gateway.signal("USR2");
    let runs = gateway.wait("takeover: the new process runs and reads its configuration");
    gateway.wait_for(|line| message(line) == "sessions have moved" && line["moved"] == 1, 0, "a batch");
    send_signal(u32::try_from(runs["pid"].as_u64().unwrap()).unwrap(), "STOP");
    assert!(slow.receive_rest(ws::TEXT).await.unwrap().payload == [7; LEN]);
    let failed = gateway.wait(
        "takeover failed: this process continues to serve, but the sessions that the new one had taken are lost",
    );
    assert_eq!(failed["sessions_lost"], 1, "{failed}");
    quick.expect_end().await; // with the process that had it
    slow.echoes("it has thawed").await;
    gateway.take_over();
    gateway.wait(MOVED);
    slow.echoes("and can move").await;
    drop(slow);
    gateway.ends_with_its_last_process();
}

#[tokio::test]
async fn a_moved_session_counts_by_the_same_field_of_its_client() {
    let (backend, _seen) = echo().await;
    let access = "[route.access]\nsessions = 2\nper = \"header:X-Api-Key\"\n";
    let gateway = setup().start(&config("", &(route("/", backend.address) + access)));
    let mut live = vec![plain(&gateway, "X-Api-Key: a\r\n").await.unwrap()];
    live.push(plain(&gateway, "X-Api-Key: a\r\n").await.unwrap());
    for round in 0..2 {
        gateway.take_over();
        assert_eq!(gateway.wait_nth(MOVED, round)["sessions_moved"], 2);
        assert_eq!(plain(&gateway, "X-Api-Key: a\r\n").await.err(), Some(429));
        drop(plain(&gateway, "X-Api-Key: b\r\n").await.unwrap());
        drop(plain(&gateway, "").await.unwrap());
        gateway.wait_nth("session", 2 * round + 1);
    }
    let mut first = live.remove(0);
    first.close(1000).await;
    first.expect_close(1000).await;
    gateway.wait_nth("session", 4);
    // The place is free a moment after the line is written.
    let again = soon(async {
        loop {
            if let Ok(socket) = plain(&gateway, "X-Api-Key: a\r\n").await {
                break socket;
            }
        }
    });
    again.await.echoes("a place is free").await;
    drop((live, first));
    gateway.ends_with_its_last_process();
}

#[tokio::test]
async fn the_log_says_what_stays_by_kind() {
    let [asked, answers, more] = <[Arc<Notify>; 3]>::default();
    let backend = Backend::start({
        let [asked, answers, more] = [&asked, &answers, &more].map(Arc::clone);
        move |mut tcp| {
            let [asked, answers, more] = [&asked, &answers, &more].map(Arc::clone);
            async move {
                let Some(head) = read_head(&mut tcp).await else { return };
                let events = head.line.contains("/events");
                if events {
                    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";
                    tcp.write_all(head.as_bytes()).await.unwrap();
                    more.notified().await;
                } else {
                    asked.notify_one();
                    answers.notified().await;
                    tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
                }
            }
        }
    })
    .await;
    let (sockets, _seen) = echo().await;
    let gateway = setup().start(&config("", &(route("/", backend.address) + &route("/ws", sockets.address))));
    let mut client = {
        let io = Tls::new("default.test", &["h2"]).connect(gateway.address()).await.unwrap();
        Http2::connect(io, "default.test").await
    };
    let (mut tunnel, _) = client.websocket("/ws", &[]).await.unwrap();
    tunnel.echoes("over HTTP/2").await;
    let mut events = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
    events.write_all(b"GET /events HTTP/1.1\r\nHost: default.test\r\n\r\n").await.unwrap();
    hears(&mut events, "data: 1").await;
    let mut request = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
    let asking = tokio::spawn(async move {
        ask(&mut request, "GET /slow HTTP/1.1\r\nHost: default.test\r\n\r\n").await.status()
    });
    soon(asked.notified()).await;
    gateway.take_over();
    let moved = gateway.wait(MOVED);
    assert_eq!((&moved["sessions_left"], &moved["left"]), (&1.into(), &"http2: 1".into()), "{moved}");
    assert_eq!(
        (&moved["requests_left"], &moved["event_streams_left"]),
        (&1.into(), &1.into()),
        "the request has no answer yet: {moved}"
    );
    answers.notify_one();
    assert_eq!(soon(asking).await.unwrap(), 200);
    more.notify_one();
    tunnel.close(1000).await;
    tunnel.expect_close(1000).await;
    drop((tunnel, client, events));
    gateway.wait(RETIRED);
    gateway.ends_with_its_last_process();
}

async fn hears(io: &mut (impl Io + ?Sized), text: &str) {
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).contains(text) {
        heard.push(soon(io.read_u8()).await.unwrap());
    }
}

/// A session of one of the kinds that are no relay between two WebSockets.
enum Session {
    /// Of binary messages, which are bytes in any pieces.
    Socket(WebSocket, Vec<u8>),
    /// Of bytes.
    Raw(BoxIo),
}

impl Session {
    async fn open(io: BoxIo, path: &str) -> Self {
        if path == "/raw" {
            let mut io = io;
            let head =
                "GET /raw HTTP/1.1\r\nHost: default.test\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
            io.write_all(head.as_bytes()).await.unwrap();
            io.flush().await.unwrap();
            assert_eq!(read_head(&mut io).await.unwrap().status(), 101);
            return Self::Raw(io);
        }
        Self::Socket(WebSocket::connect(io, "default.test", path, "").await.unwrap().0, Vec::new())
    }

    /// Sends bytes, which come back.
    async fn exchange(&mut self, bytes: &[u8]) {
        match self {
            Self::Socket(socket, heard) => {
                let (front, rest) = bytes.split_at(bytes.len() / 3);
                socket
                    .send_raw(&[ws::encode(0x02, front, true), ws::encode(0x80, rest, true)].concat())
                    .await;
                while heard.len() < bytes.len() {
                    let frame = socket.receive().await.expect("more");
                    assert_eq!(frame.b0, ws::BINARY);
                    heard.extend(frame.payload);
                }
                assert!(*heard == bytes);
                heard.clear();
            }
            Self::Raw(io) => {
                let mut heard = vec![0; bytes.len()];
                let (mut from, mut to) = tokio::io::split(io);
                let write = async {
                    to.write_all(bytes).await?;
                    to.flush().await
                };
                let (read, written) = tokio::join!(soon(from.read_exact(&mut heard)), write);
                read.and(written.map(|()| 0)).unwrap();
                assert!(heard == bytes);
            }
        }
    }
}

/// The bytes of this number.
fn numbered(number: usize) -> Vec<u8> {
    let len = if number % 16 == 7 { 200_000 } else { 1 + number * 37 % 3000 };
    (0..len).map(|at| (at * 31 + number * 97).to_le_bytes()[0]).collect()
}

/// A server that says back every byte that it gets; behind an upgrade, if it is asked for one.
async fn bytes_back(upgrades: bool) -> Backend {
    Backend::start(move |mut tcp| async move {
        if upgrades {
            let Some(_) = read_head(&mut tcp).await else { return };
            let head = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
            tcp.write_all(head.as_bytes()).await.unwrap();
        }
        let (mut from, mut to) = tcp.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
    })
    .await
}

/// The lines of `wssgate sessions --json`, in the order of their ids.
async fn sessions_of(gateway: &Gateway) -> Vec<Value> {
    let config = gateway.path().join("wssgate.toml");
    let output = tokio::task::spawn_blocking(move || {
        let command = ["sessions", "--json", "--config"];
        Command::new(env!("CARGO_BIN_EXE_wssgate")).args(command).arg(config).output().unwrap()
    });
    let output = soon(output).await.unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut sessions: Vec<Value> = lines.filter_map(|line| line.get("session").cloned()).collect();
    sessions.sort_by_key(|session| session["id"].as_u64());
    sessions
}

/// Echoes, servers behind `tcp://` and other protocols than WebSocket, over plain text and both versions of TLS.
#[tokio::test]
async fn sessions_that_are_no_relay_move_with_all_that_is_on_its_way() {
    let (tcp, raw) = (bytes_back(false).await, bytes_back(true).await);
    let routes = format!(
        "[[route]]\npath = \"/echo\"\nservice = \"echo\"\n\
         [[route]]\npath = \"/tcp\"\nproxy = \"tcp://{}\"\n\
         [[route]]\npath = \"/raw\"\nproxy = \"http://{}\"\nupgrade = [\"tcp\"]\n\
         [control]\nsocket = \"control.sock\"\n",
        tcp.address, raw.address
    );
    let gateway = setup().start(&config("", &routes));
    let mut sessions = Vec::new();
    for path in ["/echo", "/tcp", "/raw"] {
        for version in [None, Some(TLS13), Some(TLS12)] {
            let io: BoxIo = match version {
                None => gateway.connect_plain().await,
                Some(versions) => {
                    let tls = Tls::with(versions, Some("default.test"), &["http/1.1"], &[]);
                    Box::new(tls.connect(gateway.address()).await.unwrap())
                }
            };
            let mut session = Session::open(io, path).await;
            session.exchange(&numbered(1)).await;
            sessions.push(session);
        }
    }
    // Quiet ones are what they were.
    let before = sessions_of(&gateway).await;
    gateway.take_over();
    let moved = gateway.wait(MOVED);
    assert_eq!((&moved["sessions_moved"], &moved["sessions_left"]), (&9.into(), &0.into()), "{moved}");
    gateway.wait(RETIRED);
    let after = sessions_of(&gateway).await;
    assert_eq!((before.len(), after.len()), (9, 9));
    for (was, is) in before.iter().zip(&after) {
        for key in ["id", "peer", "client", "route", "to", "protocol", "state"] {
            assert_eq!(is[key], was[key], "{key}");
        }
        for key in ["received_messages", "received_bytes", "sent_messages", "sent_bytes"] {
            assert_eq!(is[key], was[key], "{key}: {was} {is}");
        }
        for key in ["age_ms", "idle_ms"] {
            assert!(is[key].as_u64() >= was[key].as_u64(), "{key}: {was} {is}");
        }
    }
    // And so are those that are in the middle of something.
    let stop = Arc::<AtomicBool>::default();
    let talks: Vec<_> = sessions
        .into_iter()
        .map(|mut session| {
            let stop = stop.clone();
            tokio::spawn(async move {
                let mut number = 2;
                while !stop.load(Ordering::SeqCst) || number < 12 {
                    session.exchange(&numbered(number)).await;
                    number += 1;
                }
                (session, (1..number).map(|number| numbered(number).len()).sum::<usize>())
            })
        })
        .collect();
    let gateway = Arc::new(gateway);
    for round in 1..4 {
        let gateway = gateway.clone();
        let moved = tokio::task::spawn_blocking(move || {
            gateway.take_over();
            let moved = gateway.wait_nth(MOVED, round);
            gateway.wait_nth(RETIRED, round);
            moved
        });
        let moved = moved.await.unwrap();
        assert_eq!((&moved["sessions_moved"], &moved["sessions_left"]), (&9.into(), &0.into()), "{moved}");
    }
    stop.store(true, Ordering::SeqCst);
    for (at, talk) in talks.into_iter().enumerate() {
        let (session, len) = soon(talk).await.unwrap();
        drop(session);
        let of = gateway.clone();
        let line = tokio::task::spawn_blocking(move || of.wait_nth("session", at)).await.unwrap();
        for key in ["received_bytes", "sent_bytes"] {
            assert_eq!(line[key], len, "{line}");
        }
        let protocol = if at < 6 { Value::Null } else { "tcp".into() };
        assert_eq!(line["upgrade"], protocol, "{line}");
    }
    Arc::into_inner(gateway).unwrap().ends_with_its_last_process();
}

/// `wssgate` with these arguments and the configuration of `gateway`: whether it succeeds, and what it says.
async fn command(gateway: &Gateway, args: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wssgate"));
    command.args(args).arg("--config").arg(gateway.path().join("wssgate.toml"));
    let output = soon(tokio::task::spawn_blocking(move || command.output().unwrap())).await.unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// A server whose answer to `flood` is this long.
async fn flood(len: usize) -> Backend {
    Backend::start(move |tcp| async move {
        let (mut socket, _) = WebSocket::serve(tcp, "").await;
        while let Some(frame) = socket.receive().await {
            let answer = if frame.payload == b"flood" { vec![7; len] } else { frame.payload };
            if socket.io.write_all(&ws::encode(frame.b0, &answer, false)).await.is_err()
                || frame.b0 == ws::CLOSE
            {
                break;
            }
        }
    })
    .await
}

/// A takeover that is under way: `sessions` have moved, and one more is in the middle of a long write.
async fn held_up(routes: &str, sessions: usize, backend: &Backend) -> (Gateway, Vec<WebSocket>, WebSocket) {
    let all = format!("{}{routes}[control]\nsocket = \"control.sock\"\n", route("/", backend.address));
    let top = "workers = 1\nhandover_wait = \"30s\"\ndrain_window = \"1ms\"";
    let gateway = setup().start(&config(top, &all));
    let mut quick = Vec::new();
    for _ in 0..sessions {
        let mut socket = plain(&gateway, "").await.unwrap();
        socket.echoes("before").await;
        quick.push(socket);
    }
    let mut slow = plain(&gateway, "").await.unwrap();
    slow.echoes("before").await;
    slow.text("flood").await;
    assert_eq!(soon(slow.io.read_u8()).await.unwrap(), ws::TEXT);
    gateway.signal("USR2");
    gateway.wait_for(
        |line| message(line) == "sessions have moved" && line["moved"] == sessions,
        0,
        "all but one",
    );
    (gateway, quick, slow)
}

const FLOOD: usize = 16 << 20;

/// The socket is closed by the gateway with this code.
async fn is_closed(socket: &mut WebSocket, code: u16) {
    socket.expect_close(code).await;
    socket.close(code).await;
    socket.expect_end().await;
}

/// Orders of operators while a takeover is under way: they reach a session in whichever process it is.
#[tokio::test]
async fn sessions_are_closed_wherever_they_are() {
    let backend = flood(FLOOD).await;
    let (gateway, mut quick, mut slow) = held_up("", 3, &backend).await;
    let [first, second, _] = &mut quick[..] else { panic!() };
    // They have gone to where no commands are taken yet.
    let (done, said) = command(&gateway, &["close", "1"]).await;
    assert!(done, "{said}");
    is_closed(first, 1001).await;
    gateway.wait("session");
    let (done, said) = command(&gateway, &["close", "4711"]).await;
    assert!(!done && said.contains("there is no live session 4711"), "{said}");
    second.echoes("the new process has it").await;
    // Two are there, and one is here.
    let (done, said) = command(&gateway, &["close", "--client", "127.0.0.1", "--json"]).await;
    let answer: Value = serde_json::from_str(&said).unwrap();
    assert!(done && answer["closed_sessions"] == 3, "{said}");
    for socket in &mut quick[1..] {
        is_closed(socket, 3000).await;
    }
    assert!(slow.receive_rest(ws::TEXT).await.unwrap().payload == vec![7; FLOOD]);
    is_closed(&mut slow, 3000).await;
    gateway.wait(RETIRED);
    gateway.ends_with_its_last_process();
}

/// What an operator drains while sessions move is drained in both processes.
#[tokio::test]
async fn a_drain_during_a_takeover_is_the_new_processs_too() {
    let backend = flood(FLOOD).await;
    let others =
        "[[route]]\npath = \"/a\"\nservice = \"echo\"\n[[route]]\npath = \"/b\"\nservice = \"echo\"\n";
    let gateway = {
        let (gateway, mut quick, mut slow) = held_up(others, 1, &backend).await;
        let (done, said) = command(&gateway, &["drain", "/nothing"]).await;
        assert!(!done && said.contains("there is no route /nothing"), "{said}");
        for args in [["drain", "/a"], ["drain", "/b"], ["undrain", "/b"]] {
            let (done, said) = command(&gateway, &args).await;
            assert!(done, "{said}");
        }
        // Both of its sessions.
        let (done, said) = command(&gateway, &["drain", &backend.address.to_string(), "--json"]).await;
        let answer: Value = serde_json::from_str(&said).unwrap();
        assert!(done && answer["drain"]["sessions"] == 2, "{said}");
        is_closed(&mut quick[0], 1001).await;
        assert!(slow.receive_rest(ws::TEXT).await.unwrap().payload == vec![7; FLOOD]);
        is_closed(&mut slow, 1001).await;
        gateway
    };
    gateway.wait(RETIRED);
    gateway.wait_nth("control socket", 1);
    let (_, said) = command(&gateway, &["status", "--json"]).await;
    let status = &serde_json::from_str::<Value>(&said).unwrap()["status"];
    assert_eq!(status["drained"], serde_json::json!(["/a", backend.address.to_string()]), "{status}");
    assert_eq!(plain(&gateway, "").await.err(), Some(503));
    gateway.ends_with_its_last_process();
}

/// The order to end comes before the new process accepts: it is for the service, and not for a process that goes anyway.
#[tokio::test]
async fn an_order_to_end_during_a_takeover_ends_both_processes() {
    // A service manager may send it to both.
    for both in [false, true] {
        let backend = flood(FLOOD).await;
        let (mut gateway, mut quick, mut slow) = held_up("", 2, &backend).await;
        let runs = gateway.wait("takeover: the new process runs and reads its configuration");
        gateway.signal("TERM");
        if both {
            send_signal(runs["pid"].as_u64().unwrap().try_into().unwrap(), "TERM");
        }
        quick[0].echoes("it goes on until the other process has let go of all").await;
        assert!(slow.receive_rest(ws::TEXT).await.unwrap().payload == vec![7; FLOOD]);
        gateway.wait("the order to end is passed on to the new process");
        for socket in quick.iter_mut().chain([&mut slow]) {
            is_closed(socket, 1001).await;
        }
        gateway.ends_well(); // both
        assert!(gateway.lines("second signal: the gateway ends at once").is_empty());
    }
}

/// A program whose limit on open files is lower: what doesn't fit there stays, and nothing is lost.
#[tokio::test]
async fn sessions_for_which_the_new_process_has_no_descriptors_stay() {
    const COUNT: usize = 70;
    let (backend, _seen) = echo().await;
    let directory = tempfile::TempDir::new().unwrap();
    let program = directory.path().join("wssgate");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_wssgate"), &program).unwrap();
    let gateway = setup().at(&program).start(&config("", &route("/", backend.address)));
    let mut live = Vec::new();
    for _ in 0..COUNT {
        live.push(plain(&gateway, "").await.unwrap());
    }
    for socket in &mut live {
        socket.echoes("before").await;
    }
    // Both sockets of each of the first fifty, which move together, are too many for it.
    let script = format!("#!/bin/sh\nulimit -n 100 && exec {} \"$@\"\n", env!("CARGO_BIN_EXE_wssgate"));
    let new = program.with_extension("new");
    std::fs::write(&new, script).unwrap();
    std::fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::rename(&new, &program).unwrap();
    gateway.take_over();
    let moved = gateway.wait(MOVED);
    let [went, stayed] = ["sessions_moved", "sessions_left"].map(|key| moved[key].as_u64().unwrap());
    assert!(went + stayed == COUNT as u64 && went > 0 && stayed > 0, "{moved}");
    assert_eq!(moved["left"], format!("refused: {stayed}"));
    let line = gateway.wait("a session stays: the new process can't take it");
    assert!(line["cause"].as_str().unwrap().contains("raise the limit on open files"), "{line}");
    for socket in &mut live {
        socket.echoes("after, wherever it is").await;
    }
    drop(live);
    gateway.wait(RETIRED);
    gateway.ends_with_its_last_process();
}

/// The user that owns `/proc/PID`: root, if the memory of the process may not be dumped (proc(5)).
fn owner(pid: u32) -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(format!("/proc/{pid}/status")).unwrap().uid()
}

#[tokio::test]
async fn memory_can_be_dumped_only_if_the_configuration_says_so() {
    const NOBODY: u32 = 65534;
    let own = owner(std::process::id());
    for (option, is_dumpable) in [("", false), ("core_dumps = true\n", true)] {
        let directory = tempfile::TempDir::new().unwrap();
        let program = directory.path().join("run");
        // The kernel tells the two apart for processes of other users than root.
        let before = if own == 0 { "setpriv --reuid 65534 --clear-groups " } else { "" };
        let script = format!("#!/bin/sh\nexec {before}{} \"$@\"\n", env!("CARGO_BIN_EXE_wssgate"));
        std::fs::write(&program, script).unwrap();
        let all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&program, all).unwrap();
        let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate")).at(&program);
        std::fs::set_permissions(setup.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let listener = "[[listener]]\naddress = \"127.0.0.1:0\"\ntls = false\n";
        let route = "[[route]]\npath = \"/\"\nservice = \"echo\"\n";
        let gateway = setup.start(&format!("{option}{listener}{route}"));
        let user = if own == 0 { NOBODY } else { own };
        assert_eq!(owner(gateway.pid()), if is_dumpable { user } else { 0 }, "{option}");
        let mut gateway = gateway;
        gateway.signal("TERM");
        gateway.ends_well();
    }
}
