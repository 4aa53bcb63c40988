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
mod demand;
mod failure;
mod nonce;
mod order;
mod permission;
mod schedule;
mod standing;
mod storage;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use net_io::unix_now;
use tls_acceptor::{Certificates, Demanded};
use tokio::sync::{Notify, mpsc};
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use self::account::{Session, Suggestion};
use self::demand::{Demands, Desk};
use self::failure::OrderFailure;
use self::order::Wanted;
use self::permission::Permission;
use self::schedule::{FailureKind, Validity};
use self::standing::{Notes, Standing, wishes};
use self::storage::{Storage, blocking};
use super::messages::millis;
use crate::config::AcmeSettings;
use crate::ops::acme::{AcmeInfo, AcmeOverview};
use crate::site::on_demand::{Demand, OnDemand};

/// Between looks at the storage, which another gateway may have changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// The same while another gateway orders.
const LOCKED_INTERVAL: Duration = Duration::from_secs(5);

/// The task, while this process has the duty.
pub(super) struct AcmeKeeper {
    settings: Option<Arc<AcmeSettings>>,
    overview: Arc<AcmeOverview>,
    /// Handshakes for names that have none.
    certificates: Arc<Certificates>,
    /// The storage has other certificates than before.
    changed: Arc<Notify>,
    task: Option<AbortOnDropHandle<()>>,
    is_in_charge: bool,
}

impl AcmeKeeper {
    /// Does nothing before [`Self::take_charge`].
    pub(super) fn new(
        settings: Option<&AcmeSettings>,
        certificates: Arc<Certificates>,
        overview: Arc<AcmeOverview>,
    ) -> Self {
        let settings = settings.cloned().map(Arc::new);
        let keeper = Self {
            settings,
            overview,
            certificates,
            changed: Arc::default(),
            task: None,
            is_in_charge: false,
        };
        drop(keeper.take_demands()); // clients are refused until then
        keeper
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
        let demands_taken = self.take_demands();
        let Some(settings) = self.settings.clone().filter(|_| self.is_in_charge) else { return };
        let (overview, demands) = (self.overview.clone(), Arc::<Demands>::default());
        let desk = settings.on_demand.clone().zip(demands_taken).map(|(on_demand, receiver)| {
            Desk::new(settings.clone(), on_demand, demands.clone(), receiver, overview.clone())
        });
        let permission = settings.on_demand.clone().map(Permission::new);
        let duty = Duty { settings, overview, changed: self.changed.clone(), demands, permission };
        let both = async move {
            match desk {
                Some(desk) => drop(tokio::join!(duty.keep(is_new), desk.keep())),
                None => duty.keep(is_new).await,
            }
        };
        self.task = Some(AbortOnDropHandle::new(tokio::spawn(both)));
    }

    /// From now on handshakes have names ordered, or none, as the settings say. Returns what clients demand.
    fn take_demands(&self) -> Option<mpsc::Receiver<Demand>> {
        let on_demand = self.settings.as_ref().and_then(|settings| settings.on_demand.as_ref());
        self.overview.set_on_demand(on_demand.is_some());
        let (handshakes, receiver) =
            on_demand.map(|on_demand| OnDemand::new(on_demand.allowed.clone())).unzip();
        self.certificates.order_on_demand(handshakes.map(|handshakes| Arc::new(handshakes) as _));
        receiver
    }
}

/// What the task knows.
struct Duty {
    settings: Arc<AcmeSettings>,
    overview: Arc<AcmeOverview>,
    changed: Arc<Notify>,
    demands: Arc<Demands>,
    permission: Option<Permission>,
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
            tokio::select! {
                () = sleep(wait) => {}
                () = self.demands.come() => {}
            }
        }
    }

    /// Looks at all certificates, and orders the first that is due. Returns when to look again.
    async fn round(&self, is_new: bool) -> io::Result<Duration> {
        let root = self.settings.storage.clone();
        let storage = spawn_blocking(move || Storage::open(&root)).await.map_err(io::Error::other)??;
        let mut standings = self.look(&storage).await?;
        if is_new {
            for standing in standings.iter_mut().filter(|standing| standing.notes.next.is_some()) {
                standing.notes.next = None;
                self.note(&storage, standing).await?;
            }
        }
        let now = unix_now();
        let Some((first, standing)) =
            standings.iter().enumerate().min_by_key(|(_, standing)| standing.next(now))
        else {
            return Ok(LOOK_INTERVAL);
        };
        let wait = u64::try_from(standing.next(now).saturating_sub(now)).unwrap_or(0);
        if wait > 0 {
            return Ok(LOOK_INTERVAL.min(Duration::from_secs(wait)));
        }
        let wish = standing.wish.clone();
        let Some(lock) = blocking(&storage, Storage::lock).await? else {
            self.show(&standings, Some((first, "elsewhere")));
            return Ok(LOCKED_INTERVAL);
        };
        // Another process may have done it since.
        let mut standings = self.look(&storage).await?;
        let again = standings.iter().position(|standing| standing.wish == wish);
        if let Some(first) = again.filter(|first| standings[*first].next(now) <= unix_now()) {
            blocking(&storage, Storage::has_room).await?;
            self.show(&standings, Some((first, "ordering")));
            self.attend(&storage, standings.swap_remove(first)).await?;
        }
        drop(lock);
        Ok(Duration::ZERO) // which shows how it stands now
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
        let standings = blocking(storage, move |storage| look_at_all(&settings, storage, &demands));
        let standings: Vec<Standing> = standings.await?;
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
