//! What clients ask for: each name is judged, remembered in the storage, and waited for.
//!
//! In: the demands of handshakes. Out: names in the storage, which the other half of the task orders, and an answer for each
//! client. Everything that a stranger can make grow has a bound.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use net_io::unix_now;
use tls_acceptor::Demanded;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{JoinError, JoinSet, spawn_blocking};
use tokio::time::Instant;
use tracing::{info, warn};

use super::permission::Permission;
use super::standing::{DEMANDED, Notes, Standing, Wish};
use super::storage::{Storage, blocking};
use crate::config::{AcmeSettings, OnDemandSettings};
use crate::ops::acme::{AcmeOverview, DemandResult};
use crate::site::on_demand::Demand;

/// How long what the URL has answered holds.
const ANSWER_AGE: Duration = Duration::from_secs(30);
/// How long a name waits that was refused for another reason, such as a URL that does not answer.
const REFUSAL_AGE: Duration = Duration::from_secs(5);
/// Names whose answer is known, and names that are being judged. Further ones are refused.
const ANSWERS_MAX: usize = 4096;
const JUDGED_MAX: usize = 16;
/// What goes on for long is said so often.
const TOLD_INTERVAL: Duration = Duration::from_secs(60);

/// The names that are being ordered for clients.
#[derive(Default)]
pub(super) struct Demands {
    clients: Mutex<HashMap<Box<str>, Vec<oneshot::Sender<Demanded>>>>,
    come: Notify,
}

impl Demands {
    /// A client waits for the name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.clients().contains_key(name)
    }

    /// Answers all clients that wait for the name.
    pub(super) fn answer(&self, name: &str, demanded: Demanded) {
        for client in self.clients().remove(name).into_iter().flatten() {
            let _ = client.send(demanded); // it may have gone
        }
    }

    /// The names that clients wait for.
    pub(super) fn names(&self) -> Vec<Box<str>> {
        self.clients().keys().cloned().collect()
    }

    /// Refuses clients of those names that were `awaited` and are not among `standings`, which were read later: another name
    /// has taken their place, and nothing else would ever answer.
    pub(super) fn refuse_forgotten(&self, awaited: &[Box<str>], standings: &[Standing]) {
        let is_there = |name: &str| standings.iter().any(|standing| standing.wish.demanded() == Some(name));
        for name in awaited.iter().filter(|name| !is_there(name)) {
            self.answer(name, Demanded::Refused);
        }
    }

    /// Waits for a name that is new.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn come(&self) {
        self.come.notified().await;
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<Box<str>, Vec<oneshot::Sender<Demanded>>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes demands.
pub(super) struct Desk {
    demands: Arc<Demands>,
    receiver: mpsc::Receiver<Demand>,
    judge: Arc<Judge>,
    overview: Arc<AcmeOverview>,
    /// Clients of the names that are being judged.
    waiting: HashMap<Box<str>, Vec<oneshot::Sender<Demanded>>>,
    judging: JoinSet<(Box<str>, Verdict)>,
    /// What holds for a name, and how long.
    answers: HashMap<Box<str>, (Demanded, Instant)>,
    told: HashMap<DemandResult, Instant>,
}

/// Why a name is ordered, or is not.
enum Verdict {
    /// It is remembered.
    Ordered,
    /// It has a certificate, which another gateway may have ordered.
    Issued,
    Denied,
    /// An order has failed; in so many seconds there may be another.
    Failed(u64),
    /// The URL has not said whether it is allowed.
    Unasked(String),
    /// There were too many orders of late.
    Limited,
    /// All names that may be remembered have certificates.
    Full,
    /// The storage can't be used.
    Unstored(io::Error),
}

impl Desk {
    pub(super) fn new(
        settings: Arc<AcmeSettings>,
        on_demand: OnDemandSettings,
        demands: Arc<Demands>,
        receiver: mpsc::Receiver<Demand>,
        overview: Arc<AcmeOverview>,
    ) -> Self {
        let permission = Permission::new(on_demand.clone());
        let judge = Judge { settings, on_demand, permission, orders: Mutex::new(0), started: Instant::now() };
        Self {
            demands,
            receiver,
            judge: Arc::new(judge),
            overview,
            waiting: HashMap::new(),
            judging: JoinSet::new(),
            answers: HashMap::new(),
            told: HashMap::new(),
        }
    }

