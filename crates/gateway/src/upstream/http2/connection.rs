//! One connection to a server, whose streams are requests and WebSockets (RFC 9113).
//!
//! It is there from when the server's settings have come: they say how many streams it takes, and whether it offers
//! WebSockets (RFC 8441 §3). A task drives it until the server ends it, or until it is closed here and its last stream
//! has ended.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use h2::{Ping, PingPong, SendStream};
use http::Request;
use tls_acceptor::Alpn;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

use crate::net::limits::HEAD_LEN_MAX;
use crate::net::sweep;
use crate::site::endpoint::Endpoint;
use crate::site::upstream::Connector;
use crate::upstream::dial::{DialError, NotHttp2, dial_for};
use crate::upstream::http2::open::{OpenStream, OpenStreams};
use crate::upstream::stream::BackendStream;

/// Streams on one connection, even where the server takes more: another connection carries the others, so that one
/// lost segment holds up no more than these.
pub(super) const STREAMS_MAX: usize = 128;
/// What a server may send on a stream before it is read.
const STREAM_WINDOW: u32 = 128 * 1024;
/// The same for a connection: all its streams may wait for slow clients at once, and still none holds up another.
#[expect(clippy::cast_possible_truncation, reason = "128")]
const CONNECTION_WINDOW: u32 = STREAMS_MAX as u32 * STREAM_WINDOW;
/// As towards clients: small messages are WebSocket's daily bread, while h2 counts them as an attack by default.
const SMALL_FRAMES_BUDGET: usize = 16 * 1024 * 1024;
/// What is queued for a server on one stream.
const SEND_BUFFER: usize = 64 * 1024;
/// How long a server that has kept a request waiting for too long is given to answer a PING.
const PING_TIME: Duration = Duration::from_secs(5);

/// A connection to a server.
#[derive(Debug)]
pub(crate) struct Http2Connection {
    /// `None`: no more requests may be sent over it. It ends when the last stream has ended.
    send: Mutex<Option<SendRequest<Bytes>>>,
    open: Arc<OpenStreams>,
    /// How many addresses the server's name had lost when this was known to be meant.
    losses: AtomicU32,
    /// Since when it has had no stream, as far as that was looked at.
    idle_since: Mutex<Option<Instant>>,
}

/// A stream that a request may be sent on.
#[derive(Debug)]
pub(crate) struct FreeStream {
    send: SendRequest<Bytes>,
    open: OpenStream,
    is_reused: bool,
    /// `None`: there was a connection.
    connect_begun: Option<Instant>,
}

impl Http2Connection {
    /// Connects to a server, and waits for its settings.
    ///
    /// # Errors
    /// If there is no connection, or the server speaks something else.
    ///
    /// # Cancel safety
    /// A dropped call drops the connection.
    pub(crate) async fn open(connector: Connector, endpoint: &Endpoint) -> Result<Arc<Self>, DialError> {
        let deadline = Instant::now() + connector.connect_timeout;
        let losses = AtomicU32::new(endpoint.losses());
        let io = dial_for(connector, endpoint, Alpn::H2).await?;
        let silent = |_| NotHttp2::Silent { after: connector.connect_timeout };
        let opened = timeout_at(deadline, Box::pin(begin(io))).await.map_err(silent);
        let (send, connection) = opened.flatten().map_err(|error| DialError::NotHttp2 { error })?;
        let shared = Arc::new(Self {
            send: Mutex::new(Some(send)),
            open: Arc::default(),
            losses,
            idle_since: Mutex::new(None),
        });
        let server: Box<str> = endpoint.address.clone();
        sweep::spawn(drive(connection, shared.clone(), server));
        Ok(shared)
    }

    /// A stream, if there is room for one, and the connection is not about to end.
    pub(in crate::upstream) fn stream(&self) -> Option<FreeStream> {
        if self.open.is_doubted.load(Ordering::Relaxed) {
            return None;
        }
        let mut guard = self.lock();
        let mut send = guard.as_ref()?.clone();
        // Before its turn in a queue a stream can't be known to be refused: there is no queue.
        if self.open_streams() >= send.current_max_send_streams().min(STREAMS_MAX) {
            return None;
        }
        // After GOAWAY (RFC 9113 §6.8), and without a connection: never pending, since nothing was sent by this one.
        if let Poll::Ready(Err(_)) = send.poll_ready(&mut Context::from_waker(Waker::noop())) {
            *guard = None;
            return None;
        }
        drop(guard);
        let (open, is_reused) = self.open.enter();
        Some(FreeStream { send, open, is_reused, connect_begun: None })
    }

    /// Streams that are open now.
    pub(crate) fn open_streams(&self) -> usize {
        self.open.count()
    }

