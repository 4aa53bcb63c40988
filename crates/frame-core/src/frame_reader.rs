//! Reads a client's frames, strictly.
//!
//! In: a client's bytes. Out: the [`Frame`]s that they are, unmasked. Refused: all that [`head`](crate::head) and
//! [`sequence`](crate::sequence) refuse; the frames before it come out first, then one [`ReadError`] with the
//! [`Violation`]. What is in a text, or in a Close, is not looked at.
//!
//! A long frame comes out as several frames of at most [`PART_LEN`] bytes: so memory grows with what a client
//! sends, not with what it announces. All progress is in the reader, and between two frames it holds no memory.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, BytesMut};
use net_io::count::Sizes;
use net_io::state::{StateError, StateReader, StateWriter};
use net_io::{BUFFER_LEN, Buffer};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::poll_read_buf;

use crate::head::{CONTROL_PAYLOAD_MAX, FrameHead, HEAD_MAX, OpCode, Scan, Sender, scan_head, unmask};
use crate::sequence::{Limits, Sequence};
use crate::tap::WayStart;
use crate::violation::{Violation, violation_of};

/// The longest payload that comes out at once. A multiple of four, so that the mask fits every part.
pub(crate) const PART_LEN: usize = 64 * 1024;

/// At least so many payload bytes are read straight to where they stay.
const DIRECT_MIN: usize = 4096;

/// A frame, or a part of a long one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The message ends with it.
    pub(crate) fin: bool,
    /// [`OpCode::Continuation`] for all parts of a frame but the first.
    pub(crate) opcode: OpCode,
    /// Unmasked.
    pub(crate) payload: BytesMut,
}

/// Why there is no further frame.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The client broke a rule.
    Violation(Violation),
    /// The stream has ended.
    Eof,
    /// The stream has failed.
    Io(io::Error),
}

/// The reader of one client.
#[derive(Debug)]
pub(crate) struct FrameReader {
    sequence: Sequence,
    /// Bytes read ahead: `inbox[start..end]`.
    inbox: Option<Buffer>,
    start: usize,
    end: usize,
    /// The front of a head, while its rest is waited for without a buffer: less than all of it.
    front: [u8; HEAD_MAX - 1],
    front_len: u8,
    frame: Option<PartialFrame>,
    /// What has come of the part in progress, still masked.
    payload: BytesMut,
    /// Of the message in progress, or of the last one.
    content: Content,
    /// After a Close or a violation, bytes are only counted (RFC 6455 §7.1.7).
    is_discarding: bool,
    wire_bytes: u64,
}

/// What the payloads of a message's frames are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// UTF-8.
    Text,
    /// Any bytes.
    Binary,
    /// What has to be inflated: RSV1 was set (RFC 7692 §6).
    Compressed,
}

/// The frame in progress.
#[derive(Debug)]
struct PartialFrame {
    fin: bool,
    /// Of the next part.
    opcode: OpCode,
    mask: [u8; 4],
    /// Payload bytes that have not come out.
    left: u64,
}

impl PartialFrame {
    fn new(head: &FrameHead) -> Self {
        let mask = head.mask.unwrap_or_default(); // a client's frame has one
        Self { fin: head.fin, opcode: head.opcode, mask, left: head.payload_len }
    }

    /// The length of the part in progress.
    fn part_len(&self) -> usize {
        usize::try_from(self.left).map_or(PART_LEN, |left| left.min(PART_LEN))
    }
}

