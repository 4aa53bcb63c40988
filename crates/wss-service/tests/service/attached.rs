//! Sessions on connections that the program accepts itself, and of clients whom a balancer names.

use tokio::io::AsyncWriteExt;

use super::*;

#[tokio::test]
async fn a_balancer_names_the_client_first() {
    let certs = Certs::new(&["a.test"]);
    let (note, mut seen) = mpsc::unbounded_channel();
    let service = bind()
        .certificates(certs.load())
        .proxy_protocol(["127.0.0.1/32".parse().unwrap()])
        .trusted_proxies(["192.0.2.0/24".parse().unwrap()])
        .on_open(move |session: Session| {
            let _ = note.send(session);
            std::future::ready(Ok(()))
        });
    let running = start(service);
    let version_2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\x7f\x00\x00\x01\x10\x00\x01\xbb";
    let headers: [(&[u8], &str, &str); 4] = [
        (b"PROXY TCP4 198.51.100.9 127.0.0.1 4096 443\r\n", "", "198.51.100.9"),
        (version_2, "", "192.0.2.7"),
        (version_2, "X-Forwarded-For: 203.0.113.5\r\n", "203.0.113.5"),
        (b"PROXY UNKNOWN\r\n", "", "127.0.0.1"),
    ];
    for (header, fields, client) in headers {
        let mut tcp = TcpStream::connect(running.address).await.unwrap();
        tcp.write_all(header).await.unwrap();
        let io = Tls::new("a.test", &["http/1.1"]).over(tcp).await.unwrap();
        let (_socket, _) = WebSocket::connect(io, "a.test", "/", fields).await.unwrap();
        let session = soon(seen.recv()).await.unwrap();
        assert_eq!(session.client().to_string(), client);
        assert!(session.peer().ip().is_loopback());
    }
    let without = Tls::new("a.test", &["http/1.1"]).connect(running.address).await;
    assert!(without.is_err(), "a balancer's connection begins with the header");
}

#[tokio::test]
async fn what_is_only_for_those_who_accept_connections_is_refused_by_name() {
    let refused = bind().attach().unwrap_err().to_string();
    assert!(refused.contains("sockets"), "{refused}");
    let refused = Service::new().threads(2).attach().unwrap_err().to_string();
    assert!(refused.contains("threads"), "{refused}");
}

#[tokio::test]
async fn a_request_that_can_t_be_upgraded_opens_no_session() {
    let sessions = Service::new().on_message(echo).attach().unwrap();
    let hub = sessions.hub();
    let handshake = Request::get("/")
        .header("host", "a.test")
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .body(())
        .unwrap();
    let answer = sessions.open(handshake, "192.0.2.1:1".parse().unwrap()).await;
    assert_eq!((answer.status().as_u16(), hub.count(To::All)), (500, 0));
    sessions.drain().await;
    let handshake = Request::get("/").header("host", "a.test").body(()).unwrap();
    assert_eq!(sessions.open(handshake, "192.0.2.1:1".parse().unwrap()).await.status(), 426);
}
