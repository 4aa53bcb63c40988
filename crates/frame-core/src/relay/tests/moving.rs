//! Sessions that are frozen, and the format in which they go to another process.

use std::task::Waker;

use net_io::state::StateError;

use super::*;
use crate::handle::FreezeMode;
use crate::outcome::{RoundTrips, Traffic, Waits};
use crate::test_moving::{self, Page};

/// A session whose streams and task are the test's.
struct Still {
    clock: Exact,
    relay: Relay<Exact>,
    near: (Parts<DuplexStream>, DuplexStream),
    client: Far,
    backend: Far,
    handle: SessionHandle,
}

/// The streams hold `room` bytes.
fn still(policy: Policy, room: usize) -> Still {
    let clock = Exact::begin();
    let relay = Relay::new(&policy, clock, |sender| Scanner::new(sender, policy.limits));
    let (client_far, client_near) = duplex(room);
    let (backend_far, backend) = duplex(room);
    Still {
        clock,
        relay,
        near: (Parts { io: client_near, kept: None, parted: Arc::default() }, backend),
        client: Far { io: client_far, sender: Sender::Server },
        backend: Far { io: backend_far, sender: Sender::Client },
        handle: SessionHandle::new(),
    }
}

impl Still {
    fn poll(&mut self) -> Poll<Ending> {
        let mut cx = Context::from_waker(Waker::noop());
        self.relay.poll(&mut cx, &mut self.near.0, &mut self.near.1, &self.handle)
    }

    #[track_caller]
    fn freeze(&mut self, mode: FreezeMode) -> Box<RelayState> {
        self.handle.freeze(mode);
        match self.poll() {
            Poll::Ready(Ending::Frozen(state)) => state,
            other => panic!("{other:?}"),
        }
    }

    /// Goes on in a task of its own.
    fn spawn(self, state: Box<RelayState>) -> Rig {
        let Self { clock, near: (mut client_near, mut backend_near), client, backend, handle, .. } = self;
        let parted = client_near.parted.clone();
        let relay = tokio::spawn({
            let handle = handle.clone();
            async move { over(relay_from(state, &mut client_near, &mut backend_near, &handle, clock).await) }
        });
        Rig { client, backend, handle, relay, parted }
    }
}

