//! Where a stream of frames stands, byte for byte. Pure.
//!
//! In: bytes that have gone to a peer, in pieces of any size. Out: what they are made of. The rules of frames are the
//! relay's to check: here only their lengths matter.

use net_io::state::{StateError, StateReader, StateWriter};

use super::decide::Place;
use crate::head::{CONTROL_PAYLOAD_MAX, HEAD_MAX, OpCode, Scan, Sender, scan_head};
use crate::scanner::ControlPayload;
use crate::violation::Violation;

/// What stands at the front of some bytes.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing, or a part of a head or of a control frame.
    Need,
    /// So many bytes of a data frame.
    Data(usize),
    /// A control frame of so many bytes.
    Control(usize, OpCode, ControlPayload),
}

/// The place between two bytes that are not inside a head or a control frame.
#[derive(Debug, Clone)]
pub(super) struct Walker {
    sender: Sender,
    /// Payload bytes of the data frame that are still to come.
    payload_left: u64,
    /// The data frame is not the last of its message.
    in_message: bool,
    /// Messages that have ended.
    messages: u64,
}

impl Walker {
    /// Before the first frame of `sender`.
    pub(super) fn new(sender: Sender) -> Self {
        Self { sender, payload_left: 0, in_message: false, messages: 0 }
    }

    /// Writes what [`Self::read_state`] reads.
    pub(super) fn write_state(&self, out: &mut StateWriter) {
        let Self { sender: _, payload_left, in_message, messages } = self; // each has its own sender
        out.u64(*payload_left);
        out.bool(*in_message);
        out.u64(*messages);
    }

    /// The place of another walker in the frames of `sender`.
    pub(super) fn read_state(fields: &mut StateReader<'_>, sender: Sender) -> Result<Self, StateError> {
        Ok(Self {
            sender,
            payload_left: fields.u64()?,
            in_message: fields.bool()?,
            messages: fields.count()?,
        })
    }

    /// The same before the first frame of another stream.
    pub(super) fn begin_again(&mut self) {
        (self.payload_left, self.in_message) = (0, false);
    }

    pub(super) fn messages(&self) -> u64 {
        self.messages
    }

    pub(super) fn place(&self) -> Place {
        match (self.payload_left, self.in_message) {
            (0, false) => Place::Between,
            (0, true) => Place::InMessage,
            _ => Place::InFrame,
        }
    }

    /// Takes what stands at the front of `bytes`.
    ///
    /// # Errors
    /// If it is no frame.
    pub(super) fn step(&mut self, bytes: &[u8]) -> Result<Step, Violation> {
        let mut taken = 0;
        if bytes.is_empty() {
            return Ok(Step::Need);
        }
        if self.payload_left == 0 {
            let head = match scan_head(bytes, self.sender)? {
                Scan::Head(head) => head,
                Scan::Need(_) => return Ok(Step::Need),
            };
            taken = head.head_len;
            if head.opcode.is_control() {
                let payload_len = usize::try_from(head.payload_len).unwrap_or(CONTROL_PAYLOAD_MAX);
                let Some(payload) = bytes.get(taken..taken + payload_len) else { return Ok(Step::Need) };
                let payload = ControlPayload::new(payload, head.mask);
                return Ok(Step::Control(taken + payload_len, head.opcode, payload));
            }
            self.payload_left = head.payload_len;
            self.in_message = !head.fin;
            if head.payload_len == 0 {
                self.end_frame();
                return Ok(Step::Data(taken));
            }
        }
        let here = bytes.len() - taken;
        let n = usize::try_from(self.payload_left).map_or(here, |left| left.min(here));
        self.payload_left -= n as u64;
        if self.payload_left == 0 {
            self.end_frame();
        }
        Ok(Step::Data(taken + n))
    }

    fn end_frame(&mut self) {
        self.messages += u64::from(!self.in_message);
    }
}

/// A piece of the stream, as it came.
#[derive(Debug)]
pub(super) enum Piece<'a> {
    /// Of data frames.
    Data(&'a [u8]),
    /// A control frame.
    Control(OpCode, &'a ControlPayload, &'a [u8]),
}

/// A [`Walker`] that takes pieces of any size: what is too little to be judged is kept.
#[derive(Debug, Clone)]
pub(super) struct Track {
    walker: Walker,
    /// The front of a head or of a control frame.
    front: Vec<u8>,
}

impl Track {
    pub(super) fn new(sender: Sender) -> Self {
        Self { walker: Walker::new(sender), front: Vec::new() }
    }

    /// Writes what [`Self::read_state`] reads.
    pub(super) fn write_state(&self, out: &mut StateWriter) {
        let Self { walker, front } = self;
        out.section(|out| {
            walker.write_state(out);
            out.bytes(front);
        });
    }

    /// The place of another one in the frames of `sender`.
    pub(super) fn read_state(fields: &mut StateReader<'_>, sender: Sender) -> Result<Self, StateError> {
        let mut fields = fields.section()?;
        let walker = Walker::read_state(&mut fields, sender)?;
        let front = fields.bytes()?.to_vec();
        if front.len() >= HEAD_MAX + CONTROL_PAYLOAD_MAX {
            return Err(StateError::Invalid("the front of a frame"));
        }
        Ok(Self { walker, front })
    }

    pub(super) fn begin_again(&mut self) {
        self.walker.begin_again();
        self.front.clear();
    }

    pub(super) fn messages(&self) -> u64 {
        self.walker.messages()
    }

    /// The front of a head or of a control frame, that has been taken.
    pub(super) fn front(&self) -> &[u8] {
        &self.front
    }

