//! Files that change → a look at them, without a signal.
//!
//! inotify reports changes in directories; which directories those are is known by `places`, and
//! determined again at each look, since links and directories come and go. Where inotify can't (there is a limit
//! on watches, or a directory that may be passed through but not read), or where a look has seen less than
//! there is (no descriptor was left to open a file), [`Look::degraded`] says so, and the owner has to look from
//! time to time: [`FileScanner::look`] is cheap when nothing has changed.

use std::collections::HashMap;
use std::fmt;
use std::future::pending;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchDescriptor, WatchMask, Watches};

use crate::load::{CertificateProblem, Loaded, Plan, Warning, renew};
use crate::places::{Entries, Places};

/// Looks in a row at files that change under our eyes.
const LOOKS_MAX: usize = 3;

/// Room for many events of usual names, and for one of any.
const BUFFER_LEN: usize = 4096;

/// Hears of changes.
pub struct Watch {
    /// `None`: there is no inotify to be had.
    events: Option<EventStream<Vec<u8>>>,
    scanner: FileScanner,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("inotify", &self.events.is_some()).finish_non_exhaustive()
    }
}

/// Looks at the files, and registers them with [`Watch`]. Cheap to clone; for a thread
/// that may block.
#[derive(Clone)]
pub struct FileScanner {
    /// Or why there are none.
    watches: Result<Watches, String>,
    watched: Arc<Mutex<HashMap<WatchDescriptor, Entries>>>,
    /// At the last look.
    seen: Arc<Mutex<Places>>,
}

impl fmt::Debug for FileScanner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileScanner").field("watched", &lock(&self.watched).len()).finish_non_exhaustive()
    }
}

/// What there was to be seen.
#[derive(Debug)]
pub struct Look {
    /// The plan carried out again, as [`renew`] does it; `None` if nothing has changed.
    pub renewed: Option<Result<Loaded, Vec<CertificateProblem>>>,
    /// The files changed all the while: look again.
    pub restless: bool,
    /// Why the watch doesn't notice every change, or the end of what has hindered this look.
    pub degraded: Option<String>,
}

impl Watch {
    /// Watches nothing yet: the first look begins it. Within a runtime.
    #[must_use]
    pub fn new() -> Self {
        Self::of(Inotify::init().and_then(|inotify| {
            let watches = inotify.watches();
            Ok((inotify.into_event_stream(vec![0; BUFFER_LEN])?, watches))
        }))
    }

    fn of(inotify: io::Result<(EventStream<Vec<u8>>, Watches)>) -> Self {
        let (events, watches) = match inotify {
            Ok((events, watches)) => (Some(events), Ok(watches)),
            Err(e) => {
                (None, Err(format!("inotify can't be used: {e} (fs.inotify.max_user_instances is a limit)")))
            }
        };
        Self { events, scanner: FileScanner { watches, watched: Arc::default(), seen: Arc::default() } }
    }

    /// What looks.
    #[must_use]
    pub fn scanner(&self) -> FileScanner {
        self.scanner.clone()
    }

    /// Waits until something has happened to one of the files, or where they were.
    ///
    /// # Cancel safety
    /// Safe: what happens between two calls is kept.
    pub async fn changed(&mut self) {
        let Some(events) = &mut self.events else { return pending().await };
        while let Some(event) = events.next().await {
            // An error would be one again; a look shows what there is.
            if event.is_err() || event.is_ok_and(|event| matters(&lock(&self.scanner.watched), &event)) {
                return;
            }
        }
        pending::<()>().await;
    }
}

impl Default for Watch {
    fn default() -> Self {
        Self::new()
    }
}

fn matters(watched: &HashMap<WatchDescriptor, Entries>, event: &EventOwned) -> bool {
    if event.mask.contains(EventMask::Q_OVERFLOW) {
        return true;
    }
    match (watched.get(&event.wd), &event.name) {
        (Some(entries), Some(name)) => entries.matter(name),
        // The directory itself: deleted, moved, unmounted.
        (Some(_), None) => true,
        (None, _) => false,
    }
}

