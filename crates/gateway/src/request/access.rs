//! Whether a request may go on, between the choice of its route and what the route does.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::StatusCode;
use http::header::{CONTENT_LENGTH, HeaderValue, RETRY_AFTER};
use http::request::Parts;
use upgrade_handler::origin;

use crate::context::counts::RATES;
use crate::context::{Connection, Redirect};
use crate::request::reply::ErrorResponse;
use crate::session::report::Report;
use crate::site::Site;
use crate::site::access::Per;
use crate::site::counts::place;
use crate::site::host::Host;
use crate::site::route::Route;
use crate::upstream::body::{BODY_TOO_LONG, RequestBody};

/// After how long a client with too many sessions may try again.
const SESSIONS_WAIT: Duration = Duration::from_secs(10);

/// Checks that the route is in service, and that there is memory for the request.
///
/// # Errors
/// 503, for both.
pub(super) fn available(connection: &Connection, site: &Site, route: &Route) -> Result<(), ErrorResponse> {
    drained(connection, route)?;
    short_of_memory(connection, site)
}

/// Checks that this client may open a WebSocket: pages of other sites may not, where the route has `origins`
/// (RFC 6455 §10.2).
///
/// # Errors
/// 403.
pub(super) fn allowed(route: &Route, head: &Parts) -> Result<(), ErrorResponse> {
    let Some(origins) = &route.origins else { return Ok(()) };
    origin::check(&head.headers, origins).map_err(|refusal| {
        let cause = format!("{refusal}: {}", origin::shown(&head.headers));
        ErrorResponse::refusal(&refusal, head.version).because(cause)
    })
}

/// Checks that this client may use the route, and so much, by `[route.access]`: the lists, the rates, the number of
/// sessions if it `opens` one, in this order.
///
/// # Errors
/// 403, 429.
pub(super) fn admitted(
    connection: &Connection,
    route: &Route,
    client: IpAddr,
    head: &Parts,
    opens: bool,
    report: &mut Report,
) -> Result<(), ErrorResponse> {
    let Some(access) = &route.access else { return Ok(()) };
    if !access.admits(client) {
        return Err(ErrorResponse::new(StatusCode::FORBIDDEN, "this address may not use this service"));
    }
    let quotas = &connection.worker.quotas;
    if let Some(rate) = access.auth.as_ref().and_then(|auth| auth.failures)
        && let Some(wait) = quotas.wait(quotas.failures(route, client), rate)
    {
        return Err(too_many(connection, route, ("failures", "too many failed logins"), wait, report));
    }
    if access.per == Per::Subject { Ok(()) } else { metered(connection, route, client, head, opens, report) }
}

