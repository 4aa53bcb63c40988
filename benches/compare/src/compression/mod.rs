//! What an echoed message costs a server with permessage-deflate and without: `wss-service` beside Node's ws and a fork of
//! tungstenite, and a gateway that compresses for a backend which doesn't.
//!
//! In each round all servers are started on one core, and are measured one after the other: the clients, on the other core,
//! send the same messages to each. Messages are compressed before the measurement; echoes are inflated and compared.

mod talk;

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::timeout;
use wss_service::{Certificates, Compression, Service, Settings};

use self::talk::{Echoes, Mode, Words};
use crate::broadcast::Server;
use crate::child::pin;
use crate::gateways::Installed;
use crate::harness::Backend;
use crate::load::connection::{Client, Connection, PATIENCE};
use crate::process::{cpu_time, tree};
use crate::setup::Site;
use crate::stats::{median, spread};

/// Lengths of messages, in bytes.
const LENGTHS: [usize; 2] = [200, 4096];
/// What a session may keep in each direction; a client that offers less gets less.
const HISTORY_MAX: usize = 32 * 1024;
/// The gateway in the table.
const OURS: &str = "wssgate";
/// Read at once.
const BUFFER: usize = 16 << 10;
/// The gateway's route of the clients.
const ROUTE: &str = "[[route]]\npath = \"/wss\"\nproxy = \"http://127.0.0.1:{backend}\"\n\n[route.websocket]\n\
    compression = \"terminate\"\ncompression_history = \"32KiB\"\n";

/// What is measured.
pub(crate) struct Plan {
    pub(crate) gateway: Installed,
    /// Where the modules of Node are.
    pub(crate) modules: PathBuf,
    /// The echo by a fork of tungstenite, if it was built.
    pub(crate) tungstenite: Option<PathBuf>,
    pub(crate) clients: usize,
    /// Of each client, for each length and mode; a tenth as many come before.
    pub(crate) messages: usize,
    pub(crate) rounds: usize,
    pub(crate) server_core: usize,
    pub(crate) load_core: usize,
}

/// One server's echoes of one length in one mode, a sample for each round.
pub(crate) struct Case {
    len: usize,
    mode: Mode,
    server: &'static str,
    /// CPU of a message, in microseconds.
    us: Vec<f64>,
    /// Bytes of an echo's payload on the wire.
    wire: Vec<f64>,
}

/// The echo by `wss-service`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    chain: PathBuf,
    key: PathBuf,
}

/// Serves until it is ended; the port is the first line on stdout.
pub(crate) fn serve(options: &Options) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    writeln!(io::stdout(), "{}", listener.local_addr()?.port())?;
    listener.set_nonblocking(true)?;
    let compression = Compression {
        to_client_history: HISTORY_MAX,
        from_client_history: HISTORY_MAX,
        ..Compression::default()
    };
    let service = Service::new()
        .listen(listener)
        .settings(Settings { ping_interval: None, ..Settings::default() })
        .certificates(Certificates::files(&options.chain, &options.key)?)
        .compression(compression)
        .on_message(async |session, message| session.send(message).await);
    Ok(Builder::new_current_thread().enable_all().build()?.block_on(service.run())?)
}

/// Measures all; `tell` gets a line for each sample.
pub(crate) async fn run(plan: &Plan, tell: impl Fn(&str)) -> anyhow::Result<Vec<Case>> {
    let site = Site::prepare()?;
    let backend = Backend::start(plan.load_core).await?;
    pin(&[plan.load_core])?;
    let service = Server::own("wss-service", vec!["compression-server".into()], Vec::new())?;
    let node = Server::node("compression/node.mjs", &plan.modules);
    let fork = plan.tungstenite.as_deref().map(|program| Server::program("rama-ws", program));
    let servers: Vec<_> = [&service, &node].into_iter().chain(&fork).collect();
    let mut cases = Vec::new();
    for len in LENGTHS {
        for mode in Mode::ALL {
            for server in servers.iter().map(|server| server.name).chain([OURS]) {
                cases.push(Case { len, mode, server, us: Vec::new(), wire: Vec::new() });
            }
        }
    }
    for round in 1..=plan.rounds {
        let more = [("more", ROUTE.to_owned())];
        let gateway = plan.gateway.start(&site, backend.port, &[plan.server_core], &more).await?;
        let mut running = HashMap::from([(OURS, (gateway.port, gateway.pids.clone()))]);
        let mut children = Vec::new();
        for server in &servers {
            let (child, port) = server.start(&site, plan.server_core).await?;
            running.insert(server.name, (port, tree(child.pid)?));
            children.push(child);
        }
        for case in &mut cases {
            let Case { len, mode, server, .. } = case;
            let what = format!("{server}, {len} B, {}", mode.name());
            let (port, pids) = running.get(server).context("it is not running")?;
            let (us, wire) =
                sample(plan, &site.chain, case, *port, pids).await.with_context(|| what.clone())?;
            tell(&format!("round {round}: {what}: {us:.1} us"));
            case.us.push(us);
            case.wire.push(wire);
        }
    }
    Ok(cases)
}

