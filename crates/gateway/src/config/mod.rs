//! The configuration: parsed once, trusted after.
//!
//! In: TOML. Out: a checked [`Config`], or every [`Problem`] at once, each with its place.

pub mod across;
mod keys;
mod machine;
mod problem;
mod raw;
mod secret;
mod values;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use frame_core::close::GOING_AWAY;
use frame_core::policy::Policy;
use frame_core::sequence::Limits;
use ipnet::IpNet;
use tls_acceptor::{Alpn, CertName, MinVersion, Named, Plan};
use upgrade_handler::origin::OriginPattern;

pub use self::problem::{Place, Problem, Problems};
use self::raw::{At, Document, Section};
use self::values::{duration, duration_or_off, duration_or_zero, network, rate_or_off, socket_address};
use crate::net::limits::ClientLimits;
use crate::net::options::collide;
use crate::site::path::RoutePath;
use crate::site::route::{Action, Route, RouteId, Service};
use crate::site::upstream::Upstream;
use crate::site::{self, Drain, RemovedRoutes};

/// Where what is missing is missing.
const FIRST_LINE: Place = Place { line: 1, column: 1 };
const SECOND: Duration = Duration::from_secs(1);
/// Where the admin listener is if nothing is said: this machine's business alone.
const ADMIN_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9180);
/// Where the control socket is if the configuration names no other path.
pub const CONTROL_SOCKET: &str = "/run/wssgate/control.sock";
const WORKERS_MAX: usize = 1024;
/// A few full buffers each.
const MEMORY_PER_WORKER_MIN: u64 = 4 * 1024 * 1024;
/// Messages of endpoints are held in memory, so there is always a limit.
const ENDPOINT_MESSAGE_MAX: u64 = 16 * 1024 * 1024;

/// A configuration that can be carried out, as far as a file can tell.
#[derive(Debug)]
pub struct Config {
    /// Where it was read; empty for the built-in one.
    pub file: PathBuf,
    /// Worker threads; `None`: one per core.
    pub workers: Option<usize>,
    /// Where the file says so.
    pub workers_place: Place,
    /// Bytes that may be held for peers; `None`: any number.
    pub memory_max: Option<u64>,
    /// How sessions are sent away.
    pub drain: Drain,
    /// What becomes of sessions whose route has gone.
    pub removed_routes: RemovedRoutes,
    /// Where the gateway tells how it is; `None`: nowhere.
    pub admin: Option<Admin>,
    /// Where it is steered from; `None`: the file doesn't say.
    pub control: Option<ControlSocket>,
    /// From a takeover to the moment when what the old process still serves is drained.
    pub takeover_timeout: Duration,
    /// Whose word about their clients is believed.
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
    /// What is served; no host and path twice.
    pub routes: Vec<Arc<Route>>,
}

/// The admin listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admin {
    /// The address; port 0 lets the system choose.
    pub address: SocketAddr,
    /// Where the file says so.
    pub place: Place,
}

/// The control socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlSocket {
    /// Its path.
    pub path: PathBuf,
    /// Where the file says so.
    pub place: Place,
}

/// Where the parts of [`Config::certificates`] are written.
#[derive(Debug, Default)]
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

/// Where the parts of one [`Named`] are written.
#[derive(Debug, Clone, Copy)]
pub struct NamedPlaces {
    /// Its `chain`.
    pub chain: Place,
    /// Its `key`.
    pub key: Place,
}

/// One address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The address; port 0 lets the system choose.
    pub address: SocketAddr,
    /// `None`: plain text, HTTP/1.1 only.
    pub tls: Option<tls_acceptor::AcceptorSettings>,
    /// How long clients are waited for.
    pub limits: ClientLimits,
    /// Where the file says so.
    pub place: Place,
}

