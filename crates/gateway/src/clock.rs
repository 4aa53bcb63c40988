//! The time of a worker, read once a turn: sessions ask for it with every message.

use std::cell::Cell;
use std::sync::LazyLock;
use std::time::Duration;

use frame_core::clock::Clock;
use tokio::time::Instant;

/// How often the time that was read may be told before it is read again: a worker that has no time to sleep
/// takes turns without end.
const TELLS_MAX: u32 = 32;

static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

thread_local! {
    /// What was read, and how often it may still be told.
    static READ: Cell<(Duration, u32)> = const { Cell::new((Duration::ZERO, 0)) };
}

/// The thread has slept: what it knows of the time is old.
pub fn woke() {
    READ.set((Duration::ZERO, 0));
}

/// The time of this thread's worker. It lags by a turn at most, where [`woke`] is called after sleeping.
#[derive(Debug, Clone, Copy)]
pub struct Turns;

impl Clock for Turns {
    fn now(&self) -> Duration {
        let (now, left) = READ.get();
        let read = match left.checked_sub(1) {
            Some(left) => (now, left),
            None => (EPOCH.elapsed(), TELLS_MAX),
        };
        READ.set(read);
        read.0
    }

    fn instant(&self, at: Duration) -> Instant {
        *EPOCH + at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_read_after_sleep_and_now_and_then() {
        let next =
            |then| std::iter::repeat_with(|| Turns.now()).take(TELLS_MAX as usize + 1).all(|now| now == then);
        woke();
        let then = Turns.now();
        while EPOCH.elapsed() == then {}
        assert_eq!(Turns.now(), then);
        assert!(!next(then));
        let then = Turns.now();
        while EPOCH.elapsed() == then {}
        woke();
        assert!(Turns.now() > then);
    }
}
