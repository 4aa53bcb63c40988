//! permessage-deflate (RFC 7692).

use std::sync::Arc;

use bytes::BytesMut;
use frame_core::deflate::{Deflater, Inflater, Window};
use support::ws::{BINARY, Frame, PING, PONG, TEXT};
use tokio::sync::Semaphore;
use wss_service::Compression;

use super::*;

/// In the first byte of a frame.
const RSV1: u8 = 0x40;
const KEPT: Window = Window { bits: 15, is_kept: true };
const ALONE: Window = Window { bits: 15, is_kept: false };
const ALL_KEPT: Compression = Compression {
    to_client_history: 4096,
    from_client_history: 32 * 1024,
    memory_max: 1 << 20,
    messages_max: 16 << 20,
};

/// A client that compresses.
struct Client {
    socket: WebSocket,
    deflater: Deflater,
    inflater: Inflater,
}

impl Client {
    /// What the answer says.
    async fn open(running: &Running, offer: &str) -> (WebSocket, Option<String>) {
        let fields = format!("Sec-WebSocket-Extensions: {offer}\r\n");
        let (socket, head) = WebSocket::connect(running.tcp().await, "a.test", "/", &fields).await.unwrap();
        (socket, head.get("sec-websocket-extensions").map(ToOwned::to_owned))
    }

    async fn new(running: &Running, answer: &str, [from_client, to_client]: [Window; 2]) -> Self {
        let (socket, agreed) = Self::open(running, "permessage-deflate").await;
        assert_eq!(agreed.as_deref(), Some(answer));
        Self { socket, deflater: Deflater::new(from_client, 32 * 1024), inflater: Inflater::new(to_client) }
    }

    async fn send(&mut self, b0: u8, payload: &[u8]) {
        let mut wire = Vec::new();
        assert!(self.deflater.message(payload, &mut wire));
        self.socket.send(b0 | RSV1, wire).await;
    }

    fn inflate(&mut self, frames: &[Frame]) -> String {
        let mut out = BytesMut::new();
        for (at, frame) in frames.iter().enumerate() {
            let is_first = at == 0;
            assert_eq!(frame.b0 & RSV1 != 0, is_first, "RSV1 stands in the first frame alone");
            let fin = frame.b0 & 0x80 != 0;
            assert_eq!(fin, at + 1 == frames.len());
            assert!(self.inflater.inflate(&mut &frame.payload[..], fin, &mut out, 1 << 24).unwrap());
        }
        String::from_utf8(out.to_vec()).unwrap()
    }

    async fn expect(&mut self, text: &str) -> usize {
        let frame = self.socket.receive().await.unwrap();
        assert_eq!(frame.b0, TEXT | RSV1);
        assert!(self.inflate(std::slice::from_ref(&frame)) == text);
        frame.payload.len()
    }
}

#[tokio::test]
async fn messages_are_compressed_both_ways() {
    let running = start(bind().compression(ALL_KEPT).on_message(echo));
    let mut client = Client::new(&running, "permessage-deflate", [KEPT, KEPT]).await;
    let text = r#"{"symbol":"EURUSD","bid":1.08412,"ask":1.08415,"time":"2026-11-30T12:00:00Z"}"#;
    let mut lens = Vec::new();
    for _ in 0..3 {
        client.send(TEXT, text.as_bytes()).await;
        lens.push(client.expect(text).await);
    }
    assert!(lens[0] > 50 && lens[1] < 20 && lens[2] < 20, "{lens:?}: what was sent before is referred to");
    client.socket.echoes("short ones go as they are").await;
    let long = text.repeat(10_000);
    client.send(TEXT, long.as_bytes()).await;
    assert!(client.expect(&long).await < 20_000);
    client.send(BINARY, long.as_bytes()).await;
    assert_eq!(client.socket.receive().await.unwrap().b0, BINARY | RSV1);
}

#[tokio::test]
async fn a_message_may_come_and_go_in_fragments() {
    let service = bind().compression(ALL_KEPT).on_message(async |session: Session, message: Message| {
        let mut parts = session.begin_text().await?;
        for part in message.as_text().unwrap().split_inclusive('.') {
            parts.send(part).await?;
        }
        parts.finish().await
    });
    let mut client = Client::new(&start(service), "permessage-deflate", [KEPT, KEPT]).await;
    let text = "The first part. The second part. The third part.";
    for _ in 0..2 {
        let mut wire = Vec::new();
        client.deflater.part(text.as_bytes(), true, &mut wire);
        client.socket.send(0x41, &wire[..3]).await;
        client.socket.send(PING, "between").await;
        client.socket.send(0x00, "").await;
        client.socket.send(0x80, &wire[3..]).await;
        assert_eq!(client.socket.receive().await.unwrap().b0, PONG);
        let mut frames = Vec::new();
        for b0 in [0x41, 0x00, 0x00, 0x80] {
            frames.push(client.socket.receive().await.unwrap());
            assert_eq!(frames.last().unwrap().b0, b0);
        }
        assert_eq!(client.inflate(&frames), text);
    }
}

