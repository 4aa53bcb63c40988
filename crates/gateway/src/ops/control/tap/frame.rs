//! What a copy says, for people: the fields of a frame's head, and its payload unmasked. Pure.

use frame_core::head::{OpCode, Scan, Sender, scan_head, unmask};

/// A frame, and the front of its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) fin: bool,
    pub(super) rsv1: bool,
    pub(super) opcode: OpCode,
    pub(super) is_masked: bool,
    /// Of the whole payload, in bytes.
    pub(super) len: u64,
    /// What was copied of it, unmasked.
    pub(super) payload: Vec<u8>,
}

impl Frame {
    /// What `wire` begins with; `None`: it is no frame of that side.
    pub(super) fn parse(wire: &[u8], from_client: bool) -> Option<Self> {
        let sender = if from_client { Sender::Client } else { Sender::Server };
        let Ok(Scan::Head(head)) = scan_head(wire, sender) else { return None };
        let mut payload = wire[head.head_len..].to_vec();
        if let Some(mask) = head.mask {
            unmask(&mut payload, mask, 0);
        }
        let (fin, rsv1, opcode) = (head.fin, head.rsv1, head.opcode);
        Some(Self { fin, rsv1, opcode, is_masked: head.mask.is_some(), len: head.payload_len, payload })
    }

    /// All of the payload was copied.
    pub(super) fn is_whole(&self) -> bool {
        self.payload.len() as u64 == self.len
    }

    /// It can stand between the frames of a message.
    pub(super) fn is_control(&self) -> bool {
        matches!(self.opcode, OpCode::Close | OpCode::Ping | OpCode::Pong)
    }

    /// As RFC 6455 §5.2 calls it.
    pub(super) fn opcode_name(&self) -> &'static str {
        match self.opcode {
            OpCode::Continuation => "continuation",
            OpCode::Text => "text",
            OpCode::Binary => "binary",
            OpCode::Close => "close",
            OpCode::Ping => "ping",
            OpCode::Pong => "pong",
        }
    }

    /// Of a Close that has one.
    pub(super) fn close_code(&self) -> Option<u16> {
        let code = self.payload.first_chunk().filter(|_| self.opcode == OpCode::Close)?;
        Some(u16::from_be_bytes(*code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_unmasked() {
        let wire = [0x81, 0x85, 1, 2, 3, 4, b'h' ^ 1, b'e' ^ 2, b'l' ^ 3, b'l' ^ 4, b'o' ^ 1];
        let frame = Frame::parse(&wire, true).unwrap();
        assert_eq!((&frame.payload[..], frame.len, frame.is_masked), (&b"hello"[..], 5, true));
        assert!(frame.is_whole() && frame.fin && !frame.rsv1 && frame.opcode_name() == "text");
        let front = Frame::parse(&wire[..8], true).unwrap();
        assert_eq!((&front.payload[..], front.len, front.is_whole()), (&b"he"[..], 5, false));
        assert_eq!(Frame::parse(&wire, false), None);
        let close = Frame::parse(&[0x88, 2, 3, 0xE9], false).unwrap();
        assert_eq!((close.close_code(), close.is_control()), (Some(1001), true));
    }
}
