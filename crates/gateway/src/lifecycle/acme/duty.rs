//! The task itself: it looks at the storage, orders what is due if no other process does, and notes what comes of it.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use net_io::unix_now;
use tls_acceptor::Demanded;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::account::{Session, Suggestion};
use super::demand::Demands;
use super::failure::OrderFailure;
use super::order::Wanted;
use super::permission::Permission;
use super::schedule::{FailureKind, Validity};
use super::standing::{self, Notes, Standing, wishes};
use super::storage::{Storage, blocking};
use crate::config::AcmeSettings;
use crate::lifecycle::messages::millis;
use crate::ops::acme::{AcmeInfo, AcmeOverview};

/// Between looks at the storage, which another gateway may have changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// The same while another gateway orders.
const LOCKED_INTERVAL: Duration = Duration::from_secs(5);

/// Why the task begins.
#[derive(Clone, Copy)]
pub(super) enum Beginning {
    /// This process orders from now on.
    Process,
    /// The section is another one.
    Settings,
}

/// What the task knows.
pub(super) struct Duty {
    pub(super) settings: Arc<AcmeSettings>,
    pub(super) overview: Arc<AcmeOverview>,
    pub(super) changed: Arc<Notify>,
    pub(super) demands: Arc<Demands>,
    pub(super) permission: Option<Permission>,
}

