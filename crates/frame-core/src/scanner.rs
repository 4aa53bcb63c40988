//! How far the bytes of one direction may go on: heads are checked, payloads are skipped.
//!
//! In: a receive buffer, as it grows. Out: how many bytes may go on, and what follows them.
//! Data frames pass in pieces of any size, so a message of any length needs no memory here.
//! Control frames are at most 131 bytes (a client's head of 6, a payload of 125) and are
//! handed over whole. Payloads of data frames are never looked at.

use std::sync::Arc;

use net_io::count::Sizes;
use net_io::state::{StateError, StateReader, StateWriter};

use crate::close::Close;
use crate::head::{CONTROL_PAYLOAD_MAX, FrameHead, OpCode, Scan, Sender, scan_head, unmask};
use crate::sequence::{Limits, Sequence};
use crate::violation::Violation;

/// A place where the gateway may insert a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boundary {
    /// Between two frames: enough for any control frame (RFC 6455 §5.4).
    Frame,
    /// Between two messages: a Close here cuts nothing off.
    Message,
}

/// What follows the bytes that may go on.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing can be said before this many more bytes arrive.
    Need(usize),
    /// A whole control frame. It counts as taken: the next scan starts behind it.
    Control(ControlFrame),
    /// The boundary that was asked for.
    Boundary,
}

/// A control frame that is whole and checked.
#[derive(Debug, PartialEq, Eq)]
pub struct ControlFrame {
    /// Head and payload, in bytes.
    pub frame_len: usize,
    /// What it says.
    pub kind: ControlKind,
}

/// What a control frame says.
#[derive(Debug, PartialEq, Eq)]
pub enum ControlKind {
    /// The sender sends nothing more.
    Close(Close),
    /// With its payload, which the pong repeats.
    Ping(ControlPayload),
    /// With its payload, unmasked.
    Pong(ControlPayload),
}

/// The unmasked payload of a control frame, at most 125 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlPayload {
    bytes: [u8; CONTROL_PAYLOAD_MAX],
    len: usize,
}

impl ControlPayload {
    /// `wire` is the payload as it was sent, at most 125 bytes; what is behind them is left out.
    pub(crate) fn new(wire: &[u8], mask: Option<[u8; 4]>) -> Self {
        let wire = &wire[..wire.len().min(CONTROL_PAYLOAD_MAX)];
        let mut bytes = [0; CONTROL_PAYLOAD_MAX];
        bytes[..wire.len()].copy_from_slice(wire);
        if let Some(mask) = mask {
            unmask(&mut bytes[..wire.len()], mask, 0);
        }
        Self { bytes, len: wire.len() }
    }
}

impl std::ops::Deref for ControlPayload {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// What one direction has carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Messages that ended.
    pub messages: u64,
    /// Payload bytes of data frames, as they are on the wire.
    pub payload_bytes: u64,
}

/// Walks the frames of one direction.
#[derive(Debug, Clone)]
pub struct Scanner {
    sequence: Sequence,
    /// Bytes of the current data frame that are still to come.
    payload_left: u64,
    tally: Tally,
}

impl Scanner {
    /// The state before the first byte.
    #[must_use]
    pub fn new(sender: Sender, limits: Limits) -> Self {
        Self { sequence: Sequence::new(sender, limits), payload_left: 0, tally: Tally::default() }
    }

    /// One that checks nothing: all bytes are payload of one frame without end.
    pub(crate) fn disabled(sender: Sender) -> Self {
        let nothing = Limits { message_max: u64::MAX, deflate: false };
        Self { payload_left: u64::MAX, ..Self::new(sender, nothing) }
    }

    /// Writes what [`Self::read_state`] reads.
    pub(crate) fn write_state(&self, out: &mut StateWriter) {
        let Self { sequence, payload_left, tally: Tally { messages, payload_bytes } } = self;
        out.section(|out| {
            out.bool(sequence.sender() == Sender::Client);
            sequence.write_state(out);
            out.u64(*payload_left);
            out.u64(*messages);
            out.u64(*payload_bytes);
        });
    }

    /// Goes on where another scanner left off.
    pub(crate) fn read_state(fields: &mut StateReader<'_>) -> Result<Self, StateError> {
        let mut fields = fields.section()?;
        let sender = if fields.bool()? { Sender::Client } else { Sender::Server };
        Ok(Self {
            sequence: Sequence::read_state(sender, &mut fields)?,
            payload_left: fields.u64()?,
            tally: Tally { messages: fields.count()?, payload_bytes: fields.count()? },
        })
    }

    /// Whose frames these are.
    #[must_use]
    pub fn sender(&self) -> Sender {
        self.sequence.sender()
    }

    /// Bytes of the current data frame that are still to come.
    pub(crate) fn payload_left(&self) -> u64 {
        self.payload_left
    }

    /// What has passed so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Payload bytes that the largest message has announced.
    #[must_use]
    pub(crate) fn largest(&self) -> u64 {
        self.sequence.largest()
    }

    /// They were so many, in another process.
    pub(crate) fn set_largest(&mut self, largest: u64) {
        self.sequence.set_largest(largest);
    }

