//! The accept loop: permit, accept, spawn.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::net::{SocketFlags, acceptfrom_with};
use tls_acceptor::Permit;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tracing::warn;

use crate::connection::{self, Door};
use crate::shortage::is_shortage;
use crate::worker::Worker;

/// How long nothing is accepted when there is nothing to accept it with.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);
/// How often the log is told about the same trouble.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// How accepting ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// At once: somebody else accepts what waits in the queue, or nobody shall.
    AtOnce,
    /// When the queue is empty: the socket is about to be closed.
    AfterQueue,
}

/// Accepts connections until `stop`, or until nobody can say it any more.
pub async fn accept(
    worker: Arc<Worker>,
    address: SocketAddr,
    listener: Arc<TcpListener>,
    mut stop: oneshot::Receiver<Stop>,
) {
    let mut door = None;
    if accept_all(&worker, address, &listener, &mut stop, &mut door).await == Stop::AfterQueue {
        // The listener may have gone from the site.
        if let Some(door) = worker.site().door(address).or(door) {
            accept_queue(&worker, address, &listener, &door).await;
        }
    }
}

/// `last` is how connections were received last. Nothing that was accepted is dropped.
async fn accept_all(
    worker: &Arc<Worker>,
    address: SocketAddr,
    listener: &TcpListener,
    stop: &mut oneshot::Receiver<Stop>,
    last: &mut Option<Arc<Door>>,
) -> Stop {
    let mut complained: Option<Instant> = None;
    let mut complain = |cause: &str| {
        if complained.is_none_or(|last| last.elapsed() >= COMPLAINT_INTERVAL) {
            complained = Some(Instant::now());
            warn!(%address, cause, "no connections are accepted for the moment; they wait in the kernel's queue");
        }
    };
    loop {
        let (mut door, mut permit) = tokio::select! {
            knocked = knock(worker, address, &mut complain) => knocked,
            stop = &mut *stop => return stop.unwrap_or(Stop::AtOnce),
        };
        *last = Some(door.clone());
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            stop = &mut *stop => return stop.unwrap_or(Stop::AtOnce),
        };
        let (tcp, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(e) if is_shortage(&e) => {
                worker.shortage.failed(address, &e);
                sleep(SHORTAGE_PAUSE).await;
                continue;
            }
            Err(_) => continue, // the client was gone before it was accepted
        };
        worker.accepted.fetch_add(1, Ordering::Relaxed);
        worker.shortage.succeeded();
        // A reload may have come while nobody did: the connection is received as it says now.
        let current = worker.site().door(address);
        if let Some(current) = current.filter(|current| !Arc::ptr_eq(current, &door)) {
            permit = match &current.acceptor {
                Some(acceptor) => Some(acceptor.ready().await),
                None => None,
            };
            door = current;
        }
        receive(worker, door, permit, tcp, peer);
    }
}

/// Waits until a connection may be received.
async fn knock(
    worker: &Worker,
    address: SocketAddr,
    complain: &mut impl FnMut(&str),
) -> (Arc<Door>, Option<Permit>) {
    let Some(door) = worker.site().door(address) else {
        // The listener has gone from the site, and its stop is on its way.
        return std::future::pending().await;
    };
    let permit = match &door.acceptor {
        Some(acceptor) => Some(match acceptor.try_ready() {
            Some(permit) => permit,
            None => {
                complain("too many TLS handshakes are in flight");
                acceptor.ready().await
            }
        }),
        None => None,
    };
    (door, permit)
}

fn receive(worker: &Arc<Worker>, door: Arc<Door>, permit: Option<Permit>, tcp: TcpStream, peer: SocketAddr) {
    worker.tasks.spawn(connection::serve(worker.clone(), door, permit, tcp, peer));
}

/// Accepts what waits, until nothing does.
async fn accept_queue(worker: &Arc<Worker>, address: SocketAddr, listener: &TcpListener, door: &Arc<Door>) {
    loop {
        let permit = match &door.acceptor {
            Some(acceptor) => Some(acceptor.ready().await),
            None => None,
        };
        // Not tokio's accept: it knows of what waits only after it was told by the system.
        let accepted = acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC);
        let (tcp, peer) = match accepted.map_err(io::Error::from) {
            Ok((tcp, peer)) => (TcpStream::from_std(tcp.into()), peer.map(SocketAddr::try_from)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
            Err(e) if is_shortage(&e) => {
                worker.shortage.failed(address, &e);
                sleep(SHORTAGE_PAUSE).await;
                continue;
            }
            Err(_) => continue, // the client was gone before it was accepted
        };
        worker.accepted.fetch_add(1, Ordering::Relaxed);
        if let (Ok(tcp), Some(Ok(peer))) = (tcp, peer) {
            receive(worker, door.clone(), permit, tcp, peer);
        }
    }
}
