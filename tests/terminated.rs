//! permessage-deflate that ends at the gateway: compressed with clients, plain with the server, or with the gateway's echo.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use bytes::BytesMut;
use frame_core::deflate::{Deflater, Inflater, Window};
use support::backend::{Backend, echo_frames};
use support::gateway::{Gateway, MOVED, RETIRED, Setup, config, kib, route};
use support::http2::Http2;
use support::tls::Tls;
use support::until;
use support::ws::{CLOSE, PING, PONG, TEXT, WebSocket};
use tokio::net::TcpStream;

/// In the first byte of a frame.
const RSV1: u8 = 0x40;
const OFFER: &str = "permessage-deflate; client_max_window_bits";
const SMALL: Window = Window { bits: 12, is_kept: true };
const LARGE: Window = Window { bits: 15, is_kept: true };

const TERMINATE: &str = "[route.websocket]\ncompression = \"terminate\"\n";

/// A server that says everything back, and fails the test if it is offered compression.
async fn server() -> Backend {
    Backend::start(|tcp| async move {
        let (socket, head) = WebSocket::serve(tcp, "").await;
        assert_eq!(head.get("sec-websocket-extensions"), None);
        echo_frames(socket).await;
    })
    .await
}

fn setup() -> Setup {
    Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"])
}

/// A gateway before such a server.
async fn start(websocket: &str) -> (Gateway, Backend) {
    let backend = server().await;
    (start_before(&route("/", backend.address), websocket), backend)
}

/// One that says everything back itself.
fn start_echo(websocket: &str) -> Gateway {
    start_before("[[route]]\npath = \"/\"\nservice = \"echo\"\n", websocket)
}

/// One with this route.
fn start_before(route: &str, websocket: &str) -> Gateway {
    setup().start(&config("", &format!("{route}{TERMINATE}{websocket}\n")))
}

/// The socket of a client that offers compression, and what was agreed upon.
async fn connect(gateway: &Gateway) -> (WebSocket, String) {
    let (socket, agreed) = offer(gateway, "/").await;
    (socket, agreed.expect("compression"))
}

async fn offer(gateway: &Gateway, path: &str) -> (WebSocket, Option<String>) {
    let tcp = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
    let fields = format!("Sec-WebSocket-Extensions: {OFFER}\r\n");
    let (socket, head) = WebSocket::connect(tcp, "default.test", path, &fields).await.unwrap();
    (socket, head.get("sec-websocket-extensions").map(str::to_owned))
}

/// What is agreed upon at a path.
async fn agreed_at(gateway: &Gateway, path: &str) -> Option<String> {
    offer(gateway, path).await.1
}

/// A client that compresses.
struct Client {
    socket: WebSocket,
    deflater: Deflater,
    inflater: Inflater,
}

impl Client {
    fn new(socket: WebSocket) -> Self {
        Self { socket, deflater: Deflater::new(SMALL, 4096), inflater: Inflater::new(LARGE) }
    }

    async fn open(gateway: &Gateway) -> Self {
        let (socket, agreed) = connect(gateway).await;
        assert_eq!(agreed, "permessage-deflate; client_max_window_bits=12");
        Self::new(socket)
    }

    async fn send(&mut self, text: &str) {
        let mut wire = Vec::new();
        assert!(self.deflater.message(text.as_bytes(), &mut wire));
        self.socket.send(TEXT | RSV1, wire).await;
    }

    /// The next message, and its length on the wire. A Pong may come between its frames.
    async fn receive(&mut self) -> (String, usize) {
        self.receive_behind(BytesMut::new()).await
    }

    /// The same, if this is there of it.
    async fn receive_behind(&mut self, mut out: BytesMut) -> (String, usize) {
        let mut len = 0;
        loop {
            let frame = self.socket.receive().await.unwrap();
            if frame.b0 == PONG {
                continue;
            }
            let begins = out.is_empty();
            assert_eq!((frame.b0 & 0x7F, frame.masked), (if begins { 0x01 | RSV1 } else { 0x00 }, false));
            len += frame.payload.len();
            let fin = frame.b0 & 0x80 != 0;
            assert!(self.inflater.inflate(&mut &frame.payload[..], fin, &mut out, 1 << 24).unwrap());
            if fin {
                return (String::from_utf8(out.to_vec()).unwrap(), len);
            }
        }
    }

