//! A client's stream as the relay takes it: what HTTP/1.1 or HTTP/2 has left of it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use frame_core::deflated::{Deflated, Deflating};
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
pub(crate) trait MovableStream: ClientStream {
    /// It can be.
    fn is_movable(&self) -> bool;

    /// What it is made of; `None`: it is gone, since it could not be taken apart.
    fn into_parts(self: Box<Self>) -> Option<ClientParts>;
}

/// What a client's stream is made of.
pub(crate) struct ClientParts {
    /// The stream below, with what was read ahead.
    pub(super) stream: Handoff<Stream>,
    /// What counts the client's messages or bytes.
    pub(super) meter: Option<Box<Meter>>,
    /// What compresses.
    pub(super) deflating: Option<Box<Deflating>>,
}

/// Some client's stream: of rare kinds there is one kind of session for all.
pub(crate) type AnyClient = Box<dyn MovableStream + Send>;

/// The stream of a client with which the gateway speaks permessage-deflate. Its messages and bytes count as they are when they
/// are inflated.
pub(crate) fn deflated(
    client: impl MovableStream + Send + 'static,
    meter: Option<Box<Meter>>,
    deflating: Box<Deflating>,
) -> AnyClient {
    let client = Deflated::new(client, deflating);
    match meter {
        None => Box::new(client),
        Some(meter) => Box::new(Metered::new(client, meter)),
    }
}

/// Where a session leaves for another process, if it is asked to and its client's stream can be taken apart.
pub(super) fn handover(
    client: &impl MovableStream,
    worker: &Worker,
) -> Option<UnboundedSender<FrozenSession>> {
    worker.transit.handover().filter(|_| client.is_movable())
}

impl<T: Transport> MovableStream for Client<Handoff<T>> {
    fn is_movable(&self) -> bool {
        T::IS_MOVABLE
    }

    fn into_parts(self: Box<Self>) -> Option<ClientParts> {
        let (io, ahead) = self.0.into_parts();
        Some(ClientParts { stream: Handoff::new(io.into_stream()?, ahead), meter: None, deflating: None })
    }
}

/// What the streams of a connection over HTTP/2 have in common can't be taken apart.
impl MovableStream for Client<Tunnel> {
    fn is_movable(&self) -> bool {
        false
    }

    fn into_parts(self: Box<Self>) -> Option<ClientParts> {
        None
    }
}

/// A client whose messages or bytes are counted.
impl<C: MovableStream> MovableStream for Metered<C> {
    fn is_movable(&self) -> bool {
        self.get_ref().is_movable()
    }

    fn into_parts(self: Box<Self>) -> Option<ClientParts> {
        let (client, meter) = Self::into_parts(*self);
        Some(ClientParts { meter: Some(meter), ..Box::new(client).into_parts()? })
    }
}

/// A client with compression.
impl<C: MovableStream> MovableStream for Deflated<C> {
    fn is_movable(&self) -> bool {
        self.get_ref().is_movable()
    }

    fn into_parts(self: Box<Self>) -> Option<ClientParts> {
        let (client, deflating) = Self::into_parts(*self);
        Some(ClientParts { deflating: Some(deflating), ..Box::new(client).into_parts()? })
    }
}

impl MovableStream for AnyClient {
    fn is_movable(&self) -> bool {
        (**self).is_movable()
    }

    fn into_parts(self: Box<Self>) -> Option<ClientParts> {
        (*self).into_parts()
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
