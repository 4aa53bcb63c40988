//! What a certificate says of itself: names, dates, issuer, the key it is for, and what makes clients
//! refuse it.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate, X509Name};

use crate::chain_fault::ChainFault;
use crate::client_auth::ClientAuth;
use crate::der;
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
pub enum CertificateSource {
    /// Named in the plan, by position.
    Named(usize),
    /// Found by scanning the directory.
    Directory,
    /// It was awaited, and has come.
    Awaited,
}

/// A chain with its key, ready to be served.
#[derive(Debug)]
pub struct Certificate {
    /// What rustls serves.
    pub key: Arc<CertifiedKey>,
    /// What the leaf says.
    pub leaf: Leaf,
    /// Where it was found.
    pub origin: CertificateSource,
    /// The files of the chain, then the file of the key.
    pub files: Vec<PathBuf>,
    /// What is wrong with the issuers that are sent with it.
    pub chain_faults: Vec<ChainFault>,
    /// What clients of its names have to show.
    pub client_auth: Option<Arc<ClientAuth>>,
}

impl Certificate {
    /// The leaf itself: what makes two certificates the same, whatever chain and file they came with.
    #[must_use]
    pub(crate) fn der(&self) -> &[u8] {
        self.key.cert.first().map(AsRef::as_ref).unwrap_or_default()
    }

    /// The file that the key was read from.
    #[must_use]
    pub(crate) fn key_file(&self) -> Option<&Path> {
        self.files.last().map(PathBuf::as_path)
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
    /// What makes clients refuse it, whatever its names and dates.
    pub flaws: Vec<Flaw>,
}

/// What makes clients refuse a leaf. Any other certificate for the name is preferred to one with a flaw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// It says of itself that it is a certificate authority's, as `openssl req -x509` makes them.
    Authority,
    /// Its extendedKeyUsage is there and lacks serverAuth (RFC 5280 §4.2.1.12).
    NotForServers,
    /// Its keyUsage is there and lacks digitalSignature, which every handshake needs (RFC 8446 §4.4.2.2).
    NotForSignatures,
    /// It is signed with an algorithm that isn't trusted any more, such as SHA-1 (RFC 9155 §2).
    WeakSignature(&'static str),
    /// It demands a stapled OCSP response (RFC 7633 §4.2.3), which isn't sent.
    MustStaple,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authority => f.write_str(
                "is a CA certificate; it is served, but some clients refuse it: make a new one with -addext \
                 basicConstraints=critical,CA:FALSE",
            ),
            Self::NotForServers => f.write_str(
                "is not for servers (its extendedKeyUsage lacks serverAuth); clients refuse it: get one for \
                 servers",
            ),
            Self::NotForSignatures => f.write_str(
                "may not sign handshakes (its keyUsage lacks digitalSignature); clients refuse it: get one that \
                 may",
            ),
            Self::WeakSignature(algorithm) => {
                write!(f, "is signed with {algorithm}; clients refuse it: get one that is signed with SHA-256")
            }
            Self::MustStaple => f.write_str(
                "requires a stapled OCSP response (must-staple), which the gateway doesn't send; some clients \
                 refuse it: get one without",
            ),
        }
    }
}

impl Leaf {
    /// `now` in seconds since 1970.
    #[must_use]
    pub(crate) fn is_valid(&self, now: i64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// It has no flaw.
    #[must_use]
    pub(crate) fn is_fit(&self) -> bool {
        self.flaws.is_empty()
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
    /// It doesn't parse. The library's words are left out: it may have been given a key.
    #[error("is not an X.509 certificate")]
    Der,
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

/// What decides over a certificate's place in a chain.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) role: Role,
    /// The SubjectPublicKeyInfo.
    pub(crate) public_key: Vec<u8>,
    /// The distinguished names as DER, and for people.
    pub(crate) subject: Vec<u8>,
    pub(crate) issuer: Vec<u8>,
    pub(crate) subject_name: String,
    pub(crate) issuer_name: String,
    pub(crate) key_id: Option<Vec<u8>>,
    pub(crate) authority_key_id: Option<Vec<u8>>,
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
    pub(crate) weak_signature: Option<&'static str>,
    /// The hosts of its subjectAltName as they are written.
    pub(crate) hosts: Vec<String>,
}

impl Facts {
    pub(crate) fn of(der: &CertificateDer<'_>) -> Result<Self, LeafError> {
        let x509 = parse(der)?;
        let hosts = hosts(&x509);
        let role = match x509.is_ca() {
            false => Role::Server,
            true if !hosts.is_empty() => Role::AuthorityWithHosts,
            true => Role::Authority,
        };
        let (mut key_id, mut authority_key_id) = (None, None);
        for extension in x509.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => key_id = Some(id.0.to_vec()),
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    authority_key_id = id.key_identifier.as_ref().map(|id| id.0.to_vec());
                }
                _ => {}
            }
        }
        Ok(Self {
            role,
            public_key: x509.public_key().raw.to_vec(),
            subject: x509.subject().as_raw().to_vec(),
            issuer: x509.issuer().as_raw().to_vec(),
            subject_name: common_name(x509.subject()),
            issuer_name: common_name(x509.issuer()),
            key_id,
            authority_key_id,
            not_before: x509.validity().not_before.timestamp(),
            not_after: x509.validity().not_after.timestamp(),
            weak_signature: weak_signature(&x509),
            hosts,
        })
    }

    pub(crate) fn is_valid(&self, now: i64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// A server's own, to be served by itself.
    pub(crate) fn is_leaf(&self) -> bool {
        self.role == Role::Server && !self.hosts.is_empty()
    }
}

