//! What a route names behind `proxy`: one server, or several of which one is chosen.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::ops::Deref;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use net_io::count::ByWorker;
use net_io::state::{StateError, StateReader, StateWriter};
use tls_acceptor::SigningKeys;
use zeroize::Zeroizing;

use crate::net::clock;
use crate::site::balance::{Balance, Candidate, Draw, HashKey, choose, seed};
use crate::site::counts::UpstreamCounts;
use crate::site::endpoint::Endpoint;
use crate::site::health::{OnDown, Passive, Probe};
use crate::site::known_name::KnownName;
use crate::site::names::Resolve;
use crate::site::path::RoutePath;
use crate::site::queue::{Freed, Queue};
use crate::site::redial::{Redial, RedialFailure};
use crate::site::resolved::{Expanded, expand};
use crate::site::retry::{Budget, Retry};
use crate::site::server::{Assignment, Server, ServerState};
use crate::site::sticky::{Marks, Sticky};
pub use net_io::proxy_protocol::ProxyVersion;

/// How long a connection to a server may take where nothing is said.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a server may keep a request waiting where nothing is said.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// What this release knows of the state of an upstream that comes from another process. Raised with each field that is
/// added.
pub(super) const VERSION: u8 = 2;
/// The least version that understands what this release writes.
const NEEDS: u8 = 1;
/// Servers in one piece of it, so that a piece fits into a packet.
const PIECE_LEN: usize = 100;

/// How servers of an upstream are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connector {
    /// For a TCP connection, the look-up of the name included.
    pub connect_timeout: Duration,
    /// Connections are kept for other requests.
    pub pooled: bool,
    /// Servers are told by the PROXY protocol who the client is.
    pub proxy_protocol: Option<ProxyVersion>,
    /// What is spoken with servers.
    pub protocol: Protocol,
}

/// A version of HTTP, as it is spoken with servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// One request at a time over each connection (RFC 9112).
    #[default]
    Http1,
    /// Many over each: chosen by ALPN, or without TLS by prior knowledge (RFC 9113 §3.2, §3.3).
    Http2,
}

/// What a route names behind `proxy`.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// By what it stays the same after a reload; `None`: by its addresses.
    pub name: Option<Arc<str>>,
    /// At least one in a configuration. If [`Self::resolve`] makes servers of names, these are the names, and
    /// [`Self::current`] has the servers.
    pub servers: Vec<Server>,
    /// What becomes of names among the servers.
    pub resolve: Resolve,
    /// How one of them is chosen.
    pub balance: Balance,
    /// For [`Balance::Hash`].
    pub hash: HashKey,
    /// Clients come back to the server that they had; `None`: they don't.
    pub sticky: Option<Arc<Sticky>>,
    /// When another one is asked.
    pub retry: Retry,
    /// Servers that fail requests are ejected.
    pub passive: Option<Passive>,
    /// How servers are asked whether they are well; `None`: they aren't.
    pub probe: Option<Probe>,
    /// What becomes of the sessions of a server that is down.
    pub on_down: OnDown,
    /// Requests may wait for a server; `None`: they don't.
    pub queue: Option<Queue>,
    /// A server that comes back gets its part of the requests after this time.
    pub slow_start: Duration,
    /// How its servers are reached.
    pub connector: Connector,
    /// From the request to the head of the answer.
    pub response_timeout: Duration,
    /// A body without a length that has at most so many bytes is waited for, and sent with one; 0: none is waited for;
    /// `None`: nothing is said, and what the servers speak decides.
    pub buffer_request: Option<u64>,
    /// What stands behind its address, in place of the route's own path; `None`: nothing, not even a slash.
    pub path: Option<RoutePath>,
    /// Field names are passed on over HTTP/1.1 as they were sent.
    pub keeps_names: bool,
    /// Sessions outlive its servers; `None`: they don't.
    pub redial: Option<Redial>,
    bound: OnceLock<Bound>,
    now: Now,
    /// What its servers have been made of; `None`: they are as the configuration has them.
    names: Option<Vec<Arc<KnownName>>>,
}

/// The servers that the names of an upstream stand for, as an upstream with these servers.
#[derive(Debug, Default)]
struct Now(ArcSwapOption<Upstream>);

impl Clone for Now {
    /// Each copy may get other settings, so that it has to be resolved by itself.
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// An upstream with the servers that it has now.
#[derive(Debug, Clone)]
pub enum Current<'a> {
    /// They are always the same.
    Fixed(&'a Upstream),
    /// They are what its names stand for.
    Resolved(Arc<Upstream>),
}

impl Deref for Current<'_> {
    type Target = Upstream;

