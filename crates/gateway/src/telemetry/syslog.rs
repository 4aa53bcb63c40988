//! Lines as messages of the system's log, over the socket that syslogd reads, or the journal in its place (RFC 3164).
//!
//! In: lines, each with its priority before it. Out: a datagram a line. It has no time: what reads a local socket has
//! its own clock, and would take ours for local time (the crate syslog sends UTC there, and allocates for each line).

use std::io::{self, ErrorKind, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process;
use std::time::Duration;

/// System daemons (RFC 3164 §4.1.1).
const FACILITY: u8 = 3;
/// The severity of a line without one: informational.
const SEVERITY: u8 = 6;
/// How long a reader that is busy is waited for before the wait can be seen from outside, and goes on.
const WAIT: Duration = Duration::from_millis(100);

/// A socket that is connected.
#[derive(Debug)]
pub(super) struct Syslog {
    path: PathBuf,
    socket: UnixDatagram,
    message: Vec<u8>,
}

impl Syslog {
    /// Connects to the socket at this path.
    ///
    /// # Errors
    /// If it is not read, or may not be written.
    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), socket: connect(path)?, message: Vec::new() })
    }
}

fn connect(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    socket.set_write_timeout(Some(WAIT))?;
    Ok(socket)
}

impl Write for Syslog {
    /// Sends the first of `lines`. If that has taken too long, it is to be sent again (`WouldBlock`).
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let len = lines.iter().position(|&b| b == b'\n').map_or(lines.len(), |end| end + 1);
        let (severity, text) = severity(lines[..len].trim_ascii_end());
        self.message.clear();
        write!(self.message, "<{}>wssgate[{}]: ", FACILITY * 8 + severity, process::id())?;
        self.message.extend_from_slice(text);
        if let Err(e) = self.socket.send(&self.message) {
            if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) {
                return Err(ErrorKind::WouldBlock.into());
            }
            // Another process may read there now.
            self.socket = connect(&self.path)?;
            self.socket.send(&self.message)?;
        }
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The severity that a line begins with (`<4>`), and what is behind it.
fn severity(line: &[u8]) -> (u8, &[u8]) {
    match line {
        [b'<', digit @ b'0'..=b'7', b'>', text @ ..] => (digit - b'0', text),
        text => (SEVERITY, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_may_begin_with_its_severity() {
        for (line, severity_and_text) in [
            (&b"<4>request"[..], (4, &b"request"[..])),
            (b"request", (6, b"request")),
            (b"<9>x", (6, b"<9>x")),
            (b"<4", (6, b"<4")),
            (b"", (6, b"")),
        ] {
            assert_eq!(severity(line), severity_and_text);
        }
    }
}
