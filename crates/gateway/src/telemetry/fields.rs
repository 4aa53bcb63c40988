//! A line's fields, as logfmt and as JSON have them.

use std::fmt::{Display, Write};

use itoa::Integer;

use super::escape::{is_plain, quote, quote_shown};

/// Takes the fields of a line, one after the other. Writing into a `String` can't fail.
pub(super) trait Fields {
    /// A string, which is always quoted.
    fn string(&mut self, name: &'static str, value: &str);
    /// The same, which is written as it is shown.
    fn shown(&mut self, name: &'static str, value: &dyn Display);
    /// A value that is mostly one word: in logfmt it is quoted only where it has to be.
    fn word(&mut self, name: &'static str, value: &str);
    /// A value that never needs quotes in logfmt, such as an address.
    fn bare(&mut self, name: &'static str, write: impl FnOnce(&mut String));
    /// Milliseconds, with three digits behind the point.
    fn millis(&mut self, name: &'static str, us: u32);
    /// Yes or no.
    fn flag(&mut self, name: &'static str, value: bool);
    /// A number.
    fn number(&mut self, name: &'static str, value: impl Integer);
}

/// `name=value`, each after a space.
#[derive(Debug)]
pub(super) struct TextFields<'a> {
    pub(super) out: &'a mut String,
    /// For a terminal.
    pub(super) has_colors: bool,
}

impl TextFields<'_> {
    fn name(&mut self, name: &str) {
        self.out.push(' ');
        if self.has_colors {
            let _ = write!(self.out, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m");
        } else {
            self.out.push_str(name);
            self.out.push('=');
        }
    }
}

impl Fields for TextFields<'_> {
    fn string(&mut self, name: &'static str, value: &str) {
        self.name(name);
        let _ = quote(value, self.out);
    }

    fn shown(&mut self, name: &'static str, value: &dyn Display) {
        self.name(name);
        let _ = quote_shown(value, self.out);
    }

    fn word(&mut self, name: &'static str, value: &str) {
        if is_plain(value) {
            self.bare(name, |out| out.push_str(value));
        } else {
            self.string(name, value);
        }
    }

    fn bare(&mut self, name: &'static str, write: impl FnOnce(&mut String)) {
        self.name(name);
        write(self.out);
    }

    fn millis(&mut self, name: &'static str, us: u32) {
        self.name(name);
        write_millis(us, self.out);
    }

    fn flag(&mut self, name: &'static str, value: bool) {
        self.name(name);
        self.out.push_str(if value { "true" } else { "false" });
    }

    fn number(&mut self, name: &'static str, value: impl Integer) {
        self.name(name);
        self.out.push_str(itoa::Buffer::new().format(value));
    }
}

/// `,"name":value`
#[derive(Debug)]
pub(super) struct JsonFields<'a>(pub(super) &'a mut String);

impl JsonFields<'_> {
    fn name(&mut self, name: &str) {
        self.0.push_str(",\"");
        self.0.push_str(name);
        self.0.push_str("\":");
    }
}

impl Fields for JsonFields<'_> {
    fn string(&mut self, name: &'static str, value: &str) {
        self.name(name);
        let _ = quote(value, self.0);
    }

    fn shown(&mut self, name: &'static str, value: &dyn Display) {
        self.name(name);
        let _ = quote_shown(value, self.0);
    }

    fn word(&mut self, name: &'static str, value: &str) {
        self.string(name, value);
    }

    fn bare(&mut self, name: &'static str, write: impl FnOnce(&mut String)) {
        self.name(name);
        self.0.push('"');
        write(self.0);
        self.0.push('"');
    }

    fn millis(&mut self, name: &'static str, us: u32) {
        self.name(name);
        write_millis(us, self.0);
    }

    fn flag(&mut self, name: &'static str, value: bool) {
        self.name(name);
        self.0.push_str(if value { "true" } else { "false" });
    }

    fn number(&mut self, name: &'static str, value: impl Integer) {
        self.name(name);
        self.0.push_str(itoa::Buffer::new().format(value));
    }
}

/// `12.034`
pub(super) fn write_millis(us: u32, out: &mut String) {
    out.push_str(itoa::Buffer::new().format(us / 1000));
    let mut digits = itoa::Buffer::new();
    out.push('.');
    out.push_str(&digits.format(1000 + us % 1000)[1..]); // with the zeros in front
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn microseconds_are_shown_as_milliseconds() {
        for (us, text) in [(0, "0.000"), (7, "0.007"), (1_020, "1.020"), (12_345_678, "12345.678")] {
            let mut out = String::new();
            write_millis(us, &mut out);
            assert_eq!(out, text);
        }
    }
}
