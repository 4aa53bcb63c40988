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
pub(super) fn end_sessions(workers: &[Handle], window: Duration, chosen: impl Fn(&Route) -> bool) -> usize {
    let now = Instant::now();
    let mut moments: Vec<(Instant, Control)> = workers
        .iter()
        .flat_map(|worker| worker.sessions.select(&chosen))
        .filter(|control| control.order().is_none())
        .map(|control| (now + window.mul_f64(rand::random::<f64>()), control))
        .collect();
    moments.sort_by_key(|(moment, _)| *moment);
    let count = moments.len();
    tokio::spawn(async move {
        for (moment, control) in moments {
            sleep_until(moment).await;
            control.end(Order { code: GOING_AWAY, manner: Manner::AfterMessages });
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
    for control in workers.iter().flat_map(|worker| worker.sessions.select(|_| true)) {
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
