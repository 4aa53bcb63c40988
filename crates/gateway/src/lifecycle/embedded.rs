//! A gateway within another program: no signals, no service manager, no takeover.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::access_log;
use super::gateway::{Begun, Closed, RunningGateway, StartError};
use super::load::ConfigSource;
use super::main_loop;
use super::signals::{Ending, Signals};
use super::upgrade::new::Inherited;
use super::upgrade::origin::Program;
use crate::config::Config;

/// A gateway whose listeners are bound, and accept nothing yet. Its workers are threads of their own. When it is
/// dropped, its sockets are closed.
pub struct Gateway {
    begun: Begun,
    closed: Closed,
    started: Instant,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("addresses", &self.addresses()).finish_non_exhaustive()
    }
}

impl Gateway {
    /// Reads the certificates that `config` names, binds its listeners and starts its workers. Call it within a
    /// tokio runtime with IO and time, which also serves the admin listener and the control socket if `config` has
    /// them.
    ///
    /// # Errors
    /// If `config` can't be carried out, or the system refuses a thread or a socket; nothing is left open then.
    pub async fn bind(config: Config) -> Result<Self, StartError> {
        let started = Instant::now();
        let program = Program { path: PathBuf::new(), arguments: Vec::new() }; // nothing starts it again
        let source = ConfigSource::Given(Arc::new(config));
        let (begun, closed) = RunningGateway::start(source, program, Inherited::new(Vec::new())).await?;
        Ok(Self { begun, closed, started })
    }

    /// The addresses that are bound, Unix sockets left out, in the order of the configuration: with the port that the system chose where
    /// the configuration says 0.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.closed.listeners.iter().filter_map(|listener| listener.local.ip()).collect()
    }

    /// Serves until `shutdown` completes, then drains as at SIGTERM (`drain_delay`, `drain_window`,
    /// `drain_timeout`): sessions are closed in order, and what is left then is cut.
    ///
    /// # Cancel safety
    /// When the call is dropped, all connections are cut at once.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send + 'static) -> Ending {
        let Self { mut begun, closed, started } = self;
        begun.gateway.open(closed, started);
        let log = begun.gateway.access_log.clone();
        let ending = main_loop::run(begun, &mut Signals::shutdown(shutdown)).await;
        access_log::finish(log).await;
        ending
    }
}
