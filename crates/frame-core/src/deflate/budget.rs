//! A bound for what all sessions take together: for their histories, or for their messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that sessions share. For histories it is looked at when a session begins and when it ends; for messages, while much of
/// one waits.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    max: usize,
    given: AtomicUsize,
}

/// What one session was given; it goes back when this is dropped.
#[derive(Debug)]
pub struct Share {
    budget: Budget,
    len: usize,
}

impl Budget {
    /// Of so many bytes.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self(Arc::new(Inner { max, given: AtomicUsize::new(0) }))
    }

    /// So many bytes for a session; `None`: there are not so many left.
    #[must_use]
    pub fn share(&self, len: usize) -> Option<Share> {
        self.share_within(self.0.max, len)
    }

    /// The same with another bound, which may have changed.
    #[must_use]
    pub fn share_within(&self, max: usize, len: usize) -> Option<Share> {
        let add = |given: usize| given.checked_add(len).filter(|&sum| sum <= max);
        self.0.given.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok()?;
        Some(Share { budget: self.clone(), len })
    }

    /// So many bytes for a session that comes from another process, even if there are not so many left.
    #[must_use]
    pub fn share_of_old(&self, len: usize) -> Share {
        self.0.given.fetch_add(len, Ordering::Relaxed);
        Share { budget: self.clone(), len }
    }

    /// Bytes that sessions have.
    #[must_use]
    pub fn given(&self) -> usize {
        self.0.given.load(Ordering::Relaxed)
    }
}

impl Share {
    /// It has so many bytes from now on; `false`: there are not so many left, and it has what it had.
    #[must_use]
    pub fn resize(&mut self, len: usize) -> bool {
        let Inner { max, given } = &*self.budget.0;
        let resized = |given: usize| {
            let sum = (given - self.len).checked_add(len)?;
            (len <= self.len || sum <= *max).then_some(sum)
        };
        let is_given = given.fetch_update(Ordering::Relaxed, Ordering::Relaxed, resized).is_ok();
        if is_given {
            self.len = len;
        }
        is_given
    }

    /// How many it has.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.len
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.0.given.fetch_sub(self.len, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_given_than_there_is() {
        let budget = Budget::new(100);
        let first = budget.share(60).unwrap();
        assert!(budget.share(41).is_none());
        let second = budget.share(40).unwrap();
        assert_eq!(budget.given(), 100);
        drop(first);
        assert!(budget.share(60).is_some());
        drop(second);
        assert_eq!(budget.given(), 0);
        // A bound that is another one now, and what comes from elsewhere.
        let old = budget.share_of_old(150);
        assert!(budget.share_within(150, 1).is_none() && budget.share_within(151, 1).is_some());
        drop(old);
        assert_eq!(budget.given(), 0);
    }

    #[test]
    fn a_share_grows_as_long_as_there_is_more() {
        let budget = Budget::new(100);
        let mut share = budget.share(0).unwrap();
        let other = budget.share(30).unwrap();
        assert!(share.resize(70) && !share.resize(71));
        assert_eq!((share.bytes(), budget.given()), (70, 100));
        let old = budget.share_of_old(50);
        assert!(share.resize(60), "less is always possible");
        assert!(!share.resize(61));
        drop((old, other));
        assert!(share.resize(100));
        drop(share);
        assert_eq!(budget.given(), 0);
    }
}
