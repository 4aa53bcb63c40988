//! Where the CPU time of a row goes: perf's samples of the gateway under the row's load, folded, drawn as
//! a flame graph, and added up by who spent them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use comfy_table::{CellAlignment, Table, presets};
use inferno::collapse::Collapse;
use inferno::collapse::perf::{Folder, Options as FoldOptions};
use inferno::flamegraph::{self, Options as DrawOptions};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::sleep;

use crate::child::Child;
use crate::gateways::{Installed, Running};
use crate::harness::{Backend, Load, progress};
use crate::job::Job;
use crate::report::{commit, kernel, processor};
use crate::rows::Row;
use crate::setup::Site;

/// A timer's, so that a sample's weight is nanoseconds, on machines without counters too.
const EVENT: &str = "cpu-clock";
/// Samples a second: not a divisor of what timers count in.
const FREQUENCY: &str = "999";
/// The stack that is kept with each, in bytes: HTTP is deep.
const CALL_GRAPH: &str = "dwarf,16384";
/// Until all is connected and warm.
const WARM_UP: f64 = 1.0;

/// What is to be done.
pub(crate) struct Plan {
    pub(crate) rows: Vec<Row>,
    pub(crate) gateway: Installed,
    pub(crate) seconds: f64,
    pub(crate) out: Option<PathBuf>,
    pub(crate) gateway_core: usize,
    pub(crate) load_core: usize,
}

/// Where time is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Spender {
    KernelNetwork,
    KernelOther,
    Ciphers,
    Rustls,
    Tokio,
    Hyper,
    H2,
    Allocator,
    Ours,
    Unknown,
}

const SPENDERS: [(Spender, &str); 10] = [
    (Spender::KernelNetwork, "kernel: network"),
    (Spender::KernelOther, "kernel: other"),
    (Spender::Ciphers, "cryptography"),
    (Spender::Rustls, "rustls"),
    (Spender::Tokio, "tokio"),
    (Spender::Hyper, "hyper"),
    (Spender::H2, "h2"),
    (Spender::Allocator, "allocator"),
    (Spender::Ours, "the gateway's own"),
    (Spender::Unknown, "unknown"),
];

/// What perf has seen of one row.
pub(crate) struct Profile {
    row: &'static str,
    /// Nanoseconds of each.
    spent: BTreeMap<Spender, u64>,
}

impl Profile {
    fn new(row: &'static str, folded: &str) -> Self {
        let mut spent = BTreeMap::new();
        for line in folded.lines() {
            if let Some((stack, count)) = line.rsplit_once(' ')
                && let Ok(count) = count.parse::<u64>()
            {
                *spent.entry(spender(stack)).or_default() += count;
            }
        }
        Self { row, spent }
    }

    fn total(&self) -> u64 {
        self.spent.values().sum()
    }

    fn percent(&self, spender: Spender) -> f64 {
        let count = self.spent.get(&spender).copied().unwrap_or_default();
        count as f64 * 100.0 / self.total() as f64
    }
}

/// Samples each row in turn.
pub(crate) async fn run(plan: &Plan) -> anyhow::Result<Vec<Profile>> {
    let site = Site::prepare()?;
    let backend = Backend::start(plan.load_core).await?;
    if let Some(out) = &plan.out {
        fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    }
    let mut profiles = Vec::new();
    for row in &plan.rows {
        progress(row.name);
        let values = plan.gateway.gateway.logged(row.logged);
        let running = plan.gateway.start(&site, backend.port, &[plan.gateway_core], &values).await?;
        let folded = sample(plan, row, &site, &running, &backend).await.context(row.name)?;
        if let Some(out) = &plan.out {
            draw(row, &folded, out)?;
        }
        profiles.push(Profile::new(row.name, &folded));
    }
    Ok(profiles)
}

