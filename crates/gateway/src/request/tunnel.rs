//! Upgrades to other protocols than WebSocket: which of them a route passes on, and how.

use std::pin::pin;
use std::sync::Arc;

use http::header::UPGRADE;
use http::request::Parts;
use http::{Method, Response, StatusCode, Version};
use tokio::time::{Instant, sleep_until};
use tracing::debug;
use upgrade_handler::{
    Handoff, Refusal, RequestKind, Upgrade, accept_named, ask_named, fields, named, verify_named,
};

use crate::context::Connection;
use crate::net::listening::PeerName;
use crate::request::attempts::Attempts;
use crate::request::body::AnswerBody;
use crate::request::failure::Failure;
use crate::request::proxy::keep_names;
use crate::request::reply::{RequestError, Served};
use crate::session::Special;
use crate::session::report::Report;
use crate::site::route::{Action, Route};
use crate::site::upstream::Upstream;
use crate::telemetry::peer::cut;
use crate::upstream::body::{RequestBody, ToBackend};
use crate::upstream::dial::dial;
use crate::upstream::forward::{self, Hop};
use crate::upstream::h1::connection::IdleConnection;
use crate::upstream::h1::request::RequestWriter;

/// What a request asks for, as far as its route passes that on.
#[derive(Debug)]
pub(super) enum Wanted<'a> {
    /// It is served without its `Upgrade`, if it has one.
    Nothing,
    /// A WebSocket.
    WebSocket(Upgrade),
    /// It can't have what it asks for.
    Refused(Refusal),
    /// One of these protocols, which these servers speak.
    Other(&'a Arc<Upstream>, Vec<Box<str>>),
}

/// Which upgrade is carried out.
pub(super) fn wanted<'a>(
    connection: &Connection,
    route: &'a Route,
    head: &Parts,
    kind: RequestKind,
) -> Wanted<'a> {
    // A tunnel over HTTP/2 can't be served as a plain request (RFC 8441 §4).
    let is_connect = head.method == Method::CONNECT;
    match kind {
        RequestKind::Plain => return Wanted::Nothing,
        RequestKind::Upgrade(upgrade) if route.takes_websockets() => return Wanted::WebSocket(upgrade),
        RequestKind::Refused(refusal) if is_connect || route.takes_websockets() => {
            return Wanted::Refused(refusal);
        }
        RequestKind::Upgrade(_) if is_connect => return Wanted::Refused(Refusal::Protocol),
        RequestKind::Upgrade(_) | RequestKind::Refused(_) | RequestKind::Other => {}
    }
    if let (Some(names), Action::Proxy(upstream)) = (&route.upgrades, &route.action) {
        let protocols = named(&head.headers, names);
        if !protocols.is_empty() {
            return Wanted::Other(upstream, protocols);
        }
    }
    let asked: Vec<&str> = fields::tokens(&head.headers, UPGRADE).collect();
    debug!(
        peer = %PeerName(connection.peer),
        route = %route.id,
        upgrade = %cut(&asked.join(", ")),
        "the route's `upgrade` lists no protocol that the request asks for; it is served without the upgrade"
    );
    Wanted::Nothing
}

/// Asks a server for the upgrade. What it answers instead of 101 goes back as it is.
///
/// # Errors
/// 502 or 504, with the cause for the log.
pub(super) async fn open(
    connection: &Connection,
    route: &Arc<Route>,
    (upstream, protocols): (&Arc<Upstream>, Vec<Box<str>>),
    report: &mut Report,
    hop: &Hop<'_>,
    mut head: Box<Parts>,
    body: RequestBody,
) -> Result<Served, RequestError> {
    let attempts = Attempts::begin(connection, upstream, report, hop, &head, true).await?;
    keep_names(upstream, &mut head);
    let lines = forward::request(&mut head, hop, attempts.endpoint());
    ask_named(&mut head, &protocols);
    let body = ToBackend::new(body, None, connection.limits.body_rate);
    let progress = body.progress();
    report.received(progress.clone());
    let request = RequestWriter::new(&head, &lines, body, None);
    drop(head);
    let times = report.times();
    let sent = async {
        let begun = Instant::now();
        let idle = IdleConnection::new(dial(upstream.connector, attempts.endpoint()).await?);
        times.connected(begun);
        progress.touch();
        let begun = Instant::now();
        let timer = pin!(sleep_until(Instant::now() + upstream.response_timeout));
        let sent = tokio::select! {
            biased;
            sent = idle.send_request(request, None) => sent,
            () = progress.backend_idles(upstream.response_timeout, timer) => {
                return Err(Failure::Timeout { after: upstream.response_timeout });
            }
        };
        times.answered(begun);
        match sent {
            Err(_) if progress.is_stalled() => Err(Failure::ClientStalled),
            sent => sent.map_err(Failure::from),
        }
    };
    let sent = sent.await;
    let (mut head, answer) = sent.inspect_err(|failure| attempts.note(report, failure))?;
    attempts.answered(report, head.status);
    progress.answered();
    if head.status != StatusCode::SWITCHING_PROTOCOLS {
        forward::response(&mut head.headers);
        head.version = Version::HTTP_11;
        let body = AnswerBody::Backend { answer: answer.boxed(), lease: None };
        return Ok(Served::Answer(Response::from_parts(head, body)));
    }
    let protocol = verify_named(&head, &protocols).map_err(Failure::from)?;
    let (backend, ahead) = answer.into_io().ok_or(Failure::Early)?;
    forward::response(&mut head.headers);
    report.upgraded(&protocol);
    let mut answer = accept_named(protocol, head.headers);
    if upstream.keeps_names {
        *answer.extensions_mut() = head.extensions;
    }
    Ok(Served::special(
        connection,
        route,
        report,
        answer,
        Special::Opaque(Handoff::new(backend, ahead), None),
    ))
}