#[tokio::test]
async fn a_broadcast_is_compressed_once() {
    const ANSWER: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    let running = start(bind().compression(Compression::default()).on_message(echo));
    let mut first = Client::new(&running, ANSWER, [ALONE, ALONE]).await;
    let mut second = Client::new(&running, ANSWER, [ALONE, ALONE]).await;
    let mut plain = running.open("/").await;
    let mut small = Client::open(&running, "permessage-deflate; server_max_window_bits=9").await.0;
    until(async || running.hub.count(To::All) == 4).await;
    let text = "to all of them, to all of them, ".repeat(100);
    for _ in 0..2 {
        assert_eq!(running.hub.send_to(To::All, text.as_str()).await.queued, 4);
        let frame = first.socket.receive().await.unwrap();
        assert_eq!(first.inflate(std::slice::from_ref(&frame)), text);
        assert_eq!(second.socket.receive().await.unwrap(), frame);
        plain.expect_text(&text).await;
        assert_eq!(small.receive().await.unwrap().b0, TEXT | RSV1);
    }
    first.send(TEXT, text.as_bytes()).await;
    first.expect(&text).await;
}

#[tokio::test]
async fn a_message_that_is_too_long_when_inflated_ends_the_session() {
    let (closing, mut closes) = closes();
    let settings = Settings { message_max: 100_000, ..Settings::default() };
    let service = bind().settings(settings).compression(ALL_KEPT).on_message(echo).on_close(closing);
    let running = start(service);
    for (len, code) in [(100_000, None), (100_001, Some(1009)), (90_000_000, Some(1009))] {
        let mut client = Client::new(&running, "permessage-deflate", [KEPT, KEPT]).await;
        let text = "x".repeat(len);
        client.send(TEXT, text.as_bytes()).await;
        match code {
            None => drop(client.expect(&text).await),
            Some(code) => client.socket.expect_close(code).await,
        }
        drop(client);
        assert_eq!(soon(closes.recv()).await.unwrap().code, code.unwrap_or(1006));
    }
    // As it is, it may be no longer either.
    let mut client = Client::new(&running, "permessage-deflate", [KEPT, KEPT]).await;
    client.socket.text(&"x".repeat(100_001)).await;
    client.socket.expect_close(1009).await;
}

#[tokio::test]
async fn what_breaks_the_rules_ends_the_session() {
    let running = start(bind().compression(ALL_KEPT).on_message(echo));
    for (b0, payload, code) in [
        (TEXT | RSV1, &b"\xFF\xFF\xFF"[..], 1007),
        (TEXT | RSV1, b"\x02\x00\x11", 1007),                 // cut off
        (PING | RSV1, b"", 1002),                             // RFC 7692 §6.1
        (TEXT | RSV1, b"\x00\x01\x00\xFE\xFF\xFF\x00", 1007), // stored, and not UTF-8
    ] {
        let mut client = Client::new(&running, "permessage-deflate", [KEPT, KEPT]).await;
        client.socket.send(b0, payload).await;
        client.socket.expect_close(code).await;
    }
    let mut client = Client::new(&running, "permessage-deflate", [KEPT, KEPT]).await;
    client.socket.send(0x41, "").await;
    client.socket.send(0xC0, "").await;
    client.socket.expect_close(1002).await;
}

#[tokio::test]
async fn who_does_not_offer_it_is_not_troubled_by_it() {
    let running = start(bind().compression(ALL_KEPT).on_message(echo));
    let text = "told again, ".repeat(100);
    running.open("/").await.echoes(&text).await;
    for offer in ["permessage-deflate; mystery", "x-webkit-deflate-frame"] {
        let (mut socket, agreed) = Client::open(&running, offer).await;
        assert_eq!(agreed, None);
        socket.echoes(&text).await;
        socket.send(TEXT | RSV1, "").await;
        socket.expect_close(1002).await;
    }
    let off = start(bind().on_message(echo));
    let (mut socket, agreed) = Client::open(&off, "permessage-deflate").await;
    assert_eq!(agreed, None);
    socket.echoes(&text).await;
}

/// A few kilobytes of each client, which become half a megabyte: as long as they are not whole, and while they are handled.
#[tokio::test]
async fn what_messages_take_is_bounded_for_all_together() {
    let compression = Compression { messages_max: 4 << 20, ..ALL_KEPT };
    let (closing, mut closes) = closes();
    let gate = Arc::new(Semaphore::new(0));
    let open_gate = gate.clone();
    let handling = move |session: Session, message: Message| {
        let gate = gate.clone();
        async move {
            session.send("it has come").await?;
            let _ = gate.acquire().await;
            session.send(message).await
        }
    };
    let running = start(bind().compression(compression).on_message(handling).on_close(closing));
    let text = "x".repeat(512 * 1024);
    for is_whole in [false, true] {
        let (mut clients, mut ended) = (Vec::new(), 0);
        for _ in 0..20 {
            let mut client = Client::new(&running, "permessage-deflate", [KEPT, KEPT]).await;
            let mut wire = Vec::new();
            client.deflater.part(text.as_bytes(), is_whole, &mut wire);
            client.socket.send(if is_whole { 0xC1 } else { 0x41 }, wire).await;
            client.socket.send(PING, "").await;
            let answer = loop {
                let frame = client.socket.receive().await.unwrap();
                // What is whole is with its handler, whose answer comes before the Pong, or behind it.
                if frame.b0 != TEXT {
                    break frame;
                }
            };
            match answer.b0 {
                PONG => {}
                _ => {
                    assert_eq!(answer.close_code(), 1013);
                    ended += 1;
                }
            }
            clients.push(client);
        }
        assert!((8..=16).contains(&ended), "{ended} of 20, {is_whole}");
        drop(clients);
        if is_whole {
            open_gate.close(); // a session that is over waits for its handler
        }
        let mut causes = Vec::new();
        for _ in 0..20 {
            causes.push(soon(closes.recv()).await.unwrap().cause);
        }
        let short = causes.iter().filter(|cause| **cause == Cause::ShortOfMemory).count();
        assert_eq!(short, ended);
    }
}
