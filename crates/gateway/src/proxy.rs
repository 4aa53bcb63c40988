//! Requests for a backend: plain ones over kept-alive connections, handshakes over one of their
//! own. What comes back is judged before the client sees any of it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::ext::on_informational;
use tls_acceptor::Tcp;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use upgrade_handler::handoff::from_hyper;
use upgrade_handler::key::Key;
use upgrade_handler::request::{Transport, Upgrade};
use upgrade_handler::upstream::{FalseAnswer, ask, verify};

use crate::body::{AnswerBody, CLIENT_STALLED, Gate, RequestBody, ToBackend, chain, is_io};
use crate::connection::Connection;
use crate::exchange::{Decline, Declined, Served, Upgraded};
use crate::forward::{self, Hop};
use crate::route::Route;
use crate::session::Other;
use crate::telemetry::access::Report;
use crate::upstream::pool::{Lease, speak};
use crate::upstream::{DialError, Upstream};

/// How long a backend is given to say 100 Continue before it gets the body all the same.
const CONTINUE_TIME: Duration = Duration::from_secs(1);

/// Why there is no answer from a backend that could be passed on.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Dial(#[from] DialError),
    #[error("the backend did not answer within {after:?} (response_timeout)")]
    Timeout { after: Duration },
    #[error("{CLIENT_STALLED}")]
    ClientStalled,
    #[error("the backend's connection broke before it answered: {0}")]
    Broke(String),
    #[error("the backend's answer is not HTTP: {0}")]
    NotHttp(String),
    #[error("the backend's answer can't be passed on: {0}")]
    Bad(&'static str),
    #[error("the backend's answer can't be true: {0}")]
    False(#[from] FalseAnswer),
    #[error("the backend answered {0} to a handshake over HTTP/2, where it would open the tunnel")]
    WouldOpen(StatusCode),
}

impl From<hyper::Error> for Failure {
    fn from(e: hyper::Error) -> Self {
        let text = chain(&e);
        if e.is_parse() && !is_io(&e) { Self::NotHttp(text) } else { Self::Broke(text) }
    }
}

impl From<Failure> for Declined {
    fn from(failure: Failure) -> Self {
        let (status, sentence) = match &failure {
            Failure::Dial(DialError::Timeout { .. }) | Failure::Timeout { .. } => {
                (StatusCode::GATEWAY_TIMEOUT, "the server behind this gateway did not answer in time")
            }
            Failure::ClientStalled => (StatusCode::REQUEST_TIMEOUT, CLIENT_STALLED),
            Failure::Dial(DialError::Shortage { .. }) => {
                (StatusCode::SERVICE_UNAVAILABLE, "this gateway can't open another connection for now")
            }
            Failure::Dial(_) => (StatusCode::BAD_GATEWAY, "the server behind this gateway can't be reached"),
            Failure::Broke(_)
            | Failure::NotHttp(_)
            | Failure::Bad(_)
            | Failure::False(_)
            | Failure::WouldOpen(_) => {
                (StatusCode::BAD_GATEWAY, "the server behind this gateway gave no proper answer")
            }
        };
        Decline::new(status, sentence).because(failure.to_string()).into()
    }
}

/// Passes a plain request on and its answer back.
///
/// # Errors
/// 502 or 504, with the cause for the log.
pub async fn request(
    connection: &Connection,
    upstream: &Arc<Upstream>,
    report: &mut Report,
    hop: &Hop<'_>,
    head: Box<Parts>,
    body: RequestBody,
) -> Result<Served, Declined> {
    report.backend(upstream);
    let (answer, lease) = ask_plainly(connection, upstream, report, hop, head, body).await?;
    let (mut head, body) = answer.into_parts();
    judge(&head)?;
    forward::response(&mut head.headers);
    head.version = Version::HTTP_11;
    Ok(Served::Answer(Response::from_parts(head, AnswerBody::Backend { body, lease: Some(lease) })))
}

async fn ask_plainly(
    connection: &Connection,
    upstream: &Arc<Upstream>,
    report: &mut Report,
    hop: &Hop<'_>,
    mut head: Box<Parts>,
    body: RequestBody,
) -> Result<(Response<Incoming>, Lease), Failure> {
    forward::request(&mut head, hop);
    head.uri = origin_form(&head.uri);
    let is_empty = body.is_end_stream();
    if !is_empty && body.size_hint().exact().is_none() {
        // hyper would take a GET or HEAD of unknown length for one without a body.
        head.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let pool = &connection.worker.pool;
    let mut lease = pool.lease(upstream).await?;
    let expects = !is_empty && forward::expects_continue(&head.headers);
    let (told, gate) = if expects {
        let (told, open) = oneshot::channel();
        (Some(told), Some(Gate::new(open, Instant::now() + CONTINUE_TIME)))
    } else {
        (None, None)
    };
    let body = ToBackend::new(body, gate);
    let progress = body.progress();
    report.received(progress.clone());

    // A kept-alive connection may have been closed by the backend a moment ago. What it can't
    // have acted upon, or may act upon twice, is sent again (RFC 9110 §9.2.2).
    let spare = (lease.reused && is_empty && is_idempotent(&head.method)).then(|| head.clone());
    let mut request = Request::from_parts(*head, body);
    if told.is_some() {
        let told = Mutex::new(told);
        on_informational(&mut request, move |answer| {
            if answer.status() == StatusCode::CONTINUE
                && let Some(told) = told.lock().unwrap_or_else(PoisonError::into_inner).take()
            {
                let _ = told.send(());
            }
        });
    }
    let timeout = || Failure::Timeout { after: upstream.response_timeout };
    let wire = &mut lease.wire;
    let sent = tokio::select! {
        biased;
        sent = wire.sender.try_send_request(request) => sent,
        () = progress.backend_idles(upstream.response_timeout, wire.timer.as_mut()) => return Err(timeout()),
    };
    let answer = match sent {
        Err(_) if progress.is_stalled() => return Err(Failure::ClientStalled),
        Ok(answer) => answer,
        Err(mut e) => {
            let unsent = e.take_message();
            let again = match (unsent, spare) {
                (Some(unsent), _) if lease.reused => unsent,
                (None, Some(spare)) => Request::from_parts(*spare, ToBackend::empty()),
                _ => return Err(e.into_error().into()),
            };
            let asking = async {
                lease = pool.lease_new(upstream).await?;
                let wire = &mut lease.wire;
                tokio::select! {
                    sent = wire.sender.send_request(again) => Ok(sent?),
                    () = progress.backend_idles(upstream.response_timeout, wire.timer.as_mut()) => Err(timeout()),
                }
            };
            Box::pin(asking).await? // rare, and large
        }
    };
    progress.answered();
    lease.carries(progress);
    Ok((answer, lease))
}

/// Asks a backend to open a WebSocket, and the client's tunnel only when it has.
///
/// # Errors
/// 502 or 504, with the cause for the log.
pub async fn upgrade(
    connection: &Connection,
    route: &Arc<Route>,
    upstream: &Arc<Upstream>,
    report: &mut Report,
    hop: &Hop<'_>,
    mut head: Box<Parts>,
    upgrade: Upgrade,
) -> Result<Served, Declined> {
    report.backend(upstream);
    let key = Key::random();
    forward::request(&mut head, hop);
    ask(&mut head, &upgrade, &key);
    head.headers.remove(CONTENT_LENGTH);
    head.uri = origin_form(&head.uri);
    head.extensions = connection.worker.casing.clone();
    let mut answer = shake_hands(upstream, *head).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(declined(answer, &upgrade)?);
    }
    let opened = hyper::upgrade::on(&mut answer);
    let (mut head, _) = answer.into_parts();
    let agreed = verify(&head, &upgrade, &key).map_err(Failure::from)?;
    let backend = opened.await.map_err(Failure::from)?;
    let backend = from_hyper::<Tcp>(backend).ok_or(Failure::Bad("its stream is not the one dialled"))?;
    forward::response(&mut head.headers);
    let mut answer = upgrade_handler::response::accept(&upgrade, &agreed, head.headers);
    *answer.extensions_mut() = connection.worker.casing.clone();
    let registered = connection.worker.enroll(route, report.who());
    Ok(Served::Upgraded(Upgraded {
        answer,
        registered,
        route: route.clone(),
        deflate: agreed.deflate,
        other: Other::Backend(backend),
    }))
}

/// The connection is moved by whoever waits for the answer: most often that is all it has to do.
async fn shake_hands(upstream: &Upstream, head: Parts) -> Result<Response<Incoming>, Failure> {
    let (mut sender, connection) = speak(upstream.dial().await?).await?;
    let mut connection = connection.with_upgrades();
    let answer = sender.send_request(Request::from_parts(head, ToBackend::empty()));
    tokio::pin!(answer);
    let asking = async {
        tokio::select! {
            biased;
            _ = &mut connection => (answer.await, true), // it tells the answer what went wrong
            answer = &mut answer => (answer, false),
        }
    };
    let timed = timeout(upstream.response_timeout, asking).await;
    let (answer, has_ended) = timed.map_err(|_| Failure::Timeout { after: upstream.response_timeout })?;
    if !has_ended {
        tokio::spawn(async move { drop(connection.await) });
    }
    Ok(answer?)
}

/// A backend that doesn't want to upgrade: its answer goes back as it is.
fn declined(answer: Response<Incoming>, upgrade: &Upgrade) -> Result<Served, Failure> {
    let (mut head, body) = answer.into_parts();
    judge(&head)?;
    if upgrade.transport == Transport::Http2 && head.status.is_success() {
        return Err(Failure::WouldOpen(head.status)); // RFC 8441 §5: any 2xx would
    }
    forward::response(&mut head.headers);
    if head.status == StatusCode::UPGRADE_REQUIRED && upgrade.transport != Transport::Http2 {
        // RFC 9110 §15.5.22 wants it, and it went as a field of the hop.
        head.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        head.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    head.version = Version::HTTP_11;
    Ok(Served::Answer(Response::from_parts(head, AnswerBody::Backend { body, lease: None })))
}

/// What hyper lets through and a client must not see: it could be taken for two different answers.
fn judge(head: &http::response::Parts) -> Result<(), Failure> {
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(FalseAnswer::Unasked.into());
    }
    if head.status.as_u16() >= 600 {
        return Err(Failure::Bad("its status is above 599")); // RFC 9110 §15
    }
    let mut lengths = head.headers.get_all(CONTENT_LENGTH).into_iter();
    let length = lengths.next();
    if lengths.next().is_some() || length.is_some_and(|length| length.as_bytes().contains(&b',')) {
        return Err(Failure::Bad("it has two lengths")); // RFC 9112 §6.3 item 5
    }
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).into_iter();
    match (codings.next(), codings.next(), length) {
        (None, _, _) => Ok(()),
        (Some(_), _, Some(_)) => Err(Failure::Bad("it has a length and a transfer coding")), // item 3
        (Some(coding), None, None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Failure::Bad("it has a transfer coding other than chunked")),
    }
}

/// The target as a backend expects it (RFC 9112 §3.2.1), unchanged otherwise.
fn origin_form(uri: &Uri) -> Uri {
    uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")).into()
}

fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
}
