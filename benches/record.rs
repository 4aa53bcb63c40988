//! tls-acceptor's record layer, which the crate keeps to itself, and two connections that have shaken
//! hands in memory.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use support::pki::{Issued, Pki};

#[path = "../crates/tls-acceptor/src/record/mod.rs"]
#[allow(dead_code, unused_imports, reason = "benches need a part of it")]
mod layer;

use layer::{Cipher, Content, ContentType, HEADER_LEN, Incoming, OpenedRecord};

/// Bytes of content in one record at most.
pub const CONTENT_MAX: usize = layer::PLAINTEXT_MAX;
/// What sealing adds to them at most.
pub const OVERHEAD_MAX: usize = layer::OVERHEAD_MAX;

/// Seals content into records.
#[derive(Debug)]
pub struct Sealer(Cipher);

/// Opens what a [`Sealer`] has sealed, in the same order.
#[derive(Debug)]
pub struct Opener(Incoming);

/// The client's sealing and the server's opening of one connection.
pub fn ours() -> (Sealer, Opener) {
    let (client, server) = rustls_pair();
    let suite = client.negotiated_cipher_suite().unwrap();
    let sealing = client.dangerous_extract_secrets().unwrap().tx;
    let opening = server.dangerous_extract_secrets().unwrap().rx;
    let cipher = |secrets| Cipher::new(suite, secrets).unwrap();
    (Sealer(cipher(sealing)), Opener(Incoming::new(cipher(opening))))
}

impl Sealer {
    /// Puts `content` into the front of `wire`, in records as long as may be; says how many bytes.
    pub fn seal(&mut self, content: &[u8], wire: &mut [u8]) -> usize {
        let mut len = 0;
        for content in content.chunks(CONTENT_MAX) {
            let content = Content::Elsewhere(content);
            len += self.0.seal(ContentType::ApplicationData, content, &mut wire[len..]).unwrap();
        }
        len
    }
}

impl Opener {
    /// Opens all records of `wire` into the front of `content`; says how many bytes.
    pub fn open(&mut self, mut wire: &[u8], content: &mut [u8]) -> usize {
        let mut len = 0;
        while let Some(header) = self.0.header(wire).unwrap() {
            let (record, rest) = wire.split_at(header.record_len());
            let body = &record[HEADER_LEN..];
            match self.0.open(header, body, &mut content[len..len + body.len()]).unwrap() {
                OpenedRecord::Data(n) => len += n,
                other => unreachable!("{other:?}"),
            }
            wire = rest;
        }
        len
    }
}

/// What the comparison speaks: TLS 1.3 with AES-128-GCM.
pub fn server_config(issued: &Issued) -> ServerConfig {
    let chain = CertificateDer::pem_slice_iter(issued.fullchain.as_bytes()).collect::<Result<_, _>>();
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.unwrap(), key)
        .unwrap();
    config.enable_secret_extraction = true;
    config
}

/// The other end.
pub fn client_config(pki: &Pki) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(pki.root()).unwrap();
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.enable_secret_extraction = true;
    config
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider { cipher_suites: vec![TLS13_AES_128_GCM_SHA256], ..default_provider() })
}

/// Both ends of a connection, the handshake behind them.
pub fn rustls_pair() -> (ClientConnection, ServerConnection) {
    let pki = Pki::new();
    let issued = pki.issue(&["a.test"]);
    let name = ServerName::try_from("a.test").unwrap();
    let mut client = ClientConnection::new(Arc::new(client_config(&pki)), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server_config(&issued))).unwrap();
    let mut wire = Vec::new();
    while client.wants_write() || server.wants_write() {
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets().unwrap();
        }
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().unwrap();
        }
        wire.clear();
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    (client, server)
}