async fn sample(
    plan: &Plan,
    row: &Row,
    site: &Site,
    running: &Running,
    backend: &Backend,
) -> anyhow::Result<String> {
    let job = Job {
        work: row.work,
        port: running.port,
        certificate: site.chain.clone(),
        gateway: running.raw_pids(),
        backend: backend.child.pid.as_raw(),
        cores: [plan.gateway_core, plan.load_core],
        warm_up: 0.0,
        seconds: WARM_UP + plan.seconds + 2.0,
        gate: false,
        connections_per_second: None,
    };
    let mut load = Load::start(&job, backend, plan.load_core).await?;
    sleep(Duration::from_secs_f64(WARM_UP)).await;
    let data = site.dir.path().join("perf.data");
    record(&running.pids, plan, &data).await?;
    load.sample().await?;
    let script = Command::new("perf")
        .args(["script", "--no-inline", "-i"])
        .arg(&data)
        .stderr(Stdio::null())
        .output()
        .await?;
    ensure!(script.status.success(), "perf script fails");
    let mut options = FoldOptions::default();
    options.annotate_kernel = true;
    let mut folded = Vec::new();
    Folder::from(options).collapse(script.stdout.as_slice(), &mut folded)?;
    ensure!(!folded.is_empty(), "perf has seen nothing");
    Ok(String::from_utf8_lossy(&folded).into_owned())
}

async fn record(pids: &[Pid], plan: &Plan, data: &Path) -> anyhow::Result<()> {
    let pids: Vec<_> = pids.iter().map(ToString::to_string).collect();
    let (pids, seconds) = (pids.join(","), plan.seconds.to_string());
    let data = data.display().to_string();
    let args = [
        "record",
        "-q",
        "-e",
        EVENT,
        "-F",
        FREQUENCY,
        "--call-graph",
        CALL_GRAPH,
        "-o",
        &data,
        "-p",
        &pids,
        "--",
    ];
    let mut perf = Child::spawn(
        &[plan.load_core],
        OsStr::new("perf"),
        args.into_iter().chain(["sleep", &seconds]),
        |command| {
            command.stdout(Stdio::null());
        },
    )?;
    let status = perf.process.wait().await?;
    ensure!(
        status.success(),
        "perf can't sample the gateway; is it installed, and kernel.perf_event_paranoid below 1?"
    );
    Ok(())
}

fn draw(row: &Row, folded: &str, out: &Path) -> anyhow::Result<()> {
    let file = |kind| out.join(format!("{}.{kind}", row.name));
    fs::write(file("folded"), folded)?;
    let mut options = DrawOptions::default();
    options.title = row.metrics.first().map_or(row.name, |metric| metric.title).to_owned();
    flamegraph::from_lines(&mut options, folded.lines(), File::create(file("svg"))?)?;
    Ok(())
}

/// The owner of the innermost frame that has one: the standard library and libc have none, what they do counts for
/// their callers.
fn spender(stack: &str) -> Spender {
    let kernel = |frame: &str| frame.ends_with("_[k]");
    if stack.rsplit(';').next().is_some_and(kernel) {
        let networks = stack.rsplit(';').take_while(|frame| kernel(frame)).any(is_network);
        return if networks { Spender::KernelNetwork } else { Spender::KernelOther };
    }
    // The first is the name of the thread.
    let frames = stack.split_once(';').map_or("", |(_, frames)| frames);
    frames.rsplit(';').find_map(owner).unwrap_or(Spender::Unknown)
}

fn is_network(frame: &str) -> bool {
    const WORDS: [&str; 14] = [
        "tcp_",
        "ip_",
        "inet",
        "sock",
        "skb",
        "netif",
        "net_rx",
        "dev_queue",
        "dev_hard",
        "loopback",
        "sys_send",
        "sys_recv",
        "sys_accept",
        "sys_connect",
    ];
    WORDS.iter().any(|word| frame.contains(word))
}

