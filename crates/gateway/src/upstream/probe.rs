//! A probe: is a server well? A connection, a request, or a WebSocket.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HOST, HeaderValue, USER_AGENT};
use http::{Method, Request, StatusCode, request};
use tls_acceptor::Alpn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use upgrade_handler::{
    FalseAnswer, HandshakeTransport, Key, Offer, Upgrade, ask, ask_http2, verify, verify_http2,
};

use crate::site::endpoint::Endpoint;
use crate::site::health::ProbeKind;
use crate::site::upstream::{Connector, Protocol};
use crate::upstream::body::ToBackend;
use crate::upstream::dial::{DialError, dial, dial_for};
use crate::upstream::h1::connection::{IdleConnection, SendRequestError};
use crate::upstream::h1::request::RequestWriter;
use crate::upstream::http2::connection::{FreeStream, Http2Connection};
use crate::upstream::http2::head;
use crate::upstream::http2::request::{Http2Request, Opened, SendError, open_tunnel};
use crate::upstream::stream::BackendStream;

/// Why a probe failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    /// There is no connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// There is no answer.
    #[error("it did not answer: {0}")]
    Answer(#[from] SendRequestError),
    /// The same over HTTP/2.
    #[error("it did not answer: {0}")]
    Http2(#[from] SendError),
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
    let http2 = match (connector.protocol, kind) {
        (Protocol::Http1, _) => None,
        (Protocol::Http2, ProbeKind::Tcp) => {
            return dial_for(connector, endpoint, Alpn::H2).await.map(drop).map_err(Into::into);
        }
        (Protocol::Http2, _) => Some(Closing(Http2Connection::open(connector, endpoint).await?)),
    };
    match kind {
        ProbeKind::Tcp => dial(connector, endpoint).await.map(drop).map_err(Into::into),
        ProbeKind::Http { path, status } => {
            let mut head = head(endpoint, path);
            let head = match &http2 {
                Some(connection) => {
                    head::request(&mut head, b"", endpoint);
                    let request = Box::new(Http2Request::new(head, ToBackend::empty(), None));
                    request.send(connection.stream()?, NO_LIMIT, None).await?.0
                }
                None => {
                    let request = RequestWriter::new(&head, b"", ToBackend::empty(), None);
                    let idle = IdleConnection::new(dial(connector, endpoint).await?);
                    idle.send_request(request, None).await?.0
                }
            };
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
            let mut io = match &http2 {
                Some(connection) if connection.0.offers_websockets() => {
                    ask_http2(&mut asked);
                    head::request(&mut asked, b"", endpoint);
                    let (head, opened) = open_tunnel(connection.stream()?, asked, NO_LIMIT).await?;
                    let Opened::Tunnel(tunnel) = opened else {
                        return Err(ProbeError::Status { found: head.status, expected: "200".to_owned() });
                    };
                    verify_http2(&head, &offer)?;
                    BackendStream::Http2(tunnel)
                }
                _ => {
                    let request = RequestWriter::new(&asked, b"", ToBackend::empty(), None);
                    let idle = IdleConnection::new(dial(connector, endpoint).await?);
                    let (head, answer) = idle.send_request(request, None).await?;
                    if head.status != StatusCode::SWITCHING_PROTOCOLS {
                        return Err(ProbeError::Status { found: head.status, expected: "101".to_owned() });
                    }
                    verify(&head, &offer, &key)?;
                    let Some((io, _)) = answer.into_io() else { return Ok(()) };
                    io
                }
            };
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

/// The probe has a limit of its own.
const NO_LIMIT: Duration = Duration::from_secs(3600);

/// A connection for one probe, which closes it when it ends, whichever way.
struct Closing(Arc<Http2Connection>);

impl Closing {
    fn stream(&self) -> Result<FreeStream, ProbeError> {
        self.0.stream().ok_or_else(|| ProbeError::Broke(io::ErrorKind::NotConnected.into()))
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
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
