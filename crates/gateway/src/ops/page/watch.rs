//! Looks at the live sessions: every 15 seconds for the history, and more often while there are viewers.
//!
//! A look asks every session what it has carried, which wakes it: 4,000 sessions a second at most, however
//! many viewers and sessions there are. All viewers see the same look.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use net_io::unix_now;
use tokio::sync::{Mutex, Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::ops::control::ask::{self, SESSIONS_AT_ONCE, ask};
use crate::ops::control::protocol::SessionInfo;
use crate::ops::ends::{Carried, EndCounts};
use crate::ops::overview::Overview;
use crate::ops::page::history::{Change, History, SLOT_SECS};

/// From look to look for viewers, if there are few sessions.
pub(crate) const LIVE_INTERVAL: Duration = Duration::from_secs(2);
/// From look to look for the history.
const HISTORY_INTERVAL: Duration = Duration::from_secs(SLOT_SECS);
/// How long nothing is asked between two groups of sessions: 4,000 a second are asked at most.
const PAUSE: Duration = Duration::from_millis(64);

/// What looks. Shared by the page and its viewers.
#[derive(Debug)]
pub(crate) struct Watch {
    overview: Arc<Overview>,
    state: Mutex<State>,
    latest: watch::Sender<Arc<Look>>,
    viewers: AtomicUsize,
    /// Requests that wait for a look.
    waiting: AtomicUsize,
    /// There is a first viewer.
    wanted: Notify,
}

/// What is needed for the next look.
#[derive(Debug)]
struct State {
    begun: Instant,
    /// When the last look began, and when it was over.
    at: Option<Instant>,
    over: Option<Instant>,
    history: History,
}

/// The gateway's sessions at one moment.
#[derive(Debug, Default)]
pub(crate) struct Look {
    /// Counts looks.
    pub(crate) number: u64,
    /// When, in seconds of Unix time.
    pub(crate) at: i64,
    /// All of them, the oldest first; none if the look was for the history alone.
    pub(crate) sessions: Vec<SessionRow>,
    /// What each route moves a second.
    pub(crate) rates: BTreeMap<String, Rates>,
    /// The last 15 minutes.
    pub(crate) history: History,
}

/// A session, and what it moves.
#[derive(Debug, Clone)]
pub(crate) struct SessionRow {
    /// What is known of it.
    pub(crate) info: SessionInfo,
    /// Since the look before.
    pub(crate) rates: Rates,
}

/// What moves a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub(crate) struct Rates {
    /// Whole messages, both ways.
    pub(crate) messages: f64,
    /// Payload from clients, in bytes.
    pub(crate) received_bytes: f64,
    /// Payload to clients, in bytes.
    pub(crate) sent_bytes: f64,
}

impl Rates {
    fn new(moved: Carried, elapsed: Duration) -> Self {
        let secs = elapsed.as_secs_f64();
        let rate = |count: u64| if secs > 0.0 { count as f64 / secs } else { 0.0 };
        Self {
            messages: rate(moved.messages),
            received_bytes: rate(moved.received_bytes),
            sent_bytes: rate(moved.sent_bytes),
        }
    }

    /// Payload both ways, in bytes a second.
    #[must_use]
    pub(crate) fn bytes(self) -> f64 {
        self.received_bytes + self.sent_bytes
    }
}

/// Looks are taken for this viewer as long as it lives.
#[derive(Debug)]
pub(crate) struct Viewer(Arc<Watch>);

impl Watch {
    /// The history begins with [`Self::run`].
    #[must_use]
    pub(crate) fn new(overview: Arc<Overview>) -> Arc<Self> {
        let begun = Instant::now();
        let state = State { begun, at: None, over: None, history: History::default() };
        Arc::new(Self {
            overview,
            state: Mutex::new(state),
            latest: watch::channel(Arc::default()).0,
            viewers: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            wanted: Notify::new(),
        })
    }

