//! Which server of several gets a request, and what happens when one fails.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::backend::{Backend, Seen, echo};
use support::gateway::{Gateway, Setup, config};
use support::http1::{Answer, ask};
use support::ws::WebSocket;
use support::{soon, until};
use tokio::net::TcpStream;

fn setup() -> Setup {
    Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"])
}

/// A gateway with one route to an upstream of these servers, with these further lines.
fn start(lines: &str, servers: &[SocketAddr]) -> Gateway {
    setup().start(&config("workers = 2", &upstream(lines, servers)))
}

fn upstream(lines: &str, servers: &[SocketAddr]) -> String {
    let servers: Vec<_> = servers.iter().map(|address| format!("\"http://{address}\"")).collect();
    format!(
        "[[upstream]]\nname = \"pool\"\nservers = [{}]\n{lines}\n[[route]]\npath = \"/\"\nproxy = \"pool\"\n",
        servers.join(", ")
    )
}

async fn plain(gateway: &Gateway) -> TcpStream {
    TcpStream::connect(gateway.addresses()[1]).await.unwrap()
}

async fn get(gateway: &Gateway, fields: &str) -> Answer {
    request(gateway, "GET", "/", fields).await
}

async fn request(gateway: &Gateway, method: &str, path: &str, fields: &str) -> Answer {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: default.test\r\n{fields}\r\n");
    ask(&mut plain(gateway).await, request).await
}

async fn open(gateway: &Gateway) -> WebSocket {
    WebSocket::connect(plain(gateway).await, "default.test", "/ws", "").await.unwrap().0
}

