//! `[[route]]` and `[route.websocket]`: what is served.

use std::collections::{BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use frame_core::metered::{OnLimit, Rate, Rates};
use frame_core::policy::Policy;
use upgrade_handler::origin::OriginPattern;

use super::access::{self, AccessOptions};
use super::answer::{self, RedirectOptions, RespondOptions};
use super::compress::{self, CompressOptions};
use super::document::Document;
use super::fastcgi::{self, FastcgiOptions};
use super::fields::{self, CorsOptions, RequestHeaderOptions, ResponseHeaderOptions};
use super::files::{self, FilesOptions};
use super::kind::{self, Boolean, List, OneOf, Options, OrTable, Table, Words};
use super::model::Listener;
use super::option::options;
use super::pages::PageFiles;
use super::problem::Place;
use super::server_tls::{self, TlsOptions};
use super::spec::At;
use super::upstream::{self, FieldNames, Pool, ProxyProtocol, Upstreams};
use super::when::{self, WhenOptions};
use super::{rules, values};
use crate::site::extras::{ErrorPages, Extras};
use crate::site::files::Files;
use crate::site::matcher::{Matcher, PathMatcher};
use crate::site::path::RoutePath;
use crate::site::rewrite::Rewrite;
use crate::site::route::{Action, Compression, Route, Service};
use crate::site::route_id::RouteId;
use crate::site::tcp::TcpServer;
use crate::site::upstream::{CONNECT_TIMEOUT, Connector, Protocol, RESPONSE_TIMEOUT, Upstream};

pub(super) struct ServiceName;

impl Words for ServiceName {
    type Value = Service;
    const WORDS: &'static [(&'static str, Service)] =
        &[("echo", Service::Echo), ("console", Service::Console)];
}

pub(super) struct OnLimitName;

impl Words for OnLimitName {
    type Value = OnLimit;
    const WORDS: &'static [(&'static str, OnLimit)] = &[("delay", OnLimit::Delay), ("close", OnLimit::Close)];
}

