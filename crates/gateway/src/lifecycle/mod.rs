//! From the first signal to the last session: start, reload, drain.

mod drain;
mod load;
mod notify;
mod outside;
mod reload;
mod renewal;
mod signals;
mod steer;
pub(crate) mod upgrade;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::thread::available_parallelism;
use std::time::Instant;

use arc_swap::ArcSwap;
use tls_acceptor::{Certificates, Expiries, TicketKeys, Tickets};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tokio::time::{Duration, interval};
use tracing::{error, info, warn};

use self::drain::Remaining;
pub use self::load::{Candidate, Source, load};
use self::notify::Notifier;
use self::outside::Outside;
use self::reload::Asker;
use self::renewal::Renewal;
pub use self::signals::{Arrived, Ending, Signals};
use crate::config::{Config, Problem, Problems};
use crate::context::Common;
pub use crate::lifecycle::upgrade::new::SuccessionError;
use crate::lifecycle::upgrade::new::{Inherited, Opened, Predecessor};
use crate::lifecycle::upgrade::old::{Successor, Takeover, TakeoverError};
use crate::lifecycle::upgrade::origin::Program;
pub use crate::lifecycle::upgrade::origin::{Origin, OriginError, launch};
use crate::lifecycle::upgrade::{old, retire};
use crate::net::shortage::Shortage;
use crate::ops::control::server::{Access, DEMANDS_MAX, Demand};
use crate::ops::overview::{Overview, Stage};
use crate::ops::reserve::Spares;
use crate::site::Site;
use crate::site::drained::{Drained, Target};
use crate::worker;
use crate::worker::{Command, Handle};

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
    /// There was a gateway to take over from, and it didn't come to that.
    #[error(transparent)]
    Succession(#[from] SuccessionError),
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
    program: Program,
    inherited: Inherited,
    notifier: Notifier,
    overview: Arc<Overview>,
    /// What the control socket is answered from.
    access: Access,
    outside: Outside,
    /// Which sessions are to end may have changed: a reload, an order that was taken back.
    choices: watch::Sender<()>,
}

/// What is bound, and not accepted on yet.
struct Closed {
    config: Config,
    ticket_keys: Option<TicketKeys>,
    listeners: Vec<Opened>,
    outside: outside::Opened,
}

/// Runs the gateway until a signal ends it. `on_ready` is called once, with the addresses that are
/// listened on, when connections are accepted.
///
/// # Errors
/// If it can't start.
pub async fn run(
    source: Source,
    origin: Origin,
    mut signals: Signals,
    on_ready: impl FnOnce(&[SocketAddr]),
) -> Result<Ending, StartError> {
    raise_descriptor_limit();
    let Some(Begun { mut gateway, mut predecessor, mut ended, mut demands }) =
        begin(source, origin, &mut signals).await?
    else {
        return Ok(Ending::Terminated);
    };
    let mut addresses: Vec<SocketAddr> = gateway.listening.values().copied().collect();
    addresses.sort_unstable();
    on_ready(&addresses);
    let mut work = Work::Nothing;
    let mut wanted = Wanted::default();
    let mut expiry_check = interval(EXPIRY_CHECK_INTERVAL);
    loop {
        if matches!(work, Work::Nothing) {
            work = gateway.next_work(&mut wanted, predecessor.is_some());
        }
        tokio::select! {
            arrived = signals.next() => match arrived {
                Arrived::Hangup => wanted.reload(&work),
                Arrived::Takeover => wanted.takeover(&work, &gateway.source),
                Arrived::Ending(ending) => {
                    drop(work); // a new process that isn't ready yet ends
                    drop((wanted, demands)); // who waits is told that it is too late
                    gateway.notifier.stopping(gateway.site.load().drain.timeout + drain::CUT_WAIT);
                    let Gateway { workers, overview, .. } = &gateway;
                    let remaining = Remaining::new(ended, workers.len());
                    return Ok(drain::drain(workers, overview, &mut signals, remaining, ending).await);
                }
            },
            done = work.done() => {
                work = Work::Nothing;
                match done {
                    Done::Reload(read) => gateway.reload(read),
                    Done::Takeover(result, started) => if let Some(pid) = gateway.hand_over(result, started).await {
                        if wanted.reload {
                            old::pass_on_hangup(pid);
                        }
                        drop((wanted, demands));
                        let Gateway { workers, overview, .. } = &gateway;
                        return Ok(retire::retire(workers, overview, &mut signals, ended, pid).await);
                    }
                }
            },
            Some(demand) = demands.recv() => gateway.obey(demand, &work, &mut wanted),
            () = withdrawn(&mut predecessor) => gateway.speak(),
            // Not in the middle of a reload: it reads the same files.
            look = gateway.renewal.look(&gateway.certificates), if !matches!(work, Work::Reload { .. }) => {
                gateway.renew(look);
            }
            _ = expiry_check.tick() => gateway.say_expiries(),
            _ = ended.recv() => {
                // Workers end when they are told to. A panic outside of every task ends here.
                error!("a worker has died; the gateway ends so that it can be started anew");
                return Ok(Ending::Failed);
            }
        }
    }
}