/// How often each server is named as the backend of a finished request.
fn backends(gateway: &Gateway) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in gateway.lines("request") {
        *counts.entry(line["backend"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    counts
}

async fn three() -> ([Backend; 3], [Seen; 3]) {
    let ((a, x), (b, y), (c, z)) = (echo().await, echo().await, echo().await);
    ([a, b, c], [x, y, z])
}

#[tokio::test]
async fn websockets_go_where_the_fewest_are() {
    let (backends, seen) = three().await;
    let gateway = start("", &backends.each_ref().map(|backend| backend.address));
    let counts = |seen: &[Seen; 3]| seen.each_ref().map(Seen::count);
    let mut open_now = Vec::new();
    for _ in 0..9 {
        open_now.push(open(&gateway).await);
    }
    // Both workers count together.
    assert_eq!(counts(&seen), [3, 3, 3]);
    for socket in &mut open_now {
        socket.echoes("hello").await;
    }
    // The four that end make room for the next four, wherever that is.
    for mut socket in open_now.drain(..4) {
        socket.close(1000).await;
        socket.expect_close(1000).await;
    }
    gateway.wait_nth("session", 3);
    for _ in 0..4 {
        open_now.push(open(&gateway).await);
    }
    let live = |address: SocketAddr| {
        let ended = gateway.lines("session");
        ended.iter().filter(|line| line["backend"] == address.to_string()).count()
    };
    for (backend, seen) in backends.iter().zip(&seen) {
        assert_eq!(seen.count() - live(backend.address), 3);
    }
}

#[tokio::test]
async fn a_list_stands_for_an_upstream_and_weights_count() {
    let (servers, seen) = three().await;
    let [a, b, c] = servers.each_ref().map(|server| server.address);
    let gateway = setup().start(&config(
        "workers = 1",
        &format!(
            "[[upstream]]\nname = \"heavy\"\nbalance = \"round-robin\"\n\
             servers = [{{ address = \"http://{a}\", weight = 3 }}, \"http://{b}\"]\n\
             [[route]]\npath = \"/heavy\"\nproxy = \"heavy\"\n\
             [[route]]\npath = \"/\"\nproxy = [\"http://{b}\", \"http://{c}\"]\n"
        ),
    ));
    for _ in 0..8 {
        assert_eq!(request(&gateway, "GET", "/heavy", "").await.status(), 200);
    }
    assert_eq!(seen.each_ref().map(Seen::count), [6, 2, 0]);
    for _ in 0..8 {
        assert_eq!(get(&gateway, "").await.status(), 200);
    }
    assert_eq!(seen.each_ref().map(Seen::count), [6, 6, 4]);
}

#[tokio::test]
async fn one_key_goes_to_one_server() {
    let (servers, seen) = three().await;
    let servers = servers.each_ref().map(|server| server.address);
    for (hash, fields) in [
        ("header:X-Room", "X-Room: "),
        ("cookie:room", "Cookie: a=b; room="),
        ("query:room", ""),
        ("client", ""),
    ] {
        let gateway = start(&format!("balance = \"hash\"\nhash = \"{hash}\""), &servers);
        let mut used = BTreeMap::new();
        for room in 0..24 {
            for _ in 0..3 {
                let path = format!("/?room={room}");
                let fields = if fields.is_empty() { String::new() } else { format!("{fields}{room}\r\n") };
                assert_eq!(request(&gateway, "GET", &path, &fields).await.status(), 200);
                let line = gateway.wait_nth("request", used.values().map(Vec::len).sum());
                let backend = line["backend"].as_str().unwrap().to_owned();
                used.entry(if hash == "client" { 0 } else { room }).or_insert_with(Vec::new).push(backend);
            }
        }
        for servers in used.values() {
            assert!(servers.iter().all(|server| *server == servers[0]), "{hash}: {servers:?}");
        }
        let all: std::collections::BTreeSet<_> = used.values().flatten().collect();
        assert_eq!(all.len(), if hash == "client" { 1 } else { 3 }, "{hash}");
    }
    assert!(seen.iter().all(|seen| seen.count() > 0));
}

#[tokio::test]
async fn another_server_is_asked_when_one_refuses_or_breaks() {
    let (good, seen) = echo().await;
    let refuses = Backend::unreachable();
    let breaks = Backend::saying("").await;
    for bad in [refuses, breaks.address] {
        let gateway = start("balance = \"round-robin\"", &[bad, good.address]);
        for _ in 0..6 {
            assert_eq!(get(&gateway, "").await.status(), 200);
            let mut socket = open(&gateway).await;
            socket.echoes("hello").await;
        }
        assert_eq!(backends(&gateway).keys().collect::<Vec<_>>(), [&good.address.to_string()]);
    }
    assert_eq!(seen.count(), 24);
}

#[tokio::test]
async fn what_may_not_be_repeated_is_not() {
    let breaks = Backend::start(|mut tcp| async move {
        let head = support::http1::read_head(&mut tcp).await.unwrap();
        assert_ne!(head.line, "");
    })
    .await;
    let early = Backend::saying("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await;
    let cut = Backend::saying("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe").await;
    let (good, seen) = echo().await;
    // A POST that was sent may have been carried out (RFC 9110 §9.2.2).
    let gateway = start("balance = \"round-robin\"", &[breaks.address, good.address]);
    let statuses = [
        request(&gateway, "POST", "/", "").await.status(),
        request(&gateway, "POST", "/", "").await.status(),
    ];
    assert_eq!(statuses, [502, 200]);
    assert_eq!(seen.count(), 1);
    // Of these answers something has come.
    for bad in [early.address, cut.address] {
        let gateway = start("balance = \"round-robin\"", &[bad, good.address]);
        let mut io = plain(&gateway).await;
        let request = b"GET / HTTP/1.1\r\nHost: default.test\r\nConnection: close\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut io, request).await.unwrap();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut io, &mut Vec::new()).await;
        gateway.wait("request");
        assert_eq!(seen.count(), 1);
        assert_eq!(backends(&gateway).keys().collect::<Vec<_>>(), [&bad.to_string()]);
    }
    // A body that was not sent goes to the other server whole.
    let gateway = start("balance = \"round-robin\"", &[Backend::unreachable(), good.address]);
    for _ in 0..2 {
        let mut io = plain(&gateway).await;
        let body = "x".repeat(100_000);
        let answer = ask(
            &mut io,
            format!("POST / HTTP/1.1\r\nHost: default.test\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
        )
        .await;
        assert_eq!(answer.status(), 200);
        assert_eq!(seen.last().get("content-length"), Some("100000"));
    }
}

/// A server that takes a request with its body of five bytes, says `answer` and closes.
async fn takes_five(answer: &'static str) -> (Backend, Seen) {
    let seen = Seen::default();
    let heads = seen.clone();
    let backend = Backend::start(move |mut tcp| {
        let heads = heads.clone();
        async move {
            let head = support::http1::read_head(&mut tcp).await.unwrap();
            let _ = tokio::io::AsyncReadExt::read_exact(&mut tcp, &mut [0; 5]).await;
            heads.push(head);
            let _ = tokio::io::AsyncWriteExt::write_all(&mut tcp, answer.as_bytes()).await;
        }
    })
    .await;
    (backend, seen)
}

#[tokio::test]
async fn a_body_that_is_held_goes_to_the_next_server() {
    let (good, seen) = echo().await;
    let chunked = |method: &str| {
        format!(
            "{method} / HTTP/1.1\r\nHost: default.test\r\nTransfer-Encoding: chunked\r\n\r\n\
             2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
        )
    };
    let busy = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    for (answer, lines) in [
        ("", "buffer_request = \"1KiB\""),
        (busy, "buffer_request = \"1KiB\"\nretry = { on = [\"503\"] }"),
        ("", ""),
    ] {
        let (bad, asked) = takes_five(answer).await;
        let lines = format!("balance = \"round-robin\"\n{lines}\n[upstream.health]\npassive = \"off\"");
        let gateway = start(&lines, &[bad.address, good.address]);
        let before = seen.count();
        let mut statuses = Vec::new();
        for method in ["PUT", "PUT", "POST", "POST", "DELETE", "DELETE"] {
            statuses.push(ask(&mut plain(&gateway).await, chunked(method)).await.status());
            // The next one begins with the bad server again.
            if !lines.contains("buffer_request") {
                break;
            }
        }
        if lines.contains("buffer_request") {
            // A POST may have been carried out (RFC 9110 §9.2.2).
            let failed = if answer.is_empty() { 502 } else { 503 };
            assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 5, "{statuses:?}");
            assert!(statuses[2..4].contains(&failed), "{statuses:?}");
            assert_eq!(asked.count(), 5);
            let got: Vec<_> = seen.all().split_off(before);
            assert!(got.iter().all(|head| head.get("content-length") == Some("5")), "{got:?}");
        } else {
            assert_eq!(statuses, [502]);
            assert_eq!(seen.count(), before);
        }
    }
}

#[tokio::test]
async fn fields_name_the_server_that_gets_the_request() {
    let (good, seen) = echo().await;
    let busy = Backend::saying("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    let breaks = Backend::saying("").await;
    for bad in [busy.address, breaks.address, Backend::unreachable()] {
        let lines = "balance = \"round-robin\"\nretry = { on = [\"503\", \"connect\", \"broken\"] }\n\
                     [upstream.health]\npassive = \"off\"";
        let fields = "request_headers = { set = { Host = \"{upstream}\", X-For = \"{host}\" } }\n";
        let gateway =
            setup().start(&config("workers = 1", &(upstream(lines, &[bad, good.address]) + fields)));
        let name = good.address.to_string();
        for _ in 0..2 {
            assert_eq!(get(&gateway, "X-For: me\r\n").await.status(), 200);
            let head = seen.last();
            assert_eq!((head.all("host"), head.all("x-for")), (vec![&*name], vec!["default.test"]));
            open(&gateway).await.echoes("hello").await;
            assert_eq!(seen.last().all("host"), [&*name]);
            // A client that names no host.
            let answer = ask(&mut plain(&gateway).await, "GET / HTTP/1.0\r\n\r\n").await;
            assert_eq!((answer.status(), seen.last().all("host")), (200, vec![&*name]));
        }
    }
}

#[tokio::test]
async fn answers_that_say_try_another_are_obeyed() {
    let busy = Backend::saying(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\nConnection: close\r\n\r\nbusy\n",
    )
    .await;
    let (good, seen) = echo().await;
    let servers = [busy.address, good.address];
    // Handshakes always are; requests only where that is written.
    let gateway = start("balance = \"round-robin\"", &servers);
    for _ in 0..4 {
        open(&gateway).await.echoes("hello").await;
    }
    assert_eq!(seen.count(), 4);
    let mut statuses = [get(&gateway, "").await.status(), get(&gateway, "").await.status()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503]);
    let gateway = start("balance = \"round-robin\"\nretry = { on = [\"503\"] }", &servers);
    for _ in 0..4 {
        assert_eq!(get(&gateway, "").await.status(), 200);
        assert_eq!(request(&gateway, "POST", "/", "Content-Length: 0\r\n").await.status() / 100 % 3, 2);
    }
    // Everything is busy: the client hears it from the last server, and each was asked once.
    let other = Backend::saying("HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\n\r\n").await;
    let gateway = start("retry = { attempts = 5, on = [\"503\"] }", &[busy.address, other.address]);
    assert_eq!(get(&gateway, "").await.status(), 503);
    let refused = WebSocket::connect(plain(&gateway).await, "default.test", "/", "").await;
    assert_eq!(refused.err().unwrap().status(), 503);
}

#[tokio::test]
async fn retries_have_a_budget() {
    let (good, seen) = echo().await;
    let busy = Backend::saying("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    let lines = "balance = \"round-robin\"\nretry = { on = [\"503\"] }\n[upstream.health]\npassive = \"off\"";
    let gateway = start(lines, &[busy.address, good.address]);
    let mut io = plain(&gateway).await;
    let mut bad = 0;
    for _ in 0..200 {
        let answer = ask(&mut io, "GET / HTTP/1.1\r\nHost: default.test\r\n\r\n").await;
        bad += usize::from(answer.status() == 503);
    }
    assert_eq!(seen.count() + bad, 200);
    let retries = gateway.lines("the request goes to another backend").len();
    assert!((10..=40).contains(&retries), "{retries}");
    assert!(bad > 10, "{bad}");
}

#[tokio::test]
async fn a_server_that_fails_is_ejected_and_the_last_one_never() {
    let busy = Backend::saying("HTTP/1.1 500 Broken\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    let (good, _) = echo().await;
    let lines = "balance = \"round-robin\"\n[upstream.health]\npassive = { failures = 3, eject = \"1h\" }";
    let gateway = start(lines, &[busy.address, good.address]);
    let mut bad = 0;
    for _ in 0..30 {
        bad += usize::from(get(&gateway, "").await.status() == 500);
    }
    assert_eq!(bad, 3);
    let line = gateway.wait("a backend is ejected");
    assert_eq!(
        (line["backend"].as_str(), line["upstream"].as_str()),
        (Some(&*busy.address.to_string()), Some("pool"))
    );
    // It stays ejected after a reload.
    gateway.reload();
    for _ in 0..6 {
        assert_eq!(get(&gateway, "").await.status(), 200);
    }
    let other =
        Backend::saying("HTTP/1.1 500 Broken\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    let gateway = start(lines, &[busy.address, other.address]);
    for _ in 0..30 {
        assert_eq!(get(&gateway, "").await.status(), 500, "one of them is always asked");
    }
    gateway.wait("a backend is ejected");
    assert_eq!(gateway.lines("a backend is ejected").len(), 1);
}

#[tokio::test]
async fn a_server_has_a_limit_and_others_wait_for_it() {
    let (backend, seen) = echo().await;
    let servers = format!("servers = [{{ address = \"http://{}\", max_sessions = 2 }}]", backend.address);
    let text = |queue: &str| {
        format!(
            "[[upstream]]\nname = \"small\"\n{servers}\n{queue}\n[[route]]\npath = \"/\"\nproxy = \"small\"\n{CONTROL}"
        )
    };
    let gateway = setup().start(&config("workers = 2", &text("")));
    let (mut first, _second) = (open(&gateway).await, open(&gateway).await);
    let answer = get(&gateway, "").await;
    assert_eq!((answer.status(), answer.head.get("retry-after")), (503, Some("1")));
    let line = gateway.wait("request");
    assert!(line["cause"].as_str().unwrap().contains("max_sessions"), "{line}");

    gateway.write_config(&config("workers = 2", &text("queue = { length = 2, timeout = \"20s\" }")));
    gateway.reload();
    // The sessions of the old generation count on.
    let waits = || {
        let address = gateway.addresses()[1];
        tokio::spawn(async move {
            let mut io = TcpStream::connect(address).await.unwrap();
            ask(&mut io, "GET /waits HTTP/1.1\r\nHost: default.test\r\n\r\n").await
        })
    };
    let (one, two) = (waits(), waits());
    soon(async { while upstreams(&gateway).await[0]["waiting"] != 2 {} }).await;
    let answer = get(&gateway, "").await;
    assert_eq!((answer.status(), answer.head.get("retry-after")), (503, Some("20")));
    first.close(1000).await;
    first.expect_close(1000).await;
    let (one, two) = (one.await.unwrap(), two.await.unwrap());
    assert_eq!((one.status(), two.status()), (200, 200));
    assert_eq!(seen.last().line, "GET /waits HTTP/1.1");

    gateway.write_config(&config("workers = 2", &text("queue = { length = 2, timeout = \"50ms\" }")));
    gateway.reload();
    let _third = open(&gateway).await;
    assert_eq!(get(&gateway, "").await.status(), 503);
}

/// A server that echoes WebSockets and answers requests, with 503 while it is not well.
async fn patient() -> (Backend, Seen, Arc<AtomicBool>) {
    let (seen, is_well) = (Seen::default(), Arc::new(AtomicBool::new(true)));
    let (heads, well) = (seen.clone(), is_well.clone());
    let backend = Backend::start(move |mut tcp| {
        let (heads, well) = (heads.clone(), well.clone());
        async move {
            if well.load(Ordering::SeqCst) {
                return support::backend::serve(tcp, &heads).await;
            }
            let _ = support::http1::read_head(&mut tcp).await;
            let answer = b"HTTP/1.1 503 Not Well\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            let _ = tokio::io::AsyncWriteExt::write_all(&mut tcp, answer).await;
        }
    })
    .await;
    (backend, seen, is_well)
}

/// Waits for a line of the log while the servers of this test go on.
async fn line(gateway: &Gateway, message: &str, nth: usize) -> serde_json::Value {
    let look = async {
        loop {
            if let Some(line) = gateway.lines(message).into_iter().nth(nth) {
                return line;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon(look).await
}

/// What `wssgate upstreams --json` says of the servers of the first upstream.
async fn servers(gateway: &Gateway) -> Vec<serde_json::Value> {
    upstreams(gateway).await[0]["servers"].as_array().unwrap().clone()
}

/// What it says of all.
async fn upstreams(gateway: &Gateway) -> serde_json::Value {
    let socket = gateway.path().join("control.sock");
    let command = move || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_wssgate"));
        command.args(["upstreams", "--json", "--socket"]).arg(socket).output().unwrap()
    };
    let output = tokio::task::spawn_blocking(command).await.unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    answer["upstreams"].clone()
}

const CONTROL: &str = "[control]\nsocket = \"control.sock\"\n";

#[tokio::test]
async fn probes_take_a_server_out_and_bring_it_back() {
    let (a, seen_a, is_well) = patient().await;
    let websockets = |seen: &Seen| seen.all().iter().filter(|head| head.line.contains("/ws")).count();
    let (b, _) = echo().await;
    let health = "[upstream.health]\nprobe = \"http\"\npath = \"/healthz\"\nstatus = 200\ninterval = \"50ms\"\n\
                  rise = 2\nfall = 2\non_down = \"close\"\n";
    let text = upstream(health, &[a.address, b.address]) + CONTROL;
    let gateway = setup().start(&config("workers = 2\ndrain_window = \"200ms\"", &text));
    let (mut at_a, mut at_b) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let before = websockets(&seen_a);
        let socket = open(&gateway).await;
        if websockets(&seen_a) > before { at_a.push(socket) } else { at_b.push(socket) }
    }
    is_well.store(false, Ordering::SeqCst);
    let down = line(&gateway, "a backend is down", 0).await;
    assert_eq!(
        (down["backend"].as_str(), down["sessions"].as_u64()),
        (Some(&*a.address.to_string()), Some(2))
    );
    assert_eq!(
        down["cause"],
        "it answered 503 Not Well, expected 200".replace("Not Well", "Service Unavailable")
    );
    for socket in &mut at_a {
        socket.expect_close(1012).await;
    }
    for socket in &mut at_b {
        socket.echoes("still there?").await;
    }
    assert_eq!((at_a.len(), at_b.len()), (2, 2));
    for _ in 0..6 {
        assert_eq!(get(&gateway, "").await.status(), 200);
    }
    let shown = servers(&gateway).await;
    assert_eq!((shown[0]["state"].as_str(), shown[1]["state"].as_str()), (Some("down"), Some("up")));
    assert!(shown[0]["why"].as_str().unwrap().contains("it answered 503"), "{shown:?}");
    assert!(shown[0]["probe_problem"].is_string() && shown[1]["probe_problem"].is_null());
    assert!(shown[1]["requests"].as_u64().unwrap() >= 8);
    // What is down stays down over a reload, and comes back when it is well.
    gateway.reload();
    assert_eq!(servers(&gateway).await[0]["state"], "down");
    is_well.store(true, Ordering::SeqCst);
    line(&gateway, "a backend is up again", 0).await;
    let before = gateway.lines("request").len();
    for _ in 0..6 {
        assert_eq!(get(&gateway, "").await.status(), 200);
    }
    until(async || {
        let lines = gateway.lines("request").split_off(before);
        lines.iter().any(|line| line["backend"] == a.address.to_string())
    })
    .await;
}

#[tokio::test]
async fn when_all_servers_are_down_the_log_says_why_of_each() {
    let (open_port, _) = echo().await;
    let plain_http = Backend::saying("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    for (probe, bad, cause) in [
        ("tcp", Backend::unreachable(), "can't connect to "),
        ("websocket", plain_http.address, "it answered 200 OK, expected 101"),
    ] {
        let health = format!(
            "[upstream.health]\nprobe = \"{probe}\"\ninterval = \"30ms\"\nfall = 1\npassive = \"off\"\n"
        );
        let gateway = start(&health, &[bad, open_port.address]);
        let down = line(&gateway, "a backend is down", 0).await;
        assert!(down["cause"].as_str().unwrap().contains(cause), "{down}");
        assert_eq!(get(&gateway, "").await.status(), 200);
        let gateway = start(&health, &[bad]);
        line(&gateway, "a backend is down", 0).await;
        let answer = get(&gateway, "").await;
        assert_eq!(answer.status(), 503);
        let line = line(&gateway, "request", 0).await;
        let why = line["cause"].as_str().unwrap();
        assert!(why.contains(&format!("{bad} is down (")) && why.contains(cause), "{why}");
    }
}

#[tokio::test]
async fn a_drained_server_is_passed_over_and_its_sessions_end() {
    let (a, seen_a) = echo().await;
    let (b, seen_b) = echo().await;
    let text = upstream("", &[a.address, b.address]) + CONTROL;
    let gateway = setup().start(&config("workers = 2\ndrain_window = \"100ms\"", &text));
    let mut at_a = open(&gateway).await;
    let is_at_a = seen_a.count() == 1;
    let mut at_b = open(&gateway).await;
    if !is_at_a {
        std::mem::swap(&mut at_a, &mut at_b);
    }
    assert_eq!((seen_a.count(), seen_b.count()), (1, 1));
    let command = |name: &'static str| {
        let (socket, server) = (gateway.path().join("control.sock"), a.address.to_string());
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_wssgate"));
        command.args([name, &server, "--socket"]).arg(socket);
        async { tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap() }
    };
    let said = command("drain").await;
    assert!(String::from_utf8(said.stdout).unwrap().contains("closed within 100ms: 1"));
    at_a.expect_close(1001).await;
    at_b.echoes("hello").await;
    for _ in 0..4 {
        open(&gateway).await.echoes("hello").await;
    }
    assert_eq!(seen_a.count(), 1);
    assert_eq!(servers(&gateway).await[0]["state"], "drained");
    command("undrain").await;
    for _ in 0..4 {
        open(&gateway).await.echoes("hello").await;
    }
    assert!(seen_a.count() > 1);
}

#[tokio::test]
async fn what_is_known_of_servers_goes_on_in_another_process() {
    let (good, seen, is_well) = patient().await;
    let bad = Backend::saying("HTTP/1.1 500 Broken\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    let lines = "balance = \"round-robin\"\nsticky = {}\n\
                 [upstream.health]\nprobe = \"http\"\npath = \"/healthz\"\nstatus = 200\ninterval = \"30ms\"\n\
                 fall = 2\nrise = 100\non_down = \"close\"\npassive = { failures = 1, eject = \"1h\" }\n";
    let text =
        upstream(lines, &[good.address]).replace("pool", "probed").replace("/\"\nproxy", "/probed\"\nproxy");
    let passive =
        "balance = \"round-robin\"\n[upstream.health]\npassive = { failures = 1, eject = \"1h\" }\n";
    let text = text + &upstream(passive, &[good.address, bad.address]) + CONTROL;
    let gateway = setup().start(&config("workers = 2\ndrain_window = \"50ms\"", &text));
    // A cookie with a random key, an ejected server, two sessions.
    let answer = request(&gateway, "GET", "/probed", "").await;
    let cookie = answer.head.get("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let mut statuses = BTreeMap::new();
    for _ in 0..4 {
        *statuses.entry(get(&gateway, "").await.status()).or_insert(0) += 1;
    }
    assert_eq!(statuses, BTreeMap::from([(200, 3), (500, 1)]));
    let mut sessions = Vec::new();
    for _ in 0..2 {
        let io = plain(&gateway).await;
        sessions.push(WebSocket::connect(io, "default.test", "/probed", "").await.unwrap().0);
    }
    let before = upstreams(&gateway).await;

    let gateway = tokio::task::spawn_blocking(move || {
        gateway.take_over();
        gateway
    })
    .await
    .unwrap();
    line(&gateway, "sessions moved: they go on in the new process", 0).await;
    for session in &mut sessions {
        session.echoes("hello").await;
    }
    let look = async {
        loop {
            let after = upstreams(&gateway).await;
            if after[0]["servers"][0]["sessions"] == 2 {
                return after;
            }
        }
    };
    let after = soon(look).await;
    assert_eq!(after[1]["servers"][1]["state"], "ejected", "{after}");
    assert!(after[1]["servers"][1]["why"].as_str().unwrap().contains("it answered 500"), "{after}");
    for field in ["requests", "failures"] {
        assert_eq!(after[1]["servers"][1][field], before[1]["servers"][1][field], "{field}");
    }
    for _ in 0..4 {
        assert_eq!(get(&gateway, "").await.status(), 200);
    }
    let again = request(&gateway, "GET", "/probed", &format!("Cookie: {cookie}\r\n")).await;
    assert_eq!((again.status(), again.head.get("set-cookie")), (200, None));
    // The sessions that have come count there, and end when it is down.
    is_well.store(false, Ordering::SeqCst);
    for session in &mut sessions {
        session.expect_close(1012).await;
    }
    let down = line(&gateway, "a backend is down", 0).await;
    assert_eq!(down["sessions"], 2);
    // So it is in the third process, too, from the beginning.
    let gateway = tokio::task::spawn_blocking(move || {
        gateway.take_over();
        gateway
    })
    .await
    .unwrap();
    let asked = seen.count();
    assert_eq!(request(&gateway, "GET", "/probed", "").await.status(), 503);
    assert_eq!(upstreams(&gateway).await[0]["servers"][0]["state"], "down");
    assert_eq!(seen.count(), asked);
}

/// What was spent on retries is not there again after a takeover.
#[tokio::test]
async fn a_takeover_hands_on_the_retry_budget() {
    let (good, _seen) = echo().await;
    let servers = [Backend::unreachable(), good.address];
    loop {
        let gateway = start("balance = \"round-robin\"\n[upstream.health]\npassive = \"off\"", &servers);
        let failed = async |count: usize| {
            let mut failed = 0;
            for _ in 0..count {
                failed += usize::from(get(&gateway, "").await.status() == 502);
            }
            failed
        };
        // Ten retries in ten seconds are free, and a fifth of so few requests is less.
        let began = Instant::now();
        until(async || failed(2).await > 0).await;
        gateway.take_over();
        let then = failed(4).await;
        if began.elapsed() < Duration::from_secs(8) {
            return assert_eq!(then, 2, "each one that the first server gets");
        }
    }
}
