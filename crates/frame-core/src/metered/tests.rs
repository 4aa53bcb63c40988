//! Metered clients of a relay and of an endpoint, on a paused clock.

use std::num::NonZeroU64;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::clock::Exact;
use crate::endpoint::Endpoint;
use crate::outcome::{Cause, Outcome};
use crate::policy::Policy;
use crate::relay::relay;
use crate::sequence::Limits;
use crate::test_io::{Drip, frame, masked, outcome};
use crate::test_moving::sample;

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

fn per_second(count: u64) -> Option<Rate> {
    NonZeroU64::new(count).map(|count| Rate::new(count, SECOND))
}

fn messages(count: u64, on_limit: OnLimit) -> Rates {
    Rates { messages: per_second(count), bytes: None, on_limit }
}

fn bytes(count: u64, on_limit: OnLimit) -> Rates {
    Rates { messages: None, bytes: per_second(count), on_limit }
}

struct Rig {
    client: DuplexStream,
    backend: DuplexStream,
    counts: Arc<RateCounts>,
    relay: JoinHandle<Outcome>,
}

fn rig_over<C>(rates: &Rates, policy: Policy, over: impl FnOnce(DuplexStream) -> C) -> Rig
where
    C: ClientStream + Send + 'static,
{
    let (client, near) = duplex(1 << 20);
    let (backend, mut to_backend) = duplex(1 << 20);
    let (handle, counts) = (SessionHandle::new(), Arc::<RateCounts>::default());
    let meter = Meter::new(rates, handle.clone(), counts.clone());
    let mut near = Metered::new(over(near), meter);
    let relay = tokio::spawn(async move {
        outcome(relay(&mut near, &mut to_backend, policy, &handle, Exact::begin()).await)
    });
    Rig { client, backend, counts, relay }
}

fn rig(rates: &Rates) -> Rig {
    rig_over(rates, policy(), |io| io)
}

/// Bytes that come within this time.
async fn comes(io: &mut DuplexStream, within: Duration) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = timeout(within, async {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = io.read(&mut buffer).await {
            all.extend_from_slice(&buffer[..n]);
        }
    })
    .await;
    all
}

#[tokio::test(start_paused = true)]
async fn a_client_that_sends_too_many_messages_is_read_later() {
    let mut rig = rig(&messages(10, OnLimit::Delay));
    let one = masked(0x82, b"hello");
    let all: Vec<u8> = (0..40).flat_map(|_| one.clone()).collect();
    rig.client.write_all(&all).await.unwrap();
    // Ten at once, then one each tenth of a second.
    for (wait, count) in [(50, 10), (500, 5), (1000, 10), (1000, 10), (10_000, 5)] {
        let came = comes(&mut rig.backend, Duration::from_millis(wait)).await;
        assert_eq!(came.len(), count * one.len(), "{wait}");
    }
    assert!(rig.counts.pauses.load(Ordering::Relaxed) >= 25);
    // All of it came, whole, and in the end all of a second's may come at once again.
    rig.client.write_all(&all[..10 * one.len()]).await.unwrap();
    assert_eq!(comes(&mut rig.backend, SECOND / 100).await, all[..10 * one.len()]);
    // What the backend says is not held up.
    rig.client.write_all(&all[..20 * one.len()]).await.unwrap();
    rig.backend.write_all(&frame(0x81, b"news")).await.unwrap();
    assert_eq!(comes(&mut rig.client, SECOND / 100).await, frame(0x81, b"news"));
}

#[tokio::test(start_paused = true)]
async fn messages_are_counted_byte_for_byte_and_fragments_are_not() {
    let mut rig = rig_over(&messages(3, OnLimit::Delay), policy(), |io| Drip::new(io, 7));
    let long = masked(0x82, &[7; 200]);
    let wire = [
        masked(0x01, b"one"),
        masked(0x89, b"a ping"),
        masked(0x00, b""),
        masked(0x8A, b"a pong"),
        masked(0x80, &[b'x'; 70_000]),
        long.clone(),
        masked(0x81, b"four"),
    ]
    .concat();
    let last = masked(0x81, b"four").len();
    rig.client.write_all(&wire).await.unwrap();
    assert_eq!(comes(&mut rig.backend, SECOND / 10).await, wire[..wire.len() - last]);
    assert_eq!(comes(&mut rig.backend, SECOND).await, wire[wire.len() - last..]);
}

