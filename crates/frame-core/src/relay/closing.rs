//! The rules by which a session ends (RFC 6455 §7): from what is known of both peers, what is done next. Pure.
//!
//! [`next_step`] is asked whenever something has happened, until it says [`Step::Wait`]. Each other step changes
//! what is known, so that its row does not hold a second time. The first row that holds counts:
//!
//! | row | what is known | step |
//! |---|---|---|
//! | 1 | no cause yet, the wait is over, the client takes no more bytes | the cause is the loss of the client |
//! | 2 | the same of the backend | the cause is the loss of the backend |
//! | 3 | no cause yet | wait |
//! | 4 | the client reset its connection, and one Close at least is missing | finish: client cut, backend reset |
//! | 5 | the client's connection vanished or failed, and all that it sent is written | finish: client cut |
//! | 6 | a peer broke a rule and was sent no Close for it yet; the other has closed or ended, or the wait is over; the stream to the violator stands inside a frame | finish: violator cut |
//! | 7 | the same, but between two frames | send the violator a Close (§7.1.7) |
//! | 8 | no violation; the backend ended without a Close, the client has not ended; the stream to the client stands between two frames, and the loss is not reported yet | report it: Close 1011 (§7.4.1) |
//! | 9 | the same, but inside a frame, and all is written | finish: client cut |
//! | 10 | the gateway was ordered to end the session, both Closes are written, and no wait has begun | begin a wait |
//! | 11 | both peers are done, or the wait is over; the stream to the client stands inside a frame, or is not written | finish: client cut |
//! | 12 | both peers are done, or the wait is over; the backend reset its connection, and one Close at least is missing | finish: client reset |
//! | 13 | both peers are done, or the wait is over | finish |
//! | 14 | anything else | wait |
//!
//! Where a row says nothing of a peer, that peer's connection is shut down in order. A peer is *done* if nothing
//! more is expected of it: it has ended, or takes no bytes, or it was sent a Close and has sent its own. A
//! violator's own Close is not waited for. Both are done only when everything for the client is written, and for
//! the backend too unless it has ended.

use crate::outcome::{Ended, Exit, Party};

/// What is known of one peer.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    /// Its Close has arrived.
    pub(super) closed: bool,
    /// Its bytes have ended.
    pub(super) ended: Option<Ended>,
    /// It takes no more bytes.
    pub(super) write_error: Option<Ended>,
}

/// What is known of the stream to one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Output {
    /// It stands between two frames.
    pub(super) at_frame_boundary: bool,
    /// All that is meant for it is on the network.
    pub(super) written: bool,
    /// A Close is on the network, and is the last of it.
    pub(super) close_written: bool,
    /// It takes no more bytes.
    pub(super) failed: bool,
}

/// How long it may still take until the session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// Without a limit.
    Unlimited,
    /// Until a moment that is still to come.
    Running,
    /// That moment has come.
    Over,
}

/// All that the rules depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    /// Something has made the session end.
    pub(super) has_cause: bool,
    pub(super) client: Peer,
    pub(super) backend: Peer,
    pub(super) to_client: Output,
    pub(super) to_backend: Output,
    /// The peer that broke a rule, and whether it was sent a Close for it.
    pub(super) violator: Option<(Party, bool)>,
    /// [`Step::ReportLoss`] would still change something.
    pub(super) loss_is_unreported: bool,
    /// The gateway was ordered to end the session.
    pub(super) ordered: bool,
    pub(super) wait: Wait,
}

/// What is done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing, until something else happens.
    Wait,
    /// The cause of the end is that this peer is lost.
    SetLost(Party),
    /// A Close with the violation's code, and [`CLOSE_WAIT`](crate::policy::CLOSE_WAIT) from now on.
    CloseToViolator(Party),
    /// A Close to the client; its bytes go nowhere from now on.
    ReportLoss,
    /// [`CLOSE_WAIT`](crate::policy::CLOSE_WAIT) from now on.
    BeginWait,
    /// The session is over. This is what becomes of both connections.
    Finish { client: Exit, backend: Exit },
}

