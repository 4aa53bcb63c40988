//! The relay: frames between a client and a backend, checked and passed on unchanged.
//!
//! In: two streams behind a finished handshake, and the policy of the route. Out: an [`Outcome`].
//! Heads are scanned in the buffer that was read, and the same bytes go on: payloads are neither
//! unmasked nor reassembled, masks and fragments stay as the client made them, and a message of
//! any size needs no more memory than a ping. Frames of the gateway are inserted exactly between
//! two others.
//!
//! A relay can be frozen at any moment ([`SessionHandle::freeze`]): a [`RelayState`] is what it knows, and
//! [`relay_from`] goes on with that, in this process or in another.
//!
//! One task serves both directions: each has a `pump`, this module notes what happened in each, and `closing`
//! decides what follows from it (RFC 6455 §7).

mod closing;
mod frozen;
mod pump;
mod shutdown;

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use net_io::BUFFER_LEN;
use tokio::io::{AsyncRead, AsyncWrite};

use self::closing::{Output, Peer, State, Step, Wait, next_step};
use self::pump::{Event, Pump};
use self::shutdown::{PeerShutdown, Shutdown};
pub use crate::client::ClientStream;
use crate::clock::Clock;
use crate::fair_queue::{QueueState, yield_to_driver};
use crate::handle::{Order, SessionHandle};
use crate::head::Sender;
use crate::outcome::{Cause, Exit, IDLE_CODE, LIFETIME_CODE, Outcome, Party, Snapshot};
use crate::policy::{CLOSE_ANSWER_WAIT, CLOSE_WAIT, Policy};
use crate::scanner::{Boundary, Scanner};
use crate::supervisor::{Due, Supervisor};
use crate::violation::Violation;

/// Bytes that a session may read from each peer before other sessions are polled: a small message of another
/// session may have to wait for so many. A read that begins before is not cut short.
const QUANTUM_LEN: usize = BUFFER_LEN;
/// A lost backend is an unexpected condition (RFC 6455 §7.4.1).
const BACKEND_LOST_CODE: u16 = 1011;

/// Relays frames until the session is over; both streams are then shut down or, where
/// [`Outcome::client`] or [`Outcome::backend`] says so, left to the caller to drop.
///
/// Bytes that the backend sent along with its handshake must come out of its stream first.
///
/// # Cancel safety
/// None: a dropped relay leaves both streams in the middle of a frame, good only to be dropped.
pub fn relay<'a, C, B, T>(
    client: &'a mut C,
    backend: &'a mut B,
    policy: Policy,
    handle: &'a SessionHandle,
    clock: T,
) -> Relaying<'a, C, B, T>
where
    C: ClientStream,
    B: AsyncRead + AsyncWrite + Unpin,
    T: Clock,
{
    let mut relay = Relay::new(&policy, clock, |sender| Scanner::new(sender, policy.limits));
    relay.count_sizes(handle);
    Relaying { relay, client, backend, handle }
}

/// Goes on with a relay that was frozen, with the same two streams or with what became of them in another process. Its
/// policy is in the state. By `clock` it must be later than it was in the session's life: moments before the clock
/// began count as its beginning.
pub fn relay_from<'a, C, B, T>(
    state: Box<RelayState>,
    client: &'a mut C,
    backend: &'a mut B,
    handle: &'a SessionHandle,
    clock: T,
) -> Relaying<'a, C, B, T>
where
    C: ClientStream,
    B: AsyncRead + AsyncWrite + Unpin,
    T: Clock,
{
    let mut relay = state.thaw(clock);
    relay.count_sizes(handle);
    handle.on_thawed(&relay.up.traffic(), &relay.down.traffic());
    Relaying { relay, client, backend, handle }
}

/// What [`relay`](fn@relay) and [`relay_from`] return.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Relaying<'a, C, B, T> {
    relay: Relay<T>,
    client: &'a mut C,
    backend: &'a mut B,
    handle: &'a SessionHandle,
}

impl<C, B, T> Future for Relaying<'_, C, B, T>
where
    C: ClientStream,
    B: AsyncRead + AsyncWrite + Unpin,
    T: Clock + Unpin,
{
    type Output = Ending;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ending> {
        let Self { relay, client, backend, handle } = self.get_mut();
        relay.poll(cx, *client, *backend, handle)
    }
}

