//! Which sessions are watched, and for whom. One watcher a session: it sees everything, and a second one could see
//! no more.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use frame_core::handle::SessionHandle;
use frame_core::tap::{TapReceiver, TapSender, Watch, tap_queue};
use tokio_util::sync::CancellationToken;

use crate::site::route_id::RouteId;

/// Taps at a time.
pub(crate) const TAPS_MAX: usize = 16;
/// Sessions that one tap watches.
pub(crate) const TAP_SESSIONS_MAX: usize = 32;

/// All taps of the process.
#[derive(Debug, Default)]
pub struct Taps {
    /// Sessions that are watched, and taps that wait for one to open: all that a session looks at when it begins or ends.
    wanted: AtomicUsize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// `None`: the configuration allows none. Cancelled when it does so no longer.
    allowed: Option<CancellationToken>,
    next: u64,
    running: usize,
    watched: HashMap<u64, Watched>,
    awaiting: Vec<Awaiting>,
}

#[derive(Debug)]
struct Watched {
    tap: u64,
    capture: Capture,
    sender: TapSender,
    handle: SessionHandle,
    /// The gateway's address, once the session knows that it is watched.
    local: Option<SocketAddr>,
}

#[derive(Debug)]
struct Awaiting {
    tap: u64,
    which: Which,
    capture: Capture,
    sender: TapSender,
}

/// How much is copied of each payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capture {
    /// In bytes.
    pub len: usize,
    /// The same where messages may be compressed.
    pub deflated_len: usize,
}

/// Which sessions a tap is for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Which {
    /// Those of this route; `None`: of all.
    pub route: Option<RouteId>,
    /// Those of this client; `None`: of all.
    pub client: Option<IpAddr>,
}

impl Which {
    /// This is one of them.
    #[must_use]
    pub fn covers(&self, route: &RouteId, client: IpAddr) -> bool {
        self.route.as_ref().is_none_or(|wanted| wanted == route)
            && self.client.is_none_or(|wanted| wanted.to_canonical() == client.to_canonical())
    }
}

/// Why there is no tap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TapRefusal {
    /// The configuration allows none.
    #[error("taps are off: write tap = true in [control] of the configuration, and reload")]
    Off,
    /// There are enough.
    #[error("{TAPS_MAX} taps are running, and there may be no more: end one of them")]
    TooMany,
}

/// A tap that runs until it is dropped.
#[derive(Debug)]
pub struct Tap {
    id: u64,
    capture: Capture,
    taps: Arc<Taps>,
    sender: TapSender,
    /// Cancelled when taps are allowed no longer.
    pub off: CancellationToken,
}