/// A gateway that has begun to serve.
struct Begun {
    gateway: Gateway,
    /// Who is being taken over.
    predecessor: Option<Predecessor>,
    /// Each worker's end.
    ended: mpsc::Receiver<()>,
    demands: mpsc::Receiver<Demand>,
}

/// Starts, or takes over. `None` if a signal came before the old gateway let go.
async fn begin(source: Source, origin: Origin, signals: &mut Signals) -> Result<Option<Begun>, StartError> {
    let started = Instant::now();
    let Some(socket) = origin.predecessor else {
        let inherited = Inherited::new(origin.activated);
        let (mut begun, closed) = Gateway::start(source, origin.program, inherited).await?;
        begun.gateway.open(closed, started);
        begun.gateway.speak();
        return Ok(Some(begun));
    };
    let (predecessor, inherited) = Predecessor::meet(socket).await?;
    let (mut begun, closed) = match Gateway::start(source, origin.program, inherited).await {
        Ok(started) => started,
        Err(e) => {
            predecessor.fail(e.to_string()).await;
            return Err(e);
        }
    };
    tokio::select! {
        going = predecessor.ready(begun.gateway.inherited.taken()) => going?,
        _ = signals.ending() => return Ok(None),
    }
    begun.gateway.open(closed, started);
    info!(
        pid = std::process::id(),
        predecessor = predecessor.pid,
        predecessor_version = predecessor.version,
        sockets = predecessor.sockets,
        took_ms = millis(started),
        "taken over"
    );
    Ok(Some(Begun { predecessor: Some(predecessor), ..begun }))
}

/// When the old gateway no longer speaks for the service; never, if there is none.
async fn withdrawn(predecessor: &mut Option<Predecessor>) {
    match predecessor {
        Some(old) => old.withdrawn().await,
        None => std::future::pending().await,
    }
    *predecessor = None;
}

/// What is going on beside serving: one thing at a time.
enum Work {
    Nothing,
    /// A reload whose files are being read, on a thread that may block.
    Reload {
        candidate: JoinHandle<Result<Candidate, Problems>>,
        started: Instant,
        askers: Vec<Asker>,
    },
    /// A new process that isn't ready yet.
    Takeover(Takeover),
}

#[expect(clippy::large_enum_variant, reason = "there is one, for a moment")]
enum Done {
    Reload(Read),
    Takeover(Result<Successor, TakeoverError>, Instant),
}

/// A reload whose files have been read.
struct Read {
    candidate: Result<Result<Candidate, Problems>, JoinError>,
    started: Instant,
    askers: Vec<Asker>,
}

