//! What a configuration says, as values.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use ipnet::IpNet;
use tls_acceptor::{AcceptorSettings, Plan};

use super::acme_settings::AcmeSettings;
use super::dns::DnsSettings;
use super::log::LogSettings;
use super::machine;
use super::problem::{Place, Problem};
use crate::net::limits::ClientLimits;
use crate::net::listening::ListenAddress;
use crate::site::admin_token::TokenFile;
use crate::site::hidden::Hidden;
use crate::site::host::HostPattern;
use crate::site::route::Route;
use crate::site::{self, Drain, RemovedRoutes, TakeoverSessions};

/// Where the control socket is if the configuration names no other path.
pub const CONTROL_SOCKET: &str = "/run/wssgate/control.sock";

/// A configuration that can be carried out, as far as can be known without its files.
///
/// It is read from TOML, or made of values:
///
/// ```
/// use std::sync::Arc;
/// use gateway::config::{Config, Listener};
/// use gateway::site::matcher::Matcher;
/// use gateway::site::route::{Action, Route};
/// use gateway::site::upstream::Upstream;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = Upstream::parse("http://127.0.0.1:8282")?;
/// let config = Config {
///     listeners: vec![Listener::plain("127.0.0.1:8080".parse()?)],
///     routes: vec![Arc::new(Route::new(Matcher::parse("/wss")?, Action::Proxy(Arc::new(server))))],
///     ..Config::default()
/// };
/// config.check()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it was read from; empty if it was made of values.
    pub file: PathBuf,
    /// The files that it includes, in the order in which they were read.
    pub included: Vec<PathBuf>,
    /// Patterns in `include` that no file matches, which is probably a mistake.
    pub unmatched: Vec<String>,
    /// Where values are whose variables can't be put in: that is noted, and what else is wrong with them says nothing.
    pub unexpanded: Vec<Place>,
    /// What the files took from the environment, which is not shown.
    pub hidden: Hidden,
    /// Worker threads; `None`: one per core.
    pub workers: Option<usize>,
    /// Where the file says so.
    pub workers_place: Place,
    /// Bytes that may be held for peers; `None`: any number.
    pub memory_max: Option<u64>,
    /// Bytes that may be kept for compression that ends at the gateway; `None`: any number.
    pub compression_memory_max: Option<u64>,
    /// Connections of clients that may be open; `None`: any number.
    pub connections_max: Option<u64>,
    /// How sessions are sent away.
    pub drain: Drain,
    /// What becomes of sessions whose route has gone.
    pub removed_routes: RemovedRoutes,
    /// Where health, metrics and the page are served; `None`: nowhere.
    pub admin: Option<Admin>,
    /// Where operators control the gateway; `None`: the file doesn't say.
    pub control: Option<ControlSocket>,
    /// From a takeover to the moment when the old process drains what it still serves.
    pub takeover_timeout: Duration,
    /// What becomes of sessions when this configuration's process takes over from another.
    pub takeover_sessions: TakeoverSessions,
    /// At a takeover, how long sessions in the middle of a write are waited for.
    pub handover_wait: Duration,
    /// The memory of the process may be dumped, and read by debuggers of the same user.
    pub core_dumps: bool,
    /// The proxies whose statements about their clients are trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// The file of the ticket keys, and where the configuration names it; `None`: keys in memory.
    pub ticket_keys: Option<(PathBuf, Place)>,
    /// Where connections are accepted; no address twice, nor one that is part of another.
    pub listeners: Vec<Listener>,
    /// Where the certificates are.
    pub certificates: Plan,
    /// Whether their files are watched.
    pub watch: bool,
    /// Where the file says so.
    pub certificate_places: CertificatePlaces,
    /// Certificates that are ordered; `None`: none.
    pub acme: Option<AcmeSettings>,
    /// The directories whose files are served, and where the file names them.
    pub file_directories: Vec<(PathBuf, Place)>,
    /// The Unix sockets of servers, and where the file names them.
    pub server_sockets: Vec<(PathBuf, Place)>,
    /// How names of servers are looked up.
    pub dns: DnsSettings,
    /// Where lines of requests and sessions go.
    pub log: LogSettings,
    /// What is served; no two for the same host, path and conditions.
    pub routes: Vec<Arc<Route>>,
    /// Names of upstreams that no route has.
    pub upstreams_unused: Vec<Arc<str>>,
}

/// No listener and no route, and what holds where a file says nothing.
impl Default for Config {
    fn default() -> Self {
        Self {
            file: PathBuf::new(),
            included: Vec::new(),
            unmatched: Vec::new(),
            unexpanded: Vec::new(),
            hidden: Hidden::default(),
            workers: None,
            workers_place: Place::default(),
            memory_max: default_memory(None),
            compression_memory_max: Some(Self::COMPRESSION_MEMORY_MAX),
            connections_max: None,
            drain: Drain::DEFAULT,
            removed_routes: RemovedRoutes::Drain,
            admin: None,
            control: None,
            takeover_timeout: Self::TAKEOVER_TIMEOUT,
            takeover_sessions: TakeoverSessions::Move,
            handover_wait: Self::HANDOVER_WAIT,
            core_dumps: false,
            trusted_proxies: Vec::new(),
            ticket_keys: None,
            listeners: Vec::new(),
            certificates: Plan::default(),
            watch: false,
            certificate_places: CertificatePlaces::default(),
            acme: None,
            file_directories: Vec::new(),
            server_sockets: Vec::new(),
            dns: DnsSettings::default(),
            log: LogSettings::default(),
            routes: Vec::new(),
            upstreams_unused: Vec::new(),
        }
    }
}

