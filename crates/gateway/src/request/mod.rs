//! One request: judged, routed, and answered or upgraded. The same over HTTP/1.1 and HTTP/2.

pub mod body;
mod proxy;
pub mod reply;
mod service;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::header::{ALLOW, HOST, HeaderValue, RETRY_AFTER, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Response, StatusCode, Uri, Version};
use upgrade_handler::fields::tokens;
use upgrade_handler::origin;
use upgrade_handler::refusal::Refusal;
use upgrade_handler::request::{Judgement, Upgrade, judge};

use crate::context::Connection;
use crate::request::body::{AnswerBody, ToClient};
use crate::request::reply::{ErrorResponse, Reply, RequestError, Served, Upgraded};
use crate::request::service::{console, echo};
use crate::session::Session;
use crate::session::report::Report;
use crate::site::Site;
use crate::site::host::Host;
use crate::site::path::RequestPath;
use crate::site::route::{Action, Route, Service};
use crate::upstream::body::RequestBody;
use crate::upstream::forward::has_outer_blanks;
use crate::upstream::forward::{Hop, hops_left};
use crate::upstream::interim::Interim;

/// What the gateway passes on.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Serves one request. `peer` is the client's address as backends are told it; `interim` gets the answers before
/// the final one, if the client can hear them.
///
/// # Cancel safety
/// A dropped call drops the request and says in the log that the client went away.
pub async fn exchange(
    connection: Arc<Connection>,
    peer: HeaderValue,
    head: Box<Parts>,
    body: RequestBody,
    interim: Option<&Interim>,
) -> Reply {
    let site = connection.worker.site();
    let mut report = Report::new(connection.clone(), &head, site.generation);
    let version = head.version;
    let served = match serve(&connection, &peer, &site, &mut report, head, body, interim).await {
        Ok(served) => served,
        Err(RequestError::Here(decline)) => Served::Answer(decline.answer(&mut report)),
        Err(RequestError::Refused(refusal)) => {
            Served::Answer(ErrorResponse::refusal(&refusal, version).answer(&mut report))
        }
    };
    match served {
        Served::Answer(answer) => {
            report.status(answer.status());
            Reply::Answer(answer.map(|body| ToClient::new(body, report)))
        }
        Served::Upgraded(Upgraded { answer, registered, route, deflate, other }) => {
            report.status(answer.status());
            report.registered(registered.id());
            Reply::Tunnel(answer, Box::new(Session::new(report, registered, route, deflate, other)))
        }
    }
}

async fn serve(
    connection: &Arc<Connection>,
    peer: &HeaderValue,
    site: &Arc<Site>,
    report: &mut Report,
    mut head: Box<Parts>,
    body: RequestBody,
    interim: Option<&Interim>,
) -> Result<Served, RequestError> {
    let judgement = judge(&head);
    if head.method == Method::TRACE {
        // It would show a page the cookies it must not see (RFC 9110 §9.3.8).
        let decline = ErrorResponse::new(StatusCode::METHOD_NOT_ALLOWED, "TRACE is not supported");
        return Err(decline.with(ALLOW, HeaderValue::from_static(METHODS)).into());
    }
    if judgement == Judgement::Refused(Refusal::Connect) {
        return Err(Refusal::Connect.into()); // it has no path to route by
    }
    target(&mut head)?;
    blanks(&head)?;
    let host = host(&head)?;
    let mut hop = Hop {
        peer: connection.peer.ip(),
        peer_field: peer,
        tls: connection.tls.is_some(),
        host: &host,
        trusted: &site.trusted_proxies,
    };
    report.asked(hop.client(&head.headers), &host.name);
    misdirected(connection, &host)?;
    let path = match head.uri.path() {
        "*" => "/", // about the server as a whole (RFC 9112 §3.2.4)
        path => path,
    };
    let path = RequestPath::parse(path).map_err(|e| bad(e.to_string()))?;
    let route = site
        .routes
        .find(&host.name, &path)
        .map_err(|e| bad(e.to_string()))?
        .ok_or_else(|| ErrorResponse::new(StatusCode::NOT_FOUND, "no route for this host and path"))?;
    let fallback;
    if let (true, Action::Proxy(upstream)) = (host.name.is_empty(), &route.action) {
        // Over HTTP/1.1 there has to be a Host, and many a backend refuses an empty one.
        fallback = Host { field: upstream.endpoint.field(), ..host.clone() };
        hop.host = &fallback;
    }
    report.routed(route);
    drained(connection, route)?;
    short_of_memory(connection)?;
    transfer_coding(&head)?;
    match judgement {
        Judgement::Refused(refusal) => Err(refusal.into()),
        Judgement::Upgrade(upgrade) => {
            if let Some(origins) = &route.origins {
                origin::check(&head.headers, origins).map_err(|refusal| {
                    let cause = format!("{refusal}: {}", origin::shown(&head.headers));
                    ErrorResponse::refusal(&refusal, head.version).because(cause)
                })?;
            }
            open(connection, route, report, &hop, head, upgrade).await
        }
        Judgement::Plain => match &route.action {
            Action::Proxy(_) if hops_left(&head) == Some(0) => Ok(options()),
            Action::Proxy(upstream) => {
                proxy::request(connection, upstream, report, &hop, head, body, interim).await
            }
            Action::Service(Service::Echo) => Ok(echo::page(&head)),
            Action::Service(Service::Console) => Ok(console::page(route, &head, &path)?),
        },
    }
}

