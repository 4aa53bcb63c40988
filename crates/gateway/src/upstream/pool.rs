//! Kept-alive connections to backends, one pool a worker.

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::{DialError, Upstream};
use crate::body::{Progress, ToBackend};
use crate::connection::HEAD_LEN_MAX;

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
    wire: Wire,
    since: Instant,
}

/// A connection, and what comes with it.
#[derive(Debug)]
pub struct Wire {
    /// Sends a request.
    pub sender: Sender,
    /// For whoever waits for the answer: set to a later time over and over, it costs next to nothing.
    pub timer: Pin<Box<Sleep>>,
    _task: AbortOnDrop,
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
    /// The connection.
    pub wire: Wire,
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
            if idle.wire.is_ready().await {
                return Ok(self.leased(idle.wire, true, upstream));
            }
        }
        Box::pin(self.lease_new(upstream)).await // rare, and much larger than the rest
    }

    /// A new connection to `upstream`.
    ///
    /// # Errors
    /// If it can't be made.
    pub async fn lease_new(self: &Arc<Self>, upstream: &Arc<Upstream>) -> Result<Lease, DialError> {
        let wire = Wire::new(upstream.dial().await?).await.map_err(DialError::Http)?;
        Ok(self.leased(wire, false, upstream))
    }

    /// Keeps a connection to `upstream` that somebody else has made.
    ///
    /// # Errors
    /// If HTTP can't be spoken over it.
    pub async fn adopt<T>(self: &Arc<Self>, upstream: &Arc<Upstream>, io: T) -> hyper::Result<()>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.leased(Wire::new(io).await?, false, upstream).give_back();
        Ok(())
    }

    fn leased(self: &Arc<Self>, wire: Wire, reused: bool, upstream: &Arc<Upstream>) -> Lease {
        Lease { wire, reused, progress: None, upstream: upstream.clone(), pool: self.clone() }
    }

    fn take(&self, backend: &str) -> Option<Idle> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let list = idle.get_mut(backend)?;
        while let Some(last) = list.pop() {
            if !last.wire.sender.is_closed() {
                return Some(last);
            }
        }
        None
    }

    /// Closes what was idle for too long.
    pub fn prune(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|_, list| {
            list.retain(|idle| idle.since.elapsed() < IDLE_TIME && !idle.wire.sender.is_closed());
            !list.is_empty()
        });
    }
}

impl Wire {
    async fn new<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(io: T) -> hyper::Result<Self> {
        let (sender, connection) = speak(io).await?;
        // It ends with the connection; what goes wrong is told to whoever waits for an answer.
        let task = tokio::spawn(async move { drop(connection.await) }).abort_handle();
        let timer = Box::pin(sleep_until(Instant::now() + IDLE_TIME));
        Ok(Self { sender, timer, _task: AbortOnDrop(task) })
    }

    async fn is_ready(&mut self) -> bool {
        // Most often it is so at once: no timer for those.
        let ready = poll_fn(|cx| Poll::Ready(self.sender.poll_ready(cx))).await;
        let Poll::Ready(ready) = ready else {
            return matches!(timeout(READY_TIME, self.sender.ready()).await, Ok(Ok(())));
        };
        ready.is_ok()
    }
}

/// Speaks HTTP/1.1 over a connection to a backend. It is the second of the two that moves the bytes.
///
/// # Errors
/// hyper's word; nothing is sent yet.
pub async fn speak<T>(io: T) -> hyper::Result<(Sender, Connection<TokioIo<T>, ToBackend>)>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    Builder::new()
        .max_buf_size(HEAD_LEN_MAX)
        .max_header_size(HEAD_LEN_MAX)
        .title_case_headers(true)
        .handshake(TokioIo::new(io))
        .await
}

impl Lease {
    /// Remembers whose body the connection carries.
    pub fn carries(&mut self, progress: Arc<Progress>) {
        self.progress = Some(progress);
    }

    /// The answer has ended: another request may have the connection.
    pub fn give_back(self) {
        if self.wire.sender.is_closed() || self.progress.is_some_and(|progress| !progress.is_done()) {
            return;
        }
        let mut idle = self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let list = match idle.get_mut(&self.upstream.address) {
            Some(list) => list,
            None => idle.entry(self.upstream.address.clone()).or_default(),
        };
        if list.len() < IDLE_MAX {
            list.push(Idle { wire: self.wire, since: Instant::now() });
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
