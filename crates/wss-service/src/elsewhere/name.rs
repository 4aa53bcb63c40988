//! Whose sessions other processes hear of. Pure.
#![cfg_attr(not(feature = "cluster"), allow(dead_code, reason = "only a cluster tells other processes"))]

use std::sync::Arc;

/// All sessions, those of a user, or those in a group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Name {
    All,
    User(Arc<str>),
    Group(Arc<str>),
}