/// The table at the top of this file.
pub(super) fn next_step(state: &State) -> Step {
    let State { client, backend, to_client, to_backend, .. } = state;
    let late = state.wait == Wait::Over;
    if !state.has_cause {
        return match (late, client.write_error, backend.write_error) {
            (true, Some(_), _) => Step::SetLost(Party::Client),     // 1
            (true, None, Some(_)) => Step::SetLost(Party::Backend), // 2
            _ => Step::Wait,                                        // 3
        };
    }
    let both_closed = client.closed && backend.closed;
    match client.ended {
        // 4: nothing can reach it, and the backend may know at once.
        Some(Ended::Reset) if !both_closed => {
            return Step::Finish { client: Exit::Cut, backend: Exit::Reset };
        }
        // 5
        Some(Ended::Truncated | Ended::Failed(_)) if to_backend.written => {
            return Step::Finish { client: Exit::Cut, backend: Exit::Orderly };
        }
        _ => {}
    }
    match state.violator {
        Some((violator, false)) => {
            let (other, to_violator) = match violator {
                Party::Client => (backend, to_client),
                _ => (client, to_backend),
            };
            if other.closed || other.ended.is_some() || late {
                return match violator {
                    _ if to_violator.at_frame_boundary => Step::CloseToViolator(violator), // 7
                    Party::Client => Step::Finish { client: Exit::Cut, backend: Exit::Orderly }, // 6
                    _ => Step::Finish { client: Exit::Orderly, backend: Exit::Cut },       // 6
                };
            }
        }
        Some((_, true)) => {}
        None if backend.ended.is_some() && !backend.closed && client.ended.is_none() => {
            if to_client.at_frame_boundary {
                if state.loss_is_unreported {
                    return Step::ReportLoss; // 8
                }
            } else if to_client.written {
                return Step::Finish { client: Exit::Cut, backend: Exit::Orderly }; // 9
            }
        }
        None => {}
    }
    if state.ordered && to_client.close_written && to_backend.close_written && state.wait == Wait::Unlimited {
        return Step::BeginWait; // 10
    }
    let done = is_done(state, Party::Client) && is_done(state, Party::Backend);
    let written = to_client.written && (to_backend.written || backend.ended.is_some());
    let over = late || (done && written);
    if !over {
        return Step::Wait; // 14
    }
    let client = if !to_client.at_frame_boundary || !to_client.written {
        Exit::Cut // 11
    } else if backend.ended == Some(Ended::Reset) && !both_closed {
        Exit::Reset // 12
    } else {
        Exit::Orderly // 13
    };
    Step::Finish { client, backend: Exit::Orderly }
}

