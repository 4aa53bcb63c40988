//! How a session ended: by whom, with which code, and why. Pure.

use std::fmt;

use frame_core::close::{self, Close, REASON_MAX};
use frame_core::outcome::{self, Ended, Outcome};
use frame_core::violation::Violation;

/// A code that may stand in a Close (RFC 6455 §7.4, and IANA's registry).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CloseCode(u16);

/// This number must not be sent as a close code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("close code {0} must not be sent (RFC 6455 §7.4): take 1000, or 4000 to 4999 for your own")]
pub struct BadCloseCode(pub u16);

impl CloseCode {
    /// 1000: all is done.
    pub const NORMAL: Self = Self(1000);
    /// 1001: the server goes away.
    pub const GOING_AWAY: Self = Self(close::GOING_AWAY);
    /// 1008: the client does what it may not.
    pub const POLICY_VIOLATION: Self = Self(close::POLICY_VIOLATION);
    /// 1011: the server has failed.
    pub const INTERNAL_ERROR: Self = Self(1011);
    /// 1012: the server restarts.
    pub const SERVICE_RESTART: Self = Self(close::SERVICE_RESTART);
    /// 1013: the server can't serve the client at the moment.
    pub const TRY_AGAIN_LATER: Self = Self(close::TRY_AGAIN_LATER);

    /// The code of this number.
    ///
    /// # Errors
    /// 1005, 1006, and others that are not for the wire.
    pub fn new(code: u16) -> Result<Self, BadCloseCode> {
        if close::may_be_sent(code) { Ok(Self(code)) } else { Err(BadCloseCode(code)) }
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for CloseCode {
    type Error = BadCloseCode;

    fn try_from(code: u16) -> Result<Self, BadCloseCode> {
        Self::new(code)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The front of `reason` that fits into a Close: whole characters, at most 123 bytes (RFC 6455 §5.5).
pub(crate) fn short_reason(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(REASON_MAX)]
}

/// Client or server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    /// The browser or other client.
    Client,
    /// This service.
    Server,
}

impl Party {
    /// Lower case, for logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// Who ended it.
    pub by: Party,
    /// The close code that the other side was told; 1005 or 1006 where it was told none (RFC 6455 §7.1.5).
    pub code: u16,
    /// What stood beside the code.
    pub reason: Box<str>,
    /// The first thing that made it end.
    pub cause: Cause,
}

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// A Close of the client's.
    ClosedByClient,
    /// [`Session::close`](crate::Session::close).
    ClosedByServer,
    /// The client's connection ended without a Close, or broke.
    Lost(Ended),
    /// The client broke a rule.
    Violation(Violation),
    /// No message either way for [`Settings::idle_timeout`](crate::Settings::idle_timeout).
    Idle,
    /// It has reached [`Settings::lifetime`](crate::Settings::lifetime).
    Lifetime,
    /// The client answered no ping.
    PongTimeout,
    /// The client took none of what was sent to it for a minute.
    Stalled,
    /// The messages of all sessions together take as much as
    /// [`Compression::messages_max`](crate::Compression::messages_max) allows.
    ShortOfMemory,
    /// The outbox was full, and [`SlowClient::Close`](crate::SlowClient::Close) says that this is the end.
    SlowClient,
    /// A message that was sent in parts was given up half-way.
    Unfinished,
    /// The handler returned an error.
    HandlerFailed,
    /// The handler has panicked.
    HandlerPanicked,
    /// The service drains.
    Drained,
    /// The service ended before the session had ended in order.
    Cut,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClosedByClient => f.write_str("closed by the client"),
            Self::ClosedByServer => f.write_str("closed by the server"),
            Self::Lost(how) => write!(f, "the client {how}"),
            Self::Violation(violation) => write!(f, "the client broke a rule: {violation}"),
            Self::Idle => f.write_str("idle: no message within idle_timeout"),
            Self::Lifetime => f.write_str("the session has reached its lifetime"),
            Self::PongTimeout => f.write_str("the client answered no ping within pong_timeout"),
            Self::Stalled => f.write_str("the client took nothing of what waits for it for a minute"),
            Self::ShortOfMemory => f.write_str("there is no memory for more of its compressed messages"),
            Self::SlowClient => f.write_str("the client is too slow for what is sent to it"),
            Self::Unfinished => f.write_str("a message was given up half-way"),
            Self::HandlerFailed => f.write_str("the handler failed"),
            Self::HandlerPanicked => f.write_str("the handler panicked"),
            Self::Drained => f.write_str("the service drains"),
            Self::Cut => f.write_str("cut at the end of the service"),
        }
    }
}

