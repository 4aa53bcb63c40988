//! Text lines of the log: the time, the level and the message, then `name=value` pairs as logfmt has them.
//!
//! In: the fields of an event. Out: pairs which every parser of logfmt reads back. A value that is empty, or
//! has a space, a quote, `=`, a control character or one that can't be seen, is quoted, with the escapes of
//! JSON (`\"`, `\\`, `\n`, `\u001b`). Strings are always quoted, so that the same field always looks the same.

use std::cell::Cell;
use std::fmt::{self, Debug, Write};

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

use super::escape::{is_plain, quote};

/// Fields that hold a string in some lines and a value with `Display` in others.
const STRINGS: [&str; 4] = ["cause", "path", "problem", "repair"];

thread_local! {
    /// Where values with `Display` are written first: only then it is known whether they need quotes.
    static VALUE: Cell<String> = const { Cell::new(String::new()) };
}

/// Formats the fields of events.
#[derive(Debug, Clone, Copy)]
pub(super) struct Logfmt;

impl<'writer> FormatFields<'writer> for Logfmt {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut pairs =
            Pairs { has_colors: writer.has_ansi_escapes(), out: writer, is_first: true, result: Ok(()) };
        fields.record(&mut pairs);
        pairs.result
    }
}

/// Writes one field after the other.
struct Pairs<W> {
    out: W,
    has_colors: bool,
    is_first: bool,
    /// The first failure: a visitor can't return it.
    result: fmt::Result,
}

impl<W: Write> Pairs<W> {
    fn name(&mut self, name: &str) -> fmt::Result {
        self.separate()?;
        let name = name.strip_prefix("r#").unwrap_or(name); // a keyword of Rust
        if self.has_colors {
            return write!(self.out, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m");
        }
        self.out.write_str(name)?;
        self.out.write_char('=')
    }

    fn separate(&mut self) -> fmt::Result {
        if std::mem::take(&mut self.is_first) { Ok(()) } else { self.out.write_char(' ') }
    }

    /// Words without a name, unless they are not to be taken for words: other crates log at `debug`, too.
    fn message(&mut self, text: &str) -> fmt::Result {
        if text.split(' ').all(|word| word.is_empty() || is_plain(word)) {
            self.separate()?;
            return self.out.write_str(text);
        }
        self.name("message")?;
        quote(text, &mut self.out)
    }

    fn string(&mut self, name: &str, text: &str) -> fmt::Result {
        if name == "message" {
            return self.message(text);
        }
        self.name(name)?;
        quote(text, &mut self.out)
    }

    fn value(&mut self, name: &str, text: &str) -> fmt::Result {
        if STRINGS.contains(&name) || name == "message" || !is_plain(text) {
            return self.string(name, text);
        }
        self.name(name)?;
        self.out.write_str(text)
    }

    fn record(&mut self, field: &Field, write: impl FnOnce(&mut Self, &str) -> fmt::Result) {
        // What the log crate's records say of themselves.
        if self.result.is_ok() && !field.name().starts_with("log.") {
            self.result = write(self, field.name());
        }
    }
}

impl<W: Write> Visit for Pairs<W> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record(field, |pairs, name| pairs.string(name, value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.record(field, |pairs, name| {
            pairs.name(name)?;
            write!(pairs.out, "{value}")
        });
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record(field, |pairs, name| {
            let mut text = VALUE.take();
            text.clear();
            let result = write!(text, "{value:?}").and_then(|()| pairs.value(name, &text));
            VALUE.set(text);
            result
        });
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::fmt::Arguments;
    use std::io;
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;
    use support::logfmt;
    use tracing::subscriber::with_default;
    use tracing::{debug, info};
    use tracing_subscriber::fmt::MakeWriter;

    use super::super::escape::escape_len;
    use super::*;

    #[derive(Clone, Default)]
    pub(in crate::telemetry) struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        pub(in crate::telemetry) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Lines {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    /// What the log writes of `events`, without times.
    fn text(has_colors: bool, events: impl FnOnce()) -> String {
        let lines = Lines::default();
        let subscriber = tracing_subscriber::fmt()
            .fmt_fields(Logfmt)
            .with_ansi(has_colors)
            .with_writer(lines.clone())
            .with_target(false)
            .without_time()
            .finish();
        with_default(subscriber, events);
        lines.text()
    }

    #[test]
    fn values_are_quoted_where_they_have_to_be() {
        let written = text(false, || {
            info!(
                a = "x",
                b = %"x",
                c = %"x y",
                d = %"",
                e = ?Some("=\\"),
                cause = %"gone",
                f = 1_u64,
                g = -1_i64,
                h = 0.5,
                i = true,
                j = %"é",
                k = "\n\t\u{1b}\u{85}\u{202e}\u{e0001}é",
                r#type = None::<u64>,
                r#move = 7,
                "the message: with [[brackets]] and `ticks`"
            );
            info!(a = 1, "a=b");
            debug!("not shown");
            info!("{} words", "two \"quoted\"");
        });
        let expect = concat!(
            r#" INFO the message: with [[brackets]] and `ticks` a="x" b=x c="x y" d="" e="Some(\"=\\\\\")" "#,
            r#"cause="gone" f=1 g=-1 h=0.5 i=true j=é k="\n\t\u001b\u0085\u202e\udb40\udc01é" move=7"#,
            "\n",
            r#" INFO message="a=b" a=1"#,
            "\n",
            r#" INFO message="two \"quoted\" words""#,
            "\n"
        );
        assert_eq!(written, expect);
        for line in written.lines() {
            logfmt::parse(line).unwrap();
        }
        let colored = text(true, || info!(a = "x", b = 1, "words"));
        let expect = "words \x1b[3ma\x1b[0m\x1b[2m=\x1b[0m\"x\" \x1b[3mb\x1b[0m\x1b[2m=\x1b[0m1\n";
        assert!(colored.ends_with(expect), "{colored:?}");
    }

    proptest! {
        #[test]
        fn every_value_is_read_back(value: String, other in "[ -~]{0,8}", message in "[ -~é\u{200b}\n]{0,12}") {
            let shown = |format: Arguments<'_>| text(false, || info!(value, other = %other, path = %value, debug = ?value, end = 1, "{format}"));
            let line = shown(format_args!("{message}"));
            let pairs = logfmt::parse(line.strip_suffix('\n').unwrap()).unwrap();
            let get = |name: &str| pairs.iter().find(|(key, _)| key == name).and_then(|(_, value)| value.as_deref());
            prop_assert_eq!(get("value"), Some(&*value));
            prop_assert_eq!(get("other"), Some(&*other));
            prop_assert_eq!(get("path"), Some(&*value));
            prop_assert_eq!(get("debug"), Some(&*format!("{value:?}")));
            prop_assert_eq!(get("end"), Some("1"));
            if let Some(quoted) = get("message") {
                prop_assert_eq!(quoted, message);
            }
            let len: usize = value.chars().map(escape_len).sum();
            let value_pair = "value=\"";
            let at = line.find(value_pair).unwrap() + value_pair.len();
            prop_assert!(line[at + len..].starts_with("\" other="), "{line}");
        }
    }
}
