//! The line of one request or session, as each format has it. Pure, but for the duration.

use std::time::Duration;

use frame_core::handle::RateLimit;
use frame_core::outcome::{Cause, Outcome, Party, RoundTrips, Snapshot, Traffic, Waits};
use itoa::Integer;
use tls_acceptor::Alpn;
use tracing::Level;

use super::address::{write_address, write_ip};
use super::combined;
use super::fields::{Fields, JsonFields, TextFields};
use super::live;
use super::peer::cut;
use super::record::{Kind, Progress, Record, ServerTimes};
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
    fn combined(&self, stamp: &Stamp, out: &mut String);
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
    pub(super) fn write(self, of: &impl Subject, is_warning: bool, stamp: &Stamp, out: &mut String) {
        match self {
            Self::Text { has_colors } => {
                let [dim, color, end] = match (has_colors, is_warning) {
                    (false, _) => [""; 3],
                    (true, false) => ["\x1b[2m", "\x1b[32m", "\x1b[0m"],
                    (true, true) => ["\x1b[2m", "\x1b[33m", "\x1b[0m"],
                };
                out.push_str(dim);
                stamp.write(out);
                let level = if is_warning { " WARN" } else { " INFO" };
                for part in [end, " ", color, level, end, " ", of.message()] {
                    out.push_str(part);
                }
                of.fields(&mut TextFields { out, has_colors });
            }
            Self::Json => {
                out.push_str("{\"timestamp\":\"");
                stamp.write(out);
                for part in
                    ["\",\"level\":\"", level(is_warning).as_str(), "\",\"message\":\"", of.message(), "\""]
                {
                    out.push_str(part);
                }
                of.fields(&mut JsonFields(out));
                out.push('}');
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

    fn combined(&self, stamp: &Stamp, out: &mut String) {
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
        out.bare("peer", |out| write_address(self.peer, out));
        out.bare("client", |out| write_ip(self.client, out));
        out.string("protocol", self.protocol);
        out.string("route", self.route.as_str());
        string(out, "backend", self.backend);
        string(out, "subject", self.subject.map(cut).as_deref());
        number(out, "redials", self.redials);
        out.number("duration_ms", millis(self.started.elapsed()));
        out.number("id", self.id);
        carried([from_client, from_backend], true, out);
        waited(*waits, out);
        answered(*pings, out);
        out.number("idle_ms", millis(*idle));
    }

    /// The format has no line for it, so the configuration doesn't ask for one (`config::rules::session_lines`).
    fn combined(&self, _: &Stamp, _: &mut String) {}
}

/// The fields that every line has, then those of its kind.
fn fields(record: &Record<'_>, out: &mut impl Fields) {
    out.bare("peer", |out| write_address(record.peer, out));
    out.bare("client", |out| write_ip(record.client, out));
    string(out, "server_name", record.server_name);
    string(out, "tls", record.tls);
    out.string("protocol", record.protocol());
    out.word("method", &cut(record.method.as_str()));
    string(out, "host", record.host);
    out.string("path", record.path);
    string(out, "route", record.route.map(RouteId::as_str));
    out.number("generation", record.generation);
    string(out, "backend", record.backend);
    string(out, "backend_protocol", record.backend_protocol);
    number(out, "status", record.status.map(|status| status.as_u16()));
    number(out, "request_bytes", record.request_bytes);
    string(out, "request_id", record.request_id);
    string(out, "subject", record.subject.map(cut).as_deref());
    number(out, "redials", record.redials);
    string(out, "limit", record.limit.map(RateLimit::as_str));
    out.number("duration_ms", millis(record.duration()));
    match record.kind {
        Kind::Request { sent_bytes, cause } => {
            took(record.times, out);
            out.number("sent_bytes", sent_bytes);
            string(out, "cause", cause.map(cut).as_deref());
        }
        Kind::Opened { id } => {
            number(out, "id", id);
            begun(record, out);
            string(out, "upgrade", record.upgrade);
        }
        Kind::Session { id, outcome } => {
            number(out, "id", id);
            begun(record, out);
            match outcome {
                Ok(outcome) => ended(outcome, record.upgrade, out),
                Err(cut) => {
                    out.string("ended_by", Party::Gateway.as_str());
                    out.number("close_code", 1006_u16);
                    out.string("cause", cut.cause());
                }
            }
        }
    }
}

/// How a session has begun.
fn begun(record: &Record<'_>, out: &mut impl Fields) {
    if let Some(negotiated) = record.negotiated {
        out.string("tls_suite", negotiated.suite());
        string(out, "tls_group", negotiated.group());
        out.flag("tls_resumed", negotiated.is_resumed());
        string(out, "alpn", negotiated.alpn().map(Alpn::as_str));
    }
    took(record.times, out);
}

/// How long the server took, where one was asked.
fn took(times: ServerTimes, out: &mut impl Fields) {
    let ServerTimes { connect_us, answer_us } = times;
    for (name, time) in [("connect_ms", connect_us), ("answer_ms", answer_us)] {
        if let Some(us) = time {
            out.millis(name, us.get());
        }
    }
}

/// How a session has ended, and what it was like.
fn ended(outcome: &Outcome, upgrade: Option<&str>, out: &mut impl Fields) {
    // Another protocol has neither codes nor messages.
    let is_websocket = upgrade.is_none();
    out.string("ended_by", outcome.cause.ended_by().as_str());
    if is_websocket {
        out.number("close_code", outcome.cause.close_code());
    }
    out.shown("cause", &outcome.cause); // at most a Close's reason is a peer's: 123 bytes
    if let Cause::Closed { close, .. } = &outcome.cause
        && !close.reason.is_empty()
    {
        out.string("close_reason", &close.reason);
    }
    string(out, "upgrade", upgrade);
    carried([&outcome.from_client, &outcome.from_backend], is_websocket, out);
    waited(outcome.waits, out);
    answered(outcome.pings, out);
}

/// What has come from the client and from the server.
fn carried(traffic: [&Traffic; 2], is_websocket: bool, out: &mut impl Fields) {
    for ([messages, bytes, largest, wire], traffic) in [RECEIVED, SENT].into_iter().zip(traffic) {
        if is_websocket {
            out.number(messages, traffic.messages);
        }
        out.number(bytes, traffic.payload_bytes);
        if is_websocket {
            out.number(largest, traffic.largest);
            out.number(wire, traffic.wire_bytes);
        }
    }
}

/// How long each side was waited for, if at all.
fn waited(waits: Waits, out: &mut impl Fields) {
    let Waits { client_ms, backend_ms } = waits;
    for (name, waited) in [("client_wait_ms", client_ms), ("backend_wait_ms", backend_ms)] {
        if waited > 0 {
            out.number(name, waited);
        }
    }
}

/// How long pings took to their answers.
fn answered(pings: Option<RoundTrips>, out: &mut impl Fields) {
    if let Some(RoundTrips { last_us, min_us, max_us }) = pings {
        for (name, us) in [("ping_ms", last_us), ("ping_min_ms", min_us), ("ping_max_ms", max_us)] {
            out.millis(name, us);
        }
    }
}

/// Names of what came from the client.
const RECEIVED: [&str; 4] =
    ["received_messages", "received_bytes", "received_largest", "received_wire_bytes"];
/// Names of what came from the backend.
const SENT: [&str; 4] = ["sent_messages", "sent_bytes", "sent_largest", "sent_wire_bytes"];

fn string(out: &mut impl Fields, name: &'static str, value: Option<&str>) {
    if let Some(value) = value {
        out.string(name, value);
    }
}

fn number(out: &mut impl Fields, name: &'static str, value: Option<impl Integer>) {
    if let Some(value) = value {
        out.number(name, value);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
