//! Certificates that the gateway orders and renews by itself (RFC 8555): one task of the process, on the main thread.
//!
//! The storage is what decides. The task looks at it, orders what is due if no other process does (`storage`: the
//! lock), and puts the certificate there, where the watch over certificate files finds it as it finds every other.
//! Reloads with the same section leave the task alone; at a takeover the old process ends it before the new one begins,
//! which goes on with an order that is open.

mod account;
mod advice;
pub(super) mod attempt;
mod client;
mod command;
mod failure;
mod order;
mod schedule;
mod storage;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use instant_acme::CertificateIdentifier;
use net_io::unix_now;
use serde::{Deserialize, Serialize};
use tls_acceptor::{Awaited, CertName, Certificate, Plan};
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use self::account::{Session, Suggestion};
use self::failure::OrderFailure;
use self::order::Wanted;
use self::schedule::Validity;
use self::storage::{Storage, blocking};
use super::messages::millis;
use crate::config::AcmeSettings;
use crate::ops::acme::{AcmeInfo, AcmeOverview};

/// Between looks at the storage, which another gateway may have changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// The same while another gateway orders.
const LOCKED_INTERVAL: Duration = Duration::from_secs(5);

/// The task, while this process has the duty.
pub(super) struct AcmeKeeper {
    settings: Option<Arc<AcmeSettings>>,
    overview: Arc<AcmeOverview>,
    /// The storage has other certificates than before.
    changed: Arc<Notify>,
    task: Option<AbortOnDropHandle<()>>,
    is_in_charge: bool,
}

impl AcmeKeeper {
    /// Does nothing before [`Self::take_charge`].
    pub(super) fn new(settings: Option<&AcmeSettings>, overview: Arc<AcmeOverview>) -> Self {
        let settings = settings.cloned().map(Arc::new);
        Self { settings, overview, changed: Arc::default(), task: None, is_in_charge: false }
    }

    /// Orders from now on.
    pub(super) fn take_charge(&mut self) {
        self.is_in_charge = true;
        self.start(false);
    }

    /// Goes on by other settings.
    pub(super) fn follow(&mut self, settings: Option<&AcmeSettings>) {
        if self.settings.as_deref() == settings {
            return;
        }
        self.settings = settings.cloned().map(Arc::new);
        // Whatever failed before may have been mended by what is written now.
        self.start(true);
    }

    /// Lets go of the duty: another process has it.
    pub(super) fn stop(&mut self) {
        self.is_in_charge = false;
        self.task = None;
    }

    /// Waits until the storage has other certificates than before.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn start(&mut self, is_new: bool) {
        self.task = None;
        self.overview.show(Vec::new());
        let Some(settings) = self.settings.clone().filter(|_| self.is_in_charge) else { return };
        let duty = Duty { settings, overview: self.overview.clone(), changed: self.changed.clone() };
        self.task = Some(AbortOnDropHandle::new(tokio::spawn(duty.keep(is_new))));
    }
}

/// What the task knows.
struct Duty {
    settings: Arc<AcmeSettings>,
    overview: Arc<AcmeOverview>,
    changed: Arc<Notify>,
}

/// What is kept of a certificate beside itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Notes {
    /// Orders in a row that came to nothing.
    failures: u32,
    /// The earliest moment for the next.
    next: Option<i64>,
    /// Why the last one did.
    problem: Option<String>,
    suggestion: Option<Suggestion>,
}

/// How a certificate stands.
struct Standing {
    certificate: Option<Arc<Certificate>>,
    validity: Option<Validity>,
    notes: Notes,
}

impl Standing {
    /// As the authority calls the certificate (RFC 9773 §4.1).
    fn identifier(&self) -> Option<CertificateIdentifier<'static>> {
        let der = self.certificate.as_ref()?.key.cert.first()?;
        CertificateIdentifier::try_from(der).ok().map(CertificateIdentifier::into_owned)
    }

    /// What the authority suggests for this certificate, as far as it has been asked.
    fn suggestion(&self) -> Option<&Suggestion> {
        let of = self.identifier()?.to_string();
        self.notes.suggestion.as_ref().filter(|suggestion| suggestion.of == of)
    }

    /// When it is ordered.
    fn due(&self) -> i64 {
        schedule::due(self.validity, self.suggestion().and_then(|suggestion| suggestion.at), self.notes.next)
    }

    /// When the authority is asked whether that is the right moment; `None`: there is nothing to ask.
    fn question_due(&self) -> Option<i64> {
        self.identifier()?;
        Some(
            self.suggestion().map_or(0, |suggestion| suggestion.good_until).max(self.notes.next.unwrap_or(0)),
        )
    }

    /// When there is something to do.
    fn next(&self) -> i64 {
        self.question_due().map_or(self.due(), |question| question.min(self.due()))
    }

    fn info(&self, names: &[CertName], now: i64) -> AcmeInfo {
        let state = match self.validity {
            None => "missing",
            Some(validity) if validity.not_after <= now => "expired",
            Some(_) => "valid",
        };
        AcmeInfo {
            names: AcmeSettings::texts(names),
            state: state.to_owned(),
            expires: self.validity.map(|validity| validity.not_after),
            next_order: Some(self.due().max(now)),
            failures: self.notes.failures,
            problem: self.notes.problem.clone(),
        }
    }
}

