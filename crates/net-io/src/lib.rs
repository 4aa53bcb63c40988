//! Plain sockets, below TLS, HTTP and frames, for every crate that reads or writes one.
//!
//! This crate knows no protocol, no address and no crate of this workspace.
//!
//! - [`sweep`]: a second look at sockets that have been silent
//! - [`Tcp`]: a socket that is asked only when something has happened

pub mod sweep;
mod tcp;

pub use self::tcp::Tcp;
