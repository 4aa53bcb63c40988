//! A frame that is made once, for however many clients it is sent to. Pure.

use bytes::Bytes;
use fastwebsockets::Payload;

use super::assembly::MessageKind;
use crate::head::OpCode;

/// What a head may need (the library asks for so much).
const HEAD_ROOM: usize = 16;

/// A frame of a server's, as it goes on the wire. Cheap to clone: the payload is shared.
#[derive(Debug, Clone)]
pub struct SharedFrame {
    head: [u8; HEAD_ROOM],
    head_len: u8,
    is_data: bool,
    fin: bool,
    payload: Bytes,
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
        let (head, head_len) = frame_head(fin, opcode, &payload);
        let head_len = u8::try_from(head_len).unwrap_or(u8::MAX); // HEAD_ROOM at most
        Self { head, head_len, is_data: true, fin, payload }
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

/// A server's head for this payload, and how long the head is.
pub(super) fn frame_head(fin: bool, opcode: OpCode, payload: &[u8]) -> ([u8; HEAD_ROOM], usize) {
    let mut head = [0; HEAD_ROOM];
    let payload = Payload::Borrowed(payload); // for its length alone
    let len = fastwebsockets::Frame::new(fin, wire_opcode(opcode), None, payload).fmt_head(&mut head);
    (head, len)
}

fn wire_opcode(opcode: OpCode) -> fastwebsockets::OpCode {
    match opcode {
        OpCode::Continuation => fastwebsockets::OpCode::Continuation,
        OpCode::Text => fastwebsockets::OpCode::Text,
        OpCode::Binary => fastwebsockets::OpCode::Binary,
        OpCode::Close => fastwebsockets::OpCode::Close,
        OpCode::Ping => fastwebsockets::OpCode::Ping,
        OpCode::Pong => fastwebsockets::OpCode::Pong,
    }
}
