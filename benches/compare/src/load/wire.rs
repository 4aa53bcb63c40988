//! A connection to the gateway: TLS 1.3 with the one suite and group of the comparison, and as few
//! reads and writes as rustls allows.

use std::fs;
use std::future::poll_fn;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};

use anyhow::{Context, bail, ensure};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::job::{Job, Work};
use crate::setup::HOST;

/// Big reads for rustls, which takes 4 KiB at a time.
pub(super) type Stream = TlsStream<BufReader<TcpStream>>;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// What all connections of a load have in common.
pub(super) struct Client {
    config: Arc<ClientConfig>,
    port: u16,
    buffer: usize,
}

impl Client {
    pub(super) fn new(job: &Job) -> anyhow::Result<Self> {
        let provider = CryptoProvider {
            cipher_suites: vec![cipher_suite::TLS13_AES_128_GCM_SHA256],
            kx_groups: vec![kx_group::X25519],
            ..default_provider()
        };
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&fs::read(&job.certificate)?)?)?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        let alpn = if matches!(job.work, Work::Http2 { .. }) { "h2" } else { "http/1.1" };
        config.alpn_protocols = vec![alpn.into()];
        let buffer = match job.work {
            Work::Idle { .. } => 1 << 10, // thousands of them
            Work::Echo { size, .. } => size.clamp(16 << 10, 256 << 10),
            _ => 16 << 10,
        };
        Ok(Self { config: Arc::new(config), port: job.port, buffer })
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
    pub(super) async fn upgrade(&self, index: usize) -> anyhow::Result<Wire> {
        let mut wire = Wire::new(self.connect(index).await?, self.buffer);
        wire.upgrade().await.context("upgrade")?;
        Ok(wire)
    }
}

/// Bytes both ways at once: what waits in `outbox` is written while the next bytes are awaited.
pub(super) struct Wire {
    stream: Stream,
    inbox: Vec<u8>,
    pub(super) outbox: Vec<u8>,
    written: usize,
    /// Each so many bytes of the outbox get a TLS record of their own.
    pub(super) record_len: Option<usize>,
}

impl Wire {
    pub(super) fn new(stream: Stream, buffer: usize) -> Self {
        Self { stream, inbox: vec![0; buffer], outbox: Vec::new(), written: 0, record_len: None }
    }

    pub(super) fn resumed(&self) -> bool {
        self.stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The next bytes, and the outbox to answer into; no bytes at the end of the stream.
    ///
    /// # Cancel safety
    /// Safe: what is written is remembered, and bytes are read only when they are returned.
    pub(super) async fn turn(&mut self) -> anyhow::Result<(&[u8], &mut Vec<u8>)> {
        let Self { stream, inbox, outbox, written, record_len } = self;
        let read = poll_fn(|cx| {
            if let Some(len) = *record_len {
                let tls = stream.get_mut().1;
                for record in outbox.chunks(len) {
                    tls.writer().write_all(record)?;
                }
                outbox.clear();
            }
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

    async fn upgrade(&mut self) -> anyhow::Result<()> {
        let request = format!(
            "GET /wss HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        self.outbox.extend_from_slice(request.as_bytes());
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let (input, _) = self.turn().await?;
            if input.is_empty() {
                bail!("end of stream in the answer");
            }
            answer.extend_from_slice(input);
        }
        let answer = String::from_utf8_lossy(&answer);
        ensure!(answer.starts_with("HTTP/1.1 101 ") && answer.contains(ACCEPT), "no upgrade: {answer}");
        Ok(())
    }
}
