//! What is known of the names of servers: written by the one task that looks a name up, read by all workers.

mod moved;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, watch};

use crate::site::names::{Found, Question, Resolve, TTL_MIN, Unresolved, order};

/// One name.
#[derive(Debug)]
pub struct KnownName {
    /// What is asked.
    pub question: Question,
    found: ArcSwapOption<Found>,
    /// Counts connections, which begin with another address each.
    turn: AtomicUsize,
    /// Counts how often an address has gone.
    losses: AtomicU32,
    lookups: AtomicU64,
    failures: AtomicU64,
    last: Mutex<Last>,
    /// It has been looked up so many times.
    looked: watch::Sender<u64>,
    /// It should be looked up at once.
    wanted: Notify,
}

/// The last look-up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Last {
    /// When there was an answer last.
    pub resolved: Option<Duration>,
    /// When a look-up ended last.
    pub ended: Option<Duration>,
    /// What was wrong with the last one.
    pub problem: Option<Box<str>>,
    /// How many have failed in a row.
    pub failures: u32,
}

/// What a look-up has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing.
    Nothing,
    /// What is found is another than before.
    Found,
    /// The name can no longer be resolved.
    Lost,
    /// It can be resolved again, to what is known.
    Back,
}

impl KnownName {
    /// One that has not been looked up.
    #[must_use]
    pub fn new(question: Question) -> Self {
        Self {
            question,
            found: ArcSwapOption::empty(),
            turn: AtomicUsize::new(0),
            losses: AtomicU32::new(0),
            lookups: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            last: Mutex::default(),
            looked: watch::channel(0).0,
            wanted: Notify::new(),
        }
    }

    /// What was found last.
    #[must_use]
    pub fn found(&self) -> Option<Arc<Found>> {
        self.found.load_full()
    }

    /// Where to connect to for a host and a port, in the order of the attempts.
    #[must_use]
    pub fn addresses(&self, host: &str, port: u16) -> Vec<SocketAddr> {
        let found = self.found.load();
        let addresses = found.as_ref().map_or(&[][..], |found| found.of(host, port));
        order(
            addresses,
            port,
            if addresses.len() > 1 { self.turn.fetch_add(1, Ordering::Relaxed) } else { 0 },
        )
    }

    /// A number that is another one after an address has gone: what was connected before may lead to it.
    #[must_use]
    pub fn losses(&self) -> u32 {
        self.losses.load(Ordering::Relaxed)
    }

