//! Who may use a route, and how much.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use http::Method;
use support::backend::{Backend, Seen, echo};
use support::gateway::{Gateway, Setup, config, route};
use support::http1::{Answer, ask, read_head};
use support::http2::Http2;
use support::tls::Tls;
use support::ws::WebSocket;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A gateway with one route to an echoing backend, for which this machine is a trusted proxy.
async fn start(access: &str) -> (Gateway, Seen) {
    let (backend, seen) = echo().await;
    (start_before(backend, access), seen)
}

fn start_before(backend: Backend, access: &str) -> Gateway {
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"]);
    let route = format!(
        "[[route]]\npath = \"/\"\nproxy = \"http://{}\"\n[route.access]\n{access}\n",
        backend.address
    );
    let route = route + "[admin]\naddress = \"127.0.0.3:0\"\n";
    std::mem::forget(backend); // it serves as long as the test runs
    setup.start(&config("trusted_proxies = [\"127.0.0.0/8\"]", &route))
}

async fn get(gateway: &Gateway, client: &str, fields: &str) -> Answer {
    let mut tcp = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nHost: default.test\r\nX-Forwarded-For: {client}\r\n{fields}\r\n");
    ask(&mut tcp, head).await
}

async fn http2(gateway: &Gateway) -> Http2 {
    let io = Tls::new("default.test", &["h2"]).connect(gateway.address()).await.unwrap();
    Http2::connect(io, "default.test").await
}

#[tokio::test]
async fn address_lists_let_in_and_keep_out() {
    let (gateway, seen) =
        start("allow = [\"10.0.0.0/8\", \"2001:db8::/32\"]\ndeny = [\"10.9.0.0/16\"]").await;
    for (client, status) in [
        ("10.1.2.3", 200),
        ("2001:db8::7", 200),
        ("::ffff:10.1.2.3", 200),
        ("10.9.0.1", 403),
        ("11.0.0.1", 403),
        ("2001:db9::1", 403),
        ("", 403),
    ] {
        let before = seen.count();
        assert_eq!(get(&gateway, client, "").await.status(), status, "{client}");
        assert_eq!(seen.count() - before, usize::from(status == 200), "{client}");
    }
    let mut client = http2(&gateway).await;
    let refused = client.websocket("/", &[("x-forwarded-for", "10.9.0.1")]).await;
    assert_eq!(refused.err().map(|answer| answer.status()), Some(403));
    let (mut socket, _) = client.websocket("/", &[("x-forwarded-for", "10.1.0.1")]).await.unwrap();
    socket.echoes("hello").await;
}

#[tokio::test]
async fn a_client_that_asks_too_often_gets_429_and_others_are_served() {
    let (gateway, seen) = start("requests = \"5/h\"").await;
    for _ in 0..5 {
        assert_eq!(get(&gateway, "192.0.2.1", "").await.status(), 200);
    }
    for n in 0..20 {
        let answer = get(&gateway, "192.0.2.1", "").await;
        assert_eq!(answer.status(), 429, "{n}");
        let wait: u64 = answer.head.get("retry-after").unwrap().parse().unwrap();
        assert!((700..=720).contains(&wait), "{wait}");
    }
    assert_eq!(get(&gateway, "192.0.2.2", "").await.status(), 200);
    // One network of IPv6 is one client. Handshakes count, too.
    let mut client = http2(&gateway).await;
    for n in 0..5 {
        let address = format!("2001:db8:1:2::{n}");
        drop(client.websocket("/", &[("x-forwarded-for", &address)]).await.unwrap());
    }
    let refused = client.websocket("/", &[("x-forwarded-for", "2001:db8:1:2:ffff::1")]).await;
    assert_eq!(refused.err().map(|answer| answer.status()), Some(429));
    assert_eq!(seen.count(), 11, "what is refused doesn't reach the backend");
    assert_eq!(gateway.metric("wssgate_requests_limited_total").await, 21);
    // A reload doesn't give it new ones.
    gateway.reload();
    assert_eq!(get(&gateway, "192.0.2.1", "").await.status(), 429);
    let lines = gateway.lines("requests refused with 429");
    assert!((1..20).contains(&lines.len()), "one line a second: {lines:?}");
    let requests = gateway.lines("request");
    assert!(requests.iter().all(|line| line["status"] != 429), "and none for each");
}

