//! The end: of sessions whose route has gone, and of the gateway.

use std::cmp::Reverse;
use std::time::Duration;

use frame_core::handle::{EndMode, Order};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};

use super::signals::{Arrived, Ending, Signals};
use crate::context::registry::Entry;
use crate::ops::overview::{LifecycleStage, Overview};
use crate::site::Drain;
use crate::worker::{Command, Handle};

/// Sessions that have not ended in time get a Close anyway if they are between two frames,
/// so long before they are cut.
const LAST_CALL: Duration = Duration::from_secs(2);
/// After the cut, for what was written last to reach the network.
pub(super) const CUT_WAIT: Duration = Duration::from_secs(3);

/// When sessions that end together get their orders, and by when they have ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct DrainPace {
    /// The moments are spread uniformly over it: clients that are all sent away at once come back all at
    /// once.
    pub(super) window: Duration,
    /// Messages that are still open then are waited for no longer; at the end of the window at the earliest.
    pub(super) timeout: Duration,
    /// The close code.
    pub(super) code: u16,
    /// A server goes, and not what leads to it: sessions that outlive their servers are only told to leave it.
    pub(super) moves: bool,
}

/// Orders the chosen sessions to end. Returns how many there are that had no order before.
///
/// `chosen` is asked at each moment, and whenever `changed` says that it may choose otherwise: a route that
/// has come back keeps its sessions, but for those that have their order already, also when it goes again later:
/// that is another order, with moments of its own.
pub(super) fn end_sessions(
    workers: &[Handle],
    pace: DrainPace,
    mut changed: watch::Receiver<()>,
    chosen: impl Fn(&Entry) -> bool + Send + 'static,
) -> usize {
    let DrainPace { window, timeout, code, moves } = pace;
    let now = Instant::now();
    let last = now + timeout.max(window);
    let mut moments: Vec<(Instant, Entry)> = workers
        .iter()
        .flat_map(|worker| worker.sessions.select(&chosen))
        .map(|entry| (now + window.mul_f64(rand::random::<f64>()), entry))
        .collect();
    let count = moments.iter().filter(|(_, entry)| entry.handle.order().is_none()).count();
    moments.sort_by_key(|(moment, ..)| Reverse(*moment));
    changed.mark_unchanged();
    tokio::spawn(async move {
        while let Some((moment, ..)) = moments.last() {
            tokio::select! {
                biased;
                Ok(()) = changed.changed() => moments.retain(|(_, entry)| chosen(entry)),
                () = sleep_until(*moment) => {
                    let Some((_, entry)) = moments.pop() else { break };
                    if !chosen(&entry) {
                        continue;
                    }
                    if moves && entry.who.redial.status().is_some() {
                        entry.handle.redial();
                    } else {
                        let within = last.saturating_duration_since(Instant::now());
                        entry.handle.end(Order { code, mode: EndMode::AfterMessages { within } });
                    }
                }
            }
        }
    });
    count
}

/// Ends the gateway: in order, unless a second signal comes. Then what is left is cut, and its lines in the log are
/// waited for.
pub(super) async fn drain(
    workers: &[Handle],
    overview: &Overview,
    signals: &mut Signals,
    mut remaining: Remaining,
    ending: Ending,
) -> Ending {
    let ending = drain_in_order(workers, overview, signals, &mut remaining, ending).await;
    if ending == Ending::Hurried {
        cut(workers, &mut remaining).await;
    }
    ending
}

/// Cuts all connections.
async fn cut(workers: &[Handle], remaining: &mut Remaining) {
    for worker in workers {
        let _ = worker.commands.send(Command::Cut);
    }
    let _ = timeout(CUT_WAIT, remaining.none()).await;
}

