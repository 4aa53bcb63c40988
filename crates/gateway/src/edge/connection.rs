//! The life of a client's connection, from accept to the log. Start reading here. The whole path is in nine files
//! (over HTTP/2 in a tenth), and the functions to look for in them are named:
//!
//! 1. `edge/listener.rs`, `accept`: takes a connection from the kernel and spawns [`wait_for_first_bytes`].
//! 2. This file: [`wait_for_first_bytes`] waits for the client, and reads a balancer's header if one is due;
//!    [`serve_client`] has TLS done if the listener has it, and gives the connection to the protocol that was agreed on.
//! 3. `tls-acceptor/src/acceptor.rs`, [`accept`](tls_acceptor::Acceptor::accept): a permit, the handshake, a TLS stream.
//! 4. `edge/http1.rs`, [`serve`](http1::serve): hyper reads requests, `answer` has each of them answered.
//!    `open` waits for the stream of an upgraded connection and spawns its session. `edge/http2.rs` does the same with
//!    h2, in `serve`, `streams` and `stream`.
//! 5. `request/mod.rs`, [`exchange`](crate::request::exchange): the form of the request, its route, whether it may go on;
//!    then a service of the gateway, or a backend.
//! 6. `request/proxy.rs`: `request` passes a plain request on over a kept connection, and its response back; `upgrade`
//!    opens a WebSocket at the backend before the client gets its answer.
//! 7. `session/mod.rs`, [`run`](crate::session::Session::run): the task of a WebSocket, behind the client's 101.
//! 8. `frame-core/src/relay/mod.rs`, [`relay`](frame_core::relay()): frames in both directions, until there is an outcome.
//! 9. `session/report.rs`: what was noted from step 5 on. `Report::answered`, called by the body of a response at its end,
//!    or `Report::session` hands it over as one [`Record`](crate::telemetry::record::Record): a line of the log.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

use rustix::net::{RecvFlags, recv};
use tls_acceptor::{AcceptError, Alpn};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info};

use crate::context::quotas::ConnectionSlot;
use crate::context::{Connection, Redirect, Tls, TlsClient, Worker};
use crate::edge::opening::Opening;
use crate::edge::{http1, http2};
use crate::net::listening::{PeerName, UNIX_PEER};
use crate::net::stream::Stream;
use crate::site::counts::{FAILURES, VERSIONS, failure, place};
use crate::site::listener::ListenerState;
use net_io::proxy_protocol::Header;
use net_io::{NoHeader, read_header};

/// Waits for a connection's first bytes, then serves it. A client that sends nothing costs this small task and a
/// place in `silent`, which it may have to give up for another client.
pub(crate) async fn wait_for_first_bytes(
    worker: Arc<Worker>,
    slot: ConnectionSlot,
    state: Arc<ListenerState>,
    tcp: TcpStream,
    peer: SocketAddr,
) {
    let patience = match &state.acceptor {
        Some(acceptor) => acceptor.handshake_timeout(),
        None => state.limits.header_timeout,
    };
    let deadline = Instant::now() + patience;
    if !has_first_bytes(&worker, &tcp, peer, deadline).await {
        return;
    }
    let mut client = peer;
    if state.proxy_protocol.contains(peer.ip()) {
        // Boxed, since other listeners' connections have no use for its room.
        match Box::pin(read_balancer_header(&worker, &tcp, peer, deadline)).await {
            // It would be taken for a peer over a Unix socket.
            Some(Header::Client(address)) if address.ip() == UNIX_PEER => {
                info!(peer = %PeerName(peer), cause = "its address is ::", "no header of the PROXY protocol");
                return;
            }
            Some(Header::Client(address)) => client = address,
            Some(Header::Local) => {}
            None => return,
        }
        if !has_first_bytes(&worker, &tcp, client, deadline).await {
            return;
        }
    }
    // Another task: this one is small.
    worker.spawn(serve_client(worker.clone(), slot, state, tcp, client, deadline));
}

/// Waits for a client's first bytes; returns whether there are any.
async fn has_first_bytes(worker: &Worker, tcp: &TcpStream, peer: SocketAddr, deadline: Instant) -> bool {
    let place = worker.silent.enter(peer.ip().into());
    tokio::select! {
        biased;
        readable = readable(tcp) => return readable.is_ok(),
        () = place.called_off() => worker.shed_clients.record(peer, "the client has sent nothing"),
        () = sleep_until(deadline) => debug!(peer = %PeerName(peer), "the client sent nothing in time"),
        () = worker.draining.cancelled() => {}
    }
    false
}

/// The PROXY protocol's header, which a load balancer sends first; `None`: there is none, and the connection is closed.
async fn read_balancer_header(
    worker: &Worker,
    tcp: &TcpStream,
    peer: SocketAddr,
    deadline: Instant,
) -> Option<Header> {
    tokio::select! {
        biased;
        header = read_header(tcp) => match header {
            Ok(header) => {
                debug!(peer = %PeerName(peer), header = ?header, "header of the PROXY protocol");
                return Some(header);
            }
            // Health checks that only connect.
            Err(NoHeader::Io(e)) => debug!(peer = %PeerName(peer), cause = %e, "no header of the PROXY protocol"),
            Err(NoHeader::Fault(fault)) => info!(peer = %PeerName(peer), cause = %fault, "no header of the PROXY protocol"),
        },
        () = sleep_until(deadline) => info!(peer = %PeerName(peer), cause = "it was not complete in time", "no header of the PROXY protocol"),
        () = worker.draining.cancelled() => {}
    }
    None
}

