//! Plain sockets and the memory that waits for them, below TLS, HTTP and frames.
//!
//! This crate knows no crate of this workspace, and of protocols only the one that balancers write in front of a connection.
//!
//! - [`unix_now`], [`unix_secs`]: the time of day
//! - [`count`]: numbers of one thread that others may read
//! - [`memory`]: bytes that wait in memory for a peer, counted
//! - [`Buffer`]: memory of the thread's, which idle connections don't hold
//! - [`proxy_protocol`], [`read_header`]: who the client of a balancer is
//! - [`state`]: values as bytes, for a process that takes sessions over
//! - [`sweep`]: a second look at sockets that have been silent
//! - [`Tcp`], [`Unix`]: sockets that are asked only when something has happened

mod clock;
pub mod count;
pub mod memory;
mod pool;
mod proxied;
pub mod proxy_protocol;
pub mod state;
pub mod sweep;
mod tcp;

pub use self::clock::{unix_now, unix_secs};
pub use self::pool::{BUFFER_LEN, Buffer};
pub use self::proxied::{NoHeader, read_header};
pub use self::tcp::{Socket, Tcp, TokioStream, Unix};
