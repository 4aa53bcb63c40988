//! What a connection may touch: what it shares with the others of its worker, and what its requests have in common.

pub(crate) mod authority;
pub(crate) mod compression;
pub(crate) mod counts;
pub(crate) mod identity;
pub(crate) mod idle;
pub(crate) mod passwords;
pub(crate) mod progress;
pub(crate) mod quotas;
pub(crate) mod recheck;
pub(crate) mod redial;
pub(crate) mod registry;
pub(crate) mod relief;
pub(crate) mod shed_clients;
pub(crate) mod taps;
pub(crate) mod transit;
pub(crate) mod under_way;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use frame_core::close::{GOING_AWAY, TRY_AGAIN_LATER, UNAUTHORIZED};
use frame_core::deflated::Deflating;
use frame_core::handle::{EndMode, Order};
use http::{Extensions, HeaderValue};
use tls_acceptor::{Certificates, ClientRules, Negotiated, PeerCertificate, Waiting};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use upgrade_handler::Offer;

use crate::context::authority::Outages;
use crate::context::compression::Compressing;
use crate::context::counts::WorkerCounts;
use crate::context::idle::IdleWaits;
use crate::context::passwords::Passwords;
use crate::context::quotas::{ConnectionSlot, Quotas};
use crate::context::registry::{Registered, Registry, SessionOpener};
use crate::context::shed_clients::ShedClients;
use crate::context::taps::Taps;
use crate::context::transit::Transit;
use crate::context::under_way::UnderWay;
use crate::net::budget::{Pressure, Share, held};
use crate::net::limits::ClientLimits;
use crate::net::listening::UNIX_PEER;
use crate::net::shortage::Shortage;
use crate::net::stop::StopSignal;
use crate::net::sweep::Sweep;
use crate::site::Site;
use crate::site::drained::Drained;
use crate::site::route::{Compression, Route};
use crate::telemetry::record::Sinks;
use crate::upstream::http2::connections::Connections;
use crate::upstream::pool::Pool;

/// Connections of a worker whose clients have said nothing yet: some 30 MB at most, with what the kernel has.
const SILENT_MAX: usize = 16_384;

/// Questions to authorization servers at a time, of one worker, for live sessions.
const RECHECKS_MAX: usize = 32;

/// What all connections of a worker share.
#[derive(Debug)]
pub struct Worker {
    site: Arc<ArcSwap<Site>>,
    /// The certificates in use.
    pub certificates: Arc<Certificates>,
    /// Routes and servers that are drained by order.
    drained: Arc<ArcSwap<Drained>>,
    /// Kept-alive connections to backends.
    pub pool: Arc<Pool>,
    /// Connections over HTTP/2 to backends.
    pub http2: Arc<Connections>,
    /// Kept-alive connections to authorization servers.
    pub auth_pool: Arc<Pool>,
    /// Their failures.
    pub auth_outages: Outages,
    /// Turns to ask them for live sessions.
    pub rechecks: Semaphore,
    /// Live sessions.
    pub sessions: Arc<Registry>,
    /// What it keeps for those whose messages it compresses.
    pub compression: Compressing,
    /// What it has to do beside its sessions.
    pub under_way: Arc<UnderWay>,
    /// Connections accepted so far.
    pub accepted: Arc<AtomicU64>,
    /// What it counts of itself.
    pub counts: Arc<WorkerCounts>,
    /// What looks at the tasks of connections now and then.
    pub sweep: Arc<Sweep>,
    /// Connections and sessions: the worker ends when all of them have.
    pub tasks: TaskTracker,
    /// The gateway is about to end: connections take no more requests.
    pub draining: StopSignal,
    /// Another process has taken over: connections end when they can do so unnoticed.
    pub retiring: StopSignal,
    /// Where sessions go that another process takes.
    pub transit: Arc<Transit>,
    /// Connections whose clients have said nothing yet.
    pub silent: Waiting,
    /// Clients whose places were needed for others.
    pub shed_clients: ShedClients,
    /// Sessions of all workers that are watched.
    pub taps: Arc<Taps>,
    /// What all workers know of a want of descriptors.
    pub shortage: Arc<Shortage>,
    /// Its use of memory.
    pub pressure: Arc<Pressure>,
    /// How much clients use, of all workers.
    pub quotas: Arc<Quotas>,
    /// Passwords that are verified, of all workers.
    pub passwords: Arc<Passwords>,
    /// Field names of handshakes as the RFC spells them.
    pub casing: Extensions,
    /// What takes the records of finished requests and sessions.
    pub sinks: Sinks,
}

