//! nkeys: Ed25519 keys (RFC 8032) as NATS writes them, in base32 with a prefix and a checksum. Pure.
//! <https://docs.nats.io/running-a-nats-service/configuration/securing_nats/auth_intro/nkey_auth>

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use data_encoding::BASE32_NOPAD;

/// The first five bits of a seed, `S`, and all eight of a user, `U`.
const SEED: u8 = 18 << 3;
const USER: u8 = 20 << 3;
/// Bytes of the prefix, the seed, and the checksum.
const LEN: usize = 2 + 32 + 2;

/// Not the seed of a user. It doesn't repeat it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no seed of an nkey of a user, which is 58 characters that begin with SU")]
pub(super) struct NoSeed;

/// The key of a user.
pub(super) struct NKey(Ed25519KeyPair);

impl NKey {
    /// From its seed.
    pub(super) fn parse(seed: &str) -> Result<Self, NoSeed> {
        let bytes = BASE32_NOPAD.decode(seed.as_bytes()).map_err(|_| NoSeed)?;
        let (said, checksum) = bytes.split_last_chunk::<2>().ok_or(NoSeed)?;
        let [first, second, seed @ ..] = said else { return Err(NoSeed) };
        // Five bits say that it is a seed, the next eight whose.
        let is_users = first & 0xF8 == SEED && (first << 5) | (second >> 3) == USER;
        if bytes.len() != LEN || !is_users || crc(said) != u16::from_le_bytes(*checksum) {
            return Err(NoSeed);
        }
        Ed25519KeyPair::from_seed_unchecked(seed).map(Self).map_err(|_| NoSeed)
    }

    /// As it is written in the configuration of servers.
    pub(super) fn public(&self) -> String {
        let mut bytes = vec![USER];
        bytes.extend_from_slice(self.0.public_key().as_ref());
        let checksum = crc(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        BASE32_NOPAD.encode(&bytes)
    }

    /// A signature, in base64 for URLs.
    pub(super) fn sign(&self, nonce: &str) -> String {
        URL_SAFE_NO_PAD.encode(self.0.sign(nonce.as_bytes()))
    }
}

/// CRC-16/XMODEM.
fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc: u16, _| {
            (crc << 1) ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 }
        })
    })
}

/// The seed of a user; 32 bytes of 7.
#[cfg(test)]
pub(super) const EXAMPLE: &str = "SUAAOBYHA4DQOBYHA4DQOBYHA4DQOBYHA4DQOBYHA4DQOBYHA4DQOBZ5FE";

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

    use super::*;

    fn has_signed(public: &str, nonce: &str, signature: &str) -> bool {
        let public = BASE32_NOPAD.decode(public.as_bytes()).unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        UnparsedPublicKey::new(&ED25519, &public[1..33]).verify(nonce.as_bytes(), &signature).is_ok()
    }

    #[test]
    fn a_key_is_known_by_its_public_part_and_signs() {
        assert_eq!(crc(b"123456789"), 0x31C3, "the check value of CRC-16/XMODEM");
        let key = NKey::parse(EXAMPLE).unwrap();
        let public = key.public();
        assert!(public.starts_with('U') && public.len() == 56, "{public}");
        assert!(has_signed(&public, "nonce", &key.sign("nonce")));
        assert!(!has_signed(&public, "other", &key.sign("nonce")));
    }

    #[test]
    fn what_is_no_seed_of_a_user_is_refused() {
        let seed = EXAMPLE;
        let public = NKey::parse(seed).unwrap().public();
        let mistyped = seed.replacen('A', "B", 1);
        assert_ne!(mistyped, seed);
        let of_an_account = {
            let mut bytes = BASE32_NOPAD.decode(seed.as_bytes()).unwrap();
            (bytes[0], bytes[1]) = (SEED, 0);
            let checksum = crc(&bytes[..34]);
            bytes[34..].copy_from_slice(&checksum.to_le_bytes());
            BASE32_NOPAD.encode(&bytes)
        };
        let bad = [
            "",
            "S",
            "SU",
            &seed[..57],
            &format!("{seed}AA"),
            &seed.to_lowercase(),
            &public,
            &mistyped,
            &of_an_account,
        ];
        for text in bad {
            assert_eq!(NKey::parse(text).map(|_| ()), Err(NoSeed), "{text}");
        }
        assert!(!NoSeed.to_string().contains(seed));
    }
}