impl Config {
    /// What requests are served by.
    #[must_use]
    pub fn site(&self) -> site::SiteSettings<'_> {
        let listeners = self.listeners.iter();
        let listeners = listeners.map(|Listener { address, tls, limits, .. }| {
            site::listener::ListenerSettings { address: *address, tls: tls.clone(), limits: *limits }
        });
        site::SiteSettings {
            listeners: listeners.collect(),
            routes: &self.routes,
            trusted_proxies: &self.trusted_proxies,
            drain: self.drain,
            memory_max: self.memory_max,
            removed_routes: self.removed_routes,
            takeover_timeout: self.takeover_timeout,
        }
    }

    /// Reads and checks a file. What could be understood comes with everything that is wrong; it
    /// is only to be carried out if nothing is.
    #[must_use]
    pub fn read(file: &Path) -> (Self, Vec<Problem>) {
        match std::fs::read_to_string(file) {
            Ok(text) => Self::parse(file, &text),
            Err(e) => {
                let (config, _) = Self::parse(file, "");
                let problem = config.problem(FIRST_LINE, format!("can't be read: {e}"));
                (config, vec![problem])
            }
        }
    }

    /// Checks a configuration's text. Relative paths in it are relative to `file`.
    #[must_use]
    pub fn parse(file: &Path, text: &str) -> (Self, Vec<Problem>) {
        let (mut document, tree) = Document::parse(file, text);
        let root = Section::root(&document, &tree);
        let config = read_config(file, &mut document, root);
        (config, document.finish())
    }

    /// A problem with this configuration.
    pub fn problem(&self, place: Place, what: impl Into<String>) -> Problem {
        Problem { file: self.file.clone(), place, what: what.into() }
    }

    /// Some listener speaks TLS.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        self.listeners.iter().any(|listener| listener.tls.is_some())
    }
}

fn read_config(file: &Path, d: &mut Document<'_>, mut root: Section<'_>) -> Config {
    let base = file.parent().unwrap_or(Path::new(""));
    let workers = root.count(d, "workers", WORKERS_MAX);
    let memory_max = read_memory_max(d, &mut root, workers.as_ref().map(|at| at.value));
    let drain = read_drain(d, &mut root);
    let removed_routes = root.string(d, "removed_routes", |text| match text {
        "drain" => Ok(RemovedRoutes::Drain),
        "keep" => Ok(RemovedRoutes::Keep),
        _ => Err(format!("expected \"drain\" or \"keep\", found {text:?}")),
    });
    let takeover_timeout = root.duration(d, "takeover_timeout", values::limit);
    let trusted_proxies = root.strings(d, "trusted_proxies", network);
    let ticket_keys = root.string(d, "ticket_keys", |text| file_name(base, text));
    let listeners = read_listeners(d, &mut root);
    let admin = read_admin(d, &mut root, &listeners);
    let control = read_control(base, d, &mut root);
    let (certificates, watch, certificate_places) = read_certificates(base, d, &mut root);
    let routes = read_routes(d, &mut root);
    if routes.is_empty() && !root.has("route") {
        d.missing(FIRST_LINE, "there is no [[route]]: nothing would be served");
    }
    let tls = listeners.iter().find(|listener| listener.tls.is_some());
    if let Some(listener) = tls
        && !root.has("certificates")
        && !root.has("certificate")
    {
        d.missing(
            listener.place,
            "a listener with TLS needs certificates: add [certificates] with a directory, or a \
             [[certificate]] with chain and key, or set tls = false",
        );
    }
    root.finish(d);
    Config {
        file: file.to_owned(),
        workers_place: workers.as_ref().map_or(FIRST_LINE, |at| at.place),
        workers: workers.map(|at| at.value),
        memory_max,
        drain,
        removed_routes: removed_routes.map_or(RemovedRoutes::Drain, |at| at.value),
        admin,
        control,
        takeover_timeout: takeover_timeout.map_or(3600 * SECOND, |at| at.value),
        trusted_proxies: trusted_proxies.map(|at| at.value).unwrap_or_default(),
        ticket_keys: ticket_keys.map(|at| (at.value, at.place)),
        listeners,
        certificates,
        watch,
        certificate_places,
        routes,
    }
}

