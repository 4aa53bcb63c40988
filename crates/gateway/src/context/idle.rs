//! Connections that wait for their client's next request, where there is a bound on connections: when it is reached, the
//! one that has waited longest ends, so that a new client is served.
//!
//! Each worker has a list of its own, of which the others only take the first.

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use tls_acceptor::Waiting;

/// Workers whose lists have no lock in common.
const LISTS: usize = 64;

/// All lists.
#[derive(Debug)]
pub struct IdleConnections(Box<[Waiting]>);

/// A connection that may be told to end as soon as it waits for a request.
#[derive(Debug, Clone)]
pub struct IdleWaits {
    list: Waiting,
    peer: SocketAddr,
}

/// A wait; ready when the connection is to end. It is taken off the list when this is dropped.
pub(crate) type IdleWait = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

impl Default for IdleConnections {
    fn default() -> Self {
        Self((0..LISTS).map(|_| Waiting::new(usize::MAX)).collect())
    }
}

impl IdleConnections {
    /// The waits of a connection of `peer` at this worker.
    #[must_use]
    pub fn of(&self, worker: usize, peer: SocketAddr) -> IdleWaits {
        IdleWaits { list: self.0[worker % LISTS].clone(), peer }
    }

    /// Ends a connection that has waited for `patience` at least, one of this worker before others. Says whether there was
    /// one.
    #[must_use]
    pub fn shed(&self, worker: usize, patience: Duration) -> bool {
        let (before, own) = self.0.split_at(worker % LISTS);
        own.iter().chain(before).any(|list| list.shed(None, patience))
    }
}

impl IdleWaits {
    /// The connection begins to wait.
    #[must_use]
    pub fn begin(&self) -> IdleWait {
        let place = self.list.enter(self.peer.ip().into());
        Box::pin(async move { place.called_off().await })
    }
}
