//! Requests for a backend: plain ones over kept-alive connections, handshakes over one of their
//! own. What comes back is judged before the client sees any of it.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue, UPGRADE};
use http::request::Parts;
use http::{Response, StatusCode, Version, response};
use http_body::Body;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tracing::debug;
use upgrade_handler::casing::{Kept, Spelling};
use upgrade_handler::{FalseAnswer, Handoff, HandshakeTransport, Key, Upgrade, ask, verify};

use crate::context::Connection;
use crate::net::error::{BoxError, chain};
use crate::net::proxy_protocol::encode;
use crate::request::body::AnswerBody;
use crate::request::reply::{ErrorResponse, RequestError, Served, Upgraded};
use crate::session::Other;
use crate::session::report::Report;
use crate::site::endpoint::Endpoint;
use crate::site::route::Route;
use crate::site::upstream::Upstream;
use crate::upstream::body::{BODY_TOO_LONG, BodyTooLong, CLIENT_STALLED, Gate, RequestBody, ToBackend};
use crate::upstream::dial::{DialError, dial};
use crate::upstream::forward::{self, Hop};
use crate::upstream::h1::connection::{IdleConnection, ResponseBody, SendRequestError};
use crate::upstream::h1::encode::means_something;
use crate::upstream::h1::request::RequestWriter;
use crate::upstream::h1::response::BadResponse;
use crate::upstream::identity;
use crate::upstream::interim::Interim;
use crate::upstream::pool::{Lease, Pool};
use crate::upstream::stream::BackendStream;

/// How long a backend is given to say 100 Continue before it is sent the body without that.
const CONTINUE_TIME: Duration = Duration::from_secs(1);

/// How long a client over HTTP/2 is given to show that a request in which a body means nothing has one, before it is
/// taken for one that has.
const BODY_TIME: Duration = Duration::from_secs(1);

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
    #[error("the backend's answer to the WebSocket handshake is invalid: {0}")]
    False(#[from] FalseAnswer),
    #[error("the backend answered 101 before it had the request")]
    Early,
    #[error(
        "the backend answered {0} instead of 101 to a handshake over HTTP/2, where any 2xx opens the tunnel"
    )]
    WouldOpen(StatusCode),
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
            | Failure::Bad(_)
            | Failure::False(_)
            | Failure::Early
            | Failure::WouldOpen(_) => {
                (StatusCode::BAD_GATEWAY, "the backend of this gateway sent an invalid response")
            }
        };
        ErrorResponse::new(status, sentence).because(failure.to_string()).into()
    }
}

/// Passes a plain request on and its answer back. `interim` gets what comes before it, if the client can hear it.
///
/// # Errors
/// 502 or 504, with the cause for the log.
pub(super) async fn request(
    connection: &Connection,
    upstream: &Arc<Upstream>,
    report: &mut Report,
    hop: &Hop<'_>,
    head: Box<Parts>,
    body: RequestBody,
    interim: Option<&Interim>,
) -> Result<Served, RequestError> {
    let (mut head, answer, lease) =
        send_pooled(connection, upstream, report, hop, head, body, interim).await?;
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Failure::from(FalseAnswer::Unasked).into());
    }
    forward::response(&mut head.headers);
    head.version = Version::HTTP_11;
    Ok(Served::Answer(Response::from_parts(head, AnswerBody::Backend { answer, lease: Some(lease) })))
}

