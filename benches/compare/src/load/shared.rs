//! What the workers of one load share: how they connect, when they start and stop, and what they count.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit, mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::connection::Client;
use super::reading::Reading;
use crate::job::Job;

/// How many connections are made at a time.
const CONNECTING: usize = 32;

/// What the workers of a load share.
pub(super) struct Shared {
    pub(super) client: Client,
    /// Those that have a ticket for their next connection.
    pub(super) returning: RefCell<Vec<Client>>,
    pub(super) connecting: Semaphore,
    /// When the next connection may be begun, and how long after it the one behind it.
    pub(super) next: Cell<Instant>,
    pub(super) interval: Duration,
    pub(super) connected: mpsc::UnboundedSender<()>,
    pub(super) running: watch::Receiver<bool>,
    pub(super) stopped: Cell<bool>,
    /// Bytes echoed, or handshakes or requests done.
    pub(super) done: Cell<u64>,
    /// Nanoseconds, of paced messages in the window.
    pub(super) latencies: RefCell<Vec<u64>>,
    /// For how long there was nothing to do.
    pub(super) idle: Rc<Cell<Duration>>,
}

impl Shared {
    pub(super) fn new(
        job: &Job,
        connected: mpsc::UnboundedSender<()>,
        running: watch::Receiver<bool>,
        idle: Rc<Cell<Duration>>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            client: Client::new(job)?,
            returning: RefCell::default(),
            connecting: Semaphore::new(CONNECTING),
            next: Cell::new(Instant::now()),
            interval: job.connections_per_second.map_or(Duration::ZERO, |rate| Duration::from_secs(1) / rate),
            connected,
            running,
            stopped: Cell::new(false),
            done: Cell::new(0),
            latencies: RefCell::default(),
            idle,
        })
    }

    pub(super) fn count(&self, done: u64) {
        self.done.set(self.done.get() + done);
    }

    pub(super) fn reading(&self, job: &Job) -> anyhow::Result<Reading> {
        Reading::take(job, self.done.get(), self.idle.get())
    }

    /// Waits until another connection may be begun; it is being made while the permit is held.
    pub(super) async fn connection_permit(&self) -> anyhow::Result<SemaphorePermit<'_>> {
        let permit = self.connecting.acquire().await?;
        let due = self.next.get();
        self.next.set(due + self.interval);
        if due > Instant::now() {
            sleep_until(due).await;
        }
        Ok(permit)
    }

    /// Says that a worker is connected, and waits for the others.
    pub(super) async fn ready(&self) {
        let _ = self.connected.send(());
        let _ = self.running.clone().wait_for(|running| *running).await;
    }
}
