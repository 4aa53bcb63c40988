//! A chain and a key whose files are known → a certificate, or everything that is wrong with the two.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::sign::SigningKey;

use crate::assembly::assemble;
use crate::authorities;
use crate::certificate::{Certificate, CertificateSource};
use crate::chain::{ChainLink, IssuerPool};
use crate::chain_fault::ChainFault;
use crate::client_auth::ClientAuthFiles;
use crate::directory::beside;
use crate::material::{FileError, FileProblem, read, signing_key};

/// A certificate that the plan names, and what is wrong with its files that does no harm.
pub(crate) fn named(
    origin: &CertificateSource,
    chain: &[PathBuf],
    key: &Path,
    client_auth: Option<&ClientAuthFiles>,
    now: i64,
) -> Result<(Certificate, Vec<FileProblem>), Vec<FileProblem>> {
    let (mut problems, mut notes) = (Vec::new(), Vec::new());
    let mut links = Vec::new();
    for path in chain {
        let problem = |error| FileProblem { path: path.clone(), error };
        let contents = match read(path) {
            Ok(contents) => contents,
            Err(error) => {
                problems.push(problem(error));
                continue;
            }
        };
        let mut found = contents.notes.into_iter();
        if contents.chain.is_empty() {
            problems.push(problem(found.next().unwrap_or(FileError::NoCertificate)));
        }
        notes.extend(found.map(problem));
        for (i, der) in contents.chain.into_iter().enumerate() {
            match ChainLink::read(der) {
                Ok(link) => links.push(link),
                Err(error) => problems.push(problem(FileError::Certificate { position: i + 1, error })),
            }
        }
    }
    let in_key = |error| FileProblem { path: key.to_owned(), error };
    let keys = match signing_keys(key) {
        Ok((keys, found)) => {
            // What chain and key share a file for is said once.
            notes.extend(found.into_iter().filter(|_| !chain.iter().any(|file| file == key)).map(in_key));
            keys
        }
        Err(error) => {
            let problem = in_key(error);
            // A file that is chain and key may have been reported as the chain already.
            if problems.iter().all(|other| other.to_string() != problem.to_string()) {
                problems.push(problem);
            }
            Vec::new()
        }
    };
    let client_auth = match client_auth.map(authorities::client_auth).transpose() {
        Ok(client_auth) => client_auth,
        Err(found) => {
            problems.extend(found);
            None
        }
    };
    if !problems.is_empty() {
        return Err(problems);
    }
    let path = chain.first().cloned().unwrap_or_default();
    // Of several keys the one that fits, and of several certificates the server's own.
    let fitting = keys.into_iter().flat_map(|signing| {
        let spki = signing.public_key().map(|spki| spki.to_vec());
        let fits =
            links.iter().enumerate().filter(move |(_, link)| Some(&link.facts.public_key) == spki.as_ref());
        fits.map(move |(at, link)| (link.facts.role, at, signing.clone()))
    });
    let Some((_, at, signing)) = fitting.min_by_key(|(role, at, _)| (*role, *at)) else {
        return Err(vec![in_key(FileError::Mismatch { chain: path })]);
    };
    let mut files = chain.to_vec();
    files.push(key.to_owned());
    let assemble = |pool: &IssuerPool<'_>| {
        let (signing, files) = (signing.clone(), files.clone());
        let certificate = assemble(&links, at, pool, signing, origin.clone(), files, now);
        certificate.map_err(|error| vec![FileProblem { path: path.clone(), error }])
    };
    let mut certificate = assemble(&IssuerPool::default())?;
    if certificate.chain_faults.iter().any(|fault| matches!(fault, ChainFault::NoIssuer { .. })) {
        // Such as certbot's chain.pem beside its cert.pem.
        certificate = assemble(&IssuerPool::of(beside(&path).iter()))?;
    }
    certificate.client_auth = client_auth.map(Arc::new);
    Ok((certificate, notes))
}

type SigningKeys = (Vec<Arc<dyn SigningKey>>, Vec<FileError>);

/// All keys of a file that sign, and what is wrong with the others; if none does, what is wrong first.
fn signing_keys(file: &Path) -> Result<SigningKeys, FileError> {
    let contents = read(file)?;
    let (mut keys, mut notes) = (Vec::new(), contents.notes);
    for key in &contents.keys {
        match signing_key(key) {
            Ok(signing) => keys.push(signing),
            Err(error) => notes.insert(0, error),
        }
    }
    if keys.is_empty() {
        return Err(notes.into_iter().next().unwrap_or(FileError::NoKey));
    }
    Ok((keys, notes))
}