/// What has been asked for while something else was going on. Several of a kind are one.
#[derive(Default)]
struct Wanted {
    reload: bool,
    /// Who waits to hear of it.
    askers: Vec<Asker>,
    takeover: bool,
}

impl Wanted {
    fn reload(&mut self, work: &Work) {
        if matches!(work, Work::Takeover(_)) {
            info!("SIGHUP waits: a takeover is in progress");
        }
        self.reload = true;
    }

    fn takeover(&mut self, work: &Work, source: &Source) {
        let is_going_on = matches!(work, Work::Takeover(_));
        match old::refusal(std::process::id(), source, is_going_on) {
            Some(why) => warn!("SIGUSR2 refused: {why}"),
            None => {
                if matches!(work, Work::Reload { .. }) {
                    info!("SIGUSR2 waits: a reload is in progress");
                }
                self.takeover = true;
            }
        }
    }
}

impl Work {
    /// When it is done; never, if there is none.
    ///
    /// # Cancel safety
    /// Safe; not to be asked again after it has answered.
    async fn done(&mut self) -> Done {
        match self {
            Self::Nothing => std::future::pending().await,
            Self::Reload { candidate, started, askers } => {
                let candidate = candidate.await;
                Done::Reload(Read { candidate, started: *started, askers: std::mem::take(askers) })
            }
            Self::Takeover(takeover) => Done::Takeover(takeover.finished().await, takeover.started),
        }
    }
}

impl Gateway {
    /// Does all that can fail. Nothing is accepted before [`open`](Self::open).
    async fn start(
        source: Source,
        program: Program,
        mut inherited: Inherited,
    ) -> Result<(Begun, Closed), StartError> {
        let reading = source.clone();
        let candidate =
            spawn_blocking(move || load(&reading, None)).await.map_err(std::io::Error::other)??;
        say_warnings(&candidate);
        let Candidate { config, loaded, ticket_keys } = candidate;
        let tickets = match inherited.tickets.take() {
            Some(tickets) => tickets,
            None => Tickets::new()?,
        };
        tickets.adopt(ticket_keys.as_ref());
        let certificates = Certificates::new(loaded, 1);
        let site = Site::build(&config.site(), 1, None, &certificates, &tickets)?;
        let workers = config.workers.unwrap_or_else(|| available_parallelism().map_or(1, Into::into));
        let mut listeners = Vec::new();
        let mut problems = Vec::new();
        for listener in &config.listeners {
            match inherited.listen(listener.address, workers) {
                Ok(opened) => listeners.push(opened),
                Err(e) => problems.push(config.problem(listener.place, cannot_listen(listener.address, &e))),
            }
        }
        let outside = Outside::new(inherited.predecessor.is_none());
        let to_open = outside.open(&config, &mut inherited, &mut problems, cannot_listen);
        if !problems.is_empty() {
            problems.sort_by_key(|problem| problem.place);
            return Err(Problems(problems).into());
        }
        inherited.close_unwanted();
        let site = Arc::new(ArcSwap::from_pointee(site));
        let casing = upgrade_handler::casing::canonical();
        let (end, ended) = mpsc::channel(workers);
        let drained = inherited.drained.iter().filter_map(|target| Target::parse(target).ok());
        let drained = drained.fold(Drained::default(), |drained, target| drained.with(target));
        let drained = Arc::new(ArcSwap::from_pointee(drained));
        let shortage = Arc::<Shortage>::default();
        let common = Common {
            site: site.clone(),
            certificates: certificates.clone(),
            drained: drained.clone(),
            shortage: shortage.clone(),
            casing,
        };
        let workers = (0..workers)
            .map(|n| worker::start((n, workers), common.clone(), end.clone()))
            .collect::<Result<Vec<_>, _>>()?;
        let overview = Arc::new(Overview {
            site: site.clone(),
            certificates: certificates.clone(),
            drained,
            sessions: workers.iter().map(|worker| worker.sessions.clone()).collect(),
            accepted: workers.iter().map(|worker| worker.accepted.clone()).collect(),
            pressure: workers.iter().map(|worker| worker.pressure.clone()).collect(),
            shortage,
            spares: Spares::default(),
            reloads_taken: AtomicU64::new(0),
            reloads_refused: AtomicU64::new(0),
            started: tokio::time::Instant::now(),
            stage: Mutex::new(Stage::Starting),
        });
        let (tell, demands) = mpsc::channel(DEMANDS_MAX);
        let access = Access { overview: overview.clone(), demands: tell };
        let renewal = Renewal::new(config.watch, &config.certificates, &certificates.current().loaded);
        let gateway = Self {
            source,
            site,
            certificates,
            tickets,
            renewal,
            expiries: Expiries::default(),
            workers,
            listening: HashMap::new(),
            generation: 1,
            program,
            inherited,
            notifier: Notifier::default(),
            overview,
            access,
            outside,
            choices: watch::channel(()).0,
        };
        gateway.keep_drained();
        let closed = Closed { config, ticket_keys, listeners, outside: to_open };
        Ok((Begun { gateway, predecessor: None, ended, demands }, closed))
    }

