//! Why a handshake is refused, and how that looks on the wire.

use http::header::{ALLOW, CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{StatusCode, Version};

/// A request that wants a tunnel and can't have one.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A WebSocket handshake over HTTP/1.1 is a GET (RFC 6455 §4.2.1 item 1).
    #[error("a WebSocket handshake must be a GET request")]
    NotGet,
    /// (RFC 6455 §4.2.1 item 5)
    #[error("Sec-WebSocket-Key must be present once and be 16 bytes in base64")]
    Key,
    /// (RFC 6455 §4.2.1 item 6, §4.4)
    #[error("only version 13 of the WebSocket protocol is supported")]
    Version,
    /// Bytes behind the head would be taken for frames.
    #[error("a WebSocket handshake must not have a body")]
    Body,
    /// This is no forward proxy (RFC 9110 §9.3.6).
    #[error("CONNECT is not supported")]
    Connect,
    /// (RFC 8441 §4, RFC 9220 §3)
    #[error("this :protocol is not supported")]
    Protocol,
    /// Another page's script, or a page of another site (RFC 6455 §10.2).
    #[error("WebSockets from this origin are not allowed")]
    Origin,
}

impl Refusal {
    /// The status, and what has to be said beside it.
    #[must_use]
    pub fn answer(&self, version: Version) -> (StatusCode, HeaderMap) {
        let mut headers = HeaderMap::new();
        let status = match self {
            Self::NotGet => {
                headers.insert(ALLOW, HeaderValue::from_static("GET"));
                StatusCode::METHOD_NOT_ALLOWED
            }
            Self::Connect => {
                headers
                    .insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
                StatusCode::METHOD_NOT_ALLOWED
            }
            Self::Version => {
                // RFC 6455 §4.4. HTTP/2 has no Upgrade field (RFC 9113 §8.6), and so no 426.
                headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
                if version == Version::HTTP_2 {
                    StatusCode::BAD_REQUEST
                } else {
                    headers.insert(UPGRADE, HeaderValue::from_static("websocket")); // RFC 9110 §15.5.22
                    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
                    StatusCode::UPGRADE_REQUIRED
                }
            }
            Self::Key | Self::Body => StatusCode::BAD_REQUEST,
            Self::Protocol => StatusCode::NOT_IMPLEMENTED,
            Self::Origin => StatusCode::FORBIDDEN,
        };
        (status, headers)
    }
}
