//! The gateway's end of the control socket.
//!
//! What is only looked at is answered here, from the [`Overview`]; what changes something goes to
//! the main loop as an [`OperationRequest`], one after the other with reloads. Few clients at a time, requests
//! of bounded length, and answers that are written as they are read.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use frame_core::handle::{EndMode, Order};
use frame_core::outcome::Snapshot;
use net_io::unix_now;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, warn};

use crate::context::authority;
use crate::context::redial::SessionRedial;
use crate::context::registry::{Entry, SessionOpener};
use crate::net::clock;
use crate::net::listening::{ClientName, PeerName};
use crate::ops::control::protocol::{
    ControlResponse, ExpiryInfo, NameInfo, REQUEST_LEN_MAX, Request, RouteInfo, ServerInfo, SessionInfo,
    SessionLine, Status, TrafficInfo, UpstreamInfo,
};
use crate::ops::control::socket::{Prepared, SocketClaim, SocketError};
use crate::ops::control::tap;
use crate::ops::control::targets::unhidden;
use crate::ops::overview::{LifecycleStage, Overview};
use crate::ops::reserve::AcceptRetry;
use crate::site::drained::DrainTarget;
use crate::site::endpoint::Endpoint;
use crate::site::known_name::KnownName;
use crate::site::server::ServerState;
use crate::site::upstream::{Protocol, Upstream};
use crate::site::{self, Site};
use crate::telemetry::log;

/// Clients at a time; more wait.
const CLIENTS_MAX: usize = 16;
/// How long a client may take for a request.
const REQUEST_TIME: Duration = Duration::from_secs(60);
/// How long a client may take none of its answer.
const WRITE_TIME: Duration = Duration::from_secs(10);
/// Sessions that are asked together what they have carried, and how long they have to answer.
const SESSIONS_AT_ONCE: usize = 256;
const SESSION_TIME: Duration = Duration::from_millis(200);
/// Demands that wait for the main loop.
pub const DEMANDS_MAX: usize = 16;

/// What only the main loop can do.
#[derive(Debug)]
pub struct OperationRequest {
    /// What is wanted.
    pub what: Operation,
    /// Where the answer goes.
    pub reply: oneshot::Sender<ControlResponse>,
}

/// What an [`OperationRequest`] is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Read all files again.
    Reload,
    /// This.
    Change(Change),
    /// End as at SIGTERM, which the process before this one got.
    End,
}

/// What is done at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Send sessions away, and let no new ones come.
    Drain(DrainTarget),
    /// Let them come again.
    Undrain(DrainTarget),
    /// Close sessions, while they move to another process.
    Close(Request),
}

/// What answers are made of.
#[derive(Debug, Clone)]
pub struct Access {
    /// For what is only looked at.
    pub overview: Arc<Overview>,
    /// For everything else.
    pub demands: mpsc::Sender<OperationRequest>,
}

impl Access {
    /// Obeys a command that changes something.
    pub async fn change(&self, request: &Request) -> ControlResponse {
        match request.command.as_str() {
            "reload" => self.demand(Operation::Reload).await,
            "drain" => self.demand_of(request, Change::Drain).await,
            "undrain" => self.demand_of(request, Change::Undrain).await,
            // Another process has some of the sessions, and only the main loop can ask it.
            "close" if self.overview.is_moving() => {
                self.demand(Operation::Change(Change::Close(request.clone()))).await
            }
            "close" => close(&self.overview, request),
            other => ControlResponse::error(format!(
                "unknown command {other:?}; this is wssgate {}, which knows status, sessions, upstreams, tap, \
                 reload, drain, undrain and close",
                env!("CARGO_PKG_VERSION")
            )),
        }
    }

    /// Ends the process as at SIGTERM.
    pub async fn end(&self) {
        let (reply, _) = oneshot::channel(); // nothing is answered
        let _ = self.demands.send(OperationRequest { what: Operation::End, reply }).await; // it ends already
    }

    async fn demand_of(
        &self,
        request: &Request,
        want: impl FnOnce(DrainTarget) -> Change,
    ) -> ControlResponse {
        let site = self.overview.site.load_full();
        let named = |target: &str| DrainTarget::parse(&unhidden(&site, target), site.all_routes());
        match request.target.as_deref().map(named) {
            Some(Ok(target)) => self.demand(Operation::Change(want(target))).await,
            Some(Err(why)) => ControlResponse::error(why),
            None => {
                ControlResponse::error(format!("{} needs a target: a route or a backend", request.command))
            }
        }
    }

