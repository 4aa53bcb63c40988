//! Sessions through the gateway: messages of any size, broken rules, pings, ends. And sessions
//! that end at the gateway.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::io::{self, Write};
use std::net::{self, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use support::backend::{Backend, echo};
use support::gateway::{Gateway, Setup, config, route};
use support::http2::Http2;
use support::soon;
use support::tls::Tls;
use support::ws::{BINARY, CLOSE, PING, PONG, TEXT, WebSocket, encode, handshake};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

fn start(routes: &str) -> Gateway {
    Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"]).start(&config("", routes))
}

#[derive(Clone, Copy)]
enum Over {
    Http1,
    Http2,
}

const BOTH: [Over; 2] = [Over::Http1, Over::Http2];

/// A session; `extensions` is what the client offers, if anything.
async fn open(gateway: &Gateway, path: &str, over: Over, extensions: &str) -> WebSocket {
    match over {
        Over::Http1 => {
            let io = Tls::new("default.test", &["http/1.1"]).connect(gateway.address()).await.unwrap();
            let fields = if extensions.is_empty() {
                String::new()
            } else {
                format!("Sec-WebSocket-Extensions: {extensions}\r\n")
            };
            WebSocket::connect(io, "default.test", path, &fields).await.unwrap().0
        }
        Over::Http2 => {
            let io = Tls::new("default.test", &["h2"]).connect(gateway.address()).await.unwrap();
            let mut client = Http2::connect(io, "default.test").await;
            let fields = [("sec-websocket-extensions", extensions)];
            let fields = if extensions.is_empty() { &[][..] } else { &fields };
            let (socket, _) = client.websocket(path, fields).await.unwrap();
            tokio::spawn(client.task); // the connection lives as long as the stream
            socket
        }
    }
}

/// A backend that hands each session to the test.
async fn handing_over(fields: &'static str) -> (Backend, mpsc::UnboundedReceiver<WebSocket>) {
    let (tell, told) = mpsc::unbounded_channel();
    let backend = Backend::start(move |tcp| {
        let tell = tell.clone();
        async move {
            let (socket, _) = WebSocket::serve(tcp, fields).await;
            let _ = tell.send(socket);
        }
    })
    .await;
    (backend, told)
}

#[tokio::test]
async fn a_message_of_64_mib_needs_no_memory() {
    const LEN: usize = 64 << 20;
    let (backend, _seen) = echo().await;
    let gateway = start(&route("/", backend.address));
    let payload: Vec<u8> = (0..LEN).map(|i| i.to_le_bytes()[0] ^ i.to_le_bytes()[2]).collect();
    for over in BOTH {
        let WebSocket { io, .. } = open(&gateway, "/", over, "").await;
        let (mut read, mut write) = tokio::io::split(io);
        let wire = encode(BINARY, &payload, true);
        let sending = tokio::spawn(async move {
            write.write_all(&wire).await.unwrap();
            write.flush().await.unwrap();
            write
        });
        let mut highest = 0;
        let mut wire = vec![0; LEN + 10];
        for part in wire.chunks_mut(1 << 20) {
            soon(read.read_exact(part)).await.unwrap();
            highest = highest.max(gateway.resident_kib());
        }
        assert!(wire[10..] == payload);
        drop(sending.await.unwrap());
        assert!(highest < 48 * 1024, "{highest} KiB resident");
    }
    let line = gateway.wait("session");
    assert_eq!((&line["received_bytes"], &line["sent_bytes"]), (&LEN.into(), &LEN.into()));
}

#[tokio::test]
async fn fragments_pings_and_close_codes_pass_as_they_are() {
    let (backend, mut sessions) = handing_over("").await;
    let gateway = start(&route("/", backend.address));
    for over in BOTH {
        let mut client = open(&gateway, "/", over, "").await;
        let mut server = soon(sessions.recv()).await.unwrap();
        for (b0, payload) in
            [(0x01, &b"fr"[..]), (PING, b"p"), (0x00, b"a"), (0x80, b"g"), (PONG, b"unasked"), (BINARY, b"")]
        {
            client.send(b0, payload).await;
            let frame = server.receive().await.unwrap();
            assert_eq!((frame.b0, &frame.payload[..], frame.masked), (b0, payload, true));
            server.send(b0, payload).await;
            let frame = client.receive().await.unwrap();
            assert_eq!((frame.b0, &frame.payload[..], frame.masked), (b0, payload, false));
        }
        server.send(CLOSE, [&4321u16.to_be_bytes()[..], "warum nicht".as_bytes()].concat()).await;
        let close = client.receive().await.unwrap();
        assert_eq!((close.close_code(), &close.payload[2..]), (4321, &b"warum nicht"[..]));
        client.send(CLOSE, close.payload).await;
        assert_eq!(server.receive().await.unwrap().close_code(), 4321);
    }
    let line = gateway.wait("session");
    assert_eq!((&line["ended_by"], &line["close_code"]), (&"backend".into(), &4321.into()));
    assert_eq!((&line["received_messages"], &line["sent_messages"]), (&2.into(), &2.into()));
}

#[tokio::test]
async fn compressed_messages_pass_where_compression_was_agreed() {
    let (backend, mut sessions) = handing_over("Sec-WebSocket-Extensions: permessage-deflate\r\n").await;
    let gateway = start(&route("/", backend.address));
    for over in BOTH {
        let mut client = open(&gateway, "/", over, "permessage-deflate").await;
        let mut server = soon(sessions.recv()).await.unwrap();
        client.send(0xC1, [0xCA, 0x00]).await;
        assert_eq!(server.receive().await.unwrap().b0, 0xC1);
        server.send(0xC2, [0xCA, 0x00]).await;
        assert_eq!(client.receive().await.unwrap().b0, 0xC2);
    }
    let (backend, mut sessions) = handing_over("").await;
    let gateway = start(&route("/", backend.address));
    for over in BOTH {
        let mut client = open(&gateway, "/", over, "permessage-deflate").await;
        let mut server = soon(sessions.recv()).await.unwrap();
        client.send(0xC1, [0xCA, 0x00]).await;
        server.expect_close(1002).await; // RSV1 means nothing here
    }
}

#[tokio::test]
async fn a_client_that_breaks_a_rule() {
    let (backend, mut sessions) = handing_over("").await;
    let routes = route("/", backend.address) + "[route.websocket]\nmax_message = \"1KiB\"\n";
    let gateway = start(&routes);
    for (bad, code) in [
        (vec![0x81, 0x01, b'x'], 1002),
        (encode(TEXT | 0x40, b"rsv", true), 1002),
        (encode(0x83, b"opcode", true), 1002),
        (encode(0x80, b"continues nothing", true), 1002),
        ([encode(0x01, &[b'a'; 1000], true), encode(0x80, &[b'a'; 25], true)].concat(), 1009),
        (encode(BINARY, &[0; 1025], true), 1009),
        (encode(CLOSE, &1006u16.to_be_bytes(), true), 1002),
    ] {
        for over in BOTH {
            let mut client = open(&gateway, "/", over, "").await;
            let mut server = soon(sessions.recv()).await.unwrap();
            client.send_raw(&[&encode(TEXT, b"before", true)[..], &bad].concat()).await;
            server.expect_text("before").await;
            let mut frame = server.receive().await.unwrap();
            if frame.b0 == 0x01 {
                frame = server.receive().await.unwrap(); // the good first fragment
            }
            assert_eq!(frame.close_code(), code, "{bad:02x?}");
            assert!(frame.masked);
            // What it still says is relayed, then its Close.
            server.text("after").await;
            client.expect_text("after").await;
            server.close(code).await;
            client.expect_close(code).await;
            client.expect_end().await;
        }
    }
    let line = gateway.wait("session");
    assert_eq!((&line["ended_by"], &line["close_code"]), (&"client".into(), &1002.into()));
    assert!(line["cause"].as_str().unwrap().contains("not masked"), "{line}");
}

#[tokio::test]
async fn a_backend_that_breaks_a_rule() {
    let (backend, mut sessions) = handing_over("").await;
    let gateway = start(&route("/", backend.address));
    for over in BOTH {
        let mut client = open(&gateway, "/", over, "").await;
        let mut server = soon(sessions.recv()).await.unwrap();
        server.send_raw(&[encode(TEXT, b"before", false), encode(TEXT, b"masked", true)].concat()).await;
        client.expect_text("before").await;
        client.expect_close(1002).await;
        client.text("after").await;
        server.expect_text("after").await;
        client.close(1002).await;
        server.expect_close(1002).await;
    }
    let line = gateway.wait("session");
    assert_eq!((&line["ended_by"], &line["close_code"]), (&"backend".into(), &1002.into()));
}

#[tokio::test]
async fn a_client_cut_off_inside_a_frame() {
    let (backend, mut sessions) = handing_over("").await;
    let gateway = start(&route("/", backend.address));
    for over in BOTH {
        let mut client = open(&gateway, "/", over, "").await;
        let mut server = soon(sessions.recv()).await.unwrap();
        let wire = encode(BINARY, b"this is cut off", true);
        client.send_raw(&wire[..9]).await;
        let mut seen = [0; 9];
        soon(server.io.read_exact(&mut seen)).await.unwrap();
        drop(client);
        // No Close: the backend sees 1006, as it would have.
        assert!(soon(server.io.read_u8()).await.is_err());
    }
    let line = gateway.wait("session");
    assert_eq!((&line["ended_by"], &line["close_code"]), (&"client".into(), &1006.into()));
}

#[tokio::test]
async fn pings_find_clients_that_are_gone() {
    let (backend, mut sessions) = handing_over("").await;
    let routes = route("/", backend.address)
        + "[route.websocket]\nping_interval = \"100ms\"\npong_timeout = \"300ms\"\n";
    let gateway = start(&routes);
    for over in BOTH {
        let mut client = open(&gateway, "/", over, "").await;
        let mut server = soon(sessions.recv()).await.unwrap();
        for _ in 0..3 {
            let ping = client.receive().await.unwrap();
            assert_eq!(ping.b0, PING);
            client.send(PONG, ping.payload).await;
        }
        // None of it reached the backend.
        client.text("alive").await;
        server.expect_text("alive").await;
        // Silence, though the connection stands.
        assert!(soon(server.io.read_u8()).await.is_err());
        while client.io.read_u8().await.is_ok() {}
    }
    let line = gateway.wait("session");
    assert_eq!((&line["ended_by"], &line["close_code"]), (&"client".into(), &1006.into()));
    assert!(line["cause"].as_str().unwrap().contains("pong_timeout"), "{line}");
}

#[tokio::test]
async fn idle_sessions_are_closed() {
    let (backend, mut sessions) = handing_over("").await;
    let routes = route("/", backend.address)
        + "[route.websocket]\nidle_timeout = \"500ms\"\nping_interval = \"100ms\"\n"
        + "[[route]]\npath = \"/echo\"\nservice = \"echo\"\n[route.websocket]\nidle_timeout = \"500ms\"\n";
    let gateway = start(&routes);
    for over in BOTH {
        let mut client = open(&gateway, "/", over, "").await;
        let mut server = soon(sessions.recv()).await.unwrap();
        // Pings and pongs are no messages.
        let close = loop {
            let frame = client.receive().await.unwrap();
            if frame.b0 != PING {
                break frame;
            }
            client.send(PONG, frame.payload).await;
        };
        assert_eq!(close.close_code(), 1001);
        server.expect_close(1001).await;
    }
    for over in BOTH {
        let mut client = open(&gateway, "/echo", over, "").await;
        client.echoes("x").await;
        client.expect_close(1001).await;
    }
}

#[tokio::test]
async fn sessions_end_with_their_lifetime() {
    let (backend, mut sessions) = handing_over("").await;
    let rules = "[route.websocket]\nlifetime = \"700ms\"\nping_interval = \"off\"\n";
    let routes =
        route("/", backend.address) + rules + "[[route]]\npath = \"/echo\"\nservice = \"echo\"\n" + rules;
    let gateway = start(&routes);
    for over in BOTH {
        let mut client = open(&gateway, "/", over, "").await;
        let mut server = soon(sessions.recv()).await.unwrap();
        // A message that has begun is finished. Messages don't put the end off.
        client.send(0x01, b"be").await;
        assert_eq!(server.receive().await.unwrap().payload, b"be");
        client.expect_close(1001).await;
        client.send(0x80, b"gun").await;
        assert_eq!(server.receive().await.unwrap().payload, b"gun");
        server.expect_close(1001).await;
        let line = gateway.wait("session");
        assert_eq!((&line["ended_by"], &line["close_code"]), (&"gateway".into(), &1001.into()));
        assert_eq!(line["cause"], "the session has reached its lifetime");
    }
    for over in BOTH {
        let mut client = open(&gateway, "/echo", over, "").await;
        client.echoes("x").await;
        client.expect_close(1001).await;
        client.send(CLOSE, &1001_u16.to_be_bytes()).await;
        assert_eq!(gateway.wait("session")["cause"], "the session has reached its lifetime");
    }
}

#[tokio::test]
async fn the_echo_service() {
    let routes = "[[route]]\npath = \"/\"\nservice = \"echo\"\n\
                  [route.websocket]\nmax_message = \"1MiB\"\nping_interval = \"200ms\"\norigins = [\"https://a.test\"]\n";
    let gateway = start(routes);
    for over in BOTH {
        let mut client = open(&gateway, "/", over, "").await;
        client.echoes("tom").await;
        client.send(0x01, "κό".as_bytes()).await;
        client.send(PING, b"between").await;
        client.send(0x80, "σμε".as_bytes()).await;
        assert_eq!(client.receive().await.unwrap().b0, PONG);
        client.expect_text("κόσμε").await;
        let big = vec![7; 1 << 20];
        client.send(BINARY, &big).await;
        let mut frame = client.receive().await.unwrap();
        if frame.b0 == PING {
            client.send(PONG, frame.payload).await;
            frame = client.receive().await.unwrap();
        }
        assert!(frame.payload == big);
        let ping = client.receive().await.unwrap();
        assert_eq!(ping.b0, PING);
        client.send(PONG, ping.payload).await;
        client.send(0x01, b"\xF0\x9F").await;
        client.send(0x80, b"").await; // ends inside a code point
        client.expect_close(1007).await;
        client.expect_end().await;
    }
    let io = Tls::new("default.test", &["http/1.1"]).connect(gateway.address()).await.unwrap();
    let fields = "Sec-WebSocket-Protocol: chat, v2\r\nSec-WebSocket-Extensions: permessage-deflate\r\n";
    let (mut client, head) = WebSocket::connect(io, "default.test", "/", fields).await.unwrap();
    assert_eq!(
        (head.get("sec-websocket-protocol"), head.get("sec-websocket-extensions")),
        (Some("chat"), None)
    );
    client.send(BINARY, vec![0; (1 << 20) + 1]).await;
    client.expect_close(1009).await;
    let io = Tls::new("default.test", &["http/1.1"]).connect(gateway.address()).await.unwrap();
    let refused = WebSocket::connect(io, "default.test", "/", "Origin: https://evil.test\r\n").await;
    assert_eq!(refused.err().unwrap().status(), 403);
}

#[tokio::test]
async fn back_pressure_reaches_the_sender_both_ways() {
    let (backend, mut sessions) = handing_over("").await;
    let gateway = start(&route("/", backend.address));
    let before = gateway.resident_kib();
    for over in BOTH {
        for upwards in [true, false] {
            let client = open(&gateway, "/", over, "").await;
            let server = soon(sessions.recv()).await.unwrap();
            let (sender, receiver) = if upwards { (client, server) } else { (server, client) };
            let frames = encode(BINARY, &[0; 60_000], sender.client).repeat(20);
            let (mut from, mut to) = (sender.io, receiver.io);
            // Until nothing moves any more: socket buffers and one buffer of the gateway's are full.
            let mut sent = 0;
            let patience = Duration::from_millis(500);
            while let Ok(n) = timeout(patience, from.write(&frames[sent % frames.len()..])).await {
                sent += n.unwrap();
                assert!(sent < 64 << 20, "the gateway takes everything");
            }
            let taking = async {
                let mut taken = vec![0; sent + frames.len()];
                soon(to.read_exact(&mut taken)).await.unwrap();
            };
            let going_on = async {
                let rest = frames.len() - sent % frames.len();
                soon(from.write_all(&frames[frames.len() - rest..])).await.unwrap();
                soon(from.write_all(&frames)).await.unwrap();
                from.flush().await.unwrap();
            };
            tokio::join!(taking, going_on);
        }
    }
    let grown = gateway.resident_kib().saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB");
}

/// The kernel takes a whole message for a slow link at once, and the gateway's ping waits behind it.
#[tokio::test]
async fn a_client_behind_a_slow_link_is_waited_for_while_it_takes_what_the_kernel_holds() {
    const RATE: usize = 2 << 10; // bytes in a tenth of a second
    const LEN: usize = 90 * RATE;
    let (backend, mut sessions) = handing_over("").await;
    let times = "[route.websocket]\nping_interval = \"1s\"\npong_timeout = \"3s\"\n";
    let gateway = start(&(route("/", backend.address) + times));
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 << 10).unwrap();
    let tcp = socket.connect(gateway.address()).await.unwrap();
    let io = Tls::new("default.test", &["http/1.1"]).over(tcp).await.unwrap();
    let (WebSocket { mut io, .. }, _) = WebSocket::connect(io, "default.test", "/", "").await.unwrap();
    let mut server = soon(sessions.recv()).await.unwrap();
    server.send(BINARY, vec![0; LEN]).await;
    let mut left = LEN;
    let mut part = vec![0; RATE];
    let mut link = tokio::time::interval(Duration::from_millis(100));
    while left > 0 {
        link.tick().await;
        let read = soon(io.read(&mut part)).await.unwrap();
        assert!(read > 0, "cut with {left} bytes left");
        left = left.saturating_sub(read);
    }
    assert_eq!(gateway.lines("session").len(), 0);
}

