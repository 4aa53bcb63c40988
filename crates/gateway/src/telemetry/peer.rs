//! What peers have said, on its way into the log: short enough, and without control bytes.
//!
//! A value is cut before it becomes a field, since a few bytes of compressed HTTP/2 fields may stand for
//! many. Control bytes are replaced in the finished line, where no field can be forgotten: none ends a
//! line, and no terminal obeys one.

use std::borrow::Cow;
use std::io::Write;

use super::escape::escape_len;

/// The longest value of a peer's in a log line, in bytes as they are written.
const VALUE_LEN_MAX: usize = 1024;
/// The most bytes that a log line needs for one byte: `\u007f`.
const ESCAPE_LEN: usize = 6;

/// The front of `value`, as much as the log shows, with a mark if that is not all.
#[must_use]
pub(crate) fn cut(value: &str) -> Cow<'_, str> {
    if value.len() <= VALUE_LEN_MAX / ESCAPE_LEN {
        return value.into();
    }
    let mut written = 0;
    for (at, char) in value.char_indices() {
        written += escape_len(char); // JSON needs no more
        if written > VALUE_LEN_MAX {
            return format!("{}… (cut, {} bytes in all)", &value[..at], value.len()).into();
        }
    }
    value.into()
}

/// The line with each control byte as `\u001b`, if there are any. `has_colors`: it was made for a
/// terminal, and its colours (`ESC [ … m`) stay.
#[must_use]
pub(super) fn printable(line: &[u8], has_colors: bool) -> Cow<'_, [u8]> {
    let text = line.strip_suffix(b"\n").unwrap_or(line);
    // Without a branch a byte, so that the compiler looks at many at once: nearly no line has any.
    if !text.iter().fold(false, |found, &b| found | (b < b' ') | (b == 0x7f) | (b == 0xc2)) {
        return line.into();
    }
    let mut safe = Vec::with_capacity(line.len() + 64);
    let mut rest = text;
    while let [byte, tail @ ..] = rest {
        let (code, len) = match (byte, tail) {
            (0x1b, tail) if has_colors && color_len(tail) > 0 => {
                let len = 1 + color_len(tail);
                safe.extend_from_slice(&rest[..len]);
                rest = &rest[len..];
                continue;
            }
            (0..b' ' | 0x7f, _) => (*byte, 1),
            // The second set, in UTF-8: some terminals obey it too.
            (0xc2, [second @ 0x80..=0x9f, ..]) => (*second, 2),
            _ => {
                safe.push(*byte);
                rest = tail;
                continue;
            }
        };
        let _ = write!(safe, "\\u{code:04x}");
        rest = &rest[len..];
    }
    safe.extend_from_slice(&line[text.len()..]);
    safe.into()
}

/// The length of `[1;31m`, or 0.
fn color_len(bytes: &[u8]) -> usize {
    let [b'[', parameters @ ..] = bytes else { return 0 };
    match parameters.iter().position(|b| !matches!(b, b'0'..=b'9' | b';')) {
        Some(end) if parameters[end] == b'm' => end + 2,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_cut_by_what_the_log_writes_of_them() {
        for short in ["", "/ws", &"a".repeat(1024), &"\u{85}".repeat(170), &"é".repeat(512)] {
            assert_eq!(cut(short), short);
        }
        for (long, kept) in [("a", 1024), ("\"", 512), ("\u{85}", 170), ("\u{7f}", 170), ("é", 512)] {
            let value = long.repeat(3000);
            let shown = cut(&value);
            let expect = format!("{}… (cut, {} bytes in all)", long.repeat(kept), value.len());
            assert_eq!(shown, expect);
            assert!(format!("{:?}", &shown[..kept * long.len()]).len() <= VALUE_LEN_MAX + 2);
        }
    }

    #[test]
    fn no_control_byte_is_left_in_a_line() {
        let safe =
            |line: &str, colors| String::from_utf8(printable(line.as_bytes(), colors).to_vec()).unwrap();
        for plain in ["", "\n", "GET /ws é\n", "no end", "\u{a0}£\n"] {
            assert_eq!(safe(plain, false), plain);
            assert!(plain == "\u{a0}£\n" || matches!(printable(plain.as_bytes(), false), Cow::Borrowed(_)));
        }
        assert_eq!(
            safe("a\nb\r\x1b[2Jc\x7f\u{9b}31m\0\n", false),
            "a\\u000ab\\u000d\\u001b[2Jc\\u007f\\u009b31m\\u0000\n"
        );
        assert_eq!(
            safe("\x1b[1;31mred\x1b[0m \x1b[2J\x1b]0;title\x07\n", true),
            "\x1b[1;31mred\x1b[0m \\u001b[2J\\u001b]0;title\\u0007\n"
        );
        assert_eq!(safe("\x1b[1;31mred\x1b[0m\n", false), "\\u001b[1;31mred\\u001b[0m\n");
    }
}
