//! A worker: one thread, one current-thread runtime, the connections that it accepted. Nothing on
//! the path of a message is shared with another worker.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::Builder;
use std::{io, net};

use frame_core::handle::Order;
use net_io::unix_secs;
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Duration, interval, sleep};
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::context::authority;
use crate::context::counts::{WorkerCounts, on_wake};
use crate::context::progress::ProgressLines;
use crate::context::recheck;
use crate::context::registry::Registry;
use crate::context::relief::{LOOK_INTERVAL, Relief};
use crate::context::transit::{ArrivingSession, FrozenSession};
use crate::context::under_way::UnderWay;
use crate::context::{Common, Worker};
use crate::edge::listener::{self, Accepting, Stop};
use crate::net::budget::Pressure;
use crate::net::listening::ListenAddress;
use crate::net::sweep::{self};
use crate::request::file::kept;
use crate::request::redial::moved::read as read_redialer;
use crate::session::arrivals::{Arrivals, go_back};
use crate::telemetry::pending;
use crate::upstream::http2::connections::Connections;

/// Also the longest that a worker sleeps: a timer for later than its next turn needs no system call
/// to wake it.
const PRUNE_INTERVAL: Duration = Duration::from_secs(1);

/// Commands of the main thread to a worker.
#[derive(Debug)]
pub(crate) enum Command {
    /// Accept connections on this socket; `address` is what the configuration calls it. A Unix socket has the same
    /// type: the standard library makes one of any descriptor.
    Listen {
        /// The key of the listener's settings.
        address: ListenAddress,
        /// Bound and listening.
        socket: net::TcpListener,
    },
    /// Accept what waits in the queue of the listener's sockets, and close them. Its connections
    /// live on.
    Unlisten {
        /// The key of the listener's settings.
        address: ListenAddress,
    },
    /// Send duplicates of the listening sockets, each with what the configuration calls it.
    Lend {
        /// Where to.
        to: mpsc::UnboundedSender<(ListenAddress, io::Result<OwnedFd>)>,
    },
    /// Put sessions of another process together, and wait with them.
    Take {
        /// They come from another process.
        sessions: Vec<ArrivingSession>,
        /// Gets the places of those that can't be put together, and why.
        refused: oneshot::Sender<Vec<(usize, String)>>,
    },
    /// The sessions that were taken go on.
    Begin {
        /// Those of the batch that were ordered to end, by their places.
        orders: HashMap<usize, Order>,
        /// Gets how long each was frozen.
        frozen: oneshot::Sender<Vec<Duration>>,
    },
    /// Go on with a session of this worker that no other process has taken.
    GoBack(FrozenSession),
    /// Drop this, to show that the worker's loop runs.
    Turn {
        /// Nothing is sent.
        turned: mpsc::Sender<()>,
    },
    /// Accept no more connections: another process does, on the same sockets. End when the last connection
    /// and session have.
    Retire {
        /// The listeners that go on there. The others end, as with `Unlisten`.
        kept: Arc<[ListenAddress]>,
    },
    /// Accept no more connections, and end when the last connection and session have ended.
    Drain,
    /// End at once.
    Cut,
}

/// A running worker, as the main thread sees it.
#[derive(Debug)]
pub(crate) struct Handle {
    /// Where it takes commands.
    pub commands: mpsc::UnboundedSender<Command>,
    /// Its live sessions.
    pub sessions: Arc<Registry>,
    /// Connections it has accepted.
    pub accepted: Arc<AtomicU64>,
    /// What it counts of itself.
    pub counts: Arc<WorkerCounts>,
    /// Its connections over HTTP/2 to backends.
    pub http2: Arc<Connections>,
    /// Its use of memory.
    pub pressure: Arc<Pressure>,
    /// Its connections and sessions.
    pub tasks: TaskTracker,
    /// What it has to do beside its sessions.
    pub under_way: Arc<UnderWay>,
}

/// Notifies the main thread that a worker has ended, also by a panic.
struct TellEnd(mpsc::Sender<()>);

impl Drop for TellEnd {
    fn drop(&mut self) {
        let _ = self.0.try_send(()); // there is room for every worker
    }
}

