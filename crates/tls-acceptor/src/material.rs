//! PEM and DER files → chains and keys that fit each other.
//!
//! In: paths. Out: [`Certificate`]s, and what is wrong with which file. Any layout will do: a key
//! is matched to a certificate by the public key itself, never by a file's name.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::{CertifiedKey, SigningKey};
use rustls_pki_types::pem::{self, PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use walkdir::WalkDir;

use crate::certificate::{
    Certificate, LeafError, Origin, Role, issuer_and_subject, leaf, public_key, public_key_and_role,
};

/// No chain or key comes near it.
const FILE_LEN_MAX: u64 = 1024 * 1024;
const EXTENSIONS: [&str; 4] = ["pem", "crt", "cer", "key"];
/// How a PEM section begins.
const BEGIN: &[u8] = b"-----BEGIN ";

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system's word.
    #[error("can't be read: {0}")]
    Io(#[from] io::Error),
    /// It is no chain and no key, whatever it is.
    #[error("is {len} bytes long; certificates and keys are at most {FILE_LEN_MAX}")]
    TooLong {
        /// Bytes.
        len: u64,
    },
    /// A PEM section that is cut off or garbled.
    #[error("is not proper PEM: {0}")]
    Pem(String),
    /// Neither PEM nor DER.
    #[error("holds neither PEM nor a DER certificate or key")]
    Unknown,
    /// There is nobody to type a passphrase.
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
    Key(rustls::Error),
    /// A file named as a chain.
    #[error("holds no certificate")]
    NoCertificate,
    /// A file named as a key.
    #[error("holds no private key")]
    NoKey,
    /// A key in the directory that belongs to no certificate there.
    #[error("holds a key that fits no certificate in the directory")]
    Unpaired,
    /// A chain and a key that were named together.
    #[error("does not fit the certificate in {}: the key is of another one", chain.display())]
    Mismatch {
        /// The chain's first file.
        chain: PathBuf,
    },
    /// Without a name nobody can ask for it.
    #[error("names no host in its subjectAltName")]
    NoNames,
    /// Names that no client could send as SNI.
    #[error("names hosts that can't be served: {}", .0.join(", "))]
    BadNames(Vec<String>),
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
    /// It may be over without anything having changed on disk: a want of descriptors or memory, a disk
    /// that doesn't answer. What has gone, or is forbidden, comes back by a change.
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
}

#[derive(Default)]
struct Contents {
    chain: Vec<CertificateDer<'static>>,
    keys: Vec<PrivateKeyDer<'static>>,
}

impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} certificates, {} keys", self.chain.len(), self.keys.len())
    }
}

/// The certificate that a plan names.
pub(crate) fn named(position: usize, chain: &[PathBuf], key: &Path) -> Result<Certificate, Vec<FileProblem>> {
    let mut problems = Vec::new();
    let mut certs = Vec::new();
    for path in chain {
        match read(path) {
            Ok(contents) if contents.chain.is_empty() => {
                problems.push(FileProblem { path: path.clone(), error: FileError::NoCertificate });
            }
            Ok(contents) => certs.extend(contents.chain),
            Err(error) => problems.push(FileProblem { path: path.clone(), error }),
        }
    }
    let in_key = |error| FileProblem { path: key.to_owned(), error };
    let signing = read(key).and_then(|contents| {
        let key = contents.keys.first().ok_or(FileError::NoKey)?;
        any_supported_type(key).map_err(FileError::Key)
    });
    let signing = match signing {
        Ok(signing) if problems.is_empty() => signing,
        Ok(_) => return Err(problems),
        Err(error) => {
            problems.push(in_key(error));
            return Err(problems);
        }
    };
    let path = chain.first().cloned().unwrap_or_default();
    let in_chain = |error| FileProblem { path: path.clone(), error };
    let spki = signing.public_key().map(|spki| spki.to_vec());
    let mut fitting = Vec::new();
    for (i, cert) in certs.iter().enumerate() {
        let (cert_spki, role) = public_key_and_role(cert)
            .map_err(|error| vec![in_chain(FileError::Certificate { position: i + 1, error })])?;
        if Some(cert_spki) == spki {
            fitting.push((role, i));
        }
    }
    let Some((_, at)) = fitting.into_iter().min() else {
        return Err(vec![in_key(FileError::Mismatch { chain: path })]);
    };
    let mut files = chain.to_vec();
    files.push(key.to_owned());
    assemble(&certs, at, signing, Origin::Named(position), files).map_err(|error| vec![in_chain(error)])
}

/// Everything in a directory, each file judged on its own.
#[derive(Debug, Default)]
pub(crate) struct Scanned {
    pub(crate) certificates: Vec<Certificate>,
    /// Files that were left out, with the reason.
    pub(crate) problems: Vec<FileProblem>,
    /// All files looked at, readable or not.
    pub(crate) files: HashSet<PathBuf>,
    /// Where the walk came to nothing: what lies below was not looked at, and may still be there.
    pub(crate) unwalked: Vec<PathBuf>,
}

