//! Whether a request may go on, between the choice of its route and what the route does.

use std::sync::atomic::Ordering;

use http::StatusCode;
use http::header::{HeaderValue, RETRY_AFTER};
use http::request::Parts;
use upgrade_handler::origin;

use crate::context::Connection;
use crate::request::reply::ErrorResponse;
use crate::site::host::Host;
use crate::site::route::Route;

/// Checks that the route is in service, and that there is memory for the request.
///
/// # Errors
/// 503, for both.
pub(super) fn available(connection: &Connection, route: &Route) -> Result<(), ErrorResponse> {
    drained(connection, route)?;
    short_of_memory(connection)
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
fn short_of_memory(connection: &Connection) -> Result<(), ErrorResponse> {
    if !connection.worker.is_short_of_memory() {
        return Ok(());
    }
    connection.worker.pressure.refused.fetch_add(1, Ordering::Relaxed);
    Err(ErrorResponse::new(StatusCode::SERVICE_UNAVAILABLE, "the gateway is busy; try again later")
        .with(RETRY_AFTER, HeaderValue::from_static("10"))
        .because("max_memory is nearly used up"))
}

/// A client may use a connection for another host than it was opened for (RFC 9110 §7.4), but not
/// for one that has a certificate of its own. Who asked for a name that has none got the default certificate,
/// and may use it for what that one is for. Who asked for no name at all may be a balancer, and is served.
pub(super) fn misdirected(connection: &Connection, host: &Host) -> Result<(), ErrorResponse> {
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
