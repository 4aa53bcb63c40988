//! Frame heads: the 2 to 14 bytes before a payload (RFC 6455 §5.2).
//!
//! In: the front of a receive buffer. Out: a [`FrameHead`], or how many bytes are missing.
//! Refused: everything §5.1, §5.2 and §5.5 forbid of a single head. RSV1 is reported, not judged:
//! whether an extension defines it depends on the message, see [`sequence`](crate::sequence).
//! Never touches a socket, a clock, or a payload byte.

use crate::violation::Violation;

/// The longest head: 2 bytes, an 8-byte length, a 4-byte mask.
pub const HEAD_MAX: usize = 14;
/// The longest payload of a control frame (RFC 6455 §5.5).
pub(crate) const CONTROL_PAYLOAD_MAX: usize = 125;

/// Which end of the connection wrote the bytes: it decides about the mask (RFC 6455 §5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// Its frames must be masked.
    Client,
    /// Its frames must not be masked.
    Server,
}

/// The six defined opcodes (RFC 6455 §5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpCode {
    /// The next fragment of a message.
    Continuation,
    /// The first fragment of a text message.
    Text,
    /// The first fragment of a binary message.
    Binary,
    /// The closing handshake.
    Close,
    /// Are you there?
    Ping,
    /// Yes, or an unsolicited heartbeat.
    Pong,
}

impl OpCode {
    /// Close, Ping or Pong: never fragmented, and allowed between the fragments of a message.
    #[must_use]
    pub(crate) fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }

    /// As on the wire.
    pub(crate) fn nibble(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xA,
        }
    }

    pub(crate) fn parse(nibble: u8) -> Result<Self, Violation> {
        Ok(match nibble {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            opcode => return Err(Violation::UnknownOpcode { opcode }),
        })
    }
}

/// One frame head, checked on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead {
    /// The frame ends its message.
    pub fin: bool,
    /// Reserved bit 1: "compressed" where permessage-deflate was negotiated (RFC 7692 §7.2).
    pub rsv1: bool,
    /// What the payload is.
    pub opcode: OpCode,
    /// The masking key; present exactly on client frames.
    pub mask: Option<[u8; 4]>,
    /// Payload length in bytes, below 2^63.
    pub payload_len: u64,
    /// Length of this head in bytes, 2 to [`HEAD_MAX`].
    pub head_len: usize,
}

/// The result of looking for a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scan {
    /// No head can be complete before this many more bytes arrive.
    Need(usize),
    /// A whole head.
    Head(FrameHead),
}

/// Reads the head at the front of `input`, consuming nothing.
///
/// # Errors
/// The [`Violation`] that the bytes seen so far already prove; more bytes never change a verdict.
pub fn scan_head(input: &[u8], sender: Sender) -> Result<Scan, Violation> {
    let &[b0, b1, ref rest @ ..] = input else {
        return Ok(Scan::Need(2 - input.len()));
    };
    if b0 & 0x30 != 0 {
        // §5.2: RSV2 and RSV3 belong to no extension that is ever passed on.
        return Err(Violation::ReservedBits { bits: b0 >> 4 & 0x7 });
    }
    let opcode = OpCode::parse(b0 & 0x0F)?;
    let fin = b0 & 0x80 != 0;
    let len7 = b1 & 0x7F;
    if opcode.is_control() {
        if !fin {
            return Err(Violation::ControlFragmented); // §5.5
        }
        if usize::from(len7) > CONTROL_PAYLOAD_MAX {
            return Err(Violation::ControlTooLong); // §5.5
        }
    }
    let masked = b1 & 0x80 != 0;
    match sender {
        Sender::Client if !masked => return Err(Violation::Unmasked), // §5.1
        Sender::Server if masked => return Err(Violation::Masked),    // §5.1
        Sender::Client | Sender::Server => {}
    }

    let (payload_len, rest) = match len7 {
        126 => match rest.split_first_chunk() {
            Some((len, rest)) => (u64::from(u16::from_be_bytes(*len)), rest),
            None => return Ok(need(2, masked, rest)),
        },
        127 => match rest.split_first_chunk() {
            Some((len, rest)) => (u64::from_be_bytes(*len), rest),
            None => return Ok(need(8, masked, rest)),
        },
        len => (u64::from(len), rest),
    };
    // §5.2: the fewest bytes, and the most significant bit zero.
    if payload_len >> 63 != 0 {
        return Err(Violation::LengthOverflow);
    }
    if (len7 == 126 && payload_len < 126) || (len7 == 127 && payload_len < 0x1_0000) {
        return Err(Violation::LengthNotMinimal { len: payload_len });
    }

    let (mask, rest) = match (masked, rest.split_first_chunk()) {
        (false, _) => (None, rest),
        (true, Some((mask, rest))) => (Some(*mask), rest),
        (true, None) => return Ok(need(0, masked, rest)),
    };
    Ok(Scan::Head(FrameHead {
        fin,
        rsv1: b0 & 0x40 != 0,
        opcode,
        mask,
        payload_len,
        head_len: input.len() - rest.len(),
    }))
}

