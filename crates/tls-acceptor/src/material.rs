//! One file → the certificates and keys in it, or what is wrong with it.
//!
//! In: a path. Out: everything of use in the file, and notes on what isn't. A file may hold a private
//! key, so no message repeats any of its text.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::SigningKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::certificate::{LeafError, public_key};
use crate::der;
use crate::key_kind::{self, Container, KeyKind};
use crate::pem::{self, Label, PemError};

/// No chain or key comes near it.
pub(crate) const FILE_LEN_MAX: u64 = 1024 * 1024;
/// Revocation lists of large authorities have some megabytes.
const LIST_LEN_MAX: u64 = 64 * 1024 * 1024;
/// What the names of files end in that are read in a directory.
pub(crate) const ENDINGS: &str = ".pem, .crt, .cer or .key";
const EXTENSIONS: [&str; 4] = ["pem", "crt", "cer", "key"];

/// What is wrong with a file. Nothing of its text is ever part of it.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system's error.
    #[error("can't be read: {0}")]
    Io(#[from] io::Error),
    /// It is no chain and no key, whatever it is.
    #[error("is {len} bytes long; certificates and keys are at most {FILE_LEN_MAX}")]
    TooLong {
        /// Bytes.
        len: u64,
    },
    /// Nothing was written to it, or not yet.
    #[error("is empty")]
    Empty,
    /// As some editors and shells write it.
    #[error("is UTF-16 text; write it as ASCII or UTF-8")]
    Utf16,
    /// A PEM section that is cut off or garbled.
    #[error("is not valid PEM: {0}")]
    Pem(PemError),
    /// Two sections that were joined without a line break; they are read.
    #[error(
        "has an END and a BEGIN on the same line (line {line}); it is read, but other programs refuse it: put a line break between the hyphens"
    )]
    Glued {
        /// Counted from 1.
        line: usize,
    },
    /// Neither PEM nor DER.
    #[error("holds neither PEM nor a DER certificate or key")]
    Unknown,
    /// A PEM section that isn't read.
    #[error("holds a PEM section (line {line}) that is ignored: it is {what}")]
    Section {
        /// Counted from 1.
        line: usize,
        /// What it is, and what to do.
        what: &'static str,
    },
    /// DER that has to be converted.
    #[error("is {0}")]
    Foreign(&'static str),
    /// The gateway can't ask for a passphrase.
    #[error("holds an encrypted key; write it without a passphrase (openssl pkey -in … -out …)")]
    EncryptedKey,
    /// A certificate in it can't be used.
    #[error("certificate {position} {error}")]
    Certificate {
        /// Counted from 1.
        position: usize,
        /// Why.
        error: LeafError,
    },
    /// A key in it can't be used.
    #[error("holds a key that can't be used: {0}")]
    Key(KeyKind),
    /// A file named as a chain.
    #[error("holds no certificate")]
    NoCertificate,
    /// A file named as one of authorities.
    #[error("holds no certificate of an authority that can be trusted")]
    NoAuthority,
    /// A file named as one of revocation lists.
    #[error("holds no certificate revocation list, neither in PEM (X509 CRL) nor in DER")]
    NoRevocationList,
    /// A revocation list that the verifier doesn't take.
    #[error("holds a revocation list that can't be used; it must be of version 2 and complete (RFC 5280 §5)")]
    RevocationList,
    /// It is no revocation list, whatever it is.
    #[error("is {len} bytes long; revocation lists are at most 64 MiB")]
    ListTooLong {
        /// Bytes.
        len: u64,
    },
    /// A file named as a key.
    #[error("holds no private key")]
    NoKey,
    /// A key in the directory that belongs to no certificate there.
    #[error("holds a key that matches no certificate in the directory")]
    Unpaired,
    /// A certificate in the directory that no key there belongs to.
    #[error("holds the certificate of {names}, which is not served: {}", no_key(elsewhere.as_deref()))]
    Keyless {
        /// What it is for.
        names: String,
        /// A file that isn't read, with the key.
        elsewhere: Option<PathBuf>,
    },
    /// A certificate in a file whose name ends in something else.
    #[error("holds the certificate of {names} and is not read: rename it so that it ends in {ENDINGS}")]
    Ending {
        /// What it is for.
        names: String,
    },
    /// A chain and a key that were named together.
    #[error("does not match the certificate in {}: the key belongs to another certificate", chain.display())]
    Mismatch {
        /// The chain's first file.
        chain: PathBuf,
    },
    /// Without a name no client can ask for it.
    #[error("names no host in its subjectAltName")]
    NoNames,
    /// Names that no client could send as SNI.
    #[error("names hosts that can't be served: {}", .0.join(", "))]
    BadNames(Vec<String>),
}

