//! The bytes of a client's connection, below HTTP.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use net_io::Tcp;
use tls_acceptor::TlsStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What clients' HTTP can run over.
pub trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// It is one that can be taken apart.
    const IS_MOVABLE: bool = false;

    /// What is written from now on is little, and followed by a shutdown: it may wait for that.
    fn begin_shutdown(&mut self) {}

    /// What is written from now on may wait for a flush.
    fn gather_writes(&mut self) {}

    /// The stream itself, if it can be taken apart.
    fn into_stream(self) -> Option<Stream>
    where
        Self: Sized,
    {
        None
    }

    /// How many bytes the peer's machine has acknowledged so far, if that is known.
    fn acknowledged(&self) -> Option<u64> {
        None
    }
}

/// The bytes below HTTP.
#[derive(Debug)]
pub enum Stream {
    /// TLS over TCP.
    Tls(Box<TlsStream>),
    /// TCP as it is.
    Plain(Tcp),
}

impl Transport for Stream {
    const IS_MOVABLE: bool = true;

    fn begin_shutdown(&mut self) {
        if let Self::Tls(io) = self {
            io.begin_shutdown();
        }
    }

    fn gather_writes(&mut self) {
        if let Self::Tls(io) = self {
            io.gather_writes();
        }
    }

    fn into_stream(self) -> Option<Self> {
        Some(self)
    }

    fn acknowledged(&self) -> Option<u64> {
        match self {
            Self::Tls(io) => io.acknowledged(),
            Self::Plain(io) => io.acknowledged(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(io) => Pin::new(io).poll_read(cx, buf),
            Self::Plain(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tls(io) => Pin::new(io).poll_write(cx, buf),
            Self::Plain(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(io) => Pin::new(io).poll_flush(cx),
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(io) => Pin::new(io).poll_shutdown(cx),
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tls(io) => io.is_write_vectored(),
            Self::Plain(io) => io.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tls(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Plain(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }
}
