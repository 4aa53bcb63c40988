//! A WebSocket session, from the answered handshake to its line in the log.

pub(crate) mod arrivals;
mod client;
mod echo;
pub(crate) mod moved;
mod opaque;
pub(crate) mod redial;
pub(crate) mod report;
mod special;
mod tapped;
mod tcp;
mod watched;

use std::sync::Arc;
use std::time::Duration;

use frame_core::endpoint::EndpointState;
use frame_core::endpoint::bridge::BridgeState;
use frame_core::handle::SessionHandle;
use frame_core::metered::Meter;
use frame_core::opaque::OpaqueState;
use frame_core::outcome::{Exit, Outcome};
use frame_core::policy::{CLOSE_WAIT, Policy};
#[cfg(not(unscanned))]
use frame_core::relay::relay;
#[cfg(unscanned)] // for benches/compare: what does seeing frames cost?
use frame_core::relay::relay_unscanned as relay;
use frame_core::relay::{Ending, RelayState, relay_from};
use frame_core::sequence::Limits;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::timeout;
use tracing::warn;
use upgrade_handler::Handoff;

pub(crate) use self::client::{Client, deflated};
use self::client::{ClientParts, MovableStream, handover};
use self::moved::{Still, StillSession};
use self::redial::Lasting;
use crate::context::registry::Registered;
use crate::context::transit::FrozenSession;
use crate::net::clock::Coarse;
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
    /// The same in the middle of a session, and the state of its relay. Boxed: it is for a moment.
    Frozen(Box<(Handoff<BackendStream>, Box<RelayState>)>),
    /// What is not relayed. In a box, so that sessions with backends are no larger for it.
    Special(Box<Special>),
    /// One backend after the other.
    Redial(Box<Lasting>),
    /// The gateway itself.
    Echo,
}

/// What is at the other end of a session that is not relayed, and how far the session has come if it has frozen.
#[derive(Debug)]
pub(crate) enum Special {
    /// The gateway itself.
    Echo(Option<Box<EndpointState>>),
    /// A server that speaks no HTTP: binary messages are the bytes of its stream.
    Tcp(BackendStream, Option<Box<BridgeState>>),
    /// A server that has switched to another protocol.
    Opaque(Handoff<BackendStream>, Option<Box<OpaqueState>>),
}

impl Other {
    /// The state from which the relay is to go on, if it does not begin.
    fn take_state(&mut self) -> Option<Box<RelayState>> {
        match std::mem::replace(self, Self::Echo) {
            Self::Frozen(frozen) => {
                let (backend, state) = *frozen;
                *self = Self::Backend(backend);
                Some(state)
            }
            other => {
                *self = other;
                None
            }
        }
    }

    /// It has frozen, and can go to another process.
    fn is_movable(&self) -> bool {
        matches!(self, Self::Frozen(frozen) if frozen.0.get_ref().is_movable())
    }

    /// What has frozen; `None`: it has not.
    fn into_still(self) -> Option<Still> {
        match self {
            Self::Frozen(frozen) => Some(Still::Relay(frozen.0, frozen.1)),
            Self::Special(special) => match *special {
                Special::Echo(state) => state.map(Still::Echo),
                Special::Tcp(backend, state) => state.map(|state| Still::Tcp(backend, state)),
                Special::Opaque(backend, state) => state.map(|state| Still::Opaque(backend, state)),
            },
            Self::Redial(lasting) => lasting.into_still().map(|still| Still::Redial(Box::new(still))),
            Self::Backend(_) | Self::Echo => None,
        }
    }

    /// The relay is to go on from `state`.
    fn put_state(&mut self, state: Box<RelayState>) {
        *self = match std::mem::replace(self, Self::Echo) {
            Self::Backend(backend) => Self::Frozen(Box::new((backend, state))),
            other => other,
        };
    }

    /// What goes on.
    fn thawed(still: Still, handle: &SessionHandle) -> Self {
        Self::Special(Box::new(match still {
            Still::Redial(still) => return Self::Redial(Box::new(still.thaw(handle))),
            Still::Relay(backend, state) => return Self::Frozen(Box::new((backend, state))),
            Still::Echo(state) => Special::Echo(Some(state)),
            Still::Tcp(backend, state) => Special::Tcp(backend, Some(state)),
            Still::Opaque(backend, state) => Special::Opaque(backend, Some(state)),
        }))
    }
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
    /// A session to be run, as the route's policy has it; `deflate`: the extension was agreed upon with its server.
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

