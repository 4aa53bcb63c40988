//! Bytes that wait in memory for a peer, counted thread by thread: what the gateway holds for those who
//! are slow is to stay in bounds.
//!
//! Each thread has a counter of its own, so that no message touches what another thread writes. Bytes
//! that move to another thread leave both counters wrong, and their sum right.

use std::cell::Cell;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
}

/// Bytes that this thread holds: buffers in use, messages of endpoints that are not whole or not sent, and what
/// else has a [`Claim`].
#[must_use]
pub fn held() -> usize {
    HELD.get()
}

/// So many bytes more are held.
pub(crate) fn count(len: usize) {
    HELD.set(HELD.get().wrapping_add(len));
}

/// So many less.
pub(crate) fn forget(len: usize) {
    // A thread that is going away counts no more.
    let _ = HELD.try_with(|held| held.set(held.get().wrapping_sub(len)));
}

/// Some bytes that are counted until this is dropped.
#[derive(Debug, Default)]
pub struct Claim(usize);

impl Claim {
    /// So many.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0
    }

    /// It is so many now.
    pub fn set(&mut self, len: usize) {
        if len == self.0 {
            return;
        }
        HELD.set(HELD.get().wrapping_sub(self.0).wrapping_add(len));
        self.0 = len;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        forget(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_counted_until_it_goes() {
        let before = held();
        let (mut first, mut second) = (Claim::default(), Claim::default());
        first.set(1000);
        second.set(500);
        assert_eq!(held(), before + 1500);
        first.set(200);
        assert_eq!(held(), before + 700);
        drop((first, second));
        assert_eq!(held(), before);
    }
}
