//! WebSockets to servers behind `tcp://`: the gateway answers the handshake, and has a connection before it does.

use std::sync::Arc;

use http::StatusCode;
use http::header::{HeaderMap, HeaderValue};
use http::request::Parts;
use tokio::time::Instant;
use upgrade_handler::{Agreed, Upgrade, accept};

use crate::context::Connection;
use crate::net::options;
use crate::request::attempts::Attempts;
use crate::request::failure::Failure;
use crate::request::reply::{RequestError, Served};
use crate::session::Special;
use crate::session::report::Report;
use crate::site::route::Route;
use crate::site::tcp::TcpServer;
use crate::upstream::dial::dial;
use crate::upstream::forward::Hop;

/// Connects to the server, and accepts the handshake if that succeeds.
///
/// # Errors
/// 502 or 504, with the cause for the log.
pub(super) async fn upgrade(
    connection: &Connection,
    route: &Arc<Route>,
    server: &TcpServer,
    report: &mut Report,
    hop: &Hop<'_>,
    head: &Parts,
    upgrade: &Upgrade,
) -> Result<Served, RequestError> {
    let attempts = Attempts::begin(connection, &server.upstream, report, hop, head, true).await?;
    let begun = Instant::now();
    let dialed = dial(server.upstream.connector, attempts.endpoint()).await.map_err(Failure::from);
    let backend = dialed.inspect_err(|failure| attempts.note(report, failure))?;
    report.times().connected(begun);
    attempts.answered(report, StatusCode::SWITCHING_PROTOCOLS);
    if let Some(socket) = backend.socket() {
        options::acknowledge(&socket);
    }
    let protocol = server.subprotocol(&upgrade.protocols);
    let protocol = protocol.and_then(|protocol| HeaderValue::from_str(protocol).ok());
    let agreed = Agreed { protocol, ..Agreed::default() };
    let mut answer = accept(upgrade, &agreed, HeaderMap::new());
    *answer.extensions_mut() = connection.worker.casing.clone();
    Ok(Served::special(connection, route, report, answer, Special::Tcp(backend, None)))
}
