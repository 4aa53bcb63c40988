//! File descriptors in reserve, so that health checks are answered when clients have used up all others: an
//! orchestrator whose check gets no answer ends the process, and every session with it.

use std::io::{self, stderr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::net::shortage::{Shortage, is_shortage};

/// Descriptors in reserve: as many connections can be accepted with them.
const COUNT: usize = 4;
/// How long nothing is accepted after accepting has failed.
const PAUSE: Duration = Duration::from_millis(100);

/// The reserve that all listeners for operators share.
#[derive(Debug, Default)]
pub struct DescriptorReserve(Mutex<Vec<OwnedFd>>);

impl DescriptorReserve {
    /// Takes as many as are missing, if the process may have them.
    fn fill(&self) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while kept.len() < COUNT
            && let Ok(another) = stderr().as_fd().try_clone_to_owned()
        {
            kept.push(another);
        }
    }

    /// Makes room for one, if it can.
    fn give(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().is_some()
    }
}

/// A listener for operators, as far as accepting may fail.
#[derive(Debug)]
pub(crate) struct AcceptRetry {
    reserve: Arc<DescriptorReserve>,
    shortage: Arc<Shortage>,
    /// What the listener is called.
    place: String,
    /// When accepting may be tried again.
    again: Instant,
}

impl AcceptRetry {
    /// For the listener that is called `place`.
    #[must_use]
    pub(crate) fn new(reserve: Arc<DescriptorReserve>, shortage: Arc<Shortage>, place: String) -> Self {
        reserve.fill();
        Self { reserve, shortage, place, again: Instant::now() }
    }

    /// Waits until accepting may be tried again.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn ready(&self) {
        if self.again > Instant::now() {
            sleep_until(self.again).await;
            self.reserve.fill();
        }
    }

    /// A connection was accepted.
    pub(crate) fn accepted(&self) {
        self.shortage.succeeded();
    }

    /// Accepting has failed. If this has made room, it is to be tried at once: others want it, too.
    pub(crate) fn failed(&mut self, error: &io::Error) {
        let is_shortage = is_shortage(error);
        if is_shortage {
            self.shortage.failed(&self.place, error);
        }
        if !is_shortage || !self.reserve.give() {
            self.again = Instant::now() + PAUSE;
        }
    }

    /// A connection has ended: what it had is kept for the next one, before others take it.
    pub(crate) fn freed(&mut self) {
        self.reserve.fill();
        self.again = Instant::now();
    }
}
