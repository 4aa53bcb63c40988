//! Opening files and reading them, without ever blocking a worker.
//!
//! A worker takes only what the kernel has in memory (`RESOLVE_CACHED` of openat2(2), `RWF_NOWAIT` of preadv2(2)); the
//! rest is done on a blocking thread. No name leads out of the directory, by symbolic links neither
//! (`RESOLVE_BENEATH`); only regular files are read, and opening a FIFO waits for nothing (`O_NONBLOCK`).

use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use frame_core::clock::Clock;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::net::clock::Coarse;
use crate::request::file::kept::{self, Stamp};
use crate::request::file::opened::{File, Version};
use crate::site::files::{Files, OpenedDirectory};

/// What is read at once: four DATA frames of HTTP/2, each of which fits into a TLS record with its head.
pub(crate) const CHUNK_LEN: usize = 4 * (16 * 1024 - 9);
/// Free buffers a thread keeps.
const FREE_MAX: usize = 32;
/// How long an opened directory is used: so long a directory that was replaced by another one is still served.
const DIRECTORY_TIME: Duration = Duration::from_secs(1);

/// Blocking threads that wait for disks, of all workers together: the others are for looking up names of servers.
static DISK: Semaphore = Semaphore::const_new(64);

/// What a name stands for.
#[derive(Debug)]
pub(crate) enum Found {
    /// A regular file.
    File(File),
    /// A directory.
    Directory(OwnedFd),
}

/// Opens what `name` stands for in the directory.
///
/// # Errors
/// [`Errno::NOENT`] and others that mean that there is no such file for clients; or what is wrong with the system.
pub(crate) async fn open(files: &Arc<Files>, name: &OsStr) -> Result<Found, Errno> {
    if let Some(file) = kept::get(files, name) {
        return Ok(Found::File(file));
    }
    let directory = match opened(files) {
        Some(directory) => directory,
        None => open_directory(files).await?,
    };
    let (found, stamp) = match open_in(&directory, name, ResolveFlags::CACHED) {
        // EINVAL: the system is older than the flag.
        Err(Errno::AGAIN | Errno::INVAL) => {
            let name = name.to_owned();
            blocking(move || open_in(&directory, &name, ResolveFlags::empty())).await??
        }
        found => found?,
    };
    if let Found::File(file) = &found {
        kept::put(files, name, file, stamp);
    }
    Ok(found)
}

fn open_in(directory: &OpenedDirectory, name: &OsStr, cached: ResolveFlags) -> Result<(Found, Stamp), Errno> {
    let name = if name.is_empty() { OsStr::new(".") } else { name };
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | cached;
    let file = openat2(&directory.directory, name, flags, Mode::empty(), resolve)?;
    let stat = fstat(&file)?;
    let found = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            Found::File(File { file: Arc::new(file), version: Version::of(&stat), content: None })
        }
        FileType::Directory => Found::Directory(file),
        _ => return Err(Errno::NOENT), // a FIFO or a device
    };
    Ok((found, Stamp::of(&stat)))
}

/// The directory, if it was opened a moment ago.
fn opened(files: &Files) -> Option<Arc<OpenedDirectory>> {
    let opened = files.opened.load_full()?;
    (Coarse.now().saturating_sub(opened.at) < DIRECTORY_TIME).then_some(opened)
}

async fn open_directory(files: &Arc<Files>) -> Result<Arc<OpenedDirectory>, Errno> {
    let files = files.clone();
    let directory = match open_path(&files, ResolveFlags::CACHED) {
        Err(Errno::AGAIN | Errno::INVAL) => {
            let files = files.clone();
            blocking(move || open_path(&files, ResolveFlags::empty())).await??
        }
        directory => directory?,
    };
    let opened = Arc::new(OpenedDirectory { directory, at: Coarse.now() });
    files.opened.store(Some(opened.clone()));
    Ok(opened)
}

fn open_path(files: &Files, cached: ResolveFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(CWD, &files.directory, flags, Mode::empty(), cached)
}

/// Does something that may wait for a disk.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Errno> {
    let _permit = DISK.acquire().await.map_err(|_| Errno::CANCELED)?;
    spawn_blocking(work).await.map_err(|_| Errno::CANCELED) // the worker ends
}

/// Reads at most `len` bytes at `offset`, of what is in memory.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] if that is not in memory.
pub(crate) fn read_cached(file: &OwnedFd, offset: u64, len: usize) -> io::Result<Bytes> {
    match read(file, offset, len, ReadWriteFlags::NOWAIT) {
        // The file system has no way to say what is in memory.
        Err(Errno::OPNOTSUPP | Errno::INVAL) => Err(io::ErrorKind::WouldBlock.into()),
        read => Ok(read?),
    }
}

/// Reads at most `len` bytes at `offset`, on a blocking thread.
pub(crate) async fn read_from_disk(file: Arc<OwnedFd>, offset: u64, len: usize) -> io::Result<Bytes> {
    Ok(blocking(move || read(&file, offset, len, ReadWriteFlags::empty())).await??)
}

fn read(file: impl AsFd, offset: u64, len: usize, flags: ReadWriteFlags) -> Result<Bytes, Errno> {
    let mut buffer = Chunk::take(len);
    loop {
        match preadv2(&file, &mut [IoSliceMut::new(&mut buffer.bytes[..len])], offset, flags) {
            Err(Errno::INTR) => {}
            Ok(read) => {
                buffer.len = read;
                return Ok(Bytes::from_owner(buffer));
            }
            Err(e) => return Err(e),
        }
    }
}

/// The file is still what it was.
pub(crate) fn is_unchanged(file: &OwnedFd, version: Version) -> bool {
    fstat(file).is_ok_and(|stat| Version::of(&stat) == version)
}

thread_local! {
    static FREE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer. One of [`CHUNK_LEN`] goes back to the thread's free ones, so that it needn't be cleared again.
struct Chunk {
    bytes: Box<[u8]>,
    len: usize,
}

impl Chunk {
    fn take(len: usize) -> Self {
        if !(CHUNK_LEN / 4 + 1..=CHUNK_LEN).contains(&len) {
            return Self { bytes: vec![0; len].into_boxed_slice(), len: 0 };
        }
        let free = FREE.with_borrow_mut(Vec::pop);
        Self { bytes: free.unwrap_or_else(|| vec![0; CHUNK_LEN].into_boxed_slice()), len: 0 }
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if self.bytes.len() != CHUNK_LEN {
            return;
        }
        let bytes = std::mem::take(&mut self.bytes);
        // A thread that is ending does not keep it.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < FREE_MAX {
                free.push(bytes);
            }
        });
    }
}

/// The name of a file beside another one: `a/b.html` and `.br`.
pub(crate) fn beside(name: &OsStr, extension: &str) -> OsString {
    let mut beside = name.to_owned();
    beside.push(extension);
    beside
}
