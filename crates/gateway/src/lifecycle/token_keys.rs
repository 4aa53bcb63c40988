//! Keys of tokens that change while the gateway runs: those of a URL are fetched by one task for each URL of the process,
//! whatever the number of workers and reloads, and files are looked at.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::config::jwt::{KEYS_LEN_MAX, look_again};
use crate::site::Site;
use crate::site::jwt::keys::KeySet;
use crate::site::jwt::source::{FetchedKeys, KeySource, KeyUrl, TokenKeys};
use crate::site::route::Route;
use crate::upstream::fetch::fetch;

/// How long the first keys are waited for, before a configuration is used.
const FIRST_KEYS: Duration = Duration::from_secs(5);
/// A server can't have its keys fetched more often, unless `refresh` says so.
const MAX_AGE_MIN: Duration = Duration::from_secs(60);
/// The first wait after a failure, of which each further one is twice as long; and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How often files are looked at.
const FILES_INTERVAL: Duration = Duration::from_secs(1);

/// All keys that change.
#[derive(Default)]
pub(super) struct TokenKeyKeeper {
    running: Mutex<Vec<Running>>,
    files: Mutex<Option<AbortOnDropHandle<()>>>,
    /// A key is gone: sessions are judged again.
    lost: watch::Sender<()>,
}

struct Running {
    keys: Arc<FetchedKeys>,
    _task: AbortOnDropHandle<()>,
}

/// The keys that routes name.
fn all_keys(routes: &[Arc<Route>]) -> impl Iterator<Item = &Arc<TokenKeys>> {
    routes.iter().filter_map(|route| Some(&route.access.as_ref()?.auth.as_ref()?.jwt.as_ref()?.keys))
}

impl TokenKeyKeeper {
    /// Fetches the keys of `routes`, and waits for those that were never fetched, but not for long. A URL that is
    /// fetched already goes on as it is.
    pub(super) async fn prepare(&self, routes: &[Arc<Route>]) {
        let mut awaited = Vec::new();
        for keys in all_keys(routes) {
            let KeySource::Url(url) = &keys.source else { continue };
            let fetched = self.follow(url);
            keys.adopt(fetched.clone());
            awaited.push(fetched);
        }
        let all = async {
            for fetched in &awaited {
                fetched.first().await;
            }
        };
        let _ = timeout(FIRST_KEYS, all).await; // requests get 503 until they come
    }

    /// Keeps what `routes` name, and nothing else.
    pub(super) fn keep(&self, routes: &[Arc<Route>]) {
        let is_named = |running: &Running| {
            all_keys(routes).any(|keys| keys.fetched().is_some_and(|keys| Arc::ptr_eq(keys, &running.keys)))
        };
        lock(&self.running).retain(is_named);
    }

    /// Looks at the files of `site` from now on.
    pub(super) fn watch(&self, site: Arc<ArcSwap<Site>>) {
        let task = tokio::spawn(watch_files(site, self.lost.clone()));
        *lock(&self.files) = Some(AbortOnDropHandle::new(task));
    }

    /// Changes when a key is gone, by which tokens of live sessions may be signed.
    pub(super) fn lost(&self) -> watch::Receiver<()> {
        self.lost.subscribe()
    }

    fn follow(&self, url: &Arc<KeyUrl>) -> Arc<FetchedKeys> {
        let mut running = lock(&self.running);
        if let Some(known) = running.iter().find(|running| running.keys.url == *url) {
            return known.keys.clone();
        }
        let keys = Arc::new(FetchedKeys::new(url.clone()));
        let task = AbortOnDropHandle::new(tokio::spawn(keep_fetched(keys.clone(), self.lost.clone())));
        running.push(Running { keys: keys.clone(), _task: task });
        keys
    }
}

/// Fetches keys again and again.
async fn keep_fetched(keys: Arc<FetchedKeys>, lost: watch::Sender<()>) {
    let url = format!("{}{}", keys.url.endpoint.url(), keys.url.uri);
    let mut failures = 0;
    loop {
        let (result, max_age) = fetch_once(&keys.url).await;
        let wait = match result {
            Ok(fetched) => {
                if keys.end(Some(fetched)) {
                    lost.send_replace(());
                }
                if failures > 0 {
                    info!(url, "the keys of tokens can be fetched again");
                }
                failures = 0;
                let refresh = keys.url.refresh;
                spread(max_age.map_or(refresh, |age| age.max(MAX_AGE_MIN).min(refresh)).max(RETRY.0))
            }
            Err(cause) => {
                keys.end(None);
                failures += 1;
                let wait = spread(RETRY.0.saturating_mul(1 << (failures - 1).min(10_u32)).min(RETRY.1));
                let again_in_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                let meanwhile = if keys.is_there() {
                    "those that there are stay in use"
                } else {
                    "requests get 503 until they can"
                };
                warn!(url, cause, again_in_ms, "the keys of tokens can't be fetched; {meanwhile}");
                wait
            }
        };
        tokio::select! {
            () = sleep(wait) => {}
            () = keys.wanted() => {}
        }
    }
}

/// The wait, a tenth more or less: other gateways wait for the same server.
fn spread(wait: Duration) -> Duration {
    wait.mul_f64(0.9 + 0.2 * rand::random::<f64>())
}

/// Fetches keys that nothing is done with, within `patience`.
///
/// # Errors
/// Why there are none.
pub(super) async fn try_fetch(url: &KeyUrl, patience: Duration) -> Result<(), String> {
    let tried = timeout(patience, fetch_once(url)).await;
    tried.map_or_else(|_| Err(format!("no answer within {patience:?}")), |(keys, _)| keys.map(|_| ()))
}

/// The keys, or why there are none; and for how long they are good.
async fn fetch_once(url: &KeyUrl) -> (Result<KeySet, String>, Option<Duration>) {
    match fetch(&url.endpoint, &url.uri, url.timeout, KEYS_LEN_MAX).await {
        Ok(fetched) => {
            let keys = KeySet::read(&fetched.bytes).map_err(|what| format!("the answer {what}"));
            (keys, fetched.max_age)
        }
        Err(e) => (Err(e.to_string()), None),
    }
}

/// Reads files again that have changed.
async fn watch_files(site: Arc<ArcSwap<Site>>, lost: watch::Sender<()>) {
    let mut told = HashMap::<PathBuf, String>::new();
    loop {
        sleep(FILES_INTERVAL).await;
        let site = site.load_full();
        let is_file = |keys: &&Arc<TokenKeys>| matches!(keys.source, KeySource::File(_));
        let files: Vec<_> = all_keys(site.all_routes()).filter(is_file).cloned().collect();
        if files.is_empty() {
            continue;
        }
        let look = move || files.iter().filter_map(|keys| look_again(keys)).collect::<Vec<_>>();
        let Ok(changes) = spawn_blocking(look).await else { continue };
        for change in changes {
            let file = change.file.display();
            match change.result {
                Ok(loses_some) => {
                    info!(%file, "the keys of tokens were read again");
                    told.remove(&change.file);
                    if loses_some {
                        lost.send_replace(());
                    }
                }
                // It is looked at again and again, and told once, also of a second file with the same fault.
                Err(cause) if told.get(&change.file) == Some(&cause) => {}
                Err(cause) => {
                    warn!(%file, cause, "the keys of tokens can't be read again; those that there are stay in use");
                    told.insert(change.file, cause);
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
