//! What an endpoint that speaks permessage-deflate has besides (RFC 7692). Pure.

use bytes::{Buf, Bytes, BytesMut};

use super::shared_frame::SharedFrame;
use crate::close::{Close, TRY_AGAIN_LATER};
use crate::deflate::{Codec, Share};
use crate::frame_reader::{Frame, PART_LEN};
use crate::head::OpCode;
use crate::outcome::{Cause, Party};
use crate::violation::Violation;

/// So much of a session's messages is not taken from what all share: with less, none has to be ended for others.
pub(super) const FREE_LEN: usize = 64 * 1024;

/// What an endpoint with compression has besides.
#[derive(Debug)]
pub(super) struct Compressed {
    codec: Codec,
    /// Of an inflated message.
    message_max: u64,
    /// What has come of a compressed message and is to be inflated.
    unread: Option<Frame>,
    /// What it has of what all sessions may take for their messages.
    share: Share,
    /// Bytes of messages that have come out and are not done with.
    unhandled: usize,
}

impl Compressed {
    pub(super) fn new(codec: Codec, message_max: u64, share: Share) -> Self {
        Self { codec, message_max, unread: None, share, unhandled: 0 }
    }

    pub(super) fn set_unhandled(&mut self, len: usize) {
        self.unhandled = len;
    }

    /// The session's messages take so many bytes, what waits for a handler not counted. `false`: there are not so many.
    pub(super) fn charge(&mut self, assembled: usize) -> bool {
        let len = (assembled + self.memory() + self.unhandled).saturating_sub(FREE_LEN);
        len == self.share.bytes() || self.share.resize(len)
    }

    /// Bytes that it takes at the moment, beside its history.
    pub(super) fn memory(&self) -> usize {
        self.codec.inflater.message_memory()
            + self.codec.deflater.message_memory()
            + self.unread.as_ref().map_or(0, |frame| frame.payload.capacity())
    }

    /// The frame as it is to be sent; `None`: as it is.
    pub(super) fn deflated(&mut self, frame: &SharedFrame) -> Option<SharedFrame> {
        let deflater = &mut self.codec.deflater;
        let window = deflater.window();
        if frame.is_message()
            && !window.is_kept
            && let Some(deflated) = frame.deflated(window.bits)
        {
            return deflated.map(|payload| frame.with_deflated(payload));
        }
        let mut out = Vec::new();
        if !frame.is_message() {
            deflater.part(frame.payload(), frame.ends_message(), &mut out);
        } else if !deflater.message(frame.payload(), &mut out) {
            return None;
        }
        Some(frame.with_deflated(Bytes::from(out)))
    }

    /// Takes a frame of a compressed message, when the one before it has been inflated.
    pub(super) fn take(&mut self, frame: Frame) {
        self.unread = Some(frame);
    }

    /// A frame has been taken and not been inflated to its end.
    pub(super) fn is_inflating(&self) -> bool {
        self.unread.is_some()
    }

    /// The next part of the frame that was taken, inflated, if `before` bytes of the message have come: [`PART_LEN`] bytes at
    /// most, and one byte more than a message may have.
    pub(super) fn next_part(&mut self, before: usize) -> Option<Result<Frame, Violation>> {
        let mut frame = self.unread.take()?;
        let max = usize::try_from(self.message_max).unwrap_or(usize::MAX);
        let room = max.saturating_sub(before).saturating_add(1).min(PART_LEN);
        let (mut input, mut payload) = (&frame.payload[..], BytesMut::new());
        let is_done = match self.codec.inflater.inflate(&mut input, frame.fin, &mut payload, room) {
            Ok(is_done) => is_done,
            Err(violation) => return Some(Err(violation)),
        };
        let taken = frame.payload.len() - input.len();
        let part = Frame { fin: frame.fin && is_done, opcode: frame.opcode, payload };
        if !is_done {
            frame.payload.advance(taken);
            self.unread = Some(Frame { opcode: OpCode::Continuation, ..frame });
        }
        Some(self.check_len(before.saturating_add(part.payload.len())).map(|()| part))
    }

    /// A message of so many bytes, compressed or not.
    pub(super) fn check_len(&self, len: usize) -> Result<(), Violation> {
        let (len, max) = (len as u64, self.message_max);
        if len > max { Err(Violation::MessageTooBig { len, max }) } else { Ok(()) }
    }
}

/// All sessions together have no memory for more of its messages.
pub(super) fn too_much() -> Cause {
    let close = Close { code: Some(TRY_AGAIN_LATER), reason: "too many compressed messages at once".into() };
    Cause::Closed { by: Party::Gateway, close }
}
