//! The service: what it is made of.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body::Body;
use ipnet::IpNet;
use tower_service::Service as TowerService;
use upgrade_handler::origin::OriginPattern;

use crate::attached::Attached;
use crate::body::{BoxError, RequestBody};
use crate::certificates::Certificates;
use crate::closed::Closed;
#[cfg(feature = "cluster")]
use crate::cluster::{Cluster, Unconnected};
use crate::compression::{Compressing, Compression};
use crate::handler::{Closures, Handler, IntoHandled};
use crate::hub::Hub;
use crate::listening::listen;
use crate::message::Message;
use crate::otherwise::{of_closure, of_tower};
use crate::panics::note_places;
use crate::refusal::Refusal;
use crate::session::Session;
use crate::settings::Settings;
use crate::shared::{End, Rules, Shared};

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
    pub(crate) listeners: Vec<TcpListener>,
    pub(crate) certificates: Option<Certificates>,
    pub(crate) handler: H,
    pub(crate) settings: Settings,
    pub(crate) rules: Rules,
    pub(crate) hub: Hub,
    pub(crate) threads: usize,
    #[cfg(feature = "cluster")]
    pub(crate) cluster: Option<Unconnected>,
}

impl Service {
    /// A service at this address; port 0 is one that the system chooses.
    ///
    /// # Errors
    /// If the address can't be had. It is named, with what to do.
    pub fn bind(address: impl ToSocketAddrs) -> io::Result<Self> {
        Ok(Self::new().listen(listen(address)?))
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
    /// the session with 1011. One that uses `?` with several kinds of errors ends in `Ok::<_, HandlerError>(())`.
    ///
    /// A closure that uses more than its arguments clones it for each call, since calls may run at the same time: the compiler
    /// says of `async move |session, message|` that it "does not implement `Fn`" then. With much of that, a [`Handler`] is
    /// shorter:
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicU64, Ordering};
    /// use wss_service::{HandlerError, Service};
    ///
    /// let count = Arc::new(AtomicU64::new(0));
    /// let service = Service::new().on_message(move |session, message| {
    ///     let count = count.clone();
    ///     async move {
    ///         let number = count.fetch_add(1, Ordering::Relaxed);
    ///         let text = std::str::from_utf8(message.as_bytes())?;
    ///         session.send(format!("{number}: {text}")).await?;
    ///         Ok::<_, HandlerError>(())
    ///     }
    /// });
    /// ```
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
        self.settings = settings.reckonable();
        self
    }

    /// Only requests for this path open sessions; the query is not part of it. In place of an earlier [`Self::path`] or
    /// [`Self::when`].
    #[must_use]
    pub fn path(self, path: impl Into<String>) -> Self {
        let path = path.into();
        self.when(move |head| head.uri.path() == path)
    }

    /// Only requests that this says yes to open sessions. Among their extensions is the [`Peer`](crate::Peer). In place of an earlier
    /// [`Self::path`] or [`Self::when`].
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

    /// Requests that open no session go to this: an `axum::Router`, or any other service of tower's kind. Who sends them is
    /// among their extensions:
    ///
    /// ```
    /// use axum::{Extension, Router, routing::get};
    /// use wss_service::{Peer, Service};
    ///
    /// async fn address(Extension(peer): Extension<Peer>) -> String {
    ///     peer.client().to_string()
    /// }
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let app = Router::new().route("/address", get(address));
    /// let service = Service::bind("127.0.0.1:0")?.path("/feed").otherwise(app);
    /// # Ok(())
    /// # }
    /// ```
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
}

impl<H> fmt::Debug for Service<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("listeners", &self.listeners).finish_non_exhaustive()
    }
}
