//! Bytes that wait in memory for a peer, counted for each thread: what the gateway holds for slow peers must stay
//! in bounds.
//!
//! Each thread has its own counter, so that no message touches memory that another thread writes. When bytes
//! move to another thread, both counters are wrong, and their sum is right.

use std::cell::Cell;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static LIMIT: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Bytes that this thread holds for its peers: buffers in use, and all that has a [`Claim`].
#[must_use]
#[inline]
pub fn held() -> usize {
    HELD.get()
}

/// From now on this thread [`is_full`] with so many bytes.
pub fn set_limit(len: usize) {
    LIMIT.set(len);
}

/// This thread holds as much as it may: what would become much more of it has to wait.
#[must_use]
pub fn is_full() -> bool {
    HELD.get() >= LIMIT.get()
}

/// `len` bytes more are held.
pub(crate) fn count(len: usize) {
    HELD.set(HELD.get().wrapping_add(len));
}

/// `len` bytes less are held.
pub(crate) fn forget(len: usize) {
    // A thread that is ending does not count any more.
    let _ = HELD.try_with(|held| held.set(held.get().wrapping_sub(len)));
}

/// Some bytes that are counted until this is dropped.
#[derive(Debug, Default)]
pub struct Claim(usize);

impl Claim {
    /// Counts `len` bytes.
    #[must_use]
    #[inline]
    pub fn new(len: usize) -> Self {
        count(len);
        Self(len)
    }

    /// How many are counted.
    #[must_use]
    #[inline]
    pub fn bytes(&self) -> usize {
        self.0
    }

    /// From now on `len` bytes are counted.
    #[inline]
    pub fn set(&mut self, len: usize) {
        if len == self.0 {
            return;
        }
        HELD.set(HELD.get().wrapping_sub(self.0).wrapping_add(len));
        self.0 = len;
    }
}

impl Drop for Claim {
    #[inline]
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
        let (mut first, mut second) = (Claim::new(7), Claim::default());
        first.set(1000);
        second.set(500);
        assert_eq!(held(), before + 1500);
        first.set(200);
        assert_eq!(held(), before + 700);
        set_limit(before + 700);
        assert!(is_full());
        drop((first, second));
        assert_eq!(held(), before);
        assert!(!is_full());
    }
}