    async fn demand(&self, what: Operation) -> ControlResponse {
        let (reply, answer) = oneshot::channel();
        // The main loop listens until the gateway drains, or another process has taken over.
        let _ = self.demands.send(OperationRequest { what, reply }).await;
        answer.await.unwrap_or_else(|_| {
            ControlResponse::error(match self.overview.stage() {
                LifecycleStage::Retired => "another process has just taken over; give the command again",
                _ => "this process is ending and accepts no more changes",
            })
        })
    }
}

/// A control socket that has not taken its path yet.
#[derive(Debug)]
pub struct PendingControl(Prepared);

/// The control socket at work. When it is dropped, its path goes if it still is its own; who waits for an
/// answer gets it, and no other client does.
#[derive(Debug)]
pub struct Control {
    claim: SocketClaim,
    /// After the claim: as long as the listener is open, the claim's inode is its own.
    _stop: DropGuard,
}

impl PendingControl {
    /// Does all that can fail; see [`Prepared::new`].
    ///
    /// # Errors
    /// The operating system's error.
    pub fn prepare(path: &Path) -> Result<Self, SocketError> {
        Prepared::new(path).map(Self)
    }

    /// The path that it will take.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes the path, and answers from now on.
    ///
    /// # Errors
    /// If the path can't be taken after all.
    pub fn serve(self, access: Access) -> Result<Control, SocketError> {
        let (listener, claim) = self.0.claim()?;
        let stop = CancellationToken::new();
        tokio::spawn(accept(listener, claim.path().to_owned(), access, claim.owner, stop.clone()));
        Ok(Control { claim, _stop: stop.drop_guard() })
    }
}

impl Control {
    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.claim.path()
    }
}

async fn accept(listener: UnixListener, path: PathBuf, access: Access, owner: u32, stop: CancellationToken) {
    let listing = Arc::<Mutex<()>>::default();
    let mut clients = JoinSet::new();
    let places = Arc::new(Semaphore::new(CLIENTS_MAX));
    let mut retry = AcceptRetry::new(
        access.overview.reserve.clone(),
        access.overview.shortage.clone(),
        path.display().to_string(),
    );
    loop {
        let accepting = async {
            retry.ready().await;
            let permit = places.clone().acquire_owned().await.map_err(io::Error::other)?;
            listener.accept().await.map(|(stream, _)| (stream, permit))
        };
        tokio::select! {
            accepted = accepting => match accepted {
                Ok((stream, permit)) if may_enter(&stream, owner) => {
                    retry.accepted();
                    let (access, listing, stop) = (access.clone(), listing.clone(), stop.clone());
                    let client = ControlClient::new(stream, access, listing, stop, permit);
                    clients.spawn(async move {
                        if let Err(e) = client.serve_requests().await {
                            debug!(cause = %e, "control connection ended");
                        }
                    });
                }
                Ok(_) => retry.freed(),
                Err(e) => retry.failed(&e),
            },
            Some(_) = clients.join_next() => retry.freed(),
            () = stop.cancelled() => break,
        }
    }
    drop(listener);
    while clients.join_next().await.is_some() {}
}

/// The mode of the socket admits no other user, but the mode may have been changed.
fn may_enter(stream: &UnixStream, owner: u32) -> bool {
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == owner || peer.uid() == 0 => true,
        Ok(peer) => {
            warn!(uid = peer.uid(), pid = peer.pid(), "a control connection from another user was refused");
            false
        }
        Err(_) => false,
    }
}

/// One connection.
struct ControlClient {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    access: Access,
    /// Sessions are asked by one client at a time: a second question would take the place of the first.
    listing: Arc<Mutex<()>>,
    /// No request is taken any more.
    stop: CancellationToken,
    /// One of [`CLIENTS_MAX`].
    permit: Option<OwnedSemaphorePermit>,
}

impl ControlClient {
    fn new(
        stream: UnixStream,
        access: Access,
        listing: Arc<Mutex<()>>,
        stop: CancellationToken,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let (read, write) = stream.into_split();
        Self { read: BufReader::new(read), write, access, listing, stop, permit: Some(permit) }
    }