/// Nothing more is expected of this peer.
fn is_done(state: &State, party: Party) -> bool {
    let (peer, output) = match party {
        Party::Client => (&state.client, &state.to_client),
        _ => (&state.backend, &state.to_backend),
    };
    let is_violator = state.violator.is_some_and(|(violator, _)| violator == party);
    peer.ended.is_some() || output.failed || (output.close_written && (peer.closed || is_violator))
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    const NOTHING_SENT: Output =
        Output { at_frame_boundary: true, written: true, close_written: false, failed: false };
    const CLOSE_SENT: Output = Output { close_written: true, ..NOTHING_SENT };
    const INSIDE_FRAME: Output = Output { at_frame_boundary: false, ..NOTHING_SENT };
    const UNWRITTEN: Output = Output { written: false, ..NOTHING_SENT };
    const OPEN: Peer = Peer { closed: false, ended: None, write_error: None };
    const CLOSED: Peer = Peer { closed: true, ..OPEN };

    /// A session that is ending: it has a cause, and nothing else has happened.
    const ENDING: State = State {
        has_cause: true,
        client: OPEN,
        backend: OPEN,
        to_client: NOTHING_SENT,
        to_backend: NOTHING_SENT,
        violator: None,
        loss_is_unreported: true,
        ordered: false,
        wait: Wait::Unlimited,
    };
    const LATE: State = State { wait: Wait::Over, ..ENDING };

    fn ended(how: Ended) -> Peer {
        Peer { ended: Some(how), ..OPEN }
    }

    fn finish(client: Exit, backend: Exit) -> Step {
        Step::Finish { client, backend }
    }

    #[track_caller]
    fn check(cases: &[(State, Step)]) {
        for (state, step) in cases {
            assert_eq!(next_step(state), *step, "{state:#?}");
        }
    }

    #[test]
    fn rows_1_and_2_a_peer_that_takes_no_bytes_is_lost_when_the_wait_is_over() {
        let unwritable = Peer { write_error: Some(Ended::Reset), ..OPEN };
        let late = State { has_cause: false, ..LATE };
        check(&[
            (State { client: unwritable, ..late }, Step::SetLost(Party::Client)),
            (State { backend: unwritable, ..late }, Step::SetLost(Party::Backend)),
            (State { client: unwritable, backend: unwritable, ..late }, Step::SetLost(Party::Client)),
        ]);
    }

    #[test]
    fn row_3_without_a_cause_nothing_ends() {
        let unwritable = Peer { write_error: Some(Ended::Reset), ..CLOSED };
        let open = State { has_cause: false, client: unwritable, backend: unwritable, ..ENDING };
        check(&[
            (open, Step::Wait),
            (State { wait: Wait::Running, ..open }, Step::Wait),
            (State { client: ended(Ended::Reset), ..open }, Step::Wait),
            (State { has_cause: false, ..LATE }, Step::Wait),
        ]);
    }

    #[test]
    fn row_4_a_reset_of_the_client_goes_on_to_the_backend() {
        let reset = Peer { closed: true, ..ended(Ended::Reset) };
        let cut = finish(Exit::Cut, Exit::Reset);
        let state = State { client: ended(Ended::Reset), ..ENDING };
        check(&[
            (state, cut),
            (State { client: reset, ..ENDING }, cut),
            (State { backend: CLOSED, to_backend: UNWRITTEN, ..state }, cut),
            (State { violator: Some((Party::Client, false)), ..state }, cut),
            // Both Closes are there, so that nothing is lost.
            (
                State { client: reset, backend: CLOSED, to_backend: CLOSE_SENT, ..ENDING },
                finish(Exit::Orderly, Exit::Orderly),
            ),
        ]);
    }

    #[test]
    fn row_5_what_a_lost_client_has_sent_is_written_first() {
        for how in [Ended::Truncated, Ended::Failed(ErrorKind::TimedOut)] {
            let state = State { client: ended(how), ..ENDING };
            check(&[
                (state, finish(Exit::Cut, Exit::Orderly)),
                (State { to_backend: UNWRITTEN, ..state }, Step::Wait),
            ]);
        }
        // One that half-closed may still read the rest.
        check(&[(State { client: ended(Ended::Eof), ..ENDING }, Step::Wait)]);
    }

    #[test]
    fn row_6_a_violator_inside_a_frame_is_cut() {
        for violator in [Party::Client, Party::Backend] {
            let by_client = violator == Party::Client;
            let cut =
                if by_client { finish(Exit::Cut, Exit::Orderly) } else { finish(Exit::Orderly, Exit::Cut) };
            let inside = |state| {
                let state = State { violator: Some((violator, false)), ..state };
                if by_client {
                    State { to_client: INSIDE_FRAME, ..state }
                } else {
                    State { to_backend: INSIDE_FRAME, ..state }
                }
            };
            let other = |peer, state| {
                if by_client { State { backend: peer, ..state } } else { State { client: peer, ..state } }
            };
            check(&[
                (inside(LATE), cut),
                (inside(other(CLOSED, ENDING)), cut),
                (inside(other(ended(Ended::Eof), ENDING)), cut),
                (inside(ENDING), Step::Wait),
            ]);
        }
    }

    #[test]
    fn row_7_a_violator_gets_its_close_once_the_other_has_closed_or_ended_or_takes_too_long() {
        for violator in [Party::Client, Party::Backend] {
            let untold = |state| State { violator: Some((violator, false)), ..state };
            let other = |peer| match violator {
                Party::Client => State { backend: peer, ..ENDING },
                _ => State { client: peer, ..ENDING },
            };
            let own = |peer| match violator {
                Party::Client => State { client: peer, ..ENDING },
                _ => State { backend: peer, ..ENDING },
            };
            let told = Step::CloseToViolator(violator);
            check(&[
                (untold(LATE), told),
                (untold(other(CLOSED)), told),
                (untold(other(ended(Ended::Eof))), told),
                (untold(ENDING), Step::Wait),
                (untold(State { wait: Wait::Running, ..ENDING }), Step::Wait),
                (untold(own(CLOSED)), Step::Wait),
                (State { violator: Some((violator, true)), ..other(CLOSED) }, Step::Wait),
            ]);
        }
    }

    #[test]
    fn row_8_a_lost_backend_is_reported_once() {
        let lost = State { backend: ended(Ended::Eof), ..ENDING };
        let closed = Peer { closed: true, ..ended(Ended::Eof) };
        check(&[
            (lost, Step::ReportLoss),
            (State { to_client: UNWRITTEN, ..lost }, Step::ReportLoss),
            (State { wait: Wait::Over, ..lost }, Step::ReportLoss),
            (State { loss_is_unreported: false, ..lost }, Step::Wait),
            (State { backend: closed, ..lost }, Step::Wait),
            (State { violator: Some((Party::Backend, false)), ..lost }, Step::Wait),
            (State { violator: Some((Party::Backend, true)), ..lost }, Step::Wait),
            (State { client: ended(Ended::Eof), ..lost }, finish(Exit::Orderly, Exit::Orderly)),
        ]);
    }

    #[test]
    fn row_9_a_client_that_was_left_inside_a_frame_is_cut() {
        let lost = State { backend: ended(Ended::Eof), to_client: INSIDE_FRAME, ..ENDING };
        let unwritten = Output { written: false, ..INSIDE_FRAME };
        check(&[
            (lost, finish(Exit::Cut, Exit::Orderly)),
            (State { to_client: unwritten, ..lost }, Step::Wait),
        ]);
    }

    #[test]
    fn row_10_an_order_is_waited_for_from_the_moment_that_both_closes_are_written() {
        let state = State { ordered: true, to_client: CLOSE_SENT, to_backend: CLOSE_SENT, ..ENDING };
        check(&[
            (state, Step::BeginWait),
            (State { wait: Wait::Running, ..state }, Step::Wait),
            (State { to_client: NOTHING_SENT, ..state }, Step::Wait),
            (State { to_backend: NOTHING_SENT, ..state }, Step::Wait),
            (State { ordered: false, ..state }, Step::Wait),
        ]);
    }

    #[test]
    fn row_11_a_client_that_has_not_got_all_is_cut() {
        let cut = finish(Exit::Cut, Exit::Orderly);
        check(&[
            (State { to_client: INSIDE_FRAME, ..LATE }, cut),
            (State { to_client: UNWRITTEN, ..LATE }, cut),
        ]);
    }

    #[test]
    fn row_12_a_reset_of_the_backend_goes_on_to_the_client() {
        let reset = ended(Ended::Reset);
        let reported = State { backend: reset, to_client: CLOSE_SENT, loss_is_unreported: false, ..ENDING };
        let both = Peer { closed: true, ..reset };
        check(&[
            (State { wait: Wait::Over, ..reported }, finish(Exit::Reset, Exit::Orderly)),
            (State { client: CLOSED, ..reported }, finish(Exit::Reset, Exit::Orderly)),
            (State { client: CLOSED, backend: both, ..reported }, finish(Exit::Orderly, Exit::Orderly)),
        ]);
    }

    #[test]
    fn row_13_a_session_is_over_when_both_peers_are_done_or_when_the_wait_is_over() {
        let closed = State {
            client: CLOSED,
            backend: CLOSED,
            to_client: CLOSE_SENT,
            to_backend: CLOSE_SENT,
            wait: Wait::Running,
            ..ENDING
        };
        let failed = Output { failed: true, ..NOTHING_SENT };
        let over = finish(Exit::Orderly, Exit::Orderly);
        let ended_backend = Peer { closed: true, ..ended(Ended::Eof) };
        check(&[
            (closed, over),
            (LATE, over),
            (State { to_client: failed, to_backend: failed, ..ENDING }, over),
            (State { client: ended(Ended::Eof), to_backend: failed, ..ENDING }, over),
            // A violator's own Close is not waited for (RFC 6455 §7.1.7).
            (State { client: OPEN, violator: Some((Party::Client, true)), ..closed }, over),
            (State { backend: OPEN, violator: Some((Party::Backend, true)), ..closed }, over),
            // A backend that has ended takes nothing that still waits for it.
            (State { backend: ended_backend, to_backend: UNWRITTEN, ..closed }, over),
        ]);
    }

    #[test]
    fn row_14_what_is_missing_is_waited_for() {
        let closed = State {
            client: CLOSED,
            backend: CLOSED,
            to_client: CLOSE_SENT,
            to_backend: CLOSE_SENT,
            wait: Wait::Running,
            ..ENDING
        };
        check(&[
            (ENDING, Step::Wait),
            (State { client: OPEN, ..closed }, Step::Wait),
            (State { backend: OPEN, ..closed }, Step::Wait),
            (State { to_client: NOTHING_SENT, ..closed }, Step::Wait),
            (State { to_backend: NOTHING_SENT, ..closed }, Step::Wait),
            (State { to_client: UNWRITTEN, ..closed }, Step::Wait),
            (State { to_backend: Output { written: false, ..CLOSE_SENT }, ..closed }, Step::Wait),
        ]);
    }
}
