//! An echo that ends here: our endpoint (guard, assembly, UTF-8, pings, batched flush) beside bare
//! fastwebsockets, which checks none of it, and beside tungstenite and tokio-websockets, as their users
//! write them: each message read is written, and flushed when nothing more is there to be read.
#![allow(clippy::unwrap_used, reason = "benches are as blunt as tests")]
#![allow(missing_docs, reason = "criterion's macros make names that are not called")]

use std::pin::pin;

use benches::pipe::{Pipe, pipe};
use benches::work::endpoint::{self, ROOM, step};
use benches::{LENGTHS, messages, runtime};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use fastwebsockets::{Frame, OpCode, Role, WebSocket};
use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::task::yield_now;

async fn fastwebsockets(io: Pipe) {
    let mut socket = WebSocket::after_handshake(io, Role::Server);
    while let Ok(frame) = socket.read_frame().await {
        if matches!(frame.opcode, OpCode::Text | OpCode::Binary) {
            // A frame that was received keeps its mask, and would be sent with it.
            let frame = Frame::new(true, frame.opcode, None, frame.payload);
            socket.write_frame(frame).await.unwrap();
        }
    }
}

/// It knows no async: when it would block, it is polled again.
async fn tungstenite(io: Pipe) {
    let mut socket = tungstenite::WebSocket::from_raw_socket(io, tungstenite::protocol::Role::Server, None);
    loop {
        match socket.read() {
            Ok(message) => socket.write(message).unwrap(),
            Err(tungstenite::Error::Io(e)) if e.kind() == std::io::ErrorKind::WouldBlock => {
                socket.flush().unwrap();
                yield_now().await;
            }
            Err(_) => return,
        }
    }
}

async fn tokio_websockets(io: Pipe) {
    let mut socket = tokio_websockets::ServerBuilder::new().serve(io);
    loop {
        let next = match socket.next().now_or_never() {
            Some(next) => next,
            None => {
                socket.flush().await.unwrap();
                socket.next().await
            }
        };
        let Some(Ok(message)) = next else { return };
        socket.feed(message).await.unwrap();
    }
}

fn measure<F: Future<Output = ()>>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    (wire, answer): (&[u8], &[u8]),
    echo: impl FnOnce(Pipe) -> F,
) {
    let (client, near) = pipe(ROOM);
    let mut echo = pin!(echo(near));
    let mut seen = vec![0; answer.len()];
    step(echo.as_mut(), &client, wire, &mut seen);
    assert!(seen == answer, "{name}");
    group.bench_function(name, |b| b.iter(|| step(echo.as_mut(), &client, wire, &mut seen)));
}

fn echo(c: &mut Criterion) {
    let runtime = runtime();
    let _entered = runtime.enter(); // for timers
    let one = LENGTHS.map(|(name, len)| (format!("1_echo_of_{name}"), len, false));
    let many = LENGTHS[..2].iter().map(|(name, len)| (format!("64KiB_of_echoes_of_{name}"), *len, true));
    for (name, len, full) in one.into_iter().chain(many) {
        let of = |masked| if full { messages(len, masked) } else { (benches::message(len, masked), 1) };
        let ((wire, count), (answer, _)) = (of(true), of(false));
        let bytes = (wire.as_slice(), answer.as_slice());
        let mut group = c.benchmark_group(&name);
        group.throughput(Throughput::Elements(count as u64));
        measure(&mut group, "ours", bytes, endpoint::echo);
        measure(&mut group, "bare_fastwebsockets", bytes, fastwebsockets);
        measure(&mut group, "tungstenite", bytes, tungstenite);
        measure(&mut group, "tokio_websockets", bytes, tokio_websockets);
    }
}

criterion_group!(benches, echo);
criterion_main!(benches);
