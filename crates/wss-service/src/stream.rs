//! The stream of a session's client: what HTTP/1.1 or HTTP/2 has left of it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use frame_core::relay::ClientStream;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use net_io::Tcp;
use tls_acceptor::TlsStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use upgrade_handler::{Handoff, Tunnel};

use crate::patience::Acknowledged;

/// The bytes below HTTP.
#[derive(Debug)]
pub(crate) enum Stream {
    /// TLS over TCP.
    Tls(Box<TlsStream>),
    /// TCP as it is.
    Plain(Tcp),
}

/// Does the same with either kind.
macro_rules! either {
    ($stream:expr, $io:ident => $do:expr) => {
        match $stream {
            Stream::Tls($io) => $do,
            Stream::Plain($io) => $do,
        }
    };
}

impl Stream {
    /// What is written from now on may wait for a flush.
    pub(crate) fn gather_writes(&mut self) {
        if let Self::Tls(io) = self {
            io.gather_writes();
        }
    }
}

impl Acknowledged for Stream {
    fn acknowledged(&self) -> Option<u64> {
        either!(self, io => io.acknowledged())
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), io => Pin::new(io).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), io => Pin::new(io).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), io => Pin::new(io).poll_shutdown(cx))
    }

    fn is_write_vectored(&self) -> bool {
        either!(self, io => io.is_write_vectored())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), io => Pin::new(io).poll_write_vectored(cx, bufs))
    }
}

/// The stream of an accepted WebSocket.
#[derive(Debug)]
pub(crate) struct Client<S>(pub(crate) S);

impl ClientStream for Client<Handoff<Stream>> {
    fn begin_shutdown(&mut self) {
        if let Stream::Tls(io) = self.0.get_mut() {
            io.begin_shutdown();
        }
    }

    fn acknowledged(&self) -> Option<u64> {
        self.0.get_ref().acknowledged()
    }
}

/// A connection that another server has accepted, of which no more is known.
impl ClientStream for Client<TokioIo<Upgraded>> {}

/// The connection below is shared with other streams, so nothing is known of one of them.
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
