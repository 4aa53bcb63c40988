//! What a private key is that can't sign handshakes: for the message alone.
//!
//! In: DER. Out: a kind, from the algorithm's identifier and lengths. No part of the key is kept.

use std::fmt;

use rustls_pki_types::PrivateKeyDer;

use crate::der::{INTEGER, OBJECT_ID, SEQUENCE, expect};

/// What clients take, as advice.
const ADVICE: &str = "use ECDSA with P-256, or RSA with 2048 bits or more";
/// What the cryptographic library signs with.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// A key that isn't used, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// RSA, with so many bits.
    Rsa(usize),
    /// RSA for PSS signatures only (RFC 4055 §1.2).
    RsaPss,
    /// An elliptic curve that TLS 1.3 has no signatures for (RFC 8446 §4.2.3).
    Curve(&'static str),
    /// An elliptic curve without a usual name.
    OtherCurve,
    /// Another algorithm.
    Algorithm(&'static str),
    /// A kind that is used, but this one isn't consistent.
    Damaged(&'static str),
    /// Nothing of it is understood.
    Unknown,
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa(bits) if bits < RSA_BITS.start() => {
                write!(f, "it is an RSA key of {bits} bits, which clients refuse; {ADVICE}")
            }
            Self::Rsa(bits) => write!(f, "it is an RSA key of {bits} bits, which is too long; {ADVICE}"),
            Self::RsaPss => write!(
                f,
                "it is an RSA-PSS key, which most clients refuse; a usual RSA key (rsaEncryption) signs with \
                 PSS as well"
            ),
            Self::Curve(name) => write!(f, "it is an ECDSA key on {name}, which clients refuse; {ADVICE}"),
            Self::OtherCurve => {
                write!(f, "it is an ECDSA key on a curve other than P-256, P-384 and P-521; {ADVICE}")
            }
            Self::Algorithm(name) => write!(f, "it is a key for {name}, which TLS clients refuse; {ADVICE}"),
            Self::Damaged(name) => write!(f, "it is {name} key that is damaged"),
            Self::Unknown => {
                write!(f, "it is not a private key, or its algorithm is not supported; {ADVICE}")
            }
        }
    }
}

/// What `key` is, which the cryptographic library has refused.
pub(crate) fn kind(key: &PrivateKeyDer<'_>) -> KeyKind {
    match key {
        PrivateKeyDer::Pkcs1(der) => rsa(der.secret_pkcs1_der()),
        PrivateKeyDer::Sec1(der) => sec1(der.secret_sec1_der()),
        PrivateKeyDer::Pkcs8(der) => pkcs8(der.secret_pkcs8_der()),
        _ => None,
    }
    .unwrap_or(KeyKind::Unknown)
}

/// RFC 8017 appendix A.1.2: version, modulus, and the rest.
fn rsa(der: &[u8]) -> Option<KeyKind> {
    let version = expect(expect(der, SEQUENCE)?.content, INTEGER)?;
    let modulus = expect(version.rest, INTEGER)?.content;
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    let bits = match modulus.get(zeros) {
        Some(first) => (modulus.len() - zeros) * 8 - first.leading_zeros() as usize,
        None => 0,
    };
    Some(if RSA_BITS.contains(&bits) { KeyKind::Damaged("an RSA") } else { KeyKind::Rsa(bits) })
}

/// RFC 5915 §3: version, key, and the curve as element 0.
fn sec1(der: &[u8]) -> Option<KeyKind> {
    let version = expect(expect(der, SEQUENCE)?.content, INTEGER)?;
    let key = crate::der::element(version.rest)?;
    let Some(curve) = expect(key.rest, 0xa0) else { return Some(KeyKind::Damaged("an ECDSA")) };
    Some(on_curve(curve.content))
}

