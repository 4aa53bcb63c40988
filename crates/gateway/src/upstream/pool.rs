//! Kept-alive connections to backends: one pool a worker, and one for each client connection that has logged in
//! connections to backends (see [`identity`](super::identity)).

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::site::endpoint::Endpoint;
use crate::site::upstream::Connector;
use crate::upstream::dial::{DialError, dial};
use crate::upstream::h1::connection::{IdleConnection, Io, ResponseBody};

/// Idle connections kept for one backend.
const IDLE_MAX: usize = 64;
/// How long one is kept.
const IDLE_TIME: Duration = Duration::from_secs(60);

/// Idle connections, by endpoint: so few that comparing costs less than hashing.
#[derive(Default)]
pub struct Pool {
    idle: Mutex<BTreeMap<Arc<Endpoint>, Vec<Idle>>>,
}

struct Idle {
    connection: IdleConnection,
    timer: Pin<Box<Sleep>>,
    /// `None`: since the last [`Pool::prune`], so that a connection that is soon needed again costs no look at the
    /// clock.
    since: Option<Instant>,
    /// See [`Lease`].
    losses: u32,
}

/// Where a connection in use comes from, and may go back to.
pub struct Lease {
    /// For waiting for the answer: setting it to a later time again and again costs nearly nothing.
    pub timer: Pin<Box<Sleep>>,
    endpoint: Arc<Endpoint>,
    /// How many addresses its name had lost when it was made: after the next one, it may lead to a server that is no
    /// longer meant.
    losses: u32,
    /// `None`: it is closed after this answer.
    pool: Option<Arc<Pool>>,
    /// Its connection was made for this request.
    pub is_new: bool,
}

impl Pool {
    /// The connection to `endpoint` that was idle for the shortest time, or a new one.
    ///
    /// # Errors
    /// If a new one can't be made.
    pub async fn lease(
        self: &Arc<Self>,
        connector: Connector,
        endpoint: &Arc<Endpoint>,
    ) -> Result<(IdleConnection, Lease), DialError> {
        if connector.pooled
            && let Some(leased) = self.lease_idle(endpoint).await
        {
            return Ok(leased);
        }
        Box::pin(self.lease_new(connector, endpoint)).await // rare, and much larger than the rest
    }

    /// The connection to `endpoint` that was idle for the shortest time, if there is one.
    pub async fn lease_idle(self: &Arc<Self>, endpoint: &Arc<Endpoint>) -> Option<(IdleConnection, Lease)> {
        let now = endpoint.losses();
        while let Some(Idle { mut connection, timer, losses, .. }) = self.take(endpoint) {
            if losses == now && poll_fn(|cx| Poll::Ready(connection.is_quiet(cx))).await {
                return Some((connection, self.leased(timer, endpoint, losses)));
            }
        }
        None
    }

    /// A new connection to `endpoint`.
    ///
    /// # Errors
    /// If it can't be made.
    pub async fn lease_new(
        self: &Arc<Self>,
        connector: Connector,
        endpoint: &Arc<Endpoint>,
    ) -> Result<(IdleConnection, Lease), DialError> {
        let losses = endpoint.losses();
        let io: Box<dyn Io> = Box::new(dial(connector, endpoint).await?);
        let mut lease = self.leased(new_timer(), endpoint, losses);
        lease.is_new = true;
        if !connector.pooled {
            lease.pool = None;
        }
        Ok((IdleConnection::new(io), lease))
    }

    /// Keeps a connection to `endpoint` that was made elsewhere.
    pub fn adopt(self: &Arc<Self>, endpoint: &Arc<Endpoint>, io: impl Io) {
        self.leased(new_timer(), endpoint, endpoint.losses()).keep(IdleConnection::new(Box::new(io)));
    }

    fn leased(self: &Arc<Self>, timer: Pin<Box<Sleep>>, endpoint: &Arc<Endpoint>, losses: u32) -> Lease {
        Lease { timer, endpoint: endpoint.clone(), losses, pool: Some(self.clone()), is_new: false }
    }

    fn take(&self, endpoint: &Endpoint) -> Option<Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).get_mut(endpoint)?.pop()
    }

    /// Closes what was idle for too long, or is closed by the backend.
    pub fn prune(&self) {
        let mut no_waker = Context::from_waker(Waker::noop()); // this is called again and again
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|_, list| {
            list.retain_mut(|idle| {
                idle.since.get_or_insert_with(Instant::now).elapsed() < IDLE_TIME
                    && idle.connection.is_quiet(&mut no_waker)
            });
            !list.is_empty()
        });
    }
}

fn new_timer() -> Pin<Box<Sleep>> {
    Box::pin(sleep_until(Instant::now() + IDLE_TIME))
}

impl Lease {
    /// For a connection to `endpoint` that was made elsewhere, to be kept in `pool`.
    #[must_use]
    pub fn new(endpoint: &Arc<Endpoint>, pool: &Arc<Pool>) -> Self {
        pool.leased(new_timer(), endpoint, endpoint.losses())
    }

    /// The connection goes back to `pool`, or nowhere, and not to where it came from.
    pub fn belongs_to(&mut self, pool: Option<&Arc<Pool>>) {
        self.pool = pool.cloned();
    }

    /// The answer has ended: another request may have the connection.
    pub fn give_back(self, answer: ResponseBody) {
        if let Some(connection) = answer.into_idle() {
            self.keep(connection);
        }
    }

    fn keep(self, connection: IdleConnection) {
        let Some(pool) = self.pool else { return };
        let mut idle = pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let list = match idle.get_mut(&self.endpoint) {
            Some(list) => list,
            None => idle.entry(self.endpoint.clone()).or_default(),
        };
        if list.len() < IDLE_MAX {
            list.push(Idle { connection, timer: self.timer, since: None, losses: self.losses });
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}
