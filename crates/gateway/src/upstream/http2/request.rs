//! A request on one stream, until the head of its answer has come (RFC 9113 §8.1).

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::request::Parts;
use http::{Request, StatusCode, response};
use http_body::{Body, Frame};
use net_io::memory::Claim;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use upgrade_handler::Tunnel;

use crate::net::error::BoxError;
use crate::net::sweep;
use crate::site::endpoint::Endpoint;
use crate::upstream::body::ToBackend;
use crate::upstream::h1::request::is_idempotent;
use crate::upstream::http2::answer::{Http2Answer, io_error};
use crate::upstream::http2::connection::FreeStream;
use crate::upstream::http2::head;
use crate::upstream::http2::tunnel::ServerTunnel;
use crate::upstream::interim::Interim;

/// How much of a body that has been sent is kept until there is an answer, so that it can be sent again.
const KEPT_LEN_MAX: usize = 64 * 1024;
/// One DATA frame of the default size.
const CHUNK_LEN: usize = 16 * 1024;
/// What a client may have sent of a body that its server doesn't take.
const WAITING_LEN: usize = 128 * 1024;

/// A request that is to be sent, perhaps more than once.
#[derive(Debug)]
pub(crate) struct Http2Request {
    head: Parts,
    body: ToBackend,
    /// Told of 100 Continue.
    on_continue: Option<oneshot::Sender<()>>,
    /// Of the body, taken and not yet sent.
    data: Bytes,
    /// What has been taken of the body; `None`: too much to be kept.
    kept: Option<Kept>,
    /// What the client has sent meanwhile, while the stream takes nothing.
    waiting: Claim,
}

/// The front of a body.
#[derive(Debug, Default)]
struct Kept {
    frames: Vec<Frame<Bytes>>,
    len: usize,
    /// That is all of it.
    is_whole: bool,
    memory: Claim,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// The server has not looked at the request, and says so (RFC 9113 §8.7), or it has not been sent. It may be sent
    /// again whatever it is, if there is still all of it.
    #[error("{why}")]
    Unprocessed { request: Option<Box<Http2Request>>, why: io::Error },
    /// The server wants it over HTTP/1.1 (RFC 9113 §7), if there is still all of it.
    #[error("{why}")]
    Http1Required {
        request: Option<Box<Http2Request>>,
        why: io::Error,
        /// It has said so of the connection, and so of all requests.
        of_all: bool,
    },
    /// The connection has ended. What may be repeated is there.
    #[error("{why}")]
    Broke {
        request: Option<Box<Http2Request>>,
        why: io::Error,
        /// It had carried requests before: the server may have closed it a moment ago.
        reused: bool,
    },
    /// The server has reset the stream.
    #[error("it reset the stream: {why}")]
    Reset { request: Option<Box<Http2Request>>, why: String },
    /// What has come is no answer.
    #[error("its answer is not valid HTTP/2: {0}")]
    Bad(BoxError),
    /// The request's body is not to be had.
    #[error("{0}")]
    Body(BoxError),
    /// Nothing has come in time.
    #[error("nothing has come in time")]
    Timeout,
}

/// What a server makes of an extended CONNECT (RFC 8441 §5).
#[derive(Debug)]
pub(crate) enum Opened {
    /// The stream is the WebSocket's.
    Tunnel(Box<ServerTunnel>),
    /// It declines.
    Answer(Box<Http2Answer>),
}

impl Http2Request {
    /// With a [head](head::request) for HTTP/2. `on_continue` is told of 100 Continue.
    pub(crate) fn new(mut head: Parts, body: ToBackend, on_continue: Option<oneshot::Sender<()>>) -> Self {
        if let Some(len) = body.size_hint().exact().filter(|_| !body.is_end_stream()) {
            head.headers.insert(http::header::CONTENT_LENGTH, len.into());
        }
        Self {
            head,
            body,
            on_continue,
            data: Bytes::new(),
            kept: Some(Kept::default()),
            waiting: Claim::default(),
        }
    }

    /// Has this head, as [`head::request`] makes it.
    pub(crate) fn set_head(&mut self, mut head: Parts) {
        if let Some(len) = self.head.headers.remove(http::header::CONTENT_LENGTH) {
            head.headers.insert(http::header::CONTENT_LENGTH, len);
        }
        self.head = head;
    }

    /// Is for this server.
    pub(crate) fn set_scheme(&mut self, endpoint: &Endpoint) {
        head::set_scheme(&mut self.head, endpoint);
    }

    /// What is to be sent over HTTP/1.1 in its place.
    pub(crate) fn into_http1(mut self) -> (Parts, ToBackend, Option<oneshot::Sender<()>>) {
        head::to_http1(&mut self.head);
        (self.head, self.body, self.on_continue)
    }

