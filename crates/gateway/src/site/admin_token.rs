//! The token of the admin listener's page. Pure.

use std::fmt;
use std::path::PathBuf;
use std::sync::OnceLock;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::site::written::Place;

/// So long that it can't be guessed, in bytes.
pub const TOKEN_LEN_MIN: usize = 32;

/// What people and programs have to know to see the page. Only its digest is kept, and nothing of it is shown.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminToken([u8; 32]);

impl AdminToken {
    /// `text` as a token: printable ASCII without blanks, [`TOKEN_LEN_MIN`] bytes at least; `None`: it is none.
    #[must_use]
    pub fn new(text: &[u8]) -> Option<Self> {
        let is_one = text.len() >= TOKEN_LEN_MIN && text.iter().all(u8::is_ascii_graphic);
        is_one.then(|| Self(digest(text)))
    }

    /// `text` is the token. Takes as long whatever the two have in common.
    #[must_use]
    pub fn is(&self, text: &[u8]) -> bool {
        self.0.ct_eq(&digest(text)).into()
    }
}

fn digest(text: &[u8]) -> [u8; 32] {
    Sha256::digest(text).into()
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(_)")
    }
}

/// A file with a token.
#[derive(Debug, Clone)]
pub struct TokenFile {
    /// Where it is.
    pub path: PathBuf,
    /// Where the configuration names it.
    pub written_at: Place,
    /// What is in it, and whether every user of the machine can read it; from when it was read.
    read: OnceLock<(AdminToken, bool)>,
}

impl TokenFile {
    /// It is not read yet: see [`Self::prepare`].
    #[must_use]
    pub fn new(path: PathBuf, written_at: Place) -> Self {
        Self { path, written_at, read: OnceLock::new() }
    }

    /// It has been read.
    pub fn prepare(&self, token: AdminToken, is_open: bool) {
        let _ = self.read.set((token, is_open));
    }

    /// The token, which is there before anything is served.
    #[must_use]
    pub fn get(&self) -> Option<&AdminToken> {
        self.read.get().map(|(token, _)| token)
    }

    /// Every user of the machine can read it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.read.get().is_some_and(|(_, is_open)| *is_open)
    }
}

impl PartialEq for TokenFile {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

impl Eq for TokenFile {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_and_not_shown() {
        let text = b"0123456789abcdef0123456789abcdef";
        let token = AdminToken::new(text).unwrap();
        assert!(token.is(text));
        for other in
            [&text[..31], b"", b"0123456789abcdef0123456789abcdeF", b"0123456789abcdef0123456789abcdef0"]
        {
            assert!(!token.is(other));
        }
        assert_eq!(format!("{token:?}"), "AdminToken(_)");
        for none in [&text[..31], b"0123456789abcdef 0123456789abcdef", &[0xC3; 40]] {
            assert_eq!(AdminToken::new(none), None);
        }
    }
}
