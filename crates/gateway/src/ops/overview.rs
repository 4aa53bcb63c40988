//! What of the running gateway can be seen from outside of its workers: by the admin listener, and
//! by the control socket. Nothing in it is touched by the path of a message.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tls_acceptor::Certificates;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use crate::context::counts::WorkerCounts;
use crate::context::quotas::Quotas;
use crate::context::registry::{Entry, Registry};
use crate::context::taps::Taps;
use crate::net::budget::Pressure;
use crate::net::shortage::Shortage;
use crate::ops::acme::AcmeOverview;
use crate::ops::ends::SessionEnds;
use crate::ops::listener_sockets::ListenerSockets;
use crate::ops::reloads::ReloadHistory;
use crate::ops::reserve::DescriptorReserve;
use crate::site::Site;
use crate::site::drained::Drained;
use crate::site::endpoint::Endpoint;
use crate::site::known_name::Names;
use crate::site::route_id::RouteId;
use crate::telemetry::access::AccessLog;
use crate::upstream::http2::connections::{Connections, Http2Counts};

/// How far the gateway has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LifecycleStage {
    /// It does not listen everywhere yet.
    Starting,
    /// It serves.
    Ready,
    /// Another process has taken over: this one keeps its connections. A client that asked it just before is
    /// told of the service, which is ready.
    Retired,
    /// It is about to drain: it accepts connections, but wants no more to be sent to it.
    Leaving,
    /// It accepts nothing more, and ends with its last session.
    Draining,
}

impl LifecycleStage {
    /// New connections are welcome.
    #[must_use]
    pub fn is_ready(self) -> bool {
        matches!(self, Self::Ready | Self::Retired)
    }

    /// A short sentence, the answer of /readyz.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Retired => "ready: another process has taken over",
            Self::Leaving => "about to drain: connections are still accepted",
            Self::Draining => "draining: no new connections are accepted",
        }
    }
}

/// What takeovers have done with sessions.
#[derive(Debug, Default)]
pub struct MoveTotals {
    /// They came from the old process.
    pub taken: AtomicU64,
    /// A new process that failed had taken them.
    pub lost: AtomicU64,
    /// They stayed in the old process, by reason.
    pub left: Mutex<BTreeMap<String, usize>>,
    /// Some are on their way to a new process, and it has others already.
    pub is_going_on: AtomicBool,
}

/// The running gateway, seen from outside.
#[derive(Debug)]
pub struct Overview {
    /// What is served.
    pub site: Arc<ArcSwap<Site>>,
    /// The certificates in use.
    pub certificates: Arc<Certificates>,
    /// Routes and servers that are drained by order.
    pub drained: Arc<ArcSwap<Drained>>,
    /// Live sessions, worker by worker.
    pub sessions: Vec<Arc<Registry>>,
    /// What each worker counts of itself.
    pub counts: Vec<Arc<WorkerCounts>>,
    /// Connections accepted so far, worker by worker.
    pub accepted: Vec<Arc<AtomicU64>>,
    /// Each worker's connections over HTTP/2 to backends.
    pub http2: Vec<Arc<Connections>>,
    /// Each worker's use of memory.
    pub pressure: Vec<Arc<Pressure>>,
    /// What all listeners know of a want of descriptors.
    pub shortage: Arc<Shortage>,
    /// The names of servers, and what was found.
    pub names: Arc<Names>,
    /// How much clients use.
    pub quotas: Arc<Quotas>,
    /// Lines of requests and sessions.
    pub access_log: AccessLog,
    /// What is kept back for those who ask.
    pub reserve: Arc<DescriptorReserve>,
    /// Certificates that are ordered.
    pub acme: Arc<AcmeOverview>,
    /// Reloads that took.
    pub reloads_taken: AtomicU64,
    /// Reloads that changed nothing.
    pub reloads_refused: AtomicU64,
    /// The last reload was refused.
    pub is_reload_refused: AtomicBool,
    /// Sessions that came from another process, or were to go to one.
    pub moves: MoveTotals,
    /// Sessions that are watched.
    pub taps: Arc<Taps>,
    /// Held by who asks sessions what they have carried: a second question would take the place of the first.
    pub(crate) asking: AsyncMutex<()>,
    /// Sessions that have ended, if there is a page that shows them.
    pub(crate) ends: SessionEnds,
    /// The last reloads.
    pub(crate) reloads: ReloadHistory,
    /// The Unix sockets of its listeners.
    pub(crate) sockets: ListenerSockets,
    /// When the process was started.
    pub started: Instant,
    /// How far it has come.
    pub stage: Mutex<LifecycleStage>,
}

impl Overview {
    /// How far the gateway has come.
    #[must_use]
    pub fn stage(&self) -> LifecycleStage {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether new connections are welcome and find the gateway; and a sentence about that.
    #[must_use]
    pub fn readiness(&self) -> (bool, String) {
        let stage = self.stage();
        match self.sockets.first_lost().filter(|_| stage == LifecycleStage::Ready) {
            Some(address) => {
                (false, format!("the socket {address} has been removed or replaced: a reload makes it again"))
            }
            None => (stage.is_ready(), stage.as_str().to_owned()),
        }
    }

    /// It has come so far.
    pub fn enter(&self, stage: LifecycleStage) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    /// The number of the configuration or of the certificates in use, whichever came last.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.site.load().generation.max(self.certificates.current().generation)
    }

    /// Sessions move to another process at the moment.
    #[must_use]
    pub fn is_moving(&self) -> bool {
        self.moves.is_going_on.load(Ordering::Relaxed)
    }

    /// Live sessions.
    #[must_use]
    pub fn live(&self) -> usize {
        self.sessions.iter().map(|sessions| sessions.len()).sum()
    }

    /// One session, if it lives.
    #[must_use]
    pub fn session(&self, id: u64) -> Option<Entry> {
        self.sessions.iter().find_map(|sessions| sessions.get(id))
    }

    /// Live sessions by route: all routes that are served, and those that have gone and left some.
    #[must_use]
    pub fn live_by_route(&self) -> HashMap<RouteId, usize> {
        let mut counts = self.site.load_full().route_ids().iter().map(|id| (id.clone(), 0)).collect();
        self.sessions.iter().for_each(|sessions| sessions.count(&mut counts));
        counts
    }

    /// Connections over HTTP/2 to a backend, and their streams.
    #[must_use]
    pub fn http2(&self, endpoint: &Endpoint) -> Http2Counts {
        self.http2.iter().map(|connections| connections.counts(endpoint)).sum()
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}
