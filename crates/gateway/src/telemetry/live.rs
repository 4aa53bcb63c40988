//! The log for a person who watches: what has happened in few words, the state first, in colour on a terminal.
//!
//! In: the same events and access lines that the other formats write. Out: a line for each request, for each WebSocket
//! that opens or closes, and for everything an operator should know; what only says that the gateway runs is left out.

use std::fmt::{self, Debug, Display, Write};
use std::net::IpAddr;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber, debug};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::fields::{Fields, Name};
use super::line_buf::LineBuf;
use super::peer::{cut, printable};

/// What the line of a session says that has opened.
pub(super) const OPENED: &str = "session opened";
/// What the line of a session says that goes on.
pub(super) const GOES_ON: &str = "session goes on";
/// Where sessions are said to open: elsewhere their end is enough, and that is one line less for each.
const OPENED_TARGET: &str = "wssgate::opened";
/// What is shown if nothing else is asked for.
pub(super) const FILTER: &str = "info,wssgate::opened=debug";
/// They say that the gateway runs, which the person was told.
const LEFT_OUT: [&str; 2] = ["listening", "ready"];
/// What begins so is the end that Ctrl-C has begun.
const ENDING: &str = "draining: ";

const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const BLUE: &str = "\x1b[36m";

/// A session has opened.
pub(crate) fn opened(client: IpAddr, path: &str, is_tls: bool) {
    debug!(target: OPENED_TARGET, %client, tls = is_tls.then_some("TLS"), path = %cut(path), "{OPENED}");
}

/// Formats whole events.
#[derive(Debug, Clone, Copy)]
pub(super) struct Live;

impl<S, N> FormatEvent<S, N> for Live
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let has_colors = out.has_ansi_escapes();
        let mut shown = Shown { out: &mut out, has_colors };
        let mut fields = Values::default();
        event.record(&mut fields);
        match fields.get("message") {
            OPENED => {
                shown.colored(GREEN, fields.scheme())?;
                write!(out, " {} opened by {}", fields.get("path"), fields.get("client"))?;
            }
            message if LEFT_OUT.contains(&message) => return Ok(()),
            message if message.starts_with(ENDING) => {
                let open = count(fields.get("sessions"), "WebSocket");
                write!(out, "ending, with {open} open; Ctrl-C again ends it at once")?;
            }
            _ => {
                match *event.metadata().level() {
                    Level::ERROR => shown.colored(RED, "error: ")?,
                    Level::WARN => shown.colored(YELLOW, "warning: ")?,
                    _ => {}
                }
                context.format_fields(out.by_ref(), event)?;
            }
        }
        writeln!(out)
    }
}

/// Writes an access line, without its end: `message` says what it is about.
pub(super) fn write(message: &str, values: &Values, has_colors: bool, out: &mut LineBuf) {
    let mut line = String::new();
    let shown = &mut Shown { out: &mut line, has_colors };
    // Writing into a `String` can't fail.
    let _ = match message {
        "request" => request(shown, values),
        GOES_ON => goes_on(shown, values),
        _ => closed(shown, values),
    };
    line.push('\n'); // the only one
    out.text(String::from_utf8_lossy(&printable(line.as_bytes(), has_colors)).trim_end_matches('\n'));
}

fn request(out: &mut Shown<'_, impl Write>, fields: &Values) -> fmt::Result {
    let status = fields.get("status");
    let color = match status.as_bytes().first() {
        Some(b'5') | None => RED,
        Some(b'4') => YELLOW,
        _ => GREEN,
    };
    out.colored(color, if status.is_empty() { "---" } else { status })?;
    write!(out.out, " {} {} in {} ms", fields.get("method"), fields.get("path"), fields.get("duration_ms"))?;
    cause(out, fields)
}

fn closed(out: &mut Shown<'_, impl Write>, fields: &Values) -> fmt::Result {
    out.colored(BLUE, fields.scheme())?;
    write!(out.out, " {} closed by {}", fields.get("path"), fields.get("ended_by"))?;
    if !fields.get("close_code").is_empty() {
        write!(out.out, " with {}", fields.get("close_code"))?;
    }
    write!(out.out, " after {} ms", fields.get("duration_ms"))?;
    messages(out, fields)?;
    // Of a Close there is nothing more to say than by whom it came, and its code.
    if fields.get("cause").starts_with("closed by ") { Ok(()) } else { cause(out, fields) }
}

fn goes_on(out: &mut Shown<'_, impl Write>, fields: &Values) -> fmt::Result {
    out.colored(BLUE, fields.get("route"))?;
    write!(out.out, " open for {} ms by {}", fields.get("duration_ms"), fields.get("client"))?;
    messages(out, fields)
}

fn messages(out: &mut Shown<'_, impl Write>, fields: &Values) -> fmt::Result {
    let [received, sent] = ["received_messages", "sent_messages"].map(|name| fields.get(name));
    if received.is_empty() {
        return Ok(());
    }
    write!(out.out, ", {} received, {sent} sent", count(received, "message"))
}

fn cause(out: &mut Shown<'_, impl Write>, fields: &Values) -> fmt::Result {
    let cause = fields.get("cause");
    if cause.is_empty() { Ok(()) } else { write!(out.out, ": {cause}") }
}

/// So many of them.
fn count(number: &str, what: &str) -> String {
    format!("{number} {what}{}", if number == "1" { "" } else { "s" })
}

/// Where words go, some of them in colour.
struct Shown<'a, W> {
    out: &'a mut W,
    has_colors: bool,
}

