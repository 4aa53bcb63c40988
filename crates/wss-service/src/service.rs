//! The service: what it is made of, and its run from bind to drain.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body::Body;
use ipnet::IpNet;
use socket2::{Domain, Protocol, Socket, Type};
use tls_acceptor::{Acceptor, AcceptorSettings, SetupError, TicketError, Tickets, Waiting};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tower_service::Service as TowerService;
use upgrade_handler::origin::OriginPattern;

use crate::attached::Attached;
use crate::body::{BoxError, RequestBody};
use crate::certificates::Certificates;
use crate::closed::Closed;
#[cfg(feature = "cluster")]
use crate::cluster::{Cluster, Unconnected};
use crate::compression::{Compressing, Compression};
use crate::connection::{Door, SILENT_MAX, accept};
use crate::drain::drain;
use crate::handler::{Closures, Handler, IntoHandled};
use crate::hub::Hub;
use crate::message::Message;
use crate::otherwise::{of_closure, of_tower};
use crate::panics::note_places;
use crate::refusal::Refusal;
use crate::session::Session;
use crate::settings::Settings;
use crate::shared::{End, Rules, Shared};
use crate::threads::Threads;

/// Connections that wait in the system's queue until they are accepted: when a server starts again, all clients come at
/// once. The system has a bound of its own (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

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

/// This is no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OriginError(String);

/// The program accepts connections itself, and this part of the service would do nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a service that accepts no connections has no use for {0}: the program's own server has them")]
pub struct AttachError(&'static str);

/// A WebSocket service.
///
/// It is built, then it runs: [`Self::run`] and [`Self::run_until`] consume it. What the program needs while it runs it
/// takes before: a [`Hub`], or a clone of its [`Certificates`].
pub struct Service<H = Closures> {
    listeners: Vec<TcpListener>,
    certificates: Option<Certificates>,
    handler: H,
    settings: Settings,
    rules: Rules,
    hub: Hub,
    threads: usize,
    #[cfg(feature = "cluster")]
    cluster: Option<Unconnected>,
}

impl Service {
    /// A service at this address; port 0 is one that the system chooses.
    ///
    /// # Errors
    /// If the address can't be had.
    pub fn bind(address: impl ToSocketAddrs) -> io::Result<Self> {
        let mut failed = io::Error::new(io::ErrorKind::InvalidInput, "there is no such address");
        for address in address.to_socket_addrs()? {
            match listen(address) {
                Ok(listener) => return Ok(Self::new().listen(listener)),
                Err(e) => failed = e,
            }
        }
        Err(failed)
    }

    /// A service that doesn't listen yet; see [`Self::listen`].
    #[must_use]
    pub fn new() -> Self {
        Self {
            listeners: Vec::new(),
            certificates: None,
            handler: Closures::default(),
            settings: Settings::default(),
            rules: Rules::default(),
            hub: Hub::default(),
            threads: 0,
            #[cfg(feature = "cluster")]
            cluster: None,
        }
    }

    /// Whether a handshake opens a session; see [`Handler::on_open`].
    #[must_use]
    pub fn on_open<F, Fut>(mut self, f: F) -> Self
    where
        F: Fn(Session) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Refusal>> + Send + 'static,
    {
        self.handler.set_open(f);
        self
    }

    /// What becomes of a message; see [`Handler::on_message`]. The closure returns nothing, or a `Result` whose error ends
    /// the session with 1011.
    #[must_use]
    pub fn on_message<F, Fut, R>(mut self, f: F) -> Self
    where
        F: Fn(Session, Message) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = R> + Send + 'static,
        R: IntoHandled,
    {
        self.handler.set_message(f);
        self
    }

    /// What happens at the end of a session; see [`Handler::on_close`].
    #[must_use]
    pub fn on_close<F, Fut>(mut self, f: F) -> Self
    where
        F: Fn(Session, Closed) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.handler.set_close(f);
        self
    }

    /// The same service with a handler of the program's own, in place of closures.
    #[must_use]
    pub fn handler<H: Handler>(self, handler: H) -> Service<H> {
        Service {
            listeners: self.listeners,
            certificates: self.certificates,
            handler,
            settings: self.settings,
            rules: self.rules,
            hub: self.hub,
            threads: self.threads,
            #[cfg(feature = "cluster")]
            cluster: self.cluster,
        }
    }
}

impl Default for Service {
    fn default() -> Self {
        Self::new()
    }
}

impl<H: Handler> Service<H> {
    /// Also accepts connections on a socket that listens already: a second address, or one from systemd.
    #[must_use]
    pub fn listen(mut self, listener: TcpListener) -> Self {
        self.listeners.push(listener);
        self
    }

    /// All connections are TLS, with these certificates. Without them, none is.
    #[must_use]
    pub fn certificates(mut self, certificates: Certificates) -> Self {
        self.certificates = Some(certificates);
        self
    }

    /// Serves on so many threads, each with a runtime of its own: one for each core makes use of all of them. Connections are
    /// dealt to them in turn, and stay; handlers run there. Without this call, or with 0, the runtime that calls
    /// [`Self::run`] serves.
    #[must_use]
    pub fn threads(mut self, count: usize) -> Self {
        self.threads = count;
        self
    }

    /// Limits and times.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Only requests for this path open sessions.
    #[must_use]
    pub fn path(self, path: impl Into<String>) -> Self {
        let path = path.into();
        self.when(move |head| head.uri.path() == path)
    }