impl Duty {
    /// Orders what is due, for as long as it is not dropped. `is_new`: earlier failures are no reason to wait.
    async fn keep(self, mut is_new: bool) {
        let mut told = None;
        loop {
            let wait = match self.round(is_new).await {
                Ok(wait) => {
                    (told, is_new) = (None, false);
                    wait
                }
                Err(e) => {
                    // Such as a disk that is read-only; once is enough.
                    let cause = e.to_string();
                    if told.as_ref() != Some(&cause) {
                        let storage = self.settings.storage.display();
                        error!(%storage, cause, "certificates can't be ordered: their storage can't be used");
                    }
                    self.show_problem(&cause);
                    told = Some(cause);
                    LOOK_INTERVAL
                }
            };
            sleep(wait).await;
        }
    }

    /// Looks at all certificates, and orders the first that is due. Returns when to look again.
    async fn round(&self, is_new: bool) -> io::Result<Duration> {
        let root = self.settings.storage.clone();
        let storage = spawn_blocking(move || Storage::open(&root)).await.map_err(io::Error::other)??;
        let mut standings = self.look(&storage).await?;
        if is_new {
            for (names, standing) in self.settings.certificates.iter().zip(&mut standings) {
                standing.notes.next = None;
                self.note(&storage, names, &standing.notes).await?;
            }
        }
        let now = unix_now();
        let Some((first, standing)) =
            standings.iter().enumerate().min_by_key(|(_, standing)| standing.next())
        else {
            return Ok(LOOK_INTERVAL);
        };
        let wait = u64::try_from(standing.next() - now).unwrap_or(0);
        if wait > 0 {
            return Ok(LOOK_INTERVAL.min(Duration::from_secs(wait)));
        }
        let Some(lock) = blocking(&storage, Storage::lock).await? else {
            self.show(&standings, Some((first, "elsewhere")));
            return Ok(LOCKED_INTERVAL);
        };
        // Another process may have done it since.
        let mut standings = self.look(&storage).await?;
        if standings[first].next() <= unix_now() {
            self.show(&standings, Some((first, "ordering")));
            let standing = standings.swap_remove(first);
            self.attend(&storage, &self.settings.certificates[first], standing).await?;
        }
        drop(lock);
        Ok(Duration::ZERO) // which shows how it stands now
    }

    /// Does what is due for one certificate: the question when to renew it, or an order. The lock is held.
    async fn attend(&self, storage: &Storage, names: &[CertName], mut standing: Standing) -> io::Result<()> {
        let started = Instant::now();
        let result = self.serve(storage, names, &mut standing).await;
        let shown = AcmeSettings::texts(names).join(" ");
        match result {
            Ok(Some(validity)) => {
                self.overview.count(true);
                let now = unix_now();
                let days = (validity.not_after - now) / 86_400;
                info!(names = shown, days, took_ms = millis(started), "certificate issued");
                standing.notes = Notes { next: Some(validity.earliest_renewal(now)), ..Notes::default() };
                self.changed.notify_one();
            }
            Ok(None) => {} // it is not due, as the authority says
            Err(e) => {
                self.overview.count(false);
                if e.of_account {
                    Session::forget(&self.settings, storage).await;
                }
                standing.notes.failures += 1;
                let wait = e.kind.wait(standing.notes.failures, e.retry_after);
                standing.notes.next = Some(unix_now().saturating_add_unsigned(wait));
                standing.notes.problem = Some(e.what.clone());
                let days_left = standing.validity.map(|validity| (validity.not_after - unix_now()) / 86_400);
                if days_left.is_some_and(|days| days > 0) {
                    warn!(
                        names = shown,
                        problem = e.what,
                        again_in_s = wait,
                        days_left,
                        "a certificate can't be renewed: the old one stays in use"
                    );
                } else {
                    error!(
                        names = shown,
                        problem = e.what,
                        again_in_s = wait,
                        days_left,
                        "a certificate can't be ordered: its names have no valid one"
                    );
                }
            }
        }
        self.note(storage, names, &standing.notes).await
    }

