//! Files of authorities and revocation lists → what clients have to show.

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use net_io::unix_now;
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use crate::client_auth::{ClientAuth, ClientAuthFiles, ClientRules};
use crate::material::{self, FileError, FileProblem};

/// Reads the files; blocks.
///
/// # Errors
/// Everything that is wrong with them.
pub(crate) fn client_auth(files: &ClientAuthFiles) -> Result<ClientAuth, Vec<FileProblem>> {
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
    Ok(ClientAuth { files: files.clone(), verifier, rules: ClientRules(short), fingerprint, expired_lists })
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
    let bytes = material::read_list(path)?;
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
