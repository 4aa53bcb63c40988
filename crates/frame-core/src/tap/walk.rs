//! Where the frames are in one direction of a stream, and a copy of the front of each. Pure.
//!
//! In: the bytes of the stream in pieces of any size, from the place that [`WayStart`] says. Out: a [`Found`] for each
//! frame as soon as enough of it has passed. A head that breaks a rule is reported, and nothing is looked at behind it:
//! the session that is watched ends by the same rule.

use crate::head::{HEAD_MAX, Scan, Sender, scan_head};
use crate::violation::Violation;

/// Where one direction of a session stands when a tap begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WayStart {
    /// Bytes of the stream up to the next head: the rest of a frame, and what is queued.
    pub(crate) skip: u64,
    /// Bytes behind them that have been read already.
    pub(crate) ahead: Vec<u8>,
    /// There will be no more frames.
    pub(crate) is_over: bool,
}

/// What has passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// A frame, as far as it is copied.
    Frame {
        /// Of the payload, in bytes.
        payload_len: u64,
        /// Head and payload as they are on the wire, up to the length that was asked for.
        wire: Vec<u8>,
    },
    /// No frame, since its head breaks a rule.
    Violation {
        /// The rule.
        violation: Violation,
        /// Where the head should be, up to [`HEAD_MAX`] bytes.
        wire: Vec<u8>,
    },
}

/// One direction.
#[derive(Debug)]
pub(crate) struct Walk {
    sender: Sender,
    /// Payload bytes of each frame that are copied.
    capture_len: usize,
    /// Bytes up to the next head that nothing is copied of.
    skip: u64,
    /// The front of a head.
    head: [u8; HEAD_MAX],
    head_len: usize,
    copy: Option<Copying>,
    is_over: bool,
}

/// A frame whose front is still coming.
#[derive(Debug)]
struct Copying {
    payload_len: u64,
    wire: Vec<u8>,
    /// Bytes that are still to be copied.
    wanted: usize,
}

impl Walk {
    /// The frames of `sender`, from where the session stands; up to `capture_len` payload bytes of each are copied.
    pub(crate) fn new(
        sender: Sender,
        start: &WayStart,
        capture_len: usize,
        found: impl FnMut(Found),
    ) -> Self {
        let mut walk = Self {
            sender,
            capture_len,
            skip: start.skip,
            head: [0; HEAD_MAX],
            head_len: 0,
            copy: None,
            is_over: start.is_over,
        };
        walk.on_bytes(&start.ahead, found);
        walk
    }

    /// The next bytes of the stream.
    pub(crate) fn on_bytes(&mut self, mut bytes: &[u8], mut found: impl FnMut(Found)) {
        while !bytes.is_empty() && !self.is_over {
            if self.skip > 0 {
                let here = usize::try_from(self.skip).map_or(bytes.len(), |skip| skip.min(bytes.len()));
                self.skip -= here as u64;
                bytes = &bytes[here..];
            } else if let Some(copy) = &mut self.copy {
                let here = copy.wanted.min(bytes.len());
                copy.wire.extend_from_slice(&bytes[..here]);
                copy.wanted -= here;
                bytes = &bytes[here..];
                self.finish_copy(&mut found);
            } else {
                bytes = self.on_head(bytes, &mut found);
            }
        }
    }

