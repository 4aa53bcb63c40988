//! What outlives an order, and a process: accounts, certificates, open orders, what failed; on a disk that several
//! gateways may share. Everything blocks.
//!
//! Only the owner can enter the directory. Files are replaced as a whole, or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::spawn_blocking;

/// The parts of the storage. A process that is not the gateway finds its way around by their names.
const PARTS: [&str; 7] =
    ["accounts", "certificates", "challenges", "demanded", "on-demand", "orders", "state"];

/// What an order may write: an account, the order, answers, and a chain with its key, twice. In bytes.
const ROOM: usize = 32 * 1024;

/// The storage of `[acme]`.
#[derive(Debug, Clone)]
pub(super) struct Storage {
    root: PathBuf,
}

/// As long as it is there, no other process orders.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Storage {
    /// Makes what is missing of it.
    ///
    /// # Errors
    /// The system's, with the directory that can't be made.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        for part in [root.to_owned()].into_iter().chain(PARTS.map(|part| root.join(part))) {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&part);
            made.map_err(|e| named(&part, &e))?;
            if let (Some(above), Ok(opened)) = (part.parent(), File::open(&part)) {
                adopt(&opened, above);
            }
        }
        Ok(Self { root: root.to_owned() })
    }

    /// Takes the lock; `None`: another process has it.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn lock(&self) -> io::Result<Option<Lock>> {
        let path = self.root.join("lock");
        let open = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = open.map_err(|e| named(&path, &e))?;
        adopt(&file, &self.root);
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(named(&path, &e.into())),
        }
    }

    /// What is kept under this name; `None`: nothing, or nothing that can be understood.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn read<T: DeserializeOwned>(&self, name: &str) -> io::Result<Option<T>> {
        let path = self.root.join(name);
        match fs::read(&path) {
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(named(&path, &e)),
        }
    }

    /// Keeps a value under this name.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn keep<T: Serialize>(&self, name: &str, value: &T) -> io::Result<()> {
        self.write(name, &serde_json::to_vec_pretty(value)?)
    }

    /// Puts a file in place of the one that has the name.
    ///
    /// # Errors
    /// The system's; then the old one is still there.
    pub(super) fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let path = self.root.join(name);
        let write = || {
            let directory = path.parent().unwrap_or(&self.root);
            let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(directory)?; // mode 0600
            file.write_all(content)?;
            adopt(file.as_file(), directory);
            file.as_file().sync_all()?;
            file.persist(&path)?;
            File::open(directory)?.sync_all()
        };
        write().map_err(|e| named(&path, &e))
    }

    /// Sees that an order can be kept, before an authority has done anything for it: what it has issued must not be lost.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn has_room(&self) -> io::Result<()> {
        let fill = || {
            let mut file = tempfile::tempfile_in(self.root.join("orders"))?;
            file.write_all(&[0; ROOM])?;
            file.sync_all()
        };
        fill().map_err(|e| named(&self.root, &e))
    }

    /// The names of the files in a part of it, in no order; without those that are being written.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn list(&self, part: &str) -> io::Result<Vec<String>> {
        let path = self.root.join(part);
        let entries = fs::read_dir(&path).map_err(|e| named(&path, &e))?;
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        Ok(names.filter(|name| !name.starts_with('.')).collect())
    }

    /// A file is there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.root.join(name).exists()
    }

    /// When a file was written; `None`: it is not there.
    pub(super) fn written_at(&self, name: &str) -> Option<SystemTime> {
        fs::metadata(self.root.join(name)).and_then(|found| found.modified()).ok()
    }

    /// Where a file is.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Removes a file, if it is there.
    pub(super) fn remove(&self, name: &str) {
        let _ = fs::remove_file(self.root.join(name));
    }
}

/// Removes a file, if it is there, on a thread that may block.
pub(super) async fn remove(storage: &Storage, name: String) {
    let removing = blocking(storage, move |storage| {
        storage.remove(&name);
        Ok(())
    });
    let _ = removing.await; // it fails only where the process ends
}

/// Uses the storage on a thread that may block.
///
/// # Errors
/// What the work says.
pub(super) async fn blocking<T: Send + 'static>(
    storage: &Storage,
    work: impl FnOnce(&Storage) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let storage = storage.clone();
    spawn_blocking(move || work(&storage)).await.map_err(io::Error::other)?
}

/// What root makes in a directory of the gateway's user belongs to that user, who has to read it.
fn adopt(file: &File, directory: &Path) {
    if let (Ok(owner), Ok(own)) = (fs::metadata(directory), file.metadata())
        && own.uid() == 0
        && owner.uid() != 0
    {
        let _ = fchown(file, Some(owner.uid()), Some(owner.gid()));
    }
}

/// With the path, and what to do.
fn named(path: &Path, e: &io::Error) -> io::Error {
    use io::ErrorKind as Kind;
    let advice = match e.kind() {
        Kind::StorageFull | Kind::QuotaExceeded => "; make room there: until then nothing is ordered",
        Kind::ReadOnlyFilesystem | Kind::PermissionDenied => {
            "; the gateway's user has to be able to write there"
        }
        _ => "",
    };
    io::Error::new(e.kind(), format!("{}: {e}{advice}", path.display()))
}
