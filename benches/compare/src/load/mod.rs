//! The load generator: one thread that connects, drives one kind of [`Work`], compares every byte, and
//! reads the CPU clocks of all three parties at both ends of the timed window.

pub(crate) mod beside;
mod echo;
mod handshake;
mod http;
pub(crate) mod live;
mod paced;
pub(crate) mod pump;
mod reading;
pub(crate) mod record;
mod strict;
mod wire;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, Write};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use tokio::runtime::Builder;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, watch};
use tokio::task::{JoinSet, LocalSet, yield_now};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::backend::Backend;
use crate::job::{Job, Latency, Sample, Work};
use crate::stats::quantile;
use reading::Reading;
use wire::Client;

/// How many connections are made at a time.
const CONNECTING: usize = 32;
/// How long connecting, or the end of what is in flight, may take.
const PATIENCE: Duration = Duration::from_secs(60);

type Workers = JoinSet<anyhow::Result<()>>;

/// What the workers of a load share.
struct Shared {
    client: Client,
    /// Those that have a ticket for their next connection.
    returning: RefCell<Vec<Client>>,
    connecting: Semaphore,
    /// When the next connection may be begun, and how long after it the one behind it.
    next: Cell<Instant>,
    interval: Duration,
    connected: mpsc::UnboundedSender<()>,
    running: watch::Receiver<bool>,
    stopped: Cell<bool>,
    /// Bytes echoed, or handshakes or requests done.
    done: Cell<u64>,
    /// Nanoseconds, of paced messages in the window.
    latencies: RefCell<Vec<u64>>,
    /// For how long there was nothing to do.
    idle: Rc<Cell<Duration>>,
}

impl Shared {
    fn count(&self, done: u64) {
        self.done.set(self.done.get() + done);
    }

    fn reading(&self, job: &Job) -> anyhow::Result<Reading> {
        Reading::take(job, self.done.get(), self.idle.get())
    }

    /// Waits until another connection may be begun; it is being made while the permit is held.
    async fn turn(&self) -> anyhow::Result<SemaphorePermit<'_>> {
        let permit = self.connecting.acquire().await?;
        let due = self.next.get();
        self.next.set(due + self.interval);
        if due > Instant::now() {
            sleep_until(due).await;
        }
        Ok(permit)
    }

    /// Says that a worker is connected, and waits for the others.
    async fn ready(&self) {
        let _ = self.connected.send(());
        let _ = self.running.clone().wait_for(|running| *running).await;
    }
}

/// Does the job, in a process of its own; `ready` and the line that answers it pass on stdout and stdin.
pub(crate) async fn run(job: &Job) -> anyhow::Result<Sample> {
    LocalSet::new().run_until(drive(job, Rc::default())).await
}

/// Does the job in the backend's thread, which never waits: see [`Backend::turn`].
pub(crate) fn run_beside(job: &Job, backend: &mut Backend) -> anyhow::Result<Sample> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let idle = Rc::<Cell<Duration>>::default();
    let local = LocalSet::new();
    let mut driven = pin!(local.run_until(drive(job, idle.clone())));
    let mut least = Duration::MAX;
    runtime.block_on(async {
        let mut begun = Instant::now();
        loop {
            if let Poll::Ready(result) = poll_fn(|cx| Poll::Ready(driven.as_mut().poll(cx))).await {
                return result;
            }
            let busy = backend.turn(|_| Ok(()))?;
            yield_now().await;
            // A turn in which neither of the two had something to do is as short as any.
            let took = begun.elapsed();
            begun += took;
            least = least.min(took);
            if !busy && took < 2 * least {
                idle.set(idle.get() + took);
            }
        }
    })
}

