//! How long a client may keep a request waiting without giving or taking a byte.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

pub use frame_core::keepalive::STALL_MAX;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Runs while somebody is waited for.
#[derive(Debug, Default)]
pub struct Stall(Option<Pin<Box<Sleep>>>);

impl Stall {
    /// Something has moved.
    pub fn moved(&mut self) {
        self.0 = None;
    }

    /// Still nothing; ready when that was so for [`STALL_MAX`].
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.get_or_insert_with(|| Box::pin(sleep(STALL_MAX))).as_mut().poll(cx)
    }
}

/// A stream whose other end must take something of what is written within [`STALL_MAX`], or the
/// write fails with [`io::ErrorKind::TimedOut`].
#[derive(Debug)]
pub struct Patient<T> {
    io: T,
    stall: Stall,
}

impl<T> Patient<T> {
    /// Watches what is written to `io`.
    pub fn new(io: T) -> Self {
        Self { io, stall: Stall::default() }
    }

    /// The stream itself, no longer watched.
    pub fn into_inner(self) -> T {
        self.io
    }

    fn judge<O>(&mut self, cx: &mut Context<'_>, write: Poll<io::Result<O>>) -> Poll<io::Result<O>> {
        if write.is_ready() {
            self.stall.moved();
            return write;
        }
        ready!(self.stall.poll(cx));
        let what = format!("the client took nothing for {STALL_MAX:?}");
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, what)))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Patient<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Patient<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.io).poll_write(cx, buf);
        self.judge(cx, write)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flush = Pin::new(&mut self.io).poll_flush(cx);
        self.judge(cx, flush)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shutdown = Pin::new(&mut self.io).poll_shutdown(cx);
        self.judge(cx, shutdown)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.judge(cx, write)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::{Duration, Instant};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reader_may_be_slow_but_not_gone() {
        let (near, mut far) = duplex(10);
        let mut near = Patient::new(near);
        let started = Instant::now();
        let write = near.write_all(&[0; 100]);
        let read = async {
            let mut some = [0; 10];
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_secs(50)).await;
                far.read_exact(&mut some).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(write, read);
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(started.elapsed(), Duration::from_secs(250) + STALL_MAX);
    }
}