    async fn serve_requests(mut self) -> io::Result<()> {
        let mut line = Vec::new();
        loop {
            line.clear();
            let limit = REQUEST_LEN_MAX as u64 + 1;
            let mut request = (&mut self.read).take(limit);
            tokio::select! {
                read = timeout(REQUEST_TIME, request.read_until(b'\n', &mut line)) => drop(read??),
                () = self.stop.cancelled() => return Ok(()),
            }
            if line.is_empty() {
                return Ok(());
            }
            if line.len() > REQUEST_LEN_MAX {
                let why = format!("a request is one line of {REQUEST_LEN_MAX} bytes at most");
                return self.write_response(&ControlResponse::error(why)).await;
            }
            let answer = match serde_json::from_slice(&line) {
                Ok(request) => self.answer(&request).await?,
                Err(e) => ControlResponse::error(format!(
                    "expected a request such as {{\"command\":\"status\"}} on one line: {e}"
                )),
            };
            self.write_response(&answer).await?;
        }
    }

    async fn answer(&mut self, request: &Request) -> io::Result<ControlResponse> {
        Ok(match request.command.as_str() {
            "status" => {
                ControlResponse { status: Some(status(&self.access.overview)), ..ControlResponse::done() }
            }
            "sessions" => self.list().await?,
            "upstreams" => ControlResponse {
                upstreams: Some(upstreams(&self.access.overview)),
                ..ControlResponse::done()
            },
            "tap" => {
                self.permit = None; // others may come: taps are counted by themselves
                let Self { read, write, access, stop, .. } = self;
                tap::serve::serve(&access.overview, request, read, write, stop).await?
            }
            _ => self.access.change(request).await,
        })
    }

    /// A line for every live session.
    async fn list(&mut self) -> io::Result<ControlResponse> {
        let registries = &self.access.overview.sessions;
        let mut ids: Vec<u64> = registries.iter().flat_map(|registry| registry.ids()).collect();
        ids.sort_unstable();
        let mut count = 0;
        for ids in ids.chunks(SESSIONS_AT_ONCE) {
            let overview = &self.access.overview;
            let one_at_a_time = self.listing.lock().await;
            let asked: Vec<_> = ids
                .iter()
                .filter_map(|&id| {
                    overview.session(id).map(|entry| (id, entry.handle.request_snapshot(), Seen::from(entry)))
                })
                .collect();
            let deadline = Instant::now() + SESSION_TIME;
            let mut lines = Vec::new();
            let site = overview.site.load_full();
            for (id, answer, seen) in asked {
                let snapshot = timeout_at(deadline, answer).await;
                let mut session = seen.session(id, snapshot.ok().and_then(Result::ok));
                session.route = site.hidden.hide(&session.route);
                session.to = site.hidden.hide(&session.to);
                append(&mut lines, &SessionLine { session })?;
                count += 1;
            }
            drop(one_at_a_time); // a client that doesn't read must not block the others
            self.write(&lines).await?;
        }
        Ok(ControlResponse { sessions: Some(count), ..ControlResponse::done() })
    }

    async fn write_response(&mut self, answer: &ControlResponse) -> io::Result<()> {
        let mut line = Vec::new();
        append(&mut line, answer)?;
        self.write(&line).await
    }

    async fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match timeout(WRITE_TIME, self.write.write(bytes)).await?? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => bytes = &bytes[n..],
            }
        }
        Ok(())
    }
}

fn append(lines: &mut Vec<u8>, line: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *lines, line)?;
    lines.push(b'\n');
    Ok(())
}

/// What is known of a session without asking it; nothing of it keeps the session's end from being
/// seen.
struct Seen {
    session: SessionInfo,
    started: Instant,
}

impl From<Entry> for Seen {
    fn from(Entry { handle, route, who, .. }: Entry) -> Self {
        let is_ordered = handle.order().is_some();
        let status = who.redial.status();
        let is_searching = status.is_some_and(|status| status.is_searching());
        let no_redial = match &who.redial {
            SessionRedial::Unable(why) => Some((*why).to_owned()),
            SessionRedial::Off | SessionRedial::On(_) => None,
        };
        Self {
            session: SessionInfo {
                peer: PeerName(who.peer).to_string(),
                client: ClientName(who.client).to_string(),
                route: route.id.to_string(),
                to: route.action.to_string(),
                protocol: who.protocol.to_owned(),
                subject: who.subject().map(Into::into),
                state: match (is_ordered, is_searching) {
                    (false, true) => "redialling",
                    (false, false) if handle.is_delayed() => "delayed",
                    _ => state(is_ordered),
                }
                .to_owned(),
                redials: status.map(|status| status.redials()),
                no_redial,
                ..SessionInfo::default()
            },
            started: who.started,
        }
    }
}

