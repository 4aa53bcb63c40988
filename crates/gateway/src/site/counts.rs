//! What is counted of a route and of a listener, by each worker for itself.

use std::sync::Arc;
use std::time::Duration;

use frame_core::deflated::DeflatedCounts;
use frame_core::ledger::Carried;
use frame_core::outcome::{Cause, Outcome, Party};
use http::StatusCode;
use net_io::count::{Count, Durations, Sizes};
use tls_acceptor::AcceptError;

/// Of a route, on one worker.
#[derive(Debug, Default)]
pub struct RouteCounts {
    /// Requests that were answered, by the class of the status ([`CLASSES`]).
    pub requests: [Count; CLASSES.len()],
    /// From a request to the end of its answer.
    pub request_durations: Durations,
    /// Sessions that were opened.
    pub opened: Count,
    /// Sessions that have ended, by cause ([`CAUSES`]).
    pub closed: [Count; CAUSES.len()],
    /// From the gateway's pings to their answers.
    pub pings: Durations,
    /// What sessions have carried from each of [`SENDERS`].
    pub carried: [CarriedCounts; SENDERS.len()],
    /// Sessions whose compression ends at the gateway. Each has hold of it.
    pub deflated: Arc<DeflatedCounts>,
}

/// What sessions have carried from one side.
#[derive(Debug, Default)]
pub struct CarriedCounts {
    /// Whole messages.
    pub messages: Count,
    /// Their payload bytes, as they are on the wire.
    pub payload_bytes: Count,
    /// The same by message. A session has hold of it.
    pub sizes: Arc<Sizes>,
    /// Of each session that has ended and had messages: payload bytes of the largest one.
    pub largest: Sizes,
}

/// Who sends messages. The gateway, where it is a session's other end, counts as the backend.
pub const SENDERS: [&str; 2] = ["client", "backend"];

/// Classes of statuses; the last one: the client had gone before its answer began.
pub const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "none"];

/// Why sessions end.
pub const CAUSES: [&str; 14] = [
    "client_close",
    "backend_close",
    "streams_ended",
    "client_lost",
    "backend_lost",
    "client_violation",
    "backend_violation",
    "idle_timeout",
    "lifetime",
    "pong_timeout",
    "client_stalled",
    "ordered",
    "panic",
    "cut",
];

/// Close codes that are told apart. Peers may send any: the others are counted together.
pub const CODES: [&str; 19] = [
    "1000", "1001", "1002", "1003", "1004", "1005", "1006", "1007", "1008", "1009", "1010", "1011", "1012",
    "1013", "1014", "1015", "3xxx", "4xxx", "other",
];

impl RouteCounts {
    /// A request has been answered, or its client has gone before.
    pub fn request(&self, status: Option<StatusCode>, took: Duration) {
        self.answer(status);
        self.request_durations.add(took);
    }

    /// A live session has carried so much more.
    pub fn carried(&self, carried: &Carried) {
        for (counts, share) in self.carried.iter().zip([carried.from_client, carried.from_backend]) {
            counts.messages.add(share.messages);
            counts.payload_bytes.add(share.payload_bytes);
        }
    }

    /// A session has ended, or has stopped in the middle.
    pub fn closed(&self, outcome: Result<&Outcome, Cut>) {
        self.closed[place(&CAUSES, cause(outcome))].one();
        let Ok(Outcome { from_client, from_backend, .. }) = outcome else { return };
        for (counts, traffic) in self.carried.iter().zip([from_client, from_backend]) {
            if traffic.messages > 0 {
                counts.largest.add(traffic.largest);
            }
        }
    }

    /// A client was given this status, be it a session's.
    pub fn answer(&self, status: Option<StatusCode>) {
        let class = status.map_or(CLASSES.len(), |status| usize::from(status.as_u16() / 100));
        self.requests[class.clamp(1, CLASSES.len()) - 1].one();
    }
}

/// Why a session has stopped in the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The gateway has ended.
    End,
    /// Its task has panicked, or its worker.
    Panic,
}

impl Cut {
    /// For the log.
    #[must_use]
    pub fn cause(self) -> &'static str {
        match self {
            Self::End => "cut: the gateway has ended (drain_timeout, or a second signal)",
            Self::Panic => "cut: a task of the gateway panicked, which is a bug",
        }
    }
}

