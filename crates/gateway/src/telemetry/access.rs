//! The access log: a line for each request and session, when it is over, and of sessions also before, if that is wanted.
//!
//! A gateway writes one for each request, so it is not an event of `tracing`: its fields go straight into a buffer of
//! the worker's ([`super::pending`]), without an allocation or a lock. `--log` chooses by its level whether there is
//! one, as for other lines. A gateway within another program has no log of its own: there the line is the message of
//! an event, unless it has a file.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tracing::{Level, enabled, info, warn};

use super::fields::Pairs;
use super::line::{LineFormat, Subject, level};
use super::line_buf::LineBuf;
use super::log::{self, Destination};
use super::log_file::{LogFile, Opened};
use super::pending;
use super::priority::priority;
use super::record::{Kind, Progress, Record, Sink};

/// Where access lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessTarget {
    /// Nowhere.
    Off,
    /// To the log, as other lines.
    Log,
    /// To this file, at its end.
    File(PathBuf),
    /// To the system's log, whose socket this is.
    Syslog(PathBuf),
}

impl AccessTarget {
    /// The socket of the system's log (syslog(3)); the journal reads there, too.
    pub const SYSLOG: &str = "/dev/log";
}

/// How access lines look, if not as other lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessFormat {
    /// As the lines of a log for people.
    Text,
    /// One object a line.
    Json,
    /// As Apache and nginx call it.
    Combined,
}

/// When a session has a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLines {
    /// When it has opened.
    pub open: bool,
    /// When it has ended.
    pub end: bool,
    /// Each time it has lived that much longer.
    pub every: Option<Duration>,
}

impl Default for SessionLines {
    fn default() -> Self {
        Self { open: false, end: true, every: None }
    }
}

/// Writes a line for each record. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct AccessLog(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    setting: ArcSwap<Setting>,
    /// Kept when lines go elsewhere: some may still be on their way to it.
    file: Mutex<Option<LogFile>>,
}

#[derive(Debug)]
struct Setting {
    to: To,
    sessions: SessionLines,
}

#[derive(Debug)]
enum To {
    Nowhere,
    /// To the log of the program that the gateway is a part of.
    Host,
    Destination(Destination),
}

/// What [`AccessLog::prepare`] has opened.
#[derive(Debug)]
pub struct PreparedAccess {
    target: AccessTarget,
    format: Option<AccessFormat>,
    sessions: SessionLines,
    file: Option<Opened>,
}

impl Default for Shared {
    /// To the log.
    fn default() -> Self {
        let to = log::destination().map_or(To::Host, To::Destination);
        let setting = Setting { to, sessions: SessionLines::default() };
        Self { setting: ArcSwap::from_pointee(setting), file: Mutex::default() }
    }
}

impl AccessLog {
    /// Does all that can fail. The same file is opened again, since it may have been renamed.
    ///
    /// # Errors
    /// If the file can't be opened, nothing reads the system's log, or the operating system has no thread that writes it.
    pub fn prepare(
        &self,
        target: &AccessTarget,
        format: Option<AccessFormat>,
        sessions: SessionLines,
    ) -> io::Result<PreparedAccess> {
        let file = match target {
            AccessTarget::File(path) => Some(Opened::open(path)?),
            AccessTarget::Syslog(path) => Some(Opened::syslog(path)?),
            AccessTarget::Off | AccessTarget::Log => None,
        };
        if file.is_some() {
            let mut thread = self.0.file();
            if thread.is_none() {
                *thread = Some(LogFile::start()?);
            }
        }
        Ok(PreparedAccess { target: target.clone(), format, sessions, file })
    }