fn no_key(elsewhere: Option<&Path>) -> String {
    match elsewhere {
        Some(path) => {
            let path = path.display();
            format!("its key is in {path}, which is not read: rename that file so that it ends in {ENDINGS}")
        }
        None => format!(
            "no key in the directory matches it (files whose names end in {ENDINGS} are read); put its key there, \
             or remove the certificate"
        ),
    }
}

/// A file, and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", path.display())]
pub struct FileProblem {
    /// Which.
    pub path: PathBuf,
    /// What.
    #[source]
    pub error: FileError,
}

impl FileError {
    /// It is about the private key, not about a certificate.
    #[must_use]
    pub fn is_of_key(&self) -> bool {
        matches!(self, Self::NoKey | Self::EncryptedKey | Self::Key(_) | Self::Mismatch { .. })
    }

    /// It may be over without anything having changed on disk: file descriptors or memory are exhausted, or
    /// a disk doesn't answer. What has gone, or is forbidden, comes back by a change.
    pub(crate) fn may_pass(&self) -> bool {
        const EPERM: i32 = 1;
        const ENOENT: i32 = 2;
        const EACCES: i32 = 13;
        const ENOTDIR: i32 = 20;
        const EISDIR: i32 = 21;
        const ENAMETOOLONG: i32 = 36;
        const ELOOP: i32 = 40;
        let Self::Io(error) = self else { return false };
        error.raw_os_error().is_some_and(|code| {
            !matches!(code, EPERM | ENOENT | EACCES | ENOTDIR | EISDIR | ENAMETOOLONG | ELOOP)
        })
    }
}

/// Signing keys that are parsed already, by what their DER hashes to. A key is only ever used for
/// a certificate with the same public key, so a collision can't mix two up.
#[derive(Debug, Default)]
pub(crate) struct KnownKeys {
    before: HashMap<u64, Arc<dyn SigningKey>>,
    now: HashMap<u64, Arc<dyn SigningKey>>,
}

impl KnownKeys {
    /// For the load after the one that left `previous`: keys that no file holds any more go.
    pub(crate) fn after(previous: Option<&Self>) -> Self {
        Self { before: previous.map(|known| known.now.clone()).unwrap_or_default(), now: HashMap::new() }
    }

    /// The key as one that signs.
    ///
    /// # Errors
    /// Which kind of key it is instead.
    pub(crate) fn signing(&mut self, key: &PrivateKeyDer<'_>) -> Result<Arc<dyn SigningKey>, FileError> {
        // Unkeyed, so that it means the same in the next load.
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(key.secret_der());
        let signing = match self.before.get(&hash) {
            Some(signing) => signing.clone(),
            None => signing_key(key)?,
        };
        self.now.insert(hash, signing.clone());
        Ok(signing)
    }
}

/// The key as one that signs. The library's own error is left out: what it says is not for people.
pub(crate) fn signing_key(key: &PrivateKeyDer<'_>) -> Result<Arc<dyn SigningKey>, FileError> {
    any_supported_type(key).map_err(|_| FileError::Key(key_kind::kind(key)))
}

/// Which users can reach files, by the directories above them.
#[derive(Debug, Default)]
pub(crate) struct Permissions {
    /// Others than its owner and its group may pass through it.
    passable: HashMap<PathBuf, bool>,
}

impl Permissions {
    /// The file's mode, if every user of this machine can read or write it.
    pub(crate) fn open_to_others(&mut self, file: &Path) -> Option<u32> {
        let mode = fs::metadata(file).ok()?.mode() & 0o7777;
        let file = (mode & 0o006 != 0).then(|| file.canonicalize().ok())??;
        self.is_passable(file.parent()?).then_some(mode)
    }

    fn is_passable(&mut self, directory: &Path) -> bool {
        if let Some(known) = self.passable.get(directory) {
            return *known;
        }
        let is_open = fs::metadata(directory).is_ok_and(|found| found.mode() & 0o001 != 0);
        let passable = is_open && directory.parent().is_none_or(|above| self.is_passable(above));
        self.passable.insert(directory.to_owned(), passable);
        passable
    }
}