impl FrameReader {
    /// Checks by `limits` what a client sends.
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            sequence: Sequence::new(Sender::Client, limits),
            inbox: None,
            start: 0,
            end: 0,
            front: [0; HEAD_MAX - 1],
            front_len: 0,
            frame: None,
            payload: BytesMut::new(),
            content: Content::Binary,
            is_discarding: false,
            wire_bytes: 0,
        }
    }

    /// From now on messages are counted there by size.
    pub(crate) fn count_sizes(&mut self, sizes: Option<Arc<Sizes>>) {
        self.sequence.count_sizes(sizes);
    }

    /// Writes what [`Self::read_state`] reads.
    pub(crate) fn write_state(&self, out: &mut StateWriter) {
        let Self {
            sequence,
            inbox,
            start,
            end,
            front,
            front_len,
            frame,
            payload,
            content, // an endpoint that inflates doesn't freeze
            is_discarding,
            wire_bytes,
        } = self;
        out.section(|out| {
            sequence.write_state(out);
            out.bytes(inbox.as_ref().map_or(&front[..usize::from(*front_len)], |inbox| &inbox[*start..*end]));
            out.option(frame.as_ref(), |out, frame| {
                let PartialFrame { fin, opcode, mask, left } = frame;
                out.bool(*fin);
                out.u8(opcode.nibble());
                out.array(mask);
                out.u64(*left);
                out.bytes(payload);
            });
            out.bool(*is_discarding);
            out.u64(*wire_bytes);
            if *content == Content::Text {
                out.bool(true);
            }
        });
    }

    /// Goes on where another reader left off.
    pub(crate) fn read_state(fields: &mut StateReader<'_>) -> Result<Self, StateError> {
        let mut fields = fields.section()?;
        let sequence = Sequence::read_state(Sender::Client, &mut fields)?;
        let ahead = fields.bytes()?;
        if ahead.len() > BUFFER_LEN {
            return Err(StateError::Invalid("the bytes of a buffer"));
        }
        let mut payload = BytesMut::new();
        let frame = fields.option(|fields| {
            let fin = fields.bool()?;
            let opcode = OpCode::parse(fields.u8()?).map_err(|_| StateError::Invalid("an opcode"))?;
            let frame = PartialFrame { fin, opcode, mask: fields.array()?, left: fields.u64()? };
            let here = fields.bytes()?;
            if here.len() >= frame.part_len()
                || (opcode.is_control() && frame.left > CONTROL_PAYLOAD_MAX as u64)
            {
                return Err(StateError::Invalid("the bytes of a frame"));
            }
            payload.extend_from_slice(here);
            Ok(frame)
        })?;
        let mut reader =
            Self { sequence, frame, payload, ..Self::new(Limits { message_max: 0, deflate: false }) };
        if !ahead.is_empty() {
            // There may be whole frames, which are looked for before more is read.
            let mut inbox = Buffer::take();
            inbox[..ahead.len()].copy_from_slice(ahead);
            (reader.inbox, reader.end) = (Some(inbox), ahead.len());
        }
        reader.is_discarding = fields.bool()?;
        reader.wire_bytes = fields.count()?;
        if !fields.is_at_end() && fields.bool()? {
            reader.content = Content::Text;
        }
        Ok(reader)
    }

    /// Where the client's stream stands, as far as it has been read.
    pub(crate) fn read_so_far(&self) -> WayStart {
        let ahead = self.inbox.as_ref();
        let ahead =
            ahead.map_or(&self.front[..usize::from(self.front_len)], |inbox| &inbox[self.start..self.end]);
        let skip = self.frame.as_ref().map_or(0, |frame| frame.left - self.payload.len() as u64);
        WayStart { skip, ahead: ahead.to_vec(), is_over: self.is_discarding }
    }

    /// Bytes received so far: signs of life.
    #[must_use]
    pub(crate) fn wire_bytes(&self) -> u64 {
        self.wire_bytes
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

    /// The data frame that has just come is one of a compressed message.
    #[must_use]
    pub(crate) fn is_compressed(&self) -> bool {
        self.content == Content::Compressed
    }

    /// Memory for the frame in progress, in bytes.
    #[must_use]
    pub(crate) fn held(&self) -> usize {
        self.payload.capacity()
    }

    /// A message, or a frame, has begun and not ended.
    #[must_use]
    pub(crate) fn in_message(&self) -> bool {
        self.frame.is_some() || self.sequence.in_message()
    }

    /// The next frame, or the next part of a long one.
    pub(crate) fn poll_frame<R: AsyncRead + Unpin>(
        &mut self,
        io: &mut R,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Frame, ReadError>> {
        loop {
            match self.next_frame() {
                Ok(Some(frame_)) => return Poll::Ready(Ok(frame_)),
                Ok(None) => {}
                Err(violation) => {
                    self.is_discarding = true;
                    return Poll::Ready(Err(ReadError::Violation(violation)));
                }
            }
            match ready!(self.poll_fill(io, cx)) {
                Ok(0) => return Poll::Ready(Err(ReadError::Eof)),
                Ok(n) => self.wire_bytes += n as u64,
                Err(e) => {
                    let Some(violation) = violation_of(&e) else { return Poll::Ready(Err(ReadError::Io(e))) };
                    self.is_discarding = true;
                    return Poll::Ready(Err(ReadError::Violation(violation)));
                }
            }
        }
    }

    /// What has come of a text's part in progress, for a look at its UTF-8 while the rest is waited for.
    pub(crate) fn take_text(&mut self) -> Option<Frame> {
        let frame = self
            .frame
            .as_mut()
            .filter(|frame| self.content == Content::Text && !frame.opcode.is_control())?;
        if self.payload.is_empty() {
            return None;
        }
        let mut payload = std::mem::take(&mut self.payload);
        unmask(&mut payload, frame.mask, 0);
        frame.mask.rotate_left(payload.len() % 4);
        frame.left -= payload.len() as u64;
        let opcode = std::mem::replace(&mut frame.opcode, OpCode::Continuation);
        Some(Frame { fin: false, opcode, payload })
    }

    /// Takes it from what has come, if all of it has.
    fn next_frame(&mut self) -> Result<Option<Frame>, Violation> {
        if self.is_discarding {
            (self.start, self.end) = (0, 0);
            return Ok(None);
        }
        let ahead = match &self.inbox {
            Some(inbox) => &inbox[self.start..self.end],
            None => &[],
        };
        let (frame, ahead) = match &mut self.frame {
            Some(frame) => (frame, ahead),
            None => {
                let Scan::Head(head) = scan_head(ahead, Sender::Client)? else { return Ok(None) };
                self.sequence.on_head(&head)?;
                self.start += head.head_len;
                match head.opcode {
                    OpCode::Text | OpCode::Binary if head.rsv1 => self.content = Content::Compressed,
                    OpCode::Text => self.content = Content::Text,
                    OpCode::Binary => self.content = Content::Binary,
                    _ => {}
                }
                (self.frame.insert(PartialFrame::new(&head)), &ahead[head.head_len..])
            }
        };
        let part_len = frame.part_len();
        let n = (part_len - self.payload.len()).min(ahead.len());
        self.payload.extend_from_slice(&ahead[..n]);
        self.start += n;
        if self.payload.len() < part_len {
            return Ok(None);
        }
        let mut payload = std::mem::take(&mut self.payload);
        unmask(&mut payload, frame.mask, 0);
        frame.left -= part_len as u64;
        let is_last = frame.left == 0;
        let frame_ = Frame { fin: frame.fin && is_last, opcode: frame.opcode, payload };
        frame.opcode = OpCode::Continuation;
        if is_last {
            self.is_discarding = frame_.opcode == OpCode::Close;
            self.frame = None;
        }
        Ok(Some(frame_))
    }

    /// Reads more. While there is nothing to be read, no buffer is held.
    fn poll_fill<R: AsyncRead + Unpin>(
        &mut self,
        io: &mut R,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let missing = self.frame.as_ref().map_or(0, PartialFrame::part_len) - self.payload.len();
        if missing >= DIRECT_MIN {
            self.inbox = None; // all of it has been taken
            (self.start, self.end) = (0, 0);
            self.payload.reserve(missing);
            return poll_read_buf(Pin::new(io), cx, &mut (&mut self.payload).limit(missing));
        }
        let inbox = self.inbox.get_or_insert_with(|| {
            let mut inbox = Buffer::take();
            let len = usize::from(std::mem::take(&mut self.front_len));
            inbox[..len].copy_from_slice(&self.front[..len]);
            (self.start, self.end) = (0, len);
            inbox
        });
        inbox.copy_within(self.start..self.end, 0); // less than a head
        (self.start, self.end) = (0, self.end - self.start);
        let mut free = ReadBuf::new(&mut inbox[self.end..]);
        let read = Pin::new(io).poll_read(cx, &mut free);
        let n = free.filled().len();
        if read.is_pending() {
            self.front_len = u8::try_from(self.end).unwrap_or_default(); // less than a head
            self.front[..self.end].copy_from_slice(&inbox[..self.end]);
            (self.start, self.end) = (0, 0);
            self.inbox = None;
        }
        ready!(read)?;
        self.end += n;
        Poll::Ready(Ok(n))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use proptest::prelude::*;
    use tokio::io::{AsyncWriteExt, duplex};
    use tokio::time::timeout;

    use super::*;
    use crate::test_io::{Drip, masked};

    const LIMITS: Limits = Limits { message_max: 1 << 20, deflate: false };

    /// (first byte, payload) of a frame.
    type Seen = (u8, Vec<u8>);

    fn seen(frame: Frame) -> Seen {
        let opcode = match frame.opcode {
            OpCode::Continuation => 0x0,
            OpCode::Text => 0x1,
            OpCode::Binary => 0x2,
            OpCode::Close => 0x8,
            OpCode::Ping => 0x9,
            OpCode::Pong => 0xA,
        };
        (u8::from(frame.fin) << 7 | opcode, frame.payload.into())
    }

    async fn read(mut io: impl AsyncRead + Unpin) -> (Vec<Seen>, Option<Violation>) {
        let mut reader = FrameReader::new(LIMITS);
        let mut frames = Vec::new();
        loop {
            match poll_fn(|cx| reader.poll_frame(&mut io, cx)).await {
                Ok(frame) => frames.push(seen(frame)),
                Err(ReadError::Violation(violation)) => return (frames, Some(violation)),
                Err(ReadError::Eof) => return (frames, None),
                Err(ReadError::Io(e)) => panic!("{e}"),
            }
        }
    }

    /// All that comes out of `wire`, and why it stopped.
    async fn pass(wire: &[u8], drip: Option<u64>) -> (Vec<Seen>, Option<Violation>) {
        match drip {
            None => read(wire).await,
            Some(seed) => read(Drip::new(wire, seed)).await,
        }
    }

    #[tokio::test]
    async fn good_frames_come_out_as_they_went_in() {
        let frames = [(0x01, &b"to"[..]), (0x89, b""), (0x80, b"m"), (0x82, &[1; 9000])];
        let wire: Vec<u8> = frames.iter().flat_map(|(b0, payload)| masked(*b0, payload)).collect();
        let frames = frames.map(|(b0, payload)| (b0, payload.to_vec())).to_vec();
        assert_eq!(pass(&wire, None).await, (frames.clone(), None));
        assert_eq!(pass(&wire, Some(7)).await, (frames, None));
    }

    #[tokio::test]
    async fn violations_come_after_the_frames_before_them() {
        let good = masked(0x81, b"good");
        for (bad, violation) in [
            (vec![0x81, 0x01, b'x'], Violation::Unmasked),
            (vec![0x8A, 0xFE, 0, 126], Violation::ControlTooLong),
            (vec![0x88, 0xFF], Violation::ControlTooLong),
            (vec![0x81, 0xFE, 0, 3, 0, 0, 0, 0, 1, 2, 3], Violation::LengthNotMinimal { len: 3 }),
            (masked(0x80, b"c"), Violation::UnexpectedContinuation),
            ([masked(0x01, b"a"), masked(0x01, b"b")].concat(), Violation::Interleaved),
            (masked(0xC1, b"rsv"), Violation::ReservedBits { bits: 4 }),
        ] {
            let mut before = vec![(0x81, b"good".to_vec())];
            if violation == Violation::Interleaved {
                before.push((0x01, b"a".to_vec()));
            }
            let (frames, seen) = pass(&[&good[..], &bad, &good].concat(), None).await;
            assert_eq!(seen, Some(violation));
            assert_eq!(frames, before);
        }
    }

    #[tokio::test]
    async fn an_announced_length_is_refused_before_its_payload_arrives() {
        let head = [&[0x82, 0xFF][..], &((1u64 << 20) + 1).to_be_bytes(), &[0; 4]].concat();
        let violation = Violation::MessageTooBig { len: (1 << 20) + 1, max: 1 << 20 };
        assert_eq!(pass(&head, None).await, (vec![], Some(violation)));
    }

    #[tokio::test]
    async fn a_long_frame_comes_out_in_parts() {
        for long in [65_535, 65_536, 65_537, 3 * 65_536 + 5] {
            let payload: Vec<u8> = (0..long).map(|i: u32| i.to_le_bytes()[0]).collect();
            let wire = [masked(0x82, &payload), masked(0x81, b"next")].concat();
            for drip in [None, Some(3)] {
                let frames = pass(&wire, drip).await.0;
                let (next, parts) = frames.split_last().unwrap();
                assert_eq!(next, &(0x81, b"next".to_vec()));
                assert!(parts.iter().all(|(_, part)| part.len() <= PART_LEN));
                assert_eq!(parts[0].0 & 0x0F, 2);
                let fins: Vec<bool> = parts.iter().map(|(b0, _)| b0 & 0x80 != 0).collect();
                assert_eq!(fins.iter().filter(|fin| **fin).count(), 1);
                assert!(fins.last().unwrap());
                assert!(parts[1..].iter().all(|(b0, _)| b0 & 0x0F == 0));
                assert!(parts.iter().flat_map(|(_, part)| part.iter()).eq(&payload));
            }
        }
    }

    #[tokio::test]
    async fn nothing_comes_after_a_close() {
        let close = |payload: &[u8]| (vec![(0x88, payload.to_vec())], None);
        let wire = [masked(0x88, b"\x03\xE8"), masked(0x81, b"late"), vec![0xFF; 100]].concat();
        assert_eq!(pass(&wire, None).await, close(b"\x03\xE8"));
        assert_eq!(pass(&wire, Some(1)).await, close(b"\x03\xE8"));
        let wire = [masked(0x88, b""), vec![0xFF; 100]].concat();
        assert_eq!(pass(&wire, None).await, close(b""));
    }

    #[tokio::test(start_paused = true)]
    async fn no_buffer_is_held_while_a_client_is_silent() {
        let (mut client, mut near) = duplex(1 << 20);
        let mut reader = FrameReader::new(LIMITS);
        let long = masked(0x82, &[7; 200_000]);
        let wire = [masked(0x81, b"ab"), long.clone()].concat();
        let (mut sent, mut frames) = (0, Vec::new());
        // In a head, in a payload, between frames, in a long head, behind it, in the first part, in the last one.
        for (until, held) in
            [(0, 0), (3, 0), (7, 8), (8, 0), (12, 0), (22, PART_LEN), (100_000, PART_LEN), (wire.len(), 0)]
        {
            client.write_all(&wire[sent..until]).await.unwrap();
            sent = until;
            while let Ok(frame) =
                timeout(Duration::from_secs(1), poll_fn(|cx| reader.poll_frame(&mut near, cx))).await
            {
                frames.push(seen(frame.unwrap()));
            }
            assert!(reader.inbox.is_none(), "behind {until} bytes");
            assert_eq!(reader.held(), held, "behind {until} bytes");
        }
        assert_eq!(frames[0], (0x81, b"ab".to_vec()));
        assert!(frames[1..].iter().flat_map(|(_, part)| part).eq(&[7; 200_000]));
        assert!(!reader.in_message());
        assert_eq!(reader.wire_bytes(), wire.len() as u64);
    }

    proptest! {
        #[test]
        fn dripping_changes_nothing(
            frames in proptest::collection::vec(
                (prop::sample::select(vec![0x81u8, 0x82, 0x01, 0x80, 0x00, 0x89, 0x8A, 0x88, 0xF1]),
                 proptest::collection::vec(any::<u8>(), 0..200)),
                0..8,
            ),
            seed: u64,
        ) {
            let wire: Vec<u8> = frames.iter().flat_map(|(b0, payload)| masked(*b0, payload)).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (whole, dripped) = runtime.block_on(async { (pass(&wire, None).await, pass(&wire, Some(seed)).await) });
            prop_assert_eq!(whole, dripped);
        }
    }
}
