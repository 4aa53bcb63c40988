//! The site: everything a request is served by, immutable, swapped whole.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tls_acceptor::{Acceptor, Certificates, Tickets};

use crate::config::{Config, Drain, Listener, RemovedRoutes};
use crate::connection::Door;
use crate::route::{Action, Route, RouteId, Routes};

/// One generation of everything but the certificates.
#[derive(Debug)]
pub struct Site {
    /// Its number; certificates of the same number came with it.
    pub generation: u64,
    /// What is served.
    pub routes: Routes,
    /// Some route passes field names on as they were sent.
    pub keeps_names: bool,
    /// Whose word about their clients is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// How sessions are sent away.
    pub drain: Drain,
    /// Bytes that may be held for peers; `None`: any number.
    pub memory_max: Option<u64>,
    /// What becomes of sessions whose route has gone.
    pub removed_routes: RemovedRoutes,
    /// From a takeover to the moment when what the old process still serves is drained.
    pub takeover_timeout: Duration,
    all: Vec<Arc<Route>>,
    ids: HashSet<RouteId>,
    doors: HashMap<SocketAddr, (Listener, Arc<Door>)>,
}

impl Site {
    /// Builds the site of a configuration. What a listener of `previous` has at hand is kept if
    /// its settings are the same: handshakes in flight count on.
    ///
    /// # Errors
    /// If the cryptographic library can't do what is asked of it; not to be expected.
    pub fn build(
        config: &Config,
        generation: u64,
        previous: Option<&Self>,
        certificates: &Arc<Certificates>,
        tickets: &Tickets,
    ) -> Result<Self, tls_acceptor::SetupError> {
        let mut doors = HashMap::new();
        for listener in &config.listeners {
            let kept = previous
                .and_then(|site| site.doors.get(&listener.address))
                .filter(|(old, _)| old.tls == listener.tls && old.limits == listener.limits);
            let door = match (kept, &listener.tls) {
                (Some((_, door)), _) => door.clone(),
                (None, Some(settings)) => {
                    let acceptor = Acceptor::new(settings, certificates.clone(), tickets)?;
                    Arc::new(Door { acceptor: Some(acceptor), limits: listener.limits })
                }
                (None, None) => Arc::new(Door { acceptor: None, limits: listener.limits }),
            };
            doors.insert(listener.address, (listener.clone(), door));
        }
        Ok(Self {
            generation,
            routes: Routes::new(&config.routes),
            keeps_names: config
                .routes
                .iter()
                .any(|route| matches!(&route.action, Action::Proxy(upstream) if upstream.keeps_names)),
            trusted_proxies: config.trusted_proxies.clone(),
            drain: config.drain,
            memory_max: config.memory_max,
            removed_routes: config.removed_routes,
            takeover_timeout: config.takeover_timeout,
            all: config.routes.clone(),
            ids: config.routes.iter().map(|route| route.id.clone()).collect(),
            doors,
        })
    }

    /// How connections to the listener with this address are received.
    #[must_use]
    pub fn door(&self, address: SocketAddr) -> Option<Arc<Door>> {
        self.doors.get(&address).map(|(_, door)| door.clone())
    }

    /// Some route has this host and path.
    #[must_use]
    pub fn has_route(&self, id: &RouteId) -> bool {
        self.ids.contains(id)
    }

    /// Sessions of this route are to be sent away: it has gone, and they don't outlive it.
    #[must_use]
    pub fn sends_away(&self, id: &RouteId) -> bool {
        self.removed_routes == RemovedRoutes::Drain && !self.has_route(id)
    }

    /// Routes in the order of the configuration.
    #[must_use]
    pub fn all_routes(&self) -> &[Arc<Route>] {
        &self.all
    }

    /// The listeners' addresses as the configuration has them, sorted.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let mut addresses: Vec<_> = self.doors.keys().copied().collect();
        addresses.sort_unstable();
        addresses
    }

    /// Routes by host and path.
    #[must_use]
    pub fn route_ids(&self) -> &HashSet<RouteId> {
        &self.ids
    }
}
