//! The relay over in-memory streams, on a paused clock.

mod ending;
mod fairness;
mod moving;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::task::JoinHandle;
use tokio::time::{Instant, advance, timeout};

use super::*;
use crate::clock::Exact;
use crate::close::Close;
use crate::handle::EndMode;
use crate::head::{Scan, scan_head, unmask};
use crate::outcome::Ended;
use crate::policy::{LIFETIME_MESSAGES_WAIT, STALL_MAX};
use crate::sequence::Limits;
use crate::supervisor::END_NOW_WAIT;
use crate::test_io::{Breaks, Drip, frame, masked, resets};

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

/// A relay in a task, with the far ends of both its streams.
struct Rig {
    client: Far,
    backend: Far,
    handle: SessionHandle,
    relay: JoinHandle<Outcome>,
    /// The client's stream was told that its last bytes come.
    parted: Arc<AtomicBool>,
}

/// A client's stream that keeps its last bytes until it is shut down.
struct Parts<C> {
    io: C,
    kept: Option<Vec<u8>>,
    parted: Arc<AtomicBool>,
}

impl<C: AsyncRead + AsyncWrite + Unpin> ClientStream for Parts<C> {
    fn begin_shutdown(&mut self) {
        self.kept.get_or_insert_default();
        self.parted.store(true, Ordering::Relaxed);
    }
}

impl ClientStream for DuplexStream {}

impl<C: AsyncRead + Unpin> AsyncRead for Parts<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Parts<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.kept {
            Some(kept) => {
                kept.extend_from_slice(buf);
                Poll::Ready(Ok(buf.len()))
            }
            None => Pin::new(&mut self.io).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(mut kept) = self.kept.take().filter(|kept| !kept.is_empty()) {
            let written = Pin::new(&mut self.io).poll_write(cx, &kept);
            if let Poll::Ready(Ok(n)) = written {
                kept.drain(..n);
            }
            self.kept = Some(kept);
            if !matches!(written, Poll::Ready(Ok(_))) {
                return written.map_ok(|_| ());
            }
        }
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// A peer's end of a stream.
struct Far {
    io: DuplexStream,
    /// Whose frames arrive here.
    sender: Sender,
}

/// A frame as a peer receives it, unmasked.
#[derive(Debug, PartialEq, Eq)]
struct ReceivedFrame {
    b0: u8,
    payload: Vec<u8>,
}

fn received(b0: u8, payload: &[u8]) -> ReceivedFrame {
    ReceivedFrame { b0, payload: payload.into() }
}

impl Far {
    async fn send(&mut self, wire: &[u8]) {
        self.io.write_all(wire).await.unwrap();
    }

    /// The next frame, with its rules checked; `None` at the end of the stream.
    async fn receive(&mut self) -> Option<ReceivedFrame> {
        let mut wire = Vec::new();
        loop {
            match scan_head(&wire, self.sender).unwrap() {
                Scan::Need(_) => match self.io.read_u8().await {
                    Ok(byte) => wire.push(byte),
                    Err(_) if wire.is_empty() => return None,
                    Err(e) => panic!("ended inside a head: {e}"),
                },
                Scan::Head(head) => {
                    let mut payload = vec![0; usize::try_from(head.payload_len).unwrap()];
                    self.io.read_exact(&mut payload).await.expect("ended inside a frame");
                    if let Some(mask) = head.mask {
                        unmask(&mut payload, mask, 0);
                    }
                    return Some(ReceivedFrame { b0: wire[0], payload });
                }
            }
        }
    }

    async fn receive_close(&mut self) -> Close {
        let frame = self.receive().await.expect("a Close, not the end");
        assert_eq!(frame.b0, 0x88);
        Close::parse(&frame.payload).unwrap()
    }

    /// Everything until the end of the stream.
    async fn receive_rest(&mut self) -> Vec<u8> {
        let mut wire = Vec::new();
        self.io.read_to_end(&mut wire).await.unwrap();
        wire
    }

    async fn is_silent(&mut self) -> bool {
        timeout(Duration::from_millis(1), self.io.read_u8()).await.is_err()
    }
}

async fn rig(policy: Policy) -> Rig {
    rig_over(policy, 1 << 20, |near| near, |near| near).await
}

/// Streams hold `room` bytes; the near ends may be wrapped.
async fn rig_over<C, B>(
    policy: Policy,
    room: usize,
    client: impl FnOnce(DuplexStream) -> C,
    backend: impl FnOnce(DuplexStream) -> B,
) -> Rig
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (client_far, client_near) = duplex(room);
    let (backend_far, backend_near) = duplex(room);
    let parted = Arc::<AtomicBool>::default();
    let mut client = Parts { io: client(client_near), kept: None, parted: parted.clone() };
    let mut backend = backend(backend_near);
    let handle = SessionHandle::new();
    let relay = tokio::spawn({
        let handle = handle.clone();
        async move { over(relay(&mut client, &mut backend, policy, &handle, Exact::begin()).await) }
    });
    tokio::task::yield_now().await; // the session's clock starts
    Rig {
        client: Far { io: client_far, sender: Sender::Server },
        backend: Far { io: backend_far, sender: Sender::Client },
        handle,
        relay,
        parted,
    }
}

/// A clock that shows the time at which it was last read exactly.
struct Lagging(Exact, std::cell::Cell<Duration>);

