//! What a client is sent, compressed.
//!
//! Control frames and short messages pass as they are. Of a longer message, each part of at most [`PART_LEN`] bytes is one frame.
//! Fragments that are there at once are one part: each flush costs bytes, and the client has them no sooner by it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use net_io::state::{StateError, StateReader, StateWriter};
use tokio::io::AsyncWrite;

use super::counts::Passed;
use crate::deflate::{DEFLATED_LEN_MIN, Deflater};
use crate::head::{FrameHead, HEAD_MAX, OpCode, RSV1, Scan, Sender, frame_head, scan_head};

/// What is compressed at once.
const PART_LEN: usize = 16 * 1024;
/// Bytes that may wait for the client.
const OUT_LEN: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct Writing {
    deflater: Deflater,
    /// The front of a head.
    front: [u8; HEAD_MAX],
    front_len: usize,
    /// Bytes that pass as they are, before the next head.
    passing: u64,
    frame: Option<PlainFrame>,
    message: Message,
    /// What has come of a part that has not come as a whole.
    part: Vec<u8>,
    /// Fragments have ended in it, or would have: it does not wait for more.
    holds_fragment: bool,
    /// Frames that the client has not taken: `out[sent..]`.
    out: Vec<u8>,
    sent: usize,
    /// All that the client has taken.
    pub(super) wire_bytes: u64,
    pub(super) passed: Passed,
}

/// A frame whose payload is compressed, in progress.
#[derive(Debug)]
struct PlainFrame {
    fin: bool,
    left: u64,
}

/// The message in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Message {
    /// There is none.
    None,
    /// It passes as it is.
    Passing,
    /// It is compressed, and the next part begins it.
    First(OpCode),
    /// It is compressed, and the next part continues it.
    Continued,
}

impl Writing {
    pub(super) fn new(deflater: Deflater) -> Self {
        Self {
            deflater,
            front: [0; HEAD_MAX],
            front_len: 0,
            passing: 0,
            frame: None,
            message: Message::None,
            part: Vec::new(),
            holds_fragment: false,
            out: Vec::new(),
            sent: 0,
            wire_bytes: 0,
            passed: Passed::default(),
        }
    }

    pub(super) fn memory(&self) -> usize {
        self.part.capacity() + self.out.capacity() + self.deflater.message_memory()
    }

    pub(super) fn kept_len(&self, history_max: usize) -> usize {
        Deflater::kept_len(self.deflater.window(), history_max)
    }

