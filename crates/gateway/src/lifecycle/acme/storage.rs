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

/// Links are not followed.
const NO_LINK: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
/// A bit of the mode of directories.
const EVERY_USER_WRITES: u32 = 0o002;

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
            make(&part).and_then(|()| judge(&part)).map_err(|e| named(&part, &e))?;
        }
        Ok(Self { root: root.to_owned() })
    }

    /// Takes the lock; `None`: another process has it.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn lock(&self) -> io::Result<Option<Lock>> {
        let path = self.root.join("lock");
        let mut options = OpenOptions::new();
        options.write(true).mode(0o600).custom_flags(NO_LINK);
        let opened = match options.clone().create_new(true).open(&path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => options.open(&path),
            made => made.inspect(|file| adopt(file, &self.root)),
        };
        let file = opened.map_err(|e| named(&path, &e))?;
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

/// Makes a directory that only its owner can enter, unless it is there.
fn make(directory: &Path) -> io::Result<()> {
    if fs::symlink_metadata(directory).is_ok() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    if let Some(above) = directory.parent() {
        let made = OpenOptions::new().read(true).custom_flags(NO_LINK).open(directory)?;
        adopt(&made, above);
    }
    Ok(())
}

/// Who can write there could have certificates issued for names of this gateway. And a link must not lead root, who may try
/// the section, to where the gateway's user could not write.
fn judge(directory: &Path) -> io::Result<()> {
    let link = fs::symlink_metadata(directory)?;
    if link.is_symlink() && ![0, rustix::process::geteuid().as_raw()].contains(&link.uid()) {
        return Err(io::Error::other("this is a link that another user has made; remove it"));
    }
    if fs::metadata(directory)?.mode() & EVERY_USER_WRITES != 0 {
        return Err(io::Error::other("every user of this machine can write there; run `chmod o-w` on it"));
    }
    Ok(())
}

/// What root makes in a directory of the gateway's user belongs to that user, who has to read it. Only what was made just
/// now: that user could have put anything else in its place.
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

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn two_processes_do_not_order_at_the_same_time() {
        let directory = tempfile::TempDir::new().unwrap();
        let storages = [(); 2].map(|()| Storage::open(directory.path()).unwrap());
        let lock = storages[0].lock().unwrap().unwrap();
        assert!(storages[1].lock().unwrap().is_none());
        drop(lock);
        assert!(storages[1].lock().unwrap().is_some());
        let mode = fs::metadata(directory.path().join("lock")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn links_lead_nowhere_else() {
        let directory = tempfile::TempDir::new().unwrap();
        let target = directory.path().join("target");
        fs::write(&target, "of another").unwrap();
        let root = directory.path().join("acme");
        let storage = Storage::open(&root).unwrap();
        symlink(&target, root.join("lock")).unwrap();
        assert!(storage.lock().unwrap_err().to_string().contains("lock"), "a lock is no link");
        symlink(&target, root.join("accounts/one.json")).unwrap();
        storage.write("accounts/one.json", b"ours").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"of another");
        assert_eq!(fs::read(root.join("accounts/one.json")).unwrap(), b"ours");
        // The administrator may have put a part elsewhere.
        fs::remove_dir(root.join("orders")).unwrap();
        fs::create_dir(directory.path().join("elsewhere")).unwrap();
        symlink(directory.path().join("elsewhere"), root.join("orders")).unwrap();
        Storage::open(&root).unwrap();
    }

    #[test]
    fn a_storage_that_every_user_can_write_to_is_none() {
        let directory = tempfile::TempDir::new().unwrap();
        Storage::open(directory.path()).unwrap();
        for part in ["", "challenges"] {
            let path = directory.path().join(part);
            fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
            let refused = Storage::open(directory.path()).unwrap_err().to_string();
            assert!(
                refused.contains(part) && refused.contains("every user of this machine can write"),
                "{refused}"
            );
            fs::set_permissions(&path, Permissions::from_mode(0o770)).unwrap();
            Storage::open(directory.path()).unwrap();
        }
    }
}
