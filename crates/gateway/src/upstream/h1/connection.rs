//! One connection to a backend, for one request at a time (RFC 9112).
//!
//! An [`IdleConnection`] that sends a request becomes a [`ResponseBody`], and that an idle connection again at its end.

use std::any::Any;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{StatusCode, response};
use http_body::{Body, Frame, SizeHint};
use net_io::Buffer;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, split};
use tokio::task::coop::unconstrained;
use tokio_util::task::AbortOnDropHandle;

use crate::net::error::BoxError;
use crate::net::sweep;
use crate::upstream::h1::decode::{BadChunk, Decoded, Decoder};
use crate::upstream::h1::request::{RequestWriter, SendError};
use crate::upstream::h1::response::{BadResponse, Framing, Repair, is_kept, take_head};
use crate::upstream::interim::Interim;

/// Bytes that are read at once.
pub(crate) const READ_LEN: usize = 64 * 1024;

/// What backends' HTTP can run over.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// For those who need to know what it is.
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send>;
}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Io for T {
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

/// A connection without a request on it.
#[derive(Debug)]
pub struct IdleConnection<T = Box<dyn Io>> {
    io: T,
    /// It has carried requests before.
    reused: bool,
}

/// An answer, from behind its head to its end. Dropped before, it closes its connection.
pub struct ResponseBody<T = Box<dyn Io>> {
    link: Link<T>,
    /// What has come and isn't taken.
    inbox: BytesMut,
    decoder: Decoder,
    /// The backend takes another request after this one.
    kept: bool,
    /// What its head was before it was put right.
    repairs: Vec<Repair>,
}

/// The connection below an answer.
enum Link<T> {
    Whole(T),
    /// The request's body is still being sent, and doesn't wait until the answer is read.
    Split {
        read: Box<dyn AsyncRead + Unpin + Send>,
        upload: Option<AbortOnDropHandle<()>>,
    },
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SendRequestError {
    /// No byte of one has come, and the request may be sent over another connection: here it is.
    #[error("{why}")]
    Retry {
        /// The request from its beginning.
        request: Box<RequestWriter>,
        /// What has become of this connection.
        why: io::Error,
        /// It had carried requests before: the backend may have closed it a moment ago.
        reused: bool,
    },
    /// The connection has ended or is broken.
    #[error("{0}")]
    Broke(#[from] io::Error),
    /// The request's body is not to be had.
    #[error("{0}")]
    Body(BoxError),
    /// What came is no answer, or not one.
    #[error("{0}")]
    Bad(#[from] BadResponse),
}

/// Why the rest of an answer will not come.
#[derive(Debug, thiserror::Error)]
pub enum BrokeOff {
    /// The connection is broken.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It has ended.
    #[error("the connection ended before the answer was complete")]
    End,
    /// The rest can't be read.
    #[error("{0}")]
    Chunk(#[from] BadChunk),
}

impl IdleConnection {
    /// The same over the `T` that it is; `None` if it is another thing.
    #[must_use]
    pub fn downcast<T: Io>(self) -> Option<IdleConnection<T>> {
        let io = self.io.into_any().downcast().ok()?;
        Some(IdleConnection { io: *io, reused: self.reused })
    }
}

impl<T: Io> IdleConnection<T> {
    /// Over a new connection.
    #[must_use]
    pub fn new(io: T) -> Self {
        Self { io, reused: false }
    }

    /// Nothing has arrived since the last answer: neither the end of the stream nor unexpected bytes.
    pub(crate) fn is_quiet(&mut self, cx: &mut Context<'_>) -> bool {
        // Without a budget: "pending" must not mean that this task has had its share (tokio's
        // `task/coop/mod.rs`, `poll_proceed`).
        let mut byte = [0];
        let reading = poll_fn(|cx| Pin::new(&mut self.io).poll_read(cx, &mut ReadBuf::new(&mut byte)));
        pin!(unconstrained(reading)).poll(cx).is_pending()
    }

    /// Sends a request and waits for the head of its final answer. The body goes on being sent while the answer
    /// is already read; it stops when that is over. `interim` gets the answers before the final one that the client
    /// is to see.
    ///
    /// # Errors
    /// If there is none.
    ///
    /// # Cancel safety
    /// A dropped call closes the connection.
    pub async fn send_request(
        self,
        mut request: RequestWriter,
        interim: Option<&Interim>,
    ) -> Result<(response::Parts, ResponseBody<T>), SendRequestError> {
        let Self { mut io, reused } = self;
        let mut inbox = BytesMut::new();
        let (mut sending, mut failure, mut heard) = (true, None, false);
        let got = poll_fn(|cx| {
            if sending && let Poll::Ready(sent) = request.poll(cx, &mut io) {
                sending = false;
                match sent {
                    Ok(()) => {}
                    Err(SendError::Body(e)) => return Poll::Ready(Err(SendRequestError::Body(e))),
                    Err(SendError::Io(e)) if reused && request.is_whole() => {
                        return Poll::Ready(Err(e.into()));
                    }
                    // The backend may have said why it takes no more, before or behind that.
                    Err(SendError::Io(e)) => failure = Some(e),
                }
            }
            poll_head(cx, &mut io, &mut inbox, &mut request, interim, &mut heard)
        })
        .await;
        let mut head = match got {
            Ok(head) => head,
            Err(SendRequestError::Broke(why)) => {
                let why = failure.unwrap_or(why);
                return Err(match request.again() {
                    Some(request) if !heard && inbox.is_empty() => {
                        SendRequestError::Retry { request: request.into(), why, reused }
                    }
                    _ => SendRequestError::Broke(why),
                });
            }
            Err(e) => return Err(e),
        };
        let (framing, repairs) = Framing::of(&mut head, request.method())?;
        let kept = failure.is_none() && repairs.is_empty() && framing != Framing::UntilEnd && is_kept(&head);
        let link = if sending { Link::split(io, request) } else { Link::Whole(io) };
        Ok((head, ResponseBody { link, inbox, decoder: Decoder::new(framing), kept, repairs }))
    }
}

impl<T: Io> Link<T> {
    fn split(io: T, mut request: RequestWriter) -> Self {
        let (read, mut write) = split(io);
        let upload = sweep::spawn(async move {
            if poll_fn(|cx| request.poll(cx, &mut write)).await.is_err() {
                // The backend must not wait for the rest, nor take what it has for the whole.
                let _ = write.shutdown().await;
            }
        });
        Self::Split { read: Box::new(read), upload: Some(AbortOnDropHandle::new(upload)) }
    }
}

impl<T> fmt::Debug for ResponseBody<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody")
            .field("decoder", &self.decoder)
            .field("kept", &self.kept)
            .finish_non_exhaustive()
    }
}

/// The head of the final answer (RFC 9110 §15.2: others may come before it). `heard`: there has been one.
fn poll_head(
    cx: &mut Context<'_>,
    io: &mut (impl AsyncRead + Unpin),
    inbox: &mut BytesMut,
    request: &mut RequestWriter,
    interim: Option<&Interim>,
    heard: &mut bool,
) -> Poll<Result<response::Parts, SendRequestError>> {
    loop {
        if !inbox.is_empty()
            && let Some(head) = take_head(inbox, request.is_spelt())?
        {
            *heard = true;
            match head.status {
                StatusCode::CONTINUE if request.on_continue() => {}
                status if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS => {
                    if let Some(interim) = interim {
                        interim.push(head);
                    }
                }
                _ => return Poll::Ready(Ok(head)),
            }
        } else if ready!(poll_fill(cx, io, inbox))? == 0 {
            let what = "it was closed without an answer";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, what).into()));
        }
    }
}

