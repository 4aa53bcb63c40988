//! What views are made of, and who gets them: the same for requests and for viewers.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::config;
use crate::net::listening::{ClientName, PeerName};
use crate::ops::control::ask::ask;
use crate::ops::control::protocol::{ControlResponse, Request as ControlRequest};
use crate::ops::control::server::Access;
use crate::ops::page::facts::Facts;
use crate::ops::page::guard::{Needs, PageRules};
use crate::ops::page::history;
use crate::ops::page::overview;
use crate::ops::page::parts::{CANNOT_SHOW, Rendered};
use crate::ops::page::reply::Denied;
use crate::ops::page::sessions;
use crate::ops::page::view::{self, View};
use crate::ops::page::watch::{Look, Rates, SessionRow, Watch};
use crate::site::rate::Rate;

/// Viewers at a time, each with a WebSocket.
pub(super) const VIEWERS_MAX: usize = 64;
/// Wrong tokens from one address, until it has to wait.
const FAILURES: &str = "10/m";
/// Views that are kept until the next look.
const RENDERED_MAX: usize = 2 * VIEWERS_MAX;

/// What the page is made of, and who may see it.
#[derive(Debug)]
pub(crate) struct Page {
    access: Access,
    rules: ArcSwap<PageRules>,
    pub(super) watch: Arc<Watch>,
    failures: Option<Rate>,
    /// One for each viewer.
    pub(super) places: Arc<Semaphore>,
    /// Viewers.
    pub(crate) tasks: TaskTracker,
    /// They end.
    pub(super) stop: CancellationToken,
    /// Views are made one at a time, and not on the main thread: however many viewers ask for however much, they take the
    /// time of one thread, and none of what the main loop does waits for them.
    kept: Mutex<Kept>,
}

/// Views of a look, for all viewers of the same.
#[derive(Debug, Default)]
struct Kept {
    /// The look's.
    number: u64,
    views: HashMap<String, Arc<Rendered>>,
}

impl From<&config::Admin> for PageRules {
    fn from(admin: &config::Admin) -> Self {
        Self {
            hosts: admin.hosts.clone(),
            token: admin.token.as_ref().and_then(|file| file.get().cloned()),
            has_actions: admin.has_actions,
        }
    }
}

impl Page {
    /// Looks at the gateway until `stop`. Within a runtime.
    pub(crate) fn open(access: Access, rules: PageRules, stop: CancellationToken) -> Arc<Self> {
        let watch = Watch::new(access.overview.clone());
        let (looking, stopped) = (watch.clone().run(), stop.clone());
        tokio::spawn(async move { stopped.run_until_cancelled(looking).await });
        Arc::new(Self {
            access,
            rules: ArcSwap::from_pointee(rules),
            watch,
            failures: Rate::parse(FAILURES),
            places: Arc::new(Semaphore::new(VIEWERS_MAX)),
            tasks: TaskTracker::new(),
            stop,
            kept: Mutex::default(),
        })
    }

    /// A reload has changed who may see it.
    pub(crate) fn adopt(&self, rules: PageRules) {
        self.rules.store(Arc::new(rules));
    }

    pub(super) fn rules(&self) -> Arc<PageRules> {
        self.rules.load_full() // never a guard: arc-swap's are not for holding
    }

    /// Whether one who sends `token` may see what needs `needs`.
    pub(super) fn admit(&self, needs: Needs, token: Option<&[u8]>, peer: SocketAddr) -> Result<(), Denied> {
        match needs {
            Needs::Nothing => Ok(()),
            Needs::Token => self.check(token, peer.ip()),
        }
    }

    /// Whether `token` is right. So many wrong ones come from an address, and no more.
    fn check(&self, token: Option<&[u8]>, peer: IpAddr) -> Result<(), Denied> {
        let rules = self.rules();
        if rules.token.is_none() {
            return Err(Denied::NoToken);
        }
        let token = token.ok_or(Denied::Missing)?;
        let quotas = &self.access.overview.quotas;
        let client = quotas.operator(peer);
        let wait = self.failures.and_then(|rate| quotas.wait(client, rate));
        if let Some(wait) = wait {
            return Err(Denied::TooMany(wait));
        }
        if rules.knows(token) {
            return Ok(());
        }
        if let Some(rate) = self.failures {
            let _ = quotas.request(client, rate); // the next one is refused
        }
        warn!(peer = %ClientName(peer), "a wrong token came to the admin listener");
        Err(Denied::Wrong)
    }

