//! What it costs a server to send a message to all of its clients: `wss-service` beside what is used today, and beside
//! sealing and writing alone.
//!
//! One server after the other runs on a core of its own and holds all clients; of a round, each server has its turn. The
//! first client says something, and when all have read it, it says the next.

mod bare;
mod crowd;
pub(crate) mod servers;

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::ValueEnum;
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use self::crowd::Crowd;
use self::servers::Kind;
use crate::child::{Child, pin};
use crate::process::{cpu_time, tree};
use crate::setup::Site;
use crate::stats::{median, spread};

/// Lengths of messages, in bytes.
const LENGTHS: [usize; 2] = [64, 4096];
/// Not measured.
const WARM_UP: u32 = 3;

/// What is measured.
pub(crate) struct Plan {
    pub(crate) servers: Vec<Server>,
    pub(crate) clients: usize,
    /// Of each length, in a row.
    pub(crate) broadcasts: u32,
    pub(crate) rounds: usize,
    pub(crate) server_core: usize,
    pub(crate) load_core: usize,
}

/// A server that is measured.
pub(crate) struct Server {
    pub(crate) name: &'static str,
    program: OsString,
    /// Before certificate and key.
    args: Vec<OsString>,
    /// Behind them.
    more: Vec<OsString>,
}

impl Server {
    /// All that there are, in the order of the table.
    pub(crate) fn all(python: &Path, modules: &Path, clients: usize) -> anyhow::Result<Vec<Self>> {
        let own = |name, kind: Kind| {
            let kind = kind.to_possible_value().map(|kind| kind.get_name().to_owned());
            let args = vec!["broadcast-server".into(), kind.unwrap_or_default().into()];
            Self::own(name, args, vec![clients.to_string().into()])
        };
        Ok(vec![
            own("sealing and writing", Kind::Bare)?,
            own("wss-service", Kind::Service)?,
            own("tokio-tungstenite", Kind::Tungstenite)?,
            own("axum", Kind::Axum)?,
            Self::node("broadcast/node.mjs", modules),
            Self::script("Python websockets", python, "broadcast/python.py", Vec::new()),
        ])
    }

    /// This program with these arguments.
    pub(crate) fn own(name: &'static str, args: Vec<OsString>, more: Vec<OsString>) -> anyhow::Result<Self> {
        Ok(Self { name, program: env::current_exe()?.into_os_string(), args, more })
    }

    /// Node's ws, by a script of ours.
    pub(crate) fn node(script: &str, modules: &Path) -> Self {
        let modules = modules.canonicalize().unwrap_or_else(|_| modules.into());
        Self::script("Node ws", Path::new("node"), script, vec![modules.into()])
    }

    /// One that was built by itself, and takes nothing but certificate and key.
    pub(crate) fn program(name: &'static str, program: &Path) -> Self {
        Self { name, program: program.into(), args: Vec::new(), more: Vec::new() }
    }

    fn script(name: &'static str, program: &Path, script: &str, more: Vec<OsString>) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
        Self { name, program: program.into(), args: vec![script.into()], more }
    }

    /// The process, and the port that it says it listens on.
    pub(crate) async fn start(&self, site: &Site, core: usize) -> anyhow::Result<(Child, u16)> {
        let files: [&Path; 2] = [&site.chain, &site.key];
        let files = files.map(|file| file.as_os_str().to_owned());
        let args = self.args.iter().cloned().chain(files).chain(self.more.iter().cloned());
        let mut child = Child::spawn(&[core], &self.program, args, |command| {
            command.stdout(Stdio::piped());
        })?;
        let stdout = child.process.stdout.take().context("no output")?;
        let port =
            BufReader::new(stdout).lines().next_line().await?.context("it ended before it said its port")?;
        let port = port.trim().parse().with_context(|| format!("no port: {port}"))?;
        Ok((child, port))
    }
}

/// CPU time for one receiver, in microseconds: for each server, each length, each round.
pub(crate) type Results = Vec<[Vec<f64>; LENGTHS.len()]>;

/// Measures all; `tell` gets a line as each server is done.
pub(crate) async fn run(plan: &Plan, tell: impl Fn(&str)) -> anyhow::Result<Results> {
    let site = Site::prepare()?;
    ensure!(
        site.files > plan.clients as u64 + 100,
        "{} clients need as many open files in each process, and {} are allowed (ulimit -Hn)",
        plan.clients,
        site.files
    );
    pin(&[plan.load_core])?;
    let mut results: Results = plan.servers.iter().map(|_| Default::default()).collect();
    for round in 1..=plan.rounds {
        for (server, results) in plan.servers.iter().zip(&mut results) {
            let measured = measure(plan, server, &site).await.with_context(|| server.name.to_owned())?;
            tell(&format!("round {round}, {}: {measured:.2?} us", server.name));
            for (results, measured) in results.iter_mut().zip(measured) {
                results.push(measured);
            }
        }
    }
    Ok(results)
}

async fn measure(plan: &Plan, server: &Server, site: &Site) -> anyhow::Result<[f64; LENGTHS.len()]> {
    let (child, port) = server.start(site, plan.server_core).await?;
    let mut crowd = Crowd::connect(&site.chain, port, plan.clients).await?;
    let processes = tree(child.pid)?;
    let mut measured = [0.0; LENGTHS.len()];
    for (len, measured) in LENGTHS.into_iter().zip(&mut measured) {
        for _ in 0..WARM_UP {
            crowd.broadcast(len).await?;
        }
        let before = cpu_time(&processes)?;
        for _ in 0..plan.broadcasts {
            crowd.broadcast(len).await?;
        }
        let used: Duration = cpu_time(&processes)?.saturating_sub(before);
        *measured = used.as_secs_f64() * 1e6 / f64::from(plan.broadcasts) / plan.clients as f64;
    }
    Ok(measured)
}

/// The table.
pub(crate) fn text(plan: &Plan, results: &Results) -> String {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    let heads = LENGTHS.map(|len| format!("{len} B, us a receiver"));
    table.set_header(["server".to_owned()].into_iter().chain(heads));
    for (server, lengths) in plan.servers.iter().zip(results) {
        let cells = lengths.iter().map(|rounds| match (median(rounds), spread(rounds)) {
            (Some(median), Some((least, greatest))) => format!("{median:.2} ({least:.2}–{greatest:.2})"),
            _ => "-".to_owned(),
        });
        table.add_row([server.name.to_owned()].into_iter().chain(cells));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let Plan { clients, broadcasts, rounds, .. } = plan;
    format!(
        "{clients} clients over TLS 1.3, {broadcasts} messages of each length, {rounds} rounds; CPU of the server\n\n{table}\n"
    )
}

/// Every sample.
pub(crate) fn json(plan: &Plan, results: &Results) -> Value {
    let servers = plan.servers.iter().zip(results).map(|(server, lengths)| {
        let lengths = LENGTHS.iter().zip(lengths).map(|(len, rounds)| json!({ "len": len, "us": rounds }));
        json!({ "server": server.name, "lengths": lengths.collect::<Vec<_>>() })
    });
    json!({ "clients": plan.clients, "broadcasts": plan.broadcasts, "servers": servers.collect::<Vec<_>>() })
}

/// Where the interpreters and modules are that `tests/interop/run` installs.
pub(crate) fn installed() -> [PathBuf; 2] {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    [root.join("target/interop/venv/bin/python"), root.join("tests/interop")]
}
