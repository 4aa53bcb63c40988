//! What watches over a session, whether [`relay`](mod@crate::relay) serves it or [`endpoint`](crate::endpoint).
//!
//! In: what has moved, and orders from outside. Out: what is [`Due`]. It has the session's clock and its one timer,
//! and the session's task is woken when the next of these is due:
//!
//! - a ping, the end of the wait for its answer, a client that takes nothing (`keepalive`)
//! - the end of a session in which no message has moved for too long
//! - the end of the session's lifetime, which is an order of its own
//! - the end of the time that an order leaves for messages in flight
//! - the end of the wait for a session to close

use std::task::Context;
use std::time::Duration;

use net_io::state::{StateError, StateReader, StateWriter};

use crate::cause_state::{read_cause, write_cause};
use crate::clock::{Clock, Nanos, Shift};
use crate::handle::{EndMode, Order, RegisteredWaker, SessionHandle};
use crate::keepalive::{self, Keepalive, PING_LEN};
use crate::measures::Measures;
use crate::outcome::{Cause, LIFETIME_CODE};
use crate::policy::{CLOSE_WAIT, LIFETIME_MESSAGES_WAIT, Policy};
use crate::scanner::Boundary;
use crate::timer::SessionTimer;

/// How long a session that is to end at once is given for its Closes, and for all of its end.
pub(crate) const END_NOW_WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_millis(1500));

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing at the moment.
    Nothing,
    /// A ping with this payload is to be put between two frames; see [`Keepalive::on_ping_sent`].
    Ping([u8; PING_LEN]),
    /// The client did not answer a ping in time.
    PongTimeout,
    /// The client took nothing of what waits for it for [`STALL_MAX`](crate::policy::STALL_MAX).
    Stalled,
    /// The session has reached the route's `lifetime`; see [`Supervisor::on_lifetime`].
    Lifetime,
    /// No message has moved within the route's `idle_timeout`.
    Idle,
    /// The order with this close code leaves no more time for messages in flight.
    OrderTimeout {
        /// What both peers are told.
        code: u16,
    },
}

/// An order to end, that is in force.
#[derive(Debug)]
struct OrderInForce {
    order: Order,
    /// Of the first order: what the session will have ended by.
    cause: Cause,
    /// When a message that is still open is waited for no longer; `None` once that is over.
    messages_until: Option<Duration>,
    /// When all has to be over.
    end_by: Option<Duration>,
}

impl OrderInForce {
    /// From now on a boundary between frames is enough, and without one the connection is cut. Returns when the
    /// closing is given up.
    fn end_now(&mut self, now: Duration) -> Duration {
        self.messages_until = None;
        self.end_by = Some(now + END_NOW_WAIT.1);
        now + END_NOW_WAIT.0
    }
}

impl OrderInForce {
    fn write_state(&self, out: &mut StateWriter, now: Duration) {
        let Self { order: Order { code, mode }, cause, messages_until, end_by } = self;
        let left = |out: &mut StateWriter, until: Duration| out.duration(until.saturating_sub(now));
        out.section(|out| {
            out.u16(*code);
            let within = if let EndMode::AfterMessages { within } = mode { Some(*within) } else { None };
            out.option(within, StateWriter::duration);
            write_cause(out, cause);
            out.option(*messages_until, left);
            out.option(*end_by, left);
        });
    }

    fn read_state(fields: &mut StateReader<'_>, now: Duration) -> Result<Self, StateError> {
        let mut fields = fields.section()?;
        let code = fields.u16()?;
        let within = fields.option(StateReader::duration)?;
        let mode = within.map_or(EndMode::Now, |within| EndMode::AfterMessages { within });
        Ok(Self {
            order: Order { code, mode },
            cause: read_cause(&mut fields)?,
            messages_until: fields.option(StateReader::duration)?.map(|left| now + left),
            end_by: fields.option(StateReader::duration)?.map(|left| now + left),
        })
    }
}