fn owner(frame: &str) -> Option<Spender> {
    const ALLOCATOR: [&str; 12] = [
        "malloc",
        "free",
        "cfree",
        "calloc",
        "realloc",
        "_int_malloc",
        "_int_free",
        "_int_realloc",
        "malloc_consolidate",
        "unlink_chunk",
        "sysmalloc",
        "systrim",
    ];
    const CRATES: [(&str, Spender); 17] = [
        ("aws_lc", Spender::Ciphers),
        ("[libcrypto", Spender::Ciphers),
        ("rustls", Spender::Rustls),
        ("webpki", Spender::Rustls),
        ("[libssl", Spender::Rustls),
        ("tokio", Spender::Tokio),
        ("mio::", Spender::Tokio),
        ("hyper", Spender::Hyper),
        ("h2::", Spender::H2),
        ("gateway::", Spender::Ours),
        ("wssgate::", Spender::Ours),
        ("tls_acceptor::", Spender::Ours),
        ("net_io::", Spender::Ours),
        ("upgrade_handler::", Spender::Ours),
        ("frame_core::", Spender::Ours),
        ("[nginx", Spender::Ours),
        ("[haproxy", Spender::Ours),
    ];
    let name = frame.trim_start_matches("__libc_").split('.').next().unwrap_or(frame);
    let mimalloc = name.trim_start_matches('_').starts_with("mi_");
    if mimalloc || ALLOCATOR.contains(&name) {
        return Some(Spender::Allocator);
    }
    let found = |name: &str| {
        let begins = |at: usize| !frame[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        frame.match_indices(name).map(|(at, _)| at).find(|at| begins(*at))
    };
    let first = CRATES.iter().filter_map(|(name, spender)| Some((found(name)?, *spender)));
    first.min_by_key(|(at, _)| *at).map(|(_, spender)| spender)
}

/// Percent of the samples, row by row.
pub(crate) fn text(plan: &Plan, profiles: &[Profile]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    let names = profiles.iter().map(|profile| profile.row.to_owned());
    table.set_header(["% of the CPU time".to_owned()].into_iter().chain(names));
    for (spender, name) in SPENDERS {
        let cells = profiles.iter().map(|profile| format!("{:.0}", profile.percent(spender)));
        table.add_row([name.to_owned()].into_iter().chain(cells));
    }
    let totals = profiles.iter().map(|profile| (profile.total() / 1_000_000).to_string());
    table.add_row(["ms in all".to_owned()].into_iter().chain(totals));
    for index in 1..=profiles.len() {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let (name, version) = (&plan.gateway.gateway.name, &plan.gateway.version);
    format!("{}, Linux {}; {name}: {version}, commit {}\n{table}\n", processor(), kernel(), commit())
}

/// The same in nanoseconds.
pub(crate) fn json(plan: &Plan, profiles: &[Profile]) -> Value {
    let rows: Value = profiles
        .iter()
        .map(|profile| {
            let of = |(spender, name): &(Spender, &str)| {
                let spent = profile.spent.get(spender).copied().unwrap_or_default();
                ((*name).to_owned(), json!(spent))
            };
            (profile.row.to_owned(), SPENDERS.iter().map(of).collect::<Value>())
        })
        .collect();
    json!({
        "processor": processor(),
        "kernel": kernel(),
        "commit": commit(),
        "gateway": plan.gateway.gateway.name,
        "nanoseconds": rows,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_belongs_to_the_innermost_who_is_known() {
        let cases = [
            (
                "worker-0;std::rt;__send;entry_SYSCALL_64_[k];__sys_sendto_[k];tcp_sendmsg_[k]",
                Spender::KernelNetwork,
            ),
            ("worker-0;mio::poll;epoll_wait;do_epoll_wait_[k];schedule_[k]", Spender::KernelOther),
            ("worker-0;hyper::proto::h1::parse;malloc", Spender::Allocator),
            ("worker-0;gateway::upstream;_mi_page_malloc", Spender::Allocator),
            ("worker-0;gateway::upstream::h1::response;httparse::parse", Spender::Ours),
            ("worker-0;hyper::proto::h1::parse;__memmove_avx_unaligned", Spender::Hyper),
            (
                "w;tokio::x;<frame_core::relay::relay<tokio::net::TcpStream>>::poll;core::ptr::read",
                Spender::Ours,
            ),
            ("w;gateway::edge::http2;<h2::frame::Head as core::fmt::Debug>::fmt", Spender::H2),
            ("w;tls_acceptor::record;aws_lc_0_39_0_aes_gcm_encrypt;helper", Spender::Ciphers),
            ("w;auth2::x", Spender::Unknown),
            ("tokio", Spender::Unknown),
        ];
        for (stack, expected) in cases {
            assert_eq!(spender(stack), expected, "{stack}");
        }
    }

    #[test]
    fn samples_add_up() {
        let profile = Profile::new("row", "w;hyper::a 3\nw;h2::b 1\n");
        assert_eq!(profile.total(), 4);
        assert!((profile.percent(Spender::Hyper) - 75.0).abs() < 1e-9);
    }
}
