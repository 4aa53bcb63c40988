//! What a client sends, inflated.
//!
//! Frames of messages that are not compressed are passed on unchanged. A compressed message is passed on in new frames, which
//! are masked with the key that the client has used.
//!
//! A call does no more than fill the caller's buffer. How much is done before others have their turn is bounded by what it
//! costs ([`WORK_MAX`]), since a frame may cost much and become nothing. At least one frame goes on for each that comes, so
//! that what counts frames counts these, too.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use net_io::memory::is_full;
use net_io::state::{StateError, StateReader, StateWriter};
use net_io::{BUFFER_LEN, Buffer};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Duration, Sleep, sleep};

use super::counts::Passed;
use crate::deflate::Inflater;
use crate::fair_queue::yield_to_driver;
use crate::head::{FrameHead, OpCode, Scan, Sender, frame_head, scan_head, unmask};
use crate::sequence::{Limits, Sequence};
use crate::violation::Violation;

/// The longest payload that goes on at once.
pub(super) const PART_LEN: usize = 16 * 1024;
/// Bytes that are read at once: what the caller has no room for is kept.
pub(super) const FILL_LEN: usize = 16 * 1024;
/// What is done before others of this thread have their turn, in bytes that come and go.
pub(super) const WORK_MAX: usize = 256 * 1024;
/// A step costs as much as so many bytes: zlib may have to be reset, with a history.
const STEP_COST: usize = 4096;
/// Without memory, the time to the next look.
const MEMORY_WAIT: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Reading {
    inflater: Inflater,
    sequence: Sequence,
    /// Bytes read ahead: `inbox[start..end]`.
    inbox: Option<Buffer>,
    start: usize,
    end: usize,
    /// The same between two calls: the front of a head, or what the caller had no room for.
    ahead: Box<[u8]>,
    /// Since others had their turn.
    work: usize,
    /// Bytes that pass as they are, before the next head.
    passing: u64,
    frame: Option<CompressedFrame>,
    /// What the next part of the compressed message in progress begins; `None`: it continues.
    first: Option<OpCode>,
    is_compressed: bool,
    /// Frames that were made and have not gone on.
    out: BytesMut,
    ended: Ended,
    /// There was no memory to inflate more.
    wait: Option<Pin<Box<Sleep>>>,
    /// All that has come.
    pub(super) wire_bytes: u64,
    pub(super) passed: Passed,
}

/// A frame of a compressed message, in progress.
#[derive(Debug)]
struct CompressedFrame {
    fin: bool,
    mask: [u8; 4],
    /// Of its payload, bytes that were inflated, for the mask; and those that are to come.
    taken: u64,
    left: u64,
    /// Of what is in the inbox, bytes that are unmasked.
    unmasked: usize,
    /// What has come becomes more than a part: it goes on without further bytes.
    is_cut: bool,
}

/// Whether frames are still looked for.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    No,
    /// A rule was broken; to be said when all before it has gone on.
    Broken(Violation),
    /// Nothing that follows is looked at.
    Passing,
}

impl Reading {
    pub(super) fn new(inflater: Inflater) -> Self {
        // How long a message may be is for the session to judge, which sees it inflated.
        let sequence = Sequence::new(Sender::Client, Limits { message_max: u64::MAX, deflate: true });
        Self {
            inflater,
            sequence,
            inbox: None,
            start: 0,
            end: 0,
            ahead: Box::default(),
            work: 0,
            passing: 0,
            frame: None,
            first: None,
            is_compressed: false,
            out: BytesMut::new(),
            ended: Ended::No,
            wait: None,
            wire_bytes: 0,
            passed: Passed::default(),
        }
    }

    /// No compressed message is in progress: of one, zlib knows more than can be written down. And nothing is to be said of a
    /// broken one.
    pub(super) fn is_still(&self) -> bool {
        let is_in_compressed = self.frame.is_some() || (self.is_compressed && self.sequence.in_message());
        !is_in_compressed && !matches!(self.ended, Ended::Broken(_))
    }

    pub(super) fn memory(&self) -> usize {
        self.out.capacity() + self.ahead.len() + self.inflater.message_memory()
    }

    pub(super) fn kept_len(&self) -> usize {
        self.inflater.window().kept_len()
    }

