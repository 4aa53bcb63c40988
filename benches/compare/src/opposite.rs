//! The process on the other side of the gateway: the backend and, where a row is about messages, the
//! load, in one loop. Two processes on that core would cost a change of context a batch, and each
//! gateway a wake-up.
//!
//! A job comes as a line on stdin, its sample or what went wrong goes to stdout.

use std::io::{self, Write};
use std::sync::mpsc::{self, Sender};
use std::thread;

use mio::{Token, Waker};
use tokio::runtime::Builder;

use crate::backend::Backend;
use crate::job::{Job, Sample};
use crate::load::pump::{self, Socket};

const ORDERS: Token = Token(1 << 31);

/// A job whose sockets are connected.
type Order = anyhow::Result<(Job, Vec<Socket>)>;

/// Serves until it is ended; the backend's port is the first line on stdout.
pub(crate) fn serve() -> anyhow::Result<()> {
    let mut backend = Backend::new()?;
    let waker = Waker::new(backend.registry(), ORDERS)?;
    writeln!(io::stdout(), "{}", backend.port()?)?;
    let (sender, orders) = mpsc::channel();
    thread::spawn(move || take_orders(&sender, &waker));
    loop {
        backend.turn(None, |_| Ok(()))?;
        for order in orders.try_iter() {
            let result = order.and_then(|(job, sockets)| pump::run(&job, sockets, &mut backend));
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
fn take_orders(sender: &Sender<Order>, waker: &Waker) {
    let mut lines = io::stdin().lines();
    while let Some(Ok(job)) = lines.next() {
        let order = connect(&job, &mut lines);
        if sender.send(order).is_err() || waker.wake().is_err() {
            return;
        }
    }
}

fn connect(job: &str, lines: &mut impl Iterator<Item = io::Result<String>>) -> Order {
    let job: Job = serde_json::from_str(job)?;
    let sockets = Builder::new_current_thread().enable_all().build()?.block_on(pump::connect(&job))?;
    if job.gate {
        writeln!(io::stdout(), "ready")?;
        lines.next().transpose()?;
    }
    Ok((job, sockets))
}
