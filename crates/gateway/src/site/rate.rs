//! So many in so much time. Pure.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

/// So many in so much time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    count: NonZeroU32,
    /// In nanoseconds.
    period: u64,
}

impl Rate {
    /// Reads `50/s`, `600/m` or `1000/h`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (count, unit) = text.split_once('/')?;
        let secs = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return None,
        };
        let count = count.bytes().all(|byte| byte.is_ascii_digit()).then_some(count)?.parse().ok()?;
        Some(Self { count, period: secs * 1_000_000_000 })
    }

    /// How many, and in which time.
    #[must_use]
    pub fn parts(self) -> (NonZeroU32, Duration) {
        (self.count, Duration::from_nanos(self.period))
    }

    /// From one to the next, if they come at the same distance.
    #[must_use]
    pub fn interval(self) -> Duration {
        Duration::from_nanos(self.period / u64::from(self.count.get()))
    }

    /// How many a second: rounded down, but at least one.
    #[must_use]
    pub fn per_second(self) -> NonZeroU32 {
        let count = u64::from(self.count.get()) * 1_000_000_000 / self.period;
        u32::try_from(count).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN)
    }

    /// Whether one more is within the rate at `now`: the time from which on the client is as if it had never come,
    /// or how long it has to wait. `before` is the former of its last one. Both in nanoseconds. A client may send all of
    /// a period at once.
    ///
    /// # Errors
    /// How long it has to wait.
    pub fn take(self, before: u64, now: u64) -> Result<u64, Duration> {
        // The generic cell rate algorithm (ITU-T I.371, annex A), as virtual scheduling.
        let interval = self.period / u64::from(self.count.get());
        let next = before.max(now) + interval;
        match (next - now).checked_sub(interval * u64::from(self.count.get())) {
            None | Some(0) => Ok(next),
            Some(wait) => Err(Duration::from_nanos(wait)),
        }
    }
}

/// As [`Rate::parse`] reads it.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.period / 1_000_000_000 {
            1 => "s",
            60 => "m",
            _ => "h",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn rates_as_people_write_them() {
        assert_eq!(Rate::parse("50/s").unwrap().period, SECOND);
        assert_eq!(Rate::parse("600/m").unwrap().count.get(), 600);
        for (rate, per_second) in
            [("50/s", 50), ("600/m", 10), ("59/m", 1), ("7/h", 1), ("4000000000/s", 4_000_000_000)]
        {
            assert_eq!(Rate::parse(rate).unwrap().per_second().get(), per_second, "{rate}");
            assert_eq!(Rate::parse(rate).unwrap().to_string(), rate);
        }
        for bad in ["", "50", "0/s", "+5/s", "-1/s", "50/d", "5 /s", "1e3/s", "5000000000/s", "/s", "50/ s"] {
            assert_eq!(Rate::parse(bad), None, "{bad}");
        }
    }

    /// How many of `count` requests pass, which come every so many nanoseconds.
    fn passed(rate: &str, count: u64, every: u64) -> u64 {
        let rate = Rate::parse(rate).unwrap();
        let (mut before, mut passed) = (0, 0);
        for n in 0..count {
            if let Ok(next) = rate.take(before, SECOND * 1000 + n * every) {
                (before, passed) = (next, passed + 1);
            }
        }
        passed
    }

    #[test]
    fn a_second_at_once_and_then_the_rate() {
        assert_eq!(passed("50/s", 1000, 0), 50);
        // Ten seconds, ten times as many as allowed: a second's worth, and then the rate, within one in a hundred.
        let all = passed("100/s", 10_000, SECOND / 1000);
        assert!((1090..=1101).contains(&all), "{all}");
        assert_eq!(passed("100/s", 1000, SECOND / 100), 1000, "at the rate nothing is refused");
        assert_eq!(passed("7/m", 100, SECOND), 7 + 99 * 7 / 60);
        let rate = Rate::parse("2/s").unwrap();
        assert_eq!(rate.take(3 * SECOND, 2 * SECOND), Err(Duration::from_millis(500)));
    }
}