options! {
    /// What is served. At least one section is needed, with one of `proxy`,
    /// `service`, `files`, `fastcgi`, `redirect` and `respond`. A request goes to the route
    /// with its exact host, else to one with a wildcard, else to one for every host; among these to the one with its
    /// exact path, else with the longest prefix, else with the first pattern in the file that matches; among these to
    /// the one with more conditions (`listener`, and each of `when`), else to the first in the file. If a condition
    /// isn't met, the next route in this order is asked.
    struct RouteOptions: "[[route]]";

    /// What the log and the commands call the route, and by what it stays the same route after a reload.
    name: kind::Name, otherwise = "its listener, hosts, path and conditions";
    /// The listeners whose requests the route serves, by their `name`.
    listener: List<kind::ListenerName>, otherwise = "every listener";
    /// The hosts that the route serves; `*` stands for one label.
    host: List<kind::Host>, otherwise = "every host";
    /// The path that the route serves, with everything below it. A route has either `path`, `path_exact` or
    /// `path_regex`.
    path: kind::PathPrefix, optional;
    /// The only path that the route serves.
    path_exact: kind::ExactPath, optional;
    /// A regular expression. The route serves the paths that it matches from the first slash to the end. Each pattern
    /// of a host is tried in turn, after all its other routes.
    path_regex: kind::PathRegex, optional;
    /// Further conditions.
    when: Table<WhenOptions>, optional;
    /// The backend that requests and WebSockets are passed on to, a list of backends, or the name of an
    /// `[[upstream]]`. A path behind its address stands in place of the
    /// route's `path`: with `path = "/wss"` and `http://127.0.0.1:8080/`, the backend gets `/wss/x` as `/x`. Without
    /// one, not even a slash, or with the route's own path, it gets paths unchanged. Behind `tcp://host:port` is a backend
    /// that speaks no HTTP, such as a VNC server or an MQTT broker: the binary messages of a WebSocket are the bytes of
    /// its stream, and back.
    proxy: List<kind::Target>, optional;
    /// This front of the path is for the gateway alone: the backend gets what is behind it. The route's `path`, or the
    /// front of it.
    strip_prefix: kind::PathPrefix, optional;
    /// The path that the backend gets. `{rest}` is what is behind the route's `path`; with `path_regex`, `{1}` to `{9}`
    /// are what its groups have matched.
    rewrite: kind::PathTemplate, optional;
    /// Whether paths in answers of the backend come back as clients know them: in Location, Content-Location, Refresh
    /// and in the Path of cookies. Addresses of other hosts stay.
    rewrite_location: kind::Boolean, otherwise = "`true` where the backend gets another path";
    /// What the gateway does itself: `"echo"` sends every WebSocket message back, `"console"` is a page to try
    /// WebSockets with.
    service: OneOf<ServiceName>, optional;
    /// Where clients are sent to, in place of `proxy`.
    redirect: OrTable<RedirectOptions>, optional;
    /// The directory whose files are served, in place of `proxy`.
    files: OrTable<FilesOptions>, optional;
    /// The scripts that a server of FastCGI runs, in place of `proxy`, or beside `files`: then it runs the scripts among
    /// them.
    fastcgi: OrTable<FastcgiOptions>, optional;
    /// What every request is answered with, in place of `proxy`.
    respond: OrTable<RespondOptions>, optional;
    /// How long a connection to the backend may take, with the look-up of its name.
    connect_timeout: kind::Duration, default = CONNECT_TIMEOUT;
    /// How long the backend may take no more of a request and send nothing of its response, before the client gets 504.
    response_timeout: kind::DurationOrOff, default = Some(RESPONSE_TIMEOUT);
    /// Whether connections to the backend are kept for later requests. With `"off"` each request gets its own.
    pool: OneOf<Pool>, default = true;
    /// What is spoken with the backend: `"http/1.1"`, or `"h2"`, which is HTTP/2. Then many requests share a connection.
    /// Behind `https://` the backend has to choose it by ALPN; behind `http://` it has to know HTTP/2 without being asked
    /// (h2c). WebSockets share these connections if the backend offers it (RFC 8441); else each gets its own connection
    /// over HTTP/1.1, as other upgrades do.
    protocol: OneOf<Protocol>, default = Protocol::Http1;
    /// Request bodies that clients send without a length, in chunks or over HTTP/2, are waited for up to this size and
    /// sent with a `Content-Length`, which some backends need. Longer ones, those with trailers, and those of clients
    /// that wait for 100 Continue are sent in chunks. With `fastcgi` all bodies up to this size are waited for, so that no
    /// slow client occupies a process of PHP-FPM; of longer ones those without a length get 411.
    buffer_request: kind::SizeOrOff, otherwise = "`\"off\"`; `\"1MiB\"` with `fastcgi`";
    /// How field names are written over HTTP/1.1: as the RFCs write them, or as they were sent, which some devices
    /// and old servers need. `"as-sent"` costs some microseconds a request.
    field_names: OneOf<FieldNames>, default = false;
    /// The fields that the backend gets.
    request_headers: Table<RequestHeaderOptions>, optional;
    /// The fields that clients get.
    response_headers: Table<ResponseHeaderOptions>, optional;
    /// What pages of other origins may do.
    cors: Table<CorsOptions>, optional;
    /// Whether answers are compressed, by zstd or gzip. Leave it off where answers carry secrets beside what a client has
    /// sent (BREACH).
    compress: OrTable<CompressOptions>, optional;
    /// Pages in place of errors of the gateway, at most 1 MiB each. A client that accepts JSON and no page gets JSON, with
    /// and without this option.
    error_pages: PageFiles, optional;
    /// Whether `error_pages` also stand in place of errors of the backend.
    intercept_errors: Boolean, default = false;
    /// With `tcp://`: subprotocols that clients may choose, such as `"binary"` or `"mqtt"`. A client gets the first of
    /// its own that is listed here.
    subprotocols: List<kind::Token>, otherwise = "none";
    /// What requests over HTTP/1.1 may upgrade to, by the names in their `Upgrade` field. After the server's 101 the
    /// bytes of other protocols than `"websocket"` are passed on as they are, such as those of `"tcp"` (Docker) or
    /// `"SPDY/3.1"` (Kubernetes). A request for a protocol that is not listed is served without the upgrade.
    upgrade: List<kind::Protocol>, otherwise = "`[\"websocket\"]`";
    /// The rules for WebSockets.
    websocket: Table<WebsocketOptions>, optional;
    /// The version of the PROXY protocol in which the backend is told who the client is, in front of each connection.
    /// Such a connection is used for the requests of one client connection only.
    proxy_protocol: OneOf<ProxyProtocol>, optional;
    /// Addresses of this machine that connections to the backend come from, one after the other, as in `[[upstream]]`.
    source_addresses: List<kind::SourceAddress>, optional;
    /// TLS towards the backend.
    tls: Table<TlsOptions>, optional;
    /// Who may use the route, and how much.
    access: Table<AccessOptions>, optional;
}

