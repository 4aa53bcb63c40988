//! A bridge between in-memory streams, on a paused clock.

mod moving;

use tokio::io::{AsyncReadExt, DuplexStream, duplex, split};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::*;
use crate::handle::{EndMode, Order, SessionHandle};
use crate::policy::{Policy, STALL_MAX};
use crate::sequence::Limits;
use crate::test_io::{Drip, frame, masked, outcome, resets};

const SECOND: Duration = Duration::from_secs(1);

fn policy() -> Policy {
    Policy {
        limits: Limits { message_max: u64::MAX, deflate: false },
        idle_timeout: None,
        lifetime: None,
        ping_interval: None,
        pong_timeout: 10 * SECOND,
    }
}

struct Rig {
    client: DuplexStream,
    backend: DuplexStream,
    handle: SessionHandle,
    bridge: JoinHandle<Outcome>,
}

fn rig_over<B>(policy: Policy, room: usize, over: impl FnOnce(DuplexStream) -> B) -> Rig
where
    B: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (client, to_client) = duplex(room);
    let (backend, to_backend) = duplex(room);
    let (handle, mut to_backend) = (SessionHandle::new(), over(to_backend));
    let endpoint = Box::new(Endpoint::new(to_client, policy, handle.clone()));
    let bridge = tokio::spawn(async move { outcome(bridge(endpoint, &mut to_backend).await) });
    Rig { client, backend, handle, bridge }
}

fn rig(room: usize) -> Rig {
    rig_over(policy(), room, |io| io)
}

impl Rig {
    async fn send(&mut self, wire: &[u8]) {
        self.client.write_all(wire).await.unwrap();
    }

    #[track_caller]
    fn expect(&mut self, wire: &[u8]) -> impl Future<Output = ()> {
        expect(&mut self.client, wire)
    }

    #[track_caller]
    fn expect_at_backend(&mut self, bytes: &[u8]) -> impl Future<Output = ()> {
        expect(&mut self.backend, bytes)
    }

    async fn outcome(self) -> Outcome {
        drop((self.client, self.backend));
        self.bridge.await.unwrap()
    }
}

#[track_caller]
fn expect(io: &mut DuplexStream, expect: &[u8]) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let mut seen = vec![0; expect.len()];
        timeout(3600 * SECOND, io.read_exact(&mut seen))
            .await
            .unwrap_or_else(|_| panic!("silence at {caller}"))
            .unwrap_or_else(|e| panic!("{e} at {caller}"));
        assert!(seen == expect, "{:02x?} at {caller}", &seen[..seen.len().min(40)]);
    }
}

async fn expect_end(io: &mut DuplexStream) {
    assert_eq!(io.read(&mut [0]).await.unwrap(), 0);
}

fn close(code: u16) -> Vec<u8> {
    code.to_be_bytes().into()
}

fn numbers(len: usize) -> Vec<u8> {
    (0..len).map(|i| i.to_le_bytes()[i % 2]).collect()
}

#[tokio::test(start_paused = true)]
async fn messages_are_bytes_however_they_are_cut() {
    let mut rig = rig(1 << 20);
    let big = numbers(300_000);
    rig.send(&[masked(0x82, b"a"), masked(0x82, b""), masked(0x02, b"b"), masked(0x89, b"p")].concat()).await;
    rig.send(&[masked(0x80, b"c"), masked(0x82, &big)].concat()).await;
    rig.expect_at_backend(&[b"abc", &big[..]].concat()).await;
    rig.expect(&frame(0x8A, b"p")).await;
    rig.backend.write_all(b"hello").await.unwrap();
    rig.expect(&frame(0x82, b"hello")).await;
    rig.backend.write_all(&big[..70_000]).await.unwrap();
    rig.expect(&frame(0x82, &big[..MESSAGE_LEN])).await;
    rig.expect(&frame(0x82, &big[MESSAGE_LEN..70_000])).await;
    rig.send(&masked(0x88, b"\x03\xE8bye")).await;
    expect_end(&mut rig.backend).await;
    rig.backend.shutdown().await.unwrap();
    rig.expect(&frame(0x88, b"\x03\xE8bye")).await;
    expect_end(&mut rig.client).await;
    let outcome = rig.outcome().await;
    assert_eq!((outcome.cause.ended_by(), outcome.cause.close_code()), (Party::Client, 1000));
    assert_eq!((outcome.client, outcome.backend), (Exit::Orderly, Exit::Orderly));
    let (up, down) = (outcome.from_client, outcome.from_backend);
    assert_eq!((up.messages, up.payload_bytes), (4, 300_003));
    assert_eq!((down.messages, down.payload_bytes), (3, 70_005));
}

