//! So many in so much time, of which all of a period may come at once. Pure.

use std::num::NonZeroU64;
use std::time::Duration;

use net_io::state::{StateError, StateReader, StateWriter};
use tokio::time::Instant;

/// While a client has to wait, so much comes together: else each message would need a wake-up of its own.
const WAIT_MIN: Duration = Duration::from_millis(20);
/// A period is no longer.
const PERIOD_MAX: Duration = Duration::from_secs(3600);

/// So many in so much time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    count: NonZeroU64,
    period: Duration,
}

impl Rate {
    /// `count` in each `period`, which is at most an hour.
    #[must_use]
    pub fn new(count: NonZeroU64, period: Duration) -> Self {
        Self { count, period: period.clamp(Duration::from_nanos(1), PERIOD_MAX) }
    }

    /// How many, and in which time.
    #[must_use]
    pub fn parts(self) -> (NonZeroU64, Duration) {
        (self.count, self.period)
    }

    /// The time in which `n` more come; up, so that no more than the rate comes.
    fn time_of(self, n: u64) -> Duration {
        let nanos = (u128::from(n) * self.period.as_nanos()).div_ceil(u128::from(self.count.get()));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// What is left of a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bucket {
    rate: Rate,
    /// When there is all of a period again.
    full_at: Instant,
}

impl Bucket {
    /// All of a period is left.
    pub(super) fn full(rate: Rate) -> Self {
        Self { rate, full_at: Instant::now() }
    }

    fn owed(&self, now: Instant) -> Duration {
        self.full_at.saturating_duration_since(now)
    }

    /// How many may come now.
    pub(super) fn available(&self, now: Instant) -> u64 {
        let count = u128::from(self.rate.count.get());
        let owed = (self.owed(now).as_nanos() * count).div_ceil(self.rate.period.as_nanos());
        u64::try_from(count.saturating_sub(owed)).unwrap_or(0)
    }

    /// Takes so many; says whether there were so many. If not, nothing is taken.
    pub(super) fn take(&mut self, n: u64, now: Instant) -> bool {
        if n > self.available(now) {
            return false;
        }
        self.full_at = self.full_at.max(now) + self.rate.time_of(n);
        true
    }

    /// How long it is until some more may come; nothing if one may come now.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        if self.available(now) > 0 {
            return Duration::ZERO;
        }
        let one = self.rate.time_of(1).max(WAIT_MIN.min(self.rate.period));
        (self.owed(now) + one).saturating_sub(self.rate.period)
    }

    pub(super) fn write_state(&self, out: &mut StateWriter, now: Instant) {
        let Self { rate: Rate { count, period }, full_at: _ } = self;
        out.u64(count.get());
        out.duration(*period);
        out.duration(self.owed(now));
    }

    pub(super) fn read_state(fields: &mut StateReader<'_>, now: Instant) -> Result<Self, StateError> {
        let count = NonZeroU64::new(fields.u64()?).ok_or(StateError::Invalid("a rate"))?;
        let rate = Rate::new(count, fields.duration()?);
        Ok(Self { rate, full_at: now + fields.duration()?.min(rate.period) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(count: u64, secs: u64) -> Rate {
        Rate::new(NonZeroU64::new(count).unwrap(), Duration::from_secs(secs))
    }

    /// How many come within ten seconds, `n` at a time and as soon as they may.
    fn passed(rate: Rate, n: u64) -> u64 {
        let begin = Instant::now();
        let mut bucket = Bucket { rate, full_at: begin };
        let (mut now, mut sum) = (begin, 0);
        while now < begin + Duration::from_secs(10) {
            let n = n.min(bucket.available(now));
            if n == 0 {
                now += bucket.wait(now);
            } else {
                assert!(bucket.take(n, now));
                sum += n;
            }
        }
        sum
    }

    #[test]
    fn a_period_at_once_and_then_the_rate() {
        for (count, n) in [(1, 1), (7, 1), (100, 1), (5000, 1), (1 << 20, 4096), (1 << 40, 1 << 30)] {
            let (sum, most) = (passed(rate(count, 1), n), 11 * count);
            assert!(sum <= most && sum >= most - most / 100 - 1, "{count}: {sum} of {most}");
        }
        assert_eq!(passed(rate(12, 60), 1), 12 + 1, "one every five seconds");
    }

    #[test]
    fn what_is_too_much_is_not_taken() {
        let now = Instant::now();
        let mut bucket = Bucket { rate: rate(10, 1), full_at: now };
        assert!(!bucket.take(11, now));
        assert!(bucket.take(10, now) && !bucket.take(1, now));
        assert_eq!((bucket.available(now), bucket.wait(now)), (0, Duration::from_millis(100)));
        let later = now + Duration::from_millis(99);
        assert!(!bucket.take(1, later) && bucket.take(1, now + Duration::from_millis(100)));
        assert_eq!(bucket.available(now + Duration::from_secs(60)), 10);
    }
}