    pub(super) fn poll_write<C: AsyncWrite + Unpin>(
        &mut self,
        client: &mut C,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_drain(client, cx))?;
        let mut rest = buf;
        while !rest.is_empty() && self.out.len() < OUT_LEN {
            self.take(&mut rest);
        }
        if rest.is_empty() {
            self.end_fragments();
        }
        // What does not leave now waits for the next write, or for a flush.
        match self.poll_drain(client, cx) {
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            _ => Poll::Ready(Ok(buf.len() - rest.len())),
        }
    }

    /// Has the client take all that waits.
    pub(super) fn poll_drain<C: AsyncWrite + Unpin>(
        &mut self,
        client: &mut C,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.sent < self.out.len() {
            let n = ready!(Pin::new(&mut *client).poll_write(cx, &self.out[self.sent..]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += n;
            self.wire_bytes += n as u64;
        }
        (self.out, self.sent) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }

    /// Takes some bytes of the session's.
    fn take(&mut self, rest: &mut &[u8]) {
        if self.passing > 0 {
            let len = usize::try_from(self.passing).map_or(rest.len(), |passing| passing.min(rest.len()));
            self.out.extend_from_slice(&rest[..len]);
            self.passing -= len as u64;
            *rest = &rest[len..];
            return;
        }
        if self.frame.is_some() {
            return self.take_of_frame(rest);
        }
        self.front[self.front_len] = rest[0];
        self.front_len += 1;
        *rest = &rest[1..];
        match scan_head(&self.front[..self.front_len], Sender::Server) {
            Ok(Scan::Need(_)) if self.front_len < HEAD_MAX => {}
            Ok(Scan::Head(head)) => self.on_head(&head),
            // The session writes no such thing.
            Ok(Scan::Need(_)) | Err(_) => self.pass(u64::MAX),
        }
    }

    /// Takes the rest of a part, or what there is of it. A part that is there as a whole is compressed where it is.
    fn take_of_frame(&mut self, rest: &mut &[u8]) {
        let Some(frame) = &mut self.frame else { return };
        let len = usize::try_from(frame.left).unwrap_or(usize::MAX).min(PART_LEN - self.part.len());
        let (taken, left) = rest.split_at(len.min(rest.len()));
        *rest = left;
        frame.left -= taken.len() as u64;
        if taken.len() < len {
            self.part.extend_from_slice(taken);
            return;
        }
        let fin = frame.fin && frame.left == 0;
        if frame.left == 0 {
            self.frame = None;
            if !fin && self.part.len() + taken.len() < PART_LEN && !rest.is_empty() {
                self.part.extend_from_slice(taken);
                self.holds_fragment = true;
                return;
            }
        }
        if self.part.is_empty() {
            self.end_part(taken, fin);
        } else {
            let mut part = std::mem::take(&mut self.part);
            part.extend_from_slice(taken);
            self.end_part(&part, fin);
        }
    }

    fn on_head(&mut self, head: &FrameHead) {
        if head.opcode.is_control() {
            self.end_fragments(); // which came before it
            return self.pass(head.payload_len);
        }
        if head.opcode != OpCode::Continuation {
            let is_short = head.fin && head.payload_len < DEFLATED_LEN_MIN as u64;
            self.message = if is_short { Message::Passing } else { Message::First(head.opcode) };
        }
        if matches!(self.message, Message::None | Message::Passing) {
            self.pass(head.payload_len);
            if head.fin {
                self.message = Message::None;
            }
            return;
        }
        self.front_len = 0;
        if head.payload_len > 0 {
            self.frame = Some(PlainFrame { fin: head.fin, left: head.payload_len });
        } else if head.fin {
            let part = std::mem::take(&mut self.part);
            self.end_part(&part, true);
        } else {
            self.holds_fragment = true;
        }
    }

    /// Fragments have ended, and nothing follows them at this moment.
    fn end_fragments(&mut self) {
        if self.holds_fragment {
            let part = std::mem::take(&mut self.part);
            self.end_part(&part, false);
        }
    }

    /// The head passes, and so many bytes behind it.
    fn pass(&mut self, payload_len: u64) {
        self.out.extend_from_slice(&self.front[..self.front_len]);
        self.front_len = 0;
        self.passing = payload_len;
    }

    /// Makes a frame of a part.
    fn end_part(&mut self, part: &[u8], fin: bool) {
        self.holds_fragment = false;
        let mut deflated = Vec::new();
        let (opcode, rsv1) = match self.message {
            Message::First(opcode) if fin => (opcode, self.deflater.message(part, &mut deflated)),
            Message::First(opcode) => {
                self.deflater.part(part, fin, &mut deflated);
                (opcode, true)
            }
            _ => {
                self.deflater.part(part, fin, &mut deflated);
                (OpCode::Continuation, false) // RFC 7692 §6.1: RSV1 stands in the first frame alone
            }
        };
        let is_plain = matches!(self.message, Message::First(_)) && !rsv1;
        let payload = if is_plain { part } else { &deflated };
        if !is_plain {
            self.passed.wire_len += deflated.len() as u64;
            self.passed.inflated_len += part.len() as u64;
        }
        let (mut head, head_len) = frame_head(fin, opcode, None, payload);
        if rsv1 {
            head[0] |= RSV1;
        }
        self.out.extend_from_slice(&head[..head_len]);
        self.out.extend_from_slice(payload);
        self.message = if fin { Message::None } else { Message::Continued };
    }

    /// Writes what [`Self::read_state`] reads.
    pub(super) fn write_state(&self, out: &mut StateWriter) {
        let Self {
            deflater,
            front,
            front_len,
            passing,
            frame,
            message,
            part,
            holds_fragment: _, // to be safe, all of a part that is there goes on
            out: made,
            sent,
            wire_bytes: _, // at the end of all
            passed: _,     // counted here
        } = self;
        out.section(|out| {
            deflater.write_state(out);
            out.bytes(&front[..*front_len]);
            out.u64(*passing);
            out.option(frame.as_ref(), |out, frame| {
                let PlainFrame { fin, left } = frame;
                out.bool(*fin);
                out.u64(*left);
            });
            out.u8(match message {
                Message::None => 0,
                Message::Passing => 1,
                Message::Continued => 2,
                Message::First(OpCode::Text) => 3,
                Message::First(_) => 4,
            });
            out.bytes(part);
            out.bytes(&made[*sent..]);
        });
    }

    /// Goes on where another one left off.
    pub(super) fn read_state(fields: &mut StateReader<'_>, history_max: usize) -> Result<Self, StateError> {
        let mut fields = fields.section()?;
        let mut writing = Self::new(Deflater::read_state(&mut fields, history_max)?);
        let given = fields.bytes()?;
        if given.len() >= HEAD_MAX {
            return Err(StateError::Invalid("the front of a head"));
        }
        writing.front[..given.len()].copy_from_slice(given);
        writing.front_len = given.len();
        writing.passing = fields.u64()?;
        writing.frame =
            fields.option(|fields| Ok(PlainFrame { fin: fields.bool()?, left: fields.u64()? }))?;
        writing.message = match fields.u8()? {
            0 => Message::None,
            1 => Message::Passing,
            2 => Message::Continued,
            3 => Message::First(OpCode::Text),
            4 => Message::First(OpCode::Binary),
            _ => return Err(StateError::Invalid("the state of a message")),
        };
        writing.part = fields.bytes()?.to_vec();
        if writing.part.len() >= PART_LEN {
            return Err(StateError::Invalid("a part of a message"));
        }
        writing.holds_fragment = !writing.part.is_empty();
        writing.out = fields.bytes()?.to_vec();
        Ok(writing)
    }
}
