//! Reloads and faults under thousands of live sockets. Every run has a small size;
//! `WSSGATE_TEST_SIZE=full cargo test --release -p wssgate --test scale -- --nocapture` the full one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests may be blunt, their helpers too"
)]

use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode};
use std::thread::{sleep, yield_now};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Trial};
use serde_json::Value;
use support::gateway::{Gateway, RETIRED, Setup, config, kib, send_signal};
use support::http1::ask;
use support::pki::Pki;
use support::swarm::{Clients, EchoProcess, Plan, SERVER_NAME, Seen, play_part};
use support::tls::{Tls, leaf};
use support::{PATIENCE, full_size};
use tokio::net::TcpStream;
use tokio::runtime::Builder;

#[path = "scale/scraped.rs"]
mod scraped;
#[path = "scale/watched.rs"]
mod watched;

const WSSGATE: &str = env!("CARGO_BIN_EXE_wssgate");

fn main() -> ExitCode {
    if play_part() {
        return ExitCode::SUCCESS;
    }
    let trial = |name, test: fn()| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    };
    let trials = vec![
        trial("no_reload_is_noticed_by_any_live_socket", no_reload_is_noticed_by_any_live_socket),
        trial("no_takeover_is_noticed_by_any_live_socket", || takeovers(false)),
        trial("no_takeover_is_noticed_by_sockets_of_any_kind", || takeovers(true)),
        trial("a_backend_that_is_killed_hurts_its_own_sessions_only", a_killed_backend),
        trial("clients_that_freeze_are_given_up_and_nobody_else", frozen_clients),
        trial("any_number_of_sessions_is_listed_and_none_notices", listed_sessions),
        trial("any_number_of_sessions_is_watched_and_none_notices", watched::watched_sessions),
        trial("a_thousand_routes_are_scraped_and_no_message_waits", scraped::scraped_routes),
    ];
    libtest_mimic::run(&Arguments { test_threads: Some(1), ..Arguments::from_args() }, trials).exit_code()
}

/// How much of it there is.
struct Size {
    sockets: usize,
    per_second: u32,
    reloads: usize,
    /// Names in the certificate directory.
    names: usize,
    /// Messages without any reload, to compare with.
    before: Duration,
    /// Between two reloads.
    pause: Duration,
    /// From the 10th reload to the last.
    growth_kib: u64,
}

const SMALL: Size = Size {
    sockets: 200,
    per_second: 1000,
    reloads: 30,
    names: 10,
    before: Duration::from_secs(1),
    pause: Duration::from_millis(50),
    growth_kib: 2048,
};

const FULL: Size = Size {
    sockets: 9000,
    per_second: 3000,
    reloads: 1000,
    names: 100,
    before: Duration::from_secs(20),
    pause: Duration::from_millis(60),
    growth_kib: 2048,
};

/// Where the load side's sources are, so that no address needs more ports than it has.
const PROCESSES: usize = 2;

