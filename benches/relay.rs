//! A step of the relay: a message goes in at one end and is moved until it is out at the other. TLS
//! and sockets are left out; the pipes don't allocate. The same relay with its scanner off shows what
//! seeing frames costs, `copy_bidirectional` what pipes and a loop cost that can do nothing else.
#![allow(clippy::unwrap_used, reason = "benches are as blunt as tests")]
#![allow(missing_docs, reason = "criterion's macros make names that are not called")]

use std::pin::pin;

use benches::pipe::pipe;
use benches::work::relay::{Middle, ROOM, run, step};
use benches::{LENGTHS, messages, runtime};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const MIDDLES: [(&str, Middle); 3] =
    [("relay", Middle::Relay), ("unscanned", Middle::Unscanned), ("copy_bidirectional", Middle::Copy)];

fn steps(c: &mut Criterion) {
    let runtime = runtime();
    let _entered = runtime.enter(); // for timers
    let one = LENGTHS.map(|(name, len)| (format!("1_message_of_{name}"), len, false));
    let many = LENGTHS[..2].iter().map(|(name, len)| (format!("64KiB_of_messages_of_{name}"), *len, true));
    for (name, len, full) in one.into_iter().chain(many) {
        let mut group = c.benchmark_group(&name);
        for (direction, up) in [("up", true), ("down", false)] {
            let (wire, count) = if full { messages(len, up) } else { (benches::message(len, up), 1) };
            group.throughput(Throughput::Elements(count as u64));
            for (kind, middle) in MIDDLES {
                let (client, near_client) = pipe(ROOM);
                let (backend, near_backend) = pipe(ROOM);
                let mut middle = pin!(run(middle, near_client, near_backend));
                let mut seen = vec![0; wire.len()];
                let (from, to) = if up { (&client, &backend) } else { (&backend, &client) };
                step(middle.as_mut(), from, to, &wire, &mut seen);
                assert!(seen == wire, "{kind}");
                group.bench_function(format!("{direction}_{kind}"), |b| {
                    b.iter(|| step(middle.as_mut(), from, to, &wire, &mut seen));
                });
            }
        }
    }
}

criterion_group!(benches, steps);
criterion_main!(benches);
