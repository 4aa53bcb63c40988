//! Runs every row against every gateway, interleaved, in rounds.

use std::env;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::sleep;

use crate::child::Child;
use crate::gateways::{Installed, Running};
use crate::job::{Job, Packing, Sample, Work};
use crate::process::pss;
use crate::rows::{How, OVERSIZE, Row};
use crate::setup::Site;
use crate::syscalls::Tracer;

/// Brings code and tables of a fresh gateway into memory, before its memory is read.
const WARM_UP_SOCKETS: Work = Work::Echo { sockets: 16, in_flight: 1, size: 64, packing: Packing::Dense };
/// Until buffers have gone back where they go.
const SETTLING: Duration = Duration::from_secs(1);

/// The pace of a shared machine changes within seconds, by a third and more. So gateways take turns in
/// slices of a window that are no longer than this, in seconds, each after a warm-up of its own.
const SLICE: f64 = 0.25;
const SLICE_WARM_UP: f64 = 0.1;

/// Others that take no more of the cores, in parts of one, don't matter.
const QUIET: f64 = 0.1;

/// What is to be done.
pub(crate) struct Plan {
    pub(crate) rows: Vec<Row>,
    pub(crate) gateways: Vec<Installed>,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) warm_up: f64,
    pub(crate) retries: u16,
    pub(crate) gateway_core: usize,
    pub(crate) load_core: usize,
}

impl Plan {
    /// In how many parts a window is measured. Quantiles can't be added up.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a handful of slices")]
    fn slices(&self, row: &Row) -> usize {
        match (row.how, row.work) {
            (How::Timed, Work::Paced { .. } | Work::Mixed { .. }) | (How::Memory | How::SystemCalls, _) => 1,
            (How::Timed, _) => (self.seconds / SLICE).ceil().max(1.0) as usize,
        }
    }
}

/// One sample of one row and gateway, named by their indexes in the plan.
pub(crate) struct Measured {
    pub(crate) row: usize,
    pub(crate) gateway: usize,
    pub(crate) round: usize,
    pub(crate) sample: Sample,
    /// What it is the sum of.
    pub(crate) slices: Vec<Sample>,
}

pub(crate) struct Results {
    pub(crate) measured: Vec<Measured>,
    pub(crate) failures: Vec<String>,
}

/// Runs the plan; what fails is named and left out.
pub(crate) async fn run(plan: &Plan) -> anyhow::Result<Results> {
    let bench = Bench::start(plan).await?;
    let mut results = Results { measured: Vec::new(), failures: Vec::new() };
    let count = plan.gateways.len();
    for round in 0..plan.rounds {
        let (mut running, mut logged) = (Vec::new(), None);
        for (row_index, row) in plan.rows.iter().enumerate() {
            if logged.replace(row.logged) != Some(row.logged) {
                running.clear();
                for gateway in &plan.gateways {
                    running.push(bench.start_gateway(gateway, row.logged).await?);
                }
            }
            progress(&format!("round {} of {}: {}", round + 1, plan.rounds, row.name));
            let mut slices = vec![Vec::new(); count];
            for slice in 0..plan.slices(row) {
                for turn in 0..count {
                    // No gateway always comes first, or always after the same one.
                    let index = (turn + slice + round + row_index) % count;
                    let installed = &plan.gateways[index];
                    if !installed.gateway.takes_part(row) {
                        continue;
                    }
                    match bench.measure(row, slice, installed, &running[index]).await {
                        Ok(sample) => slices[index].push(sample),
                        Err(e) => {
                            let name = &installed.gateway.name;
                            let words = running[index].last_words();
                            let failure =
                                format!("{name}, {}, round {}: {e:#}\n{words}", row.name, round + 1);
                            progress(failure.trim_end());
                            results.failures.push(failure);
                            running[index] = bench.start_gateway(installed, row.logged).await?;
                        }
                    }
                }
            }
            for (gateway, slices) in slices.into_iter().enumerate() {
                if let Some(sample) = Sample::sum(&slices) {
                    results.measured.push(Measured { row: row_index, gateway, round, sample, slices });
                }
            }
        }
    }
    Ok(results)
}

