//! The checksum that a header of version 2 may have among its TLVs (section 2.2.3, `PP2_TYPE_CRC32C`). Pure.
//!
//! In: the header, byte by byte. Out: whether its checksum is right, or there is none. No TLV is kept.

/// Section 2.2: of the TLV that holds the checksum.
const KIND: u8 = 0x03;
/// Of CRC32c, reflected (RFC 3720 §12.1).
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// What has come of a header.
#[derive(Debug)]
pub(super) struct Checksum {
    /// Of the bytes so far, with zeros in place of the checksum.
    crc: u32,
    /// Bytes up to the first TLV.
    gap: usize,
    /// The front of a TLV: kind and length.
    front: [u8; 3],
    front_len: usize,
    /// Bytes of the TLV's value that are still to come.
    left: usize,
    /// The value is the checksum.
    is_checksum: bool,
    /// The checksum in the header.
    told: Option<u32>,
    is_malformed: bool,
}

impl Checksum {
    /// Begins with these bytes of the header. TLVs begin so many bytes behind them; `None`: what follows means nothing.
    pub(super) fn begin(front: &[u8], gap: Option<usize>) -> Self {
        Self {
            crc: front.iter().fold(!0, |crc, byte| add(crc, *byte)),
            gap: gap.unwrap_or(usize::MAX),
            front: [0; 3],
            front_len: 0,
            left: 0,
            is_checksum: false,
            told: None,
            is_malformed: false,
        }
    }

    /// Takes one more byte.
    pub(super) fn push(&mut self, byte: u8) {
        let is_told = self.gap == 0 && self.left > 0 && self.is_checksum;
        self.crc = add(self.crc, if is_told { 0 } else { byte });
        if self.gap > 0 {
            self.gap -= 1;
        } else if self.left > 0 {
            self.left -= 1;
            if is_told {
                self.told = Some(self.told.unwrap_or(0) << 8 | u32::from(byte));
            }
        } else {
            self.front[self.front_len] = byte;
            self.front_len += 1;
            if let (3, [kind, high, low]) = (self.front_len, self.front) {
                self.front_len = 0;
                self.left = u16::from_be_bytes([high, low]).into();
                self.is_checksum = kind == KIND;
                self.is_malformed |= self.is_checksum && (self.left != 4 || self.told.is_some());
            }
        }
    }

    /// The header has come as it was sent, as far as it says.
    pub(super) fn is_right(&self) -> bool {
        !self.is_malformed && self.told.is_none_or(|told| told == !self.crc)
    }
}

fn add(crc: u32, byte: u8) -> u32 {
    (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_crc32c() {
        // RFC 3720 §B.4, and the check value of the catalogue.
        for (bytes, crc) in
            [(&b"123456789"[..], 0xe306_9283), (&[0; 32], 0x8a91_36aa), (&[0xff; 32], 0x62a8_ab43)]
        {
            assert_eq!(!Checksum::begin(bytes, None).crc, crc);
        }
    }
}
