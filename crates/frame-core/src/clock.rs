//! The clock of a session. It is read whenever the session is polled, so it may be coarse, and must be cheap.

use std::num::NonZeroU64;
use std::time::Duration;

use tokio::time::Instant;

/// A clock that never goes back.
pub trait Clock {
    /// Time since a moment that stays the same. It may lag by a few milliseconds.
    fn now(&self) -> Duration;
    /// The same without a lag: for when a timer has fired, whose moment must not seem still to come.
    fn now_exactly(&self) -> Duration;
    /// The same for a timer.
    fn instant(&self, at: Duration) -> Instant;
}

/// The time by the clock of a state that was read: so late that any moment before it has a place.
pub(crate) const READ_AT: Duration = Duration::from_nanos(1 << 62);

/// A duration in eight bytes, as each idle session holds them: nanoseconds, for 584 years.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Nanos(
    /// One more, so that an option needs no more room.
    NonZeroU64,
);

impl From<Duration> for Nanos {
    fn from(duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(NonZeroU64::MIN.saturating_add(nanos))
    }
}

impl From<Nanos> for Duration {
    fn from(nanos: Nanos) -> Self {
        Self::from_nanos(nanos.0.get() - 1)
    }
}

/// From one clock to another: the same moment is `from` by the one and `to` by the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shift {
    pub(crate) from: Duration,
    pub(crate) to: Duration,
}

impl Shift {
    /// A moment by the other clock; the beginning of that clock, if it was before.
    pub(crate) fn apply(self, at: Duration) -> Duration {
        (self.to + at).saturating_sub(self.from)
    }
}

/// The runtime's own clock.
#[derive(Debug, Clone, Copy)]
pub struct Exact(Instant);

impl Exact {
    /// One that begins now.
    #[must_use]
    pub fn begin() -> Self {
        Self(Instant::now())
    }

    /// One that began so long ago: by it there is a time for what was before this process.
    pub(crate) fn begun(ago: Duration) -> Self {
        let now = Instant::now();
        Self(now.checked_sub(ago).unwrap_or(now))
    }
}

impl Clock for Exact {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn now_exactly(&self) -> Duration {
        self.now()
    }

    fn instant(&self, at: Duration) -> Instant {
        self.0 + at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_its_times_are_one() {
        let clock = Exact::begin();
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!((clock.now(), clock.now_exactly()), (Duration::from_secs(7), Duration::from_secs(7)));
        assert_eq!(clock.instant(clock.now()), Instant::now());
    }
}
