//! Bodies of requests, on their way from clients to backends.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::num::NonZeroU64;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use h2::RecvStream;
use http::request::Parts;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use net_io::memory::Claim;
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant, Sleep, sleep, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::net::error::BoxError;
use crate::net::limits::STALL_MAX;
use crate::net::patience::{BodyPace, StallTimer};
use crate::site::auth::Reserved;
use crate::upstream::forward::{expects_continue, has_outer_blanks};
use crate::upstream::h1::encode::means_something;

/// How long a backend is given to say 100 Continue before it is sent the body without that.
const CONTINUE_TIME: Duration = Duration::from_secs(1);

/// How long a client over HTTP/2 is given to show that a request in which a body means nothing has one, before it is
/// taken for one that has.
const BODY_TIME: Duration = Duration::from_secs(1);

/// What a client and the log read if the client doesn't send its body.
pub(crate) const CLIENT_STALLED: &str =
    "the client sent its request's body too slowly: nothing for a minute, or less than body_rate";

/// What the log says of trailers that end their stream.
pub(crate) const MALFORMED_TRAILERS: &str = "the request's trailers are malformed: a field value begins or ends with a space or a tab (RFC 9113 §8.2.1)";

/// A request's body as it comes from the client.
#[derive(Debug)]
pub enum RequestBody {
    /// None.
    Empty,
    /// All of it, of a request that the gateway itself makes.
    Whole(Bytes),
    /// Over HTTP/1.1.
    Http1(Http1Body),
    /// Over HTTP/2.
    Http2(Http2Body),
    /// One without a length, of which so many bytes more may come.
    Limited(Box<RequestBody>, u64),
    /// One whose trailers have no fields that only the gateway sets.
    Reserving(Box<RequestBody>, Box<Reserved>),
}

impl RequestBody {
    /// Ends with an error behind `max` bytes. A body with a length must have been checked.
    #[must_use]
    pub fn limited(self, max: u64) -> Self {
        match self.size_hint().exact() {
            Some(_) => self,
            None => Self::Limited(Box::new(self), max),
        }
    }

    /// Has these fields taken out of its trailers.
    #[must_use]
    pub fn reserving(self, reserved: &Reserved) -> Self {
        if self.is_end_stream() || reserved.is_empty() {
            return self;
        }
        Self::Reserving(Box::new(self), Box::new(reserved.clone()))
    }

    /// The body over HTTP/2, if it is one.
    #[must_use]
    pub fn http2(&mut self) -> Option<&mut Http2Body> {
        match self {
            Self::Empty | Self::Whole(_) | Self::Http1(_) => None,
            Self::Http2(body) => Some(body),
            Self::Limited(body, _) | Self::Reserving(body, _) => body.http2(),
        }
    }
}

impl RequestBody {
    /// Waits until it is known whether a request in which a body means nothing has one: there are servers that refuse a
    /// GET with a body, even an empty one.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn settle(&mut self, head: &Parts) {
        if let Some(body) = self.http2()
            && body.size_hint().exact().is_none()
            && !means_something(&head.method)
            && !expects_continue(&head.headers)
        {
            let _ = timeout(BODY_TIME, body.known()).await;
        }
    }
}

/// What a client and the log read if a request's body is longer than `max_body`.
pub(crate) const BODY_TOO_LONG: &str = "the request's body is too long";

/// The body is longer than `max_body`.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("{BODY_TOO_LONG}")]
pub(crate) struct BodyTooLong;

/// A body over HTTP/1.1.
#[derive(Debug)]
pub struct Http1Body {
    body: Incoming,
    /// Its end has not been read.
    unread: Arc<AtomicBool>,
}

