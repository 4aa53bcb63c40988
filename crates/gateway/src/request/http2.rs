//! Requests for servers over HTTP/2. What a server has not looked at goes to it once more, or to another one.

use std::sync::Arc;

use http::request::Parts;
use http::response;
use tokio::time::Instant;
use tracing::debug;
use upgrade_handler::ask_http2;

use crate::context::Connection;
use crate::request::attempts::Attempts;
use crate::request::failure::Failure;
use crate::request::server_head::ServerHead;
use crate::session::report::Report;
use crate::site::endpoint::Endpoint;
use crate::site::retry::RetryOn;
use crate::site::upstream::Upstream;
use crate::telemetry::record::ServerTimes;
use crate::upstream::body::{Gate, RequestBody, ToBackend};
use crate::upstream::forward::Hop;
use crate::upstream::http2::answer::Http2Answer;
use crate::upstream::http2::connection::FreeStream;
use crate::upstream::http2::head;
use crate::upstream::http2::request::{Http2Request, Opened, SendError, open_tunnel};
use crate::upstream::interim::Interim;

/// How often a request that a server has not looked at goes to the same server again: a connection may end, and another
/// one be full.
const REPEATS_MAX: u32 = 3;

/// What came of a request.
pub(super) enum Sent {
    /// The head and the body of an answer.
    Answer(response::Parts, Box<Http2Answer>),
    /// The server wants HTTP/1.1.
    Http1Required(Box<Http2Request>),
}

/// Sends a request until there is an answer, or a server wants it over HTTP/1.1.
///
/// # Errors
/// If there is neither.
pub(super) async fn send(
    connection: &Connection,
    attempts: &mut Attempts<'_>,
    report: &mut Report,
    hop: &Hop<'_>,
    mut head: Box<Parts>,
    mut body: RequestBody,
    interim: Option<&Interim>,
) -> Result<Sent, Failure> {
    body.settle(&head).await;
    let upstream = attempts.upstream();
    let (mut heads, lines) = ServerHead::first(hop, &mut head, attempts.endpoint());
    head::request(&mut head, &lines, attempts.endpoint());
    let (on_continue, gate) = Gate::of(&head, &body);
    let mut body = ToBackend::new(body, gate, connection.limits.body_rate);
    let progress = body.progress();
    report.received(progress.clone());
    report.set_over_http2(true);
    if let (Some(max @ 1..), None, false) = (upstream.buffer_request, &on_continue, body.has_length()) {
        Box::pin(body.hold(max)).await;
    }
    let copy = if attempts.spares(&head) { body.copy() } else { None };
    let spare = copy.map(|body| (head.clone(), body));
    let mut request = Box::new(Http2Request::new(*head, body, on_continue));
    let mut repeats = 0;
    loop {
        let stream = stream(connection, attempts, report).await?;
        request.set_scheme(attempts.endpoint());
        progress.touch();
        if let Some((mut head, lines)) = heads.next(attempts.endpoint()) {
            head::request(&mut head, &lines, attempts.endpoint());
            request.set_head(*head);
        }
        let Some(stream) = stream else { return Ok(Sent::Http1Required(request)) };
        let begun = Instant::now();
        let sent = request.send(stream, upstream.response_timeout, interim).await;
        if sent.is_ok() {
            report.times().answered(begun);
        }
        let again = match sent {
            Ok((head, answer)) => match spare.as_ref().and_then(|(head, body)| Some((head, body.copy()?))) {
                Some((spare, body)) if attempts.next_after_status(report, head.status) => {
                    Box::new(Http2Request::new((**spare).clone(), body, None))
                }
                _ => {
                    progress.answered();
                    return Ok(Sent::Answer(head, Box::new(answer)));
                }
            },
            Err(SendError::Http1Required { request, why, of_all }) => {
                debug!(backend = %attempts.endpoint(), of_all, "the backend wants HTTP/1.1");
                if of_all {
                    connection.worker.http2.wants_http1(attempts.endpoint());
                }
                return request.map(Sent::Http1Required).ok_or_else(|| Failure::Reset(why.to_string()));
            }
            Err(_) if progress.is_stalled() => return Err(Failure::ClientStalled),
            Err(failed) => repeat(failed, attempts, report, &mut repeats)?,
        };
        request = again;
    }
}