/// What is of use in a file.
#[derive(Default)]
pub(crate) struct Contents {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) keys: Vec<PrivateKeyDer<'static>>,
    /// What isn't of use and was meant to be.
    pub(crate) notes: Vec<FileError>,
}

impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} certificates, {} keys", self.chain.len(), self.keys.len())
    }
}

/// A file with this name is read in a directory.
pub(crate) fn is_listed(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str);
    extension.is_some_and(|e| EXTENSIONS.iter().any(|x| x.eq_ignore_ascii_case(e)))
}

/// Hidden entries are how Kubernetes keeps the old and the new side by side; what they hold is linked
/// to from visible ones.
pub(crate) fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

/// Reads a file; blocks.
///
/// # Errors
/// What makes it of no use as a whole.
pub(crate) fn read(path: &Path) -> Result<Contents, FileError> {
    let len = fs::metadata(path)?.len();
    if len > FILE_LEN_MAX {
        return Err(FileError::TooLong { len });
    }
    understand(fs::read(path)?)
}

/// Reads a file of revocation lists; blocks.
///
/// # Errors
/// If it can't be read, or is longer than any list.
pub(crate) fn read_list(path: &Path) -> Result<Vec<u8>, FileError> {
    let len = fs::metadata(path)?.len();
    if len > LIST_LEN_MAX {
        return Err(FileError::ListTooLong { len });
    }
    Ok(fs::read(path)?)
}

fn understand(bytes: Vec<u8>) -> Result<Contents, FileError> {
    if bytes.trim_ascii().is_empty() {
        return Ok(Contents { notes: vec![FileError::Empty], ..Contents::default() });
    }
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(FileError::Utf16);
    }
    let is_der = der::element(&bytes).is_some_and(|element| element.tag == der::SEQUENCE);
    if !is_der && pem::has_border(&bytes) { read_pem(&bytes) } else { read_der(bytes) }
}

fn read_pem(bytes: &[u8]) -> Result<Contents, FileError> {
    let found = pem::read(bytes).map_err(FileError::Pem)?;
    let mut contents = Contents::default();
    contents.notes.extend(found.glued.map(|line| FileError::Glued { line }));
    for section in found.sections {
        let (line, der) = (section.line, section.der);
        match section.label {
            Label::Certificate => contents.chain.push(der.into()),
            Label::TrustedCertificate => {
                // What OpenSSL trusts it for stands behind it.
                let certificate = der::element(&der).map_or(&der[..], |element| element.whole);
                contents.chain.push(certificate.to_vec().into());
            }
            Label::Pkcs8 => contents.keys.push(PrivateKeyDer::Pkcs8(der.into())),
            Label::Pkcs1 => contents.keys.push(PrivateKeyDer::Pkcs1(der.into())),
            Label::Sec1 => contents.keys.push(PrivateKeyDer::Sec1(der.into())),
            Label::EncryptedKey => contents.notes.push(FileError::EncryptedKey),
            Label::Foreign(what) => contents.notes.push(FileError::Section { line, what }),
            Label::Unknown => {
                let what = "neither a certificate nor a private key by its BEGIN line";
                contents.notes.push(FileError::Section { line, what });
            }
            Label::OfNoUse => {}
        }
    }
    Ok(contents)
}

fn read_der(bytes: Vec<u8>) -> Result<Contents, FileError> {
    let mut contents = Contents::default();
    let certificate = CertificateDer::from(bytes.as_slice());
    if public_key(&certificate).is_ok() {
        contents.chain.push(certificate.into_owned());
        return Ok(contents);
    }
    match key_kind::container(&bytes) {
        Some(Container::Pkcs12) => Err(FileError::Foreign(
            "PKCS #12; take the certificate and the key out with openssl pkcs12 -in … -nodes -out …",
        )),
        Some(Container::Pkcs7) => Err(FileError::Foreign(
            "PKCS #7; take the certificates out with openssl pkcs7 -inform DER -in … -print_certs -out …",
        )),
        Some(Container::EncryptedKey) => Err(FileError::EncryptedKey),
        None => {
            contents.keys.push(PrivateKeyDer::try_from(bytes).map_err(|_| FileError::Unknown)?);
            Ok(contents)
        }
    }
}
