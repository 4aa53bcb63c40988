//! How a session is, and how it ended.

use std::fmt;
use std::io;
use std::time::Duration;

use net_io::state::{StateError, StateReader, StateWriter};

use crate::client::OnWire;
use crate::close::{Close, GOING_AWAY, POLICY_VIOLATION};
use crate::scanner::Tally;
use crate::violation::Violation;

/// Client, backend or gateway: each can end a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    /// The browser or other client.
    Client,
    /// The backend, that is the server behind the gateway.
    Backend,
    /// The gateway itself.
    Gateway,
}

impl Party {
    /// Lower case, for logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Backend => "backend",
            Self::Gateway => "gateway",
        }
    }
}

/// How a peer's bytes came to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// In order: TCP FIN (with TLS after close_notify), or END_STREAM.
    Eof,
    /// TCP FIN without TLS' close_notify: usual when a browser dies or the network goes.
    Truncated,
    /// TCP RST or RST_STREAM.
    Reset,
    /// Anything else that the operating system or TLS reports.
    Failed(io::ErrorKind),
}

impl From<&io::Error> for Ended {
    fn from(e: &io::Error) -> Self {
        use io::ErrorKind as Kind;
        match e.kind() {
            Kind::UnexpectedEof => Self::Truncated,
            Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe => Self::Reset,
            kind => Self::Failed(kind),
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Eof => f.write_str("ended without a Close"),
            Self::Truncated => f.write_str("vanished (no close_notify)"),
            Self::Reset => f.write_str("reset the connection"),
            Self::Failed(kind) => write!(f, "failed: {kind}"),
        }
    }
}

/// Why the session ended: the first thing that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// A closing handshake, begun by this party.
    Closed {
        /// Client or backend.
        by: Party,
        /// Code and reason as sent.
        close: Close,
    },
    /// Both streams of another protocol have ended in order.
    Finished {
        /// Whose stream ended first.
        first: Party,
    },
    /// This party's connection ended without a Close, or broke.
    Lost {
        /// Client or backend.
        party: Party,
        /// How.
        how: Ended,
    },
    /// This party broke a rule.
    Violation {
        /// Client or backend.
        by: Party,
        /// Which.
        violation: Violation,
    },
    /// No message either way for the route's `idle_timeout`.
    Idle,
    /// It has reached the route's `lifetime`.
    Lifetime,
    /// The client answered no ping within `pong_timeout`.
    PongTimeout,
    /// The client took none of what was sent to it for a minute.
    Stalled,
    /// The gateway was asked to end it, with this close code.
    Ordered {
        /// For instance 1001.
        code: u16,
    },
}

impl Cause {
    /// Who ended the session.
    #[must_use]
    pub fn ended_by(&self) -> Party {
        match self {
            Self::Closed { by: party, .. }
            | Self::Finished { first: party }
            | Self::Lost { party, .. }
            | Self::Violation { by: party, .. } => *party,
            Self::PongTimeout | Self::Stalled => Party::Client,
            Self::Idle | Self::Lifetime | Self::Ordered { .. } => Party::Gateway,
        }
    }

    /// The close code that a peer was told; 1005 or 1006 where it was told none (RFC 6455 §7.1.5).
    #[must_use]
    pub fn close_code(&self) -> u16 {
        match self {
            Self::Closed { close, .. } => close.code.unwrap_or(1005),
            Self::Finished { .. } => 1005,
            Self::Lost { party: Party::Backend, .. } => 1011,
            Self::Lost { .. } | Self::PongTimeout | Self::Stalled => 1006,
            Self::Violation { violation, .. } => violation.close_code(),
            Self::Idle => IDLE_CODE,
            Self::Lifetime => LIFETIME_CODE,
            Self::Ordered { code } => *code,
        }
    }
}

/// An idle session is told the gateway is "going away" (RFC 6455 §7.4.1).
pub(crate) const IDLE_CODE: u16 = GOING_AWAY;
/// What is told when a session has reached its lifetime.
pub(crate) const LIFETIME_CODE: u16 = GOING_AWAY;

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { by, close } => write!(f, "closed by {} ({close})", by.as_str()),
            Self::Finished { first } => {
                write!(f, "both streams have ended, that of the {} first", first.as_str())
            }
            Self::Lost { party, how } => write!(f, "{} {how}", party.as_str()),
            Self::Violation { by, violation } => write!(f, "{} broke a rule: {violation}", by.as_str()),
            Self::Idle => f.write_str("idle: no message within idle_timeout"),
            Self::Lifetime => f.write_str("the session has reached its lifetime"),
            Self::PongTimeout => f.write_str("client answered no ping within pong_timeout"),
            Self::Stalled => f.write_str("client took nothing of what waits for it for a minute"),
            Self::Ordered { code: POLICY_VIOLATION } => {
                f.write_str("client sent more than messages or bytes of its route allow")
            }
            Self::Ordered { .. } => f.write_str("ended by the gateway"),
        }
    }
}

