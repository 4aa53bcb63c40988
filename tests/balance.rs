//! How requests are dealt to the servers of an upstream while these change, and what operators see of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use support::backend::{Backend, Seen, echo};
use support::gateway::{Gateway, Setup, config};
use support::http1::{Answer, ask};
use support::ws::WebSocket;
use support::{soon, until};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, spawn_blocking};

const CONTROL: &str = "[control]\nsocket = \"control.sock\"\n";

fn setup() -> Setup {
    Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"])
}

fn upstream(lines: &str, servers: &[SocketAddr]) -> String {
    let servers: Vec<_> = servers.iter().map(|address| format!("\"http://{address}\"")).collect();
    let servers = servers.join(", ");
    config(
        "workers = 2",
        &format!(
            "[[upstream]]\nname = \"pool\"\nservers = [{servers}]\n{lines}\n\
             [[route]]\npath = \"/\"\nproxy = \"pool\"\n{CONTROL}"
        ),
    )
}

async fn get(address: SocketAddr) -> Answer {
    let mut io = TcpStream::connect(address).await.unwrap();
    ask(&mut io, "GET / HTTP/1.1\r\nHost: default.test\r\nConnection: close\r\n\r\n").await
}

async fn open(gateway: &Gateway) -> WebSocket {
    let io = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
    WebSocket::connect(io, "default.test", "/ws", "").await.unwrap().0
}

/// What a command of operators prints, while the servers of this test go on.
async fn command(gateway: &Gateway, words: &'static [&'static str]) -> String {
    let socket = gateway.path().join("control.sock");
    let output = spawn_blocking(move || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_wssgate"));
        command.args(words).arg("--socket").arg(socket).output().unwrap()
    });
    String::from_utf8(output.await.unwrap().stdout).unwrap()
}

