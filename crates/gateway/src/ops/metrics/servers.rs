//! Servers: their states, what they have to do, and how their names are resolved.

use std::fmt;
use std::sync::Arc;

use net_io::count::{DurationTotals, Durations};

use super::page::{Kind, Label, Page};
use crate::net::clock;
use crate::ops::overview::Overview;
use crate::site::counts::UpstreamCounts;
use crate::site::known_name::KnownName;
use crate::site::names::Resolve;
use crate::site::redial::RedialFailure;
use crate::site::server::ServerState;
use crate::site::upstream::{Protocol, Upstream};
use crate::upstream::http2::connections::Http2Counts;

/// What [`ServerState::state`] may say.
const STATES: [&str; 5] = ["up", "down", "ejected", "drained", "left"];

pub(super) fn write(page: &mut Page<'_>, overview: &Overview) -> fmt::Result {
    let (site, now) = (overview.site.load_full(), clock::now());
    let upstreams = site.upstreams();
    let mut family = |name: &'static str, kind: Kind, help: &str, value: &dyn Fn(&ServerState) -> u64| {
        let mut family = page.family(name, kind, help)?;
        each_server(&upstreams, |labels, state| family.sample(labels, value(state)))
    };
    family(
        "wssgate_backend_up",
        Kind::Gauge,
        "1 if the backend gets requests, 0 if it is down, ejected or drained",
        &|server| u64::from(server.state(now) == "up"),
    )?;
    family("wssgate_backend_sessions", Kind::Gauge, "Live WebSocket sessions, by backend", &|server| {
        server.sessions().into()
    })?;
    family("wssgate_backend_requests_in_flight", Kind::Gauge, "Requests in flight, by backend", &|server| {
        server.live().saturating_sub(server.sessions()).into()
    })?;
    family(
        "wssgate_backend_requests_total",
        Kind::Counter,
        "Requests and handshakes, by backend",
        &ServerState::requests,
    )?;
    family(
        "wssgate_backend_failures_total",
        Kind::Counter,
        "Requests that got no connection, no answer, or one from 500, by backend",
        &ServerState::failures,
    )?;
    family(
        "wssgate_backend_redials_total",
        Kind::Counter,
        "WebSocket sessions that came from a backend that they had lost, by backend",
        &ServerState::redials,
    )?;
    let mut states =
        page.gauge("wssgate_backend_state", "1 for the state that the backend is in, 0 for others")?;
    each_server(&upstreams, |labels, server| {
        let current = server.state(now);
        for state in STATES {
            states.sample(&[labels[0], labels[1], ("state", state)], u8::from(state == current))?;
        }
        Ok(())
    })?;
    http2(page, overview, &upstreams)?;
    waits(page, &upstreams)?;
    times(page, &upstreams)?;
    names(page, overview)
}

fn each_server(
    upstreams: &[&Arc<Upstream>],
    mut each: impl FnMut(&[Label<'_>; 2], &ServerState) -> fmt::Result,
) -> fmt::Result {
    for upstream in upstreams {
        let name = upstream.to_string();
        let current = upstream.current();
        for (server, state) in current.servers.iter().zip(current.states()) {
            each(&[("upstream", &name), ("backend", &server.endpoint.address)], state)?;
        }
    }
    Ok(())
}

fn http2(page: &mut Page<'_>, overview: &Overview, upstreams: &[&Arc<Upstream>]) -> fmt::Result {
    for (family, help, value) in [
        (
            "wssgate_backend_http2_connections",
            "Connections over HTTP/2, by backend",
            (|counts| counts.connections) as fn(Http2Counts) -> usize,
        ),
        ("wssgate_backend_http2_streams", "Open streams of connections over HTTP/2, by backend", |counts| {
            counts.streams
        }),
    ] {
        let mut family = page.gauge(family, help)?;
        for upstream in upstreams.iter().filter(|upstream| upstream.connector.protocol == Protocol::Http2) {
            let name = upstream.to_string();
            for server in &upstream.servers {
                let labels = [("upstream", &*name), ("backend", &*server.endpoint.address)];
                family.sample(&labels, value(overview.http2(&server.endpoint)))?;
            }
        }
    }
    Ok(())
}

/// Requests and sessions that wait for a server.
fn waits(page: &mut Page<'_>, upstreams: &[&Arc<Upstream>]) -> fmt::Result {
    let redialling = || upstreams.iter().filter(|upstream| upstream.redial.is_some());
    let mut now = page.gauge(
        "wssgate_upstream_redialling",
        "WebSocket sessions with session_lost = \"redial\" that have lost their backend and look for another one",
    )?;
    for upstream in redialling() {
        now.sample(&[("upstream", &upstream.to_string())], upstream.redialling())?;
    }
    let mut failed = page.counter(
        "wssgate_upstream_redials_failed_total",
        "WebSocket sessions with session_lost = \"redial\" that ended because no other backend could go on with them, by \
         upstream and reason",
    )?;
    for upstream in redialling() {
        let name = upstream.to_string();
        for reason in RedialFailure::ALL {
            let labels = [("upstream", &*name), ("reason", reason.as_str())];
            failed.sample(&labels, upstream.redials_failed(reason))?;
        }
    }
    let mut waiting =
        page.gauge("wssgate_upstream_waiting", "Requests that wait for a backend with max_sessions")?;
    for upstream in upstreams {
        waiting.sample(&[("upstream", &upstream.to_string())], upstream.waiting())?;
    }
    Ok(())
}

/// How long servers take.
fn times(page: &mut Page<'_>, upstreams: &[&Arc<Upstream>]) -> fmt::Result {
    let mut family = |name, help, of: fn(&UpstreamCounts) -> &Durations| {
        let mut family = page.histogram(name, help)?;
        for upstream in upstreams {
            let mut totals = DurationTotals::default();
            upstream.counts().iter().for_each(|worker| totals.add(of(worker)));
            // One that has not been asked has no series.
            if totals != DurationTotals::default() {
                family.durations(&[("upstream", &upstream.to_string())], &totals)?;
            }
        }
        Ok(())
    };
    family(
        "wssgate_upstream_connect_duration_seconds",
        "To a new connection to a backend, with its TLS, by upstream; requests over a kept connection are not among them",
        |counts| &counts.connects,
    )?;
    family(
        "wssgate_upstream_answer_duration_seconds",
        "From a request or a WebSocket's handshake to the head of the backend's answer, by upstream",
        |counts| &counts.answers,
    )
}

/// How the names of servers are resolved.
fn names(page: &mut Page<'_>, overview: &Overview) -> fmt::Result {
    let names = overview.names.all();
    let kind = |name: &KnownName| match name.question.resolve {
        Resolve::Srv => "srv",
        Resolve::Once => "once",
        Resolve::Host | Resolve::Dns => "addresses",
    };
    let mut family = |family: &'static str, sort: Kind, help: &str, value: &dyn Fn(&KnownName) -> u64| {
        let mut family = page.family(family, sort, help)?;
        for name in &names {
            family.sample(&[("name", &name.question.name), ("kind", kind(name))], value(name))?;
        }
        Ok(())
    };
    family("wssgate_name_lookups_total", Kind::Counter, "Look-ups of a backend's name", &|name| {
        name.counts().0
    })?;
    family(
        "wssgate_name_failures_total",
        Kind::Counter,
        "Look-ups of a backend's name that found nothing",
        &|name| name.counts().1,
    )?;
    family(
        "wssgate_name_addresses",
        Kind::Gauge,
        "Addresses or SRV targets of a backend's name, as they are in use",
        &|name| name.found().map_or(0, |found| found.list().len() as u64),
    )
}
