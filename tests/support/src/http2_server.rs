//! A server over HTTP/2, by the h2 crate, and one whose frames are written by hand.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Builder, SendResponse};
use http::{Method, Request, Response, request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::Io;
use crate::backend::{Backend, echo_frames};
use crate::http2::Stream;
use crate::ws::WebSocket;

/// What is known of a server.
#[derive(Debug, Clone, Default)]
pub struct Http2Seen {
    heads: Arc<Mutex<Vec<request::Parts>>>,
    connections: Arc<AtomicUsize>,
    /// Each notification ends one connection as RFC 9113 §6.8 wants it: streams go on.
    pub go_away: Arc<Notify>,
}

impl Http2Seen {
    /// The last head.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn last(&self) -> request::Parts {
        self.heads.lock().unwrap().last().expect("the server was asked").clone()
    }

    /// How many requests have come.
    #[must_use]
    pub fn count(&self) -> usize {
        self.heads.lock().unwrap().len()
    }

    /// How many connections have come.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// A request and what answers it.
pub type Exchange = (Request<RecvStream>, SendResponse<Bytes>);

/// A server without TLS, whose exchanges `serve` has.
pub async fn start<F, Fut>(builder: Builder, serve: F) -> (Backend, Http2Seen)
where
    F: Fn(Exchange) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let seen = Http2Seen::default();
    let of_connections = seen.clone();
    let backend = Backend::start(move |tcp| {
        let (builder, seen, serve) = (builder.clone(), of_connections.clone(), serve.clone());
        async move { connection(tcp, &builder, &seen, serve).await }
    })
    .await;
    (backend, seen)
}

/// Serves the exchanges of one connection.
pub async fn connection<F, Fut>(io: impl Io + 'static, builder: &Builder, seen: &Http2Seen, serve: F)
where
    F: Fn(Exchange) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    seen.connections.fetch_add(1, Ordering::Relaxed);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(io).await else { return };
    loop {
        tokio::select! {
            accepted = connection.accept() => {
                let Some(Ok((request, respond))) = accepted else { return };
                let (head, body) = request.into_parts();
                seen.heads.lock().unwrap().push(head.clone());
                tokio::spawn(serve((Request::from_parts(head, body), respond)));
            }
            () = seen.go_away.notified() => connection.graceful_shutdown(),
        }
    }
}

/// Answers a request with its line, and echoes bodies with their trailers and the messages of WebSockets.
pub async fn echo((request, mut respond): Exchange) {
    let (head, mut body) = request.into_parts();
    if head.method == Method::CONNECT {
        let protocol = head.headers.get("sec-websocket-protocol").and_then(|offer| offer.to_str().ok());
        let mut answer = Response::builder();
        if let Some(first) = protocol.and_then(|offer| offer.split(',').next()) {
            answer = answer.header("sec-websocket-protocol", first);
        }
        let Ok(send) = respond.send_response(answer.body(()).unwrap(), false) else { return };
        return echo_frames(WebSocket { io: Box::new(Stream::new(send, body)), client: false }).await;
    }
    let line = format!("{} {} HTTP/2\n", head.method, head.uri);
    let answer = Response::builder().header("x-line", line.trim()).body(()).unwrap();
    if body.is_end_stream() {
        let Ok(mut send) = respond.send_response(answer, head.method == Method::HEAD) else { return };
        let _ = send.send_data(line.into(), true);
        return;
    }
    let Ok(mut send) = respond.send_response(answer, false) else { return };
    while let Some(Ok(data)) = body.data().await {
        body.flow_control().release_capacity(data.len()).unwrap();
        if send.send_data(data, false).is_err() {
            return;
        }
    }
    let _ = match body.trailers().await {
        Ok(Some(trailers)) => send.send_trailers(trailers),
        Ok(None) => send.send_data(Bytes::new(), true),
        Err(_) => return, // it was not the whole
    };
}

/// A frame as it is on the wire (RFC 9113 §4.1).
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// GOAWAY with this last stream and NO_ERROR.
#[must_use]
pub fn goaway(last: u32) -> Vec<u8> {
    frame(7, 0, 0, &[last.to_be_bytes(), [0; 4]].concat())
}

/// An answer of 200 with this body.
#[must_use]
pub fn answer(stream: u32, body: &[u8]) -> Vec<u8> {
    [frame(1, 4, stream, &[0x88]), frame(0, 1, stream, body)].concat()
}

/// A server of which `on_request` writes the frames, told which connection it is (from 0) and which stream; `None`
/// ends the connection.
pub async fn by_hand<F>(settings: &'static [u8], on_request: F) -> Backend
where
    F: Fn(usize, u32) -> Option<Vec<u8>> + Send + Sync + 'static,
{
    let (on_request, count) = (Arc::new(on_request), Arc::new(AtomicUsize::new(0)));
    Backend::start(move |tcp| {
        let (on_request, number) = (on_request.clone(), count.fetch_add(1, Ordering::Relaxed));
        async move {
            let _ = frames(tcp, settings, number, &*on_request).await;
        }
    })
    .await
}

/// Serves a connection, the `number`th, as [`by_hand`] does.
///
/// # Errors
/// When the client has gone.
pub async fn frames(
    mut tcp: TcpStream,
    settings: &[u8],
    number: usize,
    on_request: &(dyn Fn(usize, u32) -> Option<Vec<u8>> + Send + Sync),
) -> std::io::Result<()> {
    let mut preface = [0; 24];
    tcp.read_exact(&mut preface).await?;
    tcp.write_all(&frame(4, 0, 0, settings)).await?;
    loop {
        let mut head = [0; 9];
        tcp.read_exact(&mut head).await?;
        let [a, b, c, kind, flags, s0, s1, s2, s3] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        tcp.read_exact(&mut payload).await?;
        match (kind, flags & 1) {
            (1, _) => match on_request(number, u32::from_be_bytes([s0, s1, s2, s3])) {
                Some(wire) => tcp.write_all(&wire).await?,
                None => return Ok(()),
            },
            (4, 0) => tcp.write_all(&frame(4, 1, 0, &[])).await?,
            (6, 0) => tcp.write_all(&frame(6, 1, 0, &payload)).await?,
            _ => {}
        }
    }
}
