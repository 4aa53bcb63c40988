//! `[[upstream]]`: servers that routes name together, and how one of them is chosen.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use frame_core::redial::HELD_MAX;
use http::StatusCode;

use super::document::Document;
use super::kind::{
    self, Count, CountOrOff, EachOrTable, List, OneOf, Options, OrTable, ShortForm, Table, Words,
};
use super::option::options;
use super::server_tls::{self, UpstreamTlsOptions};
use super::spec::At;
use super::{names, values};
use crate::site::balance::{Balance, HashKey};
use crate::site::endpoint::Place;
use crate::site::health::{OnDown, Passive, Probe, ProbeKind};
use crate::site::names::Resolve;
use crate::site::queue::Queue;
use crate::site::redial::Redial;
use crate::site::retry::{Retry, RetryOn};
use crate::site::route::Route;
use crate::site::server::Server;
use crate::site::sources::Sources;
use crate::site::sticky::Sticky;
use crate::site::upstream::{CONNECT_TIMEOUT, Protocol, ProxyVersion, RESPONSE_TIMEOUT, Upstream};

/// Whether connections are kept.
pub(super) struct Pool;

impl Words for Pool {
    type Value = bool;
    const WORDS: &'static [(&'static str, bool)] = &[("on", true), ("off", false)];
}

/// Versions of the PROXY protocol.
pub(super) struct ProxyProtocol;

impl Words for ProxyProtocol {
    type Value = ProxyVersion;
    const WORDS: &'static [(&'static str, ProxyVersion)] =
        &[("v1", ProxyVersion::V1), ("v2", ProxyVersion::V2)];
}

impl Words for Protocol {
    type Value = Self;
    const WORDS: &'static [(&'static str, Self)] = &[("http/1.1", Self::Http1), ("h2", Self::Http2)];
}

/// Whether names are kept as they were sent.
pub(super) struct FieldNames;

impl Words for FieldNames {
    type Value = bool;
    const WORDS: &'static [(&'static str, bool)] = &[("canonical", false), ("as-sent", true)];
}

impl Words for Resolve {
    type Value = Self;
    const WORDS: &'static [(&'static str, Self)] =
        &[("host", Self::Host), ("once", Self::Once), ("dns", Self::Dns), ("srv", Self::Srv)];
}

/// What becomes of sessions whose backend is lost.
pub(super) struct SessionLost;

impl Words for SessionLost {
    type Value = bool;
    const WORDS: &'static [(&'static str, bool)] = &[("close", false), ("redial", true)];
}

impl Words for Balance {
    type Value = Self;
    const WORDS: &'static [(&'static str, Self)] = &[
        ("least-sessions", Self::LeastSessions),
        ("round-robin", Self::RoundRobin),
        ("random-two", Self::RandomTwo),
        ("hash", Self::Hash),
    ];
}

