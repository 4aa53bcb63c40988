//! How the certificates stand that the gateway orders, as operators see it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// All of them.
#[derive(Debug, Default)]
pub struct AcmeOverview {
    certificates: Mutex<Vec<AcmeInfo>>,
    issued: AtomicU64,
    failed: AtomicU64,
    /// `[acme.on_demand]` is there.
    is_on_demand: AtomicBool,
    demands: [AtomicU64; DemandResult::ALL.len()],
}

/// What has come of a name that a client has asked for, and that had no certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DemandResult {
    /// A certificate is ordered.
    Ordered,
    /// There was one already.
    Issued,
    /// The name is not allowed.
    Denied,
    /// The last order has failed not long ago.
    Failed,
    /// There were too many orders or names.
    Limited,
    /// It could not be found out whether the name is allowed, or the storage can't be used.
    Unknown,
}

impl DemandResult {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Ordered, Self::Issued, Self::Denied, Self::Failed, Self::Limited, Self::Unknown];

    /// As metrics call it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ordered => "ordered",
            Self::Issued => "issued",
            Self::Denied => "denied",
            Self::Failed => "failed",
            Self::Limited => "limited",
            Self::Unknown => "unknown",
        }
    }
}

/// One certificate of `[acme]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AcmeInfo {
    /// Its names.
    pub names: Vec<String>,
    /// Clients have asked for it: it is not in the configuration.
    pub on_demand: bool,
    /// `valid`, `expired`, `missing`, `ordering`, or `elsewhere` while another gateway orders.
    pub state: String,
    /// Its end, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<i64>,
    /// When the next is ordered, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_order: Option<i64>,
    /// Orders in a row that came to nothing.
    pub failures: u32,
    /// Why the last one did, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl AcmeOverview {
    /// As it was found last.
    #[must_use]
    pub fn certificates(&self) -> Vec<AcmeInfo> {
        self.certificates.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// This is how they stand.
    pub fn show(&self, certificates: Vec<AcmeInfo>) {
        *self.certificates.lock().unwrap_or_else(PoisonError::into_inner) = certificates;
    }

    /// An order of this process has ended.
    pub fn count(&self, is_issued: bool) {
        let counter = if is_issued { &self.issued } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether certificates are ordered on demand.
    pub fn set_on_demand(&self, is_on_demand: bool) {
        self.is_on_demand.store(is_on_demand, Ordering::Relaxed);
    }

    /// A name was judged that a client has asked for.
    pub fn count_demand(&self, result: DemandResult) {
        self.demands[result as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many names were judged so; `None`: no certificates are ordered on demand.
    #[must_use]
    pub fn demands(&self) -> Option<[(DemandResult, u64); DemandResult::ALL.len()]> {
        let counts =
            DemandResult::ALL.map(|result| (result, self.demands[result as usize].load(Ordering::Relaxed)));
        self.is_on_demand.load(Ordering::Relaxed).then_some(counts)
    }

    /// Orders of this process: with a certificate, and without one.
    #[must_use]
    pub fn orders(&self) -> (u64, u64) {
        (self.issued.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }
}