impl<W: Write> Shown<'_, W> {
    fn colored(&mut self, color: &str, text: &str) -> fmt::Result {
        if self.has_colors { write!(self.out, "{color}{text}\x1b[0m") } else { self.out.write_str(text) }
    }
}

/// The fields of an event or of an access line, as text.
#[derive(Debug, Default)]
pub(super) struct Values(Vec<(&'static str, String)>);

impl Values {
    /// Empty if there is no such field.
    fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }

    /// What the session speaks.
    fn scheme(&self) -> &str {
        match (self.get("upgrade"), self.get("tls")) {
            ("", "") => "ws",
            ("", _) => "wss",
            (upgrade, _) => upgrade,
        }
    }
}

impl Fields for Values {
    fn string(&mut self, name: &'static Name, value: &str) {
        self.0.push((name.plain, value.to_owned()));
    }

    fn shown(&mut self, name: &'static Name, value: &dyn Display) {
        self.0.push((name.plain, value.to_string()));
    }

    fn verbatim(&mut self, name: &'static Name, write: impl FnOnce(&mut LineBuf)) {
        self.bare(name, write);
    }

    fn word(&mut self, name: &'static Name, value: &str) {
        self.string(name, value);
    }

    fn bare(&mut self, name: &'static Name, write: impl FnOnce(&mut LineBuf)) {
        let mut value = LineBuf::NEW;
        write(&mut value);
        self.0.push((name.plain, value.into_string()));
    }

    fn millis(&mut self, name: &'static Name, us: u32) {
        self.bare(name, |out| out.millis(us));
    }

    fn flag(&mut self, name: &'static Name, value: bool) {
        self.shown(name, &value);
    }

    fn number(&mut self, name: &'static Name, value: u64) {
        self.shown(name, &value);
    }
}

impl Visit for Values {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push((field.name(), value.to_owned()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push((field.name(), format!("{value:?}")));
    }
}

#[cfg(test)]
mod tests {
    use super::super::logfmt::tests::Lines;
    use super::*;
    use crate::telemetry::logfmt::Logfmt;

    fn text(has_colors: bool, events: impl FnOnce()) -> String {
        let lines = Lines::default();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(Level::DEBUG)
            .fmt_fields(Logfmt)
            .with_ansi(has_colors)
            .event_format(Live)
            .with_writer(lines.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, events);
        lines.text()
    }

    fn access(has_colors: bool, message: &str, values: &[(&'static str, &str)]) -> String {
        let values = values.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let mut line = LineBuf::NEW;
        write(message, &Values(values), has_colors, &mut line);
        line.into_string()
    }

    #[test]
    fn requests_and_sessions_for_a_person() {
        let get = |path, status, rest: &[(&'static str, &'static str)]| {
            [&[("method", "GET"), ("path", path), ("status", status), ("duration_ms", "3")], rest].concat()
        };
        for (values, expect) in [
            (get("/a", "200", &[]), "200 GET /a in 3 ms"),
            (get("/b", "502", &[("cause", "no server")]), "502 GET /b in 3 ms: no server"),
            (get("/\x1b[2J", "", &[("cause", "gone")]), "--- GET /\\u001b[2J in 3 ms: gone"),
        ] {
            assert_eq!(access(false, "request", &values), expect);
        }
        let bad = access(true, "request", &get("/b", "502", &[]));
        assert_eq!(bad, "\x1b[31m502\x1b[0m GET /b in 3 ms");
        let values = [
            ("tls", "1.3"),
            ("path", "/wss"),
            ("ended_by", "client"),
            ("close_code", "1001"),
            ("duration_ms", "70"),
            ("received_messages", "3"),
            ("sent_messages", "4"),
            ("cause", "the client is going away"),
        ];
        let expect = "wss /wss closed by client with 1001 after 70 ms, 3 messages received, 4 sent: the client is going away";
        assert_eq!(access(false, "session", &values), expect);
        let values = [
            ("path", "/wss"),
            ("ended_by", "backend"),
            ("close_code", "1000"),
            ("duration_ms", "7"),
            ("received_messages", "1"),
            ("sent_messages", "1"),
            ("cause", "closed by the backend (1000)"),
        ];
        let expect = "ws /wss closed by backend with 1000 after 7 ms, 1 message received, 1 sent";
        assert_eq!(access(false, "session", &values), expect);
        let values = [("path", "/exec"), ("ended_by", "backend"), ("duration_ms", "7"), ("upgrade", "tcp")];
        assert_eq!(access(false, "session", &values), "tcp /exec closed by backend after 7 ms");
    }

    #[test]
    fn lines_for_a_person() {
        let events = || {
            opened(IpAddr::from([127, 0, 0, 1]), "/wss", true);
            tracing::info!(address = %"127.0.0.1:1", "listening");
            tracing::warn!(problem = "it expires", "certificates");
            tracing::error!(cause = %"none", "the gateway can't start");
            tracing::info!(sessions = 1, drain_timeout_s = 5, "draining: no new connections are accepted");
            tracing::info!(sessions = 2, "closing sessions");
        };
        let expect = "wss /wss opened by 127.0.0.1\n\
                      warning: certificates problem=\"it expires\"\n\
                      error: the gateway can't start cause=\"none\"\n\
                      ending, with 1 WebSocket open; Ctrl-C again ends it at once\n\
                      closing sessions sessions=2\n";
        assert_eq!(text(false, events), expect);
        let colored = text(true, events);
        assert!(
            colored.starts_with("\x1b[32mwss\x1b[0m /wss") && colored.contains("\x1b[31merror: \x1b[0m"),
            "{colored}"
        );
    }
}