/// Where permessage-deflate ends.
pub(super) struct CompressionName;

impl Words for CompressionName {
    type Value = bool;
    const WORDS: &'static [(&'static str, bool)] = &[("pass", false), ("terminate", true)];
}

/// How far back a message may refer (RFC 7692 §7.1.2).
const HISTORY_LENS: RangeInclusive<u64> = 256..=32 * 1024;
const HISTORY_LEN: u64 = 4096;

options! {
    /// The rules for the WebSockets of the route above it.
    struct WebsocketOptions: "[route.websocket]";

    /// A session in which no message has moved for this time is closed with 1001.
    idle_timeout: kind::DurationOrOff, default = Route::POLICY.idle_timeout;
    /// A session that is older than this is closed with 1001; messages in flight have 30 s.
    lifetime: kind::DurationOrOff, default = Route::POLICY.lifetime;
    /// A client that has sent nothing for this time gets a Ping from the gateway.
    ping_interval: kind::DurationOrOff, default = Route::POLICY.ping_interval;
    /// A client that answers a Ping with nothing for this time counts as gone.
    pong_timeout: kind::Duration, default = Route::POLICY.pong_timeout;
    /// A message with more bytes on the wire than this is refused with 1009. The bytes of all its fragments count. With
    /// `compression = "terminate"` those count that it has when it is inflated.
    max_message: kind::SizeOrOff, otherwise = "`\"off\"` with `proxy`, `\"16MiB\"` with `service`";
    /// How many messages a client may send in a session; Pings count, too. The number of a whole period may come at once.
    messages: kind::Frequency, optional;
    /// How many bytes of frames a client may send in a session. Those of a whole second may come at once. With
    /// `compression = "terminate"` those count that they have when they are inflated.
    bytes: kind::RateOrOff, default = None;
    /// What happens to a client that sends more than `messages` or `bytes`: it is not read for a while, which is not
    /// taken for silence, or its session is closed with 1008.
    on_limit: OneOf<OnLimitName>, default = OnLimit::Delay;
    /// What becomes of compression (permessage-deflate). With `"pass"` clients and backends agree upon it, and messages pass
    /// as they are; with `service = "echo"`, which has no backend, none is agreed upon. With `"terminate"` the gateway speaks
    /// it with clients that offer it, and backends get messages that are not compressed.
    compression: OneOf<CompressionName>, default = false;
    /// How much a session keeps with `compression = "terminate"`, of what its client has sent and again of what it was sent, for
    /// later messages to refer to: 256 B to 32 KiB. With `"off"` each message is compressed by itself. See
    /// `max_compression_memory`.
    compression_history: kind::SizeOrOff, otherwise = "`\"4KiB\"`";
    /// Pages of other origins get 403 when they open a WebSocket. Clients that send no origin are let in.
    origins: List<kind::Origin>, otherwise = "every origin";
}

