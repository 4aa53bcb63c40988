//! What it costs to be looked at: ten viewers of the page, while it lists as many sessions as one process may hold, and a
//! tap of as many as one tap may watch.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use serde_json::{Value, json};
use support::full_size;
use support::gateway::{Gateway, Setup, config};
use support::swarm::{Clients, Plan, SERVER_NAME};
use support::ws::{PING, PONG, WebSocket};
use tokio::net::TcpStream;
use tokio::runtime::Builder;

use super::{PROCESSES, WSSGATE};

/// Those that talk, all of which one tap can watch.
const TALKING: usize = 32;
const MESSAGES_PER_SECOND: u32 = 1000;
const VIEWERS: usize = 10;

/// The gateway's CPU time for a message, in microseconds, and how long messages took at worst (99.9 %).
struct Price {
    cpu_us: f64,
    p999: Duration,
}

pub(super) fn watched_sessions() {
    let (idle, seconds) = if full_size() { (18_000, 20) } else { (1000, 2) };
    let window = Duration::from_secs(seconds);
    let setup = Setup::new(WSSGATE).with_certificate(&[SERVER_NAME]);
    let routes = "[[route]]\npath = \"/\"\nservice = \"echo\"\n[[route]]\npath = \"/1\"\nservice = \"echo\"\n\
                  [admin]\naddress = \"127.0.0.3:0\"\n[control]\nsocket = \"control.sock\"\ntap = true\n";
    let gateway = setup.start(&config("", routes));
    let start = |path, sockets, first_source, per_second| {
        let gateway = gateway.address();
        Clients::start(Plan { gateway, path, sockets, first_source, per_second, mixed: false })
    };
    let mut swarm: Vec<Clients> = (0..PROCESSES).map(|n| start("/", idle / PROCESSES, n * 100, 1)).collect();
    swarm.iter_mut().for_each(Clients::connected);
    let mut talkers = start("/1", TALKING, 0, MESSAGES_PER_SECOND);
    talkers.connected();
    talkers.go_on();
    let quiet = price(&gateway, &mut talkers, window);

    let before = gateway.resident_kib();
    let stop = Arc::new(AtomicBool::new(false));
    let total = idle + TALKING;
    let viewers: Vec<_> = (0..VIEWERS).map(|n| viewer(&gateway, n, total, stop.clone())).collect();
    let mut seen = None;
    let most = gateway.most_resident_kib(|| seen = Some(price(&gateway, &mut talkers, window)));
    stop.store(true, Ordering::Relaxed);
    let views: usize = viewers.into_iter().map(|viewer| viewer.join().unwrap()).sum();

    let mut tap = tap(&gateway);
    gateway.wait("a tap begins");
    let tapped = price(&gateway, &mut talkers, window);
    tap.kill().unwrap();
    tap.wait().unwrap();
    let ended = gateway.wait("a tap has ended");

    let shown = |price: &Price| format!("{:.2} µs of CPU a message, p99.9 {:?}", price.cpu_us, price.p999);
    let viewed = seen.unwrap();
    eprintln!(
        "{total} sessions, {MESSAGES_PER_SECOND} messages a second: {}; with {VIEWERS} viewers, who got {views} views: {}, \
         {before} KiB before, {most} KiB at most; with a tap, which got {} frames: {}",
        shown(&quiet),
        shown(&viewed),
        ended["frames"],
        shown(&tapped)
    );
    for clients in swarm.into_iter().chain([talkers]) {
        let end = clients.stop();
        let ended: Vec<_> = end.ended.into_keys().collect();
        assert_eq!((ended, end.wrong, end.sent), (vec!["1000".to_owned()], Vec::new(), end.echoed));
    }
    assert!(views >= 2 * VIEWERS, "{views} views");
    assert_eq!(ended["dropped"], 0, "at this rate a tap misses nothing");
    // Two looks at all sessions, and what was rendered of them.
    let allowed = 16 * 1024 + 4 * total as u64;
    assert!(most.saturating_sub(before) < allowed, "{before} KiB before, {most} KiB at most");
    if full_size() {
        let most = quiet.p999 + Duration::from_millis(100);
        assert!(viewed.p999 <= most && tapped.p999 <= most, "more than {most:?}");
    }
}

fn price(gateway: &Gateway, talkers: &mut Clients, window: Duration) -> Price {
    let (before, sent) = (cpu(gateway), talkers.seen().echoed);
    sleep(window);
    let after = talkers.seen();
    let micros = (cpu(gateway) - before).as_secs_f64() * 1e6;
    Price { cpu_us: micros / (after.echoed - sent) as f64, p999: after.p999 }
}

/// CPU time of all threads of the gateway.
fn cpu(gateway: &Gateway) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{}/task", gateway.pid())).unwrap();
    let nanos = tasks.map(|task| {
        let schedstat = fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap_or_default();
        schedstat.split(' ').next().and_then(|nanos| nanos.parse::<u64>().ok()).unwrap_or_default()
    });
    Duration::from_nanos(nanos.sum())
}

/// Looks at the whole gateway or at some page of the list until `stop`; returns how many views it got.
fn viewer(gateway: &Gateway, n: usize, total: usize, stop: Arc<AtomicBool>) -> JoinHandle<usize> {
    let admin = gateway.admin();
    let target =
        if n.is_multiple_of(2) { "/".to_owned() } else { format!("/sessions?q=echo&sort=-bytes&page={n}") };
    spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let tcp = TcpStream::connect(admin).await.unwrap();
            let mut socket = WebSocket::connect(tcp, &admin.to_string(), "/live", "").await.unwrap().0;
            socket.text(&json!({ "open": target }).to_string()).await;
            let mut views = 0;
            while !stop.load(Ordering::Relaxed) {
                let frame = socket.receive().await.unwrap();
                if frame.b0 == PING {
                    socket.send(PONG, frame.payload).await;
                    continue;
                }
                let message: Value = serde_json::from_slice(&frame.payload).unwrap();
                let title = message["title"].as_str().unwrap();
                assert!(title.replace(',', "").contains(&format!("{total} sessions")), "{title}");
                views += 1;
            }
            views
        })
    })
}

/// Of all that talk.
fn tap(gateway: &Gateway) -> Child {
    let mut command = Command::new(WSSGATE);
    command.args(["tap", "--route", "/1", "--text", "--config"]).arg(gateway.path().join("wssgate.toml"));
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}
