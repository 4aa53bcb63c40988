//! SIGUSR2, as this process lives it: it starts the program again, and lets it go on in its place.

use std::time::{Duration, Instant};

use tracing::{error, info};

use super::gateway::RunningGateway;
use super::messages::millis;
use super::upgrade::old::{Successor, Takeover, TakeoverError};
use super::upgrade::retire::stop_accepting;
use super::work::Work;

/// The longest that a new gateway may take to become ready.
const START_TIMEOUT: Duration = Duration::from_secs(30);

impl RunningGateway {
    /// Begins to start the program again.
    pub(crate) fn take_over(&self) -> Work {
        let limit = START_TIMEOUT.min(self.site.load().takeover_timeout);
        info!(
            pid = std::process::id(), program = %self.program.path.display(),
            "takeover: starting the new process"
        );
        let drained = self.overview.drained.load().iter().map(ToString::to_string).collect();
        let inheritance =
            self.inherited.inheritance(self.tickets.clone(), drained, self.outside.lend(), self.commands());
        Work::Takeover(Takeover::start(self.program.clone(), limit, inheritance))
    }

    /// Lets the new process go, accepts nothing more, and returns the process id of who does. Nothing
    /// changes if there is none.
    pub(crate) async fn hand_over(
        &mut self,
        result: Result<Successor, TakeoverError>,
        started: Instant,
    ) -> Option<u32> {
        let gone = match result {
            Ok(successor) => successor.go().await.map(|()| successor),
            Err(e) => Err(e),
        };
        let successor = match gone {
            Ok(successor) => successor,
            Err(e) => {
                error!(
                    cause = %e, took_ms = millis(started),
                    "takeover failed: this process continues to serve, and nothing has changed"
                );
                return None;
            }
        };
        stop_accepting(&self.workers, &successor.listeners);
        info!(
            pid = std::process::id(),
            successor = successor.pid,
            successor_version = successor.version,
            sockets = successor.sockets,
            sessions = self.overview.live(),
            takeover_timeout_s = self.site.load().takeover_timeout.as_secs_f64(),
            took_ms = millis(started),
            "handed over: this process accepts no new connections and ends with its last session"
        );
        self.outside.close_admin().await;
        self.notifier.hand_over(successor.pid).await;
        self.outside.close_control(); // before the new process is notified, and takes the path
        Some(successor.pid)
    }
}
