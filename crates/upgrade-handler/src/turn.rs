//! What h2 writes in one turn of a connection's task leaves at the turn's end: h2 flushes each long DATA frame alone
//! (its `codec/framed_write.rs`, `has_capacity`), which would be a system call for every 16 KiB, and one for every
//! short answer.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream whose user's flushes do nothing until [`TurnEnd`] makes up for them.
///
/// The lock is never waited for: user and end are in the same task.
#[derive(Debug)]
pub struct InTurn<T>(Arc<Mutex<Turn<T>>>);

/// Flushes what was written in a turn.
#[derive(Debug)]
pub struct TurnEnd<T>(Arc<Mutex<Turn<T>>>);

#[derive(Debug)]
struct Turn<T> {
    io: T,
    /// Something was written. Not after a write that has to wait: its user comes back with it.
    is_flush_due: bool,
}

/// Makes both of `io`, which is dropped with the last of them.
pub fn in_turns<T>(io: T) -> (InTurn<T>, TurnEnd<T>) {
    let turn = Arc::new(Mutex::new(Turn { io, is_flush_due: false }));
    (InTurn(turn.clone()), TurnEnd(turn))
}

fn lock<T>(turn: &Mutex<Turn<T>>) -> MutexGuard<'_, Turn<T>> {
    turn.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: AsyncWrite + Unpin> TurnEnd<T> {
    /// Flushes each time it is polled, which has to be the last of a turn. Ready with what went wrong, and never
    /// without.
    pub async fn failed(&self) -> io::Error {
        poll_fn(|cx| {
            let turn = &mut *lock(&self.0);
            if turn.is_flush_due {
                match Pin::new(&mut turn.io).poll_flush(cx) {
                    Poll::Ready(Err(e)) => return Poll::Ready(e),
                    flush => turn.is_flush_due = flush.is_pending(),
                }
            }
            Poll::Pending
        })
        .await
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for InTurn<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0).io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for InTurn<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let turn = &mut *lock(&self.0);
        let written = Pin::new(&mut turn.io).poll_write(cx, buf);
        turn.is_flush_due = written.is_ready();
        written
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // at the end of the turn
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0).io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        lock(&self.0).io.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let turn = &mut *lock(&self.0);
        let written = Pin::new(&mut turn.io).poll_write_vectored(cx, bufs);
        turn.is_flush_due = written.is_ready();
        written
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter, duplex};

    use super::*;

    #[tokio::test]
    async fn what_is_written_in_a_turn_leaves_at_its_end() {
        let (near, mut far) = duplex(100);
        let (mut user, end) = in_turns(BufWriter::new(near));
        for part in [&b"one"[..], b"two"] {
            user.write_all(part).await.unwrap();
            user.flush().await.unwrap();
        }
        assert!(
            poll_fn(|cx| Poll::Ready(
                Pin::new(&mut far).poll_read(cx, &mut ReadBuf::new(&mut [0])).is_pending()
            ))
            .await
        );
        tokio::select! {
            biased;
            e = end.failed() => panic!("{e}"),
            () = std::future::ready(()) => {}
        }
        let mut read = [0; 6];
        far.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"onetwo");
    }

    #[tokio::test]
    async fn a_flush_that_fails_is_told() {
        let (near, far) = duplex(100);
        let (mut user, end) = in_turns(BufWriter::new(near));
        user.write_all(b"one").await.unwrap();
        drop(far);
        assert_eq!(end.failed().await.kind(), io::ErrorKind::BrokenPipe);
    }
}
