//! The open streams of a connection: how many there are, and what they know of its server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// What is known of them.
#[derive(Debug, Default)]
pub(super) struct OpenStreams {
    count: AtomicUsize,
    /// There has been one.
    is_used: AtomicBool,
    /// The server may be gone: a PING is to show whether it is.
    pub(super) doubt: Notify,
    /// The PING is not answered yet.
    pub(super) is_doubted: AtomicBool,
}

/// One of them, which counts until this is dropped.
#[derive(Debug)]
pub(crate) struct OpenStream(Arc<OpenStreams>);

impl OpenStreams {
    /// One more, and whether there has been one before.
    pub(super) fn enter(self: &Arc<Self>) -> (OpenStream, bool) {
        self.count.fetch_add(1, Ordering::Relaxed);
        (OpenStream(self.clone()), self.is_used.swap(true, Ordering::Relaxed))
    }

    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

impl OpenStream {
    /// The server has kept the stream waiting for too long. If it doesn't even answer a PING, its connection is lost.
    pub(super) fn doubt(&self) {
        self.0.doubt.notify_one();
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}