    /// Sends the request and waits for the head of its final answer. The body goes on being sent while the answer is
    /// already read. `interim` gets the answers before the final one that the client is to see.
    ///
    /// # Errors
    /// If there is none, or nothing moves for `patience`.
    ///
    /// # Cancel safety
    /// A dropped call resets the stream.
    pub(crate) async fn send(
        mut self: Box<Self>,
        stream: FreeStream,
        patience: Duration,
        interim: Option<&Interim>,
    ) -> Result<(response::Parts, Http2Answer), SendError> {
        let reused = stream.is_reused();
        let ends = self.body.is_end_stream();
        let head = Request::from_parts(self.head.clone(), ());
        let (mut response, mut send, open) = match stream.send(head, ends) {
            Ok(sent) => sent,
            Err(e) if e.is_go_away() || e.is_io() => {
                return Err(SendError::Unprocessed { request: self.again(), why: io_error(e) });
            }
            Err(e) => return Err(SendError::Bad(e.into())),
        };
        let mut sending = !ends;
        let progress = self.body.progress();
        let got = {
            let request = &mut *self;
            let answered = poll_fn(|cx| {
                if sending && let Poll::Ready(sent) = request.poll_body(cx, &mut send) {
                    sending = false;
                    if let Err(e) = sent {
                        return Poll::Ready(Err(Failed::Body(e)));
                    }
                }
                poll_head(cx, &mut response, &mut request.on_continue, interim)
            });
            let timer = pin!(sleep(patience));
            tokio::select! {
                biased;
                answered = answered => answered,
                () = progress.backend_idles(patience, timer) => Err(Failed::Timeout),
            }
        };
        let (head, recv) = match got {
            Ok(got) => got,
            Err(Failed::Timeout) => {
                open.doubt();
                return Err(SendError::Timeout);
            }
            Err(Failed::Body(e)) => {
                send.send_reset(Reason::CANCEL); // the server must not take what it has for the whole
                return Err(SendError::Body(e));
            }
            Err(Failed::Switched) => return Err(SendError::Bad("101 over HTTP/2".into())),
            Err(Failed::Stream(e)) => return Err(self.failed(e, reused)),
        };
        self.kept = None;
        let open = Arc::new(open);
        let upload = sending.then(|| {
            let held = open.clone();
            let upload = sweep::spawn(async move {
                if poll_fn(|cx| self.poll_body(cx, &mut send)).await.is_err() {
                    send.send_reset(Reason::CANCEL);
                }
                drop(held);
            });
            AbortOnDropHandle::new(upload)
        });
        let answer = Http2Answer::new(recv, &head.headers, upload, open);
        Ok((head, answer))
    }

    fn failed(self: Box<Self>, e: h2::Error, reused: bool) -> SendError {
        if is_unprocessed(&e) {
            return SendError::Unprocessed { request: self.again(), why: io_error(e) };
        }
        if requires_http1(&e) {
            let of_all = e.is_go_away();
            return SendError::Http1Required { request: self.again(), why: io_error(e), of_all };
        }
        // Else it could be more than was asked for (RFC 9110 §9.2.2).
        let request = if is_idempotent(&self.head.method) { self.again() } else { None };
        SendError::of(e, request, reused)
    }

    /// The request from its beginning, if all of it is still there.
    fn again(mut self: Box<Self>) -> Option<Box<Self>> {
        let Kept { frames, is_whole, .. } = self.kept.take()?;
        if !frames.is_empty() || is_whole {
            self.body.put_back(frames, is_whole);
        }
        self.data = Bytes::new();
        self.kept = Some(Kept::default());
        Some(self)
    }

