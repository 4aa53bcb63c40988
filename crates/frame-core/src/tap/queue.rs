//! From tapped sessions to who watches them: bounded, and what finds no room is counted, never waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::SystemTime;

use tokio::sync::mpsc;

use crate::head::Sender;
use crate::violation::Violation;

/// Bytes of copies that wait at most, with [`COPY_COST`] for each.
const QUEUE_LEN_MAX: usize = 4 * 1024 * 1024;
/// What a copy takes beside its bytes.
const COPY_COST: usize = 128;

/// What a tap sees.
#[derive(Debug)]
pub enum TapEvent {
    /// A session is watched from now on. It comes again when the session was interrupted, and means nothing then.
    Began {
        /// Its id.
        session: u64,
        /// Nothing of it has passed before.
        is_whole: bool,
        /// The extension permessage-deflate was agreed upon.
        deflate: bool,
    },
    /// Something has passed.
    Copy(TapCopy),
    /// A session is watched no longer.
    Ended {
        /// Its id.
        session: u64,
        /// Why.
        why: Box<str>,
    },
}

/// What has passed.
#[derive(Debug)]
pub struct TapCopy {
    /// The session's id.
    pub session: u64,
    /// When.
    pub at: SystemTime,
    /// The client, or what the client is served by.
    pub sender: Sender,
    /// What it is.
    pub kind: CopyKind,
    /// Its length: of a frame that of the payload, in bytes.
    pub len: u64,
    /// Its front as it is on the wire: of a frame head and payload.
    pub wire: Vec<u8>,
    /// Copies of this session in this direction that had no room, right before this one.
    pub dropped: u64,
}

/// What was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyKind {
    /// A frame.
    Frame,
    /// Bytes of another protocol.
    Bytes,
    /// What should be a frame, and is none.
    Violation(Violation),
}

#[derive(Debug, Default)]
struct Fill {
    bytes: AtomicUsize,
    dropped: AtomicU64,
}

/// The sessions' end. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TapSender {
    fill: Arc<Fill>,
    events: mpsc::UnboundedSender<TapEvent>, // copies are bounded by `fill`, other events by the number of sessions
}

/// The watcher's end.
#[derive(Debug)]
pub struct TapReceiver {
    fill: Arc<Fill>,
    events: mpsc::UnboundedReceiver<TapEvent>,
}

/// A queue for one watcher.
#[must_use]
pub fn tap_queue() -> (TapSender, TapReceiver) {
    let fill = Arc::<Fill>::default();
    let (sender, receiver) = mpsc::unbounded_channel();
    (TapSender { fill: fill.clone(), events: sender }, TapReceiver { fill, events: receiver })
}

fn cost(copy: &TapCopy) -> usize {
    COPY_COST + copy.wire.capacity()
}

impl TapSender {
    /// Queues a copy; `false`: there was no room.
    pub(crate) fn copy(&self, copy: TapCopy) -> bool {
        let cost = cost(&copy);
        let room = |bytes: usize| Some(bytes + cost).filter(|sum| *sum <= QUEUE_LEN_MAX);
        if self.fill.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_err() {
            self.fill.dropped.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        let _ = self.events.send(TapEvent::Copy(copy)); // without a receiver the session is told soon
        true
    }

    /// A session begins to be watched.
    pub(crate) fn begin(&self, session: u64, is_whole: bool, deflate: bool) {
        let _ = self.events.send(TapEvent::Began { session, is_whole, deflate });
    }

    /// The session is not watched any more.
    pub fn end(&self, session: u64, why: impl Into<Box<str>>) {
        let _ = self.events.send(TapEvent::Ended { session, why: why.into() });
    }
}

impl TapReceiver {
    /// The next event; `None`: nothing can come any more.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn recv(&mut self) -> Option<TapEvent> {
        let event = self.events.recv().await;
        self.took(event.as_ref());
        event
    }

    /// The next event, if there is one already.
    pub fn try_recv(&mut self) -> Option<TapEvent> {
        let event = self.events.try_recv().ok();
        self.took(event.as_ref());
        event
    }

    fn took(&self, event: Option<&TapEvent>) {
        if let Some(TapEvent::Copy(copy)) = event {
            self.fill.bytes.fetch_sub(cost(copy), Ordering::Relaxed);
        }
    }

    /// Copies that had no room so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.fill.dropped.load(Ordering::Relaxed)
    }
}
