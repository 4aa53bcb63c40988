//! How the gateway is, from what can be seen of it without asking its sessions.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use net_io::unix_now;

use crate::net::clock;
use crate::ops::control::ask::millis;
use crate::ops::control::protocol::{ExpiryInfo, NameInfo, RouteInfo, ServerInfo, Status, UpstreamInfo};
use crate::ops::overview::Overview;
use crate::site::Site;
use crate::site::endpoint::Endpoint;
use crate::site::known_name::KnownName;
use crate::site::server::ServerState;
use crate::site::upstream::{Protocol, Upstream};
use crate::telemetry::log;

/// All of it.
#[must_use]
pub(crate) fn status(overview: &Overview) -> Status {
    let site = overview.site.load_full();
    let drained = overview.drained.load_full();
    let mut counts = overview.live_by_route();
    let mut routes: Vec<RouteInfo> = site
        .all_routes()
        .iter()
        .map(|route| RouteInfo {
            route: site.hidden.hide(route.id.as_str()),
            to: site.hidden.hide(&route.action.to_string()),
            sessions: counts.remove(&route.id).unwrap_or_default(),
            state: if drained.covers(route).is_some() { "drained" } else { "served" }.to_owned(),
        })
        .collect();
    routes.extend(counts.into_iter().map(|(id, sessions)| RouteInfo {
        route: site.hidden.hide(id.as_str()),
        to: "-".to_owned(),
        sessions,
        state: "gone".to_owned(),
    }));
    let certificates = overview.certificates.current();
    let now = unix_now();
    let names = certificates.loaded.set.names();
    let nearest =
        names.flat_map(|(name, entry)| entry.iter().map(move |c| (c.leaf.not_after, name.clone(), c)));
    let nearest = nearest.min_by(|(a, ..), (b, ..)| a.cmp(b));
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        state: overview.readiness().1,
        uptime_s: overview.started.elapsed().as_secs(),
        workers: overview.sessions.len(),
        generation: overview.generation(),
        reloads_taken: overview.reloads_taken.load(Ordering::Relaxed),
        reloads_refused: overview.reloads_refused.load(Ordering::Relaxed),
        connections_accepted: overview.accepted(),
        connections: overview.quotas.connections.load(Ordering::Relaxed),
        connections_max: site.connections_max,
        sessions: overview.live(),
        listeners: site.addresses().iter().map(|address| site.hidden.hide(&address.to_string())).collect(),
        routes,
        upstreams: upstreams(overview),
        drained: drained.iter().map(|target| site.hidden.hide(&target.to_string())).collect(),
        nearest_expiry: nearest
            .map(|(_, name, c)| ExpiryInfo { name: name.to_string(), days: c.leaf.days_left(now) }),
        log_lines_lost: log::lines_lost() + overview.access_log.lines_lost(),
        acme: overview.acme.certificates(),
    }
}

/// The servers alone.
#[must_use]
pub(crate) fn upstreams(overview: &Overview) -> Vec<UpstreamInfo> {
    let site = overview.site.load_full();
    let now = clock::now();
    let server = |upstream: &Upstream, (endpoint, weight): (&Endpoint, u32), state: &Arc<ServerState>| {
        let probe = state.last_probe();
        let is_http2 = upstream.connector.protocol == Protocol::Http2;
        let http2 = is_http2.then(|| overview.http2(endpoint));
        ServerInfo {
            server: site.hidden.hide(&state.endpoint.to_string()),
            weight,
            state: state.state(now).to_owned(),
            why: state.why(now).map(|why| site.hidden.hide(&why)),
            sessions: state.sessions(),
            in_flight: state.live().saturating_sub(state.sessions()),
            requests: state.requests(),
            failures: state.failures(),
            http2_connections: http2.map(|counts| counts.connections),
            http2_streams: http2.map(|counts| counts.streams),
            probed_ms: probe.as_ref().map(|probe| millis(now.saturating_sub(probe.at))),
            probe_problem: probe.and_then(|probe| probe.problem).map(Into::into),
        }
    };
    let upstreams = site.upstreams().into_iter().map(|upstream| {
        let (current, left) = (upstream.current(), upstream.left());
        let configured = current.servers.iter().map(|server| (&*server.endpoint, server.weight.get()));
        let left = left.iter().map(|server| ((&*server.endpoint, 0), server));
        let servers = configured.zip(current.states()).chain(left);
        UpstreamInfo {
            upstream: site.hidden.hide(&upstream.to_string()),
            balance: upstream.balance.to_string(),
            waiting: upstream.waiting(),
            servers: servers.map(|(one, state)| server(upstream, one, state)).collect(),
            names: upstream.names().into_iter().map(|name| name_info(name, &site, now)).collect(),
        }
    });
    upstreams.collect()
}

fn name_info(name: &KnownName, site: &Site, now: Duration) -> NameInfo {
    let last = name.last();
    let (lookups, failures) = name.counts();
    NameInfo {
        name: site.hidden.hide(&name.question.to_string()),
        found: name.found().map(|found| found.list()).unwrap_or_default(),
        resolved_ms: last.resolved.map(|at| millis(now.saturating_sub(at))),
        lookups,
        failures,
        problem: last.problem.map(Into::into),
    }
}