fn no_reload_is_noticed_by_any_live_socket() {
    let size = if full_size() { FULL } else { SMALL };
    let pki = Pki::new();
    let backends = [EchoProcess::start(), EchoProcess::start()];
    let setup = Setup::new(WSSGATE);
    let certs = setup.path().join("certs");
    pki.issue(&[SERVER_NAME]).write(&certs, "default");
    for n in 0..size.names {
        pki.issue(&[&format!("name-{n}.test")]).write(&certs, &format!("name-{n}"));
    }
    let gateway = setup.start(&generation(0, &backends));
    let address = gateway.address();
    let mut swarm: Vec<Clients> = (0..PROCESSES)
        .map(|n| {
            Clients::start(Plan {
                gateway: address,
                path: "/",
                sockets: size.sockets / PROCESSES,
                first_source: n * 100,
                per_second: size.per_second / u32::try_from(PROCESSES).unwrap(),
                mixed: false,
            })
        })
        .collect();
    swarm.iter_mut().for_each(Clients::connected);

    sleep(size.before / 4);
    worst_of(&mut swarm); // the first round of messages is dearer than the rest
    sleep(size.before);
    let quiet = worst_of(&mut swarm);

    let mut memory_kib = BTreeMap::new();
    let mut took_ms = 0;
    let started = Instant::now();
    for n in 1..=size.reloads {
        let renewed = pki.issue(&[SERVER_NAME]);
        renewed.write(&certs, "default");
        let other = format!("name-{}", n % size.names);
        pki.issue(&[&format!("{other}.test")]).write(&certs, &other);
        gateway.write_config(&generation(n, &backends));
        let report = gateway.reload();
        assert_eq!(report["message"], "reloaded");
        assert_eq!((&report["sessions_ended"], &report["routes_added"]), (&0.into(), &1.into()));
        took_ms = took_ms.max(report["took_ms"].as_u64().unwrap());
        assert_eq!(served_leaf(&gateway), *renewed.der);
        memory_kib.insert(n, gateway.resident_kib());
        sleep(size.pause);
    }
    let reloading = worst_of(&mut swarm);
    let elapsed = started.elapsed();
    assert_eq!(gateway.children(), [] as [u32; 0], "one process");

    let ends: Vec<Seen> = swarm.into_iter().map(Clients::stop).collect();
    let sum = |count: fn(&Seen) -> u64| ends.iter().map(count).sum::<u64>();
    let (sent, echoed) = (sum(|end| end.sent), sum(|end| end.echoed));
    eprintln!(
        "{} sockets, {} reloads in {elapsed:.1?}, {sent} messages; worst latency {:?} (p99.9 {:?}), before the \
         reloads {:?} ({:?}); the slowest reload took {took_ms} ms; resident after reload 1, 10, last: {}, {}, {} KiB",
        size.sockets,
        size.reloads,
        reloading.0,
        reloading.1,
        quiet.0,
        quiet.1,
        memory_kib[&1],
        memory_kib[&10],
        memory_kib[&size.reloads],
    );
    for end in &ends {
        let all = u64::try_from(size.sockets / PROCESSES).unwrap();
        assert_eq!(end.ended, BTreeMap::from([("1000".to_owned(), all)]), "each ended as its client wished");
        assert_eq!(end.wrong, [] as [String; 0]);
    }
    assert_eq!(sent, echoed, "none is lost");
    assert!(sent > 2 * size.sockets as u64, "each socket has spoken");
    if full_size() {
        // At worst, the files are loaded on the very core that a message needs. One in a thousand, since
        // the very worst of so many is often caused by the machine.
        let most = quiet.1 + Duration::from_millis(took_ms);
        assert!(reloading.1 <= most, "{:?}, more than {most:?}", reloading.1);
    }
    let grown = memory_kib[&size.reloads].saturating_sub(memory_kib[&10]);
    assert!(grown <= size.growth_kib, "{grown} KiB more than after the 10th: {memory_kib:?}");
}

