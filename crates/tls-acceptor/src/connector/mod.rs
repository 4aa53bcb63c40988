//! A TCP connection to a server in; the client's end of a TLS stream out.
//!
//! The handshake is rustls', as on the other side; from there on records are opened and sealed by this crate, so that
//! an idle connection holds no buffer.

mod error;
mod handshake;

use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::path::PathBuf;
use std::sync::Arc;

use net_io::Tcp;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, ClientConfig, RootCertStore};
use tokio::net::TcpStream;

pub use self::error::{ConnectError, ConnectorError};
use self::handshake::Handshake;
use crate::handshake::SecretCapture;
use crate::material;
use crate::name::normalize;
use crate::negotiated::Alpn;
use crate::stream::TlsStream;

/// The name that a server's certificate has to be valid for. Servers are told it (RFC 6066 §3), unless it is an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerName(rustls_pki_types::ServerName<'static>);

impl ServerName {
    /// Reads a DNS name or an IP address, IPv6 in brackets or without; `None` if it is neither.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        let name = rustls_pki_types::ServerName::try_from(normalize(bare).into_owned());
        name.ok().map(Self)
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_str())
    }
}

/// Whom servers are trusted by, and what they are shown.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct ConnectorSettings {
    /// Files with certificates of authorities; none: what the system trusts.
    pub authorities: Vec<PathBuf>,
    /// For servers that ask for one.
    pub client_certificate: Option<ClientCertificate>,
}

/// Files of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientCertificate {
    /// The certificate, and those that issued it.
    pub chain: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Does handshakes with servers. Cheap to clone; clones share the sessions that can be resumed.
#[derive(Debug, Clone)]
pub struct TlsConnector {
    /// Offers HTTP/1.1.
    http1: Arc<ClientConfig>,
    /// The same, but offers HTTP/2; sessions are resumed across the two.
    http2: Arc<ClientConfig>,
    /// Of the settings and what was in their files.
    fingerprint: u64,
}

impl TlsConnector {
    /// Reads the files; blocks.
    ///
    /// # Errors
    /// See [`ConnectorError`].
    pub fn new(settings: &ConnectorSettings) -> Result<Self, ConnectorError> {
        let provider = Arc::new(default_provider());
        let mut read = Vec::new();
        let verifier: Arc<dyn ServerCertVerifier> = if settings.authorities.is_empty() {
            Arc::new(
                rustls_platform_verifier::Verifier::new(provider.clone()).map_err(ConnectorError::System)?,
            )
        } else {
            let mut roots = RootCertStore::empty();
            for path in &settings.authorities {
                let of_file = |error| ConnectorError::File { path: path.clone(), error };
                let contents = material::read(path).map_err(of_file)?;
                let (added, _) = roots.add_parsable_certificates(contents.chain.iter().cloned());
                if added == 0 {
                    return Err(ConnectorError::NoAuthority { path: path.clone() });
                }
                read.extend(contents.chain);
            }
            let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
            builder.build().map_err(|e| ConnectorError::Tls(rustls::Error::General(e.to_string())))?
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(ConnectorError::Tls)?
            .dangerous() // the verifiers are those of the system and of WebPKI
            .with_custom_certificate_verifier(verifier);
        let mut tls = match &settings.client_certificate {
            None => builder.with_no_client_auth(),
            Some(certificate) => {
                let key = read_certificate(certificate)?;
                read.extend(key.cert.iter().cloned());
                builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key)))
            }
        };
        tls.alpn_protocols = vec![Alpn::Http11.as_str().into()];
        tls.enable_secret_extraction = true;
        tls.key_log = Arc::new(SecretCapture);
        let fingerprint = BuildHasherDefault::<DefaultHasher>::default().hash_one((
            settings.authorities.is_empty(),
            read.iter().map(AsRef::as_ref).collect::<Vec<&[u8]>>(),
        ));
        let mut http2 = tls.clone();
        http2.alpn_protocols = vec![Alpn::H2.as_str().into()];
        Ok(Self { http1: Arc::new(tls), http2: Arc::new(http2), fingerprint })
    }

    /// Two with the same trust the same authorities and show the same certificate.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Does the handshake with the server at the other end of `tcp`, whose certificate has to be valid for `name`. It is
    /// offered `alpn`: HTTP/2 it has to choose, while a server that chooses nothing speaks HTTP/1.1 (RFC 7301 §3.2,
    /// RFC 9113 §3.2).
    ///
    /// # Errors
    /// See [`ConnectError`]. The server has been told.
    ///
    /// # Cancel safety
    /// A dropped call drops the connection.
    pub async fn connect(
        &self,
        mut tcp: TcpStream,
        name: &ServerName,
        alpn: Alpn,
    ) -> Result<TlsStream, ConnectError> {
        let config = match alpn {
            Alpn::Http11 => &self.http1,
            Alpn::H2 => &self.http2,
        };
        let mut handshake = Handshake::new(config.clone(), name.0.clone())?;
        if let Err(e) = handshake.run(&mut tcp).await {
            handshake.send_alert(&tcp);
            return Err(match e {
                ConnectError::Alert(AlertDescription::NoApplicationProtocol) => {
                    ConnectError::Protocol { wanted: alpn.as_str() }
                }
                e => e,
            });
        }
        let (finished, tickets) = handshake.finish()?;
        if alpn == Alpn::H2 && finished.alpn.is_none() {
            return Err(ConnectError::Protocol { wanted: alpn.as_str() });
        }
        Ok(TlsStream::of_client(Tcp::from(tcp), finished, tickets)?)
    }
}

fn read_certificate(files: &ClientCertificate) -> Result<CertifiedKey, ConnectorError> {
    let ClientCertificate { chain, key } = files;
    let read = |path: &PathBuf| {
        material::read(path).map_err(|error| ConnectorError::File { path: path.clone(), error })
    };
    let certificates = read(chain)?.chain;
    if certificates.is_empty() {
        return Err(ConnectorError::NoCertificate { path: chain.clone() });
    }
    let keys = read(key)?.keys;
    let found = keys.first().ok_or_else(|| ConnectorError::NoKey { path: key.clone() })?;
    let signing =
        material::signing_key(found).map_err(|error| ConnectorError::File { path: key.clone(), error })?;
    let certified = CertifiedKey::new(certificates, signing);
    match certified.keys_match() {
        Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
            Err(ConnectorError::OtherKey { chain: chain.clone(), key: key.clone() })
        }
        _ => Ok(certified), // what can't be compared is for the server to judge
    }
}

#[cfg(test)]
mod tests;
