//! From HTTP to frames: the stream below a finished handshake, *with the bytes already read*.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream that gives back what was read ahead before it reads on.
#[derive(Debug)]
pub struct Handoff<T> {
    /// Boxed, since it is soon gone and the stream lives long.
    ahead: Option<Box<Bytes>>,
    io: T,
}

impl<T> Handoff<T> {
    /// `ahead` comes out first.
    pub fn new(io: T, ahead: Bytes) -> Self {
        Self { ahead: (!ahead.is_empty()).then(|| Box::new(ahead)), io }
    }

    /// The same over another stream, made from this one.
    pub fn map<U>(self, into: impl FnOnce(T) -> U) -> Handoff<U> {
        Handoff { ahead: self.ahead, io: into(self.io) }
    }

    /// The stream, and what was read ahead and has not come out yet. [`Self::new`] is the way back.
    pub fn into_parts(self) -> (T, Bytes) {
        let Self { ahead, io } = self;
        (io, ahead.map_or_else(Bytes::new, |ahead| *ahead))
    }

    /// The stream itself, for socket options.
    pub fn get_ref(&self) -> &T {
        &self.io
    }

    /// The same. What is read from it comes behind what was read ahead.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.io
    }
}

/// Takes the stream out of hyper's hands; `None` if it is not a `TokioIo<T>`.
#[must_use]
pub fn from_hyper<T>(upgraded: Upgraded) -> Option<Handoff<T>>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let parts = upgraded.downcast::<TokioIo<T>>().ok()?;
    // A copy, as short as it is: even an empty piece of HTTP's buffer would keep all of it.
    Some(Handoff::new(parts.io.into_inner(), Bytes::copy_from_slice(&parts.read_buf)))
}

impl<T: AsyncRead + Unpin> AsyncRead for Handoff<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(ahead) = &mut self.ahead else {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        };
        let n = ahead.len().min(buf.remaining());
        buf.put_slice(&ahead[..n]);
        ahead.advance(n);
        if ahead.is_empty() {
            self.ahead = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Handoff<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;

    use http_body_util::Empty;
    use hyper::service::service_fn;
    use hyper::{Request, Response, StatusCode};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn bytes_read_ahead_come_first() {
        let mut handoff =
            Handoff::new(tokio::io::join(&b" world"[..], tokio::io::sink()), Bytes::from_static(b"hello"));
        let mut three = [0; 3];
        handoff.read_exact(&mut three).await.unwrap();
        assert_eq!(&three, b"hel");
        let mut rest = String::new();
        handoff.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "lo world");
    }

    #[tokio::test]
    async fn what_is_taken_apart_half_way_goes_on() {
        let io = tokio::io::join(&b" world"[..], tokio::io::sink());
        let mut handoff = Handoff::new(io, Bytes::from_static(b"hello"));
        handoff.read_exact(&mut [0; 3]).await.unwrap();
        let (io, ahead) = handoff.into_parts();
        assert_eq!(ahead, "lo");
        let mut rest = String::new();
        Handoff::new(io, ahead).read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "lo world");
        assert_eq!(Handoff::new((), Bytes::new()).into_parts(), ((), Bytes::new()));
    }

    #[tokio::test]
    async fn the_stream_of_an_upgrade_goes_on_behind_the_request() {
        let (mut client, gateway) = duplex(1024);
        let (hand_over, upgraded) = oneshot::channel();
        let hand_over = Cell::new(Some(hand_over));
        let service = service_fn(move |mut request: Request<_>| {
            if let Some(hand_over) = hand_over.take() {
                assert!(hand_over.send(hyper::upgrade::on(&mut request)).is_ok());
            }
            let mut response = Response::new(Empty::<Bytes>::new());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            std::future::ready(Ok::<_, Infallible>(response))
        });
        let http = hyper::server::conn::http1::Builder::new();
        let serving = http.serve_connection(TokioIo::new(gateway), service).with_upgrades();
        let request = b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nahead";
        client.write_all(request).await.unwrap();
        serving.await.unwrap();
        let mut handoff = from_hyper::<DuplexStream>(upgraded.await.unwrap().await.unwrap()).unwrap();
        client.write_all(b" behind").await.unwrap();
        let mut read = [0; 12];
        handoff.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"ahead behind");
    }

    #[tokio::test]
    async fn what_is_written_goes_to_the_stream_with_its_flush_and_end() {
        let (mut far, near) = duplex(1024);
        let mut handoff = Handoff::new(tokio::io::BufWriter::new(near), Bytes::from_static(b"ahead"));
        handoff.write_all(b"flushed").await.unwrap();
        handoff.flush().await.unwrap();
        let mut read = [0; 7];
        far.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"flushed");
        handoff.write_all(b"last").await.unwrap();
        handoff.shutdown().await.unwrap();
        let mut rest = String::new();
        far.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "last");
    }
}
