//! The process on both outer sides of the gateway: the backend, and the load of each timed job, in one thread that
//! polls while a job lasts. Two processes on that core would cost a context switch for each batch, and
//! a process that sleeps would cost each gateway a wake-up.
//!
//! A job comes as a line on stdin, its sample or what went wrong goes to stdout.

use std::io::{self, Write};
use std::iter::Peekable;
use std::sync::mpsc::{self, Sender};
use std::thread;

use mio::Waker;
use tokio::runtime::Builder;

use crate::backend::{Backend, ORDERS};
use crate::job::{Job, Sample, Work};
use crate::load;
use crate::load::socket::{self, Socket};
use crate::load::{mixed, throughput};

/// What there is to be done.
enum Order {
    /// Echoes over sockets that are connected.
    Echo(Box<Job>, Vec<Socket>),
    /// Anything else, from the beginning.
    Other(Box<Job>),
}

/// Serves until it is ended; the backend's port is the first line on stdout.
pub(crate) fn serve() -> anyhow::Result<()> {
    let mut backend = Backend::new()?;
    let waker = Waker::new(backend.registry(), ORDERS)?;
    writeln!(io::stdout(), "{}", backend.port()?)?;
    let (sender, orders) = mpsc::channel();
    thread::spawn(move || take_orders(&sender, &waker));
    loop {
        backend.wait(|_| Ok(()))?;
        for order in orders.try_iter() {
            let result = order.and_then(|order| match order {
                Order::Echo(job, sockets) if matches!(job.work, Work::Mixed { .. }) => {
                    mixed::run(&job, sockets, &mut backend)
                }
                Order::Echo(job, sockets) => throughput::run(&job, sockets, &mut backend),
                Order::Other(job) => load::run_in_backend_thread(&job, &mut backend),
            });
            writeln!(io::stdout(), "{}", line(result)?)?;
        }
    }
}

/// What is said of a job; an error is one line too: the harness knows which gateway it is about.
pub(crate) fn line(result: anyhow::Result<Sample>) -> anyhow::Result<String> {
    match result {
        Ok(sample) => Ok(serde_json::to_string(&sample)?),
        Err(e) => Ok(format!("{e:#}").replace('\n', " ")),
    }
}

/// Connects by the backend that runs meanwhile, since the gateway will ask it.
fn take_orders(sender: &Sender<anyhow::Result<Order>>, waker: &Waker) {
    let mut lines = io::stdin().lines().map_while(Result::ok).peekable();
    while let Some(job) = lines.next() {
        let Some(order) = prepare(&job, &mut lines).transpose() else { continue };
        if sender.send(order).is_err() || waker.wake().is_err() {
            return;
        }
    }
}

/// Nothing if the harness cancels a job that is ready.
fn prepare<L>(job: &str, lines: &mut Peekable<L>) -> anyhow::Result<Option<Order>>
where
    L: Iterator<Item = String>,
{
    let job: Box<Job> = serde_json::from_str(job)?;
    if !matches!(job.work, Work::Echo { .. } | Work::Mixed { .. }) {
        return Ok(Some(Order::Other(job)));
    }
    let sockets = Builder::new_current_thread().enable_all().build()?.block_on(socket::connect(&job))?;
    if job.gate {
        writeln!(io::stdout(), "ready")?;
        if lines.next_if(|line| line == "go").is_none() {
            return Ok(None);
        }
    }
    Ok(Some(Order::Echo(job, sockets)))
}
