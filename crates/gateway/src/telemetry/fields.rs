//! A line's fields, as logfmt and as JSON have them.

use std::fmt::{Display, Write};

use super::escape::{Escaped, escape, is_plain, is_verbatim};
use super::line_buf::LineBuf;

/// The name of a field, with what stands around it in each format, so that it is written in one piece.
#[derive(Debug)]
pub(super) struct Name {
    pub(super) plain: &'static str,
    pub(super) text: &'static str,
    pub(super) text_quoted: &'static str,
    pub(super) json: &'static str,
    pub(super) json_quoted: &'static str,
}

/// The [`Name`] that a literal is.
macro_rules! name {
    ($name:literal) => {
        &$crate::telemetry::fields::Name {
            plain: $name,
            text: concat!(" ", $name, "="),
            text_quoted: concat!(" ", $name, "=\""),
            json: concat!(",\"", $name, "\":"),
            json_quoted: concat!(",\"", $name, "\":\""),
        }
    };
}
pub(super) use name;

/// Takes the fields of a line, one after the other.
pub(super) trait Fields {
    /// A string, which is always quoted.
    fn string(&mut self, name: &'static Name, value: &str);
    /// The same, which is written as it is shown.
    fn shown(&mut self, name: &'static Name, value: &dyn Display);
    /// The same, of which `write` writes nothing that has to be escaped.
    fn verbatim(&mut self, name: &'static Name, write: impl FnOnce(&mut LineBuf));
    /// A value that is mostly one word: in logfmt it is quoted only where it has to be.
    fn word(&mut self, name: &'static Name, value: &str);
    /// A value that never needs quotes in logfmt, such as an address.
    fn bare(&mut self, name: &'static Name, write: impl FnOnce(&mut LineBuf));
    /// Milliseconds, with three digits behind the point.
    fn millis(&mut self, name: &'static Name, us: u32);
    /// Yes or no.
    fn flag(&mut self, name: &'static Name, value: bool);
    /// A number.
    fn number(&mut self, name: &'static Name, value: u64);

    /// A string of the gateway's own.
    #[inline(always)]
    fn known(&mut self, name: &'static Name, value: &'static str) {
        debug_assert!(is_verbatim(value));
        self.verbatim(name, |out| out.text(value));
    }
}

/// Writes `name=value`, each after a space; or as JSON, `"name":value`, each after a comma.
#[derive(Debug)]
pub(super) struct Pairs<'a, const IS_JSON: bool> {
    out: &'a mut LineBuf,
    has_colors: bool,
}

impl<'a> Pairs<'a, false> {
    /// `has_colors`: for a terminal.
    pub(super) fn text(out: &'a mut LineBuf, has_colors: bool) -> Self {
        Self { out, has_colors }
    }
}

impl<'a> Pairs<'a, true> {
    pub(super) fn json(out: &'a mut LineBuf) -> Self {
        Self { out, has_colors: false }
    }
}

impl<const IS_JSON: bool> Pairs<'_, IS_JSON> {
    #[inline(always)]
    fn name(&mut self, name: &'static Name) {
        if IS_JSON {
            self.out.text(name.json);
        } else if self.has_colors {
            self.colored(name);
        } else {
            self.out.text(name.text);
        }
    }

    /// With the quote before the value.
    #[inline(always)]
    fn quoted_name(&mut self, name: &'static Name) {
        if IS_JSON {
            self.out.text(name.json_quoted);
        } else if self.has_colors {
            self.colored(name);
            self.out.text("\"");
        } else {
            self.out.text(name.text_quoted);
        }
    }

    #[cold]
    fn colored(&mut self, name: &Name) {
        for part in [" \x1b[3m", name.plain, "\x1b[0m\x1b[2m=\x1b[0m"] {
            self.out.text(part);
        }
    }
}

// A name is written where it is named: only there it is a constant, and no copy whose length has to be looked at.
impl<const IS_JSON: bool> Fields for Pairs<'_, IS_JSON> {
    #[inline(always)]
    fn string(&mut self, name: &'static Name, value: &str) {
        self.verbatim(name, |out| escaped(value, out));
    }

    fn shown(&mut self, name: &'static Name, value: &dyn Display) {
        self.verbatim(name, |out| {
            let _ = write!(Escaped(out), "{value}");
        });
    }

    #[inline(always)]
    fn verbatim(&mut self, name: &'static Name, write: impl FnOnce(&mut LineBuf)) {
        self.quoted_name(name);
        write(self.out);
        self.out.text("\"");
    }

    #[inline(always)]
    fn word(&mut self, name: &'static Name, value: &str) {
        if !IS_JSON && is_plain(value) {
            self.bare(name, |out| out.text(value));
        } else {
            self.string(name, value);
        }
    }

    #[inline(always)]
    fn bare(&mut self, name: &'static Name, write: impl FnOnce(&mut LineBuf)) {
        if IS_JSON {
            self.verbatim(name, write);
        } else {
            self.name(name);
            write(self.out);
        }
    }

    #[inline(always)]
    fn millis(&mut self, name: &'static Name, us: u32) {
        self.name(name);
        self.out.millis(us);
    }

    #[inline(always)]
    fn flag(&mut self, name: &'static Name, value: bool) {
        self.name(name);
        self.out.text(if value { "true" } else { "false" });
    }

    #[inline(always)]
    fn number(&mut self, name: &'static Name, value: u64) {
        self.name(name);
        self.out.number(value);
    }
}

fn escaped(value: &str, out: &mut LineBuf) {
    let _ = escape(value, out); // writing into a `LineBuf` can't fail
}