    pub(super) fn poll_read<C: AsyncRead + Unpin>(
        &mut self,
        client: &mut C,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() || self.frame.as_ref().is_some_and(|frame| frame.is_cut) {
            self.take_inbox();
        }
        let read = self.poll_read_inbox(client, cx, buf);
        self.put_inbox();
        read
    }

    fn poll_read_inbox<C: AsyncRead + Unpin>(
        &mut self,
        client: &mut C,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let begin = buf.filled().len();
        loop {
            self.give(buf);
            if buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let is_some_given = buf.filled().len() > begin;
            if let Ended::Broken(violation) = self.ended {
                if !is_some_given {
                    self.ended = Ended::Passing;
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, violation)));
                }
                return Poll::Ready(Ok(())); // it is said behind this
            }
            // A little may become much within a moment: without memory for it, it waits until others have let go of theirs, or
            // until its session is given up.
            if self.frame.is_some() && is_full() {
                if is_some_given {
                    return Poll::Ready(Ok(()));
                }
                self.work = 0;
                let wait = self.wait.get_or_insert_with(|| Box::pin(sleep(MEMORY_WAIT)));
                ready!(wait.as_mut().poll(cx));
                self.wait = None;
                continue;
            }
            if self.work >= WORK_MAX {
                if is_some_given {
                    return Poll::Ready(Ok(()));
                }
                self.work = 0;
                yield_to_driver(cx);
                return Poll::Pending;
            }
            if self.start < self.end || self.frame.as_ref().is_some_and(|frame| frame.is_cut) {
                if self.pass(buf) {
                    continue;
                }
                match self.advance() {
                    Ok(true) => continue,
                    Ok(false) => {} // more is needed
                    Err(violation) => {
                        (self.ended, self.frame) = (Ended::Broken(violation), None);
                        continue;
                    }
                }
            }
            if is_some_given {
                return Poll::Ready(Ok(()));
            }
            match self.poll_fill(client, cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())), // the end
                Poll::Ready(Ok(len)) => {
                    self.work += len;
                    self.wire_bytes += len as u64;
                }
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending => {
                    self.work = 0;
                    return Poll::Pending;
                }
            }
        }
    }

    /// Gives of the frames that were made.
    fn give(&mut self, buf: &mut ReadBuf<'_>) {
        let len = self.out.len().min(buf.remaining());
        buf.put_slice(&self.out[..len]);
        self.out.advance(len);
        if self.out.is_empty() {
            self.out = BytesMut::new(); // with its memory
        }
    }

    /// Gives what passes as it is; says whether there is such.
    fn pass(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let Some(inbox) = &self.inbox else { return false };
        let here = (self.end - self.start).min(buf.remaining());
        let len = match self.ended {
            Ended::Passing => here,
            _ => usize::try_from(self.passing).map_or(here, |passing| passing.min(here)),
        };
        buf.put_slice(&inbox[self.start..self.start + len]);
        self.start += len;
        self.passing = self.passing.saturating_sub(len as u64);
        len > 0
    }

    /// Takes a head, or inflates what there is. `false`: there is not enough.
    fn advance(&mut self) -> Result<bool, Violation> {
        if self.frame.is_some() {
            self.inflate()?;
            return Ok(true);
        }
        let Some(inbox) = &self.inbox else { return Ok(false) };
        let Scan::Head(head) = scan_head(&inbox[self.start..self.end], Sender::Client)? else {
            return Ok(false);
        };
        self.sequence.on_head(&head)?;
        self.on_head(&head)?;
        Ok(true)
    }

    fn on_head(&mut self, head: &FrameHead) -> Result<(), Violation> {
        if matches!(head.opcode, OpCode::Text | OpCode::Binary) {
            self.is_compressed = head.rsv1;
            self.first = Some(head.opcode);
        }
        if head.opcode.is_control() || !self.is_compressed {
            self.passing = head.payload_len.saturating_add(head.head_len as u64);
            return Ok(());
        }
        self.start += head.head_len;
        let mask = head.mask.unwrap_or_default(); // a client's frame has one
        self.frame = Some(CompressedFrame {
            fin: head.fin,
            mask,
            taken: 0,
            left: head.payload_len,
            unmasked: 0,
            is_cut: false,
        });
        // An empty last frame has no bytes to come.
        if head.payload_len == 0 { self.inflate() } else { Ok(()) }
    }

    /// Inflates one part at most.
    fn inflate(&mut self) -> Result<(), Violation> {
        let (Some(frame), Some(inbox)) = (&mut self.frame, &mut self.inbox) else { return Ok(()) };
        let here = self.end - self.start;
        let here = usize::try_from(frame.left).map_or(here, |left| left.min(here));
        let payload = &mut inbox[self.start..self.start + here];
        let offset = usize::try_from((frame.taken + frame.unmasked as u64) % 4).unwrap_or_default();
        unmask(&mut payload[frame.unmasked..], frame.mask, offset);
        let is_last = frame.fin && frame.left == here as u64;
        let (mut input, mut part) = (&*payload, BytesMut::new());
        let is_done = self.inflater.inflate(&mut input, is_last, &mut part, PART_LEN)?;
        let taken = here - input.len();
        frame.unmasked = input.len();
        frame.is_cut = !is_done;
        frame.taken += taken as u64;
        frame.left -= taken as u64;
        self.start += taken;
        self.passed.wire_len += taken as u64;
        self.passed.inflated_len += part.len() as u64;
        let ends_message = is_done && is_last;
        self.work += STEP_COST + part.len();
        let ends_frame = is_done && frame.left == 0;
        if !part.is_empty() || ends_frame {
            let opcode = self.first.take().unwrap_or(OpCode::Continuation);
            let (head, head_len) = frame_head(ends_message, opcode, Some(frame.mask), &part);
            unmask(&mut part, frame.mask, 0);
            self.out.extend_from_slice(&head[..head_len]);
            self.out.unsplit(part);
        }
        if ends_frame {
            self.frame = None;
        }
        Ok(())
    }

    /// The buffer, with what was kept.
    fn take_inbox(&mut self) -> &mut Buffer {
        self.inbox.get_or_insert_with(|| {
            let mut inbox = Buffer::take();
            let ahead = std::mem::take(&mut self.ahead);
            inbox[..ahead.len()].copy_from_slice(&ahead);
            (self.start, self.end) = (0, ahead.len());
            inbox
        })
    }

    /// Gives the buffer back; what is left in it is kept. An idle session has none.
    fn put_inbox(&mut self) {
        if let Some(inbox) = self.inbox.take() {
            self.ahead = inbox[self.start..self.end].into();
            (self.start, self.end) = (0, 0);
        }
    }

    /// Reads more.
    fn poll_fill<C: AsyncRead + Unpin>(
        &mut self,
        client: &mut C,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.take_inbox();
        let Some(inbox) = &mut self.inbox else { return Poll::Ready(Ok(0)) };
        inbox.copy_within(self.start..self.end, 0); // less than a head
        (self.start, self.end) = (0, self.end - self.start);
        let mut free = ReadBuf::new(&mut inbox[self.end..FILL_LEN]);
        ready!(Pin::new(client).poll_read(cx, &mut free))?;
        let len = free.filled().len();
        self.end += len;
        Poll::Ready(Ok(len))
    }

    /// Writes what [`Self::read_state`] reads. Only what [`Self::is_still`] can be.
    pub(super) fn write_state(&self, out: &mut StateWriter) {
        let Self {
            inflater,
            sequence,
            inbox: _, // it is there within a call alone
            start: _,
            end: _,
            ahead,
            work: _,
            passing,
            frame: _, // what is still is in no compressed message
            first: _,
            is_compressed: _,
            out: made,
            ended,
            wait: _,       // of this process
            wire_bytes: _, // at the end of all
            passed: _,     // counted here
        } = self;
        out.section(|out| {
            inflater.write_state(out);
            sequence.write_state(out);
            out.bytes(ahead);
            out.u64(*passing);
            out.bytes(made);
            out.bool(*ended == Ended::Passing);
        });
    }

    /// Goes on where another one left off.
    pub(super) fn read_state(fields: &mut StateReader<'_>) -> Result<Self, StateError> {
        let mut fields = fields.section()?;
        let mut reading = Self::new(Inflater::read_state(&mut fields)?);
        reading.sequence = Sequence::read_state(Sender::Client, &mut fields)?;
        let ahead = fields.bytes()?;
        if ahead.len() > BUFFER_LEN {
            return Err(StateError::Invalid("what was read ahead"));
        }
        reading.ahead = ahead.into();
        reading.passing = fields.u64()?;
        reading.out = BytesMut::from(fields.bytes()?);
        if fields.bool()? {
            reading.ended = Ended::Passing;
        }
        Ok(reading)
    }
}
