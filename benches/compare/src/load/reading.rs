//! The clocks and the count at one moment.

use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::job::{Job, Sample};
use crate::process::{busy, cpu_time};

pub(super) struct Reading {
    at: Instant,
    gateway: Duration,
    /// Load and backend, which may be one process.
    load: Duration,
    /// What our cores were doing, for whomever.
    cores: Duration,
    done: u64,
}

impl Reading {
    pub(super) fn take(job: &Job, done: u64) -> anyhow::Result<Self> {
        let gateway: Vec<_> = job.gateway.iter().copied().map(Pid::from_raw).collect();
        let mut load = vec![Pid::this(), Pid::from_raw(job.backend)];
        load.dedup();
        Ok(Self {
            at: Instant::now(),
            gateway: cpu_time(&gateway)?,
            load: cpu_time(&load)?,
            cores: busy(&job.cores)?,
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
            load_cpu: load.as_secs_f64(),
            others_cpu: (self.cores - begin.cores).saturating_sub(gateway + load).as_secs_f64(),
            ..Sample::default()
        }
    }
}
