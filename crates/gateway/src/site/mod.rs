//! The site: everything a request is served by, immutable, swapped whole.

pub mod access;
pub mod admin_token;
pub mod answer;
pub mod auth;
pub mod balance;
pub mod challenges;
pub mod cookie;
pub mod counts;
pub mod drained;
pub mod endpoint;
pub mod extras;
pub mod fastcgi;
pub mod files;
pub mod health;
pub mod hidden;
pub mod host;
pub mod htpasswd;
pub mod jwt;
pub mod known_name;
pub mod listener;
pub mod matcher;
pub mod names;
pub mod on_demand;
pub mod path;
pub mod queue;
pub mod rate;
pub mod redial;
pub(crate) mod redial_queue;
pub mod resolved;
pub mod retry;
pub mod rewrite;
pub mod route;
pub mod route_id;
pub mod routes;
pub mod server;
pub mod server_tls;
pub mod sources;
pub mod sticky;
pub mod tcp;
pub mod template;
pub mod upstream;
pub mod written;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use frame_core::close::GOING_AWAY;
use ipnet::IpNet;
use net_io::state::{StateError, StateReader};
use tls_acceptor::{Acceptor, Certificates, Tickets};
use zeroize::Zeroizing;

use crate::net::clock;
use crate::net::listening::ListenAddress;
use crate::net::networks::Networks;
use crate::site::challenges::Challenges;
use crate::site::hidden::Hidden;
use crate::site::listener::ListenerState;
use crate::site::route::{Action, Route};
use crate::site::route_id::RouteId;
use crate::site::routes::Routes;
use crate::site::upstream::{Upstream, UpstreamState};

/// How sessions are sent away: by a drain, or because their route has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// From SIGTERM on, for so long: not ready any more, but connections are accepted. Shorter than
    /// `timeout`.
    pub delay: Duration,
    /// Closes that are ordered together are spread over so long.
    pub window: Duration,
    /// From SIGTERM to the moment when what is left is cut.
    pub timeout: Duration,
    /// The close code that a drain sends to both ends of a session.
    pub close_code: u16,
}

impl Drain {
    /// What holds where nothing is said.
    pub const DEFAULT: Self = Self {
        delay: Duration::ZERO,
        window: Duration::from_secs(10),
        timeout: Duration::from_secs(30),
        close_code: GOING_AWAY,
    };
}

/// What becomes of sessions whose route is no longer in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemovedRoutes {
    /// They are sent away, spread over [`Drain::window`].
    Drain,
    /// They live on until they end by themselves.
    Keep,
}

/// What becomes of sessions when another process takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakeoverSessions {
    /// Those that can be moved to the new process are.
    Move,
    /// They stay in the old one until they end, or for [`Site::takeover_timeout`].
    Keep,
}

/// What a site is built of.
#[derive(Debug)]
pub struct SiteSettings<'a> {
    /// Where connections are accepted; no address twice.
    pub listeners: Vec<listener::ListenerSettings>,
    /// What is served; no host and path twice.
    pub routes: &'a [Arc<Route>],
    /// What is not shown of the configuration.
    pub hidden: &'a Hidden,
    /// What answers an authority that validates names; `None`: nothing does.
    pub challenges: Option<Arc<Challenges>>,
    /// Proxies whose fields about their clients are trusted.
    pub trusted_proxies: &'a [IpNet],
    /// How sessions are sent away.
    pub drain: Drain,
    /// Bytes that may be held for peers; `None`: any number.
    pub memory_max: Option<u64>,
    /// Bytes that may be kept for compression that ends here; `None`: any number.
    pub compression_memory_max: Option<u64>,
    /// Connections of clients that may be open; `None`: any number.
    pub connections_max: Option<u64>,
    /// What becomes of sessions whose route has gone.
    pub removed_routes: RemovedRoutes,
    /// From a takeover to the moment when what the old process still serves is drained.
    pub takeover_timeout: Duration,
    /// At a takeover, how long sessions in the middle of a write are waited for.
    pub handover_wait: Duration,
}