/// Sockets stay connected while one process takes over from the other, again and again.
/// `mixed`: under sockets of all kinds (support's `swarm::kind` says which there are), which make more work.
fn takeovers(mixed: bool) {
    let (sockets, per_second, takeovers) = match (full_size(), mixed) {
        (true, false) => (9000, 3000, 20),
        (true, true) => (9000, 1500, 20),
        (false, false) => (200, 1000, 5),
        (false, true) => (200, 400, 5),
    };
    // Often enough that pings are under way at every takeover: sockets are silent for longer than that.
    let ping_interval = if full_size() { "5s" } else { "200ms" };
    let backends = [EchoProcess::start()];
    let websocket =
        format!("[route.websocket]\nping_interval = \"{ping_interval}\"\npong_timeout = \"60s\"\n");
    let gateway = in_front_of(&backends, &(websocket + "[control]\nsocket = \"control.sock\"\n"));
    let mut swarm: Vec<Clients> = (0..PROCESSES)
        .map(|n| {
            Clients::start(Plan {
                gateway: gateway.address(),
                path: "/",
                sockets: sockets / PROCESSES,
                first_source: n * 100,
                per_second: per_second / u32::try_from(PROCESSES).unwrap(),
                mixed,
            })
        })
        .collect();
    swarm.iter_mut().for_each(Clients::connected);
    let connected = Instant::now();
    swarm.iter_mut().for_each(Clients::go_on);
    let quiet = worst_of(&mut swarm);
    let own_kib = gateway.resident_kib();
    let (mut frozen_p99, mut frozen_max, mut took_ms, mut last) = (0.0, 0.0, 0, gateway.pid());
    for n in 0..takeovers {
        let began = Instant::now();
        last = gateway.take_over();
        let moved = gateway.wait_nth("sessions moved: they go on in the new process", n);
        assert_eq!(
            (&moved["sessions_moved"], &moved["sessions_left"]),
            (&sockets.into(), &0.into()),
            "{moved}"
        );
        gateway.wait_nth(RETIRED, n);
        assert!(began.elapsed() < Duration::from_secs(10), "the old process takes {:?}", began.elapsed());
        let taken = gateway.wait_nth("sessions taken over", n);
        frozen_p99 = f64::max(frozen_p99, taken["frozen_p99_ms"].as_f64().unwrap());
        frozen_max = f64::max(frozen_max, taken["frozen_max_ms"].as_f64().unwrap());
        took_ms = took_ms.max(moved["took_ms"].as_u64().unwrap());
        swarm.iter_mut().for_each(Clients::go_on);
    }
    let moving = worst_of(&mut swarm);
    let moved_kib = kib(last, "VmRSS:");
    let before = messages_of(&swarm.iter_mut().map(Clients::seen).collect::<Vec<_>>());
    // The time in which a session is frozen is no part of its age.
    let age =
        connected.elapsed().saturating_sub(Duration::from_secs_f64(frozen_max / 1e3 * takeovers as f64));
    let listed = listed_messages(&gateway, sockets, age);
    let ends: Vec<Seen> = swarm.into_iter().map(Clients::stop).collect();
    let sum = |count: fn(&Seen) -> u64| ends.iter().map(count).sum::<u64>();
    let (sent, echoed, messages) = (sum(|end| end.sent), sum(|end| end.echoed), messages_of(&ends));
    eprintln!(
        "{sockets} sockets, {takeovers} takeovers, {messages:?} messages to and from the gateway; sessions moved in \
         {took_ms} ms at most, each frozen for {frozen_p99:.1} ms (99 %), {frozen_max:.1} ms at most; worst latency \
         {:?} (p99.9 {:?}), before {:?} ({:?}); resident: {own_kib} KiB with sessions of its own, {moved_kib} KiB \
         with moved ones",
        moving.0, moving.1, quiet.0, quiet.1,
    );
    for end in &ends {
        let all = u64::try_from(sockets / PROCESSES).unwrap();
        assert_eq!(end.ended, BTreeMap::from([("1000".to_owned(), all)]), "each ended as its client wished");
        assert_eq!(end.wrong, [] as [String; 0]);
    }
    assert_eq!(sent, echoed, "none is lost");
    // What was sent may not have come yet, but what was heard has been counted.
    assert!(listed[0] <= messages[0] && listed[1] >= before[1], "{before:?}, {listed:?}, {messages:?}");
    // The gateway has counted the same, over all its processes.
    gateway.wait_nth("session", sockets - 1);
    let lines = gateway.lines("session");
    let logged = ["received_messages", "sent_messages"]
        .map(|key| lines.iter().map(|line| line[key].as_u64().unwrap()).sum::<u64>());
    assert_eq!((lines.len(), logged), (sockets, messages));
    if full_size() && !mixed {
        assert!(took_ms < 2000 && frozen_p99 < 50.0, "{took_ms} ms, {frozen_p99} ms");
    }
    send_signal(last, "TERM");
}

/// Messages to the gateway, and from it.
fn messages_of(seen: &[Seen]) -> [u64; 2] {
    [0, 1].map(|way| seen.iter().map(|seen| seen.messages[way]).sum())
}

/// `sessions` lists as many sessions, each of which is as old as this and has talked. Returns all messages to the gateway,
/// and from it.
fn listed_messages(gateway: &Gateway, sockets: usize, age: Duration) -> [u64; 2] {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut command = Command::new(WSSGATE);
        command.args(["sessions", "--json", "--config"]).arg(gateway.path().join("wssgate.toml"));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = String::from_utf8(output.stdout).unwrap();
        let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let sessions: Vec<Value> = lines.filter_map(|line| line.get("session").cloned()).collect();
        let ids: HashSet<_> = sessions.iter().map(|session| session["id"].as_u64().unwrap()).collect();
        assert_eq!((sessions.len(), ids.len()), (sockets, sockets));
        for session in &sessions {
            let its = session["age_ms"].as_u64().unwrap();
            assert!(u128::from(its) >= age.as_millis(), "{age:?}: {session}");
        }
        let counts =
            |key: &str| sessions.iter().map(|session| session[key].as_u64()).collect::<Option<Vec<_>>>();
        // One that is busy may not have answered in time.
        if let (Some(received), Some(sent)) = (counts("received_messages"), counts("sent_messages")) {
            assert!(received.iter().chain(&sent).all(|count| *count > 0), "one has not talked");
            return [received.iter().sum(), sent.iter().sum()];
        }
        assert!(Instant::now() < deadline, "some sessions don't answer");
    }
}

