//! What goes on beside serving, one thing at a time, and what waits for its turn.

use std::time::Instant;

use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinHandle};
use tracing::{info, warn};

use super::load::{Candidate, ConfigSource};
use super::upgrade::old::{self, Successor, Takeover, TakeoverError};
use crate::config::Problems;
use crate::ops::control::protocol::ControlResponse;

/// Where the result of a reload is sent.
pub(super) type Asker = oneshot::Sender<ControlResponse>;

/// What is going on beside serving: one thing at a time.
pub(super) enum Work {
    Nothing,
    /// A reload whose files are being read, on a thread that may block.
    Reload {
        candidate: JoinHandle<Result<Result<Candidate, Problems>, JoinError>>,
        started: Instant,
        askers: Vec<Asker>,
    },
    /// A new process that isn't ready yet.
    Takeover(Takeover),
}

#[expect(clippy::large_enum_variant, reason = "there is one, for a moment")]
pub(super) enum Done {
    Reload(Read),
    Takeover(Result<Successor, TakeoverError>, Instant),
}

/// A reload whose files have been read.
pub(super) struct Read {
    pub(super) candidate: Result<Result<Candidate, Problems>, JoinError>,
    pub(super) started: Instant,
    pub(super) askers: Vec<Asker>,
}

/// What has been asked for while something else was going on. Several of a kind are one.
#[derive(Default)]
pub(super) struct Wanted {
    pub(super) reload: bool,
    /// Where its result is sent.
    pub(super) askers: Vec<Asker>,
    pub(super) takeover: bool,
}

impl Wanted {
    pub(super) fn reload(&mut self, work: &Work) {
        if matches!(work, Work::Takeover(_)) {
            info!("SIGHUP waits: a takeover is in progress");
        }
        self.reload = true;
    }

    pub(super) fn takeover(&mut self, work: &Work, source: &ConfigSource) {
        let is_going_on = matches!(work, Work::Takeover(_));
        match old::refusal(std::process::id(), source, is_going_on) {
            Some(why) => warn!("SIGUSR2 refused: {why}"),
            None => {
                if matches!(work, Work::Reload { .. }) {
                    info!("SIGUSR2 waits: a reload is in progress");
                }
                self.takeover = true;
            }
        }
    }
}

impl Work {
    /// When it is done; never, if there is none.
    ///
    /// # Cancel safety
    /// Safe; not to be asked again after it has answered.
    pub(super) async fn done(&mut self) -> Done {
        match self {
            Self::Nothing => std::future::pending().await,
            Self::Reload { candidate, started, askers } => {
                let candidate = candidate.await.flatten();
                Done::Reload(Read { candidate, started: *started, askers: std::mem::take(askers) })
            }
            Self::Takeover(takeover) => Done::Takeover(takeover.finished().await, takeover.started),
        }
    }
}
