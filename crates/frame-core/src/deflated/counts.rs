//! What is counted of sessions with compression. Each thread counts by itself.

use std::sync::Arc;

use net_io::count::Count;

/// Of all sessions of a thread that are told to count here ([`Deflating::count_in`](super::Deflating::count_in)).
#[derive(Debug, Default)]
pub struct DeflatedCounts {
    /// Those that are there.
    pub sessions: Count,
    /// Messages from clients.
    pub from_client: WayCounts,
    /// Messages to clients.
    pub to_client: WayCounts,
}

/// Of one direction: payload bytes of messages that are compressed on the wire. Others are not among them.
#[derive(Debug, Default)]
pub struct WayCounts {
    /// As they are on the wire.
    pub wire_bytes: Count,
    /// As they are when they are inflated.
    pub inflated_bytes: Count,
}

/// A session that counts there until this is dropped.
#[derive(Debug)]
pub(super) struct Counted(Arc<DeflatedCounts>);

/// What has passed and is not counted yet, in payload bytes of compressed messages.
#[derive(Debug, Default)]
pub(super) struct Passed {
    pub(super) wire_len: u64,
    pub(super) inflated_len: u64,
}

impl Counted {
    pub(super) fn new(counts: Arc<DeflatedCounts>) -> Self {
        counts.sessions.one();
        Self(counts)
    }

    pub(super) fn count(&self, from_client: &mut Passed, to_client: &mut Passed) {
        self.0.from_client.add(from_client);
        self.0.to_client.add(to_client);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let sessions = &self.0.sessions;
        sessions.set(sessions.get().saturating_sub(1));
    }
}

impl WayCounts {
    fn add(&self, passed: &mut Passed) {
        let Passed { wire_len, inflated_len } = std::mem::take(passed);
        if inflated_len > 0 || wire_len > 0 {
            self.wire_bytes.add(wire_len);
            self.inflated_bytes.add(inflated_len);
        }
    }
}
