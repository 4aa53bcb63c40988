//! Messages, as handlers get them and as sessions send them. Pure.

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;
use frame_core::endpoint::{self, MessageKind, SharedFrame};

/// A whole message. Cheap to clone: the bytes are shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Text, which is UTF-8 (RFC 6455 §5.6).
    Text(Text),
    /// Any bytes.
    Binary(Bytes),
}

impl Message {
    /// The text; `None` for binary messages.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Binary(_) => None,
        }
    }

    /// The payload, of either kind.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        match self {
            Self::Text(Text(bytes)) | Self::Binary(bytes) => bytes,
        }
    }

    /// The frame that carries it.
    pub(crate) fn into_frame(self) -> SharedFrame {
        match self {
            Self::Text(Text(bytes)) => SharedFrame::message(MessageKind::Text, bytes),
            Self::Binary(bytes) => SharedFrame::message(MessageKind::Binary, bytes),
        }
    }
}

impl From<endpoint::Message> for Message {
    fn from(message: endpoint::Message) -> Self {
        let payload = message.payload.freeze();
        match message.kind {
            MessageKind::Text => Self::Text(Text(payload)), // the endpoint has checked it
            MessageKind::Binary => Self::Binary(payload),
        }
    }
}

impl From<Text> for Message {
    fn from(text: Text) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Message {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Message {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<&String> for Message {
    fn from(text: &String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<Bytes> for Message {
    fn from(bytes: Bytes) -> Self {
        Self::Binary(bytes)
    }
}

impl From<Vec<u8>> for Message {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Binary(bytes.into())
    }
}

impl From<&[u8]> for Message {
    fn from(bytes: &[u8]) -> Self {
        Self::Binary(Bytes::copy_from_slice(bytes))
    }
}

impl<const N: usize> From<&[u8; N]> for Message {
    fn from(bytes: &[u8; N]) -> Self {
        Self::from(&bytes[..])
    }
}

/// Shared bytes that are UTF-8. Cheap to clone.
///
/// Reading it as a `str` checks it again, at some gigabytes a second, since this crate has no unsafe code; passing it on
/// doesn't.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Text(Bytes);

impl Text {
    /// The text of these bytes; `None` if they are not UTF-8.
    #[must_use]
    pub fn from_utf8(bytes: Bytes) -> Option<Self> {
        simdutf8::basic::from_utf8(&bytes).is_ok().then_some(Self(bytes))
    }

    /// As a `str`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        simdutf8::basic::from_utf8(&self.0).unwrap_or_default() // each way to make one has checked it
    }

    /// The bytes.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self == *other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_made_of_what_programs_have() {
        assert_eq!(Message::from("a").as_text(), Some("a"));
        assert_eq!(Message::from("a".to_owned()), Message::from("a"));
        assert_eq!(Message::from(&"a".to_owned()), Message::from("a"));
        assert_eq!(Message::from(&b"a"[..]), Message::from(vec![b'a']));
        assert_eq!(Message::from(b"a"), Message::from(vec![b'a']));
        assert_eq!(Message::from(vec![b'a']).as_text(), None);
        assert_eq!(Message::from("a").as_bytes(), Message::from(vec![b'a']).as_bytes());
    }

    #[test]
    fn text_is_utf8() {
        assert_eq!(Text::from_utf8(Bytes::from_static(b"\xE2\x82")), None);
        let text = Text::from_utf8(Bytes::from_static("€".as_bytes())).unwrap();
        assert_eq!((text.as_str(), text.to_string(), format!("{text:?}")), ("€", "€".into(), "\"€\"".into()));
        assert!(text == "€" && text.len() == 3);
    }
}
