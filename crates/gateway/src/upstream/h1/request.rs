//! A request on its way to a backend: its head, then its body as it comes.

use std::io::{self, IoSlice};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::header::{HeaderMap, HeaderName};
use http::{Method, request};
use http_body::{Body, Frame};
use net_io::memory::Claim;
use tokio::io::AsyncWrite;
use tokio::sync::oneshot;
use upgrade_handler::casing::Spelling;

use crate::net::error::BoxError;
use crate::upstream::body::ToBackend;
use crate::upstream::h1::encode::{CHUNK_END, Coding, announced, put_chunk_size, put_head, put_last_chunk};

/// Data that is copied to stand in one piece with what is around it.
const COPIED_MAX: usize = 4096;

/// What a client may have sent of a body that its backend doesn't take: a stream's window over HTTP/2; over HTTP/1.1
/// hyper's buffer, and what it has handed out. Neither shows how much has come, so all of it counts.
const WAITING_LEN: usize = 128 * 1024;

/// A request that is being sent.
#[derive(Debug)]
pub struct RequestWriter<B = ToBackend> {
    method: Method,
    /// Its names are as the client has spelt them, and the answer's are to be as the backend has.
    spelt: bool,
    coding: Coding,
    /// What the body's trailers may be.
    announced: Vec<HeaderName>,
    body: B,
    /// All of it is in what follows.
    body_ended: bool,
    /// Bytes of it that are still to come, if its coding is a length.
    left: u64,
    /// To be written, of which `sent` bytes are; then `data`. In front is the head, as long as nothing has left.
    out: Vec<u8>,
    head_len: usize,
    /// The head and the body, as long as both can be sent once more.
    again: Option<Box<(Vec<u8>, B)>>,
    sent: usize,
    data: Bytes,
    /// `data` is a chunk without its end.
    in_chunk: bool,
    /// What the client has sent meanwhile, while the connection takes nothing.
    waiting: Claim,
    /// Something has left.
    begun: bool,
    /// Told of 100 Continue.
    on_continue: Option<oneshot::Sender<()>>,
    /// The client waits for 100 Continue, which is sent to it when its body is read.
    expects: bool,
}

/// A body that may be there twice.
pub trait RepeatableBody: Body<Data = Bytes, Error = BoxError> + Unpin + Sized {
    /// All of it once more, if that is there.
    fn copy(&self) -> Option<Self>;
}

impl RepeatableBody for ToBackend {
    fn copy(&self) -> Option<Self> {
        Self::copy(self)
    }
}

/// Why the rest of a request can't be sent.
#[derive(Debug)]
pub(crate) enum SendError {
    /// The connection takes no more.
    Io(io::Error),
    /// The body is not to be had.
    Body(BoxError),
}

impl<B: RepeatableBody> RequestWriter<B> {
    /// The request with this head, without what depends on the connection: its version and its framing are made
    /// here. `lines` are further fields, as the wire has them. `on_continue` is told of 100 Continue.
    #[must_use]
    pub fn new(
        head: &request::Parts,
        lines: &[u8],
        body: B,
        on_continue: Option<oneshot::Sender<()>>,
    ) -> Self {
        let coding = Coding::of(&body);
        let announced = if coding == Coding::Chunked { announced(&head.headers) } else { Vec::new() };
        let mut out = Vec::with_capacity(1024);
        put_head(head, lines, coding, &mut out);
        let spelt = head.extensions.get::<Spelling>().is_some();
        Self {
            announced,
            spelt,
            expects: on_continue.is_some(),
            on_continue,
            ..Self::behind(out, &head.method, body)
        }
    }

    /// A request that begins with something else than a head of HTTP, and that has a body with a length, or none.
    #[must_use]
    pub(crate) fn behind(out: Vec<u8>, method: &Method, body: B) -> Self {
        let coding = Coding::of(&body);
        let left = if let Coding::Length(len) = coding { len } else { 0 };
        let again = match (&coding, is_idempotent(method)) {
            (Coding::Empty, _) | (_, false) => None, // without a body there is always all of it
            _ => body.copy().map(|copy| Box::new((out.clone(), copy))),
        };
        Self {
            head_len: out.len(),
            again,
            method: method.clone(),
            spelt: false,
            coding,
            announced: Vec::new(),
            body,
            body_ended: coding == Coding::Empty,
            left,
            out,
            sent: 0,
            data: Bytes::new(),
            in_chunk: false,
            waiting: Claim::default(),
            begun: false,
            expects: false,
            on_continue: None,
        }
    }

    pub(crate) fn method(&self) -> &Method {
        &self.method
    }

    pub(crate) fn is_spelt(&self) -> bool {
        self.spelt
    }

    /// The backend has sent 100 Continue. Returns true if it needs no more: a client that waits for it gets it when
    /// its body is read.
    pub(crate) fn on_continue(&mut self) -> bool {
        if let Some(on_continue) = self.on_continue.take() {
            let _ = on_continue.send(());
        }
        self.expects
    }

