//! wssgate beside other gateways: the same certificate, backend and load, one core each.
//!
//! The program is four in one: the harness, and, as processes of their own so that each has its CPU
//! clock and its core, the backend, the load, and a shim that pins a process before it begins.

mod backend;
mod child;
mod frame;
mod gateways;
mod harness;
mod job;
mod load;
mod process;
mod report;
mod rows;
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
use clap::{Args, Parser, Subcommand};
use harness::Plan;
use tokio::runtime::Builder;
use tokio::select;
use tokio::signal::unix::{SignalKind, signal};

/// Measure wssgate beside nginx, HAProxy and Caddy
#[derive(Debug, Parser)]
#[command(name = "compare", args_conflicts_with_subcommands = true)]
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

/// What the harness starts.
#[derive(Debug, Subcommand)]
enum Part {
    #[command(hide = true)]
    Backend,
    #[command(hide = true)]
    Load { job: String },
    #[command(hide = true)]
    Pin { core: usize, command: Vec<OsString> },
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
        Some(Part::Pin { core, command }) => child::become_pinned(core, &command),
        Some(Part::Backend) => runtime()?.block_on(backend::serve()),
        Some(Part::Load { job }) => {
            let job = serde_json::from_str(&job)?;
            let result = runtime()?.block_on(load::run(&job));
            // An error is one line too: the harness knows which gateway it is about.
            let line = match result {
                Ok(sample) => serde_json::to_string(&sample)?,
                Err(e) => format!("{e:#}").replace('\n', " "),
            };
            Ok(writeln!(std::io::stdout(), "{line}")?)
        }
        None => runtime()?.block_on(async {
            let (mut interrupt, mut terminate) =
                (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
            // Whatever ends this future ends all that it has started.
            select! {
                result = compare(options) => result,
                _ = interrupt.recv() => bail!("interrupted"),
                _ = terminate.recv() => bail!("terminated"),
            }
        }),
    }
}

async fn compare(options: Options) -> anyhow::Result<()> {
    ensure!(!cfg!(debug_assertions), "run this with --release");
    ensure!(options.gateway_core != options.load_core, "gateways and load need a core each");
    let (rounds, seconds, warm_up, idle) = match options.quick {
        true => (1, 1.0, 0.3, 2000),
        false => (options.rounds.into(), options.seconds, 0.5, options.idle),
    };
    let mut rows = rows::rows(idle);
    for name in &options.rows {
        let known = || rows.iter().map(|row| row.name).collect::<Vec<_>>().join(", ");
        ensure!(rows.iter().any(|row| row.name == name), "no row {name}; there are {}", known());
    }
    rows.retain(|row| options.rows.is_empty() || options.rows.iter().any(|name| name == row.name));

    let catalogue = gateways::catalogue(&options.gateways)?;
    // Missing peers are told before anything is built.
    gateways::find(catalogue.iter().filter(|gateway| !gateway.ours).cloned().collect(), None)?;
    let wssgate = match options.wssgate {
        Some(path) => Some(path.canonicalize().with_context(|| path.display().to_string())?),
        None if catalogue.iter().any(|gateway| gateway.ours) => Some(setup::build_wssgate().await?),
        None => None,
    };
    let gateways = gateways::find(catalogue, wssgate.as_deref())?;

    let (gateway_core, load_core) = (options.gateway_core, options.load_core);
    let retries = options.retries;
    let plan = Plan { rows, gateways, rounds, seconds, warm_up, retries, gateway_core, load_core };
    let results = harness::run(&plan).await?;
    write!(std::io::stdout(), "{}", report::text(&plan, &results))?;
    if let Some(file) = options.json {
        let json = serde_json::to_string_pretty(&report::json(&plan, &results))?;
        fs::write(&file, json + "\n").with_context(|| file.display().to_string())?;
    }
    ensure!(results.failures.is_empty(), "{} samples are missing; see above", results.failures.len());
    Ok(())
}
