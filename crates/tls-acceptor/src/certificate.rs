//! What a certificate says of itself: names, dates, issuer, the key it is for.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, X509Name};

use crate::name::CertName;

/// The algorithm of a certificate's key, in the order of preference: cheaper to sign with first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyType {
    /// NIST curves.
    Ecdsa,
    /// Edwards curves; few clients accept it.
    Ed25519,
    /// The one that every client accepts.
    Rsa,
}

impl KeyType {
    /// For tables and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ecdsa => "ECDSA",
            Self::Ed25519 => "Ed25519",
            Self::Rsa => "RSA",
        }
    }
}

/// Where a certificate was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Named in the plan, by position.
    Named(usize),
    /// Found by scanning the directory.
    Directory,
}

/// A chain with its key, ready to be served.
#[derive(Debug)]
pub struct Certificate {
    /// What rustls serves.
    pub key: Arc<CertifiedKey>,
    /// What the leaf says.
    pub leaf: Leaf,
    /// Where it was found.
    pub origin: Origin,
    /// The files of the chain, then the file of the key.
    pub files: Vec<PathBuf>,
}

impl Certificate {
    /// The leaf itself: what makes two certificates the same, whatever chain and file they came with.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        self.key.cert.first().map(AsRef::as_ref).unwrap_or_default()
    }
}

/// The facts of an end-entity certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// From the subjectAltName; no other field names a host (RFC 9525 §6.3).
    pub names: Vec<CertName>,
    /// Names in the subjectAltName that can't be served, as they are written.
    pub names_ignored: Vec<String>,
    /// Seconds since 1970; the first second it is valid in.
    pub not_before: i64,
    /// Seconds since 1970; the last second it is valid in.
    pub not_after: i64,
    /// The issuer's common name, or else the whole distinguished name.
    pub issuer: String,
    /// Hexadecimal, colons between bytes.
    pub serial: String,
    /// What signs with it.
    pub key_type: KeyType,
    /// It says of itself that it is a certificate authority's, as `openssl req -x509` makes them;
    /// some clients refuse it.
    pub is_ca: bool,
}

impl Leaf {
    /// `now` in seconds since 1970.
    #[must_use]
    pub fn is_valid(&self, now: i64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// Whole days until it expires, rounded down; negative when it has.
    #[must_use]
    pub fn days_left(&self, now: i64) -> i64 {
        days_left(self.not_after, now)
    }
}

/// Whole days from `now` until `at`, rounded down.
pub(crate) fn days_left(at: i64, now: i64) -> i64 {
    (at - now).div_euclid(24 * 60 * 60)
}

/// Why a DER blob is no certificate that can be served.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum LeafError {
    /// It doesn't parse.
    #[error("is not an X.509 certificate: {0}")]
    Der(String),
    /// A certificate authority's own.
    #[error("is a CA certificate that names no host in its subjectAltName, so not one for a server")]
    Ca,
    /// A key that can't sign a handshake.
    #[error("has a key of an algorithm that TLS servers don't use ({0})")]
    KeyType(String),
}

/// A certificate's public key, as it is written in the certificate.
pub(crate) fn public_key(der: &CertificateDer<'_>) -> Result<Vec<u8>, LeafError> {
    Ok(parse(der)?.public_key().raw.to_vec())
}

/// What a certificate can be in a chain; the best leaf first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// A server's.
    Server,
    /// An authority's, and it names hosts: self-signed ones are often so.
    AuthorityWithHosts,
    /// An authority's and nothing else.
    Authority,
}

/// A certificate's public key, and what it can be.
pub(crate) fn public_key_and_role(der: &CertificateDer<'_>) -> Result<(Vec<u8>, Role), LeafError> {
    let x509 = parse(der)?;
    let role = match x509.is_ca() {
        false => Role::Server,
        true if has_hosts(&x509) => Role::AuthorityWithHosts,
        true => Role::Authority,
    };
    Ok((x509.public_key().raw.to_vec(), role))
}

fn has_hosts(x509: &X509Certificate<'_>) -> bool {
    let san = x509.subject_alternative_name().ok().flatten();
    let is_host =
        |name: &GeneralName<'_>| matches!(name, GeneralName::DNSName(_) | GeneralName::IPAddress(_));
    san.is_some_and(|san| san.value.general_names.iter().any(is_host))
}

/// Reads the facts of a leaf.
pub(crate) fn leaf(der: &CertificateDer<'_>) -> Result<Leaf, LeafError> {
    let x509 = parse(der)?;
    let is_ca = x509.is_ca();
    if is_ca && !has_hosts(&x509) {
        return Err(LeafError::Ca);
    }
    let algorithm = x509.public_key().algorithm.algorithm.to_id_string();
    let key_type = match algorithm.as_str() {
        "1.2.840.10045.2.1" => KeyType::Ecdsa,
        "1.3.101.112" => KeyType::Ed25519,
        "1.2.840.113549.1.1.1" => KeyType::Rsa,
        _ => return Err(LeafError::KeyType(algorithm)),
    };
    let (mut names, mut names_ignored) = (Vec::new(), Vec::new());
    let san = x509.subject_alternative_name().map_err(|e| LeafError::Der(e.to_string()))?;
    for name in san.iter().flat_map(|san| &san.value.general_names) {
        match name {
            GeneralName::DNSName(name) => match CertName::parse(name) {
                Some(name) if !names.contains(&name) => names.push(name),
                Some(_) => {}
                None => names_ignored.push((*name).to_owned()),
            },
            GeneralName::IPAddress(bytes) => match ip(bytes) {
                Some(ip) => names.push(CertName::Ip(ip)),
                None => names_ignored.push(format!("{bytes:02x?}")),
            },
            _ => {} // not for servers
        }
    }
    Ok(Leaf {
        names,
        names_ignored,
        not_before: x509.validity().not_before.timestamp(),
        not_after: x509.validity().not_after.timestamp(),
        issuer: common_name(x509.issuer()),
        serial: x509.raw_serial_as_string(),
        key_type,
        is_ca,
    })
}

/// The issuer and the subject of a certificate, as DER.
pub(crate) fn issuer_and_subject(der: &CertificateDer<'_>) -> Result<(Vec<u8>, Vec<u8>), LeafError> {
    let x509 = parse(der)?;
    Ok((x509.issuer().as_raw().to_vec(), x509.subject().as_raw().to_vec()))
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, LeafError> {
    match X509Certificate::from_der(der) {
        Ok(([], x509)) => Ok(x509),
        Ok(_) => Err(LeafError::Der("bytes behind its end".into())),
        Err(e) => Err(LeafError::Der(e.to_string())),
    }
}

fn common_name(name: &X509Name<'_>) -> String {
    let common_name = name.iter_common_name().find_map(|cn| cn.as_str().ok());
    common_name.map_or_else(|| name.to_string(), ToOwned::to_owned)
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}
