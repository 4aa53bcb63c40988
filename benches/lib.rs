//! What the benches share: frames, pipes, records, and a runtime like a worker's.
#![allow(clippy::unwrap_used, reason = "benches are as blunt as tests")]
#![allow(missing_docs, reason = "benches are read, not called")]

pub mod count;
pub mod pipe;
pub mod record;
pub mod work;

use std::time::Duration;

use frame_core::policy::Policy;
use frame_core::sequence::Limits;
use tokio::runtime::{Builder, Runtime};

/// What a route may demand of its sessions, all of it.
pub const POLICY: Policy = Policy {
    limits: Limits { message_max: 16 << 20, deflate: false },
    idle_timeout: Some(Duration::from_secs(3600)),
    lifetime: None,
    ping_interval: Some(Duration::from_secs(30)),
    pong_timeout: Duration::from_secs(10),
};

/// Payload lengths that stand for a chat, a page and a file.
pub const LENGTHS: [(&str, usize); 3] = [("64B", 64), ("4KiB", 4096), ("1MiB", 1 << 20)];

/// One thread, as workers have it.
pub fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// A binary message in one frame, as a client (`masked`) or a server sends it.
pub fn message(len: usize, masked: bool) -> Vec<u8> {
    support::ws::encode(support::ws::BINARY, &vec![0x5A; len], masked)
}

/// So many of them that buffers are full, as under load.
pub fn messages(len: usize, masked: bool) -> (Vec<u8>, usize) {
    let count = ((64 << 10) / len).max(1);
    (message(len, masked).repeat(count), count)
}
