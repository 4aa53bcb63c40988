//! The gateway's end of the control socket.
//!
//! What is only looked at is answered here, from the [`Overview`]; what changes something goes to
//! the main loop as an [`OperationRequest`], one after the other with reloads. Few clients at a time, requests
//! of bounded length, and answers that are written as they are read.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use frame_core::handle::{EndMode, Order};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, warn};

use crate::context::authority;
use crate::context::registry::SessionOpener;
use crate::ops::control::ask::{self, SESSIONS_AT_ONCE, ask};
use crate::ops::control::protocol::{ControlResponse, REQUEST_LEN_MAX, Request, SessionLine};
use crate::ops::control::socket::{Prepared, SocketClaim, SocketError};
use crate::ops::control::status::{status, upstreams};
use crate::ops::control::tap;
use crate::ops::control::targets::unhidden;
use crate::ops::overview::{LifecycleStage, Overview};
use crate::ops::reserve::AcceptRetry;
use crate::site;
use crate::site::drained::DrainTarget;

/// Clients at a time; more wait.
const CLIENTS_MAX: usize = 16;
/// How long a client may take for a request.
const REQUEST_TIME: Duration = Duration::from_secs(60);
/// How long a client may take none of its answer.
const WRITE_TIME: Duration = Duration::from_secs(10);
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
                    let client = ControlClient::new(stream, access.clone(), stop.clone(), permit);
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
    /// No request is taken any more.
    stop: CancellationToken,
    /// One of [`CLIENTS_MAX`].
    permit: Option<OwnedSemaphorePermit>,
}

impl ControlClient {
    fn new(
        stream: UnixStream,
        access: Access,
        stop: CancellationToken,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let (read, write) = stream.into_split();
        Self { read: BufReader::new(read), write, access, stop, permit: Some(permit) }
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
        let mut count = 0;
        for ids in ask::ids(&self.access.overview).chunks(SESSIONS_AT_ONCE) {
            let mut lines = Vec::new();
            for session in ask(&self.access.overview, ids).await {
                append(&mut lines, &SessionLine { session })?;
                count += 1;
            }
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
