//! A frame that is made once, for however many clients it is sent to. Pure.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::assembly::MessageKind;
use crate::deflate::{WINDOW_BITS_MIN, WINDOW_SIZES, deflate_alone};
use crate::head::{HEAD_ROOM, OpCode, RSV1, frame_head};

/// By the size of the window: the payload as it is compressed, `None` if it is better sent as it is.
type Deflated = [OnceLock<Option<Bytes>>; WINDOW_SIZES];

/// A frame of a server's, as it goes on the wire. Cheap to clone: the payload is shared.
#[derive(Debug, Clone)]
pub struct SharedFrame {
    head: [u8; HEAD_ROOM],
    head_len: u8,
    is_data: bool,
    fin: bool,
    payload: Bytes,
    /// Made once for all that have it without a context.
    deflated: Option<Arc<Deflated>>,
}

impl SharedFrame {
    /// A whole message. The payload of [`MessageKind::Text`] has to be UTF-8 (RFC 6455 §5.6).
    #[must_use]
    pub fn message(kind: MessageKind, payload: Bytes) -> Self {
        Self::data(true, kind.opcode(), payload)
    }

    /// A part of a message: `first` says what it begins, `None` continues (RFC 6455 §5.4). No other data frame may be
    /// sent before the one with `fin`.
    #[must_use]
    pub fn fragment(first: Option<MessageKind>, fin: bool, payload: Bytes) -> Self {
        Self::data(fin, first.map_or(OpCode::Continuation, MessageKind::opcode), payload)
    }

    /// A Ping, with 125 bytes of payload at most: more are cut off (RFC 6455 §5.5).
    #[must_use]
    pub fn ping(mut payload: Bytes) -> Self {
        payload.truncate(crate::head::CONTROL_PAYLOAD_MAX);
        Self { is_data: false, ..Self::data(true, OpCode::Ping, payload) }
    }

    fn data(fin: bool, opcode: OpCode, payload: Bytes) -> Self {
        let (head, head_len) = frame_head(fin, opcode, None, &payload);
        let head_len = u8::try_from(head_len).unwrap_or(u8::MAX); // HEAD_ROOM at most
        Self { head, head_len, is_data: true, fin, payload, deflated: None }
    }

    /// The same, for many clients: where no context is kept (RFC 7692 §7.1.1), it is compressed once for all of them.
    #[must_use]
    pub fn compressed_once(self) -> Self {
        Self { deflated: Some(Arc::default()), ..self }
    }

    /// The payload, compressed without a context; `None`: it is better sent as it is, or not for many.
    pub(super) fn deflated(&self, window_bits: u8) -> Option<Option<Bytes>> {
        let slot = self.deflated.as_ref()?.get(usize::from(window_bits.checked_sub(WINDOW_BITS_MIN)?))?;
        let deflate = || {
            let mut out = Vec::new();
            deflate_alone(window_bits, &self.payload, &mut out).then(|| out.into())
        };
        Some(slot.get_or_init(deflate).clone())
    }

    /// It is a whole message.
    pub(super) fn is_message(&self) -> bool {
        self.is_data && self.fin && !self.continues()
    }

    /// It continues a message.
    pub(super) fn continues(&self) -> bool {
        self.head[0] & 0x0F == OpCode::Continuation.nibble()
    }

    /// The same frame with another payload, which is compressed.
    pub(super) fn with_deflated(&self, payload: Bytes) -> Self {
        let (mut head, head_len) = frame_head(self.fin, OpCode::Continuation, None, &payload);
        // RFC 7692 §6.1: RSV1 stands in the first frame of a message alone.
        head[0] = if self.continues() { self.head[0] } else { self.head[0] | RSV1 };
        let head_len = u8::try_from(head_len).unwrap_or(u8::MAX);
        Self { head, head_len, payload, deflated: None, ..*self }
    }

    /// Bytes on the wire, with the head.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        usize::from(self.head_len) + self.payload.len()
    }

    /// It belongs to a message.
    pub(super) fn is_data(&self) -> bool {
        self.is_data
    }

    /// It is the last of its message.
    pub(super) fn ends_message(&self) -> bool {
        self.fin
    }

    pub(super) fn head(&self) -> &[u8] {
        &self.head[..usize::from(self.head_len)]
    }

    pub(super) fn payload(&self) -> &Bytes {
        &self.payload
    }
}