#[tokio::test(start_paused = true)]
async fn a_frozen_session_reads_nothing_more() {
    let mut still = still(policy(), 1 << 10);
    assert!(still.poll().is_pending());
    still.client.send(&masked(0x81, b"left where it is")).await;
    let state = still.freeze(FreezeMode::BetweenWrites);
    assert_eq!(state.snapshot().from_client, Traffic::default());
    let mut left = [0; 22];
    still.near.0.read_exact(&mut left).await.unwrap();
    assert_eq!(left[..], masked(0x81, b"left where it is"));
    assert!(still.poll().is_pending(), "it was asked once");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_has_begun_is_finished_first_unless_that_takes_too_long() {
    let text = b"more than the stream holds";
    let mut still = still(policy(), 16);
    still.backend.io.write_all(&frame(0x81, text)[..16]).await.unwrap();
    assert!(still.poll().is_pending());
    still.backend.io.write_all(&frame(0x81, text)[16..]).await.unwrap();
    assert!(still.poll().is_pending());
    still.handle.freeze(FreezeMode::BetweenWrites);
    assert!(still.poll().is_pending(), "12 bytes are unwritten");
    let question = still.handle.request_snapshot();
    let state = still.freeze(FreezeMode::AsItIs);
    assert_eq!(question.await.unwrap(), state.snapshot(), "what was asked is answered");
    let state = RelayState::decode(&state.encode()).unwrap();
    let mut rig = still.spawn(state);
    assert_eq!(rig.client.receive().await, Some(received(0x81, text)));

    // This time the client takes it.
    let mut still = self::still(policy(), 16);
    still.backend.io.write_all(&frame(0x81, text)[..16]).await.unwrap();
    assert!(still.poll().is_pending());
    still.backend.io.write_all(&frame(0x81, text)[16..]).await.unwrap();
    assert!(still.poll().is_pending());
    still.handle.freeze(FreezeMode::BetweenWrites);
    assert!(still.poll().is_pending());
    assert_eq!(still.client.io.read_exact(&mut [0; 16]).await.unwrap(), 16);
    assert!(matches!(still.poll(), Poll::Ready(Ending::Frozen(_))));
}

#[tokio::test(start_paused = true)]
async fn one_that_is_not_to_freeze_any_more_goes_on() {
    let mut still = still(policy(), 1 << 10);
    still.handle.freeze(FreezeMode::AsItIs);
    still.handle.cancel_freeze();
    still.client.send(&masked(0x81, b"on")).await;
    assert!(still.poll().is_pending());
    assert_eq!(still.backend.receive().await, Some(received(0x81, b"on")));
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_connections_are_shut_down_ends_and_does_not_freeze() {
    let mut rig = rig(policy()).await;
    rig.client.send(&masked(0x88, &close(1000))).await;
    rig.backend.receive_close().await;
    rig.backend.send(&frame(0x88, &close(1000))).await;
    rig.client.receive_close().await;
    rig.handle.freeze(FreezeMode::AsItIs);
    drop((rig.client, rig.backend));
    assert!(matches!(rig.relay.await.unwrap().cause, Cause::Closed { by: Party::Client, .. }));
}

/// By the process that it was in: when it is polled for another reason, when it freezes, and at its end.
#[tokio::test(start_paused = true)]
async fn each_message_is_told_once() {
    let pages: [Arc<Page>; 2] = Default::default();
    let told = |n: usize| pages[n].0.lock().unwrap().clone();
    let mut still = still(policy(), 1 << 10);
    still.handle = SessionHandle::with_ledger(pages[0].clone());
    still.client.send(&masked(0x81, b"one")).await;
    assert!(still.poll().is_pending());
    assert_eq!(told(0), [[0; 4]; 0], "a message is no reason");
    still.handle.request_poll();
    assert!(still.poll().is_pending() && still.poll().is_pending());
    assert_eq!(told(0), [[1, 3, 0, 0]]);
    still.backend.send(&frame(0x81, b"second")).await;
    assert!(still.poll().is_pending());
    let state = still.freeze(FreezeMode::AsItIs);
    assert_eq!(told(0), [[1, 3, 0, 0], [0, 0, 1, 6]]);

    still.handle = SessionHandle::with_ledger(pages[1].clone());
    let mut rig = still.spawn(RelayState::decode(&state.encode()).unwrap());
    rig.client.send(&masked(0x81, b"third")).await;
    rig.client.send(&masked(0x88, &close(1000))).await;
    rig.backend.receive().await;
    rig.backend.receive().await;
    rig.backend.receive_close().await;
    rig.backend.send(&frame(0x88, &close(1000))).await;
    drop((rig.client, rig.backend));
    rig.handle.on_end(&rig.relay.await.unwrap());
    assert_eq!((told(0).len(), told(1)), (2, vec![[1, 5, 0, 0]]));
}

/// An order is obeyed to its end by the process that takes the session over, which knows of it by the state only.
#[tokio::test(start_paused = true)]
async fn an_order_and_its_time_go_along() {
    let mut still = still(policy(), 1 << 10);
    still.backend.send(&frame(0x01, b"begun")).await;
    assert!(still.poll().is_pending());
    let mode = EndMode::AfterMessages { within: 10 * SECOND };
    still.handle.end(Order { code: 1012, mode });
    assert!(still.poll().is_pending());
    advance(7 * SECOND).await;
    let state = still.freeze(FreezeMode::BetweenWrites);
    advance(100 * SECOND).await; // what it waits in between does not count
    still.handle = SessionHandle::new();
    let begun = Instant::now();
    let mut rig = still.spawn(RelayState::decode(&state.encode()).unwrap());
    assert_eq!(rig.client.receive().await, Some(received(0x01, b"begun")));
    assert_eq!(rig.backend.receive_close().await.code, Some(1012));
    assert_eq!(rig.client.receive_close().await.code, Some(1012));
    assert_eq!(begun.elapsed(), 3 * SECOND);
    drop((rig.client, rig.backend));
    assert_eq!(rig.relay.await.unwrap().cause, Cause::Ordered { code: 1012 });
}

/// A ping of the gateway's that is half written, and the Close that waits behind it.
#[tokio::test(start_paused = true)]
async fn frames_of_the_gateway_go_along_half_written_and_waiting() {
    let mut still = still(pinging(), 8);
    assert!(still.poll().is_pending());
    advance(30 * SECOND).await;
    assert!(still.poll().is_pending());
    still.handle.end(Order { code: 1001, mode: EndMode::AfterMessages { within: 10 * SECOND } });
    assert!(still.poll().is_pending());
    let state = still.freeze(FreezeMode::AsItIs);
    still.handle = SessionHandle::new();
    let mut rig = still.spawn(RelayState::decode(&state.encode()).unwrap());
    let begun = Instant::now();
    let ping = rig.client.receive().await.unwrap();
    assert_eq!((ping.b0, ping.payload.len()), (0x89, 8));
    assert_eq!((rig.client.receive_close().await.code, begun.elapsed()), (Some(1001), Duration::ZERO));
    assert_eq!(rig.backend.receive_close().await.code, Some(1001));
    drop((rig.client, rig.backend));
    assert_eq!(rig.relay.await.unwrap().cause, Cause::Ordered { code: 1001 });
}

/// A client that has not answered before the move has as long afterwards as it had left.
#[tokio::test(start_paused = true)]
async fn a_ping_that_is_not_answered_counts_elsewhere() {
    let mut still = still(pinging(), 1 << 10);
    assert!(still.poll().is_pending());
    advance(30 * SECOND).await;
    assert!(still.poll().is_pending());
    let ping = still.client.receive().await.unwrap();
    assert_eq!(ping.b0, 0x89);
    advance(4 * SECOND).await;
    let state = still.freeze(FreezeMode::BetweenWrites);
    let begun = Instant::now();
    let rig = still.spawn(RelayState::decode(&state.encode()).unwrap());
    assert_eq!(rig.relay.await.unwrap().cause, Cause::PongTimeout);
    assert_eq!(begun.elapsed(), 6 * SECOND + CLOSE_WAIT, "and the wait for the backend's end");
}

/// A ping of the backend's that is unanswered does for one of the gateway's, elsewhere too.
#[tokio::test(start_paused = true)]
async fn a_ping_of_the_backends_counts_elsewhere() {
    let mut still = still(pinging(), 1 << 10);
    assert!(still.poll().is_pending());
    still.backend.send(&frame(0x89, b"backend")).await;
    assert!(still.poll().is_pending());
    let state = still.freeze(FreezeMode::BetweenWrites);
    let mut rig = still.spawn(RelayState::decode(&state.encode()).unwrap());
    assert_eq!(rig.client.receive().await, Some(received(0x89, b"backend")));
    assert_eq!(rig.client.receive().await, None, "no other ping");
    assert_eq!(rig.relay.await.unwrap().cause, Cause::PongTimeout);
}

/// The answer to a ping of before does not go on to the backend.
#[tokio::test(start_paused = true)]
async fn the_answer_to_a_ping_of_before_is_known() {
    let mut still = still(pinging(), 1 << 10);
    assert!(still.poll().is_pending());
    advance(30 * SECOND).await;
    assert!(still.poll().is_pending());
    let ping = still.client.receive().await.unwrap();
    let state = still.freeze(FreezeMode::BetweenWrites);
    let page = Arc::<Page>::default();
    still.handle = SessionHandle::with_ledger(page.clone());
    let mut rig = still.spawn(RelayState::decode(&state.encode()).unwrap());
    rig.client.send(&masked(0x8A, &ping.payload)).await;
    rig.client.send(&masked(0x8A, b"unasked")).await;
    assert_eq!(rig.backend.receive().await, Some(received(0x8A, b"unasked")));
    assert_eq!(page.1.lock().unwrap().len(), 1, "the ledger is told of the gateway's own");
}

/// A client that broke a rule is told so, and not what the backend says then (RFC 6455 §7.1.7).
#[tokio::test(start_paused = true)]
async fn a_violation_is_reported_in_the_other_process() {
    let mut still = still(policy(), 1 << 10);
    still.client.send(&frame(0x81, b"unmasked")).await;
    assert!(still.poll().is_pending());
    let state = still.freeze(FreezeMode::BetweenWrites);
    let mut rig = still.spawn(RelayState::decode(&state.encode()).unwrap());
    assert_eq!(rig.backend.receive_close().await.code, Some(1002));
    rig.backend.send(&frame(0x88, &close(4000))).await;
    assert_eq!(rig.client.receive_close().await.code, Some(1002));
    drop((rig.client, rig.backend));
    let violation = Violation::Unmasked;
    assert_eq!(rig.relay.await.unwrap().cause, Cause::Violation { by: Party::Client, violation });
}

/// A client that sends nothing more may still read: its end goes on to the backend.
#[tokio::test(start_paused = true)]
async fn an_end_goes_on_elsewhere() {
    let mut still = still(policy(), 1 << 10);
    assert!(still.poll().is_pending());
    still.relay.up.shut_when_written(); // as if the backend's flush were pending
    let state = still.freeze(FreezeMode::AsItIs);
    let mut rig = still.spawn(RelayState::decode(&state.encode()).unwrap());
    assert_eq!(rig.backend.receive().await, None);
    rig.backend.send(&frame(0x81, b"answer")).await;
    assert_eq!(rig.client.receive().await, Some(received(0x81, b"answer")));
}

/// What each idle session holds in memory is not what it takes to move it.
#[test]
fn an_idle_session_is_a_few_hundred_bytes() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let state = still(policy(), 64).freeze(FreezeMode::BetweenWrites);
        let len = state.encode().len();
        assert!(len <= 400, "{len}");
    });
}