options! {
    /// Backends that routes name together: `proxy = "chat"` with the name of this section.
    struct UpstreamOptions: "[[upstream]]";

    /// What routes, the log and the commands call it. What is known of its backends survives a reload as long as the
    /// name and their addresses are the same.
    name: kind::Name, required = "\"chat\"";
    /// The backends: addresses, or tables. Paths behind the addresses have to be the same.
    servers: EachOrTable<ServerOptions>, required = "[\"http://10.0.0.1:8080\", \"http://10.0.0.2:8080\"]";
    /// What a name among the addresses stands for. `"host"`: one backend, whatever number of addresses it has. They are
    /// looked up again when their TTL has ended (after 5 minutes at most), or when a connection fails; and are tried
    /// together (RFC 8305). `"once"`: the same, but they are looked up at a start and at a reload alone. `"dns"`: each
    /// address is a backend by itself, of IPv4 if there are any; such as the pods of a service without an address of its
    /// own. `"srv"`: each target of its SRV records is a backend, with their ports, weights and priorities (RFC 2782), as
    /// in `"http://_chat._tcp.internal"`; with `https://` their certificates have to be valid for the domain of the
    /// service, here `internal`. A backend that is found no longer gets no requests; what becomes of its
    /// sessions says `on_down`. A name that can't be resolved any more keeps its last addresses.
    resolve: OneOf<Resolve>, default = Resolve::Host;
    /// How the backend of a request is chosen: the one with the fewest live WebSockets and requests in flight for its
    /// weight; each in its turn; the less loaded of two that are drawn; or by `hash`.
    balance: OneOf<Balance>, default = Balance::LeastSessions;
    /// What goes to the same backend, as long as that is up and has not much more than its share: `"client"` (the
    /// address), `"header:NAME"`, `"cookie:NAME"` or `"query:NAME"`. A request that lacks it is known by its client.
    hash: kind::HashBy, default = HashKey::Client;
    /// Clients come back to the backend that they had, by a cookie.
    sticky: Table<StickyOptions>, optional;
    /// When another backend is asked.
    retry: Table<RetryOptions>, optional;
    /// Requests wait for a backend when each that is up has its `max_sessions`. Without it they get 503 at once.
    queue: Table<QueueOptions>, optional;
    /// A backend that is new or has come back gets its full part of the requests after this time, and before that an
    /// ever larger part.
    slow_start: kind::DurationOrZero, default = Duration::ZERO;
    /// How long a connection to a backend may take, with the look-up of its name. A route may have another.
    connect_timeout: kind::Duration, default = CONNECT_TIMEOUT;
    /// How long a backend may take no more of a request and send nothing of its response. A route may have another.
    response_timeout: kind::DurationOrOff, default = Some(RESPONSE_TIMEOUT);
    /// Whether connections are kept for later requests. A route may say otherwise.
    pool: OneOf<Pool>, default = true;
    /// What is spoken with backends. With `"h2"` many requests share a connection, and so do WebSockets where the
    /// backend offers that (RFC 8441). A route may say otherwise.
    protocol: OneOf<Protocol>, default = Protocol::Http1;
    /// How field names are written over HTTP/1.1. A route may say otherwise.
    field_names: OneOf<FieldNames>, default = false;
    /// Request bodies without a length are waited for up to this size and sent with one. A route may say otherwise.
    buffer_request: kind::SizeOrOff, otherwise = "`\"off\"`; `\"1MiB\"` with `fastcgi`";
    /// The version of the PROXY protocol in which backends are told who the client is, in front of each connection. A
    /// route may have another.
    proxy_protocol: OneOf<ProxyProtocol>, optional;
    /// Addresses of this machine that connections to the backends come from, one after the other; backends of the other
    /// family of addresses get connections as without it. A machine can have about 28,000 connections to one port of one
    /// address from each of its own addresses (64,000 with `sysctl net.ipv4.ip_local_port_range=\"1024 65535\"`). An
    /// address that has no port left is passed over. A route may have others.
    source_addresses: List<kind::SourceAddress>, optional;
    /// TLS towards the backends.
    tls: Table<UpstreamTlsOptions>, optional;
    /// How backends are found to be down.
    health: Table<HealthOptions>, optional;
    /// What becomes of a WebSocket whose backend closes it with 1001, 1011, 1012 or 1013, is drained, or is lost: it is
    /// closed, or the client's socket stays and another backend is asked, with the same head. Its pings are answered
    /// meanwhile. Messages are never cut, lost or sent twice, but for those that had been written to a backend which then
    /// died. Backends get `Wssgate-Session` with an id of the session, and when they are asked again `Wssgate-Resume`,
    /// how often it is, and `Wssgate-Messages`, how many messages of the client have gone to backends as a whole. One that
    /// answers 4xx ends the session, with 1008 or the close code in its field `Wssgate-Close`. `[route.access]` is judged
    /// again before: the server of `forward` is asked, and users, tokens, addresses and certificates are compared with
    /// the rules of now; a refusal ends the session with 3000.
    session_lost: OneOf<SessionLost>, default = false;
    /// The longest wait between two attempts of a session to get a backend. The first wait is 100 ms, and each further
    /// one twice as long, until the session has lived for a minute with a backend.
    redial_interval: kind::Duration, default = Redial::DEFAULT.interval;
    /// For how long a session is without a backend at most, until it has lived for a minute with one. The time in which
    /// a backend takes other sessions first (`redial_rate`) does not count, nor does that of an answer of the server of
    /// `forward`. A backend that doesn't answer has half of what is left at most, if there are others.
    redial_timeout: kind::Duration, default = Redial::DEFAULT.timeout;
    /// How much of what a client sends meanwhile is read, up to 256 KiB. The rest waits in its socket.
    redial_buffer: kind::SizeOrOff, otherwise = "`\"64KiB\"`";
    /// A message of which a lost backend has got a part goes to the next one from its beginning, if it is not longer than
    /// `redial_buffer`. Otherwise the session is closed with 1011.
    redial_repeat: kind::Boolean, default = false;
    /// How many sessions a second come to one backend from others, so that a new one is not met by all of them at once.
    /// No more handshakes are under way with it than begin in one second, or one: a backend that answers slowly gets
    /// fewer. The limit is for all workers together.
    redial_rate: kind::Frequency, otherwise = "`\"200/s\"`";
}

