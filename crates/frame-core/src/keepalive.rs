//! Is the client still there? The gateway's own pings, and what answers them (RFC 6455 §5.5.2–3).
//!
//! In: what happened, and when (time since any moment). Out: when to look again, and what
//! to do then. Any byte from the client is life. A pong answers the latest ping only, so while a
//! ping of the backend's is unanswered the gateway sends none of its own; the question is already
//! asked.

use std::time::Duration;

use crate::policy::STALL_MAX;
use crate::scanner::ControlPayload;

/// Bytes of the payload of the gateway's own pings: a tag drawn per session, then a counter.
pub(crate) const PING_LEN: usize = 8;

/// What to do when the deadline has passed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Not yet, or no longer.
    Nothing,
    /// Put a ping with this payload between two frames; say [`Keepalive::on_ping_left`] when it
    /// is on its way.
    Ping([u8; PING_LEN]),
    /// The client did not answer in time: it counts as gone.
    Gone,
    /// The client took nothing for [`STALL_MAX`]: it counts as gone.
    Stalled,
}

/// Whose question a pong answers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    /// The gateway's: to be taken out of the stream.
    Gateway,
    /// The backend's, or nobody's: to be passed on.
    Backend,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing is asked; the client was last heard at this time.
    Heard(Duration),
    /// A ping waits for its place between two frames.
    Leaving,
    /// The question is asked; the answer is due at this time.
    Asked(Duration),
    /// The same while the client isn't read: so much time is left once it is.
    Held(Duration),
    /// After a Close no ping may follow.
    Over,
}

/// The pings of one session.
#[derive(Debug, Clone)]
pub(crate) struct Keepalive {
    interval: Option<Duration>,
    timeout: Duration,
    state: State,
    /// The client is being read. While it isn't, its silence proves nothing.
    reading: bool,
    /// The backend has pinged and no pong has come since.
    backend_asks: bool,
    /// Bytes wait for the client, and it took the last at this time.
    stalled: Option<Duration>,
    /// In the middle of the wait for the client it was looked how much its machine had acknowledged.
    looked: bool,
    /// So many bytes, modulo 2³²: only a difference is looked for. A kernel holds megabytes for a slow link, and
    /// what waits there is neither taken nor lost.
    acknowledged: u32,
    tag: [u8; 4],
    count: u32,
}

impl Keepalive {
    /// Pings a client that was silent for `interval` (`None`: never) and gives it `timeout` to
    /// answer. It was last heard at `now`. `tag` should be random: it tells the gateway's pings from the
    /// backend's.
    #[must_use]
    pub(crate) fn new(interval: Option<Duration>, timeout: Duration, tag: [u8; 4], now: Duration) -> Self {
        Self {
            interval,
            timeout,
            state: State::Heard(now),
            reading: true,
            backend_asks: false,
            stalled: None,
            looked: false,
            acknowledged: 0,
            tag,
            count: 0,
        }
    }

    /// There are pings at all.
    #[must_use]
    pub(crate) fn is_on(&self) -> bool {
        self.interval.is_some()
    }

    /// Nothing is asked, and nothing waits: what happens is bytes, if anything, and a deadline that is known
    /// comes no sooner.
    #[must_use]
    pub(crate) fn is_calm(&self) -> bool {
        matches!(self.state, State::Heard(_)) && self.reading && self.stalled.is_none()
    }

