//! The relay: frames between a client and a backend, seen but not touched.
//!
//! In: two streams behind a finished handshake, and the policy of the route. Out: an [`Outcome`].
//! Heads are scanned in the buffer that was read and the same bytes go on: payloads are neither
//! unmasked nor reassembled, masks and fragments stay as the client made them, and a message of
//! any size needs no more memory than a ping. Frames of the gateway's own are put exactly between
//! two others.
//!
//! One task serves both directions: each has a [`pump`], this module notes what happened in each, and [`closing`]
//! decides what follows from it (RFC 6455 §7).

mod client;
mod closing;
mod pump;

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub use self::client::ClientStream;
use self::closing::{Output, Peer, State, Step, Wait, next_step};
use self::pump::{Event, Pump};
use crate::clock::Clock;
use crate::handle::{Order, SessionHandle};
use crate::head::Sender;
use crate::outcome::{Cause, Exit, IDLE_CODE, Outcome, Party, Snapshot, Traffic};
use crate::policy::{CLOSE_ANSWER_WAIT, CLOSE_WAIT, Policy};
use crate::pool::{BUFFER_LEN, Buffer};
use crate::scanner::{Boundary, Scanner};
use crate::supervisor::{Due, Supervisor};
use crate::turns::{Turns, others_first};
use crate::violation::Violation;

/// Bytes that a session may read of each peer before others have their turn: what it moves beyond that, small
/// messages of others wait for. A read that begins before is not cut short.
const TURN_LEN: usize = BUFFER_LEN;
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
) -> impl Future<Output = Outcome> + use<'a, C, B, T>
where
    C: ClientStream,
    B: AsyncRead + AsyncWrite + Unpin,
    T: Clock,
{
    let mut relay = Relay::new(&policy, clock, |sender| Scanner::new(sender, policy.limits));
    poll_fn(move |cx| relay.poll(cx, client, backend, handle))
}

/// The same with the scanner off, so that benches can tell what seeing frames costs. No frame is
/// checked, counted, or answered, and none is the gateway's own.
#[doc(hidden)]
pub fn relay_unscanned<'a, C, B, T>(
    client: &'a mut C,
    backend: &'a mut B,
    policy: Policy,
    handle: &'a SessionHandle,
    clock: T,
) -> impl Future<Output = Outcome> + use<'a, C, B, T>
where
    C: ClientStream,
    B: AsyncRead + AsyncWrite + Unpin,
    T: Clock,
{
    let mut relay = Relay::new(&policy, clock, Scanner::blind);
    poll_fn(move |cx| relay.poll(cx, client, backend, handle))
}

/// A rule that a peer broke.
#[derive(Debug, Clone, Copy)]
struct Broken {
    by: Party,
    violation: Violation,
    /// Whether that peer was told so.
    told: bool,
}

#[derive(Debug)]
struct Relay<T> {
    supervisor: Supervisor<T>,
    up: Pump,
    down: Pump,
    client: Peer,
    backend: Peer,
    turns: Turns,
    /// A peer has taken something since the last look.
    took: bool,
    /// Boxed, as what follows: most of a session's life there is none.
    cause: Option<Box<Cause>>,
    broken: Option<Box<Broken>>,
    finish: Option<Box<Finish>>,
}

// Every idle session holds one.
const _: () = assert!(size_of::<Relay<()>>() <= 536);

impl<T: Clock> Relay<T> {
    fn new(policy: &Policy, clock: T, scanner: impl Fn(Sender) -> Scanner) -> Self {
        Self {
            supervisor: Supervisor::new(policy, clock),
            up: Pump::new(scanner(Sender::Client)),
            down: Pump::new(scanner(Sender::Server)),
            client: Peer::default(),
            backend: Peer::default(),
            turns: Turns::default(),
            took: false,
            cause: None,
            broken: None,
            finish: None,
        }
    }