/// Of these a route has one.
const PATHS: [&str; 3] = ["path", "path_exact", "path_regex"];
/// The options of which a route has exactly one.
const ACTIONS: [&str; 6] = ["proxy", "service", "files", "fastcgi", "redirect", "respond"];

/// Those of [`PROXY_ONLY`] that a server of FastCGI has a use for.
const FASTCGI_TOO: [&str; 4] = ["buffer_request", "connect_timeout", "request_headers", "response_timeout"];

/// The options that only a backend has a use for.
const PROXY_ONLY: &[&str] = &[
    "buffer_request",
    "connect_timeout",
    "field_names",
    "pool",
    "protocol",
    "proxy_protocol",
    "request_headers",
    "response_timeout",
    "rewrite",
    "rewrite_location",
    "source_addresses",
    "strip_prefix",
    "subprotocols",
    "tls",
    "upgrade",
];

/// The options that only a backend has a use for that speaks HTTP.
const HTTP_ONLY: [&str; 10] = [
    "buffer_request",
    "field_names",
    "pool",
    "protocol",
    "response_timeout",
    "rewrite",
    "rewrite_location",
    "strip_prefix",
    "tls",
    "upgrade",
];

pub(super) fn read(
    d: &mut Document<'_>,
    sections: Vec<RouteOptions>,
    listeners: &[Listener],
    upstreams: &Upstreams,
) -> Vec<Arc<Route>> {
    let mut routes = Vec::new();
    let mut seen: HashMap<RouteId, Place> = HashMap::new();
    for mut section in sections {
        let place = section.written().place;
        let [redirect_place, respond_place] = ["redirect", "respond"].map(|key| section.place_of(key));
        let action = read_action(d, &mut section, upstreams);
        let extras = read_extras(d, &mut section);
        let rewrite = read_rewrite(d, &section, action.as_ref());
        let matcher = read_matcher(d, &section, listeners);
        let is_service = section.service.is_some();
        let can_compress = matches!(action, None | Some(Action::Proxy(_) | Action::Service(Service::Echo)));
        let websocket =
            section.websocket.map(|websocket| read_websocket(d, websocket.value, is_service, can_compress));
        let (Some(matcher), Some(action)) = (matcher, action) else { continue };
        let (wanted, place_of_groups) = match &action {
            Action::Redirect(redirect) => (redirect.groups(), redirect_place),
            Action::Respond(respond) => (respond.body.groups(), respond_place),
            _ => (0, place),
        };
        let groups = matcher.path.groups();
        if wanted > groups {
            let what = format!(
                "{{{wanted}}} is a group of path_regex, which has {groups} of them; write them in parentheses there"
            );
            d.problem(place_of_groups, what);
        }
        let mut route = Route::new(matcher, action);
        let mut is_twice = false;
        for key in rules::keys(&route.matcher) {
            let other = *seen.entry(key.clone()).or_insert(place);
            if other != place {
                is_twice = true;
                let line = d.shown(other, place);
                let what = format!("the route {key} exists already ({line}); only one of them can be used");
                d.problem(place, what);
            }
        }
        if let Some(At { value: name, place }) = section.name {
            route.id = RouteId::named(&name);
            let other = routes.iter().find(|other: &&Arc<Route>| other.id == route.id);
            if other.is_some() {
                d.problem(place, format!("name: another route has the name {name:?} already"));
            }
        } else if !is_twice && routes.iter().any(|other: &Arc<Route>| other.id.as_str() == route.id.as_str())
        {
            let what = format!(
                "the log would show two routes as {}, since values of fields are not shown: give each a name",
                route.id
            );
            d.problem(place, what);
        }
        route.rewrite = rewrite;
        route.extras = (!extras.is_empty()).then(|| Box::new(extras));
        route.access = section.access.map(|at| Box::new(access::read(d, at.value)));
        route.upgrades = section.upgrade.and_then(|upgrade| read_upgrades(d, upgrade));
        if let Some(read) = websocket {
            (route.policy, route.rates, route.origins) = (read.policy, read.rates, read.origins);
            route.compression = read.compression;
        }
        routes.push(Arc::new(route));
    }
    routes
}

