//! A TLS client, and a server's side of TLS, by rustls.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
    SupportedProtocolVersion, version,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::Io;
use crate::pki::Issued;

/// Both versions.
pub const BOTH: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];
/// Only the old one.
pub const TLS12: &[&SupportedProtocolVersion] = &[&version::TLS12];
/// Only the new one.
pub const TLS13: &[&SupportedProtocolVersion] = &[&version::TLS13];

/// How a client behaves. It takes any certificate, so that a test can look at it.
#[derive(Debug, Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
    server_name: Option<String>,
}

impl Tls {
    /// A client that asks for `server_name` and offers these protocols.
    #[must_use]
    pub fn new(server_name: &str, alpn: &[&str]) -> Self {
        Self::with(BOTH, Some(server_name), alpn, &[])
    }

    /// A client in detail. Without a name it sends no SNI; without schemes it accepts all.
    #[must_use]
    pub fn with(
        versions: &[&'static SupportedProtocolVersion],
        server_name: Option<&str>,
        alpn: &[&str],
        schemes: &[SignatureScheme],
    ) -> Self {
        let provider = Arc::new(default_provider());
        let all = provider.signature_verification_algorithms.supported_schemes();
        let schemes = if schemes.is_empty() { all } else { schemes.to_vec() };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Any { is_blind: false, schemes }))
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|&name| name.into()).collect();
        config.enable_sni = server_name.is_some();
        config.resumption = Resumption::in_memory_sessions(8);
        Self { config: Arc::new(config), server_name: server_name.map(Into::into) }
    }

    /// The same with this cipher suite alone.
    ///
    /// # Panics
    /// If there is none of this name.
    #[must_use]
    pub fn with_suite(self, suite: rustls::CipherSuite) -> Self {
        let mut provider = default_provider();
        provider.cipher_suites.retain(|supported| supported.suite() == suite);
        let [supported] = provider.cipher_suites[..] else { panic!("no such suite: {suite:?}") };
        let schemes = provider.signature_verification_algorithms.supported_schemes();
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[supported.version()])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Any { is_blind: false, schemes }))
            .with_no_client_auth();
        config.alpn_protocols.clone_from(&self.config.alpn_protocols);
        Self { config: Arc::new(config), ..self }
    }

    /// The same that shows a certificate of its own where it is asked for one.
    #[must_use]
    pub fn showing(self, Issued { fullchain, key, .. }: &Issued) -> Self {
        let chain = CertificateDer::pem_slice_iter(fullchain.as_bytes()).map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
        let mut config = ClientConfig::clone(&self.config);
        let shown = rustls::sign::SingleCertAndKey::from(rustls::sign::CertifiedKey::new(chain, key));
        config.client_auth_cert_resolver = Arc::new(shown);
        config.resumption = Resumption::in_memory_sessions(8);
        Self { config: Arc::new(config), ..self }
    }

    /// The same that doesn't look at the server's certificate, which may have extensions that no client knows.
    #[must_use]
    pub fn trusting_all(self) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        let schemes = default_provider().signature_verification_algorithms.supported_schemes();
        config.dangerous().set_certificate_verifier(Arc::new(Any { is_blind: true, schemes }));
        Self { config: Arc::new(config), ..self }
    }

    /// Connects and shakes hands.
    ///
    /// # Errors
    /// What TCP or TLS says.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        self.over(TcpStream::connect(address).await?).await
    }

    /// Shakes hands over a connection that is there.
    ///
    /// # Errors
    /// What TCP or TLS says.
    pub async fn over(&self, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        tcp.set_nodelay(true)?;
        self.over_any(tcp).await
    }

    /// Over any stream.
    ///
    /// # Errors
    /// What TLS says.
    pub async fn over_any<T: Io>(&self, io: T) -> io::Result<TlsStream<T>> {
        let name = self.server_name.clone().unwrap_or_else(|| "no.sni.test".into());
        TlsConnector::from(self.config.clone()).connect(ServerName::try_from(name).unwrap(), io).await
    }
}

/// A client's stream that changes its keys (RFC 8446 §4.6.3) now and then.
#[derive(Debug)]
pub struct Rekeying {
    io: TlsStream<TcpStream>,
    every: u32,
    writes: u32,
}

impl Rekeying {
    /// Changes them with one in so many writes.
    #[must_use]
    pub fn new(io: TlsStream<TcpStream>, every: u32) -> Self {
        Self { io, every, writes: 0 }
    }
}

impl AsyncRead for Rekeying {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Rekeying {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.writes += 1;
        if self.writes.is_multiple_of(self.every) {
            self.io.get_mut().1.refresh_traffic_keys().unwrap();
        }
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// A server's side of TLS with this certificate. With `clients`, clients need a certificate of that authority.
#[must_use]
pub fn acceptor(
    versions: &[&'static SupportedProtocolVersion],
    issued: &Issued,
    clients: Option<CertificateDer<'static>>,
) -> TlsAcceptor {
    let provider = Arc::new(default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions).unwrap();
    let builder = match clients {
        Some(root) => {
            let mut roots = RootCertStore::empty();
            roots.add(root).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
        None => builder.with_no_client_auth(),
    };
    let chain = CertificateDer::pem_slice_iter(issued.fullchain.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"h2".into(), b"http/1.1".into()];
    config.ticketer = Ticketer::new().unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// The leaf that the server has shown.
#[must_use]
pub fn leaf(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

/// Takes any certificate, but checks signatures.
#[derive(Debug)]
struct Any {
    /// Signatures are not checked either: for that, the certificate would have to be read.
    is_blind: bool,
    schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = default_provider().signature_verification_algorithms;
        if self.is_blind {
            return Ok(HandshakeSignatureValid::assertion());
        }
        rustls::crypto::verify_tls12_signature(message, cert, dss, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = default_provider().signature_verification_algorithms;
        if self.is_blind {
            return Ok(HandshakeSignatureValid::assertion());
        }
        rustls::crypto::verify_tls13_signature(message, cert, dss, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}
