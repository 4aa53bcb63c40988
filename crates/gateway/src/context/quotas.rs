//! How much clients use, counted for all workers together. Nothing here is touched by a message.
//!
//! Rates are in a table of 65,536 clients, 1 MiB, which is made when the first rate is asked for. If it is full, the
//! client that is furthest below its rate makes room, and that is counted. Live sessions are counted one by one; their
//! clients take memory as long as the sessions live.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use frame_core::metered::RateCounts;
use http::{HeaderMap, HeaderValue};
use tracing::{debug, warn};

use crate::context::idle::IdleConnections;
use crate::net::listening::PeerName;
use crate::site::access::Per;
use crate::site::rate::Rate;
use crate::site::route::Route;

/// Clients that share a lock. A client can be in one set only.
const SET_LEN: usize = 8;
const SETS: usize = 8192;
/// Parts of the live sessions' counts, each with its lock.
const SHARDS: usize = 64;
/// Between two lines of the log.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// How much clients use.
#[derive(Debug)]
pub struct Quotas {
    hasher: RandomState,
    begun: Instant,
    rates: OnceLock<Box<[Mutex<[Slot; SET_LEN]>]>>,
    sessions: Box<[Mutex<HashMap<u64, u32>>]>,
    /// Requests that were refused for a rate or a number of sessions.
    pub refused: AtomicU64,
    /// Clients that made room in the table although they had used some of their rate.
    pub forgotten: AtomicU64,
    /// Sessions whose clients sent more than `messages` or `bytes` allow.
    pub sessions_limited: Arc<RateCounts>,
    /// Connections of clients that are open.
    pub connections: AtomicU64,
    /// Those that wait for a request, if their number is limited.
    pub idle: IdleConnections,
    /// Connections that had to wait for the end of another.
    pub connections_waited: AtomicU64,
    logged: Mutex<(u64, Option<Instant>)>,
    logged_full: Mutex<Option<Instant>>,
}

/// A connection of a client that is open, until this is dropped.
#[derive(Debug)]
pub struct ConnectionSlot(Arc<Quotas>);

impl ConnectionSlot {
    /// Counts one more, however many there are.
    #[must_use]
    pub fn new(quotas: &Arc<Quotas>) -> Self {
        quotas.connections.fetch_add(1, Ordering::Relaxed);
        Self(quotas.clone())
    }

    /// Counts one more, if there are fewer than `max`.
    #[must_use]
    pub fn try_new(quotas: &Arc<Quotas>, max: Option<u64>) -> Option<Self> {
        let more = |open: u64| (max.is_none_or(|max| open < max)).then_some(open + 1);
        quotas.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Self(quotas.clone()))
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A client in the table; empty: 0 and 0.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    client: u64,
    /// See [`Rate::take`].
    next: u64,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            begun: Instant::now(),
            rates: OnceLock::new(),
            sessions: (0..SHARDS).map(|_| Mutex::default()).collect(),
            refused: AtomicU64::new(0),
            forgotten: AtomicU64::new(0),
            sessions_limited: Arc::default(),
            connections: AtomicU64::new(0),
            idle: IdleConnections::default(),
            connections_waited: AtomicU64::new(0),
            logged: Mutex::default(),
            logged_full: Mutex::default(),
        }
    }
}

