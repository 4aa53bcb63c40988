//! The session of the echo service: it says everything back. Built on `frame_core::endpoint`, and on nothing else.

use frame_core::endpoint::{Endpoint, EndpointState};
use frame_core::handle::SessionHandle;
use frame_core::policy::Policy;
use frame_core::relay::{ClientStream, Ending};

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

/// Says everything back until the session is over, or freezes.
pub(super) async fn run<S>(mut endpoint: Endpoint<S>) -> Ending<(S, Box<EndpointState>)>
where
    S: ClientStream + Send + 'static,
{
    while let Some(message) = endpoint.recv().await {
        if endpoint.send(message).await.is_err() {
            break;
        }
    }
    if endpoint.is_over() {
        // In a box, since an idle session is as large as this future.
        Ending::Over(Box::pin(endpoint.end()).await)
    } else {
        Ending::Frozen(endpoint.freeze())
    }
}
