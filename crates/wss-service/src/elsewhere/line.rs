//! A message as processes send it to each other: one line of JSON. Pure.
//!
//! `{"text":"hello"}` or `{"binary":"/wA="}` (base64, RFC 4648 §4, padded). `from` is the process that has sent it, which does
//! not deliver it again. `session` is the number of the session that is meant, on the channel for that. Other members mean
//! nothing. Refused, as from a peer: what is no JSON, is not UTF-8, is neither or both of the two kinds, or is too long.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::message::Message;

/// JSON writes a byte as six at most (`\u0000`); the rest of the line is short.
const LONGEST_BYTE: usize = 6;
const BESIDE: usize = 1024;

/// Why a line is dropped.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadLine {
    #[error("{len} bytes are more than the message may have")]
    TooLong { len: usize },
    #[error("it is not the JSON of a message: {0}")]
    Json(String),
    #[error("it has neither `text` nor `binary`")]
    Empty,
    #[error("it has both `text` and `binary`")]
    Both,
    #[error("`binary` is not base64")]
    Base64,
    #[error("`session` is missing, or is no number of a session: 16 digits, hexadecimal")]
    Session,
    #[error("its channel is none of this cluster's")]
    Channel,
}

/// A line that is a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) from: Option<String>,
    pub(crate) session: Option<u64>,
    pub(crate) message: Message,
}

#[derive(Serialize)]
struct Written<'a> {
    from: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    binary: Option<String>,
}

#[derive(Deserialize)]
struct Read {
    from: Option<String>,
    session: Option<String>,
    text: Option<String>,
    binary: Option<String>,
}

/// Bytes of the longest line whose message has `message_max`.
pub(crate) fn line_max(message_max: usize) -> usize {
    message_max.saturating_mul(LONGEST_BYTE).saturating_add(BESIDE)
}

/// The line of a message.
pub(crate) fn encode(from: &str, session: Option<u64>, message: &Message) -> Vec<u8> {
    let session = session.map(|id| format!("{id:016x}"));
    let (text, binary) = match message.as_text() {
        Some(text) => (Some(text), None),
        None => (None, Some(STANDARD.encode(message.as_bytes()))),
    };
    serde_json::to_vec(&Written { from, session, text, binary }).unwrap_or_default() // texts are always JSON
}

/// What each line from this process begins with: none else has its name.
pub(crate) fn own_mark(from: &str) -> Vec<u8> {
    format!("{{\"from\":\"{from}\",").into_bytes()
}

/// Reads a line of which nothing is known.
///
/// # Errors
/// See [`BadLine`].
pub(crate) fn decode(line: &[u8], message_max: usize) -> Result<Line, BadLine> {
    if line.len() > line_max(message_max) {
        return Err(BadLine::TooLong { len: line.len() });
    }
    let read: Read = serde_json::from_slice(line).map_err(|e| BadLine::Json(e.to_string()))?;
    let message: Message = match (read.text, read.binary) {
        (Some(text), None) => text.into(),
        (None, Some(binary)) => STANDARD.decode(binary).map_err(|_| BadLine::Base64)?.into(),
        (None, None) => return Err(BadLine::Empty),
        (Some(_), Some(_)) => return Err(BadLine::Both),
    };
    let len = message.as_bytes().len();
    if len > message_max {
        return Err(BadLine::TooLong { len });
    }
    let session = read.session.map(|digits| session_id(&digits).ok_or(BadLine::Session)).transpose()?;
    Ok(Line { from: read.from, session, message })
}

fn session_id(digits: &str) -> Option<u64> {
    let is_id = digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    is_id.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bad(line: &str) -> BadLine {
        decode(line.as_bytes(), 100).unwrap_err()
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(text: String, binary: Vec<u8>, session: Option<u64>) {
            for message in [Message::from(text), Message::from(binary)] {
                let line = encode("p", session, &message);
                prop_assert!(line.starts_with(&own_mark("p")) && line.len() <= line_max(message.as_bytes().len()));
                let expected = Line { from: Some("p".into()), session, message };
                prop_assert_eq!(decode(&line, 10_000), Ok(expected));
            }
        }

        #[test]
        fn no_line_panics(line: Vec<u8>, json in "\\{(\"(text|binary|session|from)\":(\"[a-z=\\\\u]*\"|null|1|\\{\\}),?){0,3}\\}") {
            let _ = decode(&line, 100);
            let _ = decode(json.as_bytes(), 100);
        }
    }

    #[test]
    fn a_publisher_of_another_language_needs_one_member() {
        let line = decode(br#"{"text":"milk?","sent_at":1700000000,"more":{"a":[]}}"#, 100).unwrap();
        assert_eq!(line, Line { from: None, session: None, message: "milk?".into() });
        let line = decode(br#"{"binary":"/wA=","session":"00000000000000ff"}"#, 100).unwrap();
        assert_eq!(line, Line { from: None, session: Some(255), message: vec![0xFF, 0].into() });
    }

    #[test]
    fn what_a_peer_might_not_send_is_refused() {
        assert!(matches!(bad("milk"), BadLine::Json(_)));
        assert!(matches!(bad(r#"{"text":"\ud800"}"#), BadLine::Json(_)), "no UTF-8 can say this");
        assert!(matches!(bad(r#"{"text":"a","text":"b"}"#), BadLine::Json(_)));
        assert!(matches!(bad(r#"{"text":1}"#), BadLine::Json(_)));
        assert!(matches!(decode(b"{\"text\":\"\xFF\"}", 100).unwrap_err(), BadLine::Json(_)));
        assert_eq!(bad("{}"), BadLine::Empty);
        assert_eq!(bad(r#"{"text":"a","binary":"YQ=="}"#), BadLine::Both);
        assert_eq!(bad(r#"{"binary":"YQ"}"#), BadLine::Base64);
        for id in ["ff", "+0000000000000ff", "00000000000000fg"] {
            assert_eq!(bad(&format!(r#"{{"text":"","session":"{id}"}}"#)), BadLine::Session);
        }
    }

    #[test]
    fn messages_have_a_limit_as_they_are_and_as_they_are_written() {
        let text = |len| format!(r#"{{"text":"{}"}}"#, "a".repeat(len));
        assert!(decode(text(100).as_bytes(), 100).is_ok());
        assert_eq!(bad(&text(101)), BadLine::TooLong { len: 101 });
        let nested = "[".repeat(line_max(100));
        assert_eq!(bad(&nested[1..]), bad(&nested[1..]));
        assert_eq!(bad(&format!("{nested}[")), BadLine::TooLong { len: line_max(100) + 1 });
    }
}
