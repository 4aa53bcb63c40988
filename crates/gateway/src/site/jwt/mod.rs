//! Tokens that say who sends a request (RFC 7519): where they are, which keys sign them, what they have to say. Pure.

pub mod keys;
pub mod place;
pub mod verify;

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::HeaderName;

use self::keys::KeySet;
use self::place::TokenPlace;
use crate::site::written::Place;

/// How a route reads tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwt {
    /// The keys that sign them.
    pub keys: Arc<KeyFile>,
    /// `iss` has to be one of them; none: it is not asked.
    pub issuers: Vec<Box<str>>,
    /// `aud` has to name one of them; none: it is not asked.
    pub audiences: Vec<Box<str>>,
    /// Where a token may be. The first place that has one counts.
    pub places: Vec<TokenPlace>,
    /// Claims, and the fields in which the backend gets them.
    pub fields: Vec<(Box<str>, HeaderName)>,
    /// The backend gets the token, too, where it came in a field or a cookie.
    pub is_passed: bool,
}

/// A file of keys, and what it holds.
#[derive(Debug)]
pub struct KeyFile {
    /// Its path.
    pub path: PathBuf,
    /// Where the configuration names it.
    pub written_at: Place,
    keys: ArcSwapOption<KeySet>,
}

impl KeyFile {
    /// One that has not been read yet: no token is good.
    #[must_use]
    pub fn new(path: PathBuf, written_at: Place) -> Self {
        Self { path, written_at, keys: ArcSwapOption::empty() }
    }

    /// Understands what it holds, and uses that from now on.
    ///
    /// # Errors
    /// What is wrong with it; no text of it is repeated.
    pub fn use_text(&self, text: &[u8]) -> Result<(), &'static str> {
        self.keys.store(Some(Arc::new(KeySet::read(text)?)));
        Ok(())
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> Option<Arc<KeySet>> {
        self.keys.load_full() // never a guard: arc-swap's are not for holding
    }
}

impl Jwt {
    /// A token with these values would still be good: its issuer, its audience and its key are known. Its expiry is
    /// another matter.
    #[must_use]
    pub fn takes(&self, issuer: Option<&str>, audience: &[Box<str>], key_id: Option<&str>) -> bool {
        let is_known = |known: &[Box<str>], said: &str| known.iter().any(|one| **one == *said);
        (self.issuers.is_empty() || issuer.is_some_and(|issuer| is_known(&self.issuers, issuer)))
            && (self.audiences.is_empty() || audience.iter().any(|said| is_known(&self.audiences, said)))
            && self.keys.keys().is_some_and(|keys| keys.knows(key_id))
    }
}

impl PartialEq for KeyFile {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

impl Eq for KeyFile {}
