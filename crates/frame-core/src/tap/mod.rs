//! A tap: who watches a session gets copies of its frames.
//!
//! [`Tapped`] is a client's stream that copies what passes into a queue of bounded size ([`tap_queue`]). A session that
//! is not watched has another type for its stream, and pays nothing. It becomes a watched one where it can be frozen:
//! [`SessionHandle::interrupt`](crate::handle::SessionHandle::interrupt) has it freeze, and it goes on over the other
//! stream. The frozen state says where the next frames begin in both directions ([`TapStart`]).
//!
//! What is seen is the client's side: what was read from the client, and what was written to it, with the frames of the
//! gateway itself.

mod queue;
mod walk;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub use self::queue::{CopyKind, TapCopy, TapEvent, TapReceiver, TapSender, tap_queue};
pub use self::walk::WayStart;
use self::walk::{Found, Walk};
use crate::client::{ClientStream, OnWire};
use crate::head::Sender;

/// Where a session stands when a tap begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TapStart {
    /// At its beginning.
    Beginning,
    /// In the middle.
    Within {
        /// From the client.
        from_client: WayStart,
        /// To the client.
        to_client: WayStart,
    },
}

/// What is copied of a session.
#[derive(Debug, Clone)]
pub struct Watch {
    /// Its id.
    pub session: u64,
    /// Payload bytes of each frame that are copied.
    pub capture_len: usize,
    /// The extension permessage-deflate was agreed upon.
    pub deflate: bool,
    /// Whether it has frames; else it is another protocol.
    pub has_frames: bool,
    /// Where to.
    pub sender: TapSender,
}

/// A client's stream that is watched.
#[derive(Debug)]
pub struct Tapped<S> {
    io: S,
    from_client: Way,
    to_client: Way,
}

#[derive(Debug)]
struct Way {
    walk: Option<Walk>,
    copier: Copier,
}

#[derive(Debug)]
struct Copier {
    watch: Watch,
    from: Sender,
    dropped: u64,
}

impl<S> Tapped<S> {
    /// Watches a session that goes on from `start`.
    #[must_use]
    pub fn new(io: S, watch: Watch, start: TapStart) -> Self {
        watch.sender.begin(watch.session, start == TapStart::Beginning, watch.deflate);
        let (from_client, to_client) = match start {
            TapStart::Beginning => Default::default(),
            TapStart::Within { from_client, to_client } => (from_client, to_client),
        };
        let to_client = Way::new(watch.clone(), Sender::Server, &to_client);
        Self { io, from_client: Way::new(watch, Sender::Client, &from_client), to_client }
    }

    /// The stream itself.
    #[must_use]
    pub fn into_inner(self) -> S {
        self.io
    }
}

impl Way {
    fn new(watch: Watch, from: Sender, start: &WayStart) -> Self {
        let mut copier = Copier { watch, from, dropped: 0 };
        let Watch { capture_len, has_frames, .. } = copier.watch;
        let walk = has_frames.then(|| Walk::new(from, start, capture_len, |found| copier.on_found(found)));
        Self { walk, copier }
    }

    fn on_bytes(&mut self, bytes: &[u8]) {
        let Self { walk, copier } = self;
        match walk {
            Some(walk) => walk.on_bytes(bytes, |found| copier.on_found(found)),
            None if bytes.is_empty() => {}
            None => {
                let front = &bytes[..bytes.len().min(copier.watch.capture_len)];
                copier.copy(CopyKind::Bytes, bytes.len() as u64, front.to_vec());
            }
        }
    }
}

impl Copier {
    fn on_found(&mut self, found: Found) {
        match found {
            Found::Frame { payload_len, wire } => self.copy(CopyKind::Frame, payload_len, wire),
            Found::Violation { violation, wire } => {
                self.copy(CopyKind::Violation(violation), wire.len() as u64, wire);
            }
        }
    }

    fn copy(&mut self, kind: CopyKind, len: u64, wire: Vec<u8>) {
        let (session, dropped) = (self.watch.session, self.dropped);
        let copy = TapCopy { session, at: SystemTime::now(), sender: self.from, kind, len, wire, dropped };
        self.dropped = if self.watch.sender.copy(copy) { 0 } else { dropped + 1 };
    }
}

impl<S: ClientStream> ClientStream for Tapped<S> {
    fn begin_shutdown(&mut self) {
        self.io.begin_shutdown();
    }

    fn acknowledged(&self) -> Option<u64> {
        self.io.acknowledged()
    }

    fn is_paused(&self) -> bool {
        self.io.is_paused()
    }

    fn is_still(&self) -> bool {
        self.io.is_still()
    }

    fn holds_message(&self) -> Option<bool> {
        self.io.holds_message()
    }

    fn on_wire(&self) -> Option<OnWire> {
        self.io.on_wire()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tapped<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        self.from_client.on_bytes(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tapped<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let n = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        self.to_client.on_bytes(&buf[..n]);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