impl Http1Body {
    /// `unread` is cleared when the body has been read to its end.
    #[must_use]
    pub fn new(body: Incoming, unread: Arc<AtomicBool>) -> Self {
        Self { body, unread }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() {
            self.unread.store(false, Ordering::Relaxed);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }
}

/// A body over HTTP/2. What is read is released at once, so the client's window moves with what
/// the backend takes.
#[derive(Debug)]
pub struct Http2Body {
    /// There until this is dropped.
    recv: Option<RecvStream>,
    length: Option<u64>,
    /// Notified when the body is first read.
    wanted: Option<oneshot::Sender<()>>,
    /// What was taken before it was asked for.
    first: Option<Result<Bytes, h2::Error>>,
    data_done: bool,
    /// Gets what is to be done about the stream, if it was not read to its end.
    rest: Option<oneshot::Sender<Rest>>,
}

/// How a body over HTTP/2 was left.
#[derive(Debug)]
pub enum Rest {
    /// More of it may arrive, but it is no longer read.
    Unread(RecvStream),
    /// Its trailers end the stream with an error (RFC 9113 §8.1.1).
    Malformed,
}

impl Http2Body {
    /// `length` is the request's Content-Length; h2 checks it. `wanted` is notified
    /// when the body is first asked for: a client may wait for that (RFC 9110 §10.1.1). `rest` is
    /// notified if the body is dropped before its end, or is malformed.
    #[must_use]
    pub fn new(
        recv: RecvStream,
        length: Option<u64>,
        wanted: Option<oneshot::Sender<()>>,
        rest: oneshot::Sender<Rest>,
    ) -> Self {
        Self { recv: Some(recv), length, wanted, first: None, data_done: false, rest: Some(rest) }
    }

    /// Waits until it is known whether there is any of it: an empty body may end in a frame of its own
    /// (RFC 9113 §8.1). Does not count as asking for it.
    ///
    /// # Cancel safety
    /// Safe: what has come is kept.
    pub async fn known(&mut self) {
        let Self { recv: Some(recv), first, data_done, .. } = self else { return };
        poll_fn(|cx| {
            while first.is_none() && !*data_done && !recv.is_end_stream() {
                match ready!(recv.poll_data(cx)) {
                    Some(Ok(data)) if data.is_empty() => {}
                    Some(data) => *first = Some(data),
                    None => *data_done = true,
                }
            }
            Poll::Ready(())
        })
        .await;
    }
}

impl Drop for Http2Body {
    fn drop(&mut self) {
        if let (Some(recv), Some(rest)) = (self.recv.take(), self.rest.take())
            && !recv.is_end_stream()
        {
            let _ = rest.send(Rest::Unread(recv));
        }
    }
}

impl Body for Http2Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(wanted) = self.wanted.take() {
            let _ = wanted.send(());
        }
        let Self { recv: Some(recv), length, first, data_done, rest, .. } = &mut *self else {
            return Poll::Ready(None);
        };
        while !*data_done {
            let data = match first.take() {
                None => ready!(recv.poll_data(cx)),
                first => first,
            };
            match data {
                Some(Ok(data)) => {
                    recv.flow_control().release_capacity(data.len())?;
                    if let Some(left) = length {
                        *left = left.saturating_sub(data.len() as u64);
                    }
                    if data.has_remaining() {
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                }
                Some(Err(e)) => return Poll::Ready(Some(Err(e.into()))),
                None => *data_done = true,
            }
        }
        let Some(trailers) = ready!(recv.poll_trailers(cx))? else { return Poll::Ready(None) };
        if trailers.values().any(has_outer_blanks) {
            if let Some(rest) = rest.take() {
                let _ = rest.send(Rest::Malformed);
            }
            return Poll::Ready(Some(Err(MALFORMED_TRAILERS.into())));
        }
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.recv.as_ref().is_none_or(RecvStream::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Self::Http1(body) => body.poll_frame(cx),
            Self::Http2(body) => Pin::new(body).poll_frame(cx),
            Self::Limited(body, left) => {
                let frame = ready!(Pin::new(&mut **body).poll_frame(cx));
                if let Some(Ok(frame)) = &frame
                    && let Some(data) = frame.data_ref()
                {
                    match left.checked_sub(data.len() as u64) {
                        Some(rest) => *left = rest,
                        None => return Poll::Ready(Some(Err(BodyTooLong.into()))),
                    }
                }
                Poll::Ready(frame)
            }
            Self::Reserving(body, reserved) => {
                let mut frame = ready!(Pin::new(&mut **body).poll_frame(cx));
                if let Some(Ok(frame)) = &mut frame
                    && let Some(trailers) = frame.trailers_mut()
                {
                    reserved.strip(trailers);
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Http1(body) => body.body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
            Self::Limited(body, _) | Self::Reserving(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Http1(body) => body.body.size_hint(),
            Self::Http2(body) => body.size_hint(),
            Self::Limited(body, _) | Self::Reserving(body, _) => body.size_hint(),
        }
    }
}

/// What has become of a request's body, seen from outside.
#[derive(Debug)]
pub struct UploadProgress {
    bytes: AtomicU64,
    answered: AtomicBool,
    /// The body has been asked for: nothing holds it back.
    begun: AtomicBool,
    /// All of the backend's answer has been read.
    answer_ended: AtomicBool,
    /// More is wanted of the client.
    wanted: AtomicBool,
    /// The client was too slow to give what was wanted: see `ToBackend::stalls`.
    stalled: AtomicBool,
    started: Instant,
    /// Milliseconds from `started` to the time when something last moved.
    moved: AtomicU64,
}

impl UploadProgress {
    fn new() -> Self {
        Self {
            bytes: AtomicU64::new(0),
            answered: AtomicBool::new(false),
            begun: AtomicBool::new(false),
            answer_ended: AtomicBool::new(false),
            wanted: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            started: Instant::now(),
            moved: AtomicU64::new(0),
        }
    }

    /// Of a body that has come, `bytes` long.
    pub(crate) fn ended(bytes: u64) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicU64::new(bytes), ..Self::new() })
    }

