//! Every live session of a worker, so that it can be seen and ended from outside.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use frame_core::handle::{EndMode, SessionHandle};
use net_io::unix_secs;
use tokio::time::Instant;

use crate::context::identity::{Identity, spread};
use crate::context::redial::SessionRedial;
use crate::site::route::Route;
use crate::site::route_id::RouteId;
use crate::site::server::ServerState;

/// The live sessions of one worker. Locked when a session begins or ends, never per message.
#[derive(Debug)]
pub struct Registry {
    /// The number of its worker, from 0.
    number: usize,
    /// Workers count in steps of their number, so that no two sessions of a process have one id.
    step: u64,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    next: u64,
    live: HashMap<u64, Entry>,
    /// Kept by the way, so that to count them needs no walk.
    by_route: HashMap<RouteId, usize>,
    /// When sessions are no longer authorized, in seconds of Unix time, and their ids.
    expiring: BTreeSet<(u64, u64)>,
    /// When an authorization server is asked for sessions again, in seconds of Unix time, and their ids.
    rechecks: BTreeSet<(u64, u64)>,
}

/// A live session, as it is seen from outside.
#[derive(Debug, Clone)]
pub struct Entry {
    /// How it is ended.
    pub handle: SessionHandle,
    /// The route it was opened by.
    pub route: Arc<Route>,
    /// The client that opened it.
    pub who: SessionOpener,
    /// When an authorization server is asked for it again; 0: never, or it is being asked.
    recheck_at: u64,
}

/// The client that opened a session, and how it did.
#[derive(Debug, Clone)]
pub struct SessionOpener {
    /// The address at the other end of the connection.
    pub peer: SocketAddr,
    /// The client's, which differs behind a trusted proxy.
    pub client: IpAddr,
    /// As HTTP calls it.
    pub protocol: &'static str,
    /// When the request came.
    pub started: Instant,
    /// Why no other process can take the session; `None`: one can.
    pub stays: Option<StayReason>,
    /// Where it was passed on to first; `None`: the gateway itself has it.
    pub server: Option<Arc<ServerState>>,
    /// Who it is, where the route finds that out.
    pub identity: Option<Arc<Identity>>,
    /// Whether it outlives its server.
    pub redial: SessionRedial,
}

impl SessionOpener {
    /// The server that the session has now; one that outlives its servers has none at times.
    #[must_use]
    pub fn server(&self) -> Option<Arc<ServerState>> {
        self.redial.status().and_then(|status| status.server()).or_else(|| self.server.clone())
    }

    /// What the route calls the client.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.identity.as_deref()?.subject.as_deref()
    }

    fn keeps_question(&self) -> bool {
        self.identity.as_deref().is_some_and(|identity| identity.recheck.is_some())
    }

    fn expiry(&self) -> Option<u64> {
        self.identity.as_deref()?.expiry
    }
}

/// Why a session can't be moved to another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StayReason {
    /// It is one of several streams of a connection over HTTP/2.
    Http2,
    /// It outlives its servers, and what it knows for that can't be moved.
    Redial,
}

impl StayReason {
    /// Lower case, for logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http2 => "http2",
            Self::Redial => "redial",
        }
    }
}

/// A session's place in the registry, until it is dropped.
#[derive(Debug)]
pub struct Registered {
    id: u64,
    handle: SessionHandle,
    registry: Arc<Registry>,
}

impl Registry {
    /// The registry of worker `number`, counted from 0, of `workers`.
    #[must_use]
    pub fn new(number: usize, workers: usize) -> Self {
        let inner = Inner {
            next: number as u64 + 1,
            live: HashMap::new(),
            by_route: HashMap::new(),
            expiring: BTreeSet::new(),
            rechecks: BTreeSet::new(),
        };
        Self { number, step: workers as u64, inner: Mutex::new(inner) }
    }

    /// Adds a session of `route`.
    #[must_use]
    pub fn register(self: &Arc<Self>, route: &Arc<Route>, who: SessionOpener) -> Registered {
        let mut inner = self.lock();
        let id = inner.next;
        inner.next += self.step;
        self.insert(inner, id, route, who)
    }

    /// Adds a session of `route` that had its id in another process, below what [`Self::number_from`] was told.
    #[must_use]
    pub fn register_again(self: &Arc<Self>, id: u64, route: &Arc<Route>, who: SessionOpener) -> Registered {
        self.insert(self.lock(), id, route, who)
    }

