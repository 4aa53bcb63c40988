//! The accept loop: permit, accept, spawn.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tls_acceptor::Permit;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::connection::{self, Door};
use crate::shortage::is_shortage;
use crate::worker::Worker;

/// How long nothing is accepted when there is nothing to accept it with.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);
/// How often the log is told about the same trouble.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// Accepts connections until `stop`.
pub async fn accept(
    worker: Arc<Worker>,
    address: SocketAddr,
    listener: TcpListener,
    stop: CancellationToken,
) {
    let _ = stop.run_until_cancelled(accept_all(&worker, address, &listener)).await;
}

async fn accept_all(worker: &Arc<Worker>, address: SocketAddr, listener: &TcpListener) {
    let mut complained: Option<Instant> = None;
    let mut complain = |cause: &str| {
        if complained.is_none_or(|last| last.elapsed() >= COMPLAINT_INTERVAL) {
            complained = Some(Instant::now());
            warn!(%address, cause, "no connections are accepted for the moment; they wait in the kernel's queue");
        }
    };
    loop {
        let (mut door, mut permit) = knock(worker, address, &mut complain).await;
        let (tcp, peer) = match listener.accept().await {
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
