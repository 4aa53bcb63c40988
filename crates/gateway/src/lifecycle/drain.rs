//! The end: of sessions whose route has gone, and of the gateway.

use std::sync::Arc;
use std::time::Duration;

use frame_core::control::{Control, Manner, Order};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{info, warn};

use super::signals::{Ending, Signals};
use crate::route::Route;
use crate::site::Site;
use crate::worker::{Command, GOING_AWAY, Handle};

/// Sessions that have not ended in time get a Close all the same if they stand between two frames,
/// so long before they are cut.
const LAST_CALL: Duration = Duration::from_secs(2);
/// After the cut, for what was written last to reach the network.
const CUT_WAIT: Duration = Duration::from_secs(3);

/// Orders sessions of the chosen routes to end, at moments spread uniformly over `window`: clients
/// that are all sent away at once come back all at once. Returns how many there are.
///
/// `chosen` is asked again at each moment: a route that has come back keeps its sessions, but for
/// those that were told already.
pub(super) fn end_sessions(
    workers: &[Handle],
    window: Duration,
    chosen: impl Fn(&Route) -> bool + Send + 'static,
) -> usize {
    let now = Instant::now();
    let mut moments: Vec<(Instant, Control, Arc<Route>)> = workers
        .iter()
        .flat_map(|worker| worker.sessions.select(&chosen))
        .filter(|(control, _)| control.order().is_none())
        .map(|(control, route)| (now + window.mul_f64(rand::random::<f64>()), control, route))
        .collect();
    moments.sort_by_key(|(moment, ..)| *moment);
    let count = moments.len();
    tokio::spawn(async move {
        for (moment, control, route) in moments {
            sleep_until(moment).await;
            if chosen(&route) {
                control.end(Order { code: GOING_AWAY, manner: Manner::AfterMessages });
            }
        }
    });
    count
}

/// Ends the gateway in order: nothing more is accepted, HTTP/2 gets GOAWAY, HTTP/1.1 ends after the
/// request in flight, WebSockets get Close 1001; what is left at the deadline is cut.
pub(super) async fn drain(
    workers: &[Handle],
    site: &Arc<Site>,
    signals: &mut Signals,
    ended: mpsc::Receiver<()>,
    ending: Ending,
) -> Ending {
    let deadline = Instant::now() + site.drain_timeout;
    let mut remaining = Remaining { ended, count: workers.len() };
    for worker in workers {
        let _ = worker.commands.send(Command::Drain);
    }
    // A window that doesn't fit before the deadline would turn closes into cuts.
    let window = site.drain_window.min(site.drain_timeout / 2);
    let sessions = end_sessions(workers, window, |_| true);
    info!(
        sessions,
        drain_timeout_s = site.drain_timeout.as_secs_f64(),
        drain_window_s = window.as_secs_f64(),
        "draining: nothing more is accepted; a second signal ends it at once"
    );
    let last_call = deadline - LAST_CALL.min(site.drain_timeout / 2);
    tokio::select! {
        () = remaining.none() => {
            info!("drained: nothing is left");
            return ending;
        }
        _ = signals.ending() => {
            warn!(sessions = live(workers), "a second signal: ended at once");
            return Ending::Hurried;
        }
        () = sleep_until(last_call) => {}
    }
    for (control, _) in workers.iter().flat_map(|worker| worker.sessions.select(|_| true)) {
        control.end(Order { code: GOING_AWAY, manner: Manner::Now });
    }
    tokio::select! {
        () = remaining.none() => info!("drained: nothing is left"),
        _ = signals.ending() => {
            warn!(sessions = live(workers), "a second signal: ended at once");
            return Ending::Hurried;
        }
        () = sleep_until(deadline) => {
            warn!(sessions = live(workers), "drain_timeout: what is left is cut");
            for worker in workers {
                let _ = worker.commands.send(Command::Cut);
            }
            let _ = timeout_at(deadline + CUT_WAIT, remaining.none()).await;
        }
    }
    ending
}

/// The workers that have not ended yet.
struct Remaining {
    ended: mpsc::Receiver<()>,
    count: usize,
}

impl Remaining {
    /// Waits for the end of every worker's thread.
    ///
    /// # Cancel safety
    /// Safe: who has ended stays counted.
    async fn none(&mut self) {
        while self.count > 0 && self.ended.recv().await.is_some() {
            self.count -= 1;
        }
    }
}

fn live(workers: &[Handle]) -> usize {
    workers.iter().map(|worker| worker.sessions.len()).sum()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::time::sleep;

    use super::*;
    use crate::config::Config;
    use crate::registry::Registry;

    #[tokio::test(start_paused = true)]
    async fn a_route_that_comes_back_keeps_the_sessions_that_were_not_told_yet() {
        let text = "[[route]]\npath = \"/\"\nservice = \"echo\"\n";
        let (config, _) = Config::parse(Path::new("wssgate.toml"), text);
        let sessions = Arc::<Registry>::default();
        let live: Vec<_> = (0..100).map(|_| sessions.register(&config.routes[0])).collect();
        let told = || live.iter().filter(|session| session.control().order().is_some()).count();
        let worker = Handle {
            commands: mpsc::unbounded_channel().0,
            sessions: sessions.clone(),
            thread: std::thread::spawn(|| {}),
        };
        let gone = Arc::new(AtomicBool::new(true));
        let is_gone = |gone: &Arc<AtomicBool>| {
            let gone = gone.clone();
            move |_: &Route| gone.load(Ordering::SeqCst)
        };
        let workers = [worker];
        let window = Duration::from_secs(10);
        assert_eq!(end_sessions(&workers, window, is_gone(&gone)), 100);
        sleep(window / 2).await;
        gone.store(false, Ordering::SeqCst);
        let by_then = told();
        assert!((1..100).contains(&by_then), "{by_then}");
        sleep(window).await;
        assert_eq!(told(), by_then);
        // Gone again: the rest follows.
        gone.store(true, Ordering::SeqCst);
        assert_eq!(end_sessions(&workers, window, is_gone(&gone)), 100 - by_then);
        sleep(window).await;
        assert_eq!(told(), 100);
    }
}