/// The clock, the timer, and what is timed.
#[derive(Debug)]
pub(crate) struct Supervisor<T> {
    pub(crate) keepalive: Keepalive,
    pub(crate) measures: Measures,
    clock: T,
    timer: SessionTimer,
    waker: RegisteredWaker,
    /// `None`: the session may idle, or its end has begun.
    idle_timeout: Option<Nanos>,
    /// When the session has reached its lifetime; `None`: it has none, or its end has begun.
    lifetime_end: Option<Nanos>,
    /// When a message last moved.
    moved: Duration,
    /// Boxed: most of a session's life there is none.
    order: Option<Box<OrderInForce>>,
    /// When the end, which has begun, is waited for no longer.
    pub(crate) deadline: Option<Duration>,
}

impl<T> Supervisor<T> {
    /// For how long no message has moved.
    pub(crate) fn idle(&self, now: Duration) -> Duration {
        now.saturating_sub(self.moved)
    }
}

impl<T: Clock> Supervisor<T> {
    /// Watches over a session that begins now.
    pub(crate) fn new(policy: &Policy, clock: T) -> Self {
        let now = clock.now();
        Self {
            keepalive: Keepalive::new(policy.ping_interval, policy.pong_timeout, rand::random(), now),
            measures: Measures::default(),
            clock,
            timer: SessionTimer::default(),
            waker: RegisteredWaker::default(),
            idle_timeout: policy.idle_timeout.map(Nanos::from),
            lifetime_end: policy.lifetime.map(|lifetime| now.saturating_add(lifetime).into()),
            moved: now,
            order: None,
            deadline: None,
        }
    }

    /// The same without clock and timer. To be called once.
    pub(crate) fn freeze(&mut self) -> Supervisor<()> {
        let Self {
            keepalive,
            measures,
            clock: _,
            timer: _,
            waker: _,
            idle_timeout,
            lifetime_end,
            moved,
            order,
            deadline,
        } = self;
        Supervisor {
            keepalive: keepalive.clone(),
            measures: measures.clone(),
            clock: (),
            timer: SessionTimer::default(), // it is armed again by the first poll
            waker: RegisteredWaker::default(),
            idle_timeout: *idle_timeout,
            lifetime_end: *lifetime_end,
            moved: *moved,
            order: order.take(),
            deadline: *deadline,
        }
    }

    /// The time by the clock, which may lag.
    pub(crate) fn now(&self) -> Duration {
        self.clock.now()
    }

    /// To be called first in each poll of the session: if the timer has fired, what it was set for must not seem
    /// still to come, so this is the time without a lag.
    pub(crate) fn take_fired(&mut self) -> Option<Duration> {
        self.timer.take_fired(&self.clock)
    }

    /// Only bytes are waited for, and a timer that is armed; bytes can only put off what is due. So it is nearly
    /// always.
    pub(crate) fn is_calm(&self) -> bool {
        self.deadline.is_none()
            && self.keepalive.is_calm()
            && (self.timer.is_armed()
                || (self.idle_timeout.is_none() && self.lifetime_end.is_none() && !self.keepalive.is_on()))
    }

    /// A message has moved.
    pub(crate) fn on_message(&mut self, now: Duration) {
        self.moved = now;
    }

    /// A ping has been handed to the network.
    pub(crate) fn on_ping_sent(&mut self, now: Duration) {
        self.keepalive.on_ping_sent(now);
        self.measures.on_ping_sent(self.clock.now_exactly());
    }

    /// The latest ping has been answered.
    pub(crate) fn on_pong(&mut self) {
        self.measures.on_pong(self.clock.now_exactly());
    }

    /// If a ping has been answered, the session's ledger is told. To be called in the same poll.
    pub(crate) fn tell_answer(&mut self, handle: &SessionHandle) {
        if let Some(took_us) = self.measures.take_answer() {
            handle.on_ping_answered(took_us);
        }
    }

    /// The end has begun: there are no pings any more, and the session is not idle.
    pub(crate) fn on_close(&mut self) {
        self.keepalive.on_close();
        self.idle_timeout = None;
        self.lifetime_end = None;
    }