const SAMPLES: [(&str, &str); 3] = [
    ("idle", include_str!("../../../tests/samples/idle.hex")),
    ("busy", include_str!("../../../tests/samples/busy.hex")),
    ("measured", include_str!("../../../tests/samples/measured.hex")),
];

fn sample(name: &str) -> Vec<u8> {
    let (_, text) = SAMPLES.iter().find(|(other, _)| *other == name).unwrap();
    test_moving::sample(text)
}

/// As this release writes it.
fn today(name: &str) -> Vec<u8> {
    let sample = sample(name);
    if name == "measured" { sample } else { test_moving::with_nothing_measured(sample, &[1], 39) }
}

/// Such sessions were encoded for the samples. A new version of the format needs new ones; the old ones stay.
async fn sampled(name: &str) -> (Still, Box<RelayState>) {
    let pinged = Policy { idle_timeout: Some(60 * SECOND), ..pinging() };
    if name == "idle" {
        let mut still = still(pinged, 1 << 10);
        still.client.send(&masked(0x81, b"hello")).await;
        assert!(still.poll().is_pending());
        still.backend.receive().await.unwrap();
        advance(20 * SECOND).await;
        let state = still.freeze(FreezeMode::BetweenWrites);
        return (still, state);
    }
    if name == "measured" {
        // A ping was answered after two seconds, another one is not yet, and the backend has taken nothing of a message
        // for three.
        let mut still = still(Policy { idle_timeout: None, ..pinged }, 24);
        assert!(still.poll().is_pending());
        advance(30 * SECOND).await;
        assert!(still.poll().is_pending());
        let ping = still.client.receive().await.unwrap();
        advance(2 * SECOND).await;
        still.client.send(&masked(0x8A, &ping.payload)).await;
        assert!(still.poll().is_pending());
        advance(30 * SECOND).await;
        assert!(still.poll().is_pending());
        still.client.receive().await.unwrap();
        still.client.send(&masked(0x82, b"more than a stream")).await;
        assert!(still.poll().is_pending());
        still.client.send(&masked(0x82, b"holds")).await;
        assert!(still.poll().is_pending());
        advance(3 * SECOND).await;
        let state = still.freeze(FreezeMode::AsItIs);
        return (still, state);
    }
    // The client takes nothing more, has sent the front of a ping, and is to be told that the session ends.
    let mut still = still(Policy { lifetime: Some(3600 * SECOND), ..pinged }, 8);
    still.client.send(&masked(0x89, b"p")[..3]).await;
    assert!(still.poll().is_pending());
    still.backend.send(&frame(0x01, b"hello ")).await;
    assert!(still.poll().is_pending());
    still.backend.send(&frame(0x00, b"world,")).await;
    assert!(still.poll().is_pending());
    let mode = EndMode::AfterMessages { within: 10 * SECOND };
    still.handle.end(Order { code: 1001, mode });
    assert!(still.poll().is_pending());
    advance(3 * SECOND).await;
    let state = still.freeze(FreezeMode::AsItIs);
    (still, state)
}