/// Reads what there is and says how much; 0: there will be no more. What is read is as large in memory as it is,
/// since it may wait for a slow client.
fn poll_fill(
    cx: &mut Context<'_>,
    io: &mut (impl AsyncRead + Unpin + ?Sized),
    inbox: &mut BytesMut,
) -> Poll<io::Result<usize>> {
    let mut buffer = Buffer::take();
    let mut read = ReadBuf::new(&mut buffer[..READ_LEN]);
    ready!(Pin::new(io).poll_read(cx, &mut read))?;
    inbox.extend_from_slice(read.filled());
    Poll::Ready(Ok(read.filled().len()))
}

impl<T: Io> ResponseBody<T> {
    /// What a careless server wrote and was put right.
    #[must_use]
    pub fn repairs(&self) -> &[Repair] {
        &self.repairs
    }

    /// The request's body, if it is still on its way: it stops with the answer, unless it is taken.
    pub fn take_upload(&mut self) -> Option<AbortOnDropHandle<()>> {
        match &mut self.link {
            Link::Whole(_) => None,
            Link::Split { upload, .. } => upload.take(),
        }
    }

    /// The connection, when the answer has ended, if it can carry another request.
    pub(crate) fn into_idle(self) -> Option<IdleConnection<T>> {
        let ended = self.is_end_stream() && self.inbox.is_empty(); // bytes behind the answer are unexpected
        match self.link {
            Link::Whole(io) if ended && self.kept => Some(IdleConnection { io, reused: true }),
            Link::Whole(_) | Link::Split { .. } => None,
        }
    }

    /// The connection, and what came over it behind a 101. `None` if the request has a body that is still on its
    /// way.
    #[must_use]
    pub fn into_io(self) -> Option<(T, Bytes)> {
        match self.link {
            Link::Whole(io) => Some((io, self.inbox.freeze())),
            Link::Split { .. } => None,
        }
    }

