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
use serde_json::Value;
use support::backend::echo;
use support::gateway::{Gateway, Setup, config, route, send_signal};
use support::http1::{ask, read_answer};
use support::http2::Http2;
use support::pki::Pki;
use support::tls::{TLS12, TLS13, Tls};
use support::ws::WebSocket;
use support::{PATIENCE, full_size, soon};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const BINARY: &str = env!("CARGO_BIN_EXE_wssgate");
const ECHO: &str = "[[route]]\npath = \"/\"\nservice = \"echo\"\n";
const HANDED_OVER: &str =
    "handed over: this process accepts no new connections and ends with its last session";
const FAILED: &str = "takeover failed: this process continues to serve, and nothing has changed";

fn setup() -> Setup {
    let setup = Setup::new(BINARY);
    Pki::new().issue(&["default.test"]).write(&setup.path().join("certs"), "default");
    setup
}

async fn over_http1(gateway: &Gateway) -> WebSocket {
    let io = Tls::new("default.test", &["http/1.1"]).connect(gateway.address()).await.unwrap();
    WebSocket::connect(io, "default.test", "/", "").await.unwrap().0
}

async fn status(address: SocketAddr) -> u16 {
    let mut io = TcpStream::connect(address).await.unwrap();
    ask(&mut io, "GET / HTTP/1.1\r\nHost: default.test\r\n\r\n").await.status()
}

/// Its last process ended in order.
#[track_caller]
fn end(mut gateway: Gateway) {
    send_signal(gateway.successors().last().copied().unwrap_or(gateway.pid()), "TERM");
    gateway.ends_well();
}

fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

#[tokio::test]
async fn live_sessions_stay_and_new_ones_go_to_the_new_process() {
    let (backend, _seen) = echo().await;
    let gateway = setup().start(&config("drain_window = \"1ms\"", &route("/", backend.address)));
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
    live.hears_close(1000).await;
    tunnel.close(1000).await;
    tunnel.hears_close(1000).await;
    drop((live, tunnel, client));
    gateway.wait("retired: the last connection has ended");
    fresh.echoes("alone").await;
    send_signal(new, "TERM");
    fresh.hears_close(1001).await;
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
        let top = format!("takeover_timeout = \"{timeout}\"\ndrain_window = \"1ms\"");
        let gateway = setup().start(&config(&top, &route("/", backend.address)));
        let mut live = over_http1(&gateway).await;
        live.echoes("x").await;
        let new = gateway.take_over();
        gateway.wait(HANDED_OVER);
        if by_signal {
            gateway.signal("TERM");
        }
        live.hears_close(1001).await;
        live.close(1001).await;
        live.hears_end().await;
        gateway.wait("drained: the last connection has ended");
        assert!(is_running(new));
        assert_eq!(status(gateway.addresses()[1]).await, 200);
        end(gateway);
    }
}

/// As systemd does, if the main process is the first to end.
#[tokio::test]
async fn a_second_sigterm_does_not_hurry_a_retired_process() {
    let (backend, _seen) = echo().await;
    let gateway = setup().start(&config("drain_window = \"2s\"", &route("/", backend.address)));
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
        live.hears_close(1001).await;
        live.close(1001).await;
        live.hears_end().await;
    }
    gateway.wait("drained: the last connection has ended");
    end(gateway);
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
    gateway.wait("retired: the last connection has ended");
    end(gateway);
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
    soon(async {
        while is_running(new) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // The SIGHUP was not forgotten; a SIGUSR2 waits for the reload.
    gateway.signal("USR2");
    gateway.wait("SIGUSR2 waits: a reload is in progress");
    fs::write(&file, &text).unwrap();
    gateway.wait("reloaded");
    fs::write(&file, &text).unwrap();
    gateway.wait("taken over");
    assert_eq!(status(gateway.addresses()[1]).await, 426);
    end(gateway);
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
    end(gateway);
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
    gateway.wait_nth("retired: the last connection has ended", 1);
    let before = descriptors(next);
    let last = gateway.take_over();
    gateway.wait_nth("retired: the last connection has ended", 2);
    // The one between the two is closed when the new process has seen the old one's end of it go.
    soon(async {
        while descriptors(last) > before {
            tokio::task::yield_now().await;
        }
    })
    .await;
    end(gateway);
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
    end(gateway);
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
    end(gateway);
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
    end(Arc::into_inner(gateway).unwrap());
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
            gateway.wait_nth("retired: the last connection has ended", gateway.successors().len() - 1);
            assert!(resumes().await);
        }
        end(gateway);
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
    gateway.wait_nth("retired: the last connection has ended", load.takeovers - 1);
    let handed = gateway.lines(HANDED_OVER);
    let slowest = handed.iter().map(|line| line["took_ms"].as_u64().unwrap()).max().unwrap();
    println!("the slowest took {slowest} ms from the signal");
    end(Arc::into_inner(gateway).unwrap());
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
    socket.hears_close(1000).await;
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
