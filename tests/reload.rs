//! SIGHUP under live sockets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use support::backend::echo;
use support::gateway::{Gateway, Setup, config, route};
use support::http1::ask;
use support::http2::Http2;
use support::pki::Pki;
use support::tls::{Tls, leaf};
use support::ws::{TEXT, WebSocket};
use support::{soon, until};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

struct Rig {
    gateway: Gateway,
    pki: Pki,
    config: String,
}

fn start(routes: &str) -> Rig {
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate"));
    let pki = Pki::new();
    pki.issue(&["default.test"]).write(&setup.path().join("certs"), "default");
    let config = config("drain_window = \"500ms\"", routes);
    Rig { gateway: setup.start(&config), pki, config }
}

async fn over_http1(gateway: &Gateway, path: &str) -> WebSocket {
    let io = Tls::new("default.test", &["http/1.1"]).connect(gateway.address()).await.unwrap();
    WebSocket::connect(io, "default.test", path, "").await.unwrap().0
}

async fn status(gateway: &Gateway, path: &str) -> u16 {
    let mut io = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
    ask(&mut io, format!("GET {path} HTTP/1.1\r\nHost: default.test\r\n\r\n")).await.status()
}

async fn served_leaf(gateway: &Gateway) -> Vec<u8> {
    leaf(&Tls::new("default.test", &[]).connect(gateway.address()).await.unwrap()).to_vec()
}

/// Echoes until told to stop, then closes in order. Returns how many messages went there and back.
async fn keep_echoing(mut socket: WebSocket, stop: Arc<AtomicBool>, all: Arc<AtomicU64>) -> u64 {
    let mut count = 0;
    while !stop.load(Ordering::SeqCst) {
        socket.echoes(&format!("message {count}")).await;
        count += 1;
        all.fetch_add(1, Ordering::SeqCst);
    }
    socket.close(1000).await;
    socket.expect_close(1000).await;
    count
}

#[tokio::test]
async fn two_hundred_live_sockets_notice_nothing() {
    let (backend, _seen) = echo().await;
    let rig = start(&route("/", backend.address));
    let (stop, all) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut echoing = JoinSet::new();
    for _ in 0..100 {
        echoing.spawn(keep_echoing(over_http1(&rig.gateway, "/").await, stop.clone(), all.clone()));
    }
    for _ in 0..4 {
        let io = Tls::new("default.test", &["h2"]).connect(rig.gateway.address()).await.unwrap();
        let mut client = Http2::connect(io, "default.test").await;
        for _ in 0..25 {
            let (socket, _) = client.websocket("/", &[]).await.unwrap();
            echoing.spawn(keep_echoing(socket, stop.clone(), all.clone()));
        }
        tokio::spawn(client.task);
    }
    assert_eq!(status(&rig.gateway, "/new").await, 200); // by the route for everything
    let mut last = served_leaf(&rig.gateway).await;
    for round in 1..=5u64 {
        let renewed = rig.pki.issue(&["default.test"]);
        renewed.write(&rig.gateway.path().join("certs"), "default");
        rig.gateway.write_config(&format!("{}[[route]]\npath = \"/new\"\nservice = \"echo\"\n", rig.config));
        let report = rig.gateway.reload();
        assert_eq!((&report["message"], &report["generation"]), (&"reloaded".into(), &(round + 1).into()));
        assert_eq!(report["names_replaced"], "default.test");
        assert_eq!(report["routes_added"], u64::from(round == 1));
        assert_eq!(report["sessions_ended"], 0);
        let now = served_leaf(&rig.gateway).await;
        assert!(now != last && now == *renewed.der);
        assert_eq!(status(&rig.gateway, "/new").await, 426);
        last = now;
        // Every round sees traffic after the reload.
        let before = all.load(Ordering::SeqCst);
        until(async || all.load(Ordering::SeqCst) >= before + 1000).await;
    }
    stop.store(true, Ordering::SeqCst);
    let mut counts = Vec::new();
    while let Some(count) = soon(echoing.join_next()).await {
        counts.push(count.unwrap());
    }
    assert_eq!(counts.len(), 200);
    for n in 0..200 {
        let line = rig.gateway.wait_nth("session", n);
        assert_eq!((&line["ended_by"], &line["close_code"]), (&"client".into(), &1000.into()));
    }
    let total: u64 =
        rig.gateway.lines("session").iter().map(|l| l["received_messages"].as_u64().unwrap()).sum();
    assert_eq!(total, counts.iter().sum::<u64>(), "none lost");
}

