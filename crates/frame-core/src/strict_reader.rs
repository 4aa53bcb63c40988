//! Checks what fastwebsockets does not check, before it reads.
//!
//! In: a client's bytes. Out: the same frames, for fastwebsockets to decode. Refused: all that
//! [`head`](crate::head) and [`sequence`](crate::sequence) refuse; the frames before it come out
//! first, then one error that carries the [`Violation`].
//!
//! A long frame comes out as several fragments of at most [`PART_LEN`] bytes, because
//! fastwebsockets reserves memory for a whole payload as soon as it has seen its head: so memory
//! grows with what a client sends, not with what it announces. No read returns bytes of two frames.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use net_io::Buffer;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf, Take};

use crate::head::{FrameHead, HEAD_MAX, OpCode, Scan, Sender, scan_head};
use crate::sequence::{Limits, Sequence};
use crate::violation::Violation;

/// The longest payload shown as one frame. A multiple of four, so that a mask fits every part.
pub(crate) const PART_LEN: u64 = 64 * 1024;

/// At least so many payload bytes are read straight into the caller's buffer.
const DIRECT_MIN: usize = 4096;

/// Says whose fault a failed read is.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct RefusedFrame(#[from] pub(crate) Violation);

/// A checking `AsyncRead` for a client's frames.
#[derive(Debug)]
pub(crate) struct StrictReader<R> {
    inner: Take<R>,
    sequence: Sequence,
    /// Bytes read ahead: `inbox[start..end]`.
    inbox: Option<Buffer>,
    start: usize,
    end: usize,
    /// A head that is on its way out.
    head: Vec<u8>,
    head_sent: usize,
    frame: Frame,
    /// After a Close or a violation, bytes are only counted (RFC 6455 §7.1.7).
    discarding: bool,
    progress: Arc<ReadProgress>,
}

/// How far a [`StrictReader`] has come, for code that can not ask it because it is being read.
#[derive(Debug, Default)]
pub(crate) struct ReadProgress {
    wire_bytes: AtomicU64,
    in_message: AtomicBool,
}

impl ReadProgress {
    /// Bytes received so far: signs of life.
    #[must_use]
    pub(crate) fn wire_bytes(&self) -> u64 {
        self.wire_bytes.load(Ordering::Relaxed)
    }

    /// A message has begun and not ended.
    #[must_use]
    pub(crate) fn in_message(&self) -> bool {
        self.in_message.load(Ordering::Relaxed)
    }
}

/// The data frame in progress.
#[derive(Debug)]
struct Frame {
    /// The last bit and the mask of the original, for the head of its last part.
    fin: bool,
    mask: Option<[u8; 4]>,
    /// Payload bytes to come in all, and in this part.
    left: u64,
    part_left: u64,
    is_close: bool,
}

impl<R: AsyncRead + Unpin> StrictReader<R> {
    /// Checks what a client sends over `inner`.
    pub(crate) fn new(inner: R, limits: Limits) -> Self {
        Self {
            inner: inner.take(0),
            sequence: Sequence::new(limits),
            inbox: None,
            start: 0,
            end: 0,
            head: Vec::with_capacity(HEAD_MAX),
            head_sent: 0,
            frame: Frame { fin: true, mask: None, left: 0, part_left: 0, is_close: false },
            discarding: false,
            progress: Arc::default(),
        }
    }

    /// A view of how far it has come.
    #[must_use]
    pub(crate) fn progress(&self) -> Arc<ReadProgress> {
        Arc::clone(&self.progress)
    }

    /// Moves what is at hand of one frame into `buf`: the next one begins with another read, so that who decodes
    /// them has nothing left over between two.
    fn drain(&mut self, buf: &mut ReadBuf<'_>) -> Result<(), Violation> {
        let before = buf.filled().len();
        while buf.remaining() > 0 {
            let unsent = &self.head[self.head_sent..];
            if !unsent.is_empty() {
                let n = unsent.len().min(buf.remaining());
                buf.put_slice(&unsent[..n]);
                self.head_sent += n;
                continue;
            }
            let Some(inbox) = &self.inbox else { return Ok(()) };
            let ahead = &inbox[self.start..self.end];
            if self.frame.part_left > 0 {
                let n = len(self.frame.part_left).min(ahead.len()).min(buf.remaining());
                if n == 0 {
                    return Ok(());
                }
                buf.put_slice(&ahead[..n]);
                self.start += n;
                self.passed(n);
            } else if buf.filled().len() > before {
                return Ok(());
            } else if self.frame.left > 0 {
                self.next_part(OpCode::Continuation, false);
            } else if self.discarding {
                return Ok(());
            } else {
                let Scan::Head(head) = scan_head(ahead, Sender::Client)? else { return Ok(()) };
                self.sequence.on_head(&head)?;
                self.start += head.head_len;
                self.begin(&head);
            }
        }
        Ok(())
    }

