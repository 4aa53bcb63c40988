//! What a reload costs: sockets that stay open while the certificate is renewed again and again.
//!
//! Each gateway is run twice, the second time without reloads: what is left behind is what the first
//! run has more. A third time it is replaced by a new process of its program.

use std::time::Duration;

use anyhow::{Context, ensure};
use comfy_table::{CellAlignment, Table, presets};
use nix::sys::signal::{Signal, kill};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::time::sleep;

use crate::gateways::{Installed, Reload, Running};
use crate::harness::{Backend, progress};
use crate::job::Live;
use crate::live_load::{BETWEEN, load_of_live_sockets};
use crate::process::{pss, tree};
use crate::report::{commit, kernel, processor};
use crate::restart::{self, Restarted};
use crate::setup::Site;

/// From the last reload until memory is read.
const SETTLING: Duration = Duration::from_secs(3);

/// What is to be done.
pub(crate) struct Plan {
    pub(crate) gateways: Vec<Installed>,
    pub(crate) sockets: usize,
    pub(crate) more: usize,
    pub(crate) reloads: usize,
    pub(crate) cores: [usize; 2],
}

/// What came of one gateway.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    reloaded: Live,
    processes_left: usize,
    memory_left: f64,
    undisturbed: Live,
    restarted: Restarted,
}

/// Runs the plan, gateway by gateway.
pub(crate) async fn run(plan: &Plan) -> anyhow::Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for installed in &plan.gateways {
        let name = &installed.gateway.name;
        progress(name);
        let disturbed = watch(plan, installed, true).await.with_context(|| name.clone())?;
        let undisturbed = watch(plan, installed, false).await.with_context(|| name.clone())?;
        let restarted = restart::watch(installed, plan.sockets, plan.more, plan.cores)
            .await
            .with_context(|| name.clone())?;
        outcomes.push(Outcome {
            restarted,
            processes_left: disturbed.processes.saturating_sub(undisturbed.processes),
            memory_left: disturbed.memory - undisturbed.memory,
            reloaded: disturbed.live,
            undisturbed: undisturbed.live,
        });
    }
    Ok(outcomes)
}

struct Watched {
    live: Live,
    processes: usize,
    memory: f64,
}

async fn watch(plan: &Plan, installed: &Installed, reloading: bool) -> anyhow::Result<Watched> {
    let site = Site::prepare()?;
    let [gateway_core, load_core] = plan.cores;
    let backend = Backend::start(load_core).await?;
    let running = installed.start(&site, backend.port, &[gateway_core], &[]).await?;
    let mut load = load_of_live_sockets(plan.cores, &site, &backend, running.port).await?;
    load.tell(&format!("more {}", plan.sockets)).await?;
    load.ready().await?;
    sleep(BETWEEN).await; // the first message of a socket is dearer than the rest
    load.tell("mark").await?;
    load.ready().await?;
    for _ in 0..plan.reloads {
        load.tell(&format!("more {}", plan.more)).await?;
        load.ready().await?;
        if reloading {
            site.renew()?;
            reload(&installed.gateway.reload, &running).await?;
        }
        sleep(BETWEEN).await;
    }
    // By the newest certificate alone: the last reload took, too.
    load.tell("more 1").await?;
    load.ready().await?;
    load.tell("end").await?;
    let live: Live = serde_json::from_str(&load.line().await?)?;
    sleep(SETTLING).await;
    let pids = tree(running.child.pid)?;
    Ok(Watched { live, processes: pids.len(), memory: pss(&pids)? as f64 })
}

async fn reload(how: &Reload, running: &Running) -> anyhow::Result<()> {
    match how {
        Reload::Signal(name) => {
            let signal: Signal = name.parse().with_context(|| format!("no signal {name}"))?;
            Ok(kill(running.child.pid, signal)?)
        }
        Reload::Command(_) => {
            let (program, args) = running.reload.split_first().context("an empty command")?;
            let output = tokio::process::Command::new(program)
                .args(args)
                .envs(running.env.iter().cloned())
                .kill_on_drop(true)
                .output()
                .await?;
            let words = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(output.status.success(), "the reload failed: {words}");
            Ok(())
        }
    }
}

type Line = (&'static str, fn(&Outcome) -> String);

const LINES: [Line; 15] = [
    ("sockets opened", |o| o.reloaded.asked.to_string()),
    ("of them refused", |o| o.reloaded.refused.to_string()),
    ("of them dropped", |o| o.reloaded.dropped.to_string()),
    ("processes left behind", |o| o.processes_left.to_string()),
    ("memory left behind, MB", |o| format!("{:.1}", o.memory_left / 1e6)),
    ("worst latency, ms", |o| format!("{:.1}", o.reloaded.worst)),
    ("the same without reloads", |o| format!("{:.1}", o.undisturbed.worst)),
    ("p99 latency, ms", |o| format!("{:.2}", o.reloaded.p99)),
    ("the same without reloads", |o| format!("{:.2}", o.undisturbed.p99)),
    ("new binary: sockets dropped", |o| o.restarted.live.dropped.to_string()),
    ("new sockets refused", |o| o.restarted.live.refused.to_string()),
    ("processes before, and 10 s after", |o| between(o.restarted.processes.map(|n| n.to_string()))),
    ("MB before, and 10 s after", |o| between(o.restarted.memory.map(|n| format!("{:.1}", n / 1e6)))),
    ("worst latency, ms", |o| format!("{:.1}", o.restarted.live.worst)),
    ("p99 latency, ms", |o| format!("{:.2}", o.restarted.live.p99)),
];

fn between([before, after]: [String; 2]) -> String {
    format!("{before} → {after}")
}

/// A table, and what first went wrong, if anything did.
pub(crate) fn text(plan: &Plan, outcomes: &[Outcome]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    let names = plan.gateways.iter().map(|installed| installed.gateway.name.clone());
    let title = format!("{} sockets, {} reloads, {} more before each", plan.sockets, plan.reloads, plan.more);
    table.set_header([title].into_iter().chain(names));
    for (title, cell) in LINES {
        table.add_row([title.to_owned()].into_iter().chain(outcomes.iter().map(cell)));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let troubles = plan.gateways.iter().zip(outcomes).filter_map(|(installed, outcome)| {
        let trouble = outcome.reloaded.first_trouble.as_ref()?;
        Some(format!("{}: {trouble}\n", installed.gateway.name))
    });
    let mut lines = vec![format!("{}, Linux {}, commit {}", processor(), kernel(), commit())];
    lines.extend(plan.gateways.iter().map(|i| format!("{}: {}", i.gateway.name, i.version)));
    format!("{}\n\n{table}\n{}", lines.join("\n"), troubles.collect::<String>())
}

/// Everything.
pub(crate) fn json(plan: &Plan, outcomes: &[Outcome]) -> Value {
    let names = plan.gateways.iter().map(|installed| installed.gateway.name.clone());
    let versions = plan.gateways.iter().map(|installed| json!(installed.version));
    json!({
        "processor": processor(),
        "kernel": kernel(),
        "commit": commit(),
        "sockets": plan.sockets,
        "more": plan.more,
        "reloads": plan.reloads,
        "gateways": names.clone().zip(versions).collect::<Map<_, _>>(),
        "outcomes": names.zip(outcomes.iter().map(|outcome| json!(outcome))).collect::<Map<_, _>>(),
    })
}
