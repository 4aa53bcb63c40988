//! Echoes that are frozen, and the format in which they go to another process.

use std::pin::Pin;

use super::*;
use crate::endpoint::EndpointState;
use crate::test_moving::{Moving, check};
use crate::test_net::Stream;

enum Echo {
    Receives(Endpoint<Stream>),
    Sends(Endpoint<Stream>),
    Ends(Pin<Box<dyn Future<Output = Outcome>>>),
}

fn moved(endpoint: Endpoint<Stream>, handle: SessionHandle) -> Endpoint<Stream> {
    let read = endpoint.read_since_yield; // so that both yield in the same polls
    let (io, state) = endpoint.freeze();
    let bytes = state.encode();
    let state = EndpointState::decode(&bytes).unwrap();
    assert_eq!(state.encode(), bytes, "nothing is added or lost on the way");
    Endpoint { read_since_yield: read, ..Endpoint::thaw(io, state, handle) }
}

impl Moving for Echo {
    const IS_FRAMED: bool = true;

    fn new(client: Stream, _: Stream, policy: Policy, handle: SessionHandle) -> Self {
        Self::Receives(Endpoint::new(client, policy, handle))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        loop {
            let is_over = match self {
                Self::Receives(endpoint) => match ready!(endpoint.poll_recv(cx)) {
                    Some(message) => {
                        endpoint.queue(message);
                        false
                    }
                    None => true,
                },
                Self::Sends(endpoint) => ready!(endpoint.poll_sent(cx)).is_err(),
                Self::Ends(end) => return end.as_mut().poll(cx),
            };
            let was = std::mem::replace(self, Self::Ends(Box::pin(std::future::pending())));
            *self = match was {
                Self::Receives(endpoint) | Self::Sends(endpoint) if is_over => {
                    Self::Ends(Box::pin(endpoint.end()))
                }
                Self::Receives(endpoint) => Self::Sends(endpoint),
                Self::Sends(endpoint) => Self::Receives(endpoint),
                ends => ends,
            };
        }
    }

    fn move_over(self, handle: SessionHandle) -> Result<Self, Self> {
        match self {
            Self::Receives(endpoint) => Ok(Self::Receives(moved(endpoint, handle))),
            Self::Sends(endpoint) => Ok(Self::Sends(moved(endpoint, handle))),
            ends => Err(ends),
        }
    }

    fn look(&self) -> (Snapshot, Option<Duration>) {
        match self {
            Self::Receives(endpoint) | Self::Sends(endpoint) => {
                let now = endpoint.supervisor.now();
                (endpoint.snapshot(now), endpoint.supervisor.next_due().map(|due| due.saturating_sub(now)))
            }
            Self::Ends(_) => (Snapshot::default(), None),
        }
    }
}

#[test]
fn an_echo_that_goes_from_process_to_process_does_what_it_would_have_done() {
    check::<Echo>();
}