options! {
    /// A backend of the upstream above it. An address is short for a table with `address` alone.
    struct ServerOptions: "[[upstream.servers]]";

    /// Its address.
    address: kind::Server, required = "\"http://10.0.0.1:8080\"";
    /// Its part of all requests.
    weight: Count<1, 1000>, default = NonZeroU32::MIN;
    /// How many live WebSockets and requests in flight it may have. `"off"`: any number.
    max_sessions: CountOrOff<1, 10_000_000>, default = None;
}

impl ShortForm for ServerOptions {
    const KEY: &'static str = "address";
}

options! {
    /// Clients come back to the backend that they had. A client gets a cookie with its first response, also with that to
    /// a WebSocket handshake, and another one when its backend takes no more requests. The cookie is for this gateway
    /// alone: backends don't see it. It says nothing about the backend, and can't be made without the key. It is `Secure`
    /// (but on listeners without TLS), `HttpOnly` and `SameSite=Lax`, and its `Path` is the route's.
    struct StickyOptions: "[upstream.sticky]";

    /// Its name.
    cookie: kind::Token, otherwise = "`\"wssgate_server\"`";
    /// How long a client keeps it, from when it got it.
    max_age: kind::Duration, otherwise = "until the client is closed";
    /// The file with its keys, in lines as `wssgate ticket-key` prints them: the first signs, all are accepted. It is for
    /// cookies that survive a restart, or that several gateways understand.
    key_file: kind::File, otherwise = "a random key, which takeovers hand on and a restart loses";
}

options! {
    /// When another backend is asked, which happens before the client gets anything. It never happens to more than a
    /// fifth of the requests, or ten of them in ten seconds.
    struct RetryOptions: "[upstream.retry]";

    /// How many backends are asked for one request at most, with the first.
    attempts: Count<1, 10>, default = THREE;
    /// After which failures: `"connect"` (there is no connection), `"broken"` (it broke before there was anything of an
    /// answer), and the answers `"500"` to `"504"`. After anything but `"connect"`, a request is repeated only if its
    /// method is GET, HEAD, OPTIONS, PUT or DELETE, and no part of its body is lost.
    on: List<RetryOn>, otherwise = "`[\"connect\", \"broken\"]`; for WebSocket handshakes also `\"502\"`, `\"503\"` and `\"504\"`";
}

const TWO: NonZeroU32 = NonZeroU32::new(2).unwrap();
const THREE: NonZeroU32 = NonZeroU32::new(3).unwrap();

/// A [`ProbeKind`] without its details.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProbeWord {
    Http,
    Tcp,
    WebSocket,
}

impl Words for ProbeWord {
    type Value = Self;
    const WORDS: &'static [(&'static str, Self)] =
        &[("http", Self::Http), ("tcp", Self::Tcp), ("websocket", Self::WebSocket)];
}

impl Words for OnDown {
    type Value = Self;
    const WORDS: &'static [(&'static str, Self)] = &[("keep", Self::Keep), ("close", Self::Close)];
}

impl kind::Text for RetryOn {
    type Value = Self;

    fn words() -> String {
        "`\"connect\"`, `\"broken\"`, or a status from `\"500\"` to `\"504\"`".to_owned()
    }

    fn parse(text: &str, _: &std::path::Path) -> Result<Self, String> {
        match text {
            "connect" => Ok(Self::Connect),
            "broken" => Ok(Self::Broken),
            "500" | "501" | "502" | "503" | "504" => {
                StatusCode::from_bytes(text.as_bytes()).map(Self::Status).map_err(|e| e.to_string())
            }
            _ => Err(format!(
                "expected \"connect\", \"broken\", or a status from \"500\" to \"504\", found {text:?}"
            )),
        }
    }

    fn schema() -> serde_json::Value {
        serde_json::json!({ "enum": ["connect", "broken", "500", "501", "502", "503", "504"] })
    }
}

options! {
    /// The requests that wait for a backend. They are served in their order. One for which there is no place, or no
    /// backend in time, gets 503 with Retry-After.
    struct QueueOptions: "[upstream.queue]";

    /// How many may wait.
    length: Count<1, 1_000_000>, required = "1000";
    /// How long each may wait.
    timeout: kind::Duration, required = "\"5s\"";
}

