//! The examples, each as its readers run it, but for the address.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::net::SocketAddr;
use std::time::Duration;

use support::http1::ask;
use support::http2::Http2;
use support::pki::Pki;
use support::tls::Tls;
use support::ws::{BINARY, WebSocket};
use support::{soon, until};
use tempfile::TempDir;
use tokio::net::TcpStream;
use wss_service::{Cluster, Handler, Service, To};

#[path = "../examples/axum.rs"]
#[allow(dead_code, unreachable_pub, reason = "its main is not called")]
mod axum_example;
#[path = "../examples/axum_listener.rs"]
#[allow(dead_code, unreachable_pub, reason = "its main is not called")]
mod axum_listener;
#[path = "../examples/chat.rs"]
#[allow(dead_code, unreachable_pub, reason = "its main is not called")]
mod chat;
#[path = "../examples/client_certificates.rs"]
#[allow(dead_code, unreachable_pub, reason = "its main is not called")]
mod client_certificates;
#[path = "../examples/cluster_chat.rs"]
#[allow(dead_code, unreachable_pub, reason = "its main is not called")]
mod cluster_chat;
#[path = "../examples/echo.rs"]
#[allow(dead_code, unreachable_pub, reason = "its main is not called")]
mod echo;
#[path = "../examples/fifteen_lines.rs"]
#[allow(dead_code, unreachable_pub, reason = "its main is not called")]
mod fifteen_lines;
#[path = "../examples/push.rs"]
#[allow(dead_code, unreachable_pub, reason = "its main is not called")]
mod push;

const ANYWHERE: &str = "127.0.0.1:0";

/// Serves until the test's runtime ends.
fn start<H: Handler>(service: Service<H>) -> SocketAddr {
    let address = service.addresses()[0];
    tokio::spawn(service.run());
    address
}

async fn open(address: SocketAddr, path: &str) -> WebSocket {
    let tcp = TcpStream::connect(address).await.unwrap();
    WebSocket::connect(tcp, "a.test", path, "").await.unwrap().0
}

#[tokio::test]
async fn the_fifteen_lines_say_ok() {
    let certs = TempDir::new().unwrap();
    Pki::new().issue(&["a.test"]).write(certs.path(), "a");
    let address = start(fifteen_lines::service(ANYWHERE, certs.path().to_str().unwrap()).unwrap());
    let io = Tls::new("a.test", &["http/1.1"]).connect(address).await.unwrap();
    let mut client = WebSocket::connect(io, "a.test", "/", "").await.unwrap().0;
    client.text("hello").await;
    client.expect_text("ok").await;
}

#[tokio::test]
async fn an_echo_sends_texts_and_bytes_back() {
    let address = start(echo::service(ANYWHERE).unwrap());
    let mut client = open(address, "/").await;
    client.echoes("κόσμε").await;
    client.send(BINARY, [0xFF, 0]).await;
    let frame = client.receive().await.unwrap();
    assert_eq!((frame.b0, frame.payload), (BINARY, vec![0xFF, 0]));
}