impl Duty {
    /// Orders what is due, for as long as it is not dropped.
    pub(super) async fn keep(self, beginning: Beginning) {
        let (mut told, mut beginning) = (None, Some(beginning));
        loop {
            let wait = match self.round(beginning).await {
                Ok(wait) => {
                    beginning = None;
                    if told.take().is_some() {
                        info!(storage = %self.settings.storage.display(), "the storage of certificates can be used again");
                    }
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
            tokio::select! {
                () = sleep(wait) => {}
                () = self.demands.come() => {}
            }
        }
    }

    /// Looks at all certificates, and orders the first that is due. Returns when to look again.
    async fn round(&self, beginning: Option<Beginning>) -> io::Result<Duration> {
        let root = self.settings.storage.clone();
        let storage = spawn_blocking(move || Storage::open(&root)).await.map_err(io::Error::other)??;
        let mut standings = self.look(&storage).await?;
        if let Some(beginning) = beginning {
            self.begin(&storage, &mut standings, beginning).await?;
        }
        let Some((first, wait)) = standing::next(&standings, unix_now()) else { return Ok(LOOK_INTERVAL) };
        if wait > 0 {
            return Ok(LOOK_INTERVAL.min(Duration::from_secs(wait)));
        }
        let wish = standings[first].wish.clone();
        let Some(lock) = blocking(&storage, Storage::lock).await? else {
            self.show(&standings, Some((first, "elsewhere")));
            return Ok(LOCKED_INTERVAL);
        };
        // Another process may have done it since.
        let mut standings = self.look(&storage).await?;
        let (again, now) = (standings.iter().position(|standing| standing.wish == wish), unix_now());
        if let Some(first) = again.filter(|first| standings[*first].next(now) <= now) {
            blocking(&storage, Storage::has_room).await?;
            self.show(&standings, Some((first, "ordering")));
            self.attend(&storage, standings.swap_remove(first)).await?;
        }
        drop(lock);
        Ok(Duration::ZERO) // which shows how it stands now
    }

    /// What has failed by other settings is tried at once. What waits since before is said, since nothing else will be for
    /// hours.
    async fn begin(
        &self,
        storage: &Storage,
        standings: &mut [Standing],
        beginning: Beginning,
    ) -> io::Result<()> {
        for standing in standings {
            let Some(next) = standing.notes.next else { continue };
            let has_failed = standing.notes.failures > 0;
            if standing.has_failed_by_others(&self.settings) || matches!(beginning, Beginning::Settings) {
                standing.notes.next = None;
                self.note(storage, standing).await?;
            } else if has_failed && next > unix_now() {
                warn!(
                    names = AcmeSettings::texts(&standing.wish.names).join(" "),
                    problem = standing.notes.problem,
                    again_in_s = next - unix_now(),
                    "an order has failed earlier: the next one waits, or is made when [acme] says something else"
                );
            }
        }
        Ok(())
    }

    /// Does what is due for one certificate: the question when to renew it, or an order. The lock is held.
    async fn attend(&self, storage: &Storage, mut standing: Standing) -> io::Result<()> {
        let started = Instant::now();
        let result = self.serve(storage, &mut standing).await;
        let shown = AcmeSettings::texts(&standing.wish.names).join(" ");
        let demanded = if result.is_ok() { Demanded::Issued } else { Demanded::Refused };
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
                standing.notes.settings = Some(standing::settings_id(&self.settings, &standing.wish));
                let days_left = standing.validity.map(|validity| (validity.not_after - unix_now()) / 86_400);
                if standing.is_valid(unix_now()) {
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
        let noted = self.note(storage, &standing).await;
        if let Some(name) = standing.wish.demanded() {
            self.demands.answer(name, demanded);
        }
        noted
    }

    /// Returns how long the new certificate is good; `None`: there is no need for one yet.
    async fn serve(
        &self,
        storage: &Storage,
        standing: &mut Standing,
    ) -> Result<Option<Validity>, OrderFailure> {
        let now = unix_now();
        let is_due = |standing: &Standing| standing.due(now).is_some_and(|due| due <= now);
        if is_due(standing) && standing.validity.is_some() {
            self.permit(standing).await?;
        }
        let question = standing.question_due(now).filter(|at| *at <= now).and_then(|_| standing.identifier());
        let before = standing.suggestion().and_then(|suggestion| suggestion.at);
        let session = match Session::begin(&self.settings, storage).await {
            // Only a question can't be asked: later, then.
            Err(e) if !is_due(standing) && !e.of_account => {
                let suggestion = question.map(|certificate| Suggestion::unknown(&certificate, before));
                standing.notes.suggestion = suggestion.or(standing.notes.suggestion.take());
                return Ok(None);
            }
            begun => begun?,
        };
        if let Some(certificate) = question {
            standing.notes.suggestion = Some(session.suggestion(&certificate, before).await);
        }
        if !is_due(standing) {
            return Ok(None);
        }
        let replaces = standing.identifier().filter(|_| standing.validity.is_some_and(|v| v.fits));
        let names = &standing.wish.names;
        let wanted = Wanted { settings: &self.settings, storage, names, replaces, is_kept: true };
        let pem = wanted.obtain(&session).await?;
        let wish = standing.wish.clone();
        // If it can't be stored, the next attempt goes on with this order: nothing is ordered twice.
        let issued = blocking(storage, move |storage| standing::install(storage, &wish, &pem)).await?;
        wanted.forget().await;
        issued.map(Some).ok_or_else(|| {
            OrderFailure::local(
                "what the authority has issued is no certificate for these names and their key",
            )
        })
    }

    /// A name that clients have asked for may not be allowed any more.
    ///
    /// # Errors
    /// If it is not, or if that can't be found out.
    async fn permit(&self, standing: &Standing) -> Result<(), OrderFailure> {
        let (Some(name), Some(permission)) = (standing.wish.demanded(), &self.permission) else {
            return Ok(());
        };
        match permission.is_given(name).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                let what = "[acme.on_demand] does not allow the name any more";
                Err(OrderFailure::new(FailureKind::Refused, what))
            }
            Err(cause) => {
                let what =
                    format!("ask of [acme.on_demand] does not say whether the name is allowed: {cause}");
                Err(OrderFailure::new(FailureKind::Unreachable, what))
            }
        }
    }

    /// Looks at everything, and shows it. Clients whose name has a certificate are told.
    async fn look(&self, storage: &Storage) -> io::Result<Vec<Standing>> {
        let (settings, demands) = (self.settings.clone(), self.demands.clone());
        let awaited = demands.names(); // before: what is awaited later is there later
        let standings = blocking(storage, move |storage| look_at_all(&settings, storage, &demands));
        let standings: Vec<Standing> = standings.await?;
        self.demands.refuse_forgotten(&awaited, &standings);
        let now = unix_now();
        for standing in standings.iter().filter(|standing| standing.is_awaited && standing.is_valid(now)) {
            if let Some(name) = standing.wish.demanded() {
                self.changed.notify_one(); // another gateway has ordered it
                self.demands.answer(name, Demanded::Issued);
            }
        }
        self.show(&standings, None);
        Ok(standings)
    }

    async fn note(&self, storage: &Storage, standing: &Standing) -> io::Result<()> {
        let (file, notes) = (standing.wish.notes_file(), standing.notes.clone());
        blocking(storage, move |storage| storage.keep(&file, &notes)).await
    }

    /// `busy`: the certificate at this position is in another state, for the moment.
    fn show(&self, standings: &[Standing], busy: Option<(usize, &str)>) {
        let now = unix_now();
        let all = standings.iter().enumerate().map(|(position, standing)| {
            let mut info = standing.info(now);
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

/// Reads all certificates that are wanted, and forgets names that clients have asked for long ago; blocks.
fn look_at_all(settings: &AcmeSettings, storage: &Storage, demands: &Demands) -> io::Result<Vec<Standing>> {
    let now = unix_now();
    let mut standings = Vec::new();
    for wish in wishes(settings, storage)? {
        let is_awaited = wish.demanded().is_some_and(|name| demands.has(name));
        let standing = Standing::look(storage, wish, is_awaited)?;
        if standing.is_forgotten(now) {
            storage.remove(&standing.wish.notes_file());
            storage.remove(&standing.wish.file());
        } else {
            standings.push(standing);
        }
    }
    Ok(standings)
}