    /// Takes what there is of a head; returns what is behind it.
    fn on_head<'a>(&mut self, bytes: &'a [u8], found: &mut impl FnMut(Found)) -> &'a [u8] {
        let here = (HEAD_MAX - self.head_len).min(bytes.len());
        let end = self.head_len + here;
        self.head[self.head_len..end].copy_from_slice(&bytes[..here]);
        match scan_head(&self.head[..end], self.sender) {
            Ok(Scan::Need(_)) => {
                self.head_len = end;
                &bytes[here..]
            }
            Ok(Scan::Head(head)) => {
                let behind = &bytes[head.head_len - self.head_len..];
                self.head_len = 0;
                let wanted = usize::try_from(head.payload_len)
                    .map_or(self.capture_len, |len| len.min(self.capture_len));
                let wire = self.head[..head.head_len].to_vec();
                self.copy = Some(Copying { payload_len: head.payload_len, wire, wanted });
                self.skip = 0;
                self.finish_copy(found);
                behind
            }
            Err(violation) => {
                self.is_over = true;
                found(Found::Violation { violation, wire: self.head[..end].to_vec() });
                &[]
            }
        }
    }

    /// Gives the frame out, if all that is wanted of it is there.
    fn finish_copy(&mut self, found: &mut impl FnMut(Found)) {
        if let Some(Copying { payload_len, wire, .. }) = self.copy.take_if(|copy| copy.wanted == 0) {
            self.skip = payload_len.saturating_sub(self.capture_len as u64);
            found(Found::Frame { payload_len, wire });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    /// A frame of a server, whose payload is as long as it says.
    fn frame(b0: u8, payload: &[u8]) -> Vec<u8> {
        let mut wire = vec![b0];
        match u8::try_from(payload.len()) {
            Ok(len @ 0..=125) => wire.push(len),
            _ => {
                wire.push(126);
                wire.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
            }
        }
        wire.extend(payload);
        wire
    }

    fn walk_in_pieces(start: &WayStart, capture_len: usize, wire: &[u8], cuts: &[usize]) -> Vec<Found> {
        let mut all = Vec::new();
        let mut walk = Walk::new(Sender::Server, start, capture_len, |found| all.push(found));
        let mut from = 0;
        for &cut in cuts.iter().chain([&wire.len()]) {
            walk.on_bytes(&wire[from..cut], |found| all.push(found));
            from = cut;
        }
        all
    }

    fn walk(start: &WayStart, capture_len: usize, wire: &[u8]) -> Vec<Found> {
        walk_in_pieces(start, capture_len, wire, &[])
    }

    #[test]
    fn each_frame_is_found_and_its_front_is_copied() {
        let (short, long) = (frame(0x81, b"hello"), frame(0x82, &[7; 300]));
        let wire = [&short[..], &long, &frame(0x89, b"")].concat();
        let found = walk(&WayStart::default(), 8, &wire);
        let expect = |payload_len, wire: &[u8]| Found::Frame { payload_len, wire: wire.to_vec() };
        assert_eq!(found, [expect(5, &short), expect(300, &long[..12]), expect(0, &[0x89, 0])]);
        let heads = walk(&WayStart::default(), 0, &wire);
        assert_eq!(heads, [expect(5, &short[..2]), expect(300, &long[..4]), expect(0, &[0x89, 0])]);
    }

    #[test]
    fn it_begins_where_the_session_stands() {
        let wire = [&[9; 20][..], &frame(0x81, b"a")].concat();
        let expect = [Found::Frame { payload_len: 1, wire: vec![0x81, 1, b'a'] }];
        assert_eq!(walk(&WayStart { skip: 20, ..WayStart::default() }, 9, &wire), expect);
        let ahead = WayStart { skip: 20, ahead: wire[..21].to_vec(), is_over: false };
        assert_eq!(walk(&ahead, 9, &wire[21..]), expect);
        assert_eq!(walk(&WayStart { is_over: true, ..WayStart::default() }, 9, &frame(0x81, b"a")), []);
    }

    #[test]
    fn a_rule_that_is_broken_is_the_end() {
        let wire = [&frame(0x81, b"a")[..], &[0x83, 0], &frame(0x81, b"b")].concat();
        let found = walk(&WayStart::default(), 9, &wire);
        assert_eq!(found.len(), 2);
        let broken = Violation::UnknownOpcode { opcode: 3 };
        assert!(matches!(&found[1], Found::Violation { violation, .. } if *violation == broken), "{found:?}");
    }

    proptest! {
        #[test]
        fn any_split_finds_the_same(
            frames in proptest::collection::vec((prop::sample::select(vec![0x81u8, 0x02, 0x80, 0x89, 0x8A, 0xC1]), 0..400usize), 0..8),
            capture_len in 0..200usize,
            cuts in proptest::collection::vec(any::<Index>(), 0..12),
        ) {
            let wire: Vec<u8> = frames.iter().flat_map(|&(b0, len)| {
                let len = if b0 & 0x08 == 0 { len } else { len % 126 };
                frame(b0, &vec![b0; len])
            }).collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|c| c.index(wire.len() + 1)).collect();
            cuts.sort_unstable();
            let whole = walk(&WayStart::default(), capture_len, &wire);
            prop_assert_eq!(whole.len(), frames.len());
            prop_assert_eq!(walk_in_pieces(&WayStart::default(), capture_len, &wire, &cuts), whole);
        }
    }
}