/// The path of a file or directory, relative to the configuration.
fn file_name(base: &Path, text: &str) -> Result<PathBuf, String> {
    let path = base.join(text);
    // The name would be repeated in messages, so it must not be the secret itself.
    if secret::is_likely(text) && !path.exists() {
        return Err(
            "expected the name of a file, found what may be the key itself; write it to a file that only \
                    the gateway's user can read (chmod 600), and name that one here"
                .to_owned(),
        );
    }
    Ok(path)
}

/// `max_memory`: a quarter of the memory there is, if the file says nothing.
fn read_memory_max(d: &mut Document<'_>, root: &mut Section<'_>, workers: Option<usize>) -> Option<u64> {
    let workers = workers.or_else(|| available_parallelism().ok().map(Into::into)).unwrap_or(1);
    let least = MEMORY_PER_WORKER_MIN * workers as u64;
    let Some(At { value, place }) = root.size_or_off(d, "max_memory") else {
        return machine::memory().map(|bytes| (bytes / 4).max(least));
    };
    if let Some(bytes) = value
        && bytes < least
    {
        d.problem(
            place,
            format!(
                "max_memory: {bytes} bytes are too little for {workers} workers; write \"{}MiB\" or more, or \
                 \"off\" for no limit",
                least >> 20
            ),
        );
    }
    value
}

fn read_drain(d: &mut Document<'_>, root: &mut Section<'_>) -> Drain {
    let delay = root.duration(d, "drain_delay", duration_or_zero);
    let window = root.duration(d, "drain_window", duration);
    let timeout = root.duration(d, "drain_timeout", duration);
    let timeout = timeout.map_or(30 * SECOND, |at| at.value);
    if let Some(At { value: delay, place }) = delay
        && delay >= timeout
    {
        let timeout = humantime::format_duration(timeout);
        d.problem(
            place,
            format!("drain_delay: it is a part of drain_timeout ({timeout}), so it has to be shorter"),
        );
    }
    let close_code = root.count(d, "drain_close_code", 4999).and_then(|At { value, place }| {
        // Codes by which a client sees that it should come again, or that it has a meaning for itself.
        let code = u16::try_from(value).ok().filter(|code| matches!(code, 1001 | 1012 | 1013 | 3000..=4999));
        if code.is_none() {
            d.problem(
                place,
                format!(
                    "drain_close_code: expected 1001 (going away), 1012 (service restart), 1013 (try again \
                     later), or a code of your own from 3000 to 4999, found {value}"
                ),
            );
        }
        code
    });
    Drain {
        delay: delay.map_or(Duration::ZERO, |at| at.value),
        window: window.map_or(10 * SECOND, |at| at.value),
        timeout,
        close_code: close_code.unwrap_or(GOING_AWAY),
    }
}

/// What is wrong with `address` beside the listeners that are there already.
fn overlap(listeners: &[Listener], address: SocketAddr) -> Option<String> {
    let other = listeners.iter().find(|l| collide(l.address, address))?;
    let (other, line) = (other.address, other.place.line);
    Some(if other == address {
        format!("address: {address} is listened on already (line {line})")
    } else {
        let all = if address.ip().is_unspecified() { address.ip() } else { other.ip() };
        format!(
            "address: {address} overlaps with {other} (line {line}); {all} is every address of this machine, \
             so keep one of the two"
        )
    })
}

fn read_admin(d: &mut Document<'_>, root: &mut Section<'_>, listeners: &[Listener]) -> Option<Admin> {
    let mut section = root.table(d, "admin", "[admin]")?;
    let place = section.place;
    let address = section.string(d, "address", socket_address);
    section.finish(d);
    let At { value: address, place } = address.unwrap_or(At { value: ADMIN_ADDRESS, place });
    if let Some(what) = overlap(listeners, address) {
        d.problem(place, what);
    }
    Some(Admin { address, place })
}

