//! The time of day, as certificates and the log have it.

use std::time::SystemTime;

/// Seconds since 1970, as certificates have them.
#[must_use]
pub fn unix_now() -> i64 {
    i64::try_from(unix_secs()).unwrap_or(i64::MAX)
}

/// Seconds since 1970, as tokens have them.
#[must_use]
pub fn unix_secs() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