/// Ends the gateway in order: first, for `drain_delay`, it only says that it is not ready; then
/// nothing more is accepted, HTTP/2 gets GOAWAY, HTTP/1.1 ends after the request in flight,
/// WebSockets get a Close; what is left at the deadline is cut.
async fn drain_in_order(
    workers: &[Handle],
    overview: &Overview,
    signals: &mut Signals,
    remaining: &mut Remaining,
    ending: Ending,
) -> Ending {
    let Drain { delay, window, timeout, close_code: code } = overview.site.load().drain;
    // A gateway that accepts nothing has nothing to wait for.
    let retired = overview.stage() == LifecycleStage::Retired;
    let delay = if retired { Duration::ZERO } else { delay };
    let deadline = Instant::now() + timeout;
    let hurried = || {
        warn!(sessions = overview.live(), "second signal: the gateway ends at once");
        Ending::Hurried
    };
    if !delay.is_zero() {
        overview.enter(LifecycleStage::Leaving);
        info!(
            drain_delay_s = delay.as_secs_f64(),
            "about to drain: not ready any more, but connections are still accepted; SIGINT ends the gateway at once"
        );
        tokio::select! {
            () = sleep(delay) => {}
            () = second(signals, retired) => return hurried(),
            () = remaining.fewer() => {} // the other workers drain as usual
        }
    }
    overview.enter(LifecycleStage::Draining);
    for worker in workers {
        let _ = worker.commands.send(Command::Drain);
    }
    // A window that doesn't fit before the deadline would turn closes into cuts.
    let half = (timeout - delay) / 2;
    let window = window.min(half);
    // Nothing takes this order back.
    let (_, never) = watch::channel(());
    let pace = DrainPace { window, timeout: timeout - delay, code, moves: false };
    let sessions = end_sessions(workers, pace, never, |_| true);
    info!(
        sessions,
        drain_timeout_s = timeout.as_secs_f64(),
        drain_window_s = window.as_secs_f64(),
        close_code = code,
        "draining: no new connections are accepted; SIGINT ends the gateway at once"
    );
    tokio::select! {
        () = remaining.none() => {
            info!("drained: the last connection has ended");
            return ending;
        }
        () = second(signals, retired) => return hurried(),
        () = sleep_until(deadline - LAST_CALL.min(half)) => {}
    }
    for entry in workers.iter().flat_map(|worker| worker.sessions.select(|_| true)) {
        entry.handle.end(Order { code, mode: EndMode::Now });
    }
    tokio::select! {
        () = remaining.none() => info!("drained: the last connection has ended"),
        () = second(signals, retired) => return hurried(),
        () = sleep_until(deadline) => {
            warn!(sessions = overview.live(), "drain_timeout: the connections that are left are cut");
            cut(workers, remaining).await;
        }
    }
    ending
}

/// The next signal to end. When the main process has ended, systemd sends SIGTERM once more to what is
/// left of the service: one that has been taken over, and got the first SIGTERM.
async fn second(signals: &mut Signals, retired: bool) {
    loop {
        match signals.next().await {
            Arrived::Hangup => warn!("SIGHUP has no effect: the gateway is draining"),
            Arrived::Takeover => warn!("SIGUSR2 refused: the gateway is draining"),
            Arrived::Ending(Ending::Terminated) if retired => {}
            Arrived::Ending(_) => return,
        }
    }
}

/// The workers that have not ended yet.
pub(super) struct Remaining {
    ended: mpsc::Receiver<()>,
    count: usize,
}

impl Remaining {
    /// `ended` says so for each of `count` workers.
    pub(super) fn new(ended: mpsc::Receiver<()>, count: usize) -> Self {
        Self { ended, count }
    }

    /// Waits for the end of every worker's thread.
    ///
    /// # Cancel safety
    /// Safe: who has ended stays counted.
    pub(super) async fn none(&mut self) {
        while self.count > 0 {
            self.fewer().await;
        }
    }

