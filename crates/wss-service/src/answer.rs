//! A request head → an answer, or a session: what is judged by whom, in this order. Which host is it for? Is it a
//! handshake? Is it for the sessions? May this page? What does the handler say?

use std::sync::Arc;

use frame_core::handle::SessionHandle;
use http::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use http::request::Parts;
use http::uri::Authority;
use http::{Method, Request, Response, StatusCode, Version};
use upgrade_handler::{Agreed, RequestKind, Upgrade, accept, classify, origin};

use crate::body::{AnswerBody, RequestBody};
use crate::client::{Connection, Link, Opening, Peer, client_address};
use crate::handler::Handler;
use crate::host;
use crate::log;
use crate::opened::{Entered, Opened};
use crate::outbox::Outbox;
use crate::panics::caught;
use crate::refusal::Refusal;
use crate::session::Session;
use crate::shared::Shared;

/// Fields that a request may have: as many as hyper takes over HTTP/1.1. Over HTTP/2 a field can be a byte, and each costs
/// hundreds in memory, in a session for as long as it lives.
const FIELDS_MAX: usize = 100;

/// What a request leads to.
pub(crate) enum Reply<H> {
    /// An answer, and no more.
    Answer(Response<AnswerBody>),
    /// The answer that opens the stream, and what runs over it.
    Open(Response<()>, Box<Opened<H>>),
}

/// Answers one request.
pub(crate) async fn answer<H: Handler>(
    shared: &Arc<Shared<H>>,
    connection: &Connection,
    request: Request<RequestBody>,
) -> Reply<H> {
    let (mut head, body) = request.into_parts();
    if head.headers.len() > FIELDS_MAX {
        return Reply::Answer(Refusal::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE).answer()); // RFC 6585 §5
    }
    let host = match host::settle(&mut head) {
        Ok(host) => host,
        Err(bad) => {
            let refusal = Refusal::new(StatusCode::BAD_REQUEST).with_body(format!("{bad}\n"));
            return Reply::Answer(refusal.answer());
        }
    };
    if is_misdirected(shared, &connection.link, host.as_ref()) {
        return Reply::Answer(Refusal::new(StatusCode::MISDIRECTED_REQUEST).answer());
    }
    if shared.rules.takes.is_some() || shared.rules.otherwise.is_some() {
        let client = client(shared, &connection.link, &head);
        head.extensions.insert(Peer::new(connection.link.clone(), client));
    }
    let is_ours = shared.rules.takes.as_ref().is_none_or(|takes| takes(&head));
    match classify(&head) {
        RequestKind::Upgrade(upgrade) if is_ours => match open(shared, connection, &head, &upgrade).await {
            Ok((answer, opened)) => return Reply::Open(answer, opened),
            Err(refusal) => return Reply::Answer(refusal.answer()),
        },
        RequestKind::Refused(refusal) if is_ours || head.method == Method::CONNECT => {
            let (status, headers) = refusal.answer(head.version);
            shared.hub.note(|totals| totals.refused += 1);
            log::refused(
                client(shared, &connection.link, &head),
                head.uri.path(),
                status.as_u16(),
                &refusal.to_string(),
            );
            let mut answer = Refusal::new(status).with_body(format!("{refusal}\n")).answer();
            answer.headers_mut().extend(headers);
            return Reply::Answer(answer);
        }
        _ => {}
    }
    Reply::Answer(match &shared.rules.otherwise {
        // To a CONNECT, any 2xx opens a stream (RFC 9110 §9.3.6).
        Some(otherwise) if head.method != Method::CONNECT => otherwise(Request::from_parts(head, body)).await,
        None if is_ours => upgrade_required(&head),
        _ => Refusal::new(StatusCode::NOT_FOUND).answer(),
    })
}