    /// Takes demands, as long as it is not dropped.
    pub(super) async fn keep(mut self) {
        loop {
            tokio::select! {
                demand = self.receiver.recv() => match demand {
                    Some(demand) => self.take(demand),
                    None => return, // there are other settings
                },
                Some(judged) = self.judging.join_next() => self.settle(judged),
            }
        }
    }

    fn take(&mut self, Demand { name, answer }: Demand) {
        if let Some(clients) = self.demands.clients().get_mut(&name) {
            join(clients, answer);
        } else if let Some(clients) = self.waiting.get_mut(&name) {
            join(clients, answer);
        } else if let Some((demanded, _)) =
            self.answers.get(&name).filter(|(_, until)| *until > Instant::now())
        {
            let _ = answer.send(*demanded); // it may have gone
        } else if self.judging.len() < JUDGED_MAX {
            let judge = self.judge.clone();
            self.waiting.insert(name.clone(), vec![answer]);
            self.judging.spawn(async move {
                let verdict = judge.judge(&name).await;
                (name, verdict)
            });
        } else {
            let _ = answer.send(Demanded::Refused);
        }
    }

    fn settle(&mut self, judged: Result<(Box<str>, Verdict), JoinError>) {
        let Ok((name, verdict)) = judged else {
            // It can't be known which it was.
            self.waiting.clear();
            return;
        };
        let clients = self.waiting.remove(&name).unwrap_or_default();
        let (result, demanded, age) = match &verdict {
            Verdict::Ordered => {
                info!(name = &*name, "a certificate is ordered, since a client asks for the name");
                self.overview.count_demand(DemandResult::Ordered);
                self.demands.clients().insert(name, clients);
                self.demands.come.notify_one();
                return;
            }
            Verdict::Issued => (DemandResult::Issued, Demanded::Issued, Duration::ZERO),
            Verdict::Denied => (DemandResult::Denied, Demanded::Unknown, ANSWER_AGE),
            Verdict::Failed(secs) => {
                (DemandResult::Failed, Demanded::Refused, ANSWER_AGE.min(Duration::from_secs(*secs)))
            }
            Verdict::Unasked(_) | Verdict::Unstored(_) => {
                (DemandResult::Unknown, Demanded::Refused, REFUSAL_AGE)
            }
            Verdict::Limited | Verdict::Full => (DemandResult::Limited, Demanded::Refused, REFUSAL_AGE),
        };
        self.overview.count_demand(result);
        let now = Instant::now();
        if self.told.get(&result).is_none_or(|at| *at + TOLD_INTERVAL <= now) && verdict.tell(&name) {
            self.told.insert(result, now);
        }
        if self.answers.len() >= ANSWERS_MAX {
            self.answers.retain(|_, (_, until)| *until > now);
        }
        if self.answers.len() < ANSWERS_MAX {
            self.answers.insert(name, (demanded, now + age));
        }
        for client in clients {
            let _ = client.send(demanded); // it may have gone
        }
    }
}

/// One more client; of those that have gone nothing is kept.
fn join(clients: &mut Vec<oneshot::Sender<Demanded>>, client: oneshot::Sender<Demanded>) {
    clients.retain(|client| !client.is_closed());
    clients.push(client);
}

impl Verdict {
    /// Says what an operator should know; returns whether there was anything.
    fn tell(&self, name: &str) -> bool {
        match self {
            Self::Unasked(cause) => warn!(
                name,
                cause, "no certificate is ordered on demand: ask does not say whether the name is allowed"
            ),
            Self::Limited => warn!(
                name,
                "no certificate is ordered on demand: clients have begun as many orders as [acme.on_demand] allows"
            ),
            Self::Full => warn!(
                name,
                "no certificate is ordered on demand: as many names have one as max_names of [acme.on_demand] allows"
            ),
            Self::Unstored(e) => {
                warn!(name, cause = %e, "no certificate is ordered on demand: the storage can't be used");
            }
            _ => return false,
        }
        true
    }
}

/// Judges names, several at a time.
struct Judge {
    settings: Arc<AcmeSettings>,
    on_demand: OnDemandSettings,
    permission: Permission,
    /// As `Rate::take` counts them, from the moment `started`.
    orders: Mutex<u64>,
    started: Instant,
}