fn read_extras(d: &mut Document<'_>, section: &mut RouteOptions) -> Extras {
    let request = section.request_headers.take().map(|at| fields::request(d, at.value));
    let response = section.response_headers.take().map(|at| fields::response(d, at.value));
    let cors = section.cors.take().and_then(|at| fields::cors(d, at.value));
    if section.intercept_errors.value && !section.has("error_pages") {
        let what = "intercept_errors: without error_pages it has no meaning; remove it";
        d.problem(section.intercept_errors.place, what);
    }
    let compress = section.compress.take().and_then(|at| compress::read(d, at.value));
    let intercept = section.intercept_errors.value;
    let pages = section.error_pages.take().map(|at| ErrorPages { pages: at.value, intercept });
    Extras {
        request: request.unwrap_or_default(),
        response: response.unwrap_or_default(),
        cors,
        pages,
        compress,
    }
}

/// `None` if something is wrong, which is noted.
fn read_matcher(d: &mut Document<'_>, section: &RouteOptions, listeners: &[Listener]) -> Option<Matcher> {
    let paths: Vec<_> = PATHS.into_iter().filter(|key| section.has(key)).collect();
    match paths[..] {
        [] => d.missing(section.written().place, "[[route]] needs path, for instance path = \"/\""),
        [_] => {}
        [_, second, ..] => {
            d.problem(section.place_of(second), "a route has either path, path_exact or path_regex");
        }
    }
    let prefix = section.path.as_ref().map(|at| PathMatcher::Prefix(at.value.clone()));
    let exact = section.path_exact.as_ref().map(|at| PathMatcher::Exact(at.value.clone()));
    let regex = section.path_regex.as_ref().map(|at| PathMatcher::Regex(at.value.clone()));
    let path = prefix.or(exact).or(regex);
    if let Some(At { value: Service::Console, place }) = section.service
        && path.as_ref().is_some_and(|path| path.prefix().is_none())
    {
        d.problem(place, "service: the console has several files, so it needs path");
    }
    let mut good = true;
    for key in ["host", "listener"] {
        let is_empty = match key {
            "host" => section.host.as_ref().map(|at| at.value.is_empty()),
            _ => section.listener.as_ref().map(|at| at.value.is_empty()),
        };
        if is_empty == Some(true) {
            d.problem(section.place_of(key), format!("{key}: the list is empty; leave it out for all"));
        }
        good &= is_empty.is_some() || !section.has(key);
    }
    if let Some(At { value: names, place }) = &section.listener {
        for name in names.iter().filter(|name| listeners.iter().all(|listener| listener.name != **name)) {
            let known: BTreeSet<&str> = listeners.iter().map(|listener| &*listener.name).collect();
            let known: Vec<_> = known.into_iter().collect();
            let what =
                format!("listener: no listener has the name {name:?}; there are: {}", known.join(", "));
            d.problem(*place, what);
        }
    }
    let when = section.when.as_ref().map(|at| when::read(d, &at.value)).unwrap_or_default();
    let matcher = Matcher {
        listeners: section.listener.as_ref().map(|at| at.value.clone()).unwrap_or_default(),
        hosts: section.host.as_ref().map(|at| at.value.clone()).unwrap_or_default(),
        path: path?,
        when,
    };
    good.then_some(matcher)
}

