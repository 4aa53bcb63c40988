//! Numbers as people read them. Pure.

/// `3 d 4 h`, `12 min`, `45 s`, `120 ms`.
#[must_use]
pub(super) fn duration(millis: u64) -> String {
    let secs = millis / 1000;
    let two = |large: u64, large_unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{large} {large_unit}"),
        _ => format!("{large} {large_unit} {small} {small_unit}"),
    };
    match secs {
        0 => format!("{millis} ms"),
        1..60 => format!("{secs} s"),
        60..3600 => two(secs / 60, "min", secs % 60, "s"),
        3600..86400 => two(secs / 3600, "h", secs / 60 % 60, "min"),
        _ => two(secs / 86400, "d", secs / 3600 % 24, "h"),
    }
}

/// `12,345`.
#[must_use]
pub(super) fn count(number: impl Into<u64>) -> String {
    let digits = number.into().to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 session`, `12,345 sessions`.
#[must_use]
pub(super) fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(number), if number == 1 { "" } else { "s" })
}

/// `12 B`, `1.5 kB`, `23 MB`.
#[must_use]
pub(super) fn bytes(number: u64) -> String {
    let mut value = number as f64;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        if value < 999.5 {
            return if unit == "B" || value >= 9.95 {
                format!("{value:.0} {unit}")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1000.0;
    }
    format!("{value:.0} PB")
}

/// `1.5 kB/s`; nothing moves: `–`.
#[must_use]
pub(super) fn byte_rate(per_second: f64) -> String {
    if per_second < 0.5 { "–".to_owned() } else { format!("{}/s", bytes(whole(per_second))) }
}

/// `120/s`, `0.4/s`; nothing moves: `–`.
#[must_use]
pub(super) fn rate(per_second: f64) -> String {
    match per_second {
        rate if rate < 0.05 => "–".to_owned(),
        rate if rate < 9.95 => format!("{rate:.1}/s"),
        rate => format!("{}/s", count(whole(rate))),
    }
}

/// Without what is behind the point.
#[must_use]
pub(super) fn whole(number: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, reason = "`as` keeps to the bounds of u64")]
    let whole = number.round().max(0.0) as u64;
    whole
}

/// `2026-11-30 05:10:00 UTC`, of seconds of Unix time.
#[must_use]
pub(super) fn moment(unix_secs: i64) -> String {
    match time::OffsetDateTime::from_unix_timestamp(unix_secs) {
        Ok(at) => {
            let (date, time) = (at.date(), at.time());
            format!("{date} {:02}:{:02}:{:02} UTC", time.hour(), time.minute(), time.second())
        }
        Err(_) => unix_secs.to_string(),
    }
}

/// The same as browsers read it: `2026-11-30T05:10:00Z`.
#[must_use]
pub(super) fn moment_machine(unix_secs: i64) -> String {
    moment(unix_secs).replacen(' ', "T", 1).replace(" UTC", "Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (millis, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (59_999, "59 s"),
            (60_000, "1 min"),
            (3_599_000, "59 min 59 s"),
            (3_660_000, "1 h 1 min"),
            (90_000_000, "1 d 1 h"),
            (u64::MAX, "213503982334 d 14 h"),
        ] {
            assert_eq!(duration(millis), text);
        }
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(number as u64), text);
        }
        assert_eq!(
            (counted(1, "session"), counted(1000, "session")),
            ("1 session".into(), "1,000 sessions".into())
        );
        for (number, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (9_949, "9.9 kB"),
            (9_999, "10 kB"),
            (999_600, "1.0 MB"),
            (u64::MAX, "18447 PB"),
        ] {
            assert_eq!(bytes(number), text);
        }
        assert_eq!((byte_rate(0.4), byte_rate(1500.0)), ("–".into(), "1.5 kB/s".into()));
        assert_eq!((rate(0.0), rate(0.4), rate(1234.6)), ("–".into(), "0.4/s".into(), "1,235/s".into()));
        assert_eq!((whole(-1.0), whole(f64::NAN), whole(f64::INFINITY)), (0, 0, u64::MAX));
        assert_eq!(moment(1_796_015_400), "2026-11-30 05:10:00 UTC");
        assert_eq!(moment_machine(0), "1970-01-01T00:00:00Z");
        assert_eq!(moment(i64::MAX), i64::MAX.to_string());
    }
}
