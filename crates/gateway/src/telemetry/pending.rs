//! Access lines that a worker has written and not handed over: they go to their queue together, when the worker has
//! nothing else to do, when they are many, or before another line of this thread.
//!
//! So a line costs no lock, and wakes no other thread. Threads that are no workers hand over each line at once.

use std::cell::RefCell;
use std::time::SystemTime;

use super::line_buf::LineBuf;
use super::queue::Queue;
use super::stamp::Stamp;

/// Bytes of lines that are handed over at once, however busy the worker is.
const LEN_MAX: usize = 32 * 1024;
/// How old the first of them may be when another line is added, in microseconds.
const AGE_MAX_MICROS: u64 = 10_000;

struct Pending {
    /// This thread calls [`flush`] before it sleeps.
    is_worker: bool,
    lines: LineBuf,
    count: u64,
    /// When the first was written, in microseconds since 1970.
    since: u64,
    queue: Option<Queue>,
    stamp: Stamp,
}

thread_local! {
    static PENDING: RefCell<Pending> = const {
        RefCell::new(Pending {
            is_worker: false,
            lines: LineBuf::NEW,
            count: 0,
            since: 0,
            queue: None,
            stamp: Stamp::NEW,
        })
    };
}

impl Pending {
    fn flush(&mut self) {
        if self.count == 0 {
            return;
        }
        if let Some(queue) = &self.queue {
            queue.push_lines(self.lines.as_bytes(), self.count);
        }
        self.lines.clear();
        self.count = 0;
    }
}

/// Hands over what is left when it is dropped.
#[derive(Debug)]
pub struct Flush;

impl Drop for Flush {
    fn drop(&mut self) {
        flush();
    }
}

/// From now on this thread calls [`flush`] whenever it is about to sleep.
#[must_use]
pub fn begin() -> Flush {
    let _ = PENDING.try_with(|pending| pending.try_borrow_mut().map(|mut pending| pending.is_worker = true));
    Flush
}

/// Hands over what this thread has written.
pub(crate) fn flush() {
    // Within a line there is nothing to hand over, and after the thread's end nothing left.
    let _ = PENDING.try_with(|pending| pending.try_borrow_mut().map(|mut pending| pending.flush()));
}

/// Writes one line, which `write` makes, without its end, for `queue`.
pub(super) fn line(queue: &Queue, write: impl FnOnce(&mut LineBuf, &Stamp)) {
    let _ = PENDING.try_with(|pending| {
        let Ok(mut pending) = pending.try_borrow_mut() else { return };
        let pending = &mut *pending;
        if pending.queue.as_ref().is_none_or(|known| !known.is(queue)) {
            pending.flush();
            pending.queue = Some(queue.clone());
        }
        pending.stamp.set(SystemTime::now());
        let now = pending.stamp.micros();
        if pending.count == 0 {
            pending.since = now;
        }
        write(&mut pending.lines, &pending.stamp);
        pending.lines.text("\n");
        pending.count += 1;
        let is_old = now.saturating_sub(pending.since) > AGE_MAX_MICROS;
        if !pending.is_worker || is_old || pending.lines.as_bytes().len() > LEN_MAX {
            pending.flush();
        }
    });
}