impl Closed {
    /// What an endpoint's outcome means for a service; `own` says why the service itself ended the session, if it did.
    pub(crate) fn of(outcome: Outcome, own: Option<Cause>) -> Self {
        let code = outcome.cause.close_code();
        let by = match outcome.cause.ended_by() {
            outcome::Party::Client => Party::Client,
            outcome::Party::Backend | outcome::Party::Gateway => Party::Server,
        };
        let (cause, reason) = match outcome.cause {
            outcome::Cause::Closed { by: outcome::Party::Client, close } => {
                (Cause::ClosedByClient, close.reason)
            }
            outcome::Cause::Closed { close: Close { reason, .. }, .. } => {
                (own.unwrap_or(Cause::ShortOfMemory), reason) // the endpoint has no other reason of its own
            }
            outcome::Cause::Lost { how, .. } => (Cause::Lost(how), Box::default()),
            outcome::Cause::Finished { .. } => (Cause::Lost(Ended::Eof), Box::default()), // of other protocols
            outcome::Cause::Violation { violation, .. } => {
                (Cause::Violation(violation), violation.to_string().into())
            }
            outcome::Cause::Idle => (Cause::Idle, "idle".into()),
            outcome::Cause::Lifetime => (Cause::Lifetime, Box::default()),
            outcome::Cause::PongTimeout => (Cause::PongTimeout, Box::default()),
            outcome::Cause::Stalled => (Cause::Stalled, Box::default()),
            outcome::Cause::Ordered { .. } => (Cause::Drained, Box::default()),
        };
        Self { by, code, reason, cause }
    }

    /// The session was dropped with the service.
    pub(crate) fn cut() -> Self {
        Self { by: Party::Server, code: 1006, reason: Box::default(), cause: Cause::Cut }
    }

    /// The connection of an accepted handshake went before the session began.
    pub(crate) fn never_opened() -> Self {
        Self { by: Party::Client, code: 1006, reason: Box::default(), cause: Cause::Lost(Ended::Eof) }
    }
}

#[cfg(test)]
mod tests {
    use frame_core::outcome::{Exit, Traffic, Waits};

    use super::*;

    #[test]
    fn codes_that_may_be_sent() {
        for good in [1000, 1001, 1008, 1011, 1012, 1013, 3000, 4999] {
            assert_eq!(CloseCode::new(good).unwrap().get(), good);
        }
        for bad in [0, 999, 1005, 1006, 1015, 2000, 5000] {
            assert_eq!(CloseCode::new(bad), Err(BadCloseCode(bad)));
        }
    }

    #[test]
    fn a_reason_is_cut_between_characters() {
        assert_eq!(short_reason("bye"), "bye");
        assert_eq!(short_reason(&"a".repeat(200)).len(), 123);
        assert_eq!(short_reason(&"ü".repeat(100)).len(), 122);
    }

    #[test]
    fn who_ended_it_and_why() {
        let closed = |cause, own| {
            let traffic = Traffic::default();
            let exit = Exit::Orderly;
            let outcome = Outcome {
                cause,
                from_client: traffic,
                from_backend: traffic,
                waits: Waits::default(),
                pings: None,
                client: exit,
                backend: exit,
            };
            Closed::of(outcome, own)
        };
        let close = |code| Close { code: Some(code), reason: "bye".into() };
        let by_client =
            closed(outcome::Cause::Closed { by: outcome::Party::Client, close: close(4000) }, None);
        assert_eq!(
            by_client,
            Closed { by: Party::Client, code: 4000, reason: "bye".into(), cause: Cause::ClosedByClient }
        );
        let by_us = outcome::Cause::Closed { by: outcome::Party::Gateway, close: close(1013) };
        let slow = closed(by_us.clone(), Some(Cause::SlowClient));
        assert_eq!((slow.by, slow.code, slow.cause), (Party::Server, 1013, Cause::SlowClient));
        assert_eq!(closed(by_us, None).cause, Cause::ShortOfMemory);
        let lost = outcome::Cause::Lost { party: outcome::Party::Client, how: Ended::Reset };
        let lost = closed(lost, None);
        assert_eq!((lost.by, lost.code), (Party::Client, 1006));
        assert_eq!(lost.cause.to_string(), "the client reset the connection");
        let ordered = closed(outcome::Cause::Ordered { code: 1012 }, None);
        assert_eq!((ordered.by, ordered.code, ordered.cause), (Party::Server, 1012, Cause::Drained));
    }
}
