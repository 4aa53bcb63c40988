//! Requests that wait until a server of their upstream may have more.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// How requests wait when every server has its `max_sessions`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// So many at most.
    pub length: u32,
    /// For so long at most.
    pub timeout: Duration,
}

/// Who waits for a server of one upstream, and how that is told.
#[derive(Debug, Default)]
pub(crate) struct Freed {
    waiting: AtomicU32,
    notify: Notify,
}

/// A place in the queue, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place<'a>(&'a Freed);

impl Freed {
    /// Requests that wait.
    pub(crate) fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// A server may have one more.
    pub(crate) fn notify_one(&self) {
        // After the counter of the server has changed: who counts as waiting before it looks at the server is woken.
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.notify.notify_one();
        }
    }

    /// A server has come back.
    pub(crate) fn notify_all(&self) {
        self.notify.notify_waiters();
    }

    /// A place, if fewer than `length` wait.
    pub(crate) fn wait(&self, length: u32) -> Option<Place<'_>> {
        let one_more = |waiting| (waiting < length).then_some(waiting + 1);
        self.waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).ok().map(|_| Place(self))
    }
}

impl Place<'_> {
    /// Asks `attempt` for a server whenever one may have more. Waiters are served in their order.
    ///
    /// # Cancel safety
    /// Safe: a turn that was not used is passed on.
    pub(crate) async fn until<T>(&self, mut attempt: impl FnMut() -> Option<T>) -> T {
        loop {
            let freed = self.0.notify.notified();
            if let Some(got) = attempt() {
                return got;
            }
            freed.await;
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
        self.0.notify_one(); // a turn that came to this one may be another's
    }
}