/// A gateway with one route to each backend: `/` to the first, `/1` to the second.
fn in_front_of(backends: &[EchoProcess], websocket: &str) -> Gateway {
    let setup = Setup::new(WSSGATE).with_certificate(&[SERVER_NAME]);
    let routes = backends.iter().zip(PATHS).map(|(backend, path)| {
        format!("[[route]]\npath = \"{path}\"\nproxy = \"http://{}\"\n{websocket}", backend.address)
    });
    setup.start(&config("", &routes.collect::<String>()))
}

const PATHS: [&str; 2] = ["/", "/1"];

fn clients(gateway: &Gateway, path: &'static str, sockets: usize) -> Clients {
    let plan =
        Plan { gateway: gateway.address(), path, sockets, first_source: 0, per_second: 1000, mixed: false };
    let mut clients = Clients::start(plan);
    clients.connected();
    clients
}

/// Each session of that backend ends with 1011 and says so; the others go on, and so do requests.
fn a_killed_backend() {
    let sockets = if full_size() { 1000 } else { 100 };
    let mut backends = vec![EchoProcess::start(), EchoProcess::start()];
    let gateway = in_front_of(&backends, "");
    let mut hurt = clients(&gateway, "/1", sockets);
    let mut others = clients(&gateway, "/", sockets);
    drop(backends.pop()); // SIGKILL
    for n in 0..sockets {
        let line = gateway.wait_nth("session", n);
        assert_eq!((&line["ended_by"], &line["close_code"]), (&"backend".into(), &1011.into()), "{line}");
        assert_eq!((&line["level"], &line["route"]), (&"WARN".into(), &"/1".into()), "{line}");
    }
    assert_eq!(hurt.all_ended(), BTreeMap::from([("1011".to_owned(), sockets as u64)]));
    // New clients are refused at once, and the others don't notice.
    assert_eq!(status(&gateway, "/1"), 502);
    assert_eq!(status(&gateway, "/"), 200);
    others.go_on();
    let end = others.stop();
    assert_eq!(end.ended, BTreeMap::from([("1000".to_owned(), sockets as u64)]));
    assert_eq!((end.sent, end.wrong), (end.echoed, Vec::new()));
}

/// A process that is stopped answers no ping, although its kernel takes what is sent.
fn frozen_clients() {
    let sockets = if full_size() { 1000 } else { 100 };
    let backends = [EchoProcess::start()];
    let gateway =
        in_front_of(&backends, "[route.websocket]\nping_interval = \"2s\"\npong_timeout = \"1s\"\n");
    let mut others = clients(&gateway, "/", sockets);
    let before = gateway.descriptors().len();
    let frozen = clients(&gateway, "/", sockets);
    frozen.freeze();
    for n in 0..sockets {
        let line = gateway.wait_nth("session", n);
        assert_eq!((&line["ended_by"], &line["close_code"]), (&"client".into(), &1006.into()), "{line}");
        assert_eq!(line["cause"], "client answered no ping within pong_timeout");
    }
    let deadline = Instant::now() + PATIENCE;
    while gateway.descriptors().len() > before {
        assert!(Instant::now() < deadline, "descriptors are kept");
        yield_now();
    }
    others.go_on();
    let end = others.stop();
    assert_eq!(end.ended, BTreeMap::from([("1000".to_owned(), sockets as u64)]));
    assert_eq!((end.sent, end.wrong), (end.echoed, Vec::new()));
}

