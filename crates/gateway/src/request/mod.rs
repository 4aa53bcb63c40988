//! One request: judged, routed, and answered or upgraded. The same over HTTP/1.1 and HTTP/2.

mod access;
mod attempts;
mod auth;
pub(crate) mod body;
mod coded;
pub(crate) mod coding;
mod compress;
mod cors;
mod extras;
mod facts;
mod failure;
mod fastcgi;
pub(crate) mod file;
mod form;
mod handshake;
mod http2;
mod pages;
mod proxy;
pub(crate) mod redial;
pub(crate) mod reply;
mod server_head;
mod service;
mod sticky;
mod tcp;
mod tunnel;

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use http::header::{ALLOW, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Response, StatusCode, Uri, Version};
use upgrade_handler::{Refusal, RequestKind, Upgrade, classify};

use crate::context::{Connection, Redirect};
use crate::request::auth::Asker;
use crate::request::body::{AnswerBody, ToClient};
use crate::request::extras::Aside;
use crate::request::reply::{ErrorResponse, Reply, RequestError, Served, Upgraded};
use crate::request::service::{console, echo, files, redirect, respond};
use crate::request::sticky::ServerCookie;
use crate::request::tunnel::{Wanted, wanted};
use crate::session::Session;
use crate::session::report::Report;
use crate::site::Site;
use crate::site::access::Per;
use crate::site::challenges::HTTP_01_PATH;
use crate::site::host::Host;
use crate::site::matcher::Criteria;
use crate::site::path::RequestPath;
use crate::site::rewrite::Asked;
use crate::site::route::{Action, Route, Service};
use crate::telemetry::record::Compressed;
use crate::upstream::body::RequestBody;
use crate::upstream::edits::Edits;
use crate::upstream::forward::{Hop, address_field, hops_left};
use crate::upstream::interim::Interim;
use crate::upstream::location;

/// What the gateway passes on.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// What the requests of a connection have in common, as long as it speaks HTTP.
#[derive(Debug)]
pub(crate) struct Peer {
    /// The client's address as it is sent to backends.
    field: HeaderValue,
    /// The first host that was asked for, which most connections keep to.
    host: OnceLock<Arc<str>>,
}

impl Peer {
    /// The client at this address.
    #[must_use]
    pub(crate) fn new(address: IpAddr) -> Self {
        Self { field: address_field(address), host: OnceLock::new() }
    }
}

/// Serves one request. `interim` gets the answers before the final one, if the client can hear them.
///
/// # Cancel safety
/// A dropped call drops the request and says in the log that the client went away.
pub(crate) async fn exchange(
    connection: &Arc<Connection>,
    peer: &Peer,
    head: Box<Parts>,
    body: RequestBody,
    interim: Option<&Interim>,
) -> Reply {
    let site = connection.worker.site();
    let mut report = Report::new(connection.clone(), &head, site.generation);
    let version = head.version;
    let wants_json = pages::wants_json(&head.headers); // the head is gone when there is an error
    let mut aside = None;
    let mut served = serve((connection, peer), &site, &mut report, &mut aside, head, body, interim).await;
    if let Some(aside) = aside {
        let mut whole = served.unwrap_or_else(|e| Served::Answer(e.answer(version, wants_json, &mut report)));
        aside.finish(connection.tls.is_some(), wants_json, &mut whole);
        served = Ok(whole);
    }
    match served {
        Ok(Served::Answer(answer)) => answered(connection, version, report, answer),
        Err(e) => {
            let answer = e.answer(version, wants_json, &mut report);
            answered(connection, version, report, answer)
        }
        Ok(Served::Upgraded(Upgraded { answer, registered, route, deflate, deflating, other })) => {
            report.status(answer.status());
            report.registered(registered.id());
            report.compressed(Compressed::of(deflate, deflating.is_some()));
            Reply::Tunnel(
                answer,
                Box::new(Session::new(report, registered, route, deflate, other)),
                deflating,
            )
        }
    }
}

/// The answer on its way to the client, which ends the report.
fn answered(
    connection: &Connection,
    version: Version,
    mut report: Box<Report>,
    answer: Response<AnswerBody>,
) -> Reply {
    report.status(answer.status());
    let counts = is_event_stream(answer.headers())
        .then(|| connection.worker.under_way.event_stream(version == Version::HTTP_2));
    Reply::Answer(answer.map(|body| ToClient::new(body, report, counts)))
}