fn read_action(d: &mut Document<'_>, section: &mut RouteOptions, upstreams: &Upstreams) -> Option<Action> {
    // `files` beside `fastcgi` are no second action: they are the files that aren't scripts.
    let is_beside = |key: &&str| *key == "files" && section.has("fastcgi");
    let mut actions = ACTIONS.into_iter().filter(|key| section.has(key) && !is_beside(key));
    match (actions.next(), actions.next()) {
        (Some(one), Some(other)) => {
            d.problem(section.place_of(other), format!("a route has either {one} or {other}, not both"));
        }
        (None, _) => d.missing(
            section.written().place,
            "a [[route]] needs proxy = \"http://127.0.0.1:8080\" or service = \"echo\"",
        ),
        (Some("proxy"), None) => {}
        (Some(action), None) => {
            let action = if action == "service" { "a service" } else { action };
            let is_used = |key: &&&str| action == "fastcgi" && FASTCGI_TOO.contains(*key);
            for key in PROXY_ONLY.iter().filter(|key| section.has(key) && !is_used(key)) {
                d.problem(section.place_of(key), format!("{key} has no meaning for {action}; remove it"));
            }
        }
    }
    let files = section.files.take().map(|at| files::read(d, at.value, section.has("fastcgi")));
    if section.has("fastcgi") {
        let files = match files {
            Some(files) => Some(Arc::new(files?)),
            None => None,
        };
        return read_fastcgi(d, section, files, upstreams);
    }
    if let Some(files) = files {
        return Some(Action::Files(Arc::new(files?)));
    }
    if let Some(At { value: redirect, .. }) = section.redirect.take() {
        return answer::redirect(d, redirect);
    }
    if let Some(At { value: respond, .. }) = section.respond.take() {
        return answer::respond(d, respond);
    }
    if let Some(address) = section.proxy.as_ref().and_then(|proxy| tcp_address(&proxy.value)) {
        let place = section.place_of("proxy");
        let mut upstream =
            TcpServer::parse(address).map_err(|what| d.problem(place, format!("proxy: {what}"))).ok()?;
        upstream.servers.iter().for_each(|server| d.server(&server.endpoint, place));
        for key in HTTP_ONLY.into_iter().filter(|key| section.has(key)) {
            d.problem(
                section.place_of(key),
                format!("{key} has no meaning for a backend behind tcp://; remove it"),
            );
        }
        upstream.connector = Connector {
            connect_timeout: section.connect_timeout.value,
            pooled: false,
            proxy_protocol: section.proxy_protocol.as_ref().map(|at| at.value),
            protocol: Protocol::Http1,
        };
        if let Some(addresses) = section.source_addresses.take() {
            upstream::come_from(d, addresses, &mut upstream.servers);
        }
        return Some(Action::Tcp(Arc::new(TcpServer {
            upstream: Arc::new(upstream),
            subprotocols: section.subprotocols.as_ref().map(|at| at.value.clone().into()).unwrap_or_default(),
        })));
    }
    if section.has("proxy") && section.subprotocols.is_some() {
        d.problem(
            section.place_of("subprotocols"),
            "subprotocols are for backends behind tcp://: others choose one themselves; remove it",
        );
    }
    if let Some(At { value: service, .. }) = section.service {
        return Some(Action::Service(service));
    }
    let At { value: targets, place } = section.proxy.take()?;
    let named = upstream::named(&targets, upstreams);
    let mut upstream = named.map_err(|what| d.problem(place, format!("proxy: {what}"))).ok()??;
    if upstream.name.is_none() {
        upstream.servers.iter().for_each(|server| d.server(&server.endpoint, place));
    }
    set_timeouts(section, &mut upstream);
    if section.has("pool") || upstream.name.is_none() {
        upstream.connector.pooled = section.pool.value;
    }
    if section.has("protocol") || upstream.name.is_none() {
        upstream.connector.protocol = section.protocol.value;
    }
    if section.has("field_names") || upstream.name.is_none() {
        upstream.keeps_names = section.field_names.value;
    }
    if let Some(At { value, .. }) = section.proxy_protocol {
        upstream.connector.proxy_protocol = Some(value);
    }
    if let Some(addresses) = section.source_addresses.take() {
        upstream::come_from(d, addresses, &mut upstream.servers);
    }
    if let Some(At { value, .. }) = section.buffer_request {
        upstream.buffer_request = Some(value.unwrap_or(0));
    }
    if let Some(what) = rules::multiplexed(&upstream.connector) {
        d.problem(place, what);
    }
    if let Some(At { value: tls, .. }) = section.tls.take() {
        server_tls::apply(d, tls, &mut upstream.servers);
    }
    Some(Action::Proxy(Arc::new(upstream)))
}

