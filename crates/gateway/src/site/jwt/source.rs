//! Where the keys of tokens come from: a file, or a URL; and the keys that have come.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::Uri;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use super::keys::KeySet;
use crate::site::endpoint::Endpoint;
use crate::site::written::{Place, Stamp};

/// Between two times that keys are fetched because a token names one that is not known: clients can name any.
const AGAIN_MIN: Duration = Duration::from_secs(60);

/// Where keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A file.
    File(PathBuf),
    /// A URL.
    Url(Arc<KeyUrl>),
}

/// A URL of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyUrl {
    /// The server.
    pub endpoint: Arc<Endpoint>,
    /// Path and query.
    pub uri: Uri,
    /// How long it may take for its answer.
    pub timeout: Duration,
    /// It is asked again after this time at the latest.
    pub refresh: Duration,
}

/// The keys that sign tokens.
#[derive(Debug)]
pub struct TokenKeys {
    /// Where they come from.
    pub source: KeySource,
    /// Where the configuration says so.
    pub written_at: Place,
    /// Those of the file, and the stamp that it had.
    read: ArcSwapOption<(KeySet, Stamp)>,
    /// Those of the URL, whichever generation has asked for them first.
    fetched: OnceLock<Arc<FetchedKeys>>,
}

impl TokenKeys {
    /// None have come yet.
    #[must_use]
    pub fn new(source: KeySource, written_at: Place) -> Self {
        Self { source, written_at, read: ArcSwapOption::empty(), fetched: OnceLock::new() }
    }

    /// Understands what the file holds, and uses that from now on. Says whether a key that there was is gone.
    ///
    /// # Errors
    /// What is wrong with it; no text of it is repeated.
    pub fn use_text(&self, text: &[u8], stamp: Stamp) -> Result<bool, &'static str> {
        let keys = KeySet::read(text)?;
        let loses_some = self.read.load().as_ref().is_some_and(|read| read.0.loses_some(&keys));
        self.read.store(Some(Arc::new((keys, stamp))));
        Ok(loses_some)
    }

    /// The stamp of the file when its keys were read.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        self.read.load().as_ref().and_then(|read| read.1)
    }

    /// The keys are what `fetched` has. Only the first counts.
    pub fn adopt(&self, fetched: Arc<FetchedKeys>) {
        let _ = self.fetched.set(fetched);
    }

    /// What fetches them, if they come from a URL.
    #[must_use]
    pub fn fetched(&self) -> Option<&Arc<FetchedKeys>> {
        self.fetched.get()
    }

    /// Says something of the keys; `None`: none have come.
    pub fn with<T>(&self, say: impl FnOnce(&KeySet) -> T) -> Option<T> {
        match &self.source {
            KeySource::File(_) => self.read.load_full().map(|read| say(&read.0)),
            KeySource::Url(_) => self.fetched.get()?.keys.load_full().map(|keys| say(&keys)),
        }
    }
}

impl PartialEq for TokenKeys {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for TokenKeys {}

/// The keys of a URL, for the life of the process: written by the one task that fetches them, read by all workers.
#[derive(Debug)]
pub struct FetchedKeys {
    /// Where they come from.
    pub url: Arc<KeyUrl>,
    keys: ArcSwapOption<KeySet>,
    /// When a token last named a key that is not known, and that was followed.
    asked: Mutex<Option<Instant>>,
    /// They are to be fetched at once, and have not been.
    is_wanted: AtomicBool,
    wanted: Notify,
    /// How often they have been fetched, or could not be.
    ended: watch::Sender<u64>,
}

impl FetchedKeys {
    /// None have come yet.
    #[must_use]
    pub fn new(url: Arc<KeyUrl>) -> Self {
        Self {
            url,
            keys: ArcSwapOption::empty(),
            asked: Mutex::default(),
            is_wanted: AtomicBool::new(false),
            wanted: Notify::new(),
            ended: watch::channel(0).0,
        }
    }

    /// Some have come.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.keys.load().is_some()
    }

    /// The URL has been asked: these are the keys from now on; `None`: those that there are stay. Says whether a key that
    /// there was is gone.
    pub fn end(&self, keys: Option<KeySet>) -> bool {
        let mut loses_some = false;
        if let Some(keys) = keys {
            let keys = Arc::new(keys);
            let old = self.keys.swap(Some(keys.clone()));
            loses_some = old.is_some_and(|old| old.loses_some(&keys));
        }
        self.is_wanted.store(false, Ordering::Release);
        self.ended.send_modify(|count| *count += 1);
        loses_some
    }

    /// Waits until the URL has been asked once.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn first(&self) {
        let _ = self.ended.subscribe().wait_for(|count| *count > 0).await; // `self` has the sender
    }

    /// Waits until the keys are to be fetched before their time.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// A token names a key that is not known: has the keys fetched again, at most once a minute, and waits until that
    /// has happened. `false`: it has not.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn ask_again(&self) -> bool {
        let mut ended = self.ended.subscribe();
        {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            if asked.is_none_or(|at| at.elapsed() >= AGAIN_MIN) {
                *asked = Some(Instant::now());
                self.is_wanted.store(true, Ordering::Release);
                self.wanted.notify_one();
            } else if !self.is_wanted.load(Ordering::Acquire) {
                return false;
            }
        }
        matches!(timeout(self.url.timeout, ended.changed()).await, Ok(Ok(())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetched() -> Arc<FetchedKeys> {
        let second = Duration::from_secs(1);
        let url = KeyUrl {
            endpoint: Arc::new(Endpoint::new("issuer.test", 80)),
            uri: Uri::from_static("/keys"),
            timeout: second,
            refresh: 600 * second,
        };
        Arc::new(FetchedKeys::new(Arc::new(url)))
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_key_has_them_fetched_once_a_minute() {
        let fetched = fetched();
        let fetching = tokio::spawn({
            let fetched = fetched.clone();
            async move {
                for count in 0.. {
                    fetched.wanted().await;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    fetched.end(None);
                    if count == 1 {
                        return;
                    }
                }
            }
        });
        // Those that come meanwhile wait for the same answer.
        let both = tokio::join!(fetched.ask_again(), fetched.ask_again());
        assert_eq!(both, (true, true));
        for _ in 0..59 {
            assert!(!fetched.ask_again().await);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(fetched.ask_again().await);
        fetching.await.unwrap();
        // An answer that doesn't come is waited for up to the URL's `timeout`.
        tokio::time::sleep(Duration::from_secs(60)).await;
        let begin = Instant::now();
        assert!(!fetched.ask_again().await);
        assert_eq!(begin.elapsed(), fetched.url.timeout);
    }
}
