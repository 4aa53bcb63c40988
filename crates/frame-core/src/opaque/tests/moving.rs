//! Sessions of other protocols that are frozen, and the format in which they go to another process.

use super::*;
use crate::handle::FreezeMode;
use crate::test_moving::{Moving, check, check_sample, with_nothing_measured};
use crate::test_net::Stream;

struct Session {
    opaque: Opaque<Exact>,
    streams: (Stream, Stream),
    handle: SessionHandle,
}

impl Moving for Session {
    const IS_FRAMED: bool = false;

    fn new(client: Stream, backend: Stream, policy: Policy, handle: SessionHandle) -> Self {
        Self { opaque: Opaque::new(policy, Exact::begin()), streams: (client, backend), handle }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        let Self { opaque, streams: (client, backend), handle } = self;
        opaque.poll(cx, client, backend, handle).map(outcome)
    }

    fn move_over(self, handle: SessionHandle) -> Result<Self, Self> {
        let Self { mut opaque, streams, handle: old } = self;
        let (before, queue_state) = (opaque.supervisor.now(), opaque.queue_state);
        old.freeze(FreezeMode::AsItIs);
        let state = opaque.freeze(&old, before).unwrap();
        let (bytes, snapshot) = (state.encode(), state.snapshot());
        let state = OpaqueState::decode(&bytes).unwrap();
        assert_eq!((state.encode(), state.snapshot()), (bytes, snapshot), "nothing is added or lost");
        let mut opaque = state.thaw(Exact::begun(before));
        opaque.queue_state = queue_state; // no queue is served here
        Ok(Self { opaque, streams, handle })
    }

    fn look(&self) -> (Snapshot, Option<Duration>) {
        let now = self.opaque.supervisor.now();
        let due = self.opaque.supervisor.next_due().map(|due| due.saturating_sub(now));
        (self.opaque.snapshot(now), due)
    }
}

#[test]
fn a_session_that_goes_from_process_to_process_does_what_it_would_have_done() {
    check::<Session>();
}

#[test]
fn a_sample_of_the_format_is_understood() {
    let new = |sample| with_nothing_measured(sample, &[1], 23);
    check_sample(include_str!("../../../tests/samples/opaque.hex"), new, |state| {
        OpaqueState::decode(state).map(|state| state.encode())
    });
}
