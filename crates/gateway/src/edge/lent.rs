//! A stream that is returned when its borrower drops it: h2 doesn't give back the stream of its connection, over
//! which close_notify is still to be sent.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use crate::net::stream::Transport;

/// A stream that is lent.
#[derive(Debug)]
pub(crate) struct Lent<T> {
    /// There until the drop.
    io: Option<T>,
    owner: Option<oneshot::Sender<T>>,
}

/// Lends `io`; it comes back by the receiver.
pub(crate) fn lend<T>(io: T) -> (Lent<T>, oneshot::Receiver<T>) {
    let (owner, back) = oneshot::channel();
    (Lent { io: Some(io), owner: Some(owner) }, back)
}

impl<T> Drop for Lent<T> {
    fn drop(&mut self) {
        if let (Some(io), Some(owner)) = (self.io.take(), self.owner.take()) {
            let _ = owner.send(io);
        }
    }
}

impl<T: Unpin> Lent<T> {
    fn io(self: Pin<&mut Self>) -> io::Result<Pin<&mut T>> {
        self.get_mut().io.as_mut().map(Pin::new).ok_or_else(|| ErrorKind::NotConnected.into())
    }
}

impl<T: Transport> Transport for Lent<T> {
    fn acknowledged(&self) -> Option<u64> {
        self.io.as_ref()?.acknowledged()
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Lent<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.io()?.poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Lent<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.io()?.poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io()?.poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.as_ref().is_some_and(T::is_write_vectored)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.io()?.poll_write_vectored(cx, bufs)
    }
}
