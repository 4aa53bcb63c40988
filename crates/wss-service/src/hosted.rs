//! Sessions whose streams, handshakes and ends are the program's: here is their handler.
//!
//! In: an endpoint of `frame_core`, which has the stream and the session's handle. Out: how the session went, or the
//! endpoint as it was when it was asked to freeze.

use std::net::SocketAddr;
use std::sync::Arc;

use frame_core::endpoint::{Endpoint, EndpointState};
use frame_core::relay::{ClientStream, Ending};
use http::Request;

use crate::attached::Attached;
use crate::client::{Link, Opening, client_address};
use crate::drive::{self, Driven};
use crate::handler::Handler;
use crate::log;
use crate::opened::Entered;
use crate::outbox::Outbox;
use crate::panics::caught;
use crate::session::Session;

impl<H: Handler> Attached<H> {
    /// Runs a session over an endpoint that the program has made itself, behind an answer of its own: until the session is
    /// over, or has frozen, as [`SessionHandle::freeze`](frame_core::handle::SessionHandle::freeze) asks for. Then
    /// [`Endpoint::thaw`] goes on with it, for instance in another process, and this runs it again.
    ///
    /// `request` and `peer` are what the session shows of its request. Limits and times are the endpoint's;
    /// [`Handler::on_open`] is not asked, [`Handler::on_close`] is called when the session is over. Before it freezes, the
    /// handler has returned and what was sent has gone to the endpoint. The session that goes on is another one for the
    /// program: it has a new number, no groups and no user.
    ///
    /// The log gets a line only if the handler fails: how the session went is returned.
    ///
    /// ```
    /// use std::net::SocketAddr;
    ///
    /// use frame_core::endpoint::Endpoint;
    /// use frame_core::handle::SessionHandle;
    /// use frame_core::policy::Policy;
    /// use frame_core::relay::{ClientStream, Ending};
    /// use wss_service::{Attached, Request};
    ///
    /// async fn serve(sessions: Attached, io: impl ClientStream, policy: Policy, peer: SocketAddr) {
    ///     let handle = SessionHandle::new();
    ///     let mut endpoint = Endpoint::new(io, policy, handle.clone()); // by `handle` others end it, or have it freeze
    ///     while let Ending::Frozen((io, state)) = sessions.run(endpoint, Request::new(()), peer).await {
    ///         handle.cancel_freeze();
    ///         endpoint = Endpoint::thaw(io, state, handle.clone()); // or in another process
    ///     }
    /// }
    /// ```
    ///
    /// # Cancel safety
    /// A dropped call has dropped the connection.
    pub async fn run<S: ClientStream>(
        &self,
        endpoint: Endpoint<S>,
        request: Request<()>,
        peer: SocketAddr,
    ) -> Ending<(S, Box<EndpointState>)> {
        let entered = self.enter(&endpoint, request, peer);
        let session = entered.session();
        match drive::run(endpoint, session, &self.0.handler).await {
            Driven::Frozen(io, state) => Ending::Frozen((io, state)),
            Driven::Over(ran) => {
                entered.depart();
                if let Some(failure) = &ran.failure {
                    log::failed(session, failure);
                }
                if let Err(panic) = caught(self.0.handler.on_close(session, &ran.closed)).await {
                    log::panicked("on_close", &panic);
                }
                Ending::Over(ran.outcome)
            }
        }
    }

    fn enter<S: ClientStream>(
        &self,
        endpoint: &Endpoint<S>,
        request: Request<()>,
        peer: SocketAddr,
    ) -> Entered {
        let shared = &self.0;
        let (head, ()) = request.into_parts();
        let client = client_address(peer.ip(), &head.headers, &shared.rules.trusted);
        let link = Arc::new(Link { peer, source: peer.ip(), local: None, tls: None });
        loop {
            let opening = Opening::of(&head, client, None);
            let outbox = Outbox::new(shared.settings.outbox_max, shared.settings.slow_client);
            let (groups, handle) = (shared.hub.groups().clone(), endpoint.handle().clone());
            // `None`: another session has the same random number.
            if let Some(entered) = Entered::new(Session::new(link.clone(), opening, outbox, groups, handle)) {
                return entered;
            }
        }
    }
}
