//! The gateway: configuration, listeners, routes, backends, lifecycle, over three libraries that
//! know nothing of each other: `tls-acceptor`, `upgrade-handler`, `frame-core`.
//!
//! Start reading at [`edge::connection`], the story of a connection; [`request`] is the
//! story of a request, [`session`] that of a WebSocket, [`lifecycle`] that of the process.

pub mod check;
pub mod config;
pub mod context;
pub mod demo;
pub mod edge;
pub mod lifecycle;
pub mod net;
pub mod ops;
pub mod request;
pub mod session;
pub mod site;
pub mod telemetry;
#[cfg(test)]
mod test_io;
pub mod upstream;
pub mod worker;

pub use self::config::Config;
pub use self::lifecycle::Gateway;
