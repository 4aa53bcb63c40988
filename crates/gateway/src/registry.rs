//! Every live session of a worker, so that it can be ended from outside.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use frame_core::control::Control;

use crate::route::Route;

/// The live sessions of one worker. Locked when a session begins or ends, never per message.
#[derive(Debug, Default)]
pub struct Registry {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    live: HashMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    control: Control,
    route: Arc<Route>,
}

/// A session's place in the registry, until it is dropped.
#[derive(Debug)]
pub struct Registered {
    id: u64,
    control: Control,
    registry: Arc<Registry>,
}

impl Registry {
    /// Adds a session of `route`.
    #[must_use]
    pub fn register(self: &Arc<Self>, route: &Arc<Route>) -> Registered {
        let control = Control::new();
        let mut inner = self.lock();
        let id = inner.next;
        inner.next += 1;
        inner.live.insert(id, Entry { control: control.clone(), route: route.clone() });
        Registered { id, control, registry: self.clone() }
    }

    /// The controls of all sessions whose route `chosen` picks, each with that route.
    #[must_use]
    pub fn select(&self, chosen: impl Fn(&Route) -> bool) -> Vec<(Control, Arc<Route>)> {
        let inner = self.lock();
        let chosen = inner.live.values().filter(|entry| chosen(&entry.route));
        chosen.map(|entry| (entry.control.clone(), entry.route.clone())).collect()
    }

    /// Live sessions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().live.len()
    }

    /// There is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registered {
    /// How the session is ended.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.registry.lock().live.remove(&self.id);
    }
}