/// The admin listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// The address; port 0 lets the system choose.
    pub address: ListenAddress,
    /// Where the file says so.
    pub place: Place,
    /// The names by which browsers may ask for the page.
    pub hosts: Vec<HostPattern>,
    /// The file with the token of the page.
    pub token: Option<TokenFile>,
    /// The page may change something.
    pub has_actions: bool,
}

/// The control socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlSocket {
    /// Its path.
    pub path: PathBuf,
    /// Sessions may be watched over it.
    pub tap: bool,
    /// Where the file says so.
    pub place: Place,
}

impl Config {
    pub(super) const COMPRESSION_MEMORY_MAX: u64 = 64 * 1024 * 1024;
    pub(super) const TAKEOVER_TIMEOUT: Duration = Duration::from_secs(3600);
    pub(super) const HANDOVER_WAIT: Duration = Duration::from_secs(2);

    /// What requests are served by.
    #[must_use]
    pub fn site(&self) -> site::SiteSettings<'_> {
        let listeners = self.listeners.iter();
        let listeners = listeners.map(|listener| site::listener::ListenerSettings {
            name: listener.name.clone(),
            address: listener.address.clone(),
            tls: listener.tls.clone(),
            limits: listener.limits,
            websocket_over_http2: listener.websocket_over_http2,
            proxy_protocol: listener.proxy_protocol.clone(),
            redirect: listener.redirect,
        });
        site::SiteSettings {
            listeners: listeners.collect(),
            routes: &self.routes,
            hidden: &self.hidden,
            challenges: self.acme.as_ref().map(|acme| Arc::new(acme.challenges())),
            trusted_proxies: &self.trusted_proxies,
            drain: self.drain,
            memory_max: self.memory_max,
            compression_memory_max: self.compression_memory_max,
            connections_max: self.connections_max,
            removed_routes: self.removed_routes,
            takeover_timeout: self.takeover_timeout,
            handover_wait: self.handover_wait,
        }
    }

    /// A problem with this configuration.
    pub fn problem(&self, place: Place, what: impl Into<String>) -> Problem {
        let included = place.file.checked_sub(1).and_then(|index| self.included.get(index));
        let file = included.unwrap_or(&self.file).clone();
        Problem { file, place, what: self.hidden.hide(&what.into()) }
    }

    /// Some listener speaks TLS.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        self.listeners.iter().any(|listener| listener.tls.is_some())
    }
}

/// A few full buffers each, in bytes.
pub(super) const MEMORY_PER_WORKER_MIN: u64 = 4 * 1024 * 1024;

/// The least `max_memory` for so many workers, in bytes; `None`: one per core.
pub(super) fn memory_min(workers: Option<usize>) -> u64 {
    let workers = workers.or_else(|| available_parallelism().ok().map(Into::into)).unwrap_or(1);
    MEMORY_PER_WORKER_MIN * workers as u64
}

/// A quarter of the memory there is, in bytes; `None` if that can't be found out.
pub(super) fn default_memory(workers: Option<usize>) -> Option<u64> {
    machine::memory().map(|bytes| (bytes / 4).max(memory_min(workers)))
}

/// Where the parts of [`Config::certificates`] are written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CertificatePlaces {
    /// `[certificates]`, or the first line.
    pub section: Place,
    /// Its `directory`.
    pub directory: Place,
    /// Its `default`.
    pub default: Place,
    /// Each `[[certificate]]`.
    pub named: Vec<NamedPlaces>,
}

/// Where the parts of one [`tls_acceptor::Named`] are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamedPlaces {
    /// Its `chain`.
    pub chain: Place,
    /// Its `key`.
    pub key: Place,
    /// Its `client_auth`.
    pub client_auth: Place,
}

/// One address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// What routes call it; listeners may share a name.
    pub name: Arc<str>,
    /// The address; port 0 lets the system choose.
    pub address: ListenAddress,
    /// `None`: plain text, HTTP/1.1 only.
    pub tls: Option<AcceptorSettings>,
    /// How long clients are waited for.
    pub limits: ClientLimits,
    /// WebSockets may be opened over HTTP/2 (RFC 8441).
    pub websocket_over_http2: bool,
    /// Balancers whose connections begin with a header of the PROXY protocol.
    pub proxy_protocol: Vec<IpNet>,
    /// Plain HTTP is sent to `https://`: by a listener without TLS for every host that one with TLS serves, by one with
    /// TLS for its own hosts.
    pub redirect: bool,
    /// Where the file says so.
    pub place: Place,
}

impl Listener {
    /// TLS with the default settings.
    #[must_use]
    pub fn tls(address: SocketAddr) -> Self {
        Self { tls: Some(AcceptorSettings::default()), ..Self::plain(address) }
    }

    /// Plain text, HTTP/1.1 only.
    #[must_use]
    pub fn plain(address: SocketAddr) -> Self {
        Self {
            name: address.to_string().into(),
            address: address.into(),
            tls: None,
            limits: ClientLimits::DEFAULT,
            websocket_over_http2: true,
            proxy_protocol: Vec::new(),
            redirect: false,
            place: Place::default(),
        }
    }
}
