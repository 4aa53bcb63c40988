//! The secrets that the keys of TLS 1.3 come from, and their successors (RFC 8446 §7.1–7.3). Of TLS 1.2, whose
//! keys have no successors, the keys themselves.
//!
//! rustls' kernel API would do it, with 800 bytes for each connection; two secrets need 100.

use aws_lc_rs::hkdf::{HKDF_SHA256, HKDF_SHA384, KeyType, Prk};
use zeroize::Zeroize;

use super::header::Fault;

/// Of SHA-384; of SHA-256 it is 32.
const LEN_MAX: usize = 48;

/// One direction's application traffic secret; in TLS 1.2 its key.
pub(crate) struct Secret {
    bytes: [u8; LEN_MAX],
    len: u8,
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl Secret {
    /// The secret of a suite whose hash is so long. `None` if there is no such suite.
    pub(crate) fn new(secret: &[u8]) -> Option<Self> {
        let len = u8::try_from(secret.len()).ok().filter(|len| matches!(len, 32 | 48))?;
        let mut bytes = [0; LEN_MAX];
        bytes[..secret.len()].copy_from_slice(secret);
        Some(Self { bytes, len })
    }

    /// The key of a suite of TLS 1.2, of which there is no more to be known. `None` if no AEAD has such a key.
    pub(crate) fn of_key(key: &[u8]) -> Option<Self> {
        let len = u8::try_from(key.len()).ok().filter(|len| matches!(len, 16 | 32))?;
        let mut bytes = [0; LEN_MAX];
        bytes[..key.len()].copy_from_slice(key);
        Some(Self { bytes, len })
    }

    /// As it is: for another process, or for an AEAD.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Becomes its successor (RFC 8446 §7.2).
    pub(crate) fn advance(&mut self) -> Result<(), Fault> {
        let mut next = [0; LEN_MAX];
        let done = self.expand(b"traffic upd", &mut next[..usize::from(self.len)]);
        self.bytes = next;
        next.zeroize();
        done
    }

    /// HKDF-Expand-Label without a context (RFC 8446 §7.1): `key` or `iv`, for instance.
    pub(crate) fn expand(&self, label: &[u8], out: &mut [u8]) -> Result<(), Fault> {
        let algorithm = if self.len == 32 { HKDF_SHA256 } else { HKDF_SHA384 };
        let prk = Prk::new_less_safe(algorithm, &self.bytes[..usize::from(self.len)]);
        let (Ok(out_len), Ok(label_len)) = (u16::try_from(out.len()), u8::try_from(label.len() + 6)) else {
            return Err(Fault::INTERNAL);
        };
        let info = [&out_len.to_be_bytes(), &[label_len][..], b"tls13 ", label, &[0]];
        let expanded = prk.expand(&info, OutLen(out.len())).and_then(|okm| okm.fill(out));
        expanded.map_err(|_| Fault::INTERNAL)
    }
}

struct OutLen(usize);

impl KeyType for OutLen {
    fn len(&self) -> usize {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits = text.split_whitespace().collect::<String>();
        (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect()
    }

    /// RFC 8448 §3: the server's application traffic secret, and what is made of it.
    #[test]
    fn keys_of_the_trace_in_rfc_8448() {
        let secret = Secret::new(&hex(
            "a1 1a f9 f0 55 31 f8 56 ad 47 11 6b 45 a9 50 32 82 04 b4 f4 4b fb 6b 3a 4b 4f 1f 3f cb 63 16 43",
        ));
        let (mut key, mut iv) = ([0; 16], [0; 12]);
        let secret = secret.unwrap();
        secret.expand(b"key", &mut key).unwrap();
        secret.expand(b"iv", &mut iv).unwrap();
        assert_eq!(key[..], hex("9f 02 28 3b 6c 9c 07 ef c2 6b b9 f2 ac 92 e3 56"));
        assert_eq!(iv[..], hex("cf 78 2b 88 dd 83 54 9a ad f1 e9 84"));
    }

    #[test]
    fn only_lengths_of_known_hashes() {
        for (len, good) in [(0, false), (31, false), (32, true), (48, true), (49, false), (300, false)] {
            assert_eq!(Secret::new(&vec![0; len]).is_some(), good, "{len}");
        }
        for (len, good) in [(0, false), (15, false), (16, true), (32, true), (33, false), (48, false)] {
            assert_eq!(Secret::of_key(&vec![0; len]).is_some(), good, "{len}");
        }
    }
}