    /// From now on messages are counted there by size.
    pub(crate) fn count_sizes(&mut self, sizes: Option<Arc<Sizes>>) {
        self.sequence.count_sizes(sizes);
    }

    /// The bytes passed so far end at such a boundary.
    #[must_use]
    pub fn at(&self, boundary: Boundary) -> bool {
        self.payload_left == 0
            && match boundary {
                Boundary::Frame => true,
                Boundary::Message => !self.sequence.in_message(),
            }
    }

    /// Scans `input`, whose first byte follows the last one passed or taken. Returns how many
    /// of its bytes may go on, and what follows them; it stops early at `stop_at`.
    ///
    /// # Errors
    /// The bytes that may go on still count: they come from frames before the violation.
    /// The scanner must not be used afterwards.
    pub fn scan(&mut self, input: &[u8], stop_at: Option<Boundary>) -> (usize, Result<Next, Violation>) {
        let mut pos = 0;
        loop {
            let here = input.len() - pos;
            if self.payload_left > 0 {
                let take = usize::try_from(self.payload_left).map_or(here, |left| left.min(here));
                pos += take;
                self.payload_left -= take as u64;
                self.tally.payload_bytes += take as u64;
                if self.payload_left > 0 {
                    return (pos, Ok(Next::Need(1)));
                }
                self.end_frame();
            }
            if stop_at.is_some_and(|boundary| self.at(boundary)) {
                return (pos, Ok(Next::Boundary));
            }
            let front = &input[pos..];
            let head = match scan_head(front, self.sender()) {
                Ok(Scan::Head(head)) => head,
                Ok(Scan::Need(n)) => return (pos, Ok(Next::Need(n))),
                Err(violation) => return (pos, Err(violation)),
            };
            if head.opcode.is_control() {
                return (pos, self.control(&head, front));
            }
            if let Err(violation) = self.sequence.on_head(&head) {
                return (pos, Err(violation));
            }
            pos += head.head_len;
            self.payload_left = head.payload_len;
            if head.payload_len == 0 {
                self.end_frame();
            }
        }
    }

    fn end_frame(&mut self) {
        if !self.sequence.in_message() {
            self.tally.messages += 1;
        }
    }