fn read_control(base: &Path, d: &mut Document<'_>, root: &mut Section<'_>) -> Option<ControlSocket> {
    let mut section = root.table(d, "control", "[control]")?;
    let place = section.place;
    let socket = section.string(d, "socket", |text| match text {
        "" => Err("expected a path such as \"/run/wssgate/control.sock\", found nothing".to_owned()),
        text => file_name(base, text),
    });
    section.finish(d);
    let At { value: path, place } = socket.unwrap_or_else(|| At { value: CONTROL_SOCKET.into(), place });
    Some(ControlSocket { path, place })
}

fn read_listeners(d: &mut Document<'_>, root: &mut Section<'_>) -> Vec<Listener> {
    let mut listeners: Vec<Listener> = Vec::new();
    let sections = root.tables(d, "listener", "[[listener]]");
    if sections.is_empty() && !root.has("listener") {
        let what = "there is no [[listener]]: add one with address = \"0.0.0.0:443\"";
        d.missing(FIRST_LINE, what);
    }
    for mut section in sections {
        let address = section.string(d, "address", socket_address);
        section.require(d, "address", "\"0.0.0.0:443\"");
        let tls = section.boolean(d, "tls").is_none_or(|at| at.value);
        let limits = read_limits(d, &mut section);
        let alpn = section.strings(d, "alpn", |text| {
            Alpn::parse(text).ok_or_else(|| format!("expected \"h2\" or \"http/1.1\", found {text:?}"))
        });
        let min_version = section.string(d, "min_version", |text| match text {
            "1.2" => Ok(MinVersion::Tls12),
            "1.3" => Ok(MinVersion::Tls13),
            _ => Err(format!("expected \"1.2\" or \"1.3\", found {text:?}; older versions are not safe")),
        });
        let handshake_timeout = section.duration(d, "handshake_timeout", duration);
        if !tls {
            for key in ["alpn", "min_version", "handshake_timeout"] {
                if section.has(key) {
                    let place = section.place_of(d, key);
                    d.problem(place, format!("{key} means nothing where tls = false; remove one of the two"));
                }
            }
        }
        if let Some(At { value, place }) = &alpn {
            if value.is_empty() {
                d.problem(
                    *place,
                    "alpn: an empty list would refuse every browser; leave it out for the default",
                );
            }
            if value.iter().enumerate().any(|(i, alpn)| value[..i].contains(alpn)) {
                d.problem(*place, "alpn: a protocol is listed twice");
            }
        }
        let defaults = tls_acceptor::AcceptorSettings::default();
        let settings = tls_acceptor::AcceptorSettings {
            alpn: alpn.map_or(defaults.alpn, |at| at.value),
            min_version: min_version.map_or(defaults.min_version, |at| at.value),
            handshake_timeout: handshake_timeout.map_or(defaults.handshake_timeout, |at| at.value),
            handshakes_max: defaults.handshakes_max,
        };
        if let Some(At { value: address, place }) = address {
            if let Some(what) = overlap(&listeners, address) {
                d.problem(place, what);
            }
            listeners.push(Listener { address, tls: tls.then_some(settings), limits, place });
        }
        section.finish(d);
    }
    listeners
}

fn read_limits(d: &mut Document<'_>, section: &mut Section<'_>) -> ClientLimits {
    let header_timeout = section.duration(d, "header_timeout", duration);
    let keep_alive_timeout = section.duration(d, "keep_alive_timeout", duration);
    let body_rate = section.string(d, "body_rate", rate_or_off);
    let defaults = ClientLimits::DEFAULT;
    ClientLimits {
        header_timeout: header_timeout.map_or(defaults.header_timeout, |at| at.value),
        keep_alive_timeout: keep_alive_timeout.map_or(defaults.keep_alive_timeout, |at| at.value),
        body_rate: body_rate.map_or(defaults.body_rate, |at| at.value),
    }
}