/// Which of [`CAUSES`] it is.
#[must_use]
pub fn cause(outcome: Result<&Outcome, Cut>) -> &'static str {
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(Cut::End) => return "cut",
        Err(Cut::Panic) => return "panic",
    };
    match &outcome.cause {
        Cause::Closed { by: Party::Client, .. } => "client_close",
        Cause::Closed { .. } => "backend_close",
        Cause::Finished { .. } => "streams_ended",
        Cause::Lost { party: Party::Client, .. } => "client_lost",
        Cause::Lost { .. } => "backend_lost",
        Cause::Violation { by: Party::Client, .. } => "client_violation",
        Cause::Violation { .. } => "backend_violation",
        Cause::Idle => "idle_timeout",
        Cause::Lifetime => "lifetime",
        Cause::PongTimeout => "pong_timeout",
        Cause::Stalled => "client_stalled",
        Cause::Ordered { .. } => "ordered",
    }
}

/// Which of [`CODES`] it is.
#[must_use]
pub fn code(code: u16) -> &'static str {
    match code {
        1000..=1015 => CODES[usize::from(code - 1000)],
        3000..=3999 => "3xxx",
        4000..=4999 => "4xxx",
        _ => "other",
    }
}

/// Of an upstream, on one worker.
#[derive(Debug, Default)]
pub struct UpstreamCounts {
    /// To a connection to a server, with its TLS.
    pub connects: Durations,
    /// From a request to the head of a server's answer.
    pub answers: Durations,
}

/// Of a listener with TLS, on one worker.
#[derive(Debug, Default)]
pub struct ListenerCounts {
    /// Handshakes that were done, by version ([`VERSIONS`]); the second number: those that resumed a session.
    pub done: [[Count; 2]; VERSIONS.len()],
    /// From the first bytes to the end of a handshake that was done.
    pub durations: Durations,
    /// Handshakes that came to nothing, by the reason ([`FAILURES`]).
    pub failed: [Count; FAILURES.len()],
}

/// Versions of TLS.
pub const VERSIONS: [&str; 2] = ["TLSv1.2", "TLSv1.3"];

/// Why there is no TLS connection.
pub const FAILURES: [&str; 11] = [
    "timeout",
    "shed",
    "client_gone",
    "not_tls",
    "no_certificate",
    "challenge",
    "no_application_protocol",
    "no_client_certificate",
    "client_certificate",
    "tls",
    "io",
];

/// Which of [`FAILURES`] it is.
#[must_use]
pub fn failure(error: &AcceptError) -> &'static str {
    match error {
        AcceptError::Timeout => "timeout",
        AcceptError::Shed => "shed",
        AcceptError::Gone => "client_gone",
        AcceptError::NotTls { .. } => "not_tls",
        AcceptError::NoCertificate { .. } => "no_certificate",
        AcceptError::Challenge { .. } => "challenge",
        AcceptError::NoApplicationProtocol => "no_application_protocol",
        AcceptError::NoClientCertificate { .. } => "no_client_certificate",
        AcceptError::ClientCertificate(_) => "client_certificate",
        AcceptError::Distrusted(_) | AcceptError::Tls(_) => "tls",
        AcceptError::Io(_) => "io",
    }
}

/// The place of a name among `names`, all of which are known here; the last one for any other.
#[must_use]
pub fn place(names: &[&str], name: &str) -> usize {
    names.iter().position(|known| *known == name).unwrap_or(names.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_place() {
        for close in [999, 1000, 1011, 1015, 1016, 2999, 3000, 3999, 4000, 4999, 5000, u16::MAX] {
            assert!(CODES.contains(&code(close)), "{close}");
        }
        assert_eq!((code(1006), code(3999), code(4000), code(2000)), ("1006", "3xxx", "4xxx", "other"));
        assert_eq!(place(&CODES, "3xxx"), 16);
        assert!(
            [Cut::End, Cut::Panic].into_iter().all(|cut| CAUSES.contains(&cause(Err(cut))))
                && FAILURES.contains(&failure(&AcceptError::Shed))
        );
    }

    #[test]
    fn answers_are_counted_by_class() {
        let counts = RouteCounts::default();
        for status in [100, 101, 200, 404, 499, 503, 999] {
            counts.answer(StatusCode::from_u16(status).ok());
        }
        counts.answer(None);
        assert_eq!(counts.requests.each_ref().map(Count::get), [2, 1, 0, 2, 1, 2]);
    }
}