    /// Begins to accept connections.
    fn open(&mut self, closed: Closed, started: Instant) {
        let Closed { config, ticket_keys, listeners, outside } = closed;
        self.outside.settle(&config, outside, &self.access);
        for listener in listeners {
            self.listen(listener);
        }
        self.overview.enter(Stage::Ready);
        info!(
            pid = std::process::id(),
            generation = self.generation,
            workers = self.workers.len(),
            routes = self.site.load().route_ids().len(),
            certificates = self.certificates.current().loaded.set.certificates().len(),
            ticket_key = ticket_keys.as_ref().and_then(|keys| keys.names().next()),
            took_ms = millis(started),
            "ready"
        );
    }

    /// Deals a listener's sockets to the workers.
    fn listen(&mut self, Opened { address, local, sockets }: Opened) {
        for (worker, socket) in self.workers.iter().cycle().zip(sockets) {
            // A worker that is gone is noticed where it ended.
            let _ = worker.commands.send(Command::Listen { address, socket });
        }
        self.listening.insert(address, local);
        let tls = self.site.load().door(address).is_some_and(|door| door.acceptor.is_some());
        info!(address = %local, tls, "listening");
    }

    /// Begins what is wanted next. Nobody else takes over before the old gateway has withdrawn.
    fn next_work(&self, wanted: &mut Wanted, is_taking_over: bool) -> Work {
        if std::mem::take(&mut wanted.reload) {
            self.notifier.reloading();
            self.read(std::mem::take(&mut wanted.askers))
        } else if !is_taking_over && std::mem::take(&mut wanted.takeover) {
            self.take_over()
        } else {
            Work::Nothing
        }
    }

    /// Speaks for the service from here on.
    fn speak(&mut self) {
        self.outside.speak(&self.access);
        let status = self.status();
        self.notifier.begin(self.commands(), &status);
    }

    /// For the service manager.
    fn status(&self) -> String {
        let (generation, listeners) = (self.generation, self.listening.len());
        let routes = self.site.load().route_ids().len();
        format!("serving: generation {generation}, {listeners} listeners, {routes} routes")
    }

    /// Where the workers take commands.
    fn commands(&self) -> Vec<mpsc::UnboundedSender<Command>> {
        self.workers.iter().map(|worker| worker.commands.clone()).collect()
    }
}

/// For the log.
fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn say_warnings(candidate: &Candidate) {
    for warning in &candidate.loaded.warnings {
        warn!(problem = %warning, "certificates");
    }
    for warning in candidate.across() {
        warn!(problem = warning, "configuration");
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
            "ports below 1024 need CAP_NET_BIND_SERVICE or root; see README, \"In production\""
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
