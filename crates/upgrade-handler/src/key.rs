//! `Sec-WebSocket-Key` and `Sec-WebSocket-Accept` (RFC 6455 §4.1 item 7, §4.2.2 item 5.4).

use base64::Engine;
use base64::engine::general_purpose::{GeneralPurpose, PAD, STANDARD};
use http::HeaderValue;
use sha1::{Digest, Sha1};

/// Clients' keys: RFC 6455 §1.3 itself has one whose last four bits, which mean nothing, are not zero.
const LENIENT: GeneralPurpose =
    GeneralPurpose::new(&base64::alphabet::STANDARD, PAD.with_decode_allow_trailing_bits(true));

const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A nonce of 16 bytes, as it is written: 24 characters of base64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(HeaderValue);

impl Key {
    /// A fresh one for a handshake with a backend.
    #[must_use]
    pub fn random() -> Self {
        let nonce: [u8; 16] = rand::random();
        Self(ascii(&STANDARD.encode(nonce)))
    }

    /// A client's; `None` unless it decodes to 16 bytes.
    #[must_use]
    pub(crate) fn parse(value: &HeaderValue) -> Option<Self> {
        let nonce = LENIENT.decode(value.as_bytes()).ok()?;
        (nonce.len() == 16).then(|| Self(value.clone()))
    }

    /// As the field is sent.
    #[must_use]
    pub fn value(&self) -> &HeaderValue {
        &self.0
    }

    /// The `Sec-WebSocket-Accept` that proves the other side has read this key.
    #[must_use]
    pub(crate) fn accept(&self) -> HeaderValue {
        let mut sha1 = Sha1::new();
        sha1.update(self.0.as_bytes());
        sha1.update(GUID);
        ascii(&STANDARD.encode(sha1.finalize()))
    }
}

/// Base64 is always a field value.
fn ascii(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc() {
        let key = Key::parse(&HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==")).unwrap();
        assert_eq!(key.accept(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn keys_are_sixteen_bytes() {
        // RFC 6455 §4.1 item 7: what the bytes 1 to 16 are said to be.
        assert!(Key::parse(&HeaderValue::from_static("AQIDBAUGBwgJCgsMDQ4PEC==")).is_some());
        assert_ne!(Key::random(), Key::random());
        assert!(Key::parse(Key::random().value()).is_some());
        for bad in
            ["", "AAAA", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZQ==,", "dGhlIHNhbXBsZSBub25jZTE="]
        {
            assert_eq!(Key::parse(&HeaderValue::from_static(bad)), None, "{bad}");
        }
    }
}
