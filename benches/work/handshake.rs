//! A TLS handshake over loopback, both ends on one thread.

use std::net::SocketAddr;

use support::pki::{Key, Order, Pki};
use support::tls::Tls;
use tempfile::TempDir;
use tls_acceptor::{Acceptor, AcceptorSettings, Certificates, Plan, Tickets};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A server for `a.test`.
#[derive(Debug)]
pub struct Server {
    acceptor: Acceptor,
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// With a certificate of this key.
    pub async fn new(key: Key) -> Self {
        let temp = TempDir::new().unwrap();
        Pki::new().issue_as(&Order { key, ..Order::new(&["a.test"]) }).write(temp.path(), "a");
        let certificates = Certificates::load(&Plan::directory(temp.path())).unwrap();
        let acceptor =
            Acceptor::new(&AcceptorSettings::default(), certificates, &Tickets::new().unwrap()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { acceptor, listener, address }
    }

    /// One connection from its first byte to its last.
    pub async fn connect(&self, client: &Tls) {
        let server = async {
            let (tcp, peer) = self.listener.accept().await.unwrap();
            let deadline = tokio::time::Instant::now() + self.acceptor.handshake_timeout();
            let mut io = self.acceptor.accept(tcp, peer.ip(), deadline).await.unwrap().io;
            io.write_all(b"!").await.unwrap(); // tickets come with the first bytes
            io.flush().await.unwrap();
            io.shutdown().await.unwrap();
        };
        let client = async {
            let mut io = client.connect(self.address).await.unwrap();
            let mut rest = Vec::new();
            io.read_to_end(&mut rest).await.unwrap();
        };
        tokio::join!(server, client);
    }
}