    /// The end may take [`CLOSE_WAIT`] from now on at most.
    pub(crate) fn limit_wait(&mut self, now: Duration) {
        let deadline = now + CLOSE_WAIT;
        self.deadline = Some(self.deadline.map_or(deadline, |old| old.min(deadline)));
    }

    /// The end has been waited for long enough.
    pub(crate) fn is_late(&self, now: Duration) -> bool {
        self.deadline.is_some_and(|deadline| now >= deadline)
    }

    /// Nothing is left but to shut the connections down: in [`CLOSE_WAIT`], or when an order says so.
    pub(crate) fn on_finish(&mut self, now: Duration) {
        self.on_close();
        let end_by = self.order.take().and_then(|current| current.end_by);
        self.deadline = Some(end_by.map_or(now + CLOSE_WAIT, |end_by| end_by.min(now + CLOSE_WAIT)));
    }

    /// There is no order and no question, and the task is woken when there is.
    pub(crate) fn is_silent(&self, cx: &Context<'_>, handle: &SessionHandle) -> bool {
        handle.is_silent(cx, &self.waker)
    }

    /// The order in force. The task is woken when it changes.
    pub(crate) fn poll_order(&mut self, cx: &Context<'_>, handle: &SessionHandle) -> Option<Order> {
        handle.poll(cx, &mut self.waker)
    }

    /// There is an order. If it is a new one, says where a Close may be put from now on. Of several orders the
    /// first code and the earliest end count.
    pub(crate) fn on_order(&mut self, order: Order, now: Duration) -> Option<Boundary> {
        self.take_order(order, Cause::Ordered { code: order.code }, now)
    }

    /// The session has reached its lifetime: this is an order to end after the messages in flight. Says where a
    /// Close may be put from now on.
    pub(crate) fn on_lifetime(&mut self, now: Duration) -> Option<Boundary> {
        let mode = EndMode::AfterMessages { within: LIFETIME_MESSAGES_WAIT };
        self.take_order(Order { code: LIFETIME_CODE, mode }, Cause::Lifetime, now)
    }

    fn take_order(&mut self, order: Order, cause: Cause, now: Duration) -> Option<Boundary> {
        // One whose time is over leaves nothing to be shortened.
        let is_over = |current: &OrderInForce| current.order == order || current.messages_until.is_none();
        if self.order.as_deref().is_some_and(is_over) {
            return None;
        }
        self.lifetime_end = None;
        let (cause, messages_until, end_by) = match self.order.take() {
            Some(earlier) => (earlier.cause, earlier.messages_until, earlier.end_by),
            None => (cause, None, None),
        };
        let current =
            self.order.insert(Box::new(OrderInForce { order, cause, messages_until: None, end_by }));
        Some(match order.mode {
            EndMode::AfterMessages { within } => {
                let until = now + within;
                current.messages_until = Some(messages_until.map_or(until, |earlier| earlier.min(until)));
                Boundary::Message
            }
            EndMode::Now => {
                self.deadline = Some(current.end_now(now));
                Boundary::Frame
            }
        })
    }

    /// The session was ordered to end.
    pub(crate) fn is_ordered(&self) -> bool {
        self.order.is_some()
    }

    /// Why the session ends, if it was ordered to.
    pub(crate) fn order_cause(&self) -> Option<Cause> {
        self.order.as_deref().map(|current| current.cause.clone())
    }

    /// The session was ordered to end, and messages in flight are waited for no longer.
    pub(crate) fn is_ordered_now(&self, now: Duration) -> bool {
        self.order.as_deref().is_some_and(|current| current.messages_until.is_none_or(|until| now >= until))
    }