impl FileScanner {
    /// Looks at all files of `plan`, and watches where they are from now on; blocks. Unless `anyway`,
    /// files that stand as they did at the last look are not read.
    #[must_use]
    pub fn look(&self, plan: &Plan, previous: &Loaded, anyway: bool) -> Look {
        let mut places = Places::of(plan);
        let mut look = Look { renewed: None, restless: false, degraded: None };
        for _ in 0..LOOKS_MAX {
            // First the watch: what changes after it is heard of.
            look.degraded = self.watch(&places).err();
            if anyway || *lock(&self.seen) != places {
                let renewed = renew(plan, previous);
                let hindered = hindrance(&renewed);
                // What was not read is not seen.
                *lock(&self.seen) = if hindered.is_none() { places.clone() } else { Places::default() };
                look.degraded = look.degraded.or(hindered);
                look.renewed = Some(renewed);
            }
            let after = Places::of(plan);
            look.restless = after != places;
            if !look.restless {
                break;
            }
            places = after;
        }
        look
    }

    /// Watches these directories and no others.
    fn watch(&self, places: &Places) -> Result<(), String> {
        let mut watches = self.watches.clone()?;
        let mut result = Ok(());
        let mut old: Vec<WatchDescriptor> = lock(&self.watched).keys().cloned().collect();
        for (path, entries) in &places.directories {
            match watches.add(path, mask()) {
                Ok(watch) => {
                    old.retain(|other| *other != watch);
                    lock(&self.watched).insert(watch, entries.clone());
                }
                // It has gone, or was not a directory: the one above it reports that.
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(e) => result = Err(cannot_watch(path, &e)),
            }
        }
        for watch in old {
            lock(&self.watched).remove(&watch);
            let _ = watches.remove(watch); // one whose directory has gone has gone, too
        }
        result
    }
}

/// What has hindered a look, and may be over without a change that is heard of.
fn hindrance(renewed: &Result<Loaded, Vec<CertificateProblem>>) -> Option<String> {
    let Ok(loaded) = renewed else { return None };
    loaded.warnings.iter().find_map(|warning| match warning {
        Warning::File(problem) if problem.error.may_pass() => Some(problem.to_string()),
        _ => None,
    })
}

/// Every way to change what is in a directory.
fn mask() -> WatchMask {
    let entries = WatchMask::CREATE | WatchMask::DELETE | WatchMask::MOVE;
    let files = WatchMask::MODIFY | WatchMask::CLOSE_WRITE | WatchMask::ATTRIB;
    entries | files | WatchMask::DELETE_SELF | WatchMask::MOVE_SELF | WatchMask::ONLYDIR
}

