//! Names of servers: one task for each name of the process, on the main thread, looks it up whenever its TTL has ended.
//! Workers only read what was found.

mod files;
mod lookup;
mod runtime;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};
use zeroize::Zeroizing;

use self::files::{read, stamps};
use self::lookup::Source;
use super::prober::Down;
use crate::config::DnsSettings;
use crate::net::clock;
use crate::site::Site;
use crate::site::health::OnDown;
use crate::site::known_name::{Change, KnownName, Names};
use crate::site::names::{Found, Question, Resolve, wait_after};
use crate::site::route::Route;
use crate::site::written::Stamp;

/// How often the files are looked at.
const FILES_INTERVAL: Duration = Duration::from_secs(2);
/// How long the first answers are waited for, before a configuration is used.
const FIRST_ANSWERS: Duration = Duration::from_secs(5);

/// Looks up all names of the site.
pub(super) struct Resolver {
    names: Arc<Names>,
    running: Mutex<BTreeMap<Question, AbortOnDropHandle<()>>>,
    shared: Arc<Shared>,
    watcher: Mutex<Option<AbortOnDropHandle<()>>>,
}

/// What all tasks use.
struct Shared {
    settings: Mutex<DnsSettings>,
    /// What is asked; another one after each change of the files. `None`: there is no name yet.
    source: watch::Sender<Option<Arc<Source>>>,
    /// `None`: it isn't served yet.
    site: Mutex<Option<Arc<ArcSwap<Site>>>>,
    /// The servers are others.
    changed: watch::Sender<()>,
    /// Where servers go whose sessions are to be closed.
    down: mpsc::UnboundedSender<Down>,
}

/// The names in the servers of these routes, each once.
fn questions(routes: &[Arc<Route>]) -> BTreeSet<Question> {
    let upstreams = routes.iter().filter_map(|route| route.action.upstream());
    let names = upstreams.flat_map(|upstream| {
        let named = upstream.servers.iter().filter_map(|server| server.endpoint.host_name());
        named.map(|name| Question::new(name, upstream.resolve))
    });
    names.collect()
}

impl Resolver {
    /// One that looks nothing up yet. Sessions of servers that leave may have to be closed, which `down` is told.
    pub(super) fn new(down: mpsc::UnboundedSender<Down>) -> Arc<Self> {
        let shared = Shared {
            settings: Mutex::default(),
            source: watch::channel(None).0,
            site: Mutex::default(),
            changed: watch::channel(()).0,
            down,
        };
        let resolver = Self {
            names: Arc::default(),
            running: Mutex::default(),
            shared: Arc::new(shared),
            watcher: Mutex::default(),
        };
        Arc::new(resolver)
    }

    /// What is found changes the servers of `site` from now on, which is told to the receiver.
    pub(super) fn serve(&self, site: Arc<ArcSwap<Site>>) -> watch::Receiver<()> {
        *self.shared.site.lock().unwrap_or_else(PoisonError::into_inner) = Some(site);
        self.shared.changed.subscribe()
    }

    /// What is known of all names.
    pub(super) fn names(&self) -> &Arc<Names> {
        &self.names
    }

    /// Begins with what another process has found of the names of `routes`.
    pub(super) fn inherit(&self, pieces: &[Zeroizing<Vec<u8>>], routes: &[Arc<Route>]) {
        let questions = questions(routes);
        for piece in pieces {
            let arrived = self.names.arrive(piece, |question| questions.contains(question), clock::now());
            if let Err(e) = arrived {
                warn!(cause = %e, "what the old process knows of a name is lost");
            }
        }
    }

    /// Looks up the names of `routes`, and waits for the first answers, but not for long. Returns what is wrong.
    pub(super) async fn prepare(&self, routes: &[Arc<Route>], settings: &DnsSettings) -> Vec<String> {
        let questions = questions(routes);
        if questions.is_empty() {
            return Vec::new();
        }
        self.use_settings(settings).await;
        let mut awaited = Vec::new();
        for question in &questions {
            let (name, _) = self.names.add(question);
            name.adopt_by(routes);
            let is_again = question.resolve == Resolve::Once;
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            if is_again || !running.contains_key(question) {
                let task = tokio::spawn(follow(name.clone(), self.shared.clone()));
                running.insert(question.clone(), AbortOnDropHandle::new(task));
            }
            awaited.push(name);
        }
        // What another process has found lasts until the first answer.
        let is_new =
            |name: &&Arc<KnownName>| name.found().is_none() || name.question.resolve == Resolve::Once;
        let all = async {
            for name in awaited.iter().filter(is_new) {
                name.looked().await;
            }
        };
        let _ = timeout(FIRST_ANSWERS, all).await;
        let problem = |name: &Arc<KnownName>| {
            let last = name.last();
            let why = match last.problem {
                Some(why) => why,
                None if last.ended.is_none() => "the DNS servers do not answer".into(),
                None => return None,
            };
            let kept = if name.found().is_some() { "; its last addresses stay in use" } else { "" };
            Some(format!("the backend's name {} can't be resolved: {why}{kept}", name.question))
        };
        awaited.iter().filter_map(problem).collect()
    }

    /// What has been found is what the servers of `routes` are from now on; new ones are there `since`.
    pub(super) fn publish(&self, routes: &[Arc<Route>], since: Duration) {
        for question in questions(routes) {
            self.names.add(&question).0.adopt_by(routes);
        }
        publish(routes, since, &self.shared.down);
    }

