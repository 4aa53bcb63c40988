//! What is said over the control socket: one JSON object a line, either way.
//!
//! A request names a command. Its answer is any number of lines with a `session`, or what [`tap`](super::tap) says, and
//! then one with `ok`. Who reads skips the keys it doesn't know; keys are added, and never change their meaning.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::ops::acme::AcmeInfo;
use crate::ops::control::tap::{TapReport, TapRequest};

/// The longest request, in bytes.
pub const REQUEST_LEN_MAX: usize = 16 * 1024;

/// What the gateway is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// `status`, `sessions`, `upstreams`, `tap`, `reload`, `drain`, `undrain` or `close`.
    pub command: String,
    /// Of `drain` and `undrain`: a route or a backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Of `close` and `tap`: a session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// Of `close`: the sessions of this subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Of `close`: the sessions of the client with this address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<IpAddr>,
    /// Of `tap`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tap: Option<TapRequest>,
}

/// The last line of an answer. Beside `ok` there is what the command calls for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ControlResponse {
    /// It was done.
    pub ok: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Everything that forbids a reload, each with its place.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// Of `status`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// Of `sessions`: how many were listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions: Option<usize>,
    /// Of `upstreams`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstreams: Option<Vec<UpstreamInfo>>,
    /// Of `reload`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reload: Option<Reloaded>,
    /// Of `drain` and `undrain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainReport>,
    /// Of `close`: the session that will end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed: Option<u64>,
    /// Of `close` by a subject or a client: how many sessions will end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed_sessions: Option<usize>,
    /// Of `tap`: how it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tap: Option<TapReport>,
}

impl ControlResponse {
    /// It was done.
    #[must_use]
    pub fn done() -> Self {
        Self { ok: true, ..Self::default() }
    }

    /// It was not done, and why.
    #[must_use]
    pub fn error(why: impl Into<String>) -> Self {
        Self { error: Some(why.into()), ..Self::default() }
    }
}

/// How the gateway is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Of the program.
    pub version: String,
    /// Of the process.
    pub pid: u32,
    /// As `/readyz` says it.
    pub state: String,
    /// Since the process became ready.
    pub uptime_s: u64,
    /// Worker threads.
    pub workers: usize,
    /// The configuration and the certificates in use; counts reloads and renewals.
    pub generation: u64,
    /// Reloads that took.
    pub reloads_taken: u64,
    /// Reloads that changed nothing.
    pub reloads_refused: u64,
    /// Connections of clients so far.
    pub connections_accepted: u64,
    /// Connections of clients that are open, those of sessions included.
    pub connections: u64,
    /// How many there may be; `None`: any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections_max: Option<u64>,
    /// Live sessions.
    pub sessions: usize,
    /// Addresses as the configuration has them.
    pub listeners: Vec<String>,
    /// By host and path.
    pub routes: Vec<RouteInfo>,
    /// Backends that requests are passed on to.
    pub upstreams: Vec<UpstreamInfo>,
    /// Routes and backends that are drained.
    pub drained: Vec<String>,
    /// The certificate that expires first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nearest_expiry: Option<ExpiryInfo>,
    /// Lines of the log that were written or read too slowly.
    pub log_lines_lost: u64,
    /// Certificates that the gateway orders by itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub acme: Vec<AcmeInfo>,
}

/// A route in [`Status`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteInfo {
    /// Host and path.
    pub route: String,
    /// Its backend or service.
    pub to: String,
    /// Live sessions.
    pub sessions: usize,
    /// `served`, `drained`, or `gone` if a reload has removed it and left sessions.
    pub state: String,
}

/// Servers of which one gets each request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpstreamInfo {
    /// Its name; its addresses if it has none.
    pub upstream: String,
    /// How a server is chosen.
    pub balance: String,
    /// Requests that wait for a server.
    pub waiting: u32,
    /// In the order of the configuration; those that have left at the end.
    pub servers: Vec<ServerInfo>,
    /// The names of its servers that are looked up.
    pub names: Vec<NameInfo>,
}

/// A name of servers in [`UpstreamInfo`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NameInfo {
    /// The name.
    pub name: String,
    /// Its addresses, or the targets of its SRV records.
    pub found: Vec<String>,
    /// So long ago there was an answer; `None`: never.
    pub resolved_ms: Option<u64>,
    /// So often it was looked up.
    pub lookups: u64,
    /// So often in vain.
    pub failures: u64,
    /// What was wrong the last time.
    pub problem: Option<String>,
}

