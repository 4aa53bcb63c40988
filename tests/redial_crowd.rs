//! Many clients of `session_lost = "redial"`, whose messages go on while servers, which are processes, come and go. Every
//! run has a small size; `WSSGATE_TEST_SIZE=full cargo test --release -p wssgate --test redial_crowd` the full one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests may be blunt, their helpers too"
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use libtest_mimic::{Arguments, Trial};
use support::full_size;
use support::gateway::{Setup, config};
use support::ws::{CLOSE, Frame, PING, PONG, TEXT, WebSocket};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use process::{Process, Served};

#[path = "redial/conversation.rs"]
mod conversation;
#[path = "redial/process.rs"]
mod process;

fn main() -> ExitCode {
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    if process::play_part() {
        return ExitCode::SUCCESS;
    }
    let trial = |name, test: fn()| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    };
    let trials = vec![
        trial("ten_restarts_in_order_are_noticed_by_no_client", ten_restarts_in_order),
        trial("two_servers_are_deployed_one_after_the_other", two_servers),
        trial("ten_kills_lose_no_more_than_what_the_dead_had", ten_kills),
    ];
    libtest_mimic::run(&Arguments { test_threads: Some(1), ..Arguments::from_args() }, trials).exit_code()
}

/// How many clients.
fn crowd_size() -> u64 {
    if full_size() { 2000 } else { 100 }
}

/// What a client has seen.
#[derive(Debug, Default)]
struct Tally {
    sent: u64,
    echoes: Vec<u64>,
    /// `None`: its connection ended without a Close.
    ended: Option<u16>,
}