/// How the future of a session ends: of a relay, or of what has a state of another kind.
#[derive(Debug)]
pub enum Ending<S = Box<RelayState>> {
    /// The session is over.
    Over(Outcome),
    /// It was asked to freeze ([`SessionHandle::freeze`]). Both streams are as they were; nothing is read from them
    /// or written to them until the session goes on from this state, a relay by [`relay_from`].
    Frozen(S),
}

/// The same without scanning, so that benches can measure what scanning costs. No frame is
/// checked, counted or answered, and the gateway inserts none.
#[doc(hidden)]
pub fn relay_unscanned<'a, C, B, T>(
    client: &'a mut C,
    backend: &'a mut B,
    policy: Policy,
    handle: &'a SessionHandle,
    clock: T,
) -> Relaying<'a, C, B, T>
where
    C: ClientStream,
    B: AsyncRead + AsyncWrite + Unpin,
    T: Clock,
{
    Relaying { relay: Relay::new(&policy, clock, Scanner::disabled), client, backend, handle }
}

/// A rule that a peer broke.
#[derive(Debug, Clone, Copy)]
struct Breach {
    by: Party,
    violation: Violation,
    /// That peer was sent a Close for it.
    is_reported: bool,
}

/// A relay that was frozen. It goes on with [`relay_from`].
#[derive(Debug)]
pub struct RelayState {
    relay: Relay<()>,
    /// The time by the relay's clock.
    at: Duration,
}

#[derive(Debug)]
struct Relay<T> {
    supervisor: Supervisor<T>,
    up: Pump,
    down: Pump,
    client: Peer,
    backend: Peer,
    queue_state: QueueState,
    /// A peer has taken something since [`SessionHandle::on_stall`] was told so.
    peer_took: bool,
    /// Boxed, as what follows: for most of a session's life there is none.
    cause: Option<Box<Cause>>,
    breach: Option<Box<Breach>>,
    shutdown: Option<Box<Shutdown>>,
}

// Every idle session holds one.
const _: () = assert!(size_of::<Relay<()>>() <= 552);

impl<T> Relay<T> {
    fn snapshot(&self, now: Duration) -> Snapshot {
        Snapshot {
            from_client: self.up.traffic(),
            from_backend: self.down.traffic(),
            waits: self.supervisor.measures.waits(now),
            pings: self.supervisor.measures.pings(),
            idle: self.supervisor.idle(now),
            is_closing: self.cause.is_some(),
        }
    }
}

impl<T: Clock> Relay<T> {
    fn new(policy: &Policy, clock: T, scanner: impl Fn(Sender) -> Scanner) -> Self {
        Self {
            supervisor: Supervisor::new(policy, clock),
            up: Pump::new(scanner(Sender::Client)),
            down: Pump::new(scanner(Sender::Server)),
            client: Peer::default(),
            backend: Peer::default(),
            queue_state: QueueState::default(),
            peer_took: false,
            cause: None,
            breach: None,
            shutdown: None,
        }
    }

    fn count_sizes(&mut self, handle: &SessionHandle) {
        let [from_client, from_backend] = handle.sizes();
        self.up.count_sizes(from_client.cloned());
        self.down.count_sizes(from_backend.cloned());
    }

