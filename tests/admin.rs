//! The admin listener: `/healthz`, `/readyz`, `/metrics`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::net::SocketAddr;

use support::gateway::{Gateway, Setup, config};
use support::http1::{Answer, ask};
use support::soon;
use support::ws::WebSocket;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

const ECHO: &str = "[[route]]\npath = \"/\"\nservice = \"echo\"\n";
const ADMIN: &str = "[admin]\naddress = \"127.0.0.3:0\"\n";

fn start(routes: &str) -> Gateway {
    Setup::new(env!("CARGO_BIN_EXE_wssgate"))
        .with_certificate(&["default.test", "*.default.test"])
        .start(&config("", routes))
}

async fn request(admin: SocketAddr, line: &str) -> Answer {
    let mut io = TcpStream::connect(admin).await.unwrap();
    let answer = ask(&mut io, format!("{line} HTTP/1.1\r\nHost: admin\r\n\r\n")).await;
    assert_eq!(answer.head.get("connection"), Some("close"));
    answer
}

async fn get(admin: SocketAddr, path: &str) -> (u16, String) {
    let answer = request(admin, &format!("GET {path}")).await;
    (answer.status(), answer.text())
}

async fn refuses(address: SocketAddr) {
    soon(async { while TcpStream::connect(address).await.is_ok() {} }).await;
}

#[tokio::test]
async fn it_tells_how_the_gateway_is() {
    let gateway =
        start(&format!("{ECHO}[[route]]\nhost = \"a.test\"\npath = \"/b\"\nservice = \"echo\"\n{ADMIN}"));
    let admin = gateway.admin();
    assert_eq!(get(admin, "/healthz").await, (200, "alive\n".to_owned()));
    assert_eq!(get(admin, "/readyz?verbose").await, (200, "ready\n".to_owned()));
    assert_eq!(
        get(admin, "/nothing").await,
        (
            404,
            "there is no such page; the pages are /, /sessions, /healthz, /readyz and /metrics\n".to_owned()
        )
    );
    let refused = request(admin, "POST /readyz").await;
    assert_eq!((refused.status(), refused.head.get("allow")), (405, Some("GET, HEAD")));
    let head = request(admin, "HEAD /healthz").await;
    assert_eq!((head.status(), head.body.len()), (200, 0));

    let mut sockets = Vec::new();
    for host in ["a.test", "a.test", "b.test"] {
        let tcp = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
        sockets.push(WebSocket::connect(tcp, host, "/b", "").await.unwrap().0);
    }
    gateway.write_config("nothing");
    gateway.reload();
    let answer = request(admin, "GET /metrics").await;
    assert_eq!(answer.head.get("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let metrics = answer.text();
    for expect in [
        "# TYPE wssgate_sessions gauge",
        "wssgate_ready 1",
        "wssgate_generation 1",
        "wssgate_reloads_total{result=\"taken\"} 0",
        "wssgate_reloads_total{result=\"refused\"} 1",
        "wssgate_connections_accepted_total 3",
        "wssgate_sessions{route=\"/\"} 1",
        "wssgate_sessions{route=\"a.test/b\"} 2",
    ] {
        assert!(metrics.lines().any(|line| line == expect), "no {expect:?} in\n{metrics}");
    }
    assert!(metrics.contains("\nwssgate_certificate_warnings 0\n"), "{metrics}");
    let expiry = "wssgate_certificate_expiry_timestamp_seconds{name=\"*.default.test\",key=\"ECDSA\"} ";
    let expiry = metrics.lines().find_map(|line| line.strip_prefix(expiry)).unwrap();
    assert!(expiry.parse::<i64>().unwrap() > 1_700_000_000, "{expiry}");
    // Sessions that end are not counted any more.
    sockets.clear();
    gateway.wait_nth("session", 2);
    let metrics = get(admin, "/metrics").await.1;
    assert!(metrics.contains("wssgate_sessions{route=\"a.test/b\"} 0\n"), "{metrics}");
}

#[tokio::test]
async fn silent_connections_are_cut_and_soon_make_room() {
    let gateway = start(&(ECHO.to_owned() + ADMIN));
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(gateway.admin()).await.unwrap());
    }
    assert_eq!(get(gateway.admin(), "/healthz").await.0, 200);
    assert_eq!(soon(silent[0].read(&mut [0])).await.unwrap(), 0);
}

#[tokio::test]
async fn a_reload_opens_moves_and_closes_it() {
    let gateway = start(ECHO);
    let with = |section: &str| gateway.write_config(&config("", &(ECHO.to_owned() + section)));
    with(ADMIN);
    assert_eq!(gateway.reload()["generation"], 2);
    let first = gateway.admin();
    assert_eq!(get(first, "/readyz").await.0, 200);
    with(&ADMIN.replace("127.0.0.3", "127.0.0.4"));
    assert_eq!(gateway.reload()["generation"], 3);
    let second = gateway.admin();
    assert_eq!(get(second, "/readyz").await.0, 200);
    refuses(first).await;
    // What can't be opened forbids the reload, and what was there stays.
    let taken = std::net::TcpListener::bind("127.0.0.5:0").unwrap();
    for (address, expect) in [
        (taken.local_addr().unwrap(), "another program listens there already"),
        (gateway.address(), "the gateway itself listens on"),
    ] {
        with(&format!("[admin]\naddress = \"{address}\"\n"));
        let line = gateway.reload();
        assert_eq!(line["message"], "reload refused: the old generation stays in use");
        let first = line["first"].as_str().unwrap();
        assert!(first.contains("wssgate.toml:15:11: ") && first.contains(expect), "{first}");
        assert_eq!(get(second, "/readyz").await.0, 200);
    }
    with("");
    assert_eq!(gateway.reload()["generation"], 4);
    refuses(second).await;
}

#[test]
fn an_address_that_is_taken_keeps_the_gateway_from_starting() {
    let taken = std::net::TcpListener::bind("127.0.0.5:0").unwrap();
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"]);
    let section = format!("[admin]\naddress = \"{}\"\n", taken.local_addr().unwrap());
    let mut gateway = setup.launch(&config("", &(ECHO.to_owned() + &section)));
    let line = gateway.wait("the configuration can't be used");
    let problem = line["problem"].as_str().unwrap();
    assert!(problem.contains("wssgate.toml:15:11: can't listen on 127.0.0.5:"), "{problem}");
    assert!(!gateway.wait_end().success());
}
