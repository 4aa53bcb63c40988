//! The pure layers: what one frame costs before any byte is moved.
#![allow(missing_docs, reason = "criterion's macros make names that are not called")]

use std::hint::black_box;

use benches::{LENGTHS, messages};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use frame_core::head::{OpCode, Scan, Sender, scan_head, unmask};
use frame_core::scanner::Scanner;
use frame_core::sequence::{Limits, Sequence};

const LIMITS: Limits = Limits { message_max: 16 << 20, deflate: false };

fn head(c: &mut Criterion) {
    let mut group = c.benchmark_group("head");
    for (name, len, sender) in [
        ("masked_125B", 125, Sender::Client),
        ("masked_4KiB", 4096, Sender::Client),
        ("masked_64KiB", 65_536, Sender::Client),
        ("unmasked_125B", 125, Sender::Server),
    ] {
        let wire = benches::message(len, sender == Sender::Client);
        group.bench_function(name, |b| b.iter(|| scan_head(black_box(&wire), sender)));
    }
}

fn sequence(c: &mut Criterion) {
    let wire = benches::message(64, true);
    let Ok(Scan::Head(whole)) = scan_head(&wire, Sender::Client) else { return };
    let first = frame_core::head::FrameHead { fin: false, ..whole };
    let last = frame_core::head::FrameHead { opcode: OpCode::Continuation, ..whole };
    let mut group = c.benchmark_group("sequence");
    group.bench_function("message_of_1_frame", |b| {
        let mut sequence = Sequence::new(Sender::Client, LIMITS);
        b.iter(|| sequence.on_head(black_box(&whole)));
    });
    group.bench_function("message_of_2_frames", |b| {
        let mut sequence = Sequence::new(Sender::Client, LIMITS);
        b.iter(|| sequence.on_head(black_box(&first)).and_then(|()| sequence.on_head(black_box(&last))));
    });
}

/// 64 KiB of frames as they stand in a receive buffer; time is for all of them.
fn scanner(c: &mut Criterion) {
    let mut group = c.benchmark_group("scanner");
    for (name, len) in LENGTHS {
        let (wire, count) = messages(len, true);
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(format!("{count}_frames_of_{name}"), |b| {
            let mut scanner = Scanner::new(Sender::Client, LIMITS);
            b.iter(|| scanner.scan(black_box(&wire), None).0);
        });
    }
}

fn masking(c: &mut Criterion) {
    let mut group = c.benchmark_group("unmask");
    for (name, len) in LENGTHS {
        let mut payload = vec![0x5A; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(name, |b| b.iter(|| unmask(black_box(&mut payload), [1, 2, 3, 4], 0)));
    }
}

criterion_group!(benches, head, sequence, scanner, masking);
criterion_main!(benches);
