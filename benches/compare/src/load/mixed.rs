//! Short messages at fixed times beside long ones that come as fast as they can: what the long ones of some
//! sockets cost the short ones of others.
//!
//! Load and backend are one thread, so a short message could wait here, too, and what was measured would be
//! the load. Therefore each turn sends what is due, answers all short messages that have come, and does one
//! step of one socket of long ones, which is a read and a write of at most [`STEP`] bytes. How long turns
//! last is measured: a short message waits for the load at three places (to be sent, in the backend, to be
//! received), at each no longer than one turn.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use mio::Token;

use super::connection::PATIENCE;
use super::reading::{Reading, latency};
use super::socket::{Buffers, Socket};
use crate::backend::{Backend, ORDERS};
use crate::job::{Job, Sample, Work};

/// Most bytes of long messages that are read, or written, before short ones are looked for.
const STEP: usize = 64 << 10;

/// Does the job over sockets that are connected, those of short messages first.
pub(crate) fn run(job: &Job, sockets: Vec<Socket>, backend: &mut Backend) -> anyhow::Result<Sample> {
    let Work::Mixed { short, per_second, in_flight, .. } = job.work else { bail!("not a load of two kinds") };
    let mut load = MixedLoad::new(sockets, short.sockets, backend)?;
    load.interval = Some(Duration::from_secs(1) / per_second);
    load.in_flight = in_flight;
    load.run_for(job.warm_up)?;
    load.times = Times::default();
    let begin = (load.reading(job)?, load.long_bytes);
    load.run_for(job.seconds)?;
    let end = (load.reading(job)?, load.long_bytes);
    let mut times = std::mem::take(&mut load.times);
    load.settle()?;
    Ok(Sample {
        latency: latency(&mut times.latencies),
        load_turn: latency(&mut times.turns),
        long_megabytes: (end.1 - begin.1) as f64 / 1e6,
        ..end.0.since(&begin.0, 1.0)
    })
}

/// Nanoseconds.
#[derive(Default)]
struct Times {
    /// From when a short message was due to its whole echo.
    latencies: Vec<u64>,
    /// Of turns that found a short message: for so long it may have waited.
    turns: Vec<u64>,
}

struct Short {
    socket: Socket,
    /// When the messages under way were due.
    under_way: VecDeque<Instant>,
}

struct Long {
    socket: Socket,
    /// The last read took all that it could.
    is_readable: bool,
}

struct MixedLoad<'a> {
    backend: &'a mut Backend,
    short: Vec<Short>,
    long: Vec<Long>,
    /// Those of `long` that have something to do.
    waiting: VecDeque<usize>,
    buffers: Buffers,
    /// Between two short messages; none are sent without it.
    interval: Option<Duration>,
    due: Instant,
    /// The socket of the next short message.
    next: usize,
    in_flight: u64,
    /// Short messages that came home, and bytes of long ones.
    echoed: u64,
    long_bytes: u64,
    /// When events were last asked for.
    looked: Instant,
    /// The backend is the next to do a step.
    backend_is_next: bool,
    idle: Duration,
    times: Times,
}

impl<'a> MixedLoad<'a> {
    fn new(mut sockets: Vec<Socket>, short: usize, backend: &'a mut Backend) -> anyhow::Result<Self> {
        for (index, socket) in sockets.iter_mut().enumerate() {
            socket.register(backend, Token(index))?;
        }
        ensure!(short > 0 && sockets.len() > short, "both kinds need sockets");
        let long = sockets.split_off(short);
        let now = Instant::now();
        Ok(Self {
            backend,
            short: sockets.into_iter().map(|socket| Short { socket, under_way: VecDeque::new() }).collect(),
            waiting: (0..long.len()).collect(),
            long: long.into_iter().map(|socket| Long { socket, is_readable: false }).collect(),
            buffers: Buffers::new(),
            interval: None,
            due: now,
            next: 0,
            in_flight: 0,
            echoed: 0,
            long_bytes: 0,
            looked: now,
            backend_is_next: true,
            idle: Duration::ZERO,
            times: Times::default(),
        })
    }

