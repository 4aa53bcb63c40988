//! Connections in memory for tests: a client's, over HTTP/2, and those to a backend. Time may be paused.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use http::Extensions;
use tls_acceptor::{Certificates, Loaded, Tickets};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::task::JoinHandle;
use tokio::time::{Duration, timeout};

use crate::config::Config;
use crate::context::quotas::ConnectionSlot;
use crate::context::registry::Registry;
use crate::context::{Common, Worker};
use crate::context::{Connection, Redirect};
use crate::edge::http1;
use crate::edge::http2;
use crate::net::limits::ClientLimits;
use crate::net::stream::Transport;
use crate::net::sweep;
use crate::site::Site;
use crate::site::route::Action;
use crate::site::upstream::Upstream;
use crate::telemetry::access::AccessLog;
use crate::telemetry::record::Sinks;

const CONFIG: &str = r#"
workers = 1

[[listener]]
address = "127.0.0.1:8080"
tls = false

[[route]]
path = "/"
proxy = "http://127.0.0.1:1" # never dialled: the pool holds connections

[[route]]
path = "/echo"
service = "echo"
"#;

/// What one direction of a connection holds.
const ROOM: usize = 64 << 10;

impl Transport for DuplexStream {}

/// A worker, with one backend.
pub(crate) struct Scene {
    pub(crate) worker: Arc<Worker>,
    upstream: Arc<Upstream>,
}

impl Scene {
    /// With these lines before the rest of the configuration.
    pub(crate) fn new(lines: &str) -> Self {
        Self::with_sinks(lines, Sinks::new(vec![Box::new(AccessLog::default())]))
    }

    /// The same, whose records go there.
    pub(crate) fn with_sinks(lines: &str, sinks: Sinks) -> Self {
        let (config, problems) = Config::parse(Path::new("test.toml"), &format!("{lines}\n{CONFIG}"));
        assert!(problems.is_empty(), "{problems:?}");
        let certificates = Certificates::new(Loaded::default(), 1);
        let site = Site::build(&config.site(), 1, None, &certificates, &Tickets::new().unwrap()).unwrap();
        let site = Arc::new(ArcSwap::from_pointee(site));
        let (drained, shortage, casing) = (Arc::default(), Arc::default(), Extensions::new());
        let (transit, taps) = (Arc::default(), Arc::default());
        let (quotas, passwords) = (Arc::default(), Arc::default());
        let common =
            Common { site, certificates, drained, transit, taps, shortage, quotas, passwords, casing, sinks };
        let worker = Arc::new(Worker::new(common, Arc::new(Registry::new(0, 1))));
        let Action::Proxy(upstream) = &config.routes[0].action else { unreachable!("a proxy is configured") };
        let sessions = worker.sessions.clone();
        tokio::spawn(sweep::run(worker.sweep.clone(), move || sessions.handles()));
        Self { worker, upstream: upstream.clone() }
    }

    /// The backend's end of a connection that the next request may use.
    pub(crate) fn backend(&self) -> DuplexStream {
        let (near, far) = duplex(ROOM);
        self.worker.pool.adopt(&self.upstream.first().endpoint, near);
        far
    }

    /// The same, which loses a wake-up when it is told to.
    pub(crate) fn lossy_backend(&self) -> (DuplexStream, Arc<AtomicBool>) {
        let (io, far) = duplex(ROOM);
        let loses = Arc::<AtomicBool>::default();
        self.worker.pool.adopt(&self.upstream.first().endpoint, Lossy { io, loses: loses.clone() });
        (far, loses)
    }

    /// What a client's connection is to the gateway.
    pub(crate) fn connection(&self) -> Arc<Connection> {
        Arc::new(Connection {
            peer: ([192, 0, 2, 7], 50_122).into(),
            local: ([192, 0, 2, 8], 443).into(),
            listener: "test".into(),
            tls: None,
            redirect: Redirect::No,
            limits: ClientLimits::DEFAULT.into(),
            worker: self.worker.clone(),
            slot: ConnectionSlot::new(&self.worker.quotas),
            own: OnceLock::new(),
        })
    }

