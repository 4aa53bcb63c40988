//! An echo that ends here: our endpoint (guard, assembly, UTF-8, pings, batched flush) beside bare
//! fastwebsockets, which checks none of it.
#![allow(clippy::unwrap_used, reason = "benches are as blunt as tests")]
#![allow(missing_docs, reason = "criterion's macros make names that nobody calls")]

use std::time::{Duration, Instant};

use benches::{LENGTHS, POLICY, messages, runtime};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fastwebsockets::{Frame, OpCode, Role, WebSocket};
use frame_core::control::Control;
use frame_core::endpoint::Endpoint;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split};

async fn ours(io: DuplexStream) {
    let mut endpoint = Endpoint::new(io, POLICY, Control::new());
    while let Some(message) = endpoint.recv().await {
        endpoint.send(message).await.unwrap();
    }
}

async fn bare(io: DuplexStream) {
    let mut socket = WebSocket::after_handshake(io, Role::Server);
    while let Ok(frame) = socket.read_frame().await {
        if matches!(frame.opcode, OpCode::Text | OpCode::Binary) {
            // A frame that was received keeps its mask, and would be sent with it.
            let frame = Frame::new(true, frame.opcode, None, frame.payload);
            socket.write_frame(frame).await.unwrap();
        }
    }
}

async fn rounds(
    echo: impl Future<Output = ()>,
    client: DuplexStream,
    wire: &[u8],
    len: usize,
    n: u64,
) -> Duration {
    let ends = async {
        let (mut from, mut to) = split(client);
        let mut seen = vec![0; len];
        let started = Instant::now();
        for _ in 0..n {
            let (sent, received) = tokio::join!(to.write_all(wire), from.read_exact(&mut seen));
            sent.and(received.map(drop)).unwrap();
        }
        started.elapsed()
    };
    tokio::select! {
        took = ends => took,
        () = echo => Duration::ZERO,
    }
}

fn echo(c: &mut Criterion) {
    let runtime = runtime();
    let mut group = c.benchmark_group("endpoint");
    for (name, len) in LENGTHS {
        let ((wire, count), (answer, _)) = (messages(len, true), messages(len, false));
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(format!("{count}_echoes_of_{name}"), |b| {
            b.iter_custom(|n| {
                let (client, near) = duplex(256 << 10);
                runtime.block_on(rounds(ours(near), client, &wire, answer.len(), n))
            });
        });
        group.bench_function(format!("{count}_echoes_of_{name}_bare_fastwebsockets"), |b| {
            b.iter_custom(|n| {
                let (client, near) = duplex(256 << 10);
                runtime.block_on(rounds(bare(near), client, &wire, answer.len(), n))
            });
        });
    }
}

criterion_group!(benches, echo);
criterion_main!(benches);
