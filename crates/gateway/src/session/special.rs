//! Sessions that are no relay between two WebSockets: from their beginning, or from where they have frozen.

use frame_core::relay::Ending;

use super::client::{MovableStream, handover};
use super::{Other, Session, Special, echo, opaque, policy, tapped, tcp};

impl Special {
    /// It can go to another process.
    fn is_movable(&self) -> bool {
        match self {
            Self::Echo(_) => true,
            Self::Tcp(backend, _) => backend.is_movable(),
            Self::Opaque(backend, _) => backend.get_ref().is_movable(),
        }
    }
}

impl Session {
    /// Runs a session until it is over or has left for another process.
    pub(super) async fn run_special<C>(mut self: Box<Self>, mut client: C)
    where
        C: MovableStream + Send + 'static,
    {
        let mut special = match std::mem::replace(&mut self.other, Other::Echo) {
            Other::Special(special) => *special,
            Other::Echo => Special::Echo(None),
            Other::Backend(_) | Other::Frozen(_) | Other::Redial(_) => return, // they are relayed
        };
        loop {
            let policy = policy(&self.route, self.deflate);
            let handle = self.registered.handle().clone();
            match special {
                Special::Echo(state) => {
                    let peer = self.report.peer();
                    let ending = match self.watch(true) {
                        // In a box: its size is not that of other sessions.
                        None => {
                            Box::pin(echo::run(echo::endpoint(client, state, policy, handle), peer)).await
                        }
                        Some(watch) => {
                            Box::pin(tapped::run_echo(watch, client, peer, state, policy, handle)).await
                        }
                    };
                    match ending {
                        Ending::Over(outcome) => return self.end(&outcome),
                        Ending::Frozen((io, state)) => (client, special) = (io, Special::Echo(Some(state))),
                    }
                }
                Special::Tcp(mut backend, state) => {
                    let to = &mut backend;
                    let ending = match self.watch(true) {
                        None => tcp::run(client, to, state, policy, handle).await,
                        Some(watch) => {
                            Box::pin(tapped::run_tcp(watch, client, to, state, policy, handle)).await
                        }
                    };
                    match ending {
                        Ending::Over(outcome) => {
                            drop(backend);
                            return self.end(&outcome);
                        }
                        Ending::Frozen((io, state)) => {
                            (client, special) = (io, Special::Tcp(backend, Some(state)));
                        }
                    }
                }
                Special::Opaque(mut backend, state) => {
                    let (from, to) = (&mut client, &mut backend);
                    let ending = match self.watch(false) {
                        None => opaque::run(from, to, state, policy, &handle).await,
                        Some(watch) => {
                            Box::pin(tapped::run_opaque(watch, from, to, state, policy, &handle)).await
                        }
                    };
                    match ending {
                        Ending::Over(outcome) => {
                            drop(backend);
                            return self.end(&outcome);
                        }
                        Ending::Frozen(state) => special = Special::Opaque(backend, Some(state)),
                    }
                }
            }
            match handover(&client, self.report.worker()) {
                Some(handover) if special.is_movable() => {
                    self.other = Other::Special(Box::new(special));
                    return self.leave(client, &handover);
                }
                _ => {} // it goes on here
            }
        }
    }
}