/// CPU of a message, in microseconds, and the bytes of its echo on the wire.
async fn sample(
    plan: &Plan,
    certificate: &Path,
    case: &Case,
    port: u16,
    pids: &[Pid],
) -> anyhow::Result<(f64, f64)> {
    let (warm_up, messages) = (plan.messages.div_ceil(10), plan.messages);
    let words = Arc::new(Words::new(case.mode, case.len, warm_up + messages)?);
    let client = Client::of(certificate, port, "http/1.1", BUFFER)?;
    let mut talkers = Vec::new();
    for index in 0..plan.clients {
        let (connection, answer) = client.upgrade_with(index, &case.mode.offer()).await?;
        case.mode.check(&answer)?;
        talkers.push(Talker { connection, echoes: Echoes::new(case.mode) });
    }
    let talkers = talk(talkers, &words, 0..warm_up).await?;
    let before = cpu_time(pids)?;
    let talkers = talk(talkers, &words, warm_up..warm_up + messages).await?;
    let used = cpu_time(pids)?.saturating_sub(before);
    let bytes: u64 = talkers.iter().map(|talker| talker.echoes.bytes).sum();
    let wire = bytes as f64 / (plan.clients * (warm_up + messages)) as f64;
    Ok((used.as_secs_f64() * 1e6 / (plan.clients * messages) as f64, wire))
}

/// A client, with one message in flight.
struct Talker {
    connection: Connection,
    echoes: Echoes,
}

/// All say these words at the same time.
async fn talk(talkers: Vec<Talker>, words: &Arc<Words>, range: Range<usize>) -> anyhow::Result<Vec<Talker>> {
    let mut talking = JoinSet::new();
    for mut talker in talkers {
        let (words, range) = (words.clone(), range.clone());
        talking.spawn(async move {
            for index in range {
                talker.connection.outbox.extend_from_slice(&words.frames[index]);
                loop {
                    let (input, _) = talker.connection.exchange().await?;
                    ensure!(!input.is_empty(), "a connection has ended");
                    if talker.echoes.is_whole(input, &words.messages[index])? {
                        break;
                    }
                }
            }
            anyhow::Ok(talker)
        });
    }
    let all = timeout(PATIENCE, talking.join_all()).await.context("echoes are missing")?;
    all.into_iter().collect()
}

/// The table.
pub(crate) fn text(plan: &Plan, cases: &[Case]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header(["message", "compression", "server", "us a message", "echo, B"]);
    for case in cases {
        let us = match (median(&case.us), spread(&case.us)) {
            (Some(median), Some((least, greatest))) => format!("{median:.1} ({least:.1}–{greatest:.1})"),
            _ => "-".to_owned(),
        };
        let wire = median(&case.wire).map(|wire| format!("{wire:.0}")).unwrap_or_default();
        let (len, mode) = (format!("{} B", case.len), case.mode.name().to_owned());
        table.add_row([len, mode, case.server.to_owned(), us, wire]);
    }
    for column in table.column_iter_mut().skip(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let Plan { clients, messages, rounds, .. } = plan;
    format!(
        "{clients} clients over TLS 1.3, {messages} messages of each, {rounds} rounds; CPU of the server\n\n{table}\n"
    )
}

/// Every sample.
pub(crate) fn json(plan: &Plan, cases: &[Case]) -> Value {
    let cases = cases.iter().map(|case| {
        let (len, mode, server) = (case.len, case.mode.name(), case.server);
        json!({ "len": len, "compression": mode, "server": server, "us": case.us, "echo": case.wire })
    });
    json!({ "clients": plan.clients, "messages": plan.messages, "cases": cases.collect::<Vec<_>>() })
}
