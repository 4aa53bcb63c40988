//! `wssgate status` and its siblings: the other end of the control socket.

use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use crate::ops::control::protocol::{ControlResponse, Request, SessionLine};
use crate::ops::control::tables;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is nothing at the path.
    #[error(
        "there is no control socket {}: the gateway isn't running, or its socket has another path ([control] in its configuration): give --config FILE or --socket PATH", path.display()
    )]
    Absent {
        /// The path.
        path: PathBuf,
    },
    /// There is a socket, but no process listens on it.
    #[error("no process answers on the control socket {}: the gateway is not running any more", path.display())]
    Dead {
        /// The path.
        path: PathBuf,
    },
    /// It belongs to another user.
    #[error(
        "this user may not use the control socket {}: run the command as the gateway's user, or as root (sudo)",
        path.display()
    )]
    Forbidden {
        /// The path.
        path: PathBuf,
    },
    /// It hung up.
    #[error("the gateway closed the connection before its answer was complete; its log may say why")]
    HungUp,
    /// It is not a gateway of ours.
    #[error("the gateway's answer is invalid: {0}")]
    ControlResponse(#[from] serde_json::Error),
    /// The file for the frames can't be written.
    #[error("{} can't be written: {error}", path.display())]
    File {
        /// The path.
        path: PathBuf,
        /// The operating system's error.
        error: io::Error,
    },
    /// The operating system's error.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Sends a request to the gateway behind the socket at `path`; its answer is to be read.
pub(super) async fn send(path: &Path, request: &Request) -> Result<BufReader<UnixStream>, ClientError> {
    let mut stream = UnixStream::connect(path).await.map_err(|e| {
        let path = path.to_owned();
        match e.kind() {
            ErrorKind::NotFound => ClientError::Absent { path },
            ErrorKind::ConnectionRefused => ClientError::Dead { path },
            ErrorKind::PermissionDenied => ClientError::Forbidden { path },
            _ => ClientError::Io(e),
        }
    })?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).await.map_err(|_| ClientError::HungUp)?;
    Ok(BufReader::new(stream))
}

/// Asks the gateway behind the socket at `path` what is answered in one line.
///
/// # Errors
/// If there is no whole answer.
///
/// # Cancel safety
/// A dropped call may have been obeyed.
pub(crate) async fn fetch(path: &Path, request: &Request) -> Result<ControlResponse, ClientError> {
    let mut line = Vec::new();
    next_line(&mut send(path, request).await?, &mut line).await?;
    Ok(serde_json::from_slice(&line)?)
}

/// Reads the next line of an answer in place of what is in `line`.
///
/// # Errors
/// If it doesn't come whole.
pub(super) async fn next_line(
    lines: &mut BufReader<UnixStream>,
    line: &mut Vec<u8>,
) -> Result<(), ClientError> {
    line.clear();
    match lines.read_until(b'\n', line).await {
        Ok(1..) if line.ends_with(b"\n") => Ok(()),
        _ => Err(ClientError::HungUp),
    }
}

/// Asks the gateway behind the socket at `path` and writes its answer to `out`: tables for people, or
/// with `json` the lines as they came. Says whether it was done; if not, what it says is in `err`.
///
/// Nothing is written before all of it has arrived: a pager that stops must not keep the gateway waiting.
///
/// # Errors
/// If there is no whole answer.
///
/// # Cancel safety
/// A dropped call may have been obeyed.
pub async fn ask(
    path: &Path,
    request: &Request,
    json: bool,
    out: &mut impl Write,
    err: &mut impl Write,
) -> Result<bool, ClientError> {
    let mut lines = send(path, request).await?;
    let (mut line, mut sessions, mut all) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        next_line(&mut lines, &mut line).await?;
        let said: Value = serde_json::from_slice(&line)?;
        let is_last = said.get("ok").is_some();
        if json {
            all.extend_from_slice(&line);
        }
        if is_last {
            out.write_all(&all)?;
            let answer: ControlResponse = serde_json::from_value(said)?;
            if !json {
                tables::write(&answer, &sessions, out, err)?;
            }
            return Ok(answer.ok);
        }
        if !json && said.get("session").is_some() {
            sessions.push(serde_json::from_value::<SessionLine>(said)?.session);
        }
    }
}
