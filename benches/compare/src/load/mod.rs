//! The load generator: one thread that connects, drives one kind of [`Work`], compares every byte, and
//! reads the CPU clocks of all three parties at both ends of the timed window.

pub(crate) mod connection;
mod echo;
mod handshake;
mod http;
pub(crate) mod live;
pub(crate) mod mixed;
mod paced;
mod reading;
pub(crate) mod record;
mod shared;
pub(crate) mod socket;
mod strict;
pub(crate) mod throughput;

use std::cell::Cell;
use std::future::poll_fn;
use std::io::{self, Write};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, LocalSet, yield_now};
use tokio::time::{Instant, sleep, timeout};

use crate::backend::Backend;
use crate::job::{Job, Sample, Work};
use connection::PATIENCE;
use http::Page;
use reading::{Reading, latency};
use shared::Shared;

type Workers = JoinSet<anyhow::Result<()>>;

/// Does the job, in a process of its own; `ready` and the line that answers it pass on stdout and stdin.
pub(crate) async fn run(job: &Job) -> anyhow::Result<Sample> {
    LocalSet::new().run_until(drive(job, Rc::default())).await
}

/// Does the job in the backend's thread, which never waits: see [`Backend::turn`].
pub(crate) fn run_in_backend_thread(job: &Job, backend: &mut Backend) -> anyhow::Result<Sample> {
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
    let shared = Rc::new(Shared::new(job, connected, running, idle)?);
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
    let requests = match job.work {
        Work::Http1 { .. } | Work::Http2 { .. } | Work::File { .. } => shared.done.get(),
        _ => 0,
    };
    Ok(Sample { latency, requests, ..end.since(&begin, unit(job.work)) })
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
        Work::Http1 { connections } => {
            each(connections, shared, workers, |shared, i| http::http1(shared, i, Page::Greeting))
        }
        Work::Http2 { connections, streams } => {
            each(connections, shared, workers, |shared, i| http::http2(shared, i, streams, Page::Greeting))
        }
        Work::File { connections, streams: 0, len } => {
            each(connections, shared, workers, |shared, i| http::http1(shared, i, Page::File(len)))
        }
        Work::File { connections, streams, len } => {
            each(connections, shared, workers, |shared, i| http::http2(shared, i, streams, Page::File(len)))
        }
        Work::Paced { sockets, per_second, size } => {
            workers.spawn_local(paced::pace(shared.clone(), sockets, per_second, size));
            sockets
        }
        Work::Echo { .. } | Work::Mixed { .. } | Work::Live { .. } => 0, // they run elsewhere
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