#[tokio::test]
async fn connections_over_the_limit_wait_for_the_end_of_another() {
    let (backend, _seen) = echo().await;
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"]);
    let route = format!(
        "[[route]]\npath = \"/\"\nproxy = \"http://{}\"\n[admin]\naddress = \"127.0.0.3:0\"\n",
        backend.address
    );
    let with = |max: &str| config(&format!("max_connections = {max}"), &route);
    let gateway = setup.start(&with("2"));
    let mut first = WebSocket::connect(
        TcpStream::connect(gateway.addresses()[1]).await.unwrap(),
        "default.test",
        "/",
        "",
    )
    .await
    .unwrap()
    .0;
    let mut client = http2(&gateway).await;
    let (mut second, _) = client.websocket("/", &[]).await.unwrap();
    assert_eq!(gateway.metric("wssgate_connections").await, 2, "streams are none");
    // The third is neither refused nor served.
    let request = "GET / HTTP/1.1\r\nHost: default.test\r\nConnection: close\r\n\r\n";
    let mut third = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
    third.write_all(request.as_bytes()).await.unwrap();
    gateway.wait("as many connections are open as max_connections allows: others wait");
    let mut answer = Vec::new();
    let early = tokio::time::timeout(std::time::Duration::from_millis(300), third.read_to_end(&mut answer));
    assert!(early.await.is_err());
    first.echoes("the others are served").await;
    second.echoes("the others are served").await;
    first.close(1000).await;
    first.expect_close(1000).await;
    drop(first);
    third.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    assert_ne!(gateway.metric("wssgate_connections_waited_total").await, 0);
    // A client that says nothing makes room, and a reload may lift the limit.
    let silent = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
    let mut fourth = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
    fourth.write_all(request.as_bytes()).await.unwrap();
    fourth.read_to_end(&mut answer).await.unwrap();
    drop(silent);
    gateway.write_config(&with("\"off\""));
    gateway.reload();
    let mut many = Vec::new();
    for _ in 0..4 {
        let tcp = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
        many.push(WebSocket::connect(tcp, "default.test", "/", "").await.unwrap().0);
    }
    second.echoes("still here").await;
}

#[tokio::test]
async fn a_connection_that_waits_for_a_request_makes_room_for_a_new_client() {
    let (backend, _seen) = echo().await;
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"]);
    // One worker: with two, the connection that has been answered last may be the first that is known to wait.
    let gateway = setup.start(&config("max_connections = 3\nworkers = 1", &route("/", backend.address)));
    let connect = async || TcpStream::connect(gateway.addresses()[1]).await.unwrap();
    let mut session = WebSocket::connect(connect().await, "default.test", "/", "").await.unwrap().0;
    let request = "GET / HTTP/1.1\r\nHost: default.test\r\n\r\n";
    let mut client = http2(&gateway).await;
    assert_eq!(client.ask(client.request(Method::GET, "/")).await.status(), 200);
    let mut idle = connect().await;
    assert_eq!(ask(&mut idle, request).await.status(), 200);
    // First the one that has waited longest, then the other; and none of those that are in use.
    for n in 0..2 {
        let mut new = connect().await;
        assert_eq!(ask(&mut new, request).await.status(), 200, "{n}");
        if n == 0 {
            assert_eq!(ask(&mut idle, request).await.status(), 200, "the other one is there");
            new.write_all(b"G").await.unwrap(); // it is no longer idle
            std::mem::forget(new);
        } else {
            assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0);
        }
    }
    session.echoes("still here").await;
}