pub(crate) fn progress(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

struct Bench<'a> {
    plan: &'a Plan,
    site: Site,
    backend: Backend,
    tracer: Option<Tracer>,
}

impl<'a> Bench<'a> {
    async fn start(plan: &'a Plan) -> anyhow::Result<Self> {
        let site = Site::prepare()?;
        for row in &plan.rows {
            if let Work::Idle { sockets, .. } = row.work {
                let needed = 2 * sockets as u64 + 500;
                ensure!(
                    needed <= site.files,
                    "{sockets} idle sockets need `ulimit -n {needed}`; here {}",
                    site.files
                );
            }
        }
        let counts = plan.rows.iter().any(|row| row.how == How::SystemCalls);
        let tracer = if counts { Tracer::find() } else { None };
        if counts && tracer.is_none() {
            progress(
                "system calls can't be counted: neither perf nor strace works here; the rows are left out",
            );
        }
        let backend = Backend::start(plan.load_core).await?;
        Ok(Self { plan, site, backend, tracer })
    }

    async fn start_gateway(&self, installed: &Installed, logged: bool) -> anyhow::Result<Running> {
        let values = installed.gateway.logged(logged);
        installed.start(&self.site, self.backend.port, &[self.plan.gateway_core], &values).await
    }

    async fn measure(
        &self,
        row: &Row,
        slice: usize,
        installed: &Installed,
        running: &Running,
    ) -> anyhow::Result<Sample> {
        let fresh;
        let (sample, running) = match row.how {
            How::Timed => (self.timed(row, slice, installed, running).await?, running),
            How::Memory => {
                fresh = self.start_gateway(installed, row.logged).await?;
                (self.memory(row.work, &fresh).await?, &fresh)
            }
            How::SystemCalls => (self.system_calls(row.work, running).await?, running),
        };
        // Where lines are counted, sessions would add theirs.
        if installed.gateway.ours && !row.logged && slice + 1 == self.plan.slices(row) {
            let strict = self.load(self.job(Work::Strict { oversize: OVERSIZE }, running)).await;
            strict.context("the scanner was not on")?;
        }
        Ok(sample)
    }

    fn job(&self, work: Work, running: &Running) -> Job {
        Job {
            work,
            port: running.port,
            certificate: self.site.chain.clone(),
            gateway: running.raw_pids(),
            backend: self.backend.child.pid.as_raw(),
            cores: [self.plan.gateway_core, self.plan.load_core],
            warm_up: self.plan.warm_up,
            seconds: self.plan.seconds,
            gate: false,
            connections_per_second: None,
        }
    }

    async fn load(&self, job: Job) -> anyhow::Result<Sample> {
        Load::start(&job, &self.backend, self.plan.load_core).await?.sample().await
    }

    /// A sample, or the quietest of several where others want the cores too.
    async fn timed(
        &self,
        row: &Row,
        slice: usize,
        installed: &Installed,
        running: &Running,
    ) -> anyhow::Result<Sample> {
        let warm_up = if slice == 0 { self.plan.warm_up } else { self.plan.warm_up.min(SLICE_WARM_UP) };
        let seconds = self.plan.seconds / self.plan.slices(row) as f64;
        let job = Job { warm_up, seconds, ..self.job(row.work, running) };
        let load = async || {
            let log = if row.logged { running.access_log(&installed.gateway)? } else { None };
            let sample = self.load(job.clone()).await?;
            if let Some(log) = log {
                log.has_all(sample.requests).await?;
            }
            anyhow::Ok(sample)
        };
        let mut quietest = load().await?;
        for _ in 0..self.plan.retries {
            if quietest.others() <= QUIET {
                break;
            }
            let sample = load().await?;
            if sample.others() < quietest.others() {
                quietest = sample;
            }
        }
        Ok(quietest)
    }

