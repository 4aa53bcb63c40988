//! The session of a server behind `tcp://`: binary messages are the bytes of its stream.

use frame_core::bridge;
use frame_core::endpoint::Endpoint;
use frame_core::outcome::{Exit, Outcome};
use frame_core::relay::ClientStream;

use crate::upstream::stream::BackendStream;

/// Passes bytes on until the session is over. A server that may miss some sees a reset, and not an end.
pub(super) async fn run<S>(endpoint: Box<Endpoint<S>>, backend: &mut BackendStream) -> Outcome
where
    S: ClientStream + Send + 'static,
{
    let outcome = bridge(endpoint, backend).await;
    if outcome.backend == Exit::Reset {
        backend.reset_on_close();
    }
    outcome
}
