//! What systemd's journal is told of a line's importance: `<4>` before it (sd-daemon(3)).

use std::env;
use std::io::{self, Write, stderr};

use rustix::fs::fstat;
use tracing::{Level, Metadata};
use tracing_appender::non_blocking::NonBlocking;
use tracing_subscriber::fmt::MakeWriter;

/// Makes writers of whole lines.
#[derive(Debug)]
pub(super) struct Lines {
    pub(super) writer: NonBlocking,
    /// The journal reads them.
    pub(super) prioritized: bool,
}

/// Writes one line.
#[derive(Debug)]
pub(super) struct Line {
    writer: NonBlocking,
    priority: &'static str,
}

/// Whether stderr is the journal's, rather than where somebody sends it to: systemd.exec(5) has
/// `$JOURNAL_STREAM` for this.
pub(super) fn reads_journal() -> bool {
    let Ok(stream) = env::var("JOURNAL_STREAM") else { return false };
    fstat(stderr()).is_ok_and(|file| stream == format!("{}:{}", file.st_dev, file.st_ino))
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { writer: self.writer.clone(), priority: "" }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Line {
        let priority = if self.prioritized { priority(*event.level()) } else { "" };
        Line { priority, ..self.make_writer() }
    }
}

fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        _ => "<7>",
    }
}

impl Write for Line {
    /// Takes all of `line` at once, so that no other comes between its parts.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.priority.is_empty() {
            return self.writer.write(line);
        }
        self.writer.write_all(&[self.priority.as_bytes(), line].concat())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}
