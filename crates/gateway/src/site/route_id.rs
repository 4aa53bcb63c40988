//! By what a route is known. Pure.

use std::fmt;
use std::sync::Arc;

/// What makes a route the same route after a reload: its name, or what it matches. The log and the commands show it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId {
    text: Arc<str>,
    /// Of the values of fields, which are not shown.
    fields: u64,
}

impl RouteId {
    /// `fields` tells ids of the same text apart.
    pub(super) fn new(text: &str, fields: u64) -> Self {
        Self { text: text.into(), fields }
    }

    /// The id of a route with this name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self::new(name, 0)
    }

    /// An id of another process, of [`Self::as_str`] and [`Self::fields`].
    pub(crate) fn from_parts(text: &str, fields: u64) -> Self {
        Self::new(text, fields)
    }

    /// Stands for the values of fields, which are not shown. The same in processes of one release.
    pub(crate) fn fields(&self) -> u64 {
        self.fields
    }

    /// As the log shows it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for RouteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
