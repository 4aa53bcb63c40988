//! A file that is open, and by what it is known.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rustix::fs::Stat;

/// A regular file.
#[derive(Debug, Clone)]
pub(crate) struct File {
    /// Opened for reading.
    pub file: Arc<OwnedFd>,
    /// When it was opened.
    pub version: Version,
    /// All of its bytes, if they were read a moment ago.
    pub content: Option<Bytes>,
}

/// By what one sees that a file has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version {
    /// In bytes.
    pub len: u64,
    /// Since 1970.
    pub modified: Duration,
}

impl Version {
    pub(super) fn of(stat: &Stat) -> Self {
        let secs = u64::try_from(stat.st_mtime).unwrap_or(0); // before 1970
        let nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or(0).min(999_999_999);
        Self { len: u64::try_from(stat.st_size).unwrap_or(0), modified: Duration::new(secs, nanos) }
    }

    /// When it was modified, in whole seconds, as fields say it.
    pub(crate) fn modified_at(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.modified.as_secs())
    }
}
