//! What becomes of a session whose server goes: from how it goes and where the messages both ways stand. Pure.
//!
//! The first row that holds counts:
//!
//! | row | the server | frames to the client | frames to the server | verdict |
//! |---|---|---|---|---|
//! | 1 | goes, after a Close has gone to it | | | as without redialling |
//! | 2 | closes, with another code than 1001, 1011, 1012, 1013, or with none | | | as without redialling |
//! | 3 | closes | inside a message | | Close 1011 |
//! | 4 | closes, or is to be left | | | the message under way to it is finished, then it is answered or told; then it is lost |
//! | 5 | is lost | inside a frame | | as without redialling: the client's connection is cut |
//! | 6 | is lost | inside a message | | Close 1011 |
//! | 7 | is lost | between two messages | between two messages | redial |
//! | 8 | is lost | between two messages | inside a message that is held whole, and may be repeated | redial, and send it again |
//! | 9 | is lost | between two messages | inside a message | Close 1011 |

use crate::close::{GOING_AWAY, SERVICE_RESTART, TRY_AGAIN_LATER};

/// An unexpected condition (RFC 6455 §7.4.1).
pub(super) const UNEXPECTED: u16 = 1011;

/// How a server goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Going {
    /// It has sent a Close with this code.
    Closes(Option<u16>),
    /// The gateway was asked to leave it.
    IsLeft,
    /// Nothing more comes from it, or goes to it.
    IsLost,
}

/// Where the frames to a peer stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Between two messages.
    Between,
    /// Between two frames of a message.
    InMessage,
    /// Inside a frame.
    InFrame,
}

/// All that the verdict depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Situation {
    pub(super) going: Going,
    pub(super) to_client: Place,
    pub(super) to_server: Place,
    /// All that has gone to the server of the message under way is held.
    pub(super) is_held: bool,
    /// `redial_repeat`: a message may go to two servers.
    pub(super) may_repeat: bool,
    /// A Close has gone to the server: the session is ending.
    pub(super) is_closing: bool,
}

/// What becomes of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It ends as one that is not redialled.
    PassOn,
    /// The message to the server is finished, then the server is told Close; then it is lost.
    Finish,
    /// Another server is asked for; `repeat`: what has gone of the message under way goes to it again.
    Redial {
        /// `to_server` is inside a message.
        repeat: bool,
    },
    /// The client is told 1011, and why.
    Cut(&'static str),
}

const OF_SERVER: &str = "the server was lost in the middle of a message of its own";
const OF_CLIENT: &str = "the server was lost in the middle of a message to it";

/// The table at the top of this file.
pub(super) fn decide(situation: &Situation) -> Verdict {
    use Going::{Closes, IsLeft, IsLost};
    use Place::{Between, InFrame, InMessage};
    let Situation { going, to_client, to_server, is_held, may_repeat, is_closing } = *situation;
    match (going, to_client, to_server) {
        _ if is_closing => Verdict::PassOn, // 1
        (Closes(code), ..) if !code.is_some_and(is_of_going) => Verdict::PassOn, // 2
        (Closes(_), InMessage | InFrame, _) => Verdict::Cut(OF_SERVER), // 3
        (Closes(_) | IsLeft, ..) => Verdict::Finish, // 4
        (IsLost, InFrame, _) => Verdict::PassOn, // 5
        (IsLost, InMessage, _) => Verdict::Cut(OF_SERVER), // 6
        (IsLost, Between, Between) => Verdict::Redial { repeat: false }, // 7
        (IsLost, Between, _) if is_held && may_repeat => Verdict::Redial { repeat: true }, // 8
        (IsLost, Between, _) => Verdict::Cut(OF_CLIENT), // 9
    }
}

/// Codes by which a server says that it goes, and not that it is done with this client.
fn is_of_going(code: u16) -> bool {
    matches!(code, GOING_AWAY | UNEXPECTED | SERVICE_RESTART | TRY_AGAIN_LATER)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOST: Situation = Situation {
        going: Going::IsLost,
        to_client: Place::Between,
        to_server: Place::Between,
        is_held: false,
        may_repeat: false,
        is_closing: false,
    };
    const CLOSES: Situation = Situation { going: Going::Closes(Some(1012)), ..LOST };
    const LEFT: Situation = Situation { going: Going::IsLeft, ..LOST };
    const PLACES: [Place; 3] = [Place::Between, Place::InMessage, Place::InFrame];

    #[track_caller]
    fn check(cases: impl IntoIterator<Item = (Situation, Verdict)>) {
        for (situation, verdict) in cases {
            assert_eq!(decide(&situation), verdict, "{situation:?}");
        }
    }

    #[test]
    fn row_1_a_session_that_is_ending_ends() {
        for situation in [LOST, CLOSES, LEFT] {
            for to_client in PLACES {
                check([(Situation { is_closing: true, to_client, ..situation }, Verdict::PassOn)]);
            }
        }
    }

    #[test]
    fn row_2_a_server_that_is_done_with_the_client_is_believed() {
        for code in [None, Some(1000), Some(1002), Some(1003), Some(1008), Some(1014), Some(3000), Some(4999)]
        {
            for to_server in PLACES {
                check([(Situation { going: Going::Closes(code), to_server, ..CLOSES }, Verdict::PassOn)]);
            }
        }
    }

    #[test]
    fn row_3_a_server_that_closes_in_its_own_message_leaves_it_without_an_end() {
        for to_server in PLACES {
            let situation = Situation { to_client: Place::InMessage, to_server, ..CLOSES };
            check([(situation, Verdict::Cut(OF_SERVER))]);
        }
    }

    #[test]
    fn row_4_one_that_still_reads_gets_the_message_to_its_end() {
        for code in [1001, 1011, 1012, 1013] {
            for to_server in PLACES {
                let closes = Situation { going: Going::Closes(Some(code)), to_server, ..CLOSES };
                check([
                    (closes, Verdict::Finish),
                    (Situation { is_held: true, may_repeat: true, ..closes }, Verdict::Finish),
                ]);
            }
        }
        for to_client in PLACES {
            check([(Situation { to_client, ..LEFT }, Verdict::Finish)]);
        }
    }

    #[test]
    fn rows_5_and_6_a_message_to_the_client_can_t_be_ended_by_another_server() {
        for to_server in PLACES {
            for is_held in [false, true] {
                let lost = Situation { to_server, is_held, may_repeat: is_held, ..LOST };
                check([
                    (Situation { to_client: Place::InFrame, ..lost }, Verdict::PassOn),
                    (Situation { to_client: Place::InMessage, ..lost }, Verdict::Cut(OF_SERVER)),
                ]);
            }
        }
    }

    #[test]
    fn row_7_between_messages_nothing_is_lost() {
        for (is_held, may_repeat) in [(false, false), (false, true), (true, false), (true, true)] {
            check([(Situation { is_held, may_repeat, ..LOST }, Verdict::Redial { repeat: false })]);
        }
    }

    #[test]
    fn rows_8_and_9_a_message_goes_to_two_servers_only_if_it_may_and_can() {
        for to_server in [Place::InMessage, Place::InFrame] {
            let lost = Situation { to_server, ..LOST };
            check([
                (Situation { is_held: true, may_repeat: true, ..lost }, Verdict::Redial { repeat: true }),
                (Situation { is_held: true, may_repeat: false, ..lost }, Verdict::Cut(OF_CLIENT)),
                (Situation { is_held: false, may_repeat: true, ..lost }, Verdict::Cut(OF_CLIENT)),
                (lost, Verdict::Cut(OF_CLIENT)),
            ]);
        }
    }
}
