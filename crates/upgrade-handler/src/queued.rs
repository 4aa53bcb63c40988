//! Bytes handed to h2, counted until it lets go of them.
//!
//! A reset overtakes what is queued, the end of a connection destroys it, and h2 doesn't say when a
//! DATA frame has left. But it drops a frame's bytes then, and these tell.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use atomic_waker::AtomicWaker;
use bytes::Bytes;
use net_io::memory::Claim;

/// What one stream has queued.
#[derive(Debug, Default)]
pub struct Queued {
    chunks: AtomicUsize,
    waker: AtomicWaker,
}

/// The bytes of one DATA frame.
struct Chunk<T> {
    bytes: T,
    queued: Arc<Queued>,
    _held: Claim,
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for Chunk<T> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

impl<T> Drop for Chunk<T> {
    fn drop(&mut self) {
        if self.queued.chunks.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.queued.waker.wake();
        }
    }
}

impl Queued {
    /// The same bytes, counted until they are dropped.
    #[must_use]
    pub fn count<T: AsRef<[u8]> + Send + 'static>(self: &Arc<Self>, bytes: T) -> Bytes {
        self.chunks.fetch_add(1, Ordering::AcqRel);
        let held = Claim::new(bytes.as_ref().len());
        Bytes::from_owner(Chunk { bytes, queued: self.clone(), _held: held })
    }

    /// Ready when nothing is left that was counted: it is on the network, or its connection is
    /// gone. One task may wait.
    pub fn poll_sent(&self, cx: &mut Context<'_>) -> Poll<()> {
        let sent = || self.chunks.load(Ordering::Acquire) == 0;
        if !sent() {
            self.waker.register(cx.waker());
            if !sent() {
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }
}
