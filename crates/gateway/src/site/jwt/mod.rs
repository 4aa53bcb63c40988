//! Tokens that say who sends a request (RFC 7519): where they are, which keys sign them, what they have to say. Pure.

pub mod keys;
pub mod place;
pub mod source;
pub mod verify;

use std::sync::Arc;

use http::HeaderName;

use self::place::TokenPlace;
use self::source::TokenKeys;

/// How a route reads tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwt {
    /// The keys that sign them.
    pub keys: Arc<TokenKeys>,
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

impl Jwt {
    /// A token with these values would still be good: its issuer, its audience and its key are known. Its expiry is
    /// another matter.
    #[must_use]
    pub fn takes(&self, issuer: Option<&str>, audience: &[Box<str>], key_id: Option<&str>) -> bool {
        let is_known = |known: &[Box<str>], said: &str| known.iter().any(|one| **one == *said);
        (self.issuers.is_empty() || issuer.is_some_and(|issuer| is_known(&self.issuers, issuer)))
            && (self.audiences.is_empty() || audience.iter().any(|said| is_known(&self.audiences, said)))
            && self.keys.with(|keys| keys.knows(key_id)).unwrap_or(true) // they have not come yet
    }
}
