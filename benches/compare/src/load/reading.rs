//! The clocks and the count at one moment.

use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::job::{Job, Sample};
use crate::process::{busy, cpu_time};

pub(super) struct Reading {
    at: Instant,
    gateway: Duration,
    backend: Duration,
    load: Duration,
    /// What our cores were doing, for whomever.
    cores: Duration,
    done: u64,
}

impl Reading {
    pub(super) fn take(job: &Job, done: u64) -> anyhow::Result<Self> {
        let gateway: Vec<_> = job.gateway.iter().copied().map(Pid::from_raw).collect();
        Ok(Self {
            at: Instant::now(),
            gateway: cpu_time(&gateway)?,
            backend: cpu_time(&[Pid::from_raw(job.backend)])?,
            load: cpu_time(&[Pid::this()])?,
            cores: busy(&job.cores)?,
            done,
        })
    }

    pub(super) fn since(&self, begin: &Self, unit: f64) -> Sample {
        let gateway = self.gateway - begin.gateway;
        let backend = self.backend - begin.backend;
        let load = self.load - begin.load;
        Sample {
            count: (self.done - begin.done) as f64 / unit,
            seconds: (self.at - begin.at).as_secs_f64(),
            gateway_cpu: gateway.as_secs_f64(),
            backend_cpu: backend.as_secs_f64(),
            load_cpu: load.as_secs_f64(),
            others_cpu: (self.cores - begin.cores).saturating_sub(gateway + backend + load).as_secs_f64(),
            ..Sample::default()
        }
    }
}