/// Such an answer has no end (WHATWG HTML §9.2.5).
fn is_event_stream(headers: &HeaderMap) -> bool {
    const EVENTS: &[u8] = b"text/event-stream";
    // Comparing a few names costs less than a look-up.
    let kind = headers.iter().find(|(name, _)| **name == CONTENT_TYPE);
    let essence = kind.and_then(|(_, value)| value.as_bytes().get(..EVENTS.len()));
    essence.is_some_and(|essence| essence.eq_ignore_ascii_case(EVENTS))
}

/// `aside` is what is to be done with the answer besides, if there is anything.
async fn serve(
    (connection, peer): (&Arc<Connection>, &Peer),
    site: &Arc<Site>,
    report: &mut Report,
    aside: &mut Option<Box<Aside>>,
    mut head: Box<Parts>,
    mut body: RequestBody,
    interim: Option<&Interim>,
) -> Result<Served, RequestError> {
    let mut kind = classify(&head);
    if head.method == Method::TRACE {
        // It would show a page the cookies it must not see (RFC 9110 §9.3.8).
        let decline = ErrorResponse::new(StatusCode::METHOD_NOT_ALLOWED, "TRACE is not supported");
        return Err(decline.with(ALLOW, HeaderValue::from_static(METHODS)).into());
    }
    if kind == RequestKind::Refused(Refusal::Connect) {
        return Err(Refusal::Connect.into()); // it has no path to route by
    }
    form::target(&mut head)?;
    form::blanks(&head)?;
    let host = form::host(&head, &peer.host)?;
    let mut hop = Hop {
        peer: connection.peer.ip(),
        peer_field: &peer.field,
        tls: connection.tls.is_some(),
        host: &host,
        trusted: &site.trusted_proxies,
        edits: None,
        preferred: None,
    };
    let client = hop.client(&head.headers);
    report.asked(client, &host.name);
    access::misdirected(connection, &host)?;
    let path = path_of(&head)?;
    // A WebSocket over HTTP/2 is opened with CONNECT (RFC 8441 §4), where HTTP/1.1 has GET.
    let upgrade = !matches!(kind, RequestKind::Plain | RequestKind::Other);
    let criteria = Criteria {
        listener: &connection.listener,
        bound: connection.redirect == Redirect::Unbound,
        host: &host.name,
        path: &path,
        method: if head.method == Method::CONNECT { &Method::GET } else { &head.method },
        headers: &head.headers,
        upgrade,
    };
    // In a box, since it is rare.
    if let (None, Some(challenges)) = (&connection.tls, &site.challenges)
        && let Some(token) = head.uri.path().strip_prefix(HTTP_01_PATH)
        && let Some(answer) = Box::pin(challenges.http_01(token)).await
    {
        return Ok(Served::Answer(Response::new(AnswerBody::whole(answer))));
    }
    let route = match connection.redirect {
        Redirect::All => None,
        _ => site.routes.find(&criteria).map_err(|e| form::bad(e.to_string()))?,
    };
    let Some(route) = route else {
        return Err(unserved(connection, site, &host, &head).into());
    };
    let fallback;
    if let (true, Action::Proxy(upstream)) = (host.name.is_empty(), &route.action) {
        // What the answer's addresses are compared with.
        fallback = Host { field: upstream.first().endpoint.field(), ..host.clone() };
        hop.host = &fallback;
    }
    report.routed(route);
    access::available(connection, site, route)?;
    form::transfer_coding(&head)?;
    // Before anything keeps a copy of the target.
    let taken = auth::jwt::take(route, &mut head, &mut kind);
    // The order of the phases is in the reference, at [route.access].
    if let Some(extras) = &route.extras {
        *aside = Some(Box::new(Aside::begin(connection, route, extras, &hop, &head, report)));
    }
    access::admitted(connection, route, client, &head, upgrade, report)?;
    if let (Some(extras), Some(aside)) = (&route.extras, &aside)
        && let Some(answer) = aside.preflight(extras, &head)?
    {
        return Ok(answer);
    }
    let mut fields = Vec::new();
    if let Some(access) = &route.access
        && let Some(auth) = &access.auth
    {
        let asker = Asker { connection, route, client, taken: &taken, hop };
        let identifying = auth::identify(asker, auth, &mut head, &mut kind);
        match Box::pin(identifying).await? {
            Ok(found) => {
                body = body.reserving(&auth.reserved);
                report.identified(found.identity);
                fields = found.fields;
            }
            Err(answer) => return Ok(answer),
        }
    } else if let Some(identity) = auth::certificate(connection) {
        report.identified(identity);
    }
    if let Some(access) = &route.access
        && access.per == Per::Subject
    {
        access::metered(connection, route, client, &head, upgrade, report)?;
    }
    let mut edits;
    if let (Some(extras), Some(aside)) = (&route.extras, aside) {
        edits = aside.edits(extras, &hop, &head);
        auth::set_fields(&fields, &mut edits);
        hop.edits = Some(&edits);
    } else if !fields.is_empty() {
        edits = Edits::default();
        auth::set_fields(&fields, &mut edits);
        hop.edits = Some(&edits);
    }
    let body = match route.access.as_ref().and_then(|access| access.max_body) {
        Some(max) => access::bounded(max, &head, body)?,
        None => body,
    };
    match wanted(connection, route, &head, kind) {
        Wanted::Refused(refusal) => Err(refusal.into()),
        Wanted::WebSocket(upgrade) => {
            access::allowed(route, &head)?;
            let cookie = ServerCookie::take(route, &mut hop, &mut head);
            let mut served = open(connection, route, report, &hop, head, upgrade).await?;
            ServerCookie::give(cookie, route, report, &mut served);
            Ok(served)
        }
        Wanted::Other(upstream, protocols) => {
            access::allowed(route, &head)?;
            let asked = rewrite_path(route, &mut head)?;
            let cookie = ServerCookie::take(route, &mut hop, &mut head);
            let to = (upstream, protocols);
            let opening = tunnel::open(connection, route, to, report, &hop, head, body);
            let mut served = Box::pin(opening).await?; // rare, and large
            rewrite_location(route, asked.as_ref(), &hop, report, &mut served);
            ServerCookie::give(cookie, route, report, &mut served);
            Ok(served)
        }
        Wanted::Nothing => match &route.action {
            Action::Proxy(_) if hops_left(&head) == Some(0) => Ok(options()),
            Action::Proxy(upstream) => {
                let asked = rewrite_path(route, &mut head)?;
                let cookie = ServerCookie::take(route, &mut hop, &mut head);
                let mut served =
                    proxy::request(connection, upstream, report, &hop, head, body, interim).await;
                if let Ok(served) = &mut served {
                    rewrite_location(route, asked.as_ref(), &hop, report, served);
                    ServerCookie::give(cookie, route, report, served);
                }
                served // large: not taken apart and put together again
            }
            Action::Tcp(_) | Action::Service(Service::Echo) => Ok(echo::page(&head)),
            Action::Service(Service::Console) => {
                let path = path_of(&head)?;
                Ok(console::page(route, &head, &path)?)
            }
            Action::Redirect(to) => {
                let path = path_of(&head)?;
                let groups = route.matcher.path.groups_of(&path);
                Ok(redirect::answer(to, &form::requested(&head, &host, route, &groups))?)
            }
            Action::Respond(fixed) => {
                let path = path_of(&head)?;
                let groups = route.matcher.path.groups_of(&path);
                Ok(respond::answer(fixed, &form::requested(&head, &host, route, &groups)))
            }
            Action::Files(files) => {
                Ok(files::answer(files, &head, &form::requested(&head, &host, route, &[])).await?)
            }
            Action::Fastcgi(_) if hops_left(&head) == Some(0) => Ok(options()),
            Action::Fastcgi(scripts) => {
                let cookie = ServerCookie::take(route, &mut hop, &mut head);
                let running = fastcgi::answer(connection, route, scripts, report, &hop, head, body);
                let mut served = Box::pin(running).await?; // larger than the rest
                ServerCookie::give(cookie, route, report, &mut served);
                Ok(served)
            }
        },
    }
}

