//! Finished lines on their way to the queue. For systemd's journal each begins with its priority: `<4>`
//! before it (sd-daemon(3)).

use std::env;
use std::io::{self, Write, stderr};

use rustix::fs::fstat;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use super::peer::printable;
use super::pending;
use super::queue::Queue;

/// Makes writers of whole lines.
#[derive(Debug)]
pub(super) struct Lines {
    pub(super) queue: Queue,
    /// The journal reads them.
    pub(super) prioritized: bool,
    /// They are coloured, for a terminal.
    pub(super) has_colors: bool,
}

/// Writes one line.
#[derive(Debug)]
pub(super) struct Line<'a> {
    lines: &'a Lines,
    priority: &'static str,
}

/// Whether stderr is the journal's, rather than redirected: systemd.exec(5) has
/// `$JOURNAL_STREAM` for this.
pub(super) fn reads_journal() -> bool {
    let Ok(stream) = env::var("JOURNAL_STREAM") else { return false };
    fstat(stderr()).is_ok_and(|file| stream == format!("{}:{}", file.st_dev, file.st_ino))
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { lines: self, priority: "" }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Line<'a> {
        let priority = if self.prioritized { priority(*event.level()) } else { "" };
        Line { priority, ..self.make_writer() }
    }
}

pub(super) fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        _ => "<7>",
    }
}

impl Write for Line<'_> {
    /// Takes all of `line` at once, so that no other comes between its parts.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let safe = printable(line, self.lines.has_colors);
        pending::flush(); // what this thread has written before stands before it
        self.lines.queue.push([self.priority.as_bytes(), &safe]);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
