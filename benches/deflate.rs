//! permessage-deflate: what a message costs to compress and to inflate, with what earlier messages have left and without.
//! The messages are JSON as servers send it, no two of them the same. Prints first how short they become.
#![allow(clippy::unwrap_used, reason = "benches are as blunt as tests")]
#![allow(clippy::print_stderr, reason = "lengths are no times")]
#![allow(missing_docs, reason = "criterion's macros make names that nothing calls")]

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use frame_core::deflate::{Deflater, Inflater, Window};

#[path = "trades.rs"]
mod trades;

use trades::trades;

/// Bytes of earlier messages that a session keeps, where it keeps them.
const HISTORY_MAX: usize = 4096;
const LENGTHS: [(&str, usize); 3] = [("100B", 100), ("1KiB", 1024), ("16KiB", 16 << 10)];
const KINDS: [(&str, bool); 2] = [("kept", true), ("alone", false)];
/// Messages of a session that are repeated.
const COUNT: u64 = 64;

fn window(is_kept: bool) -> Window {
    Window { bits: 15, is_kept }
}

fn messages(len: usize) -> Vec<Vec<u8>> {
    (0..COUNT).map(|number| trades(1000 * number, len).into_bytes()).collect()
}

fn compressed(is_kept: bool, messages: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut deflater = Deflater::new(window(is_kept), HISTORY_MAX);
    let each = messages.iter().map(|message| {
        let mut out = Vec::new();
        assert!(deflater.message(message, &mut out));
        out
    });
    each.collect()
}

fn deflate(c: &mut Criterion) {
    let mut group = c.benchmark_group("deflate");
    for (name, len) in LENGTHS {
        let messages = messages(len);
        group.throughput(Throughput::Bytes(len as u64));
        for (kind, is_kept) in KINDS {
            let wire: usize = compressed(is_kept, &messages).iter().map(Vec::len).sum();
            let wire = wire as u64 / COUNT;
            eprintln!("{kind} {name}: {wire} bytes a message");
            group.bench_function(BenchmarkId::new(kind, name), |b| {
                let mut deflater = Deflater::new(window(is_kept), HISTORY_MAX);
                let (mut out, mut next) = (Vec::new(), messages.iter().cycle());
                b.iter(|| {
                    out.clear();
                    deflater.message(next.next().unwrap(), &mut out)
                });
            });
        }
    }
}

fn inflate(c: &mut Criterion) {
    let mut group = c.benchmark_group("inflate");
    for (name, len) in LENGTHS {
        let messages = messages(len);
        group.throughput(Throughput::Bytes(len as u64));
        for (kind, is_kept) in KINDS {
            let wire = compressed(is_kept, &messages);
            group.bench_function(BenchmarkId::new(kind, name), |b| {
                // What a message refers to has to have come, so the session begins again with the first.
                let (mut inflater, mut out) = (Inflater::new(window(is_kept)), BytesMut::new());
                let mut number = 0;
                b.iter(|| {
                    if number == wire.len() {
                        (inflater, number) = (Inflater::new(window(is_kept)), 0);
                    }
                    out.clear();
                    let mut input = &wire[number][..];
                    assert!(inflater.inflate(&mut input, true, &mut out, usize::MAX).unwrap());
                    number += 1;
                    black_box(out.len())
                });
                assert_eq!(out.len(), len);
            });
        }
    }
}

criterion_group!(benches, deflate, inflate);
criterion_main!(benches);