/// A server in [`UpstreamInfo`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerInfo {
    /// Its address.
    pub server: String,
    /// Its part of all requests.
    pub weight: u32,
    /// `up`, `down`, `ejected` or `drained`.
    pub state: String,
    /// Why it is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Live WebSockets.
    pub sessions: u32,
    /// Requests in flight.
    pub in_flight: u32,
    /// Requests and handshakes so far.
    pub requests: u64,
    /// How many of them failed.
    pub failures: u64,
    /// Connections over HTTP/2, if that is what its upstream speaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http2_connections: Option<usize>,
    /// Their open streams.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http2_streams: Option<usize>,
    /// Since the last probe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probed_ms: Option<u64>,
    /// What that found wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe_problem: Option<String>,
}

/// When a certificate ends.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExpiryInfo {
    /// One of its names.
    pub name: String,
    /// Whole days from now, rounded down.
    pub days: i64,
}

/// A line of `sessions`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionLine {
    /// The session.
    pub session: SessionInfo,
}

/// A live session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionInfo {
    /// Unique in the process; also in its line in the log.
    pub id: u64,
    /// The address at the other end of the connection.
    pub peer: String,
    /// The client's, which differs behind a trusted proxy.
    pub client: String,
    /// Host and path.
    pub route: String,
    /// Its backend or service.
    pub to: String,
    /// As HTTP calls it.
    pub protocol: String,
    /// Who the client is, where the route finds that out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// `open`, `closing`, `delayed`: its client is not read at the moment, by `messages` or `bytes`; or `redialling`: it
    /// has no backend at the moment, and looks for one.
    pub state: String,
    /// Of one whose upstream has `session_lost = "redial"`: how often it has got another backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redials: Option<u32>,
    /// Of such a one that can't get another backend: why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_redial: Option<String>,
    /// Since its request came.
    pub age_ms: u64,
    /// Since a peer has taken nothing of what waits for it; missing if nothing waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stalled_ms: Option<u64>,
    /// What it has carried; missing if it was too busy to say.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<TrafficInfo>,
}

/// What a session has carried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficInfo {
    /// Since a message last moved.
    pub idle_ms: u64,
    /// Whole messages from the client.
    pub received_messages: u64,
    /// Their payload.
    pub received_bytes: u64,
    /// Whole messages to the client.
    pub sent_messages: u64,
    /// Their payload.
    pub sent_bytes: u64,
}

/// What a reload has changed; the log says the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reloaded {
    /// The generation that is served now.
    pub generation: u64,
    /// Names that had no certificate before.
    pub names_added: Vec<String>,
    /// Names that have none any more.
    pub names_removed: Vec<String>,
    /// Names that are served another certificate than before.
    pub names_replaced: Vec<String>,
    /// Names of broken files whose last good certificate is still served.
    pub names_kept: Vec<String>,
    /// Names that are served the same as before.
    pub names_unchanged: usize,
    /// The certificate that expires first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nearest_expiry: Option<ExpiryInfo>,
    /// What the sealing key of the ticket keys' file is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ticket_key: Option<String>,
    /// Routes that are served now.
    pub routes: usize,
    /// Of these, new ones.
    pub routes_added: usize,
    /// Routes that are no longer served.
    pub routes_removed: usize,
    /// New listeners.
    pub listeners_added: usize,
    /// Listeners that are closed now.
    pub listeners_removed: usize,
    /// Sessions that will be closed, because their route has gone.
    pub sessions_ended: usize,
    /// Those routes, each with the number of its sessions.
    pub routes_ended: Vec<String>,
    /// What is wrong and does not forbid the reload.
    pub warnings: Vec<String>,
    /// From the order to the swap.
    pub took_ms: u64,
}

/// What a `drain` or `undrain` has done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DrainReport {
    /// The route or the backend.
    pub target: String,
    /// It is drained now.
    pub drained: bool,
    /// Sessions that will be closed.
    pub sessions: usize,
    /// Over how long.
    pub window_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_understand_each_other() {
        let request: Request = serde_json::from_str(r#"{"command":"status","later":[1]}"#).unwrap();
        assert_eq!(request, Request { command: "status".into(), ..Request::default() });
        let answer: ControlResponse =
            serde_json::from_str(r#"{"ok":true,"status":{"pid":7,"later":{}}}"#).unwrap();
        assert_eq!(answer.status, Some(Status { pid: 7, ..Status::default() }));
        let line = r#"{"session":{"id":3,"idle_ms":1,"received_messages":2}}"#;
        let line: SessionLine = serde_json::from_str(line).unwrap();
        assert_eq!((line.session.id, line.session.traffic), (3, None), "an incomplete tally is none");
        assert_eq!(
            serde_json::to_string(&ControlResponse::error("x")).unwrap(),
            r#"{"ok":false,"error":"x"}"#
        );
    }
}
