//! Backends: a TCP connection to one, HTTP/1.1 over it, connections that are kept, and what is passed on.

pub mod body;
pub mod dial;
pub mod forward;
pub mod h1;
pub mod identity;
pub mod interim;
pub mod pool;
