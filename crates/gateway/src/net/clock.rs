//! The time that sessions work with, which they ask for with every message.

use std::cell::Cell;
use std::sync::LazyLock;
use std::time::Duration;

use frame_core::clock::Clock;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

/// The same moment, as timers and as the kernel's clock have it. That clock counts from the machine's start, so that
/// what was before a session came from another process has its time too.
static EPOCH: LazyLock<(Instant, Duration)> = LazyLock::new(|| (Instant::now(), kernel(ClockId::Monotonic)));

thread_local! {
    /// The latest time that this thread has read: an exact one may be ahead of the coarse clock.
    static LATEST: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// The kernel's coarse clock. A look costs a few nanoseconds and no system call, and lags by a tick of the
/// kernel's at most (1 to 10 ms), however busy the thread is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Coarse;

/// The time by [`Coarse`].
pub(crate) fn now() -> Duration {
    Coarse.now()
}

impl Clock for Coarse {
    fn now(&self) -> Duration {
        later(kernel(ClockId::MonotonicCoarse))
    }

    fn now_exactly(&self) -> Duration {
        later(EPOCH.1 + EPOCH.0.elapsed())
    }

    fn instant(&self, at: Duration) -> Instant {
        EPOCH.0 + at.saturating_sub(EPOCH.1)
    }
}

/// A clock never goes back.
fn later(now: Duration) -> Duration {
    let now = now.max(LATEST.get());
    LATEST.set(now);
    now
}

fn kernel(clock: ClockId) -> Duration {
    clock_gettime(clock).try_into().unwrap_or_default() // never negative
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lags_by_a_tick_and_never_goes_back() {
        let begun = Coarse.now_exactly();
        let mut last = begun;
        let mut lag_min = Duration::MAX; // of all: a machine that is busy with something else may miss ticks
        while last < begun + Duration::from_millis(50) {
            let before = EPOCH.1 + EPOCH.0.elapsed();
            let now = Coarse.now();
            assert!(now >= last && now <= EPOCH.1 + EPOCH.0.elapsed(), "{last:?} {now:?}");
            lag_min = lag_min.min(before.saturating_sub(now));
            last = now;
        }
        assert!(lag_min < Duration::from_millis(20), "{lag_min:?}");
        assert!(Coarse.now_exactly() >= last);
    }

    #[test]
    fn a_timer_is_set_for_the_moment_that_is_meant() {
        let at = Coarse.now_exactly() + Duration::from_secs(5);
        let left = Coarse.instant(at).saturating_duration_since(Instant::now());
        assert!(left <= Duration::from_secs(5) && left > Duration::from_secs(4), "{left:?}");
        assert!(Coarse.instant(Duration::ZERO) <= Instant::now(), "what was before the process is over");
    }
}
