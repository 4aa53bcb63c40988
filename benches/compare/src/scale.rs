//! How what wssgate costs grows: with sockets, workers, routes, certificates, message size.
//!
//! Each part has its cases, each case a gateway (or several) of its own. All are started first, then
//! measured in turn, round for round; what a gateway costs is read as the comparison reads it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use comfy_table::{CellAlignment, Table, presets};
use nix::unistd::Pid;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::gateways::{Installed, Running};
use crate::harness::{Backend, Load, progress};
use crate::job::{Job, Packing, Sample, Work};
use crate::process::{cpu_time, pss, slab};
use crate::report::{commit, kernel, processor};
use crate::rows::OVERSIZE;
use crate::setup::Site;
use crate::stats::{median, spread};

/// The parts and what they ask.
pub(crate) const PARTS: [(&str, &str); 6] = [
    ("sockets", "idle sockets, each with a ping and a pong in 30 s"),
    ("around", "64 B echo over 64 sockets, others idle around them"),
    ("workers", "the same load on one worker and on two"),
    ("routes", "hosts with a route each"),
    ("certificates", "certificates in a directory"),
    ("sizes", "echo over 16 sockets, 4 in flight, by message size"),
];

/// Connections that all loads together begin in a second at most.
const OPENED_PER_SECOND: u32 = 5000;
/// wssgate's default: after so long each idle socket has been pinged once.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const SETTLING: Duration = Duration::from_secs(1);
/// File descriptors of a process that are not for sockets of sessions.
const SPARE_FILES: u64 = 500;
const CERTIFICATES_PER_DIRECTORY: usize = 1000;

/// What is to be done.
pub(crate) struct Plan {
    pub(crate) parts: Vec<String>,
    pub(crate) wssgate: Installed,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    /// How many gateways hold idle sockets together.
    pub(crate) gateways: usize,
    pub(crate) gateway_core: usize,
    pub(crate) load_core: usize,
}

/// What one part came to.
pub(crate) struct Part {
    name: &'static str,
    title: &'static str,
    cases: Vec<Case>,
}

struct Case {
    name: String,
    figures: Vec<Figure>,
}

struct Figure {
    what: &'static str,
    unit: &'static str,
    digits: usize,
    samples: Vec<f64>,
}

impl Case {
    fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), figures: Vec::new() }
    }

    fn add(&mut self, what: &'static str, unit: &'static str, digits: usize, sample: f64) {
        match self.figures.iter_mut().find(|figure| figure.what == what) {
            Some(figure) => figure.samples.push(sample),
            None => self.figures.push(Figure { what, unit, digits, samples: vec![sample] }),
        }
    }

    fn add_cpu(&mut self, what: &'static str, sample: &Sample) {
        self.add(what, "µs", 2, sample.gateway_cpu * 1e6 / sample.count);
    }
}

/// Measures the parts one after the other, and tells each when it is there.
pub(crate) async fn run(plan: &Plan, mut tell: impl FnMut(&str)) -> anyhow::Result<Vec<Part>> {
    tell(&heading(plan));
    let bench = Bench { plan, site: Site::prepare()?, backend: Backend::start(plan.load_core).await? };
    let mut parts = Vec::new();
    for (name, title) in PARTS {
        if !plan.parts.is_empty() && !plan.parts.iter().any(|part| part == name) {
            continue;
        }
        progress(name);
        let cases = match name {
            "sockets" => bench.sockets().await,
            "around" => bench.around().await,
            "workers" => bench.workers().await,
            "routes" => bench.routes().await,
            "certificates" => bench.certificates().await,
            _ => bench.sizes().await,
        };
        let part = Part { name, title, cases: cases.context(name)? };
        tell(&part.text());
        parts.push(part);
    }
    Ok(parts)
}

struct Bench<'a> {
    plan: &'a Plan,
    site: Site,
    backend: Backend,
}

const fn echo(sockets: usize, in_flight: u64, size: usize) -> Work {
    Work::Echo { sockets, in_flight, size, packing: Packing::Dense }
}