/// Reads every `.pem`, `.crt`, `.cer` and `.key` below `directory`.
///
/// # Errors
/// Only if the directory itself can't be read.
pub(crate) fn scan(directory: &Path, known: &mut KnownKeys) -> Result<Scanned, io::Error> {
    fs::read_dir(directory)?;
    let mut scanned = Scanned::default();
    let mut chains: Vec<(PathBuf, Vec<CertificateDer<'static>>)> = Vec::new();
    let mut keys: HashMap<Vec<u8>, (PathBuf, Arc<dyn SigningKey>)> = HashMap::new();
    let visible = |entry: &walkdir::DirEntry| entry.depth() == 0 || !is_hidden(entry.file_name());
    let walk = WalkDir::new(directory).follow_links(true).sort_by_file_name();
    for entry in walk.into_iter().filter_entry(visible) {
        let entry = match entry {
            Ok(entry) => entry,
            Err(e) => {
                let path = e.path().unwrap_or(directory).to_owned();
                scanned.unwalked.push(path.clone());
                // Not the walk's own error: it hides the system's, and repeats the path.
                let in_circles = || io::Error::other("a link leads back to a directory above it");
                let error = e.into_io_error().unwrap_or_else(in_circles);
                scanned.problems.push(FileProblem { path, error: FileError::Io(error) });
                continue;
            }
        };
        let path = entry.path();
        let listed = path
            .extension()
            .and_then(|e| e.to_str())
            .is_some_and(|e| EXTENSIONS.iter().any(|x| x.eq_ignore_ascii_case(e)));
        if !listed || !entry.file_type().is_file() {
            continue;
        }
        scanned.files.insert(path.to_owned());
        let result = read(path).and_then(|contents| {
            for key in &contents.keys {
                let signing = signing_key(key, known)?;
                if let Some(spki) = signing.public_key() {
                    keys.entry(spki.to_vec()).or_insert_with(|| (path.to_owned(), signing.clone()));
                }
            }
            Ok(contents.chain)
        });
        match result {
            Ok(chain) if chain.is_empty() => {}
            Ok(chain) => chains.push((path.to_owned(), chain)),
            Err(error) => scanned.fail(path, error),
        }
    }
    scanned.pair(&chains, &keys);
    Ok(scanned)
}

/// Hidden entries are how Kubernetes keeps the old and the new side by side; what they hold is linked
/// to from visible ones.
pub(crate) fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

impl Scanned {
    /// What is known where the directory itself can't be read.
    pub(crate) fn nothing(directory: &Path, error: io::Error) -> Self {
        let problem = FileProblem { path: directory.to_owned(), error: FileError::Io(error) };
        Self { unwalked: vec![directory.to_owned()], problems: vec![problem], ..Self::default() }
    }

    /// The file was looked at, or lies where nobody could look.
    pub(crate) fn may_be_there(&self, file: &Path) -> bool {
        self.files.contains(file) || self.unwalked.iter().any(|path| file.starts_with(path))
    }

    fn fail(&mut self, path: &Path, error: FileError) {
        self.problems.push(FileProblem { path: path.to_owned(), error });
    }

    /// Each leaf that a key fits becomes a certificate, with the longest chain that begins with it.
    fn pair(
        &mut self,
        chains: &[(PathBuf, Vec<CertificateDer<'static>>)],
        keys: &HashMap<Vec<u8>, (PathBuf, Arc<dyn SigningKey>)>,
    ) {
        // leaf → (chain, position of the leaf in it)
        let mut longest: HashMap<&[u8], (usize, usize)> = HashMap::new();
        let mut used: HashSet<&PathBuf> = HashSet::new();
        'chains: for (i, (path, chain)) in chains.iter().enumerate() {
            // A server's own, before an authority whose key lies here too.
            let mut first: Option<(Role, usize)> = None;
            for (at, cert) in chain.iter().enumerate() {
                let (spki, role) = match public_key_and_role(cert) {
                    Ok(found) => found,
                    Err(error) => {
                        self.fail(path, FileError::Certificate { position: at + 1, error });
                        continue 'chains;
                    }
                };
                let Some((key, _)) = keys.get(&spki) else { continue };
                used.insert(key);
                if first.is_none_or(|(best, _)| role < best) {
                    first = Some((role, at));
                }
                if role == Role::Server {
                    break; // the others are its issuers
                }
            }
            let Some((_, at)) = first else { continue };
            let best = longest.entry(chain[at].as_ref()).or_insert((i, at));
            if chain.len() - at > chains[best.0].1.len() - best.1 {
                *best = (i, at);
            }
        }
        let mut unpaired: Vec<&PathBuf> = keys.values().map(|(key, _)| key).collect();
        unpaired.retain(|key| !used.contains(key));
        unpaired.sort_unstable();
        for key in unpaired {
            self.fail(key, FileError::Unpaired);
        }
        let mut found: Vec<(usize, usize)> = longest.into_values().collect();
        found.sort_unstable();
        for (i, at) in found {
            let (path, chain) = &chains[i];
            let Some((key, signing)) = public_key(&chain[at]).ok().and_then(|spki| keys.get(&spki)) else {
                continue;
            };
            let files = if path == key { vec![path.clone()] } else { vec![path.clone(), key.clone()] };
            match assemble(chain, at, signing.clone(), Origin::Directory, files) {
                Ok(certificate) => {
                    if !certificate.leaf.names_ignored.is_empty() {
                        self.fail(path, FileError::BadNames(certificate.leaf.names_ignored.clone()));
                    }
                    self.certificates.push(certificate);
                }
                Err(error) => self.fail(path, error),
            }
        }
    }
}

fn assemble(
    chain: &[CertificateDer<'static>],
    at: usize,
    signing: Arc<dyn SigningKey>,
    origin: Origin,
    files: Vec<PathBuf>,
) -> Result<Certificate, FileError> {
    let in_chain = |error| FileError::Certificate { position: at + 1, error };
    let leaf = leaf(&chain[at]).map_err(in_chain)?;
    if leaf.names.is_empty() {
        return Err(if leaf.names_ignored.is_empty() {
            FileError::NoNames
        } else {
            FileError::BadNames(leaf.names_ignored)
        });
    }
    // The leaf comes first (RFC 8446 §4.4.2); a file that has it elsewhere is put in order.
    let chain = if at == 0 { chain.to_vec() } else { in_order(chain, at).map_err(in_chain)? };
    let key = Arc::new(CertifiedKey::new(chain, signing));
    key.keys_match().map_err(FileError::Key)?;
    Ok(Certificate { key, leaf, origin, files })
}

/// The leaf, then issuer after issuer as far as the file has them.
fn in_order(chain: &[CertificateDer<'static>], at: usize) -> Result<Vec<CertificateDer<'static>>, LeafError> {
    let names = chain.iter().map(issuer_and_subject).collect::<Result<Vec<_>, _>>()?;
    let mut order = vec![at];
    let mut issuer = &names[at].0;
    while let Some(next) = (0..chain.len()).find(|i| !order.contains(i) && &names[*i].1 == issuer) {
        order.push(next);
        issuer = &names[next].0;
    }
    Ok(order.into_iter().map(|i| chain[i].clone()).collect())
}

fn signing_key(key: &PrivateKeyDer<'_>, known: &mut KnownKeys) -> Result<Arc<dyn SigningKey>, FileError> {
    // Unkeyed, so that it means the same in the next load.
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(key.secret_der());
    let signing = match known.before.get(&hash) {
        Some(signing) => signing.clone(),
        None => any_supported_type(key).map_err(FileError::Key)?,
    };
    known.now.insert(hash, signing.clone());
    Ok(signing)
}

fn read(path: &Path) -> Result<Contents, FileError> {
    let len = fs::metadata(path)?.len();
    if len > FILE_LEN_MAX {
        return Err(FileError::TooLong { len });
    }
    let bytes = fs::read(path)?;
    if find(&bytes, BEGIN) { read_pem(&bytes) } else { read_der(bytes) }
}

fn read_pem(bytes: &[u8]) -> Result<Contents, FileError> {
    if find(bytes, b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || find(bytes, b"Proc-Type: 4,ENCRYPTED") {
        return Err(FileError::EncryptedKey);
    }
    // What was to follow was never written: a chain without its end.
    let last_line = bytes.rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
    if !last_line.is_empty() && BEGIN.starts_with(last_line) {
        return Err(FileError::Pem("it ends where a section begins".to_owned()));
    }
    let mut contents = Contents::default();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(bytes) {
        let (kind, der) = section.map_err(|e| FileError::Pem(in_words(&e)))?;
        match kind {
            SectionKind::Certificate => contents.chain.push(der.into()),
            SectionKind::PrivateKey => contents.keys.push(PrivateKeyDer::Pkcs8(der.into())),
            SectionKind::RsaPrivateKey => contents.keys.push(PrivateKeyDer::Pkcs1(der.into())),
            SectionKind::EcPrivateKey => contents.keys.push(PrivateKeyDer::Sec1(der.into())),
            _ => {} // requests, parameters, revocation lists: not for us
        }
    }
    Ok(contents)
}

/// The library shows what it quotes as numbers.
fn in_words(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { end_marker } => {
            format!("its {} has no end; is the file whole?", String::from_utf8_lossy(end_marker))
        }
        pem::Error::IllegalSectionStart { line } => {
            format!("{:?} begins no section", String::from_utf8_lossy(line))
        }
        other => other.to_string(),
    }
}

fn read_der(bytes: Vec<u8>) -> Result<Contents, FileError> {
    let mut contents = Contents::default();
    if bytes.is_empty() {
        return Ok(contents);
    }
    let certificate = CertificateDer::from(bytes.as_slice());
    if public_key(&certificate).is_ok() {
        contents.chain.push(certificate.into_owned());
    } else {
        contents.keys.push(PrivateKeyDer::try_from(bytes).map_err(|_| FileError::Unknown)?);
    }
    Ok(contents)
}

fn find(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