    /// When something last moved.
    fn moved(&self) -> Instant {
        self.started + Duration::from_millis(self.moved.load(Ordering::Relaxed))
    }

    /// Something has moved; the waiting begins again.
    pub(crate) fn touch(&self) {
        let moved = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.store(moved, Ordering::Relaxed);
    }

    /// Waits until the backend has been silent for `patience`: it has the whole body, or
    /// takes no more of it. A client that is slow to send is not the backend's fault.
    ///
    /// `timer` may be any: a timer that is there already costs less than a new one.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn backend_idles(&self, patience: Duration, mut timer: Pin<&mut Sleep>) {
        loop {
            timer.as_mut().reset(self.moved() + patience);
            timer.as_mut().await;
            if self.wanted.load(Ordering::Relaxed) {
                self.touch();
            } else if self.moved() + patience <= Instant::now() {
                return;
            }
        }
    }

    /// The client kept its body to itself for too long.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }

    /// Nothing holds the body back any more.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// All of the backend's answer has been read.
    pub(crate) fn answer_ended(&self) {
        self.answer_ended.store(true, Ordering::Relaxed);
    }

    /// Bytes passed on so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The backend has answered: a body that it has not asked for is not wanted any more.
    pub fn answered(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }
}

/// Behind its answer's end a body goes on while the client sends and the backend takes: an early answer doesn't
/// end a request (RFC 9112 §9.3).
pub(crate) async fn go_on(upload: AbortOnDropHandle<()>, progress: Arc<UploadProgress>) {
    let timer = pin!(sleep(STALL_MAX));
    progress.touch();
    tokio::select! {
        _ = upload => {}
        () = progress.backend_idles(STALL_MAX, timer) => {}
    }
}

/// A request's body on its way to a backend.
#[derive(Debug)]
pub struct ToBackend {
    body: RequestBody,
    gate: Option<Gate>,
    progress: Arc<UploadProgress>,
    pace: BodyPace,
    stall: StallTimer,
    /// Its front, where it was waited for.
    held: Option<Box<Held>>,
}

/// The front of a body that is to get a length.
#[derive(Debug, Default)]
struct Held {
    frames: VecDeque<Result<Frame<Bytes>, BoxError>>,
    len: u64,
    /// That is all of it, and there are no trailers, which need chunks (RFC 9112 §7.1.2).
    is_whole: bool,
    /// All of it, for a server that gets it after another one had it.
    copy: Option<Arc<Copy>>,
    memory: Claim,
}

/// A whole body.
#[derive(Debug)]
struct Copy {
    data: Vec<Bytes>,
    len: u64,
    _memory: Claim,
}

/// Shorter pieces of a held body are put together: each would cost more than its bytes, and may be a part of a larger
/// buffer.
const SMALL_LEN: usize = 4 * 1024;

impl Held {
    /// Takes a piece. Those without bytes are nothing.
    fn push(&mut self, data: Bytes, small: &mut BytesMut) {
        self.len += data.len() as u64;
        if data.len() < SMALL_LEN {
            small.extend_from_slice(&data);
            if small.len() < SMALL_LEN {
                return;
            }
        }
        self.end_small(small);
        if data.len() >= SMALL_LEN {
            self.frames.push_back(Ok(Frame::data(data)));
        }
    }

    fn end_small(&mut self, small: &mut BytesMut) {
        if !small.is_empty() {
            self.frames.push_back(Ok(Frame::data(small.split().freeze())));
        }
    }

