//! A client's stream as the relay takes it: what HTTP/1.1 or HTTP/2 has left of it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use frame_core::relay::ClientStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use upgrade_handler::{Handoff, Tunnel};

use crate::net::stream::Transport;

/// The stream of an accepted WebSocket.
#[derive(Debug)]
pub(crate) struct Client<S>(pub S);

impl<T: Transport> ClientStream for Client<Handoff<T>> {
    fn begin_shutdown(&mut self) {
        self.0.get_mut().begin_shutdown();
    }

    fn acknowledged(&self) -> Option<u64> {
        self.0.get_ref().acknowledged()
    }
}

/// The connection below is shared with other streams, so neither is known of one of them.
impl ClientStream for Client<Tunnel> {}

impl<S: AsyncRead + Unpin> AsyncRead for Client<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Client<S> {
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
