//! Files of another server, read from the disk: so many, and so much, at most.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use super::sources::{ReadError, Sources};

/// So many files are read at most.
const FILES_MAX: usize = 2_000;
/// All of them together have at most so many bytes.
const BYTES_MAX: u64 = 16 << 20;

/// The disk, and how much may still be read from it.
#[derive(Debug)]
pub(super) struct Disk {
    files_left: usize,
    bytes_left: u64,
}

impl Disk {
    pub(super) fn new() -> Self {
        Self { files_left: FILES_MAX, bytes_left: BYTES_MAX }
    }
}

impl Sources for Disk {
    fn read(&mut self, file: &Path) -> Result<Vec<u8>, ReadError> {
        let missing =
            |e: std::io::Error| ReadError::Missing(format!("{} can't be read: {e}", file.display()));
        let about = std::fs::metadata(file).map_err(missing)?;
        if !about.is_file() {
            return Err(missing(std::io::Error::other("it is no file"))); // opening a FIFO would wait
        }
        let too_many = || ReadError::TooMuch(format!("more than {FILES_MAX} files are included"));
        self.files_left = self.files_left.checked_sub(1).ok_or_else(too_many)?;
        let mut bytes = Vec::new();
        let opened = File::open(file).and_then(|open| open.take(self.bytes_left + 1).read_to_end(&mut bytes));
        opened.map_err(missing)?;
        let too_much = || ReadError::TooMuch(format!("the files have more than {} MiB", BYTES_MAX >> 20));
        self.bytes_left = self.bytes_left.checked_sub(bytes.len() as u64).ok_or_else(too_much)?;
        Ok(bytes)
    }

    fn matching(&mut self, pattern: &Path) -> Result<Vec<PathBuf>, String> {
        let text = pattern.to_str().ok_or("the pattern is not UTF-8")?;
        if !text.contains(['*', '?', '[']) {
            return Ok(vec![pattern.to_owned()]);
        }
        // As glob(3) does it, which both servers use: files that begin with a dot need one in the pattern.
        let options = glob::MatchOptions {
            require_literal_leading_dot: true,
            require_literal_separator: true,
            ..glob::MatchOptions::new()
        };
        let found = glob::glob_with(text, options).map_err(|e| format!("{text:?} is no pattern: {e}"))?;
        let mut files = Vec::new();
        for file in found {
            let file = file.map_err(|e| e.to_string())?;
            if file.is_file() {
                files.push(file);
            }
            if files.len() > FILES_MAX {
                return Err(format!("{text:?} stands for more than {FILES_MAX} files"));
            }
        }
        Ok(files)
    }
}

/// Writes a file that isn't there yet; blocks.
///
/// # Errors
/// The system's.
pub(super) fn write(file: &Path, text: &str) -> std::io::Result<()> {
    File::create_new(file)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_within_bounds() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["b.conf", "a.conf", ".hidden.conf", "c.txt"] {
            std::fs::write(path(name), name).unwrap();
        }
        std::fs::create_dir(path("d.conf")).unwrap();
        let mut disk = Disk::new();
        assert_eq!(disk.matching(&path("*.conf")), Ok(vec![path("a.conf"), path("b.conf")]));
        assert_eq!(disk.matching(&path("none")), Ok(vec![path("none")]));
        assert_eq!(disk.matching(&path("none*")), Ok(Vec::new()));
        assert_eq!(disk.read(&path("a.conf")), Ok(b"a.conf".to_vec()));
        for name in ["d.conf", "none"] {
            assert!(matches!(disk.read(&path(name)), Err(ReadError::Missing(_))), "{name}");
        }
        disk.bytes_left = 5;
        let too_much = |what: &str| Err(ReadError::TooMuch(what.to_owned()));
        assert_eq!(disk.read(&path("a.conf")), too_much("the files have more than 16 MiB"));
        disk.files_left = 0;
        assert_eq!(disk.read(&path("a.conf")), too_much("more than 2000 files are included"));
    }
}
