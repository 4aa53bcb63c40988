//! Messages of one direction, inflated (RFC 7692), as far as their history is known.
//!
//! A message may refer to the last 32 KiB of those before it. A tap that began later has not seen them, and one that has
//! lost a frame has a gap. Nothing is guessed then: inflating begins with an empty history again, and a message that refers
//! to more than has been seen since is an error of the inflater (a distance that is too far back), never a wrong text.

use flate2::{Decompress, FlushDecompress, Status};
use frame_core::head::OpCode;

use super::frame::Frame;

/// Bytes that a message is inflated to at most: a few bytes may stand for very many.
const INFLATED_LEN_MAX: u64 = 4 * 1024 * 1024;
/// What a sender leaves out at the end of each message (RFC 7692 §7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];

/// What became of a frame's payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Inflated {
    /// It is not compressed.
    AsSent,
    /// It is this, of which `front` is shown.
    As {
        /// Its first bytes.
        front: Vec<u8>,
        /// Of all of it, in bytes.
        len: u64,
    },
    /// It can't be known: it, or what it refers to, was not seen whole.
    HistoryMissing,
    /// It is longer than is shown of any message.
    TooLong,
}

/// The message that a frame belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Message {
    /// Its beginning was not seen.
    Unknown,
    Plain,
    Compressed {
        /// Bytes so far.
        len: u64,
    },
    Failed(Failure),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    HistoryMissing,
    TooLong,
}

/// One direction of a session that has agreed upon permessage-deflate.
#[derive(Debug)]
pub(super) struct Inflater {
    inflate: Decompress,
    message: Message,
}

impl Inflater {
    /// Nothing has been seen.
    pub(super) fn new() -> Self {
        Self { inflate: Decompress::new(false), message: Message::Unknown }
    }

    /// Frames have passed that were not seen.
    pub(super) fn on_gap(&mut self) {
        *self = Self::new();
    }

    /// The next frame; up to `shown_len` bytes of it are wanted.
    pub(super) fn on_frame(&mut self, frame: &Frame, shown_len: usize) -> Inflated {
        if frame.is_control() {
            return Inflated::AsSent; // RFC 7692 §6.1
        }
        if frame.opcode != OpCode::Continuation {
            self.message = if frame.rsv1 { Message::Compressed { len: 0 } } else { Message::Plain };
        }
        let result = match self.message {
            Message::Unknown => Inflated::HistoryMissing,
            Message::Plain => Inflated::AsSent,
            Message::Failed(failure) => failure.into(),
            Message::Compressed { len } => self.inflate(frame, len, shown_len),
        };
        if frame.fin && self.message == Message::Unknown {
            self.message = Message::Failed(Failure::HistoryMissing); // the next one begins with its own opcode
        }
        result
    }

    fn inflate(&mut self, frame: &Frame, before: u64, shown_len: usize) -> Inflated {
        let mut front = Vec::new();
        let tail: &[u8] = if frame.fin && frame.is_whole() { &TAIL } else { &[] };
        let mut len = 0;
        for input in [&frame.payload[..], tail] {
            match self.feed(input, INFLATED_LEN_MAX.saturating_sub(before + len), shown_len, &mut front) {
                Ok(more) => len += more,
                Err(failure) => return self.fail(failure),
            }
        }
        if !frame.is_whole() {
            // What was copied is right; its rest and what refers to it can't be known.
            self.inflate.reset(false);
            self.message = Message::Failed(Failure::HistoryMissing);
        } else {
            self.message = Message::Compressed { len: before + len };
        }
        Inflated::As { front, len }
    }

    fn fail(&mut self, failure: Failure) -> Inflated {
        self.inflate.reset(false);
        self.message = Message::Failed(failure);
        failure.into()
    }

    /// Returns how many bytes `input` is, at most `room`.
    fn feed(
        &mut self,
        input: &[u8],
        room: u64,
        shown_len: usize,
        front: &mut Vec<u8>,
    ) -> Result<u64, Failure> {
        let (mut at, mut len, mut output) = (0, 0, [0; 8192]);
        loop {
            let (read, written) = (self.inflate.total_in(), self.inflate.total_out());
            let step = self.inflate.decompress(&input[at..], &mut output, FlushDecompress::None);
            let status = step.map_err(|_| Failure::HistoryMissing)?;
            let read = usize::try_from(self.inflate.total_in() - read).unwrap_or(input.len());
            let made = usize::try_from(self.inflate.total_out() - written).unwrap_or(output.len());
            at = (at + read).min(input.len());
            len += made as u64;
            let shown = made.min(shown_len - front.len().min(shown_len));
            front.extend_from_slice(&output[..shown]);
            if len > room {
                return Err(Failure::TooLong);
            }
            if status == Status::StreamEnd {
                self.inflate.reset(false); // RFC 7692 §7.2.3.4: a last block, and another one may follow
            }
            if read == 0 && made == 0 || at == input.len() && made < output.len() {
                return Ok(len);
            }
        }
    }
}