    fn poll<C, B>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        backend: &mut B,
        handle: &SessionHandle,
    ) -> Poll<Ending>
    where
        C: ClientStream,
        B: AsyncRead + AsyncWrite + Unpin,
    {
        let now = self.supervisor.take_fired().unwrap_or_else(|| self.supervisor.now());
        let silent = self.supervisor.is_silent(cx, handle);
        if !silent {
            if let Some(order) = self.supervisor.poll_order(cx, handle)
                && self.shutdown.is_none()
            {
                self.on_order(order, now);
            }
            if client.is_still()
                && let Some(state) = self.freeze(handle, now, client.on_wire())
            {
                return Poll::Ready(Ending::Frozen(state));
            }
        }
        if self.shutdown.is_none() {
            let calm = self.poll_open(cx, client, backend, now);
            let holds = client.holds_message();
            if calm && silent && holds.is_none() {
                return Poll::Pending;
            }
            self.supervisor.tell_answer(handle);
            let waits = holds == Some(true) || !self.up.is_reading() || !self.down.is_reading();
            handle.on_stall(waits, std::mem::take(&mut self.peer_took));
        }
        handle.answer_snapshot(|| self.snapshot(now).on_wire(client.on_wire()));
        let late = self.supervisor.is_late(now);
        if let Some(shutdown) = &mut self.shutdown
            && let Poll::Ready((client_exit, backend_exit)) = shutdown.poll(cx, client, backend, late)
        {
            let outcome = self.outcome(client_exit, backend_exit, now);
            return Poll::Ready(Ending::Over(outcome.on_wire(client.on_wire())));
        }
        if !silent
            && client.is_still()
            && let Some(state) = self.freeze(handle, now, client.on_wire())
        {
            return Poll::Ready(Ending::Frozen(state));
        }
        self.supervisor.poll_timer(cx);
        Poll::Pending
    }

    /// Pumps both ways until nothing moves or the session is over. Returns whether nothing happened but that
    /// bytes moved: then the timer need not be looked at.
    fn poll_open<C, B>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        backend: &mut B,
        now: Duration,
    ) -> bool
    where
        C: ClientStream,
        B: AsyncRead + AsyncWrite + Unpin,
    {
        let wire_bytes_before = self.up.wire_bytes();
        let mut taken = false;
        let tallies_before = (self.up.tally(), self.down.tally());
        let mut yields = 0;
        let mut calm = true;
        let mut spare = None;
        let may_read = self.queue_state.may_read(cx);
        let quantum = if may_read { QUANTUM_LEN } else { 0 };
        let mut left = (quantum, quantum);
        loop {
            let up =
                self.up.poll(cx, client, backend, &mut self.supervisor.keepalive, &mut spare, &mut left.0);
            let down =
                self.down.poll(cx, backend, client, &mut self.supervisor.keepalive, &mut spare, &mut left.1);
            let quantum_is_read = may_read && (left.0 == 0 || left.1 == 0);
            if up.is_pending() && down.is_pending() && self.is_calm() && !client.is_paused() {
                if self.up.wire_bytes() != wire_bytes_before {
                    self.supervisor.keepalive.on_bytes(now);
                }
                if (self.up.tally(), self.down.tally()) != tallies_before {
                    self.supervisor.on_message(now);
                }
                if may_read {
                    self.queue_state.on_read(cx, 2 * QUANTUM_LEN - left.0 - left.1, quantum_is_read);
                }
                return calm;
            }
            calm = false; // something may be due earlier now
            if self.up.wire_bytes() != wire_bytes_before {
                self.supervisor.keepalive.on_bytes(now);
            }
            if client.is_paused() {
                self.supervisor.on_message(now); // it is not idle
            }
            self.supervisor.keepalive.on_reading(self.up.is_reading() && !client.is_paused(), now);
            taken |= self.down.take_progress();
            self.peer_took |= taken | self.up.take_progress();
            self.supervisor.keepalive.on_backlog(!self.down.is_reading(), taken, now);
            self.supervisor.measures.on_waits(!self.down.is_reading(), !self.up.is_reading(), now);
            let idle = up.is_pending() && down.is_pending();
            for (party, event) in [(Party::Client, up), (Party::Backend, down)] {
                match event {
                    Poll::Ready(Event::Yield) => yields += 1,
                    Poll::Ready(event) => self.on_event(party, event, now),
                    Poll::Pending => {}
                }
            }
            if self.is_last_close_next() {
                client.begin_shutdown();
            }
            if (self.up.tally(), self.down.tally()) != tallies_before {
                self.supervisor.on_message(now);
            }
            let timers = self.on_timers(now, client);
            self.advance(now);
            if self.shutdown.is_some() {
                return false;
            }
            let wants_poll = timers || self.up.wants_poll() || self.down.wants_poll();
            if idle && (quantum_is_read || !wants_poll) {
                if may_read {
                    self.queue_state.on_read(cx, 2 * QUANTUM_LEN - left.0 - left.1, quantum_is_read);
                }
                return false;
            }
            if yields > 1 {
                yield_to_driver(cx);
                return false;
            }
        }
    }

    /// Only bytes are waited for, and a timer that is armed; bytes can only put off what is due. So it is nearly
    /// always.
    fn is_calm(&self) -> bool {
        self.cause.is_none() && self.up.is_calm() && self.down.is_calm() && self.supervisor.is_calm()
    }

    fn on_order(&mut self, order: Order, now: Duration) {
        if let Some(boundary) = self.supervisor.on_order(order, now) {
            self.close_by_order(order.code, boundary);
        }
    }

    /// There is a new order, whose cause the supervisor knows.
    fn close_by_order(&mut self, code: u16, boundary: Boundary) {
        if self.cause.is_none() {
            self.cause = self.supervisor.order_cause().map(Box::new);
        }
        self.close_both(code, "", boundary);
    }

    fn close_both(&mut self, code: u16, reason: &str, boundary: Boundary) {
        self.supervisor.on_close();
        self.up.send_close(code, reason, boundary);
        self.down.send_close(code, reason, boundary);
    }

    /// Notes what has happened in the direction from `party`, and does at once what the table says; the steps that follow
    /// from what is noted are taken by [`Self::advance`].
    ///
    /// | event | the cause, if there is none yet | what is noted | what is done |
    /// |---|---|---|---|
    /// | Close | closed by `party` | its Close has arrived | if it goes on, its answer is waited for, for [`CLOSE_ANSWER_WAIT`] |
    /// | violation | by `party` | the violation | the other peer is sent a Close; its own Close goes no further (RFC 6455 §7.1.7); [`CLOSE_WAIT`] |
    /// | violation, after one of the other peer | | as if its Close had arrived | |
    /// | end | loss of `party`, unless it has closed | how it ended | [`CLOSE_WAIT`]; an end of the client is passed on |
    /// | failed sink | | the other peer takes no more bytes | [`CLOSE_WAIT`]; what it sent before is still read |
    /// | ping sent | | the wait for its answer begins | |
    /// | pong | | how long it took | |
    ///
    /// The first three and the end are also the end of pings and of the idle timeout.
    fn on_event(&mut self, party: Party, event: Event, now: Duration) {
        match event {
            Event::Close { close, passed } => {
                self.supervisor.on_close();
                self.peer(party).closed = true;
                self.cause.get_or_insert_with(|| Box::new(Cause::Closed { by: party, close }));
                if passed {
                    self.supervisor.deadline.get_or_insert(now + CLOSE_ANSWER_WAIT);
                }
            }
            Event::Violation(violation) => {
                self.supervisor.on_close();
                if self.breach.is_some() {
                    self.peer(party).closed = true; // both broke a rule: no Close is awaited
                    return;
                }
                self.breach = Some(Box::new(Breach { by: party, violation, is_reported: false }));
                self.cause.get_or_insert_with(|| Box::new(Cause::Violation { by: party, violation }));
                self.supervisor.limit_wait(now);
                let (own, other) = self.pumps(party);
                own.send_close(violation.close_code(), &reason(violation), Boundary::Frame);
                other.intercept_close();
            }
            Event::Ended(ended) => {
                if !self.peer(party).closed {
                    self.cause.get_or_insert_with(|| Box::new(Cause::Lost { party, how: ended }));
                }
                self.peer(party).ended = Some(ended);
                self.supervisor.on_close();
                self.supervisor.limit_wait(now);
                if party == Party::Client {
                    self.up.shut_when_written();
                }
            }
            Event::SinkFailed(how) => {
                self.peer(other(party)).write_error = Some(how);
                self.supervisor.limit_wait(now);
            }
            Event::PingSent => self.supervisor.on_ping_sent(now),
            Event::Pong => self.supervisor.on_pong(),
            Event::Yield => {}
        }
    }

    /// Returns whether something was due.
    fn on_timers(&mut self, now: Duration, client: &impl ClientStream) -> bool {
        match self.supervisor.due(now, || client.acknowledged()) {
            Due::Nothing => return false,
            Due::Ping(payload) => self.down.send_ping(&payload),
            Due::PongTimeout => self.abandon_client(Cause::PongTimeout, now),
            Due::Stalled => self.abandon_client(Cause::Stalled, now),
            Due::Idle => {
                self.cause = Some(Box::new(Cause::Idle));
                self.supervisor.limit_wait(now);
                self.close_both(IDLE_CODE, "idle", Boundary::Frame);
            }
            Due::Lifetime => {
                if let Some(boundary) = self.supervisor.on_lifetime(now) {
                    self.close_by_order(LIFETIME_CODE, boundary);
                }
            }
            Due::OrderTimeout { code } => self.close_both(code, "", Boundary::Frame),
        }
        true
    }

    /// Ends the session of a client that is gone. The backend is sent no Close: it sees what it would have seen
    /// without a gateway.
    fn abandon_client(&mut self, cause: Cause, now: Duration) {
        self.cause = Some(Box::new(cause));
        self.finish(now, Exit::Cut, Exit::Orderly);
    }

    /// Takes the steps that follow from what has happened, by the table of [`closing`].
    fn advance(&mut self, now: Duration) {
        if self.cause.is_none() && !self.supervisor.is_late(now) {
            return; // so it is nearly always
        }
        while self.shutdown.is_none() {
            match next_step(&self.state(now)) {
                Step::Wait => return,
                Step::SetLost(party) => {
                    self.cause = self.peer(party).write_error.map(|how| Box::new(Cause::Lost { party, how }));
                }
                Step::CloseToViolator(violator) => {
                    let Some(breach) = self.breach.as_deref_mut() else { return };
                    breach.is_reported = true;
                    let violation = breach.violation;
                    self.supervisor.deadline = Some(now + CLOSE_WAIT);
                    let (_, to_violator) = self.pumps(violator);
                    to_violator.send_close(violation.close_code(), &reason(violation), Boundary::Frame);
                }
                Step::ReportLoss => {
                    self.down.send_close(BACKEND_LOST_CODE, "backend lost", Boundary::Frame);
                    self.up.discard_until_close();
                }
                Step::BeginWait => self.supervisor.deadline = Some(now + CLOSE_WAIT),
                Step::Finish { client, backend } => self.finish(now, client, backend),
            }
        }
    }

    /// What the steps depend on.
    fn state(&self, now: Duration) -> State {
        State {
            has_cause: self.cause.is_some(),
            client: self.client,
            backend: self.backend,
            to_client: output(&self.down),
            to_backend: output(&self.up),
            violator: self.breach.as_deref().map(|breach| (breach.by, breach.is_reported)),
            loss_is_unreported: self.down.takes_close() || self.up.is_relaying(),
            ordered: self.supervisor.is_ordered(),
            wait: match self.supervisor.deadline {
                None => Wait::Unlimited,
                Some(deadline) if now < deadline => Wait::Running,
                Some(_) => Wait::Over,
            },
        }
    }

    /// Only the backend's Close is left to be written: it answers the client's, which the backend has got.
    fn is_last_close_next(&self) -> bool {
        self.client.closed && self.backend.closed && self.up.close_written() && self.down.is_answering()
    }

    fn finish(&mut self, now: Duration, client: Exit, backend: Exit) {
        let closed_in_order = self.up.close_written() && self.backend.closed;
        self.shutdown = Some(Box::new(Shutdown {
            client: if client == Exit::Orderly {
                PeerShutdown::in_order(self.client.ended.is_some())
            } else {
                PeerShutdown::Done(client)
            },
            backend: match backend {
                // The server closes TCP first (RFC 6455 §7.1.1).
                Exit::Orderly if closed_in_order && self.backend.ended.is_none() => PeerShutdown::AwaitEnd,
                Exit::Orderly => PeerShutdown::in_order(self.backend.ended.is_some()),
                exit => PeerShutdown::Done(exit),
            },
        }));
        self.supervisor.on_finish(now);
    }

    fn outcome(&self, client: Exit, backend: Exit, now: Duration) -> Outcome {
        Outcome {
            // `shutdown` is only set when there is a cause.
            cause: self.cause.as_deref().cloned().unwrap_or(Cause::PongTimeout),
            from_client: self.up.traffic(),
            from_backend: self.down.traffic(),
            waits: self.supervisor.measures.waits(now),
            pings: self.supervisor.measures.pings(),
            client,
            backend,
        }
    }

    fn peer(&mut self, party: Party) -> &mut Peer {
        if party == Party::Client { &mut self.client } else { &mut self.backend }
    }

    /// The pump that reads from `party`, and the one that writes to it.
    fn pumps(&mut self, party: Party) -> (&mut Pump, &mut Pump) {
        if party == Party::Client { (&mut self.up, &mut self.down) } else { (&mut self.down, &mut self.up) }
    }
}

fn output(pump: &Pump) -> Output {
    Output {
        at_frame_boundary: pump.at_frame_boundary(),
        written: pump.is_written(),
        close_written: pump.close_written(),
        failed: pump.sink_failed(),
    }
}

fn other(party: Party) -> Party {
    if party == Party::Client { Party::Backend } else { Party::Client }
}

/// At most 123 bytes: no violation's text is longer (asserted by a test).
fn reason(violation: Violation) -> String {
    violation.to_string()
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
