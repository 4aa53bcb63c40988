//! A stream to a server that carries a WebSocket (RFC 8441).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use upgrade_handler::Tunnel;

use crate::upstream::http2::open::OpenStream;

/// Dropped without a shutdown, it resets its stream with CANCEL.
#[derive(Debug)]
pub(crate) struct ServerTunnel {
    tunnel: Tunnel,
    _open: Arc<OpenStream>,
}

impl ServerTunnel {
    pub(super) fn new(tunnel: Tunnel, open: Arc<OpenStream>) -> Self {
        Self { tunnel, _open: open }
    }
}

impl AsyncRead for ServerTunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tunnel).poll_read(cx, buf)
    }
}

impl AsyncWrite for ServerTunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tunnel).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tunnel).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tunnel).poll_shutdown(cx)
    }
}
