//! Kept-alive connections to backends, one pool a worker.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use super::{DialError, Upstream};
use crate::body::{Progress, ToBackend};
use crate::connection::{HEAD_LEN_MAX, Transport};

/// Idle connections kept for one backend.
const IDLE_MAX: usize = 64;
/// How long one is kept.
const IDLE_TIME: Duration = Duration::from_secs(60);
/// A connection whose answer has ended is ready in no time, or never.
const READY_TIME: Duration = Duration::from_millis(100);

type Sender = SendRequest<ToBackend>;

/// Idle connections, by `host:port`.
#[derive(Default)]
pub struct Pool {
    idle: Mutex<HashMap<Box<str>, Vec<Idle>>>,
}

struct Idle {
    sender: Sender,
    task: AbortOnDrop,
    since: Instant,
}

/// The task that moves a connection's bytes. A request's body may keep it busy for ever, so it
/// doesn't outlive whoever waits for the answer.
#[derive(Debug)]
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A connection in use. Dropped, it is closed; given back, the next request may have it.
pub struct Lease {
    /// Sends the request.
    pub sender: Sender,
    task: AbortOnDrop,
    /// It has carried requests before.
    pub reused: bool,
    /// The request's body: a connection that still owes some of it can't be used again.
    progress: Option<Arc<Progress>>,
    upstream: Arc<Upstream>,
    pool: Arc<Pool>,
}

impl Pool {
    /// The connection to `upstream` that was idle for the shortest time, or a new one.
    ///
    /// # Errors
    /// If a new one can't be made.
    pub async fn lease(self: &Arc<Self>, upstream: &Arc<Upstream>) -> Result<Lease, DialError> {
        while let Some(mut idle) = self.take(&upstream.address) {
            if let Ok(Ok(())) = timeout(READY_TIME, idle.sender.ready()).await {
                return Ok(self.leased((idle.sender, idle.task), true, upstream));
            }
        }
        Box::pin(self.lease_new(upstream)).await // rare, and much larger than the rest
    }

    /// A new connection to `upstream`.
    ///
    /// # Errors
    /// If it can't be made.
    pub async fn lease_new(self: &Arc<Self>, upstream: &Arc<Upstream>) -> Result<Lease, DialError> {
        let (sender, task) = connect(upstream.dial().await?).await.map_err(DialError::Http)?;
        Ok(self.leased((sender, AbortOnDrop(task)), false, upstream))
    }

    /// Keeps a connection to `upstream` that somebody else has made.
    ///
    /// # Errors
    /// If HTTP can't be spoken over it.
    pub async fn adopt<T: Transport>(self: &Arc<Self>, upstream: &Arc<Upstream>, io: T) -> hyper::Result<()> {
        let (sender, task) = connect(io).await?;
        self.leased((sender, AbortOnDrop(task)), false, upstream).give_back();
        Ok(())
    }

    fn leased(
        self: &Arc<Self>,
        (sender, task): (Sender, AbortOnDrop),
        reused: bool,
        upstream: &Arc<Upstream>,
    ) -> Lease {
        Lease { sender, task, reused, progress: None, upstream: upstream.clone(), pool: self.clone() }
    }

    fn take(&self, backend: &str) -> Option<Idle> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let list = idle.get_mut(backend)?;
        while let Some(last) = list.pop() {
            if !last.sender.is_closed() {
                return Some(last);
            }
        }
        None
    }

    /// Closes what was idle for too long.
    pub fn prune(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|_, list| {
            list.retain(|idle| idle.since.elapsed() < IDLE_TIME && !idle.sender.is_closed());
            !list.is_empty()
        });
    }
}

/// Speaks HTTP/1.1 over a connection to a backend, in a task of its own.
///
/// # Errors
/// hyper's word; nothing is sent yet.
pub async fn connect<T: Transport>(io: T) -> hyper::Result<(Sender, AbortHandle)> {
    let (sender, connection) = Builder::new()
        .max_buf_size(HEAD_LEN_MAX)
        .max_header_size(HEAD_LEN_MAX)
        .title_case_headers(true)
        .handshake(TokioIo::new(io))
        .await?;
    // It ends with the connection; what goes wrong is told to whoever waits for an answer.
    let task = tokio::spawn(async move { drop(connection.with_upgrades().await) });
    Ok((sender, task.abort_handle()))
}

impl Lease {
    /// Remembers whose body the connection carries.
    pub fn carries(&mut self, progress: Arc<Progress>) {
        self.progress = Some(progress);
    }

    /// The answer has ended: another request may have the connection.
    pub fn give_back(self) {
        if self.sender.is_closed() || self.progress.is_some_and(|progress| !progress.is_done()) {
            return;
        }
        let mut idle = self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let list = match idle.get_mut(&self.upstream.address) {
            Some(list) => list,
            None => idle.entry(self.upstream.address.clone()).or_default(),
        };
        if list.len() < IDLE_MAX {
            list.push(Idle { sender: self.sender, task: self.task, since: Instant::now() });
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
        f.debug_struct("Lease").field("upstream", &self.upstream).field("reused", &self.reused).finish()
    }
}