/// Sends long messages while it is `busy`, and throws away what comes.
fn never_rest(gateway: SocketAddr, busy: Arc<AtomicBool>) -> impl FnOnce() {
    move || {
        let mut io = net::TcpStream::connect(gateway).unwrap();
        io.write_all(handshake("default.test", "/", "").as_bytes()).unwrap();
        let mut reads = io.try_clone().unwrap();
        thread::spawn(move || io::copy(&mut reads, &mut io::sink()));
        let wire = encode(BINARY, &vec![1; 1 << 20], true);
        while busy.load(Ordering::Relaxed) {
            io.write_all(&wire).unwrap();
        }
        io.shutdown(net::Shutdown::Both).unwrap();
    }
}

/// A worker that never rests sees its timers between messages, or not at all: no session may be forgotten.
#[tokio::test]
async fn idle_sessions_are_pinged_while_others_never_rest_and_behind_that() {
    const IDLE: usize = 2000;
    rlimit::increase_nofile_limit(u64::MAX).unwrap(); // a client and its backend each
    let (backend, _seen) = echo().await;
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"]);
    let times = "[route.websocket]\nping_interval = \"1s\"\npong_timeout = \"1m\"\n";
    let gateway = setup.start(&config("workers = 1", &(route("/", backend.address) + times)));
    let plain = gateway.addresses()[1];
    let connect = async || {
        let tcp = TcpStream::connect(plain).await.unwrap();
        WebSocket::connect(tcp, "default.test", "/", "").await.unwrap().0
    };
    let pings: Arc<[AtomicUsize]> = (0..IDLE).map(|_| AtomicUsize::new(0)).collect();
    for index in 0..IDLE {
        let (mut socket, pings) = (connect().await, pings.clone());
        tokio::spawn(async move {
            while let Some(frame) = socket.receive().await {
                assert_eq!(frame.b0, PING);
                pings[index].fetch_add(1, Ordering::Relaxed);
                socket.send(PONG, frame.payload).await;
            }
        });
    }
    let all_have_more = async |more: usize| {
        let before: Vec<_> = pings.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let has_more =
            |(count, before): (&AtomicUsize, &usize)| count.load(Ordering::Relaxed) >= before + more;
        timeout(Duration::from_secs(60), async {
            while !pings.iter().zip(&before).all(has_more) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .expect("a session that is pinged no more");
    };
    let busy = Arc::new(AtomicBool::new(true));
    let senders: Vec<_> = (0..4).map(|_| thread::spawn(never_rest(plain, busy.clone()))).collect();
    all_have_more(3).await;
    busy.store(false, Ordering::Relaxed);
    while !senders.iter().all(thread::JoinHandle::is_finished) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    all_have_more(2).await;
}