fn read_certificates(
    base: &Path,
    d: &mut Document<'_>,
    root: &mut Section<'_>,
) -> (Plan, bool, CertificatePlaces) {
    let mut watch = None;
    let mut plan = Plan::default();
    let mut places = CertificatePlaces { section: FIRST_LINE, ..CertificatePlaces::default() };
    if let Some(mut section) = root.table(d, "certificates", "[certificates]") {
        places.section = section.place;
        if let Some(At { value, place }) = section.string(d, "directory", |text| file_name(base, text)) {
            plan.directory = Some(value);
            places.directory = place;
        }
        let default = section.string(d, "default", |text| {
            let ip = text.parse().map(CertName::Ip).ok();
            ip.or_else(|| CertName::parse(text)).ok_or_else(|| {
                values::international(text)
                    .unwrap_or_else(|| format!("expected a host name such as \"domain.com\", found {text:?}"))
            })
        });
        if let Some(At { value, place }) = default {
            plan.default = Some(value);
            places.default = place;
        }
        watch = section.boolean(d, "watch").map(|at| at.value);
        if !section.has("directory") && !root.has("certificate") {
            d.missing(
                section.place,
                "[certificates] needs a directory, or add a [[certificate]] with chain and key",
            );
        }
        section.finish(d);
    }
    for mut section in root.tables(d, "certificate", "[[certificate]]") {
        let chain = section.strings(d, "chain", |text| file_name(base, text));
        let key = section.string(d, "key", |text| file_name(base, text));
        section.require(d, "chain", "\"/etc/ssl/domain.com/fullchain.pem\"");
        section.require(d, "key", "\"/etc/ssl/domain.com/privkey.pem\"");
        if let (Some(chain), Some(key)) = (chain, key) {
            if chain.value.is_empty() {
                d.problem(chain.place, "chain: the list is empty");
            }
            places.named.push(NamedPlaces { chain: chain.place, key: key.place });
            plan.named.push(Named { chain: chain.value, key: key.value });
        }
        section.finish(d);
    }
    // Who names certificates one by one may want to say when they are read.
    let watch = watch.unwrap_or(plan.directory.is_some());
    (plan, watch, places)
}

fn read_routes(d: &mut Document<'_>, root: &mut Section<'_>) -> Vec<Arc<Route>> {
    let mut routes = Vec::new();
    let mut seen: HashMap<RouteId, Place> = HashMap::new();
    for mut section in root.tables(d, "route", "[[route]]") {
        let place = section.place;
        let host = section.string(d, "host", values::host);
        let host_is_good = host.is_some() || !section.has("host");
        let path = section.string(d, "path", values::path);
        section.require(d, "path", "\"/\"");
        let action = read_action(d, &mut section, path.as_ref().map(|at| &at.value));
        let is_endpoint = matches!(&action, Some(Action::Service(_)));
        let (policy, origins) = match section.table(d, "websocket", "[route.websocket]") {
            Some(websocket) => read_websocket(d, websocket, is_endpoint),
            None => (default_policy(is_endpoint), None),
        };
        section.finish(d);
        let (Some(At { value: path, .. }), Some(action), true) = (path, action, host_is_good) else {
            continue;
        };
        let id = RouteId { host: host.map(|at| at.value), path };
        if let Some(other) = seen.get(&id) {
            let line = other.line;
            d.problem(
                place,
                format!("the route {id} is there already (line {line}); only one could ever be used"),
            );
        }
        seen.entry(id.clone()).or_insert(place);
        routes.push(Arc::new(Route { id, action, policy, origins }));
    }
    routes
}

