//! The time of a line. A second's date is made once; what each line needs then are six digits.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `2026-11-30T01:22:16`
const DATE_LEN: usize = 19;

/// Knows how the current second is written.
#[derive(Debug, Default)]
pub(super) struct Stamp {
    /// Since 1970.
    second: u64,
    /// Of that second; empty before the first line.
    date: String,
    micros: u32,
}

impl Stamp {
    /// For threads.
    pub(super) const NEW: Self = Self { second: 0, date: String::new(), micros: 0 };

    /// It is as late as this.
    pub(super) fn set(&mut self, now: SystemTime) {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.micros = now.subsec_micros();
        if now.as_secs() == self.second && !self.date.is_empty() {
            return;
        }
        self.second = now.as_secs();
        let date = UNIX_EPOCH + Duration::from_secs(self.second);
        self.date = humantime::format_rfc3339_seconds(date).to_string();
        self.date.truncate(DATE_LEN);
    }

    /// As Apache's logs have it: `30/Nov/2026:01:22:16 +0000`.
    pub(super) fn write_as_apache(&self, out: &mut String) {
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let [year, month, day, time] =
            [0..4, 5..7, 8..10, 11..DATE_LEN].map(|part| self.date.get(part).unwrap_or_default());
        let month = month.parse::<usize>().ok().and_then(|month| MONTHS.get(month.wrapping_sub(1)));
        for part in [day, "/", month.copied().unwrap_or("-"), "/", year, ":", time, " +0000"] {
            out.push_str(part);
        }
    }

    /// Microseconds since 1970.
    pub(super) fn micros(&self) -> u64 {
        self.second.saturating_mul(1_000_000).saturating_add(self.micros.into())
    }

    /// As RFC 3339 has it: `2026-11-30T01:22:16.123456Z`.
    pub(super) fn write(&self, out: &mut String) {
        out.push_str(&self.date);
        let mut digits = *b".000000Z";
        let mut rest = self.micros;
        for digit in digits[1..7].iter_mut().rev() {
            *digit += (rest % 10) as u8;
            rest /= 10;
        }
        out.push_str(str::from_utf8(&digits).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_humantime() {
        let mut stamp = Stamp::NEW;
        for micros in
            [0, 1, 999_999, 1_000_000, 1_764_465_736_123_456, 1_764_465_736_123_457, 951_782_400_000_000]
        {
            let time = UNIX_EPOCH + Duration::from_micros(micros);
            stamp.set(time);
            let mut text = String::new();
            stamp.write(&mut text);
            assert_eq!(text, humantime::format_rfc3339_micros(time).to_string());
            assert_eq!(stamp.micros(), micros);
        }
        let mut text = String::new();
        stamp.write_as_apache(&mut text);
        assert_eq!(text, "29/Feb/2000:00:00:00 +0000");
    }
}