/// RFC 5958 §2: version, algorithm, key.
fn pkcs8(der: &[u8]) -> Option<KeyKind> {
    let version = expect(expect(der, SEQUENCE)?.content, INTEGER)?;
    let algorithm = expect(version.rest, SEQUENCE)?;
    let id = expect(algorithm.content, OBJECT_ID)?;
    Some(match id.content {
        RSA => return rsa(crate::der::element(algorithm.rest)?.content).or(Some(KeyKind::Damaged("an RSA"))),
        RSA_PSS => KeyKind::RsaPss,
        EC => on_curve(id.rest),
        [0x2b, 0x65, 0x6e] => KeyKind::Algorithm("X25519"), // RFC 8410 §3, as are the next
        [0x2b, 0x65, 0x6f] => KeyKind::Algorithm("X448"),
        [0x2b, 0x65, 0x70] => KeyKind::Damaged("an Ed25519"),
        [0x2b, 0x65, 0x71] => KeyKind::Algorithm("Ed448"),
        DSA => KeyKind::Algorithm("DSA"),
        DH => KeyKind::Algorithm("Diffie-Hellman"),
        [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x03, 0x11..=0x13] => KeyKind::Algorithm("ML-DSA"),
        _ => KeyKind::Unknown,
    })
}

const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const RSA_PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const DSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x38, 0x04, 0x01];
const DH: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x03, 0x01];

/// By the curve's name (RFC 5480 §2.1.1.1).
fn on_curve(parameters: &[u8]) -> KeyKind {
    let Some(id) = expect(parameters, OBJECT_ID) else { return KeyKind::OtherCurve };
    match id.content {
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x01] => KeyKind::Curve("P-192"),
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07] | [0x2b, 0x81, 0x04, 0x00, 0x22 | 0x23] => {
            KeyKind::Damaged("an ECDSA")
        }
        [0x2b, 0x81, 0x04, 0x00, 0x21] => KeyKind::Curve("P-224"),
        [0x2b, 0x81, 0x04, 0x00, 0x0a] => KeyKind::Curve("secp256k1"),
        [0x2b, 0x24, 0x03, 0x03, 0x02, 0x08, 0x01, 0x01, _] => KeyKind::Curve("a Brainpool curve"),
        _ => KeyKind::OtherCurve,
    }
}

/// What a file of DER is that is neither a certificate nor a plain key, and what to do about it.
pub(crate) fn container(der: &[u8]) -> Option<Container> {
    let outer = expect(der, SEQUENCE)?;
    // RFC 7292 §4: version 3, then content; RFC 5652 §3: the kind of content;
    // RFC 5958 §3: algorithm, then the encrypted key.
    if let Some(version) = expect(outer.content, INTEGER) {
        return (version.content == [3] && expect(version.rest, SEQUENCE).is_some())
            .then_some(Container::Pkcs12);
    }
    if let Some(id) = expect(outer.content, OBJECT_ID) {
        let is_content = id.content.starts_with(&RSA[..7]) && id.content.get(7) == Some(&0x07);
        return is_content.then_some(Container::Pkcs7);
    }
    let algorithm = expect(outer.content, SEQUENCE)?;
    let id = expect(algorithm.content, OBJECT_ID)?.content;
    // PKCS #5 and PKCS #12 encryption.
    let is_encryption = id.starts_with(&RSA[..7]) && matches!(id[7..], [0x05 | 0x0c, ..]);
    is_encryption.then_some(Container::EncryptedKey)
}

