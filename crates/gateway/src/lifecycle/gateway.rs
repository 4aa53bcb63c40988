//! The running gateway, and how it starts: everything that can fail first, then it serves.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use net_io::unix_now;
use tls_acceptor::ExpiryLevel;
use tls_acceptor::{Certificates, Expiries, Look, TicketKeys, Tickets};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, spawn_blocking};
use tracing::{error, info, warn};

use super::access_log;
use super::acme::AcmeKeeper;
use super::core_dumps;
use super::load::{Candidate, ConfigSource, load};
use super::messages::{cannot_listen, log_warnings, millis};
use super::notify::Notifier;
use super::outside::{self, Outside};
use super::prober::{Down, Prober};
use super::renewal::Renewal;
use super::resolver::Resolver;
use super::token_keys::TokenKeyKeeper;
use super::upgrade::new::{BoundListener, Inherited, SuccessionError, Withdrawal};
use super::upgrade::origin::Program;
use crate::config::{Config, Problems};
use crate::context::Common;
use crate::context::quotas::Quotas;
use crate::context::taps::Taps;
use crate::context::transit::Transit;
use crate::net::listening::ListenAddress;
use crate::net::shortage::Shortage;
use crate::ops::control;
use crate::ops::control::server::{Access, DEMANDS_MAX, OperationRequest};
use crate::ops::ends::SessionEnds;
use crate::ops::listener_sockets::ListenerSockets;
use crate::ops::overview::{LifecycleStage, MoveTotals, Overview};
use crate::ops::reloads::ReloadHistory;
use crate::site::Site;
use crate::site::drained::{DrainTarget, Drained};
use crate::telemetry::access::{AccessLog, PreparedAccess};
use crate::telemetry::record::Sinks;
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
    /// There was a gateway to take over from, and it didn't come to that.
    #[error(transparent)]
    Succession(#[from] SuccessionError),
}

/// A running gateway.
pub(super) struct RunningGateway {
    pub(super) source: ConfigSource,
    pub(super) site: Arc<ArcSwap<Site>>,
    pub(super) certificates: Arc<Certificates>,
    pub(super) tickets: Tickets,
    pub(super) renewal: Renewal,
    pub(super) expiries: Expiries,
    pub(super) workers: Vec<Handle>,
    /// By the address in the configuration.
    pub(super) listening: HashMap<ListenAddress, ListenAddress>,
    pub(super) generation: u64,
    pub(super) program: Program,
    pub(super) inherited: Inherited,
    pub(super) notifier: Notifier,
    pub(super) overview: Arc<Overview>,
    /// What the control socket is answered from.
    pub(super) access: Access,
    pub(super) outside: Outside,
    /// Lines of requests and sessions.
    pub(super) access_log: AccessLog,
    /// Where sessions go that another process takes.
    pub(super) transit: Arc<Transit>,
    pub(super) prober: Prober,
    pub(super) resolver: Arc<Resolver>,
    pub(super) token_keys: Arc<TokenKeyKeeper>,
    pub(super) acme: AcmeKeeper,
    /// Which sessions are to end may have changed: a reload, an order that was taken back.
    pub(super) choices: watch::Sender<()>,
}

/// What is bound, and not accepted on yet.
pub(super) struct Closed {
    pub(super) config: Config,
    pub(super) ticket_keys: Option<TicketKeys>,
    pub(super) listeners: Vec<BoundListener>,
    pub(super) outside: outside::OpenedOutside,
    pub(super) access_log: PreparedAccess,
}

/// A gateway that has begun to serve.
pub(super) struct Begun {
    pub(super) gateway: RunningGateway,
    /// The gateway that is being taken over.
    pub(super) predecessor: Option<Withdrawal>,
    /// Each worker's end.
    pub(super) ended: mpsc::Receiver<()>,
    pub(super) demands: mpsc::Receiver<OperationRequest>,
    /// Servers whose sessions are to be closed.
    pub(super) downs: mpsc::UnboundedReceiver<Down>,
    /// Names of servers lead elsewhere.
    pub(super) servers: watch::Receiver<()>,
    /// Keys of tokens are gone.
    pub(super) keys: watch::Receiver<()>,
}