    /// From now on lines go where that says.
    pub fn settle(&self, prepared: PreparedAccess) {
        let PreparedAccess { target, format, sessions, file: opened } = prepared;
        let log = log::destination();
        let like_others = log.as_ref().map_or(LineFormat::Text { has_colors: false }, |log| log.format);
        let is_to_log = target == AccessTarget::Log;
        let prioritized = matches!(target, AccessTarget::Syslog(_));
        let format = match (format, like_others) {
            (Some(AccessFormat::Combined), _) => LineFormat::Combined,
            (Some(AccessFormat::Json), _) | (None, LineFormat::Json) => LineFormat::Json,
            (None, like_others) if is_to_log => like_others,
            // Colours are for a terminal, and what is for a person who watches is not for a file.
            (_, LineFormat::Text { has_colors } | LineFormat::Live { has_colors }) if is_to_log => {
                LineFormat::Text { has_colors }
            }
            _ => LineFormat::Text { has_colors: false },
        };
        let file = self.0.file();
        if let Some(file) = &*file {
            file.replace(opened);
        }
        let to = match (target, log, &*file) {
            (AccessTarget::Log, Some(log), _) => To::Destination(Destination { format, ..log }),
            (AccessTarget::Log, None, _) => To::Host,
            (AccessTarget::File(_) | AccessTarget::Syslog(_), _, Some(file)) => {
                To::Destination(Destination { queue: file.queue().clone(), format, prioritized })
            }
            (AccessTarget::Off | AccessTarget::File(_) | AccessTarget::Syslog(_), ..) => To::Nowhere,
        };
        self.0.setting.store(Arc::new(Setting { to, sessions }));
    }

    /// Opens the file again, if there is one: it has been renamed, and lines are to go to a new one of its name.
    pub(crate) fn reopen(&self) {
        let Some(path) = self.0.file().as_ref().and_then(LogFile::path) else {
            info!("SIGUSR1: the access log is no file, so there is nothing to open again");
            return;
        };
        match Opened::open(&path) {
            Ok(opened) => {
                if let Some(file) = &*self.0.file() {
                    file.replace(Some(opened));
                }
                info!(file = %path.display(), "the access log has been opened again");
            }
            Err(e) => warn!(
                file = %path.display(), cause = %e,
                "the access log can't be opened again: lines go on to the file that is open"
            ),
        }
    }

    /// Lines that the file has lost so far.
    pub(crate) fn lines_lost(&self) -> u64 {
        self.0.file().as_ref().map_or(0, |file| file.queue().lost())
    }

    /// Writes what waits for the file, unless that takes longer than a second. Blocks.
    pub(crate) fn finish(&self) {
        let file = self.0.file().take();
        drop(file);
    }
}

impl Shared {
    fn file(&self) -> MutexGuard<'_, Option<LogFile>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Setting {
    fn write(&self, of: &impl Subject) {
        let is_warning = of.is_warning();
        // Each of the two is a look at one byte.
        if !(if is_warning { enabled!(Level::WARN) } else { enabled!(Level::INFO) }) {
            return;
        }
        match &self.to {
            To::Destination(destination) => pending::line(&destination.queue, |out, stamp| {
                if destination.prioritized {
                    out.text(priority(level(is_warning)));
                }
                destination.format.write(of, is_warning, stamp, out);
            }),
            To::Host => event(of, is_warning),
            To::Nowhere => {}
        }
    }

    /// It has an event of its own for sessions that open.
    fn is_live(&self) -> bool {
        matches!(&self.to, To::Destination(Destination { format: LineFormat::Live { .. }, .. }))
    }
}

impl Sink for AccessLog {
    fn take(&self, record: &Record<'_>) {
        let setting = self.0.setting.load();
        let is_wanted = match record.kind {
            Kind::Request { .. } => true,
            Kind::Opened { .. } => setting.sessions.open && !setting.is_live(),
            Kind::Session { .. } => setting.sessions.end,
        };
        if is_wanted {
            setting.write(record);
        }
    }

    fn progress_interval(&self) -> Option<Duration> {
        let setting = self.0.setting.load();
        setting.sessions.every.filter(|_| !matches!(setting.to, To::Nowhere))
    }

    fn progress(&self, progress: &Progress<'_>) {
        self.0.setting.load().write(progress);
    }
}

/// For the log of another program.
fn event(of: &impl Subject, is_warning: bool) {
    let mut line = LineBuf::NEW;
    line.text(of.message());
    of.fields(&mut Pairs::text(&mut line, false));
    let line = line.into_string();
    if is_warning {
        warn!("{line}");
    } else {
        info!("{line}");
    }
}