fn cannot_watch(path: &Path, e: &io::Error) -> String {
    let hint = match e.kind() {
        io::ErrorKind::StorageFull => " (fs.inotify.max_user_watches is the limit)",
        _ => "",
    };
    format!("{}: {e}{hint}", path.display())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use support::pki::Pki;
    use support::soon;
    use tokio::time::timeout;

    use super::*;
    use crate::load::load;

    struct Rig {
        temp: tempfile::TempDir,
        pki: Pki,
        plan: Plan,
        served: Loaded,
    }

    fn rig() -> Rig {
        let (temp, pki) = (tempfile::TempDir::new().unwrap(), Pki::new());
        let certs = temp.path().join("certs");
        pki.issue(&["a.test"]).write(&certs, "a");
        let plan = Plan::directory(certs);
        let served = load(&plan, None).unwrap();
        Rig { temp, pki, plan, served }
    }

    impl Rig {
        fn look(&self, watch: &Watch, anyway: bool) -> Look {
            watch.scanner().look(&self.plan, &self.served, anyway)
        }
    }

    async fn is_silent(watch: &mut Watch) -> bool {
        timeout(Duration::from_millis(50), watch.changed()).await.is_err()
    }

    #[tokio::test]
    async fn a_change_that_matters_is_reported_and_nothing_else() {
        let rig = rig();
        let mut watch = Watch::new();
        let first = rig.look(&watch, false);
        assert!(first.degraded.is_none() && !first.restless && first.renewed.is_some());
        // Beside the directory anything may happen.
        fs::write(rig.temp.path().join("beside"), "x").unwrap();
        assert!(is_silent(&mut watch).await);
        // Something in it makes noise, but no difference.
        fs::write(rig.temp.path().join("certs/.hidden"), "x").unwrap();
        soon(watch.changed()).await;
        assert!(rig.look(&watch, false).renewed.is_none());
        assert!(rig.look(&watch, true).renewed.is_some());
        rig.pki.issue(&["b.test"]).write(&rig.temp.path().join("certs"), "b");
        soon(watch.changed()).await;
        let loaded = rig.look(&watch, false).renewed.unwrap().unwrap();
        assert_eq!(loaded.set.certificates().len(), 2);
        // The directory goes, and another one comes.
        fs::rename(rig.temp.path().join("certs"), rig.temp.path().join("away")).unwrap();
        soon(watch.changed()).await;
        assert!(rig.look(&watch, false).renewed.unwrap().is_ok(), "kept");
        while !is_silent(&mut watch).await {}
        fs::write(rig.temp.path().join("away/a.key"), "x").unwrap();
        assert!(is_silent(&mut watch).await, "not watched any more");
        rig.pki.issue(&["c.test"]).write(&rig.temp.path().join("certs"), "c");
        soon(watch.changed()).await;
        assert!(rig.look(&watch, false).renewed.unwrap().unwrap().set.lookup("c.test").is_some());
    }

    #[tokio::test]
    async fn a_file_where_a_directory_should_be_is_no_reason_to_be_blind() {
        let mut rig = rig();
        rig.plan.directory = Some(rig.temp.path().join("certs/a.crt/below"));
        assert_eq!(rig.look(&Watch::new(), false).degraded, None);
    }

    #[tokio::test]
    async fn what_could_not_be_read_is_not_seen() {
        let rig = rig();
        let watch = Watch::new();
        let file = rig.temp.path().join("certs/b.pem");
        std::os::unix::fs::symlink("/proc/self/mem", &file).unwrap(); // an error that reads like a disk's
        for _ in 0..2 {
            let look = rig.look(&watch, false);
            assert!(look.renewed.unwrap().is_ok());
            let why = look.degraded.unwrap();
            assert!(why.contains("b.pem: can't be read: Input/output error"), "{why}");
        }
        fs::remove_file(file).unwrap();
        let look = rig.look(&watch, false);
        assert!(look.renewed.is_some() && look.degraded.is_none());
        assert!(rig.look(&watch, false).renewed.is_none());
        // What is forbidden, or no file at all, is no such error.
        fs::create_dir(rig.temp.path().join("certs/c.pem")).unwrap();
        std::os::unix::fs::symlink("..", rig.temp.path().join("certs/up")).unwrap();
        assert_eq!(rig.look(&watch, false).degraded, None);
    }

    #[tokio::test]
    async fn without_inotify_who_looks_still_sees() {
        let rig = rig();
        let mut watch = Watch::of(Err(io::Error::other("too many watches")));
        let first = rig.look(&watch, false);
        assert!(first.degraded.unwrap().contains("too many watches") && first.renewed.is_some());
        assert!(rig.look(&watch, false).renewed.is_none());
        rig.pki.issue(&["b.test"]).write(&rig.temp.path().join("certs"), "b");
        assert!(rig.look(&watch, false).renewed.is_some());
        assert!(is_silent(&mut watch).await);
    }
}
