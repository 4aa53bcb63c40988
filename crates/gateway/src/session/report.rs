//! What is known of a request so far. It becomes a record when the answer or the session has ended.

mod moved;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::thread::panicking;
use std::time::Duration;

use frame_core::handle::RateLimit;
use frame_core::outcome::Outcome;
use http::{HeaderValue, Method, StatusCode, Version, request};
use tokio::time::Instant;

use crate::context::Connection;
use crate::context::identity::Identity;
use crate::context::quotas::SessionPlace;
use crate::context::redial::SessionRedial;
use crate::context::registry::{SessionOpener, StayReason};
use crate::net::error::chain;
use crate::site::counts::RouteCounts;
use crate::site::endpoint::Endpoint;
use crate::site::route::Route;
use crate::site::server::{Assignment, ServerState};
use crate::telemetry::live;
use crate::telemetry::peer::cut;
use crate::telemetry::record::{Compressed, Cut, Kind, Record, ServerTimes, protocol};
use crate::upstream::body::{CLIENT_STALLED, UploadProgress};

/// What is known of a request so far. It turns into a line when the answer or the session has
/// ended, or when it is dropped before that because the client went away.
#[derive(Debug)]
pub(crate) struct Report {
    connection: Arc<Connection>,
    started: Instant,
    generation: u64,
    method: Method,
    version: Version,
    path: Box<str>,
    client: IpAddr,
    host: Option<Arc<str>>,
    route: Option<Arc<Route>>,
    /// It counts there until this is dropped.
    server: Option<Assignment>,
    status: Option<StatusCode>,
    cause: Option<String>,
    request_id: Option<Box<str>>,
    /// The protocol that the session speaks, if it is no WebSocket.
    upgrade: Option<Box<str>>,
    received: Option<Arc<UploadProgress>>,
    /// Its server has it over HTTP/2.
    is_over_http2: bool,
    /// The session's.
    id: Option<u64>,
    is_session: bool,
    written: bool,
    is_omitted: bool,
    /// Of a session: it counts as one of its client's until this is dropped.
    place: Option<Box<SessionPlace>>,
    /// Who sends the request, where its route finds that out.
    identity: Option<Arc<Identity>>,
    /// Of a session that outlives its servers: how often it has got another one.
    redials: Option<u32>,
    /// Of a session: what its client has sent more of than it may.
    limit: Option<RateLimit>,
    /// How long its server took.
    times: ServerTimes,
    /// Of a session: where its compression ends.
    compression: Option<Compressed>,
}

