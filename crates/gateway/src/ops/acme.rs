//! How the certificates stand that the gateway orders, as operators see it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// All of them.
#[derive(Debug, Default)]
pub struct AcmeOverview {
    certificates: Mutex<Vec<AcmeInfo>>,
    issued: AtomicU64,
    failed: AtomicU64,
}

/// One certificate of `[acme]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AcmeInfo {
    /// Its names.
    pub names: Vec<String>,
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

    /// Orders of this process: with a certificate, and without one.
    #[must_use]
    pub fn orders(&self) -> (u64, u64) {
        (self.issued.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }
}
