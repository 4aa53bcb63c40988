//! The log: to stderr, as text or as JSON.

use std::io::{IsTerminal, stderr};

use clap::ValueEnum;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use super::priority::{Lines, reads_journal};

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For machines: one object a line.
    Json,
}

/// Starts the log. What is still in its queue is written when the guard is dropped.
///
/// Lines are written by a thread of their own: whoever reads stderr may stall, but sockets must
/// not. If it stalls for long, lines are lost rather than messages.
///
/// # Errors
/// If `filter` is no level and no directives that tracing-subscriber understands.
pub fn start(format: Format, filter: &str) -> Result<WorkerGuard, ParseError> {
    let filter = EnvFilter::builder().parse(filter)?;
    let (writer, guard) = NonBlockingBuilder::default().lossy(true).finish(stderr());
    let lines = Lines { writer, prioritized: reads_journal() };
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(lines).with_target(false);
    match format {
        Format::Text => subscriber.with_ansi(stderr().is_terminal()).init(),
        Format::Json => subscriber.json().flatten_event(true).init(),
    }
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, cause = %panic.payload_as_str().unwrap_or("?"), "a task panicked; this is a bug");
    }));
    Ok(guard)
}