impl Clock for Lagging {
    fn now(&self) -> Duration {
        self.1.get()
    }

    fn now_exactly(&self) -> Duration {
        self.1.set(self.0.now());
        self.now()
    }

    fn instant(&self, at: Duration) -> Instant {
        self.0.instant(at)
    }
}

#[tokio::test(start_paused = true)]
async fn a_timer_that_fired_counts_even_if_the_clock_lags() {
    let (client_far, mut client) = duplex(1 << 10);
    let (_backend_far, mut backend) = duplex(1 << 10);
    let policy = Policy { idle_timeout: Some(45 * SECOND), ..pinging() };
    let handle = SessionHandle::new();
    let clock = Lagging(Exact::begin(), Duration::ZERO.into());
    let begun = Instant::now();
    let session = relay(&mut client, &mut backend, policy, &handle, clock);
    let receiving = async {
        let mut client = Far { io: client_far, sender: Sender::Server };
        let ping = client.receive().await.unwrap();
        assert_eq!((begun.elapsed(), ping.b0), (30 * SECOND, 0x89));
        client.send(&masked(0x8A, &ping.payload)).await;
        assert_eq!((client.receive_close().await.code, begun.elapsed()), (Some(1001), 45 * SECOND));
    };
    let (ending, ()) = tokio::join!(session, receiving);
    let outcome = over(ending);
    assert_eq!(outcome.cause, Cause::Idle);
}

/// An order's deadline is kept although nothing else happens any more.
#[tokio::test(start_paused = true)]
async fn a_session_with_a_deadline_is_not_calm() {
    let policy = policy();
    let mut relay = Relay::new(&policy, Exact::begin(), |sender| Scanner::new(sender, policy.limits));
    assert!(relay.is_calm());
    relay.supervisor.deadline = Some(SECOND);
    assert!(!relay.is_calm());
}

/// How a session that was not asked to freeze has ended.
fn over(ending: Ending) -> Outcome {
    let Ending::Over(outcome) = ending else { panic!("nothing asked for this: {ending:?}") };
    outcome
}

fn close(code: u16) -> Vec<u8> {
    code.to_be_bytes().into()
}

#[tokio::test(start_paused = true)]
async fn bytes_go_on_as_they_are() {
    let mut rig = rig(policy()).await;
    let up =
        [masked(0x01, b"to"), masked(0x89, b"p"), masked(0x80, b"m"), masked(0x82, &[9; 70_000])].concat();
    let down = [frame(0x81, b"hello"), frame(0x8A, b""), frame(0x82, &[7; 70_000])].concat();
    rig.client.send(&up).await;
    rig.backend.send(&down).await;
    let (mut at_backend, mut at_client) = (vec![0; up.len()], vec![0; down.len()]);
    rig.backend.io.read_exact(&mut at_backend).await.unwrap();
    rig.client.io.read_exact(&mut at_client).await.unwrap();
    assert!(at_backend == up && at_client == down);
    drop(rig.client);
    let outcome = rig.relay.await.unwrap();
    assert_eq!(outcome.from_client.messages, 2);
    assert_eq!(outcome.from_client.payload_bytes, 70_003);
    assert_eq!(outcome.from_client.wire_bytes, up.len() as u64);
    assert_eq!(outcome.from_backend.messages, 2);
}

#[tokio::test(start_paused = true)]
async fn the_closing_handshake_passes_through() {
    let mut rig = rig(policy()).await;
    rig.client.send(&masked(0x88, b"\x0F\xA0bye")).await;
    assert_eq!(rig.backend.receive().await, Some(received(0x88, b"\x0F\xA0bye")));
    rig.backend.send(&[frame(0x81, b"last"), frame(0x88, b"\x0F\xA0bye")].concat()).await;
    assert_eq!(rig.client.receive().await, Some(received(0x81, b"last")));
    assert_eq!(rig.client.receive().await, Some(received(0x88, b"\x0F\xA0bye")));
    // The server side closes TCP first: the gateway towards the client, the backend towards us.
    assert_eq!(rig.client.receive().await, None);
    assert!(rig.backend.is_silent().await);
    rig.backend.io.shutdown().await.unwrap();
    rig.client.io.shutdown().await.unwrap();
    let outcome = rig.relay.await.unwrap();
    let close = Close { code: Some(4000), reason: "bye".into() };
    assert_eq!(outcome.cause, Cause::Closed { by: Party::Client, close });
    assert_eq!((outcome.client, outcome.backend), (Exit::Orderly, Exit::Orderly));
    assert!(rig.parted.load(Ordering::Relaxed), "the answer and the shutdown could have left together");
}

