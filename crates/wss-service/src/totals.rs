//! What a service has done since it was made, in numbers.

use std::sync::{Mutex, PoisonError};

/// What a service has done since it was made ([`Hub::totals`](crate::Hub::totals)): for a page of metrics. What there is at this
/// moment [`Hub::count`](crate::Hub::count) and its siblings say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Totals {
    /// Connections that were accepted.
    pub connections: u64,
    /// TLS handshakes that came to nothing. The log says why, at the level `debug`.
    pub tls_failed: u64,
    /// WebSocket handshakes that were refused: by the handler, for their origin, or for their form.
    pub refused: u64,
    /// Sessions that were opened.
    pub opened: u64,
    /// Sessions that have ended. What follows is known of these alone.
    pub ended: u64,
    /// Sessions whose handler has failed or panicked.
    pub failed: u64,
    /// Messages from clients.
    pub messages_in: u64,
    /// Bytes of the payloads of these messages.
    pub bytes_in: u64,
    /// Messages to clients.
    pub messages_out: u64,
    /// Bytes of the payloads of these messages.
    pub bytes_out: u64,
    /// Messages that were dropped for newer ones ([`SlowClient::DropOldest`](crate::SlowClient::DropOldest)).
    pub dropped: u64,
}

/// The same, while it is counted: nothing of it is on the path of a message.
#[derive(Debug, Default)]
pub(crate) struct Counter(Mutex<Totals>);

impl Counter {
    pub(crate) fn note(&self, change: impl FnOnce(&mut Totals)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn totals(&self) -> Totals {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