    /// Nothing has left yet.
    pub(crate) fn is_whole(&self) -> bool {
        !self.begun
    }

    /// The request from its beginning, for another connection, after this one has ended without a byte of an
    /// answer: `None` if that could be more than was asked for (RFC 9110 §9.2.2).
    pub(crate) fn again(mut self) -> Option<Self> {
        if !self.begun {
            return Some(self);
        }
        if self.coding != Coding::Empty {
            let (head, body) = *self.again.take()?;
            self.again = body.copy().map(|copy| Box::new((head.clone(), copy)));
            (self.out, self.body, self.data) = (head, body, Bytes::new());
            (self.body_ended, self.in_chunk) = (false, false);
            self.left = if let Coding::Length(len) = self.coding { len } else { 0 };
            self.waiting.set(0);
        } else if !is_idempotent(&self.method) {
            return None;
        }
        self.sent = 0;
        self.begun = false;
        Some(self)
    }

    /// Nothing of it has left, and it is for another server: this is its head there.
    pub(crate) fn set_head(&mut self, head: &request::Parts, lines: &[u8]) {
        let mut new = Vec::with_capacity(1024);
        put_head(head, lines, self.coding, &mut new);
        if let Some(again) = &mut self.again {
            again.0.clone_from(&new);
        }
        let len = new.len();
        self.out.splice(..self.head_len, new);
        self.head_len = len;
    }

    /// Sends what there is; ready when that was all.
    ///
    /// # Errors
    /// If the rest can't be sent.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<Result<(), SendError>> {
        loop {
            // The front of the body leaves with the head; later the body is asked for more when all before is gone.
            if !self.body_ended && (!self.begun || self.is_written()) {
                self.gather(cx).map_err(SendError::Body)?;
            }
            if self.is_written() {
                if !self.body_ended {
                    return Poll::Pending; // the body wakes us
                }
                return Pin::new(io).poll_flush(cx).map_err(SendError::Io);
            }
            let Poll::Ready(written) = self.poll_write(cx, io) else {
                self.waiting.set(if self.body_ended { 0 } else { WAITING_LEN });
                return Poll::Pending;
            };
            self.waiting.set(0);
            written.map_err(SendError::Io)?;
        }
    }

    fn is_written(&self) -> bool {
        self.sent == self.out.len() && self.data.is_empty()
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        let out = &self.out[self.sent..];
        let len = ready!(if self.data.is_empty() {
            Pin::new(io).poll_write(cx, out)
        } else if out.is_empty() {
            Pin::new(io).poll_write(cx, &self.data)
        } else {
            Pin::new(io).poll_write_vectored(cx, &[IoSlice::new(out), IoSlice::new(&self.data)])
        })?;
        if len == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.begun = true;
        let of_out = len.min(out.len());
        self.sent += of_out;
        self.data.advance(len - of_out);
        Poll::Ready(Ok(()))
    }

    /// Takes from the body what it has, up to what is worth a write.
    fn gather(&mut self, cx: &mut Context<'_>) -> Result<(), BoxError> {
        if self.is_written() {
            self.out.clear();
            self.sent = 0;
            if mem::take(&mut self.in_chunk) {
                self.out.extend_from_slice(CHUNK_END);
            }
        }
        while !self.body_ended && self.data.is_empty() && self.out.len() < COPIED_MAX {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else { break };
            match frame.transpose()?.map(Frame::into_data) {
                Some(Ok(data)) if data.is_empty() => {} // a chunk of no length would be the last
                Some(Ok(data)) => self.put(data)?,
                Some(Err(frame)) => self.end(&frame.into_trailers().unwrap_or_default())?,
                None => self.end(&HeaderMap::new())?,
            }
        }
        Ok(())
    }

    fn put(&mut self, data: Bytes) -> Result<(), BoxError> {
        let is_chunk = self.coding == Coding::Chunked;
        if is_chunk {
            put_chunk_size(data.len(), &mut self.out);
        } else {
            // Callers keep to the length; bytes behind this body would be read as another request.
            self.left = self
                .left
                .checked_sub(data.len() as u64)
                .ok_or("the body is longer than its Content-Length")?;
        }
        if data.len() > COPIED_MAX {
            self.data = data;
            self.in_chunk = is_chunk;
        } else {
            self.out.extend_from_slice(&data);
            if is_chunk {
                self.out.extend_from_slice(CHUNK_END);
            }
        }
        Ok(())
    }

    fn end(&mut self, trailers: &HeaderMap) -> Result<(), BoxError> {
        if self.left > 0 {
            return Err("the body is shorter than its Content-Length".into());
        }
        if self.coding == Coding::Chunked {
            put_last_chunk(&self.announced, trailers, &mut self.out);
        }
        self.body_ended = true;
        Ok(())
    }
}

