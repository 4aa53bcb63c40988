//! A client's stream as the relay takes it: what HTTP/1.1 or HTTP/2 has left of it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use frame_core::metered::{Meter, Metered};
use frame_core::relay::ClientStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc::UnboundedSender;
use upgrade_handler::{Handoff, Tunnel};

use crate::context::Worker;
use crate::context::transit::FrozenSession;
use crate::net::stream::{Stream, Transport};

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

/// A client's stream, which may be one that can be taken apart.
pub(crate) trait MovableStream: ClientStream + Sized {
    /// It can be.
    const IS_MOVABLE: bool;

    /// The stream below with what was read ahead, and its meter; `None`: it is gone, since it could not be taken apart.
    fn into_stream(self) -> Option<(Handoff<Stream>, Option<Box<Meter>>)>;
}

/// Where a session leaves for another process, if it is asked to and its client's stream can be taken apart.
pub(super) fn handover<C: MovableStream>(worker: &Worker) -> Option<UnboundedSender<FrozenSession>> {
    worker.transit.handover().filter(|_| C::IS_MOVABLE)
}

impl<T: Transport> MovableStream for Client<Handoff<T>> {
    const IS_MOVABLE: bool = T::IS_MOVABLE;

    fn into_stream(self) -> Option<(Handoff<Stream>, Option<Box<Meter>>)> {
        let (io, ahead) = self.0.into_parts();
        Some((Handoff::new(io.into_stream()?, ahead), None))
    }
}

/// What the streams of a connection over HTTP/2 have in common can't be taken apart.
impl MovableStream for Client<Tunnel> {
    const IS_MOVABLE: bool = false;

    fn into_stream(self) -> Option<(Handoff<Stream>, Option<Box<Meter>>)> {
        None
    }
}

/// A client whose messages or bytes are counted.
impl<C: MovableStream> MovableStream for Metered<C> {
    const IS_MOVABLE: bool = C::IS_MOVABLE;

    fn into_stream(self) -> Option<(Handoff<Stream>, Option<Box<Meter>>)> {
        let (client, meter) = self.into_parts();
        let (stream, _) = client.into_stream()?;
        Some((stream, Some(meter)))
    }
}

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