    /// No more requests may be sent over it.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().is_none()
    }

    /// WebSockets may be opened on its streams (RFC 8441 §3).
    pub(crate) fn offers_websockets(&self) -> bool {
        self.lock().as_ref().is_some_and(SendRequest::is_extended_connect_protocol_enabled)
    }

    /// It leads to where the name of its server does. After the name has lost an address, only a server that was found by
    /// that name and is still there is known to be.
    pub(super) fn is_meant(&self, endpoint: &Endpoint) -> bool {
        let losses = endpoint.losses();
        let is_meant = losses == self.losses.load(Ordering::Relaxed) || endpoint.is_found();
        if is_meant {
            self.losses.store(losses, Ordering::Relaxed);
        }
        is_meant
    }

    /// Sends no more requests over it. What is under way goes on.
    pub(in crate::upstream) fn close(&self) {
        drop(self.lock().take());
    }

    /// How long it has had no stream, since this was asked first.
    pub(super) fn idle_time(&self) -> Duration {
        let mut since = self.idle_since.lock().unwrap_or_else(PoisonError::into_inner);
        if self.open_streams() > 0 {
            *since = None;
            return Duration::ZERO;
        }
        since.get_or_insert_with(Instant::now).elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, Option<SendRequest<Bytes>>> {
        self.send.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FreeStream {
    /// Sends the head of a request; `ends`: it has no body.
    ///
    /// # Errors
    /// If it has not been sent.
    pub(super) fn send(
        mut self,
        head: Request<()>,
        ends: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>, OpenStream), h2::Error> {
        let (response, body) = self.send.send_request(head, ends)?;
        Ok((response, body, self.open))
    }

    /// Its connection has carried requests before: the server may have closed it a moment ago.
    pub(crate) fn is_reused(&self) -> bool {
        self.is_reused
    }

    /// Its connection was begun then, because there was none that had room.
    pub(super) fn connecting_since(self, begun: Instant) -> Self {
        Self { connect_begun: Some(begun), ..self }
    }

    /// When its connection was begun; `None`: there was one.
    pub(crate) fn connect_begun(&self) -> Option<Instant> {
        self.connect_begun
    }

    /// WebSockets may be opened on it.
    pub(crate) fn offers_websockets(&self) -> bool {
        self.send.is_extended_connect_protocol_enabled()
    }
}

/// The preface (RFC 9113 §3.4), and all that comes until the server's settings have.
async fn begin(
    io: BackendStream,
) -> Result<(SendRequest<Bytes>, Connection<BackendStream, Bytes>), NotHttp2> {
    let frames = |e: h2::Error| match e {
        e if e.is_io() && e.get_io().is_some_and(is_end) => NotHttp2::End,
        e => NotHttp2::Frames(e.into()),
    };
    let handshake = Builder::new()
        .enable_push(false)
        .initial_max_send_streams(0) // until its settings say more (RFC 9113 §6.5.2: any number, if they say nothing)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .data_frame_budget(SMALL_FRAMES_BUDGET)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(HEAD_LEN_MAX).unwrap_or(u32::MAX))
        .handshake(io);
    let (send, mut connection) = handshake.await.map_err(frames)?;
    poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
        Poll::Ready(Ok(())) => Poll::Ready(Err(NotHttp2::End)),
        Poll::Ready(Err(e)) => Poll::Ready(Err(frames(e))),
        Poll::Pending if send.current_max_send_streams() > 0 => Poll::Ready(Ok(())),
        Poll::Pending => Poll::Pending,
    })
    .await?;
    Ok((send, connection))
}

fn is_end(e: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(e.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

/// Sends and receives for all streams until the connection ends.
async fn drive(
    mut connection: Connection<BackendStream, Bytes>,
    shared: Arc<Http2Connection>,
    server: Box<str>,
) {
    let ping_pong = connection.ping_pong();
    let ended = tokio::select! {
        biased;
        ended = &mut connection => ended.err().map(|e| e.to_string()),
        () = is_silent(&shared, ping_pong) => {
            Some(format!("it has not answered a PING within {PING_TIME:?}"))
        }
    };
    shared.close();
    // What is still open breaks off.
    drop(connection);
    debug!(%server, cause = ended.unwrap_or_default(), "a connection over HTTP/2 to a backend has ended");
}

/// Returns when a server that is doubted doesn't answer a PING (RFC 9113 §6.7). No PING is sent without a reason:
/// servers of gRPC end connections that have too many.
async fn is_silent(shared: &Http2Connection, ping_pong: Option<PingPong>) {
    let Some(mut ping_pong) = ping_pong else { return std::future::pending().await };
    loop {
        shared.open.doubt.notified().await;
        shared.open.is_doubted.store(true, Ordering::Relaxed);
        let ponged = pin!(async {
            ping_pong.send_ping(Ping::opaque())?;
            poll_fn(|cx| ping_pong.poll_pong(cx)).await
        });
        if !matches!(timeout(PING_TIME, ponged).await, Ok(Ok(_))) {
            return;
        }
        shared.open.is_doubted.store(false, Ordering::Relaxed);
    }
}
