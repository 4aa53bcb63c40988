//! A session whose servers may go: it goes on with others.

use std::sync::Arc;

use frame_core::handle::SessionHandle;
use frame_core::outcome::{Cause, Exit, Outcome, Party};
use frame_core::policy::Policy;
use frame_core::redial::RedialStream;
use frame_core::relay::{ClientStream, Ending, relay, relay_from};
use tracing::warn;
use upgrade_handler::Handoff;

use crate::context::redial::RedialStatus;
use crate::net::clock::Coarse;
use crate::session::report::Report;
use crate::upstream::stream::BackendStream;

/// The servers of a session, of which it has one at a time.
#[derive(Debug)]
pub(crate) struct Lasting {
    pub(crate) stream: RedialStream<Handoff<BackendStream>>,
    pub(crate) status: Arc<RedialStatus>,
}

/// Relays until the session is over, whatever becomes of its servers.
pub(super) async fn run<C: ClientStream>(
    client: &mut C,
    lasting: &mut Lasting,
    policy: Policy,
    handle: &SessionHandle,
    report: &mut Report,
) -> Outcome {
    let Lasting { stream, status } = lasting;
    status.begin(report.take_server());
    let mut state = None;
    let mut outcome = loop {
        let relaying = match state.take() {
            None => relay(client, stream, policy, handle, Coarse),
            Some(state) => relay_from(state, client, stream, handle, Coarse),
        };
        match relaying.await {
            Ending::Over(outcome) => break outcome,
            Ending::Frozen(frozen) => state = Some(frozen), // it stays here
        }
    };
    if let (Exit::Reset, Some(server)) = (outcome.backend, stream.server()) {
        server.get_ref().reset_on_close();
    }
    if let Some(told) = stream.told() {
        outcome.cause = Cause::Closed { by: Party::Gateway, close: told.clone() };
    }
    if stream.held_len() > 0 {
        warn!(id = report.session_id(), bytes = stream.held_len(), "what a client sent has found no backend");
    }
    if let Some(server) = stream.server() {
        report.has_gone_on(matches!(server.get_ref(), BackendStream::Http2(_)));
    }
    report.redialled(status.end(), status.redials());
    outcome
}
