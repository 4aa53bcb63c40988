//! Interim answers (1xx) on their way from a backend to a client: a proxy must pass them on (RFC 9110 §15.2).
//!
//! An exchange puts them here, and the client's side sends them before the final answer. h2 can do that. hyper
//! can't, so over HTTP/1.1 [`Interject`] writes them below hyper, when hyper has nothing left to write, and the
//! final answer waits until they have left.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::{mem, sync::Arc};

use http::header::CONTENT_LENGTH;
use http::{Response, response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use upgrade_handler::hop_by_hop::remove_hop_by_hop;

use crate::net::limits::HEAD_LEN_MAX;
use crate::upstream::forward::remove_between_us;
use crate::upstream::h1::encode::put_field;

/// What a head without fields counts.
const HEAD_LEN_MIN: usize = 64;

/// The interim answers to one request after the other. Those beyond [`HEAD_LEN_MAX`] bytes a request are left out,
/// since a client may take none of them.
#[derive(Debug, Default)]
pub struct Interim {
    /// Nearly every request has none, and then only this is looked at.
    some: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<Response<()>>,
    /// Bytes of all those of this request.
    len: usize,
    /// Some are being written.
    leaving: bool,
    waiter: Option<Waker>,
}

impl Interim {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No interim answer to this request has come.
    fn is_unused(&self) -> bool {
        !self.some.load(Ordering::Acquire)
    }

    /// Another request begins; what was pushed before has left.
    pub fn begin(&self) {
        if self.some.swap(false, Ordering::AcqRel) {
            self.lock().len = 0;
        }
    }

    /// One has come from a backend.
    pub fn push(&self, head: response::Parts) {
        let mut answer = Response::new(());
        *answer.status_mut() = head.status;
        *answer.headers_mut() = head.headers;
        remove_hop_by_hop(answer.headers_mut());
        remove_between_us(answer.headers_mut());
        answer.headers_mut().remove(CONTENT_LENGTH); // RFC 9110 §8.6
        let fields = answer.headers().iter().map(|(name, value)| name.as_str().len() + value.len());
        let mut state = self.lock();
        self.some.store(true, Ordering::Release);
        state.len = state.len.saturating_add(HEAD_LEN_MIN + fields.sum::<usize>());
        if state.len <= HEAD_LEN_MAX {
            state.waiting.push(answer);
        }
    }

    /// Those that wait, in the order they came.
    #[must_use]
    pub fn take(&self) -> Vec<Response<()>> {
        if self.is_unused() {
            return Vec::new();
        }
        mem::take(&mut self.lock().waiting)
    }

    /// Ready when none waits or is being written.
    pub fn poll_left(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_unused() {
            return Poll::Ready(());
        }
        let mut state = self.lock();
        if state.waiting.is_empty() && !state.leaving {
            return Poll::Ready(());
        }
        state.waiter = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Appends those that wait, as HTTP/1.1 writes them, to `out`; they are leaving from now on.
    fn write_to(&self, out: &mut Vec<u8>) {
        if self.is_unused() {
            return;
        }
        let mut state = self.lock();
        for answer in state.waiting.drain(..) {
            let (status, fields) = (answer.status(), answer.headers());
            let reason = status.canonical_reason().unwrap_or_default();
            out.extend_from_slice(format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).as_bytes());
            for (name, value) in fields {
                put_field(name, value.as_bytes(), out);
            }
            out.extend_from_slice(b"\r\n");
        }
        state.leaving = !out.is_empty();
    }

    fn left(&self) {
        let mut state = self.lock();
        state.leaving = false;
        if let Some(waiter) = state.waiter.take() {
            waiter.wake();
        }
    }
}

/// A stream below hyper's server, into which interim answers are written at the places where that is allowed.
///
/// hyper (1.12, `proto/h1/io.rs`, `poll_flush`) flushes its stream only when all that it wanted to write is written,
/// and `proto/h1/dispatch.rs`, `poll_loop`, does so in every turn. While an exchange goes on, the answer before it
/// is complete (`proto/h1/conn.rs`, `try_keep_alive`), and its own has not begun: so what is written in a flush
/// stands between two answers.
#[derive(Debug)]
pub(crate) struct Interject<T> {
    io: T,
    interim: Arc<Interim>,
    /// Being written, of which `sent` bytes are.
    out: Vec<u8>,
    sent: usize,
}

impl<T> Interject<T> {
    /// Puts `interim` into what is written to `io`.
    pub(crate) fn new(io: T, interim: Arc<Interim>) -> Self {
        Self { io, interim, out: Vec::new(), sent: 0 }
    }

    /// The stream itself.
    pub(crate) fn into_inner(self) -> T {
        self.io
    }
}

impl<T: AsyncWrite + Unpin> Interject<T> {
    /// Ready when what has begun to leave has left.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.out.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while self.sent < self.out.len() {
            let len = ready!(Pin::new(&mut self.io).poll_write(cx, &self.out[self.sent..]))?;
            if len == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += len;
        }
        (self.out, self.sent) = (Vec::new(), 0);
        self.interim.left();
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Interject<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Interject<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_out(cx))?;
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.out.is_empty() {
            this.interim.write_to(&mut this.out);
        }
        ready!(this.poll_out(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_out(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_out(cx))?;
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    fn hints(value: &str) -> response::Parts {
        let head = Response::builder().status(103).header("link", value).header("content-length", "5");
        head.header("connection", "x-hop").header("x-hop", "1").body(()).unwrap().into_parts().0
    }

    #[tokio::test]
    async fn they_stand_between_what_is_written_whatever_room_there_is() {
        for room in [1, 7, 1000] {
            let interim = Arc::new(Interim::default());
            let (near, mut far) = duplex(room);
            let mut near = Interject::new(near, interim.clone());
            let writing = async {
                near.write_all(b"first;").await.unwrap();
                interim.push(hints("a"));
                interim.push(hints("b"));
                near.write_all(b"more;").await.unwrap(); // of the same answer: not before a flush
                assert!(poll_fn(|cx| Poll::Ready(interim.poll_left(cx).is_pending())).await);
                near.flush().await.unwrap();
                assert!(poll_fn(|cx| Poll::Ready(interim.poll_left(cx).is_ready())).await);
                near.write_all(b"second").await.unwrap();
                near.shutdown().await.unwrap();
            };
            let mut wire = String::new();
            let ((), read) = tokio::join!(writing, far.read_to_string(&mut wire));
            read.unwrap();
            let head = |value| format!("HTTP/1.1 103 Early Hints\r\nLink: {value}\r\n\r\n");
            assert_eq!(wire, format!("first;more;{}{}second", head("a"), head("b")), "{room}");
        }
    }

    #[tokio::test]
    async fn what_has_begun_to_leave_is_not_broken_by_what_comes_behind() {
        let interim = Arc::new(Interim::default());
        let (near, mut far) = duplex(10);
        let mut near = Interject::new(near, interim.clone());
        interim.push(hints("a"));
        // Full before the head has left.
        assert!(poll_fn(|cx| Poll::Ready(Pin::new(&mut near).poll_flush(cx).is_pending())).await);
        assert!(poll_fn(|cx| Poll::Ready(interim.poll_left(cx).is_pending())).await);
        let writing = async {
            near.write_all(b"answer").await.unwrap();
            near.shutdown().await.unwrap();
        };
        let left = poll_fn(|cx| interim.poll_left(cx));
        let mut wire = String::new();
        let ((), read, ()) = tokio::join!(writing, far.read_to_string(&mut wire), left);
        read.unwrap();
        assert_eq!(wire, "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nanswer");
    }

    #[test]
    fn a_request_has_no_more_of_them_than_a_head_may_have_bytes() {
        let interim = Interim::default();
        for _ in 0..10_000 {
            interim.push(hints("a"));
        }
        let count = interim.take().len();
        assert!((500..HEAD_LEN_MAX / HEAD_LEN_MIN).contains(&count), "{count}");
        let (interim, value_len) = (Interim::default(), 1000);
        for _ in 0..10_000 {
            interim.push(hints(&"a".repeat(value_len)));
        }
        let count = interim.take().len();
        assert!((HEAD_LEN_MAX / value_len / 2..=HEAD_LEN_MAX / value_len).contains(&count), "{count}");
        interim.push(hints("a"));
        assert_eq!(interim.take().len(), 0);
        interim.begin();
        interim.push(hints("a"));
        assert_eq!(interim.take().len(), 1);
    }
}