options! {
    /// How backends are found to be down.
    struct HealthOptions: "[upstream.health]";

    /// What each backend is asked again and again: `"http"` sends a GET, `"tcp"` opens a connection, `"websocket"` opens a
    /// WebSocket and closes it.
    probe: OneOf<ProbeWord>, optional;
    /// The path of the request or the WebSocket.
    path: kind::ProbePath, otherwise = "`\"/\"`";
    /// The status that is expected of `"http"`.
    status: kind::Number<100, 599>, otherwise = "any from 200 to 399";
    /// From one probe to the next.
    interval: kind::Duration, default = Duration::from_secs(5);
    /// How long a probe may take.
    timeout: kind::Duration, default = Duration::from_secs(2);
    /// How many good probes in a row bring a backend back.
    rise: Count<1, 100>, default = TWO;
    /// How many bad probes in a row take a backend out.
    fall: Count<1, 100>, default = THREE;
    /// What becomes of the live sessions of a backend that probes find down, or that its name no longer leads to: they
    /// stay, or they are closed with 1012, spread over `drain_window`.
    on_down: OneOf<OnDown>, default = OnDown::Keep;
    /// Backends that fail requests get none for a while. `"off"` is short for a table with `failures = "off"`.
    passive: OrTable<PassiveOptions>, optional;
}

options! {
    /// A backend is ejected when requests fail one after the other: there is no connection, no answer, or one from 500.
    /// The last backend that is up is never ejected.
    struct PassiveOptions: "[upstream.health.passive]";

    /// How many in a row.
    failures: CountOrOff<1, 1000>, default = Some(Passive::DEFAULT.failures);
    /// In what time.
    within: kind::Duration, default = Passive::DEFAULT.within;
    /// For how long it gets no requests. Each further time it is twice as long, up to 16 times.
    eject: kind::Duration, default = Passive::DEFAULT.eject;
}

impl ShortForm for PassiveOptions {
    const KEY: &'static str = "failures";
}

/// The upstreams of a file.
#[derive(Default)]
pub(super) struct Upstreams(Vec<Named>);

struct Named {
    name: Arc<str>,
    /// `None`: something is wrong with it, which is noted.
    upstream: Option<Upstream>,
}

pub(super) fn read(d: &mut Document<'_>, sections: Vec<UpstreamOptions>) -> Upstreams {
    let mut upstreams: Vec<Named> = Vec::new();
    for section in sections {
        let name = section.name.as_ref().map(|at| (at.value.clone(), at.place));
        let upstream = read_one(d, section);
        let Some((name, place)) = name else { continue };
        if upstreams.iter().any(|other| other.name == name) {
            d.problem(place, format!("name: another upstream has the name {name:?} already"));
            continue;
        }
        upstreams.push(Named { name, upstream });
    }
    Upstreams(upstreams)
}

fn read_one(d: &mut Document<'_>, section: UpstreamOptions) -> Option<Upstream> {
    if section.hash.value != HashKey::Client && section.balance.value != Balance::Hash {
        d.problem(section.hash.place, "hash: it has no meaning without balance = \"hash\"");
    }
    let redial = read_redial(d, &section);
    let At { value: servers, place } = section.servers?;
    let (mut parsed, mut has_names) = (Vec::new(), false);
    for server in servers {
        let has_weight = server.has("weight");
        let At { value: target, place } = server.address?;
        let (mut endpoint, path) =
            values::endpoint(&target).map_err(|what| d.problem(place, format!("servers: {what}"))).ok()?;
        let weight = server.weight.value;
        if section.resolve.value == Resolve::Srv {
            if has_weight && endpoint.host_name().is_some() {
                d.problem(
                    server.weight.place,
                    "weight: with resolve = \"srv\", SRV records have the weights",
                );
            }
            let checked = names::service(&mut endpoint, &target);
            checked.map_err(|what| d.problem(place, format!("servers: {what}"))).ok()?;
        }
        d.server(&endpoint, place);
        has_names |= endpoint.host_name().is_some();
        parsed.push((
            Server {
                endpoint: Arc::new(endpoint),
                weight,
                priority: 0,
                sessions_max: server.max_sessions.value,
            },
            path,
        ));
    }
    if section.resolve.value != Resolve::Host && !has_names {
        d.problem(
            section.resolve.place,
            "resolve: it has no meaning, since each backend is given by its address",
        );
    }
    let mut upstream = together(parsed).map_err(|what| d.problem(place, format!("servers: {what}"))).ok()?;
    upstream.name = Some(section.name?.value);
    upstream.resolve = section.resolve.value;
    upstream.balance = section.balance.value;
    upstream.hash = section.hash.value;
    upstream.sticky = section.sticky.map(|at| Arc::new(read_sticky(at.value)));
    if let Some(At { value: retry, .. }) = section.retry {
        upstream.retry = Retry { attempts: retry.attempts.value.get(), on: retry.on.map(|at| at.value) };
    }
    upstream.queue = section.queue.and_then(|At { value: queue, .. }| {
        Some(Queue { length: queue.length?.value.get(), timeout: queue.timeout?.value })
    });
    upstream.slow_start = section.slow_start.value;
    upstream.connector.connect_timeout = section.connect_timeout.value;
    upstream.connector.pooled = section.pool.value;
    upstream.connector.protocol = section.protocol.value;
    upstream.response_timeout = section.response_timeout.value.unwrap_or(values::LONGEST);
    upstream.keeps_names = section.field_names.value;
    upstream.buffer_request = section.buffer_request.map(|at| at.value.unwrap_or(0));
    upstream.connector.proxy_protocol = section.proxy_protocol.map(|at| at.value);
    if let Some(addresses) = section.source_addresses {
        come_from(d, addresses, &mut upstream.servers);
    }
    if let Some(At { value: tls, .. }) = section.tls {
        server_tls::apply(d, tls, &mut upstream.servers);
    }
    if let Some(At { value: health, .. }) = section.health {
        read_health(d, health, &mut upstream);
    }
    upstream.redial = redial;
    Some(upstream)
}