/// One generation of everything but the certificates.
#[derive(Debug)]
pub struct Site {
    /// Its number; certificates of the same number came with it.
    pub generation: u64,
    /// What is served.
    pub routes: Routes,
    /// What is not shown of the configuration.
    pub hidden: Hidden,
    /// What answers an authority that validates names; `None`: nothing does.
    pub challenges: Option<Arc<Challenges>>,
    /// Some route passes field names on as they were sent.
    pub keeps_names: bool,
    /// Proxies whose fields about their clients are trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// How sessions are sent away.
    pub drain: Drain,
    /// Bytes that may be held for peers; `None`: any number.
    pub memory_max: Option<u64>,
    /// Bytes that may be kept for compression that ends here; `None`: any number.
    pub compression_memory_max: Option<u64>,
    /// Connections of clients that may be open; `None`: any number.
    pub connections_max: Option<u64>,
    /// What becomes of sessions whose route has gone.
    pub removed_routes: RemovedRoutes,
    /// From a takeover to the moment when what the old process still serves is drained.
    pub takeover_timeout: Duration,
    /// At a takeover, how long sessions in the middle of a write are waited for.
    pub handover_wait: Duration,
    /// Name and port of each listener with TLS, in the order of the configuration.
    tls_listeners: Vec<(Arc<str>, u16)>,
    all: Vec<Arc<Route>>,
    ids: HashSet<RouteId>,
    by_id: HashMap<RouteId, Arc<Route>>,
    upstreams: HashMap<String, Arc<UpstreamState>>,
    states: HashMap<ListenAddress, (listener::ListenerSettings, Arc<ListenerState>)>,
}

impl Site {
    /// Builds a site. What a listener of `previous` has at hand is kept if
    /// its settings are the same: handshakes in flight count on.
    ///
    /// # Errors
    /// If the cryptographic library lacks an algorithm; the one that is built in doesn't.
    pub fn build(
        settings: &SiteSettings<'_>,
        generation: u64,
        previous: Option<&Self>,
        certificates: &Arc<Certificates>,
        tickets: &Tickets,
    ) -> Result<Self, tls_acceptor::SetupError> {
        let mut states = HashMap::new();
        for listener in &settings.listeners {
            let kept = previous
                .and_then(|site| site.states.get(&listener.address))
                .filter(|(old, _)| old == listener);
            let state = match kept {
                Some((_, state)) => state.clone(),
                None => {
                    let new = |tls| Acceptor::new(tls, certificates.clone(), tickets);
                    Arc::new(ListenerState {
                        name: listener.name.clone(),
                        acceptor: listener.tls.as_ref().map(new).transpose()?,
                        limits: listener.limits.into(),
                        websocket_over_http2: listener.websocket_over_http2,
                        proxy_protocol: Networks::new(&listener.proxy_protocol),
                        redirect: listener.redirect,
                        counts: previous
                            .and_then(|site| site.states.get(&listener.address))
                            .map(|(_, state)| state.counts.clone())
                            .unwrap_or_default(),
                    })
                }
            };
            states.insert(listener.address.clone(), (listener.clone(), state));
        }
        for route in settings.routes {
            route.count_on(previous.and_then(|site| site.by_id.get(&route.id)));
        }
        let mut upstreams = HashMap::new();
        for upstream in settings.routes.iter().filter_map(|route| route.action.upstream()) {
            let old = previous.and_then(|site| site.upstreams.get(&upstream.key()));
            let since = if old.is_some() { clock::now() } else { Duration::ZERO };
            let state = upstreams.entry(upstream.key()).or_insert_with(|| old.cloned().unwrap_or_default());
            upstream.bind(state, since);
        }
        Ok(Self {
            generation,
            routes: Routes::new(settings.routes),
            hidden: settings.hidden.clone(),
            challenges: settings.challenges.clone(),
            keeps_names: settings
                .routes
                .iter()
                .any(|route| matches!(&route.action, Action::Proxy(upstream) if upstream.keeps_names)),
            trusted_proxies: settings.trusted_proxies.to_vec(),
            drain: settings.drain,
            memory_max: settings.memory_max,
            compression_memory_max: settings.compression_memory_max,
            connections_max: settings.connections_max,
            removed_routes: settings.removed_routes,
            takeover_timeout: settings.takeover_timeout,
            handover_wait: settings.handover_wait,
            tls_listeners: settings
                .listeners
                .iter()
                .filter(|listener| listener.tls.is_some())
                .map(|listener| (listener.name.clone(), listener.address.port()))
                .collect(),
            all: settings.routes.to_vec(),
            ids: settings.routes.iter().map(|route| route.id.clone()).collect(),
            by_id: settings.routes.iter().map(|route| (route.id.clone(), route.clone())).collect(),
            upstreams,
            states,
        })
    }

