//! A token and the keys → what it says, or why it is not believed (RFC 7519 §7.2, RFC 8725). Pure.
//!
//! Refused: an algorithm that is not the key's, `none` included; a token without `exp`; numbers that are none; `iss` and
//! `aud` that are missing or others where the route asks for them; critical header parameters (RFC 7515 §4.1.11).

use http::HeaderValue;
use jsonwebtoken::{Validation, decode, decode_header};
use serde_json::{Map, Value};

use super::Jwt;
use super::keys::KeySet;

/// The longest token, in bytes. Heads of requests are not much longer.
const LEN_MAX: usize = 16 * 1024;
/// By so many seconds the clock of an issuer may be ahead.
const CLOCK_SECS: f64 = 30.0;

/// Why a token is not believed. Nothing of the token is part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// It is no token.
    #[error("the token is malformed")]
    Malformed,
    /// No key is known by its id.
    #[error("the token is signed with a key that is not known")]
    UnknownKey,
    /// Its algorithm is not one of the key.
    #[error("the token is signed with another algorithm than its key is for")]
    Algorithm,
    /// The key did not sign it.
    #[error("the signature of the token is not valid")]
    Signature,
    /// `exp` is over.
    #[error("the token has expired")]
    Expired,
    /// `nbf` has not come.
    #[error("the token is not valid yet")]
    Immature,
    /// `iss` is missing or another.
    #[error("the token is of another issuer")]
    Issuer,
    /// `aud` is missing or another.
    #[error("the token is for another audience")]
    Audience,
    /// `exp` is missing, or a claim has the wrong type.
    #[error("a claim of the token is missing or has the wrong type")]
    Claims,
}

/// What a token says.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims {
    /// Everything.
    pub all: Map<String, Value>,
    /// `exp`, in seconds of Unix time.
    pub expiry: u64,
    /// The id of the key that signed it.
    pub key_id: Option<Box<str>>,
}

impl Claims {
    /// A claim that is a text.
    #[must_use]
    pub fn text(&self, claim: &str) -> Option<&str> {
        self.all.get(claim)?.as_str()
    }

    /// A list of texts, or one.
    #[must_use]
    pub fn texts(&self, claim: &str) -> Vec<&str> {
        match self.all.get(claim) {
            Some(Value::String(text)) => vec![text],
            Some(Value::Array(texts)) => texts.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// A claim as the value of a field: a text as it is, anything else as JSON; `None`: it is missing.
    ///
    /// # Errors
    /// If it is a text that is no value of a field.
    pub fn field(&self, claim: &str) -> Result<Option<HeaderValue>, TokenFault> {
        let text = match self.all.get(claim) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        if text.trim_ascii() != text {
            return Err(TokenFault::Claims);
        }
        HeaderValue::try_from(text.into_bytes()).map(Some).map_err(|_| TokenFault::Claims)
    }
}

/// Believes a token, or not. `now` is in seconds of Unix time.
///
/// # Errors
/// Why not.
pub fn verify(jwt: &Jwt, keys: &KeySet, token: &str, now: u64) -> Result<Claims, TokenFault> {
    if token.len() > LEN_MAX || token.bytes().filter(|byte| *byte == b'.').count() != 2 {
        return Err(TokenFault::Malformed);
    }
    let header = decode_header(token).map_err(|_| TokenFault::Malformed)?;
    let id = header.kid.as_deref();
    if !keys.knows(id) {
        return Err(TokenFault::UnknownKey);
    }
    let mut fault = TokenFault::Algorithm;
    for key in keys.candidates(id, header.alg) {
        // By the key, never by the token.
        let mut validation = Validation::new(header.alg);
        validation.algorithms.clone_from(&key.algorithms);
        // Signature and form are the library's; what is said is judged below, at `now`.
        (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
        validation.required_spec_claims.clear();
        match decode::<Map<String, Value>>(token, &key.key, &validation) {
            Ok(decoded) => return judge(jwt, decoded.claims, key.id.clone().or(id.map(Into::into)), now),
            Err(e) => fault = fault_of(&e),
        }
    }
    Err(fault)
}

/// The id of the key that a token names, for the log: it is no secret, and no claim.
#[must_use]
pub fn key_id(token: &str) -> Option<String> {
    decode_header(token).ok()?.kid
}

fn fault_of(e: &jsonwebtoken::errors::Error) -> TokenFault {
    use jsonwebtoken::errors::ErrorKind;
    match e.kind() {
        ErrorKind::InvalidSignature => TokenFault::Signature,
        ErrorKind::InvalidAlgorithm => TokenFault::Algorithm,
        ErrorKind::InvalidClaimFormat(_) | ErrorKind::MissingRequiredClaim(_) => TokenFault::Claims,
        _ => TokenFault::Malformed,
    }
}

fn judge(
    jwt: &Jwt,
    all: Map<String, Value>,
    key_id: Option<Box<str>>,
    now: u64,
) -> Result<Claims, TokenFault> {
    let expiry = date(&all, "exp")?.ok_or(TokenFault::Claims)?;
    #[expect(clippy::cast_precision_loss, reason = "in the next million years there are bits enough")]
    let moment = now as f64;
    if expiry <= moment {
        return Err(TokenFault::Expired);
    }
    if date(&all, "nbf")?.is_some_and(|from| from > moment + CLOCK_SECS) {
        return Err(TokenFault::Immature);
    }
    // A float is cut off by `as`, and what is too large becomes the largest.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is later than now")]
    let claims = Claims { expiry: expiry as u64, all, key_id };
    if claims.all.get("sub").is_some_and(|sub| !sub.is_string()) {
        return Err(TokenFault::Claims);
    }
    let knows = |known: &[Box<str>], said: &str| known.iter().any(|one| **one == *said);
    if !jwt.issuers.is_empty() && !claims.text("iss").is_some_and(|said| knows(&jwt.issuers, said)) {
        return Err(TokenFault::Issuer);
    }
    let audiences = claims.texts("aud");
    if !jwt.audiences.is_empty() && !audiences.iter().any(|said| knows(&jwt.audiences, said)) {
        return Err(TokenFault::Audience);
    }
    Ok(claims)
}

/// A NumericDate (RFC 7519 §2).
fn date(claims: &Map<String, Value>, claim: &str) -> Result<Option<f64>, TokenFault> {
    match claims.get(claim) {
        None => Ok(None),
        Some(Value::Number(number)) => number
            .as_f64()
            .filter(|date| date.is_finite() && *date >= 0.0)
            .map(Some)
            .ok_or(TokenFault::Claims),
        Some(_) => Err(TokenFault::Claims),
    }
}

#[cfg(test)]
mod tests;
