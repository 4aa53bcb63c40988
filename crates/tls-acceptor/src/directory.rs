//! Everything in a directory → certificates, each file judged on its own.
//!
//! Any layout will do: a key is matched to a certificate by the public key itself, never by a file's
//! name. What was meant to be served and isn't is reported with its reason.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::sign::SigningKey;
use walkdir::WalkDir;

use crate::assembly::assemble;
use crate::certificate::{Certificate, CertificateSource, Role};
use crate::chain::{ChainLink, IssuerPool};
use crate::material::{
    FILE_LEN_MAX, FileError, FileProblem, KnownKeys, is_hidden, is_listed, read, signing_key,
};
use crate::name::CertName;

/// Files that are looked into although their names end in something else, to say so.
const UNLISTED_MAX: usize = 256;
/// Files that are looked into for the issuer of a certificate that is named.
const BESIDE_MAX: usize = 256;
/// Names of a certificate in a message.
const NAMES_SHOWN: usize = 5;

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

/// The certificates of a file.
struct ChainFile {
    path: PathBuf,
    links: Vec<ChainLink>,
}

/// By the public key: where the private one is.
type Keys = HashMap<Vec<u8>, (PathBuf, Arc<dyn SigningKey>)>;

/// The files of a directory that have the name of their certificate, in order; none, if there is no such directory.
pub(crate) fn demanded(directory: &Path) -> Vec<PathBuf> {
    let is_of_name = |file: &Path| {
        let name = file.file_name().and_then(|name| name.to_str()?.strip_suffix(".pem"));
        name.is_some_and(|name| matches!(CertName::parse(name), Some(CertName::Exact(_))))
    };
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.path()).filter(|file| is_of_name(file)).collect();
    files.sort_unstable();
    files
}

/// Reads every `.pem`, `.crt`, `.cer` and `.key` below `directory`. `now` in seconds since 1970.
///
/// # Errors
/// Only if the directory itself can't be read.
pub(crate) fn scan(directory: &Path, known: &mut KnownKeys, now: i64) -> Result<Scanned, io::Error> {
    fs::read_dir(directory)?;
    let mut scanned = Scanned::default();
    let mut chains: Vec<ChainFile> = Vec::new();
    let mut keys = Keys::new();
    let mut unlisted: Vec<PathBuf> = Vec::new();
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
        if !entry.file_type().is_file() {
            continue;
        }
        if !is_listed(path) {
            unlisted.push(path.to_owned());
            continue;
        }
        scanned.files.insert(path.to_owned());
        match read(path) {
            Ok(contents) => {
                for error in contents.notes {
                    scanned.fail(path, error);
                }
                for key in &contents.keys {
                    match known.signing(key) {
                        Ok(signing) => {
                            let Some(spki) = signing.public_key().map(|spki| spki.to_vec()) else { continue };
                            keys.entry(spki).or_insert_with(|| (path.to_owned(), signing));
                        }
                        Err(error) => scanned.fail(path, error),
                    }
                }
                let links = contents.chain.into_iter().enumerate().map(|(i, der)| {
                    ChainLink::read(der).map_err(|error| FileError::Certificate { position: i + 1, error })
                });
                match links.collect::<Result<Vec<_>, _>>() {
                    Ok(links) if links.is_empty() => {}
                    Ok(links) => chains.push(ChainFile { path: path.to_owned(), links }),
                    Err(error) => scanned.fail(path, error),
                }
            }
            Err(error) => scanned.fail(path, error),
        }
    }
    scanned.pair(&chains, &keys, now);
    scanned.warn_of_unserved_leaves(&chains, &keys, &unlisted);
    Ok(scanned)
}

/// The certificates in the files beside `file` that a directory would be read for: its issuers may be
/// among them.
pub(crate) fn beside(file: &Path) -> Vec<ChainLink> {
    let directory = file.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> =
        entries.filter(|entry| !is_hidden(&entry.file_name())).map(|entry| entry.path()).collect();
    paths.retain(|path| is_listed(path) && path.is_file());
    paths.sort_unstable();
    let contents = paths.iter().take(BESIDE_MAX).filter_map(|path| read(path).ok());
    contents.flat_map(|contents| contents.chain).filter_map(|der| ChainLink::read(der).ok()).collect()
}

impl Scanned {
    /// What is known where the directory itself can't be read.
    pub(crate) fn nothing(directory: &Path, error: io::Error) -> Self {
        let problem = FileProblem { path: directory.to_owned(), error: FileError::Io(error) };
        Self { unwalked: vec![directory.to_owned()], problems: vec![problem], ..Self::default() }
    }

    /// The file was read, or is in a directory that couldn't be read.
    pub(crate) fn may_be_there(&self, file: &Path) -> bool {
        self.files.contains(file) || self.unwalked.iter().any(|path| file.starts_with(path))
    }

    fn fail(&mut self, path: &Path, error: FileError) {
        self.problems.push(FileProblem { path: path.to_owned(), error });
    }

