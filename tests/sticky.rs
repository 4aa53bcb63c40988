//! Clients that come back to their server by a cookie.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use http::Method;
use support::backend::{Backend, Seen, echo};
use support::gateway::{Gateway, Setup, config};
use support::http1::{Head, ask};
use support::http2::Http2;
use support::tls::Tls;
use support::ws::WebSocket;
use tokio::net::TcpStream;

fn setup() -> Setup {
    Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"])
}

fn upstream(sticky: &str, servers: &[SocketAddr]) -> String {
    let servers: Vec<_> = servers.iter().map(|address| format!("\"http://{address}\"")).collect();
    format!(
        "[[upstream]]\nname = \"pool\"\nbalance = \"round-robin\"\nservers = [{}]\nsticky = {{ {sticky} }}\n\
         [[route]]\npath = \"/app\"\nstrip_prefix = \"/app\"\nproxy = \"pool\"\n",
        servers.join(", ")
    )
}

async fn plain(gateway: &Gateway) -> TcpStream {
    TcpStream::connect(gateway.addresses()[1]).await.unwrap()
}

async fn get(gateway: &Gateway, cookie: &str) -> Head {
    let cookie = if cookie.is_empty() { String::new() } else { format!("Cookie: {cookie}\r\n") };
    let request = format!("GET /app/x HTTP/1.1\r\nHost: default.test\r\n{cookie}\r\n");
    ask(&mut plain(gateway).await, request).await.head
}

/// The name and the value of the cookie that an answer sets.
fn cookie(head: &Head) -> Option<String> {
    Some(head.get("set-cookie")?.split(';').next().unwrap().to_owned())
}

async fn two() -> ([SocketAddr; 2], [Backend; 2], [Seen; 2]) {
    let ((a, x), (b, y)) = (echo().await, echo().await);
    ([a.address, b.address], [a, b], [x, y])
}

/// Which of the two servers was asked by `ask`.
fn counts(seen: &[Seen; 2]) -> [usize; 2] {
    seen.each_ref().map(Seen::count)
}

#[tokio::test]
async fn a_client_comes_back_to_its_server() {
    let (servers, _backends, seen) = two().await;
    let gateway = setup().start(&config("workers = 2", &upstream("max_age = \"1d\"", &servers)));
    let first = get(&gateway, "").await;
    let set = first.get("set-cookie").unwrap();
    let id = cookie(&first).unwrap();
    assert_eq!(set, format!("{id}; Path=/app; Max-Age=86400; HttpOnly; SameSite=Lax"));
    let value = id.strip_prefix("wssgate_server=").unwrap();
    assert_eq!(value.len(), 32);
    // It always goes there, doesn't get the cookie again, and the server doesn't see it.
    let server = usize::from(counts(&seen) == [0, 1]);
    for fields in [id.clone(), format!("a=1; {id}; b=2")] {
        for _ in 0..5 {
            let head = get(&gateway, &fields).await;
            assert_eq!((head.status(), head.get("set-cookie")), (200, None));
            let passed = seen[server].last();
            assert_eq!(passed.get("cookie"), fields.contains("a=1").then_some("a=1; b=2"));
        }
    }
    assert_eq!(counts(&seen)[server], 11);
    // A value that is none of ours is no value.
    for bad in ["wssgate_server=00000000000000000000000000000000", "wssgate_server=a"] {
        let head = get(&gateway, bad).await;
        assert!(cookie(&head).is_some(), "{bad}");
        assert_eq!(seen.iter().flat_map(Seen::all).filter(|head| head.get("cookie") == Some(bad)).count(), 0);
    }
    // Clients without one are dealt to both, and each server has a value of its own.
    let mut values = BTreeSet::new();
    for _ in 0..8 {
        values.insert(cookie(&get(&gateway, "").await).unwrap());
    }
    assert_eq!(values.len(), 2);
    // It is the same over TLS and HTTP/2, where the cookie may come in crumbs, and there it is secure.
    let io = Tls::new("default.test", &["h2"]).connect(gateway.address()).await.unwrap();
    let mut h2 = Http2::connect(io, "default.test").await;
    let answer = h2.ask(h2.request(Method::GET, "/app")).await;
    let set = answer.head.headers["set-cookie"].to_str().unwrap().to_owned();
    assert!(set.ends_with("; Path=/app; Max-Age=86400; Secure; HttpOnly; SameSite=Lax"), "{set}");
    let before = counts(&seen);
    for _ in 0..3 {
        let mut request = h2.request(Method::GET, "/app");
        for crumb in ["a=1", &id, "b=2"] {
            request.headers_mut().append("cookie", crumb.parse().unwrap());
        }
        assert!(h2.ask(request).await.head.headers.get("set-cookie").is_none());
        assert_eq!(seen[server].last().get("cookie"), Some("a=1; b=2"));
    }
    assert_eq!(counts(&seen)[server], before[server] + 3);
}

