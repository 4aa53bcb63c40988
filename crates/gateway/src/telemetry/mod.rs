//! What an operator sees: one line per finished request or session, and what else happens.

pub(crate) mod access;
pub(crate) mod live;
pub mod log;
mod logfmt;
pub(crate) mod peer;
mod priority;
mod queue;
pub(crate) mod record;
