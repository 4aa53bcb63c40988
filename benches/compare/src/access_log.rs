//! The access log of a gateway, whose lines are counted: a gateway that leaves some out has done less than the others.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::time::sleep;

/// Until the last line must be there: some gateways write in batches.
const PATIENCE: Duration = Duration::from_secs(5);

/// A log from a moment on.
pub(crate) struct AccessLog {
    file: File,
    lines: u64,
}

impl AccessLog {
    /// The log as it goes on from here.
    pub(crate) fn from_its_end(path: &Path) -> anyhow::Result<Self> {
        // Caddy makes the file with its first line.
        let open = File::options().read(true).append(true).create(true).open(path);
        let mut file = open.with_context(|| path.display().to_string())?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self { file, lines: 0 })
    }

    /// Waits until there is a line for each request; an error says how many there are if they aren't as many.
    pub(crate) async fn has_all(mut self, requests: u64) -> anyhow::Result<()> {
        let begun = Instant::now();
        while self.read()? < requests && begun.elapsed() < PATIENCE {
            sleep(Duration::from_millis(10)).await;
        }
        self.compare(requests)
    }

    fn compare(&self, requests: u64) -> anyhow::Result<()> {
        let lines = self.lines;
        ensure!(
            lines >= requests,
            "{} of {requests} requests have no line in the access log",
            requests - lines
        );
        ensure!(lines == requests, "{lines} lines in the access log for {requests} requests");
        Ok(())
    }

    /// How many lines there are so far.
    fn read(&mut self) -> io::Result<u64> {
        let mut piece = [0; 64 << 10];
        loop {
            let len = self.file.read(&mut piece)?;
            if len == 0 {
                return Ok(self.lines);
            }
            self.lines += piece[..len].iter().filter(|byte| **byte == b'\n').count() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    #[test]
    fn lines_from_its_end_are_counted_and_missing_ones_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "before\n").unwrap();
        let mut writer = File::options().append(true).open(&path).unwrap();
        let mut log = AccessLog::from_its_end(&path).unwrap();
        assert_eq!(log.read().unwrap(), 0);
        writer.write_all(b"one\ntw").unwrap();
        assert_eq!(log.read().unwrap(), 1);
        writer.write_all(b"o\n").unwrap();
        assert_eq!(log.read().unwrap(), 2);
        assert!(log.compare(2).is_ok());
        let error = |requests| log.compare(requests).unwrap_err().to_string();
        assert_eq!(error(1), "2 lines in the access log for 1 requests");
        assert_eq!(error(7), "5 of 7 requests have no line in the access log");
    }
}