    /// Each leaf that a key fits becomes a certificate, from the file that has most beside it.
    fn pair(&mut self, chains: &[ChainFile], keys: &Keys, now: i64) {
        // leaf → (file, position of the leaf in it)
        let mut fullest: HashMap<&[u8], (usize, usize)> = HashMap::new();
        let mut used: HashSet<&PathBuf> = HashSet::new();
        for (i, file) in chains.iter().enumerate() {
            let with_key = |link: &ChainLink| keys.get(&link.facts.public_key).map(|(key, _)| key);
            used.extend(file.links.iter().filter_map(with_key));
            let with_key = file.links.iter().enumerate().filter(|(_, link)| with_key(link).is_some());
            // Every server's own. An authority whose key lies here too is one only where there is none.
            let mut leaves: Vec<_> = with_key.map(|(at, link)| (link.facts.role, at)).collect();
            leaves.sort_unstable();
            let servers = leaves.partition_point(|(role, _)| *role == Role::Server);
            leaves.truncate(servers.max(1));
            for (_, at) in leaves {
                let best = fullest.entry(&file.links[at].der).or_insert((i, at));
                if file.links.len() > chains[best.0].links.len() {
                    *best = (i, at);
                }
            }
        }
        let mut unpaired: Vec<&PathBuf> = keys.values().map(|(key, _)| key).collect();
        unpaired.retain(|key| !used.contains(key));
        unpaired.sort_unstable();
        unpaired.dedup();
        for key in unpaired {
            self.fail(key, FileError::Unpaired);
        }
        let pool = IssuerPool::of(chains.iter().flat_map(|file| &file.links));
        let mut found: Vec<(usize, usize)> = fullest.into_values().collect();
        found.sort_unstable();
        for (i, at) in found {
            let ChainFile { path, links } = &chains[i];
            let Some((key, signing)) = keys.get(&links[at].facts.public_key) else { continue };
            let files = if path == key { vec![path.clone()] } else { vec![path.clone(), key.clone()] };
            match assemble(links, at, &pool, signing.clone(), CertificateSource::Directory, files, now) {
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

    /// Leaves that can't be served, since their key is missing, or their file is not read.
    fn warn_of_unserved_leaves(&mut self, chains: &[ChainFile], keys: &Keys, unlisted: &[PathBuf]) {
        let sent: HashSet<&[u8]> =
            self.certificates.iter().flat_map(|c| &c.key.cert).map(AsRef::as_ref).collect();
        let is_served =
            |link: &ChainLink| keys.contains_key(&link.facts.public_key) || sent.contains(&*link.der);
        let mut reported: HashSet<&[u8]> = HashSet::new();
        let mut keyless: Vec<(&Path, &ChainLink)> = Vec::new();
        for file in chains {
            for link in &file.links {
                if is_meant_for_hosts(link) && !is_served(link) && reported.insert(&link.der) {
                    keyless.push((&file.path, link));
                }
            }
        }
        let others: Vec<_> = unlisted.iter().take(UNLISTED_MAX).filter_map(|path| unread(path)).collect();
        let other_keys: HashMap<Vec<u8>, &Path> = match keyless.is_empty() {
            true => HashMap::new(), // they are not needed
            false => others.iter().flat_map(Unread::public_keys).collect(),
        };
        let mut problems = Vec::new();
        for (path, link) in keyless {
            let names = shown(&link.facts.hosts);
            let elsewhere = other_keys.get(&link.facts.public_key).map(|path| path.to_path_buf());
            problems.push((path.to_owned(), FileError::Keyless { names, elsewhere }));
        }
        let known: HashSet<&str> =
            chains.iter().flat_map(|f| &f.links).flat_map(|l| &l.facts.hosts).map(String::as_str).collect();
        for Unread { path, links, .. } in &others {
            let is_news = |link: &&ChainLink| {
                is_meant_for_hosts(link) && !link.facts.hosts.iter().all(|h| known.contains(&**h))
            };
            if let Some(link) = links.iter().find(is_news) {
                problems.push((path.clone(), FileError::Ending { names: shown(&link.facts.hosts) }));
            }
        }
        self.problems.extend(problems.into_iter().map(|(path, error)| FileProblem { path, error }));
    }
}

/// A server's own certificate, or one that has signed itself and names hosts.
fn is_meant_for_hosts(link: &ChainLink) -> bool {
    let facts = &link.facts;
    facts.is_leaf() || facts.role == Role::AuthorityWithHosts && facts.subject == facts.issuer
}

/// A file that isn't read, since its name ends in something else.
struct Unread {
    path: PathBuf,
    links: Vec<ChainLink>,
    keys: Vec<rustls_pki_types::PrivateKeyDer<'static>>,
}

impl Unread {
    fn public_keys(&self) -> impl Iterator<Item = (Vec<u8>, &Path)> {
        let signing = self.keys.iter().filter_map(|key| signing_key(key).ok());
        signing.filter_map(|signing| Some((signing.public_key()?.to_vec(), &*self.path)))
    }
}

/// What is in a file that isn't read, if it is anything.
fn unread(path: &Path) -> Option<Unread> {
    fs::metadata(path).ok().filter(|found| found.is_file() && found.len() <= FILE_LEN_MAX)?;
    let contents = read(path).ok()?;
    let links: Vec<ChainLink> =
        contents.chain.into_iter().filter_map(|der| ChainLink::read(der).ok()).collect();
    let is_any = !links.is_empty() || !contents.keys.is_empty();
    is_any.then(|| Unread { path: path.to_owned(), links, keys: contents.keys })
}

fn shown(names: &[String]) -> String {
    let mut shown: Vec<&str> = names.iter().take(NAMES_SHOWN).map(String::as_str).collect();
    let more = format!("and {} more", names.len().saturating_sub(NAMES_SHOWN));
    if names.len() > NAMES_SHOWN {
        shown.push(&more);
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests;
