//! Where the access log goes by a thread of its own: a file, which another program may rename at any time (then it is
//! opened again), or the system's log.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::OFlags;
use tracing::{info, warn};

use super::queue::{Guard, LEN_MAX, Queue};
use super::syslog::Syslog;

/// Its owner writes it; its group may read it.
const MODE: u32 = 0o640;
/// Bytes of a write. The kernel doesn't mix what two processes append to a file (write(2)).
const WRITE_LEN: usize = 64 * 1024;

/// A file that is open, or a socket, and its name.
#[derive(Debug)]
pub(super) struct Opened {
    path: PathBuf,
    to: To,
}

#[derive(Debug)]
enum To {
    File(File),
    Syslog(Syslog),
}

impl Opened {
    /// Opens it for appending, and makes it if there is none.
    ///
    /// # Errors
    /// If the operating system refuses, or it is a pipe that no process reads.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(MODE)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed()) // a pipe's reader is not waited for
            .open(path)?;
        Ok(Self { path: path.to_owned(), to: To::File(file) })
    }

    /// Connects to the socket of the system's log.
    ///
    /// # Errors
    /// If nothing reads there.
    pub(super) fn syslog(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), to: To::Syslog(Syslog::connect(path)?) })
    }
}

/// A thread that writes lines to a file, or to the system's log.
#[derive(Debug)]
pub(super) struct LogFile {
    queue: Queue,
    open: Open,
    _guard: Guard,
}

/// Where lines go now; `None`: they are not wanted any more.
#[derive(Debug, Clone, Default)]
struct Open(Arc<Mutex<Option<Opened>>>);

impl Open {
    fn lock(&self) -> MutexGuard<'_, Option<Opened>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogFile {
    /// Without a file yet.
    ///
    /// # Errors
    /// If the operating system has no thread for it.
    pub(super) fn start() -> io::Result<Self> {
        let open = Open::default();
        let out = Out { open: open.clone(), is_failing: false };
        let (queue, guard) = Queue::start(LEN_MAX, WRITE_LEN, out, |lines| {
            warn!(lines, "lines of the access log were lost: they come faster than they can be written");
        })?;
        Ok(Self { queue, open, _guard: guard })
    }

    /// Where its lines wait.
    pub(super) fn queue(&self) -> &Queue {
        &self.queue
    }

    /// What is written from now on goes there. The other file is closed.
    pub(super) fn replace(&self, file: Option<Opened>) {
        *self.open.lock() = file;
    }

    /// The file's, if it is one.
    pub(super) fn path(&self) -> Option<PathBuf> {
        self.open.lock().as_ref().filter(|open| matches!(open.to, To::File(_))).map(|open| open.path.clone())
    }
}

/// Writes, and says when that fails and when it succeeds again.
#[derive(Debug)]
struct Out {
    open: Open,
    is_failing: bool,
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut open = self.open.lock();
        let Some(Opened { path, to }) = &mut *open else { return Ok(bytes.len()) };
        let result = match to {
            To::File(file) => file.write(bytes),
            To::Syslog(syslog) => syslog.write(bytes),
        };
        match &result {
            Ok(_) if self.is_failing => {
                self.is_failing = false;
                info!(file = %path.display(), "the access log can be written again");
            }
            Err(e)
                if !self.is_failing
                    && !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                self.is_failing = true;
                warn!(file = %path.display(), cause = %e, "the access log can't be written: its lines are lost");
            }
            _ => {}
        }
        result
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
