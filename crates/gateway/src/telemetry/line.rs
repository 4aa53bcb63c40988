//! The line of one request or session, as each format has it. Pure, but for the duration.

use std::time::Duration;

use frame_core::close::Close;
use frame_core::handle::RateLimit;
use frame_core::outcome::{Cause, Outcome, Party, RoundTrips, Snapshot, Traffic, Waits};
use tls_acceptor::Alpn;
use tracing::Level;

use super::address::{write_address, write_ip};
use super::combined;
use super::escape::is_verbatim;
use super::fields::{Fields, Name, Pairs, name};
use super::line_buf::LineBuf;
use super::live;
use super::peer::cut;
use super::record::{Compressed, Kind, Progress, Record, ServerTimes};
use super::stamp::Stamp;
use crate::site::route_id::RouteId;

/// What a line is about.
pub(super) trait Subject {
    /// What an operator may have to act on stands out.
    fn is_warning(&self) -> bool;
    /// In a few words.
    fn message(&self) -> &'static str;
    /// All that is known.
    fn fields(&self, out: &mut impl Fields);
    /// As Apache and nginx have it.
    fn combined(&self, stamp: &Stamp, out: &mut LineBuf);
}

/// How an access line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LineFormat {
    /// As the other lines of a log for people.
    Text {
        /// For a terminal.
        has_colors: bool,
    },
    /// For a person who watches.
    Live {
        /// For a terminal.
        has_colors: bool,
    },
    /// One object.
    Json,
    /// As Apache and nginx call it.
    Combined,
}

pub(super) fn level(is_warning: bool) -> Level {
    if is_warning { Level::WARN } else { Level::INFO }
}

impl LineFormat {
    /// Writes the line, without its end.
    pub(super) fn write(self, of: &impl Subject, is_warning: bool, stamp: &Stamp, out: &mut LineBuf) {
        match self {
            Self::Text { has_colors } => {
                let [dim, color, end] = match (has_colors, is_warning) {
                    (false, _) => [""; 3],
                    (true, false) => ["\x1b[2m", "\x1b[32m", "\x1b[0m"],
                    (true, true) => ["\x1b[2m", "\x1b[33m", "\x1b[0m"],
                };
                out.text(dim);
                stamp.write(out);
                let level = if is_warning { " WARN" } else { " INFO" };
                for part in [end, " ", color, level, end, " ", of.message()] {
                    out.text(part);
                }
                of.fields(&mut Pairs::text(out, has_colors));
            }
            Self::Json => {
                out.text("{\"timestamp\":\"");
                stamp.write(out);
                for part in
                    ["\",\"level\":\"", level(is_warning).as_str(), "\",\"message\":\"", of.message(), "\""]
                {
                    out.text(part);
                }
                of.fields(&mut Pairs::json(out));
                out.text("}");
            }
            Self::Live { has_colors } => {
                let mut values = live::Values::default();
                of.fields(&mut values);
                live::write(of.message(), &values, has_colors, out);
            }
            Self::Combined => of.combined(stamp, out),
        }
    }
}

impl Subject for Record<'_> {
    fn is_warning(&self) -> bool {
        match self.kind {
            Kind::Request { .. } => self.status.is_some_and(|status| status.is_server_error()),
            Kind::Opened { .. } => false,
            Kind::Session { outcome, .. } => outcome
                .map_or(true, |outcome| matches!(outcome.cause, Cause::Lost { party: Party::Backend, .. })),
        }
    }

    fn message(&self) -> &'static str {
        match self.kind {
            Kind::Request { .. } => "request",
            Kind::Opened { .. } => live::OPENED,
            Kind::Session { .. } => "session",
        }
    }

    fn fields(&self, out: &mut impl Fields) {
        fields(self, out);
    }

    fn combined(&self, stamp: &Stamp, out: &mut LineBuf) {
        combined::write(self, stamp, out);
    }
}