fn hosts(x509: &X509Certificate<'_>) -> Vec<String> {
    let san = x509.subject_alternative_name().ok().flatten();
    let names = san.iter().flat_map(|san| &san.value.general_names);
    let host = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.escape_debug().to_string()),
        GeneralName::IPAddress(bytes) => Some(ip(bytes).map_or("an address".to_owned(), |ip| ip.to_string())),
        _ => None,
    };
    names.filter_map(host).collect()
}

/// The algorithm that it is signed with, if it is no longer trusted. What is signed by itself is trusted
/// or not, whatever its signature.
fn weak_signature(x509: &X509Certificate<'_>) -> Option<&'static str> {
    if x509.issuer().as_raw() == x509.subject().as_raw() {
        return None;
    }
    match x509.signature_algorithm.algorithm.to_id_string().as_str() {
        "1.2.840.113549.1.1.2" | "1.2.840.113549.1.1.4" => Some("MD5"), // MD2 and MD5, RFC 8017 A.2.4
        "1.2.840.113549.1.1.5" | "1.3.14.3.2.29" | "1.2.840.10045.4.1" | "1.2.840.10040.4.3" => Some("SHA-1"),
        _ => None,
    }
}

fn flaws(x509: &X509Certificate<'_>) -> Vec<Flaw> {
    /// RFC 7633 §6: id-pe-tlsfeature.
    const TLS_FEATURE: &str = "1.3.6.1.5.5.7.1.24";
    /// status_request (RFC 6066 §8).
    const STATUS_REQUEST: &[u8] = &[5];
    let mut flaws = Vec::new();
    if x509.is_ca() {
        flaws.push(Flaw::Authority);
    }
    if let Ok(Some(usage)) = x509.extended_key_usage()
        && !usage.value.any
        && !usage.value.server_auth
    {
        flaws.push(Flaw::NotForServers);
    }
    // An authority's is for signing certificates; that it is one has been said.
    if let Ok(Some(usage)) = x509.key_usage()
        && !x509.is_ca()
        && !usage.value.digital_signature()
    {
        flaws.push(Flaw::NotForSignatures);
    }
    flaws.extend(weak_signature(x509).map(Flaw::WeakSignature));
    let wants_status = |features: &[u8]| {
        let mut rest = der::expect(features, der::SEQUENCE).map(|list| list.content).unwrap_or_default();
        while let Some(feature) = der::expect(rest, der::INTEGER) {
            if feature.content == STATUS_REQUEST {
                return true;
            }
            rest = feature.rest;
        }
        false
    };
    if x509.extensions().iter().any(|e| e.oid.to_id_string() == TLS_FEATURE && wants_status(e.value)) {
        flaws.push(Flaw::MustStaple);
    }
    flaws
}

/// Reads the facts of a leaf.
pub(crate) fn leaf(der: &CertificateDer<'_>) -> Result<Leaf, LeafError> {
    let x509 = parse(der)?;
    if x509.is_ca() && hosts(&x509).is_empty() {
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
    let san = x509.subject_alternative_name().map_err(|_| LeafError::Der)?;
    for name in san.iter().flat_map(|san| &san.value.general_names) {
        match name {
            GeneralName::DNSName(name) => match CertName::parse(name) {
                Some(name) if !names.contains(&name) => names.push(name),
                Some(_) => {}
                None => names_ignored.push(name.escape_debug().to_string()),
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
        flaws: flaws(&x509),
    })
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, LeafError> {
    match X509Certificate::from_der(der) {
        Ok(([], x509)) => Ok(x509),
        _ => Err(LeafError::Der),
    }
}

fn common_name(name: &X509Name<'_>) -> String {
    let common_name = name.iter_common_name().find_map(|cn| cn.as_str().ok());
    // Whatever it is made of, it stays on the line of its message.
    common_name.map_or_else(|| name.to_string(), ToOwned::to_owned).escape_debug().to_string()
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}