/// What the owner of a connection still has to do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Nothing: its write half was shut down in order.
    Orderly,
    /// The other peer reset its connection between two frames: pass that on where the transport
    /// can say it (RFC 8441 §5), else close in order.
    Reset,
    /// The stream stops in the middle of a frame, or the peer is gone: drop it, so that it does not
    /// look like an orderly end.
    Cut,
}

/// What one direction has carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Whole messages.
    pub messages: u64,
    /// Payload bytes of messages, as they are on the wire.
    pub payload_bytes: u64,
    /// All bytes of frames, heads and control frames included. Where compression ends at the gateway: those that the client
    /// has sent, or has taken.
    pub wire_bytes: u64,
    /// Payload bytes that the largest message has announced, whether all of them came or not.
    pub largest: u64,
}

impl Traffic {
    pub(crate) fn new(tally: Tally, wire_bytes: u64, largest: u64) -> Self {
        Self { messages: tally.messages, payload_bytes: tally.payload_bytes, wire_bytes, largest }
    }

    /// Writes what [`Self::read_state`] reads.
    pub(crate) fn write_state(&self, out: &mut StateWriter) {
        let Self { messages, payload_bytes, wire_bytes, largest: _ } = self; // where it is counted
        for count in [messages, payload_bytes, wire_bytes] {
            out.u64(*count);
        }
    }

    /// What was carried before.
    pub(crate) fn read_state(fields: &mut StateReader<'_>) -> Result<Self, StateError> {
        Ok(Self {
            messages: fields.count()?,
            payload_bytes: fields.count()?,
            wire_bytes: fields.count()?,
            largest: 0,
        })
    }
}

/// How long the gateway's pings took to their answers, in microseconds. What waits before a ping in the gateway and in
/// the kernel is a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoundTrips {
    /// Of the last ping that was answered.
    pub last_us: u32,
    /// The shortest.
    pub min_us: u32,
    /// The longest.
    pub max_us: u32,
}

/// For how long bytes have waited for a peer that took none, in milliseconds: each is the sum of all such times, to a
/// tick of the kernel's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waits {
    /// For the client.
    pub client_ms: u32,
    /// For the backend.
    pub backend_ms: u32,
}

/// How a session is while it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// From the client so far.
    pub from_client: Traffic,
    /// From the backend, or from the endpoint, so far.
    pub from_backend: Traffic,
    /// For how long each of them was waited for so far.
    pub waits: Waits,
    /// Of the pings so far; `None`: none was answered.
    pub pings: Option<RoundTrips>,
    /// Since a message last moved.
    pub idle: Duration,
    /// Its end has begun.
    pub is_closing: bool,
}

impl Snapshot {
    /// The same with what has passed on the wire, where that is something else.
    pub(crate) fn on_wire(mut self, wire: Option<OnWire>) -> Self {
        set_on_wire([&mut self.from_client, &mut self.from_backend], wire);
        self
    }
}

/// How a session ended, and what it carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Why it ended.
    pub cause: Cause,
    /// From the client.
    pub from_client: Traffic,
    /// From the backend, or from the endpoint.
    pub from_backend: Traffic,
    /// For how long each of them was waited for.
    pub waits: Waits,
    /// Of the gateway's pings; `None`: none was answered.
    pub pings: Option<RoundTrips>,
    /// What is left to do with the client's connection.
    pub client: Exit,
    /// What is left to do with the backend's connection.
    pub backend: Exit,
}

impl Outcome {
    /// The same with what has passed on the wire, where that is something else.
    pub(crate) fn on_wire(mut self, wire: Option<OnWire>) -> Self {
        set_on_wire([&mut self.from_client, &mut self.from_backend], wire);
        self
    }
}

fn set_on_wire([from_client, from_backend]: [&mut Traffic; 2], wire: Option<OnWire>) {
    if let Some(OnWire { from_client: received, to_client: sent }) = wire {
        (from_client.wire_bytes, from_backend.wire_bytes) = (received, sent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_shown_in_words() {
        let close = Close { code: Some(4000), reason: "bye".into() };
        let lost = |how| Cause::Lost { party: Party::Backend, how };
        for (cause, text) in [
            (Cause::Closed { by: Party::Client, close }, r#"closed by client (4000 "bye")"#),
            (Cause::Closed { by: Party::Gateway, close: Close::default() }, "closed by gateway (no code)"),
            (lost(Ended::Eof), "backend ended without a Close"),
            (lost(Ended::Truncated), "backend vanished (no close_notify)"),
            (lost(Ended::Reset), "backend reset the connection"),
            (lost(Ended::Failed(io::ErrorKind::TimedOut)), "backend failed: timed out"),
            (Cause::Finished { first: Party::Client }, "both streams have ended, that of the client first"),
            (Cause::Idle, "idle: no message within idle_timeout"),
            (Cause::Lifetime, "the session has reached its lifetime"),
            (Cause::Ordered { code: 1001 }, "ended by the gateway"),
        ] {
            assert_eq!(cause.to_string(), text);
        }
    }
}