/// An operator has taken the route, or the server behind it, out of service.
fn drained(connection: &Connection, route: &Route) -> Result<(), ErrorResponse> {
    if !connection.worker.is_drained(route) {
        return Ok(());
    }
    Err(ErrorResponse::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "this service is temporarily unavailable; try again later",
    )
    .with(RETRY_AFTER, HeaderValue::from_static("10"))
    .because("the route or its server is drained"))
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

/// The gateway's own answer to OPTIONS (RFC 9110 §9.3.7).
fn options() -> Served {
    let mut answer = Response::new(AnswerBody::whole(""));
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(METHODS));
    Served::Answer(answer)
}

async fn open(
    connection: &Arc<Connection>,
    route: &Arc<Route>,
    report: &mut Report,
    hop: &Hop<'_>,
    head: Box<Parts>,
    upgrade: Upgrade,
) -> Result<Served, RequestError> {
    match &route.action {
        Action::Proxy(upstream) => {
            proxy::upgrade(connection, route, upstream, report, hop, head, upgrade).await
        }
        Action::Service(Service::Echo) => Ok(echo::upgrade(connection, route, report, &upgrade)),
        Action::Service(Service::Console) => {
            Err(ErrorResponse::new(StatusCode::NOT_FOUND, "there is no WebSocket service at this path")
                .into())
        }
    }
}

fn bad(sentence: impl Into<Cow<'static, str>>) -> ErrorResponse {
    ErrorResponse::new(StatusCode::BAD_REQUEST, sentence)
}

/// Checks the form of a request's target, and gives it a path if it has none (RFC 9112 §3.2,
/// RFC 9113 §8.3.1).
fn target(head: &mut Parts) -> Result<(), ErrorResponse> {
    match (head.uri.scheme_str(), head.uri.authority()) {
        (None, None) | (Some("http" | "https" | "ws" | "wss"), _) => {}
        (None, Some(_)) => return Err(bad("only CONNECT may have a target that is only a host and a port")), // §3.2.3
        (Some(_), _) => return Err(bad("the target's scheme is neither http nor https")),
    }
    let whole = head.uri.path_and_query().map_or("", PathAndQuery::as_str);
    if whole.starts_with('/') || whole == "*" && head.method == Method::OPTIONS {
        return Ok(());
    }
    if !whole.is_empty() && !whole.starts_with('?') {
        return Err(bad("the target's path doesn't begin with a slash"));
    }
    // §3.2.1: an absent path is sent as "/".
    let mut parts = head.uri.clone().into_parts();
    parts.path_and_query = format!("/{whole}").parse().ok();
    head.uri = Uri::from_parts(parts).map_err(|_| bad("the target has no path"))?;
    Ok(())
}

/// A field value over HTTP/2 neither begins nor ends with a blank (RFC 9113 §8.2.1); h2 lets these through.
fn blanks(head: &Parts) -> Result<(), ErrorResponse> {
    if head.version == Version::HTTP_2 && head.headers.values().any(has_outer_blanks) {
        return Err(bad("a field value must not begin or end with a space or a tab"));
    }
    Ok(())
}

/// The host that a request is for (RFC 9112 §3.2, RFC 9113 §8.3.1).
fn host(head: &Parts) -> Result<Host, ErrorResponse> {
    let mut fields = head.headers.get_all(HOST).into_iter();
    let field = fields.next();
    if fields.next().is_some() {
        return Err(bad("the request has more than one Host"));
    }
    let authority = head
        .uri
        .authority()
        .map(|authority| HeaderValue::from_str(authority.as_str()))
        .transpose()
        .ok()
        .flatten();
    let chosen = match (&authority, field) {
        (None, None) if head.version == Version::HTTP_10 => return Ok(Host::none()),
        (None, None) => return Err(bad("the request has no Host")),
        (None, Some(field)) => field,
        (Some(authority), None) if head.version != Version::HTTP_11 => authority,
        // Over HTTP/1.1 Host is needed even beside an absolute target, which then wins.
        (Some(_), None) => return Err(bad("the request has no Host")),
        (Some(authority), Some(field)) => {
            if head.version == Version::HTTP_2 && !authority.as_bytes().eq_ignore_ascii_case(field.as_bytes())
            {
                return Err(bad(":authority and Host differ"));
            }
            authority
        }
    };
    Host::parse(chosen).ok_or_else(|| bad("Host is not a valid host name with an optional port"))
}

/// A client may use a connection for another host than it was opened for (RFC 9110 §7.4), but not
/// for one that has a certificate of its own. Who asked for a name that has none got the default certificate,
/// and may use it for what that one is for. Who asked for no name at all may be a balancer, and is served.
fn misdirected(connection: &Connection, host: &Host) -> Result<(), ErrorResponse> {
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

/// hyper decodes chunks, and nothing else (RFC 9112 §6.1).
fn transfer_coding(head: &Parts) -> Result<(), ErrorResponse> {
    if head.headers.keys().all(|name| *name != TRANSFER_ENCODING) {
        return Ok(()); // comparing a few names costs less than a look-up
    }
    let mut lines = head.headers.get_all(TRANSFER_ENCODING).into_iter();
    let Some(line) = lines.next() else { return Ok(()) };
    if lines.next().is_none() && line.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    if tokens(&head.headers, TRANSFER_ENCODING).all(|coding| coding.eq_ignore_ascii_case("chunked")) {
        return Err(bad("Transfer-Encoding must name chunked exactly once")); // RFC 9112 §7.1
    }
    Err(ErrorResponse::new(StatusCode::NOT_IMPLEMENTED, "chunked is the only supported transfer coding"))
}

#[cfg(test)]
mod tests;
