//! The log: to stderr, as text or as JSON.

use std::io::{self, IsTerminal, stderr};
use std::sync::OnceLock;

use clap::ValueEnum;
use tracing::warn;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use super::line::LineFormat;
use super::live::{self, Live};
use super::logfmt::Logfmt;
use super::priority::{Lines, reads_journal};
use super::queue::{self, Guard, Queue};

/// The process has one log.
static LOG: OnceLock<Destination> = OnceLock::new();

/// Where access lines go.
#[derive(Debug, Clone)]
pub(super) struct Destination {
    pub(super) queue: Queue,
    pub(super) format: LineFormat,
    /// The journal reads them.
    pub(super) prioritized: bool,
}

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people: words, then pairs that are logfmt.
    Text,
    /// For a person who watches: a short line for each request, and for each WebSocket that opens or closes.
    Live,
    /// For machines: one object a line.
    Json,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// It is no level and no directives that tracing-subscriber understands.
    #[error("{0}")]
    Filter(#[from] ParseError),
    /// There is no thread to write it.
    #[error("the log's thread can't be started: {0}")]
    Thread(#[from] io::Error),
}

/// Starts the log, at level `info` if `filter` says nothing else. What is still in its queue is written when the guard is
/// dropped.
///
/// Lines are written by a thread of their own: the reader of stderr may stall, but sockets must
/// not. If it stalls for long, lines are lost rather than messages; their number is logged.
///
/// # Errors
/// If `filter` can't be understood, or the operating system has no thread.
pub fn start(format: Format, filter: Option<&str>) -> Result<Guard, LogError> {
    let usual = if format == Format::Live { live::FILTER } else { "info" };
    let filter = EnvFilter::builder().parse(filter.unwrap_or(usual))?;
    let (queue, guard) = Queue::start(queue::LEN_MAX, queue::PIPE_LEN, stderr(), |lines| {
        warn!(lines, "log lines were lost: the log is read more slowly than it is written");
    })?;
    let has_colors = format != Format::Json && stderr().is_terminal();
    let line_format = match format {
        Format::Text => LineFormat::Text { has_colors },
        Format::Live => LineFormat::Live { has_colors },
        Format::Json => LineFormat::Json,
    };
    let destination = Destination { queue, format: line_format, prioritized: reads_journal() };
    let Destination { queue, prioritized, .. } = LOG.get_or_init(|| destination).clone();
    let lines = Lines { queue, prioritized, has_colors };
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(lines).with_target(false);
    match format {
        Format::Text => subscriber.fmt_fields(Logfmt).with_ansi(has_colors).init(),
        Format::Live => {
            subscriber.fmt_fields(Logfmt).with_ansi(has_colors).event_format(Live).init();
        }
        Format::Json => subscriber.json().flatten_event(true).init(),
    }
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, cause = %panic.payload_as_str().unwrap_or("?"), "a task panicked; this is a bug");
    }));
    Ok(guard)
}

/// Where access lines go if they go to the log; `None`: it has not been started.
pub(super) fn destination() -> Option<Destination> {
    LOG.get().cloned()
}

/// Log lines lost so far.
#[must_use]
pub fn lines_lost() -> u64 {
    LOG.get().map_or(0, |log| log.queue.lost())
}
