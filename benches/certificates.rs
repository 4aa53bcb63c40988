//! Many certificates: what a ClientHello costs, and a reload.
#![allow(clippy::unwrap_used, reason = "benches are as blunt as tests")]
#![allow(missing_docs, reason = "criterion's macros make names that are not called")]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rustls::SignatureScheme;
use support::pki::{Order, Pki};
use tempfile::TempDir;
use tls_acceptor::{CertName, Certificates, Plan, load};

const SCHEMES: &[SignatureScheme] =
    &[SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::RSA_PSS_SHA256];

/// `count` certificates of two names each, for hosts and a wildcard, in `count` pairs of files.
fn directory(count: usize) -> (TempDir, Plan) {
    let (temp, pki) = (TempDir::new().unwrap(), Pki::new());
    for i in 0..count {
        let names = [format!("host{i}.example"), format!("*.wild{i}.example")];
        let order = Order { names: names.into(), ..Order::new(&[]) };
        // A thousand files a directory, as people lay them out.
        pki.issue_as(&order).write(&temp.path().join((i / 1000).to_string()), &format!("host{i}"));
    }
    let plan = Plan { default: CertName::parse("host0.example"), ..Plan::directory(temp.path()) };
    (temp, plan)
}

fn certificates(c: &mut Criterion) {
    for count in [1, 100, 10_000] {
        let (_temp, plan) = directory(count);
        let certificates = Certificates::load(&plan).unwrap();
        let last = count - 1;
        let mut group = c.benchmark_group(format!("sni_among_{count}"));
        let names = [
            ("exact", format!("host{last}.example")),
            ("wildcard", format!("x.wild{last}.example")),
            ("unknown", "unknown.example".to_owned()),
        ];
        for (kind, name) in names {
            group.bench_function(kind, |b| {
                b.iter(|| {
                    let current = certificates.current();
                    current.loaded.set.resolve(Some(black_box(&name)), SCHEMES).map(|(selected, _)| selected)
                });
            });
        }
        group.finish();
        let mut group = c.benchmark_group("load");
        group.sample_size(10);
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(format!("{count}_certificates_at_start"), |b| {
            b.iter_batched(|| (), |()| load(&plan, None).unwrap(), BatchSize::PerIteration);
        });
        let before = load(&plan, None).unwrap();
        group.bench_function(format!("{count}_certificates_again"), |b| {
            b.iter_batched(|| (), |()| load(&plan, Some(&before)).unwrap(), BatchSize::PerIteration);
        });
    }
}

criterion_group!(benches, certificates);
criterion_main!(benches);