    /// What is due at `now`. `acknowledged` says how many bytes the client's machine has acknowledged so far, if
    /// that is known.
    pub(crate) fn due(&mut self, now: Duration, acknowledged: impl FnOnce() -> Option<u64>) -> Due {
        if let Some(current) = self.order.as_deref_mut()
            && current.messages_until.is_some_and(|until| now >= until)
        {
            self.deadline = Some(current.end_now(now));
            return Due::OrderTimeout { code: current.cause.close_code() };
        }
        if self.has_reached_lifetime(now) {
            return Due::Lifetime;
        }
        if self.idle_at().is_some_and(|at| now >= at) {
            return Due::Idle;
        }
        match self.keepalive.on_deadline(now, acknowledged) {
            keepalive::Action::Nothing => Due::Nothing,
            keepalive::Action::Ping(payload) => Due::Ping(payload),
            keepalive::Action::PongTimeout => Due::PongTimeout,
            keepalive::Action::Stalled => Due::Stalled,
        }
    }

    /// Has the task of `cx` woken when something is due. To be called last in each poll, unless
    /// [`Self::is_calm`].
    pub(crate) fn poll_timer(&mut self, cx: &mut Context<'_>) {
        if let Some(next) = self.next_due()
            && self.timer.poll(cx, next, &self.clock).is_ready()
        {
            cx.waker().wake_by_ref(); // with a new look at the clock
        }
    }

    /// When something is due next.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        let messages = self.order.as_deref().and_then(|current| current.messages_until);
        let lifetime_end = self.lifetime_end.map(Duration::from);
        let moments = [self.deadline, self.idle_at(), lifetime_end, self.keepalive.deadline(), messages];
        moments.into_iter().flatten().min()
    }

    fn idle_at(&self) -> Option<Duration> {
        self.idle_timeout.map(|timeout| self.moved.saturating_add(timeout.into()))
    }

    /// [`Due::Lifetime`] is due.
    pub(crate) fn has_reached_lifetime(&self, now: Duration) -> bool {
        self.lifetime_end.is_some_and(|end| now >= end.into())
    }
}

impl Supervisor<()> {
    /// Goes on by this clock; by the one before the time was `frozen_at`.
    pub(crate) fn thaw<T: Clock>(self, clock: T, frozen_at: Duration) -> Supervisor<T> {
        let Self {
            mut keepalive,
            mut measures,
            clock: (),
            timer,
            waker,
            idle_timeout,
            lifetime_end,
            moved,
            mut order,
            deadline,
        } = self;
        let shift = Shift { from: frozen_at, to: clock.now() };
        keepalive.shift(shift);
        measures.shift(shift);
        if let Some(current) = order.as_deref_mut() {
            let OrderInForce { order: _, cause: _, messages_until, end_by } = current;
            *messages_until = messages_until.map(|until| shift.apply(until));
            *end_by = end_by.map(|end_by| shift.apply(end_by));
        }
        Supervisor {
            keepalive,
            measures,
            clock,
            timer,
            waker,
            idle_timeout,
            lifetime_end: lifetime_end.map(|end| shift.apply(end.into()).into()),
            moved: shift.apply(moved),
            order,
            deadline: deadline.map(|deadline| shift.apply(deadline)),
        }
    }

    /// Writes what [`Self::read_state`] reads: moments as the time from or until `now`.
    pub(crate) fn write_state(&self, out: &mut StateWriter, now: Duration) {
        let Self {
            keepalive,
            measures: _, // behind all of the session
            clock: (),
            timer: _,
            waker: _,
            idle_timeout,
            lifetime_end,
            moved,
            order,
            deadline,
        } = self;
        out.section(|out| {
            keepalive.write_state(out, now);
            out.option(idle_timeout.map(Duration::from), StateWriter::duration);
            out.option(lifetime_end.map(Duration::from), |out, end| out.duration(end.saturating_sub(now)));
            out.duration(now.saturating_sub(*moved));
            out.option(order.as_deref(), |out, current| current.write_state(out, now));
            out.option(*deadline, |out, deadline| out.duration(deadline.saturating_sub(now)));
        });
    }

