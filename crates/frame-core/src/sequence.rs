//! Which frame may come next (RFC 6455 §5.4–5.5), and how large a message may grow.
//!
//! In: the frame heads of one direction, in order. Out: nothing, or the [`Violation`].
//! A fragmented message is one message: the limit counts all its fragments.

use std::sync::Arc;

use net_io::count::Sizes;
use net_io::state::{StateError, StateReader, StateWriter};

use crate::head::{FrameHead, OpCode, Sender};
use crate::violation::Violation;

/// What one direction of a connection must obey.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most payload bytes of one message as they are on the wire; `u64::MAX` for no limit.
    pub message_max: u64,
    /// permessage-deflate was negotiated: RSV1 may mark the first frame of a message (RFC 7692 §6).
    pub deflate: bool,
}

/// The order of frames in one direction.
#[derive(Debug, Clone)]
pub struct Sequence {
    sender: Sender,
    message_max: u64,
    deflate: bool,
    /// A message has begun and not ended.
    in_message: bool,
    /// Payload bytes that it has announced so far.
    message_len: u64,
    largest: u64,
    /// Where its messages are counted by size, if they are.
    sizes: Option<Arc<Sizes>>,
}

impl Sequence {
    /// The state before the first frame.
    #[must_use]
    pub fn new(sender: Sender, limits: Limits) -> Self {
        let Limits { message_max, deflate } = limits;
        Self { sender, message_max, deflate, in_message: false, message_len: 0, largest: 0, sizes: None }
    }

    /// Writes what [`Self::read_state`] reads.
    pub(crate) fn write_state(&self, out: &mut StateWriter) {
        // Who sends is before it, and the largest behind all of the session.
        let Self { sender: _, message_max, deflate, in_message, message_len, largest: _, sizes: _ } = self;
        out.section(|out| {
            out.u64(*message_max);
            out.bool(*deflate);
            out.option(in_message.then_some(*message_len), StateWriter::u64);
        });
    }

    /// Goes on where another sequence left off.
    pub(crate) fn read_state(sender: Sender, fields: &mut StateReader<'_>) -> Result<Self, StateError> {
        let mut fields = fields.section()?;
        let (message_max, deflate) = (fields.u64()?, fields.bool()?);
        let message_len = fields.option(StateReader::u64)?;
        Ok(Self {
            sender,
            message_max,
            deflate,
            in_message: message_len.is_some(),
            message_len: message_len.unwrap_or_default(),
            largest: 0,
            sizes: None,
        })
    }

    /// Whose frames these are.
    pub(crate) fn sender(&self) -> Sender {
        self.sender
    }

    /// A message has begun and not ended: only its continuations and control frames may follow.
    #[must_use]
    pub(crate) fn in_message(&self) -> bool {
        self.in_message
    }

    /// Payload bytes that the largest message has announced.
    #[must_use]
    pub(crate) fn largest(&self) -> u64 {
        self.largest
    }

    /// It was so many, in another process.
    pub(crate) fn set_largest(&mut self, largest: u64) {
        self.largest = largest;
    }

    /// From now on its messages are counted there by what they announce.
    pub(crate) fn count_sizes(&mut self, sizes: Option<Arc<Sizes>>) {
        self.sizes = sizes;
    }

    /// Takes the next head. Control frames leave no trace, so one may be shown twice.
    ///
    /// # Errors
    /// The rule that the frame breaks; the sequence must not be used afterwards.
    pub fn on_head(&mut self, head: &FrameHead) -> Result<(), Violation> {
        let before = match (head.opcode, self.in_message) {
            (OpCode::Close | OpCode::Ping | OpCode::Pong, _) => {
                return if head.rsv1 { Err(RSV1) } else { Ok(()) }; // RFC 7692 §6.1: data frames only
            }
            (OpCode::Text | OpCode::Binary, false) if head.rsv1 && !self.deflate => {
                return Err(RSV1);
            }
            (OpCode::Text | OpCode::Binary, false) => 0,
            (OpCode::Text | OpCode::Binary, true) => return Err(Violation::Interleaved),
            (OpCode::Continuation, false) => return Err(Violation::UnexpectedContinuation),
            (OpCode::Continuation, true) if head.rsv1 => return Err(RSV1), // RFC 7692 §6.1
            (OpCode::Continuation, true) => self.message_len,
        };
        let len = before.saturating_add(head.payload_len);
        if len > self.message_max {
            return Err(Violation::MessageTooBig { len, max: self.message_max });
        }
        self.in_message = !head.fin;
        self.message_len = len;
        if len > self.largest {
            self.largest = len; // mostly it is not
        }
        if let (true, Some(sizes)) = (head.fin, &self.sizes) {
            sizes.add(len);
        }
        Ok(())
    }
}

