//! Is the client still there? The pings of the gateway, and their answers (RFC 6455 §5.5.2–3).
//!
//! In: what happened, and when (as time since a fixed moment). Out: when to look again, and what
//! to do then. Any byte from the client is a sign of life. A pong answers the latest ping only, so while a
//! ping of the backend is unanswered the gateway sends none: its answer tells the gateway as much.

use std::time::Duration;

use net_io::state::{StateError, StateReader, StateWriter};

use crate::clock::{Nanos, Shift};
use crate::policy::STALL_MAX;
use crate::scanner::ControlPayload;

/// Bytes of the payload of the gateway's own pings: a tag drawn per session, then a counter.
pub(crate) const PING_LEN: usize = 8;

/// What to do when the deadline has passed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Not yet, or no longer.
    Nothing,
    /// Send a ping with this payload between two frames; call [`Keepalive::on_ping_sent`] when it
    /// is on the network.
    Ping([u8; PING_LEN]),
    /// The client did not answer in time: it counts as gone.
    PongTimeout,
    /// The client took nothing for [`STALL_MAX`]: it counts as gone.
    Stalled,
}

/// Whose ping a pong answers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PongOwner {
    /// The gateway's: the pong is taken out of the stream.
    Gateway {
        /// It answers the latest one.
        is_latest: bool,
    },
    /// The backend's, or none (RFC 6455 §5.5.3): the pong is passed on.
    Backend,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No ping is unanswered; the last byte of the client came at this time.
    Heard(Duration),
    /// A ping waits for a boundary between two frames.
    PingQueued,
    /// A ping was sent; its pong is due at this time.
    AwaitingPong(Duration),
    /// The same while the client is not read: so much time is left when it is read again.
    Paused(Duration),
    /// After a Close no ping may follow.
    Closed,
}

/// The pings of one session.
#[derive(Debug, Clone)]
pub(crate) struct Keepalive {
    interval: Option<Nanos>,
    timeout: Nanos,
    state: State,
    /// The client is being read. While it is not, its silence proves nothing.
    reading: bool,
    /// The backend has pinged and no pong has come since.
    backend_ping_pending: bool,
    /// Bytes wait for the client, and it took the last at this time.
    stalled: Option<Nanos>,
    /// In the middle of the wait, it was noted how much the client's machine had acknowledged.
    half_checked: bool,
    /// How many bytes that were, modulo 2³², since only a difference matters. A kernel holds megabytes for a slow
    /// link, and these are neither taken nor lost.
    acknowledged: u32,
    tag: [u8; 4],
    count: u32,
}

impl Keepalive {
    /// Pings a client that was silent for `interval` (`None`: never) and gives it `timeout` to
    /// answer. Its last byte came at `now`. `tag` should be random: it tells the gateway's pings from the
    /// backend's.
    #[must_use]
    pub(crate) fn new(interval: Option<Duration>, timeout: Duration, tag: [u8; 4], now: Duration) -> Self {
        Self {
            interval: interval.map(Nanos::from),
            timeout: timeout.into(),
            state: State::Heard(now),
            reading: true,
            backend_ping_pending: false,
            stalled: None,
            half_checked: false,
            acknowledged: 0,
            tag,
            count: 0,
        }
    }

    /// Writes what [`Self::read_state`] reads: moments as the time from or until `now`.
    pub(crate) fn write_state(&self, out: &mut StateWriter, now: Duration) {
        let Self {
            interval,
            timeout,
            state,
            reading,
            backend_ping_pending,
            stalled,
            half_checked,
            acknowledged,
            tag,
            count,
        } = self;
        out.section(|out| {
            out.option(interval.map(Duration::from), StateWriter::duration);
            out.duration((*timeout).into());
            let (kind, time) = match *state {
                State::Heard(at) => (0, now.saturating_sub(at)),
                State::PingQueued => (1, Duration::ZERO),
                State::AwaitingPong(end) => (2, end.saturating_sub(now)),
                State::Paused(left) => (3, left),
                State::Closed => (4, Duration::ZERO),
            };
            out.u8(kind);
            out.duration(time);
            out.bool(*reading);
            out.bool(*backend_ping_pending);
            out.option(*stalled, |out, since| out.duration(now.saturating_sub(since.into())));
            out.bool(*half_checked);
            out.u32(*acknowledged);
            out.array(tag);
            out.u32(*count);
        });
    }