    /// Waits for the end of one more worker.
    ///
    /// # Cancel safety
    /// Safe, as above.
    async fn fewer(&mut self) {
        self.count = if self.ended.recv().await.is_some() { self.count.saturating_sub(1) } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::config::Config;
    use crate::context::redial::SessionRedial;
    use crate::context::registry::{Registered, Registry, SessionOpener};

    fn who() -> SessionOpener {
        SessionOpener {
            peer: (Ipv4Addr::LOCALHOST, 1).into(),
            client: Ipv4Addr::LOCALHOST.into(),
            protocol: "HTTP/1.1",
            started: Instant::now(),
            stays: None,
            server: None,
            identity: None,
            redial: SessionRedial::Off,
        }
    }

    fn worker(sessions: &Arc<Registry>) -> Handle {
        Handle {
            commands: mpsc::unbounded_channel().0,
            sessions: sessions.clone(),
            accepted: Arc::default(),
            counts: Arc::default(),
            http2: Arc::default(),
            pressure: Arc::default(),
            tasks: tokio_util::task::TaskTracker::new(),
            under_way: Arc::default(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_route_that_comes_back_keeps_the_sessions_that_were_not_ordered_to_end_yet() {
        let text = "[[route]]\npath = \"/\"\nservice = \"echo\"\n";
        let (config, _) = Config::parse(Path::new("wssgate.toml"), text);
        let sessions = Arc::new(Registry::new(0, 1));
        let live: Vec<_> = (0..100).map(|_| sessions.register(&config.routes[0], who())).collect();
        let ordered = || live.iter().filter(|session| session.handle().order().is_some()).count();
        let gone = Arc::new(AtomicBool::new(true));
        let is_gone = |gone: &Arc<AtomicBool>| {
            let gone = gone.clone();
            move |_: &Entry| gone.load(Ordering::SeqCst)
        };
        let workers = [worker(&sessions)];
        let window = Duration::from_secs(10);
        let pace = DrainPace { window, timeout: Duration::from_secs(30), code: 1001, moves: false };
        let (changes, changed) = watch::channel(());
        let end = || end_sessions(&workers, pace, changed.clone(), is_gone(&gone));
        assert_eq!(end(), 100);
        sleep(window / 2).await;
        gone.store(false, Ordering::SeqCst);
        let by_then = ordered();
        assert!((1..100).contains(&by_then), "{by_then}");
        sleep(window).await;
        assert_eq!(ordered(), by_then);
        // Gone again: the rest follows.
        gone.store(true, Ordering::SeqCst);
        assert_eq!(end(), 100 - by_then);
        sleep(window).await;
        assert_eq!(ordered(), 100);
        let in_time = |session: &Registered| match session.handle().order().map(|order| order.mode) {
            Some(EndMode::AfterMessages { within }) => {
                (pace.timeout - window..=pace.timeout).contains(&within)
            }
            _ => false,
        };
        assert!(live.iter().all(in_time), "each is to have ended by the timeout");
        drop(changes);
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_that_was_taken_back_does_not_speed_up_the_next() {
        let text = "[[route]]\npath = \"/\"\nservice = \"echo\"\n";
        let (config, _) = Config::parse(Path::new("wssgate.toml"), text);
        let sessions = Arc::new(Registry::new(0, 1));
        let live: Vec<_> = (0..100).map(|_| sessions.register(&config.routes[0], who())).collect();
        let ordered = || live.iter().filter(|session| session.handle().order().is_some()).count();
        let workers = [worker(&sessions)];
        let gone = Arc::new(AtomicBool::new(true));
        let (changes, changed) = watch::channel(());
        let end = |window| {
            let gone = gone.clone();
            let pace = DrainPace { window, timeout: 2 * window, code: 1001, moves: false };
            end_sessions(&workers, pace, changed.clone(), move |_| gone.load(Ordering::SeqCst))
        };
        let second = Duration::from_secs(1);
        end(100 * second);
        tokio::task::yield_now().await; // it waits
        let before = ordered();
        gone.store(false, Ordering::SeqCst);
        changes.send_replace(());
        tokio::task::yield_now().await;
        gone.store(true, Ordering::SeqCst);
        end(100_000 * second);
        sleep(100 * second).await;
        assert!(ordered() - before < 10, "{}: the first order still ends sessions", ordered() - before);
        sleep(100_000 * second).await;
        assert_eq!(ordered(), 100);
    }
}