    fn deref(&self) -> &Upstream {
        match self {
            Self::Fixed(upstream) => upstream,
            Self::Resolved(upstream) => upstream,
        }
    }
}

/// Its state, which it shares with those of its name in earlier and later generations.
#[derive(Debug, Clone)]
struct Bound {
    state: Arc<UpstreamState>,
    /// In the order of `servers`.
    servers: Vec<Arc<ServerState>>,
    /// Numbers that belong to their addresses.
    seeds: Vec<u64>,
    /// Of servers that clients come back to, from when one does.
    marks: OnceLock<Marks>,
    /// The priorities that there are, the lowest number first.
    priorities: Vec<u16>,
}

impl Bound {
    fn new(upstream: &Upstream, state: &Arc<UpstreamState>, since: Duration) -> Self {
        // Names are no servers.
        let is_there = !upstream.resolve.makes_servers() || upstream.names.is_some();
        let servers = if is_there { &upstream.servers[..] } else { &[] };
        let endpoints = || servers.iter().map(|server| &server.endpoint);
        let mut priorities: Vec<_> = servers.iter().map(|server| server.priority).collect();
        priorities.sort_unstable();
        priorities.dedup();
        Self {
            priorities,
            state: state.clone(),
            servers: endpoints().map(|endpoint| state.server(endpoint, since)).collect(),
            seeds: endpoints().map(|endpoint| seed(endpoint.name().as_bytes())).collect(),
            marks: OnceLock::new(),
        }
    }
}

/// What is known of the servers of an upstream.
#[derive(Debug, Default)]
pub struct UpstreamState {
    servers: Mutex<BTreeMap<Box<str>, Arc<ServerState>>>,
    turn: AtomicU64,
    budget: Mutex<Budget>,
    freed: Arc<Freed>,
    counts: Arc<ByWorker<UpstreamCounts>>,
    /// Random ones, from when they are needed.
    signing_keys: OnceLock<SigningKeys>,
    /// Sessions that have lost their server, and look for another one.
    redialling: AtomicU32,
    /// Sessions that have found no server after they had lost theirs, in the order of [`RedialFailure::ALL`].
    redials_failed: [AtomicU64; RedialFailure::ALL.len()],
}

/// A session that has lost its server, and looks for another one until this is dropped.
#[derive(Debug)]
pub(crate) struct Searching(Arc<UpstreamState>);

impl Drop for Searching {
    fn drop(&mut self) {
        self.0.redialling.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What of a request matters for the choice of its server.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ask<'a> {
    /// Of [`Upstream::hash`].
    pub key: u64,
    /// The position of the server that it belongs to.
    pub preferred: Option<usize>,
    /// The positions of those that have failed it already.
    pub tried: &'a [usize],
}

/// Why a request can't have a server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// None is up; it says what is wrong with each.
    #[error("no backend is available: {0}")]
    Down(String),
    /// Each that is up has as much as it may have.
    #[error("every backend has its max_sessions")]
    Full,
}

impl Upstream {
    /// One of these servers, with the default settings for everything else.
    #[must_use]
    pub fn new(servers: Vec<Server>) -> Self {
        Self {
            name: None,
            servers,
            resolve: Resolve::default(),
            balance: Balance::default(),
            hash: HashKey::Client,
            sticky: None,
            retry: Retry::default(),
            passive: Some(Passive::DEFAULT),
            probe: None,
            on_down: OnDown::default(),
            queue: None,
            slow_start: Duration::ZERO,
            connector: Connector {
                connect_timeout: CONNECT_TIMEOUT,
                pooled: true,
                proxy_protocol: None,
                protocol: Protocol::Http1,
            },
            response_timeout: RESPONSE_TIMEOUT,
            buffer_request: None,
            path: None,
            keeps_names: false,
            redial: None,
            bound: OnceLock::new(),
            now: Now::default(),
            names: None,
        }
    }

