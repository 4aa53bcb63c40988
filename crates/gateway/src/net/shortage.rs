//! Out of descriptors, or of memory for sockets: said once, and once more when it is over.

use std::fmt::Display;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

/// When they are all in use, each connection that ends lets one in: only so long without a failure is it over.
const OVER_AFTER: Duration = Duration::from_secs(1);

/// What all listeners of the gateway know of a shortage.
#[derive(Debug, Default)]
pub struct Shortage {
    /// Read at each connection, so outside of the lock.
    lasts: AtomicBool,
    failures: AtomicU64,
    inner: Mutex<Option<Lack>>,
}

#[derive(Debug)]
struct Lack {
    since: Instant,
    failed_last: Instant,
}

impl Shortage {
    /// A connection could not be accepted at `address`.
    pub fn failed(&self, address: impl Display, error: &io::Error) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let lack = inner.get_or_insert_with(|| {
            warn!(
                %address,
                cause = %error,
                "connections can't be accepted and wait in the kernel's queue: raise the limit on open files, or add memory"
            );
            Lack { since: now, failed_last: now }
        });
        lack.failed_last = now;
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.lasts.store(true, Ordering::Relaxed);
    }

    /// How often a connection could not be accepted.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// A connection was accepted.
    pub fn succeeded(&self) {
        if !self.lasts.load(Ordering::Relaxed) {
            return;
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lack) = inner.take_if(|lack| lack.failed_last.elapsed() >= OVER_AFTER) {
            self.lasts.store(false, Ordering::Relaxed);
            let after_s = (lack.failed_last - lack.since).as_secs_f64();
            info!(after_s, "connections are accepted again");
        }
    }
}

/// The operating system is out of descriptors or memory: trying again at once would only spin.
#[must_use]
pub(crate) fn is_shortage(e: &io::Error) -> bool {
    const ENOMEM: i32 = 12;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ENOBUFS: i32 = 105;
    matches!(e.raw_os_error(), Some(ENOMEM | ENFILE | EMFILE | ENOBUFS))
}