#[tokio::test(start_paused = true)]
async fn bytes_come_at_their_rate_and_none_is_lost() {
    let mut rig = rig(&bytes(1000, OnLimit::Delay));
    let wire = masked(0x82, &[7; 10_000]);
    rig.client.write_all(&wire).await.unwrap();
    let mut all = comes(&mut rig.backend, SECOND / 1000).await;
    assert_eq!(all.len(), 1000);
    for _ in 0..5 {
        let more = comes(&mut rig.backend, SECOND).await;
        assert!((980..=1020).contains(&more.len()), "{}", more.len());
        all.extend(more);
    }
    all.extend(comes(&mut rig.backend, 10 * SECOND).await);
    assert_eq!(all, wire);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_may_send_no_more_is_neither_silent_nor_idle() {
    let policy = Policy {
        idle_timeout: Some(5 * SECOND),
        ping_interval: Some(3 * SECOND),
        pong_timeout: SECOND,
        ..policy()
    };
    // One a minute.
    let rate = NonZeroU64::new(1).map(|one| Rate::new(one, 60 * SECOND));
    let rates = Rates { messages: rate, bytes: None, on_limit: OnLimit::Delay };
    let mut rig = rig_over(&rates, policy, |io| io);
    let one = masked(0x82, b"hello");
    rig.client.write_all(&[&one[..], &one, &one].concat()).await.unwrap();
    assert_eq!(comes(&mut rig.backend, 59 * SECOND).await, one);
    assert_eq!(comes(&mut rig.backend, 60 * SECOND).await, one);
    assert!(!rig.relay.is_finished());
    assert_eq!(comes(&mut rig.client, SECOND).await, b"", "it has not been pinged");
    assert_eq!(comes(&mut rig.backend, 2 * SECOND).await, one);
    // It is read again, says nothing more, and is pinged.
    assert_eq!(comes(&mut rig.client, 4 * SECOND).await[0], 0x89);
    let outcome = rig.relay.await.unwrap();
    assert_eq!(outcome.cause, Cause::PongTimeout);
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_with_1008_where_the_route_says_so() {
    let close = [&[0x88, 2][..], &1008_u16.to_be_bytes()].concat();
    let one = masked(0x82, b"hello");
    for (rates, sent, passed) in [
        (messages(2, OnLimit::Close), [&one[..], &one, &one, &one].concat(), 2 * one.len()),
        (bytes(20, OnLimit::Close), one.repeat(1), one.len()),
        (bytes(20, OnLimit::Close), one.repeat(9), 0),
    ] {
        let mut rig = rig(&rates);
        rig.client.write_all(&sent).await.unwrap();
        let came = comes(&mut rig.client, SECOND / 10).await;
        if passed == sent.len() {
            assert_eq!(came, b"");
            assert_eq!(rig.counts.closed.load(Ordering::Relaxed), 0);
            continue;
        }
        assert_eq!(came, close);
        let to_backend = comes(&mut rig.backend, SECOND / 10).await;
        assert_eq!(to_backend[..passed], sent[..passed]);
        assert_eq!(to_backend[passed..passed + 2], [0x88, 0x82], "and the backend is told");
        rig.client.write_all(&masked(0x88, &1008_u16.to_be_bytes())).await.unwrap();
        rig.backend.write_all(&close).await.unwrap();
        drop((rig.client, rig.backend));
        let outcome = rig.relay.await.unwrap();
        assert_eq!(outcome.cause, Cause::Ordered { code: 1008 });
        assert_eq!(rig.counts.closed.load(Ordering::Relaxed), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_is_metered_as_well() {
    let (mut client, near) = duplex(1 << 16);
    let handle = SessionHandle::new();
    let policy = Policy { ping_interval: Some(SECOND), pong_timeout: SECOND, ..policy() };
    let rates = Rates {
        messages: NonZeroU64::new(1).map(|one| Rate::new(one, 10 * SECOND)),
        bytes: None,
        on_limit: OnLimit::Delay,
    };
    let meter = Meter::new(&rates, handle.clone(), Arc::default());
    let mut endpoint = Endpoint::new(Metered::new(near, meter), policy, handle);
    let session = tokio::spawn(async move {
        for _ in 0..2 {
            let message = endpoint.recv().await.unwrap();
            endpoint.send(message).await.unwrap();
        }
        endpoint.recv().await
    });
    client.write_all(&[masked(0x81, b"one"), masked(0x81, b"two")].concat()).await.unwrap();
    assert_eq!(comes(&mut client, 9 * SECOND).await, frame(0x81, b"one"), "it is not pinged meanwhile");
    assert_eq!(comes(&mut client, 2 * SECOND).await[..5], frame(0x81, b"two"));
    drop(client);
    assert_eq!(session.await.unwrap(), None);
}

/// Takes the meter apart and puts it together again.
fn moved(meter: &Meter) -> Box<Meter> {
    let mut out = StateWriter::new(1);
    meter.write_state(&mut out);
    let state = out.finish();
    for len in 0..state.len() {
        let read = StateReader::new(&state[..len], 1)
            .and_then(|mut fields| Meter::read_state(&mut fields, SessionHandle::new(), Arc::default()));
        assert!(read.is_err(), "{len} of {}", state.len());
    }
    let mut fields = StateReader::new(&state, 1).unwrap();
    let meter = Meter::read_state(&mut fields, SessionHandle::new(), Arc::default()).unwrap();
    assert!(fields.is_at_end());
    meter
}

/// A session that ends for a limit says so in its line, in whichever process it ends.
#[tokio::test(start_paused = true)]
async fn it_moves_with_the_limit_that_was_exceeded() {
    let rates = Rates { messages: per_second(2), bytes: per_second(1000), on_limit: OnLimit::Close };
    for limit in [None, Some(RateLimit::Messages), Some(RateLimit::Bytes)] {
        let mut meter = Meter::new(&rates, SessionHandle::new(), Arc::default());
        if let Some(limit) = limit {
            meter.limit(limit, Instant::now());
        }
        assert_eq!(moved(&meter).handle.exceeded(), limit);
    }
    // An earlier release has not written it.
    let state = sample(include_str!("../../tests/samples/metered.hex"));
    let mut fields = StateReader::new(&state, 1).unwrap();
    let meter = Meter::read_state(&mut fields, SessionHandle::new(), Arc::default()).unwrap();
    assert!(matches!(meter.flow, Flow::Exceeded) && fields.is_at_end());
    assert_eq!(meter.handle.exceeded(), None);
}

#[tokio::test(start_paused = true)]
async fn it_moves_with_what_is_left_and_what_is_held() {
    let (mut client, near) = duplex(1 << 16);
    let rates = Rates { messages: per_second(2), bytes: per_second(1000), on_limit: OnLimit::Delay };
    let meter = Meter::new(&rates, SessionHandle::new(), Arc::default());
    let mut metered = Metered::new(near, meter);
    let wire = [masked(0x82, &[1; 300]), masked(0x82, b"two"), masked(0x82, b"three")].concat();
    client.write_all(&wire).await.unwrap();
    let (mut all, mut buffer) = (Vec::new(), [0; 3]);
    let begin = Instant::now();
    // It moves between any two reads, in the middle of heads too.
    while all.len() < wire.len() {
        let n = metered.read(&mut buffer).await.unwrap();
        all.extend_from_slice(&buffer[..n]);
        let (near, meter) = metered.into_parts();
        metered = Metered::new(near, moved(&meter));
    }
    assert_eq!(all, wire);
    assert_eq!(begin.elapsed().as_millis() / 10, 50, "the third message waits for half a second");
}
