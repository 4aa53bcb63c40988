//! A connection to the gateway: TLS 1.3 with the one suite and group of the comparison, and as few
//! reads and writes as rustls allows.

use std::fs;
use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, ExtractedSecrets, HandshakeKind,
    SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::job::{Job, Work};
use crate::setup::HOST;

/// Big reads for rustls, which takes 4 KiB at a time.
pub(super) type Stream = TlsStream<BufReader<TcpStream>>;

/// How long connecting, or the end of what is in flight, may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// The answer to the key, which is always the same.
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// What all connections of a load have in common.
pub(crate) struct Client {
    config: Arc<ClientConfig>,
    port: u16,
    buffer: usize,
}

impl Client {
    pub(super) fn new(job: &Job) -> anyhow::Result<Self> {
        let alpn = match job.work {
            Work::Http2 { .. } | Work::File { streams: 1.., .. } => "h2",
            _ => "http/1.1",
        };
        let buffer = match job.work {
            Work::Idle { .. } => 1 << 10, // thousands of them
            _ => 16 << 10,
        };
        Self::of(&job.certificate, job.port, alpn, buffer)
    }

    /// Clients of a server that shows this certificate (PEM). Each reads at most `buffer` bytes at once.
    pub(crate) fn of(certificate: &Path, port: u16, alpn: &str, buffer: usize) -> anyhow::Result<Self> {
        let provider = CryptoProvider {
            cipher_suites: vec![cipher_suite::TLS13_AES_128_GCM_SHA256],
            kx_groups: vec![kx_group::X25519],
            ..default_provider()
        };
        let certificate = CertificateDer::from_pem_slice(&fs::read(certificate)?)?;
        let algorithms = provider.signature_verification_algorithms;
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous() // a certificate is known by its bytes; that its key is there is still verified
            .with_custom_certificate_verifier(Arc::new(Known { certificate, algorithms }))
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        config.enable_secret_extraction = true;
        config.alpn_protocols = vec![alpn.into()];
        Ok(Self { config: Arc::new(config), port, buffer })
    }

    /// The same with a memory of its own for session tickets.
    pub(super) fn resuming(&self) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        config.resumption = Resumption::in_memory_sessions(8);
        Self { config: Arc::new(config), ..*self }
    }

    /// TCP and TLS. Source addresses are spread by `index`, as one has ports for 28,000 connections.
    pub(super) async fn connect(&self, index: usize) -> anyhow::Result<Stream> {
        let socket = TcpSocket::new_v4()?;
        socket.set_nodelay(true)?;
        let source = Ipv4Addr::new(127, 0, 0, u8::try_from(2 + index % 200)?);
        socket.bind(SocketAddr::from((source, 0)))?;
        let tcp = socket.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))).await.context("TCP")?;
        let stream = BufReader::with_capacity(self.buffer, tcp);
        let connector = TlsConnector::from(self.config.clone());
        let tls = connector.connect(ServerName::try_from(HOST)?, stream).await.context("TLS")?;
        let wanted = self.config.alpn_protocols.first().map(Vec::as_slice);
        ensure!(tls.get_ref().1.alpn_protocol() == wanted, "another protocol than asked for");
        Ok(tls)
    }

    /// TCP, TLS and the upgrade.
    pub(crate) async fn upgrade(&self, index: usize) -> anyhow::Result<Connection> {
        Ok(self.upgrade_with(index, "").await?.0)
    }

    /// The same with more fields in the request, each with its end of line; and the head of the answer.
    pub(crate) async fn upgrade_with(
        &self,
        index: usize,
        fields: &str,
    ) -> anyhow::Result<(Connection, String)> {
        let mut connection = Connection::new(self.connect(index).await?, self.buffer);
        let answer = connection.upgrade(fields).await.context("upgrade")?;
        Ok((connection, answer))
    }
}

/// Trusts one certificate, which costs a comparison where a chain costs a signature's verification.
#[derive(Debug)]
struct Known {
    certificate: CertificateDer<'static>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Known {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match *certificate == self.certificate {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 was not offered".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Bytes both ways at once: what waits in `outbox` is written while the next bytes are awaited.
pub(crate) struct Connection {
    stream: Stream,
    inbox: Vec<u8>,
    pub(crate) outbox: Vec<u8>,
    written: usize,
}

impl Connection {
    pub(super) fn new(stream: Stream, buffer: usize) -> Self {
        Self { stream, inbox: vec![0; buffer], outbox: Vec::new(), written: 0 }
    }

    pub(super) fn resumed(&self) -> bool {
        self.stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The socket and the keys, between two messages.
    pub(super) fn into_parts(self) -> anyhow::Result<(std::net::TcpStream, ExtractedSecrets)> {
        let (stream, connection) = self.stream.into_inner();
        ensure!(stream.buffer().is_empty() && self.outbox.is_empty(), "something is under way");
        Ok((stream.into_inner().into_std()?, connection.dangerous_extract_secrets()?))
    }

    /// The next bytes, and the outbox to answer into; no bytes at the end of the stream.
    ///
    /// # Cancel safety
    /// Safe: what is written is remembered, and bytes are read only when they are returned.
    pub(crate) async fn exchange(&mut self) -> anyhow::Result<(&[u8], &mut Vec<u8>)> {
        let Self { stream, inbox, outbox, written } = self;
        let read = poll_fn(|cx| {
            let mut stream = Pin::new(&mut *stream);
            while *written < outbox.len() {
                match stream.as_mut().poll_write(cx, &outbox[*written..])? {
                    Poll::Ready(len) => *written += len,
                    Poll::Pending => break,
                }
            }
            // A writer that never quite catches up must not gather all that it ever wrote.
            if 2 * *written >= outbox.len() {
                outbox.drain(..*written);
                *written = 0;
            }
            let _ = stream.as_mut().poll_flush(cx)?;
            let mut buffer = ReadBuf::new(inbox);
            ready!(stream.poll_read(cx, &mut buffer))?;
            Poll::Ready(std::io::Result::Ok(buffer.filled().len()))
        });
        let read = read.await?;
        Ok((&inbox[..read], outbox))
    }

    async fn upgrade(&mut self, fields: &str) -> anyhow::Result<String> {
        let request = format!(
            "GET /wss HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{fields}\r\n"
        );
        self.outbox.extend_from_slice(request.as_bytes());
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let (input, _) = self.exchange().await?;
            if input.is_empty() {
                bail!("end of stream in the answer");
            }
            answer.extend_from_slice(input);
        }
        let answer = String::from_utf8(answer)?;
        ensure!(answer.starts_with("HTTP/1.1 101 ") && answer.contains(ACCEPT), "no upgrade: {answer}");
        Ok(answer)
    }
}
