//! An echo over in-memory streams, on a paused clock.

mod moving;
mod shared;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::outbox::{COPY_MAX, OUTBOX_LEN};
use super::*;
use crate::handle::{EndMode, Order};
use crate::policy::{LIFETIME_MESSAGES_WAIT, STALL_MAX};
use crate::sequence::Limits;
use crate::test_io::{Drip, frame, masked};

const SECOND: Duration = Duration::from_secs(1);

fn policy() -> Policy {
    Policy {
        limits: Limits { message_max: 1 << 20, deflate: false },
        idle_timeout: None,
        lifetime: None,
        ping_interval: None,
        pong_timeout: 10 * SECOND,
    }
}

async fn echo<S>(io: S, policy: Policy, handle: SessionHandle) -> Outcome
where
    S: ClientStream + Send + 'static,
{
    let mut endpoint = Endpoint::new(io, policy, handle);
    while let Some(message) = endpoint.recv().await {
        if endpoint.send(message).await.is_err() {
            break;
        }
    }
    endpoint.end().await
}

struct Rig {
    client: DuplexStream,
    handle: SessionHandle,
    echo: JoinHandle<Outcome>,
}

async fn rig(policy: Policy, room: usize) -> Rig {
    let (client, near) = duplex(room);
    let handle = SessionHandle::new();
    let echo = tokio::spawn(echo(near, policy, handle.clone()));
    tokio::task::yield_now().await; // the session's clock starts
    Rig { client, handle, echo }
}

impl Rig {
    async fn send(&mut self, wire: &[u8]) {
        self.client.write_all(wire).await.unwrap();
    }

    #[track_caller]
    fn expect(&mut self, wire: &[u8]) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let mut seen = vec![0; wire.len()];
            timeout(3600 * SECOND, self.client.read_exact(&mut seen))
                .await
                .unwrap_or_else(|_| panic!("silence at {caller}"))
                .unwrap_or_else(|e| panic!("{e} at {caller}"));
            assert!(seen == wire, "{:02x?} at {caller}", &seen[..seen.len().min(40)]);
        }
    }

    async fn expect_end(&mut self) {
        assert_eq!(self.client.read(&mut [0]).await.unwrap(), 0);
    }
}

fn close(code: u16) -> Vec<u8> {
    code.to_be_bytes().into()
}

