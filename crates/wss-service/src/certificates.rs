//! Certificates of the service, and how they are exchanged while it runs.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use net_io::unix_now;
use tls_acceptor::{
    CertName, CertificateProblem, Expiries, FileScanner, Look, Named, Plan, ReloadReport, Watch,
};
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::sleep;

use crate::log;

/// Without changes for so long, the writer of files has finished.
const QUIET: Duration = Duration::from_millis(100);
/// What is missing or broken has so long to become good.
const GRACE: Duration = Duration::from_secs(1);
/// Between looks where the system doesn't report changes.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Between looks at how near the ends of certificates are.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(3600);

/// Certificates for one name or many, read from files. Cheap to clone; clones are the same certificates.
///
/// They are hot: while the service runs, changed files are noticed and used for new connections within two seconds. So is
/// a [`Self::reload`]. Live sessions are left alone. A file that is broken leaves the last good certificate of its names
/// in use. Certificates that expire within 30 days are warned of in the log, and daily when they have expired.
#[derive(Debug, Clone)]
pub struct Certificates {
    cell: Arc<tls_acceptor::Certificates>,
    plan: Arc<Plan>,
}

/// Certificates can't be used. Each problem names its file, and says what to do.
#[derive(thiserror::Error)]
#[error("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct CertificatesError {
    /// All that is wrong.
    pub problems: Vec<CertificateProblem>,
}

/// As a program shows it whose `main` returns it: in the same words.
impl fmt::Debug for CertificatesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Vec<CertificateProblem>> for CertificatesError {
    fn from(problems: Vec<CertificateProblem>) -> Self {
        Self { problems }
    }
}

impl Certificates {
    /// All certificates in a directory and below it, as certbot and others lay them out. Each answers for the names in it.
    /// If there is one alone, it also answers clients that ask for no name, or for another one; of several, none does:
    /// [`Self::load`] takes a default. Blocks while it reads.
    ///
    /// # Errors
    /// If the directory can't be read, or no certificate in it can be used.
    pub fn directory(path: impl Into<PathBuf>) -> Result<Self, CertificatesError> {
        let plan = Plan::directory(path);
        let loaded = tls_acceptor::load(&plan, None)?;
        let default = match loaded.set.certificates() {
            [only] => only.leaf.names.first().cloned(),
            _ => None,
        };
        Self::load(Plan { default, ..plan })
    }