fn read_fastcgi(
    d: &mut Document<'_>,
    section: &mut RouteOptions,
    files: Option<Arc<Files>>,
    upstreams: &Upstreams,
) -> Option<Action> {
    let mut fastcgi = fastcgi::read(d, section.fastcgi.take()?.value, files, upstreams)?;
    set_timeouts(section, Arc::make_mut(&mut fastcgi.upstream));
    if let Some(At { value, .. }) = section.buffer_request {
        fastcgi.body_len_max = value.unwrap_or(0);
    }
    Some(Action::Fastcgi(Arc::new(fastcgi)))
}

/// The route's own timeouts, where it has some or its servers have no section.
fn set_timeouts(section: &RouteOptions, upstream: &mut Upstream) {
    if section.has("connect_timeout") || upstream.name.is_none() {
        upstream.connector.connect_timeout = section.connect_timeout.value;
    }
    if section.has("response_timeout") || upstream.name.is_none() {
        upstream.response_timeout = section.response_timeout.value.unwrap_or(values::LONGEST);
    }
}

/// What stands behind `tcp://`, if that is the scheme of the only address.
fn tcp_address(targets: &[Box<str>]) -> Option<&str> {
    let [one] = targets else { return None };
    let (scheme, address) = one.split_once("://")?;
    scheme.eq_ignore_ascii_case("tcp").then_some(address)
}

/// How paths are rewritten, of which only one way can be written.
fn read_rewrite(d: &mut Document<'_>, section: &RouteOptions, action: Option<&Action>) -> Option<Rewrite> {
    let behind = action.and_then(Action::upstream).and_then(|upstream| upstream.path.as_ref());
    if section.has("path_regex") {
        let key = section.has("strip_prefix").then_some("strip_prefix");
        if let Some(key) = key.or(behind.map(|_| "proxy")) {
            d.problem(
                section.place_of(key),
                format!("{key}: another path for the backend needs path or path_exact"),
            );
        }
    }
    if let (Some(At { value: pattern, .. }), Some(At { value: template, place })) =
        (&section.path_regex, &section.rewrite)
    {
        let rewrite = Rewrite::of_groups(pattern, template);
        let rewrite = rewrite.map_err(|what| d.problem(*place, format!("rewrite: {what}"))).ok()?;
        if let Some(At { value: true, place }) = section.rewrite_location {
            d.problem(
                place,
                "rewrite_location: paths of answers can't come back through a path_regex; remove it",
            );
        }
        return Some(rewrite);
    }
    let exact = section.path_exact.as_ref().and_then(|at| RoutePath::parse(at.value.as_str()).ok());
    let path = &section.path.as_ref().map(|at| at.value.clone()).or(exact)?;
    let mut rewrite = match (behind, &section.strip_prefix, &section.rewrite) {
        (None, None, None) => None,
        (Some(new), None, None) => Rewrite::replace(path, new),
        (None, Some(At { value: prefix, place }), None) => {
            if prefix.strip(&path.to_string()).is_none() {
                d.problem(
                    *place,
                    format!(
                        "strip_prefix: expected the route's path ({path}) or the front of it, found {prefix}"
                    ),
                );
            }
            Rewrite::replace(prefix, &RoutePath::root())
        }
        (None, None, Some(At { value, place })) => {
            Rewrite::template(path, value).map_err(|what| d.problem(*place, format!("rewrite: {what}"))).ok()
        }
        (_, strip_prefix, rewrite) => {
            let (key, other) = match (strip_prefix, rewrite) {
                (Some(_), Some(_)) => ("rewrite", "strip_prefix"),
                (Some(_), None) => ("strip_prefix", "the path behind the address in proxy"),
                _ => ("rewrite", "the path behind the address in proxy"),
            };
            d.problem(
                section.place_of(key),
                format!("{key}: {other} says already what the backend gets in place of the route's path; keep one of the two"),
            );
            None
        }
    };
    if let Some(At { value, place }) = section.rewrite_location {
        match &mut rewrite {
            Some(rewrite) => {
                rewrite.location = value;
                if let Some(what) = rules::rewrite_location(rewrite) {
                    d.problem(place, what);
                }
            }
            None if value && !section.has("rewrite") => d.problem(
                place,
                "rewrite_location: the backend gets paths unchanged, so there is nothing to change in its answers; remove it",
            ),
            None => {}
        }
    }
    rewrite
}