    /// A control frame whose front alone has gone cuts no message off.
    pub(super) fn place(&self) -> Place {
        if self.front.is_empty() || self.is_in_control() { self.walker.place() } else { Place::InFrame }
    }

    fn is_in_control(&self) -> bool {
        self.front.first().is_some_and(|b0| b0 & 0x08 != 0) // RFC 6455 §5.2
    }

    /// A part of a Close has been taken, of which a control frame begins.
    pub(super) fn is_in_close(&self) -> bool {
        self.front.first().is_some_and(|b0| b0 & 0x0F == 0x08)
    }

    /// Between two messages, and not inside a control frame.
    pub(super) fn is_between(&self) -> bool {
        self.front.is_empty() && self.walker.place() == Place::Between
    }

    /// How many of `bytes` are left of the message or the control frame that is under way; all of them if it doesn't end
    /// with them.
    pub(super) fn left_of_message(&self, bytes: &[u8]) -> usize {
        let mut probe = self.clone();
        let mut left = bytes;
        while !left.is_empty() && !probe.is_between() {
            let n = probe.take_one(left, &mut |_| {});
            left = &left[n..];
        }
        bytes.len() - left.len()
    }

    /// Takes bytes, and shows the pieces that they complete. Returns behind how many of them the last place between
    /// two messages was, if there was one.
    pub(super) fn take(&mut self, bytes: &[u8], mut see: impl FnMut(Piece<'_>)) -> Option<usize> {
        let (mut taken, mut between) = (0, None);
        while taken < bytes.len() {
            taken += self.take_one(&bytes[taken..], &mut see);
            if self.is_between() {
                between = Some(taken);
            }
        }
        between
    }

    /// Takes one piece of `bytes`, which are some.
    fn take_one(&mut self, bytes: &[u8], see: &mut impl FnMut(Piece<'_>)) -> usize {
        let Self { walker, front } = self;
        if front.is_empty() {
            return match walker.step(bytes) {
                Ok(Step::Data(n)) => {
                    see(Piece::Data(&bytes[..n]));
                    n
                }
                Ok(Step::Control(n, opcode, payload)) => {
                    see(Piece::Control(opcode, &payload, &bytes[..n]));
                    n
                }
                Ok(Step::Need) => {
                    front.extend_from_slice(bytes);
                    bytes.len()
                }
                Err(_) => {
                    // The relay passes none on.
                    see(Piece::Data(bytes));
                    bytes.len()
                }
            };
        }
        // At most the 131 bytes of a control frame come one by one.
        front.push(bytes[0]);
        match walker.step(front) {
            Ok(Step::Need) => {}
            Ok(Step::Control(_, opcode, payload)) => {
                see(Piece::Control(opcode, &payload, front));
                front.clear();
            }
            Ok(Step::Data(_)) | Err(_) => {
                see(Piece::Data(front));
                front.clear();
            }
        }
        1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;
    use crate::test_io::masked;

    fn wire() -> (Vec<u8>, Vec<usize>) {
        let frames = [
            masked(0x81, b"one"),
            masked(0x02, &[7; 300]),
            masked(0x89, b"ping"),
            masked(0x80, b""),
            masked(0x8A, b""),
            masked(0x82, b""),
            masked(0x01, b"a"),
            masked(0x00, b"b"),
            masked(0x80, b"c"),
        ];
        let mut ends = vec![0];
        frames.iter().for_each(|frame| ends.push(ends[ends.len() - 1] + frame.len()));
        (frames.concat(), ends)
    }

    proptest! {
        #[test]
        fn any_split_shows_the_same(cuts in proptest::collection::vec(any::<Index>(), 0..12)) {
            let (wire, ends) = wire();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(wire.len() + 1)).collect();
            cuts.push(wire.len());
            cuts.sort_unstable();
            let (mut track, mut at, mut shown, mut controls) = (Track::new(Sender::Client), 0, Vec::new(), 0);
            for cut in cuts {
                track.take(&wire[at..cut], |piece| match piece {
                    Piece::Data(data) => shown.extend_from_slice(data),
                    Piece::Control(_, _, frame) => {
                        controls += 1;
                        shown.extend_from_slice(frame);
                    }
                });
                at = cut;
                prop_assert_eq!(&[&shown[..], track.front()].concat()[..], &wire[..at]);
                let is_whole = [0, 1, 4, 5, 6, 9].map(|n| ends[n]).contains(&at);
                let is_in_pong = (ends[4] + 1..ends[5]).contains(&at); // between two messages
                prop_assert_eq!(track.place() == Place::Between, is_whole || is_in_pong, "at {}", at);
                let left = track.left_of_message(&wire[at..]);
                let next = [0, 1, 4, 5, 6, 9].map(|n| ends[n]).into_iter().find(|end| *end >= at).unwrap();
                let next = if is_in_pong { ends[5] } else { next };
                prop_assert_eq!(at + left, next);
            }
            prop_assert_eq!((track.messages(), controls), (4, 2));
        }
    }

    #[test]
    fn the_last_place_between_two_messages_is_told() {
        let (wire, ends) = wire();
        let mut track = Track::new(Sender::Client);
        assert_eq!(track.take(&wire[..ends[1] + 1], |_| {}), Some(ends[1]));
        assert_eq!(track.take(&wire[ends[1] + 1..ends[3]], |_| {}), None);
        assert_eq!(track.take(&wire[ends[3]..], |_| {}), Some(wire.len() - ends[3]));
        assert_eq!(track.place(), Place::Between);
    }
}
