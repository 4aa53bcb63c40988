//! A ticket key, what it is called, and the keys of tickets that come from it.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use aws_lc_rs::{hkdf, rand};
use zeroize::Zeroizing;

/// The length of a ticket key.
pub(crate) const SECRET_LEN: usize = 32;
pub(crate) const NAME_LEN: usize = 16;
pub(crate) const SALT_LEN: usize = 32;
/// More keys than any rotation needs.
pub(crate) const KEYS_MAX: usize = 16;

/// Why there are no ticket keys.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
pub enum TicketError {
    /// The operating system gave no randomness.
    #[error("session ticket keys can't be made: the system provides no random numbers")]
    Randomness,
    /// What was to be imported is no export of this version.
    #[error("the session ticket keys that were handed over have an unknown format")]
    Import,
}

/// A ticket key: 256 random bits, and what it is called in tickets.
#[derive(Clone)]
pub(crate) struct TicketKey {
    pub(crate) name: [u8; NAME_LEN],
    pub(crate) secret: Zeroizing<[u8; SECRET_LEN]>,
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TicketKey({:02x?})", self.name)
    }
}

impl TicketKey {
    pub(crate) fn new(secret: &[u8; SECRET_LEN]) -> Self {
        let (prk, mut name) = (prk(secret), [0; SECRET_LEN]);
        let filled = prk.expand(&[b"wssgate ticket key name"], hkdf::HKDF_SHA256);
        let _ = filled.and_then(|okm| okm.fill(&mut name)); // can't fail: HKDF has as many bytes
        let mut key = Self { name: [0; NAME_LEN], secret: Zeroizing::new(*secret) };
        key.name.copy_from_slice(&name[..NAME_LEN]);
        key
    }

    pub(crate) fn name(&self) -> &[u8; NAME_LEN] {
        &self.name
    }

    /// Enough of the name for people to distinguish keys.
    pub(crate) fn short_name(&self) -> String {
        self.name.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
    }

    pub(crate) fn random() -> Result<Self, TicketError> {
        let mut secret = Zeroizing::new([0; SECRET_LEN]);
        rand::fill(&mut secret[..]).map_err(|_| TicketError::Randomness)?;
        Ok(Self::new(&secret))
    }

    /// What signs with this key: none of its tickets is sealed with it.
    pub(crate) fn for_signing(&self) -> Zeroizing<[u8; SECRET_LEN]> {
        let (prk, mut secret) = (prk(&self.secret), Zeroizing::new([0; SECRET_LEN]));
        let filled = prk.expand(&[b"wssgate signing"], hkdf::HKDF_SHA256);
        let _ = filled.and_then(|okm| okm.fill(&mut secret[..])); // can't fail: HKDF has as many bytes
        secret
    }

    /// The key of one ticket.
    pub(crate) fn for_ticket(&self, salt: &[u8; SALT_LEN]) -> Option<LessSafeKey> {
        let info = [b"wssgate ticket", &salt[..]];
        let key = prk(&self.secret).expand(&info, &AES_256_GCM).ok().map(UnboundKey::from);
        key.map(LessSafeKey::new)
    }
}

/// The secret is uniformly random, so that nothing needs to be extracted (RFC 5869 §3.3).
fn prk(secret: &[u8; SECRET_LEN]) -> hkdf::Prk {
    hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, secret)
}
