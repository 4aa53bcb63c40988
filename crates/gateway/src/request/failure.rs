//! Why a server has not answered, and what a client reads of that; what is the same whatever is spoken with servers.

use std::fmt::Display;
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue, RETRY_AFTER, UPGRADE};
use http::{Response, StatusCode, Version, response};
use tracing::debug;
use upgrade_handler::{FalseAnswer, HandshakeTransport, Upgrade};

use crate::net::error::{BoxError, chain};
use crate::request::body::AnswerBody;
use crate::request::reply::{ErrorResponse, RequestError, Served};
use crate::site::retry::RetryOn;
use crate::site::upstream::{Unavailable, Upstream};
use crate::upstream::body::{BODY_TOO_LONG, BodyTooLong, CLIENT_STALLED};
use crate::upstream::dial::DialError;
use crate::upstream::forward;
use crate::upstream::h1::connection::SendRequestError;
use crate::upstream::h1::response::BadResponse;

/// Why there is no answer from a backend that could be passed on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0}")]
    Dial(#[from] DialError),
    #[error("the backend did not answer within {after:?} (response_timeout)")]
    Timeout { after: Duration },
    #[error("{CLIENT_STALLED}")]
    ClientStalled,
    #[error("the request's body was cut off: {}", chain(&**.0))]
    Body(BoxError),
    #[error("the connection to the backend broke before it answered: {0}")]
    Broke(std::io::Error),
    #[error("the backend's answer is not valid HTTP: {0}")]
    NotHttp(BadResponse),
    #[error("the backend's answer can't be forwarded: {0}")]
    Bad(BadResponse),
    #[error("the backend's answer is not valid FastCGI: {0}")]
    NotFastcgi(std::io::Error),
    #[error("the backend reset the request's stream: {0}")]
    Reset(String),
    #[error("the backend's answer is not valid HTTP/2: {0}")]
    NotHttp2(BoxError),
    #[error("the backend's answer to the WebSocket handshake is invalid: {0}")]
    False(#[from] FalseAnswer),
    #[error("the backend answered 101 before it had the request")]
    Early,
    #[error(
        "the backend answered {0} instead of 101 to a handshake over HTTP/2, where any 2xx opens the tunnel"
    )]
    WouldOpen(StatusCode),
    #[error("{error}")]
    Unavailable { error: Unavailable, retry_after: Duration },
}

impl Failure {
    /// It is the server's, and no fault of the client's or of the gateway's.
    pub(super) fn is_servers(&self) -> bool {
        !matches!(
            self,
            Self::Dial(DialError::Shortage { .. })
                | Self::ClientStalled
                | Self::Body(_)
                | Self::Unavailable { .. }
        )
    }

    /// As what another server may make it good.
    pub(super) fn retry_on(&self) -> Option<RetryOn> {
        match self {
            Self::Dial(DialError::Shortage { .. }) => None,
            Self::Dial(_) => Some(RetryOn::Connect),
            Self::Broke(_) | Self::Reset(_) => Some(RetryOn::Broken),
            _ => None,
        }
    }
}

impl From<SendRequestError> for Failure {
    fn from(e: SendRequestError) -> Self {
        match e {
            SendRequestError::Retry { why, .. } | SendRequestError::Broke(why) => Self::Broke(why),
            SendRequestError::Body(e) => Self::Body(e),
            SendRequestError::Bad(bad) if bad.is_syntax() => Self::NotHttp(bad),
            SendRequestError::Bad(bad) => Self::Bad(bad),
        }
    }
}

impl From<Failure> for RequestError {
    fn from(failure: Failure) -> Self {
        let (status, sentence) = match &failure {
            Failure::Unavailable { error: Unavailable::Full, .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, "the backends of this gateway have no room at the moment")
            }
            Failure::Unavailable { error: Unavailable::Down(_), .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, "no backend of this gateway is available")
            }
            Failure::Dial(DialError::Timeout { .. } | DialError::TlsTimeout { .. })
            | Failure::Timeout { .. } => {
                (StatusCode::GATEWAY_TIMEOUT, "the backend of this gateway did not answer in time")
            }
            Failure::ClientStalled => (StatusCode::REQUEST_TIMEOUT, CLIENT_STALLED),
            Failure::Body(e) if e.is::<BodyTooLong>() => (StatusCode::PAYLOAD_TOO_LARGE, BODY_TOO_LONG),
            Failure::Body(_) => (StatusCode::BAD_REQUEST, "the request's body was cut off"),
            Failure::Dial(DialError::Shortage { .. }) => {
                (StatusCode::SERVICE_UNAVAILABLE, "this gateway can't open another connection at the moment")
            }
            Failure::Dial(_) => (StatusCode::BAD_GATEWAY, "the backend of this gateway is unreachable"),
            Failure::Broke(_)
            | Failure::NotHttp(_)
            | Failure::NotHttp2(_)
            | Failure::NotFastcgi(_)
            | Failure::Reset(_)
            | Failure::Bad(_)
            | Failure::False(_)
            | Failure::Early
            | Failure::WouldOpen(_) => {
                (StatusCode::BAD_GATEWAY, "the backend of this gateway sent an invalid response")
            }
        };
        let answer = ErrorResponse::new(status, sentence).because(failure.to_string());
        match &failure {
            Failure::Unavailable { error: Unavailable::Full, retry_after } => {
                answer.with(RETRY_AFTER, retry_after.as_secs().max(1).into()).into()
            }
            _ => answer.into(),
        }
    }
}

/// For those who wonder why an answer is not what the backend wrote, or why its connections are not kept.
pub(super) fn log_repairs(upstream: &Upstream, repairs: &[impl Display]) {
    for repair in repairs {
        debug!(%upstream, %repair, "the backend's answer was repaired");
    }
}

/// Passes on what has come in place of a WebSocket.
pub(super) fn decline(
    mut head: response::Parts,
    body: AnswerBody,
    upgrade: &Upgrade,
) -> Result<Served, Failure> {
    if upgrade.transport == HandshakeTransport::Http2 && head.status.is_success() {
        return Err(Failure::WouldOpen(head.status)); // RFC 8441 §5: any 2xx would
    }
    forward::response(&mut head.headers);
    if head.status == StatusCode::UPGRADE_REQUIRED && upgrade.transport != HandshakeTransport::Http2 {
        // RFC 9110 §15.5.22 wants it, and it went as a field of the hop.
        head.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        head.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    head.version = Version::HTTP_11;
    Ok(Served::Answer(Response::from_parts(head, body)))
}