impl Report {
    /// Begins with the head of a request, served under a generation of the site.
    #[must_use]
    pub(crate) fn new(connection: Arc<Connection>, head: &request::Parts, generation: u64) -> Box<Self> {
        connection.worker.under_way.began(head.version == Version::HTTP_2);
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
            server: None,
            status: None,
            cause: None,
            request_id: None,
            upgrade: None,
            received: None,
            is_over_http2: false,
            id: None,
            is_session: false,
            written: false,
            is_omitted: false,
            place: None,
            identity: None,
            redials: None,
            limit: None,
            times: ServerTimes::default(),
            compression: None,
        })
    }

    /// The client's address, and the host that it asked for.
    pub(crate) fn asked(&mut self, client: IpAddr, host: &Arc<str>) {
        self.client = client;
        self.host = Some(host.clone());
    }

    /// Which route serves it.
    pub(crate) fn routed(&mut self, route: &Arc<Route>) {
        self.route = Some(route.clone());
    }

    /// Which server has it now.
    pub(crate) fn assigned(&mut self, server: Assignment) {
        self.server = Some(server);
    }

    /// The server that was asked last.
    #[must_use]
    pub(crate) fn server(&self) -> Option<&Arc<ServerState>> {
        self.server.as_ref().map(Assignment::server)
    }

    /// How it is reached.
    #[must_use]
    pub(crate) fn asked_backend(&self) -> Option<&Endpoint> {
        self.server().map(|server| &*server.endpoint)
    }

    /// The status that the client got.
    pub(crate) fn status(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// Why it went wrong. The first cause stays.
    pub(crate) fn cause(&mut self, cause: impl Into<String>) {
        self.cause.get_or_insert_with(|| cause.into());
    }

    /// The backend's answer has broken off, or the request that it belongs to has.
    pub(crate) fn broke_off(&mut self, error: &(dyn std::error::Error + 'static)) {
        if self.received.as_ref().is_some_and(|progress| progress.is_stalled()) {
            return self.cause(CLIENT_STALLED);
        }
        self.cause(format!("the backend's answer was cut off: {}", chain(error)));
    }

    /// Whether its server has it over HTTP/2.
    pub(crate) fn set_over_http2(&mut self, is_over_http2: bool) {
        self.is_over_http2 = is_over_http2;
    }

    /// How far the request's body has come, if it has one.
    #[must_use]
    pub(crate) fn progress(&self) -> Option<Arc<UploadProgress>> {
        self.received.clone()
    }

    /// The request's body, for its length.
    pub(crate) fn received(&mut self, progress: Arc<UploadProgress>) {
        self.received = Some(progress);
    }

    /// How long the server takes that is asked now.
    pub(crate) fn times(&mut self) -> &mut ServerTimes {
        &mut self.times
    }

    /// The id that the request has on its way.
    pub(crate) fn request_id(&mut self, id: &str) {
        self.request_id = Some(id.into());
    }

    /// The session that the request becomes, for the registry.
    #[must_use]
    pub(crate) fn who(&self) -> SessionOpener {
        SessionOpener {
            peer: self.connection.peer,
            client: self.client,
            protocol: protocol(self.version),
            started: self.started,
            stays: (self.version == Version::HTTP_2 || self.is_over_http2).then_some(StayReason::Http2),
            server: self.server().cloned(),
            identity: self.identity.clone(),
            redial: SessionRedial::Off,
        }
    }

    /// The session that the request becomes is counted.
    pub(crate) fn counted(&mut self, place: SessionPlace) {
        self.place = Some(Box::new(place));
    }

    /// Who sends the request.
    pub(crate) fn identified(&mut self, identity: Identity) {
        self.identity = Some(Arc::new(identity));
    }

    /// Who that is, where it is known.
    pub(crate) fn subject(&self) -> Option<&str> {
        self.identity.as_ref()?.subject.as_deref()
    }

    /// It was refused and counted elsewhere: there is no line for it.
    pub(crate) fn omit(&mut self) {
        self.written = true;
        self.is_omitted = true;
    }

    /// The session has this id.
    pub(crate) fn registered(&mut self, id: u64) {
        self.id = Some(id);
    }

    /// The session's id, if it is one.
    pub(crate) fn session_id(&self) -> Option<u64> {
        self.id
    }

    /// Where the connection comes from.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.connection.peer
    }

    /// The address that the client came to.
    pub(crate) fn local(&self) -> SocketAddr {
        self.connection.local
    }

    /// The session will speak this protocol, and not WebSocket's.
    pub(crate) fn upgraded(&mut self, protocol: &HeaderValue) {
        self.upgrade = Some(cut(&String::from_utf8_lossy(protocol.as_bytes())).into());
    }

    /// Where the compression of the session's messages ends, if they are.
    pub(crate) fn compressed(&mut self, compression: Option<Compressed>) {
        self.compression = compression;
    }

    /// The tunnel is open: what comes is a session.
    pub(crate) fn opened(&mut self) {
        // Of one that has come from another process nothing was to be written before, and there it has opened.
        if !std::mem::take(&mut self.written) {
            live::opened(self.client, &self.path, self.connection.tls.is_some());
            let counts = self.counts();
            counts.opened.one();
            counts.answer(self.status);
            self.count_times();
            self.hand_over(Kind::Opened { id: self.id });
        }
        self.is_session = true;
        if let Some(server) = &mut self.server {
            server.opened();
        }
    }

    /// Of a session that outlives its servers: gives away the first one, where it counts.
    pub(crate) fn take_server(&mut self) -> Option<Assignment> {
        self.server.take()
    }

    /// Of a session that outlives its servers, and leaves for another process: the one that it has.
    pub(crate) fn keeps_server(&mut self, server: Option<Assignment>) {
        self.server = server;
    }

    /// The last server of a session that has had others before, and how often it got another one.
    pub(crate) fn redialled(&mut self, server: Option<Assignment>, redials: u32) {
        self.server = server;
        self.redials = Some(redials);
    }

    /// The session ends since its client has sent more than this allows.
    pub(crate) fn exceeded(&mut self, limit: Option<RateLimit>) {
        self.limit = limit;
    }

    /// Over which the request came.
    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// The host that was asked for; empty: none.
    pub(crate) fn host(&self) -> Arc<str> {
        self.host.clone().unwrap_or_default()
    }

    /// The client's address.
    pub(crate) fn client(&self) -> IpAddr {
        self.client
    }

    /// The answer has ended: `whole`, or broken off.
    pub(crate) fn answered(&mut self, bytes: u64, whole: bool) {
        self.counts().request(self.status, self.started.elapsed());
        self.count_times();
        if self.is_omitted {
            return;
        }
        if !whole {
            self.cause("the client went away before the answer's end");
        }
        self.written = true;
        let cause = self.cause.as_deref();
        self.hand_over(Kind::Request { sent_bytes: bytes, cause });
    }

    /// The session has ended.
    pub(crate) fn session(mut self, outcome: &Outcome) {
        self.written = true;
        self.hand_over(Kind::Session { id: self.id, outcome: Ok(outcome) });
    }

    /// What its worker counts of its route, or of requests without one.
    fn counts(&self) -> &RouteCounts {
        match &self.route {
            Some(route) => route.counts().here(),
            None => &self.connection.worker.counts.unrouted,
        }
    }

    /// How long the server that was asked last took.
    fn count_times(&self) {
        let Some(server) = self.server() else { return };
        let ServerTimes { connect_us, answer_us } = self.times;
        let took = |us: NonZeroU32| Duration::from_micros(us.get().into());
        if let Some(us) = connect_us {
            server.counts().connects.add(took(us));
        }
        if let Some(us) = answer_us {
            server.counts().answers.add(took(us));
        }
    }

    fn hand_over(&self, kind: Kind<'_>) {
        if let Kind::Session { outcome, .. } = kind {
            self.counts().closed(outcome);
            self.connection.worker.counts.closed(outcome);
        }
        let tls = self.connection.tls.as_ref();
        self.connection.worker.sinks.take(&Record {
            peer: self.connection.peer,
            client: self.client,
            server_name: tls.and_then(|tls| tls.server_name.as_deref()),
            tls: tls.map(|tls| tls.version),
            negotiated: tls.and_then(|tls| tls.negotiated),
            version: self.version,
            method: &self.method,
            host: self.host.as_deref(),
            path: &self.path,
            route: self.route.as_ref().map(|route| &route.id),
            generation: self.generation,
            backend: self.asked_backend().map(|endpoint| &*endpoint.address),
            backend_protocol: self.is_over_http2.then(|| protocol(Version::HTTP_2)),
            times: self.times,
            status: self.status,
            upgrade: self.upgrade.as_deref(),
            compression: self.compression,
            request_bytes: self.received.as_ref().map(|progress| progress.bytes()),
            started: self.started,
            request_id: self.request_id.as_deref(),
            redials: self.redials,
            limit: self.limit,
            subject: self.subject(),
            kind,
        });
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.connection.worker.under_way.ended(self.version == Version::HTTP_2);
        let why = if panicking() { Cut::Panic } else { Cut::End };
        if self.written {
        } else if self.is_session {
            self.hand_over(Kind::Session { id: self.id, outcome: Err(why) });
        } else {
            self.cause(match why {
                Cut::Panic => why.cause(),
                Cut::End => "the client went away before the answer",
            });
            self.answered(0, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use http::Request;
    use net_io::count::Count;
    use tokio::task::yield_now;

    use super::*;
    use crate::site::counts::{CAUSES, place};
    use crate::telemetry::record::{Sink, Sinks};
    use crate::test_io::Scene;

    /// Keeps of each record what stopped its session, or its request.
    #[derive(Debug, Clone, Default)]
    struct Causes(Arc<Mutex<Vec<String>>>);

    impl Sink for Causes {
        fn take(&self, record: &Record<'_>) {
            let cause = match record.kind {
                Kind::Request { cause, .. } => cause.unwrap_or_default().to_owned(),
                Kind::Opened { .. } => "opened".to_owned(),
                Kind::Session { outcome, .. } => format!("{:?}", outcome.map(|outcome| &outcome.cause)),
            };
            self.0.lock().unwrap().push(cause);
        }
    }

    /// A task of a worker that panics, and one that is dropped with its worker: each session has one line, and each says
    /// what it was.
    #[tokio::test]
    async fn what_stops_in_the_middle_says_why() {
        for (panics, request, session, counted) in [
            (true, "cut: a task of the gateway panicked, which is a bug", "Err(Panic)", "panic"),
            (false, "the client went away before the answer", "Err(End)", "cut"),
        ] {
            let causes = Causes::default();
            let scene = Scene::with_sinks("", Sinks::new(vec![Box::new(causes.clone())]));
            for is_session in [false, true] {
                let mut report = Report::new(scene.connection(), &Request::new(()).into_parts().0, 1);
                let task = tokio::spawn(async move {
                    if is_session {
                        report.opened();
                    }
                    yield_now().await;
                    assert!(!panics, "as a bug would");
                    std::future::pending::<()>().await;
                    drop(report);
                });
                for _ in 0..3 {
                    yield_now().await;
                }
                task.abort();
                assert_eq!(task.await.unwrap_err().is_panic(), panics);
            }
            assert_eq!(*causes.0.lock().unwrap(), [request, "opened", session]);
            let closes = &scene.connection().worker.counts.closes[place(&CAUSES, counted)];
            assert_eq!(closes.iter().map(Count::get).sum::<u64>(), 1, "{counted}");
        }
    }
}
