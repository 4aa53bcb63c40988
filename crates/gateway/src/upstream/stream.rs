//! The bytes of a connection to a server, below HTTP and WebSockets.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use net_io::{Tcp, Unix};
use tls_acceptor::TlsStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::options;
use crate::upstream::http2::tunnel::ServerTunnel;

/// A connection to a server.
#[derive(Debug)]
pub(crate) enum BackendStream {
    /// TCP as it is.
    Tcp(Tcp),
    /// A Unix socket.
    Unix(Unix),
    /// TLS over TCP, its client's end.
    Tls(Box<TlsStream>),
    /// A stream of a connection over HTTP/2, which carries a WebSocket.
    Http2(Box<ServerTunnel>),
}

/// Does the same over whatever it is.
macro_rules! each {
    ($stream:expr, $io:ident => $what:expr) => {
        match $stream {
            BackendStream::Tcp($io) => $what,
            BackendStream::Unix($io) => $what,
            BackendStream::Tls($io) => $what,
            BackendStream::Http2($io) => $what,
        }
    };
}

impl BackendStream {
    /// Its socket, if it has one of its own.
    pub(crate) fn socket(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Tcp(io) => Some(io.as_fd()),
            Self::Unix(io) => Some(io.as_fd()),
            Self::Tls(io) => Some(io.as_fd()),
            Self::Http2(_) => None,
        }
    }

    /// Makes the coming close a reset. That of a stream over HTTP/2 is one without a shutdown.
    pub(crate) fn reset_on_close(&self) {
        if let Some(socket) = self.socket() {
            options::reset_on_close(&socket);
        }
    }

    /// It can be taken apart, and go to another process.
    pub(crate) fn is_movable(&self) -> bool {
        !matches!(self, Self::Http2(_))
    }
}

impl AsyncRead for BackendStream {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_read(cx, buf))
    }
}

impl AsyncWrite for BackendStream {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), io => Pin::new(io).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_shutdown(cx))
    }

    fn is_write_vectored(&self) -> bool {
        each!(self, io => io.is_write_vectored())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), io => Pin::new(io).poll_write_vectored(cx, bufs))
    }
}
