//! Metrics in Prometheus' text format, collected at each request.

use std::fmt::{Display, Write};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use net_io::unix_now;

use crate::net::budget::Pressure;
use crate::net::{clock, sweep};
use crate::ops::acme::{AcmeInfo, AcmeOverview};
use crate::ops::overview::Overview;
use crate::site::known_name::KnownName;
use crate::site::names::Resolve;
use crate::site::redial::RedialFailure;
use crate::site::server::ServerState;
use crate::site::upstream::Protocol;
use crate::telemetry::log;
use crate::upstream::http2::connections::Http2Counts;

/// What [`render`] returns, as HTTP calls it.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All figures.
#[must_use]
pub(crate) fn render(overview: &Overview) -> String {
    let mut page = Page::default();
    page.family("wssgate_ready", "gauge", "1 if the gateway is ready, as /readyz answers.");
    page.sample(&[], u8::from(overview.readiness().0));
    page.family(
        "wssgate_generation",
        "gauge",
        "Number of the configuration and certificates in use; each reload or renewal adds 1.",
    );
    page.sample(&[], overview.generation());
    page.family("wssgate_reloads_total", "counter", "Reloads of the configuration, by result.");
    page.sample(&[("result", "taken")], overview.reloads_taken.load(Ordering::Relaxed));
    page.sample(&[("result", "refused")], overview.reloads_refused.load(Ordering::Relaxed));
    page.family(
        "wssgate_log_lines_lost_total",
        "counter",
        "Log lines lost because stderr was read, or the access log written, too slowly.",
    );
    page.sample(&[], log::lines_lost() + overview.access_log.lines_lost());
    page.family(
        "wssgate_late_wakeups_total",
        "counter",
        "Sockets with unread bytes but no wake-up, and session timers that fired more than a second late.",
    );
    page.sample(&[], sweep::late_wakeups());
    let sum = |of: fn(&Pressure) -> &AtomicU64| {
        overview.pressure.iter().map(|worker| of(worker).load(Ordering::Relaxed)).sum::<u64>()
    };
    if let Some(max) = overview.site.load().memory_max {
        page.family(
            "wssgate_memory_limit_bytes",
            "gauge",
            "Limit for buffers and unsent bytes (max_memory).",
        );
        page.sample(&[], max);
    }
    page.family(
        "wssgate_memory_held_bytes",
        "gauge",
        "Buffers in use, and bytes that clients and backends have not read yet.",
    );
    page.sample(&[], sum(|worker| &worker.held));
    page.family(
        "wssgate_memory_refused_total",
        "counter",
        "Requests and handshakes refused because max_memory was nearly used up.",
    );
    page.sample(&[], sum(|worker| &worker.refused));
    page.family(
        "wssgate_memory_closed_total",
        "counter",
        "Sessions and connections of slow readers closed because max_memory was nearly used up.",
    );
    page.sample(&[], sum(|worker| &worker.shed));
    page.family(
        "wssgate_requests_limited_total",
        "counter",
        "Requests refused with 429, by failures, requests, handshakes or sessions in [route.access].",
    );
    page.sample(&[], overview.quotas.refused.load(Ordering::Relaxed));
    page.family(
        "wssgate_rate_clients_forgotten_total",
        "counter",
        "Clients that were forgotten before their rate was free again, because the table of clients was full.",
    );
    page.sample(&[], overview.quotas.forgotten.load(Ordering::Relaxed));
    let limited = &overview.quotas.sessions_limited;
    page.family(
        "wssgate_sessions_limited_total",
        "counter",
        "Sessions closed with 1008, because the client sent more than messages or bytes in [route.websocket].",
    );
    page.sample(&[], limited.closed.load(Ordering::Relaxed));
    page.family(
        "wssgate_session_pauses_total",
        "counter",
        "Pauses in reading a WebSocket client, by messages or bytes in [route.websocket].",
    );
    page.sample(&[], limited.pauses.load(Ordering::Relaxed));
    page.family("wssgate_connections", "gauge", "Connections of clients that are open, sessions included.");
    page.sample(&[], overview.quotas.connections.load(Ordering::Relaxed));
    page.family(
        "wssgate_connections_waited_total",
        "counter",
        "Connections that had to wait for the end of another, by max_connections.",
    );
    page.sample(&[], overview.quotas.connections_waited.load(Ordering::Relaxed));
    page.family("wssgate_connections_accepted_total", "counter", "TCP connections accepted from clients.");
    page.sample(&[], overview.accepted());
    page.family("wssgate_sessions", "gauge", "Live WebSocket sessions, by route.");
    let mut counts: Vec<_> =
        overview.live_by_route().into_iter().map(|(id, count)| (id.to_string(), count)).collect();
    counts.sort_unstable();
    for (route, count) in counts {
        page.sample(&[("route", &route)], count);
    }
    let moves = &overview.moves;
    page.family(
        "wssgate_sessions_taken_over_total",
        "counter",
        "WebSocket sessions that this process has taken from the one before it.",
    );
    page.sample(&[], moves.taken.load(Ordering::Relaxed));
    page.family(
        "wssgate_sessions_lost_total",
        "counter",
        "WebSocket sessions that were lost with a new process that failed during a takeover.",
    );
    page.sample(&[], moves.lost.load(Ordering::Relaxed));
    page.family(
        "wssgate_sessions_left_behind",
        "gauge",
        "WebSocket sessions that stayed in the old process at the takeover, by reason.",
    );
    for (reason, count) in moves.left.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        page.sample(&[("reason", reason)], count);
    }
    servers(&mut page, overview);
    names(&mut page, overview);
    page.family(
        "wssgate_certificate_expiry_timestamp_seconds",
        "gauge",
        "Unix time at which a served certificate expires.",
    );
    let current = overview.certificates.current();
    let mut served: Vec<_> = current
        .loaded
        .set
        .names()
        .flat_map(|(name, entry)| {
            let name = name.to_string();
            entry.iter().map(move |c| (name.clone(), c.leaf.key_type.as_str(), c.leaf.not_after))
        })
        .collect();
    served.sort_unstable();
    for (name, key, not_after) in served {
        page.sample(&[("name", &name), ("key", key)], not_after);
    }
    page.family(
        "wssgate_certificate_warnings",
        "gauge",
        "Number of warnings about the certificates in use; the log and `wssgate check` list them.",
    );
    page.sample(&[], current.loaded.warnings.len());
    acme(&mut page, &overview.acme);
    page.text
}

