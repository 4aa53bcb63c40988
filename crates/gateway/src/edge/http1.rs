//! HTTP/1.1 with clients, by hyper.

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use frame_core::deflated::Deflating;
use frame_core::metered::Metered;
use http::header::{CONNECTION, Entry, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{Request, Response, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_util::task::TaskTracker;
use tracing::{debug, info};
use upgrade_handler::casing::Kept;
use upgrade_handler::fields::has_token;
use upgrade_handler::from_hyper;

use crate::context::Connection;
use crate::edge::idle::HeadTimer;
use crate::edge::linger;
use crate::edge::opening::Opening;
use crate::net::error::chain;
use crate::net::limits::HEAD_LEN_MAX;
use crate::net::listening::PeerName;
use crate::net::patience::{HeadReading, StallTimeout};
use crate::net::stream::Transport;
use crate::request::body::{AnswerBody, ToClient};
use crate::request::reply::Reply;
use crate::request::{Peer, exchange};
use crate::session::{Carrier, Client, Session, deflated};
use crate::upstream::body::{Http1Body, RequestBody};
use crate::upstream::interim::{Interim, Interject};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// As many fields as a request over HTTP/2 may have in [`HEAD_LEN_MAX`], where each counts 32 bytes more than it
/// has (RFC 9113 §6.5.2). More get 431.
const FIELDS_MAX: usize = HEAD_LEN_MAX / 32;

/// hyper reads so much of a body that is not used, if it has arrived already; else it ends the connection.
const UNREAD_MAX: u64 = 8 * 1024;

/// Serves the requests of a connection, one after the other, until it ends or is upgraded.
pub async fn serve<T: Transport>(connection: Arc<Connection>, transport: T) {
    let limits = *connection.limits;
    let interim = Arc::new(Interim::default());
    let keeps_names = connection.worker.site().keeps_names;
    let io = StallTimeout::new(transport);
    let each = Arc::new(PerConnection {
        head_reading: io.head_reading(),
        peer: Peer::new(connection.peer.ip()),
        keep_alive: keep_alive(limits.keep_alive_timeout),
        unread: Arc::default(),
        interim: interim.clone(),
        keeps_names,
        connection: connection.clone(),
    });
    let service = service_fn(|request| answer::<T>(each.clone(), request));
    let mut serving = Builder::new()
        .timer(HeadTimer::new(limits, io.head_reading(), connection.idle_waits()))
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(HEAD_LEN_MAX)
        .max_header_size(HEAD_LEN_MAX)
        .max_headers(FIELDS_MAX)
        .title_case_headers(true)
        .preserve_header_case(keeps_names)
        .serve_connection(TokioIo::new(Interject::new(io, interim)), service)
        .with_upgrades();
    let worker = &connection.worker;
    let result = tokio::select! {
        biased;
        result = &mut serving => result,
        () = worker.draining.cancelled() => {
            Pin::new(&mut serving).graceful_shutdown();
            (&mut serving).await
        }
    };
    let whole = match &result {
        Ok(()) => true,
        // Nothing was asked, or we have said what was wrong with it.
        Err(e) => e.is_timeout() || e.is_parse(),
    };
    let mut opening = None;
    if whole && let Some(parts) = serving.into_parts() {
        opening = Opening::of(&parts.read_buf);
        // On the heap, since every connection's task has room for this future.
        Box::pin(linger::end(parts.io.into_inner().into_inner(), &worker.draining)).await;
    }
    if let Err(e) = result {
        let peer = connection.peer;
        if e.is_parse()
            && let Some(opening) = opening.filter(|opening| *opening != Opening::Http1)
        {
            info!(peer = %PeerName(peer), cause = opening.advice(connection.tls.is_some()), "not an HTTP/1.1 request");
        } else if e.is_parse() && !e.is_parse_too_large() {
            info!(peer = %PeerName(peer), cause = chain(&e), "not an HTTP/1.1 request");
        } else if e.is_parse() {
            info!(peer = %PeerName(peer), cause = chain(&e), "the request head is too long");
        } else {
            // Clients that go away, and timeouts of clients that say nothing.
            debug!(peer = %PeerName(peer), cause = chain(&e), "connection ended");
        }
    }
}

/// What the requests of a connection are answered with.
struct PerConnection {
    connection: Arc<Connection>,
    peer: Peer,
    keep_alive: HeaderValue,
    /// The end of the request's body has not been read.
    unread: Arc<AtomicBool>,
    interim: Arc<Interim>,
    /// How they spell their field names is known.
    keeps_names: bool,
    head_reading: Arc<HeadReading>,
}

/// How long a client may count on the connection (RFC 2068 §19.7.1.1): a second less than it is kept, since its
/// next request needs time to arrive.
fn keep_alive(timeout: Duration) -> HeaderValue {
    let secs = timeout.as_secs();
    HeaderValue::try_from(format!("timeout={}", secs - u64::from(secs > 1)))
        .unwrap_or(HeaderValue::from_static("timeout=0"))
}

async fn answer<T: Transport>(
    each: Arc<PerConnection>,
    mut request: Request<Incoming>,
) -> Result<Response<ToClient>, Infallible> {
    let PerConnection { connection, peer, keep_alive, unread, interim, keeps_names, head_reading } = &*each;
    head_reading.head_ends();
    let upgrading = hyper::upgrade::on(&mut request);
    let (head, body) = request.into_parts();
    let mut head = Box::new(head);
    if *keeps_names {
        head.extensions.insert(Kept);
    }
    let may_keep = head.version == Version::HTTP_11
        && head.headers.keys().all(|name| {
            *name != TRANSFER_ENCODING // hyper hides whether there was a length too (RFC 9112 §6.1)
                && (*name != CONNECTION || !has_token(&head.headers, CONNECTION, "close"))
        });
    let is_long = body.size_hint().upper().is_none_or(|len| len > UNREAD_MAX);
    let body = if body.is_end_stream() {
        RequestBody::Empty
    } else {
        unread.store(true, Ordering::Relaxed);
        RequestBody::Http1(Http1Body::new(body, unread.clone()))
    };
    interim.begin();
    // RFC 9110 §15.2: a client of HTTP/1.0 must not get any.
    let takes_interim = (head.version != Version::HTTP_10).then_some(&**interim);
    let mut reply = exchange(connection, peer, head, body, takes_interim).await;
    poll_fn(|cx| interim.poll_left(cx)).await; // the final answer is the last
    if let Reply::Answer(answer) = &mut reply {
        let unread = unread.swap(false, Ordering::Relaxed);
        let worker = &connection.worker;
        if worker.retiring.is_cancelled() || (unread && is_long && answer.body().is_own()) {
            // The rest of the body would be read for nothing (RFC 9112 §9.3), or the next request is for the
            // other process. An answer that says so never crosses a request, as the end of an idle connection
            // may.
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        } else if may_keep
            && !unread
            && !worker.draining.is_cancelled()
            && let Entry::Vacant(field) = answer.headers_mut().entry(CONNECTION)
        {
            field.insert(HeaderValue::from_static("keep-alive"));
            answer.headers_mut().insert(KEEP_ALIVE, keep_alive.clone());
        }
    }
    Ok(match reply {
        Reply::Answer(answer) => answer,
        Reply::Tunnel(answer, session, deflating) => {
            // A task of its own: what HTTP needed is freed, and the connection's task ends.
            let tasks = connection.worker.tasks.clone();
            connection.worker.tasks.spawn(open::<T>(tasks, upgrading, session, deflating));
            answer.map(|()| ToClient::unreported(AnswerBody::Whole(None)))
        }
    })
}

async fn open<T: Transport>(
    tasks: TaskTracker,
    upgrading: OnUpgrade,
    session: Box<Session>,
    deflating: Option<Box<Deflating>>,
) {
    match upgrading.await {
        Ok(upgraded) => {
            if let Some(client) = from_hyper::<Interject<StallTimeout<T>>>(upgraded) {
                // Another one: a task is as large as the largest thing it ever did.
                let client = client.map(|io| io.into_inner().into_inner());
                let client = Client(client);
                match (session.meter(), deflating) {
                    (None, None) => tasks.spawn(session.run(client, Carrier::Http1)),
                    (Some(meter), None) => {
                        tasks.spawn(session.run(Metered::new(client, meter), Carrier::Http1))
                    }
                    (meter, Some(deflating)) => {
                        tasks.spawn(session.run(deflated(client, meter, deflating), Carrier::Http1))
                    }
                };
            }
        }
        Err(e) => session.abandon(&e),
    }
}

#[cfg(test)]
mod tests;