    fn begin(&mut self, head: &FrameHead) {
        self.frame = Frame {
            fin: head.fin,
            mask: head.mask,
            left: head.payload_len,
            part_left: 0,
            is_close: head.opcode == OpCode::Close,
        };
        self.next_part(head.opcode, head.rsv1);
        self.passed(0);
    }

    /// Writes the head of the next part of the frame.
    fn next_part(&mut self, opcode: OpCode, rsv1: bool) {
        let frame = &mut self.frame;
        frame.part_left = frame.left.min(PART_LEN);
        let last = frame.part_left == frame.left;
        let opcode = match opcode {
            OpCode::Continuation => 0x0,
            OpCode::Text => 0x1,
            OpCode::Binary => 0x2,
            OpCode::Close => 0x8,
            OpCode::Ping => 0x9,
            OpCode::Pong => 0xA,
        };
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        self.head.clear();
        self.head_sent = 0;
        self.head.push(bit(frame.fin && last, 0x80) | bit(rsv1, 0x40) | opcode);
        let masked = bit(frame.mask.is_some(), 0x80);
        // PART_LEN itself doesn't fit in sixteen bits.
        match (u8::try_from(frame.part_left), u16::try_from(frame.part_left)) {
            (Ok(len @ 0..=125), _) => self.head.push(masked | len),
            (_, Ok(len)) => {
                self.head.push(masked | 126);
                self.head.extend_from_slice(&len.to_be_bytes());
            }
            _ => {
                self.head.push(masked | 127);
                self.head.extend_from_slice(&frame.part_left.to_be_bytes());
            }
        }
        self.head.extend(frame.mask.iter().flatten());
    }

    fn passed(&mut self, n: usize) {
        self.frame.left -= n as u64;
        self.frame.part_left -= n as u64;
        let in_message = self.frame.left > 0 || self.sequence.in_message();
        self.progress.in_message.store(in_message, Ordering::Relaxed);
        if self.frame.left == 0 && self.frame.is_close {
            self.discarding = true;
        }
    }

    /// Nothing is held that has to come out yet.
    fn is_empty(&self) -> bool {
        self.head_sent == self.head.len() && (self.discarding || self.start == self.end)
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for StrictReader<R> {
    /// # Cancel safety
    /// Safe: all progress is in `self`.
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        loop {
            let verdict = this.drain(buf);
            if buf.filled().len() > before {
                return Poll::Ready(Ok(())); // a violation shows again when these are taken
            }
            if let Err(violation) = verdict {
                this.discarding = true;
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, RefusedFrame(violation))));
            }
            let direct = len(this.frame.part_left).min(buf.remaining());
            if direct >= DIRECT_MIN && this.is_empty() {
                this.inbox = None;
                this.inner.set_limit(direct as u64);
                ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
                let n = buf.filled().len() - before;
                this.progress.wire_bytes.fetch_add(n as u64, Ordering::Relaxed);
                this.passed(n);
                return Poll::Ready(Ok(()));
            }
            let inbox = this.inbox.get_or_insert_with(Buffer::take);
            if this.discarding {
                (this.start, this.end) = (0, 0);
            }
            inbox.copy_within(this.start..this.end, 0);
            (this.start, this.end) = (0, this.end - this.start);
            let mut free = ReadBuf::new(&mut inbox[this.end..]);
            this.inner.set_limit(u64::MAX);
            let read = Pin::new(&mut this.inner).poll_read(cx, &mut free);
            let n = free.filled().len();
            if read.is_pending() && this.end == 0 {
                this.inbox = None; // an idle connection holds no buffer
            }
            ready!(read)?;
            if n == 0 {
                return Poll::Ready(Ok(())); // the end; fastwebsockets knows whether it is in order
            }
            this.progress.wire_bytes.fetch_add(n as u64, Ordering::Relaxed);
            this.end += n;
        }
    }
}

