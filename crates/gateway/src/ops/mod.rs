//! The gateway as operators see it, and how they change it.

pub(crate) mod acme;
pub(crate) mod admin;
pub mod control;
pub(crate) mod ends;
pub(crate) mod listener_sockets;
pub(crate) mod metrics;
pub(crate) mod overview;
pub(crate) mod page;
pub(crate) mod reloads;
pub(crate) mod reserve;
pub(crate) mod table;
