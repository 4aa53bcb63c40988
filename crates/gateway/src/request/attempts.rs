//! The servers that one request is given to, one after the other, until one serves it.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::request::Parts;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::context::Connection;
use crate::request::failure::Failure;
use crate::session::report::Report;
use crate::site::balance::Balance;
use crate::site::endpoint::Endpoint;
use crate::site::retry::RetryOn;
use crate::site::server::Assignment;
use crate::site::upstream::{Ask, Current, Unavailable, Upstream};
use crate::upstream::forward::Hop;
use crate::upstream::h1::request::is_idempotent;
use net_io::proxy_protocol::encode;

/// The server that has a request now, and those that have failed it.
#[derive(Debug)]
pub(super) struct Attempts<'a> {
    /// For its settings.
    upstream: &'a Upstream,
    /// The servers.
    current: Current<'a>,
    is_handshake: bool,
    key: u64,
    at: usize,
    tried: Vec<usize>,
    /// How the server is told who the client is, over connections for this client alone.
    header: Option<Vec<u8>>,
    /// The server for this client alone.
    own: Option<Arc<Endpoint>>,
}

impl<'a> Attempts<'a> {
    /// Gives a request to a server, which may have to be waited for.
    ///
    /// # Errors
    /// If there is none that can take it.
    ///
    /// # Cancel safety
    /// A dropped call leaves the queue.
    pub(super) async fn begin(
        connection: &Connection,
        upstream: &'a Upstream,
        report: &mut Report,
        hop: &Hop<'_>,
        head: &Parts,
        is_handshake: bool,
    ) -> Result<Self, Failure> {
        let unavailable = |error| {
            let retry_after = upstream.queue.map_or(Duration::ZERO, |queue| queue.timeout);
            Failure::Unavailable { error, retry_after }
        };
        let key = match upstream.balance {
            Balance::Hash => upstream.hash.of(hop.client(&head.headers), &head.headers, head.uri.query()),
            _ => 0,
        };
        let ask = Ask { key, preferred: hop.preferred, tried: &[] };
        let current = upstream.current();
        let chosen = match upstream.queue {
            // Those that wait already come first.
            Some(_) if upstream.waiting() > 0 => Box::pin(wait(upstream, ask)).await,
            queue => match current.choose(ask) {
                Err(Unavailable::Full) if queue.is_some() => Box::pin(wait(upstream, ask)).await,
                chosen => chosen.map(|(at, assignment)| (current, at, assignment)),
            },
        };
        let (current, at, assignment) = chosen.map_err(unavailable)?;
        report.assigned(assignment);
        let header = upstream.connector.proxy_protocol.map(|version| {
            let client = hop.client(&head.headers);
            let port = connection.port_of(client).unwrap_or(0);
            encode(version, (client, port).into(), connection.local)
        });
        let mut attempts =
            Self { upstream, current, is_handshake, key, at, tried: Vec::new(), header, own: None };
        attempts.own_endpoint();
        Ok(attempts)
    }

    fn own_endpoint(&mut self) {
        if let Some(header) = &self.header {
            self.own = Some(Arc::new(self.current.servers[self.at].endpoint.for_client(header.clone())));
        }
    }

    /// Whose servers they are.
    pub(super) fn upstream(&self) -> &'a Upstream {
        self.upstream
    }

    /// The server that has the request now.
    pub(super) fn endpoint(&self) -> &Arc<Endpoint> {
        self.own.as_ref().unwrap_or(&self.current.servers[self.at].endpoint)
    }

    /// Its server has failed the request.
    pub(super) fn failed(&self, report: &Report, cause: &dyn Display) {
        let Some(server) = report.server() else { return };
        if let Some(time) = self.current.failed(server, cause) {
            warn!(
                upstream = %self.upstream,
                backend = %server.endpoint,
                eject_s = time.as_secs_f64(),
                cause = %cause,
                "a backend is ejected"
            );
        }
    }

    /// Its server has answered with this status.
    pub(super) fn answered(&self, report: &Report, status: StatusCode) {
        if status.is_server_error() {
            self.failed(report, &format_args!("it answered {status}"));
        } else if let Some(server) = report.server() {
            server.succeeded();
        }
    }

    /// Counts a failure at the server that had the request last.
    pub(super) fn note(&self, report: &Report, failure: &Failure) {
        if failure.is_servers() {
            self.failed(report, failure);
        }
    }

    /// Another server may be asked after this failure.
    pub(super) fn counts(&self, failure: RetryOn) -> bool {
        let Upstream { servers, retry, .. } = &*self.current;
        servers.len() > 1 && retry.on(self.is_handshake).contains(&failure)
    }

    /// The request is to be kept, since another server may get it after an answer.
    pub(super) fn spares(&self, head: &Parts) -> bool {
        let is_status = |on: &RetryOn| matches!(on, RetryOn::Status(_));
        let Upstream { servers, retry, .. } = &*self.current;
        servers.len() > 1 && retry.on(self.is_handshake).iter().any(is_status) && is_idempotent(&head.method)
    }

    /// Gives the request to another server, if it may be repeated after what has failed.
    pub(super) fn next_after(&mut self, report: &mut Report, failure: &Failure) -> bool {
        failure.retry_on().is_some_and(|on| self.next(report, on, failure))
    }

    /// Gives the request to another server, if it may be repeated after an answer with this status.
    pub(super) fn next_after_status(&mut self, report: &mut Report, status: StatusCode) -> bool {
        self.next(report, RetryOn::Status(status), &format_args!("it answered {status}"))
    }

    /// Gives the request to another server, if it may be repeated after this failure.
    pub(super) fn next(&mut self, report: &mut Report, failure: RetryOn, cause: &dyn Display) -> bool {
        let Upstream { retry, servers, .. } = &*self.current;
        let asked = self.tried.len() + 1;
        if !self.counts(failure) || asked >= servers.len().min(retry.attempts as usize) {
            return false;
        }
        if !self.current.may_retry() {
            debug!(upstream = %self.upstream, "not repeated: a fifth of the requests has been already");
            return false;
        }
        self.tried.push(self.at);
        let ask = Ask { key: self.key, preferred: None, tried: &self.tried };
        let Ok((at, assignment)) = self.current.choose(ask) else {
            return false;
        };
        debug!(
            from = %self.endpoint(),
            to = %assignment.endpoint(),
            cause = %cause,
            "the request goes to another backend"
        );
        self.failed(report, cause);
        self.at = at;
        self.own_endpoint();
        report.assigned(assignment);
        true
    }
}

/// Waits until a server can take one more: one of those that there are then.
async fn wait<'a>(
    upstream: &'a Upstream,
    ask: Ask<'_>,
) -> Result<(Current<'a>, usize, Assignment), Unavailable> {
    let attempt = || {
        let current = upstream.current();
        match current.choose(ask) {
            Err(Unavailable::Full) => None,
            Ok((at, assignment)) => Some(Ok((current, at, assignment))),
            Err(e) => Some(Err(e)),
        }
    };
    let Some(queue) = upstream.queue else { return attempt().unwrap_or(Err(Unavailable::Full)) };
    let place = upstream.freed().wait(queue.length).ok_or(Unavailable::Full)?;
    timeout(queue.timeout, place.until(attempt)).await.unwrap_or(Err(Unavailable::Full))
}