async fn drive(job: &Job, idle: Rc<Cell<Duration>>) -> anyhow::Result<Sample> {
    let (connected, mut connections) = mpsc::unbounded_channel();
    let (run, running) = watch::channel(false);
    let shared = Rc::new(Shared {
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
    });
    let mut workers = JoinSet::new();
    let count = spawn(job.work, &shared, &mut workers);

    let all = async {
        for _ in 0..count {
            connections.recv().await;
        }
    };
    tokio::select! {
        () = all => {}
        e = first_end(&mut workers) => return Err(e),
        () = sleep(PATIENCE) => bail!("not all connections came about within {PATIENCE:?}"),
    }
    if job.gate {
        gate().await?;
    }
    let before = shared.reading(job)?;
    run.send_replace(true);
    let window = match job.work {
        // They do what there is to do and are through.
        Work::Idle { .. } | Work::Strict { .. } => None,
        _ => Some(tokio::select! {
            window = window(job, &shared) => window?,
            e = first_end(&mut workers) => return Err(e),
        }),
    };
    let latency = latency(&mut shared.latencies.borrow_mut());
    shared.stopped.set(true);
    let drain = async {
        while let Some(ended) = workers.join_next().await {
            ended.context("a worker of the load panicked")??;
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, drain).await.context("echoes are missing at the end")??;
    let (begin, end) = match window {
        Some(window) if !job.gate => window,
        _ => (before, shared.reading(job)?),
    };
    Ok(Sample { latency, ..end.since(&begin, unit(job.work)) })
}

/// Lets time pass; what was read at both ends of the window.
async fn window(job: &Job, shared: &Shared) -> anyhow::Result<(Reading, Reading)> {
    if !job.gate {
        sleep(Duration::from_secs_f64(job.warm_up)).await;
        shared.latencies.borrow_mut().clear();
    }
    let begin = shared.reading(job)?;
    sleep(Duration::from_secs_f64(job.seconds)).await;
    Ok((begin, shared.reading(job)?))
}

/// Starts the workers; returns how many will say that they are connected.
fn spawn(work: Work, shared: &Rc<Shared>, workers: &mut Workers) -> usize {
    match work {
        Work::Idle { sockets, resumed } => {
            each(sockets, shared, workers, |shared, i| echo::idle(shared, i, resumed))
        }
        Work::Handshake { clients, resumed } => {
            each(clients, shared, workers, |shared, i| handshake::repeat(shared, i, resumed))
        }
        Work::Http1 { connections } => each(connections, shared, workers, http::http1),
        Work::Http2 { connections, streams } => {
            each(connections, shared, workers, |shared, i| http::http2(shared, i, streams))
        }
        Work::Paced { sockets, per_second, size } => {
            workers.spawn_local(paced::pace(shared.clone(), sockets, per_second, size));
            sockets
        }
        Work::Echo { .. } | Work::Beside { .. } | Work::Live { .. } => 0, // they run elsewhere
        Work::Strict { oversize } => each(1, shared, workers, |shared, _| strict::probe(shared, oversize)),
    }
}

fn each<F>(
    count: usize,
    shared: &Rc<Shared>,
    workers: &mut Workers,
    worker: impl Fn(Rc<Shared>, usize) -> F,
) -> usize
where
    F: Future<Output = anyhow::Result<()>> + 'static,
{
    for index in 0..count {
        workers.spawn_local(worker(shared.clone(), index));
    }
    count
}

/// How much of [`Shared::done`] is one round trip, handshake or request.
fn unit(work: Work) -> f64 {
    match work {
        Work::Paced { size, .. } => size as f64,
        _ => 1.0,
    }
}

/// Workers end when they are told to; one that ends before has a reason.
async fn first_end(workers: &mut Workers) -> anyhow::Error {
    match workers.join_next().await {
        Some(Ok(Err(e))) => e,
        ended => anyhow!("a worker of the load ended early: {ended:?}"),
    }
}

async fn gate() -> anyhow::Result<()> {
    writeln!(io::stdout(), "ready")?;
    let line = tokio::task::spawn_blocking(|| io::stdin().lines().next());
    line.await?.context("the harness has gone")??;
    Ok(())
}

fn latency(nanoseconds: &mut [u64]) -> Latency {
    nanoseconds.sort_unstable();
    let at = |share| quantile(nanoseconds, share).unwrap_or_default() as f64 / 1e6;
    Latency { p50: at(0.5), p99: at(0.99), p999: at(0.999) }
}
