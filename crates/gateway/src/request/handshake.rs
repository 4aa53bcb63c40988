//! A WebSocket handshake with a server: over HTTP/2 on a stream, where that is spoken and offered (RFC 8441), else over
//! HTTP/1.1 on a connection of its own.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{StatusCode, response};
use tokio::time::{Instant, timeout};
use upgrade_handler::{Agreed, FalseAnswer, Handoff, Key, Repair, Upgrade, verify, verify_http2};

use crate::context::Connection;
use crate::request::failure::Failure;
use crate::request::http2;
use crate::site::endpoint::Endpoint;
use crate::site::upstream::{Protocol, Upstream};
use crate::telemetry::record::ServerTimes;
use crate::upstream::body::ToBackend;
use crate::upstream::dial::dial;
use crate::upstream::h1::connection::{IdleConnection, ResponseBody, SendRequestError};
use crate::upstream::h1::request::RequestWriter;
use crate::upstream::http2::answer::Http2Answer;
use crate::upstream::http2::request::Opened;
use crate::upstream::stream::BackendStream;

/// What a server has made of a handshake.
pub(super) enum Shaken {
    /// 101, or anything else, over a connection of its own.
    Http1(ResponseBody<BackendStream>),
    /// A tunnel, or anything else, over a stream.
    Http2(Opened),
}

/// What the answer to a handshake is.
pub(super) enum Verdict {
    /// It opens the WebSocket: what was agreed upon, if it is valid, and the server behind it, if it has sent no more than
    /// it may.
    Opened(Result<(Agreed, Vec<Repair>), FalseAnswer>, Option<Handoff<BackendStream>>),
    /// It declines, over HTTP/1.1.
    Http1(ResponseBody<BackendStream>),
    /// It declines, over HTTP/2.
    Http2(Box<Http2Answer>),
}

impl Shaken {
    /// Judges an answer with this head to what was `asked` with `key`.
    pub(super) fn judge(self, head: &response::Parts, asked: &Upgrade, key: &Key) -> Verdict {
        match self {
            Self::Http1(answer) if head.status == StatusCode::SWITCHING_PROTOCOLS => {
                let backend = answer.into_io().map(|(backend, ahead)| Handoff::new(backend, ahead));
                Verdict::Opened(verify(head, asked, key), backend)
            }
            Self::Http1(answer) => Verdict::Http1(answer),
            Self::Http2(Opened::Tunnel(tunnel)) => {
                let backend = Handoff::new(BackendStream::Http2(tunnel), Bytes::new());
                Verdict::Opened(verify_http2(head, asked), Some(backend))
            }
            Self::Http2(Opened::Answer(answer)) => Verdict::Http2(answer),
        }
    }
}

/// Sends a handshake that is ready to be passed on, with `lines` behind its fields, and notes how long that takes.
///
/// # Errors
/// Why there is no answer.
pub(super) async fn shake_hands(
    connection: &Connection,
    upstream: &Upstream,
    endpoint: &Arc<Endpoint>,
    head: &Parts,
    lines: &[u8],
    times: &mut ServerTimes,
) -> Result<(response::Parts, Shaken), Failure> {
    *times = ServerTimes::default();
    if upstream.connector.protocol == Protocol::Http2 {
        let opening = http2::open(connection, upstream, endpoint, head, lines, times);
        if let Some((head, opened)) = Box::pin(opening).await? {
            return Ok((head, Shaken::Http2(opened)));
        }
    }
    let (head, answer) = shake_hands_http1(connection, upstream, endpoint, head, lines, times).await?;
    Ok((head, Shaken::Http1(answer)))
}

async fn shake_hands_http1(
    connection: &Connection,
    upstream: &Upstream,
    endpoint: &Arc<Endpoint>,
    head: &Parts,
    lines: &[u8],
    times: &mut ServerTimes,
) -> Result<(response::Parts, ResponseBody<BackendStream>), Failure> {
    let request = RequestWriter::new(head, lines, ToBackend::empty(), None);
    let request = match Box::pin(own_connection(connection, endpoint)).await {
        Some(backend) => match send_in_time(backend, upstream, request, times).await? {
            Err(SendRequestError::Retry { request, .. }) => *request,
            asked => return Ok(asked?),
        },
        None => request,
    };
    let begun = Instant::now();
    let backend = IdleConnection::new(dial(upstream.connector, endpoint).await?);
    times.connected(begun);
    Ok(send_in_time(backend, upstream, request, times).await??)
}

async fn send_in_time(
    backend: IdleConnection<BackendStream>,
    upstream: &Upstream,
    request: RequestWriter,
    times: &mut ServerTimes,
) -> Result<Result<(response::Parts, ResponseBody<BackendStream>), SendRequestError>, Failure> {
    // No interim answers: clients of WebSockets take whatever is no 101 for a refusal, and the handshake with the
    // backend is our own.
    let begun = Instant::now();
    let timed = timeout(upstream.response_timeout, backend.send_request(request, None)).await;
    times.answered(begun);
    timed.map_err(|_| Failure::Timeout { after: upstream.response_timeout })
}

/// A connection that the client has logged in.
async fn own_connection(
    connection: &Connection,
    endpoint: &Arc<Endpoint>,
) -> Option<IdleConnection<BackendStream>> {
    let (backend, _) = connection.own.get()?.lease_idle(endpoint).await?;
    backend.downcast()
}