    /// How often it has been looked up, and how often in vain.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.lookups.load(Ordering::Relaxed), self.failures.load(Ordering::Relaxed))
    }

    /// The last look-up.
    #[must_use]
    pub fn last(&self) -> Last {
        self.lock().clone()
    }

    /// A connection to what is known has failed: it is looked up at once. `None`: it was a moment ago.
    pub(crate) fn want(&self, now: Duration) -> Option<watch::Receiver<u64>> {
        let ended = self.lock().ended?;
        if self.question.resolve == Resolve::Once || now.saturating_sub(ended) < TTL_MIN {
            return None;
        }
        let looked = self.looked.subscribe();
        self.wanted.notify_one();
        Some(looked)
    }

    /// When it should be looked up at once.
    pub(crate) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// When it has been looked up for the first time.
    pub(crate) async fn looked(&self) {
        let mut looked = self.looked.subscribe();
        let _ = looked.wait_for(|count| *count > 0).await; // the sender is here
    }

    /// A look-up has ended. What was found before stays if it failed.
    pub(crate) fn settle(&self, result: Result<Found, &Unresolved>, now: Duration) -> Change {
        let mut last = self.lock();
        let (was_failing, is_first) = (last.failures > 0, last.ended.is_none());
        last.ended = Some(now);
        self.lookups.fetch_add(1, Ordering::Relaxed);
        let change = match result {
            Ok(found) => {
                (last.resolved, last.problem, last.failures) = (Some(now), None, 0);
                let old = self.found.load_full();
                if old.as_deref() == Some(&found) {
                    if was_failing || is_first { Change::Back } else { Change::Nothing }
                } else {
                    if old.is_some_and(|old| has_lost(&old, &found)) {
                        self.losses.fetch_add(1, Ordering::Relaxed);
                    }
                    self.found.store(Some(Arc::new(found)));
                    Change::Found
                }
            }
            Err(unresolved) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                last.problem = Some(unresolved.why.as_str().into());
                last.failures = last.failures.saturating_add(1);
                if was_failing { Change::Nothing } else { Change::Lost }
            }
        };
        drop(last);
        self.looked.send_modify(|count| *count += 1);
        change
    }

    fn lock(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Something of the one is not in the other.
fn has_lost(old: &Found, new: &Found) -> bool {
    match (old, new) {
        (Found::Addresses(old), Found::Addresses(new)) => old.iter().any(|ip| !new.contains(ip)),
        (Found::Services(old), Found::Services(_)) => old.iter().any(|service| {
            let left = new.of(&service.host, service.port);
            service.addresses.iter().any(|ip| !left.contains(ip))
        }),
        _ => true,
    }
}

/// All names that are looked up in this process.
#[derive(Debug, Default)]
pub struct Names(Mutex<BTreeMap<Question, Arc<KnownName>>>);

impl Names {
    /// This one, if it is looked up.
    #[must_use]
    pub fn get(&self, question: &Question) -> Option<Arc<KnownName>> {
        self.lock().get(question).cloned()
    }

    /// All of them, in order.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<KnownName>> {
        self.lock().values().cloned().collect()
    }

    /// This one, from now on. It is new, if it was not there.
    pub(crate) fn add(&self, question: &Question) -> (Arc<KnownName>, bool) {
        let mut names = self.lock();
        if let Some(name) = names.get(question) {
            return (name.clone(), false);
        }
        let name = Arc::new(KnownName::new(question.clone()));
        names.insert(question.clone(), name.clone());
        (name, true)
    }

    /// Only these.
    pub(crate) fn keep(&self, is_kept: impl Fn(&Question) -> bool) {
        self.lock().retain(|question, _| is_kept(question));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Question, Arc<KnownName>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(list: &[&str]) -> Found {
        Found::addresses(list.iter().map(|ip| ip.parse().unwrap()).collect())
    }

    fn unresolved() -> Unresolved {
        Unresolved { why: "the name has no address".to_owned(), for_time: None, is_certain: true }
    }

    #[test]
    fn a_name_that_stops_resolving_keeps_its_addresses_and_says_so_once() {
        let name = KnownName::new(Question::new("App", Resolve::Dns));
        let at = Duration::from_secs;
        assert_eq!(name.want(at(1)).map(drop), None, "its first look-up is on its way");
        assert_eq!(name.settle(Err(&unresolved()), at(1)), Change::Lost);
        assert_eq!(name.addresses("app", 80), []);
        assert_eq!(name.settle(Ok(found(&["10.0.0.1", "10.0.0.2"])), at(2)), Change::Found);
        assert_eq!(name.settle(Ok(found(&["10.0.0.2", "10.0.0.1"])), at(3)), Change::Nothing);
        for (n, change) in [(4, Change::Lost), (5, Change::Nothing), (6, Change::Nothing)] {
            assert_eq!(name.settle(Err(&unresolved()), at(n)), change);
        }
        assert_eq!((name.addresses("app", 80).len(), name.last().failures), (2, 3));
        assert_eq!(name.settle(Ok(found(&["10.0.0.1", "10.0.0.2"])), at(7)), Change::Back);
        assert_eq!(name.losses(), 0);
        assert_eq!(name.settle(Ok(found(&["10.0.0.2", "10.0.0.3"])), at(8)), Change::Found);
        assert_eq!((name.losses(), name.counts()), (1, (8, 4)));
        assert!(name.want(at(8)).is_none() && name.want(at(10)).is_some());
    }

    #[test]
    fn connections_are_spread_over_the_addresses() {
        let name = KnownName::new(Question::new("app", Resolve::Host));
        name.settle(Ok(found(&["10.0.0.1", "10.0.0.2", "10.0.0.3"])), Duration::ZERO);
        let firsts: std::collections::BTreeSet<_> = (0..3).map(|_| name.addresses("app", 80)[0]).collect();
        assert_eq!(firsts.len(), 3);
    }
}
