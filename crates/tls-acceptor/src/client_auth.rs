//! Which certificates clients have to show (RFC 8446 §4.3.2, RFC 5246 §7.4.4): files of authorities and revocation lists
//! → rules, whose names are those of the server's certificate.
//!
//! The rules of a name hold whichever certificate answers for it. Session tickets are bound to the rules they were issued
//! under ([`ClientAuth::ticket_context`]), so that no session is resumed for a name with other rules, nor after a
//! certificate may have been revoked.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use net_io::unix_now;
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use crate::material::{self, FileError, FileProblem};

/// Revocation lists of large authorities have some megabytes.
const LIST_LEN_MAX: u64 = 64 * 1024 * 1024;

/// What clients have to show, as files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAuthFiles {
    /// Certificates of authorities: a client's certificate has to be issued by one of them.
    pub authorities: Vec<PathBuf>,
    /// Revocation lists of these authorities; none: no certificate is revoked.
    pub revocation_lists: Vec<PathBuf>,
    /// Clients without a certificate are refused.
    pub required: bool,
}

impl ClientAuthFiles {
    pub(crate) fn all(&self) -> impl Iterator<Item = &PathBuf> {
        self.authorities.iter().chain(&self.revocation_lists)
    }
}

/// Names the rules of a connection, but for the revocation lists: they are judged at handshakes. Two with the same value
/// trust the same authorities in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientRules([u8; 16]);

/// What clients have to show.
pub struct ClientAuth {
    pub(crate) files: ClientAuthFiles,
    pub(crate) verifier: Arc<dyn ClientCertVerifier>,
    pub(crate) rules: ClientRules,
    /// Of everything in the files.
    fingerprint: [u8; 32],
    /// Lists that have expired, so that all their clients are refused.
    pub(crate) expired_lists: Vec<PathBuf>,
}

impl fmt::Debug for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientAuth").field("files", &self.files).finish_non_exhaustive()
    }
}

impl ClientAuth {
    /// Reads the files; blocks.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub(crate) fn read(files: &ClientAuthFiles) -> Result<Self, Vec<FileProblem>> {
        let mut problems = Vec::new();
        let (mut roots, mut rules) = (RootCertStore::empty(), Context::new(&SHA256));
        rules.update(&[u8::from(files.required)]);
        for path in &files.authorities {
            match authorities(path) {
                Ok(found) => {
                    for der in &found {
                        add(&mut rules, der);
                    }
                    // What is no anchor of trust was refused by `authorities`.
                    roots.add_parsable_certificates(found);
                }
                Err(error) => problems.push(FileProblem { path: path.clone(), error }),
            }
        }
        let roots = Arc::new(roots);
        let mut all = rules.clone();
        let (mut lists, mut expired_lists) = (Vec::new(), Vec::new());
        for path in &files.revocation_lists {
            match revocation_lists(path, &roots) {
                Ok(found) => {
                    if found.iter().any(|list| has_expired(list, unix_now())) {
                        expired_lists.push(path.clone());
                    }
                    found.iter().for_each(|list| add(&mut all, list));
                    lists.extend(found);
                }
                Err(error) => problems.push(FileProblem { path: path.clone(), error }),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let verifier = verifier(&roots, lists, files.required).map_err(|error| {
            let path = files.authorities.first().cloned().unwrap_or_default();
            vec![FileProblem { path, error }]
        })?;
        let (rules, all) = (rules.finish(), all.finish());
        let (mut short, mut fingerprint) = ([0; 16], [0; 32]);
        short.copy_from_slice(&rules.as_ref()[..16]);
        fingerprint.copy_from_slice(all.as_ref());
        Ok(Self { files: files.clone(), verifier, rules: ClientRules(short), fingerprint, expired_lists })
    }

    /// Clients without a certificate are refused.
    #[must_use]
    pub fn is_required(&self) -> bool {
        self.files.required
    }

    /// What tickets are bound to that are issued under these rules.
    pub(crate) fn ticket_context(&self) -> [u8; 32] {
        self.fingerprint
    }

    /// Judges the chain of a resumed session, which was judged when it began: it may have expired since.
    pub(crate) fn judge(&self, chain: Option<&[CertificateDer<'_>]>) -> Result<(), rustls::Error> {
        match chain.and_then(<[_]>::split_first) {
            Some((leaf, issuers)) => {
                self.verifier.verify_client_cert(leaf, issuers, UnixTime::now()).map(drop)
            }
            None if self.files.required => Err(rustls::Error::NoCertificatesPresented),
            None => Ok(()),
        }
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

/// With its length, so that two lists of parts differ where their parts do.
fn add(digest: &mut Context, part: &[u8]) {
    digest.update(&(part.len() as u64).to_be_bytes());
    digest.update(part);
}

fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let contents = material::read(path)?;
    let mut found = Vec::new();
    for der in contents.chain {
        if RootCertStore::empty().add(der.clone()).is_ok() {
            found.push(der);
        }
    }
    if found.is_empty() {
        return Err(contents.notes.into_iter().next().unwrap_or(FileError::NoAuthority));
    }
    Ok(found)
}

fn revocation_lists(
    path: &Path,
    roots: &Arc<RootCertStore>,
) -> Result<Vec<CertificateRevocationListDer<'static>>, FileError> {
    let len = std::fs::metadata(path)?.len();
    if len > LIST_LEN_MAX {
        return Err(FileError::ListTooLong { len });
    }
    let bytes = std::fs::read(path)?;
    if bytes.trim_ascii().is_empty() {
        return Err(FileError::Empty);
    }
    let in_pem: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
    let found = match in_pem {
        Ok(found) if !found.is_empty() => found,
        // DER, as authorities publish it.
        _ if CertificateRevocationList::from_der(&bytes).is_ok() => vec![bytes.into()],
        _ => return Err(FileError::NoRevocationList),
    };
    // Whether a list can be read is known by the library that judges by it.
    if !roots.is_empty() && verifier(roots, found.clone(), true).is_err() {
        return Err(FileError::RevocationList);
    }
    Ok(found)
}

fn verifier(
    roots: &Arc<RootCertStore>,
    lists: Vec<CertificateRevocationListDer<'static>>,
    required: bool,
) -> Result<Arc<dyn ClientCertVerifier>, FileError> {
    // With a list, each certificate of a chain has to be covered by one that has not expired (RFC 5280 §6.3.3).
    let builder = WebPkiClientVerifier::builder_with_provider(roots.clone(), Arc::new(default_provider()))
        .with_crls(lists)
        .enforce_revocation_expiration();
    let builder = if required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|_| FileError::RevocationList)
}

/// A list that can't be read here is judged by the verifier.
fn has_expired(list: &CertificateRevocationListDer<'_>, now: i64) -> bool {
    let parsed = CertificateRevocationList::from_der(list);
    parsed.is_ok_and(|(_, list)| list.next_update().is_some_and(|next| next.timestamp() <= now))
}

#[cfg(test)]
mod tests;