/// The request that may be sent again, and to whom `attempts` says.
fn repeat(
    failed: SendError,
    attempts: &mut Attempts<'_>,
    report: &mut Report,
    repeats: &mut u32,
) -> Result<Box<Http2Request>, Failure> {
    let is_servers_word = matches!(failed, SendError::Unprocessed { .. });
    match failed {
        SendError::Unprocessed { request: Some(request), why }
        | SendError::Broke { request: Some(request), why, reused: true }
            if *repeats < REPEATS_MAX =>
        {
            *repeats += 1;
            debug!(backend = %attempts.endpoint(), cause = %why, is_servers_word, "the request is sent again");
            Ok(request)
        }
        SendError::Unprocessed { request: Some(request), why }
        | SendError::Broke { request: Some(request), why, .. } => {
            if attempts.next(report, RetryOn::Broken, &why) { Ok(request) } else { Err(Failure::Broke(why)) }
        }
        SendError::Reset { request: Some(request), why } => {
            if attempts.next(report, RetryOn::Broken, &why) {
                Ok(request)
            } else {
                Err(Failure::Reset(why))
            }
        }
        other => Err(failure(other, attempts.upstream())),
    }
}

fn failure(failed: SendError, upstream: &Upstream) -> Failure {
    match failed {
        SendError::Unprocessed { why, .. } | SendError::Broke { why, .. } => Failure::Broke(why),
        SendError::Http1Required { why, .. } => Failure::Reset(why.to_string()),
        SendError::Reset { why, .. } => Failure::Reset(why),
        SendError::Bad(e) => Failure::NotHttp2(e),
        SendError::Body(e) => Failure::Body(e),
        SendError::Timeout => Failure::Timeout { after: upstream.response_timeout },
    }
}

/// A stream to the server that has the request, or to another one if it can't be reached. `None`: it wants HTTP/1.1.
async fn stream(
    connection: &Connection,
    attempts: &mut Attempts<'_>,
    report: &mut Report,
) -> Result<Option<FreeStream>, Failure> {
    loop {
        let connector = attempts.upstream().connector;
        match connection.worker.http2.stream(connector, attempts.endpoint()).await {
            Ok(stream) => {
                if let Some(begun) = stream.as_ref().and_then(FreeStream::connect_begun) {
                    report.times().connected(begun);
                }
                return Ok(stream);
            }
            Err(failure) => {
                let failure = Failure::from(failure);
                if !attempts.next_after(report, &failure) {
                    return Err(failure);
                }
            }
        }
    }
}

/// Asks a server for a WebSocket on a stream, and notes how long that takes. `None`: it doesn't offer that, and is to be
/// asked over HTTP/1.1.
///
/// # Errors
/// If there is no answer.
pub(super) async fn open(
    connection: &Connection,
    upstream: &Upstream,
    endpoint: &Arc<Endpoint>,
    head: &Parts,
    lines: &[u8],
    times: &mut ServerTimes,
) -> Result<Option<(response::Parts, Opened)>, Failure> {
    let connections = &connection.worker.http2;
    if connections.has_no_websockets(endpoint) {
        return Ok(None);
    }
    let mut asked = head.clone();
    head::request(&mut asked, lines, endpoint);
    ask_http2(&mut asked); // of a repeated handshake all fields are in `lines`
    let mut repeats = 0;
    loop {
        let stream = connections.stream(upstream.connector, endpoint).await?;
        let Some(stream) = stream.filter(FreeStream::offers_websockets) else { return Ok(None) };
        if let Some(begun) = stream.connect_begun() {
            times.connected(begun);
        }
        let begun = Instant::now();
        match open_tunnel(stream, asked.clone(), upstream.response_timeout).await {
            Ok(answered) => {
                times.answered(begun);
                return Ok(Some(answered));
            }
            Err(SendError::Http1Required { of_all, .. }) => {
                if of_all {
                    connections.wants_http1(endpoint);
                }
                return Ok(None);
            }
            // As over HTTP/1.1 a handshake may be repeated: it is a GET there.
            Err(SendError::Unprocessed { why, .. } | SendError::Broke { why, reused: true, .. })
                if repeats < REPEATS_MAX =>
            {
                repeats += 1;
                debug!(backend = %endpoint, cause = %why, "the handshake is sent again");
            }
            Err(failed) => return Err(failure(failed, upstream)),
        }
    }
}