#[tokio::test]
async fn websockets_come_back_too() {
    let (servers, _backends, seen) = two().await;
    let gateway = setup().start(&config("workers = 2", &upstream("cookie = \"at\"", &servers)));
    let (mut first, head) =
        WebSocket::connect(plain(&gateway).await, "default.test", "/app/ws", "").await.unwrap();
    first.echoes("hello").await;
    let id = cookie(&head).unwrap();
    assert!(id.starts_with("at="));
    assert_eq!(head.get("set-cookie"), Some(&*format!("{id}; Path=/app; HttpOnly; SameSite=Lax")));
    let server = usize::from(counts(&seen) == [0, 1]);
    for n in 2..6 {
        let fields = format!("Cookie: {id}\r\n");
        let (mut again, head) =
            WebSocket::connect(plain(&gateway).await, "default.test", "/app/ws", &fields).await.unwrap();
        again.echoes("hello").await;
        assert_eq!((head.get("set-cookie"), counts(&seen)[server]), (None, n));
        assert_eq!(seen[server].last().get("cookie"), None);
    }
}

#[tokio::test]
async fn a_client_whose_server_has_gone_gets_another_and_its_cookie() {
    let (servers, backends, seen) = two().await;
    // A server that is gone here still serves the connections that it has.
    let upstream =
        |servers: &[SocketAddr]| upstream("", servers).replace("sticky =", "pool = \"off\"\nsticky =");
    let text = upstream(&servers) + "[control]\nsocket = \"control.sock\"\n";
    let gateway = setup().start(&config("workers = 2", &text));
    let id = cookie(&get(&gateway, "").await).unwrap();
    let old = usize::from(counts(&seen) == [0, 1]);
    let [a, b] = backends;
    let (gone, _left) = if old == 0 { (a, b) } else { (b, a) };
    drop(gone);
    let head = get(&gateway, &id).await;
    let other = cookie(&head).unwrap();
    assert!(head.status() == 200 && other != id);
    for _ in 0..3 {
        let head = get(&gateway, &other).await;
        assert_eq!((head.status(), head.get("set-cookie")), (200, None));
    }
    // Drained, and not in the file any more.
    let drain = std::process::Command::new(env!("CARGO_BIN_EXE_wssgate"))
        .args(["drain", &servers[1 - old].to_string(), "--socket"])
        .arg(gateway.path().join("control.sock"))
        .output();
    assert!(drain.unwrap().status.success());
    let (third, _) = echo().await;
    gateway.write_config(&config("workers = 2", &upstream(&[servers[1 - old], third.address])));
    gateway.reload();
    let head = get(&gateway, &other).await;
    let new = cookie(&head).unwrap();
    assert!(head.status() == 200 && new != other && new != id);
    assert_eq!(get(&gateway, &new).await.get("set-cookie"), None);
}

#[tokio::test]
async fn a_random_key_survives_reloads_and_a_file_restarts() {
    let (servers, _backends, _) = two().await;
    let gateway = setup().start(&config("workers = 1", &upstream("", &servers)));
    let id = cookie(&get(&gateway, "").await).unwrap();
    gateway.reload();
    assert_eq!(get(&gateway, &id).await.get("set-cookie"), None);
    let restarted = setup().start(&config("workers = 1", &upstream("", &servers)));
    assert!(cookie(&get(&restarted, &id).await).is_some());

    let line = || {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_wssgate")).arg("ticket-key").output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let (old, new) = (line(), line());
    let with = |keys: &str| {
        let setup = setup();
        let file = setup.path().join("cookie.keys");
        std::fs::write(&file, keys).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        setup.start(&config("workers = 1", &upstream("key_file = \"cookie.keys\"", &servers)))
    };
    let first = with(&old);
    // Readable by every user, which is told.
    let warned =
        first.all_lines().iter().any(|line| line.to_string().contains("access to the keys of cookies"));
    assert!(warned, "{}", first.log());
    let id = cookie(&get(&first, "").await).unwrap();
    assert_eq!(get(&with(&old), &id).await.get("set-cookie"), None);
    // A new key in front: clients keep their server, and get its new cookie.
    let both = with(&format!("{new}{old}"));
    let renewed = cookie(&get(&both, &id).await).unwrap();
    assert_ne!(renewed, id);
    assert_eq!(get(&both, &renewed).await.get("set-cookie"), None);
    let backends: BTreeSet<_> =
        (0..2).map(|n| both.wait_nth("request", n)["backend"].as_str().unwrap().to_owned()).collect();
    assert_eq!(backends.len(), 1);
    // A file that is none is a problem of its line.
    let file = both.path().join("cookie.keys");
    std::fs::write(&file, "secret").unwrap();
    let refused = both.reload().to_string();
    assert!(refused.contains("cookie.keys:1:1") && !refused.contains("secret"), "{refused}");
    std::fs::remove_file(&file).unwrap();
    assert!(both.reload().to_string().contains("key_file: "));
    assert_eq!(get(&both, &renewed).await.get("set-cookie"), None);
}
