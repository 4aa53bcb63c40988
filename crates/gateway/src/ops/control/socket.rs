//! The control socket's place in the file system.
//!
//! A socket is made in a private directory beside its path and moved there with mode 0600, so no other user
//! can ever open it, and the next process replaces it in one step. A process that ends removes the
//! path only if the socket there is still its own.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};

/// Why there can't be a control socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process answers there.
    #[error(
        "another process{} listens on {}; if that is a gateway, give this one a socket of its own",
        pid.map(|pid| format!(" ({pid})")).unwrap_or_default(), path.display()
    )]
    Taken {
        /// The path.
        path: PathBuf,
        /// Its process id, if it can be known.
        pid: Option<i32>,
    },
    /// It would be overwritten.
    #[error("{} is there already and is not a socket; choose another path, or remove it", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The operating system's error.
    #[error("can't create the socket {}: {error}{}", path.display(), hint(error))]
    Io {
        /// The path.
        path: PathBuf,
        /// The operating system's error.
        error: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; its directory must exist (with systemd: RuntimeDirectory=wssgate)",
        io::ErrorKind::PermissionDenied => "; its directory must belong to the gateway's user",
        io::ErrorKind::InvalidInput => "; the path must be shorter than 108 bytes",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free some space there, or choose another path"
        }
        _ => "",
    }
}

/// A listening socket's hold on its path: when it is dropped, so is the path, unless another socket
/// has taken it meanwhile.
#[derive(Debug)]
pub struct SocketClaim {
    path: PathBuf,
    /// Device and inode: no other socket has both as long as this one is open.
    identity: (u64, u64),
    /// The user id of the socket's owner.
    pub owner: u32,
}

/// A socket that listens, and waits to be moved to its path.
#[derive(Debug)]
pub struct Prepared {
    listener: UnixListener,
    private: TempDir,
    path: PathBuf,
}

/// Checks that no process listens on `path`. What a dead process has left there is fine, and so is one that
/// is about to leave. Within a runtime.
///
/// # Errors
/// If one does, or if what is there is not a socket.
pub fn check_free(path: &Path, leaving: Option<u32>) -> Result<(), SocketError> {
    let failed = |error| SocketError::Io { path: path.to_owned(), error };
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(SocketError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed(e)),
    }
    let taken = |pid: Option<i32>| match pid {
        Some(pid) if leaving == Some(pid.unsigned_abs()) => Ok(()),
        _ => Err(SocketError::Taken { path: path.to_owned(), pid }),
    };
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    match socket.connect(&SockAddr::unix(path).map_err(failed)?) {
        Ok(()) => {
            let stream = UnixStream::from_std(socket.into()).and_then(|stream| stream.peer_cred());
            taken(stream.ok().and_then(|credentials| credentials.pid()))
        }
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => taken(None), // too busy to accept
        Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => Ok(()),
        Err(e) => Err(failed(e)),
    }
}

/// Listens on `path`, for clients of every user.
///
/// # Errors
/// If another process listens there, or if what is there is not a socket. Within a runtime.
pub fn listen_for_all(path: &Path) -> Result<(StdListener, SocketClaim), SocketError> {
    check_free(path, None)?;
    let failed = |error| SocketError::Io { path: path.to_owned(), error };
    let (listener, claim) = prepare(path, 0o666).map_err(failed)?.claim()?;
    Ok((listener.into_std().map_err(failed)?, claim))
}

impl Prepared {
    /// Listens beside `path`, where no client finds it yet. Within a runtime.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn new(path: &Path) -> Result<Self, SocketError> {
        prepare(path, 0o600).map_err(|error| SocketError::Io { path: path.to_owned(), error })
    }

    /// The path that it will take.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the path, in place of whatever was there.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn claim(self) -> Result<(UnixListener, SocketClaim), SocketError> {
        let Self { listener, private, path } = self;
        match take(&private.path().join(NAME), &path) {
            Ok((identity, owner)) => Ok((listener, SocketClaim { path, identity, owner })),
            Err(error) => Err(SocketError::Io { path, error }),
        }
    }
}

