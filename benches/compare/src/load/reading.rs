//! The clocks and the count at one moment, and the quantiles of latencies.

use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::job::{Job, Latency, Sample};
use crate::process::{busy, cpu_time, sleeps};
use crate::stats::quantile;

pub(super) struct Reading {
    at: Instant,
    gateway: Duration,
    /// Load and backend, which may be one process.
    load: Duration,
    /// CPU time that all processes have spent on our cores.
    cores: Duration,
    /// How often gateway and load have slept.
    sleeps: [u64; 2],
    /// How much of the load's time it had nothing to do in.
    idle: Duration,
    done: u64,
}

impl Reading {
    pub(super) fn take(job: &Job, done: u64, idle: Duration) -> anyhow::Result<Self> {
        let gateway: Vec<_> = job.gateway.iter().copied().map(Pid::from_raw).collect();
        let mut load = vec![Pid::this(), Pid::from_raw(job.backend)];
        load.dedup();
        Ok(Self {
            at: Instant::now(),
            gateway: cpu_time(&gateway)?,
            load: cpu_time(&load)?,
            cores: busy(&job.cores)?,
            sleeps: [sleeps(&gateway)?, sleeps(&load)?],
            idle,
            done,
        })
    }

    pub(super) fn since(&self, begin: &Self, unit: f64) -> Sample {
        let gateway = self.gateway - begin.gateway;
        let load = self.load - begin.load;
        Sample {
            count: (self.done - begin.done) as f64 / unit,
            seconds: (self.at - begin.at).as_secs_f64(),
            gateway_cpu: gateway.as_secs_f64(),
            load_cpu: load.saturating_sub(self.idle - begin.idle).as_secs_f64(),
            others_cpu: (self.cores - begin.cores).saturating_sub(gateway + load).as_secs_f64(),
            // A thread that has ended since took its count along.
            gateway_sleeps: self.sleeps[0].saturating_sub(begin.sleeps[0]) as f64,
            load_sleeps: self.sleeps[1].saturating_sub(begin.sleeps[1]) as f64,
            ..Sample::default()
        }
    }
}

/// Quantiles of times that are given in nanoseconds.
pub(super) fn latency(nanoseconds: &mut [u64]) -> Latency {
    nanoseconds.sort_unstable();
    let at = |share| quantile(nanoseconds, share).unwrap_or_default() as f64 / 1e6;
    Latency { p50: at(0.5), p99: at(0.99), p999: at(0.999) }
}
