//! Which certificates clients have to show (RFC 8446 §4.3.2, RFC 5246 §7.4.4). The rules belong to the names of a server's
//! certificate; `authorities` reads them from files.
//!
//! The rules of a name hold whichever certificate answers for it. Session tickets are bound to the rules they were issued
//! under ([`ClientAuth::ticket_context`]), so that no session is resumed for a name with other rules, nor after a
//! certificate may have been revoked.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};

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
pub struct ClientRules(pub(crate) [u8; 16]);

impl ClientRules {
    /// The name, which is the same in all processes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// What [`Self::to_bytes`] gave.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

/// What clients have to show.
pub struct ClientAuth {
    pub(crate) files: ClientAuthFiles,
    pub(crate) verifier: Arc<dyn ClientCertVerifier>,
    pub(crate) rules: ClientRules,
    /// Of everything in the files.
    pub(crate) fingerprint: [u8; 32],
    /// Lists that have expired, so that all their clients are refused.
    pub(crate) expired_lists: Vec<PathBuf>,
}

impl fmt::Debug for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientAuth").field("files", &self.files).finish_non_exhaustive()
    }
}

impl ClientAuth {
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