/// What has to be converted first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Container {
    Pkcs12,
    Pkcs7,
    EncryptedKey,
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::{PrivatePkcs8KeyDer, PrivateSec1KeyDer};

    use super::*;

    fn tlv(tag: u8, content: &[&[u8]]) -> Vec<u8> {
        let content = content.concat();
        let len = u8::try_from(content.len() / 256).unwrap();
        [&[tag, 0x82, len, u8::try_from(content.len() % 256).unwrap()], &content[..]].concat()
    }

    fn pkcs8_of(algorithm: &[&[u8]], key: &[u8]) -> PrivateKeyDer<'static> {
        let key = tlv(SEQUENCE, &[&tlv(INTEGER, &[&[0]]), &tlv(SEQUENCE, algorithm), &tlv(0x04, &[key])]);
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key))
    }

    fn rsa_of(bits: usize) -> Vec<u8> {
        let mut modulus = vec![0xff; bits.div_ceil(8)];
        modulus[0] = 0xff >> (bits.next_multiple_of(8) - bits);
        tlv(SEQUENCE, &[&tlv(INTEGER, &[&[0]]), &tlv(INTEGER, &[&[0], &modulus])])
    }

    #[test]
    fn each_kind_is_known_by_its_algorithm() {
        let id = |content: &[u8]| tlv(OBJECT_ID, &[content]);
        for (bits, expect) in [
            (512, KeyKind::Rsa(512)),
            (1024, KeyKind::Rsa(1024)),
            (2047, KeyKind::Rsa(2047)),
            (2048, KeyKind::Damaged("an RSA")),
            (8192, KeyKind::Damaged("an RSA")),
            (16384, KeyKind::Rsa(16384)),
        ] {
            assert_eq!(kind(&pkcs8_of(&[&id(RSA)], &rsa_of(bits))), expect, "{bits}");
            assert_eq!(kind(&PrivateKeyDer::Pkcs1(rsa_of(bits).into())), expect, "{bits}");
        }
        for (curve, expect) in [
            (&[0x2b, 0x81, 0x04, 0x00, 0x21][..], KeyKind::Curve("P-224")),
            (&[0x2b, 0x81, 0x04, 0x00, 0x22], KeyKind::Damaged("an ECDSA")),
            (&[0x2b, 0x81, 0x04, 0x00, 0x0a], KeyKind::Curve("secp256k1")),
            (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07], KeyKind::Damaged("an ECDSA")),
            (&[0x2b, 0x24, 0x03, 0x03, 0x02, 0x08, 0x01, 0x01, 0x07], KeyKind::Curve("a Brainpool curve")),
            (&[0x2b, 0x01], KeyKind::OtherCurve),
        ] {
            assert_eq!(kind(&pkcs8_of(&[&id(EC), &id(curve)], &[1])), expect, "{curve:02x?}");
            let sec1 = [&tlv(INTEGER, &[&[1]]), &tlv(0x04, &[&[1]]), &tlv(0xa0, &[&id(curve)])];
            let sec1 = tlv(SEQUENCE, &sec1.map(|part| &part[..]));
            assert_eq!(kind(&PrivateKeyDer::Sec1(PrivateSec1KeyDer::from(sec1))), expect);
        }
        for (algorithm, expect) in [
            (RSA_PSS, KeyKind::RsaPss),
            (&[0x2b, 0x65, 0x71], KeyKind::Algorithm("Ed448")),
            (&[0x2b, 0x65, 0x6e], KeyKind::Algorithm("X25519")),
            (&[0x2b, 0x65, 0x70], KeyKind::Damaged("an Ed25519")),
            (DSA, KeyKind::Algorithm("DSA")),
            (&[1, 2, 3], KeyKind::Unknown),
        ] {
            assert_eq!(kind(&pkcs8_of(&[&id(algorithm)], &[1])), expect, "{algorithm:02x?}");
        }
        assert_eq!(kind(&PrivateKeyDer::Pkcs1(vec![1, 2, 3].into())), KeyKind::Unknown);
        assert!(KeyKind::Rsa(1024).to_string().contains("1024 bits"));
    }

    #[test]
    fn containers_are_distinguished() {
        let id = |content: &[u8]| tlv(OBJECT_ID, &[content]);
        let content = tlv(SEQUENCE, &[&id(&[1])]);
        assert_eq!(container(&tlv(SEQUENCE, &[&tlv(INTEGER, &[&[3]]), &content])), Some(Container::Pkcs12));
        let signed = id(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02]);
        assert_eq!(container(&tlv(SEQUENCE, &[&signed])), Some(Container::Pkcs7));
        for scheme in [&[0x05, 0x0d][..], &[0x0c, 0x01, 0x03]] {
            let scheme = id(&[&RSA[..7], scheme].concat());
            let key = tlv(SEQUENCE, &[&tlv(SEQUENCE, &[&scheme]), &tlv(0x04, &[&[1]])]);
            assert_eq!(container(&key), Some(Container::EncryptedKey));
        }
        for other in [&[][..], &[1], &tlv(SEQUENCE, &[&tlv(INTEGER, &[&[1]])]), &content] {
            assert_eq!(container(other), None);
        }
    }
}
