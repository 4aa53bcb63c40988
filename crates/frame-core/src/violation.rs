//! The rules that a peer can break, and the close code it is told (RFC 6455 §7.4.1).

use std::io;

/// A breach of RFC 6455, or of a limit, by the sender of a frame.
///
/// Each is the sender's fault: the gateway ends the session in order and blames that side.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum Violation {
    /// A client frame without a mask.
    #[error("client frame is not masked (RFC 6455 §5.1)")]
    Unmasked,
    /// A server frame with a mask.
    #[error("server frame is masked (RFC 6455 §5.1)")]
    Masked,
    /// A reserved bit that no negotiated extension gives a meaning here.
    #[error("reserved bits {bits:#05b} without an extension that defines them (RFC 6455 §5.2)")]
    ReservedBits {
        /// RSV1 is 4, RSV2 is 2, RSV3 is 1.
        bits: u8,
    },
    /// An opcode the RFC leaves undefined.
    #[error("unknown opcode {opcode:#x} (RFC 6455 §5.2)")]
    UnknownOpcode {
        /// 3–7 or 0xB–0xF.
        opcode: u8,
    },
    /// A control frame with FIN clear.
    #[error("fragmented control frame (RFC 6455 §5.5)")]
    ControlFragmented,
    /// A control frame whose length does not fit in seven bits.
    #[error("control frame with an extended length (RFC 6455 §5.5)")]
    ControlTooLong,
    /// A length written in more bytes than it needs.
    #[error("payload length {len} is not in its shortest form (RFC 6455 §5.2)")]
    LengthNotMinimal {
        /// The length as it was written.
        len: u64,
    },
    /// A 64-bit length with the top bit set.
    #[error("payload length above 2^63 (RFC 6455 §5.2)")]
    LengthOverflow,
    /// A continuation frame with no message to continue.
    #[error("continuation frame outside a message (RFC 6455 §5.4)")]
    UnexpectedContinuation,
    /// A text or binary frame before the previous message ended.
    #[error("new message before the previous one ended (RFC 6455 §5.4)")]
    Interleaved,
    /// A message over the limit, all its fragments counted.
    #[error("message of at least {len} bytes exceeds the limit of {max}")]
    MessageTooBig {
        /// Payload bytes announced so far.
        len: u64,
        /// The limit in force.
        max: u64,
    },
    /// A Close payload of one byte.
    #[error("close payload of one byte (RFC 6455 §5.5.1)")]
    CloseTruncated,
    /// A close code that must not appear on the wire.
    #[error("close code {code} must not be sent (RFC 6455 §7.4)")]
    CloseCode {
        /// The code as it was written.
        code: u16,
    },
    /// A close reason that is not UTF-8.
    #[error("close reason is not UTF-8 (RFC 6455 §5.5.1)")]
    CloseReason,
    /// A text message that is not UTF-8.
    #[error("text message is not UTF-8 (RFC 6455 §8.1)")]
    Utf8,
    /// A text message where messages carry the bytes of a stream.
    #[error("text message, but this service takes binary messages only")]
    NotBinary,
    /// A compressed message that can't be inflated.
    #[error("compressed message can't be inflated (RFC 7692 §7.2.2)")]
    Deflate,
    /// A compressed message that becomes far longer than it was, and is long by then.
    #[error("compressed message of a megabyte and more grows by more than {max} times")]
    DeflateGrowth {
        /// The factor that is allowed.
        max: u64,
    },
    /// A compressed message that becomes far shorter than it was.
    #[error("compressed message is more than {max} times as long as what it becomes")]
    DeflateWaste {
        /// The factor that is allowed.
        max: u64,
    },
}

impl Violation {
    /// What both peers are told (RFC 6455 §7.4.1).
    #[must_use]
    pub fn close_code(self) -> u16 {
        match self {
            Self::MessageTooBig { .. } | Self::DeflateGrowth { .. } => 1009,
            Self::CloseReason | Self::Utf8 | Self::Deflate => 1007,
            Self::NotBinary => 1003,
            Self::DeflateWaste { .. } => 1008,
            Self::Unmasked
            | Self::Masked
            | Self::ReservedBits { .. }
            | Self::UnknownOpcode { .. }
            | Self::ControlFragmented
            | Self::ControlTooLong
            | Self::LengthNotMinimal { .. }
            | Self::LengthOverflow
            | Self::UnexpectedContinuation
            | Self::Interleaved
            | Self::CloseTruncated
            | Self::CloseCode { .. } => 1002,
        }
    }
}

/// What was broken, if that is what the error of a client's stream says: one that inflates knows rules of its own.
#[must_use]
#[cold]
pub fn violation_of(e: &io::Error) -> Option<Violation> {
    e.get_ref()?.downcast_ref().copied()
}