impl Worker {
    /// One without connections.
    #[must_use]
    pub fn new(common: Common, sessions: Arc<Registry>) -> Self {
        let Common { site, certificates, drained, transit, taps, shortage, quotas, passwords, casing, sinks } =
            common;
        Self {
            site,
            certificates,
            drained,
            pool: Arc::default(),
            auth_pool: Arc::default(),
            auth_outages: Outages::default(),
            rechecks: Semaphore::new(RECHECKS_MAX),
            http2: Arc::default(),
            sessions,
            under_way: Arc::default(),
            accepted: Arc::default(),
            counts: Arc::default(),
            sweep: Arc::default(),
            tasks: TaskTracker::new(),
            draining: StopSignal::default(),
            retiring: StopSignal::default(),
            transit,
            taps,
            silent: Waiting::new(SILENT_MAX),
            shed_clients: ShedClients::default(),
            shortage,
            pressure: Arc::default(),
            quotas,
            passwords,
            casing,
            compression: Compressing::default(),
            sinks,
        }
    }

    /// Runs a task of a connection.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(self.sweep.over(task));
    }

    /// The site in use.
    #[must_use]
    pub fn site(&self) -> Arc<Site> {
        self.site.load_full() // never a guard: arc-swap's are not for holding
    }

    /// Nothing new may go this way.
    #[must_use]
    pub fn is_drained(&self, route: &Route) -> bool {
        self.drained.load().covers(route).is_some()
    }

    /// Its part of `max_memory`; `None`: no limit.
    #[must_use]
    pub fn share(&self) -> Option<Share> {
        self.share_under(&self.site.load())
    }

    /// What is agreed upon with a client that offers compression, where it ends at the gateway.
    #[must_use]
    pub fn compress(&self, route: &Route, offer: &Offer) -> Option<(HeaderValue, Box<Deflating>)> {
        let Compression::Terminate { history_max } = route.compression else { return None };
        let max = self.site.load().compression_memory_max;
        let max = max.map_or(u64::MAX, |max| max / self.sessions.workers().max(1));
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let (field, mut deflating) = self.compression.agree(offer, history_max, max)?;
        deflating.count_in(route.counts().here().deflated.clone());
        Some((field, deflating))
    }

    fn share_under(&self, site: &Site) -> Option<Share> {
        site.memory_max.map(|max| Share::new(max, self.sessions.workers()))
    }

    /// So much memory is held for peers that nothing new may begin.
    #[must_use]
    pub fn is_short_of_memory(&self) -> bool {
        self.is_short_of_memory_under(&self.site.load())
    }

    /// The same by the limit of `site`.
    #[must_use]
    pub fn is_short_of_memory_under(&self, site: &Site) -> bool {
        self.share_under(site).is_some_and(|share| share.is_short(held()))
    }

    /// Registers a new session of `route`, which was found in some generation of the site. If the
    /// route has gone or is drained meanwhile, or the gateway is going, the session's end is ordered at
    /// once.
    #[must_use]
    pub fn enroll(&self, route: &Arc<Route>, who: SessionOpener) -> Registered {
        let is_drained = who.server.as_ref().is_some_and(|server| server.is_drained());
        let registered = self.sessions.register(route, who);
        let site = self.site();
        let code = if self.draining.is_cancelled() || is_drained || self.is_drained(route) {
            Some(site.drain.close_code)
        } else if self.is_short_of_memory() {
            self.pressure.refused.fetch_add(1, Ordering::Relaxed);
            Some(TRY_AGAIN_LATER)
        } else {
            site.sends_away(&route.id)
                .then_some(GOING_AWAY)
                .or_else(|| self.unauthorized(&registered, route, &site))
        };
        if let Some(code) = code {
            let mode = EndMode::AfterMessages { within: site.drain.timeout };
            registered.handle().end(Order { code, mode });
        }
        registered
    }
}