    /// A client's end of a connection over HTTP/1.1, and the task that serves it.
    pub(crate) fn http1(&self) -> (DuplexStream, JoinHandle<()>) {
        let (client, near) = duplex(ROOM);
        (client, tokio::spawn(self.worker.sweep.over(http1::serve(self.connection(), near))))
    }

    /// A client's end of a connection over HTTP/2, and the task that serves it.
    pub(crate) fn http2(&self) -> (DuplexStream, JoinHandle<()>) {
        self.narrow_http2(ROOM)
    }

    /// The same, where so many bytes are on their way at most.
    pub(crate) fn narrow_http2(&self, room: usize) -> (DuplexStream, JoinHandle<()>) {
        let (client, near) = duplex(room);
        (client, tokio::spawn(self.worker.sweep.over(http2::serve(self.connection(), near, true))))
    }

    /// The same, by the h2 crate's client, whose streams have this window.
    pub(crate) async fn client(&self, window: u32) -> SendRequest<Bytes> {
        let (sender, connection) =
            Builder::new().initial_window_size(window).handshake(self.http2().0).await.unwrap();
        tokio::spawn(connection);
        sender
    }
}

/// A stream that says "not yet" once, and nothing afterwards, when it is told to.
struct Lossy {
    io: DuplexStream,
    loses: Arc<AtomicBool>,
}

impl AsyncRead for Lossy {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.loses.swap(false, Ordering::Relaxed) {
            return Poll::Pending;
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Lossy {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.loses.swap(false, Ordering::Relaxed) {
            return Poll::Pending;
        }
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// What has to happen within an hour of paused time.
pub(crate) async fn soon<F: Future>(what: F) -> F::Output {
    timeout(Duration::from_secs(3600), what).await.expect("within an hour")
}

/// Reads to the end.
pub(crate) async fn read_rest(io: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut rest = Vec::new();
    soon(io.read_to_end(&mut rest)).await.unwrap();
    rest
}

/// Reads a request's head.
pub(crate) async fn read_head(io: &mut DuplexStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon(io.read_u8()).await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Reads a request and answers it with `answer`.
pub(crate) async fn answer(io: &mut DuplexStream, answer: &str) {
    read_head(io).await;
    io.write_all(answer.as_bytes()).await.unwrap();
}

/// A client over HTTP/2 that writes its frames itself.
pub(crate) struct Raw<T = DuplexStream>(pub(crate) T);

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

impl<T: AsyncWrite + Unpin> Raw<T> {
    /// After the preface and a frame of settings.
    pub(crate) async fn new(mut io: T) -> Self {
        io.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let mut raw = Self(io);
        raw.send(SETTINGS, 0, 0, &[]).await;
        raw
    }

    pub(crate) async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.0.write_all(&frame).await.unwrap();
    }

    /// Fields as literals without indexing (RFC 7541 §6.2.2).
    pub(crate) async fn send_fields(&mut self, flags: u8, stream: u32, fields: &[(&str, &str)]) {
        let mut block = Vec::new();
        for (name, value) in fields {
            block.push(0);
            for text in [name, value] {
                block.push(u8::try_from(text.len()).unwrap());
                block.extend_from_slice(text.as_bytes());
            }
        }
        self.send(HEADERS, flags | END_HEADERS, stream, &block).await;
    }

    pub(crate) async fn request(
        &mut self,
        flags: u8,
        stream: u32,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
    ) {
        let mut head =
            vec![(":method", method), (":scheme", "https"), (":authority", "a.test"), (":path", path)];
        head.extend(fields);
        self.send_fields(flags, stream, &head).await;
    }
}

impl<T: AsyncRead + Unpin> Raw<T> {
    /// The next frame's type, stream and payload; `None`: there is none.
    pub(crate) async fn frame(&mut self) -> Option<(u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        soon(self.0.read_exact(&mut head)).await.ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.0.read_exact(&mut payload).await.ok()?;
        Some((head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
    }

    /// The payload of the next frame of this type and stream.
    pub(crate) async fn wait(&mut self, kind: u8, stream: u32) -> Vec<u8> {
        loop {
            let (got, of, payload) = self.frame().await.expect("a frame");
            if (got, of) == (kind, stream) {
                return payload;
            }
        }
    }
}