    /// A chain and its key, which answer all clients. Blocks while it reads.
    ///
    /// # Errors
    /// If they can't be read, or don't fit each other.
    pub fn files(chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Result<Self, CertificatesError> {
        let named = Named { chain: vec![chain.into()], key: key.into(), client_auth: None };
        let plan = Plan { named: vec![named], ..Plan::default() };
        let loaded = tls_acceptor::load(&plan, None)?;
        let default = loaded.set.certificates().first().and_then(|only| only.leaf.names.first().cloned());
        Self::load(Plan { default, ..plan })
    }

    /// What a plan says: directories, files, certificates of clients ([`ClientAuthFiles`](crate::ClientAuthFiles)), and
    /// the default. Blocks while it reads.
    ///
    /// # Errors
    /// Every problem that forbids to use the result.
    pub fn load(plan: Plan) -> Result<Self, CertificatesError> {
        let cell = tls_acceptor::Certificates::load(&plan)?;
        for warning in &cell.current().loaded.warnings {
            log::warning("certificates", warning);
        }
        Ok(Self { cell, plan: Arc::new(plan) })
    }

    /// Reads all files again and uses them for new connections; says what has changed. Blocks while it reads.
    ///
    /// # Errors
    /// As [`Self::load`]; what was served before is served on.
    pub fn reload(&self) -> Result<ReloadReport, CertificatesError> {
        Ok(self.cell.reload(&self.plan)?)
    }

    /// The names that are answered for.
    #[must_use]
    pub fn names(&self) -> Vec<CertName> {
        self.cell.current().loaded.set.names().map(|(name, _)| name).collect()
    }

    pub(crate) fn cell(&self) -> &Arc<tls_acceptor::Certificates> {
        &self.cell
    }

    /// Reloads, and says in the log how it went.
    pub(crate) async fn reload_and_log(&self) {
        let certificates = self.clone();
        match spawn_blocking(move || certificates.reload()).await {
            Ok(Ok(report)) => {
                say("certificates", self.complaints(), &mut BTreeSet::new());
                log::certificates(&report);
            }
            Ok(Err(problems)) => log::warning("reload refused: the certificates stay as they are", &problems),
            Err(e) => log::warning("reload failed: the certificates stay as they are", &e),
        }
    }

    /// Looks at the files whenever they change, and says which certificates expire soon, until it is dropped.
    pub(crate) async fn watch(self) {
        let mut watch = Watch::new();
        let scanner = watch.scanner();
        let mut expiries = Expiries::default();
        let mut said = self.complaints();
        let mut degraded = self.look(&scanner, &mut said).await; // which begins the watch
        loop {
            for expiry in expiries.news(&self.cell.current().loaded.set, unix_now()) {
                log::expiry(&expiry);
            }
            {
                let mut changed = pin!(watch.changed());
                tokio::select! {
                    () = &mut changed => {}
                    () = sleep(POLL_INTERVAL), if degraded => {}
                    () = sleep(EXPIRY_INTERVAL) => continue,
                }
            }
            sleep(QUIET).await;
            degraded = self.look(&scanner, &mut said).await;
        }
    }

    /// Uses what the files are now, if they have changed. What is missing or broken may be in the middle of being written:
    /// it counts if it is still so a while later. What is wrong and was not `said` yet is logged. Returns whether the watch may
    /// miss changes.
    async fn look(&self, scanner: &FileScanner, said: &mut BTreeSet<String>) -> bool {
        let mut look = self.read(scanner, false).await;
        if look.as_ref().is_ok_and(|look| self.is_doubtful(look)) {
            sleep(GRACE).await;
            look = self.read(scanner, true).await;
        }
        match look {
            Ok(look) => {
                match look.renewed {
                    Some(Ok(loaded)) => {
                        say("certificates", texts(&loaded.warnings), said);
                        let generation = self.cell.current().generation + 1;
                        if self.cell.compare(&loaded, generation).is_change() {
                            log::certificates(&self.cell.swap(loaded, generation));
                        }
                    }
                    Some(Err(problems)) => {
                        let what = "renewal refused: the last good certificates stay in use";
                        say(what, texts(&problems), said);
                    }
                    None => {}
                }
                look.degraded.is_some() || look.restless
            }
            Err(e) => {
                log::warning("reading the certificates failed", &e);
                true
            }
        }
    }

    /// What was said when the certificates were loaded that are in use.
    fn complaints(&self) -> BTreeSet<String> {
        texts(&self.cell.current().loaded.warnings)
    }

    async fn read(&self, scanner: &FileScanner, anyway: bool) -> Result<Look, JoinError> {
        let (scanner, this) = (scanner.clone(), self.clone());
        spawn_blocking(move || scanner.look(&this.plan, &this.cell.current().loaded, anyway)).await
    }

    fn is_doubtful(&self, look: &Look) -> bool {
        match &look.renewed {
            None => false,
            Some(Err(_)) => true,
            Some(Ok(loaded)) => {
                let report = self.cell.compare(loaded, 0);
                !report.removed.is_empty() || !report.kept.is_empty()
            }
        }
    }
}

fn texts(complaints: &[impl ToString]) -> BTreeSet<String> {
    complaints.iter().map(ToString::to_string).collect()
}

/// Logs those that were not `said` yet.
fn say(what: &str, complaints: BTreeSet<String>, said: &mut BTreeSet<String>) {
    for news in complaints.difference(said) {
        log::warning(what, news);
    }
    *said = complaints;
}
