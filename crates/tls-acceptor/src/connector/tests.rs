//! The client's end of connections to rustls' own server.

use std::path::Path;

use rustls::server::WebPkiClientVerifier;
use rustls::{ServerConfig, SupportedProtocolVersion, version};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use support::pki::{Issued, Order, Pki};
use support::soon;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::{TlsAcceptor, server};

use super::*;
use crate::TlsState;

const EACH: [&[&SupportedProtocolVersion]; 2] = [&[&version::TLS13], &[&version::TLS12]];

struct Rig {
    directory: TempDir,
    pki: Pki,
}

impl Rig {
    fn new() -> Self {
        let (directory, pki) = (TempDir::new().unwrap(), Pki::new());
        std::fs::write(directory.path().join("ca.pem"), pki.root_pem()).unwrap();
        Self { directory, pki }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn settings(&self) -> ConnectorSettings {
        ConnectorSettings { authorities: vec![self.path("ca.pem")], client_certificate: None }
    }

    /// A server of `a.test`; clients need a certificate if `wants_certificate`.
    fn server(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        issued: &Issued,
        wants_certificate: bool,
    ) -> TlsAcceptor {
        let provider = Arc::new(default_provider());
        let builder =
            ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions).unwrap();
        let builder = if wants_certificate {
            let mut roots = RootCertStore::empty();
            roots.add(self.pki.root()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let chain = CertificateDer::pem_slice_iter(issued.fullchain.as_bytes()).map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = vec![b"h2".into(), b"http/1.1".into()];
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

type Server = std::io::Result<server::TlsStream<TcpStream>>;

async fn meet(
    connector: &TlsConnector,
    server: &TlsAcceptor,
    name: &str,
) -> (Result<TlsStream, ConnectError>, Server) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (far, _) = listener.accept().await.unwrap();
    let name = ServerName::parse(name).unwrap();
    // What the client says last leaves with its first data.
    let client = async {
        let mut stream = connector.connect(tcp, &name, Alpn::Http11).await?;
        stream.write_all(b"hello").await?;
        stream.flush().await?;
        Ok(stream)
    };
    let serving = async {
        let mut stream = server.accept(far).await?;
        stream.read_exact(&mut [0; 5]).await?;
        stream.write_all(b"welcome").await?;
        stream.flush().await?;
        Ok(stream)
    };
    soon(async { tokio::join!(client, serving) }).await
}

/// A stream to a server may go to another process at any moment: before its tickets have come, between keys, in the
/// middle of a record.
#[tokio::test]
async fn a_stream_goes_on_in_another_process() {
    let move_on = |client: TlsStream| {
        let (tcp, state) = client.freeze();
        let state = TlsState::decode(&state.encode().unwrap()).unwrap();
        TlsStream::thaw(Tcp::from_std(tcp.into_std().unwrap()).unwrap(), state)
    };
    let rig = Rig::new();
    let issued = rig.pki.issue(&["a.test"]);
    for versions in EACH {
        let (connector, server) =
            (TlsConnector::new(&rig.settings()).unwrap(), rig.server(versions, &issued, false));
        let (client, server) = meet(&connector, &server, "a.test").await;
        let (mut client, mut server) = (move_on(client.unwrap()), server.unwrap());
        let mut welcome = [0; 7];
        soon(client.read_exact(&mut welcome)).await.unwrap();
        assert_eq!(&welcome, b"welcome", "behind tickets");
        for round in 0..6_u8 {
            client = move_on(client);
            if versions == EACH[0] && round % 2 == 1 {
                server.get_mut().1.refresh_traffic_keys().unwrap();
            }
            let answer = vec![round; 30_000];
            let sends = async {
                server.write_all(&answer).await.unwrap();
                server.flush().await.unwrap();
            };
            let receives = async {
                let mut first = [0; 1000];
                client.read_exact(&mut first).await.unwrap();
                let mut client = move_on(client);
                let mut rest = vec![0; 29_000];
                client.read_exact(&mut rest).await.unwrap();
                assert!([&first[..], &rest].concat() == answer);
                client
            };
            client = soon(async { tokio::join!(sends, receives) }).await.1;
            client = move_on(client);
            client.write_all(&[round; 100]).await.unwrap();
            client = move_on(client);
            client.flush().await.unwrap();
            let mut question = [0; 100];
            soon(server.read_exact(&mut question)).await.unwrap();
            assert_eq!(question, [round; 100]);
        }
        server.shutdown().await.unwrap();
        client = move_on(client);
        assert_eq!(soon(client.read(&mut [0; 1])).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn data_passes_both_ways_and_sessions_are_resumed() {
    let rig = Rig::new();
    let issued = rig.pki.issue(&["a.test"]);
    for versions in EACH {
        let (connector, server) =
            (TlsConnector::new(&rig.settings()).unwrap(), rig.server(versions, &issued, false));
        for round in 0..3 {
            let (client, server) = meet(&connector, &server, "A.test").await;
            let (mut client, mut server) = (client.unwrap(), server.unwrap());
            let kind = server.get_ref().1.handshake_kind();
            assert_eq!(kind == Some(rustls::HandshakeKind::Resumed), round > 0, "{round} {versions:?}");
            assert_eq!(server.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
            assert_eq!(server.get_ref().1.server_name(), Some("a.test"));
            let mut welcome = [0; 7];
            client.read_exact(&mut welcome).await.unwrap();
            assert_eq!(&welcome, b"welcome");
            // Long, and under new keys of both sides in TLS 1.3.
            let data: Vec<u8> = (0..=u8::MAX).cycle().take(1 << 20).collect();
            if versions == EACH[0] {
                server.get_mut().1.refresh_traffic_keys().unwrap();
            }
            let (mut there, mut back) = (vec![0; data.len()], vec![0; data.len()]);
            soon(
                async {
                    client.write_all(&data).await.unwrap();
                    client.flush().await.unwrap();
                }
                .await_with(server.read_exact(&mut there)),
            )
            .await;
            soon(
                async {
                    server.write_all(&data).await.unwrap();
                    server.flush().await.unwrap();
                }
                .await_with(client.read_exact(&mut back)),
            )
            .await;
            assert!(there == data && back == data);
            // Both ends, cleanly.
            client.shutdown().await.unwrap();
            assert_eq!(server.read(&mut [0; 1]).await.unwrap(), 0);
            server.shutdown().await.unwrap();
            assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
        }
    }
}

/// Two things at a time.
trait AwaitWith: Future + Sized {
    async fn await_with<T, E: std::fmt::Debug>(self, other: impl Future<Output = Result<T, E>>) {
        tokio::join!(self, async { other.await.unwrap() });
    }
}

impl<F: Future> AwaitWith for F {}

#[tokio::test]
async fn servers_that_are_not_the_one_that_is_meant() {
    let rig = Rig::new();
    let connector = TlsConnector::new(&rig.settings()).unwrap();
    let old = rig.pki.issue_as(&Order { from_days: -10, until_days: -1, ..Order::new(&["a.test"]) });
    let foreign = Pki::new().issue(&["a.test"]);
    for (issued, name, says) in [
        (&rig.pki.issue(&["a.test", "127.0.0.1"]), "b.test", "is for a.test, 127.0.0.1, and not for b.test"),
        (&rig.pki.issue(&["a.test"]), "[::1]", "is for a.test, and not for ::1"),
        (&old, "a.test", "certificate for a.test is not valid: certificate expired"),
        (&foreign, "a.test", "certificate for a.test is not valid: BadSignature"),
    ] {
        for versions in EACH {
            let (client, server) = meet(&connector, &rig.server(versions, issued, false), name).await;
            let error = client.unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
            let alert = server.unwrap_err().to_string();
            assert!(alert.contains("received fatal alert"), "{alert}");
        }
    }
    let good =
        meet(&connector, &rig.server(EACH[0], &rig.pki.issue(&["127.0.0.1"]), false), "127.0.0.1").await;
    good.0.unwrap();
}

#[tokio::test]
async fn a_certificate_for_those_that_ask() {
    let rig = Rig::new();
    rig.pki.issue(&["gateway.test"]).write(rig.directory.path(), "gateway");
    let (chain, key) = (rig.path("gateway.crt"), rig.path("gateway.key"));
    let client_certificate = Some(ClientCertificate { chain, key });
    let settings = ConnectorSettings { client_certificate, ..rig.settings() };
    let issued = rig.pki.issue(&["a.test"]);
    for versions in EACH {
        let server = rig.server(versions, &issued, true);
        let (client, served) = meet(&TlsConnector::new(&settings).unwrap(), &server, "a.test").await;
        client.unwrap();
        assert_eq!(served.unwrap().get_ref().1.peer_certificates().unwrap().len(), 2);
        let (client, served) = meet(&TlsConnector::new(&rig.settings()).unwrap(), &server, "a.test").await;
        served.unwrap_err();
        // In TLS 1.3 the client is done before the server looks at that.
        let why = match client {
            Ok(mut client) => client.read(&mut [0; 1]).await.unwrap_err().to_string(),
            Err(e) => e.to_string(),
        };
        assert!(
            why.contains("the server aborted the connection (TLS alert 116)") || why.contains("alert"),
            "{why}"
        );
    }
}

#[tokio::test]
async fn servers_that_speak_no_tls_or_nothing() {
    let rig = Rig::new();
    let connector = TlsConnector::new(&rig.settings()).unwrap();
    for (answer, says) in [
        (
            &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
            "doesn't speak TLS on this port (first bytes \"HTTP/1.1 400 Bad\")",
        ),
        (b"\x15\x03\x03\x00\x02\x02\x28", "alert HandshakeFailure"),
        (b"", "closed the connection"),
        (b"\x16\x03\x03", "closed the connection"),
        (b"\x16\x03\x03\xff\xff", "handshake with the server failed"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        let name = ServerName::parse("a.test").unwrap();
        let serving = async {
            let mut hello = [0; 1024];
            assert!(far.read(&mut hello).await.unwrap() > 0);
            far.write_all(answer).await.unwrap();
            far.shutdown().await.unwrap();
            far
        };
        let (client, _far) =
            soon(async { tokio::join!(connector.connect(tcp, &name, Alpn::Http11), serving) }).await;
        let error = client.unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn files_that_are_of_no_use() {
    let rig = Rig::new();
    std::fs::write(rig.path("empty.pem"), "").unwrap();
    rig.pki.issue(&["gateway.test"]).write(rig.directory.path(), "gateway");
    rig.pki.issue(&["other.test"]).write(rig.directory.path(), "other");
    let with = |ca: &str, certificate: Option<(&str, &str)>| {
        let client_certificate =
            certificate.map(|(chain, key)| ClientCertificate { chain: rig.path(chain), key: rig.path(key) });
        TlsConnector::new(&ConnectorSettings { authorities: vec![rig.path(ca)], client_certificate })
    };
    for (ca, certificate, says) in [
        ("missing.pem", None, "No such file"),
        ("empty.pem", None, "no certificate of an authority"),
        ("gateway.key", None, "no certificate of an authority"),
        ("ca.pem", Some(("gateway.key", "gateway.key")), "no certificate in it"),
        ("ca.pem", Some(("gateway.crt", "gateway.crt")), "no private key in it"),
        ("ca.pem", Some(("gateway.crt", "other.key")), "is not the one of the certificate"),
    ] {
        let error = with(ca, certificate).expect_err(says).to_string();
        assert!(error.contains(says), "{error}");
    }
    let same = [with("ca.pem", None).unwrap(), with("ca.pem", None).unwrap()].map(|c| c.fingerprint());
    assert_eq!(same[0], same[1]);
    let other = with("ca.pem", Some(("gateway.crt", "gateway.key"))).unwrap().fingerprint();
    assert_ne!(same[0], other);
    let _: &Path = rig.directory.path();
}

/// Tickets that come before the first data are kept; what keeps them goes with that.
#[tokio::test]
async fn an_idle_connection_holds_nothing_of_the_handshake() {
    let rig = Rig::new();
    let connector = TlsConnector::new(&rig.settings()).unwrap();
    let server = rig.server(EACH[0], &rig.pki.issue(&["a.test"]), false);
    let (client, _server) = meet(&connector, &server, "a.test").await;
    let mut client = client.unwrap();
    assert!(client.keeps_tickets());
    client.read_exact(&mut [0; 7]).await.unwrap();
    assert!(!client.keeps_tickets());
}
