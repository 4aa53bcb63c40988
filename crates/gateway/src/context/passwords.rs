//! Passwords are verified off the workers, since a hash takes up to seconds and megabytes: few at a time, on blocking
//! threads. What was right is known for a minute, by an HMAC, so that a page with a hundred files costs one hash.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::site::htpasswd::Htpasswd;

/// For how long a password that was right is known.
const KNOWN_TIME: Duration = Duration::from_secs(60);
/// How many are known.
const KNOWN_MAX: usize = 4096;
/// Requests that wait for a hash; more are sent away.
const WAITING_MAX: usize = 256;
/// Hashes at a time, at most.
const AT_ONCE_MAX: usize = 4;
/// Longer passwords are wrong, since some hashes take time for each byte. In bytes.
const PASSWORD_LEN_MAX: usize = 1024;

/// There are too many passwords to be verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Busy;

/// Verifies passwords for all workers.
pub struct Passwords {
    key: [u8; 32],
    /// Chooses the line that is computed for a user who is not in the file.
    decoys: RandomState,
    at_once: Arc<Semaphore>,
    waiting: AtomicUsize,
    known: Mutex<HashMap<[u8; 32], Instant>>,
}

impl Default for Passwords {
    fn default() -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        Self {
            key: rand::random(),
            decoys: RandomState::new(),
            at_once: Arc::new(Semaphore::new((cores / 2).clamp(1, AT_ONCE_MAX))),
            waiting: AtomicUsize::new(0),
            known: Mutex::default(),
        }
    }
}

/// One that waits, until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Passwords {
    /// Whether this is the user's password: a digest of the user's line if it is.
    ///
    /// # Errors
    /// If too many wait already.
    ///
    /// # Cancel safety
    /// A dropped call lets a hash that has begun come to its end on its thread.
    pub(crate) async fn verify(
        &self,
        users: &Arc<Htpasswd>,
        user: &str,
        password: &[u8],
    ) -> Result<Option<[u8; 32]>, Busy> {
        if password.len() > PASSWORD_LEN_MAX {
            return Ok(None);
        }
        let line = users.line(user);
        let Some(key) = self.key_of(&line.unwrap_or_default(), password) else { return Ok(None) };
        if self.is_known(&key) {
            return Ok(line);
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            drop(Waiting(&self.waiting));
            return Err(Busy);
        }
        let waiting = Waiting(&self.waiting);
        let Ok(permit) = self.at_once.clone().acquire_owned().await else { return Err(Busy) };
        if self.is_known(&key) {
            return Ok(line); // another request of the same page was first
        }
        let (users, name, password) = (users.clone(), Box::<str>::from(user), password.to_vec());
        let decoy = self.decoys.hash_one(user);
        let verifying = spawn_blocking(move || {
            let is_right = users.verify(&name, &password, decoy);
            drop(permit); // not before: a request that has gone away must not make room for another
            is_right
        });
        let is_right = verifying.await.unwrap_or(false);
        drop(waiting);
        if is_right {
            self.know(key);
        }
        Ok(line.filter(|_| is_right))
    }

    fn key_of(&self, line: &[u8; 32], password: &[u8]) -> Option<[u8; 32]> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).ok()?;
        mac.update(line);
        mac.update(password);
        Some(mac.finalize().into_bytes().into())
    }

    fn is_known(&self, key: &[u8; 32]) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(key).is_some_and(|since| since.elapsed() < KNOWN_TIME)
    }

    fn know(&self, key: [u8; 32]) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.retain(|_, since| since.elapsed() < KNOWN_TIME);
        }
        if known.len() < KNOWN_MAX {
            known.insert(key, Instant::now());
        }
    }
}

/// Nothing of the key.
impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    fn users(text: &str) -> Arc<Htpasswd> {
        Arc::new(Htpasswd::parse(text).unwrap())
    }

    const ALICE: &str = "alice:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=";

    #[tokio::test]
    async fn what_was_right_is_known_as_long_as_the_line_is_the_same() {
        let passwords = Passwords::default();
        let old = users(ALICE);
        let verify = async |users, user, password: &str| {
            passwords.verify(users, user, password.as_bytes()).await.unwrap().is_some()
        };
        assert!(verify(&old, "alice", "secret").await);
        assert!(!verify(&old, "alice", "wrong").await && !verify(&old, "bob", "secret").await);
        assert_eq!(passwords.known.lock().unwrap().len(), 1);
        passwords.at_once.close(); // no hash can be computed any more
        assert!(verify(&old, "alice", "secret").await);
        assert_eq!(passwords.verify(&old, "alice", b"wrong").await, Err(Busy));
        let new = users("alice:{SHA}2jmj7l5rSw0yVb/vlWAYkK/YBwk=");
        assert_eq!(passwords.verify(&new, "alice", b"secret").await, Err(Busy), "it is another line");
        assert_eq!(passwords.verify(&new, "bob", b"secret").await, Err(Busy), "the same is paid");
        assert_eq!(passwords.verify(&old, "alice", &[b'x'; 1025]).await, Ok(None));
        assert_eq!(passwords.waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn only_so_many_wait() {
        let passwords = Arc::new(Passwords::default());
        let users = users(ALICE);
        let all = passwords.at_once.available_permits();
        let _busy = passwords.at_once.clone().acquire_many_owned(u32::try_from(all).unwrap()).await.unwrap();
        let verify = || passwords.verify(&users, "alice", b"wrong");
        let mut waiting: Vec<_> = (0..WAITING_MAX).map(|_| Box::pin(verify())).collect();
        for one in &mut waiting {
            assert!(one.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        assert_eq!(verify().await, Err(Busy));
        drop(waiting);
        assert_eq!(passwords.waiting.load(Ordering::Relaxed), 0);
    }
}