/// Connections to these servers come from `addresses`.
pub(super) fn come_from(d: &mut Document<'_>, addresses: At<Vec<IpAddr>>, servers: &mut [Server]) {
    let At { value: addresses, place } = addresses;
    let is_tcp = |server: &&mut Server| matches!(server.endpoint.place, Place::Tcp { .. });
    if let Some((_, twice)) = addresses.iter().enumerate().find(|(i, ip)| addresses[..*i].contains(ip)) {
        d.problem(place, format!("source_addresses: {twice} is there twice"));
        return;
    }
    if addresses.is_empty() {
        d.problem(
            place,
            "source_addresses: the list is empty; leave it out for the address that the system chooses",
        );
        return;
    }
    let sources = Arc::new(Sources::new(addresses));
    let mut has_any = false;
    for server in servers.iter_mut().filter(is_tcp) {
        Arc::make_mut(&mut server.endpoint).sources = Some(sources.clone());
        has_any = true;
    }
    if !has_any {
        d.problem(place, "source_addresses: connections to a Unix socket come from no address; remove it");
    }
}

fn read_sticky(section: StickyOptions) -> Sticky {
    let place = section.key_file.as_ref().map_or(section.written().place, |at| at.place);
    let mut sticky = Sticky::new(section.cookie.as_ref().map_or(Sticky::COOKIE, |at| &at.value));
    sticky.max_age = section.max_age.map(|at| at.value);
    sticky.key_file = section.key_file.map(|at| at.value);
    sticky.written_at = place;
    sticky
}

fn read_redial(d: &mut Document<'_>, section: &UpstreamOptions) -> Option<Redial> {
    if !section.session_lost.value {
        for key in ["redial_interval", "redial_timeout", "redial_buffer", "redial_repeat", "redial_rate"] {
            if section.has(key) {
                let what = format!("{key}: it has no meaning without session_lost = \"redial\"");
                d.problem(section.place_of(key), what);
            }
        }
        return None;
    }
    let mut redial = Redial {
        interval: section.redial_interval.value,
        timeout: section.redial_timeout.value,
        may_repeat: section.redial_repeat.value,
        ..Redial::DEFAULT
    };
    if let Some(At { value, place }) = &section.redial_buffer {
        match value.and_then(|len| usize::try_from(len).ok()) {
            Some(len @ 1..=HELD_MAX) => redial.held_max = len,
            _ => d.problem(*place, "redial_buffer: expected a size from \"1B\" to \"256KiB\""),
        }
    }
    if let Some(At { value, .. }) = &section.redial_rate {
        (redial.pace, redial.handshakes_max) = (value.interval(), value.per_second());
    }
    Some(redial)
}

