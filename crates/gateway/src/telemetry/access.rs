//! The access line: everything about one request or session, when it is over.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use frame_core::outcome::{Cause, Outcome, Party};
use http::{Method, StatusCode, Version, request};
use tokio::time::Instant;
use tracing::{info, warn};

use super::peer::cut;
use crate::context::Connection;
use crate::context::registry::SessionOpener;
use crate::net::error::chain;
use crate::site::route::Route;
use crate::site::upstream::Upstream;
use crate::upstream::body::{CLIENT_STALLED, UploadProgress};

/// What is known of a request so far. It turns into a line when the answer or the session has
/// ended, or when it is dropped before that because the client went away.
#[derive(Debug)]
pub struct Report {
    connection: Arc<Connection>,
    started: Instant,
    generation: u64,
    method: Method,
    version: Version,
    path: Box<str>,
    client: IpAddr,
    host: Option<Arc<str>>,
    route: Option<Arc<Route>>,
    backend: Option<Arc<Upstream>>,
    status: Option<StatusCode>,
    cause: Option<String>,
    received: Option<Arc<UploadProgress>>,
    /// The session's.
    id: Option<u64>,
    is_session: bool,
    written: bool,
}

impl Report {
    /// Begins with the head of a request, served under a generation of the site.
    #[must_use]
    pub fn new(connection: Arc<Connection>, head: &request::Parts, generation: u64) -> Box<Self> {
        Box::new(Self {
            client: connection.peer.ip(),
            connection,
            started: Instant::now(),
            generation,
            method: head.method.clone(),
            version: head.version,
            path: cut(head.uri.path()).into(), // queries carry tokens, and logs are read by many
            host: None,
            route: None,
            backend: None,
            status: None,
            cause: None,
            received: None,
            id: None,
            is_session: false,
            written: false,
        })
    }

    /// Who the client is, and what it asked for.
    pub fn asked(&mut self, client: IpAddr, host: &Arc<str>) {
        self.client = client;
        self.host = Some(host.clone());
    }

    /// Which route serves it.
    pub fn routed(&mut self, route: &Arc<Route>) {
        self.route = Some(route.clone());
    }

    /// Which backend was asked.
    pub fn backend(&mut self, backend: &Arc<Upstream>) {
        self.backend = Some(backend.clone());
    }

    /// What the client was told.
    pub fn status(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// Why it went wrong. The first cause stays.
    pub fn cause(&mut self, cause: impl Into<String>) {
        self.cause.get_or_insert_with(|| cause.into());
    }

    /// The backend's answer has broken off, or the request that it belongs to has.
    pub fn broke_off(&mut self, error: &(dyn std::error::Error + 'static)) {
        if self.received.as_ref().is_some_and(|progress| progress.is_stalled()) {
            return self.cause(CLIENT_STALLED);
        }
        self.cause(format!("the backend's answer was cut off: {}", chain(error)));
    }

    /// How far the request's body has come, if it has one.
    #[must_use]
    pub fn progress(&self) -> Option<Arc<UploadProgress>> {
        self.received.clone()
    }

    /// The request's body, for its length.
    pub fn received(&mut self, progress: Arc<UploadProgress>) {
        self.received = Some(progress);
    }

    /// The session that the request becomes, for the registry.
    #[must_use]
    pub fn who(&self) -> SessionOpener {
        SessionOpener {
            peer: self.connection.peer,
            client: self.client,
            protocol: protocol(self.version),
            started: self.started,
        }
    }

    /// The session has this id.
    pub fn registered(&mut self, id: u64) {
        self.id = Some(id);
    }

    /// The tunnel is open: what comes is a session.
    pub fn opened(&mut self) {
        self.is_session = true;
    }

    /// The answer has ended: `whole`, or broken off.
    pub fn answered(&mut self, bytes: u64, whole: bool) {
        if !whole {
            self.cause("the client went away before the answer's end");
        }
        self.written = true;
        let cause = self.cause.as_deref().map(cut);
        let cause = cause.as_deref();
        // What an operator may have to act on stands out.
        if self.status.is_some_and(|status| status.is_server_error()) {
            line!(warn, self, "request", sent_bytes = bytes, cause = cause);
        } else {
            line!(info, self, "request", sent_bytes = bytes, cause = cause);
        }
    }

    /// The session has ended.
    pub fn session(mut self: Box<Self>, outcome: &Outcome) {
        self.written = true;
        let (up, down) = (outcome.from_client, outcome.from_backend);
        let lost_backend = matches!(outcome.cause, Cause::Lost { party: Party::Backend, .. });
        let cause = outcome.cause.to_string(); // at most a Close's reason is a peer's: 123 bytes
        let ended_by = outcome.cause.ended_by().as_str();
        let close_code = outcome.cause.close_code();
        macro_rules! session {
            ($level:ident, $report:expr) => {
                line!(
                    $level,
                    $report,
                    "session",
                    id = $report.id,
                    ended_by,
                    close_code,
                    cause = cause,
                    received_messages = up.messages,
                    received_bytes = up.payload_bytes,
                    sent_messages = down.messages,
                    sent_bytes = down.payload_bytes
                )
            };
        }
        if lost_backend { session!(warn, self) } else { session!(info, self) }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if self.written {
        } else if self.is_session {
            let ended_by = Party::Gateway.as_str();
            line!(
                warn,
                self,
                "session",
                id = self.id,
                ended_by,
                close_code = 1006,
                cause = "cut: the gateway has ended (drain_timeout, or a second signal)"
            );
        } else {
            self.cause("the client went away before the answer");
            self.answered(0, true);
        }
    }
}

/// The fields that every line has, then those of its kind.
macro_rules! line {
    ($level:ident, $report:expr, $message:literal, $($fields:tt)*) => {{
        let report = &$report;
        let tls = report.connection.tls.as_ref();
        $level!(
            peer = %report.connection.peer,
            client = %report.client,
            server_name = tls.and_then(|tls| tls.server_name.as_deref()),
            tls = tls.map(|tls| tls.version),
            protocol = protocol(report.version),
            method = %cut(report.method.as_str()),
            host = report.host.as_deref(),
            path = &*report.path,
            route = report.route.as_ref().map(|route| route.id.to_string()),
            generation = report.generation,
            backend = report.backend.as_ref().map(|backend| &*backend.address),
            status = report.status.map(|status| status.as_u16()),
            request_bytes = report.received.as_ref().map(|progress| progress.bytes()),
            duration_ms = millis(report.started.elapsed()),
            $($fields)*,
            $message
        );
    }};
}
use line;

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
