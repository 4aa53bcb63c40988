//! The run of a service, from its sockets to the end of its drain.

use std::io;
use std::pin::pin;
use std::sync::Arc;

use tls_acceptor::{Acceptor, AcceptorSettings, SetupError, TicketError, Tickets, Waiting};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

#[cfg(feature = "cluster")]
use crate::cluster::Unconnected;
use crate::connection::{Door, SILENT_MAX, accept};
use crate::drain::drain;
use crate::handler::Handler;
use crate::log;
use crate::panics::note_places;
use crate::service::Service;
use crate::shared::{End, Shared};
use crate::threads::Threads;

/// Why a service can't be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// There is no socket to accept on.
    #[error("nothing listens: call Service::bind, or Service::listen with a socket")]
    NoListener,
    /// The system has no room for a socket, a signal or a thread; or there is no runtime of tokio with IO and time.
    #[error("a socket or a thread can't be used: {0}")]
    Io(#[from] io::Error),
    /// TLS can't be set up.
    #[error(transparent)]
    Tls(#[from] SetupError),
    /// There are no random keys for resumption.
    #[error(transparent)]
    Tickets(#[from] TicketError),
}

impl<H: Handler> Service<H> {
    /// Serves until the process is asked to end. SIGTERM and SIGINT drain (a second one cuts), SIGHUP reads the certificates
    /// again.
    ///
    /// # Errors
    /// See [`ServeError`]. Once it serves, there is none.
    ///
    /// # Cancel safety
    /// As [`Self::run_until`].
    pub async fn run(self) -> Result<(), ServeError> {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut hangup = signal(SignalKind::hangup())?;
        let certificates = self.certificates.clone();
        let mut asked = async move || {
            loop {
                tokio::select! {
                    _ = terminate.recv() => return,
                    _ = interrupt.recv() => return,
                    _ = hangup.recv() => {
                        if let Some(certificates) = &certificates {
                            certificates.reload_and_log().await;
                        }
                    }
                }
            }
        };
        let (shutdown, shut) = tokio::sync::oneshot::channel();
        let hurry = async {
            asked().await;
            let _ = shutdown.send(());
            asked().await;
        };
        self.serve(async { drop(shut.await) }, hurry).await
    }

    /// Serves until `shutdown`, and then drains: nothing more is accepted, clients get a Close each, spread over
    /// [`Settings::drain_window`](crate::Settings::drain_window), and what is left after [`Settings::drain_timeout`](crate::Settings::drain_timeout) is cut. Signals are the program's own
    /// matter.
    ///
    /// # Errors
    /// See [`ServeError`]. Once it serves, there is none.
    ///
    /// # Cancel safety
    /// A dropped call accepts nothing more, and cuts all connections; [`Handler::on_close`] is still called for each session.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
        self.serve(shutdown, std::future::pending()).await
    }

    /// `hurry`: cut now.
    async fn serve(
        self,
        shutdown: impl Future<Output = ()>,
        hurry: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        #[cfg(feature = "cluster")]
        let cluster = self.cluster;
        let Self { listeners, certificates, handler, settings, rules, hub, threads, .. } = self;
        if listeners.is_empty() {
            return Err(ServeError::NoListener);
        }
        note_places();
        let acceptor = match &certificates {
            None => None,
            Some(certificates) => {
                let tls = AcceptorSettings {
                    min_version: settings.min_version,
                    handshake_timeout: settings.handshake_timeout,
                    ..AcceptorSettings::default()
                };
                Some(Acceptor::new(&tls, certificates.cell().clone(), &Tickets::new()?)?)
            }
        };
        let listeners = listeners.into_iter().map(|listener| {
            listener.set_nonblocking(true)?;
            tokio::net::TcpListener::from_std(listener)
        });
        let listeners = listeners.collect::<io::Result<Vec<_>>>()?;
        let places =
            settings.connections_max.map(|max| Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS))));
        let end = End::default();
        let shared = Arc::new(Shared {
            handler: Arc::new(handler),
            settings,
            hub,
            rules,
            certificates,
            end: end.clone(),
            #[cfg(feature = "cluster")]
            cluster: cluster.map(Unconnected::start),
        });
        let _cut = end.cut.clone().drop_guard(); // also if this is dropped
        let _draining = end.draining.clone().drop_guard();
        let threads = Threads::start(threads, &end)?;
        let silent = Waiting::new(SILENT_MAX);
        let door = Arc::new(Door { shared: shared.clone(), acceptor, silent, places, threads });
        for listener in listeners {
            log::listening(&listener, door.acceptor.is_some());
            end.tasks.spawn(accept(door.clone(), listener));
        }
        let watching = async {
            match &shared.certificates {
                Some(certificates) => certificates.clone().watch().await,
                None => std::future::pending().await,
            }
        };
        let mut hurry = pin!(hurry);
        tokio::select! {
            () = shutdown => {}
            () = watching => {}
            () = &mut hurry => {}
        }
        drain(&shared.hub, &shared.settings, &end, hurry).await;
        shared.leave_cluster().await;
        Ok(())
    }
}
