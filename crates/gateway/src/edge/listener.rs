//! The accept loop: accept, spawn.

use std::io;
use std::net::{self, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::net::{SocketFlags, accept_with, acceptfrom_with};
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};

use crate::context::Worker;
use crate::context::quotas::ConnectionSlot;
use crate::edge::connection;
use crate::net::listening::{ListenAddress, UNIX_PEER};
use crate::net::shortage::is_shortage;
use crate::site::listener::ListenerState;

/// How long nothing is accepted when there is nothing to accept it with.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);
/// How often it is looked whether one of the connections that may be open has ended.
const FULL_PAUSE: Duration = Duration::from_millis(20);
/// How long a connection that is told to end has for it, before another one is told.
const END_WAIT: Duration = Duration::from_millis(500);
/// How long a client may say nothing before its connection is ended for one that can't be accepted.
const SILENCE_MIN: Duration = Duration::from_secs(1);

/// How a connection is accepted by a call of our own.
const ACCEPTED: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);

/// How accepting ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// At once: another process accepts what waits in the queue, or it is to be dropped.
    AtOnce,
    /// When the queue is empty: the socket is about to be closed.
    AfterQueue,
}

/// A socket on which connections are accepted.
#[derive(Debug)]
pub(crate) enum Accepting {
    /// Of TCP.
    Tcp(TcpListener),
    /// A Unix socket. A stream tells when it is ready, as a listener does not: that registers connections with the runtime
    /// as what they are, before they are registered as TCP.
    Unix(UnixStream),
}

impl Accepting {
    /// Over a socket that listens, of the kind that its address has. Within a runtime.
    ///
    /// # Errors
    /// If the runtime has no room for it.
    pub(crate) fn new(address: &ListenAddress, socket: net::TcpListener) -> io::Result<Self> {
        match address {
            ListenAddress::Ip(_) => TcpListener::from_std(socket).map(Self::Tcp),
            ListenAddress::Unix(_) => UnixStream::from_std(OwnedFd::from(socket).into()).map(Self::Unix),
        }
    }

    /// The next connection. One over a Unix socket is handled as TCP: the system's calls are the same, and an option of
    /// TCP that it hasn't is not worth a connection.
    ///
    /// # Errors
    /// The operating system's error.
    ///
    /// # Cancel safety
    /// Safe: a connection that is not returned waits on.
    pub(crate) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match self {
            Self::Tcp(listener) => listener.accept().await,
            Self::Unix(listener) => {
                let accept = || Ok(accept_with(listener, ACCEPTED)?);
                let unix = listener.async_io(Interest::READABLE, accept).await?;
                Ok((TcpStream::from_std(unix.into())?, (UNIX_PEER, 0).into()))
            }
        }
    }

    /// Whose a connection is that was accepted without the runtime.
    fn peer(&self, peer: Option<rustix::net::SocketAddrAny>) -> Option<SocketAddr> {
        match self {
            Self::Tcp(_) => peer.and_then(|peer| SocketAddr::try_from(peer).ok()),
            Self::Unix(_) => Some((UNIX_PEER, 0).into()),
        }
    }
}

