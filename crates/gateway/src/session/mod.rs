//! A WebSocket session, from the answered handshake to its line in the log.

mod client;
mod echo;
pub(crate) mod report;

use std::sync::Arc;
use std::time::Duration;

use frame_core::endpoint::Endpoint;
use frame_core::outcome::{Exit, Outcome};
use frame_core::policy::{CLOSE_WAIT, Policy};
#[cfg(not(unscanned))]
use frame_core::relay::relay;
#[cfg(unscanned)] // for benches/compare: what does seeing frames cost?
use frame_core::relay::relay_unscanned as relay;
use frame_core::relay::{ClientStream, Ending};
use frame_core::sequence::Limits;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use upgrade_handler::Handoff;

pub(crate) use self::client::Client;
use crate::context::registry::Registered;
use crate::net::clock::Coarse;
use crate::net::options;
use crate::net::stream::Stream;
use crate::net::sweep::SweptSession;
use crate::session::report::Report;
use crate::site::route::Route;
use crate::upstream::stream::BackendStream;

/// A session that waits for its client's stream.
#[derive(Debug)]
pub(crate) struct Session {
    report: Box<Report>,
    registered: Registered,
    route: Arc<Route>,
    deflate: bool,
    other: Other,
}

/// What is at the other end.
#[derive(Debug)]
pub(crate) enum Other {
    /// A backend, behind a finished handshake.
    Backend(Handoff<BackendStream>),
    /// The gateway itself.
    Echo,
}

/// What a client's stream runs over: what can be said at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// A TCP connection of its own.
    Http1,
    /// A stream of an HTTP/2 connection; dropped, it is reset (RFC 8441 §5).
    Http2,
}

impl Session {
    /// A session to be run, as the route's policy has it; `deflate`: the extension was agreed upon.
    #[must_use]
    pub(crate) fn new(
        report: Box<Report>,
        registered: Registered,
        route: Arc<Route>,
        deflate: bool,
        other: Other,
    ) -> Self {
        Self { report, registered, route, deflate, other }
    }

    fn policy(&self) -> Policy {
        let Policy { limits, .. } = self.route.policy;
        Policy { limits: Limits { deflate: self.deflate, ..limits }, ..self.route.policy }
    }

    /// Runs the session over the client's stream.
    pub(crate) fn run<C>(
        mut self: Box<Self>,
        mut client: C,
        carrier: Carrier,
    ) -> impl Future<Output = ()> + Send + 'static
    where
        C: ClientStream + Send + 'static,
    {
        SweptSession::new(self.registered.handle().clone(), async move {
            self.report.opened();
            let policy = self.policy();
            let handle = self.registered.handle();
            match &mut self.other {
                Other::Backend(backend) => {
                    let exit = {
                        let relaying = relay(&mut client, backend, policy, handle, Coarse);
                        let outcome = match relaying.await {
                            Ending::Over(outcome) => outcome,
                            Ending::Frozen(_) => return, // nothing asks for it
                        };
                        if outcome.backend == Exit::Reset {
                            options::reset_on_close(backend.get_ref());
                        }
                        self.end(&outcome);
                        outcome.client
                    };
                    if exit == Exit::Reset && carrier == Carrier::Http1 {
                        // TLS has no way to say it: the Close it was given has to do.
                        let _ = timeout(CLOSE_WAIT.min(Duration::from_secs(1)), client.shutdown()).await;
                    }
                }
                Other::Echo => {
                    let endpoint = Endpoint::new(client, policy, handle.clone());
                    let outcome = Box::pin(echo::run(endpoint)).await; // its size is not every session's
                    self.end(&outcome);
                }
            }
        })
    }

    fn end(self, outcome: &Outcome) {
        let Self { report, registered, other, .. } = self;
        drop(other);
        drop(registered);
        report.session(outcome);
    }

    /// The client went away before its stream was there.
    pub(crate) fn abandon(mut self, why: &dyn std::error::Error) {
        self.report.cause(format!("the client went away during the handshake: {why}"));
    }
}

// Each idle session holds these: bytes here are gigabytes on a large gateway.
const _: () = assert!(size_of::<Session>() <= 112);
const _: () = assert!(output_len(Session::run::<Client<Handoff<Stream>>>) <= 648);

const fn output_len<A, B, C, F>(_: fn(A, B, C) -> F) -> usize {
    size_of::<F>()
}
