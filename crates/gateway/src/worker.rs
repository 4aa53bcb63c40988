//! A worker: one thread, one current-thread runtime, the connections that it accepted. Nothing on
//! the path of a message is shared with another worker.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};
use std::{io, net};

use arc_swap::ArcSwap;
use frame_core::close::{GOING_AWAY, TRY_AGAIN_LATER};
use frame_core::control::{Manner, Order};
use http::Extensions;
use tls_acceptor::{Certificates, Waiting};
use tokio::net::TcpListener;
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Duration, interval, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::crowd::Crowd;
use crate::drained::Drained;
use crate::listener::{self, Stop};
use crate::memory::{LOOK_INTERVAL, Pressure, Relief, Share, held};
use crate::registry::{Registered, Registry, Who};
use crate::route::Route;
use crate::shortage::Shortage;
use crate::site::Site;
use crate::sweep::{self, Sweep};
use crate::upstream::pool::Pool;

/// Also the longest that a worker sleeps: a timer for later than its next turn needs no system call
/// to wake it.
const PRUNE_INTERVAL: Duration = Duration::from_secs(1);

/// Connections of a worker whose clients have said nothing yet: some 30 MB at most, with what the kernel has.
const SILENT_MAX: usize = 16_384;

/// What all connections of a worker share.
#[derive(Debug)]
pub struct Worker {
    site: Arc<ArcSwap<Site>>,
    /// The certificates in use.
    pub certificates: Arc<Certificates>,
    /// Routes and servers that are drained by order.
    drained: Arc<ArcSwap<Drained>>,
    /// Kept-alive connections to backends.
    pub pool: Arc<Pool>,
    /// Live sessions.
    pub sessions: Arc<Registry>,
    /// Connections accepted so far.
    pub accepted: Arc<AtomicU64>,
    /// What looks at the tasks of connections now and then.
    pub sweep: Arc<Sweep>,
    /// Connections and sessions: the worker ends when all of them have.
    pub tasks: TaskTracker,
    /// The gateway is about to end: connections take no more requests.
    pub draining: CancellationToken,
    /// Another process has taken over: connections end when they can do so unnoticed.
    pub retiring: CancellationToken,
    /// Connections whose clients have said nothing yet.
    pub silent: Waiting,
    /// Clients whose places were needed for others.
    pub crowd: Crowd,
    /// What all workers know of a want of descriptors.
    pub shortage: Arc<Shortage>,
    /// What it tells of its memory.
    pub pressure: Arc<Pressure>,
    /// Field names of handshakes as the RFC spells them.
    pub casing: Extensions,
}

impl Worker {
    /// One without connections.
    #[must_use]
    pub fn new(common: Common, sessions: Arc<Registry>) -> Self {
        let Common { site, certificates, drained, shortage, casing } = common;
        Self {
            site,
            certificates,
            drained,
            pool: Arc::default(),
            sessions,
            accepted: Arc::default(),
            sweep: Arc::default(),
            tasks: TaskTracker::new(),
            draining: CancellationToken::new(),
            retiring: CancellationToken::new(),
            silent: Waiting::new(SILENT_MAX),
            crowd: Crowd::default(),
            shortage,
            pressure: Arc::default(),
            casing,
        }
    }

    /// Runs a task of a connection.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(self.sweep.over(task));
    }

    /// The site in use.
    #[must_use]
    pub fn site(&self) -> Arc<Site> {
        self.site.load_full() // never a guard: arc-swap's are not for holding
    }

    /// Nothing new may go this way.
    #[must_use]
    pub fn is_drained(&self, route: &Route) -> bool {
        self.drained.load().covers(route).is_some()
    }

    /// Its part of `max_memory`; `None`: no limit.
    #[must_use]
    pub fn share(&self) -> Option<Share> {
        self.site.load().memory_max.map(|max| Share::new(max, self.sessions.workers()))
    }

    /// So much memory is held for peers that nothing new may begin.
    #[must_use]
    pub fn is_short_of_memory(&self) -> bool {
        self.share().is_some_and(|share| share.is_short(held()))
    }

    /// Registers a new session of `route`, which was found in some generation of the site. If the
    /// route has gone or is drained meanwhile, or the gateway is going, the session's end is ordered at
    /// once.
    #[must_use]
    pub fn enroll(&self, route: &Arc<Route>, who: Who) -> Registered {
        let registered = self.sessions.register(route, who);
        let site = self.site();
        let code = if self.draining.is_cancelled() || self.is_drained(route) {
            Some(site.drain.close_code)
        } else if self.is_short_of_memory() {
            self.pressure.refused.fetch_add(1, Ordering::Relaxed);
            Some(TRY_AGAIN_LATER)
        } else {
            site.sends_away(&route.id).then_some(GOING_AWAY)
        };
        if let Some(code) = code {
            let manner = Manner::AfterMessages { within: site.drain.timeout };
            registered.control().end(Order { code, manner });
        }
        registered
    }
}

