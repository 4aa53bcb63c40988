//! The gateway: configuration, listeners, routes, backends, lifecycle, over three libraries that
//! know nothing of each other: `tls-acceptor`, `upgrade-handler`, `frame-core`.
//!
//! Start reading at [`edge::connection`], the story of a connection; [`request`] is the
//! story of a request, [`session`] that of a WebSocket, [`lifecycle`] that of the process.

mod check;
mod cli;
pub mod config;
mod context;
mod doctor;
mod edge;
mod import;
pub mod lifecycle;
mod net;
mod ops;
mod quick;
mod request;
mod session;
pub mod site;
mod telemetry;
#[cfg(test)]
mod test_io;
mod trust;
mod upstream;
mod worker;

pub use self::config::Config;
pub use self::lifecycle::Gateway;

/// What the command line is made of. Not for other programs: it changes without notice.
#[doc(hidden)]
pub mod command {
    pub use crate::check::{choice, tables};
    pub use crate::cli::{
        AcmeCommand, AnyCommand, Arguments, CliCommand, ControlArgs, ImportArgs, completions, write_manual,
    };
    pub use crate::doctor::{Diagnosis, examine};
    pub use crate::import::{Counts, Imported, Origin, import};
    pub use crate::ops::control;
    pub use crate::quick::{Authority, Backend, Listen, Order, Quick, Service};
    pub use crate::telemetry::log;
    pub use crate::trust::{distrust, trust};
}

/// What the benches measure. Not for other programs: it changes without notice.
#[doc(hidden)]
pub mod internals {
    pub use crate::context::quotas::ConnectionSlot;
    pub use crate::context::registry::Registry;
    pub use crate::context::{Common, Connection, Redirect, Worker};
    pub use crate::edge::{http1, http2};
    pub use crate::net::limits::ClientLimits;
    pub use crate::net::stream::Transport;
    pub use crate::telemetry::access::{AccessLog, PreparedAccess};
    pub use crate::telemetry::pending::{Flush, begin as begin_worker};
    pub use crate::telemetry::record::{Kind, Progress, Record, ServerTimes, Sink, Sinks};
}