    /// Gives new sessions ids above `id`, by all workers' registries together still none twice.
    pub fn number_from(&self, id: u64) {
        let mut inner = self.lock();
        if inner.next <= id {
            inner.next += (id - inner.next) / self.step * self.step + self.step;
        }
    }

    /// The id that the next session gets.
    #[must_use]
    pub fn next_id(&self) -> u64 {
        self.lock().next
    }

    fn insert(
        self: &Arc<Self>,
        mut inner: MutexGuard<'_, Inner>,
        id: u64,
        route: &Arc<Route>,
        who: SessionOpener,
    ) -> Registered {
        let handle = SessionHandle::with_ledger(route.clone());
        if let Some(at) = who.expiry() {
            inner.expiring.insert((at, id));
        }
        let recheck_at = first_recheck(route, &who);
        if recheck_at > 0 {
            inner.rechecks.insert((recheck_at, id));
        }
        inner.live.insert(id, Entry { handle: handle.clone(), route: route.clone(), who, recheck_at });
        match inner.by_route.get_mut(&route.id) {
            Some(count) => *count += 1,
            None => drop(inner.by_route.insert(route.id.clone(), 1)),
        }
        Registered { id, handle, registry: self.clone() }
    }

    /// The sessions that `chosen` picks.
    #[must_use]
    pub fn select(&self, chosen: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        self.lock().live.values().filter(|entry| chosen(entry)).cloned().collect()
    }

    /// The sessions whose authorization has ended at `now`, in seconds of Unix time; each once.
    #[must_use]
    pub fn take_expired(&self, now: u64) -> Vec<(u64, Entry)> {
        let mut inner = self.lock();
        if inner.expiring.first().is_none_or(|(at, _)| *at > now) {
            return Vec::new();
        }
        let later = inner.expiring.split_off(&(now.saturating_add(1), 0));
        let expired = std::mem::replace(&mut inner.expiring, later);
        expired.into_iter().filter_map(|(_, id)| Some((id, inner.live.get(&id)?.clone()))).collect()
    }

    /// The sessions that an authorization server is to be asked for at `now`, in seconds of Unix time;
    /// [`Self::recheck_at`] says when it is again.
    #[must_use]
    pub fn take_rechecks(&self, now: u64) -> Vec<u64> {
        let mut inner = self.lock();
        if inner.rechecks.first().is_none_or(|(at, _)| *at > now) {
            return Vec::new();
        }
        let later = inner.rechecks.split_off(&(now.saturating_add(1), 0));
        let due = std::mem::replace(&mut inner.rechecks, later);
        for (_, id) in &due {
            if let Some(entry) = inner.live.get_mut(id) {
                entry.recheck_at = 0;
            }
        }
        due.into_iter().map(|(_, id)| id).collect()
    }

    /// An authorization server is asked for session `id` again at this moment; `None`: never.
    pub fn recheck_at(&self, id: u64, at: Option<u64>) {
        let mut inner = self.lock();
        let (Some(at), Some(entry)) = (at, inner.live.get_mut(&id)) else { return };
        let before = std::mem::replace(&mut entry.recheck_at, at);
        inner.rechecks.remove(&(before, id));
        inner.rechecks.insert((at, id));
    }

