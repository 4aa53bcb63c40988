//! Files that a configuration names, and that are read when it is.

use std::fs::{File, Metadata};
use std::io::{Error, Read, Result};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::site::written::Stamp;

/// What a file holds.
pub(super) struct Content {
    /// `None`: it is longer than it may be.
    pub(super) bytes: Option<Vec<u8>>,
    /// Every user of the machine can read it.
    pub(super) is_open: bool,
}

/// What the system knows of a regular file.
///
/// # Errors
/// The system's, and that it is none: opening a FIFO would wait.
pub(super) fn metadata(path: &Path) -> Result<Metadata> {
    let about = std::fs::metadata(path)?;
    if about.is_file() { Ok(about) } else { Err(Error::other("it is no file")) }
}

/// The stamp of a file; blocks.
pub(crate) fn stamp(path: &Path) -> Stamp {
    let about = metadata(path).ok()?;
    Some((about.mtime(), about.mtime_nsec(), about.len(), about.ino()))
}

/// Reads a regular file of at most `len_max` bytes; blocks.
///
/// # Errors
/// The system's, and that it is none.
pub(super) fn read(path: &Path, len_max: u64) -> Result<Content> {
    let about = metadata(path)?;
    let mut bytes = Vec::new();
    // One byte more shows that it is longer, even if it grows meanwhile.
    File::open(path)?.take(len_max + 1).read_to_end(&mut bytes)?;
    let is_short = bytes.len() as u64 <= len_max;
    Ok(Content { bytes: is_short.then_some(bytes), is_open: about.mode() & 0o004 != 0 })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn regular_files_are_read_up_to_a_length() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "1234").unwrap();
        for (mode, len_max, bytes, is_open) in
            [(0o644, 4, Some("1234"), true), (0o640, 5, Some("1234"), false), (0o600, 3, None, false)]
        {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let content = read(&path, len_max).unwrap();
            assert_eq!((content.bytes.as_deref(), content.is_open), (bytes.map(str::as_bytes), is_open));
        }
    }

    #[test]
    fn what_is_none_is_an_error_and_not_waited_for() {
        let directory = tempfile::TempDir::new().unwrap();
        let fifo = directory.path().join("fifo");
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        for path in [&fifo, directory.path()] {
            assert_eq!(read(path, 10).err().unwrap().to_string(), "it is no file");
        }
        assert!(read(&directory.path().join("none"), 10).is_err());
    }
}