/// As many as one process may hold, each in the list, which is asked for again and again; beside a reader
/// who asks for it and doesn't read at once, and a few clients that send much.
fn listed_sessions() {
    let (idle, lists) = if full_size() { (18_000, 10) } else { (1000, 3) };
    let (talking, sockets) = (100, idle + 100);
    let setup = Setup::new(WSSGATE).with_certificate(&[SERVER_NAME]);
    let routes = "[[route]]\npath = \"/\"\nservice = \"echo\"\n[control]\nsocket = \"control.sock\"\n";
    let gateway = setup.start(&config("", routes));
    let start = |sockets, first_source, per_second| {
        let gateway = gateway.address();
        Clients::start(Plan { gateway, path: "/", sockets, first_source, per_second, mixed: false })
    };
    let mut swarm: Vec<Clients> = (0..PROCESSES).map(|n| start(idle / PROCESSES, n * 100, 1)).collect();
    swarm.iter_mut().for_each(Clients::connected);
    let mut talkers = [start(talking, 0, 1000)];
    talkers[0].connected();
    talkers[0].go_on();
    worst_of(&mut talkers);
    sleep(Duration::from_secs(if full_size() { 10 } else { 1 }));
    let quiet = worst_of(&mut talkers);

    let before = gateway.resident_kib();
    let started = Instant::now();
    let most = gateway.most_resident_kib(|| {
        for _ in 0..lists {
            let mut stalled = UnixStream::connect(gateway.path().join("control.sock")).unwrap();
            stalled.write_all(b"{\"command\":\"sessions\"}\n").unwrap();
            let mut command = Command::new(WSSGATE);
            command.args(["sessions", "--json", "--config"]).arg(gateway.path().join("wssgate.toml"));
            let output = command.output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            is_complete(&mut output.stdout.as_slice(), sockets);
            stalled.set_read_timeout(Some(PATIENCE)).unwrap();
            is_complete(&mut BufReader::new(stalled), sockets);
        }
    });
    let elapsed = started.elapsed();
    let listing = worst_of(&mut talkers);
    eprintln!(
        "{sockets} sessions listed {lists} times in {elapsed:.1?}; worst latency {:?} (p99.9 {:?}), before {:?} \
         ({:?}); resident {before} KiB before, {most} KiB at most",
        listing.0, listing.1, quiet.0, quiet.1
    );
    for clients in swarm.into_iter().chain(talkers) {
        let end = clients.stop();
        assert_eq!(
            (end.ended.into_keys().collect::<Vec<_>>(), end.wrong),
            (vec!["1000".to_owned()], Vec::new())
        );
        assert_eq!(end.sent, end.echoed);
    }
    assert!(most.saturating_sub(before) < 4096, "{before} KiB before, {most} KiB at most");
    if full_size() {
        let most = quiet.1 + Duration::from_millis(100);
        assert!(listing.1 <= most, "{:?}, more than {most:?}", listing.1);
    }
}

/// Each session is there once, nearly all with their figures, up to the last line.
fn is_complete(lines: &mut impl BufRead, sockets: usize) {
    let mut ids = HashSet::new();
    let mut told = 0;
    loop {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        let line: Value = serde_json::from_str(&line).unwrap();
        if line["ok"] == true {
            assert_eq!(line["sessions"], sockets);
            break;
        }
        ids.insert(line["session"]["id"].as_u64().unwrap());
        told += usize::from(line["session"]["sent_messages"].is_u64());
    }
    assert_eq!(ids.len(), sockets);
    assert!(told * 100 >= sockets * 99, "{told} of {sockets} have answered");
}

/// The worst latency, and the 99.9th percentile, of all clients since this was asked last.
fn worst_of(swarm: &mut [Clients]) -> (Duration, Duration) {
    let seen: Vec<Seen> = swarm.iter_mut().map(Clients::seen).collect();
    (seen.iter().map(|seen| seen.worst).max().unwrap(), seen.iter().map(|seen| seen.p999).max().unwrap())
}

fn status(gateway: &Gateway, path: &str) -> u16 {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut io = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
        ask(&mut io, format!("GET {path} HTTP/1.1\r\nHost: {SERVER_NAME}\r\n\r\n")).await.status()
    })
}

/// The certificate that a new client gets.
fn served_leaf(gateway: &Gateway) -> Vec<u8> {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let tls = Tls::new(SERVER_NAME, &["http/1.1"]);
        leaf(&tls.connect(gateway.address()).await.unwrap()).to_vec()
    })
}

/// The configuration after `n` reloads: only the route that the clients use stays as it is, but for
/// its limits and the backend of those who come.
fn generation(n: usize, backends: &[EchoProcess; 2]) -> String {
    let (here, there) = (backends[n % 2].address, backends[(n + 1) % 2].address);
    config(
        &format!("trusted_proxies = [\"10.0.{}.0/24\"]", n % 256),
        &format!(
            "[[route]]\npath = \"/\"\nproxy = \"http://{here}\"\n\
             [route.websocket]\nmax_message = \"{} KiB\"\nping_interval = \"{}s\"\n\
             [[route]]\npath = \"/round-{n}\"\nproxy = \"http://{there}\"\nconnect_timeout = \"{}s\"\n",
            64 + n % 64,
            20 + n % 20,
            1 + n % 5,
        ),
    )
    .replacen("tls = false", &format!("tls = false\nheader_timeout = \"{}s\"", 5 + n % 7), 1)
    .replacen("1:0\"\n", &format!("1:0\"\nhandshake_timeout = \"{}s\"\n", 5 + n % 11), 1)
}