    /// Sends the first bytes of a compressed message; those behind them are left, for [`Self::send_rest`].
    async fn send_first(&mut self, text: &str) -> Vec<u8> {
        let mut wire = Vec::new();
        self.deflater.part(text.as_bytes(), true, &mut wire);
        self.socket.send(0x41, &wire[..3]).await;
        wire.split_off(3)
    }

    async fn send_rest(&mut self, rest: &[u8]) {
        self.socket.send(0x80, rest).await;
    }

    /// The server has read all that was sent.
    async fn is_heard(&mut self) {
        self.socket.send(PING, "what was sent before has come").await;
        assert_eq!(self.socket.receive().await.unwrap().b0, PONG);
    }

    /// The code of the Close that comes, behind what the server has had of a message and has said back.
    async fn close_code(&mut self) -> u16 {
        loop {
            let frame = self.socket.receive().await.expect("a Close");
            if frame.b0 == CLOSE {
                return frame.close_code();
            }
        }
    }

    /// How long the answer was on the wire.
    async fn echoes(&mut self, text: &str) -> usize {
        self.send(text).await;
        let (seen, len) = self.receive().await;
        assert!(seen == text, "{} bytes, not {}", seen.len(), text.len());
        len
    }
}

const TICK: &str = r#"{"symbol":"EURUSD","bid":1.08412,"ask":1.08415,"time":"2026-11-30T12:00:00Z"}"#;

#[tokio::test]
async fn messages_are_compressed_with_clients_and_plain_with_the_server() {
    let (gateway, _backend) = start("").await;
    speaks(&gateway).await;
}

#[tokio::test]
async fn an_echo_speaks_it_too() {
    speaks(&start_echo("")).await;
}

async fn speaks(gateway: &Gateway) {
    let mut client = Client::open(gateway).await;
    let first = client.echoes(TICK).await;
    let again = client.echoes(TICK).await;
    assert!(first > 50 && again < 20, "{first} {again}: what went before is referred to");
    client.socket.echoes("short").await;
    let long = TICK.repeat(20_000);
    assert!(client.echoes(&long).await < 60_000);
    client.echoes(TICK).await;

    // In fragments, with a Ping between them.
    let rest = client.send_first(TICK).await;
    client.socket.send(PING, "between").await;
    client.send_rest(&rest).await;
    assert_eq!(client.receive().await.0, TICK);
    client.socket.close(1000).await;
    client.socket.expect_close(1000).await;
    let line = gateway.wait("session");
    assert_eq!(
        (&line["received_messages"], &line["compression"]),
        (&6.into(), &"terminate".into()),
        "{line}"
    );
    for (plain, wire) in [("received_bytes", "received_wire_bytes"), ("sent_bytes", "sent_wire_bytes")] {
        let [plain, wire] = [plain, wire].map(|name| line[name].as_u64().unwrap());
        assert!(plain > long.len() as u64 && (10_000..60_000).contains(&wire), "{line}");
    }

    // A client that offers nothing gets plain messages.
    let tcp = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
    let (mut plain, head) = WebSocket::connect(tcp, "default.test", "/", "").await.unwrap();
    assert_eq!(head.get("sec-websocket-extensions"), None);
    plain.echoes(TICK).await;
    plain.close(1000).await;
    plain.expect_close(1000).await;
    assert_eq!(gateway.wait_nth("session", 1)["compression"], serde_json::Value::Null);
}

