//! Whose number of sessions has changed, for a cluster that tells other processes. Pure.
#![cfg_attr(not(feature = "cluster"), allow(dead_code, reason = "only a cluster watches"))]

use std::collections::HashSet;
use std::fmt;
use std::mem;
use std::sync::Arc;

use crate::elsewhere::Name;

/// Names whose number of sessions has changed since they were taken. Without a watcher none are noted.
#[derive(Default)]
pub(super) struct Changes(Option<Watched>);

struct Watched {
    names: HashSet<Name>,
    /// Other processes can hear of it.
    is_shared: fn(&Name) -> bool,
    /// Called at the first change after they were taken.
    wake: Box<dyn Fn() + Send>,
}

impl Changes {
    pub(super) fn of_all(&mut self) {
        self.note(|| Name::All);
    }

    pub(super) fn of_user(&mut self, user: &Arc<str>) {
        self.note(|| Name::User(user.clone()));
    }

    pub(super) fn of_group(&mut self, group: &Arc<str>) {
        self.note(|| Name::Group(group.clone()));
    }

    fn note(&mut self, name: impl FnOnce() -> Name) {
        let Some(Watched { names, is_shared, wake }) = &mut self.0 else { return };
        let name = name();
        if !is_shared(&name) {
            return;
        }
        if names.is_empty() {
            wake();
        }
        names.insert(name);
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().flat_map(|watched| &watched.names)).finish()
    }
}

impl Changes {
    /// From now on changes of names that are shared are noted, and `wake` is called at the first of those that were not
    /// taken yet.
    pub(super) fn watched(is_shared: fn(&Name) -> bool, wake: impl Fn() + Send + 'static) -> Self {
        Self(Some(Watched { names: HashSet::new(), is_shared, wake: Box::new(wake) }))
    }

    /// Names whose number of sessions has changed, each once.
    pub(super) fn take(&mut self) -> HashSet<Name> {
        self.0.as_mut().map(|watched| mem::take(&mut watched.names)).unwrap_or_default()
    }
}