#[tokio::test(start_paused = true)]
async fn dripping_streams_lose_nothing() {
    let (mut client, to_client) = duplex(7);
    let (mut backend, to_backend) = duplex(5);
    let endpoint = Box::new(Endpoint::new(Drip::new(to_client, 42), policy(), SessionHandle::new()));
    let mut to_backend = Drip::new(to_backend, 7);
    let session = tokio::spawn(async move { outcome(bridge(endpoint, &mut to_backend).await) });
    let bytes = numbers(5000);
    let sent = [masked(0x02, &bytes[..3]), masked(0x80, &bytes[3..]), masked(0x88, &close(1000))].concat();
    let said = async {
        let (mut from, mut to) = split(&mut backend);
        let mut heard = Vec::new();
        let (read, wrote) = tokio::join!(from.read_to_end(&mut heard), async {
            to.write_all(&bytes).await.unwrap();
            to.shutdown().await
        });
        read.and(wrote.map(|()| 0)).unwrap();
        heard
    };
    let asked = async {
        let (mut from, mut to) = split(&mut client);
        let mut heard = Vec::new();
        let (read, wrote) = tokio::join!(from.read_to_end(&mut heard), to.write_all(&sent));
        read.and(wrote.map(|()| 0)).unwrap();
        heard
    };
    let (at_backend, at_client) = tokio::join!(said, asked);
    assert!(at_backend == bytes);
    let mut rest = &at_client[..];
    let mut payload = Vec::<u8>::new();
    while let [0x82, len @ 0..=125, tail @ ..] = rest {
        payload.extend(&tail[..usize::from(*len)]);
        rest = &tail[usize::from(*len)..];
    }
    assert!(payload == bytes);
    assert_eq!(rest, frame(0x88, &close(1000)));
    drop((client, backend));
    session.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn text_is_refused_and_the_backend_sees_no_orderly_end() {
    for text in [masked(0x81, b"text"), masked(0x01, b"te"), masked(0x81, &[b'a'; 100_000])] {
        let mut rig = rig(1 << 20);
        rig.send(&[masked(0x82, b"before"), text].concat()).await;
        rig.expect_at_backend(b"before").await;
        let mut head = [0; 4];
        rig.client.read_exact(&mut head).await.unwrap();
        assert_eq!((head[0], u16::from_be_bytes([head[2], head[3]])), (0x88, 1003));
        let outcome = rig.outcome().await;
        let violation = Violation::NotBinary;
        assert_eq!(outcome.cause, Cause::Violation { by: Party::Client, violation });
        assert_eq!(outcome.backend, Exit::Reset);
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_backends_stream_is_close_1000_behind_all_that_it_said() {
    let mut rig = rig(1000);
    rig.backend.write_all(&numbers(1000)).await.unwrap();
    rig.backend.shutdown().await.unwrap();
    sleep(50 * SECOND).await; // a slow client is waited for
    rig.send(&masked(0x82, b"half-closed")).await;
    rig.expect_at_backend(b"half-closed").await;
    rig.expect(&frame(0x82, &numbers(1000))).await;
    rig.expect(&frame(0x88, &close(1000))).await;
    rig.send(&[masked(0x82, b"still"), masked(0x88, &close(1000))].concat()).await;
    rig.expect_at_backend(b"still").await;
    expect_end(&mut rig.backend).await;
    expect_end(&mut rig.client).await;
    let outcome = rig.outcome().await;
    assert_eq!((outcome.cause.ended_by(), outcome.cause.close_code()), (Party::Backend, 1000));
    assert_eq!((outcome.backend, outcome.from_client.payload_bytes), (Exit::Orderly, 16));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_fails_is_close_1011_behind_what_came() {
    let mut rig = rig_over(policy(), 1000, resets);
    rig.backend.write_all(b"some").await.unwrap();
    rig.backend.shutdown().await.unwrap();
    rig.expect(&[frame(0x82, b"some"), frame(0x88, b"\x03\xF3backend lost")].concat()).await;
    rig.send(&masked(0x88, &close(1011))).await;
    let outcome = rig.outcome().await;
    assert_eq!(outcome.cause, Cause::Lost { party: Party::Backend, how: Ended::Reset });
}

/// A backend that takes no more may have said why.
#[tokio::test(start_paused = true)]
async fn what_a_backend_said_before_it_was_lost_arrives() {
    let mut rig = rig(1000);
    rig.backend.write_all(b"last words").await.unwrap();
    drop(std::mem::replace(&mut rig.backend, duplex(1).0));
    rig.send(&masked(0x82, b"too late")).await;
    rig.expect(&[frame(0x82, b"last words"), frame(0x88, b"\x03\xF3backend lost")].concat()).await;
    let outcome = rig.outcome().await;
    assert_eq!(outcome.cause, Cause::Lost { party: Party::Backend, how: Ended::Reset });
}

#[tokio::test(start_paused = true)]
async fn what_a_backend_says_after_the_clients_close_goes_before_the_answer_to_it() {
    let mut rig = rig(1000);
    rig.send(&[masked(0x82, b"ask"), masked(0x88, &close(1000))].concat()).await;
    rig.expect_at_backend(b"ask").await;
    expect_end(&mut rig.backend).await;
    sleep(SECOND / 2).await;
    rig.backend.write_all(b"answer").await.unwrap();
    rig.backend.shutdown().await.unwrap();
    rig.expect(&[frame(0x82, b"answer"), frame(0x88, &close(1000))].concat()).await;
    assert_eq!(rig.outcome().await.backend, Exit::Orderly);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_stays_silent_after_the_clients_close_is_not_waited_for() {
    let mut rig = rig(1000);
    let before = Instant::now();
    rig.send(&masked(0x88, &close(1000))).await;
    rig.expect(&frame(0x88, &close(1000))).await;
    assert_eq!(before.elapsed(), LAST_WORDS_WAIT);
    rig.outcome().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_lost_is_a_reset_for_the_backend() {
    let mut rig = rig(1000);
    rig.send(&masked(0x82, b"upl")).await;
    rig.expect_at_backend(b"upl").await;
    drop(rig.client);
    let outcome = rig.bridge.await.unwrap();
    assert_eq!(outcome.cause, Cause::Lost { party: Party::Client, how: Ended::Eof });
    assert_eq!(outcome.backend, Exit::Reset);
}

#[tokio::test(start_paused = true)]
async fn no_buffer_grows_and_neither_direction_waits_for_the_other() {
    let mut rig = rig(1000);
    let held = net_io::memory::held();
    let mut sent = 0;
    let message = masked(0x82, &[7; 100_000]);
    while let Ok(n) = timeout(SECOND, rig.client.write(&message[sent % message.len()..])).await {
        sent += n.unwrap();
    }
    assert!(sent < 512 * 1024, "{sent}"); // a part of 64 KiB, what was read ahead of it, and the pipes
    assert!(net_io::memory::held() - held < 512 * 1024);
    // While the backend takes nothing, the client gets what it says.
    rig.backend.write_all(b"meanwhile").await.unwrap();
    rig.expect(&frame(0x82, b"meanwhile")).await;
    let mut said = 0;
    while let Ok(n) = timeout(SECOND, rig.backend.write(&[1; 1000])).await {
        said += n.unwrap();
    }
    assert!(said < 3 * MESSAGE_LEN, "{said}");
    // While the client takes nothing, the backend gets what it says.
    let mut some = vec![0; 64 * 1024];
    rig.backend.read_exact(&mut some).await.unwrap();
    assert!(timeout(SECOND, rig.client.write(&message[sent % message.len()..])).await.is_ok());
    assert!(!rig.bridge.is_finished());
}

/// A client that sends pings and takes nothing gets only the answer to the last of them.
#[tokio::test(start_paused = true)]
async fn pings_of_a_client_that_takes_nothing_do_not_pile_up() {
    let mut rig = rig(1000);
    while timeout(SECOND, rig.backend.write(&[1; 1000])).await.is_ok() {}
    let held = net_io::memory::held();
    for n in 0..10_000_u32 {
        rig.send(&masked(0x89, &n.to_be_bytes())).await;
    }
    rig.send(&masked(0x82, b"last")).await;
    rig.expect_at_backend(b"last").await;
    assert!(net_io::memory::held() <= held + 1000);
    drop(rig.backend);
    let mut heard = Vec::new();
    let (mut from, mut to) = split(rig.client);
    from.read_to_end(&mut heard).await.unwrap();
    let pongs = heard.windows(6).filter(|wire| wire[..2] == [0x8A, 4]).count();
    assert_eq!(pongs, 1);
    to.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn keepalive_idle_time_and_stalls_are_those_of_every_endpoint() {
    let pinging = Policy { ping_interval: Some(30 * SECOND), ..policy() };
    let mut pinged = rig_over(pinging, 1000, |io| io);
    let mut ping = [0; 10];
    pinged.client.read_exact(&mut ping).await.unwrap();
    assert_eq!(ping[..2], [0x89, 8]);
    assert_eq!(pinged.bridge.await.unwrap().cause, Cause::PongTimeout);

    let mut idle = rig_over(Policy { idle_timeout: Some(60 * SECOND), ..policy() }, 1000, |io| io);
    let before = Instant::now();
    sleep(40 * SECOND).await;
    idle.backend.write_all(b"x").await.unwrap();
    idle.expect(&[frame(0x82, b"x"), frame(0x88, b"\x03\xE9idle")].concat()).await;
    assert_eq!(before.elapsed(), 100 * SECOND);
    assert_eq!(idle.outcome().await.backend, Exit::Orderly);

    let mut aged = rig_over(Policy { lifetime: Some(60 * SECOND), ..policy() }, 1000, |io| io);
    aged.expect(&frame(0x88, &close(1001))).await;
    let outcome = aged.outcome().await;
    assert_eq!((outcome.cause, outcome.backend), (Cause::Lifetime, Exit::Orderly));

    let mut stalled = rig(1000);
    let before = Instant::now();
    while timeout(3 * STALL_MAX, stalled.backend.write(&[1; 1000])).await.is_ok_and(|n| n.is_ok()) {}
    assert_eq!(stalled.bridge.await.unwrap().cause, Cause::Stalled);
    assert_eq!(before.elapsed(), STALL_MAX);
}

#[tokio::test(start_paused = true)]
async fn an_order_ends_it_when_the_backend_has_the_message_in_flight() {
    let mut rig = rig(1000);
    rig.send(&masked(0x82, &numbers(3000))[..2500]).await;
    sleep(SECOND).await;
    rig.handle.end(Order { code: 1001, mode: EndMode::AfterMessages { within: 30 * SECOND } });
    assert!(timeout(SECOND, rig.client.read_u8()).await.is_err());
    rig.send(&masked(0x82, &numbers(3000))[2500..]).await;
    assert!(timeout(SECOND, rig.client.read_u8()).await.is_err(), "the backend has not all of it");
    rig.expect_at_backend(&numbers(3000)).await;
    rig.expect(&frame(0x88, &close(1001))).await;
    rig.send(&masked(0x88, &close(1001))).await;
    expect_end(&mut rig.backend).await;
    let outcome = rig.outcome().await;
    assert_eq!((outcome.cause, outcome.backend), (Cause::Ordered { code: 1001 }, Exit::Orderly));
}

#[tokio::test(start_paused = true)]
async fn an_order_does_not_wait_for_ever_for_a_backend_that_takes_nothing() {
    let mut rig = rig(1000);
    rig.send(&masked(0x82, &numbers(900))).await;
    rig.send(&masked(0x82, &numbers(900))).await;
    sleep(SECOND).await;
    let before = Instant::now();
    rig.handle.end(Order { code: 1001, mode: EndMode::AfterMessages { within: 5 * SECOND } });
    rig.expect(&frame(0x88, &close(1001))).await;
    assert_eq!(before.elapsed(), 5 * SECOND);
    assert_eq!(rig.outcome().await.backend, Exit::Reset, "some of it is missing");
}

#[tokio::test(start_paused = true)]
async fn it_tells_how_it_is_when_asked() {
    let mut rig = rig(1000);
    rig.send(&masked(0x82, b"abc")).await;
    rig.expect_at_backend(b"abc").await;
    rig.backend.write_all(b"de").await.unwrap();
    rig.expect(&frame(0x82, b"de")).await;
    sleep(7 * SECOND).await;
    let snapshot = rig.handle.request_snapshot().await.unwrap();
    assert_eq!((snapshot.from_client.payload_bytes, snapshot.from_backend.payload_bytes), (3, 2));
    assert_eq!((snapshot.idle, snapshot.is_closing), (7 * SECOND, false));
}

/// A backend that says very much, to a client that takes it all, lets others have their turn.
#[tokio::test(start_paused = true)]
async fn others_have_their_turn() {
    let (_client, to_client) = duplex(8 << 20);
    let (mut backend, mut to_backend) = duplex(8 << 20);
    let bytes = numbers(4 << 20);
    backend.write_all(&bytes).await.unwrap();
    backend.shutdown().await.unwrap();
    let endpoint = Box::new(Endpoint::new(to_client, policy(), SessionHandle::new()));
    let mut session = std::pin::pin!(bridge(endpoint, &mut to_backend));
    let mut turns = 0;
    poll_fn(|cx| {
        turns += 1;
        session.as_mut().poll(cx).map(drop)
    })
    .await;
    assert!(turns >= bytes.len() / QUANTUM_LEN, "{turns}");
}
