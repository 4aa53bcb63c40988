//! The control socket: how an operator on this machine sees and steers the running gateway.
//!
//! Requests and answers are JSON, one object a line; [`protocol`] says what is in them. [`socket`] is
//! the file system's part, [`server`] the gateway's, with [`mod@ask`] and [`mod@status`] for what it says, [`client`] that of
//! `wssgate status` and its siblings.

pub(crate) mod ask;
pub mod client;
pub mod protocol;
pub mod server;
pub mod socket;
pub(crate) mod status;
pub mod tables;
pub mod tap;
mod targets;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::config::{CONTROL_SOCKET, Config};

/// The socket in systemd's `RUNTIME_DIRECTORY`, which lists directories with colons between them.
#[must_use]
pub fn in_runtime_directory(variable: Option<OsString>) -> Option<PathBuf> {
    let first = variable?.to_str()?.split(':').next()?.to_owned();
    Path::new(&first).is_absolute().then(|| Path::new(&first).join("control.sock"))
}

/// Where the socket of the gateway with this configuration is, as far as can be known from here: what
/// else is wrong with the file is the gateway's to say.
#[must_use]
pub fn find(config: Option<&Path>) -> PathBuf {
    let said = config.and_then(|file| Config::read(file).0.control).map(|socket| socket.path);
    said.or_else(|| in_runtime_directory(std::env::var_os("RUNTIME_DIRECTORY")))
        .unwrap_or_else(|| CONTROL_SOCKET.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtime_directory() {
        let path = |variable: &str| in_runtime_directory(Some(variable.into()));
        assert_eq!(path("/run/wssgate"), Some(CONTROL_SOCKET.into()));
        assert_eq!(path("/run/a:/run/b"), Some("/run/a/control.sock".into()));
        assert_eq!((path(""), path("relative"), in_runtime_directory(None)), (None, None, None));
    }
}
