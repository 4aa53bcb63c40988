//! The log for a person who watches: what has happened in few words, the state first, in colour on a terminal.
//!
//! In: the same events that the other formats write. Out: a line for each request, for each WebSocket that opens or
//! closes, and for everything an operator should know; what only says that the gateway runs is left out.

use std::fmt::{self, Debug};
use std::net::IpAddr;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber, debug};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::peer::cut;

const OPENED: &str = "session opened";
/// Where sessions are said to open: elsewhere their end is enough, and that is one line less for each.
const OPENED_TARGET: &str = "wssgate::opened";
/// What is shown if nothing else is asked for.
pub(super) const FILTER: &str = "info,wssgate::opened=debug";
/// They say that the gateway runs, which the person was told.
const LEFT_OUT: [&str; 2] = ["listening", "ready"];

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
        let mut fields = Fields::default();
        event.record(&mut fields);
        match fields.get("message") {
            "request" => request(&mut out, &fields)?,
            OPENED => {
                colored(&mut out, GREEN, fields.scheme())?;
                write!(out, " {} opened by {}", fields.get("path"), fields.get("client"))?;
            }
            "session" => closed(&mut out, &fields)?,
            message if LEFT_OUT.contains(&message) => return Ok(()),
            _ => {
                match *event.metadata().level() {
                    Level::ERROR => colored(&mut out, RED, "error: ")?,
                    Level::WARN => colored(&mut out, YELLOW, "warning: ")?,
                    _ => {}
                }
                context.format_fields(out.by_ref(), event)?;
            }
        }
        writeln!(out)
    }
}

fn request(out: &mut Writer<'_>, fields: &Fields) -> fmt::Result {
    let status = fields.get("status");
    let color = match status.as_bytes().first() {
        Some(b'5') | None => RED,
        Some(b'4') => YELLOW,
        _ => GREEN,
    };
    colored(out, color, if status.is_empty() { "---" } else { status })?;
    write!(out, " {} {} in {} ms", fields.get("method"), fields.get("path"), fields.get("duration_ms"))?;
    cause(out, fields)
}

fn closed(out: &mut Writer<'_>, fields: &Fields) -> fmt::Result {
    colored(out, BLUE, fields.scheme())?;
    write!(out, " {} closed by {}", fields.get("path"), fields.get("ended_by"))?;
    if !fields.get("close_code").is_empty() {
        write!(out, " with {}", fields.get("close_code"))?;
    }
    write!(out, " after {} ms", fields.get("duration_ms"))?;
    if !fields.get("received_messages").is_empty() {
        write!(
            out,
            ", {} messages received, {} sent",
            fields.get("received_messages"),
            fields.get("sent_messages")
        )?;
    }
    cause(out, fields)
}

fn cause(out: &mut Writer<'_>, fields: &Fields) -> fmt::Result {
    let cause = fields.get("cause");
    if cause.is_empty() { Ok(()) } else { write!(out, ": {cause}") }
}

fn colored(out: &mut Writer<'_>, color: &str, text: &str) -> fmt::Result {
    if out.has_ansi_escapes() { write!(out, "{color}{text}\x1b[0m") } else { out.write_str(text) }
}

/// The fields of an event, as text.
#[derive(Debug, Default)]
struct Fields(Vec<(&'static str, String)>);

impl Fields {
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

impl Visit for Fields {
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

    #[test]
    fn lines_for_a_person() {
        let events = || {
            tracing::info!(method = %"GET", path = "/a", status = 200_u16, duration_ms = 3_u64, "request");
            tracing::warn!(method = %"GET", path = "/b", status = 502_u16, duration_ms = 1_u64, cause = "no server", "request");
            tracing::info!(method = %"GET", path = "/c", status = None::<u16>, duration_ms = 9_u64, cause = "gone", "request");
            opened(IpAddr::from([127, 0, 0, 1]), "/wss", true);
            tracing::info!(
                tls = "1.3",
                path = "/wss",
                ended_by = "client",
                close_code = 1001_u16,
                duration_ms = 70_u64,
                received_messages = 3_u64,
                sent_messages = 4_u64,
                cause = "the client is going away",
                "session"
            );
            tracing::info!(
                path = "/exec",
                ended_by = "backend",
                duration_ms = 7_u64,
                upgrade = "tcp",
                "session"
            );
            tracing::info!(address = %"127.0.0.1:1", "listening");
            tracing::warn!(problem = "it expires", "certificates");
            tracing::error!(cause = %"none", "the gateway can't start");
            tracing::info!(sessions = 1, "draining");
        };
        let expect = "200 GET /a in 3 ms\n\
                      502 GET /b in 1 ms: no server\n\
                      --- GET /c in 9 ms: gone\n\
                      wss /wss opened by 127.0.0.1\n\
                      wss /wss closed by client with 1001 after 70 ms, 3 messages received, 4 sent: the client is going away\n\
                      tcp /exec closed by backend after 7 ms\n\
                      warning: certificates problem=\"it expires\"\n\
                      error: the gateway can't start cause=\"none\"\n\
                      draining sessions=1\n";
        assert_eq!(text(false, events), expect);
        let colored = text(true, events);
        assert!(
            colored.starts_with("\x1b[32m200\x1b[0m GET /a") && colored.contains("\x1b[31m502\x1b[0m"),
            "{colored}"
        );
    }
}