    /// Authorization servers are asked again no later than a reload wants it: `changed` gives the route of now, where it
    /// says another interval than before.
    pub fn recheck_by<'a>(&self, changed: impl Fn(&RouteId) -> Option<&'a Route>) {
        let now = unix_secs();
        let sooner: Vec<(u64, u64)> = {
            let inner = self.lock();
            let next = inner.live.iter().filter_map(|(id, entry)| {
                let recheck = entry.who.identity.as_deref()?.recheck.as_ref()?;
                let at = first_recheck(changed(&entry.route.id)?, &entry.who);
                let is_sooner = at > 0 && (entry.recheck_at == 0 || at < entry.recheck_at);
                if is_sooner {
                    recheck.begins(now); // it is not late by the new interval
                }
                is_sooner.then_some((*id, at))
            });
            next.collect()
        };
        for (id, at) in sooner {
            self.recheck_at(id, Some(at));
        }
    }

    /// The handles of those `count` sessions at most whose peers have taken nothing for the longest while
    /// something waits for them. Those that have been ordered to end at once are left out.
    #[must_use]
    pub fn slowest(&self, count: usize) -> Vec<SessionHandle> {
        let inner = self.lock();
        let is_going =
            |handle: &SessionHandle| handle.order().is_some_and(|order| order.mode == EndMode::Now);
        let mut stalled: Vec<_> = inner
            .live
            .values()
            .filter_map(|entry| Some((entry.handle.stalled_since()?, &entry.handle)))
            .filter(|(_, handle)| !is_going(handle))
            .collect();
        if count < stalled.len() {
            stalled.select_nth_unstable_by_key(count, |(since, _)| *since);
            stalled.truncate(count);
        }
        stalled.into_iter().map(|(_, handle)| handle.clone()).collect()
    }

    /// The number of workers, each of which has a registry.
    #[must_use]
    pub fn workers(&self) -> u64 {
        self.step
    }

    /// The number of its worker, from 0.
    #[must_use]
    pub fn number(&self) -> usize {
        self.number
    }

    /// The ids of all sessions with their handles, and why those that can't be moved stay.
    #[must_use]
    pub fn movable(&self) -> Vec<(u64, SessionHandle, Option<StayReason>)> {
        let inner = self.lock();
        inner.live.iter().map(|(id, entry)| (*id, entry.handle.clone(), entry.who.stays)).collect()
    }

    /// The handles of all sessions.
    #[must_use]
    pub fn handles(&self) -> Vec<SessionHandle> {
        self.lock().live.values().map(|entry| entry.handle.clone()).collect()
    }

    /// The ids of all sessions.
    #[must_use]
    pub fn ids(&self) -> Vec<u64> {
        self.lock().live.keys().copied().collect()
    }

    /// The ids of the sessions that `chosen` picks.
    #[must_use]
    pub fn ids_of(&self, chosen: impl Fn(&Entry) -> bool) -> Vec<u64> {
        self.lock().live.iter().filter(|(_, entry)| chosen(entry)).map(|(id, _)| *id).collect()
    }

    /// One session, if it lives.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<Entry> {
        self.lock().live.get(&id).cloned()
    }

    /// The routes that sessions were opened by, of every generation, each once.
    #[must_use]
    pub fn routes(&self) -> Vec<Arc<Route>> {
        let inner = self.lock();
        let routes: HashMap<_, _> =
            inner.live.values().map(|entry| (Arc::as_ptr(&entry.route), &entry.route)).collect();
        routes.into_values().cloned().collect()
    }

    /// Adds the number of sessions of each route to `counts`.
    pub fn count(&self, counts: &mut HashMap<RouteId, usize>) {
        for (id, count) in &self.lock().by_route {
            *counts.entry(id.clone()).or_default() += count;
        }
    }

    /// Live sessions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().live.len()
    }

    /// There is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When an authorization server is asked for a session again that begins, or comes from another process; 0: never.
fn first_recheck(route: &Route, who: &SessionOpener) -> u64 {
    let auth = route.access.as_ref().filter(|_| who.keeps_question()).and_then(|access| access.auth.as_ref());
    let Some(interval) = auth.and_then(|auth| auth.recheck) else { return 0 };
    unix_secs() + spread(interval, 0.5..1.0)
}

impl Registered {
    /// Unique in the process.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// How the session is ended.
    #[must_use]
    pub fn handle(&self) -> &SessionHandle {
        &self.handle
    }

    /// The number of its worker, from 0.
    #[must_use]
    pub fn worker(&self) -> usize {
        self.registry.number
    }

