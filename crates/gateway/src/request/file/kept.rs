//! Files that this thread has opened a moment ago, so that one that is asked for again and again isn't opened each time.
//!
//! One fstat(2) says whether such a file is still what it was: who writes to it, replaces it by another one of its name,
//! or removes it, changes its times or the number of its links. Only a directory or a symbolic link on the way to it
//! could lead elsewhere meanwhile, so a file is opened again after [`KEEP_TIME`].

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use frame_core::clock::Clock;
use rustix::fs::{Stat, fstat};

use crate::net::clock::Coarse;
use crate::request::file::opened::{File, Version};
use crate::site::files::Files;

/// How long an opened file is used.
const KEEP_TIME: Duration = Duration::from_secs(1);
/// How many files a thread keeps. One with more that are asked for within a second opens the others each time.
const KEPT_MAX: usize = 128;
/// The longest file whose bytes are kept, too: 1 MiB of a thread in all.
const CONTENT_LEN_MAX: usize = 8 * 1024;
/// A file that was written within this time may be written again without another time (RFC 9110 §8.8.2.2).
const SETTLED_TIME: Duration = Duration::from_secs(2);

thread_local! {
    /// By directory and name. A directory is held, so that no other one can have its address.
    static KEPT: RefCell<Directories> = RefCell::default();
}

type Directories = HashMap<*const Files, (Arc<Files>, HashMap<OsString, Kept>)>;

struct Kept {
    file: File,
    stamp: Stamp,
    /// On the monotonic clock.
    opened_at: Duration,
}

/// What changes when a file does, or its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    version: Version,
    changed: (i64, u64),
    links: u64,
}

impl Stamp {
    /// As fstat(2) says it.
    pub(super) fn of(stat: &Stat) -> Self {
        let changed = (stat.st_ctime, stat.st_ctime_nsec);
        Self { version: Version::of(stat), changed, links: stat.st_nlink }
    }
}

/// A file that was opened a moment ago and is still the same.
pub(super) fn get(files: &Arc<Files>, name: &OsStr) -> Option<File> {
    KEPT.with_borrow(|kept| {
        let kept = kept.get(&Arc::as_ptr(files))?.1.get(name)?;
        let is_fresh = Coarse.now().saturating_sub(kept.opened_at) < KEEP_TIME;
        let is_same = || fstat(&kept.file.file).is_ok_and(|stat| Stamp::of(&stat) == kept.stamp);
        (is_fresh && is_same()).then(|| kept.file.clone())
    })
}

/// Keeps a file that was just opened.
pub(super) fn put(files: &Arc<Files>, name: &OsStr, file: &File, stamp: Stamp) {
    KEPT.with_borrow_mut(|kept| {
        if kept.values().map(|(_, names)| names.len()).sum::<usize>() >= KEPT_MAX {
            forget(kept);
        }
        let others: usize = kept.values().map(|(_, names)| names.len()).sum();
        let (_, names) = kept.entry(Arc::as_ptr(files)).or_insert_with(|| (files.clone(), HashMap::new()));
        if others < KEPT_MAX || names.contains_key(name) {
            names.insert(name.to_owned(), Kept { file: file.clone(), stamp, opened_at: Coarse.now() });
        }
    });
}

/// Keeps the bytes of a short file, too.
pub(crate) fn put_content(files: &Arc<Files>, name: &OsStr, file: &File, content: &Bytes, now: SystemTime) {
    let is_settled = now.duration_since(file.version.modified_at()).is_ok_and(|age| age > SETTLED_TIME);
    if content.len() > CONTENT_LEN_MAX || !is_settled {
        return;
    }
    KEPT.with_borrow_mut(|kept| {
        let kept = kept.get_mut(&Arc::as_ptr(files)).and_then(|(_, names)| names.get_mut(name));
        if let Some(kept) = kept
            && Arc::ptr_eq(&kept.file.file, &file.file)
        {
            kept.file.content = Some(content.clone());
        }
    });
}

/// Closes files that are not used any more.
pub(crate) fn prune() {
    KEPT.with_borrow_mut(forget);
}

fn forget(kept: &mut Directories) {
    let now = Coarse.now();
    for (_, names) in kept.values_mut() {
        names.retain(|_, kept| now.saturating_sub(kept.opened_at) < KEEP_TIME);
    }
    kept.retain(|_, (_, names)| !names.is_empty());
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::request::file::open::{Found, open};

    async fn opened(files: &Arc<Files>, name: &str) -> Option<File> {
        match open(files, name.as_ref()).await {
            Ok(Found::File(file)) => Some(file),
            _ => None,
        }
    }

    fn write_old(path: &Path, content: &str) {
        fs::write(path, content).unwrap();
        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        fs::File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
    }

    #[tokio::test]
    async fn a_file_is_opened_once_until_it_changes() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("f");
        let files = Arc::new(Files::new(directory.path().to_owned()));
        for change in ["written", "replaced", "renamed", "removed", "closed to us"] {
            let _ = fs::remove_file(&path);
            write_old(&path, "before");
            let first = opened(&files, "f").await.unwrap();
            let second = opened(&files, "f").await.unwrap();
            assert!(Arc::ptr_eq(&first.file, &second.file), "{change}");
            match change {
                "written" => write_old(&path, "other"),
                "replaced" => {
                    write_old(&directory.path().join("new"), "before");
                    fs::rename(directory.path().join("new"), &path).unwrap();
                }
                "renamed" => fs::rename(&path, directory.path().join("old")).unwrap(),
                "removed" => fs::remove_file(&path).unwrap(),
                _ => fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap(),
            }
            let third = opened(&files, "f").await;
            let is_there = !matches!(change, "renamed" | "removed");
            assert_eq!(third.is_some(), is_there, "{change}");
            assert!(third.is_none_or(|third| !Arc::ptr_eq(&first.file, &third.file)), "{change}");
        }
        prune(); // what was used a moment ago stays
        assert!(get(&files, "f".as_ref()).is_some());
    }

    #[tokio::test]
    async fn bytes_are_kept_of_short_files_that_were_not_just_written() {
        let directory = tempfile::TempDir::new().unwrap();
        let files = Arc::new(Files::new(directory.path().to_owned()));
        write_old(&directory.path().join("short"), "short");
        write_old(&directory.path().join("long"), &"x".repeat(CONTENT_LEN_MAX + 1));
        fs::write(directory.path().join("new"), "new").unwrap();
        for (name, is_kept) in [("short", true), ("long", false), ("new", false)] {
            let file = opened(&files, name).await.unwrap();
            assert!(file.content.is_none());
            let content = Bytes::from(fs::read(directory.path().join(name)).unwrap());
            put_content(&files, name.as_ref(), &file, &content, SystemTime::now());
            let again = opened(&files, name).await.unwrap();
            assert_eq!(again.content, is_kept.then_some(content), "{name}");
        }
    }

    #[tokio::test]
    async fn no_more_files_are_kept_than_there_is_room_for() {
        let directory = tempfile::TempDir::new().unwrap();
        let files = Arc::new(Files::new(directory.path().to_owned()));
        let other = Arc::new(Files::new(directory.path().to_owned()));
        for i in 0..2 * KEPT_MAX {
            let name = format!("f{i}");
            fs::write(directory.path().join(&name), "x").unwrap();
            opened(if i % 2 == 0 { &files } else { &other }, &name).await.unwrap();
        }
        let count = KEPT.with_borrow(|kept| kept.values().map(|(_, names)| names.len()).sum::<usize>());
        assert_eq!(count, KEPT_MAX);
    }
}
