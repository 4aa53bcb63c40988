//! The session of a server behind `tcp://`: binary messages are the bytes of its stream.

use frame_core::bridge;
use frame_core::endpoint::Endpoint;
use frame_core::endpoint::bridge::{BridgeState, bridge_from};
use frame_core::handle::SessionHandle;
use frame_core::outcome::Exit;
use frame_core::policy::Policy;
use frame_core::relay::{ClientStream, Ending};

use crate::upstream::stream::BackendStream;

/// Passes bytes on until the session is over, or freezes. A server that may miss some sees a reset, and not an end.
pub(super) async fn run<S>(
    client: S,
    backend: &mut BackendStream,
    state: Option<Box<BridgeState>>,
    policy: Policy,
    handle: SessionHandle,
) -> Ending<(S, Box<BridgeState>)>
where
    S: ClientStream + Send + 'static,
{
    let ending = match state {
        None => bridge(Box::new(Endpoint::new(client, policy, handle)), backend).await,
        Some(state) => bridge_from(state, client, backend, handle).await,
    };
    if matches!(&ending, Ending::Over(outcome) if outcome.backend == Exit::Reset) {
        backend.reset_on_close();
    }
    ending
}
