//! Echoes as fast as they come, over all sockets of one kind.

use std::io;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use mio::Token;

use super::connection::PATIENCE;
use super::reading::Reading;
use super::socket::{Buffers, Socket};
use crate::backend::{Backend, ORDERS};
use crate::job::{Job, Sample, Work};

/// Keeps messages under way on each socket; answers to what came in one read leave in one write.
pub(crate) fn run(job: &Job, sockets: Vec<Socket>, backend: &mut Backend) -> anyhow::Result<Sample> {
    let Work::Echo { in_flight, size, .. } = job.work else { bail!("not a load of echoes") };
    let mut load = EchoLoad::new(sockets, in_flight, backend)?;
    if !job.gate {
        load.run_for(job.warm_up)?;
    }
    let begin = load.reading(job)?;
    load.run_for(job.seconds)?;
    let end = load.reading(job)?;
    load.settle()?;
    let end = if job.gate { load.reading(job)? } else { end };
    Ok(end.since(&begin, size as f64))
}

struct EchoLoad<'a> {
    backend: &'a mut Backend,
    sockets: Vec<Socket>,
    buffers: Buffers,
    in_flight: u64,
    /// Bytes of payload.
    echoed: u64,
}

impl<'a> EchoLoad<'a> {
    fn new(mut sockets: Vec<Socket>, in_flight: u64, backend: &'a mut Backend) -> io::Result<Self> {
        for (index, socket) in sockets.iter_mut().enumerate() {
            socket.register(backend, Token(index))?;
        }
        Ok(Self { backend, sockets, buffers: Buffers::new(), in_flight, echoed: 0 })
    }

    fn run_for(&mut self, seconds: f64) -> anyhow::Result<()> {
        let end = Instant::now() + Duration::from_secs_f64(seconds);
        while Instant::now() < end {
            self.turn()?;
        }
        Ok(())
    }

    fn reading(&self, job: &Job) -> anyhow::Result<Reading> {
        Reading::take(job, self.echoed, self.backend.idle())
    }

    /// Lets what is under way come home.
    fn settle(&mut self) -> anyhow::Result<()> {
        self.in_flight = 0;
        let latest = Instant::now() + PATIENCE;
        while self.sockets.iter().any(|socket| socket.under_way() > 0) {
            ensure!(Instant::now() < latest, "echoes are missing at the end");
            self.turn()?;
        }
        Ok(())
    }

    fn turn(&mut self) -> anyhow::Result<()> {
        let Self { backend, sockets, buffers, in_flight, echoed } = self;
        backend.turn(|event| {
            if event.token() == ORDERS {
                return Ok(()); // of the order that is being carried out
            }
            let socket = sockets.get_mut(event.token().0).context("an event of no socket")?;
            *echoed += socket.exchange(event.is_readable(), *in_flight, buffers)?;
            Ok(())
        })?;
        Ok(())
    }
}
