//! The right to do a handshake: so many at once, and of them so many for one client.
//!
//! A handshake in flight holds memory and has cost work, so there is a bound. One client's share is a part of
//! it. A client that lets its handshake lie while others wait for a permit loses it: the longest first.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

use crate::waiting::{Client, Waiting};

/// Part of all permits that one client may have.
const SHARE: usize = 4;
/// How long a client may let its handshake lie while another one waits for a permit: some round trips over
/// a bad network.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often those who wait look for such a handshake.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Handshakes at once whose ClientHello is longer than one record. No usual client sends one.
const LONG_HELLOS_MAX: usize = 64;

type Shares = Mutex<HashMap<Client, Arc<Semaphore>>>;

/// All permits of an acceptor.
#[derive(Debug)]
pub(crate) struct Permits {
    all: Arc<Semaphore>,
    share: usize,
    shares: Arc<Shares>,
    /// Handshakes that wait for their clients.
    pub(crate) waiting: Waiting,
    /// See [`LONG_HELLOS_MAX`].
    pub(crate) long_hellos: Arc<Semaphore>,
}

/// One handshake's permit.
#[derive(Debug)]
pub(crate) struct Permit {
    _one: Option<OwnedSemaphorePermit>,
    _own: Option<OwnedSemaphorePermit>,
    /// Dropped behind the permit that came from it.
    _share: ClientShare,
}

impl Permits {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS))),
            share: max.div_ceil(SHARE).min(Semaphore::MAX_PERMITS),
            shares: Arc::default(),
            waiting: Waiting::new(usize::MAX), // permits are what bounds them
            long_hellos: Arc::new(Semaphore::new(LONG_HELLOS_MAX)),
        }
    }

    /// Waits until the client may do one more handshake.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn acquire(&self, client: Client) -> Permit {
        let share = ClientShare::of(client, &self.shares, self.share);
        let own = one_of(&share.permits, || self.waiting.shed(Some(client), PATIENCE)).await;
        let one = one_of(&self.all, || self.waiting.shed(None, PATIENCE)).await;
        Permit { _one: one, _own: own, _share: share }
    }

    /// Handshakes that may begin at once.
    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        self.all.available_permits()
    }
}

/// In the order of their coming. While it waits, `shed` makes room where it can.
async fn one_of(permits: &Arc<Semaphore>, shed: impl Fn() -> bool) -> Option<OwnedSemaphorePermit> {
    if let Ok(permit) = permits.clone().try_acquire_owned() {
        return Some(permit);
    }
    let mut acquired = pin!(permits.clone().acquire_owned());
    loop {
        shed();
        tokio::select! {
            biased;
            permit = &mut acquired => return permit.ok(), // the semaphore is never closed
            () = sleep(LOOK_INTERVAL) => {}
        }
    }
}

/// A client's share, which is forgotten when the last of its handshakes has ended.
#[derive(Debug)]
struct ClientShare {
    client: Client,
    permits: Arc<Semaphore>,
    shares: Arc<Shares>,
}

impl ClientShare {
    fn of(client: Client, shares: &Arc<Shares>, share: usize) -> Self {
        let permits = lock(shares).entry(client).or_insert_with(|| Arc::new(Semaphore::new(share))).clone();
        Self { client, permits, shares: shares.clone() }
    }
}

impl Drop for ClientShare {
    fn drop(&mut self) {
        let mut shares = lock(&self.shares);
        if Arc::strong_count(&self.permits) == 2 {
            shares.remove(&self.client); // only the map and this have it
        }
    }
}

fn lock(shares: &Shares) -> MutexGuard<'_, HashMap<Client, Arc<Semaphore>>> {
    shares.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use futures_util::FutureExt;

    use super::*;

    fn client(n: u8) -> Client {
        IpAddr::from([10, 0, 0, n]).into()
    }

    #[tokio::test]
    async fn one_client_takes_no_more_than_its_share() {
        let permits = Permits::new(8);
        let its = [permits.acquire(client(1)).await, permits.acquire(client(1)).await];
        assert!(permits.acquire(client(1)).now_or_never().is_none());
        let others = permits.acquire(client(2)).await;
        assert_eq!(permits.free(), 5);
        drop(its);
        let _again = permits.acquire(client(1)).await;
        drop(others);
        assert_eq!(lock(&permits.shares).len(), 1, "clients that have gone are forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn a_handshake_that_lies_makes_room_when_another_waits() {
        let permits = Permits::new(1);
        let held = permits.acquire(client(1)).await;
        let place = permits.waiting.enter(client(1));
        let lies = async {
            place.called_off().await;
            drop(held);
        };
        let started = tokio::time::Instant::now();
        let (permit, ()) = tokio::join!(permits.acquire(client(2)), lies);
        let waited = started.elapsed();
        assert!(waited >= PATIENCE && waited <= PATIENCE + LOOK_INTERVAL, "{waited:?}");
        drop(permit);
    }

    #[tokio::test]
    async fn who_stops_waiting_leaves_nothing_behind() {
        let permits = Permits::new(1);
        let held = permits.acquire(client(1)).await;
        assert!(permits.acquire(client(2)).now_or_never().is_none());
        assert_eq!(lock(&permits.shares).len(), 1);
        drop(held);
        assert!(lock(&permits.shares).is_empty());
        assert_eq!(permits.free(), 1);
    }
}
