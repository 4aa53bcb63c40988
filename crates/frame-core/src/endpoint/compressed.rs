//! What an endpoint that speaks permessage-deflate has besides (RFC 7692). Pure.

use bytes::{Bytes, BytesMut};

use super::shared_frame::SharedFrame;
use crate::deflate::Codec;
use crate::violation::Violation;

/// What an endpoint with compression has besides.
#[derive(Debug)]
pub(super) struct Compressed {
    codec: Codec,
    /// Of an inflated message.
    message_max: u64,
}

impl Compressed {
    pub(super) fn new(codec: Codec, message_max: u64) -> Self {
        Self { codec, message_max }
    }

    /// Bytes that it takes at the moment, beside its history.
    pub(super) fn memory(&self) -> usize {
        self.codec.inflater.message_memory()
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

    /// What a frame of a compressed message becomes, if `before` bytes of the message have come. As much as a message may have,
    /// and one byte.
    pub(super) fn inflated(&mut self, fin: bool, wire: &[u8], before: usize) -> Result<BytesMut, Violation> {
        let max = usize::try_from(self.message_max).unwrap_or(usize::MAX);
        let (room, mut inflated) = (max.saturating_sub(before).saturating_add(1), BytesMut::new());
        self.codec.inflater.inflate(&mut &*wire, fin, &mut inflated, room)?;
        Ok(inflated)
    }

    /// A message of so many bytes, compressed or not.
    pub(super) fn check_len(&self, len: usize) -> Result<(), Violation> {
        let (len, max) = (len as u64, self.message_max);
        if len > max { Err(Violation::MessageTooBig { len, max }) } else { Ok(()) }
    }
}