    async fn memory(&self, work: Work, running: &Running) -> anyhow::Result<Sample> {
        let warm_up = Job { warm_up: 0.0, seconds: 0.2, ..self.job(WARM_UP_SOCKETS, running) };
        self.load(warm_up).await?;
        sleep(SETTLING).await;
        let before = pss(&running.pids)?;
        let mut load =
            Load::start(&Job { gate: true, ..self.job(work, running) }, &self.backend, self.plan.load_core)
                .await?;
        load.ready().await?;
        sleep(SETTLING).await;
        let after = pss(&running.pids)?;
        load.go().await?;
        Ok(Sample { memory: after as f64 - before as f64, ..load.sample().await? })
    }

    async fn system_calls(&self, work: Work, running: &Running) -> anyhow::Result<Sample> {
        let Some(tracer) = self.tracer else {
            return Ok(Sample { system_calls: f64::NAN, ..Sample::default() });
        };
        let mut load =
            Load::start(&Job { gate: true, ..self.job(work, running) }, &self.backend, self.plan.load_core)
                .await?;
        load.ready().await?;
        let counting = tracer.attach(&running.pids, self.site.dir.path(), self.plan.load_core).await?;
        load.go().await?;
        let sample = load.sample().await?;
        Ok(Sample { system_calls: counting.finish().await? as f64, ..sample })
    }
}

/// A backend at work, which is the load, too, where messages are echoed.
pub(crate) struct Backend {
    pub(crate) child: Child,
    pub(crate) port: u16,
    pipes: Mutex<Pipes>,
}

impl Backend {
    pub(crate) async fn start(core: usize) -> anyhow::Result<Self> {
        let (child, mut pipes) = start(core, &["backend"])?;
        let port = pipes.output.next_line().await?.context("the backend doesn't start")?.parse()?;
        Ok(Self { child, port, pipes: Mutex::new(pipes) })
    }
}

/// What a process of ours is told, and says.
pub(crate) struct Pipes {
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

/// This program again.
fn start(core: usize, args: &[&str]) -> anyhow::Result<(Child, Pipes)> {
    let own = env::current_exe()?;
    let mut child = Child::spawn(&[core], own.as_os_str(), args, |command| {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
    })?;
    let input = child.process.stdin.take().context("no stdin")?;
    let output = child.process.stdout.take().context("no stdout")?;
    Ok((child, Pipes { input, output: BufReader::new(output).lines() }))
}

/// A load at work: the backend, or a process of its own.
pub(crate) enum Load<'a> {
    Backend(MutexGuard<'a, Pipes>),
    Process { _child: Box<Child>, pipes: Pipes },
}

impl<'a> Load<'a> {
    pub(crate) async fn start(job: &Job, backend: &'a Backend, core: usize) -> anyhow::Result<Self> {
        let line = serde_json::to_string(job)?;
        if job.work.is_timed() {
            let mut load = Self::Backend(backend.pipes.lock().await);
            load.tell(&line).await?;
            return Ok(load);
        }
        let (child, pipes) = start(core, &["load", &line])?;
        Ok(Self::Process { _child: Box::new(child), pipes })
    }

    fn pipes(&mut self) -> &mut Pipes {
        match self {
            Self::Backend(pipes) => pipes,
            Self::Process { pipes, .. } => pipes,
        }
    }

    pub(crate) async fn line(&mut self) -> anyhow::Result<String> {
        self.pipes().output.next_line().await?.context("the load has failed")
    }

    pub(crate) async fn ready(&mut self) -> anyhow::Result<()> {
        match self.line().await?.as_str() {
            "ready" => Ok(()),
            other => bail!("{other}"),
        }
    }

    pub(crate) async fn go(&mut self) -> anyhow::Result<()> {
        self.tell("go").await
    }

    pub(crate) async fn tell(&mut self, line: &str) -> anyhow::Result<()> {
        Ok(self.pipes().input.write_all(format!("{line}\n").as_bytes()).await?)
    }

    /// What the load says at its end: a sample, or what went wrong.
    pub(crate) async fn sample(&mut self) -> anyhow::Result<Sample> {
        let line = self.line().await?;
        serde_json::from_str(&line).map_err(|_| anyhow::anyhow!(line))
    }
}
