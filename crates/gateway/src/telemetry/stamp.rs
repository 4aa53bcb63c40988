//! The time of a line. A second's date is made once; what each line needs then are six digits.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::line_buf::LineBuf;

/// `2026-11-30T01:22:16`
const DATE_LEN: usize = 19;

/// Knows how the current second is written.
#[derive(Debug)]
pub(super) struct Stamp {
    /// Since 1970; `None` before the first line.
    second: Option<u64>,
    micros: u32,
    /// As RFC 3339 has it.
    text: [u8; DATE_LEN + 8],
}

impl Stamp {
    /// For threads.
    pub(super) const NEW: Self = Self { second: None, micros: 0, text: *b"1970-01-01T00:00:00.000000Z" };

    /// It is as late as this.
    pub(super) fn set(&mut self, now: SystemTime) {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.second != Some(now.as_secs()) {
            self.second = Some(now.as_secs());
            let date = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(now.as_secs()));
            for (to, from) in self.text.iter_mut().zip(date.to_string().bytes().take(DATE_LEN)) {
                *to = from;
            }
        }
        self.micros = now.subsec_micros();
        let mut rest = self.micros;
        for digit in self.text[DATE_LEN + 1..][..6].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    }

    /// As Apache's logs have it: `30/Nov/2026:01:22:16 +0000`.
    pub(super) fn write_as_apache(&self, out: &mut LineBuf) {
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let date = str::from_utf8(&self.text[..DATE_LEN]).unwrap_or_default();
        let [year, month, day, time] =
            [0..4, 5..7, 8..10, 11..DATE_LEN].map(|part| date.get(part).unwrap_or_default());
        let month = month.parse::<usize>().ok().and_then(|month| MONTHS.get(month.wrapping_sub(1)));
        for part in [day, "/", month.copied().unwrap_or("-"), "/", year, ":", time, " +0000"] {
            out.text(part);
        }
    }

    /// Microseconds since 1970.
    pub(super) fn micros(&self) -> u64 {
        self.second.unwrap_or_default().saturating_mul(1_000_000).saturating_add(self.micros.into())
    }

    /// As RFC 3339 has it: `2026-11-30T01:22:16.123456Z`.
    pub(super) fn write(&self, out: &mut LineBuf) {
        out.ascii(self.text);
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
            let mut text = LineBuf::NEW;
            stamp.write(&mut text);
            assert_eq!(text.into_string(), humantime::format_rfc3339_micros(time).to_string());
            assert_eq!(stamp.micros(), micros);
        }
        let mut text = LineBuf::NEW;
        stamp.write_as_apache(&mut text);
        assert_eq!(text.into_string(), "29/Feb/2000:00:00:00 +0000");
    }
}