    /// How connections to the listener with this address are received.
    #[must_use]
    pub fn listener_state(&self, address: &ListenAddress) -> Option<Arc<ListenerState>> {
        self.states.get(address).map(|(_, state)| state.clone())
    }

    /// How connections of all listeners are received.
    pub fn listener_states(&self) -> impl Iterator<Item = &ListenerState> {
        self.states.values().map(|(_, state)| &**state)
    }

    /// Some route has this host and path.
    #[must_use]
    pub fn has_route(&self, id: &RouteId) -> bool {
        self.ids.contains(id)
    }

    /// The route with this id.
    #[must_use]
    pub fn route(&self, id: &RouteId) -> Option<&Arc<Route>> {
        self.by_id.get(id)
    }

    /// Sessions of this route are to be sent away: it has gone, and they don't outlive it.
    #[must_use]
    pub fn sends_away(&self, id: &RouteId) -> bool {
        self.removed_routes == RemovedRoutes::Drain && !self.has_route(id)
    }

    /// The port on which a listener with TLS serves `host`: the first one, or that which is called `listener`.
    #[must_use]
    pub fn tls_port(&self, host: &str, listener: Option<&str>) -> Option<u16> {
        let mut listeners = self.tls_listeners.iter();
        let serves =
            |name: &str| listener.is_none_or(|wanted| wanted == name) && self.routes.takes_host(host, name);
        listeners.find(|(name, _)| serves(name)).map(|(_, port)| *port)
    }

    /// Routes in the order of the configuration.
    #[must_use]
    pub fn all_routes(&self) -> &[Arc<Route>] {
        &self.all
    }

    /// The upstreams that routes name, each once, in the order of their routes.
    #[must_use]
    pub fn upstreams(&self) -> Vec<&Arc<Upstream>> {
        let mut seen = HashSet::new();
        let all = self.all.iter().filter_map(|route| route.action.upstream());
        all.filter(|upstream| seen.insert(upstream.key())).collect()
    }

    /// What is known of the servers, for another process. Secret: keys of cookies are in it.
    #[must_use]
    pub fn leave_servers(&self) -> Vec<Zeroizing<Vec<u8>>> {
        let now = clock::now();
        self.upstreams.iter().flat_map(|(key, state)| state.leave(key, now)).collect()
    }

    /// Knows a piece of what another process knew of the servers. Those that the configuration doesn't have are passed
    /// over.
    ///
    /// # Errors
    /// If it is no such piece, or of a release that is too new.
    pub fn take_servers(&self, piece: &[u8]) -> Result<(), StateError> {
        let mut fields = StateReader::new(piece, upstream::VERSION)?;
        let key = fields.text()?;
        let Some(state) = self.upstreams.get(key) else { return Ok(()) };
        let is_probed =
            self.upstreams().into_iter().any(|upstream| upstream.key() == key && upstream.probe.is_some());
        state.arrive(&mut fields, is_probed, clock::now())
    }

    /// The listeners' addresses as the configuration has them, sorted.
    #[must_use]
    pub fn addresses(&self) -> Vec<ListenAddress> {
        let mut addresses: Vec<_> = self.states.keys().cloned().collect();
        addresses.sort_unstable();
        addresses
    }

    /// Routes by host and path.
    #[must_use]
    pub fn route_ids(&self) -> &HashSet<RouteId> {
        &self.ids
    }
}