impl AsFd for Accepting {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

/// Accepts connections until `stop`, or until its sender is dropped.
pub(crate) async fn accept(
    worker: Arc<Worker>,
    address: ListenAddress,
    listener: Arc<Accepting>,
    mut stop: oneshot::Receiver<Stop>,
) {
    let address = &address;
    let mut state = worker.site().listener_state(address);
    if accept_all(&worker, address, &listener, &mut stop, &mut state).await == Stop::AfterQueue {
        // The listener may have gone from the site.
        if let Some(state) = worker.site().listener_state(address).or(state) {
            accept_queue(&worker, address, &listener, &state).await;
        }
    }
}

/// `last` is how connections were received last. Nothing that was accepted is dropped.
async fn accept_all(
    worker: &Arc<Worker>,
    address: &ListenAddress,
    listener: &Accepting,
    stop: &mut oneshot::Receiver<Stop>,
    last: &mut Option<Arc<ListenerState>>,
) -> Stop {
    loop {
        let accepted = tokio::select! {
            biased;
            stop = &mut *stop => return stop.unwrap_or(Stop::AtOnce),
            accepted = listener.accept() => accepted,
        };
        let (tcp, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(e) if is_shortage(&e) => {
                pause(worker, address, &e).await;
                continue;
            }
            Err(_) => continue, // the client was gone before it was accepted
        };
        worker.accepted.fetch_add(1, Ordering::Relaxed);
        worker.shortage.succeeded();
        let (slot, ended) = match enter(worker, peer, stop).await {
            Ok(slot) => (slot, None),
            // Nothing that was accepted is dropped.
            Err(stop) => (ConnectionSlot::new(&worker.quotas), Some(stop)),
        };
        // A reload may have come since the last connection: this one is served by the new settings. A listener
        // that has gone from the site, whose stop is on its way, receives as it did last.
        if let Some(state) = worker.site().listener_state(address).or(last.take()) {
            *last = Some(state.clone());
            receive(worker, slot, state, tcp, peer);
        }
        if let Some(stop) = ended {
            return stop;
        }
    }
}

/// Waits until there is room for one more connection, by `max_connections`, and counts it. A client that has said nothing
/// for a while is given up to make room, or else the connection that waits longest for a request. `Err`: accepting ends,
/// and it isn't counted.
async fn enter(
    worker: &Worker,
    peer: SocketAddr,
    stop: &mut oneshot::Receiver<Stop>,
) -> Result<ConnectionSlot, Stop> {
    let mut waits = false;
    let mut told: Option<Instant> = None;
    loop {
        let max = worker.site().connections_max;
        if let Some(slot) = ConnectionSlot::try_new(&worker.quotas, max) {
            return Ok(slot);
        }
        if !std::mem::replace(&mut waits, true) {
            worker.quotas.wait_for_connection(peer, max.unwrap_or(0));
        }
        if worker.silent.shed(None, SILENCE_MIN) {
            yield_now().await; // its task ends now
            continue;
        }
        if told.is_none_or(|at| at.elapsed() >= END_WAIT)
            && worker.quotas.idle.shed(worker.sessions.number(), SILENCE_MIN)
        {
            told = Some(Instant::now());
        }
        // Who waits here is not read, and others wait in the socket's queue.
        if let Ok(stop) = timeout(FULL_PAUSE, &mut *stop).await {
            return Err(stop.unwrap_or(Stop::AtOnce));
        }
    }
}

/// File descriptors or memory are exhausted, and nothing can be accepted. A client that has said nothing for a
/// while is given up to make room.
async fn pause(worker: &Worker, address: &ListenAddress, e: &io::Error) {
    worker.shortage.failed(address, e);
    if !worker.silent.shed(None, SILENCE_MIN) {
        sleep(SHORTAGE_PAUSE).await;
    } else {
        yield_now().await; // its task ends now
    }
}

fn receive(
    worker: &Arc<Worker>,
    slot: ConnectionSlot,
    state: Arc<ListenerState>,
    tcp: TcpStream,
    peer: SocketAddr,
) {
    worker.tasks.spawn(connection::wait_for_first_bytes(worker.clone(), slot, state, tcp, peer));
}

/// Accepts what waits, until nothing does.
async fn accept_queue(
    worker: &Arc<Worker>,
    address: &ListenAddress,
    listener: &Accepting,
    state: &Arc<ListenerState>,
) {
    loop {
        // Not tokio's accept: it knows of waiting connections only after an event of the system.
        let accepted = acceptfrom_with(listener, ACCEPTED);
        let (tcp, peer) = match accepted.map_err(io::Error::from) {
            Ok((tcp, peer)) => (TcpStream::from_std(tcp.into()), listener.peer(peer)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
            Err(e) if is_shortage(&e) => {
                pause(worker, address, &e).await;
                continue;
            }
            Err(_) => continue, // the client was gone before it was accepted
        };
        worker.accepted.fetch_add(1, Ordering::Relaxed);
        if let (Ok(tcp), Some(peer)) = (tcp, peer) {
            let slot = ConnectionSlot::new(&worker.quotas); // whatever the limit is: the socket is about to be closed
            receive(worker, slot, state.clone(), tcp, peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use arc_swap::ArcSwap;
    use http::Extensions;
    use tls_acceptor::{Certificates, Loaded, Tickets};

    use super::*;
    use crate::config::Config;
    use crate::context::Common;
    use crate::context::registry::Registry;
    use crate::net::options;
    use crate::site::Site;

    /// Connections wait in the queue before anything is accepted, and the stop is there already. Each client has
    /// said so much.
    async fn accept_three(how: Stop, said: &[u8]) -> (Arc<Worker>, Vec<std::net::TcpStream>) {
        let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let text = format!(
            "[[listener]]\naddress = \"{address}\"\ntls = false\n[[route]]\npath = \"/\"\nservice = \"echo\"\n"
        );
        let (config, problems) = Config::parse(Path::new("wssgate.toml"), &text);
        assert_eq!(problems, []);
        let certificates = Certificates::new(Loaded::default(), 1);
        let site = Site::build(&config.site(), 1, None, &certificates, &Tickets::new().unwrap()).unwrap();
        let site = Arc::new(ArcSwap::from_pointee(site));
        let sessions = Arc::new(Registry::new(0, 1));
        let common = Common {
            site,
            certificates,
            drained: Arc::default(),
            transit: Arc::default(),
            taps: Arc::default(),
            shortage: Arc::default(),
            quotas: Arc::default(),
            passwords: Arc::default(),
            casing: Extensions::new(),
            sinks: crate::telemetry::record::Sinks::new(Vec::new()),
        };
        let worker = Arc::new(Worker::new(common, sessions));
        let listener = options::listen(address, 1).unwrap().remove(0);
        let local = listener.local_addr().unwrap();
        let connect = || {
            let mut client = std::net::TcpStream::connect(local).unwrap();
            std::io::Write::write_all(&mut client, said).unwrap();
            client
        };
        let clients = (0..3).map(|_| connect()).collect();
        let address = ListenAddress::from(address);
        let listener = Arc::new(Accepting::new(&address, listener).unwrap());
        let (stop, stopped) = oneshot::channel();
        stop.send(how).unwrap();
        accept(worker.clone(), address, listener, stopped).await;
        (worker, clients)
    }

    #[tokio::test]
    async fn a_queue_is_emptied_before_its_socket_is_closed_and_left_alone_where_it_lives_on() {
        for (how, accepted) in [(Stop::AfterQueue, 3), (Stop::AtOnce, 0)] {
            let (worker, _clients) = accept_three(how, b"").await;
            assert_eq!(worker.accepted.load(Ordering::Relaxed), accepted);
        }
    }

    #[tokio::test]
    async fn connections_that_have_sent_something_are_polled_by_the_sweep() {
        let (worker, _clients) = accept_three(Stop::AfterQueue, b"GET").await;
        let all = async {
            while worker.sweep.len() < 3 {
                yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), all).await.unwrap();
    }
}