/// `None` is what holds where nothing is said.
fn read_upgrades(d: &mut Document<'_>, upgrade: At<Vec<Box<str>>>) -> Option<Box<[Box<str>]>> {
    match &upgrade.value[..] {
        [] => {
            d.problem(
                upgrade.place,
                "upgrade: an empty list would refuse WebSockets, too; write [\"websocket\"], or leave it out",
            );
            None
        }
        [only] if only.eq_ignore_ascii_case("websocket") => None,
        _ => Some(upgrade.value.into()),
    }
}

/// What [`read_websocket`] reads.
struct Websocket {
    policy: Policy,
    rates: Option<Rates>,
    origins: Option<Vec<OriginPattern>>,
    compression: Compression,
}

/// `is_service`: sessions end at the gateway; `can_compress`: they have messages, which the gateway can compress.
fn read_websocket(
    d: &mut Document<'_>,
    section: WebsocketOptions,
    is_service: bool,
    can_compress: bool,
) -> Websocket {
    let mut policy = Policy {
        idle_timeout: section.idle_timeout.value,
        lifetime: section.lifetime.value,
        ping_interval: section.ping_interval.value,
        pong_timeout: section.pong_timeout.value,
        ..Route::policy(is_service)
    };
    if let Some(At { value, place }) = section.max_message {
        match rules::message_max(value.unwrap_or(u64::MAX), is_service) {
            Some(what) => d.problem(place, what),
            None => policy.limits.message_max = value.unwrap_or(u64::MAX),
        }
    }
    if let Some(At { value, place }) = &section.origins
        && let Some(what) = rules::origins(value)
    {
        d.problem(*place, what);
    }
    let messages = section.messages.as_ref().map(|at| {
        let (count, period) = at.value.parts();
        Rate::new(count.into(), period)
    });
    let bytes = section.bytes.value.map(|count| Rate::new(count, Duration::from_secs(1)));
    let on_limit = section.on_limit.value;
    let rates = (messages.is_some() || bytes.is_some()).then_some(Rates { messages, bytes, on_limit });
    if rates.is_none() && on_limit == OnLimit::Close {
        d.problem(section.on_limit.place, "on_limit: there is no limit; write messages or bytes");
    }
    let compression = read_compression(d, &section, can_compress);
    Websocket { policy, rates, origins: section.origins.map(|at| at.value), compression }
}

fn read_compression(d: &mut Document<'_>, section: &WebsocketOptions, can_compress: bool) -> Compression {
    let history = section.compression_history.as_ref();
    if !section.compression.value {
        if let Some(at) = history {
            d.problem(at.place, "compression_history: it needs compression = \"terminate\"");
        }
        return Compression::Pass;
    }
    if !can_compress {
        let what = "compression: only WebSocket servers behind proxy, and service = \"echo\", have messages to be \
                    compressed; remove it";
        d.problem(section.compression.place, what);
    }
    let history_max = history.map_or(HISTORY_LEN, |at| at.value.unwrap_or_default());
    if let Some(At { value: Some(len), place }) = history
        && !HISTORY_LENS.contains(len)
    {
        d.problem(*place, "compression_history: it has to be 256 B to 32 KiB, or \"off\"");
    }
    Compression::Terminate { history_max: usize::try_from(history_max).unwrap_or(usize::MAX) }
}
