//! The old gateway, after a new one has taken over: it accepts nothing, keeps its sessions, and ends
//! with the last.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::lifecycle::drain::{self, Remaining};
use crate::lifecycle::signals::{Arrived, Ending, Signals};
use crate::net::listening::ListenAddress;
use crate::ops::overview::{LifecycleStage, Overview};
use crate::worker::{Command, Handle};

/// Stops accepting, on all sockets at once.
pub(crate) fn stop_accepting(workers: &[Handle], kept: &[ListenAddress]) {
    let kept: Arc<[ListenAddress]> = kept.into();
    for worker in workers {
        let _ = worker.commands.send(Command::Retire { kept: kept.clone() });
    }
}

/// Waits for the last session, `takeover_timeout` at most; then drains. `successor` is the process id
/// of the new gateway.
pub(crate) async fn retire(
    workers: &[Handle],
    overview: &Overview,
    signals: &mut Signals,
    ended: mpsc::Receiver<()>,
    successor: u32,
) -> Ending {
    let deadline = Instant::now() + overview.site.load().takeover_timeout;
    overview.enter(LifecycleStage::Retired);
    let mut remaining = Remaining::new(ended, workers.len());
    loop {
        tokio::select! {
            () = remaining.none() => {
                info!(successor, "retired: the last connection has ended");
                return Ending::TakenOver;
            }
            () = sleep_until(deadline) => {
                warn!(successor, sessions = overview.live(), "takeover_timeout: the sessions that are left are drained");
                return drain::drain(workers, overview, signals, remaining, Ending::TakenOver).await;
            }
            arrived = signals.next() => match arrived {
                Arrived::Hangup => warn!(successor, "SIGHUP refused: this process has handed over and serves only the sessions it has; send it to the new one"),
                Arrived::Takeover => warn!(successor, "SIGUSR2 refused: this process has handed over already; send it to the new one"),
                Arrived::Ending(ending) => {
                    return drain::drain(workers, overview, signals, remaining, ending).await;
                }
            },
        }
    }
}
