//! Frames as the load generator and the backend need them (RFC 6455 §5.2): heads, masks, nothing else.

pub(crate) const BINARY: u8 = 0x82;
pub(crate) const TEXT: u8 = 0x81;
pub(crate) const CLOSE: u8 = 0x88;
pub(crate) const PING: u8 = 0x89;
pub(crate) const PONG: u8 = 0x8A;

/// The first 2 to 14 bytes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// FIN, the reserved bits and the opcode, as they are on the wire.
    pub(crate) first: u8,
    pub(crate) payload_len: u64,
    pub(crate) mask: Option<[u8; 4]>,
}

impl Head {
    /// The head at the front of `input` and its length, if it is whole.
    pub(crate) fn parse(input: &[u8]) -> Option<(Self, usize)> {
        let &[first, second, ref rest @ ..] = input else { return None };
        let (payload_len, rest) = match second & 0x7F {
            126 => rest.split_first_chunk().map(|(len, rest)| (u64::from(u16::from_be_bytes(*len)), rest))?,
            127 => rest.split_first_chunk().map(|(len, rest)| (u64::from_be_bytes(*len), rest))?,
            len => (u64::from(len), rest),
        };
        let (mask, rest) = match second & 0x80 {
            0 => (None, rest),
            _ => rest.split_first_chunk().map(|(mask, rest)| (Some(*mask), rest))?,
        };
        Some((Self { first, payload_len, mask }, input.len() - rest.len()))
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        let masked = if self.mask.is_some() { 0x80 } else { 0 };
        match (u8::try_from(self.payload_len), u16::try_from(self.payload_len)) {
            (Ok(len @ ..=125), _) => out.extend([self.first, masked | len]),
            (_, Ok(len)) => {
                out.extend([self.first, masked | 126]);
                out.extend(len.to_be_bytes());
            }
            _ => {
                out.extend([self.first, masked | 127]);
                out.extend(self.payload_len.to_be_bytes());
            }
        }
        out.extend(self.mask.iter().flatten());
    }
}

/// Gathers a head whose bytes arrive in parts.
#[derive(Debug, Default)]
pub(crate) struct HeadReader(Vec<u8>);

impl HeadReader {
    /// Takes from `input` what belongs to the head.
    pub(crate) fn read(&mut self, input: &mut &[u8]) -> Option<Head> {
        if self.0.is_empty()
            && let Some((head, len)) = Head::parse(input)
        {
            *input = &input[len..];
            return Some(head);
        }
        while let Some((&byte, rest)) = input.split_first() {
            self.0.push(byte);
            *input = rest;
            if let Some((head, _)) = Head::parse(&self.0) {
                self.0.clear();
                return Some(head);
            }
        }
        None
    }
}

/// Masks or unmasks a part of a payload that begins at `offset` in it.
pub(crate) fn apply_mask(part: &mut [u8], mask: [u8; 4], offset: usize) {
    let turned: [u8; 4] = std::array::from_fn(|i| mask[(offset + i) % 4]);
    let wide = u64::from_ne_bytes(std::array::from_fn(|i| turned[i % 4]));
    let (words, tail) = part.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in tail.iter_mut().zip(turned.iter().cycle()) {
        *byte ^= mask;
    }
}

/// A whole masked frame, as clients send it.
pub(crate) fn put_masked(out: &mut Vec<u8>, first: u8, payload: &[&[u8]], mask: [u8; 4]) {
    let payload_len = payload.iter().map(|part| part.len() as u64).sum();
    Head { first, payload_len, mask: Some(mask) }.put(out);
    let start = out.len();
    for part in payload {
        out.extend_from_slice(part);
    }
    apply_mask(&mut out[start..], mask, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_survive_the_wire_in_any_split() {
        for payload_len in [0, 1, 125, 126, 65_535, 65_536, 1 << 40] {
            for mask in [None, Some([1, 2, 3, 4])] {
                let head = Head { first: BINARY, payload_len, mask };
                let mut wire = Vec::new();
                head.put(&mut wire);
                assert_eq!(Head::parse(&wire), Some((head, wire.len())));
                for cut in 0..wire.len() {
                    let mut reader = HeadReader::default();
                    let (mut front, mut back) = wire.split_at(cut);
                    assert_eq!(reader.read(&mut front), None);
                    assert_eq!(reader.read(&mut back), Some(head));
                    assert!(front.is_empty() && back.is_empty());
                }
            }
        }
    }

    #[test]
    fn a_mask_goes_on_at_any_offset() {
        let mask = [0xA1, 0xB2, 0xC3, 0xD4];
        let plain: Vec<u8> = (0..100).collect();
        for cut in 0..plain.len() {
            let mut parts = plain.clone();
            let (front, back) = parts.split_at_mut(cut);
            apply_mask(front, mask, 0);
            apply_mask(back, mask, cut);
            for (i, byte) in parts.iter().enumerate() {
                assert_eq!(*byte, plain[i] ^ mask[i % 4]);
            }
        }
    }
}
