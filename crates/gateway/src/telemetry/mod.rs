//! What an operator sees: one line per finished request or session, and what else happens.

pub mod access;
pub mod log;
mod logfmt;
pub mod peer;
mod priority;
mod queue;
pub mod record;