#[tokio::test]
async fn what_is_broken_changes_nothing_and_is_named() {
    let (backend, _seen) = echo().await;
    let rig = start(&route("/", backend.address));
    let mut live = over_http1(&rig.gateway, "/").await;
    let before = served_leaf(&rig.gateway).await;
    let certs = rig.gateway.path().join("certs");
    let named = "[[certificate]]\nchain = \"named.crt\"\nkey = \"named.key\"\n";
    let own = rig.gateway.address();
    let strangers = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = |address: &str| rig.config.replacen("127.0.0.1:0", address, 1);
    let all = at(&format!("0.0.0.0:{}", own.port()));
    let itself = format!(
        "wssgate.toml:3:11: can't listen on 0.0.0.0:{}: the gateway itself listens on {own}",
        own.port()
    );
    for (what, config, expect) in [
        ("syntax", rig.config.clone() + "\n[[route]\n", "this is not TOML"),
        ("unknown key", rig.config.replace("tls = false", "tsl = false"), "did you mean tls?"),
        ("missing certificate", rig.config.clone() + named, "named.crt"),
        ("equal routes", rig.config.clone() + &route("/", backend.address), "exists already"),
        ("workers", format!("workers = 7\n{}", rig.config), "needs a restart"),
        (
            "taken address",
            at(&strangers.local_addr().unwrap().to_string()),
            "another program listens there already",
        ),
        ("own address", rig.config.replacen("127.0.0.2:0", &own.to_string(), 1), "needs a restart"),
        ("all addresses", all, itself.as_str()),
        ("no default", rig.config.replace("default.test", "absent.test"), "absent.test"),
    ] {
        rig.gateway.write_config(&config);
        let line = rig.gateway.reload();
        assert_eq!(line["message"], "reload refused: the old generation stays in use", "{what}");
        assert_eq!(line["generation"], 1);
        assert!(line["first"].as_str().unwrap().contains(expect), "{what}: {line}");
        live.echoes(what).await;
        assert_eq!(status(&rig.gateway, "/").await, 200);
    }
    // A broken file of the directory leaves the last good certificate; the rest goes on.
    rig.gateway.write_config(&rig.config);
    std::fs::write(certs.join("default.crt"), "-----BEGIN CERTIFICATE-----\nAAAA").unwrap();
    rig.pki.issue(&["other.test"]).write(&certs, "other");
    let line = rig.gateway.reload();
    assert_eq!((&line["message"], &line["generation"]), (&"reloaded".into(), &2.into()));
    assert_eq!((&line["names_kept"], &line["names_added"]), (&"default.test".into(), &"other.test".into()));
    assert_eq!(served_leaf(&rig.gateway).await, before);
    let warned = rig.gateway.lines("certificates");
    assert!(
        warned.iter().any(|line| line["problem"].as_str().unwrap().contains("default.crt")),
        "{warned:?}"
    );
    // The whole directory gone: nothing changes.
    std::fs::remove_dir_all(&certs).unwrap();
    assert_eq!(rig.gateway.reload()["generation"], 2);
    assert_eq!(served_leaf(&rig.gateway).await, before);
    live.echoes("still").await;
}

#[tokio::test]
async fn sessions_whose_route_has_gone_are_sent_away_and_no_others() {
    let (backend, _seen) = echo().await;
    let gone = route("/gone", backend.address);
    let rig =
        start(&(route("/", backend.address) + &gone + "[[route]]\npath = \"/echo\"\nservice = \"echo\"\n"));
    let mut staying = over_http1(&rig.gateway, "/").await;
    let mut going = over_http1(&rig.gateway, "/gone").await;
    let mut echoing = over_http1(&rig.gateway, "/echo").await;
    let without =
        rig.config.replace(&gone, "").replace("[[route]]\npath = \"/echo\"\nservice = \"echo\"\n", "");
    rig.gateway.write_config(&without);
    let report = rig.gateway.reload();
    assert_eq!((&report["routes_removed"], &report["sessions_ended"]), (&2.into(), &2.into()));
    let of = report["sessions_ended_of"].as_str().unwrap();
    assert!(of == "/gone (1), /echo (1)" || of == "/echo (1), /gone (1)", "{of}");
    for socket in [&mut going, &mut echoing] {
        socket.expect_close(1001).await;
        socket.close(1001).await;
        socket.expect_end().await;
    }
    staying.echoes("here").await;
    // Back again, with another backend: live sessions are not affected.
    let (other, seen) = echo().await;
    rig.gateway.write_config(&without.replace(&backend.address.to_string(), &other.address.to_string()));
    assert_eq!(rig.gateway.reload()["sessions_ended"], 0);
    staying.echoes("still here").await;
    assert_eq!(status(&rig.gateway, "/").await, 200);
    assert_eq!(seen.count(), 1);
}

