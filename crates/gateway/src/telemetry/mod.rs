//! What an operator sees: one line per finished request or session, and what else happens.

pub(crate) mod access;
mod address;
mod combined;
pub(crate) mod escape;
mod fields;
mod line;
mod line_buf;
pub(crate) mod live;
pub mod log;
mod log_file;
mod logfmt;
pub(crate) mod peer;
pub(crate) mod pending;
mod priority;
mod queue;
pub(crate) mod record;
mod stamp;
mod syslog;