    /// Names that `routes` don't have are looked up no longer.
    pub(super) fn keep(&self, routes: &[Arc<Route>]) {
        let questions = questions(routes);
        self.names.keep(|question| questions.contains(question));
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|question, _| questions.contains(question));
        if questions.is_empty() {
            self.watcher.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }

    async fn use_settings(&self, settings: &DnsSettings) {
        let is_same = {
            let mut used = self.shared.settings.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *used, settings.clone()) == *settings
        };
        let mut known = None;
        if !is_same || self.shared.source.borrow().is_none() {
            known = Some(self.shared.renew().await);
        }
        let mut watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        if watcher.is_none() || known.is_some() {
            let task = tokio::spawn(watch_files(self.shared.clone(), known));
            *watcher = Some(AbortOnDropHandle::new(task));
        }
    }
}

impl KnownName {
    /// Endpoints of `routes` that have this name know it from now on.
    fn adopt_by(self: &Arc<Self>, routes: &[Arc<Route>]) {
        for upstream in routes.iter().filter_map(|route| route.action.upstream()) {
            for server in &upstream.servers {
                let name = server.endpoint.host_name();
                if name.is_some_and(|name| Question::new(name, upstream.resolve) == self.question) {
                    server.endpoint.named(self);
                }
            }
        }
    }
}

impl Shared {
    /// Reads the files, and uses what they say. Returns their stamps.
    async fn renew(&self) -> [Stamp; 2] {
        let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let asks_system = settings.servers.is_empty();
        let reading = spawn_blocking(move || {
            let stamps = stamps(&settings); // before: what changes in between is read again
            (stamps, read(&settings))
        });
        let Ok((stamps, files)) = reading.await else { return [None; 2] };
        for problem in &files.problems {
            warn!(problem, "what the DNS is asked with can't be read");
        }
        match Source::new(files, asks_system) {
            Ok(source) => drop(self.source.send_replace(Some(Arc::new(source)))),
            Err(e) => warn!(cause = %e, "the DNS can't be asked"),
        }
        stamps
    }
}

/// What has been found is what the servers are from now on.
fn publish(routes: &[Arc<Route>], since: Duration, down: &mpsc::UnboundedSender<Down>) {
    for upstream in routes.iter().filter_map(|route| route.action.upstream()) {
        for server in upstream.resolve_now(since, clock::now()) {
            info!(
                upstream = %upstream,
                backend = %server.endpoint,
                sessions = server.sessions(),
                "a backend has left: its name leads elsewhere"
            );
            if upstream.on_down == OnDown::Close {
                let _ = down.send(server); // the gateway is about to end
            }
        }
    }
}

/// Files that have changed count at once.
async fn watch_files(shared: Arc<Shared>, mut known: Option<[Stamp; 2]>) {
    loop {
        sleep(FILES_INTERVAL).await;
        let settings = shared.settings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Ok(now) = spawn_blocking(move || stamps(&settings)).await else { continue };
        if known.is_some_and(|known| known != now) {
            info!("resolv.conf or the hosts file has changed: names are looked up again");
            known = Some(shared.renew().await);
        } else {
            known = Some(now);
        }
    }
}

/// Looks one name up, again and again.
async fn follow(name: Arc<KnownName>, shared: Arc<Shared>) {
    let mut sources = shared.source.subscribe();
    loop {
        let source = sources.borrow_and_update().clone();
        let Some(source) = source else {
            if sources.changed().await.is_err() {
                return;
            }
            continue;
        };
        let answer = source.ask(&name.question, name.found().is_some()).await;
        let ttl = match &answer {
            Ok((_, ttl)) => Ok(*ttl),
            Err(unresolved) => Err(unresolved.for_time),
        };
        let is_first = name.last().ended.is_none();
        let change = name.settle(answer.as_ref().map(|(found, _)| found.clone()), clock::now());
        if change == Change::Found {
            let site = shared.site.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(site) = site {
                publish(site.load_full().all_routes(), Duration::ZERO, &shared.down);
            }
            shared.changed.send_replace(());
        }
        report(&name, change, is_first);
        if name.question.resolve == Resolve::Once && ttl.is_ok() {
            return;
        }
        let failures = name.last().failures;
        let wait = wait_after(ttl, failures, name.found().is_some(), rand::random());
        tokio::select! {
            () = sleep(wait) => {}
            changed = sources.changed() => if changed.is_err() { return },
            () = name.wanted() => debug!(name = %name.question, "looked up early: a connection has failed"),
        }
    }
}

fn report(name: &KnownName, change: Change, is_first: bool) {
    let found = name.found().map(|found: Arc<Found>| found.list().join(", ")).unwrap_or_default();
    let question = &name.question;
    match change {
        Change::Nothing => {}
        Change::Found if is_first => info!(name = %question, found, "a name is resolved"),
        Change::Found => info!(name = %question, found, "a name leads elsewhere"),
        Change::Back => info!(name = %question, found, "a name is resolved again"),
        Change::Lost => {
            let cause = name.last().problem.unwrap_or_default();
            if found.is_empty() {
                warn!(name = %question, cause, "a name can't be resolved");
            } else {
                warn!(name = %question, cause, kept = found, "a name can't be resolved any more: its last addresses stay in use");
            }
        }
    }
}
