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
            biased;
            stop = &mut *stop => return stop.unwrap_or(Stop::AtOnce),
            knocked = knock(worker, address, &mut complain) => knocked,
        };
        *last = Some(door.clone());
        let accepted = tokio::select! {
            biased;
            stop = &mut *stop => return stop.unwrap_or(Stop::AtOnce),
            accepted = listener.accept() => accepted,
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use arc_swap::ArcSwap;
    use http::Extensions;
    use tls_acceptor::{Certificates, Loaded, Tickets};

    use super::*;
    use crate::config::Config;
    use crate::registry::Registry;
    use crate::site::Site;
    use crate::socket;
    use crate::worker::Common;

    /// Connections wait in the queue before anything is accepted, and the stop is there already.
    async fn accepted_of_three(how: Stop) -> u64 {
        let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let text = format!(
            "[[listener]]\naddress = \"{address}\"\ntls = false\n[[route]]\npath = \"/\"\nservice = \"echo\"\n"
        );
        let (config, problems) = Config::parse(Path::new("wssgate.toml"), &text);
        assert_eq!(problems, []);
        let certificates = Certificates::new(Loaded::default(), 1);
        let site = Site::build(&config, 1, None, &certificates, &Tickets::new().unwrap()).unwrap();
        let site = Arc::new(ArcSwap::from_pointee(site));
        let sessions = Arc::new(Registry::new(0, 1));
        let common = Common {
            site,
            certificates,
            drained: Arc::default(),
            shortage: Arc::default(),
            casing: Extensions::new(),
        };
        let worker = Arc::new(Worker::new(common, sessions));
        let listener = socket::listen(address, 1).unwrap().remove(0);
        let local = listener.local_addr().unwrap();
        let _clients: Vec<_> = (0..3).map(|_| std::net::TcpStream::connect(local).unwrap()).collect();
        let listener = Arc::new(TcpListener::from_std(listener).unwrap());
        let (stop, stopped) = oneshot::channel();
        stop.send(how).unwrap();
        accept(worker.clone(), address, listener, stopped).await;
        worker.accepted.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn a_queue_is_emptied_before_its_socket_is_closed_and_left_alone_where_it_lives_on() {
        assert_eq!(accepted_of_three(Stop::AfterQueue).await, 3);
        assert_eq!(accepted_of_three(Stop::AtOnce).await, 0);
    }
}
