//! What is known of a request or session, as plain values, and what takes it.

use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;

use frame_core::handle::RateLimit;
use frame_core::outcome::{Outcome, Snapshot};
use http::{Method, StatusCode, Version};
use tls_acceptor::Negotiated;
use tokio::time::{Duration, Instant};

pub(crate) use crate::site::counts::Cut;
use crate::site::route_id::RouteId;

/// A finished request or session, or a session that has opened. Values from peers are as they came, and may be long.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The address at the other end of the connection.
    pub peer: SocketAddr,
    /// The client's, which differs behind a trusted proxy.
    pub client: IpAddr,
    /// The name the client asked for in its TLS handshake.
    pub server_name: Option<&'a str>,
    /// The version of TLS; `None`: plain text.
    pub tls: Option<&'static str>,
    /// What its handshake has agreed upon; `None`: plain text, or in an earlier release, which did not say.
    pub negotiated: Option<Negotiated>,
    /// Of HTTP.
    pub version: Version,
    /// The request's method.
    pub method: &'a Method,
    /// The host that the request is for.
    pub host: Option<&'a str>,
    /// Without the query, and cut: queries carry tokens, and logs are read by many.
    pub path: &'a str,
    /// The route that serves it.
    pub route: Option<&'a RouteId>,
    /// The number of the configuration that it was served under.
    pub generation: u64,
    /// `host:port` of the backend that was asked.
    pub backend: Option<&'a str>,
    /// The version of HTTP that it was asked with, if that is not HTTP/1.1.
    pub backend_protocol: Option<&'static str>,
    /// How long the server took.
    pub times: ServerTimes,
    /// What the client was answered.
    pub status: Option<StatusCode>,
    /// The protocol that its session speaks; `None`: WebSocket, or there is none.
    pub upgrade: Option<&'a str>,
    /// Where the compression of its session's messages ends; `None`: they are not compressed.
    pub compression: Option<Compressed>,
    /// Bytes of the request's body that were passed on.
    pub request_bytes: Option<u64>,
    /// When the request came.
    pub started: Instant,
    /// The id that the request has on its way, if its route gives it one: at most 128 letters, digits, `.`, `_`, `-`.
    pub request_id: Option<&'a str>,
    /// Who sent it, where its route finds that out.
    pub subject: Option<&'a str>,
    /// Of its session: what the client has sent more of than it may, if it has ended for that.
    pub limit: Option<RateLimit>,
    /// How often its session has got another server; `None`: it has one for all its life.
    pub redials: Option<u32>,
    /// What it was.
    pub kind: Kind<'a>,
}

/// Where the compression ends that a session has agreed upon (permessage-deflate, RFC 7692).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compressed {
    /// At its server: messages pass as they are.
    Pass,
    /// At the gateway.
    Terminate,
}

impl Compressed {
    /// Of a session with whose server it was agreed upon, or that compresses here.
    pub(crate) fn of(passes: bool, ends_here: bool) -> Option<Self> {
        match (ends_here, passes) {
            (true, _) => Some(Self::Terminate),
            (false, true) => Some(Self::Pass),
            (false, false) => None,
        }
    }

    /// As the option of the route has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Terminate => "terminate",
        }
    }
}

/// How long the server of a request or a session took, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServerTimes {
    /// To a connection, with its TLS; `None`: there was one.
    pub connect_us: Option<NonZeroU32>,
    /// From the request that it was sent to the head of its answer.
    pub answer_us: Option<NonZeroU32>,
}

impl ServerTimes {
    /// The connection that was begun then is there.
    pub(crate) fn connected(&mut self, begun: Instant) {
        self.connect_us = Some(micros(begun.elapsed()));
    }

    /// What was sent then has its answer.
    pub(crate) fn answered(&mut self, begun: Instant) {
        self.answer_us = Some(micros(begun.elapsed()));
    }
}

fn micros(duration: Duration) -> NonZeroU32 {
    let us = u32::try_from(duration.as_micros()).unwrap_or(u32::MAX);
    NonZeroU32::new(us).unwrap_or(NonZeroU32::MIN)
}

/// A request, or the session that it became.
#[derive(Debug, Clone, Copy)]
pub enum Kind<'a> {
    /// A request that has been answered.
    Request {
        /// Bytes of the answer's body.
        sent_bytes: u64,
        /// What went wrong.
        cause: Option<&'a str>,
    },
    /// A session that has opened.
    Opened {
        /// Its number.
        id: Option<u64>,
    },
    /// A session that has ended.
    Session {
        /// Its number.
        id: Option<u64>,
        /// How; or why it stopped in the middle.
        outcome: Result<&'a Outcome, Cut>,
    },
}

impl Record<'_> {
    /// From the request to its end, or that of its session.
    #[must_use]
    pub fn duration(&self) -> Duration {
        self.started.elapsed()
    }

    /// The version of HTTP, as it calls itself.
    #[must_use]
    pub fn protocol(&self) -> &'static str {
        protocol(self.version)
    }
}

/// A session that goes on: what it has carried so far, and what tells it from others. The rest was known when it opened.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// Its number.
    pub id: u64,
    /// The address at the other end of the connection.
    pub peer: SocketAddr,
    /// The client's, which differs behind a trusted proxy.
    pub client: IpAddr,
    /// The version of HTTP, as it calls itself.
    pub protocol: &'static str,
    /// The route that serves it.
    pub route: &'a RouteId,
    /// `host:port` of the server that has it now.
    pub backend: Option<&'a str>,
    /// Whose it is, where its route finds that out.
    pub subject: Option<&'a str>,
    /// How often it has got another server; `None`: it has one for all its life.
    pub redials: Option<u32>,
    /// When its request came.
    pub started: Instant,
    /// What it has carried.
    pub snapshot: &'a Snapshot,
}

/// The version of HTTP, as it calls itself.
#[must_use]
pub(crate) fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

/// Takes each record, on the thread of the worker: it must not block.
pub trait Sink: Debug + Send + Sync {
    /// Takes one.
    fn take(&self, record: &Record<'_>);

    /// How often it wants to know of each live session; `None`: never.
    fn progress_interval(&self) -> Option<Duration> {
        None
    }

    /// Takes a session that goes on.
    fn progress(&self, _: &Progress<'_>) {}
}

/// Everything that takes records.
#[derive(Debug, Clone)]
pub struct Sinks(Arc<[Box<dyn Sink>]>);

impl Sinks {
    /// These.
    #[must_use]
    pub fn new(sinks: Vec<Box<dyn Sink>>) -> Self {
        Self(sinks.into())
    }

    /// Gives `record` to each of them.
    pub fn take(&self, record: &Record<'_>) {
        for sink in &*self.0 {
            sink.take(record);
        }
    }

    /// How often one of them wants to know of each live session; `None`: none does.
    #[must_use]
    pub fn progress_interval(&self) -> Option<Duration> {
        self.0.iter().filter_map(|sink| sink.progress_interval()).min()
    }

    /// Gives `progress` to each of them.
    pub fn progress(&self, progress: &Progress<'_>) {
        for sink in &*self.0 {
            sink.progress(progress);
        }
    }
}
