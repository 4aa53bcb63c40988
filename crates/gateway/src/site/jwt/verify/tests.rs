//! Tokens that are good, and those that attackers send.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use proptest::prelude::*;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256};
use serde_json::json;

use super::*;
use crate::site::jwt::place::TokenPlace;
use crate::site::jwt::source::{KeySource, TokenKeys};
use crate::site::written::Place;

#[path = "../../../../fuzz/relations/tokens.rs"]
mod relations;

const NOW: u64 = 1_800_000_000;
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

struct Issuer {
    key: EncodingKey,
    jwk: Value,
    pem: String,
    algorithm: Algorithm,
}

fn issuer(algorithm: Algorithm, id: Option<&str>) -> Issuer {
    let kind = match algorithm {
        Algorithm::RS256 | Algorithm::PS256 => &PKCS_RSA_SHA256,
        Algorithm::ES256 => &PKCS_ECDSA_P256_SHA256,
        _ => &PKCS_ED25519,
    };
    let pair = KeyPair::generate_for(kind).unwrap();
    let private = pair.serialize_pem();
    let key = match algorithm {
        Algorithm::RS256 | Algorithm::PS256 => EncodingKey::from_rsa_pem(private.as_bytes()),
        Algorithm::ES256 => EncodingKey::from_ec_pem(private.as_bytes()),
        _ => EncodingKey::from_ed_pem(private.as_bytes()),
    };
    let key = key.unwrap();
    let mut jwk = match algorithm {
        Algorithm::EdDSA => {
            json!({ "kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(pair.public_key_raw()) })
        }
        _ => serde_json::to_value(Jwk::from_encoding_key(&key, algorithm).unwrap()).unwrap(),
    };
    jwk.as_object_mut().unwrap().remove("kid");
    if let Some(id) = id {
        jwk["kid"] = id.into();
    }
    Issuer { key, jwk, pem: pair.public_key_pem(), algorithm }
}

impl Issuer {
    fn sign(&self, id: Option<&str>, claims: &Value) -> String {
        let header = Header { kid: id.map(Into::into), ..Header::new(self.algorithm) };
        encode(&header, claims, &self.key).unwrap()
    }
}

fn jwt() -> Jwt {
    Jwt {
        keys: TokenKeys::new(KeySource::File("keys.json".into()), Place::default()).into(),
        issuers: vec!["https://issuer.test".into()],
        audiences: vec!["chat".into(), "api".into()],
        places: vec![TokenPlace::Header],
        fields: Vec::new(),
        is_passed: false,
    }
}

fn secret() -> KeySet {
    KeySet::read(json!({ "kty": "oct", "k": URL_SAFE_NO_PAD.encode(SECRET) }).to_string().as_bytes()).unwrap()
}

fn good() -> Value {
    json!({ "iss": "https://issuer.test", "aud": ["x", "chat"], "sub": "alice", "exp": NOW + 60 })
}

fn set(issuers: &[&Issuer]) -> KeySet {
    let keys: Vec<_> = issuers.iter().map(|issuer| issuer.jwk.clone()).collect();
    KeySet::read(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

#[test]
fn each_algorithm_by_its_key() {
    for algorithm in [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA] {
        let issuer = issuer(algorithm, Some("k1"));
        let token = issuer.sign(Some("k1"), &good());
        for keys in [set(&[&issuer]), KeySet::read(issuer.pem.as_bytes()).unwrap()] {
            let claims = verify(&jwt(), &keys, &token, NOW).unwrap();
            assert_eq!((claims.text("sub"), claims.expiry), (Some("alice"), NOW + 60));
            assert_eq!(claims.key_id.as_deref(), Some("k1"));
        }
        // Any byte that is changed.
        for at in [0, token.len() / 2, token.len() - 10] {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            assert!(verify(&jwt(), &set(&[&issuer]), std::str::from_utf8(&bytes).unwrap(), NOW).is_err());
        }
    }
    let secret = secret();
    let key = EncodingKey::from_secret(SECRET).unwrap();
    let token = encode(&Header::new(Algorithm::HS512), &good(), &key).unwrap();
    verify(&jwt(), &secret, &token, NOW).unwrap();
}

#[test]
fn algorithms_that_are_not_the_keys() {
    let rsa = issuer(Algorithm::RS256, Some("k1"));
    let part = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
    // No signature at all (RFC 7518 §3.6).
    for name in ["none", "None", "NONE", ""] {
        let token = format!("{}.{}.", part(json!({ "alg": name, "kid": "k1" })), part(good()));
        assert_eq!(verify(&jwt(), &set(&[&rsa]), &token, NOW), Err(TokenFault::Malformed), "{name}");
    }
    // The public key as the secret of an HMAC, in each form that a verifier may have it in.
    let n = URL_SAFE_NO_PAD.decode(rsa.jwk["n"].as_str().unwrap()).unwrap();
    for secret in
        [rsa.pem.as_bytes(), rsa.pem.trim().as_bytes(), &n, rsa.jwk["n"].as_str().unwrap().as_bytes()]
    {
        for algorithm in [Algorithm::HS256, Algorithm::HS512] {
            let header = Header { kid: Some("k1".into()), ..Header::new(algorithm) };
            let token = encode(&header, &good(), &EncodingKey::from_secret(secret).unwrap()).unwrap();
            for keys in [set(&[&rsa]), KeySet::read(rsa.pem.as_bytes()).unwrap()] {
                assert_eq!(verify(&jwt(), &keys, &token, NOW), Err(TokenFault::Algorithm));
            }
        }
    }
    // A key that says what it is for is for nothing else.
    let mut pss = issuer(Algorithm::RS256, Some("k1"));
    pss.jwk["alg"] = "PS256".into();
    let token = pss.sign(Some("k1"), &good());
    assert_eq!(verify(&jwt(), &set(&[&pss]), &token, NOW), Err(TokenFault::Algorithm));
}

#[test]
fn keys_are_found_by_their_ids() {
    let (a, b) = (issuer(Algorithm::ES256, Some("a")), issuer(Algorithm::ES256, Some("b")));
    let keys = set(&[&a, &b]);
    let check = |issuer: &Issuer, id| verify(&jwt(), &keys, &issuer.sign(id, &good()), NOW).map(drop);
    assert_eq!(check(&a, Some("a")), Ok(()));
    assert_eq!(check(&b, None), Ok(()), "one of them");
    assert_eq!(check(&a, Some("b")), Err(TokenFault::Signature));
    assert_eq!(check(&a, Some("c")), Err(TokenFault::UnknownKey));
    assert_eq!(check(&issuer(Algorithm::ES256, None), None), Err(TokenFault::Signature));
    assert!(keys.knows(Some("a")) && !keys.knows(Some("c")));
}

#[test]
fn what_a_token_has_to_say() {
    let issuer = issuer(Algorithm::EdDSA, None);
    let keys = set(&[&issuer]);
    for (claim, value, expect) in [
        ("exp", json!(NOW + 1), Ok(())),
        ("exp", json!(NOW as f64 + 60.5), Ok(())),
        ("exp", json!(1e300), Ok(())),
        ("exp", json!(NOW), Err(TokenFault::Expired)),
        ("exp", json!(0), Err(TokenFault::Expired)),
        ("exp", Value::Null, Err(TokenFault::Claims)),
        ("exp", json!((NOW + 60).to_string()), Err(TokenFault::Claims)),
        ("exp", json!([NOW + 60]), Err(TokenFault::Claims)),
        ("exp", json!(true), Err(TokenFault::Claims)),
        ("exp", json!(-1), Err(TokenFault::Claims)),
        ("nbf", json!(NOW), Ok(())),
        ("nbf", json!(NOW + 29), Ok(())),
        ("nbf", json!(NOW + 31), Err(TokenFault::Immature)),
        ("nbf", json!("0"), Err(TokenFault::Claims)),
        ("iss", Value::Null, Err(TokenFault::Issuer)),
        ("iss", json!("https://issuer.test/"), Err(TokenFault::Issuer)),
        ("iss", json!(["https://issuer.test"]), Err(TokenFault::Issuer)),
        ("aud", json!("api"), Ok(())),
        ("aud", Value::Null, Err(TokenFault::Audience)),
        ("aud", json!([]), Err(TokenFault::Audience)),
        ("aud", json!("cha"), Err(TokenFault::Audience)),
        ("aud", json!({ "chat": 1 }), Err(TokenFault::Audience)),
        ("sub", json!(7), Err(TokenFault::Claims)),
        ("other", json!({ "deep": [[[[1]]]] }), Ok(())),
    ] {
        let mut claims = good();
        match &value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(claim)),
            value => claims[claim] = value.clone(),
        }
        let said = verify(&jwt(), &keys, &issuer.sign(None, &claims), NOW).map(drop);
        // The library finds some faults of form itself.
        let is_form = |fault: &Result<(), TokenFault>| {
            matches!(
                fault,
                Err(TokenFault::Claims | TokenFault::Malformed | TokenFault::Issuer | TokenFault::Audience)
            )
        };
        assert!(said == expect || (is_form(&said) && is_form(&expect)), "{claim} {value}: {said:?}");
    }
    // Without issuers and audiences nothing is asked.
    let open = Jwt { issuers: Vec::new(), audiences: Vec::new(), ..jwt() };
    verify(&open, &keys, &issuer.sign(None, &json!({ "exp": NOW + 1 })), NOW).unwrap();
}

#[test]
fn forms_that_are_none() {
    let issuer = issuer(Algorithm::EdDSA, None);
    let keys = set(&[&issuer]);
    let token = issuer.sign(None, &good());
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let deep = format!("{}.{}.AA", token.split('.').next().unwrap(), URL_SAFE_NO_PAD.encode(nested(5000)));
    let huge = issuer.sign(None, &json!({ "exp": NOW + 60, "x": "x".repeat(20_000) }));
    let critical = {
        let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","crit":["x"],"x":1}"#);
        format!("{head}.{}", token.split_once('.').unwrap().1)
    };
    for bad in [
        "",
        ".",
        "..",
        "a.b.c",
        "a.b",
        &token[1..],
        &format!("{token}.x"),
        &format!("{token}="),
        &deep,
        &huge,
        &critical,
    ] {
        assert!(verify(&jwt(), &keys, bad, NOW).is_err(), "{}", &bad[..bad.len().min(60)]);
    }
    assert_eq!(verify(&jwt(), &keys, &huge, NOW), Err(TokenFault::Malformed));
}

#[test]
fn files_of_keys() {
    let rsa = issuer(Algorithm::RS256, Some("a"));
    let strange = json!({ "keys": [{ "kty": "new" }, { "kty": "oct", "k": "c2hvcnQ" }, { "kty": "EC", "crv": "P-521" }, rsa.jwk] });
    assert_eq!(
        KeySet::read(strange.to_string().as_bytes()).unwrap().candidates(None, Algorithm::RS256).count(),
        1
    );
    assert!(KeySet::read(rsa.jwk.to_string().as_bytes()).is_ok(), "a single key");
    let mut encryption = rsa.jwk.clone();
    encryption["use"] = "enc".into();
    let private = KeyPair::generate().unwrap().serialize_pem();
    for (text, expect) in [
        (String::new(), "is neither a set of keys"),
        ("keys".to_owned(), "is neither a set of keys"),
        ("[]".to_owned(), "is no JSON object"),
        ("{}".to_owned(), "holds no key"),
        (json!({ "keys": 1 }).to_string(), "has a member keys that is no list"),
        (json!({ "keys": [] }).to_string(), "holds no key"),
        (json!({ "keys": [encryption] }).to_string(), "holds no key"),
        (json!({ "keys": vec![rsa.jwk.clone(); 65] }).to_string(), "holds more than 64 keys"),
        (private, "holds a private key"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n".to_owned(), "holds no public key"),
    ] {
        let said = KeySet::read(text.as_bytes()).unwrap_err();
        assert!(said.starts_with(expect), "{said}");
    }
}

#[test]
fn claims_as_fields() {
    let all = json!({ "a": "x y", "n": 7, "l": ["a", "b,c"], "b": true, "z": null, "bad": "a\r\nX: y", "outer": " x" });
    let claims = Claims { all: all.as_object().unwrap().clone(), expiry: 0, key_id: None };
    for (claim, expect) in [
        ("a", Some("x y")),
        ("n", Some("7")),
        ("l", Some("[\"a\",\"b,c\"]")),
        ("b", Some("true")),
        ("z", None),
        ("none", None),
    ] {
        assert_eq!(claims.field(claim).unwrap().as_ref().map(|v| v.to_str().unwrap()), expect, "{claim}");
    }
    assert_eq!(claims.field("bad"), Err(TokenFault::Claims));
    assert_eq!(claims.field("outer"), Err(TokenFault::Claims));
}

proptest! {
    #[test]
    fn nothing_is_too_strange(token in ".{0,80}", head in "\\{.{0,40}\\}", body in "\\{.{0,40}\\}") {
        let keys = secret();
        prop_assert!(verify(&jwt(), &keys, &token, NOW).is_err());
        let [head, body] = [head, body].map(|part| URL_SAFE_NO_PAD.encode(part));
        let token = format!("{head}.{body}.{head}");
        prop_assert!(verify(&jwt(), &keys, &token, NOW).is_err());
        let _ = KeySet::read(token.as_bytes());
    }
}

#[test]
fn the_corpus() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/tokens");
    let mut count = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        relations::tokens(&std::fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 20, "{count}");
}
