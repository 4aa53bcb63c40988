//! Bodies of answers, on their way to clients.

use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use net_io::memory::Claim;

use crate::context::under_way::Counts;
use crate::net::error::BoxError;
use crate::net::sweep;
use crate::request::coded::{CodedBody, Source};
use crate::request::file::body::{FileBody, FileError};
use crate::session::report::Report;
use crate::upstream::body::go_on;
use crate::upstream::h1::connection::{BrokeOff, ResponseBody};
use crate::upstream::http2::answer::Http2Answer;
use crate::upstream::pool::Lease;

/// An answer's body on its way to the client. Its end, whichever way, ends the request's report.
#[derive(Debug)]
pub(crate) struct ToClient {
    body: AnswerBody,
    report: Option<Box<Report>>,
    bytes: u64,
    ended: bool,
    /// Why the rest will not come, until the reader has got it.
    broken: Option<Broken>,
    /// The client went away before it had what was taken from here.
    lost: bool,
    /// What was taken last: it waits for the client until more is asked for.
    held: Claim,
    /// Of an answer that is a stream of events.
    _counts: Option<Counts>,
}

/// Why the rest of a body will not come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("the answer can't be compressed: {0}")]
    Codec(#[from] std::io::Error),
    #[error("{0}")]
    Backend(#[from] BrokeOff),
    #[error("{0}")]
    File(#[from] FileError),
}

/// Where an answer's body comes from.
#[derive(Debug)]
pub(crate) enum AnswerBody {
    /// From the gateway itself.
    Whole(Option<Bytes>),
    /// From a file.
    File(Box<FileBody>),
    /// From one of the others, compressed.
    Coded(Box<CodedBody<Self>>),
    /// From a backend, whose connection goes back to the pool when the answer has ended.
    Backend {
        /// As it arrives.
        answer: ResponseBody,
        /// Where its connection may go back to.
        lease: Option<Lease>,
    },
    /// From a backend over HTTP/2.
    Http2(Box<Http2Answer>),
}

impl AnswerBody {
    /// A body of the gateway's own.
    #[must_use]
    pub(crate) fn whole(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self::Whole((!bytes.is_empty()).then_some(bytes))
    }

    /// A backend has answered, and not the gateway.
    #[must_use]
    pub(crate) fn is_of_backend(&self) -> bool {
        match self {
            Self::Whole(_) | Self::File(_) => false,
            Self::Backend { .. } | Self::Http2(_) => true,
            Self::Coded(coded) => coded.plain().is_of_backend(),
        }
    }

    /// Where the bytes come from in the end.
    fn source(&mut self) -> &mut Self {
        match self {
            Self::Coded(coded) => coded.source(),
            other => other,
        }
    }

    /// All of it has been read.
    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::File(file) => file.left() == 0,
            Self::Coded(coded) => coded.is_finished(),
            Self::Backend { answer, .. } => answer.is_end_stream(),
            Self::Http2(answer) => answer.is_end_stream(),
        }
    }

    /// What is known of its length.
    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::File(file) => SizeHint::with_exact(file.left()),
            Self::Coded(_) => SizeHint::default(),
            Self::Backend { answer, .. } => answer.size_hint(),
            Self::Http2(answer) => answer.size_hint(),
        }
    }
}

impl Source for AnswerBody {
    type Error = Broken;

    #[inline]
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, Broken>> {
        Poll::Ready(match self {
            Self::Whole(bytes) => Ok(bytes.take().map(Frame::data)),
            Self::File(file) => {
                ready!(file.poll_next(cx)).map(|bytes| bytes.map(Frame::data)).map_err(Broken::from)
            }
            Self::Coded(coded) => ready!(coded.poll_next(cx)),
            Self::Backend { answer, .. } => {
                ready!(Pin::new(answer).poll_frame(cx)).transpose().map_err(Broken::from)
            }
            Self::Http2(answer) => {
                ready!(Pin::new(&mut **answer).poll_frame(cx)).transpose().map_err(Broken::from)
            }
        })
    }
}

impl ToClient {
    /// A body whose end ends `report`.
    #[must_use]
    pub(crate) fn new(body: AnswerBody, report: Box<Report>, counts: Option<Counts>) -> Self {
        Self {
            body,
            report: Some(report),
            bytes: 0,
            ended: false,
            broken: None,
            lost: false,
            held: Claim::default(),
            _counts: counts,
        }
    }

    /// A body of an answer that ends nothing: a session reports on itself.
    #[must_use]
    pub(crate) fn unreported(body: AnswerBody) -> Self {
        Self {
            body,
            report: None,
            bytes: 0,
            ended: false,
            broken: None,
            lost: false,
            held: Claim::default(),
            _counts: None,
        }
    }

    /// The gateway's own answer.
    #[must_use]
    pub(crate) fn is_own(&self) -> bool {
        !self.body.is_of_backend()
    }

    /// Says that what was taken from here has not reached the client.
    pub(crate) fn lost(&mut self) {
        self.lost = true;
    }

    /// The request's own fault keeps the rest from the client.
    pub(crate) fn withheld(&mut self, cause: &str) {
        self.lost = true;
        if let Some(report) = &mut self.report {
            report.cause(cause);
        }
    }

    fn end(&mut self) {
        self.ended = true;
        let upload = match self.body.source() {
            AnswerBody::Backend { answer, .. } => answer.take_upload(),
            AnswerBody::Http2(answer) => answer.take_upload(),
            _ => None,
        };
        if let Some(upload) = upload
            && let Some(progress) = self.report.as_ref().and_then(|report| report.progress())
            && progress.has_begun()
        // else it is not wanted, and the connection ends
        {
            progress.answer_ended();
            sweep::spawn(go_on(upload, progress));
        }
        if let AnswerBody::Backend { answer, lease: Some(lease) } =
            mem::replace(self.body.source(), AnswerBody::Whole(None))
        {
            lease.give_back(answer);
        }
    }
}

impl Body for ToClient {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(e) = self.broken.take() {
            // The client must not take this for the whole: hyper and h2 abort the answer.
            if let Some(report) = &mut self.report {
                match &e {
                    Broken::Backend(e) => report.broke_off(e),
                    Broken::File(_) | Broken::Codec(_) => report.cause(e.to_string()),
                }
            }
            return Poll::Ready(Some(Err(e.into())));
        }
        let frame = ready!(self.body.poll_next(cx));
        match frame {
            Ok(Some(frame)) => {
                let len = frame.data_ref().map_or(0, Bytes::len);
                self.bytes += len as u64;
                self.held.set(len);
                if self.is_end_stream() {
                    self.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Ok(None) => {
                self.end();
                Poll::Ready(None)
            }
            Err(e) => {
                // First what has come has to leave: hyper throws away what it hasn't written by then.
                self.broken = Some(e);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for ToClient {
    fn drop(&mut self) {
        if !self.ended && self.is_end_stream() {
            self.end();
        }
        if let Some(mut report) = self.report.take() {
            report.answered(self.bytes, self.ended && !self.lost);
        }
    }
}
