//! The life of a client's connection: accept, first bytes, TLS, and HTTP as it was agreed on.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use net_io::proxy_protocol::Header;
use net_io::{NoHeader, read_header};
use tls_acceptor::{Acceptor, Alpn, Waiting};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until};

use crate::client::{Connection, Link, Tls};
use crate::handler::Handler;
use crate::log;
use crate::shared::Shared;
use crate::stream::Stream;
use crate::threads::Threads;
use crate::{http1, http2};

/// Clients that have sent nothing yet, at most. For one more, the one that has waited longest goes.
pub(crate) const SILENT_MAX: usize = 4096;
/// How long nothing is accepted when there is nothing to accept it with.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);
/// How long a client may say nothing before its connection is ended for one that can't be accepted.
const SILENCE_MIN: Duration = Duration::from_secs(1);

/// What accepts connections.
pub(crate) struct Door<H> {
    pub(crate) shared: Arc<Shared<H>>,
    /// `None`: without TLS.
    pub(crate) acceptor: Option<Acceptor>,
    pub(crate) silent: Waiting,
    /// Places for connections; `None`: there is no bound.
    pub(crate) places: Option<Arc<Semaphore>>,
    /// What serves them.
    pub(crate) threads: Threads,
}

/// Accepts connections until the service drains.
pub(crate) async fn accept<H: Handler>(door: Arc<Door<H>>, listener: TcpListener) {
    let draining = &door.shared.end.draining;
    let mut is_short = false;
    loop {
        let accepting = async {
            let accepted = listener.accept().await;
            // Not before: a listener without clients must not keep a place from the others.
            let place = match &door.places {
                Some(places) if accepted.is_ok() => places.clone().acquire_owned().await.ok(),
                _ => None,
            };
            (place, accepted)
        };
        let (place, accepted) = tokio::select! {
            biased;
            () = draining.cancelled() => return,
            accepted = accepting => accepted,
        };
        match accepted {
            Ok((tcp, peer)) => {
                is_short = false;
                door.shared.hub.note(|totals| totals.connections += 1);
                begin(&door, tcp, peer, place);
            }
            Err(e) if is_client_gone(&e) => {}
            // No descriptor or no memory is left.
            Err(e) => {
                if !std::mem::replace(&mut is_short, true) {
                    log::warning("no connection can be accepted", &e);
                }
                if door.silent.shed(None, SILENCE_MIN) {
                    yield_now().await; // its task ends now
                } else {
                    sleep(SHORTAGE_PAUSE).await;
                }
            }
        }
    }
}

/// Has the connection served, by the thread whose turn it is.
fn begin<H: Handler>(
    door: &Arc<Door<H>>,
    tcp: TcpStream,
    peer: SocketAddr,
    place: Option<OwnedSemaphorePermit>,
) {
    let tasks = &door.shared.end.tasks;
    let Some(runtime) = door.threads.next() else {
        tasks.spawn(serve_or_cut(door.clone(), tcp, peer, place));
        return;
    };
    let door = door.clone();
    let task = async move {
        // A socket is told of its events by the runtime that it was made for.
        match tcp.into_std().and_then(TcpStream::from_std) {
            Ok(tcp) => serve_or_cut(door, tcp, peer, place).await,
            Err(e) => log::no_connection(peer, &e),
        }
    };
    tasks.spawn_on(task, runtime);
}

/// It was gone before it was accepted.
fn is_client_gone(e: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(e.kind(), Kind::ConnectionAborted | Kind::ConnectionReset | Kind::Interrupted)
}

async fn serve_or_cut<H: Handler>(
    door: Arc<Door<H>>,
    tcp: TcpStream,
    peer: SocketAddr,
    place: Option<OwnedSemaphorePermit>,
) {
    let cut = door.shared.end.cut.clone();
    tokio::select! {
        biased;
        () = serve(door, tcp, peer, place) => {}
        () = cut.cancelled() => {}
    }
}

/// Serves a connection to its end. Upgraded sessions go on without it; the place goes with the connection's last task.
async fn serve<H: Handler>(
    door: Arc<Door<H>>,
    tcp: TcpStream,
    peer: SocketAddr,
    place: Option<OwnedSemaphorePermit>,
) {
    let shared = &door.shared;
    let _ = tcp.set_nodelay(true); // small messages must not wait for others
    let patience = if door.acceptor.is_some() {
        shared.settings.handshake_timeout
    } else {
        shared.settings.header_timeout
    };
    let deadline = Instant::now() + patience;
    if !has_first_bytes(&door, &tcp, peer, deadline).await {
        return;
    }
    let local = tcp.local_addr().ok();
    let Some(source) = source(shared, &tcp, peer, deadline).await else { return };
    let (stream, tls, alpn) = match &door.acceptor {
        None => (Stream::Plain(tcp.into()), None, Alpn::Http11),
        // Boxed: it is larger than what comes after, and gone by then.
        Some(acceptor) => match Box::pin(acceptor.accept(tcp, source, deadline)).await {
            Ok(accepted) => {
                let tls = Tls {
                    server_name: accepted.server_name,
                    version: accepted.version,
                    resumed: accepted.resumed,
                    client_certificate: accepted.client_certificate,
                    client_rules: accepted.client_rules,
                };
                (Stream::Tls(Box::new(accepted.io)), Some(tls), accepted.alpn)
            }
            Err(e) => {
                shared.hub.note(|totals| totals.tls_failed += 1);
                return log::no_connection(peer, &e);
            }
        },
    };
    let link = Arc::new(Link { peer, source, local, tls });
    let connection = Connection { link, _place: place.map(Arc::new) };
    // What was negotiated is what is spoken: nothing is guessed from the bytes.
    match alpn {
        Alpn::Http11 => http1::serve(shared.clone(), connection, stream).await,
        Alpn::H2 => http2::serve(shared.clone(), connection, stream).await,
    }
}

/// Whose connection it is: the peer's, or that of the client whom a balancer names first. `None`: it is closed.
async fn source<H>(
    shared: &Shared<H>,
    tcp: &TcpStream,
    peer: SocketAddr,
    deadline: Instant,
) -> Option<IpAddr> {
    let direct = peer.ip().to_canonical();
    if !shared.rules.balancers.iter().any(|network| network.contains(&direct)) {
        return Some(direct);
    }
    tokio::select! {
        biased;
        header = read_header(tcp) => match header {
            Ok(Header::Client(client)) => return Some(client.ip()),
            Ok(Header::Local) => return Some(direct),
            Err(NoHeader::Io(e)) => log::no_connection(peer, &e), // health checks that only connect
            Err(NoHeader::Fault(fault)) => log::warning("a balancer's connection is closed", &format_args!("{peer}: {fault}")),
        },
        () = sleep_until(deadline) => {
            let cause = format_args!("{peer}: its header of the PROXY protocol is not whole in time");
            log::warning("a balancer's connection is closed", &cause);
        }
        () = shared.end.draining.cancelled() => {}
    }
    None
}

/// Waits for a client's first bytes; returns whether there are any.
async fn has_first_bytes<H>(door: &Door<H>, tcp: &TcpStream, peer: SocketAddr, deadline: Instant) -> bool {
    let place = door.silent.enter(peer.ip().into());
    let mut first = [0];
    tokio::select! {
        biased;
        read = tcp.peek(&mut first) => matches!(read, Ok(1..)),
        () = place.called_off() => false,
        () = sleep_until(deadline) => false,
        () = door.shared.end.draining.cancelled() => false,
    }
}
