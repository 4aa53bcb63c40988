//! Certificates that change without a signal: the change is noticed, the files are read, checked and swapped in.
//! Nothing else is read again, in particular not the configuration.
//!
//! A look that shows only additions and replacements is believed at once. One that shows something
//! missing or broken is not: it may be in the middle of being written. It counts if it is still so after
//! a while; until then what was served is served.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tls_acceptor::{Certificates, Loaded, Look, Plan, Watch};
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

use super::messages::shown;

/// Without changes for so long, the writer has finished.
const QUIET: Duration = Duration::from_millis(100);
/// One look for so many news at most; some directories never are quiet.
const QUIET_MAX: Duration = Duration::from_millis(500);
/// What is missing or broken has so long to become good.
const GRACE: Duration = Duration::from_secs(1);
/// Between looks where the watch doesn't hear of every change.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The watch over the certificates in use.
pub(super) struct Renewal {
    /// `None`: the files are not watched.
    watch: Option<Watch>,
    plan: Arc<Plan>,
    looking: Option<JoinHandle<Look>>,
    next_look: Option<Pending>,
    /// Since when something has been missing or broken.
    doubted: Option<Instant>,
    /// Everything that was complained about when the certificates in use were loaded, or since.
    complaints: BTreeSet<String>,
    degraded: Option<String>,
}

/// A look that is to be taken.
#[derive(Debug, Clone, Copy)]
struct Pending {
    /// Of the first of the news.
    changed: Instant,
    at: Instant,
    /// At files that look as they did, too.
    anyway: bool,
}

impl Renewal {
    /// Watches the files of `plan`, if that is wanted; within a runtime. `loaded` came from it.
    pub(super) fn new(wanted: bool, plan: &Plan, loaded: &Loaded) -> Self {
        let watch = wanted.then(Watch::new);
        let first = Pending::soon(Instant::now()); // which begins the watch
        Self {
            next_look: watch.as_ref().map(|_| first),
            watch,
            plan: Arc::new(plan.clone()),
            looking: None,
            doubted: None,
            complaints: complaints(loaded),
            degraded: None,
        }
    }

    /// A reload has put other certificates in place. What is being looked at may be older.
    pub(super) fn follow(&mut self, wanted: bool, plan: &Plan, loaded: &Loaded) {
        if wanted != self.watch.is_some() || *self.plan != *plan {
            *self = Self::new(wanted, plan, loaded);
            return;
        }
        self.complaints = complaints(loaded);
        self.doubted = None;
        if self.looking.take().is_some() {
            self.next_look = Some(Pending { anyway: true, ..Pending::soon(Instant::now()) });
        }
    }

    /// Another machine may have changed the files, which no watch notices.
    pub(super) fn look_soon(&mut self) {
        if self.watch.is_some() {
            self.next_look = Some(Pending::after(self.next_look, Instant::now()));
        }
    }