    fn control(&mut self, head: &FrameHead, front: &[u8]) -> Result<Next, Violation> {
        self.sequence.on_head(head)?;
        // A checked control head announces at most 125 bytes.
        let payload_len = usize::try_from(head.payload_len).unwrap_or(CONTROL_PAYLOAD_MAX);
        let frame_len = head.head_len + payload_len;
        let Some(payload) = front.get(head.head_len..frame_len) else {
            return Ok(Next::Need(frame_len - front.len()));
        };
        let payload = ControlPayload::new(payload, head.mask);
        let kind = match head.opcode {
            OpCode::Close => ControlKind::Close(Close::parse(&payload)?),
            OpCode::Ping => ControlKind::Ping(payload),
            OpCode::Pong | OpCode::Continuation | OpCode::Text | OpCode::Binary => ControlKind::Pong(payload),
        };
        Ok(Next::Control(ControlFrame { frame_len, kind }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    const LIMITS: Limits = Limits { message_max: 1000, deflate: false };

    fn scanner() -> Scanner {
        Scanner::new(Sender::Client, LIMITS)
    }

    /// A client frame with a constant mask.
    fn frame(b0: u8, payload: &[u8]) -> Vec<u8> {
        const MASK: [u8; 4] = [0xA1, 0xB2, 0xC3, 0xD4];
        let mut wire = vec![b0];
        match payload.len() {
            len @ 0..=125 => wire.push(0x80 | u8::try_from(len).unwrap()),
            len => {
                wire.push(0x80 | 126);
                wire.extend(u16::try_from(len).unwrap().to_be_bytes());
            }
        }
        wire.extend(MASK);
        wire.extend(payload);
        let at = wire.len() - payload.len();
        unmask(&mut wire[at..], MASK, 0);
        wire
    }

    /// What was found in a whole stream, with the bytes that may go on.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct Scanned {
        passed: Vec<u8>,
        controls: Vec<ControlKind>,
        violation: Option<Violation>,
        tally: Tally,
    }

    /// Feeds `wire` in the given pieces, as a relay does: what is not passed is shown again.
    fn scan_in_pieces(wire: &[u8], cuts: &[usize]) -> Scanned {
        let (mut scanner, mut scanned) = (scanner(), Scanned::default());
        let (mut start, mut end) = (0, 0);
        for &cut in cuts.iter().chain([&wire.len()]) {
            end = end.max(cut);
            loop {
                let (passed, next) = scanner.scan(&wire[start..end], None);
                scanned.passed.extend(&wire[start..start + passed]);
                start += passed;
                match next {
                    Ok(Next::Control(control)) => {
                        start += control.frame_len;
                        scanned.controls.push(control.kind);
                    }
                    Ok(Next::Need(n)) => {
                        assert!(n > 0);
                        break;
                    }
                    Ok(Next::Boundary) => unreachable!("not asked for"),
                    Err(violation) => {
                        scanned.violation = Some(violation);
                        scanned.tally = scanner.tally();
                        return scanned;
                    }
                }
            }
        }
        scanned.tally = scanner.tally();
        scanned
    }

    #[test]
    fn data_passes_and_control_frames_are_shown() {
        let data = [frame(0x01, b"frag"), frame(0x80, b"ment"), frame(0x82, &[7; 300])].concat();
        let wire = [&data[..10], &frame(0x89, b"hi")[..], &data[10..], &frame(0x88, b"\x03\xE8")].concat();
        let scanned = scan_in_pieces(&wire, &[]);
        assert_eq!(scanned.passed, data);
        assert_eq!(scanned.tally, Tally { messages: 2, payload_bytes: 308 });
        assert_eq!(scanned.violation, None);
        let [ControlKind::Ping(ping), ControlKind::Close(close)] = &scanned.controls[..] else {
            panic!("{:?}", scanned.controls)
        };
        assert_eq!(&ping[..], b"hi");
        assert_eq!(close.code, Some(1000));
    }

    #[test]
    fn a_disabled_one_passes_anything_and_has_no_boundary() {
        let mut disabled = Scanner::disabled(Sender::Client);
        let wire = [&[0x82, 0x00, 0xFF][..], &frame(0x88, b"\x03\xE8")].concat();
        assert_eq!(disabled.scan(&wire, Some(Boundary::Frame)), (wire.len(), Ok(Next::Need(1))));
        assert!(!disabled.at(Boundary::Frame));
        assert_eq!(disabled.tally().messages, 0);
    }

    #[test]
    fn frames_before_a_violation_pass() {
        let good = frame(0x82, b"good");
        let scanned = scan_in_pieces(&[&good[..], &[0x82, 0x00]].concat(), &[]);
        assert_eq!(scanned.passed, good);
        assert_eq!(scanned.violation, Some(Violation::Unmasked));
        // A limit breaks at the head, so the other side is left at a boundary.
        let scanned = scan_in_pieces(&[frame(0x02, &[0; 600]), frame(0x80, &[0; 401])].concat(), &[]);
        assert_eq!(scanned.passed, frame(0x02, &[0; 600]));
        assert_eq!(scanned.violation, Some(Violation::MessageTooBig { len: 1001, max: 1000 }));
    }

    #[test]
    fn stops_at_the_boundary_asked_for() {
        let (first, second) = (frame(0x02, b"ab"), frame(0x80, b"cd"));
        let wire = [&first[..], &second, &frame(0x82, b"e")].concat();
        let mut s = scanner();
        assert_eq!(s.scan(&frame(0x89, b"ping")[..7], None), (0, Ok(Next::Need(3))));
        assert_eq!(s.scan(&wire, Some(Boundary::Message)), (0, Ok(Next::Boundary)));
        assert_eq!(s.scan(&wire[..3], None), (0, Ok(Next::Need(3))));
        assert!(s.at(Boundary::Message)); // nothing of the frame has passed
        assert_eq!(s.scan(&wire[..7], None), (7, Ok(Next::Need(1))));
        assert!(!s.at(Boundary::Frame));
        assert_eq!(s.scan(&wire[7..], Some(Boundary::Frame)), (1, Ok(Next::Boundary)));
        assert!(!s.at(Boundary::Message));
        assert_eq!(s.scan(&wire[8..], Some(Boundary::Message)), (8, Ok(Next::Boundary)));
    }

    #[test]
    fn an_empty_last_fragment_ends_the_message() {
        let wire = [frame(0x01, b"a"), frame(0x80, b"")].concat();
        assert_eq!(scan_in_pieces(&wire, &[]).tally, Tally { messages: 1, payload_bytes: 1 });
    }

    /// Streams in which good frames, control frames and violations are all common.
    fn streams() -> impl Strategy<Value = Vec<u8>> {
        let payload = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..8),
            proptest::collection::vec(any::<u8>(), 120..300),
        ];
        let b0 = prop_oneof![
            8 => prop::sample::select(vec![0x81u8, 0x82, 0x01, 0x80, 0x00]),
            3 => prop::sample::select(vec![0x88u8, 0x89, 0x8A]),
            1 => any::<u8>(),
        ];
        let good_close = Just(frame(0x88, b"\x03\xE8bye"));
        let one = prop_oneof![
            9 => (b0, payload).prop_map(|(b0, payload)| frame(b0, &payload)),
            1 => good_close,
        ];
        proptest::collection::vec(one, 0..8).prop_map(|frames| frames.concat())
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_result(
            wire in streams(),
            cuts in proptest::collection::vec(any::<Index>(), 0..12),
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|c| c.index(wire.len() + 1)).collect();
            cuts.sort_unstable();
            prop_assert_eq!(scan_in_pieces(&wire, &cuts), scan_in_pieces(&wire, &[]));
        }

        #[test]
        fn one_byte_at_a_time_gives_the_same_result(wire in streams()) {
            let cuts: Vec<usize> = (0..wire.len()).collect();
            prop_assert_eq!(scan_in_pieces(&wire, &cuts), scan_in_pieces(&wire, &[]));
        }
    }
}
