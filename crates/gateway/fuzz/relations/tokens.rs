//! What must hold for any token, and for any place that it may be in. Shared by the fuzz target and the unit tests.

use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use serde_json::{Value, json};
use sha2::Sha256;

use super::{Jwt, KeySet, KeySource, Place, TokenKeys, TokenPlace, verify};

const NOW: u64 = 1_800_000_000;
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
/// The public key of RFC 8037 §A.2.
const ED25519: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

/// The first byte chooses what the others are: a token, its header and its claims on a line each, which are signed with
/// the secret or with the public key, or a field and a target with a token in them.
pub(crate) fn tokens(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (head, claims) = text.split_once('\n').unwrap_or((text, ""));
    match choice % 4 {
        0 => assert!(verify(jwt(), keys(), text, NOW).is_err(), "this was never signed"),
        1 => signed(head, claims),
        2 => {
            let public = URL_SAFE_NO_PAD.decode(ED25519).unwrap_or_default();
            for secret in [ED25519.as_bytes(), &public, b""] {
                let token = token(head, claims, secret);
                assert!(verify(jwt(), keys(), &token, NOW).is_err(), "{token}: public keys are no secrets");
            }
        }
        _ => places(head, claims),
    }
}

/// A token that is signed with the secret. If it is believed, it is good by each rule of RFC 7519 and RFC 8725.
fn signed(head: &str, claims: &str) {
    let Ok(read) = verify(jwt(), keys(), &token(head, claims, SECRET), NOW) else { return };
    let (Ok(head), Ok(claims)) = (serde_json::from_str::<Value>(head), serde_json::from_str::<Value>(claims))
    else {
        panic!("{head:?} {claims:?} is no JSON")
    };
    assert_eq!(head["alg"], "HS256", "{head}: only this is signed so");
    assert!(head.get("crit").is_none(), "{head}: nothing is known that it may ask for");
    assert!(matches!(&head["kid"], Value::Null | Value::String(_)), "{head}");
    assert!(head["kid"].is_null() || head["kid"] == "s", "{head}: this key has another name");
    assert!(read.expiry >= NOW, "{claims}");
    assert!(claims["exp"].as_f64().is_some_and(|at| at > NOW as f64), "{claims}");
    assert!(
        claims.get("nbf").is_none_or(|at| at.as_f64().is_some_and(|at| at <= NOW as f64 + 60.0)),
        "{claims}"
    );
    assert_eq!(claims["iss"], "i", "{claims}");
    let is_for_us =
        claims["aud"] == "a" || claims["aud"].as_array().is_some_and(|all| all.contains(&"a".into()));
    assert!(is_for_us, "{claims}");
    assert!(claims.get("sub").is_none_or(Value::is_string), "{claims}");
    for claim in ["sub", "x"] {
        if let Ok(Some(value)) = read.field(claim) {
            assert!(value.as_bytes() == value.as_bytes().trim_ascii() && !value.as_bytes().contains(&b'\n'));
        }
    }
}

/// Once a token has been taken out, there is none left.
fn places(field: &str, target: &str) {
    for (place, name) in [
        ("header", "authorization"),
        ("cookie:t", "cookie"),
        ("query:t", "x-other"),
        ("subprotocol:b.", "sec-websocket-protocol"),
    ] {
        let Some(place) = TokenPlace::parse(place) else { panic!("{place} is a place") };
        let mut headers = HeaderMap::new();
        for line in field.split('\t') {
            if let Ok(value) = HeaderValue::from_str(line) {
                headers.append(HeaderName::from_static(name), value);
            }
        }
        let mut uri: Uri = target.parse().unwrap_or_default();
        let (before, uri_before) = (headers.clone(), uri.clone());
        let seen = place.take(&mut headers, &mut uri, false);
        assert_eq!((&headers, &uri), (&before, &uri_before), "{place}: nothing is taken out yet");
        let taken = place.take(&mut headers, &mut uri, true);
        assert_eq!(taken, seen, "{place}");
        if taken.is_none() {
            assert_eq!(uri, uri_before, "{place}: there was nothing to be taken out");
            continue;
        }
        assert_eq!(place.take(&mut headers, &mut uri, false), None, "{place}: {headers:?} {uri}");
        assert_eq!((uri.path(), uri.authority()), (uri_before.path(), uri_before.authority()), "{place}");
    }
}

fn token(head: &str, claims: &str, secret: &[u8]) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(claims));
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { panic!("any secret is good") };
    mac.update(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

fn keys() -> &'static KeySet {
    static KEYS: OnceLock<KeySet> = OnceLock::new();
    KEYS.get_or_init(|| {
        let secret = json!({ "kty": "oct", "kid": "s", "alg": "HS256", "k": URL_SAFE_NO_PAD.encode(SECRET) });
        let public = json!({ "kty": "OKP", "kid": "p", "crv": "Ed25519", "x": ED25519 });
        match KeySet::read(json!({ "keys": [secret, public] }).to_string().as_bytes()) {
            Ok(keys) => keys,
            Err(e) => panic!("the keys: {e}"),
        }
    })
}

fn jwt() -> &'static Jwt {
    static JWT: OnceLock<Jwt> = OnceLock::new();
    JWT.get_or_init(|| Jwt {
        keys: TokenKeys::new(KeySource::File("keys.json".into()), Place::default()).into(),
        issuers: vec!["i".into()],
        audiences: vec!["a".into()],
        places: vec![TokenPlace::Header],
        fields: Vec::new(),
        is_passed: false,
    })
}
