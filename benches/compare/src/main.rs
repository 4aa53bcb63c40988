//! wssgate beside other gateways: the same certificate, backend and load, one core each.
//!
//! The program is four in one: the harness, and, as processes of their own so that each has its CPU
//! clock and its core, the backend, the load, and a shim that pins a process before it begins.

mod access_log;
mod backend;
mod broadcast;
mod child;
mod compression;
mod flame;
mod floor;
mod frame;
mod gateways;
mod harness;
mod job;
mod live_load;
mod load;
mod load_process;
mod process;
mod reload;
mod report;
mod restart;
mod rows;
mod scale;
mod setup;
mod stats;
mod syscalls;
mod template;

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use child::Cores;
use clap::{Args, Parser, Subcommand};
use gateways::{Built, Installed};
use harness::Plan;
use job::{Job, Work};
use serde_json::Value;
use setup::Kind;
use tokio::runtime::Builder;
use tokio::select;
use tokio::signal::unix::{SignalKind, signal};

/// Measure wssgate beside nginx, HAProxy and Caddy
#[derive(Debug, Parser)]
#[command(name = "compare", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Args)]
struct Options {
    /// Rows to measure, by name; default: all
    rows: Vec<String>,
    /// How often everything is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Seconds of a timed window
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// How often a timed sample is taken again if others took over 10 % of a core; the quietest is kept
    #[arg(long, default_value_t = 0, value_name = "TIMES")]
    retries: u16,
    /// One short round with 2,000 idle sockets
    #[arg(long, conflicts_with_all = ["rounds", "seconds", "idle"])]
    quick: bool,
    /// Gateways to measure, by name, in this order; default: all of gateways.toml
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    gateways: Vec<String>,
    /// Idle sockets
    #[arg(long, default_value_t = 9000, value_name = "SOCKETS")]
    idle: usize,
    #[command(flatten)]
    place: Place,
}

/// How costs grow with sockets, workers, routes, certificates, message size
#[derive(Debug, Args)]
struct ScaleOptions {
    /// Parts to measure, by name; default: all
    parts: Vec<String>,
    /// How often each timed case is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Seconds of a timed window
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// How many gateways hold idle sockets together, each as many as a process may
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    gateways: u16,
    #[command(flatten)]
    place: Place,
}

/// What reloads and a new binary drop and leave behind under live sockets
#[derive(Debug, Args)]
struct ReloadOptions {
    /// Sockets that live before the first reload
    #[arg(long, default_value_t = 200)]
    sockets: usize,
    /// Sockets that are opened before each, and while the binary is replaced
    #[arg(long, default_value_t = 20)]
    more: usize,
    /// How many reloads, a second apart
    #[arg(long, default_value_t = 10)]
    reloads: usize,
    /// Gateways to measure, by name, in this order; default: all of gateways.toml
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    gateways: Vec<String>,
    #[command(flatten)]
    place: Place,
}

/// Where the CPU time of a row goes
#[derive(Debug, Args)]
struct FlameOptions {
    /// Rows to look into, by name; default: all that are timed
    rows: Vec<String>,
    /// The gateway, by name
    #[arg(long, default_value = "wssgate", value_name = "NAME")]
    gateway: String,
    /// Seconds that are sampled
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Where flame graphs (SVG) and folded stacks go; without it only the table is made
    #[arg(long, value_name = "DIRECTORY")]
    out: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

/// What a message to all clients costs a server: wss-service beside other libraries
#[derive(Debug, Args)]
struct BroadcastOptions {
    /// Servers to measure, by name; default: all
    servers: Vec<String>,
    /// Clients that get each message
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u16).range(1..))]
    clients: u16,
    /// Messages of each length
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    messages: u32,
    /// How often each server is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Python with websockets; default: what tests/interop/run has installed
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// The directory whose node_modules have ws; default: the same
    #[arg(long, value_name = "DIRECTORY")]
    modules: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

/// What an echo costs a server that compresses, and one that doesn't: wss-service, wssgate, Node ws, a fork of tungstenite
#[derive(Debug, Args)]
struct CompressionOptions {
    /// Clients with one message in flight each
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    clients: u16,
    /// Messages of each client, for each length and kind of compression
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u16).range(1..))]
    messages: u16,
    /// How often each server is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// The directory whose node_modules have ws; default: what tests/interop/run has installed
    #[arg(long, value_name = "DIRECTORY")]
    modules: Option<PathBuf>,
    /// The program of benches/compare/compression/tungstenite; without it, it is not measured
    #[arg(long, value_name = "PATH")]
    tungstenite: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

/// What all measurements have in common.
#[derive(Debug, Args)]
struct Place {
    /// Where everything goes as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The binary to measure, instead of a fresh build
    #[arg(long, value_name = "PATH")]
    wssgate: Option<PathBuf>,
    /// The core of the gateways
    #[arg(long, default_value_t = 0, value_name = "CORE")]
    gateway_core: usize,
    /// The core of load and backend
    #[arg(long, default_value_t = 1, value_name = "CORE")]
    load_core: usize,
}