impl Seen {
    fn session(self, id: u64, snapshot: Option<Snapshot>) -> SessionInfo {
        let mut session = SessionInfo { id, age_ms: millis(self.started.elapsed()), ..self.session };
        if let Some(Snapshot { from_client, from_backend, idle, is_closing, .. }) = snapshot {
            if is_closing {
                session.state = state(true).to_owned();
            }
            session.traffic = Some(TrafficInfo {
                // By another clock than the age, which it must not exceed.
                idle_ms: millis(idle).min(session.age_ms),
                received_messages: from_client.messages,
                received_bytes: from_client.payload_bytes,
                sent_messages: from_backend.messages,
                sent_bytes: from_backend.payload_bytes,
            });
        }
        session
    }
}

fn state(is_closing: bool) -> &'static str {
    if is_closing { "closing" } else { "open" }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn close(overview: &Overview, request: &Request) -> ControlResponse {
    let Request { id, subject, client, .. } = request;
    let id = match (*id, subject, client) {
        (Some(id), None, None) => id,
        (None, Some(subject), None) => {
            return close_all(overview, |who| who.subject() == Some(&**subject));
        }
        (None, None, Some(client)) => {
            return close_all(overview, |who| who.client.to_canonical() == client.to_canonical());
        }
        _ => return ControlResponse::error("close needs the id of a session, a subject, or a client"),
    };
    let Some(entry) = overview.session(id) else {
        return ControlResponse::error(format!(
            "there is no live session {id}; `wssgate sessions` lists them"
        ));
    };
    let site::Drain { timeout, close_code: code, .. } = overview.site.load().drain;
    if !entry.handle.end(Order { code, mode: EndMode::AfterMessages { within: timeout } }) {
        return ControlResponse::error(format!(
            "session {id} has moved to another process; try again when the takeover is done"
        ));
    }
    ControlResponse { closed: Some(id), ..ControlResponse::done() }
}

/// The sessions of these clients are no longer allowed.
fn close_all(overview: &Overview, chosen: impl Fn(&SessionOpener) -> bool) -> ControlResponse {
    let entries = overview.sessions.iter().flat_map(|registry| registry.select(|entry| chosen(&entry.who)));
    let count = entries.map(|entry| authority::end(&entry)).count();
    ControlResponse { closed_sessions: Some(count), ..ControlResponse::done() }
}

fn upstreams(overview: &Overview) -> Vec<UpstreamInfo> {
    let site = overview.site.load_full();
    let now = clock::now();
    let server = |upstream: &Upstream, (endpoint, weight): (&Endpoint, u32), state: &Arc<ServerState>| {
        let probe = state.last_probe();
        let is_http2 = upstream.connector.protocol == Protocol::Http2;
        let http2 = is_http2.then(|| overview.http2(endpoint));
        ServerInfo {
            server: site.hidden.hide(&state.endpoint.to_string()),
            weight,
            state: state.state(now).to_owned(),
            why: state.why(now).map(|why| site.hidden.hide(&why)),
            sessions: state.sessions(),
            in_flight: state.live().saturating_sub(state.sessions()),
            requests: state.requests(),
            failures: state.failures(),
            http2_connections: http2.map(|counts| counts.connections),
            http2_streams: http2.map(|counts| counts.streams),
            probed_ms: probe.as_ref().map(|probe| millis(now.saturating_sub(probe.at))),
            probe_problem: probe.and_then(|probe| probe.problem).map(Into::into),
        }
    };
    let upstreams = site.upstreams().into_iter().map(|upstream| {
        let (current, left) = (upstream.current(), upstream.left());
        let configured = current.servers.iter().map(|server| (&*server.endpoint, server.weight.get()));
        let left = left.iter().map(|server| ((&*server.endpoint, 0), server));
        let servers = configured.zip(current.states()).chain(left);
        UpstreamInfo {
            upstream: site.hidden.hide(&upstream.to_string()),
            balance: upstream.balance.to_string(),
            waiting: upstream.waiting(),
            servers: servers.map(|(one, state)| server(upstream, one, state)).collect(),
            names: upstream.names().into_iter().map(|name| name_info(name, &site, now)).collect(),
        }
    });
    upstreams.collect()
}