    /// Waits for a look at files that may have changed.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn look(&mut self, certificates: &Arc<Certificates>) -> Result<Look, JoinError> {
        let Some(watch) = &mut self.watch else { return pending().await };
        loop {
            if let Some(looking) = &mut self.looking {
                let look = looking.await;
                self.looking = None;
                return look;
            }
            let at = self.next_look.map(|look| look.at);
            tokio::select! {
                () = watch.changed() => self.next_look = Some(Pending::after(self.next_look, Instant::now())),
                () = until(at) => {
                    let anyway = self.next_look.take().is_some_and(|look| look.anyway);
                    let (scanner, plan, certificates) = (watch.scanner(), self.plan.clone(), certificates.clone());
                    let look = move || scanner.look(&plan, &certificates.current().loaded, anyway);
                    self.looking = Some(spawn_blocking(look));
                }
            }
        }
    }

    /// Certificate files have been read. Certificates that are doubtful, or that lose a name, are used only if they are
    /// the same a second later. `generation` is the number of what is swapped in; returns whether it was.
    pub(super) fn on_look(
        &mut self,
        look: Result<Look, JoinError>,
        certificates: &Certificates,
        generation: u64,
    ) -> bool {
        let now = Instant::now();
        let look = match look {
            Ok(look) => look,
            Err(e) => {
                error!(cause = %e, "reading the certificates failed; they will be read again");
                self.next_look = Some(Pending { at: now + POLL_INTERVAL, changed: now, anyway: true });
                return false;
            }
        };
        self.on_watch_state(look.degraded, now);
        if look.restless {
            self.next_look = Some(Pending::soon(now));
        }
        let Some(renewed) = look.renewed else { return false };
        let problems_now = match &renewed {
            Ok(loaded) => complaints(loaded),
            // Nothing at all would be left.
            Err(problems) => problems.iter().map(ToString::to_string).collect(),
        };
        let changes = renewed.as_ref().ok().map(|loaded| certificates.compare(loaded, generation));
        let loses = changes.is_some_and(|changes| !changes.removed.is_empty());
        let is_doubtful = loses || !problems_now.is_subset(&self.complaints);
        let since = *self.doubted.get_or_insert(now);
        if is_doubtful && now < since + GRACE {
            self.next_look = Some(Pending { changed: now, at: since + GRACE, anyway: true });
            return false;
        }
        self.doubted = None;
        let before = std::mem::replace(&mut self.complaints, problems_now);
        let news = self.complaints.difference(&before);
        match renewed {
            Ok(loaded) => {
                for problem in news {
                    warn!(problem, "certificates");
                }
                let has_recovered = !before.is_subset(&self.complaints);
                swap(certificates, loaded, generation, has_recovered)
            }
            Err(_) => {
                for problem in news {
                    error!(problem, "renewal refused: the last good certificates stay in use");
                }
                false
            }
        }
    }

    /// While the watch misses changes, the files are read at intervals. This is logged once.
    fn on_watch_state(&mut self, degraded: Option<String>, now: Instant) {
        if degraded.is_some() && self.next_look.is_none() {
            self.next_look = Some(Pending { changed: now, at: now + POLL_INTERVAL, anyway: false });
        }
        match (&self.degraded, &degraded) {
            (None, Some(cause)) => {
                let every_ms = POLL_INTERVAL.as_millis();
                warn!(
                    cause,
                    every_ms,
                    "certificate files can't be watched for changes; they are checked at intervals instead"
                );
            }
            (Some(_), None) => info!("certificate files are watched for changes again"),
            _ => {}
        }
        self.degraded = degraded;
    }
}

impl Pending {
    fn soon(now: Instant) -> Self {
        Self { changed: now, at: now + QUIET, anyway: false }
    }

    /// With one more piece of news.
    fn after(before: Option<Self>, now: Instant) -> Self {
        match before {
            None => Self::soon(now),
            Some(Self { changed, at, anyway }) => {
                // A look that lies further ahead is overtaken by what has just happened.
                let changed = if at > now + QUIET_MAX { now } else { changed };
                Self { changed, at: (now + QUIET).min(changed + QUIET_MAX), anyway }
            }
        }
    }
}

/// Swaps, and says what has changed: that is, whether the new generation is one. Where no name is served
/// anything else, files may still have other names.
fn swap(certificates: &Certificates, loaded: Loaded, generation: u64, has_recovered: bool) -> bool {
    let is_news = has_recovered || certificates.compare(&loaded, generation).is_change();
    let generation = if is_news { generation } else { certificates.current().generation };
    let report = certificates.swap(loaded, generation);
    if is_news {
        info!(
            generation = report.generation,
            names_added = shown(&report.added),
            names_removed = shown(&report.removed),
            names_replaced = shown(&report.replaced),
            names_kept = shown(&report.kept),
            names_unchanged = report.unchanged,
            nearest_expiry_days = report.nearest_expiry.as_ref().map(|(days, _)| days),
            nearest_expiry = report.nearest_expiry.as_ref().map(|(_, name)| name.to_string()),
            "renewed"
        );
    }
    is_news
}