impl Subject for Progress<'_> {
    fn is_warning(&self) -> bool {
        false
    }

    fn message(&self) -> &'static str {
        live::GOES_ON
    }

    fn fields(&self, out: &mut impl Fields) {
        let Snapshot { from_client, from_backend, waits, pings, idle, .. } = self.snapshot;
        out.bare(name!("peer"), |out| write_address(self.peer, out));
        out.bare(name!("client"), |out| write_ip(self.client, out));
        out.known(name!("protocol"), self.protocol);
        out.string(name!("route"), self.route.as_str());
        string(out, name!("backend"), self.backend);
        string(out, name!("subject"), self.subject.map(cut).as_deref());
        number(out, name!("redials"), self.redials.map(u64::from));
        out.number(name!("duration_ms"), millis(self.started.elapsed()));
        out.number(name!("id"), self.id);
        carried([from_client, from_backend], true, out);
        waited(*waits, out);
        answered(*pings, out);
        out.number(name!("idle_ms"), millis(*idle));
    }

    /// The format has no line for it, so the configuration doesn't ask for one (`config::rules::session_lines`).
    fn combined(&self, _: &Stamp, _: &mut LineBuf) {}
}

/// The fields that every line has, then those of its kind.
fn fields(record: &Record<'_>, out: &mut impl Fields) {
    out.bare(name!("peer"), |out| write_address(record.peer, out));
    out.bare(name!("client"), |out| write_ip(record.client, out));
    string(out, name!("server_name"), record.server_name);
    known(out, name!("tls"), record.tls);
    out.known(name!("protocol"), record.protocol());
    out.word(name!("method"), &cut(record.method.as_str()));
    string(out, name!("host"), record.host);
    out.string(name!("path"), record.path);
    string(out, name!("route"), record.route.map(RouteId::as_str));
    out.number(name!("generation"), record.generation);
    string(out, name!("backend"), record.backend);
    known(out, name!("backend_protocol"), record.backend_protocol);
    number(out, name!("status"), record.status.map(|status| status.as_u16().into()));
    number(out, name!("request_bytes"), record.request_bytes);
    string(out, name!("request_id"), record.request_id);
    string(out, name!("subject"), record.subject.map(cut).as_deref());
    number(out, name!("redials"), record.redials.map(u64::from));
    known(out, name!("limit"), record.limit.map(RateLimit::as_str));
    out.number(name!("duration_ms"), millis(record.duration()));
    match record.kind {
        Kind::Request { sent_bytes, cause } => {
            took(record.times, out);
            out.number(name!("sent_bytes"), sent_bytes);
            string(out, name!("cause"), cause.map(cut).as_deref());
        }
        Kind::Opened { id } => {
            number(out, name!("id"), id);
            begun(record, out);
            string(out, name!("upgrade"), record.upgrade);
        }
        Kind::Session { id, outcome } => {
            number(out, name!("id"), id);
            begun(record, out);
            match outcome {
                Ok(outcome) => ended(outcome, record.upgrade, out),
                Err(cut) => {
                    out.known(name!("ended_by"), Party::Gateway.as_str());
                    out.number(name!("close_code"), 1006);
                    out.known(name!("cause"), cut.cause());
                }
            }
        }
    }
}

/// How a session has begun.
fn begun(record: &Record<'_>, out: &mut impl Fields) {
    if let Some(negotiated) = record.negotiated {
        out.known(name!("tls_suite"), negotiated.suite());
        known(out, name!("tls_group"), negotiated.group());
        out.flag(name!("tls_resumed"), negotiated.is_resumed());
        known(out, name!("alpn"), negotiated.alpn().map(Alpn::as_str));
    }
    known(out, name!("compression"), record.compression.map(Compressed::as_str));
    took(record.times, out);
}