#[tokio::test]
async fn what_is_gained_is_counted() {
    let backend = server().await;
    let echo = "[[route]]\npath = \"/echo\"\nservice = \"echo\"\n".to_owned() + TERMINATE;
    let routes =
        format!("{}{TERMINATE}{echo}[admin]\naddress = \"127.0.0.3:0\"\n", route("/", backend.address));
    let gateway = setup().start(&config("", &routes));
    for path in ["/", "/echo"] {
        let count = async |metric: &str, labels: &str| {
            gateway.metric(&format!("wssgate_compressed_{metric}{{route=\"{path}\"{labels}}}")).await
        };
        let mut client = Client::new(offer(&gateway, path).await.0);
        client.echoes(&TICK.repeat(100)).await;
        client.socket.echoes("short").await; // not compressed, and not counted
        assert_eq!(count("sessions", "").await, 1);
        for from in [",from=\"client\"", ",from=\"backend\""] {
            assert_eq!(count("inflated_bytes_total", from).await, 100 * TICK.len() as u64, "{path} {from}");
            let wire = count("wire_bytes_total", from).await;
            assert!((50..1000).contains(&wire), "{path} {from} {wire}");
        }
        client.socket.close(1000).await;
        client.socket.expect_close(1000).await;
        until(async || count("sessions", "").await == 0).await;
    }
}

#[tokio::test]
async fn over_http2_too() {
    let (gateway, _backend) = start("").await;
    over_http2(&gateway).await;
    over_http2(&start_echo("")).await;
}

async fn over_http2(gateway: &Gateway) {
    let io = Tls::new("default.test", &["h2"]).connect(gateway.address()).await.unwrap();
    let mut http2 = Http2::connect(io, "default.test").await;
    let (socket, _) = http2.websocket("/", &[("sec-websocket-extensions", OFFER)]).await.unwrap();
    let mut client = Client::new(socket);
    client.echoes(TICK).await;
    assert!(client.echoes(TICK).await < 20);
}

#[tokio::test]
async fn limits_hold_for_what_is_inflated() {
    let (gateway, _backend) = start("max_message = \"100KiB\"").await;
    limits_hold(&gateway).await;
    limits_hold(&start_echo("max_message = \"100KiB\"")).await;
}

async fn limits_hold(gateway: &Gateway) {
    for (len, ends) in [(100 * 1024, false), (100 * 1024 + 1, true), (10_000_000, true)] {
        let mut client = Client::open(gateway).await;
        let text = "x".repeat(len);
        if ends {
            client.send(&text).await;
            assert_eq!(client.close_code().await, 1009);
        } else {
            client.echoes(&text).await;
        }
    }
    for (b0, payload, code) in
        [(TEXT | RSV1, &b"\xFF\xFF\xFF"[..], 1007), (PING | RSV1, b"", 1002), (0xC0, b"", 1002)]
    {
        let mut client = Client::open(gateway).await;
        client.echoes(TICK).await;
        client.socket.send(b0, payload).await;
        client.socket.expect_close(code).await;
    }
}

#[tokio::test]
async fn what_grows_beyond_all_measure_is_ended() {
    let (gateway, _backend) = start("").await; // without a limit of messages
    growth_is_ended(&gateway).await;
    growth_is_ended(&start_echo("")).await;
}

async fn growth_is_ended(gateway: &Gateway) {
    let mut client = Client::open(gateway).await;
    client.send(&"x".repeat(50_000_000)).await;
    assert_eq!(client.close_code().await, 1009);
    let line = gateway.wait("session");
    assert!(line["cause"].as_str().unwrap().contains("grows by more than 256 times"), "{line}");
    let received = line["received_bytes"].as_u64().unwrap();
    assert!(received < 16 * 1024 * 1024, "{received}");
}

#[tokio::test]
async fn rates_count_what_is_inflated() {
    const MESSAGES: &str = "messages = \"3/h\"\non_limit = \"close\"";
    const BYTES: &str = "bytes = \"1KiB/s\"\non_limit = \"close\"";
    let ((messages, _backend), (bytes, _other)) = (start(MESSAGES).await, start(BYTES).await);
    rates_count(&messages, &bytes).await;
    rates_count(&start_echo(MESSAGES), &start_echo(BYTES)).await;
}

