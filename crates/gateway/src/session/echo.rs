//! The session of the echo service: it says everything back. It is a handler of `wss_service`, and no more.

use std::net::SocketAddr;
use std::sync::LazyLock;

use frame_core::endpoint::{Endpoint, EndpointState};
use frame_core::handle::SessionHandle;
use frame_core::policy::Policy;
use frame_core::relay::{ClientStream, Ending};
use http::Request;
use wss_service::{Attached, Handler, HandlerError, Message, Session};

/// Of all workers.
static ECHO: LazyLock<Attached<Echo>> = LazyLock::new(|| Attached::new(Echo));

#[derive(Debug)]
struct Echo;

impl Handler for Echo {
    async fn on_message(&self, session: &Session, message: Message) -> Result<(), HandlerError> {
        Ok(session.send(message).await?)
    }
}

/// The endpoint of a session that begins, or goes on from `state`.
pub(super) fn endpoint<S: ClientStream>(
    client: S,
    state: Option<Box<EndpointState>>,
    policy: Policy,
    handle: SessionHandle,
) -> Endpoint<S> {
    match state {
        None => Endpoint::new(client, policy, handle),
        Some(state) => Endpoint::thaw(client, state, handle),
    }
}

/// Says everything back until the session is over, or freezes. `peer`: where the connection comes from.
pub(super) async fn run<S>(endpoint: Endpoint<S>, peer: SocketAddr) -> Ending<(S, Box<EndpointState>)>
where
    S: ClientStream + Send + 'static,
{
    ECHO.run(endpoint, Request::new(()), peer).await
}