impl Judge {
    async fn judge(&self, name: &str) -> Verdict {
        self.weigh(name).await.unwrap_or_else(Verdict::Unstored)
    }

    async fn weigh(&self, name: &str) -> io::Result<Verdict> {
        let root = self.settings.storage.clone();
        let storage = spawn_blocking(move || Storage::open(&root)).await.map_err(io::Error::other)??;
        let wish = Wish::on_demand(name);
        let standing = blocking(&storage, move |storage| Standing::look(storage, wish, false)).await?;
        if standing.is_valid(unix_now()) {
            return Ok(Verdict::Issued);
        }
        let wait = standing.notes.next.and_then(|next| u64::try_from(next - unix_now()).ok());
        if let Some(wait) = wait.filter(|wait| *wait > 0)
            // Else the task that orders tries it at once.
            && !standing.has_failed_by_others(&self.settings)
        {
            return Ok(Verdict::Failed(wait));
        }
        match self.permission.is_given(name).await {
            Ok(true) => {}
            Ok(false) => return Ok(Verdict::Denied),
            Err(cause) => return Ok(Verdict::Unasked(cause)),
        }
        if !self.is_within_rate() {
            return Ok(Verdict::Limited);
        }
        let (wish, max) = (Wish::on_demand(name), self.on_demand.names_max.get() as usize);
        let is_remembered = blocking(&storage, move |storage| remember(storage, &wish, max)).await?;
        Ok(if is_remembered { Verdict::Ordered } else { Verdict::Full })
    }

    /// Takes one order of those that clients may begin.
    fn is_within_rate(&self) -> bool {
        let mut before = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let now = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX / 2);
        let taken = self.on_demand.orders.take(*before, now);
        taken.is_ok_and(|next| {
            *before = next;
            true
        })
    }
}

/// Remembers a name; blocks. If there are `max`, the one is forgotten that has been without a certificate longest; returns
/// `false` if all have one.
fn remember(storage: &Storage, wish: &Wish, max: usize) -> io::Result<bool> {
    if storage.has(&wish.notes_file()) {
        return Ok(true);
    }
    let known = storage.list(DEMANDED)?;
    if known.len() >= max {
        let wishes = known.iter().filter_map(|file| file.strip_suffix(".json")).map(Wish::on_demand);
        let lacking = wishes.filter(|wish| !storage.has(&wish.file()));
        let Some(oldest) = lacking.min_by_key(|wish| storage.written_at(&wish.notes_file())) else {
            return Ok(false);
        };
        storage.remove(&oldest.notes_file());
    }
    storage.keep(&wish.notes_file(), &Notes::default())?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn clients_of_a_name_that_was_forgotten_are_refused() {
        let directory = tempfile::TempDir::new().unwrap();
        let storage = Storage::open(directory.path()).unwrap();
        let demands = Demands::default();
        let ask = |name: &str| {
            let (answer, answered) = oneshot::channel();
            assert!(remember(&storage, &Wish::on_demand(name), 1).unwrap());
            demands.clients().insert(name.into(), vec![answer]);
            answered
        };
        let (first, mut second) = (ask("a.test"), ask("b.test"));
        let awaited = demands.names();
        let standings = [Standing::look(&storage, Wish::on_demand("b.test"), true).unwrap()];
        demands.refuse_forgotten(&awaited, &standings);
        assert_eq!(first.await, Ok(Demanded::Refused));
        assert!(second.try_recv().is_err() && demands.has("b.test") && !demands.has("a.test"));
    }

    #[test]
    fn a_name_without_a_certificate_makes_room() {
        let directory = tempfile::TempDir::new().unwrap();
        let storage = Storage::open(directory.path()).unwrap();
        let add = |name| remember(&storage, &Wish::on_demand(name), 2).unwrap();
        let certify = |name| storage.write(&Wish::on_demand(name).file(), b"a certificate").unwrap();
        assert!(add("a.test") && add("b.test") && add("a.test"));
        certify("a.test");
        assert!(add("c.test"));
        let mut known = storage.list(DEMANDED).unwrap();
        known.sort_unstable();
        assert_eq!(known, ["a.test.json", "c.test.json"]);
        certify("c.test");
        assert!(!add("d.test") && add("c.test"), "all have one");
    }
}
