//! A session whose servers may go: it goes on with others.

use std::fmt;
use std::sync::Arc;

use frame_core::handle::SessionHandle;
use frame_core::outcome::{Cause, Exit, Party};
use frame_core::policy::Policy;
use frame_core::redial::{RedialState, RedialStream, Redialer};
use frame_core::relay::{Ending, RelayState, relay, relay_from};
use net_io::state::{StateError, StateReader, StateWriter};
use tokio::sync::mpsc::UnboundedSender;
use tracing::warn;
use upgrade_handler::Handoff;
use zeroize::Zeroizing;

use super::client::{MovableStream, handover};
use super::tapped::{run_relay, watch};
use crate::context::redial::RedialStatus;
use crate::context::transit::FrozenSession;
use crate::net::clock::Coarse;
use crate::session::report::Report;
use crate::site::route::Route;
use crate::upstream::stream::BackendStream;

/// The servers of a session, of which it has one at a time.
#[derive(Debug)]
pub(crate) struct Lasting {
    pub(crate) stream: RedialStream<Handoff<BackendStream>>,
    pub(crate) status: Arc<RedialStatus>,
    /// From where the relay is to go on, if it does not begin.
    pub(crate) frozen: Option<Box<RelayState>>,
}

/// A session that has frozen, with what finds its servers.
pub(crate) struct StillRedial {
    pub(super) server: Option<Handoff<BackendStream>>,
    pub(super) relay: Box<RelayState>,
    pub(super) stream: Box<RedialState>,
    pub(super) redialer: Box<dyn Redialer<Handoff<BackendStream>>>,
    pub(super) status: Arc<RedialStatus>,
}

impl fmt::Debug for StillRedial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StillRedial").finish_non_exhaustive()
    }
}

/// A session that comes from another process, for what finds its servers.
#[derive(Debug)]
pub(crate) struct Redialled<'a> {
    pub(crate) report: &'a Report,
    pub(crate) route: &'a Arc<Route>,
    pub(crate) id: u64,
    /// What operators see of it; `None`: nothing yet.
    pub(crate) known: Option<Arc<RedialStatus>>,
}

/// Reads what finds servers for such a session.
pub(crate) type ReadRedialer = fn(
    &mut StateReader<'_>,
    &Redialled<'_>,
    &Arc<RedialStatus>,
) -> Result<Box<dyn Redialer<Handoff<BackendStream>>>, StateError>;

impl Lasting {
    /// It can go to another process.
    pub(super) fn is_movable(&self) -> bool {
        self.stream.server().is_none_or(|server| server.get_ref().is_movable())
    }

    /// The session, taken apart; `None`: it has not frozen.
    pub(super) fn into_still(self) -> Option<StillRedial> {
        let Self { stream, status, frozen } = self;
        let relay = frozen?;
        let (server, stream, redialer) = stream.freeze();
        Some(StillRedial { server, relay, stream, redialer, status })
    }
}

impl StillRedial {
    /// Its server, and the rest as bytes.
    pub(super) fn into_parts(self) -> (Option<Handoff<BackendStream>>, Zeroizing<Vec<u8>>) {
        let Self { server, relay, stream, redialer, status } = self;
        let mut out = StateWriter::new(NEEDS);
        out.bytes(&relay.encode());
        out.bytes(&stream.encode());
        out.u32(status.redials());
        redialer.write_state(&mut out);
        (server, out.finish())
    }

    /// What [`Self::into_parts`] gave.
    pub(super) fn from_parts(
        server: Option<Handoff<BackendStream>>,
        state: &[u8],
        session: &Redialled<'_>,
        read_redialer: ReadRedialer,
    ) -> Result<Self, StateError> {
        let mut fields = StateReader::new(state, VERSION)?;
        let (relay, stream) = (RelayState::decode(fields.bytes()?)?, RedialState::decode(fields.bytes()?)?);
        let redials = fields.u32()?;
        let status = session.known.clone().unwrap_or_else(|| Arc::new(RedialStatus::after(redials)));
        let redialer = read_redialer(&mut fields, session, &status)?;
        Ok(Self { server, relay, stream, redialer, status })
    }

    /// Goes on.
    pub(super) fn thaw(self, handle: &SessionHandle) -> Lasting {
        let Self { server, relay, stream, redialer, status } = self;
        let stream = RedialStream::thaw(server, stream, redialer, handle.clone());
        Lasting { stream, status, frozen: Some(relay) }
    }
}

/// What this release knows. Raised with each field that is added.
const VERSION: u8 = 1;
/// The least version that understands what this release writes.
const NEEDS: u8 = 1;

/// Relays until the session is over, whatever becomes of its servers; or until it has frozen, and leaves for another
/// process.
pub(super) async fn run<C: MovableStream + Send>(
    client: &mut C,
    lasting: &mut Lasting,
    policy: Policy,
    handle: &SessionHandle,
    report: &mut Report,
) -> Ending<UnboundedSender<FrozenSession>> {
    lasting.status.begin(report.take_server());
    let mut outcome = loop {
        let Lasting { stream, frozen, .. } = &mut *lasting;
        let state = frozen.take();
        let watch = watch(report, policy.limits.deflate, true);
        let ending = match (watch, state) {
            (None, None) => relay(client, stream, policy, handle, Coarse).await,
            (None, Some(state)) => relay_from(state, client, stream, handle, Coarse).await,
            (Some(watch), state) => Box::pin(run_relay(watch, client, stream, state, policy, handle)).await,
        };
        match ending {
            Ending::Over(outcome) => break outcome,
            Ending::Frozen(frozen) => lasting.frozen = Some(frozen),
        }
        if let Some(handover) = handover(client, report.worker()).filter(|_| lasting.is_movable()) {
            report.keeps_server(lasting.status.end());
            return Ending::Frozen(handover);
        } // else it goes on here
    };
    let Lasting { stream, status, .. } = lasting;
    if let (Exit::Reset, Some(server)) = (outcome.backend, stream.server()) {
        server.get_ref().reset_on_close();
    }
    if let Some(close) = stream.close_sent() {
        outcome.cause = Cause::Closed { by: Party::Gateway, close: close.clone() };
    }
    if stream.held_len() > 0 {
        warn!(id = report.session_id(), bytes = stream.held_len(), "what a client sent has found no backend");
    }
    if let Some(server) = stream.server() {
        report.set_over_http2(matches!(server.get_ref(), BackendStream::Http2(_)));
    }
    report.redialled(status.end(), status.redials());
    Ending::Over(outcome)
}
