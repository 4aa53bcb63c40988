//! A leaf, its key and its issuers → a certificate that can be served.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::sign::{CertifiedKey, SigningKey};

use crate::certificate::{Certificate, CertificateSource, leaf};
use crate::chain::{ChainLink, IssuerPool, chain};
use crate::material::FileError;

/// The certificate whose leaf is `links[at]`, with its issuers from `links` and from `pool`.
pub(crate) fn assemble(
    links: &[ChainLink],
    at: usize,
    pool: &IssuerPool<'_>,
    signing: Arc<dyn SigningKey>,
    origin: CertificateSource,
    files: Vec<PathBuf>,
    now: i64,
) -> Result<Certificate, FileError> {
    let in_chain = |error| FileError::Certificate { position: at + 1, error };
    let leaf = leaf(&links[at].der).map_err(in_chain)?;
    if leaf.names.is_empty() {
        return Err(if leaf.names_ignored.is_empty() {
            FileError::NoNames
        } else {
            FileError::BadNames(leaf.names_ignored)
        });
    }
    let chain = chain(links, at, pool, now);
    let key = Arc::new(CertifiedKey::new(chain.certs, signing));
    key.keys_match().map_err(|_| FileError::Unpaired)?; // can't happen: the key was chosen because it fits
    Ok(Certificate { key, leaf, origin, files, chain_faults: chain.faults, client_auth: None })
}