async fn send_pooled(
    connection: &Connection,
    upstream: &Arc<Upstream>,
    report: &mut Report,
    hop: &Hop<'_>,
    mut head: Box<Parts>,
    mut body: RequestBody,
    interim: Option<&Interim>,
) -> Result<(response::Parts, ResponseBody, Lease), Failure> {
    if let Some(body) = body.http2()
        && body.size_hint().exact().is_none()
        && !means_something(&head.method)
        && !forward::expects_continue(&head.headers)
    {
        // There are servers that refuse a GET with a body, even an empty one.
        let _ = timeout(BODY_TIME, body.known()).await;
    }
    let (logs_in, version) = (identity::logs_in(&head.headers), head.version);
    let endpoint = &endpoint_for(connection, upstream, hop, &head);
    keep_names(upstream, &mut head);
    let lines = forward::request(&mut head, hop);
    report.backend(endpoint);
    let (told, gate) = if !body.is_end_stream() && forward::expects_continue(&head.headers) {
        let (told, open) = oneshot::channel();
        (Some(told), Some(Gate::new(open, Instant::now() + CONTINUE_TIME)))
    } else {
        (None, None)
    };
    let mut body = ToBackend::new(body, gate, connection.limits.body_rate);
    let progress = body.progress();
    report.received(progress.clone());
    if let (Some(max), None) = (upstream.buffer_request, &told) {
        Box::pin(body.hold(max)).await; // larger than the rest, and for few
    }
    let pool = &connection.worker.pool;
    let own = match connection.own.get() {
        Some(own) => own.lease_idle(endpoint).await,
        None => None,
    };
    let (wire, mut lease) = match own {
        Some(own) => own,
        None => pool.lease(upstream.connector, endpoint).await?,
    };
    let request = RequestWriter::new(&head, &lines, body, told);
    drop(head);

    let timeout = || Failure::Timeout { after: upstream.response_timeout };
    let asked = tokio::select! {
        biased;
        asked = wire.send_request(request, interim) => asked,
        () = progress.backend_idles(upstream.response_timeout, lease.timer.as_mut()) => return Err(timeout()),
    };
    let (head, answer) = match asked {
        Err(_) if progress.is_stalled() => return Err(Failure::ClientStalled),
        Err(SendRequestError::Retry { request, .. }) => {
            let asking = async {
                let (wire, fresh) = pool.lease_new(upstream.connector, endpoint).await?;
                lease = fresh;
                progress.touch();
                tokio::select! {
                    biased;
                    asked = wire.send_request(*request, interim) => Ok(asked?),
                    () = progress.backend_idles(upstream.response_timeout, lease.timer.as_mut()) => Err(timeout()),
                }
            };
            Box::pin(asking).await? // rare, and large
        }
        asked => asked?,
    };
    progress.answered();
    tell_repairs(upstream, answer.repairs());
    if logs_in || identity::challenges(&head) {
        lease.belongs_to(own_pool(connection, version));
    } else if endpoint.header.is_some() && upstream.connector.pooled {
        lease.belongs_to(Some(connection.own.get_or_init(Arc::default)));
    }
    Ok((head, answer, lease))
}

/// The server that is to have the request; one that is told who the client is gets a connection for this client alone.
pub(super) fn endpoint_for(
    connection: &Connection,
    upstream: &Upstream,
    hop: &Hop<'_>,
    head: &Parts,
) -> Arc<Endpoint> {
    let endpoint = upstream.choose().clone();
    let Some(version) = upstream.connector.proxy_protocol else { return endpoint };
    let client = hop.client(&head.headers);
    // What port a client has at another proxy isn't known.
    let port = if client == hop.peer { connection.peer.port() } else { 0 };
    Arc::new(endpoint.for_client(encode(version, (client, port).into(), connection.local)))
}

/// Has the names of fields written as the client spells them, where the route wants that. Names that tell a backend
/// who the client is are ours, and keep our spelling.
pub(super) fn keep_names(upstream: &Upstream, head: &mut Parts) {
    if !upstream.keeps_names || head.extensions.get::<Kept>().is_none() {
        return;
    }
    let mut spelling = Spelling::of(head);
    for name in head.headers.keys().filter(|name| forward::is_about_client(name.as_str())) {
        spelling.remove(name);
    }
    head.extensions.insert(spelling);
}

/// Where the connections go that the client has logged in. A connection over HTTP/2 has none: it may be shared by
/// several users of another proxy, and its streams can't say which of them belong together.
fn own_pool(connection: &Connection, version: Version) -> Option<&Arc<Pool>> {
    (version != Version::HTTP_2).then(|| connection.own.get_or_init(Arc::default))
}

/// For those who wonder why an answer is not what the backend wrote, or why its connections are not kept.
fn tell_repairs(upstream: &Upstream, repairs: &[impl Display]) {
    for repair in repairs {
        debug!(%upstream, %repair, "the backend's answer was repaired");
    }
}