fn servers(page: &mut Page, overview: &Overview) {
    let (site, now) = (overview.site.load_full(), clock::now());
    let upstreams = site.upstreams();
    let mut family = |name: &'static str, kind: &str, help: &str, value: &dyn Fn(&ServerState) -> u64| {
        page.family(name, kind, help);
        for upstream in &upstreams {
            let name = upstream.to_string();
            let current = upstream.current();
            for (server, state) in current.servers.iter().zip(current.states()) {
                page.sample(&[("upstream", &name), ("backend", &server.endpoint.address)], value(state));
            }
        }
    };
    family(
        "wssgate_backend_up",
        "gauge",
        "1 if the backend gets requests, 0 if it is down, ejected or drained.",
        &|server| u64::from(server.state(now) == "up"),
    );
    family("wssgate_backend_sessions", "gauge", "Live WebSocket sessions, by backend.", &|server| {
        server.sessions().into()
    });
    family("wssgate_backend_requests_in_flight", "gauge", "Requests in flight, by backend.", &|server| {
        server.live().saturating_sub(server.sessions()).into()
    });
    family(
        "wssgate_backend_requests_total",
        "counter",
        "Requests and handshakes, by backend.",
        &ServerState::requests,
    );
    family(
        "wssgate_backend_failures_total",
        "counter",
        "Requests that got no connection, no answer, or one from 500, by backend.",
        &ServerState::failures,
    );
    family(
        "wssgate_backend_redials_total",
        "counter",
        "WebSocket sessions that came from a backend that they had lost, by backend.",
        &ServerState::redials,
    );
    for (family, help, value) in [
        (
            "wssgate_backend_http2_connections",
            "Connections over HTTP/2, by backend.",
            (|counts| counts.connections) as fn(Http2Counts) -> usize,
        ),
        ("wssgate_backend_http2_streams", "Open streams of connections over HTTP/2, by backend.", |counts| {
            counts.streams
        }),
    ] {
        page.family(family, "gauge", help);
        for upstream in upstreams.iter().filter(|upstream| upstream.connector.protocol == Protocol::Http2) {
            let name = upstream.to_string();
            for server in &upstream.servers {
                let labels = [("upstream", &*name), ("backend", &*server.endpoint.address)];
                page.sample(&labels, value(overview.http2(&server.endpoint)));
            }
        }
    }
    page.family(
        "wssgate_upstream_redialling",
        "gauge",
        "WebSocket sessions with session_lost = \"redial\" that have lost their backend and look for another one.",
    );
    for upstream in upstreams.iter().filter(|upstream| upstream.redial.is_some()) {
        page.sample(&[("upstream", &upstream.to_string())], upstream.redialling());
    }
    page.family(
        "wssgate_upstream_redials_failed_total",
        "counter",
        "WebSocket sessions with session_lost = \"redial\" that ended because no other backend could go on with them, by \
         upstream and reason.",
    );
    for upstream in upstreams.iter().filter(|upstream| upstream.redial.is_some()) {
        let name = upstream.to_string();
        for reason in RedialFailure::ALL {
            let labels = [("upstream", &*name), ("reason", reason.as_str())];
            page.sample(&labels, upstream.redials_failed(reason));
        }
    }
    page.family("wssgate_upstream_waiting", "gauge", "Requests that wait for a backend with max_sessions.");
    for upstream in &upstreams {
        page.sample(&[("upstream", &upstream.to_string())], upstream.waiting());
    }
}

