//! The life of a connection: TCP, TLS, ALPN, HTTP. What its requests are is told in
//! [`exchange`](mod@crate::exchange), what becomes of an upgraded one in [`session`](crate::session).

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use rustix::net::{RecvFlags, recv};
use tls_acceptor::{AcceptError, Acceptor, Alpn, Tcp, TlsStream};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info};

use crate::opening::Opening;
use crate::patience::ClientLimits;
use crate::upstream::pool::Pool;
use crate::worker::Worker;
use crate::{http1, http2};

/// The longest head of a request or an answer, in bytes. Longer ones get 431, or are a 502.
pub const HEAD_LEN_MAX: usize = 64 * 1024;

/// How connections of a listener are received.
#[derive(Debug)]
pub struct Door {
    /// `None`: plain text.
    pub acceptor: Option<Acceptor>,
    /// How long clients are waited for.
    pub limits: ClientLimits,
}

/// What the requests of a connection have in common.
#[derive(Debug)]
pub struct Connection {
    /// The address at its other end.
    pub peer: SocketAddr,
    /// What its handshake found; `None`: plain text.
    pub tls: Option<Tls>,
    /// How long it is waited for.
    pub limits: ClientLimits,
    /// Where it lives.
    pub worker: Arc<Worker>,
    /// Connections to backends that its client has logged in: nobody else's requests go over them, and they end
    /// with it. Made when they are needed.
    pub own: OnceLock<Arc<Pool>>,
}

/// What a TLS handshake found.
#[derive(Debug)]
pub struct Tls {
    /// The name the client asked for.
    pub server_name: Option<Box<str>>,
    /// As the protocol calls it.
    pub version: &'static str,
}

/// Waits for a connection's first bytes, and has it served. Who says nothing costs this small task and a place
/// among the silent, which may be needed for somebody else.
pub async fn greet(worker: Arc<Worker>, door: Arc<Door>, tcp: TcpStream, peer: SocketAddr) {
    let patience = match &door.acceptor {
        Some(acceptor) => acceptor.handshake_timeout(),
        None => door.limits.header_timeout,
    };
    let deadline = Instant::now() + patience;
    let place = worker.silent.enter(peer.ip().into());
    tokio::select! {
        biased;
        heard = hear(&tcp) => if heard.is_err() { return },
        () = place.called_off() => return worker.crowd.gave_up(peer, "it has sent nothing"),
        () = sleep_until(deadline) => return debug!(%peer, "said nothing"),
        () = worker.draining.cancelled() => return,
    }
    drop(place);
    // Another task: this one is small.
    worker.spawn(serve(worker.clone(), door, tcp, peer, deadline));
}

/// Waits for something to read, or for the end.
async fn hear(tcp: &TcpStream) -> io::Result<()> {
    // tokio takes a new socket for readable until somebody has tried it.
    let peek = || Ok(recv(tcp, &mut [0; 1], RecvFlags::PEEK)?.0);
    match tcp.try_io(Interest::READABLE, peek) {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => tcp.readable().await,
        result => result.map(drop),
    }
}

/// Serves a connection to its end; `deadline` is for its TLS handshake. Upgraded sessions go on without it.
async fn serve(worker: Arc<Worker>, door: Arc<Door>, tcp: TcpStream, peer: SocketAddr, deadline: Instant) {
    let (stream, tls, alpn) = match &door.acceptor {
        // Boxed: it is larger than what comes after, and gone by then.
        Some(acceptor) => match Box::pin(acceptor.accept(tcp, peer.ip(), deadline)).await {
            Ok(accepted) => {
                debug!(
                    %peer, server_name = accepted.server_name.as_deref(), version = accepted.version,
                    alpn = accepted.alpn.as_str(), resumed = accepted.resumed, generation = accepted.generation,
                    "TLS handshake done"
                );
                let tls = Tls { server_name: accepted.server_name, version: accepted.version };
                (Stream::Tls(Box::new(accepted.io)), Some(tls), accepted.alpn)
            }
            Err(e) => return refused(&worker, peer, &e),
        },
        None => (Stream::Plain(tcp.into()), None, Alpn::Http11),
    };
    let connection = Arc::new(Connection { peer, tls, limits: door.limits, worker, own: OnceLock::new() });
    // What was negotiated is what is spoken: nothing is sniffed.
    match alpn {
        Alpn::H2 => http2::serve(connection, stream).await,
        Alpn::Http11 => http1::serve(connection, stream).await,
    }
}

fn refused(worker: &Worker, peer: SocketAddr, e: &AcceptError) {
    match e {
        // Port scans, health checks, and people who close a tab.
        AcceptError::Gone | AcceptError::Io(_) => debug!(%peer, cause = %e, "no TLS connection"),
        AcceptError::Shed => worker.crowd.gave_up(peer, "it was silent in the middle of its TLS handshake"),
        AcceptError::NotTls { began } if let Some(opening) = Opening::of(began) => {
            info!(%peer, cause = opening.advice(true), "no TLS connection");
        }
        _ => info!(%peer, cause = %e, "no TLS connection"),
    }
}

/// What clients' HTTP can run over.
pub trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// What is written from now on is little, and followed by a shutdown: it may wait for that.
    fn part(&mut self) {}

    /// How many bytes the peer's machine has acknowledged so far, if that is known.
    fn acknowledged(&self) -> Option<u64> {
        None
    }
}

/// The bytes below HTTP.
#[derive(Debug)]
pub enum Stream {
    /// TLS over TCP.
    Tls(Box<TlsStream>),
    /// TCP as it is.
    Plain(Tcp),
}

impl Transport for Stream {
    fn part(&mut self) {
        if let Self::Tls(io) = self {
            io.part();
        }
    }

    fn acknowledged(&self) -> Option<u64> {
        match self {
            Self::Tls(io) => io.acknowledged(),
            Self::Plain(io) => io.acknowledged(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(io) => Pin::new(io).poll_read(cx, buf),
            Self::Plain(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tls(io) => Pin::new(io).poll_write(cx, buf),
            Self::Plain(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(io) => Pin::new(io).poll_flush(cx),
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(io) => Pin::new(io).poll_shutdown(cx),
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tls(io) => io.is_write_vectored(),
            Self::Plain(io) => io.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tls(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Plain(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }
}
