//! How many requests a client of HTTP/2 may reset before they are answered (RFC 9113 §10.5). Pure.
//!
//! Each has cost something that its sender doesn't wait for: a connection to a backend, a handler's work. A browser resets
//! some as its user leaves a page.

use std::time::{Duration, Instant};

/// So many at once.
const RESETS_MAX: usize = 200;
/// One more is forgiven each time this has passed.
const RESET_INTERVAL: Duration = Duration::from_millis(100);

/// The resets of one connection.
#[derive(Debug)]
pub struct Resets {
    count: usize,
    counted: Instant,
}

impl Resets {
    /// There were none up to now.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { count: 0, counted: now }
    }

    /// There were so many more. Returns whether these are too many: the connection should end with ENHANCE_YOUR_CALM.
    #[must_use]
    pub fn are_too_many(&mut self, more: usize, now: Instant) -> bool {
        let earned = now.duration_since(self.counted).as_millis() / RESET_INTERVAL.as_millis();
        let earned = usize::try_from(earned).unwrap_or(usize::MAX);
        if earned > 0 {
            self.counted = now;
        }
        self.count = self.count.saturating_sub(earned).saturating_add(more);
        let are_too_many = self.count > RESETS_MAX;
        if are_too_many {
            self.count = 0; // it is said once
        }
        are_too_many
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_at_once_and_ten_a_second_are_forgiven() {
        let begin = Instant::now();
        let mut resets = Resets::new(begin);
        assert!(!resets.are_too_many(RESETS_MAX, begin));
        let later = begin + Duration::from_secs(5);
        assert!(!resets.are_too_many(50, later));
        assert!(resets.are_too_many(1, later));
        let mut steady = Resets::new(begin);
        for interval in 1..1000 {
            assert!(!steady.are_too_many(1, begin + interval * RESET_INTERVAL));
        }
    }
}
