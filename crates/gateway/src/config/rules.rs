//! What values have to obey that a type can't say, whether they come from a file or from a program.
//!
//! The readers of the sections call these rules with the place of each value; [`problems`] calls them for a
//! configuration that was made of values.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use tls_acceptor::Alpn;
use upgrade_handler::origin::OriginPattern;

use super::kind::CloseCode;
use super::log::session_lines;
use super::model::{Config, Listener, MEMORY_PER_WORKER_MIN, memory_min};
use super::problem::Place;
use crate::net::listening::ListenAddress;
use crate::net::options::collide;
use crate::site::Drain;
use crate::site::matcher::Matcher;
use crate::site::rewrite::Rewrite;
use crate::site::route::{Action, Route};
use crate::site::route_id::RouteId;
use crate::site::upstream::{Connector, Protocol};

pub(super) const NO_LISTENER: &str = "there is no [[listener]]: add one with address = \"0.0.0.0:443\"";
pub(super) const NO_TLS: &str = "redirect: no listener speaks TLS, so there is nothing to send clients to";
pub(super) const NO_ROUTE: &str = "there is no [[route]]: nothing would be served";
pub(super) const NO_CERTIFICATES: &str = "a listener with TLS needs certificates: add [certificates] with a \
     directory, or a [[certificate]] with chain and key, or set tls = false";

pub(super) fn memory(bytes: Option<u64>, workers: Option<usize>) -> Option<String> {
    let (bytes, least) = (bytes?, memory_min(workers));
    (bytes < least).then(|| {
        format!(
            "max_memory: {bytes} bytes are too little for {} workers; write \"{}MiB\" or more, or \"off\" for no \
             limit",
            least / MEMORY_PER_WORKER_MIN,
            least >> 20
        )
    })
}

pub(super) fn drain_delay(Drain { delay, timeout, .. }: &Drain) -> Option<String> {
    (!delay.is_zero() && delay >= timeout).then(|| {
        let timeout = humantime::format_duration(*timeout);
        format!("drain_delay: it is a part of drain_timeout ({timeout}), so it has to be shorter")
    })
}

/// The new process waits for the old one, which may not seem to have hung.
pub(super) const HANDOVER_WAIT_MAX: Duration = Duration::from_secs(30);

pub(super) fn handover_wait(wait: Duration) -> Option<String> {
    (wait > HANDOVER_WAIT_MAX).then(|| {
        "handover_wait: nothing else can be done meanwhile, so 30 seconds are the longest; what is unsent then moves, \
         too"
            .to_owned()
    })
}

/// What the page changes only those may change who have a token.
pub(super) fn admin_actions(has_actions: bool, has_token: bool) -> Option<String> {
    (has_actions && !has_token).then(|| {
        "actions: the page may change something only for those who have a token; add token_file, the file with it, as \
         `openssl rand -hex 32` makes it"
            .to_owned()
    })
}

/// What is wrong with `address` beside the listeners that are there already. `shown` says where one of them is written.
pub(super) fn overlap(
    listeners: &[Listener],
    address: &ListenAddress,
    shown: impl Fn(Place) -> String,
) -> Option<String> {
    let collides = |other: &ListenAddress| match (other.ip(), address.ip()) {
        (Some(other), Some(address)) => collide(other, address),
        _ => other == address,
    };
    let other = listeners.iter().find(|l| collides(&l.address))?;
    let line = match other.place.line {
        0 => String::new(),
        _ => format!(" ({})", shown(other.place)),
    };
    let other = &other.address;
    Some(if other == address && address.ip().is_some_and(|address| address.port() == 0) {
        format!(
            "address: {address} is there already{line}, and a listener is known by the address that is written here, \
             not by the port that the system chooses; write another address for one of the two, such as 127.0.0.2:0"
        )
    } else if other == address {
        format!("address: {address} is listened on already{line}; keep one of the two")
    } else {
        let ips = [address, other].into_iter().filter_map(ListenAddress::ip).map(|address| address.ip());
        let all = ips.filter(IpAddr::is_unspecified).map(|all| all.to_string()).next().unwrap_or_default();
        format!(
            "address: {address} overlaps with {other}{line}; {all} is every address of this machine, so keep one \
             of the two"
        )
    })
}

pub(super) fn alpn(protocols: &[Alpn]) -> Option<String> {
    if protocols.is_empty() {
        return Some(
            "alpn: an empty list would refuse every browser; leave it out for the default".to_owned(),
        );
    }
    let is_twice = protocols.iter().enumerate().any(|(i, alpn)| protocols[..i].contains(alpn));
    is_twice.then(|| "alpn: a protocol is listed twice".to_owned())
}

pub(super) fn chain(files: &[PathBuf]) -> Option<String> {
    files.is_empty().then(|| "chain: the list is empty".to_owned())
}

pub(super) fn message_max(bytes: u64, is_service: bool) -> Option<String> {
    match bytes {
        0 => Some("max_message: 0 would refuse every message; write \"off\" for no limit".to_owned()),
        u64::MAX if is_service => Some(
            "max_message: messages that end at the gateway are held in memory, so there has to be a limit"
                .to_owned(),
        ),
        _ => None,
    }
}

pub(super) fn origins(origins: &[OriginPattern]) -> Option<String> {
    origins.is_empty().then(|| {
        "origins: an empty list would refuse every page; write those that may open WebSockets, such as \
         [\"https://domain.com\"], or leave it out to let all in"
            .to_owned()
    })
}

