//! HTTP/1.1 with clients, by hyper.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::{TokioIo, TokioTimer};
use upgrade_handler::{Handoff, from_hyper};

use crate::answer::answer;
use crate::body::{AnswerBody, RequestBody};
use crate::client::Connection;
use crate::handler::Handler;
use crate::log;
use crate::patience::Patient;
use crate::shared::Shared;
use crate::stream::Stream;
use crate::upgraded::answer_by_hyper;

/// The longest head of a request, in bytes; longer ones get 431.
const HEAD_LEN_MAX: usize = 64 * 1024;

/// Serves the requests of a connection, one after the other, until it ends or is upgraded.
pub(crate) async fn serve<H: Handler>(shared: Arc<Shared<H>>, connection: Connection, stream: Stream) {
    let each = |request: Request<Incoming>| respond(shared.clone(), connection.clone(), request);
    let serving = Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(shared.settings.header_timeout)
        .max_buf_size(HEAD_LEN_MAX)
        .serve_connection(TokioIo::new(Patient::new(stream)), service_fn(each))
        .with_upgrades();
    let mut serving = pin!(serving);
    let served = tokio::select! {
        biased;
        served = &mut serving => served,
        () = shared.end.draining.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(e) = served {
        log::no_connection(connection.link.peer, &e);
    }
}

async fn respond<H: Handler>(
    shared: Arc<Shared<H>>,
    connection: Connection,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Infallible> {
    // Cloned, since what is beside the sessions may upgrade to something, too.
    let upgrading = request.extensions().get::<OnUpgrade>().cloned();
    let reply = answer(&shared, &connection, request.map(RequestBody::http1)).await;
    Ok(answer_by_hyper(&shared, reply, upgrading, stream_of).await)
}

/// A session watches over its stream itself.
fn stream_of(upgraded: Upgraded) -> Option<Handoff<Stream>> {
    from_hyper::<Patient<Stream>>(upgraded).map(|handoff| handoff.map(Patient::into_inner))
}
