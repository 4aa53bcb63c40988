//! Records: sealed and opened by our own layer, by rustls' buffered connection, and by the bare AEAD;
//! then as a stream over loopback, ours and tokio-rustls, where the system calls are in the time.
//! Bytes a second are content's.
#![allow(clippy::unwrap_used, reason = "benches are as blunt as tests")]
#![allow(missing_docs, reason = "criterion's macros make names that are not called")]

use std::hint::black_box;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Instant;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use benches::record::{CONTENT_MAX, OVERHEAD_MAX, client_config, ours, rustls_pair, server_config};
use benches::runtime;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rustls_pki_types::ServerName;
use support::pki::Pki;
use tempfile::TempDir;
use tls_acceptor::{Acceptor, AcceptorSettings, Certificates, Plan, Tickets};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const SIZES: [(&str, usize); 4] =
    [("64B", 64), ("4KiB", 4 << 10), ("16KiB", CONTENT_MAX), ("64KiB", 64 << 10)];
const TAG_LEN: usize = 16;
/// Inputs that are made ready together, untimed.
const BATCH: BatchSize = BatchSize::NumIterations(32);

fn seal(c: &mut Criterion) {
    let mut group = c.benchmark_group("seal");
    for (name, len) in SIZES {
        let content = vec![0x5A; len];
        let mut wire = vec![0; len + len.div_ceil(CONTENT_MAX) * OVERHEAD_MAX];
        group.throughput(Throughput::Bytes(len as u64));
        let (mut sealer, _) = ours();
        group.bench_function(format!("{name}_ours"), |b| {
            b.iter(|| sealer.seal(black_box(&content), &mut wire));
        });
        let (mut client, _) = rustls_pair();
        let mut out = Vec::with_capacity(wire.len());
        group.bench_function(format!("{name}_rustls_buffered"), |b| {
            b.iter(|| {
                out.clear();
                client.writer().write_all(black_box(&content)).unwrap();
                while client.wants_write() {
                    client.write_tls(&mut out).unwrap();
                }
                out.len()
            });
        });
        let key = key();
        group.bench_function(format!("{name}_bare_aead"), |b| {
            b.iter(|| {
                let mut at = 0;
                for part in black_box(&content).chunks(CONTENT_MAX) {
                    let (body, rest) = wire[at..].split_at_mut(part.len());
                    let tag = &mut rest[..TAG_LEN];
                    key.seal_out_of_place_scatter(nonce(), Aad::empty(), part, body, &[], tag).unwrap();
                    at += part.len() + TAG_LEN;
                }
                at
            });
        });
    }
}

fn open(c: &mut Criterion) {
    let mut group = c.benchmark_group("open");
    for (name, len) in SIZES {
        let content = vec![0x5A; len];
        let wire_len = len + len.div_ceil(CONTENT_MAX) * OVERHEAD_MAX;
        let mut opened = vec![0; wire_len];
        group.throughput(Throughput::Bytes(len as u64));
        let (mut sealer, mut opener) = ours();
        group.bench_function(format!("{name}_ours"), |b| {
            let sealed = || {
                let mut wire = vec![0; wire_len];
                let n = sealer.seal(&content, &mut wire);
                wire.truncate(n);
                wire
            };
            let open = |wire: Vec<u8>| {
                assert_eq!(opener.open(&wire, &mut opened), len);
                wire
            };
            b.iter_batched(sealed, open, BATCH);
        });
        let (mut client, mut server) = rustls_pair();
        group.bench_function(format!("{name}_rustls_buffered"), |b| {
            let sealed = || {
                let mut wire = Vec::with_capacity(wire_len);
                client.writer().write_all(&content).unwrap();
                while client.wants_write() {
                    client.write_tls(&mut wire).unwrap();
                }
                wire
            };
            let open = |wire: Vec<u8>| {
                let (mut rest, mut at) = (wire.as_slice(), 0);
                while at < len {
                    server.read_tls(&mut rest).unwrap();
                    let plain = server.process_new_packets().unwrap().plaintext_bytes_to_read();
                    server.reader().read_exact(&mut opened[at..at + plain]).unwrap();
                    at += plain;
                }
                wire
            };
            b.iter_batched(sealed, open, BATCH);
        });
        let key = key();
        let sealed: Vec<(Vec<u8>, [u8; TAG_LEN])> = content
            .chunks(CONTENT_MAX)
            .map(|part| {
                let (mut body, mut tag) = (vec![0; part.len()], [0; TAG_LEN]);
                key.seal_out_of_place_scatter(nonce(), Aad::empty(), part, &mut body, &[], &mut tag).unwrap();
                (body, tag)
            })
            .collect();
        group.bench_function(format!("{name}_bare_aead"), |b| {
            b.iter(|| {
                for (body, tag) in black_box(&sealed) {
                    let opened = &mut opened[..body.len()];
                    key.open_separate_gather(nonce(), Aad::empty(), body, tag, opened).unwrap();
                }
            });
        });
    }
}