    fn reading(&self, job: &Job) -> anyhow::Result<Reading> {
        Reading::take(job, self.echoed, self.idle)
    }

    fn run_for(&mut self, seconds: f64) -> anyhow::Result<()> {
        let end = Instant::now() + Duration::from_secs_f64(seconds);
        while Instant::now() < end {
            self.turn()?;
        }
        Ok(())
    }

    /// Lets what is under way come home.
    fn settle(&mut self) -> anyhow::Result<()> {
        (self.interval, self.in_flight) = (None, 0);
        let latest = Instant::now() + PATIENCE;
        while self.short.iter().any(|short| short.socket.under_way() > 0)
            || self.long.iter().any(|long| long.socket.under_way() > 0)
        {
            ensure!(Instant::now() < latest, "echoes are missing at the end");
            self.turn()?;
        }
        self.backend.release();
        Ok(())
    }

    fn turn(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        let sent = self.send_due(begun)?;
        let heard = self.look()?;
        let stepped = if self.backend_is_next { self.backend.step() } else { self.step()? };
        self.backend_is_next = !self.backend_is_next;
        if !sent && !heard && !stepped {
            self.idle += begun.elapsed();
        }
        Ok(())
    }

    /// Sends short messages whose time has come.
    fn send_due(&mut self, now: Instant) -> anyhow::Result<bool> {
        let Some(interval) = self.interval else { return Ok(false) };
        let mut sent = false;
        while self.due <= now {
            let Short { socket, under_way } = &mut self.short[self.next];
            under_way.push_back(self.due);
            let in_flight = socket.under_way() + 1;
            while socket.write(in_flight, STEP, &mut self.buffers)? {}
            self.due += interval;
            self.next = (self.next + 1) % self.short.len();
            sent = true;
        }
        Ok(sent)
    }

    /// Answers short messages, and notes which sockets of long ones have something to do.
    fn look(&mut self) -> anyhow::Result<bool> {
        let Self { backend, short, long, waiting, buffers, echoed, times, .. } = self;
        let before = std::mem::replace(&mut self.looked, Instant::now());
        let echoed_before = *echoed;
        let answered = backend.look(|event| {
            if event.token() == ORDERS {
                return Ok(()); // of the order that is being carried out
            }
            let index = event.token().0;
            if let Some(long_index) = index.checked_sub(short.len()) {
                let long = long.get_mut(long_index).context("an event of no socket")?;
                long.is_readable |= event.is_readable();
                if !waiting.contains(&long_index) {
                    waiting.push_back(long_index);
                }
                return Ok(());
            }
            let Short { socket, under_way } = &mut short[index];
            while socket.write(socket.under_way(), STEP, buffers)? {}
            while event.is_readable() && socket.read(STEP, buffers)?.more {}
            let now = Instant::now();
            while under_way.len() as u64 > socket.under_way() {
                let Some(due) = under_way.pop_front() else { break };
                times.latencies.push(u64::try_from((now - due).as_nanos())?);
                *echoed += 1;
            }
            Ok(())
        })?;
        let heard = answered > 0 || *echoed > echoed_before;
        if heard {
            times.turns.push(u64::try_from(before.elapsed().as_nanos())?);
        }
        Ok(heard)
    }

    /// A read and a write of one socket of long messages, if one has something to do.
    fn step(&mut self) -> anyhow::Result<bool> {
        let Some(index) = self.waiting.pop_front() else { return Ok(false) };
        let Long { socket, is_readable } = &mut self.long[index];
        if *is_readable {
            let read = socket.read(STEP, &mut self.buffers)?;
            self.long_bytes += read.echoed;
            *is_readable = read.more;
        }
        if socket.write(self.in_flight, STEP, &mut self.buffers)? || *is_readable {
            self.waiting.push_back(index);
        }
        Ok(true)
    }
}
