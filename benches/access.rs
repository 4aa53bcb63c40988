//! The line of a request, and those of a session that opens, goes on and ends, each from its values to the buffer of the
//! worker's, and with its share of handing the buffer over; the file is `/dev/null`.
#![allow(clippy::unwrap_used, reason = "benches are as blunt as tests")]
#![allow(missing_docs, reason = "criterion's macros make names that nothing calls")]

use std::hint::black_box;
use std::num::NonZeroU32;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use frame_core::close::Close;
use frame_core::outcome::{Cause, Exit, Outcome, Party, RoundTrips, Snapshot, Traffic, Waits};
use gateway::command::log::{self, Format};
use gateway::config::{AccessFormat, AccessTarget, SessionLines};
use gateway::internals::{AccessLog, Kind, Progress, Record, ServerTimes, Sink, begin_worker};
use gateway::site::route_id::RouteId;
use http::{Method, StatusCode, Version};
use tls_acceptor::Negotiated;

fn lines(c: &mut Criterion) {
    let guard = log::start(Format::Text, None).unwrap();
    let _lines = begin_worker();
    let outcome = Outcome {
        cause: Cause::Closed {
            by: Party::Client,
            close: Close { code: Some(1001), reason: "going away".into() },
        },
        from_client: Traffic { messages: 812, payload_bytes: 40_113, wire_bytes: 45_000, largest: 1_206 },
        from_backend: Traffic {
            messages: 5121,
            payload_bytes: 1_903_442,
            wire_bytes: 1_920_000,
            largest: 60_412,
        },
        waits: Waits { client_ms: 120, backend_ms: 0 },
        pings: Some(RoundTrips { last_us: 31_402, min_us: 28_911, max_us: 412_530 }),
        client: Exit::Orderly,
        backend: Exit::Orderly,
    };
    let route = RouteId::named("domain.com/wss");
    let record = |kind| Record {
        peer: ([192, 0, 2, 7], 50_122).into(),
        client: [192, 0, 2, 7].into(),
        server_name: Some("domain.com"),
        tls: Some("TLSv1.3"),
        negotiated: Negotiated::from_bytes([0x13, 1, 0x11, 0xEC, 2, 0]),
        version: Version::HTTP_2,
        method: &Method::CONNECT,
        host: Some("domain.com"),
        path: "/wss",
        route: Some(&route),
        generation: 3,
        backend: Some("127.0.0.1:8282"),
        backend_protocol: None,
        times: ServerTimes { connect_us: NonZeroU32::new(412), answer_us: NonZeroU32::new(71_005) },
        status: Some(StatusCode::OK),
        upgrade: None,
        request_bytes: None,
        started: tokio::time::Instant::now(),
        request_id: None,
        subject: None,
        redials: None,
        limit: None,
        compression: None,
        kind,
    };
    let session = record(Kind::Session { id: Some(4711), outcome: Ok(&outcome) });
    let request = record(Kind::Request { sent_bytes: 1234, cause: None });
    let opened = record(Kind::Opened { id: Some(4711) });
    let snapshot = Snapshot {
        from_client: outcome.from_client,
        from_backend: outcome.from_backend,
        waits: outcome.waits,
        pings: outcome.pings,
        ..Snapshot::default()
    };
    let progress = Progress {
        id: 4711,
        peer: session.peer,
        client: session.client,
        protocol: session.protocol(),
        route: &route,
        backend: session.backend,
        subject: None,
        redials: None,
        started: session.started,
        snapshot: &snapshot,
    };
    let sessions = SessionLines { open: true, ..SessionLines::default() };
    let log = AccessLog::default();
    let mut group = c.benchmark_group("access_line");
    group.throughput(Throughput::Elements(1));
    for (name, format) in
        [("text", AccessFormat::Text), ("json", AccessFormat::Json), ("combined", AccessFormat::Combined)]
    {
        log.settle(log.prepare(&AccessTarget::File("/dev/null".into()), Some(format), sessions).unwrap());
        group.bench_function(format!("request_{name}"), |b| b.iter(|| log.take(black_box(&request))));
        group.bench_function(format!("session_{name}"), |b| b.iter(|| log.take(black_box(&session))));
        if format != AccessFormat::Combined {
            group.bench_function(format!("open_{name}"), |b| b.iter(|| log.take(black_box(&opened))));
            group
                .bench_function(format!("goes_on_{name}"), |b| b.iter(|| log.progress(black_box(&progress))));
        }
    }
    group.finish();
    drop(guard);
}

criterion_group!(benches, lines);
criterion_main!(benches);