const RSV1: Violation = Violation::ReservedBits { bits: 0b100 };

#[cfg(test)]
mod tests {
    use OpCode::{Binary, Close, Continuation, Ping, Pong, Text};

    use super::*;

    fn frame(opcode: OpCode, fin: bool, payload_len: u64) -> FrameHead {
        FrameHead { fin, rsv1: false, opcode, mask: None, payload_len, head_len: 2 }
    }

    fn rsv1(head: FrameHead) -> FrameHead {
        FrameHead { rsv1: true, ..head }
    }

    /// The verdict on the last of `heads`; those before it must pass.
    #[track_caller]
    fn check(limits: Limits, heads: &[FrameHead], expect: Result<(), Violation>) {
        let mut sequence = Sequence::new(Sender::Client, limits);
        let (last, before) = heads.split_last().unwrap();
        for head in before {
            assert_eq!(sequence.on_head(head), Ok(()), "{head:?}");
        }
        assert_eq!(sequence.on_head(last), expect, "{last:?}");
    }

    const PLAIN: Limits = Limits { message_max: 10, deflate: false };
    const DEFLATE: Limits = Limits { message_max: 10, deflate: true };

    #[test]
    fn fragments_in_order() {
        check(PLAIN, &[frame(Text, true, 3), frame(Binary, true, 3)], Ok(()));
        check(PLAIN, &[frame(Text, false, 3), frame(Continuation, true, 3), frame(Text, true, 0)], Ok(()));
        check(PLAIN, &[frame(Text, false, 3), frame(Ping, true, 3), frame(Continuation, true, 3)], Ok(()));
        check(PLAIN, &[frame(Continuation, true, 3)], Err(Violation::UnexpectedContinuation));
        check(
            PLAIN,
            &[frame(Text, false, 3), frame(Continuation, true, 3), frame(Continuation, true, 3)],
            Err(Violation::UnexpectedContinuation),
        );
        check(PLAIN, &[frame(Text, false, 3), frame(Text, true, 3)], Err(Violation::Interleaved));
        check(PLAIN, &[frame(Text, false, 3), frame(Binary, false, 3)], Err(Violation::Interleaved));
    }

    #[test]
    fn the_limit_counts_all_fragments() {
        check(PLAIN, &[frame(Text, true, 10), frame(Text, true, 10)], Ok(()));
        check(PLAIN, &[frame(Text, true, 11)], Err(Violation::MessageTooBig { len: 11, max: 10 }));
        check(PLAIN, &[frame(Text, false, 4), frame(Continuation, true, 6)], Ok(()));
        check(
            PLAIN,
            &[frame(Text, false, 4), frame(Continuation, false, 6), frame(Continuation, true, 1)],
            Err(Violation::MessageTooBig { len: 11, max: 10 }),
        );
        // Control frames have their own limit and do not count.
        check(PLAIN, &[frame(Text, false, 10), frame(Pong, true, 125), frame(Continuation, true, 0)], Ok(()));
        let unlimited = Limits { message_max: u64::MAX, deflate: false };
        let huge = (1 << 63) - 1;
        check(
            unlimited,
            &[frame(Text, false, huge), frame(Continuation, false, huge), frame(Continuation, false, huge)],
            Ok(()),
        );
    }

    #[test]
    fn rsv1_marks_the_first_frame_of_a_compressed_message() {
        check(DEFLATE, &[rsv1(frame(Text, true, 3))], Ok(()));
        check(DEFLATE, &[rsv1(frame(Binary, false, 3)), frame(Continuation, true, 3)], Ok(()));
        check(DEFLATE, &[frame(Text, false, 3), rsv1(frame(Continuation, true, 3))], Err(RSV1));
        for limits in [PLAIN, DEFLATE] {
            for control in [Close, Ping, Pong] {
                check(limits, &[rsv1(frame(control, true, 0))], Err(RSV1));
                check(limits, &[frame(Text, false, 3), rsv1(frame(control, true, 0))], Err(RSV1));
            }
        }
        check(PLAIN, &[rsv1(frame(Text, true, 3))], Err(RSV1));
    }
}
