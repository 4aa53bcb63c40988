//! The answer to an authority that validates a name by a handshake: tls-alpn-01 (RFC 8737).

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{Error, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::handshake::SecretCapture;

/// The protocol that such a handshake is for (RFC 8737 §6.2).
const ACME_TLS: &[u8] = b"acme-tls/1";

/// Knows the answers to the challenges that are open now.
pub trait AnswerChallenges: Debug + Send + Sync {
    /// What is shown to an authority that validates `name`, which is in lower case; `None`: the name is not being
    /// validated.
    fn answer(&self, name: &str) -> ChallengeFuture;
}

/// Waits for an answer.
pub type ChallengeFuture = Pin<Box<dyn Future<Output = Option<ChallengeAnswer>> + Send>>;

/// A certificate for this one handshake: for the name alone, and with the digest that the authority expects in
/// acmeIdentifier (RFC 8737 §3).
#[derive(Debug)]
pub struct ChallengeAnswer {
    /// The certificate, in DER.
    pub certificate: Vec<u8>,
    /// Its key, in PKCS #8.
    pub key: Vec<u8>,
}

impl ChallengeAnswer {
    /// What the handshake is done by.
    ///
    /// # Errors
    /// If the two are not a certificate and its key.
    pub(crate) fn config(self, provider: Arc<CryptoProvider>) -> Result<ServerConfig, Error> {
        let key = any_supported_type(&PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key)))?;
        let certified = CertifiedKey::new(vec![CertificateDer::from(self.certificate)], key);
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut tls =
            builder.with_no_client_auth().with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        tls.alpn_protocols = vec![ACME_TLS.to_vec()];
        tls.key_log = Arc::new(SecretCapture); // the handshake looks for early data by them
        tls.session_storage = Arc::new(NoServerSessionStorage {});
        tls.send_tls13_tickets = 0; // nothing follows
        Ok(tls)
    }
}
