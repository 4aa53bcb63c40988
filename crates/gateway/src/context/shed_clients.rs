//! Clients that were disconnected because others needed their places: logged with their number, and no more
//! often than every ten seconds.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, warn};

use crate::net::listening::PeerName;

/// Between two lines of the log.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Those of a worker that have not been logged yet, and the time of the last line.
#[derive(Debug, Default)]
pub struct ShedClients {
    inner: Mutex<(u64, Option<Instant>)>,
}

impl ShedClients {
    /// `peer` was disconnected; `cause` says what it did not do.
    pub fn record(&self, peer: SocketAddr, cause: &str) {
        debug!(peer = %PeerName(peer), cause, "connection closed to make room for another client");
        if let Some(clients) = self.count(Instant::now()) {
            warn!(
                clients, latest = %PeerName(peer), cause,
                "clients that send nothing are disconnected, because other clients need their places"
            );
        }
    }

    /// Counts one more; returns their number if it is time for a line of the log.
    fn count(&self, now: Instant) -> Option<u64> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (clients, logged) = &mut *inner;
        *clients += 1;
        if logged.is_some_and(|logged| now.duration_since(logged) < LOG_INTERVAL) {
            return None;
        }
        *logged = Some(now);
        Some(std::mem::take(clients))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_logged_and_then_their_number() {
        let shed_clients = ShedClients::default();
        let start = Instant::now();
        let logged: Vec<_> =
            [0, 1, 9, 10, 11, 25].map(|s| shed_clients.count(start + Duration::from_secs(s))).into();
        assert_eq!(logged, [Some(1), None, None, Some(3), None, Some(2)]);
    }
}
