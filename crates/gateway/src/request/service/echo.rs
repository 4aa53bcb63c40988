//! Handshakes of WebSockets that say everything back.

use std::sync::Arc;

use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, UPGRADE};
use http::request::Parts;
use http::{Response, StatusCode, Version};
use upgrade_handler::{Agreed, Upgrade, accept};

use crate::context::Connection;
use crate::request::body::AnswerBody;
use crate::request::reply::{Served, Upgraded};
use crate::session::Other;
use crate::session::report::Report;
use crate::site::route::Route;

/// Accepts a handshake. Of the subprotocols offered the first is spoken: an echo speaks them all,
/// and browsers fail a connection whose server picks none.
#[must_use]
pub(crate) fn upgrade(
    connection: &Connection,
    route: &Arc<Route>,
    report: &Report,
    upgrade: &Upgrade,
) -> Served {
    let protocol = upgrade.protocols.first().and_then(|protocol| HeaderValue::from_str(protocol).ok());
    let (extensions, deflating) = connection.worker.compress(route, &upgrade.extensions).unzip();
    let agreed = Agreed { protocol, extensions, ..Agreed::default() };
    let mut answer = accept(upgrade, &agreed, HeaderMap::new());
    *answer.extensions_mut() = connection.worker.casing.clone();
    let registered = connection.worker.enroll(route, report.who());
    Served::Upgraded(Upgraded {
        answer,
        registered,
        route: route.clone(),
        deflate: false,
        deflating,
        other: Other::Echo,
    })
}

/// The answer to a request that isn't a handshake (RFC 9110 §15.5.22).
#[must_use]
pub(crate) fn page(head: &Parts) -> Served {
    // 426 is for those who can upgrade: it must come with Upgrade, which HTTP/2 has not.
    let can_upgrade = head.version == Version::HTTP_11;
    let status = if can_upgrade { StatusCode::UPGRADE_REQUIRED } else { StatusCode::BAD_REQUEST };
    let body = format!("{status}: this is a WebSocket service; open it with wss://\n");
    let mut answer = Response::new(AnswerBody::whole(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if can_upgrade {
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(http::header::CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    Served::Answer(answer)
}