#[tokio::test]
async fn a_chat_has_rooms_and_a_page() {
    let address = start(chat::service(ANYWHERE).unwrap());
    let mut ann = open(address, "/chat?room=tea&name=ann").await;
    ann.expect_text("ann joins, 1 here").await;
    let mut bob = open(address, "/chat?room=tea&name=bob").await;
    let mut eve = open(address, "/chat?room=coffee&name=eve").await;
    eve.expect_text("eve joins, 1 here").await;
    for client in [&mut ann, &mut bob] {
        client.expect_text("bob joins, 2 here").await;
    }
    bob.text("milk?").await;
    for client in [&mut ann, &mut bob] {
        client.expect_text("bob: milk?").await;
    }
    bob.close(1000).await;
    ann.expect_text("bob leaves").await;
    eve.text("nobody else has spoken here").await;
    eve.expect_text("eve: nobody else has spoken here").await;

    let mut tcp = TcpStream::connect(address).await.unwrap();
    let page = ask(&mut tcp, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert!(page.status() == 200 && page.text().contains("new WebSocket"));
    let tcp = TcpStream::connect(address).await.unwrap();
    let refused = WebSocket::connect(tcp, "a.test", "/chat?room=tea", "").await.err().unwrap();
    assert_eq!(refused.status(), 400);
}

#[tokio::test]
async fn a_member_who_reads_nothing_does_not_hold_up_the_room() {
    let cluster = Cluster::connect("redis+unix:///there/is/no/socket").unwrap();
    let cluster_chat = start(cluster_chat::service(ANYWHERE, cluster).unwrap());
    for (address, path) in [(start(chat::service(ANYWHERE).unwrap()), "/chat"), (cluster_chat, "/")] {
        let _mute = open(address, &format!("{path}?room=tea&name=mute")).await;
        let mut bob = open(address, &format!("{path}?room=tea&name=bob")).await;
        let long = "a".repeat(256 * 1024);
        for _ in 0..64 {
            bob.text(&long).await;
            while soon(bob.receive()).await.unwrap().payload.len() < long.len() {}
        }
    }
}

/// With the engine it is played by tests/interop.
#[tokio::test]
async fn a_chat_of_several_processes_goes_on_without_its_engine() {
    let cluster = Cluster::connect("redis+unix:///there/is/no/socket").unwrap();
    let address = start(cluster_chat::service(ANYWHERE, cluster).unwrap());
    let mut ann = open(address, "/?room=tea&name=ann").await;
    let mut bob = open(address, "/?room=tea&name=bob").await;
    ann.text("milk?").await;
    for client in [&mut ann, &mut bob] {
        client.expect_text("ann: milk?").await;
    }
    ann.expect_text("heard in this process only: the engine of the cluster is away").await;
    bob.text("/who ann").await;
    bob.expect_text("not known: the engine of the cluster is away").await;
}

#[tokio::test]
async fn an_axum_application_publishes_to_the_sessions_beside_it() {
    let address = start(axum_example::service(ANYWHERE).unwrap());
    let mut client = open(address, "/feed").await;
    let mut tcp = TcpStream::connect(address).await.unwrap();
    let post = "POST /publish HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nnews";
    assert_eq!(ask(&mut tcp, post).await.text(), "sent to 1\n");
    client.expect_text("news").await;
    let missing = ask(&mut tcp, "GET /no HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert_eq!(missing.status(), 404, "it is axum's");
}

#[tokio::test]
async fn an_axum_application_opens_sessions_on_its_own_connections() {
    let listener = tokio::net::TcpListener::bind(ANYWHERE).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(axum_listener::serve(listener, async { drop(stopped.await) }));
    let mut client = open(address, "/feed").await;
    client.echoes("over HTTP/1.1").await;
    let mut http2 = Http2::connect(TcpStream::connect(address).await.unwrap(), "a.test").await;
    let mut stream = http2.websocket("/feed", &[]).await.unwrap().0;
    stream.echoes("over HTTP/2").await;
    let mut tcp = TcpStream::connect(address).await.unwrap();
    assert_eq!(ask(&mut tcp, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.status(), 200, "it is axum's");
    let plain = ask(&mut tcp, "GET /feed HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert_eq!((plain.status(), plain.head.get("upgrade")), (426, Some("websocket")));
    drop(tcp);
    stop.send(()).unwrap();
    client.expect_close(1001).await;
    soon(serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_task_pushes_to_all() {
    let service = push::service(ANYWHERE).unwrap();
    let hub = service.hub();
    let address = start(service);
    let (mut first, mut second) = (open(address, "/").await, open(address, "/").await);
    until(async || hub.count(To::All) == 2).await;
    tokio::spawn(push::push(hub, Duration::from_millis(1)));
    for client in [&mut first, &mut second] {
        let text = String::from_utf8(client.receive().await.unwrap().payload).unwrap();
        assert!(text.parse::<u64>().unwrap() > 1_700_000_000);
    }
}

#[tokio::test]
async fn clients_are_known_by_their_certificates() {
    let (certs, pki) = (TempDir::new().unwrap(), Pki::new());
    pki.issue(&["a.test"]).write(certs.path(), "server");
    std::fs::write(certs.path().join("clients.pem"), pki.intermediate_pem()).unwrap();
    let address = start(client_certificates::service(ANYWHERE, certs.path()).unwrap());
    let tls = Tls::new("a.test", &["http/1.1"]).showing(&pki.issue_client("ann", 7));
    let mut client =
        WebSocket::connect(tls.connect(address).await.unwrap(), "a.test", "/", "").await.unwrap().0;
    let hello = String::from_utf8(client.receive().await.unwrap().payload).unwrap();
    assert!(hello.contains("CN=ann"), "{hello}");

    let tls = Tls::new("a.test", &["http/1.1"]);
    let mut refused = match tls.connect(address).await {
        Ok(io) => Box::new(io) as support::BoxIo,
        Err(_) => return, // of TLS 1.3, the client may learn of it later
    };
    let request = support::ws::handshake("a.test", "/", "");
    let _ = tokio::io::AsyncWriteExt::write_all(&mut refused, request.as_bytes()).await;
    assert_eq!(support::http1::read_head(&mut refused).await, None, "there is no answer");
}
