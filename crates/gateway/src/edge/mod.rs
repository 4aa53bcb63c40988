//! Clients' connections: accepted, read as TLS, served over HTTP/1.1 or HTTP/2.

pub(crate) mod connection;
pub mod http1;
pub mod http2;
mod idle;
mod lent;
mod linger;
pub(crate) mod listener;
mod opening;