impl Worker {
    /// A reload that the session has missed may say that its client is no longer allowed to have it.
    fn unauthorized(&self, registered: &Registered, route: &Arc<Route>, site: &Site) -> Option<u16> {
        if site.route(&route.id).is_none_or(|current| Arc::ptr_eq(current, route) || current.access.is_none())
        {
            return None;
        }
        let entry = self.sessions.get(registered.id())?;
        (!authority::is_allowed(&entry, site)).then_some(UNAUTHORIZED)
    }
}

/// What all workers have in common.
#[derive(Debug, Clone)]
pub struct Common {
    /// The site in use.
    pub site: Arc<ArcSwap<Site>>,
    /// The certificates in use.
    pub certificates: Arc<Certificates>,
    /// Routes and servers that are drained by order.
    pub drained: Arc<ArcSwap<Drained>>,
    /// See [`Worker::transit`].
    pub transit: Arc<Transit>,
    /// See [`Worker::taps`].
    pub taps: Arc<Taps>,
    /// See [`Worker::shortage`].
    pub shortage: Arc<Shortage>,
    /// See [`Worker::quotas`].
    pub quotas: Arc<Quotas>,
    /// See [`Worker::passwords`].
    pub passwords: Arc<Passwords>,
    /// See [`Worker::casing`].
    pub casing: Extensions,
    /// See [`Worker::sinks`].
    pub sinks: Sinks,
}

/// What the requests of a connection have in common.
#[derive(Debug)]
pub struct Connection {
    /// The address at its other end.
    pub peer: SocketAddr,
    /// The address that it came to, for backends that are told it by the PROXY protocol.
    pub local: SocketAddr,
    /// What its handshake found; `None`: plain text.
    pub tls: Option<Tls>,
    /// The name of the listener that it came to.
    pub listener: Arc<str>,
    /// Whether its requests are sent to `https://`.
    pub redirect: Redirect,
    /// How long it is waited for. The listener's: idle sessions keep a connection's facts.
    pub limits: Arc<ClientLimits>,
    /// Where it lives.
    pub worker: Arc<Worker>,
    /// It counts until its session ends, which keeps it alive.
    pub slot: ConnectionSlot,
    /// Connections to backends that its client has logged in: no other client's requests go over them, and they end
    /// with it. Made when they are needed.
    pub own: OnceLock<Arc<Pool>>,
}

// Each idle session keeps one, too.
const _: () = assert!(size_of::<Connection>() <= 176);

impl Connection {
    /// The port of the client with this address; `None`: it is at another proxy, or at a Unix socket.
    #[must_use]
    pub fn port_of(&self, client: IpAddr) -> Option<u16> {
        (client == self.peer.ip() && client != UNIX_PEER).then(|| self.peer.port())
    }

    /// Its waits for requests, if there is a bound on connections.
    pub(crate) fn idle_waits(&self) -> Option<IdleWaits> {
        self.worker.site().connections_max?;
        Some(self.worker.quotas.idle.of(self.worker.sessions.number(), self.peer))
    }
}

/// Whether requests without TLS are sent to `https://`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redirect {
    /// They are served.
    No,
    /// Those that no route takes which names the listener.
    Unbound,
    /// All of them: the listener speaks TLS.
    All,
}