#[tokio::test(start_paused = true)]
async fn an_empty_close_stays_empty_and_nothing_follows_a_close() {
    let mut rig = rig(policy()).await;
    rig.backend.send(&[frame(0x88, b""), frame(0x81, b"too late")].concat()).await;
    assert_eq!(rig.client.receive().await, Some(received(0x88, b"")));
    rig.client.send(&[masked(0x88, b""), masked(0x81, b"too late")].concat()).await;
    assert_eq!(rig.backend.receive().await, Some(received(0x88, b"")));
    assert_eq!(rig.client.receive().await, None);
    drop(rig.client);
    assert_eq!(rig.backend.receive().await, None);
    assert_eq!(rig.relay.await.unwrap().cause.close_code(), 1005);
    assert!(!rig.parted.load(Ordering::Relaxed), "a Close that awaits its answer must not wait");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_closes_and_half_closes_still_receives_the_rest() {
    let mut rig = rig(policy()).await;
    rig.client.send(&masked(0x88, &close(1000))).await;
    rig.client.io.shutdown().await.unwrap();
    assert_eq!(rig.backend.receive().await, Some(received(0x88, &close(1000))));
    assert_eq!(rig.backend.receive().await, None);
    rig.backend.send(&[frame(0x81, b"rest"), frame(0x88, &close(1000))].concat()).await;
    assert_eq!(rig.client.receive().await, Some(received(0x81, b"rest")));
    assert_eq!(rig.client.receive().await, Some(received(0x88, &close(1000))));
    assert_eq!(rig.client.receive().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_lost_client_ends_the_backend_without_a_close() {
    let mut rig = rig(policy()).await;
    rig.client.send(&[masked(0x81, b"whole"), masked(0x81, b"cut off")[..9].to_vec()].concat()).await;
    drop(rig.client);
    let wire = rig.backend.receive_rest().await;
    assert_eq!(wire, [masked(0x81, b"whole"), masked(0x81, b"cut off")[..9].to_vec()].concat());
    drop(rig.backend);
    let outcome = rig.relay.await.unwrap();
    assert_eq!(outcome.cause, Cause::Lost { party: Party::Client, how: Ended::Eof });
    assert_eq!(outcome.cause.close_code(), 1006);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_resets_resets_the_backend() {
    let rig = rig_over(policy(), 1024, resets, |near| near).await;
    drop(rig.client);
    let outcome = rig.relay.await.unwrap();
    assert_eq!(outcome.cause, Cause::Lost { party: Party::Client, how: Ended::Reset });
    assert_eq!((outcome.client, outcome.backend), (Exit::Cut, Exit::Reset));
}

#[tokio::test(start_paused = true)]
async fn a_lost_backend_is_1011_at_a_boundary() {
    let mut rig = rig(policy()).await;
    // Between two fragments is a boundary; half a head is not passed on.
    rig.backend.send(&[&frame(0x01, b"frag")[..], &[0x80]].concat()).await;
    drop(rig.backend);
    assert_eq!(rig.client.receive().await, Some(received(0x01, b"frag")));
    assert_eq!(rig.client.receive_close().await.code, Some(1011));
    assert!(rig.client.is_silent().await); // the client may answer first
    rig.client.send(&masked(0x88, &close(1011))).await;
    assert_eq!(rig.client.receive().await, None);
    drop(rig.client);
    let outcome = rig.relay.await.unwrap();
    assert_eq!(outcome.cause, Cause::Lost { party: Party::Backend, how: Ended::Eof });
    assert_eq!(outcome.client, Exit::Orderly);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_resets_at_a_boundary_is_1011_and_then_a_reset() {
    let mut rig = rig_over(policy(), 1024, |near| near, resets).await;
    drop(rig.backend);
    assert_eq!(rig.client.receive_close().await.code, Some(1011));
    let before = Instant::now();
    let outcome = rig.relay.await.unwrap(); // the client doesn't answer
    assert_eq!(before.elapsed(), CLOSE_WAIT);
    assert_eq!(outcome.client, Exit::Reset);
}

#[tokio::test(start_paused = true)]
async fn a_backend_lost_inside_a_frame_cuts_the_client() {
    let mut rig = rig(policy()).await;
    let wire = frame(0x81, b"cut off");
    rig.backend.send(&wire[..5]).await;
    drop(rig.backend);
    let outcome = rig.relay.await.unwrap();
    assert_eq!(outcome.client, Exit::Cut);
    assert_eq!(rig.client.receive_rest().await, wire[..5]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_breaks_a_rule() {
    let mut rig = rig(policy()).await;
    rig.client
        .send(&[masked(0x81, b"good"), vec![0x81, 0x01, b'x'], masked(0x81, b"ignored")].concat())
        .await;
    assert_eq!(rig.backend.receive().await, Some(received(0x81, b"good")));
    assert_eq!(rig.backend.receive_close().await.code, Some(1002));
    // What the backend still sends is relayed until its Close.
    rig.backend.send(&frame(0x81, b"still")).await;
    assert_eq!(rig.client.receive().await, Some(received(0x81, b"still")));
    assert!(rig.client.is_silent().await);
    rig.backend.send(&frame(0x88, &close(1002))).await;
    let told = rig.client.receive_close().await;
    assert_eq!(told.code, Some(1002));
    assert!(told.reason.contains("not masked"), "{told}");
    assert_eq!(rig.client.receive().await, None);
    drop((rig.client, rig.backend));
    let outcome = rig.relay.await.unwrap();
    assert_eq!(outcome.cause, Cause::Violation { by: Party::Client, violation: Violation::Unmasked });
    assert_eq!(outcome.from_client.messages, 1);
}

#[tokio::test(start_paused = true)]
async fn a_violator_waits_two_seconds_for_a_silent_backend() {
    let mut rig = rig(Policy { limits: Limits { message_max: 4, deflate: false }, ..policy() }).await;
    let before = Instant::now();
    rig.client.send(&masked(0x82, b"12345")).await;
    assert_eq!(rig.backend.receive_close().await.code, Some(1009));
    assert_eq!(rig.client.receive_close().await.code, Some(1009));
    assert_eq!(before.elapsed(), CLOSE_WAIT);
}

#[tokio::test(start_paused = true)]
async fn a_violating_backend_waits_two_seconds_for_a_silent_client() {
    let mut rig = rig(policy()).await;
    let before = Instant::now();
    rig.backend.send(&masked(0x81, b"bad")).await;
    assert_eq!(rig.client.receive_close().await.code, Some(1002));
    assert_eq!(rig.backend.receive_close().await.code, Some(1002));
    assert_eq!(before.elapsed(), CLOSE_WAIT);
}

#[tokio::test(start_paused = true)]
async fn a_violator_gets_its_close_at_once_when_the_backend_ends() {
    let mut rig = rig(policy()).await;
    rig.client.send(&[0xFF, 0x80]).await;
    assert_eq!(rig.backend.receive_close().await.code, Some(1002));
    let before = Instant::now();
    drop(rig.backend);
    assert_eq!(rig.client.receive_close().await.code, Some(1002));
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_violator_whose_stream_stands_inside_a_frame_is_cut() {
    let mut rig = rig(policy()).await;
    let half = &frame(0x82, b"half")[..3];
    rig.backend.send(half).await;
    let mut seen = [0; 3];
    rig.client.io.read_exact(&mut seen).await.unwrap();
    rig.client.send(&[0xFF, 0x80]).await;
    let outcome = rig.relay.await.unwrap();
    assert_eq!(outcome.client, Exit::Cut);
    assert_eq!(rig.client.receive_rest().await, b"");
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_breaks_a_rule() {
    let mut rig = rig(policy()).await;
    rig.backend.send(&[frame(0x81, b"good"), masked(0x81, b"bad")].concat()).await;
    assert_eq!(rig.client.receive().await, Some(received(0x81, b"good")));
    assert_eq!(rig.client.receive_close().await.code, Some(1002));
    rig.client.send(&masked(0x81, b"still")).await;
    assert_eq!(rig.backend.receive().await, Some(received(0x81, b"still")));
    rig.client.send(&masked(0x88, &close(1002))).await;
    assert_eq!(rig.backend.receive_close().await.code, Some(1002));
    drop((rig.client, rig.backend));
    let outcome = rig.relay.await.unwrap();
    assert_eq!(outcome.cause, Cause::Violation { by: Party::Backend, violation: Violation::Masked });
}

#[tokio::test(start_paused = true)]
async fn a_bad_close_is_not_passed_on() {
    let mut rig = rig(policy()).await;
    rig.client.send(&masked(0x88, &close(1005))).await;
    assert_eq!(rig.backend.receive_close().await.code, Some(1002));
    rig.backend.send(&frame(0x88, &close(1002))).await;
    assert_eq!(rig.client.receive_close().await.code, Some(1002));
}

#[test]
fn every_reason_fits_a_close() {
    let longest = Violation::MessageTooBig { len: u64::MAX, max: u64::MAX };
    for violation in [
        longest,
        Violation::LengthNotMinimal { len: 65_535 },
        Violation::ReservedBits { bits: 7 },
        Violation::CloseCode { code: u16::MAX },
        Violation::Interleaved,
        Violation::UnexpectedContinuation,
        Violation::NotBinary,
    ] {
        assert!(reason(violation).len() <= 123, "{violation}");
    }
}

fn pinging() -> Policy {
    Policy { ping_interval: Some(30 * SECOND), ..policy() }
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_pinged_and_its_pong_taken_out() {
    let mut rig = rig(pinging()).await;
    let before = Instant::now();
    let ping = rig.client.receive().await.unwrap();
    assert_eq!((before.elapsed(), ping.b0), (30 * SECOND, 0x89));
    // The answer between two messages, one of them split around it.
    let (a, b) = (masked(0x01, b"a"), masked(0x80, b"b"));
    rig.client.send(&[&a[..], &masked(0x8A, &ping.payload), &masked(0x8A, b"mine"), &b].concat()).await;
    assert_eq!(rig.backend.receive().await, Some(received(0x01, b"a")));
    assert_eq!(rig.backend.receive().await, Some(received(0x8A, b"mine")));
    assert_eq!(rig.backend.receive().await, Some(received(0x80, b"b")));
    let again = rig.client.receive().await.unwrap();
    assert_eq!((before.elapsed(), again.b0), (60 * SECOND, 0x89));
    assert_ne!(again.payload, ping.payload);
    // A pong that arrives byte by byte is taken out as well.
    for byte in masked(0x8A, &again.payload) {
        rig.client.send(&[byte]).await;
        tokio::task::yield_now().await;
    }
    assert!(rig.backend.is_silent().await);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_no_ping_is_gone() {
    let mut rig = rig(pinging()).await;
    let before = Instant::now();
    assert_eq!(rig.backend.receive().await, None); // no Close
    assert_eq!(before.elapsed(), 40 * SECOND);
    drop(rig.backend);
    let outcome = rig.relay.await.unwrap();
    assert_eq!((outcome.cause, outcome.client), (Cause::PongTimeout, Exit::Cut));
}

#[tokio::test(start_paused = true)]
async fn a_ping_waits_for_the_end_of_the_frame() {
    let mut rig = rig(pinging()).await;
    let wire = frame(0x82, b"a long frame");
    let (front, back) = wire.split_at(6);
    rig.backend.send(front).await;
    advance(31 * SECOND).await;
    let mut seen = vec![0; front.len()];
    rig.client.io.read_exact(&mut seen).await.unwrap();
    assert!(rig.client.is_silent().await);
    // The rest, and the next frame in the same packet: the ping goes in between.
    rig.backend.send(&[back, &frame(0x81, b"next")].concat()).await;
    let mut rest = vec![0; back.len()];
    rig.client.io.read_exact(&mut rest).await.unwrap();
    assert_eq!([seen, rest].concat(), wire);
    assert_eq!(rig.client.receive().await.unwrap().b0, 0x89);
    assert_eq!(rig.client.receive().await, Some(received(0x81, b"next")));
}

#[tokio::test(start_paused = true)]
async fn while_a_ping_of_the_backends_is_unanswered_the_gateway_sends_none() {
    let mut rig = rig(pinging()).await;
    rig.backend.send(&frame(0x89, b"backend's")).await;
    assert_eq!(rig.client.receive().await, Some(received(0x89, b"backend's")));
    advance(35 * SECOND).await;
    assert!(rig.client.is_silent().await);
    rig.client.send(&masked(0x8A, b"backend's")).await;
    assert_eq!(rig.backend.receive().await, Some(received(0x8A, b"backend's")));
    assert_eq!(rig.client.receive().await.unwrap().b0, 0x89);
}

#[tokio::test(start_paused = true)]
async fn the_pong_clock_stops_while_the_client_is_not_read() {
    let mut rig = rig_over(pinging(), 64, |near| near, |near| near).await;
    // The backend reads nothing, so the gateway soon reads nothing from the client.
    let stall = masked(0x82, &[0; 100]);
    let writer = async { rig.client.io.write_all(&stall).await.unwrap() };
    timeout(SECOND, writer).await.unwrap();
    advance(600 * SECOND).await;
    assert!(!rig.relay.is_finished());
    let mut seen = vec![0; stall.len()];
    rig.backend.io.read_exact(&mut seen).await.unwrap();
    assert_eq!(seen, stall);
    assert_eq!(rig.client.receive().await.unwrap().b0, 0x89);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_gone_in_the_end_though_it_is_not_pinged() {
    let unpinged = Policy { ping_interval: None, idle_timeout: None, ..policy() };
    let mut rig = rig_over(unpinged, 64, |near| near, |near| near).await;
    let started = Instant::now();
    let big = frame(0x82, &vec![0; 1 << 18]);
    let (_, outcome) = tokio::join!(rig.backend.io.write_all(&big), rig.relay);
    assert_eq!(outcome.unwrap().cause, Cause::Stalled);
    let after = started.elapsed();
    assert!(after >= STALL_MAX && after < STALL_MAX + 5 * SECOND, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_gone_in_the_end_and_a_slow_one_is_not() {
    let mut rig = rig_over(pinging(), 64, |near| near, |near| near).await;
    let big = frame(0x82, &vec![0; 1 << 18]);
    let (far, started) = (&mut rig.backend.io, Instant::now());
    let sending = far.write_all(&big);
    let taking = async {
        let mut some = [0; 16];
        for _ in 0..5 {
            tokio::time::sleep(50 * SECOND).await;
            rig.client.io.read_exact(&mut some).await.unwrap();
        }
        assert!(!rig.relay.is_finished());
        rig.relay.await.unwrap()
    };
    // What the backend still sends is thrown away, for the 2 s that it has to end in order.
    let (_, outcome) = tokio::join!(sending, taking);
    assert_eq!((outcome.cause, outcome.client), (Cause::Stalled, Exit::Cut));
    assert_eq!(started.elapsed(), (250 + 60 + 2) * SECOND);
}

#[tokio::test(start_paused = true)]
async fn idle_counts_messages_and_not_pings() {
    let mut rig = rig(Policy { idle_timeout: Some(60 * SECOND), ..pinging() }).await;
    let before = Instant::now();
    advance(20 * SECOND).await;
    rig.backend.send(&frame(0x81, b"x")).await;
    assert_eq!(rig.client.receive().await, Some(received(0x81, b"x")));
    for _ in 0..2 {
        let ping = rig.client.receive().await.unwrap();
        rig.client.send(&masked(0x8A, &ping.payload)).await;
        rig.backend.send(&frame(0x8A, b"heartbeat")).await;
        assert_eq!(rig.client.receive().await, Some(received(0x8A, b"heartbeat")));
    }
    assert_eq!(rig.client.receive_close().await.code, Some(1001));
    assert_eq!(before.elapsed(), 80 * SECOND);
    assert_eq!(rig.backend.receive_close().await.code, Some(1001));
    rig.client.send(&masked(0x88, &close(1001))).await;
    rig.backend.send(&frame(0x88, &close(1001))).await;
    drop((rig.client, rig.backend));
    assert_eq!(rig.relay.await.unwrap().cause, Cause::Idle);
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_with_its_lifetime_however_busy_it_is() {
    let mut rig = rig(Policy { lifetime: Some(60 * SECOND), ..policy() }).await;
    let before = Instant::now();
    for _ in 0..59 {
        advance(SECOND).await;
        rig.client.send(&masked(0x81, b"x")).await;
        assert_eq!(rig.backend.receive().await, Some(received(0x81, b"x")));
    }
    rig.backend.send(&frame(0x01, b"begun")).await;
    assert_eq!(rig.client.receive().await, Some(received(0x01, b"begun")));
    assert_eq!(rig.backend.receive_close().await.code, Some(1001));
    assert_eq!(before.elapsed(), 60 * SECOND);
    rig.client.send(&masked(0x88, &close(1001))).await;
    advance(10 * SECOND).await;
    rig.backend.send(&frame(0x80, b"finished")).await;
    assert_eq!(rig.client.receive().await, Some(received(0x80, b"finished")));
    let close_frame = rig.client.receive_close().await;
    assert_eq!((close_frame.code, &*close_frame.reason), (Some(1001), ""));
    rig.backend.send(&frame(0x88, &close(1001))).await;
    drop((rig.client, rig.backend));
    let outcome = rig.relay.await.unwrap();
    assert_eq!((&outcome.cause, outcome.cause.close_code()), (&Cause::Lifetime, 1001));
    assert_eq!((outcome.cause.ended_by(), outcome.client), (Party::Gateway, Exit::Orderly));
}

#[tokio::test(start_paused = true)]
async fn a_message_without_an_end_outlives_no_lifetime() {
    let mut rig = rig(Policy { lifetime: Some(60 * SECOND), ..policy() }).await;
    let before = Instant::now();
    rig.backend.send(&frame(0x01, b"begun")).await;
    assert_eq!(rig.client.receive().await, Some(received(0x01, b"begun")));
    assert_eq!(rig.client.receive_close().await.code, Some(1001));
    assert_eq!(before.elapsed(), 60 * SECOND + LIFETIME_MESSAGES_WAIT);
    assert_eq!(rig.relay.await.unwrap().cause, Cause::Lifetime);
}

#[tokio::test(start_paused = true)]
async fn an_order_lets_messages_in_flight_finish() {
    let mut rig = rig(policy()).await;
    rig.backend.send(&frame(0x01, b"begun")).await;
    assert_eq!(rig.client.receive().await, Some(received(0x01, b"begun")));
    rig.handle.end(Order { code: 1001, mode: EndMode::AfterMessages { within: 30 * SECOND } });
    assert_eq!(rig.backend.receive_close().await.code, Some(1001)); // this way nothing was in flight
    assert!(rig.client.is_silent().await);
    rig.backend.send(&[frame(0x80, b"done"), frame(0x81, b"a new one")].concat()).await;
    assert_eq!(rig.client.receive().await, Some(received(0x80, b"done")));
    assert_eq!(rig.client.receive_close().await.code, Some(1001));
    rig.client.send(&masked(0x88, &close(1001))).await;
    rig.backend.send(&frame(0x88, &close(1001))).await;
    assert_eq!(rig.client.receive().await, None);
    drop((rig.client, rig.backend));
    let outcome = rig.relay.await.unwrap();
    assert_eq!(outcome.cause, Cause::Ordered { code: 1001 });
    assert_eq!((outcome.client, outcome.backend), (Exit::Orderly, Exit::Orderly));
}

/// Sends fragments of one message without end, as fast as they are taken.
async fn never_finishes(io: &mut (impl AsyncWriteExt + Unpin), fragment: &[u8]) {
    while io.write_all(fragment).await.is_ok() {
        tokio::time::sleep(SECOND / 10).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_kept_open_does_not_outlast_an_order() {
    for from_client in [true, false] {
        let rig = rig(policy()).await;
        let (first, fragment) = if from_client {
            (masked(0x01, b"a"), masked(0x00, b"and"))
        } else {
            (frame(0x01, b"a"), frame(0x00, b"and"))
        };
        let (sender, hearer) =
            if from_client { (rig.client, rig.backend) } else { (rig.backend, rig.client) };
        let (_from, mut to) = tokio::io::split(sender.io);
        to.write_all(&first).await.unwrap();
        let endless = tokio::spawn(async move { never_finishes(&mut to, &fragment).await });
        tokio::time::sleep(SECOND).await;
        let before = Instant::now();
        rig.handle.end(Order { code: 1001, mode: EndMode::AfterMessages { within: 5 * SECOND } });
        // Other orders, earlier and later ones, put it off no further.
        tokio::time::sleep(SECOND).await;
        rig.handle.end(Order { code: 1012, mode: EndMode::AfterMessages { within: 30 * SECOND } });
        let mut hearer = hearer;
        let close = loop {
            let received = hearer.receive().await.expect("a Close, not the end");
            if received.b0 == 0x88 {
                break Close::parse(&received.payload).unwrap();
            }
        };
        assert_eq!((before.elapsed(), close.code), (5 * SECOND, Some(1001)), "{from_client}");
        let outcome = rig.relay.await.unwrap();
        assert!(before.elapsed() <= 5 * SECOND + END_NOW_WAIT.1, "{:?}", before.elapsed());
        assert_eq!(outcome.cause, Cause::Ordered { code: 1001 });
        endless.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_is_kept_open_is_cut_at_an_orders_last_moment() {
    let mut rig = rig(policy()).await;
    rig.client.send(&masked(0x82, &[1; 60_000])[..1000]).await;
    tokio::time::sleep(SECOND).await;
    let before = Instant::now();
    rig.handle.end(Order { code: 1001, mode: EndMode::AfterMessages { within: 9 * SECOND } });
    tokio::time::sleep(SECOND).await;
    rig.handle.end(Order { code: 1001, mode: EndMode::AfterMessages { within: 4 * SECOND } });
    let outcome = rig.relay.await.unwrap();
    let took = before.elapsed();
    assert!((5 * SECOND..=5 * SECOND + END_NOW_WAIT.1).contains(&took), "{took:?}: the earlier end counts");
    assert_eq!(outcome.cause, Cause::Ordered { code: 1001 });
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_does_not_outlast_an_order() {
    let mut rig = rig_over(policy(), 64, |near| near, |near| near).await;
    let big = frame(0x82, &[0; 100_000]);
    let far = &mut rig.backend.io;
    assert!(timeout(SECOND, far.write_all(&big)).await.is_err());
    let before = Instant::now();
    rig.handle.end(Order { code: 1001, mode: EndMode::AfterMessages { within: 5 * SECOND } });
    let outcome = rig.relay.await.unwrap();
    assert!(before.elapsed() <= 5 * SECOND + END_NOW_WAIT.1, "{:?}", before.elapsed());
    assert_eq!(outcome.client, Exit::Cut);
}

#[tokio::test(start_paused = true)]
async fn a_session_answers_a_request_for_a_snapshot() {
    let mut rig = rig(policy()).await;
    rig.client.send(&masked(0x81, b"up")).await;
    assert_eq!(rig.backend.receive().await, Some(received(0x81, b"up")));
    rig.backend.send(&[frame(0x81, b"a"), frame(0x81, b"bc"), frame(0x01, b"begun")].concat()).await;
    for expect in [received(0x81, b"a"), received(0x81, b"bc"), received(0x01, b"begun")] {
        assert_eq!(rig.client.receive().await, Some(expect));
    }
    tokio::time::sleep(7 * SECOND).await;
    let snapshot = rig.handle.request_snapshot().await.unwrap();
    assert_eq!((snapshot.from_client.messages, snapshot.from_client.payload_bytes), (1, 2));
    assert_eq!(snapshot.from_backend.messages, 2, "the third is not whole");
    assert_eq!((snapshot.idle, snapshot.is_closing), (7 * SECOND, false));
    rig.handle.end(Order { code: 1001, mode: EndMode::AfterMessages { within: 30 * SECOND } });
    assert!(rig.handle.request_snapshot().await.unwrap().is_closing);
    drop((rig.client, rig.backend));
    rig.relay.await.unwrap();
    let answer = rig.handle.request_snapshot();
    drop(rig.handle);
    assert!(answer.await.is_err(), "it is over");
}

#[tokio::test(start_paused = true)]
async fn it_notes_since_when_something_waits_for_a_peer() {
    for (up, down) in [(true, false), (false, true), (true, true)] {
        let Rig { client, backend, handle, relay, .. } =
            rig_over(policy(), 64, |near| near, |near| near).await;
        assert_eq!(handle.stalled_since(), None);
        let (mut from_client, mut to_client) = tokio::io::split(client.io);
        let (mut from_backend, mut to_backend) = tokio::io::split(backend.io);
        let senders = tokio::spawn(async move {
            let (a, b) = (masked(0x82, &[0; 1000]), frame(0x82, &[0; 1000]));
            let (a, b) = (if up { &a[..] } else { &[] }, if down { &b[..] } else { &[] });
            tokio::join!(to_client.write_all(a), to_backend.write_all(b)).0.unwrap();
            (to_client, to_backend)
        });
        tokio::time::sleep(SECOND).await;
        let first = handle.stalled_since().unwrap();
        let begun = std::time::Instant::now();
        while begun.elapsed() < Duration::from_millis(2) {}
        let mut some = [0; 32];
        tokio::time::sleep(SECOND).await;
        assert_eq!(handle.stalled_since(), Some(first), "{up} {down}");
        if up {
            from_backend.read_exact(&mut some).await.unwrap();
        }
        if down {
            from_client.read_exact(&mut some).await.unwrap();
        }
        tokio::time::sleep(SECOND).await;
        assert!(handle.stalled_since().unwrap() > first, "it has taken some: {up} {down}");
        let (mut at_backend, mut at_client) =
            (vec![0; if up { 1008 - 32 } else { 0 }], vec![0; if down { 1004 - 32 } else { 0 }]);
        let (a, b) =
            tokio::join!(from_backend.read_exact(&mut at_backend), from_client.read_exact(&mut at_client));
        a.and(b).unwrap();
        tokio::time::sleep(SECOND).await;
        assert_eq!(handle.stalled_since(), None, "{up} {down}");
        assert!(!relay.is_finished());
        drop(senders.await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn an_order_to_end_now_closes_between_fragments_and_cuts_frames() {
    let mut rig = rig(policy()).await;
    let half = &frame(0x82, b"half")[..3];
    rig.backend.send(half).await;
    rig.client.send(&masked(0x01, b"fragment")).await;
    assert_eq!(rig.backend.receive().await, Some(received(0x01, b"fragment")));
    rig.handle.end(Order { code: 1001, mode: EndMode::AfterMessages { within: 30 * SECOND } });
    assert!(rig.backend.is_silent().await);
    rig.handle.end(Order { code: 1001, mode: EndMode::Now });
    assert_eq!(rig.backend.receive_close().await.code, Some(1001));
    let before = Instant::now();
    let outcome = rig.relay.await.unwrap();
    assert!(before.elapsed() <= END_NOW_WAIT.1);
    assert_eq!(outcome.client, Exit::Cut);
    assert_eq!(rig.client.receive_rest().await, half);
}

#[tokio::test(start_paused = true)]
async fn a_stalled_client_stalls_the_backend_and_not_the_memory() {
    let mut rig = rig_over(policy(), 1024, |near| near, |near| near).await;
    let big = frame(0x82, &vec![1; 1 << 20]);
    let mut sent = 0;
    while let Ok(n) = timeout(SECOND, rig.backend.io.write(&big[sent..])).await {
        sent += n.unwrap();
    }
    let held = BUFFER_LEN + 2 * 1024;
    assert!(sent <= held, "{sent} bytes were taken");
    // And it goes on where it stopped.
    let (far, rest) = (&mut rig.client, &big[sent..]);
    let reader = async { far.receive().await };
    let (received, ()) = tokio::join!(reader, async { rig.backend.io.write_all(rest).await.unwrap() });
    assert_eq!(received.unwrap().payload.len(), 1 << 20);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_stops_reading_and_then_goes() {
    let mut rig = rig(policy()).await;
    // The last words of a backend that has closed its end already are still delivered.
    rig.backend.send(&[frame(0x81, b"last"), frame(0x88, &close(1000))].concat()).await;
    drop(rig.backend);
    rig.client.send(&masked(0x81, b"into the void")).await;
    assert_eq!(rig.client.receive().await, Some(received(0x81, b"last")));
    assert_eq!(rig.client.receive().await, Some(received(0x88, &close(1000))));
    rig.client.send(&masked(0x88, &close(1000))).await;
    assert_eq!(rig.client.receive().await, None);
    drop(rig.client);
    let outcome = rig.relay.await.unwrap();
    assert_eq!((outcome.cause.ended_by(), outcome.cause.close_code()), (Party::Backend, 1000));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the streams do to the bytes, good frames arrive as they were sent.
    #[test]
    fn streams_that_drip_and_stall_change_nothing(
        frames in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..300)), 0..12),
        room in 1usize..200,
        drip in any::<u64>(),
    ) {
        let up: Vec<u8> = frames.iter().flat_map(|(ping, p)| masked(if *ping && p.len() < 126 { 0x89 } else { 0x82 }, p)).collect();
        let down: Vec<u8> = frames.iter().flat_map(|(pong, p)| frame(if *pong && p.len() < 126 { 0x8A } else { 0x81 }, p)).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (at_backend, at_client) = runtime.block_on(async {
            let rig = rig_over(policy(), room, |near| Drip::new(near, drip), |near| Drip::new(near, !drip)).await;
            let (mut from_client, mut to_client) = tokio::io::split(rig.client.io);
            let (mut from_backend, mut to_backend) = tokio::io::split(rig.backend.io);
            let (mut at_backend, mut at_client) = (vec![0; up.len()], vec![0; down.len()]);
            let (a, b, c, d) = tokio::join!(
                to_client.write_all(&up),
                to_backend.write_all(&down),
                from_backend.read_exact(&mut at_backend),
                from_client.read_exact(&mut at_client),
            );
            a.and(b).unwrap();
            c.and(d).unwrap();
            (at_backend, at_client)
        });
        prop_assert_eq!(at_backend, up);
        prop_assert_eq!(at_client, down);
    }
}

#[tokio::test(start_paused = true)]
async fn a_control_frame_is_never_compressed() {
    // RFC 7692 §6.1, whether the extension was agreed upon or not.
    for deflate in [false, true] {
        for opcode in [0xC8, 0xC9, 0xCA] {
            for by in [Party::Client, Party::Backend] {
                let mut rig =
                    rig(Policy { limits: Limits { message_max: u64::MAX, deflate }, ..policy() }).await;
                match by {
                    Party::Client => rig.client.send(&masked(opcode, b"")).await,
                    _ => rig.backend.send(&frame(opcode, b"")).await,
                }
                let told = if by == Party::Client { &mut rig.backend } else { &mut rig.client };
                assert_eq!(told.receive_close().await.code, Some(1002), "{opcode:#x} of {by:?}");
                drop((rig.client, rig.backend));
                let violation = Violation::ReservedBits { bits: 4 };
                assert_eq!(rig.relay.await.unwrap().cause, Cause::Violation { by, violation });
            }
        }
    }
}

/// Takes nothing more, and says nothing more either.
struct Deaf<S>(S);

impl<S: AsyncRead + Unpin> AsyncRead for Deaf<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Deaf<S> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_nothing_more_and_stays_silent_is_lost_after_a_while() {
    let mut rig = rig_over(policy(), 1 << 20, |near| near, Deaf).await;
    let before = Instant::now();
    rig.client.send(&masked(0x81, b"into the void")).await;
    // The other peer gets its Close when the time for its answer is over.
    assert_eq!(timeout(60 * SECOND, rig.client.receive()).await.expect("an end"), None);
    assert_eq!(before.elapsed(), CLOSE_WAIT);
    drop((rig.client, rig.backend));
    let outcome = timeout(60 * SECOND, rig.relay).await.unwrap().unwrap();
    assert!(matches!(outcome.cause, Cause::Lost { party: Party::Backend, .. }), "{:?}", outcome.cause);
}