    /// Runs the session over the client's stream.
    pub(crate) fn run<C>(
        mut self: Box<Self>,
        mut client: C,
        carrier: Carrier,
    ) -> impl Future<Output = ()> + Send + 'static
    where
        C: MovableStream + Send + 'static,
    {
        SweptSession::new(self.registered.handle().clone(), async move {
            self.report.opened();
            self.meet_tap();
            if matches!(self.other, Other::Echo | Other::Special(_)) {
                return Box::pin(self.run_special(client)).await; // its size is not every session's
            }
            let exit = loop {
                if let Other::Redial(lasting) = &mut self.other {
                    let policy = policy(&self.route, self.deflate);
                    let handle = self.registered.handle();
                    let running = redial::run(&mut client, lasting, policy, handle, &mut self.report);
                    // In a box: its size is not every session's.
                    match Box::pin(running).await {
                        Ending::Over(outcome) => {
                            self.end(&outcome);
                            break outcome.client;
                        }
                        Ending::Frozen(handover) => return self.leave(client, &handover),
                    }
                }
                let ending = if self.is_watched() {
                    // In a box: its size is not every session's.
                    match Box::pin(self.run_tapped(&mut client)).await {
                        Some(ending) => ending,
                        None => continue, // it is not watched any more
                    }
                } else {
                    let state = self.other.take_state();
                    let Other::Backend(backend) = &mut self.other else { return };
                    let handle = self.registered.handle();
                    let relaying = match state {
                        None => {
                            relay(&mut client, backend, policy(&self.route, self.deflate), handle, Coarse)
                        }
                        Some(state) => relay_from(state, &mut client, backend, handle, Coarse),
                    };
                    relaying.await
                };
                match ending {
                    Ending::Over(outcome) => {
                        if let (Exit::Reset, Other::Backend(backend)) = (outcome.backend, &self.other) {
                            backend.get_ref().reset_on_close();
                        }
                        self.end(&outcome);
                        break outcome.client;
                    }
                    Ending::Frozen(state) => {
                        self.other.put_state(state);
                        match handover(&client, self.report.worker()) {
                            Some(handover) if self.other.is_movable() => {
                                return self.leave(client, &handover);
                            }
                            _ => {} // it goes on here
                        }
                    }
                }
            };
            if exit == Exit::Reset && carrier == Carrier::Http1 {
                // TLS has no way to say it: the Close it was given has to do.
                let _ = timeout(CLOSE_WAIT.min(Duration::from_secs(1)), client.shutdown()).await;
            }
        })
    }

    /// Leaves for another process.
    fn leave<C: MovableStream>(self, client: C, handover: &UnboundedSender<FrozenSession>) {
        tapped::unwatch(&self.report, || "it has moved to another process: tap it there".to_owned());
        let Self { report, registered, route, deflate, other } = self;
        let (Some(still), Some(client)) = (other.into_still(), Box::new(client).into_parts()) else { return };
        let ClientParts { stream: client, meter, deflating } = client;
        let id = registered.id();
        let session = StillSession { report, registered, route, deflate, client, still, meter, deflating };
        match moved::take_apart(session) {
            Ok(frozen) => drop(handover.send(frozen)), // the receiver waits until all senders are dropped
            Err(e) => warn!(id, cause = %e, "a session is lost: it can't be taken apart for the new process"),
        }
    }

    /// A session that goes on, and what its client's stream is made of.
    pub(crate) fn restored(session: StillSession) -> (Box<Self>, ClientParts) {
        let StillSession { report, registered, route, deflate, client, still, meter, deflating } = session;
        let other = Other::thawed(still, registered.handle());
        let parts = ClientParts { stream: client, meter, deflating };
        (Box::new(Self { report, registered, route, deflate, other }), parts)
    }

    /// What counts the messages or bytes of a session that begins; `None`: nothing does.
    #[must_use]
    pub(crate) fn meter(&self) -> Option<Box<Meter>> {
        let rates = self.route.rates.as_ref()?;
        if let Other::Special(special) = &self.other
            && matches!(**special, Special::Opaque(..))
        {
            return None; // it has no frames
        }
        let counts = self.report.worker().quotas.sessions_limited.clone();
        Some(Meter::new(rates, self.registered.handle().clone(), counts))
    }

    fn end(self, outcome: &Outcome) {
        let Self { mut report, registered, other, .. } = self;
        drop(other);
        registered.handle().on_end(outcome);
        report.exceeded(registered.handle().exceeded());
        drop(registered);
        tapped::unwatch(&report, || outcome.cause.to_string());
        report.session(outcome);
    }

    /// The client went away before its stream was there.
    pub(crate) fn abandon(mut self, why: &dyn std::error::Error) {
        self.report.cause(format!("the client went away during the handshake: {why}"));
    }
}

/// What the session has to obey; `deflate`: the extension was agreed upon with its server.
fn policy(route: &Route, deflate: bool) -> Policy {
    let Policy { limits, .. } = route.policy;
    Policy { limits: Limits { deflate, ..limits }, ..route.policy }
}

// Each idle session holds these: bytes here are gigabytes on a large gateway.
const _: () = assert!(size_of::<Session>() <= 112);
const _: () = assert!(output_len(Session::run::<Client<Handoff<Stream>>>) <= 664);

const fn output_len<A, B, C, F>(_: fn(A, B, C) -> F) -> usize {
    size_of::<F>()
}
