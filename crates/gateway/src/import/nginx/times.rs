//! Times and sizes, as nginx writes them and as we do. Pure.

use std::time::Duration;

/// Reads a time such as `60`, `30s`, `1h 30m` or `100ms` (nginx's syntax page).
pub(super) fn time(text: &str) -> Option<Duration> {
    let mut total_ms = 0_u64;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let count: u64 = rest[..digits].parse().ok()?;
        let unit = rest[digits..]
            .find(|c: char| c.is_ascii_digit() || c == ' ')
            .map_or(rest.len(), |len| digits + len);
        let ms = match &rest[digits..unit] {
            "ms" => 1,
            "s" | "" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 7 * 86_400_000,
            "M" => 30 * 86_400_000,
            "y" => 365 * 86_400_000,
            _ => return None,
        };
        total_ms = total_ms.checked_add(count.checked_mul(ms)?)?;
        rest = rest[unit..].trim_start();
    }
    Some(Duration::from_millis(total_ms))
}

/// A time as our durations are written: more than nothing, and at most ten years.
pub(super) fn duration(text: &str) -> Option<String> {
    let time = time(text).filter(|time| !time.is_zero())?;
    Some(shown(time.min(Duration::from_secs(3650 * 86_400))))
}

/// In its largest unit that is whole.
pub(super) fn shown(time: Duration) -> String {
    let ms = time.as_millis();
    for (unit, len) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if ms > 0 && ms.is_multiple_of(len) {
            return format!("{}{unit}", ms / len);
        }
    }
    format!("{ms}ms")
}

/// Reads a size such as `10m`, in bytes.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let (digits, factor) = match text.to_ascii_lowercase().chars().last()? {
        'k' => (&text[..text.len() - 1], 1 << 10),
        'm' => (&text[..text.len() - 1], 1 << 20),
        'g' => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// As our sizes are written.
pub(super) fn size(bytes: u64) -> String {
    for (unit, len) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes > 0 && bytes.is_multiple_of(len) {
            return format!("{}{unit}", bytes / len);
        }
    }
    format!("{bytes}B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_ours() {
        for (text, expect) in [
            ("60", Some("1m")),
            ("90s", Some("90s")),
            ("1h 30m", Some("90m")),
            ("1h30m", Some("90m")),
            ("100ms", Some("100ms")),
            ("86400", Some("1d")),
            ("0", None),
            ("", None),
            ("5x", None),
            ("s", None),
            ("99999999999999999999", None),
            ("100y", Some("3650d")),
        ] {
            assert_eq!(duration(text).as_deref(), expect, "{text}");
        }
        for (text, expect) in [
            ("10m", Some("10MiB")),
            ("1K", Some("1KiB")),
            ("2g", Some("2GiB")),
            ("1500", Some("1500B")),
            ("m", None),
            ("99999999999999999999g", None),
        ] {
            assert_eq!(bytes(text).map(size).as_deref(), expect, "{text}");
        }
    }
}
