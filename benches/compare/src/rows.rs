//! The rows of the table: what is done, what is made of it, and what we want.

use crate::job::{Group, Packing, Sample, Work};

/// Over `max_message` of `gateways/wssgate.toml`.
pub(crate) const OVERSIZE: u64 = (2 << 20) + 1;

/// One load, and the numbers that come of it.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) work: Work,
    pub(crate) how: How,
    /// The gateway writes its access log meanwhile.
    pub(crate) logged: bool,
    pub(crate) metrics: Vec<Metric>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// Over a window, after a warm-up.
    Timed,
    /// The growth of a fresh process.
    Memory,
    /// Counted by perf or strace, from quiet to quiet.
    SystemCalls,
}

pub(crate) struct Metric {
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) value: fn(&Sample) -> f64,
    pub(crate) digits: usize,
    pub(crate) target: Target,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Target {
    /// At most so many times the best peer's.
    Ratio(f64),
    /// At most so much.
    Most(f64),
    None,
}

fn cpu(title: &'static str, target: Target) -> Metric {
    let value = |sample: &Sample| sample.gateway_cpu * 1e6 / sample.count;
    Metric { title, unit: "µs", value, digits: 2, target }
}

fn latency(title: &'static str, value: fn(&Sample) -> f64, target: Target) -> Metric {
    Metric { title, unit: "ms", value, digits: 3, target }
}

fn calls(title: &'static str, most: f64) -> Metric {
    let value = |sample: &Sample| sample.system_calls / sample.count;
    Metric { title, unit: "calls", value, digits: 2, target: Target::Most(most) }
}

fn file(name: &'static str, connections: usize, streams: usize, len: usize, title: &'static str) -> Row {
    let metrics = vec![cpu(title, Target::Ratio(1.0))];
    Row { name, work: Work::File { connections, streams, len }, how: How::Timed, logged: false, metrics }
}

/// All rows, with so many idle sockets.
pub(crate) fn rows(idle: usize) -> Vec<Row> {
    let echo = |sockets, in_flight, size| Work::Echo { sockets, in_flight, size, packing: Packing::Single };
    let timed = |name, work, metrics| Row { name, work, how: How::Timed, logged: false, metrics };
    let logged = |name, work, metrics| Row { logged: true, ..timed(name, work, metrics) };
    let counted = |name, work, metrics| Row { how: How::SystemCalls, ..timed(name, work, metrics) };
    vec![
        timed("64B", echo(64, 1, 64), vec![cpu("64 B echo, 64 sockets, 1 in flight", Target::Ratio(0.80))]),
        timed(
            "64B-pipelined",
            echo(16, 32, 64),
            vec![cpu("64 B echo, 16 sockets, 32 in flight", Target::Ratio(0.75))],
        ),
        timed(
            "64B-dense",
            Work::Echo { sockets: 16, in_flight: 32, size: 64, packing: Packing::Dense },
            vec![cpu("the same in as few TLS records as hold them", Target::None)],
        ),
        timed(
            "4KiB",
            echo(32, 4, 4096),
            vec![cpu("4 KiB echo, 32 sockets, 4 in flight", Target::Ratio(0.58))],
        ),
        timed(
            "1MiB",
            echo(4, 2, 1 << 20),
            vec![Metric {
                title: "1 MiB echo, 4 sockets, 2 in flight",
                unit: "ms/MB",
                value: |sample| sample.gateway_cpu * 1e3 / (sample.count * 1.048_576),
                digits: 3,
                target: Target::Ratio(0.60),
            }],
        ),
        timed(
            "handshake",
            Work::Handshake { clients: 32, resumed: false },
            vec![cpu("full handshake, upgrade, close", Target::Ratio(0.62))],
        ),
        timed(
            "resumption",
            Work::Handshake { clients: 32, resumed: true },
            vec![cpu("resumed handshake, upgrade, close", Target::Ratio(0.62))],
        ),
        Row {
            name: "idle",
            work: Work::Idle { sockets: idle, resumed: false },
            how: How::Memory,
            logged: false,
            metrics: vec![Metric {
                title: "memory of an idle socket",
                unit: "bytes",
                value: |sample| sample.memory / sample.count,
                digits: 0,
                target: Target::Most(4500.0),
            }],
        },
        timed("http1", Work::Http1 { connections: 32 }, vec![cpu("HTTP/1.1 request", Target::Ratio(1.0))]),
        timed(
            "http2",
            Work::Http2 { connections: 4, streams: 32 },
            vec![cpu("HTTP/2 request", Target::Ratio(1.0))],
        ),
        logged(
            "http1-logged",
            Work::Http1 { connections: 32 },
            vec![cpu("HTTP/1.1 request with its line in a log", Target::Ratio(1.0))],
        ),
        logged(
            "http2-logged",
            Work::Http2 { connections: 4, streams: 32 },
            vec![cpu("HTTP/2 request with its line in a log", Target::Ratio(1.0))],
        ),
        file("file-1KiB", 32, 0, 1 << 10, "file of 1 KiB over HTTP/1.1"),
        file("file-1KiB-h2", 4, 32, 1 << 10, "file of 1 KiB over HTTP/2"),
        file("file-1MiB", 8, 0, 1 << 20, "file of 1 MiB over HTTP/1.1"),
        file("file-1MiB-h2", 4, 2, 1 << 20, "file of 1 MiB over HTTP/2"),
        counted("syscalls-64B", echo(64, 1, 64), vec![calls("system calls, 64 B echo", 4.2)]),
        counted("syscalls-1MiB", echo(4, 2, 1 << 20), vec![calls("system calls, 1 MiB echo", 45.0)]),
        timed(
            "latency",
            Work::Paced { sockets: 64, per_second: 5000, size: 64 },
            vec![
                latency("latency at 5,000/s, p50", |sample| sample.latency.p50, Target::None),
                latency("latency at 5,000/s, p99", |sample| sample.latency.p99, Target::Ratio(1.0)),
                latency("latency at 5,000/s, p99.9", |sample| sample.latency.p999, Target::None),
            ],
        ),
        timed(
            "beside",
            Work::Mixed {
                short: Group { sockets: 16, size: 64 },
                per_second: 500,
                long: Group { sockets: 4, size: 1 << 20 },
                in_flight: 2,
            },
            vec![
                latency("64 B beside 1 MiB, p50", |sample| sample.latency.p50, Target::None),
                latency("64 B beside 1 MiB, p99", |sample| sample.latency.p99, Target::Ratio(1.0)),
                latency("64 B beside 1 MiB, p99.9", |sample| sample.latency.p999, Target::None),
                latency("of it for each turn of the load, p99", |sample| sample.load_turn.p99, Target::None),
                Metric {
                    title: "1 MiB beside 64 B",
                    unit: "ms/MB",
                    value: |sample| sample.gateway_cpu * 1e3 / sample.long_megabytes,
                    digits: 3,
                    target: Target::None,
                },
                Metric {
                    title: "1 MiB beside 64 B, in a second",
                    unit: "MB",
                    value: |sample| sample.long_megabytes / sample.seconds,
                    digits: 0,
                    target: Target::None,
                },
            ],
        ),
    ]
}
