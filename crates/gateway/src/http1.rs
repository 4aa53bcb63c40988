//! HTTP/1.1 with clients, by hyper.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;
use tracing::{debug, info};
use upgrade_handler::handoff::from_hyper;

use crate::body::{AnswerBody, RequestBody, ToClient, chain};
use crate::connection::{Connection, HEAD_LEN_MAX, Transport};
use crate::exchange::{Reply, exchange};
use crate::forward::address_field;
use crate::patience::Patient;
use crate::session::{Carrier, Session};

/// How long, and how much, is read from a client that was told all it will be told.
pub(crate) const LINGER_TIME: Duration = Duration::from_secs(1);
pub(crate) const LINGER_LEN: usize = 1024 * 1024;

/// Serves the requests of a connection, one after the other, until it ends or is upgraded.
pub async fn serve<T: Transport>(connection: Arc<Connection>, transport: T, header_timeout: Duration) {
    let peer = address_field(connection.peer.ip());
    let service = service_fn(|request| answer::<T>(connection.clone(), peer.clone(), request));
    let mut serving = Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(HEAD_LEN_MAX)
        .max_header_size(HEAD_LEN_MAX)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(Patient::new(transport)), service)
        .with_upgrades();
    let worker = &connection.worker;
    let result = tokio::select! {
        result = &mut serving => result,
        () = worker.draining.cancelled() => {
            Pin::new(&mut serving).graceful_shutdown();
            (&mut serving).await
        }
    };
    if let Some(parts) = serving.into_parts()
        && !worker.draining.is_cancelled()
    {
        linger(parts.io).await;
    }
    if let Err(e) = result {
        let peer = connection.peer;
        if e.is_parse() && !e.is_parse_too_large() {
            info!(%peer, cause = chain(&e), "not an HTTP/1.1 request");
        } else if e.is_parse() {
            info!(%peer, cause = chain(&e), "a request head that is too long");
        } else {
            // Clients that go away, and timeouts of clients that say nothing.
            debug!(%peer, cause = chain(&e), "connection ended");
        }
    }
}

/// hyper has ended its side. What the client still sends must be read: closing a socket with unread
/// bytes resets it, and may destroy an answer on its way (RFC 9112 §9.6).
async fn linger<T: Transport>(mut io: TokioIo<Patient<T>>) {
    let mut rest = vec![0; 4096]; // on the heap, since every connection's task has room for this future
    let deadline = Instant::now() + LINGER_TIME;
    let mut left = LINGER_LEN;
    while let Ok(Ok(n @ 1..)) = timeout_at(deadline, io.inner_mut().read(&mut rest)).await {
        left = left.saturating_sub(n);
        if left == 0 {
            return;
        }
    }
}

async fn answer<T: Transport>(
    connection: Arc<Connection>,
    peer: HeaderValue,
    mut request: Request<Incoming>,
) -> Result<Response<ToClient>, Infallible> {
    let upgrading = hyper::upgrade::on(&mut request);
    let (head, body) = request.into_parts();
    Ok(match exchange(connection.clone(), peer, Box::new(head), RequestBody::Http1(body)).await {
        Reply::Answer(mut answer) => {
            if connection.worker.retiring.is_cancelled() {
                // The next request is for the other process. Unlike a connection that is closed
                // while it is idle, an answer never crosses a request.
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            answer
        }
        Reply::Tunnel(answer, session) => {
            // A task of its own: what HTTP needed is freed, and the connection's task ends.
            let tasks = connection.worker.tasks.clone();
            connection.worker.tasks.spawn(open::<T>(tasks, upgrading, session));
            answer.map(|()| ToClient::unreported(AnswerBody::Whole(None)))
        }
    })
}

async fn open<T: Transport>(tasks: TaskTracker, upgrading: OnUpgrade, session: Box<Session>) {
    match upgrading.await {
        Ok(upgraded) => {
            if let Some(client) = from_hyper::<Patient<T>>(upgraded) {
                // Another one: a task is as large as the largest thing it ever did.
                let client = client.map(Patient::into_inner);
                tasks.spawn(session.run(client, Carrier::Http1, |client| client.get_mut().part()));
            }
        }
        Err(e) => session.abandon(&e),
    }
}