    /// Sends the body; ready when the server has all of it, or wants no more.
    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        send: &mut SendStream<Bytes>,
    ) -> Poll<Result<(), BoxError>> {
        loop {
            // Its answer, or what has come in place of one, says why (RFC 9113 §8.1).
            if send.poll_reset(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            while !self.data.is_empty() {
                send.reserve_capacity(self.data.len().min(CHUNK_LEN));
                while send.capacity() == 0 {
                    let Poll::Ready(capacity) = send.poll_capacity(cx) else {
                        self.waiting.set(WAITING_LEN);
                        return Poll::Pending;
                    };
                    if !matches!(capacity, Some(Ok(_))) {
                        return Poll::Ready(Ok(())); // the same
                    }
                }
                self.waiting.set(0);
                let chunk = self.data.split_to(send.capacity().min(self.data.len()).min(CHUNK_LEN));
                let ends = self.data.is_empty() && self.body.is_end_stream();
                if send.send_data(chunk, ends).is_err() {
                    return Poll::Ready(Ok(()));
                }
                if ends {
                    self.has_ended();
                    return Poll::Ready(Ok(()));
                }
            }
            let frame = ready!(Pin::new(&mut self.body).poll_frame(cx)).transpose()?;
            match frame.map(Frame::into_data) {
                Some(Ok(data)) => {
                    self.keep(data.len(), || Frame::data(data.clone()));
                    self.data = data;
                }
                Some(Err(frame)) => {
                    let mut trailers = frame.into_trailers().unwrap_or_default();
                    head::trailers(&mut trailers);
                    let len = trailers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
                    self.keep(len, || Frame::trailers(trailers.clone()));
                    self.has_ended();
                    let _ = send.send_trailers(trailers); // the same
                    return Poll::Ready(Ok(()));
                }
                None => {
                    self.has_ended();
                    let _ = send.send_data(Bytes::new(), true);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    fn keep(&mut self, len: usize, frame: impl FnOnce() -> Frame<Bytes>) {
        let Some(kept) = &mut self.kept else { return };
        kept.len += len;
        if kept.len > KEPT_LEN_MAX {
            self.kept = None;
            return;
        }
        kept.frames.push(frame());
        kept.memory.set(kept.len);
    }

    fn has_ended(&mut self) {
        if let Some(kept) = &mut self.kept {
            kept.is_whole = true;
        }
    }
}

/// Why there is no head.
enum Failed {
    Stream(h2::Error),
    Switched,
    Body(BoxError),
    Timeout,
}

/// The head of the final answer (RFC 9110 §15.2: others may come before it).
fn poll_head(
    cx: &mut Context<'_>,
    response: &mut ResponseFuture,
    on_continue: &mut Option<oneshot::Sender<()>>,
    interim: Option<&Interim>,
) -> Poll<Result<(response::Parts, RecvStream), Failed>> {
    while let Poll::Ready(Some(informational)) = response.poll_informational(cx) {
        let (head, ()) = informational.map_err(Failed::Stream)?.into_parts();
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            // RFC 9113 §8.6: there is none. A client over HTTP/1.1 would take it for an upgrade.
            return Poll::Ready(Err(Failed::Switched));
        }
        if head.status == StatusCode::CONTINUE
            && let Some(on_continue) = on_continue.take()
        {
            let _ = on_continue.send(()); // the client gets it when its body is read
        } else if let Some(interim) = interim {
            interim.push(head);
        }
    }
    let answer = ready!(Pin::new(response).poll(cx)).map_err(Failed::Stream)?;
    Poll::Ready(Ok(answer.into_parts()))
}

/// Asks for a WebSocket on `stream`, by a CONNECT with this [head](head::request), and waits for the answer.
///
/// # Errors
/// If there is none, or none comes for `patience`.
///
/// # Cancel safety
/// A dropped call resets the stream.
pub(crate) async fn open_tunnel(
    stream: FreeStream,
    mut head: Parts,
    patience: Duration,
) -> Result<(response::Parts, Opened), SendError> {
    let reused = stream.is_reused();
    head.extensions.insert(h2::ext::Protocol::from_static("websocket"));
    let (response, mut send, open) = match stream.send(Request::from_parts(head, ()), false) {
        Ok(sent) => sent,
        Err(e) if e.is_go_away() || e.is_io() => {
            return Err(SendError::Unprocessed { request: None, why: io_error(e) });
        }
        Err(e) => return Err(SendError::Bad(e.into())),
    };
    let answer = match timeout(patience, response).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(e)) if is_unprocessed(&e) => {
            return Err(SendError::Unprocessed { request: None, why: io_error(e) });
        }
        Ok(Err(e)) if requires_http1(&e) => {
            let of_all = e.is_go_away();
            return Err(SendError::Http1Required { request: None, why: io_error(e), of_all });
        }
        Ok(Err(e)) => return Err(SendError::of(e, None, reused)),
        Err(_) => {
            open.doubt();
            return Err(SendError::Timeout);
        }
    };
    let (head, recv) = answer.into_parts();
    let open = Arc::new(open);
    let opened = if head.status.is_success() {
        Opened::Tunnel(Box::new(ServerTunnel::new(Tunnel::new(send, recv), open)))
    } else {
        let _ = send.send_data(Bytes::new(), true); // the server's answer is all that is still to come
        Opened::Answer(Box::new(Http2Answer::new(recv, &head.headers, None, open)))
    };
    Ok((head, opened))
}

impl SendError {
    /// What became of a request that the server may have acted upon.
    fn of(e: h2::Error, request: Option<Box<Http2Request>>, reused: bool) -> Self {
        match e.reason() {
            Some(why) if e.is_reset() && e.is_remote() => Self::Reset { request, why: why.to_string() },
            Some(_) if e.is_reset() => Self::Bad(e.into()),
            _ => Self::Broke { request, why: io_error(e), reused },
        }
    }
}

/// The server has not looked at the request, and says so (RFC 9113 §8.7): it refused the stream, or said with GOAWAY
/// that this is the last one it looks at. h2 gives that error to streams behind it alone.
fn is_unprocessed(e: &h2::Error) -> bool {
    let is_wanted = e.reason() != Some(Reason::HTTP_1_1_REQUIRED);
    e.is_remote()
        && (e.is_go_away() && is_wanted || e.is_reset() && e.reason() == Some(Reason::REFUSED_STREAM))
}

/// The server serves the request over HTTP/1.1 alone, and has not served it (RFC 9113 §7, HTTP_1_1_REQUIRED). Only as the
/// error of the connection it is about more than this request: servers that ask a client to authenticate below HTTP reset
/// the streams of some paths so.
fn requires_http1(e: &h2::Error) -> bool {
    e.is_remote() && e.reason() == Some(Reason::HTTP_1_1_REQUIRED)
}