impl Bench<'_> {
    async fn start(&self, cores: &[usize], values: &[(&'static str, String)]) -> anyhow::Result<Running> {
        self.plan.wssgate.start(&self.site, self.backend.port, cores, values).await
    }

    fn job(&self, work: Work, running: &Running, backend: &Backend) -> Job {
        Job {
            work,
            port: running.port,
            certificate: self.site.chain.clone(),
            gateway: running.raw_pids(),
            backend: backend.child.pid.as_raw(),
            cores: [self.plan.gateway_core, self.plan.load_core],
            warm_up: 0.3,
            seconds: self.plan.seconds,
            gate: false,
            connections_per_second: None,
        }
    }

    async fn load(&self, work: Work, running: &Running) -> anyhow::Result<Sample> {
        let job = self.job(work, running, &self.backend);
        Load::start(&job, &self.backend, self.plan.load_core).await?.sample().await
    }

    /// Idle sockets: what opening them takes, what they hold, what their pings cost.
    async fn sockets(&self) -> anyhow::Result<Vec<Case>> {
        let most = usize::try_from((self.site.files - SPARE_FILES) / 2)?;
        let mut cases = Vec::new();
        for (gateways, each) in [(1, 1000), (1, most), (self.plan.gateways, most)] {
            cases.push(self.idle(gateways, each, false).await?);
        }
        cases.push(self.idle(self.plan.gateways, most, true).await?);
        Ok(cases)
    }

    /// A process may hold only so many descriptors: each gateway has a backend and a load of its own.
    /// Resumed: all clients come back at once, as after a break; the gateways have both cores for it.
    async fn idle(&self, gateways: usize, each: usize, resumed: bool) -> anyhow::Result<Case> {
        let sockets = (gateways * each) as f64;
        let how = if resumed { ", resumed, both cores" } else { "" };
        let mut case = Case::new(format!("{sockets} on {gateways} gateways{how}"));
        let both = [self.plan.gateway_core, self.plan.load_core];
        let cores = if resumed { &both[..] } else { &both[..1] };
        let (mut backends, mut running) = (Vec::new(), Vec::new());
        for _ in 0..gateways {
            let backend = Backend::start(self.plan.load_core).await?;
            let started = self.plan.wssgate.start(&self.site, backend.port, cores, &[]).await?;
            // Code and tables are to be there before memory is read.
            let job = Job { seconds: 0.2, ..self.job(echo(16, 1, 64), &started, &backend) };
            Load::start(&job, &backend, self.plan.load_core).await?.sample().await?;
            backends.push(backend);
            running.push(started);
        }
        let pids: Vec<Pid> = running.iter().flat_map(|running| running.pids.iter().copied()).collect();
        sleep(SETTLING).await;
        let before = (pss(&pids)?, slab()?, cpu_time(&pids)?, Instant::now());
        let mut loads = Vec::new();
        for (running, backend) in running.iter().zip(&backends) {
            let rate = OPENED_PER_SECOND / u32::try_from(gateways)?;
            let job = self.job(Work::Idle { sockets: each, resumed }, running, backend);
            let job = Job { gate: true, connections_per_second: Some(rate), ..job };
            loads.push(Load::start(&job, backend, self.plan.load_core).await?);
        }
        for load in &mut loads {
            load.ready().await?;
        }
        let took = before.3.elapsed().as_secs_f64();
        sleep(SETTLING).await;
        let cpu = cpu_time(&pids)?;
        case.add("opened in", "s", 1, took);
        case.add("opened", "/s", 0, sockets / took);
        case.add("CPU of opening, a socket", "µs", 0, (cpu - before.2).as_secs_f64() * 1e6 / sockets);
        case.add("memory a socket", "bytes", 0, (pss(&pids)? as f64 - before.0 as f64) / sockets);
        case.add(
            "kernel memory a session, all ends",
            "bytes",
            0,
            (slab()? as f64 - before.1 as f64) / sockets,
        );
        sleep(PING_INTERVAL).await;
        let pings = (cpu_time(&pids)? - cpu).as_secs_f64();
        case.add("CPU while idle", "% of a core", 2, pings / PING_INTERVAL.as_secs_f64() * 100.0);
        case.add("CPU of a ping and its pong", "µs", 1, pings * 1e6 / sockets);
        case.add(
            "memory a socket, after pings",
            "bytes",
            0,
            (pss(&pids)? as f64 - before.0 as f64) / sockets,
        );
        for load in &mut loads {
            load.go().await?;
        }
        for load in &mut loads {
            let echoed = load.sample().await.context("a socket that was idle")?.count;
            ensure!(echoed == each as f64, "{echoed} of {each} idle sockets echoed at the end");
        }
        drop(loads);
        sleep(SETTLING).await;
        let left = pss(&pids)? as f64 - before.0 as f64;
        case.add("memory left when they have gone", "MB", 1, left / 1e6);
        for (running, backend) in running.iter().zip(&backends) {
            self.strict(running, backend).await?;
        }
        Ok(case)
    }

    /// What a message costs among idle sockets.
    async fn around(&self) -> anyhow::Result<Vec<Case>> {
        let mut cases = Vec::new();
        let mut held = Vec::new();
        for sockets in [0, 1000, usize::try_from((self.site.files - SPARE_FILES) / 2)? - 100] {
            let running = self.start(&[self.plan.gateway_core], &[]).await?;
            let mut load = None;
            if sockets > 0 {
                let job = Job {
                    gate: true,
                    ..self.job(Work::Idle { sockets, resumed: false }, &running, &self.backend)
                };
                let started = Load::start(&job, &self.backend, self.plan.load_core).await?;
                load.insert(started).ready().await?;
            }
            cases.push((Case::new(format!("{sockets} idle")), running));
            held.push(load);
        }
        self.rounds(&mut cases, &[("a message", echo(64, 1, 64))]).await?;
        Ok(cases.into_iter().map(|(case, _)| case).collect())
    }

    async fn workers(&self) -> anyhow::Result<Vec<Case>> {
        let both = [self.plan.gateway_core, self.plan.load_core];
        let mut cases = Vec::new();
        for (name, workers, cores) in [
            ("1 worker on a core of its own", 1, &both[..1]),
            ("1 worker on both cores", 1, &both[..]),
            ("2 workers on both cores", 2, &both[..]),
        ] {
            let running = self.start(cores, &[("workers", workers.to_string())]).await?;
            cases.push((Case::new(name), running));
        }
        let works = [
            ("64 B, 64 sockets, 1 in flight", echo(64, 1, 64)),
            ("64 B, 16 sockets, 32 in flight", echo(16, 32, 64)),
            ("4 KiB, 32 sockets, 4 in flight", echo(32, 4, 4096)),
            ("full handshake", Work::Handshake { clients: 32, resumed: false }),
        ];
        self.rounds(&mut cases, &works).await?;
        Ok(cases.into_iter().map(|(case, _)| case).collect())
    }

    async fn routes(&self) -> anyhow::Result<Vec<Case>> {
        let mut cases = Vec::new();
        for count in [1, 100, 10_000] {
            // The one in the template is for any host, and is the last that is looked for.
            let route = |i| {
                let backend = self.backend.port;
                format!(
                    "[[route]]\nhost = \"host{i}.test\"\npath = \"/wss\"\nproxy = \"http://127.0.0.1:{backend}\"\n"
                )
            };
            let more = (1..count).map(route).collect::<String>();
            let running = self.start(&[self.plan.gateway_core], &[("more", more)]).await?;
            cases.push((Case::new(format!("{count} routes")), running));
        }
        self.grown(cases).await
    }

    async fn certificates(&self) -> anyhow::Result<Vec<Case>> {
        let mut cases = Vec::new();
        for count in [1, 100, 10_000] {
            let directory = self.site.dir.path().join(format!("certificates-{count}"));
            write_certificates(&directory, count - 1)?;
            let value = format!("directory = {:?}", directory.display().to_string());
            let running = self.start(&[self.plan.gateway_core], &[("directory", value)]).await?;
            cases.push((Case::new(format!("{count} certificates")), running));
        }
        self.grown(cases).await
    }

    /// What a larger configuration costs: at the start, in memory, per handshake, per request.
    async fn grown(&self, mut cases: Vec<(Case, Running)>) -> anyhow::Result<Vec<Case>> {
        for (case, running) in &mut cases {
            case.add("start", "ms", 0, running.took.as_secs_f64() * 1e3);
            case.add("memory after it", "MB", 1, pss(&running.pids)? as f64 / 1e6);
        }
        let works = [
            ("full handshake", Work::Handshake { clients: 32, resumed: false }),
            ("HTTP/1.1 request", Work::Http1 { connections: 32 }),
            ("64 B message", echo(64, 1, 64)),
        ];
        self.rounds(&mut cases, &works).await?;
        Ok(cases.into_iter().map(|(case, _)| case).collect())
    }

    async fn sizes(&self) -> anyhow::Result<Vec<Case>> {
        let running = self.start(&[self.plan.gateway_core], &[]).await?;
        let sizes = [64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];
        let mut cases: Vec<_> = sizes.iter().map(|size| Case::new(format!("{size} B"))).collect();
        for _ in 0..self.plan.rounds {
            for (case, size) in cases.iter_mut().zip(sizes) {
                let sample = self.load(echo(16, 4, size), &running).await?;
                case.add_cpu("a message", &sample);
                case.add("a byte", "ns", 3, sample.gateway_cpu * 1e9 / (sample.count * size as f64));
            }
        }
        self.strict(&running, &self.backend).await?;
        Ok(cases)
    }

    /// Loads each case with each work, interleaved.
    async fn rounds(
        &self,
        cases: &mut [(Case, Running)],
        works: &[(&'static str, Work)],
    ) -> anyhow::Result<()> {
        for _ in 0..self.plan.rounds {
            for (what, work) in works {
                for (case, running) in &mut *cases {
                    let sample = self.load(*work, running).await?;
                    case.add_cpu(what, &sample);
                }
            }
        }
        for (_, running) in cases {
            self.strict(running, &self.backend).await?;
        }
        Ok(())
    }

    async fn strict(&self, running: &Running, backend: &Backend) -> anyhow::Result<()> {
        let job = self.job(Work::Strict { oversize: OVERSIZE }, running, backend);
        let mut load = Load::start(&job, backend, self.plan.load_core).await?;
        load.sample().await.context("the scanner was not on")?;
        Ok(())
    }
}

fn write_certificates(directory: &Path, count: usize) -> anyhow::Result<()> {
    fs::create_dir_all(directory)?;
    for i in 0..count {
        let part = directory.join((i / CERTIFICATES_PER_DIRECTORY).to_string());
        fs::create_dir_all(&part)?;
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed([format!("host{i}.test")])?;
        fs::write(part.join(format!("host{i}.crt")), cert.pem())?;
        fs::write(part.join(format!("host{i}.key")), signing_key.serialize_pem())?;
    }
    Ok(())
}

impl Part {
    /// A table: medians, and the spread where there are several samples.
    fn text(&self) -> String {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
        let figures = self.cases.first().map_or(&[][..], |case| &case.figures);
        let header = figures.iter().map(|figure| format!("{}\n{}", figure.what, figure.unit));
        table.set_header([self.title.to_owned()].into_iter().chain(header));
        for case in &self.cases {
            table.add_row([case.name.clone()].into_iter().chain(case.figures.iter().map(cell)));
        }
        for index in 1..=figures.len() {
            if let Some(column) = table.column_mut(index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        format!("\n{}\n{table}", self.name)
    }
}

fn cell(figure: &Figure) -> String {
    let digits = figure.digits;
    match (median(&figure.samples), spread(&figure.samples)) {
        (Some(median), Some((least, greatest))) if figure.samples.len() > 1 => {
            format!("{median:.digits$}\n{least:.digits$}–{greatest:.digits$}")
        }
        (Some(median), _) => format!("{median:.digits$}"),
        _ => "n/a".to_owned(),
    }
}

fn heading(plan: &Plan) -> String {
    let (rounds, seconds) = (plan.rounds, plan.seconds);
    format!("{}, Linux {}, commit {}; {rounds} rounds of {seconds} s", processor(), kernel(), commit())
}

/// Everything, every sample included.
pub(crate) fn json(plan: &Plan, parts: &[Part]) -> Value {
    let figure = |figure: &Figure| {
        let (median, samples) = (median(&figure.samples), &figure.samples);
        json!({ "what": figure.what, "unit": figure.unit, "median": median, "samples": samples })
    };
    let case = |case: &Case| json!({ "name": case.name, "figures": case.figures.iter().map(figure).collect::<Vec<_>>() });
    let part = |part: &Part| json!({ "name": part.name, "title": part.title, "cases": part.cases.iter().map(case).collect::<Vec<_>>() });
    json!({
        "processor": processor(),
        "kernel": kernel(),
        "commit": commit(),
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "parts": parts.iter().map(part).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_a_figure_are_gathered() {
        let mut case = Case::new("case");
        for sample in [3.0, 1.0, 2.0] {
            case.add("what", "µs", 1, sample);
        }
        case.add("once", "s", 0, 7.0);
        assert_eq!(case.figures.iter().map(cell).collect::<Vec<_>>(), ["2.0\n1.0–3.0", "7"]);
    }

    #[test]
    fn certificates_are_as_many_as_were_asked_for() {
        let temp = tempfile::TempDir::new().unwrap();
        write_certificates(temp.path(), 3).unwrap();
        assert_eq!(fs::read_dir(temp.path().join("0")).unwrap().count(), 6);
    }
}
