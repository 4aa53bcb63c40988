//! In-memory pipes that do not allocate once they are made.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use frame_core::relay::ClientStream;
use gateway::internals::Transport;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// One direction: a ring of bytes.
#[derive(Debug)]
struct Ring {
    bytes: Box<[u8]>,
    start: usize,
    len: usize,
    ended: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Ring {
    fn put(&mut self, from: &[u8]) -> usize {
        let n = from.len().min(self.bytes.len() - self.len);
        let at = (self.start + self.len) % self.bytes.len();
        let first = n.min(self.bytes.len() - at);
        self.bytes[at..at + first].copy_from_slice(&from[..first]);
        self.bytes[..n - first].copy_from_slice(&from[first..n]);
        self.len += n;
        if n > 0
            && let Some(waker) = self.reader.take()
        {
            waker.wake();
        }
        n
    }

    fn take(&mut self, to: &mut [u8]) -> usize {
        let n = to.len().min(self.len);
        let first = n.min(self.bytes.len() - self.start);
        to[..first].copy_from_slice(&self.bytes[self.start..self.start + first]);
        to[first..n].copy_from_slice(&self.bytes[..n - first]);
        self.len -= n;
        // An empty ring begins again at its start, so that messages lie in one piece as they do in sockets.
        self.start = if self.len == 0 { 0 } else { (self.start + n) % self.bytes.len() };
        if n > 0
            && let Some(waker) = self.writer.take()
        {
            waker.wake();
        }
        n
    }
}

/// One end of a pipe, for async code and for code that asks again.
#[derive(Debug)]
pub struct Pipe {
    incoming: Arc<Mutex<Ring>>,
    outgoing: Arc<Mutex<Ring>>,
}

/// Two ends, with room for so many bytes each way.
pub fn pipe(room: usize) -> (Pipe, Pipe) {
    let ring = || {
        let bytes = vec![0; room].into_boxed_slice();
        Arc::new(Mutex::new(Ring { bytes, start: 0, len: 0, ended: false, reader: None, writer: None }))
    };
    let (up, down) = (ring(), ring());
    (Pipe { incoming: down.clone(), outgoing: up.clone() }, Pipe { incoming: up, outgoing: down })
}

fn lock(ring: &Mutex<Ring>) -> MutexGuard<'_, Ring> {
    ring.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pipe {
    /// Puts in what there is room for.
    pub fn put(&self, bytes: &[u8]) -> usize {
        lock(&self.outgoing).put(bytes)
    }

    /// Takes out what is there.
    pub fn take(&self, bytes: &mut [u8]) -> usize {
        lock(&self.incoming).take(bytes)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        for ring in [&self.incoming, &self.outgoing] {
            let mut ring = lock(ring);
            ring.ended = true;
            let wakers = [ring.reader.take(), ring.writer.take()];
            drop(ring);
            wakers.into_iter().flatten().for_each(Waker::wake);
        }
    }
}

impl AsyncRead for Pipe {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut ring = lock(&self.incoming);
        if ring.len == 0 && !ring.ended {
            ring.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let n = buf.remaining().min(ring.len);
        let n = ring.take(buf.initialize_unfilled_to(n));
        buf.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl ClientStream for Pipe {}

impl Transport for Pipe {}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut ring = lock(&self.outgoing);
        if ring.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        match ring.put(bytes) {
            0 if !bytes.is_empty() => {
                ring.writer = Some(cx.waker().clone());
                Poll::Pending
            }
            n => Poll::Ready(Ok(n)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut ring = lock(&self.outgoing);
        ring.ended = true;
        if let Some(waker) = ring.reader.take() {
            waker.wake();
        }
        Poll::Ready(Ok(()))
    }
}

impl io::Read for Pipe {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let mut ring = lock(&self.incoming);
        if ring.len == 0 && !ring.ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(ring.take(to))
    }
}

impl io::Write for Pipe {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        match self.put(from) {
            0 if !from.is_empty() => Err(io::ErrorKind::WouldBlock.into()),
            n => Ok(n),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