    /// Goes on at `now` where another session's left off.
    pub(crate) fn read_state(fields: &mut StateReader<'_>, now: Duration) -> Result<Self, StateError> {
        let mut fields = fields.section()?;
        let (interval, timeout) = (fields.option(StateReader::duration)?, fields.duration()?);
        let (kind, time) = (fields.u8()?, fields.duration()?);
        let state = match kind {
            0 => State::Heard(now.saturating_sub(time)),
            1 => State::PingQueued,
            2 => State::AwaitingPong(now + time),
            3 => State::Paused(time),
            4 => State::Closed,
            _ => return Err(StateError::Invalid("the state of pings")),
        };
        Ok(Self {
            interval: interval.map(Nanos::from),
            timeout: timeout.into(),
            state,
            reading: fields.bool()?,
            backend_ping_pending: fields.bool()?,
            stalled: fields.option(StateReader::duration)?.map(|since| now.saturating_sub(since).into()),
            half_checked: fields.bool()?,
            acknowledged: fields.u32()?,
            tag: fields.array()?,
            count: fields.u32()?,
        })
    }

    /// Goes on by another clock.
    pub(crate) fn shift(&mut self, shift: Shift) {
        let Self {
            state,
            stalled,
            interval: _,
            timeout: _,
            reading: _,
            backend_ping_pending: _,
            half_checked: _,
            acknowledged: _,
            tag: _,
            count: _,
        } = self;
        match state {
            State::Heard(at) | State::AwaitingPong(at) => *at = shift.apply(*at),
            State::PingQueued | State::Paused(_) | State::Closed => {}
        }
        *stalled = stalled.map(|since| shift.apply(since.into()).into());
    }

    /// The gateway pings this client.
    #[must_use]
    pub(crate) fn is_on(&self) -> bool {
        self.interval.is_some()
    }

    /// No ping is unanswered, and no bytes wait. Only bytes can arrive, and they never bring the deadline
    /// forward.
    #[must_use]
    pub(crate) fn is_calm(&self) -> bool {
        matches!(self.state, State::Heard(_)) && self.reading && self.stalled.is_none()
    }