/// A reload, while the servers of this test go on.
async fn reload(gateway: Gateway, text: String) -> Gateway {
    spawn_blocking(move || {
        gateway.write_config(&text);
        assert_eq!(gateway.reload()["message"], "reloaded");
        gateway
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn a_new_server_gets_its_part_little_by_little() {
    let ((a, seen_a), (b, seen_b)) = (echo().await, echo().await);
    let lines = |slow_start: &str| format!("balance = \"round-robin\"\nslow_start = \"{slow_start}\"\n");
    let gateway = setup().start(&upstream(&lines("1h"), &[a.address]));
    let address = gateway.addresses()[1];
    assert_eq!(get(address).await.status(), 200);
    // A sixteenth of its weight at first: 4 of 68.
    let gateway = reload(gateway, upstream(&lines("1h"), &[a.address, b.address])).await;
    let before = seen_a.count();
    for _ in 0..68 {
        assert_eq!(get(address).await.status(), 200);
    }
    assert_eq!((seen_a.count() - before, seen_b.count()), (64, 4));
    // And half of all when its time is over.
    let _gateway = reload(gateway, upstream(&lines("100ms"), &[a.address, b.address])).await;
    let halves = async {
        loop {
            let before = seen_b.count();
            for _ in 0..10 {
                assert_eq!(get(address).await.status(), 200);
            }
            if seen_b.count() - before == 5 {
                return;
            }
        }
    };
    soon(halves).await;
}

#[tokio::test]
async fn of_two_that_are_drawn_the_less_loaded_gets_it() {
    let ((a, seen_a), (b, seen_b), (c, seen_c)) = (echo().await, echo().await, echo().await);
    let lines = "balance = \"random-two\"\n";
    // Of two servers both are drawn.
    let gateway = setup().start(&upstream(lines, &[a.address, b.address]));
    let mut sockets = Vec::new();
    for n in 1..=5 {
        sockets.push(open(&gateway).await);
        sockets.push(open(&gateway).await);
        assert_eq!((seen_a.count(), seen_b.count()), (n, n));
    }
    let gateway = setup().start(&upstream(lines, &[a.address, b.address, c.address]));
    let before = [seen_a.count(), seen_b.count(), 0];
    for _ in 0..30 {
        sockets.push(open(&gateway).await);
    }
    let mut counts = [&seen_a, &seen_b, &seen_c].map(Seen::count);
    counts.iter_mut().zip(before).for_each(|(count, before)| *count -= before);
    assert!(counts.iter().all(|count| (7..=13).contains(count)), "{counts:?}");
    for socket in &mut sockets {
        socket.echoes("hello").await;
    }
}

#[tokio::test]
async fn operators_see_every_server() {
    let (good, _seen) = echo().await;
    let broken = "HTTP/1.1 500 Broken\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let bad = Backend::saying(broken).await;
    let lines = "balance = \"round-robin\"\n[upstream.health]\npassive = { failures = 2, eject = \"1h\" }\n";
    let text = upstream(lines, &[good.address, bad.address]) + "[admin]\naddress = \"127.0.0.3:0\"\n";
    let gateway = setup().start(&text);
    for _ in 0..6 {
        get(gateway.addresses()[1]).await;
    }
    let mut socket = open(&gateway).await;
    socket.echoes("hello").await;
    let mut io = TcpStream::connect(gateway.admin()).await.unwrap();
    let metrics = ask(&mut io, "GET /metrics HTTP/1.1\r\nHost: admin\r\n\r\n").await.text();
    let labels = |server: SocketAddr| format!("{{upstream=\"pool\",backend=\"{server}\"}}");
    for (name, good_value, bad_value) in [
        ("wssgate_backend_up", "1", "0"),
        ("wssgate_backend_sessions", "1", "0"),
        ("wssgate_backend_requests_in_flight", "0", "0"),
        ("wssgate_backend_requests_total", "5", "2"),
        ("wssgate_backend_failures_total", "0", "2"),
    ] {
        for (server, value) in [(good.address, good_value), (bad.address, bad_value)] {
            let line = format!("{name}{} {value}", labels(server));
            assert!(metrics.lines().any(|other| other == line), "no {line:?} in\n{metrics}");
        }
    }
    assert!(metrics.contains("\nwssgate_upstream_waiting{upstream=\"pool\"} 0\n"), "{metrics}");
    for words in [&["upstreams"][..], &["status"]] {
        let table = command(&gateway, words).await;
        let row = |server: SocketAddr| {
            let row = table
                .lines()
                .find(|line| line.contains(&server.to_string()))
                .unwrap_or_else(|| panic!("{table}"));
            row.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ")
        };
        // Upstream, server, weight, state, sessions, in flight, requests, failures.
        let (up, ejected) = (row(good.address), row(bad.address));
        assert!(up.starts_with(&format!("pool {} 1 up 1 0 5 0", good.address)), "{table}");
        assert!(ejected.starts_with(&format!("pool {} 1 ejected 0 0 2 2", bad.address)), "{table}");
        assert!(ejected.contains("it answered 500"), "{table}");
    }
}

#[tokio::test]
async fn when_no_server_is_up_clients_hear_it_at_once() {
    let (first, second) = (Backend::unreachable(), Backend::unreachable());
    let lines = "queue = { length = 5, timeout = \"1h\" }\n\
                 [upstream.health]\nprobe = \"tcp\"\ninterval = \"20ms\"\nfall = 1\n";
    let gateway = setup().start(&upstream(lines, &[first, second]));
    let gateway = spawn_blocking(move || {
        gateway.wait_nth("a backend is down", 1);
        gateway
    })
    .await
    .unwrap();
    // The queue is for servers that are full, and not for those that are down.
    assert_eq!(get(gateway.addresses()[1]).await.status(), 503);
    let io = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
    assert_eq!(WebSocket::connect(io, "default.test", "/", "").await.err().unwrap().status(), 503);
    for n in 0..2 {
        let line = gateway.wait_nth("request", n);
        let why = line["cause"].as_str().unwrap();
        for server in [first, second] {
            assert!(why.contains(&format!("{server} is down (can't connect to {server}: ")), "{why}");
        }
    }
}

/// Asks again and again, over kept and over new connections. Returns how many answers were not 200.
async fn load(address: SocketAddr, stop: Arc<AtomicBool>, done: Arc<AtomicUsize>) -> usize {
    let mut bad = 0;
    let mut kept = TcpStream::connect(address).await.unwrap();
    while !stop.load(Ordering::SeqCst) {
        let answer = ask(&mut kept, "GET /kept HTTP/1.1\r\nHost: default.test\r\n\r\n").await;
        bad += usize::from(answer.status() != 200) + usize::from(get(address).await.status() != 200);
        let io = TcpStream::connect(address).await.unwrap();
        match WebSocket::connect(io, "default.test", "/ws", "").await {
            Ok((mut socket, _)) => {
                socket.echoes("hello").await;
                socket.close(1000).await;
                socket.expect_close(1000).await;
            }
            Err(_) => bad += 1,
        }
        done.fetch_add(3, Ordering::SeqCst);
    }
    bad
}

#[tokio::test]
async fn no_request_is_lost_while_servers_come_and_go() {
    for balance in ["least-sessions", "hash"] {
        let lines = format!("balance = \"{balance}\"\n");
        let mut servers = vec![echo().await.0, echo().await.0];
        let addresses = |servers: &[Backend]| servers.iter().map(|server| server.address).collect::<Vec<_>>();
        let mut gateway = setup().start(&upstream(&lines, &addresses(&servers)));
        let (address, stop) = (gateway.addresses()[1], Arc::new(AtomicBool::new(false)));
        let (done, mut clients) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
        for _ in 0..8 {
            clients.spawn(load(address, stop.clone(), done.clone()));
        }
        for _ in 0..8 {
            servers.push(echo().await.0);
            gateway = reload(gateway, upstream(&lines, &addresses(&servers))).await;
            let before = done.load(Ordering::SeqCst);
            until(async || done.load(Ordering::SeqCst) >= before + 24).await;
            // One that the file doesn't name any more listens no longer.
            let gone = servers.remove(0);
            gateway = reload(gateway, upstream(&lines, &addresses(&servers))).await;
            let before = done.load(Ordering::SeqCst);
            until(async || done.load(Ordering::SeqCst) >= before + 24).await;
            drop(gone);
        }
        stop.store(true, Ordering::SeqCst);
        let bad: usize = clients.join_all().await.into_iter().sum();
        assert_eq!(bad, 0, "of {}", done.load(Ordering::SeqCst));
        assert!(done.load(Ordering::SeqCst) > 8 * 48);
    }
}