/// How the names of servers are resolved.
fn names(page: &mut Page, overview: &Overview) {
    let names = overview.names.all();
    let kind = |name: &KnownName| match name.question.resolve {
        Resolve::Srv => "srv",
        Resolve::Once => "once",
        Resolve::Host | Resolve::Dns => "addresses",
    };
    let mut family = |family: &'static str, sort: &str, help: &str, value: &dyn Fn(&KnownName) -> u64| {
        page.family(family, sort, help);
        for name in &names {
            page.sample(&[("name", &name.question.name), ("kind", kind(name))], value(name));
        }
    };
    family("wssgate_name_lookups_total", "counter", "Look-ups of a backend's name.", &|name| name.counts().0);
    family(
        "wssgate_name_failures_total",
        "counter",
        "Look-ups of a backend's name that found nothing.",
        &|name| name.counts().1,
    );
    family(
        "wssgate_name_addresses",
        "gauge",
        "Addresses or SRV targets of a backend's name, as they are in use.",
        &|name| name.found().map_or(0, |found| found.list().len() as u64),
    );
}

/// Certificates that the gateway orders by itself; each by its first name.
fn acme(page: &mut Page, overview: &AcmeOverview) {
    let certificates = overview.certificates();
    let demands = overview.demands();
    if certificates.is_empty() && demands.is_none() {
        return;
    }
    let (issued, failed) = overview.orders();
    page.family("wssgate_acme_orders_total", "counter", "Orders of certificates by this process, by result.");
    page.sample(&[("result", "issued")], issued);
    page.sample(&[("result", "failed")], failed);
    let mut family = |name, help, value: &dyn Fn(&AcmeInfo) -> Option<i64>| {
        page.family(name, "gauge", help);
        for info in certificates.iter().filter(|info| !info.on_demand) {
            if let (Some(name), Some(value)) = (info.names.first(), value(info)) {
                page.sample(&[("name", name)], value);
            }
        }
    };
    family(
        "wssgate_acme_failures",
        "Orders of a certificate in a row that came to nothing, by its first name.",
        &|info| Some(info.failures.into()),
    );
    family(
        "wssgate_acme_certificate_missing",
        "1 if a name that is ordered has no certificate that is valid now, by the first name.",
        &|info| Some(i64::from(info.expires.is_none_or(|at| at <= unix_now()))),
    );
    family(
        "wssgate_acme_next_order_timestamp_seconds",
        "When a certificate is ordered next, by its first name.",
        &|info| info.next_order,
    );
    let Some(demands) = demands else { return };
    page.family(
        "wssgate_acme_on_demand_total",
        "counter",
        "Names without a certificate that clients have asked for, by what came of it.",
    );
    for (result, count) in demands {
        page.sample(&[("result", result.as_str())], count);
    }
    page.family("wssgate_acme_on_demand_names", "gauge", "Names that were ordered on demand, by state.");
    for state in ["valid", "missing", "expired"] {
        let count = certificates.iter().filter(|info| info.on_demand && info.state == state).count();
        page.sample(&[("state", state)], count as u64);
    }
}

#[derive(Default)]
struct Page {
    text: String,
    family: &'static str,
}

impl Page {
    fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.family = name;
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A value of the family that was begun last.
    fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(self.family);
        for (i, (name, value)) in labels.iter().enumerate() {
            let value = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
            let _ = write!(self.text, "{}{name}=\"{value}\"", if i == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.text, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_written_as_the_format_wants_them() {
        let mut page = Page::default();
        page.family("a_total", "counter", "What a is.");
        page.sample(&[], 1);
        page.sample(&[("x", "1"), ("y", "a \"b\" \\ \n")], 2.5);
        assert_eq!(
            page.text,
            "# HELP a_total What a is.\n# TYPE a_total counter\na_total 1\n\
             a_total{x=\"1\",y=\"a \\\"b\\\" \\\\ \\n\"} 2.5\n"
        );
    }
}
