//! From the first signal to the last session: start, reload, drain.

mod drain;
mod load;
mod outside;
mod reload;
mod renewal;
mod signals;

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::thread::available_parallelism;
use std::time::Instant;

use arc_swap::ArcSwap;
use tls_acceptor::{Certificates, Expiries, Tickets};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{Duration, interval};
use tracing::{error, info, warn};

pub use self::load::{Candidate, Source, load};
use self::outside::Outside;
use self::reload::{Reading, finished};
use self::renewal::Renewal;
pub use self::signals::{Arrived, Ending, Signals};
use crate::config::{Problem, Problems};
use crate::overview::{Overview, Stage};
use crate::shortage::Shortage;
use crate::site::Site;
use crate::socket;
use crate::worker::{self, Command, Handle};

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration can't be carried out.
    #[error("{0}")]
    Config(#[from] Problems),
    /// A thread, a runtime, randomness: what every program needs.
    #[error("the gateway can't start: {0}")]
    System(#[from] std::io::Error),
    /// TLS can't be set up.
    #[error(transparent)]
    Tls(#[from] tls_acceptor::SetupError),
    /// No keys for session tickets.
    #[error(transparent)]
    Tickets(#[from] tls_acceptor::TicketError),
}

/// Stages of expiry are days long.
const EXPIRY_CHECK_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// A running gateway.
struct Gateway {
    source: Source,
    site: Arc<ArcSwap<Site>>,
    certificates: Arc<Certificates>,
    tickets: Tickets,
    renewal: Renewal,
    expiries: Expiries,
    workers: Vec<Handle>,
    /// By the address in the configuration.
    listening: HashMap<SocketAddr, SocketAddr>,
    generation: u64,
    overview: Arc<Overview>,
    outside: Outside,
}

/// Runs the gateway until a signal ends it. `on_ready` is called once, with the addresses that are
/// listened on, when connections are accepted.
///
/// # Errors
/// If it can't start.
pub async fn run(
    source: Source,
    mut signals: Signals,
    on_ready: impl FnOnce(&[SocketAddr]),
) -> Result<Ending, StartError> {
    raise_descriptor_limit();
    let (mut gateway, mut ended) = Gateway::start(source).await?;
    let mut addresses: Vec<SocketAddr> = gateway.listening.values().copied().collect();
    addresses.sort_unstable();
    on_ready(&addresses);
    // One reload at a time; signals during a reload make one more.
    let mut reading: Option<Reading> = None;
    let mut again = false;
    let mut expiry_check = interval(EXPIRY_CHECK_INTERVAL);
    loop {
        tokio::select! {
            arrived = signals.next() => match arrived {
                Arrived::Hangup if reading.is_some() => again = true,
                Arrived::Hangup => reading = Some(gateway.read()),
                Arrived::Ending(ending) => {
                    let Gateway { workers, overview, .. } = &gateway;
                    return Ok(drain::drain(workers, overview, &mut signals, ended, ending).await);
                }
            },
            (candidate, started) = finished(&mut reading) => {
                gateway.reload(candidate, started);
                reading = std::mem::take(&mut again).then(|| gateway.read());
            }
            // Not in the middle of a reload: it reads the same files.
            look = gateway.renewal.look(&gateway.certificates), if reading.is_none() => gateway.renew(look),
            _ = expiry_check.tick() => gateway.say_expiries(),
            _ = ended.recv() => {
                // Workers end when they are told to. A panic outside of every task ends here.
                error!("a worker has died; the gateway ends so that it can be started anew");
                return Ok(Ending::Failed);
            }
        }
    }
}

impl Gateway {
    async fn start(source: Source) -> Result<(Self, mpsc::Receiver<()>), StartError> {
        let started = Instant::now();
        let reading = source.clone();
        let candidate =
            spawn_blocking(move || load(&reading, None)).await.map_err(std::io::Error::other)??;
        say_warnings(&candidate);
        let Candidate { config, loaded, ticket_keys } = candidate;
        let tickets = Tickets::new()?;
        tickets.adopt(ticket_keys.as_ref());
        let certificates = Certificates::new(loaded, 1);
        let site = Site::build(&config, 1, None, &certificates, &tickets)?;
        let workers = config.workers.unwrap_or_else(|| available_parallelism().map_or(1, Into::into));
        let mut sockets = Vec::new();
        let mut problems = Vec::new();
        for listener in &config.listeners {
            match socket::listen(listener.address, workers) {
                Ok(opened) => sockets.push((listener.address, opened)),
                Err(e) => problems.push(config.problem(listener.place, cannot_listen(listener.address, &e))),
            }
        }
        let opened = Outside::default().open(&config, &mut problems, cannot_listen);
        if !problems.is_empty() {
            problems.sort_by_key(|problem| problem.place);
            return Err(Problems(problems).into());
        }
        let site = Arc::new(ArcSwap::from_pointee(site));
        let casing = upgrade_handler::casing::canonical().await;
        let (end, ended) = mpsc::channel(workers);
        let shortage = Arc::<Shortage>::default();
        let count = workers;
        let workers = (0..count)
            .map(|n| {
                let (site, certificates, casing) = (site.clone(), certificates.clone(), casing.clone());
                worker::start((n, count), site, certificates, casing, shortage.clone(), end.clone())
            })
            .collect::<Result<Vec<_>, _>>()?;
        let overview = Arc::new(Overview {
            site: site.clone(),
            certificates: certificates.clone(),
            sessions: workers.iter().map(|worker| worker.sessions.clone()).collect(),
            accepted: workers.iter().map(|worker| worker.accepted.clone()).collect(),
            reloads_taken: AtomicU64::new(0),
            reloads_refused: AtomicU64::new(0),
            stage: Mutex::new(Stage::Starting),
        });
        let renewal = Renewal::new(config.watch, &config.certificates, &certificates.current().loaded);
        let mut gateway = Self {
            source,
            site,
            certificates,
            tickets,
            renewal,
            expiries: Expiries::default(),
            workers,
            listening: HashMap::new(),
            generation: 1,
            overview,
            outside: Outside::default(),
        };
        gateway.outside.settle(&config, opened, &gateway.overview);
        for (address, opened) in sockets {
            gateway.listen(address, opened)?;
        }
        gateway.overview.enter(Stage::Ready);
        let current = gateway.certificates.current();
        info!(
            generation = 1,
            workers = gateway.workers.len(),
            routes = config.routes.len(),
            certificates = current.loaded.set.certificates().len(),
            ticket_key = ticket_keys.as_ref().and_then(|keys| keys.names().next()),
            took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "ready"
        );
        Ok((gateway, ended))
    }

    /// Hands a listener's sockets to the workers.
    fn listen(&mut self, address: SocketAddr, sockets: Vec<TcpListener>) -> std::io::Result<()> {
        let Some(first) = sockets.first() else { return Ok(()) };
        let local = first.local_addr()?;
        for (worker, socket) in self.workers.iter().zip(sockets) {
            // A worker that is gone is noticed where it ended.
            let _ = worker.commands.send(Command::Listen { address, socket });
        }
        self.listening.insert(address, local);
        let tls = self.site.load().door(address).is_some_and(|door| door.acceptor.is_some());
        info!(address = %local, tls, "listening");
        Ok(())
    }
}

fn say_warnings(candidate: &Candidate) {
    for warning in &candidate.loaded.warnings {
        warn!(problem = %warning, "certificates");
    }
    if let Some(warning) = candidate.ticket_warning() {
        warn!(problem = warning, "ticket keys");
    }
}

fn cannot_listen(address: SocketAddr, e: &std::io::Error) -> String {
    use std::io::ErrorKind as Kind;
    let hint = match e.kind() {
        Kind::AddrInUse => "something listens there already; `ss -ltnp` shows what",
        Kind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE or root; see README, \"On port 443\""
        }
        Kind::AddrNotAvailable => "this machine has no such address",
        _ => "check the address",
    };
    format!("can't listen on {address}: {e}; {hint}")
}

/// Every session holds two descriptors; the usual soft limit of 1,024 is for programs that use
/// `select`.
fn raise_descriptor_limit() {
    if let Err(e) = rlimit::increase_nofile_limit(u64::MAX) {
        warn!(cause = %e, "the limit on open files could not be raised");
    }
}

impl Source {
    /// A problem with the configuration as a whole.
    fn problem(&self, what: String) -> Problem {
        let file = match self {
            Self::File(file) => file.clone(),
            Self::BuiltIn { .. } => PathBuf::new(),
        };
        Problem { file, place: crate::config::Place { line: 1, column: 1 }, what }
    }
}