#[tokio::test]
async fn sessions_whose_route_comes_back_in_time_stay() {
    let (backend, _seen) = echo().await;
    let (back, gone) = (route("/back", backend.address), route("/gone", backend.address));
    let rig = start(&(route("/", backend.address) + &back + &gone));
    let config = rig.config.replace("500ms", "3s");
    let (mut returning, mut going) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        returning.push(over_http1(&rig.gateway, "/back").await);
        going.push(over_http1(&rig.gateway, "/gone").await);
    }
    rig.gateway.write_config(&config.replace(&back, "").replace(&gone, ""));
    assert_eq!(rig.gateway.reload()["sessions_ended"], 40);
    rig.gateway.write_config(&config.replace(&gone, ""));
    assert_eq!(rig.gateway.reload()["routes_added"], 1);
    // An order that was given in between can't be taken back.
    let mut staying = Vec::new();
    for mut socket in returning {
        socket.text("still here?").await;
        if socket.receive().await.unwrap().b0 == TEXT {
            staying.push(socket);
        }
    }
    // As many others tell when the window is over.
    for socket in &mut going {
        socket.expect_close(1001).await;
        socket.close(1001).await;
    }
    assert!(staying.len() > 1, "all were told before the route was back");
    for socket in &mut staying {
        socket.echoes("still here").await;
    }
}

#[tokio::test]
async fn sessions_whose_route_has_gone_stay_if_they_may() {
    let (backend, _seen) = echo().await;
    let gone = route("/gone", backend.address);
    let rig = start(&(route("/", backend.address) + &gone));
    let mut socket = over_http1(&rig.gateway, "/gone").await;
    let without = rig.config.replace(&gone, "");
    rig.gateway.write_config(&format!("removed_routes = \"keep\"\n{without}"));
    let report = rig.gateway.reload();
    assert_eq!((&report["routes_removed"], &report["sessions_ended"]), (&1.into(), &0.into()));
    socket.echoes("still here").await;
    // Another reload, another opinion.
    rig.gateway.write_config(&without);
    assert_eq!(rig.gateway.reload()["sessions_ended"], 1);
    socket.expect_close(1001).await;
}

#[tokio::test]
async fn listeners_come_and_go() {
    let rig = start("[[route]]\npath = \"/\"\nservice = \"echo\"\n");
    let mut live = over_http1(&rig.gateway, "/").await;
    let more = rig.config.clone() + "[[listener]]\naddress = \"127.0.0.3:0\"\ntls = false\n";
    rig.gateway.write_config(&more);
    assert_eq!(rig.gateway.reload()["listeners_added"], 1);
    let added = rig.gateway.addresses()[2];
    let mut io = TcpStream::connect(added).await.unwrap();
    assert_eq!(ask(&mut io, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.status(), 426);
    // The first goes; who came through it stays.
    let first = rig.gateway.address();
    rig.gateway.write_config(&more.replacen("[[listener]]\naddress = \"127.0.0.1:0\"\n", "", 1));
    assert_eq!(rig.gateway.reload()["listeners_removed"], 1);
    live.echoes("still").await;
    soon(async { while TcpStream::connect(first).await.is_ok() {} }).await;
    assert_eq!(ask(&mut io, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.status(), 426);
}

#[tokio::test]
async fn settings_of_a_listener_change_for_the_next_connection() {
    let rig = start("[[route]]\npath = \"/\"\nservice = \"echo\"\n");
    let h2 = Tls::new("default.test", &["h2"]);
    assert!(h2.connect(rig.gateway.address()).await.is_ok());
    let strict = rig.config.replacen(
        "address = \"127.0.0.1:0\"\n",
        "address = \"127.0.0.1:0\"\nalpn = [\"http/1.1\"]\n",
        1,
    );
    rig.gateway.write_config(&strict);
    rig.gateway.reload();
    assert!(h2.connect(rig.gateway.address()).await.is_err());
}

#[tokio::test]
async fn many_hangups_are_few_reloads_and_none_is_lost() {
    let rig = start("[[route]]\npath = \"/\"\nservice = \"echo\"\n");
    for _ in 0..50 {
        rig.gateway.signal("HUP");
    }
    rig.gateway.write_config(&(rig.config.clone() + "[[route]]\npath = \"/last\"\nservice = \"console\"\n"));
    rig.gateway.signal("HUP");
    rig.gateway.wait_for(|line| line["message"] == "reloaded" && line["routes"] == 2, 0, "the last reload");
    assert_eq!(status(&rig.gateway, "/last/").await, 200);
}