    /// The server at an address as [`Endpoint::parse`] reads it. The timeouts and the other settings are the defaults.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (endpoint, path) = Endpoint::parse(text)?;
        Ok(Self { path, ..Self::new(vec![Server::new(endpoint)]) })
    }

    /// By what it stays the same after a reload.
    #[must_use]
    pub fn key(&self) -> String {
        match &self.name {
            Some(name) => format!("{name:?}"), // never an address
            None => self.to_string(),
        }
    }

    /// Shares `state` from now on, unless it has one. New servers begin at `since`; zero: they have been there for
    /// long.
    pub(crate) fn bind(&self, state: &Arc<UpstreamState>, since: Duration) {
        self.bound.get_or_init(|| Bound::new(self, state, since));
    }

    fn bound(&self) -> &Bound {
        self.bound.get_or_init(|| Bound::new(self, &Arc::default(), Duration::ZERO))
    }

    /// The state of its servers, in their order.
    #[must_use]
    pub fn states(&self) -> &[Arc<ServerState>] {
        &self.bound().servers
    }

    /// The servers that it has now.
    #[must_use]
    pub fn current(&self) -> Current<'_> {
        match self.resolve.makes_servers().then(|| self.now.0.load_full()).flatten() {
            Some(resolved) => Current::Resolved(resolved),
            None => Current::Fixed(self),
        }
    }

    /// The names of its servers that are looked up, each once.
    #[must_use]
    pub fn names(&self) -> Vec<&Arc<KnownName>> {
        let mut names: Vec<&Arc<KnownName>> = Vec::new();
        for name in self.servers.iter().filter_map(|server| server.endpoint.known()) {
            if !names.iter().any(|other| Arc::ptr_eq(other, name)) {
                names.push(name);
            }
        }
        names
    }

    /// Its names stand for the servers that have been found. They are the same servers as before if their addresses
    /// are. If this is the first time, new ones have been there `since`. Returns those that have left.
    pub(crate) fn resolve_now(&self, since: Duration, now: Duration) -> Vec<Arc<ServerState>> {
        if !self.resolve.makes_servers() {
            return Vec::new();
        }
        let before = self.now.0.load_full();
        let old = before.as_ref().map_or(&[][..], |before| &before.servers);
        let Expanded { servers, is_whole } = expand(&self.servers, old);
        if before.as_ref().is_some_and(|before| before.servers == servers) {
            return Vec::new();
        }
        let names = Some(self.names().into_iter().cloned().collect());
        let next = Self { servers, names, bound: OnceLock::new(), ..self.clone() };
        next.bind(&self.bound().state, if before.is_some() { now } else { since });
        for server in next.states() {
            server.set_left(false, now);
        }
        let is_there =
            |server: &Arc<ServerState>| next.states().iter().any(|other| Arc::ptr_eq(other, server));
        let mut gone = self.bound().state.all();
        // As long as a name has not been found, its servers may be any.
        gone.retain(|server| is_whole && !is_there(server) && server.set_left(true, now));
        self.now.0.store(Some(Arc::new(next)));
        self.freed().notify_all();
        gone
    }

    /// Servers that its names no longer stand for, and that still have something to do.
    #[must_use]
    pub fn left(&self) -> Vec<Arc<ServerState>> {
        let mut all = self.bound().state.all();
        all.retain(|server| server.has_left() && server.live() > 0);
        all
    }

    /// Requests that wait for a server.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.bound().state.freed.waiting()
    }

    /// Sessions that have lost their server, and look for another one.
    #[must_use]
    pub fn redialling(&self) -> u32 {
        self.bound().state.redialling.load(Ordering::Relaxed)
    }

    /// One more looks for another server.
    pub(crate) fn searching(&self) -> Searching {
        let state = self.bound().state.clone();
        state.redialling.fetch_add(1, Ordering::Relaxed);
        Searching(state)
    }

    /// Sessions that have found no server after they had lost theirs, for this reason.
    #[must_use]
    pub fn redials_failed(&self, why: RedialFailure) -> u64 {
        self.bound().state.redials_failed[why as usize].load(Ordering::Relaxed)
    }

    /// One more has found none.
    pub(crate) fn redial_failed(&self, why: RedialFailure) {
        self.bound().state.redials_failed[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// What each worker counts of it.
    #[must_use]
    pub fn counts(&self) -> &ByWorker<UpstreamCounts> {
        &self.bound().state.counts
    }

    /// Who waits for a server, and how that is told.
    #[must_use]
    pub(crate) fn freed(&self) -> &Freed {
        &self.bound().state.freed
    }

    /// The first of its servers.
    ///
    /// # Panics
    /// If it has none.
    #[must_use]
    pub fn first(&self) -> &Server {
        &self.servers[0]
    }

    /// Gives a request to one of its servers.
    ///
    /// # Errors
    /// If none can take it.
    pub fn choose(&self, ask: Ask<'_>) -> Result<(usize, Assignment), Unavailable> {
        let Bound { state, servers, seeds, priorities, .. } = self.bound();
        if let ([server], [known], []) = (&self.servers[..], &servers[..], ask.tried) {
            return match known.is_up(clock::now).then(|| known.assign(server.sessions_max)) {
                Some(Some(assignment)) => Ok((0, assignment)),
                Some(None) => Err(Unavailable::Full),
                None => Err(self.unavailable(ask)),
            };
        }
        let is_warm = self.slow_start.is_zero();
        let candidate = |i: usize| {
            let (server, known) = (&self.servers[i], servers.get(i)?);
            if ask.tried.contains(&i) || !known.is_up(clock::now) {
                return None;
            }
            let load = known.live();
            if server.sessions_max.is_some_and(|max| load >= max.get()) {
                return None;
            }
            let warmth = if is_warm { 1 } else { known.warmth(self.slow_start, clock::now()) };
            Some(Candidate { weight: server.weight.get().saturating_mul(warmth), load })
        };
        if let Some(i) = ask.preferred
            && candidate(i).is_some()
            && let Some(assignment) = servers[i].assign(self.servers[i].sessions_max)
        {
            return Ok((i, assignment));
        }
        // Another worker may take the last place of a server in between.
        for priority in priorities {
            let candidate = |i: usize| (self.servers[i].priority == *priority).then(|| candidate(i))?;
            for _ in 0..=servers.len() {
                let draw = Draw {
                    turn: state.turn(self.balance),
                    random: if self.balance == Balance::RandomTwo { rand::random() } else { 0 },
                    key: ask.key,
                };
                let Some(i) = choose(self.balance, draw, seeds, candidate) else { break };
                if let Some(assignment) = servers[i].assign(self.servers[i].sessions_max) {
                    return Ok((i, assignment));
                }
            }
        }
        Err(self.unavailable(ask))
    }

    /// The server that one of these cookies belongs to.
    #[must_use]
    pub(crate) fn marked(&self, cookies: &[u128]) -> Option<usize> {
        cookies.iter().find_map(|cookie| self.marks().find(*cookie))
    }

    /// The cookie for a client of `server`.
    #[must_use]
    pub(crate) fn mark(&self, server: &Arc<ServerState>) -> Option<u128> {
        self.marks().of(self.states().iter().position(|other| Arc::ptr_eq(other, server))?)
    }

    fn marks(&self) -> &Marks {
        let Bound { state, marks, .. } = self.bound();
        marks.get_or_init(|| match &self.sticky {
            Some(sticky) => {
                let keys = sticky.keys().unwrap_or_else(|| state.signing_keys());
                Marks::new(keys, &self.key(), self.servers.iter().map(|server| &*server.endpoint))
            }
            None => Marks::default(),
        })
    }

    fn unavailable(&self, ask: Ask<'_>) -> Unavailable {
        let servers = &self.bound().servers;
        if servers.is_empty() {
            let why = self.names.iter().flatten().map(|name| {
                let last = name.last();
                format!(
                    "{} is not resolved ({})",
                    name.question,
                    last.problem.as_deref().unwrap_or("not yet")
                )
            });
            return Unavailable::Down(why.collect::<Vec<_>>().join("; "));
        }
        let left = servers.iter().enumerate().filter(|(i, _)| !ask.tried.contains(i));
        if left.clone().any(|(_, server)| server.is_up(clock::now)) {
            return Unavailable::Full;
        }
        let now = clock::now();
        let why = left.map(|(_, server)| {
            let why = server.why(now);
            format!(
                "{} is {}{}",
                server.endpoint,
                server.state(now),
                why.map_or(String::new(), |why| format!(" ({why})"))
            )
        });
        Unavailable::Down(why.collect::<Vec<_>>().join("; "))
    }

    /// A session that lives already counts at its server, if that is or may be one of these.
    #[must_use]
    pub fn adopt(&self, endpoint: &Arc<Endpoint>) -> Option<Assignment> {
        let current = self.current();
        let mut servers = current.states().iter().zip(&current.servers);
        match servers.find(|(known, _)| *known.endpoint.address == *endpoint.address) {
            Some((known, server)) => Some(known.adopt(server.sessions_max.is_some())),
            // Its name may not be looked up yet, or may lead elsewhere now.
            None if self.resolve.makes_servers() => {
                let server = self.bound().state.server(endpoint, Duration::ZERO);
                server.set_left(true, Duration::ZERO); // until it is found
                Some(server.adopt(false))
            }
            None => None,
        }
    }

    /// A server has failed a request: it may be ejected, but never the last one that is up. Returns for how long.
    pub(crate) fn failed(&self, server: &Arc<ServerState>, cause: &dyn fmt::Display) -> Option<Duration> {
        let now = clock::now();
        let time = server.failed(cause, self.passive.as_ref(), now)?;
        let others = self.bound().servers.iter().filter(|other| !Arc::ptr_eq(other, server));
        if !others.into_iter().any(|other| other.is_up(clock::now)) {
            return None;
        }
        server.eject(now + time);
        Some(time)
    }

    /// One more request may be repeated.
    pub(crate) fn may_retry(&self) -> bool {
        let Bound { state, servers, .. } = self.bound();
        let requests = servers.iter().map(|server| server.requests()).sum();
        state.budget.lock().unwrap_or_else(PoisonError::into_inner).spend(requests, clock::now())
    }

    /// The sum of the weights.
    #[must_use]
    pub fn weights(&self) -> u64 {
        self.servers.iter().map(|server| NonZeroU32::get(server.weight)).map(u64::from).sum()
    }
}

impl UpstreamState {
    /// Writes what is known for another process, of so many servers at most in one piece.
    pub(super) fn leave(&self, key: &str, now: Duration) -> Vec<Zeroizing<Vec<u8>>> {
        let servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let servers: Vec<_> = servers.iter().map(|(name, server)| (&**name, server)).collect();
        let piece = |servers: &[(&str, &Arc<ServerState>)]| {
            let mut out = StateWriter::new(NEEDS);
            out.bytes(key.as_bytes());
            out.u64(self.turn.load(Ordering::Relaxed));
            out.option(self.signing_keys.get().and_then(SigningKeys::secret), StateWriter::array);
            out.u32(u32::try_from(servers.len()).unwrap_or(0)); // a few
            for (name, server) in servers {
                out.bytes(name.as_bytes());
                server.leave(&mut out, now);
            }
            self.budget.lock().unwrap_or_else(PoisonError::into_inner).leave(&mut out, now);
            out.finish()
        };
        servers.chunks(PIECE_LEN).map(piece).collect()
    }

    /// Knows what [`Self::leave`] wrote behind the key of the upstream. `is_probed` as in [`ServerState::arrive`].
    ///
    /// # Errors
    /// If it is not what that writes.
    pub(super) fn arrive(
        &self,
        fields: &mut StateReader<'_>,
        is_probed: bool,
        now: Duration,
    ) -> Result<(), StateError> {
        self.turn.store(fields.u64()?, Ordering::Relaxed);
        if let Some(secret) = fields.option(StateReader::array)? {
            let _ = self.signing_keys.set(SigningKeys::new(&secret)); // a further piece has the same
        }
        let servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let endpoint = Arc::new(Endpoint::new("gone", 1));
        let gone = ServerState::new(endpoint, Arc::default(), Arc::default(), Duration::ZERO);
        for _ in 0..fields.u32()? {
            let name = fields.text()?;
            let server = servers.get(name).map_or(&gone, |server| server);
            server.arrive(fields, is_probed, now)?;
        }
        if !fields.is_at_end() {
            let budget = Budget::arrive(fields, now)?; // version 1 has none
            *self.budget.lock().unwrap_or_else(PoisonError::into_inner) = budget;
        }
        Ok(())
    }

    fn signing_keys(&self) -> &SigningKeys {
        self.signing_keys.get_or_init(|| SigningKeys::new(&rand::random()))
    }

    fn server(&self, endpoint: &Arc<Endpoint>, since: Duration) -> Arc<ServerState> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that the configuration no longer has are kept as long as they have sessions.
        servers.retain(|_, server| Arc::strong_count(server) > 1);
        let new = || {
            let (freed, counts) = (self.freed.clone(), self.counts.clone());
            Arc::new(ServerState::new(endpoint.clone(), freed, counts, since))
        };
        servers.entry(endpoint.name()).or_insert_with(new).clone()
    }

    fn all(&self) -> Vec<Arc<ServerState>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Counts choices, where it matters that no two get the same number; elsewhere no cache line is shared for it.
    fn turn(&self, balance: Balance) -> u64 {
        match balance {
            Balance::RoundRobin => self.turn.fetch_add(1, Ordering::Relaxed),
            Balance::LeastSessions => own_turn(),
            Balance::RandomTwo | Balance::Hash => 0,
        }
    }
}

/// Counts the choices of this thread.
fn own_turn() -> u64 {
    thread_local! {
        static TURN: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
    }
    let turn = TURN.get();
    TURN.set(turn.wrapping_add(1));
    turn
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            return f.write_str(name);
        }
        for (i, server) in self.servers.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { ", " }, server.endpoint)?;
        }
        Ok(())
    }
}