/// The path that was asked for, in the form in which routes are compared with it.
///
/// # Errors
/// 400.
fn path_of(head: &Parts) -> Result<RequestPath<'_>, ErrorResponse> {
    RequestPath::parse(form::path(head)).map_err(|e| form::bad(e.to_string()))
}

/// No route takes the request: where it is sent to, or 404.
fn unserved(connection: &Connection, site: &Site, host: &Host, head: &Parts) -> ErrorResponse {
    let port = match connection.redirect {
        Redirect::No => None,
        Redirect::Unbound => site.tls_port(&host.name, None),
        Redirect::All => site.tls_port(&host.name, Some(&connection.listener)),
    };
    let path = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let path = if path == "*" { "/" } else { path }; // about the server as a whole (RFC 9112 §3.2.4)
    let location = port.filter(|_| !host.name.is_empty()).and_then(|port| {
        let port = if matches!(port, 0 | 443) { String::new() } else { format!(":{port}") };
        HeaderValue::from_str(&format!("https://{}{port}{path}", host.name)).ok()
    });
    match location {
        Some(location) => {
            ErrorResponse::new(StatusCode::PERMANENT_REDIRECT, "this site is served over https")
                .with(LOCATION, location)
        }
        None => ErrorResponse::new(StatusCode::NOT_FOUND, "no route for this host and path"),
    }
}