#[tokio::test]
async fn handshakes_have_a_rate_of_their_own() {
    let (gateway, seen) = start("handshakes = \"2/h\"\nper = \"header:X-Api-Key\"").await;
    let mut client = http2(&gateway).await;
    for key in ["a", "b"] {
        drop(client.websocket("/", &[("x-api-key", key)]).await.unwrap());
        let io = Tls::new("default.test", &["http/1.1"]).connect(gateway.address()).await.unwrap();
        let field = format!("X-Api-Key: {key}\r\n");
        let (mut socket, _) = WebSocket::connect(io, "default.test", "/", &field).await.unwrap();
        socket.echoes("the second").await;
        let refused = client.websocket("/", &[("x-api-key", key)]).await.err().unwrap();
        assert_eq!(refused.status(), 429);
        let wait: u64 = refused.head.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1790..=1800).contains(&wait), "{wait}");
        // Sessions that end give nothing back, and plain requests have no part in it.
        socket.close(1000).await;
        socket.expect_close(1000).await;
        assert_eq!(client.websocket("/", &[("x-api-key", key)]).await.err().unwrap().status(), 429);
        for _ in 0..5 {
            assert_eq!(get(&gateway, "192.0.2.1", &field).await.status(), 200);
        }
    }
    assert_eq!(seen.count(), 14, "what is refused doesn't reach the backend");
    assert_eq!(gateway.metric("wssgate_requests_limited_total").await, 4);
    gateway.reload();
    assert_eq!(client.websocket("/", &[("x-api-key", "a")]).await.err().unwrap().status(), 429);
    let line = gateway.wait("requests refused with 429");
    assert_eq!(line["cause"], "too many handshakes");
}

#[tokio::test]
async fn live_sessions_are_counted_by_client_or_by_field() {
    let (gateway, _seen) = start("sessions = 2\nper = \"header:X-Api-Key\"").await;
    let mut client = http2(&gateway).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        open.push(client.websocket("/", &[("x-api-key", "a")]).await.unwrap().0);
    }
    let refused = client.websocket("/", &[("x-api-key", "a")]).await;
    let refused = refused.err().unwrap();
    assert_eq!((refused.status(), refused.head.headers.get("retry-after").is_some()), (429, true));
    open.push(client.websocket("/", &[("x-api-key", "b")]).await.unwrap().0);
    // Plain requests are no sessions.
    assert_eq!(get(&gateway, "192.0.2.1", "X-Api-Key: a\r\n").await.status(), 200);
    let mut first = open.remove(0);
    first.close(1000).await;
    first.expect_close(1000).await;
    gateway.wait("session");
    let io = Tls::new("default.test", &["http/1.1"]).connect(gateway.address()).await.unwrap();
    let (mut socket, _) = WebSocket::connect(io, "default.test", "/", "X-Api-Key: a\r\n").await.unwrap();
    socket.echoes("there is a place again").await;
}

#[tokio::test]
async fn a_body_that_is_too_long_gets_413() {
    let seen = Seen::default();
    let heads = seen.clone();
    // It answers when it has all of the body: "0123456789", chunked or not.
    let backend = Backend::start(move |mut tcp| {
        let heads = heads.clone();
        async move {
            while let Some(head) = read_head(&mut tcp).await {
                heads.push(head.clone());
                let end = if head.get("content-length").is_some() { "9" } else { "0\r\n\r\n" };
                let mut body = Vec::new();
                while !body.ends_with(end.as_bytes()) {
                    let Ok(byte) = tcp.read_u8().await else { return };
                    body.push(byte);
                }
                tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            }
        }
    })
    .await;
    let gateway = start_before(backend, "max_body = \"10B\"");
    let mut client = http2(&gateway).await;
    for (body, status) in [("0123456789", 200), ("0123456789x", 413)] {
        let before = seen.count();
        let length =
            format!("POST / HTTP/1.1\r\nHost: default.test\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let mut tcp = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
        assert_eq!(ask(&mut tcp, length).await.status(), status, "{body}");
        assert_eq!(seen.count() - before, usize::from(status == 200), "the backend isn't asked");
        // Without a length it is known when it comes.
        let chunked = format!(
            "POST / HTTP/1.1\r\nHost: default.test\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        );
        let mut tcp = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
        assert_eq!(ask(&mut tcp, chunked).await.status(), status, "{body}");
        let request = client.request(Method::POST, "/");
        let (answer, mut send) = client.begin(request, false).await;
        send.send_data(body.to_owned().into(), true).unwrap();
        assert_eq!(support::http2::read(answer.await.unwrap()).await.status(), status, "{body}");
    }
}