/// How long the server took, where one was asked.
fn took(times: ServerTimes, out: &mut impl Fields) {
    let ServerTimes { connect_us, answer_us } = times;
    if let Some(us) = connect_us {
        out.millis(name!("connect_ms"), us.get());
    }
    if let Some(us) = answer_us {
        out.millis(name!("answer_ms"), us.get());
    }
}

/// How a session has ended, and what it was like.
fn ended(outcome: &Outcome, upgrade: Option<&str>, out: &mut impl Fields) {
    // Another protocol has neither codes nor messages.
    let is_websocket = upgrade.is_none();
    out.known(name!("ended_by"), outcome.cause.ended_by().as_str());
    if is_websocket {
        out.number(name!("close_code"), outcome.cause.close_code().into());
    }
    cause(&outcome.cause, out);
    if let Cause::Closed { close, .. } = &outcome.cause
        && !close.reason.is_empty()
    {
        out.string(name!("close_reason"), &close.reason);
    }
    string(out, name!("upgrade"), upgrade);
    carried([&outcome.from_client, &outcome.from_backend], is_websocket, out);
    waited(outcome.waits, out);
    answered(outcome.pings, out);
}

/// Why a session has ended, as [`Cause`] shows it. Nearly always it is a Close, which is written without the machinery of
/// `fmt`.
fn cause(cause: &Cause, out: &mut impl Fields) {
    match cause {
        Cause::Closed { by, close: Close { code: Some(code), reason } } if is_verbatim(reason) => {
            out.verbatim(name!("cause"), |out| {
                out.text("closed by ");
                out.text(by.as_str());
                out.text(" (");
                out.number((*code).into());
                if !reason.is_empty() {
                    out.text(" \\\"");
                    out.text(reason);
                    out.text("\\\"");
                }
                out.text(")");
            });
        }
        other => out.shown(name!("cause"), other), // at most a Close's reason is a peer's: 123 bytes
    }
}

/// What has come from the client and from the server.
fn carried([client, server]: [&Traffic; 2], is_websocket: bool, out: &mut impl Fields) {
    if !is_websocket {
        out.number(name!("received_bytes"), client.payload_bytes);
        out.number(name!("sent_bytes"), server.payload_bytes);
        return;
    }
    out.number(name!("received_messages"), client.messages);
    out.number(name!("received_bytes"), client.payload_bytes);
    out.number(name!("received_largest"), client.largest);
    out.number(name!("received_wire_bytes"), client.wire_bytes);
    out.number(name!("sent_messages"), server.messages);
    out.number(name!("sent_bytes"), server.payload_bytes);
    out.number(name!("sent_largest"), server.largest);
    out.number(name!("sent_wire_bytes"), server.wire_bytes);
}

/// How long each side was waited for, if at all.
fn waited(waits: Waits, out: &mut impl Fields) {
    let Waits { client_ms, backend_ms } = waits;
    if client_ms > 0 {
        out.number(name!("client_wait_ms"), client_ms.into());
    }
    if backend_ms > 0 {
        out.number(name!("backend_wait_ms"), backend_ms.into());
    }
}

/// How long pings took to their answers.
fn answered(pings: Option<RoundTrips>, out: &mut impl Fields) {
    if let Some(RoundTrips { last_us, min_us, max_us }) = pings {
        out.millis(name!("ping_ms"), last_us);
        out.millis(name!("ping_min_ms"), min_us);
        out.millis(name!("ping_max_ms"), max_us);
    }
}

#[inline(always)]
fn string(out: &mut impl Fields, name: &'static Name, value: Option<&str>) {
    if let Some(value) = value {
        out.string(name, value);
    }
}

#[inline(always)]
fn known(out: &mut impl Fields, name: &'static Name, value: Option<&'static str>) {
    if let Some(value) = value {
        out.known(name, value);
    }
}

#[inline(always)]
fn number(out: &mut impl Fields, name: &'static Name, value: Option<u64>) {
    if let Some(value) = value {
        out.number(name, value);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
