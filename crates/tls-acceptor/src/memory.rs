//! Bytes that wait in memory for a peer, counted thread by thread: what the gateway holds for those who
//! are slow is to stay in bounds.
//!
//! Each thread has a counter of its own, so that no message touches what another thread writes. Bytes
//! that move to another thread leave both counters wrong, and their sum right.

use std::cell::Cell;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
}

/// Bytes that this thread holds: records that the network has not taken, and content without a reader.
#[must_use]
pub fn held() -> usize {
    HELD.get()
}

/// Some bytes that are counted until this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Claim(usize);

impl Claim {
    /// So many bytes.
    pub(crate) fn new(len: usize) -> Self {
        HELD.set(HELD.get().wrapping_add(len));
        Self(len)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // A thread that is going away counts no more.
        let _ = HELD.try_with(|held| held.set(held.get().wrapping_sub(self.0)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_counted_until_it_goes() {
        let before = held();
        let claims = [Claim::new(1000), Claim::new(500)];
        assert_eq!(held(), before + 1500);
        drop(claims);
        assert_eq!(held(), before);
    }
}