/// Starts the thread of worker `number`, counted from 0, of `workers`, which sends to `end` when it ends.
///
/// # Errors
/// If the operating system has no thread or no epoll for it.
pub(crate) fn start(
    (number, workers): (usize, usize),
    common: Common,
    end: mpsc::Sender<()>,
) -> io::Result<Handle> {
    let (commands, inbox) = mpsc::unbounded_channel();
    let sessions = Arc::new(Registry::new(number, workers));
    let worker = Arc::new(Worker::new(common, sessions.clone()));
    let (accepted, pressure) = (worker.accepted.clone(), worker.pressure.clone());
    let counts = worker.counts.clone();
    let http2 = worker.http2.clone();
    let (tasks, under_way) = (worker.tasks.clone(), worker.under_way.clone());
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_park(pending::flush)
        .on_thread_unpark(on_wake)
        .build()?;
    Builder::new().name(format!("worker-{number}")).spawn(move || {
        let _end = TellEnd(end);
        let _lines = pending::begin();
        net_io::count::begin(number, workers);
        let runtime = runtime; // whatever is still alive is dropped with it, first of the three: cut
        runtime.block_on(run(worker, inbox));
    })?;
    Ok(Handle { commands, sessions, accepted, counts, http2, pressure, tasks, under_way })
}

/// A socket on which connections are accepted.
struct Listening {
    address: ListenAddress,
    socket: Arc<Accepting>,
    stop: oneshot::Sender<Stop>,
}

impl Listening {
    fn start(worker: &Arc<Worker>, address: ListenAddress, socket: net::TcpListener) -> io::Result<Self> {
        let socket = Arc::new(Accepting::new(&address, socket)?);
        let (stop, stopped) = oneshot::channel();
        let accepting = listener::accept(worker.clone(), address.clone(), socket.clone(), stopped);
        // Counted: what waits in a queue when it is closed is still to be served.
        worker.tasks.spawn(accepting);
        Ok(Self { address, socket, stop })
    }

    fn stop(self, how: Stop) {
        let _ = self.stop.send(how);
    }
}

async fn run(worker: Arc<Worker>, mut inbox: mpsc::UnboundedReceiver<Command>) {
    let mut listening: Vec<Listening> = Vec::new();
    worker.counts.begin();
    let mut prune = interval(PRUNE_INTERVAL);
    let mut relief = Relief::default();
    let mut lines = ProgressLines::new();
    let mut arrivals = Arrivals::default();
    // Not two of the tasks that the worker's end waits for.
    tokio::spawn(frame_core::fair_queue::run());
    let sessions = worker.sessions.clone();
    tokio::spawn(sweep::run(worker.sweep.clone(), move || sessions.handles()));
    loop {
        tokio::select! {
            command = inbox.recv() => match command {
                Some(Command::Listen { address, socket }) => {
                    match Listening::start(&worker, address.clone(), socket) {
                        Ok(socket) => listening.push(socket),
                        Err(e) => warn!(%address, cause = %e, "a worker can't listen"),
                    }
                }
                Some(Command::Unlisten { address }) => listening
                    .extract_if(.., |socket| socket.address == address)
                    .for_each(|socket| socket.stop(Stop::AfterQueue)),
                Some(Command::Lend { to }) => for Listening { address, socket, .. } in &listening {
                    let _ = to.send((address.clone(), socket.as_fd().try_clone_to_owned()));
                }
                Some(Command::Take { sessions, refused }) => {
                    let _ = refused.send(arrivals.take(&worker, sessions, read_redialer));
                }
                Some(Command::Begin { orders, frozen }) => {
                    let _ = frozen.send(arrivals.begin(&worker, &orders));
                }
                Some(Command::GoBack(frozen)) => go_back(&worker, frozen, read_redialer),
                Some(Command::Turn { turned }) => drop(turned),
                Some(Command::Retire { kept }) => {
                    for socket in listening.drain(..) {
                        let how = if kept.contains(&socket.address) { Stop::AtOnce } else { Stop::AfterQueue };
                        socket.stop(how);
                    }
                    worker.retiring.cancel();
                    worker.tasks.close();
                }
                Some(Command::Drain) => {
                    listening.drain(..).for_each(|socket| socket.stop(Stop::AtOnce));
                    worker.draining.cancel();
                    worker.tasks.close();
                }
                Some(Command::Cut) | None => return,
            },
            () = worker.tasks.wait() => return, // closed and empty
            due = prune.tick() => {
                worker.counts.look(due.elapsed());
                pending::flush(); // it may never sleep
                worker.pool.prune();
                kept::prune();
                worker.auth_pool.prune();
                authority::end_expired(&worker.sessions, unix_secs());
                recheck::begin_due(&worker);
                lines.look(&worker);
                worker.http2.prune();
                relief.look(&worker.pressure, worker.share(), &worker.sessions);
            }
            () = sleep(LOOK_INTERVAL), if relief.is_urgent => relief.look(&worker.pressure, worker.share(), &worker.sessions),
        }
    }
}