    /// When [`Self::on_deadline`] is to be called; `None`: something else must happen first.
    #[must_use]
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let answer = match self.state {
            State::Heard(at) if self.reading => self.interval.map(|interval| at + interval.into()),
            State::AwaitingPong(end) => Some(self.half_or_end(end, self.timeout.into())),
            State::Heard(_) | State::PingQueued | State::Paused(_) => None,
            State::Closed => return None,
        };
        let stall = self.stall_end().map(|end| self.half_or_end(end, STALL_MAX));
        [answer, stall].into_iter().flatten().min()
    }

    /// A wait of this length that ends at `end` is checked in its middle first.
    fn half_or_end(&self, end: Duration, wait: Duration) -> Duration {
        if self.half_checked { end } else { end.saturating_sub(wait / 2) }
    }

    /// When a client that takes nothing counts as gone, whether it is pinged or not.
    fn stall_end(&self) -> Option<Duration> {
        self.stalled.map(|since| Duration::from(since) + STALL_MAX)
    }

    /// What is due at `now`. `acknowledged` says how many bytes the client's machine has acknowledged so far, if that
    /// is known.
    pub(crate) fn on_deadline(
        &mut self,
        now: Duration,
        acknowledged: impl FnOnce() -> Option<u64>,
    ) -> Action {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return Action::Nothing;
        }
        let is_stalled = self.stall_end().is_some_and(|end| now >= end);
        let is_gone = matches!(self.state, State::AwaitingPong(end) if now >= end);
        if is_stalled || is_gone {
            if !self.acknowledges_more(acknowledged()) {
                return if is_stalled { Action::Stalled } else { Action::PongTimeout };
            }
            // Its link is slow, and it takes what was sent before.
            if is_stalled {
                self.stalled = Some(now.into());
            }
            if is_gone {
                self.state = State::AwaitingPong(now + self.timeout.into());
            }
            return Action::Nothing;
        }
        match self.state {
            _ if self.is_half_over(now) => {
                self.acknowledges_more(acknowledged());
                self.half_checked = true;
                Action::Nothing
            }
            _ if self.backend_ping_pending => {
                self.await_pong(now + self.timeout.into());
                Action::Nothing
            }
            _ => {
                self.state = State::PingQueued;
                self.count = self.count.wrapping_add(1);
                Action::Ping(self.payload(self.count))
            }
        }
    }

    /// Whether the client's machine has acknowledged something since the middle of the wait.
    fn acknowledges_more(&mut self, acknowledged: Option<u64>) -> bool {
        let Some(acknowledged) = acknowledged else { return false };
        let low = u32::try_from(acknowledged & u64::from(u32::MAX)).unwrap_or_default();
        let before = std::mem::replace(&mut self.acknowledged, low);
        self.half_checked && before != low
    }

    fn is_half_over(&self, now: Duration) -> bool {
        let answer =
            if let State::AwaitingPong(end) = self.state { Some((end, self.timeout.into())) } else { None };
        let stall = self.stall_end().map(|end| (end, STALL_MAX));
        [answer, stall].into_iter().flatten().any(|(end, wait)| self.half_or_end(end, wait) <= now)
    }

    /// The answer to a ping is waited for until `end`.
    fn await_pong(&mut self, end: Duration) {
        self.state = State::AwaitingPong(end);
        self.half_checked = false;
    }

    /// The client has sent some bytes.
    pub(crate) fn on_bytes(&mut self, now: Duration) {
        if !matches!(self.state, State::PingQueued | State::Closed) {
            self.state = State::Heard(now);
        }
    }

    /// A ping waits to be handed to the network.
    #[must_use]
    pub(crate) fn is_ping_queued(&self) -> bool {
        self.state == State::PingQueued
    }

    /// The ping has been handed to the network: the clock for its answer starts.
    pub(crate) fn on_ping_sent(&mut self, now: Duration) {
        match self.state {
            State::PingQueued if self.reading => self.await_pong(now + self.timeout.into()),
            State::PingQueued => self.state = State::Paused(self.timeout.into()),
            _ => {}
        }
    }

    /// A ping of the backend goes on to the client.
    pub(crate) fn on_backend_ping(&mut self) {
        self.backend_ping_pending = true;
    }

    /// The client has sent a pong.
    pub(crate) fn on_pong(&mut self, payload: &ControlPayload) -> PongOwner {
        // A late answer to an older ping of ours is still not for the backend.
        let count = match **payload {
            [ref tag @ .., a, b, c, d] if *tag == self.tag => u32::from_be_bytes([a, b, c, d]),
            _ => 0,
        };
        if (1..=self.count).contains(&count) {
            return PongOwner::Gateway { is_latest: count == self.count };
        }
        self.backend_ping_pending = false;
        PongOwner::Backend
    }

    /// Bytes wait for the client (`waiting`), of which it has just taken some (`taken`) or not.
    pub(crate) fn on_backlog(&mut self, waiting: bool, taken: bool, now: Duration) {
        if (waiting || taken)
            && let State::AwaitingPong(deadline) = &mut self.state
        {
            // It is still working through what was sent before the ping.
            *deadline = now + self.timeout.into();
        }
        match self.stalled {
            Some(_) if waiting && !taken => {}
            _ if waiting => (self.stalled, self.half_checked) = (Some(now.into()), false),
            _ => self.stalled = None,
        }
    }

    /// Reading from the client stops, because its bytes can not go on, or starts again.
    pub(crate) fn on_reading(&mut self, reading: bool, now: Duration) {
        if self.reading == reading {
            return;
        }
        self.reading = reading;
        self.state = match self.state {
            State::AwaitingPong(deadline) if !reading => State::Paused(deadline.saturating_sub(now)),
            State::Paused(left) if reading => {
                self.half_checked = false;
                State::AwaitingPong(now + left)
            }
            State::Heard(_) if reading => State::Heard(now),
            state => state,
        };
    }

    /// A Close was sent or received: no ping is sent any more.
    pub(crate) fn on_close(&mut self) {
        self.state = State::Closed;
    }

    fn payload(&self, count: u32) -> [u8; PING_LEN] {
        let mut payload = [0; PING_LEN];
        payload[..4].copy_from_slice(&self.tag);
        payload[4..].copy_from_slice(&count.to_be_bytes());
        payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: [u8; 4] = *b"tag!";

    fn secs(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    fn keepalive() -> Keepalive {
        Keepalive::new(Some(secs(30)), secs(10), TAG, Duration::ZERO)
    }

    fn ping(count: u32) -> [u8; PING_LEN] {
        keepalive().payload(count)
    }

    fn pong(payload: &[u8]) -> ControlPayload {
        ControlPayload::new(payload, None)
    }

    /// When the wait ends that is looked at in its middle.
    fn end(k: &Keepalive) -> Option<Duration> {
        let mut looked = k.clone();
        looked.half_checked = true;
        looked.deadline()
    }

    #[test]
    fn a_silent_client_is_asked_and_then_gone() {
        let mut k = keepalive();
        assert_eq!(k.deadline(), Some(secs(30)));
        assert_eq!(k.on_deadline(secs(29), || None), Action::Nothing);
        assert_eq!(k.on_deadline(secs(30), || None), Action::Ping(ping(1)));
        assert_eq!(k.deadline(), None); // the ping may have to wait for its place
        k.on_ping_sent(secs(34));
        assert_eq!(end(&k), Some(secs(44)));
        assert_eq!(k.on_deadline(secs(44), || None), Action::PongTimeout);
    }

    #[test]
    fn any_byte_is_a_sign_of_life() {
        let mut k = keepalive();
        k.on_bytes(secs(7));
        assert_eq!(k.deadline(), Some(secs(37)));
        assert_eq!(k.on_deadline(secs(37), || None), Action::Ping(ping(1)));
        k.on_ping_sent(secs(37));
        k.on_bytes(secs(40)); // not even a pong
        assert_eq!(k.deadline(), Some(secs(70)));
        assert_eq!(k.on_deadline(secs(70), || None), Action::Ping(ping(2)));
    }

    #[test]
    fn only_our_own_pongs_are_ours_late_ones_too() {
        let mut k = keepalive();
        assert_eq!(k.on_pong(&pong(&ping(1))), PongOwner::Backend); // never sent
        assert_eq!(k.on_deadline(secs(30), || None), Action::Ping(ping(1)));
        k.on_ping_sent(secs(30));
        assert_eq!(k.on_pong(&pong(b"backend")), PongOwner::Backend);
        assert_eq!(k.on_pong(&pong(&[&TAG[..], b"\0\0\0\x02"].concat())), PongOwner::Backend);
        k.on_bytes(secs(31));
        assert_eq!(k.on_deadline(secs(61), || None), Action::Ping(ping(2)));
        assert_eq!(k.on_pong(&pong(&ping(1))), PongOwner::Gateway { is_latest: false });
        assert_eq!(k.on_pong(&pong(&ping(2))), PongOwner::Gateway { is_latest: true });
        // No ping has this number: it is the client's own, unsolicited (RFC 6455 §5.5.3).
        assert_eq!(k.on_pong(&pong(&ping(0))), PongOwner::Backend);
        assert_eq!(k.on_pong(&pong(&ping(3))), PongOwner::Backend);
    }

    #[test]
    fn while_a_ping_of_the_backend_is_unanswered_the_gateway_sends_none() {
        let mut k = keepalive();
        k.on_backend_ping();
        assert_eq!(k.on_deadline(secs(30), || None), Action::Nothing);
        assert_eq!(end(&k), Some(secs(40))); // the backend's ping has to be answered in time too
        k.on_bytes(secs(35));
        assert_eq!(k.on_pong(&pong(b"backend")), PongOwner::Backend);
        assert_eq!(k.on_deadline(secs(65), || None), Action::Ping(ping(1)));
    }

    #[test]
    fn silence_counts_only_while_the_client_is_read() {
        let mut k = keepalive();
        k.on_reading(false, secs(5));
        assert_eq!(k.deadline(), None);
        k.on_reading(true, secs(100));
        assert_eq!(k.deadline(), Some(secs(130)));
        assert_eq!(k.on_deadline(secs(130), || None), Action::Ping(ping(1)));
        k.on_ping_sent(secs(130));
        k.on_reading(false, secs(134));
        assert_eq!(k.deadline(), None);
        k.on_reading(true, secs(200));
        assert_eq!(end(&k), Some(secs(206))); // six of the ten seconds were left
    }

    #[test]
    fn a_ping_that_leaves_while_the_client_is_not_read_waits_in_full() {
        let mut k = keepalive();
        assert_eq!(k.on_deadline(secs(30), || None), Action::Ping(ping(1)));
        k.on_reading(false, secs(31));
        k.on_ping_sent(secs(32));
        assert_eq!(k.deadline(), None);
        k.on_reading(true, secs(50));
        assert_eq!(end(&k), Some(secs(60)));
    }

    #[test]
    fn bytes_while_the_ping_waits_do_not_lose_it() {
        let mut k = keepalive();
        assert_eq!(k.on_deadline(secs(30), || None), Action::Ping(ping(1)));
        k.on_bytes(secs(31));
        k.on_ping_sent(secs(33));
        assert_eq!(end(&k), Some(secs(43)));
    }

    #[test]
    fn a_client_that_takes_nothing_is_gone_in_the_end() {
        let mut k = keepalive();
        k.on_backlog(true, true, secs(5));
        k.on_backlog(true, false, secs(20));
        assert_eq!(k.on_deadline(secs(30), || None), Action::Ping(ping(1)));
        assert_eq!(end(&k), Some(secs(65))); // the ping can't leave
        k.on_backlog(true, true, secs(60)); // a slow client is not gone
        assert_eq!(k.on_deadline(secs(65), || None), Action::Nothing);
        assert_eq!(end(&k), Some(secs(120)));
        assert_eq!(k.on_deadline(secs(120), || None), Action::Stalled);
        let mut k = keepalive();
        k.on_backlog(true, false, secs(0));
        k.on_backlog(false, false, secs(50));
        k.on_backlog(true, false, secs(59));
        k.on_bytes(secs(59));
        assert_eq!(k.on_deadline(secs(60), || None), Action::Nothing);
        let mut off = Keepalive::new(None, secs(10), TAG, Duration::ZERO);
        off.on_backlog(true, false, secs(0));
        off.on_reading(false, secs(1));
        assert_eq!(off.on_deadline(secs(59), || None), Action::Nothing);
        assert_eq!(off.on_deadline(secs(60), || None), Action::Stalled); // pings or not
        off.on_backlog(false, true, secs(60));
        assert_eq!(off.deadline(), None);
    }

    #[test]
    fn a_client_that_takes_its_backlog_has_more_time_to_answer() {
        let mut k = keepalive();
        assert_eq!(k.on_deadline(secs(30), || None), Action::Ping(ping(1)));
        k.on_ping_sent(secs(30));
        for now in (40..200).step_by(40) {
            k.on_backlog(true, now % 80 == 0, secs(now));
            assert_eq!(k.on_deadline(secs(now), || None), Action::Nothing);
        }
        k.on_backlog(false, true, secs(200));
        assert_eq!(end(&k), Some(secs(210))); // it has all
        assert_eq!(k.on_deadline(secs(210), || None), Action::PongTimeout);
    }

    #[test]
    fn a_client_whose_machine_takes_what_was_sent_is_waited_for() {
        let mut k = keepalive();
        assert_eq!(k.on_deadline(secs(30), || None), Action::Ping(ping(1)));
        k.on_ping_sent(secs(30));
        assert_eq!(k.deadline(), Some(secs(35)));
        assert_eq!(k.on_deadline(secs(35), || Some(1 << 32)), Action::Nothing);
        assert_eq!(k.deadline(), Some(secs(40)));
        assert_eq!(k.on_deadline(secs(40), || Some((1 << 32) + 1)), Action::Nothing);
        assert_eq!(k.deadline(), Some(secs(50)));
        assert_eq!(k.on_deadline(secs(50), || Some((1 << 32) + 1)), Action::PongTimeout);
        // An answer ends the wait, and the next one begins with a look of its own.
        k.on_bytes(secs(50));
        assert_eq!(k.on_deadline(secs(80), || None), Action::Ping(ping(2)));
        k.on_ping_sent(secs(80));
        assert_eq!(k.on_deadline(secs(85), || Some(7)), Action::Nothing);
        assert_eq!(k.on_deadline(secs(90), || Some(7)), Action::PongTimeout);
    }

    #[test]
    fn a_client_that_takes_nothing_more_may_still_take_what_the_kernel_holds() {
        let mut off = Keepalive::new(None, secs(10), TAG, Duration::ZERO);
        off.on_backlog(true, false, secs(0));
        off.on_reading(false, secs(0));
        for (now, acknowledged, due) in [
            (30, 1, Action::Nothing),
            (60, 2, Action::Nothing),
            (90, 2, Action::Nothing), // not yet
            (120, 3, Action::Nothing),
            (180, 3, Action::Stalled),
        ] {
            assert_eq!(off.on_deadline(secs(now), || Some(acknowledged)), due, "{now}");
        }
    }

    /// A wait whose middle was missed, since the worker was held up, ends when it should.
    #[test]
    fn without_a_check_in_the_middle_nothing_is_known() {
        let mut k = keepalive();
        assert_eq!(k.on_deadline(secs(30), || None), Action::Ping(ping(1)));
        k.on_ping_sent(secs(30));
        assert_eq!(k.on_deadline(secs(41), || Some(9)), Action::PongTimeout);
    }

    #[test]
    fn nothing_after_a_close_and_nothing_when_off() {
        let mut k = keepalive();
        k.on_close();
        k.on_bytes(secs(1));
        assert_eq!(k.deadline(), None);
        let off = Keepalive::new(None, secs(10), TAG, Duration::ZERO);
        assert_eq!(off.deadline(), None);
    }
}