/// What all workers have in common.
#[derive(Debug, Clone)]
pub struct Common {
    /// The site in use.
    pub site: Arc<ArcSwap<Site>>,
    /// The certificates in use.
    pub certificates: Arc<Certificates>,
    /// Routes and servers that are drained by order.
    pub drained: Arc<ArcSwap<Drained>>,
    /// See [`Worker::shortage`].
    pub shortage: Arc<Shortage>,
    /// See [`Worker::casing`].
    pub casing: Extensions,
}

/// What the main thread tells a worker.
#[derive(Debug)]
pub enum Command {
    /// Accept connections on this socket; `address` is what the configuration calls it.
    Listen {
        /// The key of the listener's settings.
        address: SocketAddr,
        /// Bound and listening.
        socket: net::TcpListener,
    },
    /// Accept what waits in the queue of the listener's sockets, and close them. Its connections
    /// live on.
    Unlisten {
        /// The key of the listener's settings.
        address: SocketAddr,
    },
    /// Send duplicates of the listening sockets, each with what the configuration calls it.
    Lend {
        /// Where to.
        to: mpsc::UnboundedSender<(SocketAddr, io::Result<OwnedFd>)>,
    },
    /// Drop this, to show that the worker turns.
    Turn {
        /// Nothing is sent.
        turned: mpsc::Sender<()>,
    },
    /// Accept nothing more: another process does, on the same sockets. End when the last connection
    /// and session have.
    Retire {
        /// The listeners that go on there. The others end, as with `Unlisten`.
        kept: Arc<[SocketAddr]>,
    },
    /// Accept nothing more, and end when the last connection and session have.
    Drain,
    /// End at once.
    Cut,
}

/// A running worker, as the main thread sees it.
#[derive(Debug)]
pub struct Handle {
    /// Where it takes commands.
    pub commands: mpsc::UnboundedSender<Command>,
    /// Its live sessions.
    pub sessions: Arc<Registry>,
    /// Connections it has accepted.
    pub accepted: Arc<AtomicU64>,
    /// What it tells of its memory.
    pub pressure: Arc<Pressure>,
    /// Its thread.
    pub thread: JoinHandle<()>,
}

/// Tells the main thread that a worker has ended, however it ended.
struct TellEnd(mpsc::Sender<()>);

impl Drop for TellEnd {
    fn drop(&mut self) {
        let _ = self.0.try_send(()); // there is room for every worker
    }
}

/// Starts the thread of worker `number`, counted from 0, of `workers`, which tells `end` when it ends.
///
/// # Errors
/// If the operating system has no thread or no epoll for it.
pub fn start((number, workers): (usize, usize), common: Common, end: mpsc::Sender<()>) -> io::Result<Handle> {
    let (commands, inbox) = mpsc::unbounded_channel();
    let sessions = Arc::new(Registry::new(number, workers));
    let worker = Arc::new(Worker::new(common, sessions.clone()));
    let (accepted, pressure) = (worker.accepted.clone(), worker.pressure.clone());
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = Builder::new().name(format!("worker-{number}")).spawn(move || {
        let _end = TellEnd(end);
        runtime.block_on(run(worker, inbox));
        // Whatever is still alive is dropped with the runtime: cut.
        drop(runtime);
    })?;
    Ok(Handle { commands, sessions, accepted, pressure, thread })
}

/// A socket on which connections are accepted.
struct Listening {
    address: SocketAddr,
    socket: Arc<TcpListener>,
    stop: oneshot::Sender<Stop>,
}

