//! What an operator sees: one line per finished request or session, and what else happens.

pub mod access;
pub mod admin;
pub mod log;
pub mod metrics;
pub mod peer;
mod priority;
mod queue;