    /// Only requests that this says yes to open sessions.
    #[must_use]
    pub fn when(mut self, takes: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        self.rules.takes = Some(Box::new(takes));
        self
    }

    /// Of pages, only those of these origins may open sessions: `https://domain.com`, or `https://*.domain.com` for any one
    /// label in front. Clients that are no browsers send no origin, and are let in. Without this call every page may, and
    /// sends its user's cookies along (RFC 6455 §10.2).
    ///
    /// # Errors
    /// If one of them is no origin.
    pub fn origins<'a>(mut self, origins: impl IntoIterator<Item = &'a str>) -> Result<Self, OriginError> {
        let origins = origins.into_iter().map(OriginPattern::parse).collect::<Result<_, _>>();
        self.rules.origins = origins.map_err(OriginError)?;
        Ok(self)
    }

    /// Subprotocols that the service speaks. Of those that a client offers, the first in its order is spoken; a client that
    /// offers none of them gets none, and browsers then fail the connection.
    #[must_use]
    pub fn subprotocols<'a>(mut self, protocols: impl IntoIterator<Item = &'a str>) -> Self {
        self.rules.subprotocols = protocols.into_iter().map(ToOwned::to_owned).collect();
        self
    }

    /// Messages are compressed, with clients that offer it (permessage-deflate, RFC 7692); see [`Compression`]. Without this call
    /// they are not: it takes processor time for each message, and where secrets stand beside what an attacker can choose,
    /// lengths tell about them.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.rules.compression = Some(Compressing::new(compression));
        self
    }

    /// Proxies that are believed what they write into `X-Forwarded-For`; see [`Session::client`].
    #[must_use]
    pub fn trusted_proxies(mut self, networks: impl IntoIterator<Item = IpNet>) -> Self {
        self.rules.trusted = networks.into_iter().collect();
        self
    }

    /// Connections from these networks begin with a header of the PROXY protocol, version 1 or 2, as balancers of TCP write
    /// it (HAProxy's `send-proxy`, AWS's network load balancers); see [`Session::client`]. One that begins otherwise is
    /// closed. From all other addresses such a header is no valid beginning of TLS or HTTP.
    #[must_use]
    pub fn proxy_protocol(mut self, networks: impl IntoIterator<Item = IpNet>) -> Self {
        self.rules.balancers = networks.into_iter().collect();
        self
    }

    /// Requests that open no session go to this: an `axum::Router`, or any other service of tower's kind.
    #[must_use]
    pub fn otherwise<S, B>(mut self, service: S) -> Self
    where
        S: TowerService<Request<RequestBody>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.rules.otherwise = Some(of_tower(service));
        self
    }

    /// Requests that open no session go to this closure; so a service of hyper's kind takes them, too:
    /// `otherwise_fn(move |request| service.call(request))`.
    #[must_use]
    pub fn otherwise_fn<F, Fut, B, E>(mut self, f: F) -> Self
    where
        F: Fn(Request<RequestBody>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<B>, E>> + Send + 'static,
        E: Into<BoxError>,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.rules.otherwise = Some(of_closure(f));
        self
    }

    /// Users and groups span all processes of this cluster. To be called once.
    #[cfg(feature = "cluster")]
    #[must_use]
    pub fn cluster(mut self, cluster: Cluster) -> Self {
        self.cluster = Some(cluster.of(&self.hub));
        self
    }

    /// The addresses that it listens on.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// All its sessions, for other tasks to send to.
    #[must_use]
    pub fn hub(&self) -> Hub {
        self.hub.clone()
    }

    /// The sessions alone, for a program that accepts connections itself and has a handler of its own server call
    /// [`Attached::open`]. Settings of connections ([`Settings::connections_max`], [`Settings::handshake_timeout`],
    /// [`Settings::header_timeout`], [`Settings::min_version`]) are that server's matter then.
    ///
    /// # Errors
    /// If the service was given what only one that accepts connections can use.
    ///
    /// # Panics
    /// With a cluster, outside of a runtime of tokio.
    pub fn attach(self) -> Result<Attached<H>, AttachError> {
        #[cfg(feature = "cluster")]
        let cluster = self.cluster;
        let Self { listeners, certificates, handler, settings, rules, hub, threads, .. } = self;
        let unused = [
            (!listeners.is_empty(), "sockets"),
            (certificates.is_some(), "certificates"),
            (threads > 0, "threads"),
            (rules.otherwise.is_some(), "a service beside the sessions"),
            (!rules.balancers.is_empty(), "balancers of the PROXY protocol"),
        ];
        if let Some((_, what)) = unused.into_iter().find(|(is_given, _)| *is_given) {
            return Err(AttachError(what));
        }
        note_places();
        Ok(Attached(Arc::new(Shared {
            handler: Arc::new(handler),
            settings,
            hub,
            rules,
            certificates,
            end: End::default(),
            #[cfg(feature = "cluster")]
            cluster: cluster.map(Unconnected::start),
        })))
    }

    /// Serves until the process is asked to end. SIGTERM and SIGINT drain (a second one cuts), SIGHUP reads the certificates
    /// again.
    ///
    /// # Errors
    /// See [`ServeError`]. Once it serves, there is none.
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
    /// [`Settings::drain_window`], and what is left after [`Settings::drain_timeout`] is cut. Signals are the program's own
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

impl<H> fmt::Debug for Service<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("listeners", &self.listeners).finish_non_exhaustive()
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?; // connections of the process before may linger
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