    /// When [`Self::on_deadline`] wants to be called; `None`: something else must happen first.
    #[must_use]
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let answer = match self.state {
            State::Heard(at) if self.reading => self.interval.map(|interval| at + interval),
            State::Asked(end) => Some(self.look_or(end, self.timeout)),
            State::Heard(_) | State::Leaving | State::Held(_) => None,
            State::Over => return None,
        };
        let stall = self.stall_end().map(|end| self.look_or(end, STALL_MAX));
        [answer, stall].into_iter().flatten().min()
    }

    /// A wait of so long that ends at `end` is looked at in its middle.
    fn look_or(&self, end: Duration, wait: Duration) -> Duration {
        if self.looked { end } else { end.saturating_sub(wait / 2) }
    }

    /// When a client that takes nothing counts as gone, whether it is pinged or not.
    fn stall_end(&self) -> Option<Duration> {
        self.stalled.map(|since| since + STALL_MAX)
    }

    /// Says what is due at `now`; never later than [`Self::deadline`] by its own doing. `acknowledged` says how
    /// many bytes the client's machine has acknowledged so far, if that is known.
    pub(crate) fn on_deadline(&mut self, now: Duration, acknowledged: impl FnOnce() -> Option<u64>) -> Due {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return Due::Nothing;
        }
        let is_stalled = self.stall_end().is_some_and(|end| now >= end);
        let is_gone = matches!(self.state, State::Asked(end) if now >= end);
        if is_stalled || is_gone {
            if !self.acknowledges_more(acknowledged()) {
                return if is_stalled { Due::Stalled } else { Due::Gone };
            }
            // Its link is slow, and it takes what was sent before.
            if is_stalled {
                self.stalled = Some(now);
            }
            if is_gone {
                self.state = State::Asked(now + self.timeout);
            }
            return Due::Nothing;
        }
        match self.state {
            _ if self.is_half_over(now) => {
                self.acknowledges_more(acknowledged());
                self.looked = true;
                Due::Nothing
            }
            _ if self.backend_asks => {
                self.ask(now + self.timeout);
                Due::Nothing
            }
            _ => {
                self.state = State::Leaving;
                self.count = self.count.wrapping_add(1);
                Due::Ping(self.payload(self.count))
            }
        }
    }

    /// Says whether the client's machine has acknowledged something since the last look.
    fn acknowledges_more(&mut self, acknowledged: Option<u64>) -> bool {
        let Some(acknowledged) = acknowledged else { return false };
        let low = u32::try_from(acknowledged & u64::from(u32::MAX)).unwrap_or_default();
        let before = std::mem::replace(&mut self.acknowledged, low);
        self.looked && before != low
    }

    fn is_half_over(&self, now: Duration) -> bool {
        let answer = if let State::Asked(end) = self.state { Some((end, self.timeout)) } else { None };
        let stall = self.stall_end().map(|end| (end, STALL_MAX));
        [answer, stall].into_iter().flatten().any(|(end, wait)| self.look_or(end, wait) <= now)
    }

    /// The answer to a ping is waited for from now on.
    fn ask(&mut self, end: Duration) {
        self.state = State::Asked(end);
        self.looked = false;
    }

    /// The client has sent something, whatever it was.
    pub(crate) fn on_bytes(&mut self, now: Duration) {
        if !matches!(self.state, State::Leaving | State::Over) {
            self.state = State::Heard(now);
        }
    }

    /// A ping waits to be handed to the network.
    #[must_use]
    pub(crate) fn is_leaving(&self) -> bool {
        self.state == State::Leaving
    }

    /// The ping has been handed to the network: the clock for its answer starts.
    pub(crate) fn on_ping_left(&mut self, now: Duration) {
        match self.state {
            State::Leaving if self.reading => self.ask(now + self.timeout),
            State::Leaving => self.state = State::Held(self.timeout),
            _ => {}
        }
    }

    /// A ping of the backend's goes on to the client.
    pub(crate) fn on_backend_ping(&mut self) {
        self.backend_asks = true;
    }

    /// The client has sent a pong.
    pub(crate) fn on_pong(&mut self, payload: &ControlPayload) -> Answers {
        // A late answer to an older ping of ours is still not for the backend.
        let ours = payload.len() == PING_LEN
            && payload[..4] == self.tag
            && payload[4..]
                .try_into()
                .is_ok_and(|count| (1..=self.count).contains(&u32::from_be_bytes(count)));
        if ours {
            Answers::Gateway
        } else {
            self.backend_asks = false;
            Answers::Backend
        }
    }

    /// Bytes wait for the client (`waits`), of which it has just taken some (`took`) or not.
    pub(crate) fn on_sending(&mut self, waits: bool, took: bool, now: Duration) {
        if (waits || took)
            && let State::Asked(deadline) = &mut self.state
        {
            // It is still working through what was sent before the ping.
            *deadline = now + self.timeout;
        }
        match self.stalled {
            Some(_) if waits && !took => {}
            _ if waits => (self.stalled, self.looked) = (Some(now), false),
            _ => self.stalled = None,
        }
    }

    /// Reading from the client stops (its bytes can't go on) or starts again.
    pub(crate) fn on_reading(&mut self, reading: bool, now: Duration) {
        if self.reading == reading {
            return;
        }
        self.reading = reading;
        self.state = match self.state {
            State::Asked(deadline) if !reading => State::Held(deadline.saturating_sub(now)),
            State::Held(left) if reading => {
                self.looked = false;
                State::Asked(now + left)
            }
            State::Heard(_) if reading => State::Heard(now),
            state => state,
        };
    }

    /// A Close was sent or received: nothing is asked any more.
    pub(crate) fn on_close(&mut self) {
        self.state = State::Over;
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
        looked.looked = true;
        looked.deadline()
    }

    #[test]
    fn a_silent_client_is_asked_and_then_gone() {
        let mut k = keepalive();
        assert_eq!(k.deadline(), Some(secs(30)));
        assert_eq!(k.on_deadline(secs(29), || None), Due::Nothing);
        assert_eq!(k.on_deadline(secs(30), || None), Due::Ping(ping(1)));
        assert_eq!(k.deadline(), None); // the ping may have to wait for its place
        k.on_ping_left(secs(34));
        assert_eq!(end(&k), Some(secs(44)));
        assert_eq!(k.on_deadline(secs(44), || None), Due::Gone);
    }

    #[test]
    fn any_byte_is_life() {
        let mut k = keepalive();
        k.on_bytes(secs(7));
        assert_eq!(k.deadline(), Some(secs(37)));
        assert_eq!(k.on_deadline(secs(37), || None), Due::Ping(ping(1)));
        k.on_ping_left(secs(37));
        k.on_bytes(secs(40)); // not even a pong
        assert_eq!(k.deadline(), Some(secs(70)));
        assert_eq!(k.on_deadline(secs(70), || None), Due::Ping(ping(2)));
    }

    #[test]
    fn only_our_own_pongs_are_ours_late_ones_too() {
        let mut k = keepalive();
        assert_eq!(k.on_pong(&pong(&ping(1))), Answers::Backend); // never sent
        assert_eq!(k.on_deadline(secs(30), || None), Due::Ping(ping(1)));
        k.on_ping_left(secs(30));
        assert_eq!(k.on_pong(&pong(b"backend")), Answers::Backend);
        assert_eq!(k.on_pong(&pong(&[&TAG[..], b"\0\0\0\x02"].concat())), Answers::Backend);
        k.on_bytes(secs(31));
        assert_eq!(k.on_deadline(secs(61), || None), Due::Ping(ping(2)));
        assert_eq!(k.on_pong(&pong(&ping(1))), Answers::Gateway);
        assert_eq!(k.on_pong(&pong(&ping(2))), Answers::Gateway);
        // No ping has this number: it is the client's own, unsolicited (RFC 6455 §5.5.3).
        assert_eq!(k.on_pong(&pong(&ping(0))), Answers::Backend);
        assert_eq!(k.on_pong(&pong(&ping(3))), Answers::Backend);
    }

    #[test]
    fn while_the_backend_asks_the_gateway_does_not() {
        let mut k = keepalive();
        k.on_backend_ping();
        assert_eq!(k.on_deadline(secs(30), || None), Due::Nothing);
        assert_eq!(end(&k), Some(secs(40))); // the backend's question has to be answered in time too
        k.on_bytes(secs(35));
        assert_eq!(k.on_pong(&pong(b"backend")), Answers::Backend);
        assert_eq!(k.on_deadline(secs(65), || None), Due::Ping(ping(1)));
    }

    #[test]
    fn silence_counts_only_while_the_client_is_read() {
        let mut k = keepalive();
        k.on_reading(false, secs(5));
        assert_eq!(k.deadline(), None);
        k.on_reading(true, secs(100));
        assert_eq!(k.deadline(), Some(secs(130)));
        assert_eq!(k.on_deadline(secs(130), || None), Due::Ping(ping(1)));
        k.on_ping_left(secs(130));
        k.on_reading(false, secs(134));
        assert_eq!(k.deadline(), None);
        k.on_reading(true, secs(200));
        assert_eq!(end(&k), Some(secs(206))); // six of the ten seconds were left
    }

    #[test]
    fn a_ping_that_leaves_while_the_client_is_not_read_waits_in_full() {
        let mut k = keepalive();
        assert_eq!(k.on_deadline(secs(30), || None), Due::Ping(ping(1)));
        k.on_reading(false, secs(31));
        k.on_ping_left(secs(32));
        assert_eq!(k.deadline(), None);
        k.on_reading(true, secs(50));
        assert_eq!(end(&k), Some(secs(60)));
    }

    #[test]
    fn bytes_while_the_ping_waits_do_not_lose_it() {
        let mut k = keepalive();
        assert_eq!(k.on_deadline(secs(30), || None), Due::Ping(ping(1)));
        k.on_bytes(secs(31));
        k.on_ping_left(secs(33));
        assert_eq!(end(&k), Some(secs(43)));
    }

    #[test]
    fn a_client_that_takes_nothing_is_gone_in_the_end() {
        let mut k = keepalive();
        k.on_sending(true, true, secs(5));
        k.on_sending(true, false, secs(20));
        assert_eq!(k.on_deadline(secs(30), || None), Due::Ping(ping(1)));
        assert_eq!(end(&k), Some(secs(65))); // the ping can't leave
        k.on_sending(true, true, secs(60)); // a slow one is no dead one
        assert_eq!(k.on_deadline(secs(65), || None), Due::Nothing);
        assert_eq!(end(&k), Some(secs(120)));
        assert_eq!(k.on_deadline(secs(120), || None), Due::Stalled);
        let mut k = keepalive();
        k.on_sending(true, false, secs(0));
        k.on_sending(false, false, secs(50));
        k.on_sending(true, false, secs(59));
        k.on_bytes(secs(59));
        assert_eq!(k.on_deadline(secs(60), || None), Due::Nothing);
        let mut off = Keepalive::new(None, secs(10), TAG, Duration::ZERO);
        off.on_sending(true, false, secs(0));
        off.on_reading(false, secs(1));
        assert_eq!(off.on_deadline(secs(59), || None), Due::Nothing);
        assert_eq!(off.on_deadline(secs(60), || None), Due::Stalled); // pings or not
        off.on_sending(false, true, secs(60));
        assert_eq!(off.deadline(), None);
    }

    #[test]
    fn a_client_that_takes_its_backlog_is_not_asked_to_hurry() {
        let mut k = keepalive();
        assert_eq!(k.on_deadline(secs(30), || None), Due::Ping(ping(1)));
        k.on_ping_left(secs(30));
        for now in (40..200).step_by(40) {
            k.on_sending(true, now % 80 == 0, secs(now));
            assert_eq!(k.on_deadline(secs(now), || None), Due::Nothing);
        }
        k.on_sending(false, true, secs(200));
        assert_eq!(end(&k), Some(secs(210))); // it has all
        assert_eq!(k.on_deadline(secs(210), || None), Due::Gone);
    }

    #[test]
    fn a_client_whose_machine_takes_what_was_sent_is_waited_for() {
        let mut k = keepalive();
        assert_eq!(k.on_deadline(secs(30), || None), Due::Ping(ping(1)));
        k.on_ping_left(secs(30));
        assert_eq!(k.deadline(), Some(secs(35)));
        assert_eq!(k.on_deadline(secs(35), || Some(1 << 32)), Due::Nothing);
        assert_eq!(k.deadline(), Some(secs(40)));
        assert_eq!(k.on_deadline(secs(40), || Some((1 << 32) + 1)), Due::Nothing);
        assert_eq!(k.deadline(), Some(secs(50)));
        assert_eq!(k.on_deadline(secs(50), || Some((1 << 32) + 1)), Due::Gone);
        // An answer ends the wait, and the next one begins with a look of its own.
        k.on_bytes(secs(50));
        assert_eq!(k.on_deadline(secs(80), || None), Due::Ping(ping(2)));
        k.on_ping_left(secs(80));
        assert_eq!(k.on_deadline(secs(85), || Some(7)), Due::Nothing);
        assert_eq!(k.on_deadline(secs(90), || Some(7)), Due::Gone);
    }

    #[test]
    fn a_client_that_takes_nothing_more_may_still_take_what_the_kernel_holds() {
        let mut off = Keepalive::new(None, secs(10), TAG, Duration::ZERO);
        off.on_sending(true, false, secs(0));
        off.on_reading(false, secs(0));
        for (now, acknowledged, due) in [
            (30, 1, Due::Nothing),
            (60, 2, Due::Nothing),
            (90, 2, Due::Nothing), // not yet
            (120, 3, Due::Nothing),
            (180, 3, Due::Stalled),
        ] {
            assert_eq!(off.on_deadline(secs(now), || Some(acknowledged)), due, "{now}");
        }
    }

    /// A wait whose middle was missed, since the worker was held up, ends when it should.
    #[test]
    fn without_a_look_in_the_middle_nothing_is_known() {
        let mut k = keepalive();
        assert_eq!(k.on_deadline(secs(30), || None), Due::Ping(ping(1)));
        k.on_ping_left(secs(30));
        assert_eq!(k.on_deadline(secs(41), || Some(9)), Due::Gone);
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
