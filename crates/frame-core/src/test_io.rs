//! Streams that stall, break and go in small pieces, and frames to send over them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::head::unmask;
use crate::outcome::Outcome;
use crate::relay::Ending;

/// Of a session that was not asked to freeze.
pub(crate) fn outcome<S>(ending: Ending<S>) -> Outcome {
    match ending {
        Ending::Over(outcome) => outcome,
        Ending::Frozen(_) => panic!("nothing asked for this"),
    }
}

/// A server frame.
pub(crate) fn frame(b0: u8, payload: &[u8]) -> Vec<u8> {
    encode(b0, None, payload)
}

/// A client frame, with always the same mask.
pub(crate) fn masked(b0: u8, payload: &[u8]) -> Vec<u8> {
    encode(b0, Some([0xA1, 0xB2, 0xC3, 0xD4]), payload)
}

fn encode(b0: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let bit = if mask.is_some() { 0x80 } else { 0 };
    let mut wire = vec![b0];
    match payload.len() {
        len @ 0..=125 => wire.push(bit | u8::try_from(len).unwrap()),
        len @ 126..=0xFFFF => {
            wire.push(bit | 126);
            wire.extend(u16::try_from(len).unwrap().to_be_bytes());
        }
        len => {
            wire.push(bit | 127);
            wire.extend((len as u64).to_be_bytes());
        }
    }
    wire.extend(mask.iter().flatten());
    let at = wire.len();
    wire.extend(payload);
    if let Some(mask) = mask {
        unmask(&mut wire[at..], mask, 0);
    }
    wire
}

/// Moves a byte at a time, and as often as not nothing at all.
pub(crate) struct Drip<S> {
    io: S,
    seed: u64,
}

impl<S> Drip<S> {
    pub(crate) fn new(io: S, seed: u64) -> Self {
        Self { io, seed }
    }

    /// Pending now and then, with a wake-up on its way.
    fn stall(&mut self, cx: &Context<'_>) -> Poll<()> {
        self.seed = self.seed.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
        if self.seed >> 63 == 0 {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Drip<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.stall(cx));
        let mut byte = [0];
        let mut one = ReadBuf::new(&mut byte);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut one))?;
        buf.put_slice(one.filled());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Drip<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.stall(cx));
        Pin::new(&mut self.io).poll_write(cx, &buf[..buf.len().min(1)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.stall(cx));
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.stall(cx));
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Ends with this error where the stream below ends in order.
pub(crate) struct Breaks<S>(S, io::ErrorKind);

impl<S> Breaks<S> {
    pub(crate) fn new(io: S, error: io::ErrorKind) -> Self {
        Self(io, error)
    }
}

/// Ends with a reset where the stream below ends in order.
pub(crate) fn resets<S>(io: S) -> Breaks<S> {
    Breaks::new(io, io::ErrorKind::ConnectionReset)
}

impl<S: AsyncRead + Unpin> AsyncRead for Breaks<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.0).poll_read(cx, buf))?;
        Poll::Ready(if buf.filled().len() == before { Err(self.1.into()) } else { Ok(()) })
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Breaks<S> {
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