impl Quotas {
    /// A number for this client on this route, the same after a reload.
    #[must_use]
    pub fn client(
        &self,
        route: &Route,
        per: &Per,
        client: IpAddr,
        headers: &HeaderMap,
        subject: Option<&str>,
    ) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        route.id.hash(&mut hasher);
        per.hash_into(client, headers, subject, &mut hasher);
        hasher.finish()
    }

    /// The number of a client for its handshakes, whose rate is another than that of its requests.
    #[must_use]
    pub fn handshakes(&self, client: u64) -> u64 {
        self.hasher.hash_one(("handshakes", client))
    }

    /// The same for what the client has failed to prove.
    #[must_use]
    pub fn failures(&self, route: &Route, client: IpAddr) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        "failures".hash(&mut hasher);
        route.id.hash(&mut hasher);
        Per::Client.hash_into(client, &HeaderMap::new(), None, &mut hasher);
        hasher.finish()
    }

    /// The number of an address for wrong tokens of the admin listener.
    #[must_use]
    pub fn operator(&self, client: IpAddr) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        "operator".hash(&mut hasher);
        Per::Client.hash_into(client, &HeaderMap::new(), None, &mut hasher);
        hasher.finish()
    }

    /// How long `client` has to wait before it may send one more, which is not counted; `None`: it may.
    #[must_use]
    pub fn wait(&self, client: u64, rate: Rate) -> Option<Duration> {
        let set = self.rates.get()?.get(usize::try_from(client % SETS as u64).unwrap_or(0))?;
        let next = lock(set).iter().find(|slot| slot.client == client)?.next;
        rate.take(next, self.now()).err()
    }

    /// Counts one request of `client`.
    ///
    /// # Errors
    /// How long the client has to wait, if it is one too many.
    pub fn request(&self, client: u64, rate: Rate) -> Result<(), Duration> {
        self.request_at(client, rate, self.now())
    }

    /// Later than 0, which is that of an empty slot.
    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX / 2) + 1
    }

    fn request_at(&self, client: u64, rate: Rate, now: u64) -> Result<(), Duration> {
        let sets = self.rates.get_or_init(|| (0..SETS).map(|_| Mutex::default()).collect());
        let mut set = lock(&sets[usize::try_from(client % SETS as u64).unwrap_or(0)]);
        let slot = match set.iter().position(|slot| slot.client == client) {
            Some(at) => &mut set[at],
            None => {
                let mut slots = set.iter_mut();
                let Some(first) = slots.next() else { return Ok(()) };
                let least =
                    slots.fold(first, |least, slot| if slot.next < least.next { slot } else { least });
                if least.next > now {
                    self.forgotten.fetch_add(1, Ordering::Relaxed);
                }
                *least = Slot { client, next: 0 };
                least
            }
        };
        slot.next = rate.take(slot.next, now)?;
        Ok(())
    }

    /// Counts one more session of `client`, as long as the result lives; `None`: it has `max` already.
    #[must_use]
    pub fn session(self: &Arc<Self>, client: u64, max: u32) -> Option<SessionPlace> {
        let mut shard = lock(self.shard(client));
        let count = shard.entry(client).or_default();
        if *count >= max {
            if *count == 0 {
                shard.remove(&client);
            }
            return None;
        }
        *count += 1;
        Some(SessionPlace { quotas: self.clone(), client, value: None })
    }

    fn shard(&self, client: u64) -> &Mutex<HashMap<u64, u32>> {
        &self.sessions[usize::try_from(client % SHARDS as u64).unwrap_or(0)]
    }

    /// A connection of `peer` has to wait for the end of another. The log has one line a second.
    pub fn wait_for_connection(&self, peer: SocketAddr, max: u64) {
        let waited = self.connections_waited.fetch_add(1, Ordering::Relaxed) + 1;
        let now = Instant::now();
        let mut logged = lock(&self.logged_full);
        if logged.is_none_or(|at| now.duration_since(at) >= LOG_INTERVAL) {
            *logged = Some(now);
            warn!(max, waited, latest = %PeerName(peer), "as many connections are open as max_connections allows: others wait");
        }
    }

    /// A request of `peer` was refused. The log has one line a second.
    pub fn refuse(&self, peer: SocketAddr, route: &Route, cause: &str) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        debug!(peer = %PeerName(peer), route = route.id.as_str(), cause, "request refused with 429");
        let now = Instant::now();
        let mut logged = lock(&self.logged);
        let (requests, at) = &mut *logged;
        *requests += 1;
        if at.is_none_or(|at| now.duration_since(at) >= LOG_INTERVAL) {
            *at = Some(now);
            let requests = std::mem::take(requests);
            drop(logged);
            warn!(requests, latest = %PeerName(peer), route = route.id.as_str(), cause, "requests refused with 429");
        }
    }
}

