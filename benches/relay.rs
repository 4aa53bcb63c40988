//! The relay over in-memory pipes: there and back, TLS and sockets left out. The same bytes through
//! `copy_bidirectional` show what the pipes cost, so the difference is what seeing frames costs.
#![allow(clippy::unwrap_used, reason = "benches are as blunt as tests")]
#![allow(missing_docs, reason = "criterion's macros make names that nobody calls")]

use std::time::{Duration, Instant};

use benches::{LENGTHS, POLICY, messages, runtime};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use frame_core::control::Control;
use frame_core::relay::relay;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, copy_bidirectional, duplex, split};

const PIPE_LEN: usize = 256 << 10;

/// Messages up and down through something that sits in the middle, `rounds` times.
async fn rounds(
    (client, near_client): (DuplexStream, DuplexStream),
    (backend, near_backend): (DuplexStream, DuplexStream),
    relayed: bool,
    (up, down): (&[u8], &[u8]),
    rounds: u64,
) -> Duration {
    let middle = async move {
        let (mut client, mut backend) = (near_client, near_backend);
        if relayed {
            relay(&mut client, &mut backend, &POLICY, &Control::new()).await;
        } else {
            copy_bidirectional(&mut client, &mut backend).await.unwrap();
        }
    };
    let ends = async {
        let (mut from_client, mut to_client) = split(client);
        let (mut from_backend, mut to_backend) = split(backend);
        let (mut seen_up, mut seen_down) = (vec![0; up.len()], vec![0; down.len()]);
        let started = Instant::now();
        for _ in 0..rounds {
            let moved = tokio::join!(
                to_client.write_all(up),
                from_backend.read_exact(&mut seen_up),
                to_backend.write_all(down),
                from_client.read_exact(&mut seen_down),
            );
            moved.1.and(moved.3).unwrap();
        }
        let took = started.elapsed();
        assert!(seen_up == up && seen_down == down);
        took
    };
    tokio::select! {
        took = ends => took,
        () = middle => Duration::ZERO,
    }
}

fn both_ways(c: &mut Criterion) {
    let runtime = runtime();
    for (kind, relayed) in [("relay", true), ("copy_bidirectional", false)] {
        let mut group = c.benchmark_group(kind);
        for (name, len) in LENGTHS {
            let ((up, count), (down, _)) = (messages(len, true), messages(len, false));
            group.throughput(Throughput::Elements(2 * count as u64));
            group.bench_function(format!("{count}_messages_of_{name}_each_way"), |b| {
                b.iter_custom(|n| {
                    let pipes = (duplex(PIPE_LEN), duplex(PIPE_LEN));
                    runtime.block_on(rounds(pipes.0, pipes.1, relayed, (&up, &down), n))
                });
            });
        }
        // One at a time: what a single small message costs.
        let (up, down) = (benches::message(64, true), benches::message(64, false));
        group.throughput(Throughput::Elements(2));
        group.bench_function("1_message_of_64B_each_way", |b| {
            b.iter_custom(|n| {
                let pipes = (duplex(PIPE_LEN), duplex(PIPE_LEN));
                runtime.block_on(rounds(pipes.0, pipes.1, relayed, (&up, &down), n))
            });
        });
    }
}

criterion_group!(benches, both_ways);
criterion_main!(benches);