impl Listening {
    fn start(worker: &Arc<Worker>, address: SocketAddr, socket: net::TcpListener) -> io::Result<Self> {
        let socket = Arc::new(TcpListener::from_std(socket)?);
        let (stop, stopped) = oneshot::channel();
        let accepting = listener::accept(worker.clone(), address, socket.clone(), stopped);
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
    let mut prune = interval(PRUNE_INTERVAL);
    let mut relief = Relief::default();
    // Not two of the tasks that the worker's end waits for.
    tokio::spawn(frame_core::turns::run());
    tokio::spawn(sweep::run(worker.sweep.clone(), worker.sessions.clone()));
    loop {
        tokio::select! {
            command = inbox.recv() => match command {
                Some(Command::Listen { address, socket }) => {
                    match Listening::start(&worker, address, socket) {
                        Ok(socket) => listening.push(socket),
                        Err(e) => warn!(%address, cause = %e, "a worker can't listen"),
                    }
                }
                Some(Command::Unlisten { address }) => listening
                    .extract_if(.., |socket| socket.address == address)
                    .for_each(|socket| socket.stop(Stop::AfterQueue)),
                Some(Command::Lend { to }) => for Listening { address, socket, .. } in &listening {
                    let _ = to.send((*address, socket.as_fd().try_clone_to_owned()));
                }
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
            _ = prune.tick() => {
                worker.pool.prune();
                relief.look(&worker);
            }
            () = sleep(LOOK_INTERVAL), if relief.is_urgent => relief.look(&worker),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::path::Path;

    use tls_acceptor::load::Loaded;
    use tls_acceptor::{Certificates, Tickets};
    use tokio::time::Instant;

    use super::*;
    use crate::config::Config;
    use crate::drained::Target;

    const ROUTE: &str = "[[route]]\npath = \"/\"\nservice = \"echo\"\n";

    fn site(text: &str) -> Site {
        let (config, _) = Config::parse(Path::new("wssgate.toml"), text);
        let certificates = Certificates::new(Loaded::default(), 1);
        Site::build(&config, 1, None, &certificates, &Tickets::new().unwrap()).unwrap()
    }

    /// What a session is told that is enrolled after `before` has happened.
    fn told(text: &str, before: impl FnOnce(&Worker)) -> Option<Order> {
        let common = Common {
            site: Arc::new(ArcSwap::from_pointee(site(text))),
            certificates: Certificates::new(Loaded::default(), 1),
            drained: Arc::default(),
            shortage: Arc::default(),
            casing: Extensions::new(),
        };
        let worker = Worker::new(common, Arc::new(Registry::new(0, 1)));
        let who = Who {
            peer: (Ipv4Addr::LOCALHOST, 1).into(),
            client: Ipv4Addr::LOCALHOST.into(),
            protocol: "HTTP/1.1",
            started: Instant::now(),
        };
        // It was found before.
        let route = worker.site().all_routes()[0].clone();
        before(&worker);
        worker.enroll(&route, who).control().order()
    }

    #[tokio::test]
    async fn a_session_that_comes_too_late_is_sent_away_at_once() {
        let manner = Manner::AfterMessages { within: Duration::from_secs(30) };
        let order = |code| Some(Order { code, manner });
        assert_eq!(told(ROUTE, |_| {}), None);
        let own = format!("drain_close_code = 4000\n{ROUTE}");
        assert_eq!(told(&own, |worker| worker.draining.cancel()), order(4000));
        let drain = |worker: &Worker| {
            let target = Target::parse("/").unwrap();
            worker.drained.store(Arc::new(Drained::default().with(target)));
        };
        assert_eq!(told(&own, drain), order(4000));
        let other = ROUTE.replace("\"/\"", "\"/other\"");
        assert_eq!(told(&own, |worker| worker.site.store(Arc::new(site(&other)))), order(GOING_AWAY));
        let full = format!("workers = 1\nmax_memory = \"4MiB\"\n{ROUTE}");
        let mut buffers = Vec::new();
        let fill = |_: &Worker| buffers.extend((0..16).map(|_| frame_core::pool::Buffer::take()));
        assert_eq!(told(&full, fill), order(TRY_AGAIN_LATER));
        drop(buffers);
        assert_eq!(told(&full, |_| {}), None);
    }
}