    fn again(copy: &Arc<Copy>) -> Self {
        let frames = copy.data.iter().map(|data| Ok(Frame::data(data.clone()))).collect();
        Self { frames, len: copy.len, is_whole: true, copy: Some(copy.clone()), memory: Claim::default() }
    }
}

/// Holds a body back until the backend says 100 Continue, since asking a client for its body is
/// what makes hyper say it to the client (RFC 9110 §10.1.1). A backend that says nothing for a
/// while is sent the body without it.
#[derive(Debug)]
pub struct Gate {
    /// `None`: no more news will come.
    open: Option<oneshot::Receiver<()>>,
    patience: Pin<Box<Sleep>>,
}

impl Gate {
    /// For a client that waits for 100 Continue: who is to be told of it, and what holds its body back until then.
    pub(crate) fn of(head: &Parts, body: &RequestBody) -> (Option<oneshot::Sender<()>>, Option<Self>) {
        if body.is_end_stream() || !expects_continue(&head.headers) {
            return (None, None);
        }
        let (on_continue, open) = oneshot::channel();
        (Some(on_continue), Some(Self::new(open, Instant::now() + CONTINUE_TIME)))
    }

    /// Opens when `open` is notified, or at `until`.
    #[must_use]
    pub fn new(open: oneshot::Receiver<()>, until: Instant) -> Self {
        Self { open: Some(open), patience: Box::pin(sleep_until(until)) }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.open.as_mut().map(|open| Pin::new(open).poll(cx)) {
            Some(Poll::Ready(Ok(()))) => return Poll::Ready(()),
            Some(Poll::Ready(Err(_))) => self.open = None,
            Some(Poll::Pending) | None => {}
        }
        self.patience.as_mut().poll(cx)
    }
}

impl ToBackend {
    /// Passes `body` on, through the gate if there is one, if it comes at this rate ([`BodyPace`]).
    #[must_use]
    pub fn new(body: RequestBody, gate: Option<Gate>, rate: Option<NonZeroU64>) -> Self {
        let progress = Arc::new(UploadProgress::new());
        Self { body, gate, progress, pace: BodyPace::new(rate), stall: StallTimer::default(), held: None }
    }

    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self::new(RequestBody::Empty, None, None)
    }

    /// Waits for the body, until it has ended or more than `max` bytes of it have come. If all of it has come, it has a
    /// length from then on.
    ///
    /// # Cancel safety
    /// None: what has come is lost.
    pub async fn hold(&mut self, max: u64) {
        if self.is_end_stream() {
            return;
        }
        let mut held = Box::<Held>::default();
        let mut small = BytesMut::new();
        let is_whole = poll_fn(|cx| {
            while held.len <= max {
                let Some(frame) = ready!(self.poll_client(cx)) else { return Poll::Ready(true) };
                let last = match frame.map(Frame::into_data) {
                    Ok(Ok(data)) => {
                        held.push(data, &mut small);
                        held.memory.set(usize::try_from(held.len).unwrap_or(usize::MAX));
                        continue;
                    }
                    Ok(Err(trailers)) => Ok(trailers),
                    Err(e) => Err(e),
                };
                held.end_small(&mut small);
                held.frames.push_back(last);
                return Poll::Ready(false);
            }
            Poll::Ready(false)
        })
        .await;
        held.end_small(&mut small);
        held.is_whole = is_whole;
        if is_whole {
            let data = held.frames.iter().flatten().filter_map(Frame::data_ref).cloned().collect();
            // The frames are the same bytes.
            let (len, memory) = (held.len, std::mem::take(&mut held.memory));
            held.copy = Some(Arc::new(Copy { data, len, _memory: memory }));
        }
        self.held = Some(held);
    }

    /// Its length is known.
    #[must_use]
    pub(crate) fn has_length(&self) -> bool {
        self.size_hint().exact().is_some()
    }

    /// Why no more of it will come, if it was held and that has been found out. It is taken away.
    pub(crate) fn take_fault(&mut self) -> Option<BoxError> {
        let frames = &mut self.held.as_mut()?.frames;
        frames.pop_back_if(|last| last.is_err())?.err()
    }

    /// All of it once more, if that is there: it is empty, or was [held](Self::hold) whole.
    #[must_use]
    pub(crate) fn copy(&self) -> Option<Self> {
        let held = match &self.held {
            Some(held) => Some(Box::new(held.copy.as_ref().map(Held::again)?)),
            None if self.body.is_end_stream() => None,
            None => return None,
        };
        Some(Self {
            body: RequestBody::Empty,
            gate: None,
            progress: self.progress.clone(),
            pace: BodyPace::new(None),
            stall: StallTimer::default(),
            held,
        })
    }

    /// Gives back what was taken of it, to be taken again; `is_whole`: there is no more than that.
    pub(crate) fn put_back(&mut self, frames: Vec<Frame<Bytes>>, is_whole: bool) {
        let held = self.held.get_or_insert_default();
        for frame in frames.into_iter().rev() {
            held.len += frame.data_ref().map_or(0, Bytes::len) as u64;
            held.frames.push_front(Ok(frame));
        }
        held.is_whole |= is_whole;
        held.memory.set(usize::try_from(held.len).unwrap_or(usize::MAX));
    }

    /// A view of how far it has come.
    #[must_use]
    pub fn progress(&self) -> Arc<UploadProgress> {
        self.progress.clone()
    }
}

