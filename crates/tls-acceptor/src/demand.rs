//! A name without a certificate, for which one may be ordered while its client waits.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;

/// Orders certificates for names that clients ask for.
pub trait OrderOnDemand: Debug + Send + Sync {
    /// A client asks for `name`, which is in lower case and has no certificate, or one that has expired.
    fn demand(&self, name: &str) -> DemandFuture;
}

/// Waits for what comes of a demand.
pub type DemandFuture = Pin<Box<dyn Future<Output = Demanded> + Send>>;

/// What has come of a demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demanded {
    /// No certificate is ordered for such a name: it is answered as every unknown one.
    Unknown,
    /// It may get a certificate, but this client gets none: it is refused, whatever the default certificate is.
    Refused,
    /// It has a certificate, or is about to have one.
    Issued,
}