    /// One that was frozen at `now`.
    pub(crate) fn read_state(fields: &mut StateReader<'_>, now: Duration) -> Result<Self, StateError> {
        let mut fields = fields.section()?;
        Ok(Self {
            keepalive: Keepalive::read_state(&mut fields, now)?,
            measures: Measures::default(),
            clock: (),
            timer: SessionTimer::default(),
            waker: RegisteredWaker::default(),
            idle_timeout: fields.option(StateReader::duration)?.map(Nanos::from),
            lifetime_end: fields.option(StateReader::duration)?.map(|left| (now + left).into()),
            moved: now.saturating_sub(fields.duration()?),
            order: fields.option(|fields| OrderInForce::read_state(fields, now).map(Box::new))?,
            deadline: fields.option(StateReader::duration)?.map(|left| now + left),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::clock::Exact;
    use crate::policy::STALL_MAX;
    use crate::sequence::Limits;

    const POLICY: Policy = Policy {
        limits: Limits { message_max: 1, deflate: false },
        idle_timeout: None,
        lifetime: None,
        ping_interval: None,
        pong_timeout: secs(10),
    };

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn order(code: u16, within: u64) -> Order {
        Order { code, mode: EndMode::AfterMessages { within: secs(within) } }
    }

    /// It begins at 0.
    fn supervisor(policy: Policy) -> Supervisor<Exact> {
        Supervisor::new(&policy, Exact::begin())
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_due_is_returned_in_its_time() {
        let policy = Policy { idle_timeout: Some(secs(40)), ping_interval: Some(secs(30)), ..POLICY };
        let mut supervisor = supervisor(policy);
        assert_eq!(supervisor.due(secs(29), || None), Due::Nothing);
        assert!(matches!(supervisor.due(secs(30), || None), Due::Ping(_)));
        supervisor.keepalive.on_ping_sent(secs(30));
        supervisor.on_message(secs(5));
        assert_eq!(supervisor.idle(secs(30)), secs(25));
        assert_eq!(supervisor.due(secs(39), || None), Due::Nothing);
        assert_eq!(supervisor.due(secs(45), || None), Due::Idle, "and not the missing answer");
        supervisor.on_message(secs(45));
        assert_eq!(supervisor.due(secs(45), || None), Due::PongTimeout);
        supervisor.keepalive.on_backlog(true, false, secs(45));
        supervisor.on_message(secs(45) + STALL_MAX);
        assert_eq!(supervisor.due(secs(45) + STALL_MAX, || None), Due::Stalled);
        supervisor.on_close();
        assert_eq!(supervisor.due(secs(1000), || None), Due::Nothing, "it is ending");
    }

    #[tokio::test(start_paused = true)]
    async fn of_several_orders_the_earliest_end_counts() {
        let mut supervisor = supervisor(POLICY);
        assert!(!supervisor.is_ordered() && !supervisor.is_ordered_now(secs(9)));
        assert_eq!(supervisor.on_order(order(1001, 20), secs(0)), Some(Boundary::Message));
        assert_eq!(supervisor.on_order(order(1001, 20), secs(9)), None, "it is the same");
        assert_eq!(supervisor.on_order(order(1001, 9), secs(1)), Some(Boundary::Message));
        assert_eq!(supervisor.on_order(order(1001, 15), secs(2)), Some(Boundary::Message));
        assert!(supervisor.is_ordered() && !supervisor.is_ordered_now(secs(9)));
        assert_eq!(supervisor.due(secs(9), || None), Due::Nothing);
        assert!(supervisor.is_ordered_now(secs(10)));
        assert_eq!(supervisor.due(secs(10), || None), Due::OrderTimeout { code: 1001 });
        assert_eq!(supervisor.due(secs(10), || None), Due::Nothing, "once");
        assert_eq!(supervisor.deadline, Some(secs(10) + END_NOW_WAIT.0));
        supervisor.on_finish(secs(10));
        assert_eq!(supervisor.deadline, Some(secs(10) + END_NOW_WAIT.1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_the_lifetime_is_an_order() {
        let policy = Policy { lifetime: Some(secs(3600)), ..POLICY };
        let mut aged = supervisor(policy);
        aged.on_message(secs(3599));
        assert_eq!(aged.next_due(), Some(secs(3600)));
        assert_eq!(
            (aged.due(secs(3599), || None), aged.due(secs(3600), || None)),
            (Due::Nothing, Due::Lifetime)
        );
        assert_eq!(aged.on_lifetime(secs(3600)), Some(Boundary::Message));
        assert!(aged.is_ordered() && !aged.is_ordered_now(secs(3629)));
        assert_eq!((aged.due(secs(3629), || None), aged.next_due()), (Due::Nothing, Some(secs(3630))));
        // The order of an operator may bring its end forward. What the peers are told stays.
        assert_eq!(aged.on_order(order(1012, 5), secs(3610)), Some(Boundary::Message));
        assert_eq!(aged.order_cause(), Some(Cause::Lifetime));
        assert_eq!(aged.due(secs(3615), || None), Due::OrderTimeout { code: 1001 });
        // A session that was ordered to end before, or that is ending, has no other end.
        let mut ordered = supervisor(policy);
        ordered.on_order(order(1012, 20), secs(3599));
        assert_eq!((ordered.due(secs(3600), || None), ordered.next_due()), (Due::Nothing, Some(secs(3619))));
        assert_eq!(ordered.order_cause(), Some(Cause::Ordered { code: 1012 }));
        let mut ending = supervisor(policy);
        ending.on_close();
        assert_eq!((ending.due(secs(3600), || None), ending.next_due()), (Due::Nothing, None));
    }

    #[tokio::test(start_paused = true)]
    async fn times_that_are_longer_than_a_clock_can_count_never_come() {
        let policy = Policy { lifetime: Some(Duration::MAX), idle_timeout: Some(Duration::MAX), ..POLICY };
        let mut supervisor = Supervisor::new(&policy, Exact::begin());
        supervisor.on_message(secs(5));
        assert!(supervisor.next_due() > Some(secs(500 * 365 * 86_400)));
        assert_eq!(Duration::from(Nanos::from(Duration::ZERO)), Duration::ZERO);
        assert_eq!(Duration::from(Nanos::from(Duration::from_millis(1500))), Duration::from_millis(1500));
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_to_end_now_leaves_no_time_for_messages() {
        let mut supervisor = supervisor(POLICY);
        let now = Order { code: 1012, mode: EndMode::Now };
        assert_eq!(supervisor.on_order(now, secs(3)), Some(Boundary::Frame));
        assert!(supervisor.is_ordered_now(secs(3)));
        assert_eq!(supervisor.deadline, Some(secs(3) + END_NOW_WAIT.0));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_is_waited_for_until_the_earliest_limit() {
        let mut supervisor = supervisor(POLICY);
        assert!(!supervisor.is_late(secs(1000)));
        supervisor.limit_wait(secs(1));
        supervisor.limit_wait(secs(2));
        let limit = secs(1) + CLOSE_WAIT;
        assert!(!supervisor.is_late(limit - Duration::from_nanos(1)) && supervisor.is_late(limit));
        supervisor.on_finish(secs(5));
        assert_eq!(supervisor.deadline, Some(secs(5) + CLOSE_WAIT));
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_calm_while_its_timer_is_armed_or_has_nothing_to_do() {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(supervisor(POLICY).is_calm());
        assert!(!supervisor(Policy { lifetime: Some(secs(5)), ..POLICY }).is_calm());
        let mut idles = supervisor(Policy { idle_timeout: Some(secs(5)), ..POLICY });
        assert!(!idles.is_calm());
        idles.poll_timer(&mut cx);
        assert!(idles.is_calm());
        tokio::time::sleep(secs(5)).await;
        assert!(!idles.is_calm(), "the timer has fired");
        assert_eq!((idles.take_fired(), idles.take_fired()), (Some(secs(5)), None));
        // The end of the wait must be noticed although nothing else happens any more.
        idles.on_message(secs(5));
        idles.poll_timer(&mut cx);
        assert!(idles.is_calm());
        idles.limit_wait(secs(5));
        assert!(!idles.is_calm());
    }
}
