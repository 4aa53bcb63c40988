//! What is known of a client by its certificate: the certificate itself, its fingerprint, and its subject as text
//! (RFC 4514). Pure.

use aws_lc_rs::digest::{SHA256, digest};
use x509_parser::asn1_rs::{Any, Tag};
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

/// A subject that is longer is cut: it becomes a field and a word of the log.
const SUBJECT_LEN_MAX: usize = 1024;

/// A certificate that a client has proved to be its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    /// In DER.
    pub der: Box<[u8]>,
    /// As RFC 4514 writes it: `CN=device 7,O=Domain`. In visible ASCII: other bytes are escaped.
    pub subject: Box<str>,
    /// SHA-256 of the DER, in small hexadecimal digits.
    pub fingerprint: Box<str>,
    /// When it expires, in seconds of Unix time.
    pub not_after: i64,
}

impl PeerCertificate {
    /// Reads a certificate that was verified.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        let (subject, not_after) = match X509Certificate::from_der(der) {
            Ok((_, x509)) => (subject(x509.subject()), x509.validity().not_after.timestamp()),
            Err(_) => (String::new(), 0), // can't happen: it was verified
        };
        let hash = digest(&SHA256, der);
        let fingerprint: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Self { der: der.into(), subject: subject.into(), fingerprint: fingerprint.into(), not_after }
    }
}

/// The last part first (RFC 4514 §2.1).
fn subject(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    let parts: Vec<_> = name.iter_rdn().collect();
    for part in parts.into_iter().rev() {
        let before = text.len();
        for (n, attribute) in part.iter().enumerate() {
            match (n, before) {
                (0, 0) => {}
                (0, _) => text.push(','),
                _ => text.push('+'),
            }
            let oid = attribute.attr_type().to_id_string();
            let value = attribute.attr_value();
            match (short_name(&oid), text_of(value)) {
                (name, Some(value)) => {
                    text.push_str(name.unwrap_or(&oid));
                    text.push('=');
                    escape(&value, &mut text);
                }
                // What is no text is written as it is encoded (§2.4).
                (name, None) => {
                    text.push_str(name.unwrap_or(&oid));
                    text.push_str("=#");
                    text.extend(value.data.iter().map(|byte| format!("{byte:02x}")));
                }
            }
        }
        if text.len() > SUBJECT_LEN_MAX {
            text.truncate(before); // whole parts only: half of one may be the name of another
            text.push_str(",...");
            break;
        }
    }
    text
}

/// RFC 4514 §3; other types are written as their numbers.
fn short_name(oid: &str) -> Option<&'static str> {
    Some(match oid {
        "2.5.4.3" => "CN",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        _ => return None,
    })
}

fn text_of(value: &Any<'_>) -> Option<String> {
    match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::NumericString => {
            String::from_utf8(value.data.to_vec()).ok()
        }
        // Latin-1, as most use it.
        Tag::T61String => Some(value.data.iter().map(|&byte| char::from(byte)).collect()),
        Tag::BmpString => {
            let (pairs, []) = value.data.as_chunks::<2>() else { return None };
            let units: Vec<u16> = pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect();
            String::from_utf16(&units).ok()
        }
        _ => None,
    }
}

/// RFC 4514 §2.4. All but visible ASCII is written in hexadecimal, so that the text fits in any field.
fn escape(value: &str, out: &mut String) {
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' | b'=' => out.extend(['\\', char::from(byte)]),
            b'#' if at == 0 => out.push_str("\\#"),
            b' ' if at == 0 || at == last => out.push_str("\\ "),
            b' '..=b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("\\{byte:02x}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};

    use super::*;

    fn certificate(parts: &[(DnType, DnValue)]) -> PeerCertificate {
        let mut params = CertificateParams::new(vec!["client.test".to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind.clone(), value.clone());
        }
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        PeerCertificate::of(certificate.der())
    }

    #[test]
    fn subjects_as_rfc_4514_writes_them() {
        let text = |text: &str| DnValue::Utf8String(text.to_owned());
        for (parts, expect) in [
            (vec![], ""),
            (vec![(DnType::CommonName, text("device 7"))], "CN=device 7"),
            (
                vec![(DnType::OrganizationName, text("Domain")), (DnType::CommonName, text("a"))],
                "CN=a,O=Domain",
            ),
            // A name that would look like more parts than it has.
            (vec![(DnType::CommonName, text("a,O=Admins+OU=x"))], "CN=a\\,O\\=Admins\\+OU\\=x"),
            (vec![(DnType::CommonName, text(" #<\"\\;> "))], "CN=\\ #\\<\\\"\\\\\\;\\>\\ "),
            (vec![(DnType::CommonName, text("#1"))], "CN=\\#1"),
            (vec![(DnType::CommonName, text("J\u{fc}rgen\r\nX: y"))], "CN=J\\c3\\bcrgen\\0d\\0aX: y"),
            (vec![(DnType::CustomDnType(vec![1, 2, 3, 4]), text("x"))], "1.2.3.4=x"),
        ] {
            assert_eq!(&*certificate(&parts).subject, expect);
        }
        let long = certificate(&[
            (DnType::OrganizationName, text(&"o".repeat(2000))),
            (DnType::CommonName, text("a")),
        ]);
        assert_eq!(&*long.subject, "CN=a,...");
    }

    #[test]
    fn fingerprints_are_those_of_the_whole_certificate() {
        let shown = PeerCertificate::of(b"abc");
        let expect = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!((&*shown.fingerprint, &*shown.subject), (expect, ""));
    }
}
