//! Clients that are waited for, and which of them goes when there are too many.
//!
//! A client that says nothing costs little, but not nothing. So there is a bound on those that are waited
//! for, and a client address may have no more of its connections among them than places are left free: one
//! address alone gets half of the places, two get a third each, and a new one finds some. Who goes is
//! always the one that was waited for longest.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// What counts as one client: an IPv4 address, or the 64 bits of an IPv6 address that name a network, since one
/// subscriber has all addresses of it (RFC 6177 §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Client(IpAddr);

impl From<IpAddr> for Client {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (!0 << 64))),
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

/// The places of clients that are waited for. Cheap to clone; clones share the places.
#[derive(Debug, Clone)]
pub struct Waiting {
    places: Arc<Mutex<Places>>,
}

/// A client's place; it is given back when this is dropped.
#[derive(Debug)]
pub struct Place {
    waiting: Waiting,
    number: u64,
    called: Arc<Notify>,
}

impl Waiting {
    /// Room for `max` clients.
    #[must_use]
    pub fn new(max: usize) -> Self {
        let places = Places { max, next: 0, all: BTreeMap::new(), of: HashMap::new() };
        Self { places: Arc::new(Mutex::new(places)) }
    }

    /// Takes a place. If there are too many, one that was taken before is called off; see [`Place::called_off`].
    #[must_use]
    pub fn enter(&self, client: Client) -> Place {
        let called = Arc::new(Notify::new());
        let number = self.places().enter(client, Instant::now(), called.clone());
        Place { waiting: self.clone(), number, called }
    }

    /// Calls off the client that was waited for longest, if that is `patience` or more; `of`: only one of this
    /// client's. Says whether there was one.
    #[must_use]
    pub fn shed(&self, of: Option<Client>, patience: Duration) -> bool {
        let now = Instant::now();
        let mut places = self.places();
        let longest = places.longest(of);
        longest.is_some_and(|number| places.call_off(number, |since| now.duration_since(since) >= patience))
    }

    /// Places that are taken.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.places().all.len()
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Ready when the place is needed for another client.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn called_off(&self) {
        self.called.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.waiting.places().leave(self.number);
    }
}

#[derive(Debug)]
struct Places {
    max: usize,
    next: u64,
    /// By the order in which they were taken.
    all: BTreeMap<u64, Taken>,
    /// The same by client.
    of: HashMap<Client, BTreeSet<u64>>,
}

#[derive(Debug)]
struct Taken {
    client: Client,
    since: Instant,
    called: Arc<Notify>,
}

impl Places {
    fn enter(&mut self, client: Client, now: Instant, called: Arc<Notify>) -> u64 {
        let its = self.of.get(&client).map_or(0, BTreeSet::len);
        let free = self.max.saturating_sub(self.all.len());
        if its >= free
            && let Some(number) = self.longest(Some(client)).or_else(|| self.longest(None))
        {
            self.call_off(number, |_| true);
        }
        let number = self.next;
        self.next += 1;
        self.all.insert(number, Taken { client, since: now, called });
        self.of.entry(client).or_default().insert(number);
        number
    }

    fn longest(&self, of: Option<Client>) -> Option<u64> {
        match of {
            Some(client) => self.of.get(&client)?.first().copied(),
            None => self.all.first_key_value().map(|(number, _)| *number),
        }
    }

    fn call_off(&mut self, number: u64, is_due: impl FnOnce(Instant) -> bool) -> bool {
        if !self.all.get(&number).is_some_and(|taken| is_due(taken.since)) {
            return false;
        }
        if let Some(taken) = self.leave(number) {
            taken.called.notify_one();
        }
        true
    }

    fn leave(&mut self, number: u64) -> Option<Taken> {
        let taken = self.all.remove(&number)?;
        if let Some(its) = self.of.get_mut(&taken.client) {
            its.remove(&number);
            if its.is_empty() {
                self.of.remove(&taken.client);
            }
        }
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;

    fn client(address: &str) -> Client {
        address.parse::<IpAddr>().unwrap().into()
    }

    fn is_called_off(place: &Place) -> bool {
        let called = place.called_off().now_or_never().is_some();
        if called {
            place.called.notify_one(); // as it was
        }
        called
    }

    #[test]
    fn a_client_is_an_address_or_a_network_of_ipv6() {
        assert_eq!(client("10.0.0.1"), client("::ffff:10.0.0.1"));
        assert_ne!(client("10.0.0.1"), client("10.0.0.2"));
        assert_eq!(client("2001:db8::1"), client("2001:db8:0:0:ffff:ffff:ffff:ffff"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
    }

    #[tokio::test]
    async fn one_client_leaves_room_for_others_and_its_own_longest_goes() {
        let waiting = Waiting::new(10);
        let (a, b) = (client("10.0.0.1"), client("10.0.0.2"));
        let first = waiting.enter(b);
        let mut its: Vec<_> = (0..100).map(|_| waiting.enter(a)).collect();
        assert!(waiting.len() <= 6, "{}", waiting.len());
        assert!(!is_called_off(&first), "it belongs to another client, although it has waited longest");
        let gone = its.iter().filter(|place| is_called_off(place)).count();
        assert_eq!(gone, its.len() + 1 - waiting.len());
        assert!(its[..gone].iter().all(is_called_off), "the longest went first");
        its.clear();
        assert_eq!(waiting.len(), 1);
        drop(first);
        assert!(waiting.len() == 0 && waiting.places().of.is_empty());
    }

    #[tokio::test]
    async fn when_all_places_are_taken_the_longest_of_all_goes() {
        let waiting = Waiting::new(4);
        let places: Vec<_> = (0..6).map(|n| waiting.enter(client(&format!("10.0.0.{n}")))).collect();
        let called: Vec<_> = places.iter().map(is_called_off).collect();
        assert_eq!(called, [true, true, false, false, false, false]);
        assert_eq!(waiting.len(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn patience_is_had_with_those_that_have_just_come() {
        let waiting = Waiting::new(usize::MAX);
        let (a, b) = (client("10.0.0.1"), client("10.0.0.2"));
        let second = Duration::from_secs(1);
        assert!(!waiting.shed(None, Duration::ZERO));
        let old = waiting.enter(a);
        tokio::time::advance(second).await;
        let young = waiting.enter(b);
        assert!(!waiting.shed(Some(b), second));
        assert!(waiting.shed(None, second));
        assert!(is_called_off(&old) && !is_called_off(&young));
        assert!(!waiting.shed(Some(a), Duration::ZERO), "it has gone");
        assert!(waiting.shed(Some(b), Duration::ZERO));
    }

    proptest! {
        /// Whatever comes and goes: the bound holds, and no client that has fewer places than another one is
        /// called off by that client.
        #[test]
        fn the_bound_holds(max in 1_usize..12, script in prop::collection::vec((0_u8..5, any::<bool>()), 1..200)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let _entered = runtime.enter();
            let waiting = Waiting::new(max);
            let mut places: Vec<(u8, Place)> = Vec::new();
            for (who, comes) in script {
                if comes {
                    places.push((who, waiting.enter(client(&format!("10.0.0.{who}")))));
                } else if !places.is_empty() {
                    places.remove(usize::from(who) % places.len());
                }
                prop_assert!(waiting.len() <= max);
                let state = waiting.places();
                prop_assert_eq!(state.of.values().map(BTreeSet::len).sum::<usize>(), state.all.len());
                drop(state);
                let there = places.iter().filter(|(_, place)| !is_called_off(place)).count();
                prop_assert_eq!(there, waiting.len());
            }
        }
    }
}
