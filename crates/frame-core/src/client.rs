//! What a session asks of its client's stream beyond reading and writing.

use tokio::io::{AsyncRead, AsyncWrite};

/// The stream of a client. Bytes that the client sent along with its handshake must come out of it first.
pub trait ClientStream: AsyncRead + AsyncWrite + Unpin {
    /// What is written next is the last, and the shutdown follows at once. The stream may keep such bytes until
    /// then, and call them flushed.
    fn begin_shutdown(&mut self) {}

    /// How many bytes the client's machine has acknowledged so far, if that is known. As long as it goes on doing
    /// so, a client that is slow to answer or to take more is not given up.
    fn acknowledged(&self) -> Option<u64> {
        None
    }

    /// The client may send no more at the moment, and is not read: its silence proves nothing.
    #[inline]
    fn is_paused(&self) -> bool {
        false
    }

    /// A session over it may freeze at this moment; if not, soon.
    #[inline]
    fn is_still(&self) -> bool {
        true
    }

    /// Whether it holds memory for a message that its client has not finished, or that was not taken from it. `None`: it
    /// never does.
    #[inline]
    fn holds_message(&self) -> Option<bool> {
        None
    }

    /// What has passed on the wire so far, if that is something else than what is read and written here. `None`: it is the same.
    #[inline]
    fn on_wire(&self) -> Option<OnWire> {
        None
    }
}

/// Bytes of frames on the wire, heads and control frames included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OnWire {
    /// Those that have come from the client.
    pub from_client: u64,
    /// Those that it has taken.
    pub to_client: u64,
}

impl<S: ClientStream + ?Sized> ClientStream for Box<S> {
    fn begin_shutdown(&mut self) {
        (**self).begin_shutdown();
    }

    fn acknowledged(&self) -> Option<u64> {
        (**self).acknowledged()
    }

    fn is_paused(&self) -> bool {
        (**self).is_paused()
    }

    fn is_still(&self) -> bool {
        (**self).is_still()
    }

    fn holds_message(&self) -> Option<bool> {
        (**self).holds_message()
    }

    fn on_wire(&self) -> Option<OnWire> {
        (**self).on_wire()
    }
}

impl<S: ClientStream + ?Sized> ClientStream for &mut S {
    fn begin_shutdown(&mut self) {
        (**self).begin_shutdown();
    }

    fn acknowledged(&self) -> Option<u64> {
        (**self).acknowledged()
    }

    fn is_paused(&self) -> bool {
        (**self).is_paused()
    }

    fn is_still(&self) -> bool {
        (**self).is_still()
    }

    fn holds_message(&self) -> Option<bool> {
        (**self).holds_message()
    }

    fn on_wire(&self) -> Option<OnWire> {
        (**self).on_wire()
    }
}