/// The host has other rules for the certificates of clients than the name that the connection was made for, so its client
/// has not shown what this host demands (RFC 9110 §15.5.20).
fn is_misdirected<H>(shared: &Shared<H>, link: &Link, host: Option<&Authority>) -> bool {
    let (Some(certificates), Some(tls)) = (&shared.certificates, &link.tls) else { return false };
    certificates.cell().asks_clients()
        && certificates.cell().current().loaded.set.client_rules(host.map(Authority::host))
            != tls.client_rules
}

fn client<H>(shared: &Shared<H>, link: &Link, head: &Parts) -> std::net::IpAddr {
    client_address(link.source, &head.headers, &shared.rules.trusted)
}

/// Opens a session, or says why not.
async fn open<H: Handler>(
    shared: &Arc<Shared<H>>,
    connection: &Connection,
    head: &Parts,
    upgrade: &Upgrade,
) -> Result<(Response<()>, Box<Opened<H>>), Refusal> {
    let (client, path) = (client(shared, &connection.link, head), head.uri.path());
    let refuse = |refusal: Refusal, cause: &str| {
        shared.hub.note(|totals| totals.refused += 1);
        log::refused(client, path, refusal.status().as_u16(), cause);
        refusal
    };
    let rules = &shared.rules;
    if !rules.origins.is_empty()
        && let Err(refusal) = origin::check(&head.headers, &rules.origins)
    {
        let cause = format!("{refusal}: {}", origin::shown(&head.headers));
        return Err(refuse(Refusal::new(StatusCode::FORBIDDEN).with_body(format!("{refusal}\n")), &cause));
    }
    let protocol = upgrade.protocols.iter().find(|offered| {
        let offered: &str = offered;
        rules.subprotocols.iter().any(|ours| ours == offered)
    });
    let opening = Opening::of(head, client, protocol.cloned());
    let outbox = Outbox::new(shared.settings.outbox_max, shared.settings.slow_client);
    let (link, groups) = (connection.link.clone(), shared.hub.groups().clone());
    let session = Session::new(link, opening, outbox, groups, SessionHandle::new());
    let Some(entered) = Entered::new(session) else {
        let unavailable = Refusal::new(StatusCode::SERVICE_UNAVAILABLE);
        return Err(refuse(unavailable, "another session has the same random number"));
    };
    // Asked now that it is among those whom a drain tells: it is told, or not there.
    if shared.end.draining.is_cancelled() {
        return Err(refuse(Refusal::new(StatusCode::SERVICE_UNAVAILABLE), "the service drains"));
    }
    match caught(async { shared.handler.on_open(entered.session()).await }).await {
        Ok(Ok(())) => {}
        Ok(Err(refusal)) => {
            let cause = format!("the handler refuses it: {}", refusal.first_line());
            return Err(refuse(refusal, &cause));
        }
        Err(panic) => {
            log::panicked("on_open", &panic);
            let internal = Refusal::new(StatusCode::INTERNAL_SERVER_ERROR);
            return Err(refuse(internal, "the handler panicked"));
        }
    }
    let protocol = protocol.and_then(|protocol| HeaderValue::from_str(protocol).ok());
    let (deflate, codec) =
        rules.compression.as_ref().and_then(|ours| ours.agree(&upgrade.extensions)).unzip();
    let agreed =
        Agreed { protocol, deflate: deflate.is_some(), extensions: deflate.map(|deflate| deflate.field()) };
    Ok((
        accept(upgrade, &agreed, HeaderMap::new()),
        Box::new(Opened::new(entered, shared.clone(), connection.clone(), codec)),
    ))
}

/// The answer to a request that is no handshake, where there is nothing else (RFC 9110 §15.5.22).
fn upgrade_required(head: &Parts) -> Response<AnswerBody> {
    // 426 is for those who can upgrade: it must come with Upgrade, which HTTP/2 has not.
    let can_upgrade = head.version == Version::HTTP_11;
    let status = if can_upgrade { StatusCode::UPGRADE_REQUIRED } else { StatusCode::BAD_REQUEST };
    let body = "this is a WebSocket service; open it with ws:// or wss://\n";
    let mut answer = Refusal::new(status).with_body(body).answer();
    if can_upgrade {
        answer.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    answer
}
