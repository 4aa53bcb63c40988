//! One server of an upstream: what the configuration says of it, what it has to do now, and how it is.
//!
//! Requests and sessions touch its counters when they begin and when they end, messages never do.

mod moved;

use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use net_io::count::ByWorker;

use crate::site::counts::UpstreamCounts;
use crate::site::endpoint::Endpoint;
use crate::site::health::{Failures, Passive, Probe, Streak};
use crate::site::queue::Freed;
use crate::site::redial::Turns;
use crate::site::redial_queue::{Handshake, Handshakes};

/// A server, as the configuration has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// How it is reached.
    pub endpoint: Arc<Endpoint>,
    /// Its part of all requests.
    pub weight: NonZeroU32,
    /// One with a higher number gets nothing as long as one with a lower number can take it.
    pub priority: u16,
    /// Live WebSockets and requests in flight that it may have; `None`: any number.
    pub sessions_max: Option<NonZeroU32>,
}

impl Server {
    /// One with the default settings.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint: Arc::new(endpoint), weight: NonZeroU32::MIN, priority: 0, sessions_max: None }
    }
}

/// On a cache line of its own (and on that which is fetched with it).
#[derive(Debug, Default)]
#[repr(align(128))]
struct Line<T>(T);

/// Probes find it down.
const DOWN: u8 = 1;
/// It has failed too many requests.
const EJECTED: u8 = 2;
/// An operator has drained it.
const DRAINED: u8 = 4;
/// Its name no longer leads to it.
const LEFT: u8 = 8;

/// What is known of a server. It stays the same over reloads, as long as its upstream has its address.
#[derive(Debug)]
pub struct ServerState {
    /// How it is reached.
    pub endpoint: Arc<Endpoint>,
    /// In the lower 24 bits, live WebSockets and requests in flight. Above, all that there have been.
    load: Line<AtomicU64>,
    /// Live WebSockets among them.
    sessions: AtomicU32,
    /// What it can't take anything for.
    flags: AtomicU8,
    /// The request before this one failed.
    is_failing: AtomicBool,
    /// When it may have requests again, in milliseconds.
    ejected_until: AtomicU64,
    /// When it came, or came back, in milliseconds; 0: it has been there for long.
    back_since: AtomicU64,
    /// Requests that it failed.
    failures: AtomicU64,
    /// Sessions that have come from servers that they have lost.
    redials: AtomicU64,
    /// Sessions that it has lost, and that are not in the log yet.
    lost: AtomicU32,
    turns: Turns,
    handshakes: Handshakes,
    known: Mutex<Known>,
    /// Told when it has taken less than it may take.
    freed: Arc<Freed>,
    /// Its upstream's.
    counts: Arc<ByWorker<UpstreamCounts>>,
}

/// What changes so rarely that a lock does.
#[derive(Debug, Default)]
struct Known {
    failures: Failures,
    streak: Streak,
    /// Why the last request failed.
    cause: Option<Box<str>>,
    probe: Option<LastProbe>,
}

/// The last probe of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastProbe {
    /// When it ended.
    pub at: Duration,
    /// What it found; `None`: the server is well.
    pub problem: Option<Box<str>>,
}

const LIVE_BITS: u32 = 24;
const LIVE: u64 = (1 << LIVE_BITS) - 1;
/// A request begins: one more that is live, and one more of all.
const BEGUN: u64 = 1 + (1 << LIVE_BITS);

impl ServerState {
    /// One that has had nothing to do yet. It came at `since`; zero: it has been there for long.
    #[must_use]
    pub(crate) fn new(
        endpoint: Arc<Endpoint>,
        freed: Arc<Freed>,
        counts: Arc<ByWorker<UpstreamCounts>>,
        since: Duration,
    ) -> Self {
        Self {
            endpoint,
            load: Line::default(),
            sessions: AtomicU32::new(0),
            flags: AtomicU8::new(0),
            is_failing: AtomicBool::new(false),
            ejected_until: AtomicU64::new(0),
            back_since: AtomicU64::new(millis(since)),
            failures: AtomicU64::new(0),
            redials: AtomicU64::new(0),
            lost: AtomicU32::new(0),
            turns: Turns::default(),
            handshakes: Handshakes::default(),
            known: Mutex::default(),
            freed,
            counts,
        }
    }

    /// Live WebSockets and requests in flight.
    #[must_use]
    pub fn live(&self) -> u32 {
        u32::try_from(self.load.0.load(Ordering::Relaxed) & LIVE).unwrap_or(u32::MAX)
    }

    /// Live WebSockets.
    #[must_use]
    pub fn sessions(&self) -> u32 {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Requests and handshakes that it has been given.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.load.0.load(Ordering::Relaxed) >> LIVE_BITS
    }

