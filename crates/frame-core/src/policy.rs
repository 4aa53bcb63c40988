//! What a route demands of its sessions, and the waits that are the same for all routes.

use std::time::Duration;

use crate::sequence::Limits;

/// How long a peer is given to answer a Close of the gateway's, to read what was sent to it
/// before the connection goes, or to say its last after it half-closed.
pub const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// How long a peer is given to answer the other peer's Close.
pub(crate) const CLOSE_ANSWER_WAIT: Duration = Duration::from_secs(30);
/// How long messages in flight are waited for when a session has reached its lifetime.
pub(crate) const LIFETIME_MESSAGES_WAIT: Duration = Duration::from_secs(30);
/// How long a client may take nothing of what waits for it.
pub const STALL_MAX: Duration = Duration::from_secs(60);

/// What a route demands of its sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Limits for both directions.
    pub limits: Limits,
    /// The session ends when no message has moved in either direction for so long.
    pub idle_timeout: Option<Duration>,
    /// So long after its beginning the session ends, as by an order with code 1001.
    pub lifetime: Option<Duration>,
    /// A client that was silent for so long is sent a ping.
    pub ping_interval: Option<Duration>,
    /// How long the client then has to answer.
    pub pong_timeout: Duration,
}
