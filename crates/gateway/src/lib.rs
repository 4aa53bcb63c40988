//! The gateway: configuration, listeners, routes, backends, lifecycle, over three libraries that
//! know nothing of each other: `tls-acceptor`, `upgrade-handler`, `frame-core`.
//!
//! Start reading at [`connection`], the story of a connection; [`exchange`](mod@exchange) is the
//! story of a request, [`session`] that of a WebSocket, [`lifecycle`] that of the process.

pub mod across;
pub mod body;
pub mod check;
pub mod clock;
pub mod config;
pub mod connection;
pub mod control;
pub mod crowd;
pub mod demo;
pub mod drained;
pub mod exchange;
pub mod forward;
pub mod host;
pub mod http1;
pub mod http2;
mod idle;
pub mod interim;
mod lent;
pub mod lifecycle;
mod linger;
pub mod listener;
pub mod memory;
mod opening;
pub mod overview;
pub mod patience;
pub mod proxy;
pub mod registry;
pub mod route;
pub mod service;
pub mod session;
pub mod shortage;
pub mod site;
pub mod socket;
pub mod spares;
pub mod sweep;
pub mod tables;
pub mod telemetry;
#[cfg(test)]
mod test_io;
pub mod upstream;
pub mod worker;
