//! The access line: everything about one request or session, when it is over.

use std::time::Duration;

use frame_core::handle::RateLimit;
use frame_core::outcome::{Cause, Outcome, Party};
use tracing::{info, warn};

use super::peer::cut;
use super::record::{Kind, Record, Sink};
use crate::net::listening::{ClientName, PeerName};
use crate::site::route_id::RouteId;

/// Writes a line to the log for each record.
#[derive(Debug)]
pub struct AccessLog;

/// The fields that every line has, then those of its kind.
macro_rules! line {
    ($level:ident, $record:expr, $message:literal, $($fields:tt)*) => {{
        let record = $record;
        $level!(
            peer = %PeerName(record.peer),
            client = %ClientName(record.client),
            server_name = record.server_name,
            tls = record.tls,
            protocol = record.protocol(),
            method = %cut(record.method.as_str()),
            host = record.host,
            path = record.path,
            route = record.route.map(RouteId::as_str),
            generation = record.generation,
            backend = record.backend,
            backend_protocol = record.backend_protocol,
            status = record.status.map(|status| status.as_u16()),
            request_bytes = record.request_bytes,
            request_id = record.request_id,
            subject = record.subject.map(cut).as_deref(),
            redials = record.redials,
            limit = record.limit.map(RateLimit::as_str),
            duration_ms = millis(record.duration()),
            $($fields)*,
            $message
        );
    }};
}

impl Sink for AccessLog {
    fn take(&self, record: &Record<'_>) {
        match record.kind {
            Kind::Request { sent_bytes, cause } => {
                let cause = cause.map(cut);
                let cause = cause.as_deref();
                // What an operator may have to act on stands out.
                if record.status.is_some_and(|status| status.is_server_error()) {
                    line!(warn, record, "request", sent_bytes, cause);
                } else {
                    line!(info, record, "request", sent_bytes, cause);
                }
            }
            Kind::Session { id, outcome: Some(outcome) } => session(record, id, outcome),
            Kind::Session { id, outcome: None } => {
                let ended_by = Party::Gateway.as_str();
                line!(
                    warn,
                    record,
                    "session",
                    id,
                    ended_by,
                    close_code = 1006,
                    cause = "cut: the gateway has ended (drain_timeout, or a second signal)"
                );
            }
        }
    }
}

fn session(record: &Record<'_>, id: Option<u64>, outcome: &Outcome) {
    let (up, down) = (outcome.from_client, outcome.from_backend);
    let cause = outcome.cause.to_string(); // at most a Close's reason is a peer's: 123 bytes
    let ended_by = outcome.cause.ended_by().as_str();
    // Another protocol has neither codes nor messages.
    let is_websocket = record.upgrade.is_none();
    let close_code = is_websocket.then(|| outcome.cause.close_code());
    let (received_messages, sent_messages) =
        (is_websocket.then_some(up.messages), is_websocket.then_some(down.messages));
    macro_rules! session {
        ($level:ident) => {
            line!(
                $level,
                record,
                "session",
                id,
                ended_by,
                close_code,
                cause,
                upgrade = record.upgrade,
                received_messages,
                received_bytes = up.payload_bytes,
                sent_messages,
                sent_bytes = down.payload_bytes
            )
        };
    }
    if matches!(outcome.cause, Cause::Lost { party: Party::Backend, .. }) {
        session!(warn);
    } else {
        session!(info);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
