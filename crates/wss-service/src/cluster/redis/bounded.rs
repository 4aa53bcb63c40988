//! A stream of Redis, of which the library reads no more than a `Limiter` lets through.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::resp::{Limiter, RespError};
use crate::cluster::stream::Stream;

/// Bytes that are read together.
const READ: usize = 16 * 1024;
/// So often in a row, where all is passed over. Then other tasks have their turn.
const READS_MAX: usize = 16;

pub(super) struct Bounded {
    stream: Stream,
    limiter: Limiter,
    read: Box<[u8]>,
    /// What the library hasn't taken yet.
    passed: BytesMut,
    broken: Arc<OnceLock<RespError>>,
}

impl Bounded {
    /// `broken` is told why reading has ended, which the library says in its own words.
    pub(super) fn new(stream: Stream, limiter: Limiter, broken: Arc<OnceLock<RespError>>) -> Self {
        let read = vec![0; READ].into_boxed_slice();
        Self { stream, limiter, read, passed: BytesMut::new(), broken }
    }
}

impl AsyncRead for Bounded {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, limiter, read, passed, broken } = self.get_mut();
        for _ in 0..READS_MAX {
            if !passed.is_empty() {
                let len = passed.len().min(out.remaining());
                out.put_slice(&passed[..len]);
                passed.advance(len);
                return Poll::Ready(Ok(()));
            }
            if let Some(error) = broken.get() {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, *error)));
            }
            let mut read = ReadBuf::new(read);
            ready!(Pin::new(&mut *stream).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            if let Err(error) = limiter.feed(read.filled(), passed) {
                let _ = broken.set(error); // behind what has passed
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn what_is_passed_over_is_never_held_and_other_tasks_run_meanwhile() {
        let (mut far, near) = duplex(1 << 20);
        let broken = Arc::default();
        let mut stream = Bounded::new(Box::new(near), Limiter::new(1000), Arc::clone(&broken));
        let len = 64 << 20;
        let sending = tokio::spawn(async move {
            far.write_all(format!(">3\r\n+message\r\n+a\r\n${len}\r\n").as_bytes()).await.unwrap();
            for _ in 0..64 {
                far.write_all(&vec![b'x'; 1 << 20]).await.unwrap();
            }
            far.write_all(b"\r\n+OK\r\n").await.unwrap();
            far.write_all(b"what?\r\n").await.unwrap();
        });
        let expected = format!(">3\r\n+message\r\n+a\r\n:{len}\r\n+OK\r\n");
        let mut heard = vec![0; expected.len()];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(str::from_utf8(&heard), Ok(&*expected));
        assert!(stream.passed.capacity() <= 2 * READ, "{}", stream.passed.capacity());
        assert_eq!(stream.read(&mut heard).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(broken.get(), Some(&RespError::NotResp));
        sending.await.unwrap();
    }
}