fn complaints(loaded: &Loaded) -> BTreeSet<String> {
    loaded.warnings.iter().map(ToString::to_string).collect()
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use support::pki::Pki;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_look_waits_for_quiet_but_not_for_ever() {
        let start = Instant::now();
        let mut look = None;
        let mut looks = Vec::new();
        // News every 50 ms for a second, then none.
        for n in 0..=20u32 {
            let now = start + n * 50 * MS;
            if look.is_some_and(|look: Pending| look.at <= now) {
                looks.push(now - start);
                look = None;
            }
            look = Some(Pending::after(look, now));
        }
        assert_eq!(looks, [500 * MS, 1000 * MS]);
        assert_eq!(look.unwrap().at, start + 1100 * MS);
    }

    /// A rig whose files can be looked at by hand.
    struct Rig {
        directory: tempfile::TempDir,
        pki: Pki,
        plan: Plan,
        certificates: Arc<Certificates>,
        renewal: Renewal,
    }

    impl Rig {
        fn new() -> Self {
            let (directory, pki) = (tempfile::TempDir::new().unwrap(), Pki::new());
            pki.issue(&["a.test"]).write(directory.path(), "a");
            pki.issue(&["b.test"]).write(directory.path(), "b");
            let plan = Plan::directory(directory.path());
            let certificates = Certificates::load(&plan).unwrap();
            let renewal = Renewal::new(true, &plan, &certificates.current().loaded);
            Self { directory, pki, plan, certificates, renewal }
        }

        fn on_look(&mut self) -> bool {
            self.renewal.next_look = None;
            let renewed = Some(tls_acceptor::renew(&self.plan, &self.certificates.current().loaded));
            let generation = self.certificates.current().generation + 1;
            let look = Look { renewed, restless: false, degraded: None };
            self.renewal.on_look(Ok(look), &self.certificates, generation)
        }

        fn serves(&self, name: &str) -> bool {
            self.certificates.current().loaded.set.lookup(name).is_some()
        }

        fn remove(&self, name: &str) {
            for extension in ["crt", "key"] {
                std::fs::remove_file(self.directory.path().join(name).with_extension(extension)).unwrap();
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_missing_has_a_while_to_come_back() {
        let mut rig = Rig::new();
        assert!(!rig.on_look() && rig.renewal.next_look.is_none(), "nothing has changed");
        rig.remove("b");
        assert!(!rig.on_look() && rig.serves("b.test"));
        let second = rig.renewal.next_look.unwrap();
        assert_eq!((second.at, second.anyway), (Instant::now() + GRACE, true));
        // Other news in between change nothing about it.
        tokio::time::advance(GRACE / 2).await;
        assert!(!rig.on_look() && rig.serves("b.test"));
        assert_eq!(rig.renewal.next_look.unwrap().at, second.at);
        // It comes back, so that it has a whole while again.
        rig.pki.issue(&["b.test"]).write(rig.directory.path(), "b");
        assert!(rig.on_look() && rig.renewal.next_look.is_none());
        rig.remove("b");
        tokio::time::advance(GRACE).await;
        assert!(!rig.on_look() && rig.serves("b.test"));
        tokio::time::advance(GRACE).await;
        assert!(rig.on_look() && !rig.serves("b.test") && rig.serves("a.test"));
        assert_eq!(rig.certificates.current().generation, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_broken_is_complained_of_once() {
        let mut rig = Rig::new();
        std::fs::write(rig.directory.path().join("b.key"), "-----BEGIN").unwrap();
        assert!(!rig.on_look() && rig.renewal.complaints.is_empty());
        tokio::time::advance(GRACE).await;
        assert!(!rig.on_look() && rig.serves("b.test"), "no name is served anything else");
        assert!(!rig.renewal.complaints.is_empty());
        assert!(!rig.on_look() && rig.renewal.next_look.is_none(), "nothing new");
        // That it is well again is news.
        rig.pki.issue(&["b.test"]).write(rig.directory.path(), "b");
        assert!(rig.on_look() && rig.renewal.complaints.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_blind_looks_from_time_to_time() {
        let mut rig = Rig::new();
        rig.renewal.next_look = None;
        let look = Look { renewed: None, restless: false, degraded: Some("no inotify".to_owned()) };
        assert!(!rig.renewal.on_look(Ok(look), &rig.certificates, 2));
        assert_eq!(rig.renewal.next_look.unwrap().at, Instant::now() + POLL_INTERVAL);
        assert!(
            QUIET_MAX.max(POLL_INTERVAL) + GRACE < Duration::from_secs(2),
            "as docs/certificates.md promises"
        );
    }

    #[test]
    fn news_overtake_a_look_that_is_far_ahead() {
        let now = Instant::now();
        let second = Pending { changed: now, at: now + GRACE, anyway: true };
        let overtaken = Pending::after(Some(second), now + 10 * MS);
        assert_eq!((overtaken.at, overtaken.anyway), (now + 10 * MS + QUIET, true));
    }
}