/// In the private directory.
const NAME: &str = "s";

fn prepare(path: &Path, mode: u32) -> io::Result<Prepared> {
    SockAddr::unix(path)?; // clients can't connect to one that is too long
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let private = tempfile::Builder::new().prefix(".").rand_bytes(6).tempdir_in(parent)?; // mode 0700
    let made = private.path().join(NAME);
    let listener = StdListener::bind(&made)?;
    listener.set_nonblocking(true)?;
    fs::set_permissions(&made, Permissions::from_mode(mode))?;
    Ok(Prepared { listener: UnixListener::from_std(listener)?, private, path: path.to_owned() })
}

/// Returns what the socket is known by, and whose it is.
fn take(made: &Path, path: &Path) -> io::Result<((u64, u64), u32)> {
    let metadata = fs::symlink_metadata(made)?;
    fs::rename(made, path)?;
    Ok(((metadata.dev(), metadata.ino()), metadata.uid()))
}

impl SocketClaim {
    /// Claims the socket that another process has left at its path; `None`: there is none.
    #[must_use]
    pub fn adopt(path: &Path) -> Option<Self> {
        let found = fs::symlink_metadata(path).ok().filter(|found| found.file_type().is_socket())?;
        Some(Self { path: path.to_owned(), identity: (found.dev(), found.ino()), owner: found.uid() })
    }

    /// Leaves the path to another process, which listens on the same socket.
    pub fn release(mut self) {
        self.path = PathBuf::new();
    }

    /// The socket's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The socket at the path is still this one.
    #[must_use]
    pub fn holds(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.identity)
    }
}

impl Drop for SocketClaim {
    fn drop(&mut self) {
        if self.holds() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_private_and_goes_with_its_owner() {
        let temp = tempfile::TempDir::new().unwrap();
        let path = temp.path().join("control.sock");
        check_free(&path, None).unwrap();
        let (listener, claim) = Prepared::new(&path).unwrap().claim().unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1, "nothing else is left behind");
        assert!(claim.holds());
        match check_free(&path, None).unwrap_err() {
            SocketError::Taken { pid: Some(pid), .. } => assert_eq!(pid.unsigned_abs(), std::process::id()),
            e => panic!("{e}"),
        }
        check_free(&path, Some(std::process::id())).unwrap(); // a process that is about to end is no obstacle
        drop((claim, listener));
        assert!(!path.exists());
        drop(Prepared::new(&path).unwrap());
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0, "nothing is left of what never took it");
    }

    #[tokio::test]
    async fn what_a_dead_process_left_is_replaced_and_anything_else_is_not() {
        let temp = tempfile::TempDir::new().unwrap();
        let path = temp.path().join("control.sock");
        drop(StdListener::bind(&path).unwrap()); // the file stays
        check_free(&path, None).unwrap();
        let (_listener, claim) = Prepared::new(&path).unwrap().claim().unwrap();
        assert!(claim.holds() && UnixStream::connect(&path).await.is_ok());
        drop(claim);
        fs::write(&path, "a file").unwrap();
        assert!(matches!(check_free(&path, None), Err(SocketError::NotASocket { .. })));
        let error = Prepared::new(&temp.path().join("no/such/control.sock")).unwrap_err().to_string();
        assert!(error.contains("its directory must exist"), "{error}");
        let error = Prepared::new(&temp.path().join("x".repeat(120))).unwrap_err().to_string();
        assert!(error.contains("shorter than 108 bytes"), "{error}");
    }

    #[tokio::test]
    async fn a_path_that_another_has_taken_is_left_alone() {
        let temp = tempfile::TempDir::new().unwrap();
        let path = temp.path().join("control.sock");
        let (_old_listener, old) = Prepared::new(&path).unwrap().claim().unwrap();
        let (new_listener, new) = Prepared::new(&path).unwrap().claim().unwrap();
        assert!(!old.holds() && new.holds());
        drop(old);
        let client = UnixStream::connect(&path).await.unwrap();
        new_listener.accept().await.unwrap();
        drop((client, new));
        assert!(!path.exists());
    }
}
