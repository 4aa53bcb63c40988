//! A session that is watched: the same as without a watcher, over a stream that copies what passes.
//!
//! A session looks here when it begins and when it has frozen, so that one that is not watched knows nothing of taps.
//! Each future is to be boxed by its caller: its size must not be every session's.

use std::net::SocketAddr;

use frame_core::endpoint::EndpointState;
use frame_core::endpoint::bridge::BridgeState;
use frame_core::handle::SessionHandle;
use frame_core::opaque::OpaqueState;
use frame_core::policy::Policy;
use frame_core::relay::{ClientStream, Ending, RelayState, relay, relay_from};
use frame_core::tap::{TapStart, Tapped, Watch, WayStart};
use tokio::io::{AsyncRead, AsyncWrite};
use upgrade_handler::Handoff;

use super::{echo, opaque, tcp};
use crate::net::clock::Coarse;
use crate::session::report::Report;
use crate::upstream::stream::BackendStream;

/// How a session is watched; `None`: it is not.
pub(super) fn watch(report: &Report, deflate: bool, has_frames: bool) -> Option<Watch> {
    let taps = &report.worker().taps;
    let id = report.session_id().filter(|_| taps.are_wanted())?;
    taps.watch(id, report.local(), deflate, has_frames)
}

/// A session is not watched any more. Call it after the session has left the registry: a task that has found it there can
/// still wait for this.
pub(super) fn unwatch(report: &Report, why: impl FnOnce() -> String) {
    let taps = &report.worker().taps;
    if let Some(id) = report.session_id().filter(|_| taps.are_wanted()) {
        taps.on_end(id, &why());
    }
}

/// [`relay`](fn@relay), or [`relay_from`] a state.
pub(super) async fn run_relay<B>(
    watch: Watch,
    client: &mut (dyn ClientStream + Send),
    backend: &mut B,
    state: Option<Box<RelayState>>,
    policy: Policy,
    handle: &SessionHandle,
) -> Ending
where
    B: AsyncRead + AsyncWrite + Unpin,
{
    let start = state.as_ref().map_or(TapStart::Beginning, |state| state.tap_start());
    let mut client = Tapped::new(client, watch, start);
    match state {
        None => relay(&mut client, backend, policy, handle, Coarse).await,
        Some(state) => relay_from(state, &mut client, backend, handle, Coarse).await,
    }
}

/// [`echo::run`].
pub(super) async fn run_echo<S>(
    watch: Watch,
    client: S,
    peer: SocketAddr,
    state: Option<Box<EndpointState>>,
    policy: Policy,
    handle: SessionHandle,
) -> Ending<(S, Box<EndpointState>)>
where
    S: ClientStream + Send + 'static,
{
    let start = state.as_ref().map_or(TapStart::Beginning, |state| state.tap_start());
    let client = Tapped::new(client, watch, start);
    unwrapped(echo::run(echo::endpoint(client, state, policy, handle), peer).await)
}

/// [`tcp::run`].
pub(super) async fn run_tcp<S>(
    watch: Watch,
    client: S,
    backend: &mut BackendStream,
    state: Option<Box<BridgeState>>,
    policy: Policy,
    handle: SessionHandle,
) -> Ending<(S, Box<BridgeState>)>
where
    S: ClientStream + Send + 'static,
{
    let start = state.as_ref().map_or(TapStart::Beginning, |state| state.tap_start());
    unwrapped(tcp::run(Tapped::new(client, watch, start), backend, state, policy, handle).await)
}

/// [`opaque::run`]. Nothing is known of the bytes, so they are copied as they come.
pub(super) async fn run_opaque(
    watch: Watch,
    client: &mut (dyn ClientStream + Send),
    backend: &mut Handoff<BackendStream>,
    state: Option<Box<OpaqueState>>,
    policy: Policy,
    handle: &SessionHandle,
) -> Ending<Box<OpaqueState>> {
    let start = match &state {
        None => TapStart::Beginning,
        Some(_) => TapStart::Within { from_client: WayStart::default(), to_client: WayStart::default() },
    };
    opaque::run(&mut Tapped::new(client, watch, start), backend, state, policy, handle).await
}

fn unwrapped<S, T>(ending: Ending<(Tapped<S>, T)>) -> Ending<(S, T)> {
    match ending {
        Ending::Over(outcome) => Ending::Over(outcome),
        Ending::Frozen((client, state)) => Ending::Frozen((client.into_inner(), state)),
    }
}