    /// Looks for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        let _noted = self.overview.ends.watch();
        loop {
            let begun = Instant::now();
            self.look(true).await;
            let next = begun + if self.has_viewers() { self.interval() } else { HISTORY_INTERVAL };
            tokio::select! {
                () = sleep_until(next) => {}
                () = self.wanted.notified() => sleep_until(next.min(begun + self.interval())).await,
            }
        }
    }

    /// One more who looks all the time.
    #[must_use]
    pub(crate) fn join(self: &Arc<Self>) -> (Viewer, watch::Receiver<Arc<Look>>) {
        if self.viewers.fetch_add(1, Ordering::Relaxed) == 0 {
            self.wanted.notify_one();
        }
        (Viewer(self.clone()), self.latest.subscribe())
    }

    /// A look with its sessions that is not old; takes one if there is none.
    pub(crate) async fn fresh(&self) -> Arc<Look> {
        let is_new = |state: &State| state.over.is_some_and(|at| at.elapsed() < self.interval());
        let waiting = Waiting::new(&self.waiting); // a look that is under way makes haste
        let mut state = self.state.lock().await;
        drop(waiting);
        let latest = self.latest.borrow().clone();
        let has_sessions = !latest.sessions.is_empty() || self.overview.live() == 0;
        if latest.number == 0 || !is_new(&state) || !has_sessions {
            self.look_from(&mut state, false, true).await;
        }
        self.latest.borrow().clone()
    }

    fn has_viewers(&self) -> bool {
        self.viewers.load(Ordering::Relaxed) > 0
    }

    /// The shortest time from look to look.
    fn interval(&self) -> Duration {
        let groups = u32::try_from(self.overview.live() / SESSIONS_AT_ONCE).unwrap_or(u32::MAX);
        LIVE_INTERVAL.max(PAUSE.saturating_mul(groups))
    }

    async fn look(&self, is_calm: bool) {
        let mut state = self.state.lock().await;
        self.look_from(&mut state, is_calm, self.has_viewers()).await;
    }

    /// Asks all sessions. `is_calm`: not all at once. `is_whole`: viewers want to see them.
    async fn look_from(&self, state: &mut State, is_calm: bool, is_whole: bool) {
        let begun = Instant::now();
        let elapsed = state.at.map_or(Duration::ZERO, |at| begun.duration_since(at));
        let ends = &self.overview.ends;
        let mut sessions = Vec::new();
        let mut changes: BTreeMap<String, Change> = BTreeMap::new();
        let ids = ask::ids(&self.overview);
        for (n, ids) in ids.chunks(SESSIONS_AT_ONCE).enumerate() {
            if is_calm && n > 0 && self.waiting.load(Ordering::Relaxed) == 0 {
                sleep(PAUSE).await;
            }
            for info in ask(&self.overview, ids).await {
                let now = info.traffic.as_ref().map(|traffic| Carried {
                    messages: traffic.received_messages + traffic.sent_messages,
                    received_bytes: traffic.received_bytes,
                    sent_bytes: traffic.sent_bytes,
                });
                let moved = ends.moved(info.id, Duration::from_millis(info.age_ms), now);
                let change = match changes.get_mut(&info.route) {
                    Some(change) => change,
                    None => changes.entry(info.route.clone()).or_default(),
                };
                change.sessions += 1;
                change.carried.add(moved);
                if is_whole {
                    sessions.push(SessionRow { rates: Rates::new(moved, elapsed), info });
                }
            }
        }
        let site = self.overview.site.load_full();
        for (route, EndCounts { normal, abnormal, carried }) in ends.take() {
            let change = changes.entry(site.hidden.hide(route.as_str())).or_default();
            change.normal += normal;
            change.abnormal += abnormal;
            change.carried.add(carried);
        }
        ends.settle(begun, &ask::ids(&self.overview).into_iter().collect());
        (state.at, state.over) = (Some(begun), Some(Instant::now()));
        let now_secs = begun.duration_since(state.begun).as_secs();
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        state.history.add(now_secs, elapsed_ms, &changes);
        let rates = changes.into_iter().map(|(route, change)| (route, Rates::new(change.carried, elapsed)));
        let look = Look {
            number: self.latest.borrow().number + 1,
            at: unix_now(),
            sessions,
            rates: rates.collect(),
            history: state.history.clone(),
        };
        self.latest.send_replace(Arc::new(look));
    }
}

/// A request waits for a look as long as this lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.0.viewers.fetch_sub(1, Ordering::Relaxed);
    }
}
