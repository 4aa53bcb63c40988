//! The Unix sockets of listeners, the admin listener's too: whether clients still find them at their paths.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::net::listening::ListenAddress;
use crate::ops::control::socket::SocketClaim;

/// Those that the gateway has made itself, or has from the process before it.
#[derive(Debug, Default)]
pub(crate) struct ListenerSockets(Mutex<HashMap<ListenAddress, SocketClaim>>);

impl ListenerSockets {
    /// The listener at `address` has this socket, or that of the process before it; nothing to do if it has an IP address.
    pub(crate) fn hold(&self, address: &ListenAddress, claim: Option<SocketClaim>) {
        if let ListenAddress::Unix(path) = address
            && let Some(claim) = claim.or_else(|| SocketClaim::adopt(Path::new(&**path)))
        {
            self.lock().insert(address.clone(), claim);
        }
    }

    /// The listener has gone, and so does its path.
    pub(crate) fn remove(&self, address: &ListenAddress) {
        self.lock().remove(address);
    }

    /// The path is another process's now, which listens on the same socket.
    pub(crate) fn release(&self, address: &ListenAddress) {
        if let Some(claim) = self.lock().remove(address) {
            claim.release();
        }
    }

    /// The socket has been removed, or another one is at its path; looks at the file system.
    pub(crate) fn is_lost(&self, address: &ListenAddress) -> bool {
        self.lock().get(address).is_some_and(|claim| !claim.holds())
    }

    /// A listener whose socket is lost.
    pub(crate) fn first_lost(&self) -> Option<ListenAddress> {
        self.lock().iter().find(|(_, claim)| !claim.holds()).map(|(address, _)| address.clone())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ListenAddress, SocketClaim>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