fn name_info(name: &KnownName, site: &Site, now: Duration) -> NameInfo {
    let last = name.last();
    let (lookups, failures) = name.counts();
    NameInfo {
        name: site.hidden.hide(&name.question.to_string()),
        found: name.found().map(|found| found.list()).unwrap_or_default(),
        resolved_ms: last.resolved.map(|at| millis(now.saturating_sub(at))),
        lookups,
        failures,
        problem: last.problem.map(Into::into),
    }
}

fn status(overview: &Overview) -> Status {
    let site = overview.site.load_full();
    let drained = overview.drained.load_full();
    let mut counts = overview.live_by_route();
    let mut routes: Vec<RouteInfo> = site
        .all_routes()
        .iter()
        .map(|route| RouteInfo {
            route: site.hidden.hide(route.id.as_str()),
            to: site.hidden.hide(&route.action.to_string()),
            sessions: counts.remove(&route.id).unwrap_or_default(),
            state: if drained.covers(route).is_some() { "drained" } else { "served" }.to_owned(),
        })
        .collect();
    routes.extend(counts.into_iter().map(|(id, sessions)| RouteInfo {
        route: site.hidden.hide(id.as_str()),
        to: "-".to_owned(),
        sessions,
        state: "gone".to_owned(),
    }));
    let certificates = overview.certificates.current();
    let now = unix_now();
    let names = certificates.loaded.set.names();
    let nearest =
        names.flat_map(|(name, entry)| entry.iter().map(move |c| (c.leaf.not_after, name.clone(), c)));
    let nearest = nearest.min_by(|(a, ..), (b, ..)| a.cmp(b));
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        state: overview.readiness().1,
        uptime_s: overview.started.elapsed().as_secs(),
        workers: overview.sessions.len(),
        generation: overview.generation(),
        reloads_taken: overview.reloads_taken.load(Ordering::Relaxed),
        reloads_refused: overview.reloads_refused.load(Ordering::Relaxed),
        connections_accepted: overview.accepted(),
        connections: overview.quotas.connections.load(Ordering::Relaxed),
        connections_max: site.connections_max,
        sessions: overview.live(),
        listeners: site.addresses().iter().map(|address| site.hidden.hide(&address.to_string())).collect(),
        routes,
        upstreams: upstreams(overview),
        drained: drained.iter().map(|target| site.hidden.hide(&target.to_string())).collect(),
        nearest_expiry: nearest
            .map(|(_, name, c)| ExpiryInfo { name: name.to_string(), days: c.leaf.days_left(now) }),
        log_lines_lost: log::lines_lost() + overview.access_log.lines_lost(),
        acme: overview.acme.certificates(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check is on the peer's user as the kernel knows it, not on the mode of the socket, which may have been changed.
    #[tokio::test]
    async fn a_stranger_is_not_listened_to() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("control.sock");
        let listener = UnixListener::bind(&path).unwrap();
        for path in [directory.path(), &path] {
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        }
        let own = rustix::process::getuid().as_raw();
        let connect = async |uid: u32| {
            let path = path.clone();
            // Root connects as another user. A test that doesn't run as root can't; its user is refused by others anyway.
            let connecting = std::thread::spawn(move || {
                if own == 0 {
                    rustix::thread::set_thread_res_uid(None, Some(rustix::process::Uid::from_raw(uid)), None)
                        .unwrap();
                }
                std::os::unix::net::UnixStream::connect(path).unwrap()
            });
            let (accepted, _) = listener.accept().await.unwrap();
            (accepted, connecting.join().unwrap())
        };
        let other = if own == 0 { 65534 } else { own };
        let (accepted, _client) = connect(other).await;
        assert_eq!(accepted.peer_cred().unwrap().uid(), other);
        assert!(!may_enter(&accepted, other + 1));
        assert!(may_enter(&accepted, other));
        let (accepted, _client) = connect(own).await;
        assert!(may_enter(&accepted, own));
        assert_eq!(may_enter(&accepted, own + 1), own == 0, "root may");
    }
}