    /// The route it was opened by.
    #[must_use]
    pub fn route(&self) -> Option<Arc<Route>> {
        self.registry.get(self.id).map(|entry| entry.route)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut inner = self.registry.lock();
        let Some(Entry { route, who, recheck_at, .. }) = inner.live.remove(&self.id) else { return };
        if recheck_at > 0 {
            inner.rechecks.remove(&(recheck_at, self.id));
        }
        if let Some(at) = who.expiry() {
            inner.expiring.remove(&(at, self.id));
        }
        if let Some(count) = inner.by_route.get_mut(&route.id) {
            *count -= 1;
            if *count == 0 {
                inner.by_route.remove(&route.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::path::Path;

    use super::*;
    use crate::config::Config;
    use crate::context::identity::Recheck;

    fn opener() -> SessionOpener {
        SessionOpener {
            peer: (Ipv4Addr::LOCALHOST, 1).into(),
            client: Ipv4Addr::LOCALHOST.into(),
            protocol: "HTTP/1.1",
            started: Instant::now(),
            stays: None,
            server: None,
            identity: None,
            redial: SessionRedial::Off,
        }
    }

    #[tokio::test]
    async fn the_slowest_are_those_that_took_nothing_for_the_longest() {
        let text = "[[route]]\npath = \"/\"\nservice = \"echo\"\n";
        let routes = Config::parse(Path::new("wssgate.toml"), text).0.routes;
        let who = opener();
        let registry = Arc::new(Registry::new(0, 1));
        let live: Vec<_> = (0..6).map(|_| registry.register(&routes[0], who.clone())).collect();
        for n in [4, 1, 2, 3] {
            live[n].handle().on_stall(true, false);
            std::thread::sleep(std::time::Duration::from_millis(3)); // so that they differ
        }
        live[2].handle().on_stall(true, true);
        live[1].handle().end(frame_core::handle::Order { code: 1013, mode: EndMode::Now });
        let since = |count| {
            let mut since: Vec<_> =
                registry.slowest(count).iter().map(|handle| handle.stalled_since().unwrap()).collect();
            since.sort_unstable();
            since
        };
        let of = |n: usize| live[n].handle().stalled_since().unwrap();
        assert!(since(0).is_empty());
        assert_eq!(since(2), [of(4), of(3)]);
        assert_eq!(since(9), [of(4), of(3), of(2)]);
    }

    /// A session whose question was answered long ago: it is not late by an interval that a reload has brought.
    #[tokio::test]
    async fn a_reload_wants_live_sessions_asked_for() {
        let route = |recheck: &str| {
            let access = "forward = { url = \"http://127.0.0.1:1/\" }";
            let route =
                format!("[[route]]\npath = \"/\"\nservice = \"echo\"\n[route.access]\n{access}\n{recheck}");
            Config::parse(Path::new("wssgate.toml"), &route).0.routes.remove(0)
        };
        let now = unix_secs();
        let recheck = Recheck::new(Vec::new(), now - 5000);
        let identity = Identity { recheck: Some(recheck.clone()), ..Identity::default() };
        let registry = Arc::new(Registry::new(0, 1));
        let who = SessionOpener { identity: Some(Arc::new(identity)), ..opener() };
        let live = registry.register(&route(""), who);
        registry.recheck_by(|_| None);
        assert_eq!((registry.take_rechecks(now + 5000), recheck.age(now)), (Vec::new(), 5000));
        let changed = route("recheck = \"60s\"");
        registry.recheck_by(|_| Some(&changed));
        assert!(recheck.age(now + 60) <= 60);
        assert!(registry.take_rechecks(now + 29).is_empty());
        assert_eq!(registry.take_rechecks(unix_secs() + 60), [live.id()]);
    }

    #[tokio::test]
    async fn ids_are_unique_and_routes_are_counted() {
        let text =
            "[[route]]\npath = \"/a\"\nservice = \"echo\"\n[[route]]\npath = \"/b\"\nservice = \"echo\"\n";
        let routes = Config::parse(Path::new("wssgate.toml"), text).0.routes;
        let who = opener();
        let registries: Vec<_> = (0..3).map(|number| Arc::new(Registry::new(number, 3))).collect();
        let mut live: Vec<_> =
            (0..12).map(|i| registries[i % 3].register(&routes[usize::from(i == 5)], who.clone())).collect();
        let mut ids: Vec<_> = live.iter().map(Registered::id).collect();
        ids.sort_unstable();
        assert_eq!(ids, Vec::from_iter(1..=12));
        let count = || {
            let mut counts = HashMap::new();
            registries.iter().for_each(|registry| registry.count(&mut counts));
            let mut counts: Vec<_> = counts.iter().map(|(id, count)| (id.to_string(), *count)).collect();
            counts.sort();
            counts
        };
        assert_eq!(count(), [("/a".to_owned(), 11), ("/b".to_owned(), 1)]);
        drop(live.remove(5));
        drop(live.remove(0));
        assert_eq!(count(), [("/a".to_owned(), 10)]);
    }
}