/// What this release and those before it have written is understood for ever.
#[tokio::test(start_paused = true)]
async fn the_idle_sample_goes_on() {
    let state = RelayState::decode(&sample("idle")).unwrap();
    let snapshot = state.snapshot();
    assert_eq!(snapshot.from_client, Traffic { messages: 1, payload_bytes: 5, wire_bytes: 11, largest: 0 });
    assert_eq!((snapshot.waits, snapshot.pings), (Waits::default(), None));
    assert_eq!((snapshot.idle, snapshot.is_closing), (20 * SECOND, false));
    let still = still(policy(), 1 << 10);
    advance(1000 * SECOND).await;
    let begun = Instant::now();
    let mut rig = still.spawn(state);
    let ping = rig.client.receive().await.unwrap();
    assert_eq!((begun.elapsed(), ping.b0), (10 * SECOND, 0x89), "30 seconds after the client's last byte");
    rig.client.send(&masked(0x8A, &ping.payload)).await;
    assert_eq!(rig.client.receive_close().await.code, Some(1001));
    assert_eq!(begun.elapsed(), 40 * SECOND);
    drop((rig.client, rig.backend));
    assert_eq!(rig.relay.await.unwrap().cause, Cause::Idle);
}

#[tokio::test(start_paused = true)]
async fn the_busy_sample_goes_on() {
    let state = RelayState::decode(&sample("busy")).unwrap();
    assert!(state.snapshot().is_closing);
    let still = still(policy(), 1 << 10);
    advance(1000 * SECOND).await;
    let mut rig = still.spawn(state);
    rig.backend.send(&frame(0x80, b" and goodbye")).await;
    let mut rest = [0; 8];
    rig.client.io.read_exact(&mut rest).await.unwrap();
    assert_eq!(rest[..], frame(0x00, b"world,")[..]);
    assert_eq!(rig.client.receive().await, Some(received(0x80, b" and goodbye")));
    assert_eq!(rig.client.receive_close().await.code, Some(1001));
    rig.client.send(&masked(0x89, b"p")[3..]).await; // nothing of it goes on behind a Close
    rig.client.send(&masked(0x88, &close(1001))).await;
    rig.backend.send(&frame(0x88, &close(1001))).await;
    drop((rig.client, rig.backend));
    let outcome = rig.relay.await.unwrap();
    assert_eq!((outcome.cause, outcome.from_backend.messages), (Cause::Ordered { code: 1001 }, 1));
}

