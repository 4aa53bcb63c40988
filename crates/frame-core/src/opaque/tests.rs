//! Two in-memory streams with another protocol between them, on a paused clock.

mod moving;

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::clock::Exact;
use crate::handle::{EndMode, Order};
use crate::sequence::Limits;
use crate::test_io::{Drip, outcome, resets};

const SECOND: Duration = Duration::from_secs(1);
const POLICY: Policy = Policy {
    limits: Limits { message_max: 1, deflate: false },
    idle_timeout: None,
    lifetime: None,
    ping_interval: Some(SECOND),
    pong_timeout: SECOND,
};

impl<S: AsyncRead + AsyncWrite + Unpin> ClientStream for Drip<S> {}

struct Rig {
    client: DuplexStream,
    backend: DuplexStream,
    handle: SessionHandle,
    session: JoinHandle<Outcome>,
}

fn rig_over<B>(policy: Policy, room: usize, over: impl FnOnce(DuplexStream) -> B) -> Rig
where
    B: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (client, mut near) = duplex(room);
    let (backend, far) = duplex(room);
    let (handle, mut far) = (SessionHandle::new(), over(far));
    let order = handle.clone();
    let session =
        tokio::spawn(
            async move { outcome(opaque(&mut near, &mut far, policy, &order, Exact::begin()).await) },
        );
    Rig { client, backend, handle, session }
}

fn rig(policy: Policy) -> Rig {
    rig_over(policy, 1000, |io| io)
}

async fn expect(io: &mut DuplexStream, expect: &[u8]) {
    let mut seen = vec![0; expect.len()];
    timeout(3600 * SECOND, io.read_exact(&mut seen)).await.unwrap().unwrap();
    assert_eq!(seen, expect);
}

