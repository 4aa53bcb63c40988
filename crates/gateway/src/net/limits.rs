//! How much and how long: the limits for clients and backends.

use std::num::NonZeroU64;
use std::time::Duration;

pub(crate) use frame_core::policy::STALL_MAX;

/// The longest head of a request or an answer, in bytes. Longer ones get 431, or are a 502.
pub(crate) const HEAD_LEN_MAX: usize = 64 * 1024;

/// What a listener bears with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientLimits {
    /// For a request head from its first byte on, and for the first byte of the first one.
    pub header_timeout: Duration,
    /// For the first byte of every later one.
    pub keep_alive_timeout: Duration,
    /// Bytes a second of a request's body; `None`: as slow as it likes.
    pub body_rate: Option<NonZeroU64>,
}

impl ClientLimits {
    /// What holds where nothing is said.
    pub const DEFAULT: Self = Self {
        header_timeout: Duration::from_secs(10),
        keep_alive_timeout: Duration::from_secs(75),
        body_rate: NonZeroU64::new(500),
    };
}
