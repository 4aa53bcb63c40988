//! What is known of a session that outlives its servers, while it lives.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::site::server::{Assignment, ServerState};

/// Whether a session outlives its server.
#[derive(Debug, Clone, Default)]
pub enum SessionRedial {
    /// Its upstream doesn't want that.
    #[default]
    Off,
    /// It can't: this is why.
    Unable(&'static str),
    /// It does.
    On(Arc<RedialStatus>),
}

impl SessionRedial {
    /// What is known, if it does.
    #[must_use]
    pub fn status(&self) -> Option<&Arc<RedialStatus>> {
        if let Self::On(status) = self { Some(status) } else { None }
    }
}

/// How a session that outlives its servers is.
#[derive(Debug, Default)]
pub struct RedialStatus {
    redials: AtomicU32,
    is_searching: AtomicBool,
    /// The session counts there.
    server: Mutex<Option<Assignment>>,
}

impl RedialStatus {
    /// Of a session that has got another server so often, elsewhere.
    pub(crate) fn after(redials: u32) -> Self {
        Self { redials: AtomicU32::new(redials), ..Self::default() }
    }

    /// How often it has got another server.
    #[must_use]
    pub fn redials(&self) -> u32 {
        self.redials.load(Ordering::Relaxed)
    }

    /// It has no server at the moment, and looks for one.
    #[must_use]
    pub fn is_searching(&self) -> bool {
        self.is_searching.load(Ordering::Relaxed)
    }

    /// The server that it has.
    #[must_use]
    pub fn server(&self) -> Option<Arc<ServerState>> {
        self.lock().as_ref().map(Assignment::server).cloned()
    }

    /// It has this server now.
    pub(crate) fn begin(&self, server: Option<Assignment>) {
        *self.lock() = server;
    }

    /// It has lost its server, and looks for another.
    pub(crate) fn search(&self) {
        self.is_searching.store(true, Ordering::Relaxed);
    }

    /// It has found one.
    pub(crate) fn found(&self, mut server: Assignment) {
        server.opened();
        server.server().redialled();
        self.redials.fetch_add(1, Ordering::Relaxed);
        self.begin(Some(server));
        self.is_searching.store(false, Ordering::Relaxed);
    }

    /// The last server that it had.
    pub(crate) fn end(&self) -> Option<Assignment> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Assignment>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
