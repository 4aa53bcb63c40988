//! The body of an answer over HTTP/2, as it comes.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::{Body, Frame, SizeHint};
use tokio_util::task::AbortOnDropHandle;

use crate::upstream::forward::remove_between_us;
use crate::upstream::h1::connection::BrokeOff;
use crate::upstream::http2::open::OpenStream;

/// An answer, from behind its head to its end. Dropped before, it resets its stream with CANCEL.
pub(crate) struct Http2Answer {
    recv: RecvStream,
    /// Bytes that are to come, where its head says so.
    left: Option<u64>,
    data_done: bool,
    /// The request's body, if it is still on its way.
    upload: Option<AbortOnDropHandle<()>>,
    _open: Arc<OpenStream>,
}

impl Http2Answer {
    /// Behind a head with these fields.
    pub(super) fn new(
        recv: RecvStream,
        headers: &HeaderMap,
        upload: Option<AbortOnDropHandle<()>>,
        open: Arc<OpenStream>,
    ) -> Self {
        let len = headers.get(CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse().ok());
        let left = if recv.is_end_stream() { Some(0) } else { len };
        Self { recv, left, data_done: false, upload, _open: open }
    }

    /// The request's body, if it is still on its way: it stops with the answer, unless it is taken.
    pub(crate) fn take_upload(&mut self) -> Option<AbortOnDropHandle<()>> {
        self.upload.take()
    }
}

impl Body for Http2Answer {
    type Data = Bytes;
    type Error = BrokeOff;

    /// What is read is released at once: the server's window moves with what the client takes, and that of the stream
    /// alone.
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokeOff>>> {
        let Self { recv, left, data_done, .. } = &mut *self;
        while !*data_done {
            match ready!(recv.poll_data(cx)) {
                Some(Ok(data)) => {
                    let _ = recv.flow_control().release_capacity(data.len());
                    if let Some(left) = left {
                        *left = left.saturating_sub(data.len() as u64);
                    }
                    if !data.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                }
                // RFC 9113 §8.1: the answer is whole, and the rest of the request isn't wanted.
                Some(Err(e))
                    if e.reason() == Some(Reason::NO_ERROR)
                        && e.is_remote()
                        && left.is_none_or(|left| left == 0) =>
                {
                    return Poll::Ready(None);
                }
                Some(Err(e)) => return Poll::Ready(Some(Err(io_error(e).into()))),
                None => *data_done = true,
            }
        }
        match ready!(recv.poll_trailers(cx)) {
            Ok(trailers) => Poll::Ready(trailers.map(|mut trailers| {
                remove_between_us(&mut trailers);
                Ok(Frame::trailers(trailers))
            })),
            Err(e) if e.reason() == Some(Reason::NO_ERROR) && e.is_remote() => Poll::Ready(None),
            Err(e) => Poll::Ready(Some(Err(io_error(e).into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.recv.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl fmt::Debug for Http2Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2Answer").field("left", &self.left).finish_non_exhaustive()
    }
}

/// What h2 says of a stream or a connection.
pub(super) fn io_error(e: h2::Error) -> io::Error {
    if e.is_io() {
        return e.into_io().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into());
    }
    io::Error::new(io::ErrorKind::ConnectionReset, e)
}
