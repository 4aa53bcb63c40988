//! Two ends of a connection on loopback: an acceptor of this crate, and rustls' own client.
#![allow(clippy::unwrap_used, reason = "tests may be blunt, their helpers too")]

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};
use rustls_pki_types::ServerName;
use support::pki::Pki;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::{TlsConnector, client};

use crate::load::Plan;
use crate::name::CertName;
use crate::{AcceptError, Accepted, Acceptor, AcceptorSettings, Certificates, Tickets};

pub(crate) const BOTH: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];

pub(crate) struct Rig {
    pub(crate) directory: TempDir,
    pub(crate) pki: Pki,
    pub(crate) certificates: Arc<Certificates>,
    tickets: Tickets,
}

pub(crate) type Client = io::Result<client::TlsStream<TcpStream>>;

impl Rig {
    /// Serves `a.test` and, as the default, `default.test`.
    pub(crate) fn new() -> Self {
        let (directory, pki) = (TempDir::new().unwrap(), Pki::new());
        pki.issue(&["a.test"]).write(directory.path(), "a");
        pki.issue(&["default.test"]).write(directory.path(), "default");
        let certificates = Certificates::load(&plan(directory.path())).unwrap();
        Self { directory, pki, certificates, tickets: Tickets::new().unwrap() }
    }

    pub(crate) fn acceptor(&self, settings: &AcceptorSettings) -> Acceptor {
        Acceptor::new(settings, self.certificates.clone(), &self.tickets).unwrap()
    }

    pub(crate) fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&str],
    ) -> ClientConfig {
        let mut provider = default_provider();
        provider.kx_groups.insert(0, kx_group::X25519MLKEM768); // as browsers do
        self.client_of(provider, versions, alpn)
    }

    pub(crate) fn client_of(
        &self,
        provider: CryptoProvider,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&str],
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.pki.root()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|&name| name.into()).collect();
        config.resumption = Resumption::in_memory_sessions(8);
        config
    }

    /// One handshake, as both sides see it.
    pub(crate) async fn meet(
        &self,
        settings: &AcceptorSettings,
        client: &Arc<ClientConfig>,
        name: &str,
    ) -> (Result<Accepted, AcceptError>, Client) {
        let acceptor = self.acceptor(settings);
        let (near, far) = sockets().await;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connect = async {
            let mut tls = TlsConnector::from(client.clone()).connect(name, far).await?;
            // What the server says last is read with the first data: its tickets, or its alert.
            match tls.read_u8().await {
                Ok(_) => Ok(tls),
                Err(e) => Err(e),
            }
        };
        let accept = async {
            let mut accepted = accept(&acceptor, near).await?;
            accepted.io.write_all(b"!").await.unwrap();
            accepted.io.flush().await.unwrap();
            Ok(accepted)
        };
        tokio::join!(accept, connect)
    }
}

pub(crate) fn plan(directory: &Path) -> Plan {
    Plan { default: CertName::parse("default.test"), ..Plan::directory(directory) }
}

/// Does the handshake with a client of this machine.
pub(crate) async fn accept(acceptor: &Acceptor, tcp: TcpStream) -> Result<Accepted, AcceptError> {
    let client = tcp.peer_addr().unwrap().ip();
    acceptor.accept(tcp, client, Instant::now() + acceptor.handshake_timeout()).await
}

pub(crate) async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (far, near) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (near.unwrap().0, far.unwrap())
}
