//! The last step of a relay: both connections are shut down, and neither loses what is still on its way.

use std::pin::Pin;
use std::task::{Context, Poll};

use net_io::Buffer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::outcome::Exit;

/// The shutdown of both connections.
#[derive(Debug)]
pub(super) struct Shutdown {
    pub(super) client: PeerShutdown,
    pub(super) backend: PeerShutdown,
}

/// The shutdown of one peer's connection, as far as it has come.
#[derive(Debug, Clone, Copy)]
pub(super) enum PeerShutdown {
    /// The peer closes first.
    AwaitEnd,
    /// The write half is being shut down.
    Shutdown {
        /// The peer's end has been read.
        ended: bool,
    },
    /// Closing a socket with unread bytes would reset it and destroy what the peer has not read.
    Drain,
    /// This is left to do.
    Done(Exit),
}

impl Shutdown {
    /// What is left to do with each connection, once both are shut down. `late`: no peer is waited for any longer.
    pub(super) fn poll<C, B>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        backend: &mut B,
        late: bool,
    ) -> Poll<(Exit, Exit)>
    where
        C: AsyncRead + AsyncWrite + Unpin,
        B: AsyncRead + AsyncWrite + Unpin,
    {
        self.client.poll(cx, client, late);
        self.backend.poll(cx, backend, late);
        match (self.client, self.backend) {
            (PeerShutdown::Done(client), PeerShutdown::Done(backend)) => Poll::Ready((client, backend)),
            _ => Poll::Pending,
        }
    }
}

impl PeerShutdown {
    /// The orderly way to end a peer's connection; `ended`: its end has been read.
    pub(super) fn in_order(ended: bool) -> Self {
        Self::Shutdown { ended }
    }

    fn poll<S: AsyncRead + AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, io: &mut S, late: bool) {
        loop {
            let next = match *self {
                Self::Done(_) => return,
                Self::AwaitEnd => poll_drain(cx, io).map(|()| Self::Shutdown { ended: true }),
                Self::Shutdown { ended } => Pin::new(&mut *io).poll_shutdown(cx).map(|done| match done {
                    Ok(()) if !ended => Self::Drain,
                    Ok(()) => Self::Done(Exit::Orderly),
                    Err(_) => Self::Done(Exit::Orderly), // the peer is gone
                }),
                Self::Drain => poll_drain(cx, io).map(|()| Self::Done(Exit::Orderly)),
            };
            *self = match (next, *self) {
                (Poll::Ready(next), _) => next,
                (Poll::Pending, _) if !late => return,
                (Poll::Pending, Self::AwaitEnd) => Self::Shutdown { ended: false },
                (Poll::Pending, Self::Shutdown { .. }) => Self::Done(Exit::Cut),
                (Poll::Pending, _) => Self::Done(Exit::Orderly),
            };
        }
    }
}

/// Reads and discards until the peer's end, of whatever kind.
fn poll_drain<S: AsyncRead + Unpin>(cx: &mut Context<'_>, io: &mut S) -> Poll<()> {
    let mut buffer = Buffer::take();
    loop {
        let mut free = ReadBuf::new(&mut buffer);
        match Pin::new(&mut *io).poll_read(cx, &mut free) {
            Poll::Ready(Ok(())) if !free.filled().is_empty() => {}
            Poll::Ready(_) => return Poll::Ready(()),
            Poll::Pending => return Poll::Pending,
        }
    }
}