    /// A view of `look`, the same for all who ask for it.
    pub(super) async fn render(self: &Arc<Self>, view: &View, look: &Arc<Look>) -> Arc<Rendered> {
        let key = view.target();
        let session = match view {
            View::Session(id) => self.session(*id, look).await,
            View::Overview | View::Sessions(_) => None,
        };
        let mut kept = self.kept.lock().await;
        if kept.number < look.number {
            *kept = Kept { number: look.number, views: HashMap::new() };
        }
        if let Some(rendered) = kept.views.get(&key).filter(|_| kept.number == look.number) {
            return rendered.clone();
        }
        let (page, view, seen) = (self.clone(), view.clone(), look.clone());
        let making = spawn_blocking(move || page.make(&view, session.as_ref(), &seen));
        let rendered = Arc::new(making.await.unwrap_or_else(|_| Rendered::failed()));
        if kept.number == look.number && kept.views.len() < RENDERED_MAX {
            kept.views.insert(key, rendered.clone());
        }
        rendered
    }

    /// Takes a while: thousands of sessions are searched and sorted.
    fn make(&self, view: &View, session: Option<&SessionRow>, look: &Look) -> Rendered {
        let has_actions = self.rules().has_actions;
        match view {
            View::Overview => overview::view(&Facts::gather(&self.access.overview), look, has_actions),
            View::Sessions(query) => sessions::list(query, look),
            View::Session(id) => sessions::one(*id, session, look, has_actions),
        }
    }

    /// A session as it is now, and what it moved at `look`; `None`: it doesn't live.
    async fn session(&self, id: u64, look: &Look) -> Option<SessionRow> {
        let info = ask(&self.access.overview, &[id]).await.pop()?;
        let rates =
            look.sessions.iter().find(|row| row.info.id == id).map_or(Rates::default(), |row| row.rates);
        Some(SessionRow { info, rates })
    }

    /// The same as HTML has, for programs.
    pub(super) async fn json(self: &Arc<Self>, view: &View, look: &Arc<Look>) -> String {
        let session = match view {
            View::Session(id) => self.session(*id, look).await,
            View::Overview | View::Sessions(_) => None,
        };
        let _one_at_a_time = self.kept.lock().await;
        let (page, view, seen) = (self.clone(), view.clone(), look.clone());
        let making = spawn_blocking(move || page.make_json(&view, session.as_ref(), &seen).to_string());
        making.await.unwrap_or_else(|_| json!({ "error": CANNOT_SHOW }).to_string())
    }

    fn make_json(&self, view: &View, session: Option<&SessionRow>, look: &Look) -> Value {
        let row = |row: &SessionRow| json!({ "session": row.info, "per_second": row.rates });
        match view {
            View::Overview => {
                let mut all = json!(Facts::gather(&self.access.overview));
                all["at"] = json!(look.at);
                all["per_second"] = json!(look.rates);
                all["history"] = json!({
                    "slot_seconds": history::SLOT_SECS,
                    "covered_ms": look.history.covered_ms(),
                    "routes": look.history.series(),
                });
                all["busiest"] = sessions::busiest_of(look).into_iter().map(row).collect();
                all["slowest"] = sessions::slowest_of(look).into_iter().map(row).collect();
                all
            }
            View::Sessions(query) => {
                let (rows, found, page) = query.select(&look.sessions);
                let rows: Vec<_> = rows.into_iter().map(row).collect();
                json!({ "at": look.at, "found": found, "page": page + 1, "page_length": view::PAGE_LEN, "sessions": rows })
            }
            View::Session(id) => match session {
                Some(session) => row(session),
                None => json!({ "error": format!("there is no live session {id}") }),
            },
        }
    }

    /// Whether one who sends `token` may change something. The token is wanted on every address.
    pub(super) fn admit_action(&self, token: Option<&[u8]>, peer: SocketAddr) -> Result<(), Denied> {
        if !self.rules().has_actions {
            return Err(Denied::NoActions);
        }
        self.check(token, peer.ip())
    }

    /// Does what an operator wants, as the control socket does, and logs it.
    pub(super) async fn act(&self, order: &ControlRequest, peer: SocketAddr) -> ControlResponse {
        let done = self.access.change(order).await;
        self.kept.lock().await.views.clear(); // it may show what has changed
        let ControlRequest { command, target, id, subject, client, .. } = order;
        let client = client.map(|client| client.to_string());
        info!(peer = %PeerName(peer), command, target, id, subject, client, ok = done.ok, error = done.error, "ordered by the page");
        done
    }
}
