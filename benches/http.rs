//! A plain request through the gateway and its answer back, over in-memory pipes: what HTTP costs
//! without TLS and sockets. Client and backend are on the same thread and in the time, but bare: the
//! backend finds the end of a head and answers with bytes made before; so is the client of HTTP/1.1.
//! The client of HTTP/2 is h2, whose cost is in its rows.
#![allow(clippy::unwrap_used, reason = "benches are as blunt as tests")]
#![allow(missing_docs, reason = "criterion's macros make names that nothing calls")]

use benches::runtime;
use benches::work::http::{http1, http2};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn round_trips(c: &mut Criterion) {
    let runtime = runtime();
    let mut group = c.benchmark_group("http_round_trip");
    group.throughput(Throughput::Elements(1));
    group.bench_function("http1", |b| b.iter_custom(|n| runtime.block_on(http1(n))));
    for at_once in [1, 32] {
        group.bench_function(format!("http2_{at_once}_streams"), |b| {
            b.iter_custom(|n| runtime.block_on(http2(n, at_once)));
        });
    }
}

criterion_group!(benches, round_trips);
criterion_main!(benches);
