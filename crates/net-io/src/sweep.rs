//! A second look at sockets that have been silent, in case a wake-up was lost.
//!
//! [`Tcp`](crate::Tcp) asks its socket only when the runtime says that something has happened. Should that rule
//! fail once, a connection would stay silent for good; a caller that now and then polls its connections within
//! [`looking`] turns that into a delay.

use std::cell::Cell;

thread_local! {
    static LOOKING: Cell<bool> = const { Cell::new(false) };
    static FOUND: Cell<u64> = const { Cell::new(0) };
}

/// Polls something, whose sockets are looked at themselves meanwhile. What
/// the runtime knows to be there is read. Bytes that it doesn't know of are left to the wake-up that should be on
/// its way; if it still doesn't at the second such poll, they are read, and counted by [`take_found`].
pub fn looking<T>(poll: impl FnOnce() -> T) -> T {
    /// Also when `poll` panics.
    struct Reset(bool);
    impl Drop for Reset {
        fn drop(&mut self) {
            LOOKING.set(self.0);
        }
    }
    let _reset = Reset(LOOKING.replace(true));
    poll()
}

/// How many sockets of this thread's were found with bytes that the runtime didn't know of, since the last call.
#[must_use]
pub fn take_found() -> u64 {
    FOUND.replace(0)
}

/// The poll that is going on is such a look.
#[must_use]
#[inline]
pub fn is_looking() -> bool {
    LOOKING.get()
}

pub(crate) fn found() {
    FOUND.set(FOUND.get() + 1);
}