/// A length for comparison with lengths in memory.
fn len(wire: u64) -> usize {
    usize::try_from(wire).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::timeout;

    use super::*;
    use crate::head::unmask;
    use crate::test_io::{Drip, masked};

    const LIMITS: Limits = Limits { message_max: 1 << 20, deflate: false };

    /// Everything that comes out of a guard over `wire`, and why it stopped.
    async fn pass(wire: &[u8], drip: Option<u64>) -> (Vec<u8>, Option<Violation>) {
        let mut out = Vec::new();
        let result = match drip {
            None => StrictReader::new(wire, LIMITS).read_to_end(&mut out).await,
            Some(seed) => StrictReader::new(Drip::new(wire, seed), LIMITS).read_to_end(&mut out).await,
        };
        let violation = result.err().map(|e| {
            let refused = e.into_inner().unwrap().downcast::<RefusedFrame>().unwrap();
            refused.0
        });
        (out, violation)
    }

    /// (first byte, unmasked payload) of every frame.
    fn decode(mut wire: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut frames = Vec::new();
        while !wire.is_empty() {
            let Scan::Head(head) = scan_head(wire, Sender::Client).unwrap() else { panic!("cut off") };
            let (frame, rest) = wire.split_at(head.head_len + len(head.payload_len));
            let mut payload = frame[head.head_len..].to_vec();
            unmask(&mut payload, head.mask.unwrap(), 0);
            frames.push((frame[0], payload));
            wire = rest;
        }
        frames
    }

    #[tokio::test]
    async fn good_frames_come_out_as_they_went_in() {
        let wire =
            [masked(0x01, b"to"), masked(0x89, b""), masked(0x80, b"m"), masked(0x82, &[1; 9000])].concat();
        assert_eq!(pass(&wire, None).await, (wire.clone(), None));
        assert_eq!(pass(&wire, Some(7)).await, (wire, None));
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
            let before = if violation == Violation::Interleaved { masked(0x01, b"a") } else { vec![] };
            let (out, seen) = pass(&[&good[..], &bad, &good].concat(), None).await;
            assert_eq!(seen, Some(violation));
            assert_eq!(out, [&good[..], &before].concat());
        }
    }

    #[tokio::test]
    async fn an_announced_length_is_refused_before_its_payload_arrives() {
        let head = [&[0x82, 0xFF][..], &((1u64 << 20) + 1).to_be_bytes(), &[0; 4]].concat();
        let (out, violation) = pass(&head, None).await;
        assert_eq!(out, b"");
        assert_eq!(violation, Some(Violation::MessageTooBig { len: (1 << 20) + 1, max: 1 << 20 }));
    }

    #[tokio::test]
    async fn a_long_frame_comes_out_in_parts() {
        for long in [65_535, 65_536, 65_537, 3 * 65_536 + 5] {
            let payload: Vec<u8> = (0..long).map(|i: u32| i.to_le_bytes()[0]).collect();
            let wire = [masked(0x82, &payload), masked(0x81, b"next")].concat();
            for drip in [None, Some(3)] {
                let frames = decode(&pass(&wire, drip).await.0);
                let (next, parts) = frames.split_last().unwrap();
                assert_eq!(next, &(0x81, b"next".to_vec()));
                assert!(parts.iter().all(|(_, part)| part.len() <= len(PART_LEN)));
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
        let wire = [masked(0x88, b"\x03\xE8"), masked(0x81, b"late"), vec![0xFF; 100]].concat();
        assert_eq!(pass(&wire, None).await, (masked(0x88, b"\x03\xE8"), None));
        assert_eq!(pass(&wire, Some(1)).await, (masked(0x88, b"\x03\xE8"), None));
        let wire = [masked(0x88, b""), vec![0xFF; 100]].concat();
        assert_eq!(pass(&wire, None).await, (masked(0x88, b""), None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_buffer_is_held_only_while_bytes_wait_in_it() {
        let (mut client, near) = duplex(1024);
        let mut guard = StrictReader::new(near, LIMITS);
        let mut out = [0; 64];
        let wire = masked(0x81, b"ab");
        for (piece, holds) in [(&wire[..0], false), (&wire[..3], true)] {
            client.write_all(piece).await.unwrap();
            assert!(timeout(Duration::from_secs(1), guard.read(&mut out)).await.is_err());
            assert_eq!(guard.inbox.is_some(), holds, "{piece:?}");
        }
        client.write_all(&wire[3..]).await.unwrap();
        guard.read_exact(&mut out[..wire.len()]).await.unwrap();
        assert_eq!(out[..wire.len()], wire);
        assert!(timeout(Duration::from_secs(1), guard.read(&mut out)).await.is_err());
        assert!(guard.inbox.is_none() && !guard.progress().in_message());
    }

    #[tokio::test]
    async fn a_small_buffer_is_enough() {
        let wire = [masked(0x82, &[5; 70_000]), masked(0x81, b"x")].concat();
        let mut guard = StrictReader::new(&wire[..], LIMITS);
        let mut out: Vec<u8> = Vec::new();
        let mut three = [0; 3];
        while let Ok(n @ 1..) = guard.read(&mut three).await {
            out.extend(&three[..n]);
        }
        assert_eq!(out, pass(&wire, None).await.0);
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