impl RunningGateway {
    /// Does all that can fail. Nothing is accepted before [`open`](Self::open).
    pub(super) async fn start(
        source: ConfigSource,
        program: Program,
        mut inherited: Inherited,
    ) -> Result<(Begun, Closed), StartError> {
        let reading = source.clone();
        let mut candidate =
            spawn_blocking(move || load(&reading, None)).await.map_err(std::io::Error::other)??;
        let (prober, downs) = Prober::new();
        let resolver = Resolver::new(prober.downs());
        resolver.inherit(&inherited.servers, &candidate.config.routes);
        let token_keys = Arc::<TokenKeyKeeper>::default();
        let Config { routes, dns, .. } = &candidate.config;
        (candidate.unresolved, ()) = tokio::join!(resolver.prepare(routes, dns), token_keys.prepare(routes));
        log_warnings(&candidate);
        let Candidate { config, loaded, ticket_keys, .. } = candidate;
        let tickets = match inherited.tickets.take() {
            Some(tickets) => tickets,
            None => Tickets::new()?,
        };
        tickets.adopt(ticket_keys.as_ref());
        let certificates = Certificates::new(loaded, 1);
        let site = Site::build(&config.site(), 1, None, &certificates, &tickets)?;
        certificates.answer_challenges(site.challenges.clone().map(|challenges| challenges as _));
        resolver.publish(site.all_routes(), Duration::ZERO); // before what is known of the servers
        for piece in std::mem::take(&mut inherited.servers) {
            if let Err(e) = site.take_servers(&piece) {
                warn!(cause = %e, "what the old process knows of a server is lost");
            }
        }
        let workers = config.workers.unwrap_or_else(|| available_parallelism().map_or(1, Into::into));
        if !matches!(source, ConfigSource::Given(_)) {
            core_dumps::allow(config.core_dumps); // the process is ours, and not another program's
        }
        let mut listeners = Vec::new();
        let mut problems = Vec::new();
        for listener in &config.listeners {
            match inherited.listen(&listener.address, workers) {
                Ok(opened) => listeners.push(opened),
                Err(e) => problems.push(config.problem(listener.place, cannot_listen(&listener.address, &e))),
            }
        }
        let default_control = match source {
            // Where systemd has made room for it.
            ConfigSource::File(_) | ConfigSource::BuiltIn { .. } => {
                control::in_runtime_directory(std::env::var_os("RUNTIME_DIRECTORY"))
            }
            ConfigSource::Given(_) => None,
        };
        let outside = Outside::new(inherited.predecessor.is_none(), default_control);
        let to_open =
            outside.open(&config, &mut inherited, &ListenerSockets::default(), &mut problems, cannot_listen);
        let access_log = AccessLog::default();
        let log_opened = access_log::prepare(&access_log, &config, &mut problems);
        let Some(log_opened) = log_opened.filter(|_| problems.is_empty()) else {
            problems.sort_by_key(|problem| problem.place);
            return Err(Problems(problems).into());
        };
        inherited.close_unwanted();
        let site = Arc::new(ArcSwap::from_pointee(site));
        let servers = resolver.serve(site.clone());
        token_keys.watch(site.clone());
        let keys = token_keys.lost();
        let casing = upgrade_handler::casing::canonical();
        let (end, ended) = mpsc::channel(workers);
        let drained = inherited
            .drained
            .iter()
            .filter_map(|target| DrainTarget::parse(target, site.load().all_routes()).ok());
        let drained = drained.fold(Drained::default(), |drained, target| drained.with(target));
        let drained = Arc::new(ArcSwap::from_pointee(drained));
        let shortage = Arc::<Shortage>::default();
        let quotas = Arc::<Quotas>::default();
        let transit = Arc::<Transit>::default();
        let taps = Arc::<Taps>::default();
        let ends = SessionEnds::default();
        let common = Common {
            site: site.clone(),
            certificates: certificates.clone(),
            drained: drained.clone(),
            transit: transit.clone(),
            taps: taps.clone(),
            shortage: shortage.clone(),
            quotas: quotas.clone(),
            passwords: Arc::default(),
            casing,
            sinks: Sinks::new(vec![Box::new(access_log.clone()), Box::new(ends.clone())]),
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
            counts: workers.iter().map(|worker| worker.counts.clone()).collect(),
            http2: workers.iter().map(|worker| worker.http2.clone()).collect(),
            pressure: workers.iter().map(|worker| worker.pressure.clone()).collect(),
            shortage,
            quotas,
            access_log: access_log.clone(),
            names: resolver.names().clone(),
            reserve: Arc::default(),
            acme: Arc::default(),
            reloads_taken: AtomicU64::new(0),
            reloads_refused: AtomicU64::new(0),
            is_reload_refused: AtomicBool::new(false),
            moves: MoveTotals::default(),
            taps,
            asking: tokio::sync::Mutex::default(),
            ends,
            reloads: ReloadHistory::default(),
            sockets: ListenerSockets::default(),
            started: tokio::time::Instant::now(),
            stage: Mutex::new(LifecycleStage::Starting),
        });
        let (tell, demands) = mpsc::channel(DEMANDS_MAX);
        let access = Access { overview: overview.clone(), demands: tell };
        let acme = AcmeKeeper::new(config.acme.as_ref(), certificates.clone(), overview.acme.clone());
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
            access_log,
            transit,
            prober,
            resolver,
            token_keys,
            acme,
            choices: watch::channel(()).0,
        };
        gateway.keep_drained();
        let closed = Closed { config, ticket_keys, listeners, outside: to_open, access_log: log_opened };
        Ok((Begun { gateway, predecessor: None, ended, demands, downs, servers, keys }, closed))
    }

    /// Begins to accept connections.
    pub(super) fn open(&mut self, closed: Closed, started: Instant) {
        let Closed { config, ticket_keys, listeners, outside, access_log } = closed;
        self.access_log.settle(access_log);
        self.outside.settle(&config, outside, &self.access);
        for listener in listeners {
            self.listen(listener);
        }
        self.prober.follow(&self.site.load_full());
        self.overview.enter(LifecycleStage::Ready);
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
    pub(super) fn listen(&mut self, bound: BoundListener) {
        let BoundListener { address, local, sockets, claim, is_activated } = bound;
        if !is_activated {
            self.overview.sockets.hold(&address, claim);
        }
        for (worker, socket) in self.workers.iter().cycle().zip(sockets) {
            // A worker that is gone is noticed where it ended.
            let _ = worker.commands.send(Command::Listen { address: address.clone(), socket });
        }
        let tls = self.site.load().listener_state(&address).is_some_and(|state| state.acceptor.is_some());
        info!(address = %local, tls, "listening");
        self.listening.insert(address, local);
    }

    /// From here on this process is the service: it has the control socket, and reports to the service manager.
    pub(super) fn take_charge(&mut self) {
        self.outside.take_control_path(&self.access);
        let status = self.status();
        self.notifier.begin(self.commands(), &status);
        self.acme.take_charge();
    }

    /// For the service manager.
    pub(super) fn status(&self) -> String {
        let (generation, listeners) = (self.generation, self.listening.len());
        let routes = self.site.load().route_ids().len();
        format!("serving: generation {generation}, {listeners} listeners, {routes} routes")
    }

    /// Where the workers take commands.
    pub(super) fn commands(&self) -> Vec<mpsc::UnboundedSender<Command>> {
        self.workers.iter().map(|worker| worker.commands.clone()).collect()
    }

    /// A look at the certificates, without a signal.
    pub(super) fn renew(&mut self, look: Result<Look, JoinError>) {
        let next = self.generation + 1;
        if self.renewal.on_look(look, &self.certificates, next) {
            self.generation = next;
        }
        self.log_expiries();
    }

    /// Logs which certificates have come nearer to their end.
    pub(super) fn log_expiries(&mut self) {
        let current = self.certificates.current();
        for expiry in self.expiries.news(&current.loaded.set, unix_now()) {
            let days_left = expiry.days_left;
            match expiry.stage {
                ExpiryLevel::Within(_) => warn!(problem = %expiry, days_left, "a certificate expires"),
                ExpiryLevel::Expired(_) => error!(problem = %expiry, days_left, "a certificate has expired"),
            }
        }
    }
}
