//! Bodies of requests and answers, whatever version of HTTP they come by.

use std::convert::Infallible;
use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use frame_core::policy::STALL_MAX;
use h2::RecvStream;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;

use crate::patience::Stall;

/// Any error.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The body of an answer.
pub type AnswerBody = UnsyncBoxBody<Bytes, BoxError>;

/// A body of known text or bytes.
pub(crate) fn whole(text: impl Into<Bytes>) -> AnswerBody {
    Full::new(text.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// The body of a request to the service beside the WebSockets ([`Service::otherwise`](crate::Service::otherwise)).
///
/// A client that sends nothing of it for a minute, while it is waited for, has broken it off: that is an error.
#[derive(Debug)]
pub struct RequestBody {
    source: Source,
    stall: Stall,
}

#[derive(Debug)]
enum Source {
    Empty,
    Http1(Incoming),
    Http2(RecvStream),
}

impl RequestBody {
    fn of(source: Source) -> Self {
        Self { source, stall: Stall::default() }
    }

    /// Of a request over HTTP/1.1.
    pub(crate) fn http1(body: Incoming) -> Self {
        Self::of(Source::Http1(body))
    }

    /// Of a request over HTTP/2.
    pub(crate) fn http2(body: RecvStream) -> Self {
        Self::of(Source::Http2(body))
    }

    /// Of a request that has none.
    pub(crate) fn empty() -> Self {
        Self::of(Source::Empty)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = self.source.poll_frame(cx);
        if frame.is_ready() {
            self.stall.end();
            return frame;
        }
        ready!(self.stall.poll(cx));
        Poll::Ready(Some(Err(format!("the client sent nothing of its body for {STALL_MAX:?}").into())))
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Empty => true,
            Source::Http1(body) => body.is_end_stream(),
            Source::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty => SizeHint::with_exact(0),
            Source::Http1(body) => body.size_hint(),
            Source::Http2(_) => SizeHint::default(),
        }
    }
}

impl Source {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self {
            Source::Empty => Poll::Ready(None),
            Source::Http1(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Source::Http2(body) => match ready!(body.poll_data(cx)) {
                Some(Ok(data)) => {
                    // What has been taken may be replaced.
                    let _ = body.flow_control().release_capacity(data.len());
                    Poll::Ready(Some(Ok(Frame::data(data))))
                }
                Some(Err(e)) => Poll::Ready(Some(Err(e.into()))),
                None => match ready!(body.poll_trailers(cx)) {
                    Ok(Some(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                    Ok(None) => Poll::Ready(None),
                    Err(e) => Poll::Ready(Some(Err(e.into()))),
                },
            },
        }
    }
}
