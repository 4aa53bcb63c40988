//! Routes: their requests and sessions; and TLS handshakes by listener.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use frame_core::deflated::{DeflatedCounts, WayCounts};
use net_io::count::{Count, DurationTotals, Durations, SizeTotals};

use super::page::Page;
use crate::ops::overview::Overview;
use crate::site::counts::{CAUSES, CLASSES, CODES, FAILURES, ListenerCounts, RouteCounts, SENDERS, VERSIONS};
use crate::site::route_id::RouteId;

/// What all workers have counted of each route, by what is shown of it. Two routes that differ in what is not shown are
/// one here.
type ByRoute<'a> = BTreeMap<&'a str, Vec<&'a RouteCounts>>;

pub(super) fn write(page: &mut Page<'_>, overview: &Overview, live: &HashMap<RouteId, usize>) -> fmt::Result {
    let site = overview.site.load_full();
    let mut routes = ByRoute::new();
    for route in site.all_routes() {
        routes.entry(route.id.as_str()).or_default().extend(route.counts().iter());
    }
    routes.entry("").or_default().extend(overview.counts.iter().map(|worker| &worker.unrouted));
    sessions(page, overview, &routes, live)?;
    messages(page, &routes, live)?;
    compression(page, &routes)?;
    requests(page, &routes)?;
    let mut listeners: BTreeMap<&str, Vec<&ListenerCounts>> = BTreeMap::new();
    for state in site.listener_states().filter(|state| state.acceptor.is_some()) {
        listeners.entry(&state.name).or_default().extend(state.counts.iter());
    }
    handshakes(page, &listeners)
}

fn sum<T>(counts: &[&T], of: impl Fn(&T) -> &Count) -> u64 {
    counts.iter().map(|one| of(one).get()).sum()
}

fn totals<T>(counts: &[&T], of: impl Fn(&T) -> &Durations) -> DurationTotals {
    let mut totals = DurationTotals::default();
    counts.iter().for_each(|one| totals.add(of(one)));
    totals
}

fn sessions(
    page: &mut Page<'_>,
    overview: &Overview,
    routes: &ByRoute<'_>,
    live: &HashMap<RouteId, usize>,
) -> fmt::Result {
    let mut by_text: BTreeMap<&str, usize> = BTreeMap::new();
    for (id, count) in live {
        *by_text.entry(id.as_str()).or_default() += count;
    }
    let with_name = || routes.iter().filter(|(route, _)| !route.is_empty());
    let mut sessions = page.gauge("wssgate_sessions", "Live WebSocket sessions, by route")?;
    for (route, count) in by_text {
        sessions.sample(&[("route", route)], count)?;
    }
    let mut opened = page.counter("wssgate_sessions_opened_total", "WebSocket sessions opened, by route")?;
    for (route, counts) in with_name() {
        opened.sample(&[("route", route)], sum(counts, |one| &one.opened))?;
    }
    let mut closed = page
        .counter("wssgate_sessions_closed_total", "WebSocket sessions that have ended, by route and cause")?;
    let closes =
        |counts: &[&RouteCounts]| counts.iter().flat_map(|one| &one.closed).map(Count::get).sum::<u64>();
    for (route, counts) in
        with_name().filter(|(_, counts)| sum(counts, |one| &one.opened) + closes(counts) > 0)
    {
        for (place, cause) in CAUSES.into_iter().enumerate() {
            closed.sample(&[("route", route), ("cause", cause)], sum(counts, |one| &one.closed[place]))?;
        }
    }
    let mut codes = page.counter(
        "wssgate_session_close_codes_total",
        "WebSocket sessions that have ended, by cause and the close code that was sent, or 1005 and 1006 if none was",
    )?;
    for (at, cause) in CAUSES.into_iter().enumerate() {
        for (place, code) in CODES.into_iter().enumerate() {
            let count: u64 = overview.counts.iter().map(|worker| worker.closes[at][place].get()).sum();
            // Most causes have one code.
            if count > 0 {
                codes.sample(&[("cause", cause), ("code", code)], count)?;
            }
        }
    }
    Ok(())
}

/// What sessions have carried. Live ones tell it every ten seconds, and at their end.
fn messages(page: &mut Page<'_>, routes: &ByRoute<'_>, live: &HashMap<RouteId, usize>) -> fmt::Result {
    let live: BTreeSet<&str> = live.keys().map(RouteId::as_str).collect();
    // Those that have come from another process were opened there, and may go on to a third one.
    let had_sessions = |one: &RouteCounts| {
        one.opened.get() > 0
            || one.closed.iter().any(|cause| cause.get() > 0)
            || one.carried.iter().any(|way| way.payload_bytes.get() > 0)
    };
    let has_sessions = |(route, counts): &(&&str, &Vec<&RouteCounts>)| {
        live.contains(**route) || counts.iter().any(|one| had_sessions(one))
    };
    let senders = || {
        routes.iter().filter(has_sessions).flat_map(|(route, counts)| {
            SENDERS
                .iter()
                .enumerate()
                .map(move |(at, from)| ([("route", *route), ("from", *from)], counts, at))
        })
    };
    let mut messages = page.counter(
        "wssgate_messages_total",
        "Whole messages of WebSocket sessions, by route and sender; live sessions are counted to within ten seconds",
    )?;
    for (labels, counts, at) in senders() {
        messages.sample(&labels, sum(counts, |one| &one.carried[at].messages))?;
    }
    let mut bytes = page.counter(
        "wssgate_message_payload_bytes_total",
        "Payload bytes of messages as they are on the wire, or inflated where compression ends at the gateway, by route and \
         sender; all bytes of sessions that speak another protocol; live sessions are counted to within ten seconds",
    )?;
    for (labels, counts, at) in senders() {
        bytes.sample(&labels, sum(counts, |one| &one.carried[at].payload_bytes))?;
    }
    let mut sizes = page.histogram(
        "wssgate_message_size_bytes",
        "Payload bytes of each message as it is on the wire, or inflated where compression ends at the gateway, by route and \
         sender",
    )?;
    for (labels, counts, at) in senders() {
        let mut totals = SizeTotals::default();
        counts.iter().for_each(|one| totals.add(&one.carried[at].sizes));
        sizes.sizes(&labels, &totals)?;
    }
    let mut largest = page.histogram(
        "wssgate_session_largest_message_bytes",
        "Payload bytes of the largest message of each WebSocket session that has ended, by route and sender; sessions \
         without a message from that side are not among them",
    )?;
    for (labels, counts, at) in senders() {
        let mut totals = SizeTotals::default();
        counts.iter().for_each(|one| totals.add(&one.carried[at].largest));
        largest.sizes(&labels, &totals)?;
    }
    let mut pings = page.histogram(
        "wssgate_ping_round_trip_seconds",
        "From the gateway's pings to the answers of WebSocket clients, by route; what waits before a ping is a part of it",
    )?;
    for (route, counts) in routes.iter().filter(has_sessions) {
        pings.durations(&[("route", route)], &totals(counts, |one| &one.pings))?;
    }
    Ok(())
}