fn read_health(d: &mut Document<'_>, health: HealthOptions, upstream: &mut Upstream) {
    let kind = health.probe.as_ref().map(|at| at.value);
    for key in ["path", "status", "interval", "timeout", "rise", "fall", "on_down"] {
        let is_possible = match key {
            "path" => matches!(kind, Some(ProbeWord::Http | ProbeWord::WebSocket)),
            "status" => kind == Some(ProbeWord::Http),
            "on_down" => kind.is_some() || upstream.resolve.makes_servers(),
            _ => kind.is_some(),
        };
        if health.has(key) && !is_possible && (kind.is_some() || !health.has("probe")) {
            let probe = match key {
                "status" => "probe = \"http\"",
                "path" => "probe = \"http\" or \"websocket\"",
                "on_down" => "probe, or resolve = \"dns\" or \"srv\"",
                _ => "probe",
            };
            d.problem(health.place_of(key), format!("{key}: it has no meaning without {probe}"));
        }
    }
    let path = health.path.map_or_else(|| "/".into(), |at| at.value);
    let kind = kind.map(|kind| match kind {
        ProbeWord::Tcp => ProbeKind::Tcp,
        ProbeWord::WebSocket => ProbeKind::WebSocket { path },
        ProbeWord::Http => {
            let status =
                health.status.and_then(|at| StatusCode::from_u16(u16::try_from(at.value).ok()?).ok());
            ProbeKind::Http { path, status }
        }
    });
    upstream.probe = kind.map(|kind| Probe {
        kind,
        interval: health.interval.value,
        timeout: health.timeout.value,
        rise: health.rise.value.get(),
        fall: health.fall.value.get(),
    });
    upstream.on_down = health.on_down.value;
    if let Some(At { value: passive, .. }) = health.passive {
        let (within, eject) = (passive.within.value, passive.eject.value);
        upstream.passive = passive.failures.value.map(|failures| Passive { failures, within, eject });
    }
}

impl Upstreams {
    /// The names, for messages.
    pub(super) fn known(&self) -> String {
        let names: Vec<_> = self.0.iter().map(|named| &*named.name).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }

    /// The names of those that none of these routes has.
    pub(super) fn unused(&self, routes: &[Arc<Route>]) -> Vec<Arc<str>> {
        let used = |name: &Arc<str>| {
            let upstreams = routes.iter().filter_map(|route| route.action.upstream());
            upstreams.filter_map(|upstream| upstream.name.as_ref()).any(|other| other == name)
        };
        self.0.iter().map(|named| &named.name).filter(|name| !used(name)).cloned().collect()
    }
}

/// Servers that a route names together, each with the path behind its address.
///
/// # Errors
/// If they can't stand together.
pub(super) fn together(
    servers: Vec<(Server, Option<crate::site::path::RoutePath>)>,
) -> Result<Upstream, String> {
    let Some((_, path)) = servers.first() else { return Err("the list is empty".to_owned()) };
    let path = path.clone();
    if let Some((server, other)) = servers.iter().find(|(_, other)| *other != path) {
        let shown = |path: &Option<_>| path.as_ref().map_or("none".to_owned(), ToString::to_string);
        return Err(format!(
            "the path behind each address has to be the same: {} has {}, the first one has {}",
            server.endpoint,
            shown(other),
            shown(&path)
        ));
    }
    for (i, (server, _)) in servers.iter().enumerate() {
        if servers[..i].iter().any(|(other, _)| other.endpoint.name() == server.endpoint.name()) {
            return Err(format!("{} is there twice", server.endpoint));
        }
    }
    let mut upstream = Upstream::new(servers.into_iter().map(|(server, _)| server).collect());
    upstream.path = path;
    Ok(upstream)
}

/// What `proxy` of a route names; `None`: something is wrong with it, which is noted.
///
/// # Errors
/// A sentence about what is wrong.
pub(super) fn named(targets: &[Box<str>], all: &Upstreams) -> Result<Option<Upstream>, String> {
    let Upstreams(upstreams) = all;
    if let [one] = targets {
        if let Some(found) = upstreams.iter().find(|named| *named.name == **one) {
            return Ok(found.upstream.clone());
        }
        if values::name(one).is_ok() && !one.bytes().all(|b| b.is_ascii_digit()) {
            let known = all.known();
            return Err(format!(
                "no [[upstream]] has the name {one:?}; there are: {known}; for an address write \"http://{one}\""
            ));
        }
    }
    let parsed = targets.iter().map(|target| {
        if upstreams.iter().any(|named| *named.name == **target) {
            return Err(format!("a list has addresses only, found the name {target:?}"));
        }
        let (endpoint, path) = values::endpoint(target)?;
        Ok((Server::new(endpoint), path))
    });
    together(parsed.collect::<Result<_, _>>()?).map(Some)
}
