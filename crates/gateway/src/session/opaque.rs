//! The session of another protocol than WebSocket, of whose bytes nothing is known.

use frame_core::handle::SessionHandle;
use frame_core::opaque::{OpaqueState, opaque_from};
use frame_core::outcome::Exit;
use frame_core::policy::Policy;
use frame_core::relay::{ClientStream, Ending};
use upgrade_handler::Handoff;

use crate::net::clock::Coarse;
use crate::upstream::stream::BackendStream;

/// Passes bytes on until the session is over, or freezes. A server that may miss some sees a reset, and not an end; a
/// client's TLS then has no close_notify (RFC 8446 §6.1).
pub(super) async fn run(
    client: &mut impl ClientStream,
    backend: &mut Handoff<BackendStream>,
    state: Option<Box<OpaqueState>>,
    policy: Policy,
    handle: &SessionHandle,
) -> Ending<Box<OpaqueState>> {
    let ending = match state {
        None => frame_core::opaque(client, backend, policy, handle, Coarse).await,
        Some(state) => opaque_from(state, client, backend, handle, Coarse).await,
    };
    if matches!(&ending, Ending::Over(outcome) if outcome.backend == Exit::Reset) {
        backend.get_ref().reset_on_close();
    }
    ending
}