/// Checks that this client may use the route so much: the rates, and the number of sessions if it `opens` one. Where that
/// counts by subject, the subject has to be known.
///
/// # Errors
/// 429.
pub(super) fn metered(
    connection: &Connection,
    route: &Route,
    client: IpAddr,
    head: &Parts,
    opens: bool,
    report: &mut Report,
) -> Result<(), ErrorResponse> {
    let Some(access) = &route.access else { return Ok(()) };
    let quotas = &connection.worker.quotas;
    if access.requests.is_some() || (opens && (access.handshakes.is_some() || access.sessions.is_some())) {
        let id = quotas.client(route, &access.per, client, &head.headers, report.subject());
        if let Some(Err(wait)) = access.requests.map(|rate| quotas.request(id, rate)) {
            return Err(too_many(connection, route, ("requests", "too many requests"), wait, report));
        }
        let handshakes = access.handshakes.filter(|_| opens);
        if let Some(Err(wait)) = handshakes.map(|rate| quotas.request(quotas.handshakes(id), rate)) {
            return Err(too_many(connection, route, ("handshakes", "too many handshakes"), wait, report));
        }
        if let Some(max) = access.sessions.filter(|_| opens) {
            match quotas.session(id, max) {
                Some(place) => report.counted(place.of_value(access.per.value(&head.headers).cloned())),
                None => {
                    return Err(too_many(
                        connection,
                        route,
                        ("sessions", "too many sessions"),
                        SESSIONS_WAIT,
                        report,
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Checks the length of a body, and bounds one without a length.
///
/// # Errors
/// 413.
pub(super) fn bounded(max: u64, head: &Parts, body: RequestBody) -> Result<RequestBody, ErrorResponse> {
    let length =
        head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > max) {
        return Err(ErrorResponse::new(StatusCode::PAYLOAD_TOO_LARGE, BODY_TOO_LONG));
    }
    Ok(body.limited(max))
}

/// The answer to a client that wants too much (RFC 6585 §4). It has no line of its own in the log.
fn too_many(
    connection: &Connection,
    route: &Route,
    (limit, cause): (&str, &'static str),
    wait: Duration,
    report: &mut Report,
) -> ErrorResponse {
    connection.worker.counts.limited[place(&RATES, limit)].one();
    connection.worker.quotas.refuse(connection.peer, route, cause);
    report.omit();
    let secs = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    ErrorResponse::new(StatusCode::TOO_MANY_REQUESTS, format!("{cause}; try again later"))
        .with(RETRY_AFTER, secs.max(1).into())
}

/// An operator has taken the route, or the backend behind it, out of service.
fn drained(connection: &Connection, route: &Route) -> Result<(), ErrorResponse> {
    if !connection.worker.is_drained(route) {
        return Ok(());
    }
    Err(ErrorResponse::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "this service is temporarily unavailable; try again later",
    )
    .with(RETRY_AFTER, HeaderValue::from_static("10"))
    .because("the route or its backend is drained"))
}

/// Slow peers have used up `max_memory`, nearly.
fn short_of_memory(connection: &Connection, site: &Site) -> Result<(), ErrorResponse> {
    if !connection.worker.is_short_of_memory_under(site) {
        return Ok(());
    }
    connection.worker.pressure.refused.fetch_add(1, Ordering::Relaxed);
    Err(ErrorResponse::new(StatusCode::SERVICE_UNAVAILABLE, "the gateway is busy; try again later")
        .with(RETRY_AFTER, HeaderValue::from_static("10"))
        .because("max_memory is nearly used up"))
}

/// What clients have to show was asked when the connection began, for the name of its handshake: it is for hosts with
/// the same rules, and not for one whose rules have changed since.
pub(super) fn has_shown_enough(connection: &Connection, host: &str) -> bool {
    let client = connection.tls.as_ref().and_then(|tls| tls.client.as_ref());
    let certificates = &connection.worker.certificates;
    if client.is_none() && !certificates.asks_clients() {
        return true;
    }
    let current = certificates.current();
    let set = &current.loaded.set;
    match &connection.tls {
        Some(tls) => {
            // A request that names no host is for that of the handshake.
            let name = Some(host).filter(|name| !name.is_empty()).or(tls.server_name.as_deref());
            set.client_rules(name) == client.map(|client| client.rules)
        }
        // What only sends clients to https:// gives nothing away.
        None if connection.redirect != Redirect::No || set.lookup(host).is_none() => true,
        None => !set.client_auth(Some(host)).is_some_and(|rules| rules.is_required()),
    }
}

/// A client may use a connection for another host than it was opened for (RFC 9110 §7.4), but not
/// for one that has a certificate of its own. Who asked for a name that has none got the default certificate,
/// and may use it for what that one is for. Who asked for no name at all may be a balancer, and is served.
pub(super) fn misdirected(connection: &Connection, host: &Host) -> Result<(), ErrorResponse> {
    if !has_shown_enough(connection, &host.name) {
        let sentence =
            "this host asks for other certificates of clients than this connection did; use a new one";
        let cause =
            format!("the connection was not opened under the rules for certificates of {}", host.name);
        return Err(ErrorResponse::new(StatusCode::MISDIRECTED_REQUEST, sentence).because(cause));
    }
    let Some(server_name) = connection.tls.as_ref().and_then(|tls| tls.server_name.as_ref()) else {
        return Ok(());
    };
    if **server_name == *host.name {
        return Ok(());
    }
    let current = connection.worker.certificates.current();
    let set = &current.loaded.set;
    if set.lookup(&host.name).is_none() || set.share(server_name, &host.name) {
        return Ok(());
    }
    let sentence = "this connection was opened for another host; use a new one";
    Err(ErrorResponse::new(StatusCode::MISDIRECTED_REQUEST, sentence)
        .because(format!("misdirected: the connection is {server_name}'s, the request is for {}", host.name)))
}