async fn rates_count(messages: &Gateway, bytes: &Gateway) {
    let mut client = Client::open(messages).await;
    for _ in 0..3 {
        client.echoes(&TICK.repeat(1000)).await; // in parts, and one message
    }
    client.send(TICK).await;
    assert_eq!(client.close_code().await, 1008);
    client.socket.close(1008).await;
    assert_eq!(messages.wait("session")["limit"], "messages");

    let mut client = Client::open(bytes).await;
    client.send(&"x".repeat(4000)).await; // some 20 bytes on the wire
    assert_eq!(client.close_code().await, 1008);
    client.socket.close(1008).await;
    assert_eq!(bytes.wait("session")["limit"], "bytes");
}

#[tokio::test]
async fn what_is_kept_is_bounded_for_a_session_and_for_all() {
    const ALONE: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    let backend = server().await;
    let route = |path| route(path, backend.address) + TERMINATE;
    let echo = "[[route]]\npath = \"/echo\"\nservice = \"echo\"\n".to_owned() + TERMINATE;
    let routes = route("/") + &echo + &route("/none") + "compression_history = \"off\"\n";
    let top = "workers = 1\nmax_compression_memory = \"12KiB\"";
    let gateway = setup().start(&config(top, &routes));
    let mut first = Client::open(&gateway).await;
    assert!(first.echoes(TICK).await > 50 && first.echoes(TICK).await < 20);
    assert_eq!(agreed_at(&gateway, "/echo").await.as_deref(), Some(ALONE));
    let (socket, agreed) = connect(&gateway).await;
    assert_eq!(agreed, ALONE);
    let mut second = Client::new(socket);
    second.deflater = Deflater::new(Window { is_kept: false, ..LARGE }, 4096);
    second.inflater = Inflater::new(Window { is_kept: false, ..LARGE });
    assert_eq!(second.echoes(TICK).await, second.echoes(TICK).await);
    first.socket.close(1000).await;
    first.socket.expect_close(1000).await;
    gateway.wait_nth("session", 1); // behind that of the echo
    assert!(Client::open(&gateway).await.echoes(TICK).await > 50);
    assert_eq!(agreed_at(&gateway, "/none").await.as_deref(), Some(ALONE));
}

#[tokio::test]
async fn an_echo_that_passes_compression_on_has_none_to_pass_it_to() {
    let echo = "[[route]]\npath = \"/\"\nservice = \"echo\"\n";
    for websocket in ["", "[route.websocket]\ncompression = \"pass\"\n"] {
        let gateway = setup().start(&config("", &format!("{echo}{websocket}")));
        assert_eq!(agreed_at(&gateway, "/").await, None);
    }
}

#[tokio::test]
async fn a_session_goes_on_at_another_server() {
    let backend = Backend::start(|tcp| async move {
        let (mut socket, head) = WebSocket::serve(tcp, "").await;
        assert_eq!(head.get("sec-websocket-extensions"), None);
        while let Some(frame) = socket.receive().await {
            if frame.payload == b"restart" {
                return socket.close(1012).await;
            }
            socket.send(frame.b0, frame.payload).await;
        }
    })
    .await;
    let upstream = format!(
        "[[upstream]]\nname = \"pool\"\nservers = \"http://{}\"\nsession_lost = \"redial\"\n",
        backend.address
    );
    let routes = format!("{upstream}[[route]]\npath = \"/\"\nproxy = \"pool\"\n{TERMINATE}");
    let gateway = setup().start(&config("", &routes));
    let mut client = Client::open(&gateway).await;
    client.echoes(TICK).await;
    client.socket.text("restart").await;
    assert!(client.echoes(TICK).await < 20, "the new server has seen none of it, and need not");
    client.echoes(TICK).await;
    client.socket.close(1000).await;
    client.socket.expect_close(1000).await;
    assert_eq!(gateway.wait("session")["redials"], 1);
}

