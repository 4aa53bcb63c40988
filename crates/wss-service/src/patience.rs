//! How long a client may hold up a request: while it is to send more of a body, or to take more of an answer. Sessions
//! have their own such bound, which is as long.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use frame_core::policy::STALL_MAX;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Runs while a client is waited for.
#[derive(Debug, Default)]
pub(crate) struct Stall(Option<Pin<Box<Sleep>>>);

impl Stall {
    /// Something has moved.
    pub(crate) fn end(&mut self) {
        self.0 = None;
    }

    fn is_running(&self) -> bool {
        self.0.is_some()
    }

    /// Nothing has. Ready when that was so for [`STALL_MAX`].
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.0.get_or_insert_with(|| Box::pin(sleep(STALL_MAX))).as_mut().poll(cx));
        self.end();
        Poll::Ready(())
    }
}

/// What is below HTTP/1.1, which by itself waits for ever: its client has to take something of what is written, or its
/// machine to acknowledge something, within [`STALL_MAX`], or writing fails.
#[derive(Debug)]
pub(crate) struct Patient<T> {
    io: T,
    stall: Stall,
    /// When the wait began.
    acknowledged: Option<u64>,
}

/// A stream that may know how much of what was written has arrived.
pub(crate) trait Acknowledged {
    /// Bytes, by the client's machine; `None`: unknown.
    fn acknowledged(&self) -> Option<u64>;
}

impl<T> Patient<T> {
    pub(crate) fn new(io: T) -> Self {
        Self { io, stall: Stall::default(), acknowledged: None }
    }

    /// The stream itself, which is no longer watched.
    pub(crate) fn into_inner(self) -> T {
        self.io
    }
}

impl<T: Acknowledged> Patient<T> {
    fn watch<O>(&mut self, cx: &mut Context<'_>, write: Poll<io::Result<O>>) -> Poll<io::Result<O>> {
        if write.is_ready() {
            self.stall.end();
            return write;
        }
        if !self.stall.is_running() {
            self.acknowledged = self.io.acknowledged();
        }
        loop {
            ready!(self.stall.poll(cx));
            // A kernel holds megabytes for a slow link.
            let before = std::mem::replace(&mut self.acknowledged, self.io.acknowledged());
            if self.acknowledged == before {
                let why = format!("the client took nothing for {STALL_MAX:?}");
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)));
            }
        }
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

impl<T: AsyncWrite + Acknowledged + Unpin> AsyncWrite for Patient<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.io).poll_write(cx, buf);
        self.watch(cx, write)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flush = Pin::new(&mut self.io).poll_flush(cx);
        self.watch(cx, flush)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shutdown = Pin::new(&mut self.io).poll_shutdown(cx);
        self.watch(cx, shutdown)
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
        self.watch(cx, write)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::Instant;

    use super::*;

    /// Its acknowledgements are the test's to say.
    struct Slow(DuplexStream, Arc<AtomicU64>);

    impl Acknowledged for Slow {
        fn acknowledged(&self) -> Option<u64> {
            Some(self.1.load(Ordering::Relaxed))
        }
    }

    impl AsyncWrite for Slow {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_write(cx, buf)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_may_be_slow_but_not_gone() {
        let (near, mut far) = duplex(10);
        let mut near = Patient::new(Slow(near, Arc::default()));
        let begun = Instant::now();
        let read = async {
            let mut some = [0; 10];
            for _ in 0..5 {
                sleep(Duration::from_secs(50)).await;
                far.read_exact(&mut some).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(near.write_all(&[0; 100]), read);
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed().as_secs(), 250 + STALL_MAX.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_that_acknowledges_is_waited_for() {
        let ((near, _far), acknowledged) = (duplex(10), Arc::<AtomicU64>::default());
        let mut near = Patient::new(Slow(near, acknowledged.clone()));
        let begun = Instant::now();
        let takes = async {
            for _ in 0..5 {
                sleep(Duration::from_secs(50)).await;
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
        };
        let (written, ()) = tokio::join!(near.write_all(&[0; 100]), takes);
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed(), 6 * STALL_MAX, "in the fifth minute the last was acknowledged");
    }
}