/// A request may be sent again when it is not known what has become of it (RFC 9110 §9.2.2).
pub(crate) fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::future::poll_fn;

    use http::Request;
    use http_body::SizeHint;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, duplex};

    use super::*;

    /// A body that says "not yet" before each of its frames.
    struct Frames {
        frames: VecDeque<Result<Frame<Bytes>, BoxError>>,
        len: Option<u64>,
        is_late: bool,
    }

    impl Body for Frames {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            self.is_late = !self.is_late;
            if self.is_late {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(self.frames.pop_front())
        }

        fn size_hint(&self) -> SizeHint {
            self.len.map_or_else(SizeHint::default, SizeHint::with_exact)
        }
    }

    impl RepeatableBody for Frames {
        fn copy(&self) -> Option<Self> {
            None
        }
    }

    fn request(
        method: &str,
        len: Option<u64>,
        frames: impl IntoIterator<Item = Frame<Bytes>>,
    ) -> RequestWriter<Frames> {
        let head = Request::builder().method(method).uri("/").header("trailer", "x-sum").body(()).unwrap();
        let frames = frames.into_iter().map(Ok).collect();
        RequestWriter::new(&head.into_parts().0, b"", Frames { frames, len, is_late: false }, None)
    }

    /// What comes out of a connection that holds `room` bytes; nothing after the head if it failed.
    async fn sent(mut request: RequestWriter<Frames>, room: usize) -> (Vec<u8>, Result<(), SendError>) {
        let (mut near, mut far) = duplex(room);
        let mut wire = Vec::new();
        let sending = async move { poll_fn(|cx| request.poll(cx, &mut near)).await };
        let (sent, read) = tokio::join!(sending, far.read_to_end(&mut wire));
        read.unwrap();
        (wire, sent)
    }

    const HEAD: &str = "POST / HTTP/1.1\r\nTrailer: x-sum\r\n";

    proptest! {
        #[test]
        fn a_body_arrives_whole_whatever_its_frames_and_the_connection(
            lens in proptest::collection::vec(0..3 * COPIED_MAX, 0..5),
            room in prop_oneof![1..100_usize, 1..3 * COPIED_MAX],
            has_length: bool,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let frames = lens.iter().map(|&len| Frame::data(Bytes::from(vec![b'x'; len])));
            let total: usize = lens.iter().sum();
            let mut expect = if has_length {
                format!("{HEAD}Content-Length: {total}\r\n\r\n{}", "x".repeat(total))
            } else {
                format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n")
            };
            if !has_length {
                for len in lens.iter().filter(|len| **len > 0) {
                    expect += &format!("{len:X}\r\n{}\r\n", "x".repeat(*len));
                }
                expect += "0\r\n\r\n";
            }
            let request = request("POST", has_length.then_some(total as u64), frames);
            let (wire, result) = runtime.block_on(sent(request, room));
            prop_assert!(result.is_ok());
            prop_assert!(wire == expect.as_bytes(), "{}", String::from_utf8_lossy(&wire));
        }
    }

    #[tokio::test]
    async fn trailers_end_a_body() {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "1".parse().unwrap());
        trailers.insert("x-unannounced", "2".parse().unwrap());
        let frames = [Frame::data(Bytes::from_static(b"hi")), Frame::trailers(trailers)];
        let (wire, _) = sent(request("POST", None, frames), 1).await;
        let body = "2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n";
        assert_eq!(
            String::from_utf8(wire).unwrap(),
            format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n{body}")
        );
    }

    #[tokio::test]
    async fn what_would_be_another_request_is_not_sent() {
        for (data, why) in [(&b"longer"[..], "longer"), (b"is", "shorter")] {
            let (wire, result) =
                sent(request("POST", Some(3), [Frame::data(Bytes::from_static(data))]), 100).await;
            let Err(SendError::Body(e)) = result else { panic!("{result:?}") };
            assert!(e.to_string().contains(why), "{e}");
            assert!(!wire.ends_with(b"longer"));
        }
    }

    #[tokio::test]
    async fn only_requests_that_no_server_may_have_acted_upon_are_sent_again() {
        for (method, len, begun, expect) in [
            ("POST", None, false, true),
            ("POST", None, true, false),
            ("PUT", Some(1), true, false),
            ("POST", Some(0), true, false),
            ("PUT", Some(0), true, true),
            ("GET", Some(0), true, true),
        ] {
            let mut request = request(method, len, []);
            if len == Some(0) {
                (request.coding, request.body_ended) = (Coding::Empty, true); // as an empty body says of itself
            }
            let head = request.out.clone();
            let (mut near, _far) = duplex(1000);
            if begun {
                poll_fn(|cx| Poll::Ready(request.poll(cx, &mut near).is_ready())).await;
            }
            let again = request.again();
            assert_eq!(again.is_some(), expect, "{method} {len:?} {begun}");
            if let Some(again) = again {
                assert_eq!((&again.out, again.sent), (&head, 0));
            }
        }
    }
}
