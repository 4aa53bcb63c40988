//! Sessions whose servers change, and that go from process to process whenever they are woken.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;

use super::*;
use crate::handle::FreezeMode;
use crate::relay::{RelayState, relay_from};
use crate::test_moving::check_sample;

thread_local! {
    static MOVES: Cell<bool> = const { Cell::new(false) };
    static IS_MOVING: Cell<bool> = const { Cell::new(false) };
}

/// Sessions of this thread move.
pub(super) fn moves() -> bool {
    MOVES.get()
}

/// One is on its way at the moment.
pub(super) fn is_moving() -> bool {
    IS_MOVING.get()
}

/// Runs a session that freezes whenever its task is woken, and goes on from bytes.
pub(super) async fn run(
    mut near: DuplexStream,
    mut stream: RedialStream<Io>,
    policy: Policy,
    handle: SessionHandle,
) -> (Outcome, Option<Close>) {
    let clock = Exact::begin();
    let mut state = None;
    let mut skips = false; // asking a session to freeze wakes its task once more
    loop {
        let ending = {
            let mut relaying = pin!(match state.take() {
                None => relay(&mut near, &mut stream, policy, &handle, clock),
                Some(state) => relay_from(state, &mut near, &mut stream, &handle, clock),
            });
            let mut is_first = true;
            poll_fn(|cx| {
                if !std::mem::take(&mut is_first) && !std::mem::take(&mut skips) {
                    skips = true;
                    handle.freeze(FreezeMode::AsItIs);
                }
                relaying.as_mut().poll(cx)
            })
            .await
        };
        let relay = match ending {
            Ending::Over(outcome) => return (outcome, stream.close_sent().cloned()),
            Ending::Frozen(relay) => relay,
        };
        state = Some(RelayState::decode(&relay.encode()).unwrap());
        let (server, still, redialer) = stream.freeze();
        let bytes = still.encode();
        let still = RedialState::decode(&bytes).unwrap();
        assert_eq!(still.encode(), bytes, "nothing is added or lost on the way");
        IS_MOVING.set(true);
        stream = RedialStream::thaw(server, still, redialer, handle.clone());
        IS_MOVING.set(false);
    }
}

#[test]
fn sessions_that_move_whenever_they_are_woken_do_what_the_others_do() {
    MOVES.set(true);
    a_server_that_closes_is_answered_and_replaced();
    a_lost_server_is_replaced_between_two_messages();
    a_message_that_the_lost_server_has_a_part_of_ends_the_session();
    one_that_is_held_whole_goes_to_the_next_server_where_it_may();
    a_server_that_has_closed_gets_the_message_under_way_to_its_end();
    a_half_message_of_the_server_ends_the_session();
    other_closes_are_passed_on();
    a_server_that_is_to_be_left_says_its_last();
    what_is_held_has_a_limit_and_nothing_is_lost();
    a_search_that_fails_says_why();
    a_client_that_closes_meanwhile_is_answered_unless_it_has_more_to_say();
    MOVES.set(false);
}

#[test]
fn samples_of_the_format_are_understood() {
    for sample in [
        include_str!("../../../tests/samples/redialling.hex"),
        include_str!("../../../tests/samples/leaving.hex"),
    ] {
        check_sample(sample, |sample| sample, |state| RedialState::decode(state).map(|state| state.encode()));
    }
}
