//! Unix sockets of servers that a configuration names.

use std::fs::metadata;
use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// What is wrong with a socket, and what to do; `None`: it is there, or this user can't see it. Blocks.
#[must_use]
pub(crate) fn problem(path: &Path) -> Option<String> {
    let path_shown = path.display();
    match metadata(path) {
        Ok(found) if found.file_type().is_socket() => None,
        Ok(_) => Some(format!("{path_shown} is no socket; write the path that the server listens on")),
        Err(e) if e.kind() == ErrorKind::PermissionDenied => None, // the gateway may run as another user
        Err(e) if e.kind() == ErrorKind::NotFound => Some(format!(
            "there is no socket {path_shown} now; start the server that listens on it, or correct the path"
        )),
        Err(e) => Some(format!("the socket {path_shown} can't be looked at: {e}")),
    }
}
