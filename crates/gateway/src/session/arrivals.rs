//! Sessions that come from another process, on the worker that goes on with them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use frame_core::handle::Order;
use frame_core::metered::Metered;
use tracing::warn;

use super::client::ClientParts;
use super::moved::{Leads, StillSession, put_together};
use super::redial::ReadRedialer;
use super::{Carrier, Client, Session, deflated};
use crate::context::Worker;
use crate::context::transit::{ArrivingSession, FrozenSession, machine_time};
use crate::site::Site;
use crate::site::drained::DrainTarget;
use crate::site::endpoint::Endpoint;
use crate::site::matcher::Matcher;
use crate::site::route::{Action, Route, Service};
use crate::site::route_id::RouteId;
use crate::site::upstream::Upstream;

/// Sessions that have come and wait for their beginning, and the routes that they are of.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    /// Each with its place among those that came with it, and when it froze.
    waiting: Vec<(usize, StillSession, Duration)>,
    /// The site that `routes` are of.
    site: Option<Arc<Site>>,
    routes: KnownRoutes,
}

impl Arrivals {
    /// Puts sessions together, none of which goes on yet. Returns those that can't be, by their places, and why.
    pub(crate) fn take(
        &mut self,
        worker: &Arc<Worker>,
        sessions: Vec<ArrivingSession>,
        read_redialer: ReadRedialer,
    ) -> Vec<(usize, String)> {
        let site = worker.site();
        if !self.site.as_ref().is_some_and(|known| Arc::ptr_eq(known, &site)) {
            self.routes = KnownRoutes::of(&site);
            self.site = Some(site);
        }
        let mut refused = Vec::new();
        for ArrivingSession { place, sockets, state } in sessions {
            let find = |id: &RouteId, leads: Leads<'_>| self.routes.find(id, leads);
            match put_together(worker, sockets, &state, None, find, read_redialer) {
                Ok((session, frozen_at)) => self.waiting.push((place, session, frozen_at)),
                Err(e) => refused.push((place, e.to_string())),
            }
        }
        refused
    }

    /// The sessions go on: the other process has let go of them. Some were ordered to end there, perhaps since they
    /// froze. Returns how long each was frozen.
    pub(crate) fn begin(&mut self, worker: &Worker, orders: &HashMap<usize, Order>) -> Vec<Duration> {
        let waiting = self.waiting.drain(..);
        let begun = waiting.map(|(place, session, frozen_at)| {
            if let Some(order) = orders.get(&place) {
                session.registered.handle().end(*order);
            }
            go_on(worker, session, frozen_at)
        });
        begun.collect()
    }
}

/// A session goes on. Returns how long it was frozen.
fn go_on(worker: &Worker, session: StillSession, frozen_at: Duration) -> Duration {
    let frozen = machine_time().saturating_sub(frozen_at);
    let (session, ClientParts { stream, meter, deflating }) = Session::restored(session);
    let client = Client(stream);
    match (meter, deflating) {
        (None, None) => worker.tasks.spawn(session.run(client, Carrier::Http1)),
        (Some(meter), None) => worker.tasks.spawn(session.run(Metered::new(client, meter), Carrier::Http1)),
        (meter, Some(deflating)) => {
            worker.tasks.spawn(session.run(deflated(client, meter, deflating), Carrier::Http1))
        }
    };
    frozen
}

/// A session goes on where it has frozen: no other process has taken it.
pub(crate) fn go_back(worker: &Arc<Worker>, frozen: FrozenSession, read_redialer: ReadRedialer) {
    let FrozenSession { sockets, state, registered, task: _task } = frozen;
    let (id, route) = (registered.id(), registered.route());
    match put_together(worker, sockets, &state, Some(registered), |_, _| route, read_redialer) {
        Ok((session, frozen_at)) => drop(go_on(worker, session, frozen_at)),
        Err(e) => warn!(id, cause = %e, "a session is lost: it can't go on after the takeover has failed"),
    }
}

/// Routes as sessions name them.
#[derive(Debug, Default)]
struct KnownRoutes {
    /// By their texts, which conditions that are not shown may tell apart.
    of_site: HashMap<String, Vec<Arc<Route>>>,
    /// Those that the site hasn't, or that lead elsewhere there: each with the address of the server.
    former: HashMap<(RouteId, String), Arc<Route>>,
}

impl KnownRoutes {
    fn of(site: &Site) -> Self {
        let mut routes = Self::default();
        for route in site.all_routes() {
            routes.of_site.entry(route.id.to_string()).or_default().push(route.clone());
        }
        routes
    }

    /// The route of this id, if it leads there; else one as the old process has it. `None` if there can't be any.
    fn find(&mut self, id: &RouteId, leads: Leads<'_>) -> Option<Arc<Route>> {
        match leads {
            Leads::Server(server) => self.find_server(id, server),
            Leads::Echo => self.find_echo(id),
            Leads::Servers => {
                let redials = |route: &Route| route.action.upstream().is_some_and(|to| to.redial.is_some());
                let mut same_text = self.of_site.get(id.as_str()).into_iter().flatten();
                same_text.find(|route| route.id == *id && redials(route)).cloned()
            }
        }
    }

    fn find_server(&mut self, id: &RouteId, server: &Endpoint) -> Option<Arc<Route>> {
        let target = DrainTarget::Server(server.name());
        let same_text = self.of_site.get(id.as_str()).into_iter().flatten();
        // A server that was found by its name may have left, or may not be found yet.
        let finds = |route: &Route| route.action.upstream().is_some_and(|to| to.resolve.makes_servers());
        let mut same = same_text.filter(|route| target.covers(route) || finds(route));
        if let Some(route) = same.clone().find(|route| route.id == *id).or_else(|| same.next()) {
            return Some(route.clone());
        }
        let upstream = || Some(Action::Proxy(Arc::new(Upstream::parse(&server.url()).ok()?)));
        self.former(id, server.url(), upstream)
    }

    fn find_echo(&mut self, id: &RouteId) -> Option<Arc<Route>> {
        let echo = Action::Service(Service::Echo);
        let mut same_text = self.of_site.get(id.as_str()).into_iter().flatten();
        let same =
            same_text.find(|route| route.id == *id && matches!(route.action, Action::Service(Service::Echo)));
        same.cloned().or_else(|| self.former(id, String::new(), || Some(echo)))
    }

    /// One that the site hasn't.
    fn former(
        &mut self,
        id: &RouteId,
        server: String,
        action: impl FnOnce() -> Option<Action>,
    ) -> Option<Arc<Route>> {
        Some(match self.former.entry((id.clone(), server)) {
            Entry::Occupied(former) => former.get().clone(),
            Entry::Vacant(place) => {
                let matcher = Matcher::parse("/").ok()?; // no request asks for it
                place.insert(Arc::new(Route { id: id.clone(), ..Route::new(matcher, action()?) })).clone()
            }
        })
    }
}