/// What the head that [`frame_head`] makes may need (the library asks for so much).
pub(crate) const HEAD_ROOM: usize = 16;
/// Of the first byte of a head.
pub(crate) const RSV1: u8 = 0x40;

/// A head for this payload, and how long the head is.
pub(crate) fn frame_head(
    fin: bool,
    opcode: OpCode,
    mask: Option<[u8; 4]>,
    payload: &[u8],
) -> ([u8; HEAD_ROOM], usize) {
    let mut head = [0; HEAD_ROOM];
    let payload = fastwebsockets::Payload::Borrowed(payload); // for its length alone
    let len = fastwebsockets::Frame::new(fin, wire_opcode(opcode), mask, payload).fmt_head(&mut head);
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

/// How many bytes are missing: a length of `len` bytes and, if `masked`, a key; `rest` has arrived.
fn need(len: usize, masked: bool, rest: &[u8]) -> Scan {
    Scan::Need(len + usize::from(masked) * 4 - rest.len())
}

/// Applies a masking key to `payload`, whose first byte is the `offset`th of its frame (RFC 6455 §5.3).
pub fn unmask(payload: &mut [u8], mask: [u8; 4], offset: usize) {
    let mut key = mask;
    key.rotate_left(offset % 4);
    fastwebsockets::unmask(payload, key);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    #[track_caller]
    fn check(sender: Sender, input: &[u8], expect: Result<Scan, Violation>) {
        assert_eq!(scan_head(input, sender), expect, "{input:02x?}");
    }

    fn head(opcode: OpCode, payload_len: u64, head_len: usize) -> FrameHead {
        FrameHead { fin: true, rsv1: false, opcode, mask: None, payload_len, head_len }
    }

    #[test]
    fn server_heads_at_the_edges() {
        let ok = |h| Ok(Scan::Head(h));
        let check = |input: &[u8], expect| check(Sender::Server, input, expect);
        check(&[], Ok(Scan::Need(2)));
        check(&[0x82], Ok(Scan::Need(1)));
        check(&[0x82, 0], ok(head(OpCode::Binary, 0, 2)));
        check(&[0x82, 125, 9], ok(head(OpCode::Binary, 125, 2)));
        check(&[0x81, 126], Ok(Scan::Need(2)));
        check(&[0x81, 126, 0], Ok(Scan::Need(1)));
        check(&[0x81, 126, 0, 126], ok(head(OpCode::Text, 126, 4)));
        check(&[0x81, 126, 0, 125], Err(Violation::LengthNotMinimal { len: 125 }));
        check(&[0x81, 127, 0, 0, 0, 0, 0, 0, 0xFF], Ok(Scan::Need(1)));
        check(&[0x81, 127, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF], Err(Violation::LengthNotMinimal { len: 0xFFFF }));
        check(&[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0], ok(head(OpCode::Text, 0x1_0000, 10)));
        check(&[0x81, 127, 0x80, 0, 0, 0, 0, 0, 0, 0], Err(Violation::LengthOverflow));
        check(
            &[0x81, 127, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
            ok(head(OpCode::Text, (1 << 63) - 1, 10)),
        );
        check(&[0x82, 0x80], Err(Violation::Masked));
        check(&[0x88, 126], Err(Violation::ControlTooLong));
        check(&[0x09, 0], Err(Violation::ControlFragmented));
        check(&[0x83, 0], Err(Violation::UnknownOpcode { opcode: 3 }));
        check(&[0x8B, 0], Err(Violation::UnknownOpcode { opcode: 0xB }));
        check(&[0xA2, 0], Err(Violation::ReservedBits { bits: 0b010 }));
        check(&[0xD2, 0], Err(Violation::ReservedBits { bits: 0b101 }));
        check(&[0xC2, 0], ok(FrameHead { rsv1: true, ..head(OpCode::Binary, 0, 2) }));
        check(&[0x02, 0], ok(FrameHead { fin: false, ..head(OpCode::Binary, 0, 2) }));
    }

    #[test]
    fn client_heads_at_the_edges() {
        let masked = |h| Ok(Scan::Head(FrameHead { mask: Some([1, 2, 3, 4]), ..h }));
        let check = |input: &[u8], expect| check(Sender::Client, input, expect);
        check(&[0x82, 0x05], Err(Violation::Unmasked));
        check(&[0x82, 0x83], Ok(Scan::Need(4)));
        check(&[0x82, 0x83, 1, 2, 3], Ok(Scan::Need(1)));
        check(&[0x82, 0x83, 1, 2, 3, 4], masked(head(OpCode::Binary, 3, 6)));
        check(&[0x82, 0xFE], Ok(Scan::Need(6)));
        check(&[0x82, 0xFE, 1, 0, 1, 2, 3, 4], masked(head(OpCode::Binary, 256, 8)));
        check(&[0x82, 0xFF, 0], Ok(Scan::Need(11)));
        check(
            &[0x82, 0xFF, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4],
            masked(head(OpCode::Binary, 0x1_0000, HEAD_MAX)),
        );
        check(&[0x8A, 0xFF], Err(Violation::ControlTooLong));
    }

    #[test]
    fn unmask_starts_anywhere_in_the_frame() {
        let mask = [1, 2, 3, 4];
        let mut whole = [0u8; 11];
        unmask(&mut whole, mask, 0);
        for cut in 0..=whole.len() {
            let mut parts = [0u8; 11];
            let (front, back) = parts.split_at_mut(cut);
            unmask(front, mask, 0);
            unmask(back, mask, cut);
            assert_eq!(parts, whole);
        }
    }

    proptest! {
        #[test]
        fn more_bytes_never_change_a_verdict(
            b0: u8,
            // random bytes rarely spell a long frame
            b1 in prop_oneof![Just(0x7e), Just(0x7f), Just(0xfe), Just(0xff), any::<u8>()],
            tail: Vec<u8>,
            cut: Index,
            client: bool,
        ) {
            let sender = if client { Sender::Client } else { Sender::Server };
            let wire = [&[b0, b1], &tail[..]].concat();
            let early = scan_head(&wire[..cut.index(wire.len() + 1)], sender);
            if !matches!(early, Ok(Scan::Need(_))) {
                prop_assert_eq!(early, scan_head(&wire, sender));
            }
        }

        #[test]
        fn need_is_never_too_much(wire in proptest::collection::vec(any::<u8>(), 0..20), client: bool) {
            let sender = if client { Sender::Client } else { Sender::Server };
            if let Ok(Scan::Head(head)) = scan_head(&wire, sender) {
                for seen in 0..head.head_len {
                    match scan_head(&wire[..seen], sender) {
                        Ok(Scan::Need(n)) => prop_assert!(n >= 1 && seen + n <= head.head_len),
                        other => prop_assert!(false, "{other:?} after {seen} bytes"),
                    }
                }
            }
        }
    }
}