fn read_action(d: &mut Document<'_>, section: &mut Section<'_>, path: Option<&RoutePath>) -> Option<Action> {
    let proxy = section.string(d, "proxy", |text| values::upstream(text, path));
    let service = section.string(d, "service", |text| match text {
        "echo" => Ok(Service::Echo),
        "console" => Ok(Service::Console),
        _ => Err(format!("expected \"echo\" or \"console\", found {text:?}")),
    });
    let connect_timeout = section.duration(d, "connect_timeout", duration);
    let response_timeout = section.duration(d, "response_timeout", values::limit);
    let pooled = section.string(d, "pool", |text| match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("expected \"on\" or \"off\", found {text:?}")),
    });
    let keeps_names = section.string(d, "field_names", |text| match text {
        "canonical" => Ok(false),
        "as-sent" => Ok(true),
        _ => Err(format!("expected \"canonical\" or \"as-sent\", found {text:?}")),
    });
    match (section.has("proxy"), section.has("service")) {
        (true, true) => {
            let place = section.place_of(d, "service");
            d.problem(place, "a route has either proxy or service, not both");
        }
        (false, false) => {
            d.missing(
                section.place,
                "a [[route]] needs proxy = \"http://127.0.0.1:8080\" or service = \"echo\"",
            );
        }
        (false, true) => {
            for key in ["connect_timeout", "field_names", "pool", "response_timeout"] {
                if section.has(key) {
                    let place = section.place_of(d, key);
                    d.problem(place, format!("{key} means nothing for a service; remove it"));
                }
            }
        }
        (true, false) => {}
    }
    if let Some(At { value: service, .. }) = service {
        return Some(Action::Service(service));
    }
    let At { value: upstream, .. } = proxy?;
    Some(Action::Proxy(Arc::new(Upstream {
        connect_timeout: connect_timeout.map_or(5 * SECOND, |at| at.value),
        response_timeout: response_timeout.map_or(60 * SECOND, |at| at.value),
        pooled: pooled.is_none_or(|at| at.value),
        keeps_names: keeps_names.is_some_and(|at| at.value),
        ..upstream
    })))
}

fn default_policy(is_endpoint: bool) -> Policy {
    Policy {
        limits: Limits {
            message_max: if is_endpoint { ENDPOINT_MESSAGE_MAX } else { u64::MAX },
            deflate: false, // decided by each handshake
        },
        idle_timeout: None,
        ping_interval: Some(30 * SECOND),
        pong_timeout: 10 * SECOND,
    }
}

fn read_websocket(
    d: &mut Document<'_>,
    mut section: Section<'_>,
    is_endpoint: bool,
) -> (Policy, Option<Vec<OriginPattern>>) {
    let mut policy = default_policy(is_endpoint);
    if let Some(at) = section.duration(d, "idle_timeout", duration_or_off) {
        policy.idle_timeout = at.value;
    }
    if let Some(at) = section.duration(d, "ping_interval", duration_or_off) {
        policy.ping_interval = at.value;
    }
    if let Some(at) = section.duration(d, "pong_timeout", duration) {
        policy.pong_timeout = at.value;
    }
    if let Some(At { value, place }) = section.size_or_off(d, "max_message") {
        match value {
            Some(0) => {
                d.problem(place, "max_message: 0 would refuse every message; write \"off\" for no limit");
            }
            None if is_endpoint => d.problem(
                place,
                "max_message: messages that end at the gateway are held in memory, so there has to be a limit",
            ),
            value => policy.limits.message_max = value.unwrap_or(u64::MAX),
        }
    }
    let mut is_empty = true;
    let origins = section.strings(d, "origins", |text| {
        is_empty = false;
        OriginPattern::parse(text)
    });
    if let (true, Some(At { place, .. })) = (is_empty, &origins) {
        d.problem(
            *place,
            "origins: an empty list would refuse every page; write those that may open WebSockets, such as \
             [\"https://domain.com\"], or leave it out to let all in",
        );
    }
    section.finish(d);
    (policy, origins.map(|at| at.value))
}

#[cfg(test)]
mod tests;