#[tokio::test]
async fn a_session_moves_with_what_its_messages_refer_to() {
    let (gateway, _backend) = start("messages = \"1000/s\"").await;
    let mut client = Client::open(&gateway).await;
    let mut midst = Client::open(&gateway).await;
    client.echoes(TICK).await;
    midst.echoes(TICK).await;
    let rest = midst.send_first(TICK).await;
    let begun = midst.socket.receive().await.unwrap();
    assert_eq!(begun.b0, 0x41, "what has come goes on");
    let mut out = BytesMut::new();
    midst.inflater.inflate(&mut &begun.payload[..], false, &mut out, 1 << 16).unwrap();
    gateway.take_over();
    gateway.wait(MOVED);
    assert!(client.echoes(TICK).await < 20, "both directions refer to what the old process has seen");
    // A session in the middle of a compressed message stays where it is, and moves if that comes within five seconds.
    midst.send_rest(&rest).await;
    assert_eq!(midst.receive_behind(out).await.0, TICK);
    assert!(midst.echoes(TICK).await < 20);
    drop((client, midst));
    gateway.wait(RETIRED);
    gateway.ends_with_its_last_process();
}

#[tokio::test]
async fn an_echo_moves_with_what_its_messages_refer_to() {
    let gateway = start_echo("messages = \"1000/s\"");
    let mut client = Client::open(&gateway).await;
    let mut midst = Client::open(&gateway).await;
    client.echoes(TICK).await;
    midst.echoes(TICK).await;
    let rest = midst.send_first(TICK).await;
    midst.is_heard().await;
    gateway.take_over();
    gateway.wait(MOVED);
    assert!(client.echoes(TICK).await < 20, "both directions refer to what the old process has seen");
    midst.send_rest(&rest).await;
    assert_eq!(midst.receive().await.0, TICK);
    assert!(midst.echoes(TICK).await < 20);
    drop((client, midst));
    gateway.wait(RETIRED);
    gateway.ends_with_its_last_process();
}

#[tokio::test]
async fn a_drain_waits_for_a_message_in_the_middle() {
    let mut gateway = setup().start(&config(
        "drain_window = \"1ms\"",
        &format!("[[route]]\npath = \"/\"\nservice = \"echo\"\n{TERMINATE}"),
    ));
    let mut client = Client::open(&gateway).await;
    let mut idle = Client::open(&gateway).await;
    client.echoes(TICK).await;
    idle.echoes(TICK).await;
    let rest = client.send_first(TICK).await;
    client.is_heard().await;
    gateway.signal("TERM");
    idle.socket.expect_close(1001).await;
    idle.socket.close(1001).await;
    client.send_rest(&rest).await;
    assert_eq!(client.receive().await.0, TICK);
    client.socket.expect_close(1001).await;
    client.socket.close(1001).await;
    gateway.ends_well();
}

/// Each client sends some kilobytes, which become four megabytes and are not whole.
#[tokio::test]
async fn what_little_becomes_is_bounded_by_max_memory() {
    let echo = "[[route]]\npath = \"/\"\nservice = \"echo\"\n";
    let gateway = setup().start(&config("workers = 1\nmax_memory = \"8MiB\"", &format!("{echo}{TERMINATE}")));
    // A quarter of it does not shrink, so that it does not grow too much.
    let mut noise = 1_u32;
    let bytes = (0..4_000_000_u32).map(|at| {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if at % 4000 < 40 { noise.to_be_bytes()[0] } else { b'x' }
    });
    let mut wire = Vec::new();
    Deflater::new(SMALL, 4096).part(&bytes.collect::<Vec<_>>(), false, &mut wire);
    assert!(wire.len() < 100_000, "{}", wire.len());
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(Client::open(&gateway).await);
    }
    let before = kib(gateway.pid(), "VmHWM:");
    for client in &mut clients {
        client.socket.send(0x42, &wire).await;
    }
    let line = gateway.wait_nth("session", 9);
    assert_eq!((&line["close_code"], &line["ended_by"]), (&1013.into(), &"gateway".into()), "{line}");
    let grown = kib(gateway.pid(), "VmHWM:") - before;
    assert!(grown < 48 * 1024, "{grown} KiB, of 160 MB");
    drop(clients);
    gateway.wait_nth("session", 39);
    Client::open(&gateway).await.echoes(TICK).await;
}