    /// How many of them it failed: no connection, no answer, or one from 500.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Sessions that have come to it from servers that they had lost.
    #[must_use]
    pub fn redials(&self) -> u64 {
        self.redials.load(Ordering::Relaxed)
    }

    /// One more has come.
    pub(crate) fn redialled(&self) {
        self.redials.fetch_add(1, Ordering::Relaxed);
    }

    /// It has lost a session, which looks for another server. Returns whether it is the first one since
    /// [`Self::take_lost`].
    pub(crate) fn lost_session(&self) -> bool {
        self.lost.fetch_add(1, Ordering::Relaxed) == 0
    }

    /// How many sessions it has lost since this was asked last.
    pub(crate) fn take_lost(&self) -> u32 {
        self.lost.swap(0, Ordering::Relaxed)
    }

    /// How long a session that comes from another server has to wait for its handshake.
    pub(crate) fn turn(&self, pace: Duration, now: Duration) -> Duration {
        self.turns.take(pace, now)
    }

    /// Begins a handshake with a session that comes from another server, when fewer than `max` are under way.
    ///
    /// # Cancel safety
    /// A dropped call leaves the queue.
    pub(crate) async fn begin_handshake(&self, max: NonZeroU32) -> Handshake<'_> {
        self.handshakes.begin(max).await
    }

    /// The last probe, if there has been one.
    #[must_use]
    pub fn last_probe(&self) -> Option<LastProbe> {
        self.known().probe.clone()
    }

    /// What this thread's worker counts of its upstream.
    pub(crate) fn counts(&self) -> &UpstreamCounts {
        self.counts.here()
    }

    /// Gives it a request, if it has fewer than `max`.
    pub(crate) fn assign(self: &Arc<Self>, max: Option<NonZeroU32>) -> Option<Assignment> {
        let Some(max) = max else {
            self.load.0.fetch_add(BEGUN, Ordering::Relaxed);
            return Some(Assignment { server: self.clone(), is_session: false, is_limited: false });
        };
        let one_more = |load| (load & LIVE < u64::from(max.get())).then_some(load + BEGUN);
        self.load.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).ok()?;
        Some(Assignment { server: self.clone(), is_session: false, is_limited: true })
    }

    /// A session that lives already is at it. `is_limited`: others may wait for its end.
    pub(crate) fn adopt(self: &Arc<Self>, is_limited: bool) -> Assignment {
        self.load.0.fetch_add(1, Ordering::Relaxed);
        Assignment { server: self.clone(), is_session: false, is_limited }
    }

    /// It may have requests.
    #[must_use]
    pub(crate) fn is_up(&self, now: impl Fn() -> Duration) -> bool {
        match self.flags.load(Ordering::Relaxed) {
            0 => true,
            EJECTED => {
                let now = now();
                let over = millis(now) >= self.ejected_until.load(Ordering::Relaxed);
                if over {
                    self.flags.fetch_and(!EJECTED, Ordering::Relaxed);
                    self.back(now);
                }
                over
            }
            _ => false,
        }
    }

    /// How much of its weight counts, in 1/64: it grows over `slow_start` after it has come back.
    #[must_use]
    pub(crate) fn warmth(&self, slow_start: Duration, now: Duration) -> u32 {
        const WHOLE: u32 = 64;
        let since = self.back_since.load(Ordering::Relaxed);
        let age = millis(now).saturating_sub(since);
        if since == 0 || age >= millis(slow_start) {
            return WHOLE;
        }
        let part = age * u64::from(WHOLE) / millis(slow_start).max(1);
        u32::try_from(part).unwrap_or(WHOLE).max(WHOLE / 16)
    }

    /// An operator has drained it, or has taken that back.
    pub(crate) fn set_drained(&self, is_drained: bool, now: Duration) {
        if is_drained {
            self.flags.fetch_or(DRAINED, Ordering::Relaxed);
        } else if self.flags.fetch_and(!DRAINED, Ordering::Relaxed) & DRAINED != 0 {
            self.back(now);
        }
    }

    /// An operator has drained it.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & DRAINED != 0
    }

    /// Probes find it down.
    #[must_use]
    pub(crate) fn is_down(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & DOWN != 0
    }

    /// Its name leads to it, or no longer. Returns whether that has changed.
    pub(crate) fn set_left(&self, has_left: bool, now: Duration) -> bool {
        if has_left {
            return self.flags.fetch_or(LEFT, Ordering::Relaxed) & LEFT == 0;
        }
        let has_changed = self.flags.fetch_and(!LEFT, Ordering::Relaxed) & LEFT != 0;
        if has_changed {
            self.back(now);
        }
        has_changed
    }

    /// Its name no longer leads to it.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & LEFT != 0
    }

    fn back(&self, now: Duration) {
        self.back_since.store(millis(now).max(1), Ordering::Relaxed);
        self.freed.notify_all();
    }

    /// It has failed a request. Returns for how long it is to be ejected, if `passive` says so.
    pub(crate) fn failed(
        &self,
        cause: &dyn fmt::Display,
        passive: Option<&Passive>,
        now: Duration,
    ) -> Option<Duration> {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.is_failing.store(true, Ordering::Relaxed);
        let mut known = self.known();
        known.cause = Some(cause.to_string().into());
        known.failures.failed(passive?, now)
    }

    /// It has answered a request.
    pub(crate) fn succeeded(&self) {
        if self.is_failing.load(Ordering::Relaxed) {
            self.is_failing.store(false, Ordering::Relaxed);
            self.known().failures.succeeded();
        }
    }

    /// It gets nothing until `until`.
    pub(crate) fn eject(&self, until: Duration) {
        self.ejected_until.store(millis(until), Ordering::Relaxed);
        self.flags.fetch_or(EJECTED, Ordering::Relaxed);
    }

    /// A probe has ended. Returns whether the server is down, if that has changed.
    pub(crate) fn probed(&self, probe: &Probe, problem: Option<Box<str>>, now: Duration) -> Option<bool> {
        let mut known = self.known();
        let changed = known.streak.probed(probe, problem.is_none());
        known.probe = Some(LastProbe { at: now, problem });
        drop(known);
        match changed {
            Some(true) => drop(self.flags.fetch_or(DOWN, Ordering::Relaxed)),
            Some(false) => self.unprobed(now),
            None => {}
        }
        changed
    }

    /// What probes have found counts no longer.
    pub(crate) fn unprobed(&self, now: Duration) {
        if self.flags.fetch_and(!DOWN, Ordering::Relaxed) & DOWN != 0 {
            self.back(now);
        }
    }

    /// Forgets all probes: there are none any more.
    pub(crate) fn forget_probes(&self, now: Duration) {
        let mut known = self.known();
        (known.streak, known.probe) = (Streak::default(), None);
        drop(known);
        self.unprobed(now);
    }

    /// How it is: `up`, `down`, `ejected`, `drained` or `left`.
    #[must_use]
    pub fn state(&self, now: Duration) -> &'static str {
        match self.flags.load(Ordering::Relaxed) {
            flags if flags & LEFT != 0 => "left",
            flags if flags & DRAINED != 0 => "drained",
            flags if flags & DOWN != 0 => "down",
            flags if flags & EJECTED != 0 && self.ejected_for(now) > Duration::ZERO => "ejected",
            _ => "up",
        }
    }

    fn ejected_for(&self, now: Duration) -> Duration {
        Duration::from_millis(self.ejected_until.load(Ordering::Relaxed)).saturating_sub(now)
    }

    /// Why it is so; `None`: there is nothing to say.
    #[must_use]
    pub fn why(&self, now: Duration) -> Option<String> {
        let known = self.known();
        match self.state(now) {
            "left" => Some("its name leads elsewhere now".to_owned()),
            "drained" => Some("drained by order".to_owned()),
            "down" => known.probe.as_ref().and_then(|probe| probe.problem.clone()).map(Into::into),
            "ejected" => {
                let cause = known.cause.as_deref().unwrap_or("it failed requests");
                Some(format!("for {} s more: {cause}", self.ejected_for(now).as_secs() + 1))
            }
            _ => None,
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A request or a session that counts at its server until this is dropped.
#[derive(Debug)]
pub struct Assignment {
    server: Arc<ServerState>,
    is_session: bool,
    /// Others may wait for its end.
    is_limited: bool,
}

impl Assignment {
    /// At a server that is not known here yet: a session has come from another process.
    pub(crate) fn elsewhere(endpoint: Endpoint) -> Self {
        let state = ServerState::new(Arc::new(endpoint), Arc::default(), Arc::default(), Duration::ZERO);
        Arc::new(state).adopt(false)
    }

    /// The server.
    #[must_use]
    pub fn server(&self) -> &Arc<ServerState> {
        &self.server
    }

    /// How it is reached.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.server.endpoint
    }

    /// It is a session from now on.
    pub(crate) fn opened(&mut self) {
        if !std::mem::replace(&mut self.is_session, true) {
            self.server.sessions.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Assignment {
    fn drop(&mut self) {
        if self.is_session {
            self.server.sessions.fetch_sub(1, Ordering::Relaxed);
        }
        self.server.load.0.fetch_sub(1, Ordering::SeqCst);
        if self.is_limited {
            self.server.freed.notify_one();
        }
    }
}
