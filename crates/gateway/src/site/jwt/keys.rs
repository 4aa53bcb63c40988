//! A file → the keys that tokens are signed with: a JWK set (RFC 7517), or a public key in PEM. Pure.
//!
//! The key says which algorithms it is for, never the token: so no public key is taken for the secret of an HMAC
//! (RFC 8725 §3.1). Keys of other kinds, and those that are not for signatures, are passed over.

use std::fmt;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

/// The shortest secret: as long as the hash (RFC 7518 §3.2).
const SECRET_LEN_MIN: usize = 32;
/// More keys than any issuer has at a time: a token without a key's id is tried with all of them.
const KEYS_MAX: usize = 64;

const RSA: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];
const HMAC: &[Algorithm] = &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];

/// A key.
pub struct Key {
    /// What tokens call it.
    pub id: Option<Box<str>>,
    /// What it signs with.
    pub algorithms: Vec<Algorithm>,
    /// The key itself.
    pub key: DecodingKey,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .field("algorithms", &self.algorithms)
            .finish_non_exhaustive()
    }
}

/// Keys that sign tokens; at least one.
#[derive(Debug)]
pub struct KeySet(Vec<Key>);

impl KeySet {
    /// Reads a JWK set, a single JWK, or a public key in PEM.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(text: &[u8]) -> Result<Self, &'static str> {
        let text = text.trim_ascii();
        if text.starts_with(b"-----BEGIN") {
            return pem(text);
        }
        let json: Value = serde_json::from_slice(text)
            .map_err(|_| "is neither a set of keys in JSON (RFC 7517) nor a public key in PEM")?;
        let keys = match &json {
            Value::Object(set) => match set.get("keys") {
                Some(Value::Array(keys)) => keys.as_slice(),
                Some(_) => return Err("has a member keys that is no list"),
                None => std::slice::from_ref(&json),
            },
            _ => return Err("is no JSON object"),
        };
        // Keys of kinds that are not known here don't spoil the others (RFC 7517 §5).
        let keys: Vec<Key> = keys.iter().filter_map(|jwk| of_jwk(Jwk::deserialize(jwk).ok()?)).collect();
        match keys.len() {
            0 => Err(
                "holds no key that tokens can be signed with (RSA, P-256, P-384, Ed25519, or a secret of 32 \
                      bytes or more)",
            ),
            1..=KEYS_MAX => Ok(Self(keys)),
            _ => Err("holds more than 64 keys"),
        }
    }

    /// The keys that a token may be signed with which names this one, or none, and this algorithm.
    pub fn candidates<'a>(
        &'a self,
        id: Option<&'a str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &'a Key> + 'a {
        let is_named = move |key: &&Key| id.is_none() || key.id.is_none() || key.id.as_deref() == id;
        self.0.iter().filter(is_named).filter(move |key| key.algorithms.contains(&algorithm))
    }

    /// Some token that is signed with one of these keys may not be with one of the `newer` ones.
    #[must_use]
    pub fn loses_some(&self, newer: &Self) -> bool {
        self.0.iter().any(|key| match &key.id {
            Some(id) => !newer.knows(Some(id)),
            None => newer.0.iter().all(|key| key.id.is_some()),
        })
    }

    /// There is a key of this id, or one that has none.
    #[must_use]
    pub fn knows(&self, id: Option<&str>) -> bool {
        id.is_none() || self.0.iter().any(|key| key.id.is_none() || key.id.as_deref() == id)
    }
}

fn of_jwk(jwk: Jwk) -> Option<Key> {
    let common = &jwk.common;
    let is_for_signatures = common.public_key_use.as_ref().is_none_or(|of| *of == PublicKeyUse::Signature)
        && common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
    if !is_for_signatures {
        return None;
    }
    let can: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => RSA,
        AlgorithmParameters::EllipticCurve(of) => match of.curve {
            EllipticCurve::P256 => &[Algorithm::ES256],
            EllipticCurve::P384 => &[Algorithm::ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(_) => &[Algorithm::EdDSA],
        AlgorithmParameters::OctetKey(_) => HMAC,
        _ => return None,
    };
    let algorithms = match &common.key_algorithm {
        Some(named) => {
            let named = named.to_string().parse().ok()?;
            can.contains(&named).then(|| vec![named])?
        }
        None => can.to_vec(),
    };
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    if algorithms.iter().all(|algorithm| HMAC.contains(algorithm))
        && key.try_get_as_bytes().is_ok_and(|secret| secret.len() < SECRET_LEN_MIN)
    {
        return None;
    }
    Some(Key { id: jwk.common.key_id.map(Into::into), algorithms, key })
}

fn pem(text: &[u8]) -> Result<KeySet, &'static str> {
    if text.windows(11).any(|window| window == b"PRIVATE KEY") {
        return Err("holds a private key; the gateway only needs the public one (openssl pkey -pubout)");
    }
    let (key, algorithms): (_, &[Algorithm]) = if let Ok(key) = DecodingKey::from_rsa_pem(text) {
        (key, RSA)
    } else if let Ok(key) = DecodingKey::from_ec_pem(text) {
        (key, &[Algorithm::ES256, Algorithm::ES384])
    } else if let Ok(key) = DecodingKey::from_ed_pem(text) {
        (key, &[Algorithm::EdDSA])
    } else {
        return Err("holds no public key in PEM that tokens can be signed with");
    };
    Ok(KeySet(vec![Key { id: None, algorithms: algorithms.to_vec(), key }]))
}