impl ToBackend {
    /// Ready when the client has been too slow: before there is an answer by the rule of [`BodyPace`], after the
    /// answer's end for [`STALL_MAX`]. While an answer goes on, it is that which shows life (gRPC).
    fn stalls(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let answered = self.progress.answered.load(Ordering::Relaxed);
            let patience = if answered { STALL_MAX } else { self.pace.left().min(STALL_MAX) };
            ready!(self.stall.poll(cx, patience));
            let answering = self.progress.answered.load(Ordering::Relaxed)
                && !self.progress.answer_ended.load(Ordering::Relaxed);
            if !answering {
                return Poll::Ready(());
            }
            self.stall.moved();
        }
    }
}

impl ToBackend {
    fn poll_client(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(gate) = &mut self.gate {
            ready!(gate.poll(cx));
            if self.progress.answered.load(Ordering::Relaxed) {
                return Poll::Pending; // until the connection is closed with the answer's end
            }
            self.gate = None;
        }
        self.progress.begun.store(true, Ordering::Relaxed);
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        self.progress.wanted.store(frame.is_pending(), Ordering::Relaxed);
        let Poll::Ready(frame) = frame else {
            ready!(self.stalls(cx));
            self.progress.stalled.store(true, Ordering::Relaxed);
            return Poll::Ready(Some(Err(CLIENT_STALLED.into())));
        };
        let waited = self.stall.moved();
        self.progress.touch();
        if let Some(Ok(frame)) = &frame {
            let len = frame.data_ref().map_or(0, Bytes::len) as u64;
            self.progress.bytes.fetch_add(len, Ordering::Relaxed);
            self.pace.moved(waited, len);
        }
        Poll::Ready(frame)
    }
}

impl Body for ToBackend {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(held) = &mut self.held {
            if let Some(frame) = held.frames.pop_front() {
                let len = frame.as_ref().ok().and_then(Frame::data_ref).map_or(0, Bytes::len);
                held.len -= len as u64;
                if held.copy.is_none() {
                    held.memory.set(usize::try_from(held.len).unwrap_or(usize::MAX));
                }
                return Poll::Ready(Some(frame));
            }
            if held.is_whole {
                return Poll::Ready(None);
            }
            self.held = None;
        }
        self.poll_client(cx)
    }

    fn is_end_stream(&self) -> bool {
        match &self.held {
            Some(held) if !held.frames.is_empty() => false,
            Some(held) if held.is_whole => true,
            _ => self.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.held {
            Some(held) if held.is_whole => SizeHint::with_exact(held.len),
            Some(held) => {
                let len = self.body.size_hint().exact().map(|rest| held.len + rest);
                len.map_or_else(SizeHint::default, SizeHint::with_exact)
            }
            None => self.body.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_costs_no_more_than_its_bytes() {
        let mut held = Held::default();
        let mut small = BytesMut::new();
        let all: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let mut rest = &all[..];
        for len in [1, 0, 3, SMALL_LEN, 1, SMALL_LEN - 1, 2 * SMALL_LEN]
            .into_iter()
            .chain([1, 0, 2].into_iter().cycle())
        {
            let (piece, behind) = rest.split_at(len.min(rest.len()));
            held.push(Bytes::copy_from_slice(piece), &mut small);
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        held.end_small(&mut small);
        assert_eq!(held.len, all.len() as u64);
        assert!(held.frames.len() <= 3 + all.len() / SMALL_LEN, "{}", held.frames.len());
        let again: Vec<u8> =
            held.frames.iter().flatten().filter_map(Frame::data_ref).flatten().copied().collect();
        assert!(again == all);
    }
}
