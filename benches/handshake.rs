//! A TLS handshake over loopback, both ends on one thread: the client's half is in the time, so
//! only differences between rows mean something. Resumption leaves out the signature.
#![allow(clippy::unwrap_used, reason = "benches are as blunt as tests")]
#![allow(missing_docs, reason = "criterion's macros make names that nobody calls")]

use std::time::Instant;

use benches::runtime;
use criterion::{Criterion, criterion_group, criterion_main};
use support::pki::{Key, Order, Pki};
use support::tls::{TLS12, TLS13, Tls};
use tempfile::TempDir;
use tls_acceptor::{Acceptor, AcceptorSettings, Certificates, Plan, Tickets};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

fn handshakes(c: &mut Criterion) {
    let runtime = runtime();
    let mut group = c.benchmark_group("handshake");
    for (key, kind) in [(Key::Ecdsa, "ecdsa"), (Key::Rsa, "rsa")] {
        let temp = TempDir::new().unwrap();
        Pki::new().issue_as(&Order { key, ..Order::new(&["a.test"]) }).write(temp.path(), "a");
        let certificates = Certificates::load(&Plan::directory(temp.path())).unwrap();
        let acceptor =
            Acceptor::new(&AcceptorSettings::default(), certificates, &Tickets::new().unwrap()).unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let one = async |client: &Tls| {
            let server = async {
                let (tcp, peer) = listener.accept().await.unwrap();
                let deadline = tokio::time::Instant::now() + acceptor.handshake_timeout();
                let mut io = acceptor.accept(tcp, peer.ip(), deadline).await.unwrap().io;
                io.write_all(b"!").await.unwrap(); // tickets come with the first bytes
                io.flush().await.unwrap();
                io.shutdown().await.unwrap();
            };
            let client = async {
                let mut io = client.connect(address).await.unwrap();
                let mut rest = Vec::new();
                io.read_to_end(&mut rest).await.unwrap();
            };
            tokio::join!(server, client);
        };
        for (versions, version) in [(TLS13, "tls13"), (TLS12, "tls12")] {
            group.bench_function(format!("{version}_{kind}_full"), |b| {
                b.iter_custom(|n| {
                    let clients: Vec<Tls> =
                        (0..n).map(|_| Tls::with(versions, Some("a.test"), &[], &[])).collect();
                    runtime.block_on(async {
                        let started = Instant::now();
                        for client in &clients {
                            one(client).await;
                        }
                        started.elapsed()
                    })
                });
            });
            group.bench_function(format!("{version}_{kind}_resumed"), |b| {
                b.iter_custom(|n| {
                    let client = Tls::with(versions, Some("a.test"), &[], &[]);
                    runtime.block_on(async {
                        one(&client).await;
                        let started = Instant::now();
                        for _ in 0..n {
                            one(&client).await;
                        }
                        started.elapsed()
                    })
                });
            });
        }
    }
}

criterion_group!(benches, handshakes);
criterion_main!(benches);