/// Asks a backend to open a WebSocket, and the client's tunnel only when it has.
///
/// # Errors
/// 502 or 504, with the cause for the log.
pub(super) async fn upgrade(
    connection: &Connection,
    route: &Arc<Route>,
    upstream: &Arc<Upstream>,
    report: &mut Report,
    hop: &Hop<'_>,
    mut head: Box<Parts>,
    upgrade: Upgrade,
) -> Result<Served, RequestError> {
    let endpoint = &endpoint_for(connection, upstream, hop, &head);
    report.backend(endpoint);
    let key = Key::random();
    let (logs_in, version) = (identity::logs_in(&head.headers), head.version);
    keep_names(upstream, &mut head);
    let lines = forward::request(&mut head, hop);
    ask(&mut head, &upgrade, &key);
    head.headers.remove(CONTENT_LENGTH);
    let (mut head, answer) = shake_hands(connection, upstream, endpoint, &head, &lines).await?;
    tell_repairs(upstream, answer.repairs());
    if head.status != StatusCode::SWITCHING_PROTOCOLS {
        let lease = if logs_in || identity::challenges(&head) {
            own_pool(connection, version).map(|own| Lease::new(endpoint, own))
        } else {
            None
        };
        return Ok(declined(head, answer, &upgrade, lease)?);
    }
    let (agreed, repairs) = verify(&head, &upgrade, &key).map_err(Failure::from)?;
    tell_repairs(upstream, &repairs);
    let (backend, ahead) = answer.into_io().ok_or(Failure::Early)?;
    forward::response(&mut head.headers);
    let mut answer = upgrade_handler::accept(&upgrade, &agreed, head.headers);
    // Those of an answer whose names are kept spell them.
    *answer.extensions_mut() =
        if upstream.keeps_names { head.extensions } else { connection.worker.casing.clone() };
    let registered = connection.worker.enroll(route, report.who());
    Ok(Served::Upgraded(Upgraded {
        answer,
        registered,
        route: route.clone(),
        deflate: agreed.deflate,
        other: Other::Backend(Handoff::new(backend, ahead)),
    }))
}

async fn shake_hands(
    connection: &Connection,
    upstream: &Upstream,
    endpoint: &Arc<Endpoint>,
    head: &Parts,
    lines: &[u8],
) -> Result<(response::Parts, ResponseBody<BackendStream>), Failure> {
    let request = RequestWriter::new(head, lines, ToBackend::empty(), None);
    let request = match Box::pin(own_connection(connection, endpoint)).await {
        Some(wire) => match send_in_time(wire, upstream, request).await? {
            Err(SendRequestError::Retry { request, .. }) => *request,
            asked => return Ok(asked?),
        },
        None => request,
    };
    let wire = IdleConnection::new(dial(upstream.connector, endpoint).await?);
    Ok(send_in_time(wire, upstream, request).await??)
}

async fn send_in_time(
    wire: IdleConnection<BackendStream>,
    upstream: &Upstream,
    request: RequestWriter,
) -> Result<Result<(response::Parts, ResponseBody<BackendStream>), SendRequestError>, Failure> {
    // No interim answers: clients of WebSockets take whatever is no 101 for a refusal, and the handshake with the
    // backend is our own.
    let timed = timeout(upstream.response_timeout, wire.send_request(request, None)).await;
    timed.map_err(|_| Failure::Timeout { after: upstream.response_timeout })
}

/// A connection that the client has logged in.
async fn own_connection(
    connection: &Connection,
    endpoint: &Arc<Endpoint>,
) -> Option<IdleConnection<BackendStream>> {
    let (wire, _) = connection.own.get()?.lease_idle(endpoint).await?;
    wire.downcast()
}

/// A backend that doesn't want to upgrade: its answer goes back as it is. Its connection is kept only for a
/// client that logs it in.
fn declined(
    mut head: response::Parts,
    answer: ResponseBody<BackendStream>,
    upgrade: &Upgrade,
    lease: Option<Lease>,
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
    Ok(Served::Answer(Response::from_parts(head, AnswerBody::Backend { answer: answer.boxed(), lease })))
}