async fn expect_end(io: &mut DuplexStream) {
    assert_eq!(timeout(3600 * SECOND, io.read(&mut [0])).await.unwrap().unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn each_direction_ends_by_itself_whichever_is_first() {
    for first in [Party::Client, Party::Backend] {
        let mut rig = rig(POLICY);
        let (near, far) = match first {
            Party::Client => (&mut rig.client, &mut rig.backend),
            _ => (&mut rig.backend, &mut rig.client),
        };
        near.write_all(b"all of it").await.unwrap();
        near.shutdown().await.unwrap();
        expect(far, b"all of it").await;
        expect_end(far).await;
        for answer in [&b"one"[..], b"two"] {
            sleep(100 * SECOND).await;
            far.write_all(answer).await.unwrap();
            expect(near, answer).await;
        }
        far.shutdown().await.unwrap();
        expect_end(near).await;
        let outcome = rig.session.await.unwrap();
        assert_eq!(outcome.cause, Cause::Finished { first });
        assert_eq!((outcome.client, outcome.backend), (Exit::Orderly, Exit::Orderly));
        let bytes = [outcome.from_client, outcome.from_backend].map(|traffic| traffic.payload_bytes);
        assert_eq!(bytes, if first == Party::Client { [9, 6] } else { [6, 9] });
    }
}

#[tokio::test(start_paused = true)]
async fn dripping_streams_lose_nothing() {
    let (mut client, near) = duplex(7);
    let (mut backend, far) = duplex(3);
    let (mut near, mut far) = (Drip::new(near, 42), Drip::new(far, 7));
    let session = tokio::spawn(async move {
        outcome(opaque(&mut near, &mut far, POLICY, &SessionHandle::new(), Exact::begin()).await)
    });
    let bytes: Vec<u8> = (0..5000_u32).map(|i| i.to_le_bytes()[0]).collect();
    async fn talk(io: &mut DuplexStream, bytes: &[u8]) -> Vec<u8> {
        let (mut from, mut to) = split(io);
        let mut heard = Vec::new();
        let (read, wrote) = tokio::join!(from.read_to_end(&mut heard), async {
            to.write_all(bytes).await?;
            to.shutdown().await
        });
        read.and(wrote.map(|()| 0)).unwrap();
        heard
    }
    let (up, down) = tokio::join!(talk(&mut backend, &bytes), talk(&mut client, &bytes[1..]));
    assert!(up == bytes[1..] && down == bytes);
    assert!(matches!(session.await.unwrap().cause, Cause::Finished { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_does_not_look_like_one_that_has_ended() {
    let mut rig = rig_over(POLICY, 1000, resets);
    rig.backend.write_all(b"some").await.unwrap();
    rig.backend.shutdown().await.unwrap();
    expect(&mut rig.client, b"some").await;
    let outcome = rig.session.await.unwrap();
    assert_eq!(outcome.cause, Cause::Lost { party: Party::Backend, how: Ended::Reset });
    assert_eq!((outcome.client, outcome.backend), (Exit::Reset, Exit::Reset));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_no_more_is_lost_unless_it_had_ended() {
    for ended in [false, true] {
        let mut rig = rig(POLICY);
        if ended {
            rig.backend.shutdown().await.unwrap();
            expect_end(&mut rig.client).await;
        }
        let (_, far) = duplex(1);
        drop(std::mem::replace(&mut rig.backend, far));
        let _ = rig.client.write_all(b"more").await;
        let outcome = rig.session.await.unwrap();
        if ended {
            assert_eq!(outcome.cause, Cause::Finished { first: Party::Backend });
        } else {
            // The end comes first, then the failure.
            assert_eq!(outcome.cause.ended_by(), Party::Backend);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_held_by_an_idle_session_and_little_for_a_slow_peer() {
    let mut rig = rig(POLICY);
    sleep(SECOND).await;
    let held = net_io::memory::held();
    rig.client.write_all(b"x").await.unwrap();
    expect(&mut rig.backend, b"x").await;
    assert_eq!((net_io::memory::held(), rig.handle.stalled_since()), (held, None));
    let mut sent = 0;
    while let Ok(n) = timeout(SECOND, rig.client.write(&[7; 1000])).await {
        sent += n.unwrap();
    }
    assert!(sent <= 2000 + BUFFER_LEN, "{sent}");
    assert_eq!(net_io::memory::held(), held + BUFFER_LEN);
    assert!(rig.handle.stalled_since().is_some());
    // The other direction doesn't wait for it.
    rig.backend.write_all(b"meanwhile").await.unwrap();
    expect(&mut rig.client, b"meanwhile").await;
}

#[tokio::test(start_paused = true)]
async fn idle_time_counts_bytes_and_there_are_no_pings() {
    let mut rig = rig(Policy { idle_timeout: Some(60 * SECOND), ..POLICY });
    let before = Instant::now();
    sleep(40 * SECOND).await;
    rig.backend.write_all(b"x").await.unwrap();
    expect(&mut rig.client, b"x").await;
    expect_end(&mut rig.client).await;
    assert_eq!(before.elapsed(), 100 * SECOND);
    assert_eq!(rig.session.await.unwrap().cause, Cause::Idle);
}

#[tokio::test(start_paused = true)]
async fn its_lifetime_ends_it_whatever_moves() {
    let mut rig = rig(Policy { lifetime: Some(60 * SECOND), idle_timeout: Some(59 * SECOND), ..POLICY });
    let before = Instant::now();
    for _ in 0..5 {
        sleep(10 * SECOND).await;
        rig.client.write_all(b"x").await.unwrap();
    }
    assert_eq!(rig.session.await.unwrap().cause, Cause::Lifetime);
    assert_eq!(before.elapsed(), 60 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn an_order_ends_it_at_once_and_a_question_is_answered() {
    let mut rig = rig(POLICY);
    rig.client.write_all(b"abc").await.unwrap();
    expect(&mut rig.backend, b"abc").await;
    sleep(7 * SECOND).await;
    let snapshot = rig.handle.request_snapshot().await.unwrap();
    assert_eq!((snapshot.from_client.payload_bytes, snapshot.from_client.messages), (3, 0));
    assert_eq!((snapshot.idle, snapshot.is_closing), (7 * SECOND, false));
    let before = Instant::now();
    rig.handle.end(Order { code: 1001, mode: EndMode::AfterMessages { within: 30 * SECOND } });
    assert_eq!(rig.session.await.unwrap().cause, Cause::Ordered { code: 1001 });
    assert_eq!(before.elapsed(), Duration::ZERO);
}
