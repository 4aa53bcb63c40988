//! A TLS handshake over loopback, both ends on one thread: the client's half is in the time, so
//! only differences between rows mean something. Resumption leaves out the signature.
#![allow(clippy::unwrap_used, reason = "benches are as blunt as tests")]
#![allow(missing_docs, reason = "criterion's macros make names that are not called")]

use std::time::Instant;

use benches::runtime;
use benches::work::handshake::Server;
use criterion::{Criterion, criterion_group, criterion_main};
use support::pki::Key;
use support::tls::{TLS12, TLS13, Tls};

fn handshakes(c: &mut Criterion) {
    let runtime = runtime();
    let mut group = c.benchmark_group("handshake");
    for (key, kind) in [(Key::Ecdsa, "ecdsa"), (Key::Rsa, "rsa")] {
        let server = runtime.block_on(Server::new(key));
        for (versions, version) in [(TLS13, "tls13"), (TLS12, "tls12")] {
            group.bench_function(format!("{version}_{kind}_full"), |b| {
                b.iter_custom(|n| {
                    let clients: Vec<Tls> =
                        (0..n).map(|_| Tls::with(versions, Some("a.test"), &[], &[])).collect();
                    runtime.block_on(async {
                        let started = Instant::now();
                        for client in &clients {
                            server.connect(client).await;
                        }
                        started.elapsed()
                    })
                });
            });
            group.bench_function(format!("{version}_{kind}_resumed"), |b| {
                b.iter_custom(|n| {
                    let client = Tls::with(versions, Some("a.test"), &[], &[]);
                    runtime.block_on(async {
                        server.connect(&client).await;
                        let started = Instant::now();
                        for _ in 0..n {
                            server.connect(&client).await;
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