/// The gateway's own answer to OPTIONS (RFC 9110 §9.3.7).
fn options() -> Served {
    let mut answer = Response::new(AnswerBody::whole(""));
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(METHODS));
    Served::Answer(answer)
}

/// Gives the request the path that the server knows, and says what that is. `None`: the path of the client.
#[inline]
fn rewrite_path(route: &Route, head: &mut Parts) -> Result<Option<Uri>, ErrorResponse> {
    let Some(rewrite) = &route.rewrite else { return Ok(None) };
    location::request(rewrite, &mut head.uri).map_err(|e| form::bad(e.to_string()))?;
    Ok(Some(head.uri.clone()))
}

/// Gives the paths in an answer the prefix that clients know. `asked`: what the server was asked for.
#[inline]
fn rewrite_location(route: &Route, asked: Option<&Uri>, hop: &Hop<'_>, report: &Report, served: &mut Served) {
    let (Some(rewrite), Some(asked)) = (route.rewrite.as_ref().filter(|rewrite| rewrite.location), asked)
    else {
        return;
    };
    let headers = match served {
        Served::Answer(answer) => answer.headers_mut(),
        Served::Upgraded(upgraded) => upgraded.answer.headers_mut(),
    };
    let host = hop.host.field.to_str().unwrap_or_default();
    let server = report.asked_backend().map(|endpoint| &*endpoint.address);
    location::answer(rewrite, &Asked { path: asked.path(), host, server }, headers);
}

async fn open(
    connection: &Arc<Connection>,
    route: &Arc<Route>,
    report: &mut Report,
    hop: &Hop<'_>,
    mut head: Box<Parts>,
    upgrade: Upgrade,
) -> Result<Served, RequestError> {
    match &route.action {
        Action::Proxy(upstream) => {
            let asked = rewrite_path(route, &mut head)?;
            let mut served = proxy::upgrade(connection, route, upstream, report, hop, head, upgrade).await?;
            rewrite_location(route, asked.as_ref(), hop, report, &mut served);
            Ok(served)
        }
        Action::Tcp(server) => tcp::upgrade(connection, route, server, report, hop, &head, &upgrade).await,
        Action::Service(Service::Echo) => Ok(echo::upgrade(connection, route, report, &upgrade)),
        // A client of WebSockets may follow it (RFC 6455 §4.1).
        Action::Redirect(to) => {
            let path = path_of(&head)?;
            let groups = route.matcher.path.groups_of(&path);
            Ok(redirect::answer(to, &form::requested(&head, hop.host, route, &groups))?)
        }
        // Over HTTP/2 each 2xx would open the tunnel (RFC 8441 §5).
        Action::Service(Service::Console) | Action::Respond(_) | Action::Files(_) | Action::Fastcgi(_) => {
            Err(ErrorResponse::new(StatusCode::NOT_FOUND, "there is no WebSocket service at this path")
                .into())
        }
    }
}
