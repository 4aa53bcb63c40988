//! Bridges that are frozen, and the format in which they go to another process.

use std::pin::Pin;

use super::*;
use crate::outcome::Snapshot;
use crate::test_moving::{Moving, check, check_sample, with_nothing_measured};
use crate::test_net::Stream;

enum Session {
    Open(Bridge<'static, Stream, Stream>),
    Ends(Pin<Box<dyn Future<Output = Outcome>>>),
}

impl Moving for Session {
    const IS_FRAMED: bool = true;

    fn new(client: Stream, backend: Stream, policy: Policy, handle: SessionHandle) -> Self {
        Self::Open(Bridge {
            endpoint: Box::new(Endpoint::new(client, policy, handle)),
            backend: Box::leak(Box::new(backend)),
            unwritten: BytesMut::new(),
            needs_flush: false,
            write_error: None,
            backend_end: None,
        })
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        if let Self::Open(bridge) = self {
            ready!(bridge.poll(cx));
            let open = std::mem::replace(self, Self::Ends(Box::pin(std::future::pending())));
            if let Self::Open(bridge) = open {
                *self = Self::Ends(Box::pin(bridge.end()));
            }
        }
        match self {
            Self::Ends(end) => end.as_mut().poll(cx),
            Self::Open(_) => Poll::Pending,
        }
    }

    fn move_over(self, handle: SessionHandle) -> Result<Self, Self> {
        let Self::Open(mut bridge) = self else { return Err(self) };
        let read = bridge.endpoint.read_since_yield; // so that both yield in the same polls
        let backend = Box::leak(Box::new(Stream {
            net: bridge.backend.net.clone(),
            budget: bridge.backend.budget.clone(),
        }));
        let waiting = std::mem::take(&mut bridge.endpoint.waiting_outside);
        let (client, state) = bridge.freeze();
        let bytes = state.encode();
        let state = BridgeState::decode(&bytes).unwrap();
        assert_eq!(state.encode(), bytes, "nothing is added or lost on the way");
        let mut bridge = state.thaw(client, backend, handle);
        (bridge.endpoint.read_since_yield, bridge.endpoint.waiting_outside) = (read, waiting);
        Ok(Self::Open(bridge))
    }

    fn look(&self) -> (Snapshot, Option<Duration>) {
        let Self::Open(bridge) = self else { return (Snapshot::default(), None) };
        let now = bridge.endpoint.supervisor.now();
        let due = bridge.endpoint.supervisor.next_due().map(|due| due.saturating_sub(now));
        (bridge.endpoint.snapshot(now), due)
    }
}

#[test]
fn a_bridge_that_goes_from_process_to_process_does_what_it_would_have_done() {
    check::<Session>();
}

#[tokio::test(start_paused = true)]
async fn a_sample_of_the_format_is_understood() {
    let new = |sample| with_nothing_measured(sample, &[1, 5], 39);
    check_sample(include_str!("../../../../tests/samples/bridge.hex"), new, |state| {
        BridgeState::decode(state).map(|state| state.encode())
    });
}
