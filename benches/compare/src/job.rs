//! What the harness asks of a load process, and what comes back; JSON between the two.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One run of the load generator.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) work: Work,
    pub(crate) port: u16,
    /// The certificate to trust, in PEM.
    pub(crate) certificate: PathBuf,
    /// The gateway's processes, whose CPU time is read at both ends of the window.
    pub(crate) gateway: Vec<i32>,
    pub(crate) backend: i32,
    /// The cores of gateway, load and backend.
    pub(crate) cores: [usize; 2],
    pub(crate) warm_up: f64,
    pub(crate) seconds: f64,
    /// Says `ready` once all is connected and quiet, and begins (for idle sockets: ends) when a line
    /// comes. Then all work counts and there is no warm-up.
    pub(crate) gate: bool,
    /// No more connections are begun in a second.
    pub(crate) connections_per_second: Option<u32>,
}

/// What a load does.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) enum Work {
    /// Binary messages, each echoed and compared.
    Echo { sockets: usize, in_flight: u64, size: usize, packing: Packing },
    /// TCP, TLS, upgrade, Close, end of stream; each client one after the other.
    Handshake { clients: usize, resumed: bool },
    /// GET over HTTP/1.1, one after the other on each connection.
    Http1 { connections: usize },
    /// GET over HTTP/2, one after the other on each stream.
    Http2 { connections: usize, streams: usize },
    /// GET for a file of so many bytes: over HTTP/2 on so many streams of each connection, or over HTTP/1.1 if there
    /// are none.
    File { connections: usize, streams: usize, len: usize },
    /// Messages at fixed times, each echoed, compared and its latency taken.
    Paced { sockets: usize, per_second: u32, size: usize },
    /// Short messages at fixed times over some sockets, `per_second` in all, with their latency taken; over
    /// others long ones as fast as they come, so many in flight on each.
    Mixed { short: Group, per_second: u32, long: Group, in_flight: u64 },
    /// Sockets that have had one message each and then nothing. Resumed: of clients that have been here
    /// before, but for the first few.
    Idle { sockets: usize, resumed: bool },
    /// Sockets that are opened as the harness says, and messages over all of them, at fixed times.
    Live { per_second: u32 },
    /// An unmasked frame must be answered with Close 1002, an oversize message with Close 1009.
    Strict { oversize: u64 },
}

impl Work {
    /// It is driven from the backend's thread: what it costs the gateway is taken.
    pub(crate) fn is_timed(self) -> bool {
        match self {
            Self::Echo { .. }
            | Self::Handshake { .. }
            | Self::Http1 { .. }
            | Self::Http2 { .. }
            | Self::File { .. }
            | Self::Paced { .. }
            | Self::Mixed { .. } => true,
            Self::Idle { .. } | Self::Live { .. } | Self::Strict { .. } => false,
        }
    }
}

/// Sockets whose messages have one length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Group {
    pub(crate) sockets: usize,
    pub(crate) size: usize,
}

/// How messages that are written together go into TLS records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Packing {
    /// Into as few as hold them.
    Dense,
    /// Each into its own.
    Single,
}

/// What happened in the timed window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Round trips, handshakes or requests.
    pub(crate) count: f64,
    /// Requests in all, with those before and after the window, if it was about HTTP.
    #[serde(default)]
    pub(crate) requests: u64,
    pub(crate) seconds: f64,
    /// CPU seconds of the gateway.
    pub(crate) gateway_cpu: f64,
    /// Of load generator and backend, without the time in which they only looked whether there was
    /// something to do.
    pub(crate) load_cpu: f64,
    /// Of all other processes on their cores.
    pub(crate) others_cpu: f64,
    /// How often threads of the gateway, and of load and backend, went to sleep.
    #[serde(default)]
    pub(crate) gateway_sleeps: f64,
    #[serde(default)]
    pub(crate) load_sleeps: f64,
    /// Milliseconds, for paced messages.
    #[serde(default)]
    pub(crate) latency: Latency,
    /// Milliseconds that a short message beside long ones may have waited for the load at each of three places.
    #[serde(default)]
    pub(crate) load_turn: Latency,
    /// 10⁶ payload bytes of such long messages, echoed.
    #[serde(default)]
    pub(crate) long_megabytes: f64,
    /// Filled in by the harness: growth of the gateway in bytes, its system calls.
    #[serde(default)]
    pub(crate) memory: f64,
    #[serde(default)]
    pub(crate) system_calls: f64,
}

impl Sample {
    /// The slices of a window, put together. Quantiles are those of the last.
    pub(crate) fn sum(slices: &[Self]) -> Option<Self> {
        slices.iter().copied().reduce(|sum, slice| Self {
            count: sum.count + slice.count,
            requests: sum.requests + slice.requests,
            seconds: sum.seconds + slice.seconds,
            gateway_cpu: sum.gateway_cpu + slice.gateway_cpu,
            load_cpu: sum.load_cpu + slice.load_cpu,
            others_cpu: sum.others_cpu + slice.others_cpu,
            gateway_sleeps: sum.gateway_sleeps + slice.gateway_sleeps,
            load_sleeps: sum.load_sleeps + slice.load_sleeps,
            memory: sum.memory + slice.memory,
            system_calls: sum.system_calls + slice.system_calls,
            long_megabytes: sum.long_megabytes + slice.long_megabytes,
            latency: slice.latency,
            load_turn: slice.load_turn,
        })
    }

    /// How much others took of the cores, as a part of one core.
    pub(crate) fn others(&self) -> f64 {
        self.others_cpu / self.seconds
    }
}

/// What became of live sockets.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Live {
    pub(crate) asked: usize,
    /// No connection, no handshake, or not with the certificate of the day.
    pub(crate) refused: usize,
    /// Ended, or sent what was wrong.
    pub(crate) dropped: usize,
    pub(crate) echoed: u64,
    /// Milliseconds.
    pub(crate) p99: f64,
    pub(crate) worst: f64,
    pub(crate) first_trouble: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
}