impl From<Failure> for Inflated {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::HistoryMissing => Self::HistoryMissing,
            Failure::TooLong => Self::TooLong,
        }
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Compress, Compression, FlushCompress};

    use super::*;

    struct Sending(Compress);

    impl Sending {
        fn new() -> Self {
            Self(Compress::new(Compression::default(), false))
        }

        /// A message as a sender with context takeover compresses it.
        fn compress(&mut self, text: &[u8]) -> Vec<u8> {
            let mut out = Vec::with_capacity(text.len() + 100);
            self.0.compress_vec(text, &mut out, FlushCompress::Sync).unwrap();
            out.truncate(out.len() - TAIL.len());
            out
        }
    }

    fn frame(opcode: OpCode, fin: bool, rsv1: bool, payload: &[u8]) -> Frame {
        let (len, payload) = (payload.len() as u64, payload.to_vec());
        Frame { fin, rsv1, opcode, is_masked: false, len, payload }
    }

    fn message(payload: &[u8]) -> Frame {
        frame(OpCode::Text, true, true, payload)
    }

    fn inflated(text: &[u8]) -> Inflated {
        Inflated::As { front: text.to_vec(), len: text.len() as u64 }
    }

    const TEXT: &[u8] = b"the quick brown fox jumps over the lazy dog, and then it rests";

    #[test]
    fn messages_are_inflated_with_their_history() {
        let (mut sending, mut inflater) = (Sending::new(), Inflater::new());
        for _ in 0..3 {
            let compressed = sending.compress(TEXT);
            assert_eq!(inflater.on_frame(&message(&compressed), 100), inflated(TEXT));
        }
        let compressed = sending.compress(TEXT);
        let cut = Inflated::As { front: TEXT[..9].to_vec(), len: TEXT.len() as u64 };
        assert_eq!(inflater.on_frame(&message(&compressed), 9), cut);
        assert_eq!(inflater.on_frame(&frame(OpCode::Text, true, false, b"plain"), 9), Inflated::AsSent);
        assert_eq!(inflater.on_frame(&frame(OpCode::Ping, true, false, b"ping"), 9), Inflated::AsSent);
        assert_eq!(inflater.on_frame(&message(&sending.compress(TEXT)), 100), inflated(TEXT));
    }

    #[test]
    fn a_message_in_fragments_is_inflated_piece_by_piece() {
        let (mut sending, mut inflater) = (Sending::new(), Inflater::new());
        let compressed = sending.compress(TEXT);
        let (first, second) = compressed.split_at(20);
        let mut all = Vec::new();
        for part in [
            frame(OpCode::Text, false, true, first),
            frame(OpCode::Pong, true, false, b""),
            frame(OpCode::Continuation, true, false, second),
        ] {
            if let Inflated::As { front, .. } = inflater.on_frame(&part, 100) {
                all.extend(front);
            }
        }
        assert_eq!(all, TEXT);
        assert_eq!(inflater.on_frame(&message(&sending.compress(TEXT)), 100), inflated(TEXT));
    }

    #[test]
    fn what_refers_to_more_than_was_seen_is_missing_and_never_wrong() {
        let (mut sending, mut inflater) = (Sending::new(), Inflater::new());
        sending.compress(TEXT); // before the tap
        let refers = sending.compress(TEXT);
        assert_eq!(inflater.on_frame(&message(&refers), 100), Inflated::HistoryMissing);
        let new = sending.compress(b"0123456789 something else");
        assert_eq!(inflater.on_frame(&message(&new), 100), inflated(b"0123456789 something else"));
        let refers = sending.compress(b"0123456789 something else");
        assert_eq!(inflater.on_frame(&message(&refers), 100), inflated(b"0123456789 something else"));
        inflater.on_gap();
        let refers = sending.compress(b"0123456789 something else");
        assert_eq!(inflater.on_frame(&message(&refers), 100), Inflated::HistoryMissing);
        // Without context takeover each stands alone.
        let alone = || Sending::new().compress(TEXT);
        assert_eq!(inflater.on_frame(&message(&alone()), 100), inflated(TEXT));
        inflater.on_gap();
        assert_eq!(inflater.on_frame(&message(&alone()), 100), inflated(TEXT));
    }

    #[test]
    fn a_message_that_was_not_seen_whole_is_a_gap() {
        let mut inflater = Inflater::new();
        assert_eq!(
            inflater.on_frame(&frame(OpCode::Continuation, true, false, b"x"), 9),
            Inflated::HistoryMissing
        );
        let mut sending = Sending::new();
        let compressed = sending.compress(TEXT);
        let mut cut = message(&compressed);
        cut.payload.truncate(compressed.len() - 5);
        let Inflated::As { front, .. } = inflater.on_frame(&cut, 100) else { panic!("its front is known") };
        assert!(front.len() > 10 && TEXT.starts_with(&front));
        assert_eq!(inflater.on_frame(&message(&sending.compress(TEXT)), 100), Inflated::HistoryMissing);
    }

    #[test]
    fn a_few_bytes_that_stand_for_very_many_are_not_followed() {
        let (mut sending, mut inflater) = (Sending::new(), Inflater::new());
        let bomb = sending.compress(&vec![0; 64 * 1024 * 1024]);
        assert!(bomb.len() < 100_000);
        assert_eq!(inflater.on_frame(&message(&bomb), 100), Inflated::TooLong);
        assert_eq!(inflater.on_frame(&message(b"\xff\xff\xff garbage"), 100), Inflated::HistoryMissing);
    }
}
