//! A probe: is a server well? A connection, a request, or a WebSocket.

use std::io;

use http::header::{HOST, HeaderValue, USER_AGENT};
use http::{Method, Request, StatusCode, request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use upgrade_handler::{FalseAnswer, HandshakeTransport, Key, Offer, Upgrade, ask, verify};

use crate::site::endpoint::Endpoint;
use crate::site::health::ProbeKind;
use crate::site::upstream::Connector;
use crate::upstream::body::ToBackend;
use crate::upstream::dial::{DialError, dial};
use crate::upstream::h1::connection::{IdleConnection, SendRequestError};
use crate::upstream::h1::request::RequestWriter;

/// Why a probe failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    /// There is no connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// There is no answer.
    #[error("it did not answer: {0}")]
    Answer(#[from] SendRequestError),
    /// Another answer was expected.
    #[error("it answered {found}, expected {expected}")]
    Status {
        /// The status.
        found: StatusCode,
        /// In words.
        expected: String,
    },
    /// The answer to the handshake is none.
    #[error("its answer to the WebSocket handshake is invalid: {0}")]
    Handshake(#[from] FalseAnswer),
    /// The connection broke.
    #[error("its connection broke: {0}")]
    Broke(#[from] io::Error),
}

/// Probes a server once. There is no time limit here.
///
/// # Errors
/// What is wrong with the server.
///
/// # Cancel safety
/// A dropped call closes the connection.
pub(crate) async fn probe(
    kind: &ProbeKind,
    connector: Connector,
    endpoint: &Endpoint,
) -> Result<(), ProbeError> {
    let io = dial(connector, endpoint).await?;
    match kind {
        ProbeKind::Tcp => Ok(()),
        ProbeKind::Http { path, status } => {
            let request = RequestWriter::new(&head(endpoint, path), b"", ToBackend::empty(), None);
            let (head, _) = IdleConnection::new(io).send_request(request, None).await?;
            let is_good = match status {
                Some(status) => head.status == *status,
                None => head.status.is_success() || head.status.is_redirection(),
            };
            let expected = || status.map_or("200 to 399".to_owned(), |status| status.as_u16().to_string());
            is_good
                .then_some(())
                .ok_or_else(|| ProbeError::Status { found: head.status, expected: expected() })
        }
        ProbeKind::WebSocket { path } => {
            let offer = Upgrade {
                transport: HandshakeTransport::Http2, // no key of a client's
                protocols: Vec::new(),
                extensions: Offer::default(),
            };
            let key = Key::random();
            let mut asked = head(endpoint, path);
            ask(&mut asked, &offer, &key);
            let request = RequestWriter::new(&asked, b"", ToBackend::empty(), None);
            let (head, answer) = IdleConnection::new(io).send_request(request, None).await?;
            if head.status != StatusCode::SWITCHING_PROTOCOLS {
                return Err(ProbeError::Status { found: head.status, expected: "101".to_owned() });
            }
            verify(&head, &offer, &key)?;
            let Some((mut io, _)) = answer.into_io() else { return Ok(()) };
            // A masked Close with 1000; then the server closes (RFC 6455 §7.1.1).
            let mask: [u8; 4] = rand::random();
            let [high, low] = 1000u16.to_be_bytes();
            let close = [0x88, 0x82, mask[0], mask[1], mask[2], mask[3], high ^ mask[0], low ^ mask[1]];
            io.write_all(&close).await?;
            let mut heard = [0; 256];
            while io.read(&mut heard).await? > 0 {}
            Ok(())
        }
    }
}

fn head(endpoint: &Endpoint, path: &str) -> request::Parts {
    let (mut head, ()) = Request::new(()).into_parts();
    head.method = Method::GET;
    head.uri = path.parse().unwrap_or_default(); // the configuration has checked it
    head.headers.insert(HOST, endpoint.field());
    head.headers.insert(USER_AGENT, HeaderValue::from_static("wssgate"));
    head
}