/// A session among those of its client, until it is dropped.
#[derive(Debug)]
pub struct SessionPlace {
    quotas: Arc<Quotas>,
    client: u64,
    /// The value of the field by which the client is known, if it is: another process counts by it.
    value: Option<HeaderValue>,
}

impl SessionPlace {
    /// The client is known by this value of a field.
    #[must_use]
    pub fn of_value(mut self, value: Option<HeaderValue>) -> Self {
        self.value = value;
        self
    }

    /// The value of a field by which the client is known; `None`: by its address.
    #[must_use]
    pub fn value(&self) -> Option<&HeaderValue> {
        self.value.as_ref()
    }
}

impl Drop for SessionPlace {
    fn drop(&mut self) {
        let mut shard = lock(self.quotas.shard(self.client));
        match shard.get_mut(&self.client) {
            Some(count @ 2..) => *count -= 1,
            _ => drop(shard.remove(&self.client)),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_million_clients_take_no_more_memory_than_the_table() {
        let quotas = Quotas::default();
        let rate = Rate::parse("2/s").unwrap();
        let hash = |n: u64| quotas.hasher.hash_one(n);
        for n in 0..1_000_000 {
            quotas.request_at(hash(n), rate, SECOND).unwrap();
        }
        let sets = quotas.rates.get().unwrap();
        assert_eq!(sets.len() * SET_LEN, 65_536);
        assert!(size_of_val(&**sets) <= 2 << 20, "{}", size_of_val(&**sets));
        let forgotten = quotas.forgotten.load(Ordering::Relaxed);
        assert_eq!(forgotten, 1_000_000 - 65_536, "all sets are full");
        // Later each has its whole rate again: none is forgotten for another. So few never share a set with eight.
        for n in 0..1_000 {
            quotas.request_at(hash(n), rate, 10 * SECOND).unwrap();
        }
        assert_eq!(quotas.forgotten.load(Ordering::Relaxed), forgotten);
    }

    #[test]
    fn a_busy_client_is_not_forgotten_for_others() {
        let quotas = Quotas::default();
        let (busy, rate) = (7, Rate::parse("100/m").unwrap());
        for _ in 0..100 {
            quotas.request_at(busy, rate, SECOND).unwrap();
        }
        for n in 1..1000 {
            let other = busy + n * SETS as u64; // of the same set
            quotas.request_at(other, rate, SECOND).unwrap();
        }
        let wait = quotas.request_at(busy, rate, SECOND).unwrap_err();
        assert_eq!(wait, Duration::from_millis(600));
    }

    #[test]
    fn to_look_is_not_to_count() {
        let quotas = Quotas::default();
        let rate = Rate::parse("2/h").unwrap();
        for expect in [true, true, false, false] {
            assert_eq!(quotas.wait(9, rate).is_none(), expect);
            assert_eq!(quotas.request(9, rate).is_ok(), expect);
        }
        assert!(quotas.wait(10, rate).is_none());
    }

    #[test]
    fn live_sessions_are_counted_exactly() {
        let quotas = Arc::<Quotas>::default();
        let [a, b, c] = [1, 1, 2].map(|client| quotas.session(client, 2).unwrap());
        assert!(quotas.session(1, 2).is_none());
        drop(a);
        let d = quotas.session(1, 2).unwrap();
        drop((b, c, d));
        assert!(quotas.session(1, 0).is_none());
        assert!(quotas.sessions.iter().all(|shard| lock(shard).is_empty()));
    }

    #[test]
    fn threads_share_one_count() {
        let quotas = Arc::<Quotas>::default();
        let rate = Rate::parse("1000/h").unwrap();
        let passed: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| (0..1000).filter(|_| quotas.request_at(5, rate, SECOND).is_ok()).count())
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(passed, 1000);
    }
}
