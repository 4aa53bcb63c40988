//! Echoes that are frozen, and the format in which they go to another process.

use std::pin::Pin;

use super::*;
use crate::endpoint::EndpointState;
use crate::handle::FreezeMode;
use crate::test_moving::{Moving, check, check_sample, with_nothing_measured};
use crate::test_net::Stream;

/// More than what goes along.
const MESSAGES_LEN: usize = 300 * 1024;

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

/// An echo that is full of everything: frames half read, half assembled, queued.
#[tokio::test(start_paused = true)]
async fn a_sample_of_the_format_is_understood() {
    let new = |sample| with_nothing_measured(sample, &[1, 5], 39);
    check_sample(include_str!("../../../tests/samples/echo.hex"), new, |state| {
        EndpointState::decode(state).map(|state| state.encode())
    });
}

/// Between writes an echo freezes at once if it has nothing to write, and as it is unless it has too much.
#[tokio::test(start_paused = true)]
async fn an_echo_freezes_when_it_was_asked_to() {
    let (mut client, near) = duplex(64);
    let handle = SessionHandle::new();
    let mut endpoint = Endpoint::new(near, policy(), handle.clone());
    assert_eq!(timeout(SECOND, endpoint.recv()).await.ok(), None);
    client.write_all(&masked(0x01, b"the front")).await.unwrap();
    handle.freeze(FreezeMode::BetweenWrites);
    assert_eq!(endpoint.recv().await, None);
    assert!(!endpoint.is_over());
    let (near, state) = endpoint.freeze();
    let handle = SessionHandle::new();
    let mut endpoint = Endpoint::thaw(near, EndpointState::decode(&state.encode()).unwrap(), handle.clone());
    client.write_all(&masked(0x80, b" and the rest")).await.unwrap();
    let message = endpoint.recv().await.unwrap();
    assert_eq!(&message.payload[..], b"the front and the rest");
    // The client takes nothing: a message that is long stays with its session, and a short one goes along.
    for (len, moves) in [(1000, true), (MESSAGES_LEN, false)] {
        let payload = BytesMut::from(&vec![7; len][..]);
        handle.cancel_freeze();
        let _ = timeout(SECOND, endpoint.send(Message { kind: MessageKind::Binary, payload })).await;
        handle.freeze(FreezeMode::BetweenWrites);
        assert!(timeout(SECOND, endpoint.recv()).await.is_err(), "it is in the middle of a write");
        handle.freeze(FreezeMode::AsItIs);
        assert_eq!(timeout(SECOND, endpoint.recv()).await.is_ok(), moves, "{len}");
    }
}
