//! HTTP/2 by the h2 crate's client, and WebSockets over it (RFC 8441).

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::client::{Connection, SendRequest};
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use http::{Method, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinHandle;

use crate::ws::WebSocket;
use crate::{BoxIo, Io, soon};

/// A connection.
pub struct Http2 {
    send: SendRequest<Bytes>,
    /// The connection's task; it ends with the connection.
    pub task: JoinHandle<Result<(), h2::Error>>,
    authority: String,
}

/// An answer with its body.
#[derive(Debug)]
pub struct Answer {
    /// Its head.
    pub head: http::response::Parts,
    /// Its body, as far as it came.
    pub body: Vec<u8>,
    /// Fields behind the body.
    pub trailers: Option<http::HeaderMap>,
    /// Why it broke off.
    pub reset: Option<Reason>,
}

impl Answer {
    /// The status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.head.status.as_u16()
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

impl Http2 {
    /// Speaks HTTP/2 over `io` and waits for the server's settings.
    ///
    /// # Panics
    /// If the server doesn't announce extended CONNECT (RFC 8441 §3).
    pub async fn connect(io: impl Io + 'static, authority: &str) -> Self {
        let (send, mut connection): (_, Connection<BoxIo, Bytes>) = h2::client::Builder::new()
            .initial_connection_window_size(1 << 24)
            .initial_window_size(1 << 20)
            .handshake(Box::new(io) as BoxIo)
            .await
            .unwrap();
        let settled = poll_fn(|cx| {
            assert!(Pin::new(&mut connection).poll(cx).is_pending(), "the connection ended");
            if send.is_extended_connect_protocol_enabled() { Poll::Ready(()) } else { Poll::Pending }
        });
        soon(settled).await;
        Self { send, task: tokio::spawn(connection), authority: authority.to_owned() }
    }

    /// A request head for this connection's authority.
    #[must_use]
    pub fn request(&self, method: Method, path: &str) -> Request<()> {
        let uri = format!("https://{}{path}", self.authority);
        Request::builder().method(method).uri(uri).version(http::Version::HTTP_2).body(()).unwrap()
    }

    /// Sends a head; the answer and the body's stream.
    ///
    /// # Errors
    /// If the stream was reset before there was an answer.
    pub async fn send(
        &mut self,
        request: Request<()>,
        end: bool,
    ) -> Result<(Response<RecvStream>, SendStream<Bytes>), h2::Error> {
        poll_fn(|cx| self.send.poll_ready(cx)).await?;
        let (response, send) = self.send.send_request(request, end)?;
        Ok((soon(response).await?, send))
    }

    /// Sends a head and doesn't wait for the answer.
    ///
    /// # Panics
    /// If the connection has ended.
    pub async fn begin(
        &mut self,
        request: Request<()>,
        end: bool,
    ) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
        poll_fn(|cx| self.send.poll_ready(cx)).await.unwrap();
        self.send.send_request(request, end).unwrap()
    }

    /// A request without a body, and the whole answer.
    ///
    /// # Panics
    /// If there is no answer.
    pub async fn ask(&mut self, request: Request<()>) -> Answer {
        let (response, _send) = self.send(request, true).await.expect("an answer");
        read(response).await
    }

    /// Asks for a WebSocket.
    ///
    /// # Errors
    /// The answer, if it isn't 200.
    pub async fn websocket(
        &mut self,
        path: &str,
        fields: &[(&'static str, &str)],
    ) -> Result<(WebSocket, http::response::Parts), Answer> {
        let mut request = self.request(Method::CONNECT, path);
        request.extensions_mut().insert(Protocol::from_static("websocket"));
        request.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
        for (name, value) in fields {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        let (response, send) = self.send(request, false).await.expect("an answer");
        if response.status() != 200 {
            return Err(read(response).await);
        }
        let (head, recv) = response.into_parts();
        let io = Box::new(Stream { send, recv, ahead: Bytes::new() });
        Ok((WebSocket { io, client: true }, head))
    }
}

/// Reads an answer to its end.
pub async fn read(response: Response<RecvStream>) -> Answer {
    let (head, mut recv) = response.into_parts();
    let mut answer = Answer { head, body: Vec::new(), trailers: None, reset: None };
    while let Some(data) = soon(recv.data()).await {
        match data {
            Ok(data) => {
                recv.flow_control().release_capacity(data.len()).unwrap();
                answer.body.extend(data);
            }
            Err(e) => {
                answer.reset = e.reason();
                return answer;
            }
        }
    }
    match recv.trailers().await {
        Ok(trailers) => answer.trailers = trailers,
        Err(e) => answer.reset = e.reason(),
    }
    answer
}

/// A stream's bytes. A reset reads as an error whose text names its code.
pub struct Stream {
    send: SendStream<Bytes>,
    recv: RecvStream,
    ahead: Bytes,
}

impl Stream {
    /// The raw halves.
    #[must_use]
    pub fn new(send: SendStream<Bytes>, recv: RecvStream) -> Self {
        Self { send, recv, ahead: Bytes::new() }
    }

    /// RST_STREAM.
    pub fn reset(&mut self, reason: Reason) {
        self.send.send_reset(reason);
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.ahead.is_empty() {
            match ready!(self.recv.poll_data(cx)) {
                Some(Ok(data)) => self.ahead = data,
                Some(Err(e)) => return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, e))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let n = self.ahead.len().min(buf.remaining());
        buf.put_slice(&self.ahead[..n]);
        self.ahead.advance(n);
        self.recv.flow_control().release_capacity(n).unwrap();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.send.reserve_capacity(buf.len());
        while self.send.capacity() == 0 {
            match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                _ => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            }
        }
        let n = self.send.capacity().min(buf.len());
        let sent = self.send.send_data(Bytes::copy_from_slice(&buf[..n]), false);
        Poll::Ready(sent.map(|()| n).map_err(|e| io::Error::new(io::ErrorKind::ConnectionReset, e)))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.send.send_data(Bytes::new(), true).map_err(io::Error::other))
    }
}