    fn poll<C, B>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        backend: &mut B,
        handle: &SessionHandle,
    ) -> Poll<Outcome>
    where
        C: ClientStream,
        B: AsyncRead + AsyncWrite + Unpin,
    {
        let now = self.supervisor.take_fired().unwrap_or_else(|| self.supervisor.now());
        let silent = self.supervisor.is_silent(cx, handle);
        if !silent
            && let Some(order) = self.supervisor.poll_order(cx, handle)
            && self.finish.is_none()
        {
            self.on_order(order, now);
        }
        if self.finish.is_none() {
            let calm = self.poll_open(cx, client, backend, now);
            if calm && silent {
                return Poll::Pending;
            }
            let waits = !self.up.is_reading() || !self.down.is_reading();
            handle.on_stall(waits, std::mem::take(&mut self.took));
        }
        handle.answer(|| self.snapshot(now));
        let late = self.supervisor.is_late(now);
        if let Some(finish) = &mut self.finish
            && let Poll::Ready((client, backend)) = finish.poll(cx, client, backend, late)
        {
            return Poll::Ready(self.outcome(client, backend));
        }
        self.supervisor.poll_timer(cx);
        Poll::Pending
    }

    /// Pumps both ways until nothing moves or the session is over. Says whether nothing happened but that
    /// bytes moved: the timer needs no look then.
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
        let heard = self.up.wire_bytes();
        let mut taken = false;
        let tallies = (self.up.tally(), self.down.tally());
        let mut yields = 0;
        let mut spare = None;
        let may_read = self.turns.may_begin(cx);
        let turn_len = if may_read { TURN_LEN } else { 0 };
        let mut left = (turn_len, turn_len);
        loop {
            let up =
                self.up.poll(cx, client, backend, &mut self.supervisor.keepalive, &mut spare, &mut left.0);
            let down =
                self.down.poll(cx, backend, client, &mut self.supervisor.keepalive, &mut spare, &mut left.1);
            let turn_is_over = may_read && (left.0 == 0 || left.1 == 0);
            if up.is_pending() && down.is_pending() && self.is_calm() {
                if self.up.wire_bytes() != heard {
                    self.supervisor.keepalive.on_bytes(now);
                }
                if (self.up.tally(), self.down.tally()) != tallies {
                    self.supervisor.on_message(now);
                }
                if may_read {
                    self.turns.end(cx, 2 * TURN_LEN - left.0 - left.1, turn_is_over);
                }
                return true;
            }
            if self.up.wire_bytes() != heard {
                self.supervisor.keepalive.on_bytes(now);
            }
            self.supervisor.keepalive.on_reading(self.up.is_reading(), now);
            taken |= self.down.take_wrote();
            self.took |= taken | self.up.take_wrote();
            self.supervisor.keepalive.on_sending(!self.down.is_reading(), taken, now);
            let idle = up.is_pending() && down.is_pending();
            for (party, event) in [(Party::Client, up), (Party::Backend, down)] {
                match event {
                    Poll::Ready(Event::Yield) => yields += 1,
                    Poll::Ready(event) => self.on_event(party, event, now),
                    Poll::Pending => {}
                }
            }
            if self.is_parting() {
                client.begin_shutdown();
            }
            if (self.up.tally(), self.down.tally()) != tallies {
                self.supervisor.on_message(now);
            }
            let timers = self.on_timers(now, client);
            self.advance(now);
            if self.finish.is_some() {
                return false;
            }
            let wants_poll = timers || self.up.wants_poll() || self.down.wants_poll();
            if idle && (turn_is_over || !wants_poll) {
                if may_read {
                    self.turns.end(cx, 2 * TURN_LEN - left.0 - left.1, turn_is_over);
                }
                return false;
            }
            if yields > 1 {
                others_first(cx);
                return false;
            }
        }
    }

    /// Nothing is waited for but bytes and a timer that is armed, and what these do can only put off what is due.
    /// So it is nearly always.
    fn is_calm(&self) -> bool {
        self.cause.is_none() && self.up.is_calm() && self.down.is_calm() && self.supervisor.is_calm()
    }

    fn on_order(&mut self, order: Order, now: Duration) {
        let Some(boundary) = self.supervisor.on_order(order, now) else { return };
        if self.cause.is_none() {
            self.cause = Some(Box::new(Cause::Ordered { code: order.code }));
        }
        self.close_both(order.code, "", boundary);
    }

    fn close_both(&mut self, code: u16, reason: &str, boundary: Boundary) {
        self.supervisor.on_close();
        self.up.send_close(code, reason, boundary);
        self.down.send_close(code, reason, boundary);
    }

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
                if self.broken.is_some() {
                    self.peer(party).closed = true; // both misbehave: nothing to wait for
                    return;
                }
                self.broken = Some(Box::new(Broken { by: party, violation, told: false }));
                self.cause.get_or_insert_with(|| Box::new(Cause::Violation { by: party, violation }));
                self.supervisor.limit_wait(now);
                let (own, other) = self.pumps(party);
                own.send_close(violation.close_code(), &reason(violation), Boundary::Frame);
                other.hold_close();
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
                // What the peer sent before it went is still worth reading: its Close, its end.
                self.peer(other(party)).write_error = Some(how);
                self.supervisor.limit_wait(now);
            }
            Event::PingLeft => self.supervisor.keepalive.on_ping_left(now),
            Event::Yield => {}
        }
    }

    /// Says whether something was due.
    fn on_timers(&mut self, now: Duration, client: &impl ClientStream) -> bool {
        match self.supervisor.due(now, || client.acknowledged()) {
            Due::Nothing => return false,
            Due::Ping(payload) => self.down.send_ping(&payload),
            Due::PongTimeout => self.give_up(Cause::PongTimeout, now),
            Due::Stalled => self.give_up(Cause::Stalled, now),
            Due::Idle => {
                self.cause = Some(Box::new(Cause::Idle));
                self.supervisor.limit_wait(now);
                self.close_both(IDLE_CODE, "idle", Boundary::Frame);
            }
            Due::OrderTimeout { code } => self.close_both(code, "", Boundary::Frame),
        }
        true
    }

    /// Ends the session of a client that is gone. No Close to the backend: it is to see what it
    /// would have seen without us.
    fn give_up(&mut self, cause: Cause, now: Duration) {
        self.cause = Some(Box::new(cause));
        self.finish(now, Exit::Cut, Exit::Orderly);
    }

    /// Takes the steps that follow from what has happened, by the table of [`closing`].
    fn advance(&mut self, now: Duration) {
        if self.cause.is_none() && !self.supervisor.is_late(now) {
            return; // so it is nearly always
        }
        while self.finish.is_none() {
            match next_step(&self.state(now)) {
                Step::Wait => return,
                Step::SetLost(party) => {
                    self.cause = self.peer(party).write_error.map(|how| Box::new(Cause::Lost { party, how }));
                }
                Step::TellViolator(violator) => {
                    let Some(broken) = self.broken.as_deref_mut() else { return };
                    broken.told = true;
                    let violation = broken.violation;
                    self.supervisor.deadline = Some(now + CLOSE_WAIT);
                    let (_, to_violator) = self.pumps(violator);
                    to_violator.send_close(violation.close_code(), &reason(violation), Boundary::Frame);
                }
                Step::ReportLoss => {
                    self.down.send_close(BACKEND_LOST_CODE, "backend lost", Boundary::Frame);
                    self.up.watch();
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
            violator: self.broken.as_deref().map(|broken| (broken.by, broken.told)),
            loss_is_unreported: self.down.takes_close() || self.up.is_relaying(),
            ordered: self.supervisor.is_ordered(),
            wait: match self.supervisor.deadline {
                None => Wait::Unlimited,
                Some(deadline) if now < deadline => Wait::Running,
                Some(_) => Wait::Over,
            },
        }
    }

    /// The backend's Close is all that is missing: it answers the client's, which it has got.
    fn is_parting(&self) -> bool {
        self.client.closed && self.backend.closed && self.up.close_written() && self.down.is_answering()
    }

    fn finish(&mut self, now: Duration, client: Exit, backend: Exit) {
        let closed_in_order = self.up.close_written() && self.backend.closed;
        self.finish = Some(Box::new(Finish {
            client: if client == Exit::Orderly { shutdown(&self.client) } else { Leg::Done(client) },
            backend: match backend {
                // The server closes TCP first (RFC 6455 §7.1.1).
                Exit::Orderly if closed_in_order && self.backend.ended.is_none() => Leg::AwaitEnd,
                Exit::Orderly => shutdown(&self.backend),
                exit => Leg::Done(exit),
            },
        }));
        self.supervisor.on_finish(now);
    }

    fn snapshot(&self, now: Duration) -> Snapshot {
        Snapshot {
            from_client: Traffic::new(self.up.tally(), self.up.wire_bytes()),
            from_backend: Traffic::new(self.down.tally(), self.down.wire_bytes()),
            idle: self.supervisor.idle(now),
            is_closing: self.cause.is_some(),
        }
    }

    fn outcome(&self, client: Exit, backend: Exit) -> Outcome {
        Outcome {
            // `finish` is only ever set with a cause.
            cause: self.cause.as_deref().cloned().unwrap_or(Cause::PongTimeout),
            from_client: Traffic::new(self.up.tally(), self.up.wire_bytes()),
            from_backend: Traffic::new(self.down.tally(), self.down.wire_bytes()),
            client,
            backend,
        }
    }

    fn peer(&mut self, party: Party) -> &mut Peer {
        if party == Party::Client { &mut self.client } else { &mut self.backend }
    }

    /// The pump that `party` feeds, and the one that feeds it.
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

/// The orderly way to end a peer's connection.
fn shutdown(peer: &Peer) -> Leg {
    Leg::Shutdown { ended: peer.ended.is_some() }
}

fn other(party: Party) -> Party {
    if party == Party::Client { Party::Backend } else { Party::Client }
}

/// At most 123 bytes: no violation's text is longer (asserted by a test).
fn reason(violation: Violation) -> String {
    violation.to_string()
}

/// The last step: both connections go, and neither loses what is still on its way.
#[derive(Debug)]
struct Finish {
    client: Leg,
    backend: Leg,
}

#[derive(Debug, Clone, Copy)]
enum Leg {
    /// The peer closes first.
    AwaitEnd,
    Shutdown {
        /// The peer's end has been read.
        ended: bool,
    },
    /// Closing a socket with unread bytes would reset it and destroy what the peer hasn't read.
    Drain,
    Done(Exit),
}

impl Finish {
    fn poll<C, B>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        backend: &mut B,
        late: bool,
    ) -> Poll<(Exit, Exit)>
    where
        C: AsyncRead + AsyncWrite + Unpin,
        B: AsyncRead + AsyncWrite + Unpin,
    {
        self.client.poll(cx, client, late);
        self.backend.poll(cx, backend, late);
        match (self.client, self.backend) {
            (Leg::Done(client), Leg::Done(backend)) => Poll::Ready((client, backend)),
            _ => Poll::Pending,
        }
    }
}

impl Leg {
    fn poll<S: AsyncRead + AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, io: &mut S, late: bool) {
        loop {
            let next = match *self {
                Self::Done(_) => return,
                Self::AwaitEnd => poll_drain(cx, io).map(|()| Self::Shutdown { ended: true }),
                Self::Shutdown { ended } => Pin::new(&mut *io).poll_shutdown(cx).map(|done| match done {
                    Ok(()) if !ended => Self::Drain,
                    Ok(()) => Self::Done(Exit::Orderly),
                    Err(_) => Self::Done(Exit::Orderly), // the peer is gone; so are we
                }),
                Self::Drain => poll_drain(cx, io).map(|()| Self::Done(Exit::Orderly)),
            };
            *self = match (next, *self) {
                (Poll::Ready(next), _) => next,
                (Poll::Pending, _) if !late => return,
                (Poll::Pending, Self::AwaitEnd) => Self::Shutdown { ended: false },
                (Poll::Pending, Self::Shutdown { .. }) => Self::Done(Exit::Cut),
                (Poll::Pending, _) => Self::Done(Exit::Orderly),
            };
        }
    }
}

/// Reads and forgets until the peer's end, whatever kind it is of.
fn poll_drain<S: AsyncRead + Unpin>(cx: &mut Context<'_>, io: &mut S) -> Poll<()> {
    let mut buffer = Buffer::take();
    loop {
        let mut free = ReadBuf::new(&mut buffer);
        match Pin::new(&mut *io).poll_read(cx, &mut free) {
            Poll::Ready(Ok(())) if !free.filled().is_empty() => {}
            Poll::Ready(_) => return Poll::Ready(()),
            Poll::Pending => return Poll::Pending,
        }
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