/// Where it ends at the gateway, of routes that have had such sessions.
fn compression(page: &mut Page<'_>, routes: &ByRoute<'_>) -> fmt::Result {
    let is_used = |one: &RouteCounts| {
        let DeflatedCounts { sessions, from_client, to_client } = &*one.deflated;
        [sessions, &from_client.wire_bytes, &to_client.wire_bytes].into_iter().any(|count| count.get() > 0)
    };
    let used = || routes.iter().filter(|(_, counts)| counts.iter().any(|one| is_used(one)));
    let mut sessions = page.gauge(
        "wssgate_compressed_sessions",
        "Live WebSocket sessions whose compression ends at the gateway, by route",
    )?;
    for (route, counts) in used() {
        sessions.sample(&[("route", route)], sum(counts, |one| &one.deflated.sessions))?;
    }
    let ways = || {
        used().flat_map(|(route, counts)| {
            let way = |from| ([("route", *route), ("from", SENDERS[from])], counts, from);
            [way(0), way(1)]
        })
    };
    let mut wire = page.counter(
        "wssgate_compressed_wire_bytes_total",
        "Payload bytes of compressed messages as they are on the wire, by route and sender, where compression ends at the \
         gateway",
    )?;
    for (labels, counts, from) in ways() {
        wire.sample(&labels, sum(counts, |one| &compressed(one, from).wire_bytes))?;
    }
    let mut inflated = page.counter(
        "wssgate_compressed_inflated_bytes_total",
        "Payload bytes of the same messages before they are compressed, or when they are inflated, by route and sender",
    )?;
    for (labels, counts, from) in ways() {
        inflated.sample(&labels, sum(counts, |one| &compressed(one, from).inflated_bytes))?;
    }
    Ok(())
}

/// The counts of compressed messages from one of [`SENDERS`].
fn compressed(one: &RouteCounts, from: usize) -> &WayCounts {
    let DeflatedCounts { from_client, to_client, .. } = &*one.deflated;
    [from_client, to_client][from]
}

fn requests(page: &mut Page<'_>, routes: &ByRoute<'_>) -> fmt::Result {
    // A route that nobody has used has no series but those of its sessions: a thousand of them are a thousand lines.
    let used = || routes.iter().filter(|(_, counts)| !counts.is_empty());
    let mut requests = page.counter(
        "wssgate_requests_total",
        "Requests answered, WebSocket handshakes among them, by route and class of the status; none: the client had gone \
         before its answer. An empty route: no route takes the request",
    )?;
    for (route, counts) in used() {
        for (place, class) in CLASSES.into_iter().enumerate() {
            requests
                .sample(&[("route", route), ("class", class)], sum(counts, |one| &one.requests[place]))?;
        }
    }
    let mut durations = page.histogram(
        "wssgate_request_duration_seconds",
        "From a request to the end of its answer, by route; WebSockets are not among them",
    )?;
    for (route, counts) in used() {
        durations.durations(&[("route", route)], &totals(counts, |one| &one.request_durations))?;
    }
    Ok(())
}

fn handshakes(page: &mut Page<'_>, listeners: &BTreeMap<&str, Vec<&ListenerCounts>>) -> fmt::Result {
    let mut done = page.counter(
        "wssgate_tls_handshakes_total",
        "TLS handshakes, by listener and result; those that were done by version, and whether they resumed a session",
    )?;
    for (listener, counts) in listeners {
        for (at, version) in VERSIONS.into_iter().enumerate() {
            for (place, resumed) in ["false", "true"].into_iter().enumerate() {
                let labels =
                    [("listener", *listener), ("result", "done"), ("version", version), ("resumed", resumed)];
                done.sample(&labels, sum(counts, |one| &one.done[at][place]))?;
            }
        }
        for (place, result) in FAILURES.into_iter().enumerate() {
            let labels = [("listener", *listener), ("result", result), ("version", ""), ("resumed", "")];
            done.sample(&labels, sum(counts, |one| &one.failed[place]))?;
        }
    }
    let mut durations = page.histogram(
        "wssgate_tls_handshake_duration_seconds",
        "From a client's first bytes to the end of its TLS handshake, by listener; only those that were done",
    )?;
    for (listener, counts) in listeners {
        durations.durations(&[("listener", listener)], &totals(counts, |one| &one.durations))?;
    }
    Ok(())
}
