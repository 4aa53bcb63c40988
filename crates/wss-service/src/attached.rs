//! Sessions on connections that the program's own server accepts.

use std::fmt;
use std::future::pending;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use http::{Request, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use crate::answer::answer;
use crate::body::{AnswerBody, RequestBody};
use crate::client::{Connection, Link};
use crate::drain::drain;
use crate::handler::{Closures, Handler};
use crate::hub::Hub;
use crate::panics::note_places;
use crate::settings::Settings;
use crate::shared::{End, Rules, Shared};
use crate::upgraded::answer_by_hyper;

/// The sessions of a service without its sockets ([`Service::attach`](crate::Service::attach)). Clones share them.
///
/// ```
/// use std::net::SocketAddr;
///
/// use axum::extract::{ConnectInfo, Request, State};
/// use axum::response::IntoResponse;
/// use wss_service::{Attached, Service};
///
/// async fn feed(
///     State(sessions): State<Attached>,
///     ConnectInfo(peer): ConnectInfo<SocketAddr>,
///     request: Request,
/// ) -> impl IntoResponse {
///     sessions.open(request, peer).await
/// }
///
/// # fn main() -> Result<(), wss_service::AttachError> {
/// let sessions = Service::new().on_message(async |session, message| session.send(message).await).attach()?;
/// let app: axum::Router = axum::Router::new().route("/feed", axum::routing::any(feed)).with_state(sessions);
/// # Ok(())
/// # }
/// ```
pub struct Attached<H = Closures>(pub(crate) Arc<Shared<H>>);

impl<H: Handler> Attached<H> {
    /// Answers a request of hyper's, whatever its body is: a handshake with what opens the session, or with why not. What is
    /// no handshake is told what it has come to. The answer goes to the client unchanged; then the session runs in a task
    /// of its own.
    ///
    /// The server has to be hyper's, or built on it, and let connections be upgraded (as axum's does). For HTTP/2 it has to
    /// announce extended CONNECT (RFC 8441), and route `CONNECT` requests to here.
    ///
    /// `peer`: where the connection comes from.
    ///
    /// # Cancel safety
    /// A dropped call has opened no session.
    ///
    /// # Panics
    /// Outside of a runtime of tokio.
    pub async fn open<B>(&self, request: Request<B>, peer: SocketAddr) -> Response<AnswerBody> {
        let shared = &self.0;
        let (mut head, _) = request.into_parts();
        let upgrading = head.extensions.remove::<OnUpgrade>();
        let link = Arc::new(Link { peer, source: peer.ip(), local: None, tls: None });
        let connection = Connection { link, _place: None };
        let reply = answer(shared, &connection, Request::from_parts(head, RequestBody::empty())).await;
        answer_by_hyper(shared, reply, upgrading, |upgraded| Some(TokioIo::new(upgraded))).await
    }

    /// All its sessions, for other tasks to send to.
    #[must_use]
    pub fn hub(&self) -> Hub {
        self.0.hub.clone()
    }

    /// Opens no further session, and ends those that are there as a service does at its end: a Close each, spread over
    /// [`Settings::drain_window`](crate::Settings::drain_window), and what is left after
    /// [`Settings::drain_timeout`](crate::Settings::drain_timeout) is cut.
    ///
    /// It is called when the server's own end begins, not behind it: for sessions over HTTP/2 a server waits.
    ///
    /// # Cancel safety
    /// After a dropped call no session opens any more. A further call goes on.
    pub async fn drain(&self) {
        let Shared { hub, settings, end, .. } = &*self.0;
        drain(hub, settings, end, pin!(pending())).await;
        self.0.leave_cluster().await;
    }
}

impl<H: Handler> Attached<H> {
    /// Sessions of this handler, with default settings, for [`Self::run`] or [`Self::open`].
    #[must_use]
    pub fn new(handler: H) -> Self {
        note_places();
        Self(Arc::new(Shared {
            handler: Arc::new(handler),
            settings: Settings::default(),
            hub: Hub::default(),
            rules: Rules::default(),
            certificates: None,
            end: End::default(),
            #[cfg(feature = "cluster")]
            cluster: None,
        }))
    }
}

impl<H> Clone for Attached<H> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<H> fmt::Debug for Attached<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}