#[tokio::test(start_paused = true)]
async fn the_measured_sample_goes_on() {
    let state = RelayState::decode(&sample("measured")).unwrap();
    let took = RoundTrips { last_us: 2_000_000, min_us: 2_000_000, max_us: 2_000_000 };
    let waits = Waits { client_ms: 0, backend_ms: 3000 };
    let snapshot = state.snapshot();
    assert_eq!((snapshot.pings, snapshot.waits, snapshot.from_client.largest), (Some(took), waits, 18));
    let still = still(policy(), 1 << 10);
    advance(1000 * SECOND).await;
    let mut rig = still.spawn(state);
    assert_eq!(rig.backend.receive().await, Some(received(0x82, b"holds")));
    drop((rig.client, rig.backend));
    let outcome = rig.relay.await.unwrap();
    assert_eq!((outcome.pings, outcome.waits), (Some(took), waits));
}

/// The samples are what they claim to be: sessions of today are written in the same way, but for the tag of pings,
/// which is drawn.
#[tokio::test(start_paused = true)]
async fn sessions_are_written_as_the_samples_are() {
    for (name, _) in SAMPLES {
        let (_, state) = sampled(name).await;
        let waited = if name == "busy" { 4 } else { 0 }; // since when the client takes nothing
        assert_eq!(state.encode().len(), today(name).len() + waited, "{name}");
    }
}

#[test]
fn what_is_no_state_is_refused() {
    for (name, _) in SAMPLES {
        let state = sample(name);
        for len in 0..state.len() {
            assert_eq!(RelayState::decode(&state[..len]).unwrap_err(), StateError::Truncated, "{name} {len}");
        }
        assert_eq!(RelayState::decode(&[&state[..], b"x"].concat()).unwrap_err(), StateError::Overlong);
        let mut newer = state.clone();
        newer[0] = 200;
        assert!(matches!(RelayState::decode(&newer), Err(StateError::TooNew { needs: 200, .. })));
        for at in 1..state.len() {
            for value in [0, 1, 2, 3, 5, 0x7F, 0x80, 0xFF] {
                let mut other = state.clone();
                other[at] = value;
                if let Ok(state) = RelayState::decode(&other) {
                    assert!(state.encode().len() <= other.len() + 43, "{name} {at} {value}");
                }
            }
        }
    }
}

/// Lengths that no relay can have: more than a buffer, or places behind its end.
#[tokio::test(start_paused = true)]
async fn bytes_that_no_buffer_holds_are_refused() {
    let (_, state) = sampled("busy").await;
    let RelayState { mut relay, at } = *state;
    relay.down.omit_for_test(BUFFER_LEN);
    let state = RelayState { relay, at };
    assert_eq!(
        RelayState::decode(&state.encode()).unwrap_err(),
        StateError::Invalid("the bytes of a buffer")
    );
}

/// A later release adds fields behind the last.
#[test]
fn fields_of_a_later_release_are_skipped() {
    for (name, _) in SAMPLES {
        let state = today(name);
        let len = u32::try_from(state.len() - 5 + 9).unwrap().to_be_bytes();
        let later = [&state[..1], &len, &state[5..], b"\0\0\0\x05later"].concat();
        assert_eq!(*RelayState::decode(&later).unwrap().encode(), state);
    }
}