impl Taps {
    /// Allows taps, or ends those that run and allows no more.
    pub fn allow(&self, is_allowed: bool) {
        let allowed = &mut self.lock().allowed;
        match (is_allowed, &*allowed) {
            (true, None) => *allowed = Some(CancellationToken::new()),
            (false, Some(off)) => {
                off.cancel();
                *allowed = None;
            }
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// Taps that run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.lock().running
    }

    /// Begins a tap that watches nothing yet, and copies so much as `capture` says.
    ///
    /// # Errors
    /// If there may be none.
    pub fn begin(self: &Arc<Self>, capture: Capture) -> Result<(Tap, TapReceiver), TapRefusal> {
        let mut inner = self.lock();
        let off = inner.allowed.clone().ok_or(TapRefusal::Off)?;
        if inner.running == TAPS_MAX {
            return Err(TapRefusal::TooMany);
        }
        inner.running += 1;
        inner.next += 1;
        let (sender, receiver) = tap_queue();
        Ok((Tap { id: inner.next, capture, taps: self.clone(), sender, off }, receiver))
    }

    /// Some session is watched, or is to be when it opens.
    #[inline]
    pub(crate) fn are_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) > 0
    }

    /// A session opens.
    #[cold]
    pub(crate) fn on_open(&self, session: u64, handle: &SessionHandle, route: &RouteId, client: IpAddr) {
        let mut inner = self.lock();
        if let Some(at) = inner.awaiting.iter().position(|one| one.which.covers(route, client)) {
            let Awaiting { tap, capture, sender, .. } = inner.awaiting.swap_remove(at);
            inner
                .watched
                .insert(session, Watched { tap, capture, sender, handle: handle.clone(), local: None });
        }
    }

    /// How a session is watched that begins, or has been interrupted; `None`: it is not. Its client came to `local`.
    #[cold]
    pub(crate) fn watch(
        &self,
        session: u64,
        local: SocketAddr,
        deflate: bool,
        has_frames: bool,
    ) -> Option<Watch> {
        let mut inner = self.lock();
        let watched = inner.watched.get_mut(&session)?;
        watched.local = Some(local);
        let Watched { capture, sender, .. } = watched;
        let capture_len = if deflate { capture.deflated_len } else { capture.len };
        Some(Watch { session, capture_len, deflate, has_frames, sender: sender.clone() })
    }

    /// A session has ended.
    #[cold]
    pub(crate) fn on_end(&self, session: u64, why: &str) {
        let mut inner = self.lock();
        if let Some(watched) = inner.watched.remove(&session) {
            self.wanted.fetch_sub(1, Ordering::Relaxed);
            watched.sender.end(session, why);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tap {
    /// Watches a live session; `false`: another tap does.
    #[must_use]
    pub fn watch(&self, session: u64, handle: &SessionHandle) -> bool {
        let mut inner = self.taps.lock();
        if inner.watched.contains_key(&session) {
            return false;
        }
        let Self { id, capture, sender, .. } = self;
        let (tap, capture, sender) = (*id, *capture, sender.clone());
        inner.watched.insert(session, Watched { tap, capture, sender, handle: handle.clone(), local: None });
        self.taps.wanted.fetch_add(1, Ordering::Relaxed);
        drop(inner);
        handle.interrupt();
        true
    }

    /// Watches the next session that opens and is one of `which`.
    pub fn watch_next(&self, which: Which) {
        let Self { id, capture, sender, .. } = self;
        let (tap, capture, sender) = (*id, *capture, sender.clone());
        self.taps.lock().awaiting.push(Awaiting { tap, which, capture, sender });
        self.taps.wanted.fetch_add(1, Ordering::Relaxed);
    }

    /// The address that the client of a session came to, if that is known.
    #[must_use]
    pub fn local(&self, session: u64) -> Option<SocketAddr> {
        self.taps.lock().watched.get(&session)?.local
    }

    /// The session is gone, and did not say so.
    pub fn forget(&self, session: u64) {
        self.taps.on_end(session, "it ended");
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let mut inner = self.taps.lock();
        inner.running -= 1;
        let before = inner.awaiting.len() + inner.watched.len();
        inner.awaiting.retain(|one| one.tap != self.id);
        let released: Vec<_> = inner.watched.extract_if(|_, one| one.tap == self.id).collect();
        let left = inner.awaiting.len() + inner.watched.len();
        self.taps.wanted.fetch_sub(before - left, Ordering::Relaxed);
        drop(inner);
        // They go on as before.
        released.iter().for_each(|(_, one)| one.handle.interrupt());
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::path::Path;

    use frame_core::tap::TapEvent;

    use super::*;
    use crate::config::Config;

    const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 443);
    const CAPTURE: Capture = Capture { len: 7, deflated_len: 9 };

    fn allowing() -> Arc<Taps> {
        let taps = Arc::<Taps>::default();
        taps.allow(true);
        taps
    }

    #[test]
    fn taps_are_off_until_they_are_allowed_and_few() {
        let taps = Arc::<Taps>::default();
        assert_eq!(taps.begin(CAPTURE).unwrap_err(), TapRefusal::Off);
        taps.allow(true);
        let mut running: Vec<_> = (0..TAPS_MAX).map(|_| taps.begin(CAPTURE).unwrap()).collect();
        assert_eq!(taps.begin(CAPTURE).unwrap_err(), TapRefusal::TooMany);
        let (last, _) = running.pop().unwrap();
        drop(last);
        assert_eq!(taps.running(), TAPS_MAX - 1);
        let (tap, _queue) = taps.begin(CAPTURE).unwrap();
        taps.allow(true);
        assert!(!tap.off.is_cancelled(), "nothing has changed");
        taps.allow(false);
        assert!(tap.off.is_cancelled() && running.iter().all(|(tap, _)| tap.off.is_cancelled()));
        assert_eq!(taps.begin(CAPTURE).unwrap_err(), TapRefusal::Off);
    }

    #[test]
    fn a_session_has_one_watcher_until_that_goes() {
        let (taps, handle) = (allowing(), SessionHandle::new());
        let ((first, _one), (second, _two)) = (taps.begin(CAPTURE).unwrap(), taps.begin(CAPTURE).unwrap());
        assert!(!taps.are_wanted() && taps.watch(1, LOCAL, false, true).is_none());
        assert!(first.watch(1, &handle) && !second.watch(1, &handle));
        let capture_len = |deflate| taps.watch(1, LOCAL, deflate, true).unwrap().capture_len;
        assert!(taps.are_wanted() && (capture_len(false), capture_len(true)) == (7, 9));
        drop(first);
        assert!(!taps.are_wanted() && taps.watch(1, LOCAL, false, true).is_none());
        assert!(second.watch(1, &handle));
        taps.on_end(1, "over");
        assert!(!taps.are_wanted());
        let (tap, mut queue) = taps.begin(CAPTURE).unwrap();
        assert!(tap.watch(2, &handle));
        tap.forget(2);
        assert!(matches!(queue.try_recv(), Some(TapEvent::Ended { session: 2, .. })) && !taps.are_wanted());
    }

    #[test]
    fn the_next_session_that_matches_is_watched_from_its_beginning() {
        let text =
            "[[route]]\npath = \"/a\"\nservice = \"echo\"\n[[route]]\npath = \"/b\"\nservice = \"echo\"\n";
        let routes = Config::parse(Path::new("wssgate.toml"), text).0.routes;
        let (a, b) = (&routes[0].id, &routes[1].id);
        let (taps, handle, client) = (allowing(), SessionHandle::new(), IpAddr::from(Ipv4Addr::LOCALHOST));
        let (tap, _queue) = taps.begin(CAPTURE).unwrap();
        tap.watch_next(Which { route: Some(b.clone()), client: Some(client) });
        assert!(taps.are_wanted());
        taps.on_open(1, &handle, a, client);
        taps.on_open(2, &handle, b, [127, 0, 0, 2].into());
        assert!(taps.watch(1, LOCAL, false, true).is_none() && taps.watch(2, LOCAL, false, true).is_none());
        taps.on_open(3, &handle, b, Ipv4Addr::LOCALHOST.to_ipv6_mapped().into());
        taps.on_open(4, &handle, b, client);
        assert!(taps.watch(3, LOCAL, false, true).is_some() && taps.watch(4, LOCAL, false, true).is_none());
        drop(tap);
        assert!(!taps.are_wanted());
    }
}
