//! The certificates in use, and how they are exchanged: candidate → swap → report.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::watch;

use net_io::unix_now;

use crate::cert_set::CertSet;
use crate::certificate::{Certificate, days_left};
use crate::challenge::AnswerChallenges;
use crate::demand::OrderOnDemand;
use crate::load::{CertificateProblem, Loaded, Plan, Warning, load};
use crate::name::CertName;

/// The cell that ClientHellos are answered from. Live connections hold nothing of it.
#[derive(Debug)]
pub struct Certificates {
    current: ArcSwap<Current>,
    asks_clients: AtomicBool,
    /// What answers an authority that validates a name; `None`: nothing does. Two pointers, since ours has one.
    challenges: ArcSwapOption<Arc<dyn AnswerChallenges>>,
    /// What orders certificates for names that have none; `None`: nothing does.
    on_demand: ArcSwapOption<Arc<dyn OrderOnDemand>>,
    swaps: watch::Sender<()>,
}

/// What is in the cell.
#[derive(Debug)]
pub struct Current {
    /// Counts the swaps, or whatever the owner of the cell numbers them by.
    pub generation: u64,
    /// The set, and what was said about it.
    pub loaded: Loaded,
}

/// What a swap changed, name by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReloadReport {
    /// The generation that is served now.
    pub generation: u64,
    /// Names that had no certificate before.
    pub added: Vec<CertName>,
    /// Names that have none any more.
    pub removed: Vec<CertName>,
    /// Names that are served another certificate than before, or have other rules for the certificates of clients.
    pub replaced: Vec<CertName>,
    /// Names that are served the same as before.
    pub unchanged: usize,
    /// Names of broken files whose last good certificate is still served.
    pub kept: Vec<CertName>,
    /// Days until the first served certificate expires, and one of its names.
    pub nearest_expiry: Option<(i64, CertName)>,
}

impl Certificates {
    /// A cell with its first content.
    #[must_use]
    pub fn new(loaded: Loaded, generation: u64) -> Arc<Self> {
        let asks_clients = loaded.set.asks_clients().into();
        let current = ArcSwap::from_pointee(Current { generation, loaded });
        let (challenges, on_demand) = (ArcSwapOption::empty(), ArcSwapOption::empty());
        Arc::new(Self { current, asks_clients, challenges, on_demand, swaps: watch::Sender::new(()) })
    }

    /// Handshakes by which an authority validates a name (RFC 8737) are answered by this from now on.
    pub fn answer_challenges(&self, by: Option<Arc<dyn AnswerChallenges>>) {
        self.challenges.store(by.map(Arc::new));
    }

    /// What answers such handshakes.
    pub(crate) fn challenges(&self) -> Option<Arc<dyn AnswerChallenges>> {
        self.challenges.load().as_deref().cloned()
    }

    /// Names without a certificate are told to this from now on.
    pub fn order_on_demand(&self, by: Option<Arc<dyn OrderOnDemand>>) {
        self.on_demand.store(by.map(Arc::new));
    }

    /// What they are told to.
    pub(crate) fn on_demand(&self) -> Option<Arc<dyn OrderOnDemand>> {
        self.on_demand.load().as_deref().cloned()
    }

    /// Waits until a certificate that is valid answers for the name.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn answers_for(&self, name: &str) {
        let mut swaps = self.swaps.subscribe();
        while !self.current().loaded.set.is_served(name, unix_now()) {
            if swaps.changed().await.is_err() {
                return; // the sender is ours
            }
        }
    }

    /// Clients of some name have to show a certificate, or may. Cheaper than a look at the set.
    #[must_use]
    pub fn asks_clients(&self) -> bool {
        self.asks_clients.load(Ordering::Acquire)
    }

    /// Carries out `plan` and puts the result into a new cell, as generation 1. Blocks.
    ///
    /// # Errors
    /// See [`load`].
    pub fn load(plan: &Plan) -> Result<Arc<Self>, Vec<CertificateProblem>> {
        Ok(Self::new(load(plan, None)?, 1))
    }

    /// What is served now.
    #[must_use]
    pub fn current(&self) -> Arc<Current> {
        self.current.load_full() // never a guard: arc-swap's are not for holding
    }

    /// Carries out `plan` again and, if that succeeds, serves the result. Blocks.
    ///
    /// # Errors
    /// See [`load`]; what was served is served on.
    pub fn reload(&self, plan: &Plan) -> Result<ReloadReport, Vec<CertificateProblem>> {
        let current = self.current();
        let loaded = load(plan, Some(&current.loaded))?;
        Ok(self.swap(loaded, current.generation + 1))
    }

    /// What [`Self::swap`] would change.
    #[must_use]
    pub fn compare(&self, loaded: &Loaded, generation: u64) -> ReloadReport {
        report(&self.current().loaded, loaded, generation)
    }

    /// Serves `loaded` from now on: one pointer store, which can't fail.
    pub fn swap(&self, loaded: Loaded, generation: u64) -> ReloadReport {
        let new = Arc::new(Current { generation, loaded });
        // Never later than the set that asks: a request between the two is judged by the set.
        self.asks_clients.fetch_or(new.loaded.set.asks_clients(), Ordering::AcqRel);
        let old = self.current.swap(new.clone());
        self.asks_clients.store(new.loaded.set.asks_clients(), Ordering::Release);
        self.swaps.send_replace(());
        report(&old.loaded, &new.loaded, generation)
    }
}

impl ReloadReport {
    /// Some name is served something else than before.
    #[must_use]
    pub fn is_change(&self) -> bool {
        [&self.added, &self.removed, &self.replaced].iter().any(|names| !names.is_empty())
    }
}

fn report(old: &Loaded, new: &Loaded, generation: u64) -> ReloadReport {
    let before: HashMap<CertName, &[Arc<Certificate>]> = old.set.names().collect();
    let after: HashMap<CertName, &[Arc<Certificate>]> = new.set.names().collect();
    let mut report = ReloadReport { generation, ..ReloadReport::default() };
    for (name, entry) in &after {
        match before.get(name) {
            None => report.added.push(name.clone()),
            Some(was) if same(was, entry) && same_rules(&old.set, &new.set, name) => report.unchanged += 1,
            Some(_) => report.replaced.push(name.clone()),
        }
    }
    report.removed = before.into_keys().filter(|name| !after.contains_key(name)).collect();
    for warning in &new.warnings {
        if let Warning::Kept(certificate) = warning {
            report.kept.extend(certificate.leaf.names.iter().cloned());
        }
    }
    let first = new.set.expiries().min_by(|(a, at), (b, bt)| (at, a).cmp(&(bt, b)));
    report.nearest_expiry = first.map(|(name, at)| (days_left(at, unix_now()), name));
    for names in [&mut report.added, &mut report.removed, &mut report.replaced, &mut report.kept] {
        names.sort_unstable();
    }
    report
}

fn same_rules(old: &CertSet, new: &CertSet, name: &CertName) -> bool {
    match (old.auth_of(name), new.auth_of(name)) {
        (Some(old), Some(new)) => old.is_same(new),
        (None, None) => true,
        _ => false,
    }
}

fn same(a: &[Arc<Certificate>], b: &[Arc<Certificate>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.key.cert == b.key.cert)
}
