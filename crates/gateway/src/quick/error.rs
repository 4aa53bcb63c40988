//! Why one command is not enough, and what to do.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::certificate::CertificateError;

/// Why one command is not enough.
#[derive(Debug, thiserror::Error)]
pub enum QuickError {
    /// There is no certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The directory of the files.
    #[error("{}: {error}; give a directory whose files are to be served", directory.display())]
    Files {
        /// As it was given.
        directory: PathBuf,
        /// The operating system's error.
        error: io::Error,
    },
    /// The file of `--acme-ca`.
    #[error("--acme-ca: {}: {error}", file.display())]
    Authority {
        /// As it was given.
        file: PathBuf,
        /// The operating system's error.
        error: io::Error,
    },
    /// The address.
    #[error("can't listen on {address}: {error}; {}", listen_hint(error, *is_public))]
    Listen {
        /// It.
        address: SocketAddr,
        /// The operating system's error.
        error: io::Error,
        /// Other machines are to find it.
        is_public: bool,
    },
    /// What requests would be passed on to.
    #[error("{backend}: {what}")]
    Backend {
        /// As it was understood.
        backend: String,
        /// What is wrong, and what to do.
        what: String,
    },
    /// `--write` never replaces a file.
    #[error("{0} exists already: run by it (`wssgate {0}`), or write another file")]
    Exists(String),
    /// `--write`.
    #[error("{} can't be written: {error}", file.display())]
    Write {
        /// As it was given.
        file: PathBuf,
        /// The operating system's error.
        error: io::Error,
    },
}

fn listen_hint(error: &io::Error, is_public: bool) -> &'static str {
    match (error.kind(), is_public) {
        (io::ErrorKind::AddrInUse, false) => {
            "another program listens there already (`ss -ltnp` shows which one); choose another port with --listen, or \
             leave --listen out for the next free one"
        }
        (io::ErrorKind::AddrInUse, true) => {
            "another program listens there already (`ss -ltnp` shows which one): stop it, or choose with --listen a port \
             that connections to port 443 are forwarded to"
        }
        (io::ErrorKind::PermissionDenied, false) => {
            "ports below 1024 need root or CAP_NET_BIND_SERVICE (`setcap cap_net_bind_service=+ep` on the program); or \
             choose a higher one with --listen"
        }
        (io::ErrorKind::PermissionDenied, true) => {
            "ports below 1024 need root or CAP_NET_BIND_SERVICE (`setcap cap_net_bind_service=+ep` on the program); or \
             choose with --listen a higher one that connections to port 443 are forwarded to"
        }
        (io::ErrorKind::AddrNotAvailable, false) => {
            "this machine has no such address; leave --listen out for localhost"
        }
        (io::ErrorKind::AddrNotAvailable, true) => {
            "this machine has no such address; leave --listen out for all that it has"
        }
        _ => "choose another address with --listen",
    }
}
