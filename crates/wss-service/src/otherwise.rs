//! What is beside the sessions, whatever kind of service it is.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt;
use tower_service::Service;

use crate::body::{AnswerBody, BoxError, RequestBody};
use crate::log;
use crate::panics::{Panic, caught};
use crate::refusal::Refusal;
use crate::shared::Otherwise;

/// A service of tower's kind.
pub(crate) fn of_tower<S, B>(service: S) -> Box<Otherwise>
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    of_closure(move |request| {
        let mut service = service.clone();
        async move {
            poll_fn(|cx| service.poll_ready(cx)).await?;
            service.call(request).await
        }
    })
}

/// A closure.
pub(crate) fn of_closure<F, Fut, B, E>(f: F) -> Box<Otherwise>
where
    F: Fn(Request<RequestBody>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Response<B>, E>> + Send + 'static,
    E: Into<BoxError>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let f = Arc::new(f);
    Box::new(move |request| {
        let f = f.clone();
        // Called within: it may panic before it has made its future.
        Box::pin(async move { answer(caught(async move { f(request).await }).await) })
    })
}

fn answer<B, E>(answered: Result<Result<Response<B>, E>, Panic>) -> Response<AnswerBody>
where
    E: Into<BoxError>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    match answered {
        Ok(Ok(answer)) => return answer.map(|body| body.map_err(Into::into).boxed_unsync()),
        Ok(Err(e)) => {
            let e: BoxError = e.into();
            log::failed_beside("the service beside the sessions has failed", &e);
        }
        Err(panic) => log::panicked("the service beside the sessions", &panic),
    }
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR).answer()
}