fn key() -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[7; 16]).unwrap())
}

/// The same for all: nothing sealed here is a secret.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([9; 12])
}

/// There and back through the server's stream. The client is tokio-rustls for both, on the same
/// thread; only the difference between the two means something.
fn stream(c: &mut Criterion) {
    let runtime = runtime();
    let mut group = c.benchmark_group("stream_echo");
    let pki = Pki::new();
    let issued = pki.issue(&["a.test"]);
    let temp = TempDir::new().unwrap();
    issued.write(temp.path(), "a");
    let certificates = Certificates::load(&Plan::directory(temp.path())).unwrap();
    let ours = Acceptor::new(&AcceptorSettings::default(), certificates, &Tickets::new().unwrap()).unwrap();
    let theirs = TlsAcceptor::from(Arc::new(server_config(&issued)));
    let connector = TlsConnector::from(Arc::new(client_config(&pki)));
    let (listener, address) = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    });
    for (name, len) in SIZES {
        let content = vec![0x5A; len];
        group.throughput(Throughput::Bytes(len as u64));
        for kind in ["ours", "tokio_rustls"] {
            group.bench_function(format!("{name}_{kind}"), |b| {
                b.iter_custom(|n| {
                    let server = async {
                        let (tcp, peer) = listener.accept().await.unwrap();
                        tcp.set_nodelay(true).unwrap();
                        match kind {
                            "ours" => {
                                let deadline = tokio::time::Instant::now() + ours.handshake_timeout();
                                echo(ours.accept(tcp, peer.ip(), deadline).await.unwrap().io).await;
                            }
                            _ => echo(theirs.accept(tcp).await.unwrap()).await,
                        }
                    };
                    let client = async {
                        let tcp = TcpStream::connect(address).await.unwrap();
                        tcp.set_nodelay(true).unwrap();
                        let name = ServerName::try_from("a.test").unwrap();
                        let mut io = connector.connect(name, tcp).await.unwrap();
                        let mut seen = vec![0; content.len()];
                        let mut started = Instant::now();
                        for round in 0..=n {
                            io.write_all(&content).await.unwrap();
                            io.flush().await.unwrap();
                            io.read_exact(&mut seen).await.unwrap();
                            if round == 0 {
                                started = Instant::now();
                            }
                        }
                        let took = started.elapsed();
                        assert!(seen == content);
                        io.shutdown().await.unwrap();
                        took
                    };
                    runtime.block_on(async { tokio::join!(server, client).1 })
                });
            });
        }
    }
}

async fn echo(mut io: impl AsyncRead + AsyncWrite + Unpin) {
    let mut buffer = vec![0; 256 << 10];
    loop {
        match io.read(&mut buffer).await.unwrap() {
            0 => return,
            n => {
                io.write_all(&buffer[..n]).await.unwrap();
                io.flush().await.unwrap();
            }
        }
    }
}

criterion_group!(benches, seal, open, stream);
criterion_main!(benches);