/// Waits for something to read, or for the end.
async fn readable(tcp: &TcpStream) -> io::Result<()> {
    // tokio reports a new socket as readable until the first read of it would block.
    let peek = || Ok(recv(tcp, &mut [0; 1], RecvFlags::PEEK)?.0);
    match tcp.try_io(Interest::READABLE, peek) {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => tcp.readable().await,
        result => result.map(drop),
    }
}

/// Serves a connection to its end; `deadline` is for its TLS handshake. Upgraded sessions go on without it.
async fn serve_client(
    worker: Arc<Worker>,
    slot: ConnectionSlot,
    state: Arc<ListenerState>,
    tcp: TcpStream,
    peer: SocketAddr,
    deadline: Instant,
) {
    let redirect = match &state.acceptor {
        Some(_) if state.redirect && !begins_tls(&tcp) => Redirect::All,
        None if state.redirect => Redirect::Unbound,
        _ => Redirect::No,
    };
    let local = tcp.local_addr().unwrap_or((Ipv4Addr::UNSPECIFIED, 0).into());
    let handshaken = match redirect {
        Redirect::All => Some((Stream::Plain(tcp.into()), None, Alpn::Http11)),
        _ => handshake(&worker, &state, tcp, peer, deadline).await,
    };
    let Some((stream, tls, alpn)) = handshaken else { return };
    let (listener, limits) = (state.name.clone(), state.limits.clone());
    let connection =
        Connection { peer, local, tls, listener, redirect, limits, worker, slot, own: OnceLock::new() };
    let connection = Arc::new(connection);
    // What was negotiated is what is spoken: nothing is sniffed.
    match alpn {
        Alpn::H2 => http2::serve(connection, stream, state.websocket_over_http2).await,
        Alpn::Http11 => http1::serve(connection, stream).await,
    }
}

/// The first byte, which has arrived, begins a TLS record; or at least it is no text.
fn begins_tls(tcp: &TcpStream) -> bool {
    let mut first = [0; 1];
    let peek = || Ok(recv(tcp, &mut first, RecvFlags::PEEK)?.0);
    let seen = tcp.try_io(Interest::READABLE, peek);
    !matches!(seen, Ok(1..)) || !first[0].is_ascii_graphic()
}

/// The TLS handshake, on a listener that has one.
async fn handshake(
    worker: &Worker,
    state: &ListenerState,
    tcp: TcpStream,
    peer: SocketAddr,
    deadline: Instant,
) -> Option<(Stream, Option<Tls>, Alpn)> {
    let begun = Instant::now();
    match &state.acceptor {
        // Boxed: it is larger than what comes after, and gone by then.
        Some(acceptor) => match Box::pin(acceptor.accept(tcp, peer.ip(), deadline)).await {
            Ok(accepted) => {
                let counts = state.counts.here();
                counts.done[place(&VERSIONS, accepted.version)][usize::from(accepted.resumed)].one();
                counts.durations.add(begun.elapsed());
                debug!(
                    peer = %PeerName(peer), server_name = accepted.server_name.as_deref(), version = accepted.version,
                    alpn = accepted.alpn.as_str(), resumed = accepted.resumed, generation = accepted.generation,
                    "TLS handshake done"
                );
                let client = accepted.client_rules.map(|rules| {
                    let certificate = accepted.client_certificate;
                    Box::new(TlsClient { rules, certificate })
                });
                let negotiated = Some(accepted.negotiated);
                let tls =
                    Tls { server_name: accepted.server_name, version: accepted.version, negotiated, client };
                Some((Stream::Tls(Box::new(accepted.io)), Some(tls), accepted.alpn))
            }
            Err(e) => {
                state.counts.here().failed[place(&FAILURES, failure(&e))].one();
                refused(worker, peer, &e);
                None
            }
        },
        None => Some((Stream::Plain(tcp.into()), None, Alpn::Http11)),
    }
}

fn refused(worker: &Worker, peer: SocketAddr, e: &AcceptError) {
    match e {
        // Port scans, health checks, and people who close a tab.
        AcceptError::Gone | AcceptError::Io(_) => {
            debug!(peer = %PeerName(peer), cause = %e, "no TLS connection");
        }
        AcceptError::Challenge { server_name } => {
            info!(peer = %PeerName(peer), server_name = &**server_name, "a certificate authority has validated a name");
        }
        AcceptError::Shed => {
            worker.shed_clients.record(peer, "the client stopped in the middle of its TLS handshake");
        }
        AcceptError::NotTls { began } if let Some(opening) = Opening::of(began) => {
            info!(peer = %PeerName(peer), cause = opening.advice(true), "no TLS connection");
        }
        _ => info!(peer = %PeerName(peer), cause = %e, "no TLS connection"),
    }
}