pub(super) fn rewrite_location(rewrite: &Rewrite) -> Option<String> {
    (rewrite.location && !rewrite.is_reversible()).then(|| {
        "rewrite_location: a path of an answer can come back only if rewrite ends with {rest}; remove it, or set it \
         to false"
            .to_owned()
    })
}

/// Connections over HTTP/2 are shared, and some options forbid that.
pub(super) fn multiplexed(connector: &Connector) -> Option<String> {
    let shared = "requests of all clients share connections over HTTP/2";
    match connector {
        Connector { protocol: Protocol::Http1, .. } => None,
        Connector { proxy_protocol: Some(_), .. } => Some(format!(
            "protocol: {shared}, and proxy_protocol names one client for a whole connection; remove one of the two"
        )),
        Connector { pooled: false, .. } => Some(format!(
            "protocol: {shared}, and pool = \"off\" gives each request its own; remove one of the two"
        )),
        _ => None,
    }
}

/// What no two routes may have in common: the requests for one host, on one listener.
pub(super) fn keys(matcher: &Matcher) -> Vec<RouteId> {
    let hosts = matcher.hosts.iter().map(|host| vec![host.clone()]);
    let hosts: Vec<_> = if matcher.hosts.is_empty() { vec![Vec::new()] } else { hosts.collect() };
    let listeners = matcher.listeners.iter().map(|listener| vec![listener.clone()]);
    let listeners: Vec<_> = if matcher.listeners.is_empty() { vec![Vec::new()] } else { listeners.collect() };
    let mut keys = Vec::new();
    for hosts in hosts {
        for listeners in &listeners {
            keys.push(Matcher { listeners: listeners.clone(), hosts: hosts.clone(), ..matcher.clone() }.id());
        }
    }
    keys
}

/// A limit that has to be more than nothing.
fn positive(key: &str, duration: Duration) -> Option<String> {
    duration.is_zero().then(|| format!("{key}: expected more than no time at all"))
}

/// Everything that is wrong with a configuration, each with the part that it is in.
pub(super) fn problems(config: &Config) -> Vec<String> {
    let mut found: Vec<Option<String>> = vec![
        memory(config.memory_max, config.workers),
        (config.workers == Some(0)).then(|| "workers: expected at least one".to_owned()),
        drain_delay(&config.drain),
        CloseCode::check(config.drain.close_code).err().map(|what| format!("drain_close_code: {what}")),
        positive("drain_window", config.drain.window),
        positive("drain_timeout", config.drain.timeout),
        positive("handover_wait", config.handover_wait),
        handover_wait(config.handover_wait),
        session_lines(config.log.sessions, config.log.format),
        config.listeners.is_empty().then(|| NO_LISTENER.to_owned()),
        config.routes.is_empty().then(|| NO_ROUTE.to_owned()),
    ];
    for (i, listener) in config.listeners.iter().enumerate() {
        found.push(overlap(&config.listeners[..i], &listener.address, |_| String::new()));
        found.extend(listener_problems(listener));
    }
    if config.listeners.iter().any(|listener| listener.redirect) && !config.has_tls() {
        found.push(Some(NO_TLS.to_owned()));
    }
    if let Some(admin) = &config.admin {
        found.push(
            overlap(&config.listeners, &admin.address, |_| String::new())
                .map(|what| format!("[admin]: {what}")),
        );
        found.push(admin_actions(admin.has_actions, admin.token.is_some()));
    }
    let plan = &config.certificates;
    if config.has_tls() && plan.directory.is_none() && plan.named.is_empty() {
        found.push(Some(NO_CERTIFICATES.to_owned()));
    }
    found.extend(plan.named.iter().map(|named| chain(&named.chain)));
    let mut seen: HashSet<RouteId> = HashSet::new();
    let mut ids: HashSet<&RouteId> = HashSet::new();
    for route in &config.routes {
        let Route { id, matcher, action, rewrite, policy, origins: pages, .. } = &**route;
        let is_service = matches!(action, Action::Service(_));
        let twice = keys(matcher).into_iter().any(|key| !seen.insert(key)) || !ids.insert(id);
        let problems = [
            twice.then(|| "it exists already; only one of them can be used".to_owned()),
            rewrite.as_ref().and_then(rewrite_location),
            action.upstream().and_then(|upstream| multiplexed(&upstream.connector)),
            message_max(policy.limits.message_max, is_service),
            pages.as_ref().and_then(|pages| origins(pages)),
            policy.idle_timeout.and_then(|idle| positive("idle_timeout", idle)),
            policy.lifetime.and_then(|lifetime| positive("lifetime", lifetime)),
            policy.ping_interval.and_then(|interval| positive("ping_interval", interval)),
            positive("pong_timeout", policy.pong_timeout),
        ];
        found.extend(problems.into_iter().map(|what| what.map(|what| format!("route {id}: {what}"))));
    }
    found.into_iter().flatten().collect()
}

fn listener_problems(listener: &Listener) -> Vec<Option<String>> {
    let limits = &listener.limits;
    let tls = listener.tls.as_ref();
    let problems = [
        tls.and_then(|tls| alpn(&tls.alpn)),
        tls.and_then(|tls| positive("handshake_timeout", tls.handshake_timeout)),
        positive("header_timeout", limits.header_timeout),
        positive("keep_alive_timeout", limits.keep_alive_timeout),
    ];
    let address = &listener.address;
    problems.into_iter().map(|what| what.map(|what| format!("listener {address}: {what}"))).collect()
}

#[cfg(test)]
mod tests;
