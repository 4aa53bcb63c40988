//! Which backend gets a request, of few and many, with one worker and with two.
#![allow(clippy::unwrap_used, reason = "benches are as blunt as tests")]
#![allow(missing_docs, reason = "criterion's macros make names that are not called")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use criterion::{Criterion, criterion_group, criterion_main};
use gateway::site::balance::Balance;
use gateway::site::endpoint::Endpoint;
use gateway::site::server::Server;
use gateway::site::upstream::{Ask, Upstream};

/// A choice and the end of what was chosen for; with two workers, another thread does the same all the time.
fn choose(c: &mut Criterion) {
    for count in [1u16, 10, 1000] {
        let mut group = c.benchmark_group(format!("choose_among_{count}"));
        for balance in [Balance::LeastSessions, Balance::RoundRobin, Balance::RandomTwo, Balance::Hash] {
            let servers = (0..count).map(|port| Server::new(Endpoint::new("10.0.0.1", port + 1)));
            let mut upstream = Upstream::new(servers.collect());
            upstream.balance = balance;
            let upstream = upstream;
            for workers in [1, 2] {
                let (is_over, mut key) = (AtomicBool::new(false), 0u64);
                thread::scope(|scope| {
                    if workers == 2 {
                        scope.spawn(|| {
                            while !is_over.load(Ordering::Relaxed) {
                                let _ = upstream.choose(Ask::default());
                            }
                        });
                    }
                    group.bench_function(format!("{balance}_{workers}"), |b| {
                        b.iter(|| {
                            key = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
                            upstream.choose(Ask { key, ..Ask::default() }).unwrap()
                        });
                    });
                    is_over.store(true, Ordering::Relaxed);
                });
                assert!(upstream.states().iter().all(|server| server.live() == 0));
            }
        }
    }
}

criterion_group!(benches, choose);
criterion_main!(benches);