    /// The same over whatever it is.
    #[must_use]
    pub fn boxed(self) -> ResponseBody {
        let link = match self.link {
            Link::Whole(io) => Link::Whole(Box::new(io) as Box<dyn Io>),
            Link::Split { read, upload } => Link::Split { read, upload },
        };
        ResponseBody {
            link,
            inbox: self.inbox,
            decoder: self.decoder,
            kept: self.kept,
            repairs: self.repairs,
        }
    }
}

impl<T: Io> Body for ResponseBody<T> {
    type Data = Bytes;
    type Error = BrokeOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokeOff>>> {
        let this = self.get_mut();
        loop {
            match this.decoder.decode(&mut this.inbox)? {
                Decoded::Data(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Decoded::Trailers(trailers) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Decoded::End => return Poll::Ready(None),
                Decoded::More => {}
            }
            let filled = match &mut this.link {
                Link::Whole(io) => poll_fill(cx, io, &mut this.inbox),
                Link::Split { read, .. } => poll_fill(cx, read, &mut this.inbox),
            };
            if ready!(filled)? == 0 {
                if this.decoder != Decoder::UntilEnd {
                    return Poll::Ready(Some(Err(BrokeOff::End)));
                }
                this.decoder = Decoder::DONE;
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.decoder == Decoder::DONE
    }

    fn size_hint(&self) -> SizeHint {
        self.decoder.len_left().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};

    use tokio::task::coop::{has_budget_remaining, poll_proceed};

    use super::*;
    use crate::upstream::body::ToBackend;

    fn request(method: &str) -> RequestWriter {
        let head = Request::builder().method(method).uri("/").body(()).unwrap().into_parts().0;
        RequestWriter::new(&head, b"", ToBackend::empty(), None)
    }

    /// A connection to a backend that reads a request before it says the next of `sayings`, and then closes.
    fn connection(room: usize, sayings: &'static [&'static str]) -> IdleConnection<DuplexStream> {
        let (near, mut far) = duplex(room);
        tokio::spawn(async move {
            for saying in sayings {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(far.read_u8().await.unwrap());
                }
                far.write_all(saying.as_bytes()).await.unwrap();
            }
        });
        IdleConnection::new(near)
    }

    async fn read<T: Io>(answer: &mut ResponseBody<T>) -> Result<(Bytes, Option<http::HeaderMap>), BrokeOff> {
        let body = answer.collect().await?;
        let trailers = body.trailers().cloned();
        Ok((body.to_bytes(), trailers))
    }

    #[tokio::test]
    async fn one_answer_after_the_other_in_any_pieces() {
        for room in [1, 7, 1000] {
            let mut connection = connection(
                room,
                &[
                    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n\
                     HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\nx: y\r\n\r\n",
                    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
                    "HTTP/1.0 200 OK\r\n\r\nhello",
                ],
            );
            for round in 0..3 {
                assert!(poll_fn(|cx| Poll::Ready(connection.is_quiet(cx))).await);
                let (head, mut answer) = connection.send_request(request("GET"), None).await.unwrap();
                assert_eq!(head.status, 200);
                assert!(!answer.is_end_stream());
                assert_eq!(answer.size_hint().exact(), (round == 1).then_some(5));
                let (body, trailers) = read(&mut answer).await.unwrap();
                assert_eq!((&body[..], trailers.is_some()), (&b"hello"[..], round == 0));
                let Some(kept) = answer.into_idle() else {
                    assert_eq!(round, 2);
                    break;
                };
                connection = kept;
            }
        }
    }

    #[tokio::test]
    async fn a_connection_is_not_kept_after_connection_close_or_with_unread_bytes() {
        for sayings in [
            &["HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"],
            &["HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"],
            &["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n"],
            &["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n!"],
            // Repaired.
            &["HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok"],
            &[
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            ],
            &[
                "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            ],
            &["HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok"],
            &["HTTP/1.1 777 OK\r\nContent-Length: 2\r\n\r\nok"],
        ] {
            let (_, mut answer) = connection(1000, sayings).send_request(request("GET"), None).await.unwrap();
            assert_eq!(read(&mut answer).await.unwrap().0, "ok", "{sayings:?}");
            assert!(answer.into_idle().is_none(), "{sayings:?}");
        }
        // Nor is one whose answer was not read to its end.
        let (_, answer) = connection(1000, &["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"])
            .send_request(request("GET"), None)
            .await
            .unwrap();
        assert!(answer.into_idle().is_none());
    }

    /// Takes so many bytes and then no more, while its answer can be read.
    struct Deaf {
        room: usize,
        answer: &'static [u8],
    }

    impl AsyncRead for Deaf {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            buf.put_slice(std::mem::take(&mut self.answer));
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Deaf {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            let len = buf.len().min(self.room);
            self.room -= len;
            Poll::Ready(if len == 0 { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(len) })
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_connection_that_did_not_take_the_whole_request_is_not_kept() {
        for (room, kept) in [(usize::MAX, true), (5, false)] {
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            let (head, mut answer) =
                IdleConnection::new(Deaf { room, answer }).send_request(request("GET"), None).await.unwrap();
            assert_eq!((head.status.as_u16(), &read(&mut answer).await.unwrap().0[..]), (200, &b"ok"[..]));
            assert_eq!(answer.into_idle().is_some(), kept, "{room}");
        }
    }

    #[tokio::test]
    async fn what_breaks_off_is_an_error() {
        for (saying, whole) in [
            (&["HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok"], false),
            (&["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"], false),
            (&["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokay"], false),
            (&["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n"], false),
            (&["HTTP/1.1 200 OK\r\n\r\nok"], true),
        ] {
            let (_, mut answer) = connection(1000, saying).send_request(request("GET"), None).await.unwrap();
            assert_eq!(read(&mut answer).await.is_ok(), whole, "{saying:?}");
        }
        let cut = connection(1000, &["HTTP/1.1 200 O"]).send_request(request("GET"), None).await;
        assert!(matches!(cut, Err(SendRequestError::Broke(_))), "{cut:?}");
        let none = connection(1000, &["SSH-2.0-x\r\n"]).send_request(request("GET"), None).await;
        assert!(matches!(none, Err(SendRequestError::Bad(bad)) if bad.is_syntax()), "{none:?}");
    }

    #[tokio::test]
    async fn what_a_backend_may_have_carried_out_is_given_back_only_if_that_does_no_harm() {
        const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        async fn used(sayings: &'static [&'static str]) -> IdleConnection<DuplexStream> {
            let (_, answer) = connection(1000, sayings).send_request(request("GET"), None).await.unwrap();
            answer.into_idle().unwrap()
        }
        // The backend has read it, or may have.
        for (method, again) in [("GET", true), ("POST", false)] {
            let result = used(&[OK, ""]).await.send_request(request(method), None).await;
            assert_eq!(matches!(result, Err(SendRequestError::Retry { .. })), again, "{method} {result:?}");
            let result = connection(1000, &[""]).send_request(request(method), None).await;
            let is_given_back = matches!(result, Err(SendRequestError::Retry { reused: false, .. }));
            assert_eq!(is_given_back, again, "{method} {result:?}");
            let result = connection(1000, &["HTTP/1.1 103 Early Hints\r\n\r\n"])
                .send_request(request(method), None)
                .await;
            assert!(matches!(result, Err(SendRequestError::Broke(_))), "{method} {result:?}");
            let result = used(&[OK, "HTTP/1.1 2"]).await.send_request(request(method), None).await;
            assert!(matches!(result, Err(SendRequestError::Broke(_))), "{method} {result:?}");
        }
        // It can't have.
        let mut connection = used(&[OK]).await;
        while poll_fn(|cx| Poll::Ready(connection.is_quiet(cx))).await {
            tokio::task::yield_now().await;
        }
        let result = connection.send_request(request("POST"), None).await;
        let Err(SendRequestError::Retry { request, .. }) = result else { panic!("{result:?}") };
        let (head, _) = self::connection(1000, &[OK]).send_request(*request, None).await.unwrap();
        assert_eq!(head.status, 200);
    }

    /// A task that has had its share reads nothing, and must not take that for an answer.
    #[tokio::test]
    async fn a_connection_with_unread_bytes_is_not_quiet() {
        for is_tired in [false, true] {
            let (near, mut far) = tokio::io::duplex(16);
            let mut connection = IdleConnection::new(near);
            let mut is_quiet = async || {
                tokio::task::yield_now().await;
                poll_fn(|cx| {
                    while is_tired && has_budget_remaining() {
                        let Poll::Ready(proceed) = poll_proceed(cx) else { break };
                        proceed.made_progress();
                    }
                    Poll::Ready(connection.is_quiet(cx))
                })
                .await
            };
            assert!(is_quiet().await);
            far.write_all(b"!").await.unwrap();
            assert!(!is_quiet().await, "tired: {is_tired}");
            drop(far);
            assert!(!is_quiet().await, "tired: {is_tired}");
        }
    }

    #[tokio::test]
    async fn what_came_behind_a_101_is_handed_on() {
        let answer = connection(1000, &["HTTP/1.1 101 Switching Protocols\r\n\r\nframes"])
            .send_request(request("GET"), None)
            .await;
        let (head, answer) = answer.unwrap();
        let (_, ahead) = answer.into_io().unwrap();
        assert_eq!((head.status.as_u16(), &ahead[..]), (101, &b"frames"[..]));
    }
}