    /// Returns how long the new certificate is good; `None`: there is no need for one yet.
    async fn serve(
        &self,
        storage: &Storage,
        names: &[CertName],
        standing: &mut Standing,
    ) -> Result<Option<Validity>, OrderFailure> {
        let now = unix_now();
        let question = standing.question_due().filter(|at| *at <= now).and_then(|_| standing.identifier());
        let before = standing.suggestion().and_then(|suggestion| suggestion.at);
        let session = match Session::begin(&self.settings, storage).await {
            // Only a question can't be asked: later, then.
            Err(e) if standing.due() > now && !e.of_account => {
                let suggestion = question.map(|certificate| Suggestion::unknown(&certificate, before));
                standing.notes.suggestion = suggestion.or(standing.notes.suggestion.take());
                return Ok(None);
            }
            begun => begun?,
        };
        if let Some(certificate) = question {
            standing.notes.suggestion = Some(session.suggestion(&certificate, before).await);
        }
        if standing.due() > now {
            return Ok(None);
        }
        let replaces = standing.identifier().filter(|_| standing.validity.is_some_and(|v| v.fits));
        let wanted = Wanted { settings: &self.settings, storage, names, replaces, is_kept: true };
        let pem = wanted.obtain(&session).await?;
        let file = AcmeSettings::stored(names);
        let (aside, names) = (format!("certificates/.{}.new", AcmeSettings::id(names)), names.to_vec());
        let issued = blocking(storage, move |storage| install(storage, &file, &aside, &names, &pem)).await?;
        Ok(Some(issued))
    }

    /// Looks at everything, and shows it.
    async fn look(&self, storage: &Storage) -> io::Result<Vec<Standing>> {
        let settings = self.settings.clone();
        let standings = blocking(storage, move |storage| {
            settings.certificates.iter().map(|names| look_at(&settings, storage, names)).collect()
        });
        let standings: Vec<Standing> = standings.await?;
        self.show(&standings, None);
        Ok(standings)
    }

    async fn note(&self, storage: &Storage, names: &[CertName], notes: &Notes) -> io::Result<()> {
        let (file, notes) = (notes_file(names), notes.clone());
        blocking(storage, move |storage| storage.keep(&file, &notes)).await
    }

    /// `busy`: the certificate at this position is in another state, for the moment.
    fn show(&self, standings: &[Standing], busy: Option<(usize, &str)>) {
        let now = unix_now();
        let all = self.settings.certificates.iter().zip(standings).enumerate();
        let all = all.map(|(position, (names, standing))| {
            let mut info = standing.info(names, now);
            if let Some((_, state)) = busy.filter(|(busy, _)| *busy == position) {
                state.clone_into(&mut info.state);
            }
            info
        });
        self.overview.show(all.collect());
    }

    fn show_problem(&self, problem: &str) {
        let mut all = self.overview.certificates();
        if all.is_empty() {
            let names = self.settings.certificates.iter().map(|names| AcmeSettings::texts(names));
            let missing = |names| AcmeInfo { names, state: "missing".to_owned(), ..AcmeInfo::default() };
            all = names.map(missing).collect();
        }
        for info in &mut all {
            info.problem = Some(problem.to_owned());
        }
        self.overview.show(all);
    }
}

fn notes_file(names: &[CertName]) -> String {
    format!("state/{}.json", AcmeSettings::id(names))
}

/// Reads a certificate and its notes; blocks.
fn look_at(settings: &AcmeSettings, storage: &Storage, names: &[CertName]) -> io::Result<Standing> {
    let certificate = read_certificate(names, settings.file(names));
    let validity = certificate.as_ref().map(|certificate| validity(certificate, names));
    let notes = storage.read(&notes_file(names))?.unwrap_or_default();
    Ok(Standing { certificate, validity, notes })
}

/// What is in a file of a certificate; `None`: nothing that could be served.
fn read_certificate(names: &[CertName], file: std::path::PathBuf) -> Option<Arc<Certificate>> {
    let plan = Plan { awaited: vec![Awaited { names: names.to_vec(), file }], ..Plan::default() };
    let loaded = tls_acceptor::load(&plan, None).ok()?;
    loaded.set.certificates().first().cloned()
}

fn validity(certificate: &Certificate, names: &[CertName]) -> Validity {
    let leaf = &certificate.leaf;
    Validity { not_before: leaf.not_before, not_after: leaf.not_after, fits: has_all(&leaf.names, names) }
}

fn has_all(found: &[CertName], wanted: &[CertName]) -> bool {
    found.len() == wanted.len() && wanted.iter().all(|name| found.contains(name))
}

/// Puts a certificate in place, if it is one, with its key, and for the names.
fn install(
    storage: &Storage,
    file: &str,
    aside: &str,
    names: &[CertName],
    pem: &str,
) -> io::Result<Validity> {
    storage.write(aside, pem.as_bytes())?;
    let found = read_certificate(names, storage.path(aside));
    storage.remove(aside);
    match found {
        Some(certificate) if has_all(&certificate.leaf.names, names) => {
            storage.write(file, pem.as_bytes())?;
            Ok(validity(&certificate, names))
        }
        _ => Err(io::Error::other(
            "what the authority has issued is no certificate for these names and their key",
        )),
    }
}
