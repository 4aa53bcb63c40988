//! How far back a message may refer, and what each message goes without.

use net_io::state::{StateError, StateReader, StateWriter};

/// The end of each flush, which frames go without (RFC 7692 §7.2.1).
pub(super) const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];
/// What zlib can compress with. It takes 8, and then needs 9.
pub(crate) const WINDOW_BITS_MIN: u8 = 9;
/// A window of 32 KiB, the largest (RFC 7692 §7.1.2).
pub(super) const WINDOW_BITS_MAX: u8 = 15;
/// So many sizes of windows that are compressed with.
pub(crate) const WINDOW_SIZES: usize = (WINDOW_BITS_MAX - WINDOW_BITS_MIN + 1) as usize;

/// What both ends have agreed upon for one direction (RFC 7692 §7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// How far back a message may refer: two to the power of this many bytes. 8 to 15.
    pub bits: u8,
    /// It may refer to the messages before it. If not, each can be read by itself.
    pub is_kept: bool,
}

impl Window {
    /// Bytes of earlier messages that a message may refer to.
    #[must_use]
    pub fn kept_len(self) -> usize {
        if self.is_kept { 1 << self.bits.min(WINDOW_BITS_MAX) } else { 0 }
    }

    pub(super) fn write_state(self, out: &mut StateWriter) {
        let Self { bits, is_kept } = self;
        out.u8(bits);
        out.bool(is_kept);
    }

    pub(super) fn read_state(fields: &mut StateReader<'_>) -> Result<Self, StateError> {
        let (bits, is_kept) = (fields.u8()?, fields.bool()?);
        if !(8..=WINDOW_BITS_MAX).contains(&bits) {
            return Err(StateError::Invalid("a window of compression"));
        }
        Ok(Self { bits, is_kept })
    }
}