/// Sends numbered texts until told to stop, and hears their echoes; then closes. Now and then one is so long that it does
/// not pass in one piece.
async fn member(gateway: SocketAddr, doors: Arc<Semaphore>, stop: watch::Receiver<bool>) -> (String, Tally) {
    let door = doors.acquire().await.unwrap();
    let tcp = TcpStream::connect(gateway).await.unwrap();
    let own = tcp.local_addr().unwrap().to_string();
    let (mut socket, _) =
        WebSocket::connect(tcp, "default.test", "/ws", &format!("X-Own: {own}\r\n")).await.unwrap();
    drop(door);
    let mut tally = Tally::default();
    let begin = u64::from(seed(&own));
    let mut due = Instant::now() + Duration::from_millis(begin);
    let mut closing = false;
    loop {
        tokio::select! {
            () = sleep_until(due), if !closing => {
                if *stop.borrow() {
                    closing = true;
                    socket.close(1000).await;
                    continue;
                }
                let padding = if (begin + tally.sent).is_multiple_of(64) { 100_000 } else { 10 };
                socket.text(&format!("{} {}", tally.sent, ".".repeat(padding))).await;
                tally.sent += 1;
                due += if full_size() { Duration::from_secs(2) } else { Duration::from_millis(200) };
            }
            b0 = socket.io.read_u8() => {
                let Ok(b0) = b0 else { return (own, tally) };
                let Some(Frame { b0, payload, .. }) = socket.receive_rest(b0).await else { return (own, tally) };
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

/// So that not all do the same at the same time.
fn seed(own: &str) -> u8 {
    own.bytes().fold(0, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte))
}

/// What has become of a crowd.
struct Ended {
    clients: BTreeMap<String, Tally>,
    /// Sessions that the gateway has ended because a message was passed on in part.
    cuts: u64,
}

/// Runs a crowd while `restarts` happen. Returns what it has seen, and what `restarts` returns.
fn crowd<T>(servers: &[SocketAddr], handshakes: &AtomicU64, restarts: impl AsyncFnOnce() -> T) -> (Ended, T) {
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"]);
    let list: Vec<_> = servers.iter().map(|address| format!("\"http://{address}\"")).collect();
    let gateway = setup.start(&config(
        "workers = 2\n[admin]\naddress = \"127.0.0.3:0\"",
        &format!(
            "[[upstream]]\nname = \"pool\"\nservers = [{}]\nsession_lost = \"redial\"\nredial_rate = \"1000/s\"\n\
             redial_interval = \"300ms\"\nredial_timeout = \"5m\"\n\
             [[route]]\npath = \"/\"\nproxy = \"pool\"\n",
            list.join(", ")
        ),
    ));
    Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let (stop, stops) = watch::channel(false);
        let doors = Arc::new(Semaphore::new(32)); // so that no handshake waits for long
        let members: Vec<_> = (0..crowd_size())
            .map(|_| tokio::spawn(member(gateway.addresses()[1], doors.clone(), stops.clone())))
            .collect();
        wait_for_handshakes(handshakes, crowd_size()).await;
        let of_restarts = restarts().await;
        stop.send_replace(true);
        let mut clients = BTreeMap::new();
        for member in members {
            clients.extend([timeout(LONG, member).await.expect("each ends").unwrap()]);
        }
        let cuts =
            gateway.metric("wssgate_upstream_redials_failed_total{upstream=\"pool\",reason=\"cut\"}").await;
        for reason in ["refused", "changed", "timeout", "unable"] {
            let name =
                format!("wssgate_upstream_redials_failed_total{{upstream=\"pool\",reason=\"{reason}\"}}");
            assert_eq!(gateway.metric(&name).await, 0, "{reason}");
        }
        (Ended { clients, cuts }, of_restarts)
    })
}

/// Between one fault and the next.
const TRAFFIC: Duration = Duration::from_secs(1);
/// How long a step of thousands of clients may take.
const LONG: Duration = Duration::from_secs(120);

/// Waits until there were so many handshakes.
async fn wait_for_handshakes(handshakes: &AtomicU64, count: u64) {
    let coming = async {
        while handshakes.load(Ordering::Relaxed) < count {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, coming).await.unwrap_or_else(|_| panic!("{handshakes:?} of {count} have come"));
}

/// Checks what servers have read of each client, against what each handshake has said: they have read an unbroken row
/// from the number of messages that had gone out before, and none twice. Returns how many are missing: those that had
/// been written to a server as a whole, which has not read them.
fn compare(ended: &Ended, served: &[Served]) -> u64 {
    let mut missing = 0;
    for (client, tally) in &ended.clients {
        let mut own: Vec<_> = served.iter().filter(|served| served.client == *client).collect();
        own.sort_by_key(|served| (served.resume, served.messages));
        assert!(own.iter().all(|served| served.session == own[0].session), "{own:?}");
        let mut next = 0;
        for (n, served) in own.iter().enumerate() {
            assert!(served.messages >= next, "{client}: {own:?}");
            missing += served.messages - next;
            let row = Vec::from_iter(served.messages..served.messages + served.texts.len() as u64);
            assert_eq!(served.texts, row, "{client}: its session {n}, {own:?}");
            next = served.messages + served.texts.len() as u64;
        }
        assert!(next <= tally.sent, "{client}");
        if tally.ended == Some(1000) {
            assert_eq!(next, tally.sent, "{client}: the last server lives, and has read all");
        }
        // The other way: what one server has said comes before what the next one says, and nothing comes twice.
        let said: Vec<u64> = own.iter().flat_map(|served| served.echoed.iter().copied()).collect();
        assert!(tally.echoes.windows(2).all(|pair| pair[0] < pair[1]), "{client}: {:?}", tally.echoes);
        assert!(tally.echoes.iter().all(|echo| said.binary_search(echo).is_ok()), "{client}");
    }
    missing
}

/// No client has noticed anything, and each message has arrived once.
fn nothing_was_noticed(ended: &Ended, served: &[Served]) {
    assert_eq!(compare(ended, served), 0);
    assert_eq!(ended.cuts, 0);
    for (client, tally) in &ended.clients {
        assert_eq!(tally.ended, Some(1000), "{client}");
        let own = served.iter().filter(|served| served.client == *client);
        let mut said: Vec<u64> = own.flat_map(|served| served.echoed.iter().copied()).collect();
        said.sort_unstable();
        assert_eq!(tally.echoes, said, "{client}: each message of a server arrives once");
    }
}

/// What a run has shown.
fn print_result(ended: &Ended, served: &[Served], missing: u64) {
    let sum = |count: fn(&Tally) -> u64| ended.clients.values().map(count).sum::<u64>();
    let closed = ended.clients.values().filter(|tally| tally.ended != Some(1000)).count();
    eprintln!(
        "{} clients, {} sessions of servers; {} messages sent, {missing} missing, {} echoes; {closed} sockets closed, {} cuts",
        ended.clients.len(),
        served.len(),
        sum(|tally| tally.sent),
        sum(|tally| tally.echoes.len() as u64),
        ended.cuts,
    );
}

fn ten_restarts_in_order() {
    let handshakes = Arc::<AtomicU64>::default();
    let first = Process::start("a", None, &handshakes);
    let address = first.address;
    let (ended, served) = crowd(&[address], &handshakes, async || {
        let (mut server, mut served) = (first, Vec::new());
        for n in 1..=10 {
            // Elsewhere, so that clients go on meanwhile.
            let closing = spawn_blocking(move || server.close(1012));
            served.extend(closing.await.unwrap());
            server = Process::start("a", Some(address), &handshakes);
            wait_for_handshakes(&handshakes, crowd_size() * (n + 1)).await;
            sleep(TRAFFIC).await;
        }
        (server, served)
    });
    let (server, mut served) = served;
    served.extend(server.close(1001));
    print_result(&ended, &served, 0);
    nothing_was_noticed(&ended, &served);
}

fn two_servers() {
    let handshakes = Arc::<AtomicU64>::default();
    let start = |name, address| Process::start(name, address, &handshakes);
    let (a, b) = (start("a", None), start("b", None));
    let addresses = [a.address, b.address];
    let (ended, (servers, mut served)) = crowd(&addresses, &handshakes, async || {
        let (mut servers, mut served) = ([a, b], Vec::new());
        for n in 0..10 {
            let (at, name) = ([0, 1][n % 2], ["a", "b"][n % 2]);
            let next = start(name, None); // for the moment
            let old = std::mem::replace(&mut servers[at], next);
            let (before, address) = (handshakes.load(Ordering::Relaxed), old.address);
            let closed = spawn_blocking(move || old.close(1001)).await.unwrap();
            let moved = closed.len() as u64;
            served.extend(closed);
            servers[at] = start(name, Some(address));
            wait_for_handshakes(&handshakes, before + moved).await; // those that it had are at the other one
            sleep(TRAFFIC).await;
        }
        (servers, served)
    });
    for server in servers {
        served.extend(server.close(1001));
    }
    print_result(&ended, &served, 0);
    nothing_was_noticed(&ended, &served);
}

fn ten_kills() {
    let handshakes = Arc::<AtomicU64>::default();
    let first = Process::start("a", None, &handshakes);
    let address = first.address;
    let (ended, (server, mut served)) = crowd(&[address], &handshakes, async || {
        let (mut server, mut served) = (first, Vec::new());
        for _ in 0..10 {
            served.extend(spawn_blocking(move || server.kill()).await.unwrap());
            let before = handshakes.load(Ordering::Relaxed);
            server = Process::start("a", Some(address), &handshakes);
            wait_for_handshakes(&handshakes, before + crowd_size() / 2).await; // some of the others were cut
            sleep(TRAFFIC).await;
        }
        (server, served)
    });
    served.extend(server.close(1001));
    let missing = compare(&ended, &served);
    print_result(&ended, &served, missing);
    let cut = ended.clients.values().filter(|tally| tally.ended != Some(1000));
    assert!(
        cut.clone().all(|tally| matches!(tally.ended, Some(1011) | None)),
        "{:?}",
        cut.collect::<Vec<_>>()
    );
    assert_eq!(ended.clients.values().filter(|tally| tally.ended != Some(1000)).count() as u64, ended.cuts);
    assert!(ended.cuts < crowd_size() / 2, "{}", ended.cuts);
}
