//! A WebSocket's stream inside an HTTP/2 connection (RFC 8441 §5).
//!
//! END_STREAM is TCP's FIN, RST_STREAM its RST: the first reads as the end of the stream, the
//! second as [`io::ErrorKind::ConnectionReset`]; `poll_shutdown` sends the first, and a drop
//! without it the second, with the code CANCEL.
//!
//! A reset overtakes what is queued. So `poll_flush` and `poll_shutdown` are done only when all is
//! on the network, and a drop afterwards destroys nothing.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::queued::Queued;

/// Bytes handed to h2 at once: one DATA frame of the default size.
const CHUNK_LEN: usize = 16 * 1024;

/// One stream, both ways.
#[derive(Debug)]
pub struct Tunnel {
    send: SendStream<Bytes>,
    recv: RecvStream,
    /// The rest of the last DATA frame.
    ahead: Bytes,
    queued: Arc<Queued>,
    shut: bool,
}

impl Tunnel {
    /// A tunnel over the stream on which 200 was answered, or received.
    #[must_use]
    pub fn new(send: SendStream<Bytes>, recv: RecvStream) -> Self {
        Self { send, recv, ahead: Bytes::new(), queued: Arc::default(), shut: false }
    }

    fn queue(&mut self, bytes: &[u8], end_of_stream: bool) -> io::Result<()> {
        let bytes = self.queued.count(Box::<[u8]>::from(bytes));
        self.send.send_data(bytes, end_of_stream).map_err(h2_error)
    }

    fn poll_reset_error(&mut self, cx: &mut Context<'_>) -> io::Error {
        match self.send.poll_reset(cx) {
            Poll::Ready(Ok(reason)) => h2_error(reason.into()),
            Poll::Ready(Err(e)) => h2_error(e),
            Poll::Pending => io::ErrorKind::BrokenPipe.into(),
        }
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.ahead.is_empty() {
            match ready!(self.recv.poll_data(cx)) {
                Some(data) => self.ahead = data.map_err(h2_error)?,
                None if self.recv.is_end_stream() => return Poll::Ready(Ok(())),
                None => {
                    // Trailers: nothing but DATA may come over a tunnel (RFC 9113 §8.5).
                    self.send.send_reset(Reason::PROTOCOL_ERROR);
                    return Poll::Ready(Err(h2_error(Reason::PROTOCOL_ERROR.into())));
                }
            }
        }
        let n = self.ahead.len().min(buf.remaining());
        buf.put_slice(&self.ahead[..n]);
        self.ahead.advance(n);
        // What has been taken may be replaced: back-pressure is per stream.
        let _ = self.recv.flow_control().release_capacity(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        // Only while there is something to send: reserved capacity is taken from the connection's.
        self.send.reserve_capacity(buf.len().min(CHUNK_LEN));
        while self.send.capacity() == 0 {
            match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(e)) => return Poll::Ready(Err(h2_error(e))),
                None => return Poll::Ready(Err(self.poll_reset_error(cx))),
            }
        }
        let n = self.send.capacity().min(buf.len()).min(CHUNK_LEN);
        Poll::Ready(self.queue(&buf[..n], false).map(|()| n))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.queued.poll_sent(cx).map(Ok)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shut {
            self.shut = true;
            self.queue(&[], true)?;
        }
        self.queued.poll_sent(cx).map(Ok)
    }
}

fn h2_error(e: h2::Error) -> io::Error {
    if e.is_io() {
        return e.into_io().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into());
    }
    io::Error::new(io::ErrorKind::ConnectionReset, e)
}

#[cfg(test)]
mod tests;
