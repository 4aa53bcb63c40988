//! Sessions on their way to another process: where those go that have frozen.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::task::task_tracker::TaskTrackerToken;
use zeroize::Zeroizing;

use crate::context::registry::Registered;

/// A session that no task runs: nothing is read from its sockets or written to them.
pub struct FrozenSession {
    /// The client's socket and the backend's.
    pub sockets: [OwnedFd; 2],
    /// All that is to be known of it, with its secrets.
    pub state: Zeroizing<Vec<u8>>,
    /// It is still this process's.
    pub registered: Registered,
    /// Its worker doesn't end meanwhile: it may have to go back.
    pub task: TaskTrackerToken,
}

/// A session that another process has sent.
pub(crate) struct ArrivingSession {
    /// Among those that came with it.
    pub place: usize,
    /// The client's socket and the backend's.
    pub sockets: [OwnedFd; 2],
    /// All that is to be known of it, with its secrets.
    pub state: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for FrozenSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrozenSession").field("id", &self.registered.id()).finish_non_exhaustive()
    }
}

impl fmt::Debug for ArrivingSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArrivingSession").field("place", &self.place).finish_non_exhaustive()
    }
}

/// Where sessions go when they have frozen: nowhere, unless another process takes over.
#[derive(Debug, Default)]
pub struct Transit(Mutex<Option<mpsc::UnboundedSender<FrozenSession>>>);

impl Transit {
    /// From now on frozen sessions come out here.
    #[must_use]
    pub fn open(&self) -> mpsc::UnboundedReceiver<FrozenSession> {
        let (to, from) = mpsc::unbounded_channel();
        *self.lock() = Some(to);
        from
    }

    /// No more come. Those that are on their way are still received; behind the last is the end.
    pub fn close(&self) {
        *self.lock() = None;
    }

    /// Where a session that has frozen is to be sent at once; `None`: it goes on.
    pub(crate) fn handover(&self) -> Option<mpsc::UnboundedSender<FrozenSession>> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<mpsc::UnboundedSender<FrozenSession>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time of the machine, which counts on from process to process.
#[must_use]
pub(crate) fn machine_time() -> Duration {
    rustix::time::clock_gettime(rustix::time::ClockId::Monotonic).try_into().unwrap_or_default()
}