#[tokio::test(start_paused = true)]
async fn messages_come_back_whole() {
    let mut rig = rig(policy(), 1 << 20).await;
    let split = "κόσμε".as_bytes();
    rig.send(&[masked(0x01, &split[..3]), masked(0x89, b"p"), masked(0x80, &split[3..])].concat()).await;
    rig.expect(&[frame(0x8A, b"p"), frame(0x81, split)].concat()).await;
    let big: Vec<u8> = (0..300_000u32).map(|i| i.to_le_bytes()[0]).collect();
    rig.send(&[masked(0x82, &big), masked(0x81, b""), masked(0x8A, b"unasked")].concat()).await;
    rig.expect(&[frame(0x82, &big), frame(0x81, b"")].concat()).await;
    rig.send(&masked(0x88, b"\x0F\xA0bye")).await;
    rig.expect(&frame(0x88, b"\x0F\xA0bye")).await;
    rig.expect_end().await;
    drop(rig.client);
    let outcome = rig.echo.await.unwrap();
    assert_eq!((outcome.cause.ended_by(), outcome.cause.close_code()), (Party::Client, 4000));
    assert_eq!((outcome.from_client.messages, outcome.from_backend.messages), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn dripping_streams_lose_nothing() {
    let (mut client, near) = duplex(7);
    let echo = tokio::spawn(echo(Drip::new(near, 42), policy(), SessionHandle::new()));
    let wire = [masked(0x01, b"to"), masked(0x80, b"m"), masked(0x82, &[3; 5000])].concat();
    let expect = [frame(0x81, b"tom"), frame(0x82, &[3; 5000])].concat();
    let (mut from, mut to) = tokio::io::split(&mut client);
    let mut seen = vec![0; expect.len()];
    let (read, written) = tokio::join!(from.read_exact(&mut seen), to.write_all(&wire));
    read.and(written.map(|()| 0)).unwrap();
    assert!(seen == expect);
    drop(client);
    assert_eq!(echo.await.unwrap().cause, Cause::Lost { party: Party::Client, how: Ended::Eof });
}

#[tokio::test(start_paused = true)]
async fn a_dropped_receive_loses_nothing() {
    let (mut client, near) = duplex(1024);
    let mut endpoint = Endpoint::new(near, policy(), SessionHandle::new());
    for byte in masked(0x82, b"slow") {
        assert_eq!(timeout(SECOND, endpoint.recv()).await.ok(), None);
        client.write_all(&[byte]).await.unwrap();
    }
    let message = endpoint.recv().await.unwrap();
    assert_eq!((message.kind, &message.payload[..]), (MessageKind::Binary, &b"slow"[..]));
}

#[tokio::test(start_paused = true)]
async fn a_text_is_refused_at_its_first_wrong_byte() {
    // The rest of the frame never comes.
    let wire = masked(0x81, b"\xCE\xBA\xE1\xBD\xB9\xF4\x90 and what the client would have sent");
    let until_wrong = &wire[..6 + 7];
    let continued = [&masked(0x01, b"to")[..], &masked(0x89, b""), &[0x80], &until_wrong[1..]].concat();
    for bytes in [until_wrong, &continued] {
        let mut rig = rig(policy(), 1 << 20).await;
        let (last, before) = bytes.split_last().unwrap();
        rig.send(before).await;
        if bytes[0] == 0x01 {
            rig.expect(&frame(0x8A, b"")).await;
        }
        assert!(timeout(SECOND, rig.client.read(&mut [0])).await.is_err(), "F4 may begin a code point");
        rig.send(&[*last]).await;
        let mut close = [0; 4];
        timeout(SECOND, rig.client.read_exact(&mut close)).await.unwrap().unwrap();
        assert_eq!((close[0], u16::from_be_bytes([close[2], close[3]])), (0x88, 1007));
    }
}

#[tokio::test(start_paused = true)]
async fn a_text_that_comes_slowly_is_the_same_text() {
    let text = "κόσμε ".repeat(20);
    for chunk_len in 1..12 {
        let (mut client, near) = duplex(1024);
        let mut endpoint = Endpoint::new(near, policy(), SessionHandle::new());
        let wire = [masked(0x01, &text.as_bytes()[..101]), masked(0x80, &text.as_bytes()[101..])].concat();
        let mut message = None;
        for chunk in wire.chunks(chunk_len) {
            client.write_all(chunk).await.unwrap();
            message = timeout(SECOND, endpoint.recv()).await.ok().flatten();
        }
        let message = message.unwrap();
        assert_eq!((message.kind, &message.payload[..]), (MessageKind::Text, text.as_bytes()));
    }
}

#[tokio::test(start_paused = true)]
async fn broken_rules_end_the_session_with_their_code() {
    let cases: [(&[u8], u16); 9] = [
        (&[0x81, 0x01, b'x'], 1002),
        (&masked(0x80, b"c"), 1002),
        (&[masked(0x01, b"a"), masked(0x02, b"b")].concat(), 1002),
        (&masked(0x81, b"\xFF"), 1007),
        (&[masked(0x01, b"ab\xF0\x9F"), masked(0x80, b"")].concat(), 1007), // a partial code point
        (&masked(0x88, &close(1005)), 1002),
        (&masked(0x88, b"\x03\xE8\xFF"), 1007),
        (&[0x82, 0xFF, 0, 0, 0, 0, 0, 0x10, 0, 1, 0, 0, 0, 0], 1009),
        (&[masked(0x02, &[0; 1 << 19]), masked(0x00, &[0; 1 << 19]), masked(0x80, b"x")].concat(), 1009),
    ];
    for (wire, code) in cases {
        let mut rig = rig(policy(), 1 << 22).await;
        rig.send(&[&masked(0x81, b"good")[..], wire, &masked(0x81, b"ignored")].concat()).await;
        rig.expect(&frame(0x81, b"good")).await;
        let mut rest = Vec::new();
        rig.client.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest[0], 0x88, "{wire:02x?}");
        assert_eq!(usize::from(rest[1]), rest.len() - 2, "one Close and nothing else");
        assert_eq!(Close::parse(&rest[2..]).unwrap().code, Some(code), "{wire:02x?}");
        drop(rig.client);
        let outcome = rig.echo.await.unwrap();
        assert_eq!((outcome.cause.ended_by(), outcome.cause.close_code()), (Party::Client, code));
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_pinged_and_then_gone() {
    let mut rig = rig(Policy { ping_interval: Some(30 * SECOND), ..policy() }, 1024).await;
    let before = Instant::now();
    let mut ping = [0; 10];
    rig.client.read_exact(&mut ping).await.unwrap();
    assert_eq!((ping[..2].to_vec(), before.elapsed()), (vec![0x89, 8], 30 * SECOND));
    rig.send(&masked(0x8A, &ping[2..])).await;
    rig.client.read_exact(&mut ping).await.unwrap();
    assert_eq!(before.elapsed(), 60 * SECOND);
    // Half a frame is life as well.
    tokio::time::sleep(5 * SECOND).await;
    rig.send(&masked(0x81, b"half")[..4]).await;
    rig.client.read_exact(&mut ping).await.unwrap();
    assert_eq!(before.elapsed(), 95 * SECOND);
    rig.expect_end().await;
    assert_eq!(before.elapsed(), 105 * SECOND);
    assert_eq!(rig.echo.await.unwrap().cause, Cause::PongTimeout);
}

#[tokio::test(start_paused = true)]
async fn idle_counts_messages() {
    let mut rig = rig(Policy { idle_timeout: Some(60 * SECOND), ..policy() }, 1024).await;
    let before = Instant::now();
    tokio::time::sleep(20 * SECOND).await;
    rig.send(&masked(0x81, b"x")).await;
    rig.expect(&frame(0x81, b"x")).await;
    tokio::time::sleep(20 * SECOND).await;
    rig.send(&masked(0x89, b"")).await;
    rig.expect(&frame(0x8A, b"")).await;
    rig.expect(&frame(0x88, b"\x03\xE9idle")).await;
    assert_eq!(before.elapsed(), 80 * SECOND);
    rig.send(&masked(0x88, &close(1001))).await;
    rig.expect_end().await;
    drop(rig.client);
    assert_eq!(rig.echo.await.unwrap().cause, Cause::Idle);
}

#[tokio::test(start_paused = true)]
async fn idle_counts_messages_that_are_not_answered_too() {
    let (mut client, near) = duplex(1024);
    let policy = Policy { idle_timeout: Some(60 * SECOND), ..policy() };
    let session = tokio::spawn(async move {
        let mut endpoint = Endpoint::new(near, policy, SessionHandle::new());
        while endpoint.recv().await.is_some() {}
        endpoint.end().await
    });
    let before = Instant::now();
    tokio::time::sleep(40 * SECOND).await;
    client.write_all(&masked(0x81, b"x")).await.unwrap();
    client.read_u8().await.unwrap();
    assert_eq!(before.elapsed(), 100 * SECOND);
    drop(client);
    assert_eq!(session.await.unwrap().cause, Cause::Idle);
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_with_its_lifetime_after_the_message_in_flight() {
    let mut rig = rig(Policy { lifetime: Some(60 * SECOND), ..policy() }, 1024).await;
    let before = Instant::now();
    for _ in 0..59 {
        tokio::time::sleep(SECOND).await;
        rig.send(&masked(0x81, b"x")).await;
        rig.expect(&frame(0x81, b"x")).await;
    }
    rig.send(&masked(0x01, b"be")).await;
    assert!(timeout(10 * SECOND, rig.client.read_u8()).await.is_err(), "the message is waited for");
    rig.send(&masked(0x80, b"gun")).await;
    rig.expect(&[frame(0x81, b"begun"), frame(0x88, &close(1001))].concat()).await;
    assert_eq!(before.elapsed(), 69 * SECOND);
    rig.send(&masked(0x88, &close(1001))).await;
    rig.expect_end().await;
    drop(rig.client);
    assert_eq!(rig.echo.await.unwrap().cause, Cause::Lifetime);
}

#[tokio::test(start_paused = true)]
async fn a_message_without_an_end_outlives_no_lifetime() {
    let mut rig = rig(Policy { lifetime: Some(60 * SECOND), ..policy() }, 1024).await;
    let before = Instant::now();
    rig.send(&masked(0x01, b"begun")).await;
    rig.expect(&frame(0x88, &close(1001))).await;
    assert_eq!(before.elapsed(), 60 * SECOND + LIFETIME_MESSAGES_WAIT);
    assert_eq!(rig.echo.await.unwrap().cause, Cause::Lifetime);
}

/// Its timers are not looked at while there is always more to be read.
#[tokio::test(start_paused = true)]
async fn a_client_that_never_pauses_does_not_outlive_its_lifetime() {
    struct Flood(Vec<u8>);
    impl AsyncRead for Flood {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut tokio::io::ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            buf.put_slice(&self.0);
            Poll::Ready(Ok(()))
        }
    }
    impl ClientStream for tokio::io::Join<Flood, tokio::io::Sink> {}
    let io = tokio::io::join(Flood(masked(0x82, &[7; 1000])), tokio::io::sink());
    let mut endpoint =
        Endpoint::new(io, Policy { lifetime: Some(60 * SECOND), ..policy() }, SessionHandle::new());
    for _ in 0..100 {
        endpoint.recv().await.unwrap();
    }
    tokio::time::advance(60 * SECOND).await;
    let mut left = 1000;
    while left > 0 && endpoint.recv().await.is_some() {
        left -= 1;
    }
    assert_eq!(endpoint.cause, Some(Cause::Lifetime));
}

#[tokio::test(start_paused = true)]
async fn an_order_ends_a_session_without_a_message_in_flight_at_once() {
    let mut rig = rig(policy(), 1024).await;
    rig.send(&[masked(0x01, b"to"), masked(0x80, b"m")].concat()).await;
    rig.expect(&frame(0x81, b"tom")).await;
    let before = Instant::now();
    rig.handle.end(Order { code: 1001, mode: EndMode::AfterMessages { within: 30 * SECOND } });
    rig.expect(&frame(0x88, &close(1001))).await;
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn the_connection_ends_behind_the_answer_to_a_close() {
    let mut rig = rig(policy(), 1024).await;
    rig.handle.end(Order { code: 1001, mode: EndMode::Now });
    rig.expect(&frame(0x88, &close(1001))).await;
    for wire in [masked(0x81, b"on its way"), masked(0x89, b"")] {
        rig.send(&wire).await;
        assert!(timeout(SECOND / 2, rig.client.read_u8()).await.is_err(), "neither an end nor an echo");
    }
    rig.send(&masked(0x88, &close(1001))).await;
    rig.expect_end().await;
    drop(rig.client);
    assert_eq!(rig.echo.await.unwrap().client, Exit::Orderly);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_a_close_unanswered_has_two_seconds() {
    let mut rig = rig(policy(), 1024).await;
    let before = Instant::now();
    rig.handle.end(Order { code: 1001, mode: EndMode::Now });
    rig.expect(&frame(0x88, &close(1001))).await;
    let outcome = rig.echo.await.unwrap();
    assert_eq!((outcome.client, before.elapsed()), (Exit::Orderly, CLOSE_WAIT), "it has been told all");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_not_received_everything_is_cut() {
    let mut rig = rig(policy(), 64).await;
    rig.send(&masked(0x82, &[7; 62])).await; // its echo fills the pipe
    tokio::task::yield_now().await;
    rig.handle.end(Order { code: 1001, mode: EndMode::Now });
    assert_eq!(rig.echo.await.unwrap().client, Exit::Cut);
}

#[tokio::test(start_paused = true)]
async fn the_owner_of_an_endpoint_chooses_the_close() {
    let (client, near) = duplex(1024);
    let mut endpoint = Endpoint::new(near, policy(), SessionHandle::new());
    endpoint.close(4000, "bye");
    endpoint.close(4001, "too late");
    assert_eq!(endpoint.recv().await, None);
    let end = tokio::spawn(endpoint.end());
    let mut client = client;
    let mut seen = [0; 7];
    client.read_exact(&mut seen).await.unwrap();
    assert_eq!(seen[..], frame(0x88, b"\x0F\xA0bye"));
    drop(client);
    let outcome = end.await.unwrap();
    assert_eq!((outcome.cause.ended_by(), outcome.cause.close_code()), (Party::Gateway, 4000));
}

fn binary(len: usize) -> Message {
    Message { kind: MessageKind::Binary, payload: BytesMut::zeroed(len) }
}

#[tokio::test(start_paused = true)]
async fn what_is_queued_is_counted_and_lets_go_of_its_memory() {
    let (mut client, near) = duplex(64);
    let mut endpoint = Endpoint::new(near, policy(), SessionHandle::new());
    endpoint.send(binary(100)).await.unwrap();
    assert_eq!(endpoint.outbox.len(), 102, "it waits for others to leave with it");
    assert_eq!(timeout(SECOND, endpoint.recv()).await.ok(), None);
    assert_eq!(endpoint.outbox.len(), 38, "the pipe holds 64");
    let held = net_io::memory::held();
    assert_eq!(timeout(SECOND, endpoint.send(binary(5000))).await.ok(), None, "a long one leaves by itself");
    assert_eq!((endpoint.outbox.len(), net_io::memory::held()), (38 + 4 + 5000, held + 4 + 5000));
    let mut seen = vec![0; 102 + 5004];
    let (read, _) = tokio::join!(client.read_exact(&mut seen), timeout(SECOND, endpoint.recv()));
    read.unwrap();
    assert_eq!((endpoint.outbox.len(), net_io::memory::held()), (0, held - 38));
    drop(client);
    let (_client, near) = duplex(1 << 20);
    let mut endpoint = Endpoint::new(near, policy(), SessionHandle::new());
    for _ in 0..15 {
        endpoint.send(binary(COPY_MAX)).await.unwrap();
    }
    assert_eq!(timeout(SECOND, endpoint.recv()).await.ok(), None);
    assert_eq!(endpoint.outbox.bytes.capacity(), 0, "bytes for nothing");
}

#[tokio::test(start_paused = true)]
async fn a_sender_waits_for_a_client_that_takes_nothing_and_then_gives_it_up() {
    let (_client, near) = duplex(1024);
    let mut endpoint = Endpoint::new(near, policy(), SessionHandle::new());
    let before = Instant::now();
    let mut sent = 0;
    while endpoint.send(binary(3000)).await.is_ok() {
        sent += 3000;
        assert!(sent < 2 * OUTBOX_LEN, "nothing waits for the client");
    }
    assert_eq!(before.elapsed(), STALL_MAX);
    let outcome = endpoint.end().await;
    assert_eq!((outcome.cause, outcome.client), (Cause::Stalled, Exit::Cut));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_a_little_now_and_then_is_not_given_up() {
    let mut rig = rig(policy(), 1024).await;
    let message = masked(0x82, &[1; 3000]);
    while timeout(SECOND, rig.client.write_all(&message)).await.is_ok() {}
    for _ in 0..5 {
        tokio::time::sleep(STALL_MAX / 2).await;
        rig.client.read_exact(&mut [0; 100]).await.unwrap();
    }
    assert!(!rig.echo.is_finished());
    tokio::time::sleep(STALL_MAX).await;
    assert_eq!(rig.echo.await.unwrap().cause, Cause::Stalled);
}

#[tokio::test(start_paused = true)]
async fn it_notes_since_when_something_waits_for_the_client() {
    let mut rig = rig(policy(), 64).await;
    assert_eq!(rig.handle.stalled_since(), None);
    rig.send(&masked(0x01, b"to")).await;
    tokio::task::yield_now().await;
    assert!(rig.handle.stalled_since().is_some(), "for the rest of its message");
    rig.send(&masked(0x80, b"m")).await;
    rig.expect(&frame(0x81, b"tom")).await;
    tokio::time::sleep(SECOND).await;
    assert_eq!(rig.handle.stalled_since(), None);
    rig.send(&masked(0x82, &[7; 1000])).await;
    tokio::time::sleep(SECOND).await;
    let first = rig.handle.stalled_since().unwrap();
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_millis(2) {}
    rig.client.read_exact(&mut [0; 60]).await.unwrap();
    tokio::time::sleep(SECOND).await;
    assert!(rig.handle.stalled_since().unwrap() > first, "it has taken some");
}

#[tokio::test(start_paused = true)]
async fn an_order_waits_for_the_message_in_flight() {
    let mut rig = rig(policy(), 1024).await;
    let wire = masked(0x81, b"in flight");
    rig.send(&wire[..8]).await;
    tokio::time::sleep(SECOND).await;
    rig.handle.end(Order { code: 1001, mode: EndMode::AfterMessages { within: 30 * SECOND } });
    assert!(timeout(SECOND, rig.client.read_u8()).await.is_err());
    rig.send(&wire[8..]).await;
    rig.expect(&[frame(0x81, b"in flight"), frame(0x88, &close(1001))].concat()).await;
    rig.send(&masked(0x88, &close(1001))).await;
    rig.expect_end().await;
    drop(rig.client);
    let outcome = rig.echo.await.unwrap();
    assert_eq!((outcome.cause, outcome.client), (Cause::Ordered { code: 1001 }, Exit::Orderly));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_kept_open_does_not_outlast_an_order() {
    let mut rig = rig(policy(), 1024).await;
    rig.send(&masked(0x01, b"a")).await;
    tokio::time::sleep(SECOND).await;
    let before = Instant::now();
    rig.handle.end(Order { code: 1001, mode: EndMode::AfterMessages { within: 5 * SECOND } });
    let Rig { client, echo, .. } = rig;
    let (mut from, mut to) = tokio::io::split(client);
    let endless = tokio::spawn(async move {
        while to.write_all(&masked(0x00, b"and")).await.is_ok() {
            tokio::time::sleep(SECOND / 10).await;
        }
    });
    let mut seen = [0; 4];
    from.read_exact(&mut seen).await.unwrap();
    assert_eq!((before.elapsed(), &seen[..]), (5 * SECOND, &frame(0x88, &close(1001))[..]));
    assert_eq!(echo.await.unwrap().cause, Cause::Ordered { code: 1001 });
    assert!(before.elapsed() <= 5 * SECOND + CLOSE_WAIT);
    endless.abort();
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_is_kept_open_and_silent_does_not_outlast_an_order() {
    let mut rig = rig(policy(), 1024).await;
    rig.send(&masked(0x82, b"half")[..7]).await;
    tokio::time::sleep(SECOND).await;
    let before = Instant::now();
    rig.handle.end(Order { code: 1001, mode: EndMode::AfterMessages { within: 9 * SECOND } });
    tokio::time::sleep(SECOND).await;
    rig.handle.end(Order { code: 1012, mode: EndMode::AfterMessages { within: 4 * SECOND } });
    rig.expect(&frame(0x88, &close(1001))).await;
    assert_eq!(before.elapsed(), 5 * SECOND, "the earlier end counts");
    assert_eq!(rig.echo.await.unwrap().cause, Cause::Ordered { code: 1001 });
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_does_not_outlast_an_order() {
    let mut rig = rig(policy(), 1024).await;
    let message = masked(0x82, &[1; 3000]);
    while timeout(SECOND, rig.client.write_all(&message)).await.is_ok() {}
    let before = Instant::now();
    rig.handle.end(Order { code: 1001, mode: EndMode::AfterMessages { within: 5 * SECOND } });
    let outcome = timeout(60 * SECOND, rig.echo).await.unwrap().unwrap();
    assert_eq!((outcome.cause, outcome.client), (Cause::Ordered { code: 1001 }, Exit::Cut));
    assert_eq!(before.elapsed(), 5 * SECOND + CLOSE_WAIT);
}

#[tokio::test(start_paused = true)]
async fn it_answers_a_snapshot_when_asked() {
    let mut rig = rig(policy(), 64).await;
    rig.send(&masked(0x81, b"abc")).await;
    rig.expect(&frame(0x81, b"abc")).await;
    tokio::time::sleep(7 * SECOND).await;
    let snapshot = rig.handle.request_snapshot().await.unwrap();
    for traffic in [snapshot.from_client, snapshot.from_backend] {
        assert_eq!((traffic.messages, traffic.payload_bytes), (1, 3));
    }
    assert_eq!((snapshot.idle, snapshot.is_closing), (7 * SECOND, false));
    // Also while its client takes nothing.
    rig.send(&masked(0x82, &[7; 1000])).await;
    tokio::time::sleep(SECOND).await;
    assert_eq!(rig.handle.request_snapshot().await.unwrap().from_client.messages, 2);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_is_not_read_either_and_can_be_ended() {
    let mut rig = rig(policy(), 1024).await;
    let message = masked(0x82, &[1; 3000]);
    let mut sent = 0;
    while timeout(SECOND, rig.client.write_all(&message)).await.is_ok() {
        sent += message.len();
        assert!(sent < 8 * OUTBOX_LEN, "the echo takes everything");
    }
    rig.handle.end(Order { code: 1001, mode: EndMode::Now });
    let outcome = rig.echo.await.unwrap();
    assert_eq!((outcome.cause, outcome.client), (Cause::Ordered { code: 1001 }, Exit::Cut));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_is_idle_in_the_end() {
    let mut rig = rig(Policy { idle_timeout: Some(60 * SECOND), ..policy() }, 1024).await;
    let message = masked(0x82, &[1; 3000]);
    while timeout(SECOND, rig.client.write_all(&message)).await.is_ok() {}
    assert_eq!(timeout(120 * SECOND, rig.echo).await.unwrap().unwrap().cause, Cause::Idle);
}

#[tokio::test(start_paused = true)]
async fn pings_of_a_client_that_reads_nothing_do_not_pile_up() {
    let mut rig = rig(policy(), 1024).await;
    let pings = masked(0x89, &[1; 125]).repeat(100);
    let mut sent = 0;
    while let Ok(n) = timeout(SECOND, rig.client.write(&pings)).await {
        sent += n.unwrap();
        assert!(sent < 8 * OUTBOX_LEN, "the endpoint takes everything");
    }
}

/// An alarm that is heard seconds late is counted once, whatever the endpoint waits for; one in time is not.
#[tokio::test(start_paused = true)]
async fn late_alarms_are_counted() {
    use crate::policy::STALL_MAX;
    use crate::timer::take_late_count;
    for sends in [false, true] {
        let (mut client, near) = duplex(64);
        let policy = Policy { ping_interval: Some(SECOND), ..policy() };
        let mut endpoint = Endpoint::new(near, policy, SessionHandle::new());
        let mut life = std::pin::pin!(async {
            if sends {
                let payload = BytesMut::from(&[0; 1 << 20][..]);
                let _ = endpoint.send(Message { kind: MessageKind::Binary, payload }).await;
            }
            while endpoint.recv().await.is_some() {}
        });
        let mut live = async || poll_fn(|cx| Poll::Ready(life.as_mut().poll(cx).is_ready())).await;
        assert_eq!((live().await, take_late_count()), (false, 0));
        // A ping, or the end of waiting for a client that takes nothing; this one does.
        let due = if sends { STALL_MAX } else { SECOND };
        for (late, expect) in [(SECOND / 100, 0), (3 * SECOND, 1)] {
            let look = if sends { due / 2 } else { Duration::ZERO }; // in the middle of the wait
            tokio::time::advance(look).await;
            assert_eq!((live().await, take_late_count()), (false, 0));
            tokio::time::advance(due - look + late).await;
            if sends {
                client.read_exact(&mut [0; 2]).await.unwrap();
            } else {
                client.write_all(&masked(0x8A, b"")).await.unwrap();
            }
            assert_eq!((live().await, take_late_count()), (false, expect), "sends: {sends}, late: {late:?}");
        }
    }
}

/// A client that has sent any number of frames, short or long, doesn't keep others of the worker waiting for all
/// of them.
#[tokio::test(start_paused = true)]
async fn others_have_their_turn_between_many_frames() {
    for (fragments, payload) in [(10_000, vec![7; 1]), (100, vec![7; 10_000])] {
        let (mut client, near) = duplex(2 << 20);
        client.write_all(&masked(0x01, &[])).await.unwrap();
        for _ in 0..fragments {
            client.write_all(&masked(0x00, &payload)).await.unwrap();
        }
        client.write_all(&masked(0x80, &[])).await.unwrap();
        let mut endpoint = Endpoint::new(near, policy(), SessionHandle::new());
        let mut receiving = std::pin::pin!(endpoint.recv());
        let mut turns = 0;
        let message = poll_fn(|cx| {
            turns += 1;
            receiving.as_mut().poll(cx)
        });
        assert_eq!(message.await.unwrap().payload.len(), fragments * payload.len());
        let least = (fragments + 2) * (FRAME_COST + payload.len()) / QUANTUM_LEN;
        assert!((least..least + 20).contains(&turns), "{turns} of {least}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_outbox_has_room_again_when_a_part_of_it_is_taken() {
    let (_client, near) = duplex(50_000);
    let mut endpoint = Endpoint::new(near, policy(), SessionHandle::new());
    for _ in 0..17 {
        endpoint.outbox.push(OpCode::Binary, BytesMut::from(&[0; COPY_MAX][..]));
    }
    assert!(endpoint.outbox.is_full());
    poll_fn(|cx| {
        assert!(endpoint.poll_flush(cx).is_pending());
        Poll::Ready(())
    })
    .await;
    assert!(!endpoint.outbox.is_full());
}