/// Other things than the comparison, some of which the harness starts.
#[derive(Debug, Subcommand)]
enum Part {
    Scale(ScaleOptions),
    Reload(ReloadOptions),
    Flame(FlameOptions),
    Broadcast(BroadcastOptions),
    #[command(hide = true)]
    BroadcastServer(broadcast::servers::Options),
    Compression(CompressionOptions),
    #[command(hide = true)]
    CompressionServer(compression::Options),
    #[command(hide = true)]
    Backend,
    #[command(hide = true)]
    Floor(floor::Options),
    #[command(hide = true)]
    Load {
        job: String,
    },
    #[command(hide = true)]
    Pin {
        #[arg(value_parser = child::parse_cores)]
        cores: Cores,
        command: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let _ = writeln!(std::io::stderr(), "compare: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let Arguments { part, options } = Arguments::parse();
    let runtime = || Builder::new_current_thread().enable_all().build();
    match part {
        Some(Part::Pin { cores, command }) => child::become_pinned(&cores.0, &command),
        Some(Part::Backend) => load_process::serve(),
        Some(Part::Floor(options)) => floor::serve(&options),
        Some(Part::Load { job }) => {
            let job: Job = serde_json::from_str(&job)?;
            if matches!(job.work, Work::Live { .. }) {
                return runtime()?.block_on(load::live::run(&job));
            }
            let result = runtime()?.block_on(load::run(&job));
            Ok(writeln!(std::io::stdout(), "{}", load_process::line(result)?)?)
        }
        Some(Part::Scale(options)) => runtime()?.block_on(until_stopped(scale(options))),
        Some(Part::Reload(options)) => runtime()?.block_on(until_stopped(reload(options))),
        Some(Part::Flame(options)) => runtime()?.block_on(until_stopped(flame(options))),
        Some(Part::Broadcast(options)) => runtime()?.block_on(until_stopped(broadcast_to_all(options))),
        Some(Part::BroadcastServer(options)) => broadcast::servers::serve(&options),
        Some(Part::Compression(options)) => runtime()?.block_on(until_stopped(compression(options))),
        Some(Part::CompressionServer(options)) => compression::serve(&options),
        None => runtime()?.block_on(until_stopped(compare(options))),
    }
}

/// Whatever ends this future ends all that it has started.
async fn until_stopped(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    select! {
        result = work => result,
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    }
}

impl Place {
    fn check(&self) -> anyhow::Result<()> {
        ensure!(!cfg!(debug_assertions), "run this with --release");
        ensure!(self.gateway_core != self.load_core, "gateways and load need a core each");
        Ok(())
    }

    /// The gateways of these names, with what has to be built for them. Missing peers are told before
    /// anything is built.
    async fn installed(&self, names: &[String]) -> anyhow::Result<Vec<Installed>> {
        let catalogue = gateways::catalogue(names)?;
        let others = catalogue.iter().filter(|gateway| !gateway.is_built());
        gateways::find(others.cloned().collect(), &Built::default())?;
        let mut built = Built::default();
        for gateway in &catalogue {
            match (gateway.is_built(), gateway.is_unscanned(), &self.wssgate) {
                (false, ..) => {}
                (true, false, Some(path)) => {
                    let path = path.canonicalize().with_context(|| path.display().to_string())?;
                    built.wssgate = Some(path);
                }
                (true, false, None) => built.wssgate = Some(setup::build_wssgate(Kind::Release).await?),
                (true, true, _) => built.unscanned = Some(setup::build_wssgate(Kind::Unscanned).await?),
            }
        }
        gateways::find(catalogue, &built)
    }

    fn write(&self, text: &str, json: &Value) -> anyhow::Result<()> {
        write!(std::io::stdout(), "{text}")?;
        if let Some(file) = &self.json {
            let json = serde_json::to_string_pretty(json)?;
            fs::write(file, json + "\n").with_context(|| file.display().to_string())?;
        }
        Ok(())
    }
}

/// Refuses names that nothing has.
fn check_names<'a>(what: &str, names: &[String], known: impl Iterator<Item = &'a str>) -> anyhow::Result<()> {
    let known: Vec<_> = known.collect();
    for name in names {
        ensure!(known.contains(&name.as_str()), "no {what} {name}; there are {}", known.join(", "));
    }
    Ok(())
}

async fn compare(options: Options) -> anyhow::Result<()> {
    let place = &options.place;
    place.check()?;
    let (rounds, seconds, warm_up, idle) = match options.quick {
        true => (1, 1.0, 0.3, 2000),
        false => (options.rounds.into(), options.seconds, 0.5, options.idle),
    };
    let mut rows = rows::rows(idle);
    check_names("row", &options.rows, rows.iter().map(|row| row.name))?;
    rows.retain(|row| options.rows.is_empty() || options.rows.iter().any(|name| name == row.name));
    let gateways = place.installed(&options.gateways).await?;
    let (gateway_core, load_core) = (place.gateway_core, place.load_core);
    let retries = options.retries;
    let plan = Plan { rows, gateways, rounds, seconds, warm_up, retries, gateway_core, load_core };
    let results = harness::run(&plan).await?;
    place.write(&report::text(&plan, &results), &report::json(&plan, &results))?;
    ensure!(results.failures.is_empty(), "{} samples are missing; see above", results.failures.len());
    Ok(())
}

async fn scale(options: ScaleOptions) -> anyhow::Result<()> {
    let place = &options.place;
    place.check()?;
    check_names("part", &options.parts, scale::PARTS.iter().map(|(name, _)| *name))?;
    let mut installed = place.installed(&["wssgate".to_owned()]).await?;
    let plan = scale::Plan {
        parts: options.parts,
        wssgate: installed.remove(0),
        rounds: options.rounds.into(),
        seconds: options.seconds,
        gateways: options.gateways.into(),
        gateway_core: place.gateway_core,
        load_core: place.load_core,
    };
    let tell = |text: &str| drop(writeln!(std::io::stdout(), "{text}"));
    let parts = scale::run(&plan, tell).await?;
    place.write("", &scale::json(&plan, &parts))
}

async fn reload(options: ReloadOptions) -> anyhow::Result<()> {
    let place = &options.place;
    place.check()?;
    let gateways = place.installed(&options.gateways).await?;
    let plan = reload::Plan {
        gateways,
        sockets: options.sockets,
        more: options.more,
        reloads: options.reloads,
        cores: [place.gateway_core, place.load_core],
    };
    let outcomes = reload::run(&plan).await?;
    place.write(&reload::text(&plan, &outcomes), &reload::json(&plan, &outcomes))
}

async fn flame(options: FlameOptions) -> anyhow::Result<()> {
    let place = &options.place;
    place.check()?;
    let mut rows = rows::rows(0);
    rows.retain(|row| row.how == rows::How::Timed);
    check_names("timed row", &options.rows, rows.iter().map(|row| row.name))?;
    rows.retain(|row| options.rows.is_empty() || options.rows.iter().any(|name| name == row.name));
    let mut installed = place.installed(&[options.gateway]).await?;
    let plan = flame::Plan {
        rows,
        gateway: installed.remove(0),
        seconds: options.seconds,
        out: options.out,
        gateway_core: place.gateway_core,
        load_core: place.load_core,
    };
    let profiles = flame::run(&plan).await?;
    place.write(&flame::text(&plan, &profiles), &flame::json(&plan, &profiles))
}

async fn broadcast_to_all(options: BroadcastOptions) -> anyhow::Result<()> {
    let place = &options.place;
    place.check()?;
    let [python, modules] = broadcast::installed();
    let (python, modules) = (options.python.unwrap_or(python), options.modules.unwrap_or(modules));
    let mut servers = broadcast::Server::all(&python, &modules, options.clients.into())?;
    check_names("server", &options.servers, servers.iter().map(|server| server.name))?;
    servers.retain(|server| {
        options.servers.is_empty() || options.servers.iter().any(|name| name == server.name)
    });
    let plan = broadcast::Plan {
        servers,
        clients: options.clients.into(),
        broadcasts: options.messages,
        rounds: options.rounds.into(),
        server_core: place.gateway_core,
        load_core: place.load_core,
    };
    let tell = |text: &str| drop(writeln!(std::io::stdout(), "{text}"));
    let results = broadcast::run(&plan, tell).await?;
    place.write(&broadcast::text(&plan, &results), &broadcast::json(&plan, &results))
}

async fn compression(options: CompressionOptions) -> anyhow::Result<()> {
    let place = &options.place;
    place.check()?;
    let [_, modules] = broadcast::installed();
    let plan = compression::Plan {
        gateway: place.installed(&["wssgate".to_owned()]).await?.remove(0),
        modules: options.modules.unwrap_or(modules),
        tungstenite: options.tungstenite,
        clients: options.clients.into(),
        messages: options.messages.into(),
        rounds: options.rounds.into(),
        server_core: place.gateway_core,
        load_core: place.load_core,
    };
    let tell = |text: &str| drop(writeln!(std::io::stdout(), "{text}"));
    let cases = compression::run(&plan, tell).await?;
    place.write(&compression::text(&plan, &cases), &compression::json(&plan, &cases))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_command_keeps_its_arguments() {
        let line = ["compare", "pin", "0,1", "--", "perf", "record", "-p", "7", "--", "sleep", "2"];
        let Some(Part::Pin { cores, command }) = Arguments::parse_from(line).part else {
            unreachable!("not a pin")
        };
        assert_eq!(cores.0, [0, 1]);
        assert_eq!(command, ["perf", "record", "-p", "7", "--", "sleep", "2"]);
    }
}
