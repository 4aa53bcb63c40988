//! Close payloads (RFC 6455 §5.5.1, §7.4).

use std::fmt;

use crate::violation::Violation;

/// The gateway goes away, or the route of the session has gone (RFC 6455 §7.4.1).
pub const GOING_AWAY: u16 = 1001;
/// The gateway can't serve the session at the moment (IANA's registry of close codes).
pub const TRY_AGAIN_LATER: u16 = 1013;
/// The server restarts.
pub const SERVICE_RESTART: u16 = 1012;

/// The client does what the route does not allow (RFC 6455 §7.4.1).
pub const POLICY_VIOLATION: u16 = 1008;

/// The client is not, or no longer, allowed to have the session (IANA's registry of close codes).
pub const UNAUTHORIZED: u16 = 3000;

/// Bytes of a reason at most (RFC 6455 §5.5).
pub const REASON_MAX: usize = 123;

/// Why a session ended, as one side told the other: a code and a reason, or neither.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Close {
    /// `None` for an empty payload, which both sides report as 1005.
    pub code: Option<u16>,
    /// UTF-8, at most 123 bytes.
    pub reason: Box<str>,
}

impl Close {
    /// Reads an unmasked Close payload.
    ///
    /// # Errors
    /// One byte, a code that must not be on the wire, or a reason that is not UTF-8.
    pub fn parse(payload: &[u8]) -> Result<Self, Violation> {
        match payload {
            [] => Ok(Self::default()),
            [_] => Err(Violation::CloseTruncated),
            [hi, lo, reason @ ..] => {
                let code = u16::from_be_bytes([*hi, *lo]);
                if !may_be_sent(code) {
                    return Err(Violation::CloseCode { code });
                }
                let reason = std::str::from_utf8(reason).map_err(|_| Violation::CloseReason)?;
                Ok(Self { code: Some(code), reason: reason.into() })
            }
        }
    }
}

impl fmt::Display for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            None => f.write_str("no code"),
            Some(code) if self.reason.is_empty() => write!(f, "{code}"),
            Some(code) => write!(f, "{code} {:?}", self.reason),
        }
    }
}

/// Codes an endpoint may put in a Close frame (RFC 6455 §7.4 and the IANA registry).
#[must_use]
pub fn may_be_sent(code: u16) -> bool {
    match code {
        // §7.4.1: 1004 is reserved; 1005, 1006 and 1015 only ever describe what was not sent.
        1004..=1006 | 1015 => false,
        1000..=1014 => true,
        // §7.4.2: registered for libraries and applications, then private use.
        3000..=4999 => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads() {
        let close = |code, reason: &str| Ok(Close { code, reason: reason.into() });
        assert_eq!(Close::parse(b""), close(None, ""));
        assert_eq!(Close::parse(b"\x03"), Err(Violation::CloseTruncated));
        assert_eq!(Close::parse(b"\x03\xE8"), close(Some(1000), ""));
        assert_eq!(Close::parse("\x03\u{0}".as_bytes()), Err(Violation::CloseCode { code: 768 }));
        assert_eq!(Close::parse(b"\x0F\xA0bye \xE2\x82\xAC"), close(Some(4000), "bye €"));
        assert_eq!(Close::parse(b"\x03\xE8\xE2\x82"), Err(Violation::CloseReason));
    }

    #[test]
    fn it_is_shown_with_its_reason_only_if_it_has_one() {
        let shown = |code, reason: &str| Close { code, reason: reason.into() }.to_string();
        assert_eq!(shown(None, ""), "no code");
        assert_eq!(shown(Some(1000), ""), "1000");
        assert_eq!(shown(Some(4000), "bye\n"), r#"4000 "bye\n""#, "a peer's text adds no line to the log");
    }

    #[test]
    fn codes_on_the_wire() {
        let allowed = [(1000, 1003), (1007, 1014), (3000, 4999)];
        for code in 0..=u16::MAX {
            let expect = allowed.iter().any(|&(first, last)| (first..=last).contains(&code));
            assert_eq!(may_be_sent(code), expect, "{code}");
        }
    }
}
