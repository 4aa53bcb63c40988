//! Session tickets: resumption in TLS 1.2 and 1.3 without state on the server.
//!
//! The keys are made at random, rotate every six hours, and are accepted for as long again. They
//! belong to the process, not to a set of certificates: one [`Tickets`] serves every acceptor, so
//! that clients resume across reloads. A ticket is bound to the server name it was issued under
//! (rustls sees to it), and the certificate is resolved before resumption is considered, so a name
//! that was removed stops resuming at once.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::ProducesTickets;

/// The ticket keys of this process. Cheap to clone; clones share their keys.
#[derive(Debug, Clone)]
pub struct Tickets(Arc<dyn ProducesTickets>);

/// The operating system gave no randomness.
#[derive(Debug, thiserror::Error)]
#[error("no session ticket keys could be made: {0}")]
pub struct TicketError(#[from] rustls::Error);

impl Tickets {
    /// Fresh keys.
    ///
    /// # Errors
    /// If there is no randomness to be had.
    pub fn new() -> Result<Self, TicketError> {
        Ok(Self(Ticketer::new()?))
    }

    pub(crate) fn producer(&self) -> Arc<dyn ProducesTickets> {
        self.0.clone()
    }
}