/// What a TLS handshake found.
#[derive(Debug)]
pub struct Tls {
    /// The name the client asked for.
    pub server_name: Option<Box<str>>,
    /// As the protocol calls it.
    pub version: &'static str,
    /// What was agreed upon; `None`: in an earlier release, which did not say.
    pub negotiated: Option<Negotiated>,
    /// What clients of the name have to show, and this one has; `None`: nothing.
    pub client: Option<Box<TlsClient>>,
}

/// A client of a name with rules for certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsClient {
    /// The rules.
    pub rules: ClientRules,
    /// What it has shown.
    pub certificate: Option<Box<PeerCertificate>>,
}

impl Tls {
    /// What the client has shown.
    #[must_use]
    pub fn certificate(&self) -> Option<&PeerCertificate> {
        self.client.as_ref()?.certificate.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::path::Path;
    use std::time::Duration;

    use tls_acceptor::Loaded;
    use tls_acceptor::Tickets;
    use tokio::time::Instant;

    use super::*;
    use crate::config::Config;
    use crate::context::redial::SessionRedial;
    use crate::site::drained::DrainTarget;

    const ROUTE: &str = "[[route]]\npath = \"/\"\nservice = \"echo\"\n";

    fn site(text: &str) -> Site {
        let (config, _) = Config::parse(Path::new("wssgate.toml"), text);
        let certificates = Certificates::new(Loaded::default(), 1);
        Site::build(&config.site(), 1, None, &certificates, &Tickets::new().unwrap()).unwrap()
    }

    /// The order that a session gets which is enrolled after `before` has happened.
    fn order_after(text: &str, before: impl FnOnce(&Worker)) -> Option<Order> {
        let common = Common {
            site: Arc::new(ArcSwap::from_pointee(site(text))),
            certificates: Certificates::new(Loaded::default(), 1),
            drained: Arc::default(),
            transit: Arc::default(),
            taps: Arc::default(),
            shortage: Arc::default(),
            quotas: Arc::default(),
            passwords: Arc::default(),
            casing: Extensions::new(),
            sinks: Sinks::new(Vec::new()),
        };
        let worker = Worker::new(common, Arc::new(Registry::new(0, 1)));
        let who = SessionOpener {
            peer: (Ipv4Addr::LOCALHOST, 1).into(),
            client: Ipv4Addr::LOCALHOST.into(),
            protocol: "HTTP/1.1",
            started: Instant::now(),
            stays: None,
            server: None,
            identity: None,
            redial: SessionRedial::Off,
        };
        // It was found before.
        let route = worker.site().all_routes()[0].clone();
        before(&worker);
        worker.enroll(&route, who).handle().order()
    }

    #[tokio::test]
    async fn a_session_that_comes_too_late_is_sent_away_at_once() {
        let mode = EndMode::AfterMessages { within: Duration::from_secs(30) };
        let order = |code| Some(Order { code, mode });
        assert_eq!(order_after(ROUTE, |_| {}), None);
        let own = format!("drain_close_code = 4000\n{ROUTE}");
        assert_eq!(order_after(&own, |worker| worker.draining.cancel()), order(4000));
        let drain = |worker: &Worker| {
            let target = DrainTarget::parse("/", &[]).unwrap();
            worker.drained.store(Arc::new(Drained::default().with(target)));
        };
        assert_eq!(order_after(&own, drain), order(4000));
        let other = ROUTE.replace("\"/\"", "\"/other\"");
        assert_eq!(order_after(&own, |worker| worker.site.store(Arc::new(site(&other)))), order(GOING_AWAY));
        let full = format!("workers = 1\nmax_memory = \"4MiB\"\n{ROUTE}");
        let mut buffers = Vec::new();
        let fill = |_: &Worker| buffers.extend((0..16).map(|_| net_io::Buffer::take()));
        assert_eq!(order_after(&full, fill), order(TRY_AGAIN_LATER));
        drop(buffers);
        assert_eq!(order_after(&full, |_| {}), None);
    }
}
