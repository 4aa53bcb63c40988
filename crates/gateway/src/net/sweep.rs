//! A slow look at everything that a worker holds, in case a wake-up was lost: what should have been polled is
//! polled, and counted. A lost wake-up is a delay then, and never a connection that is silent for good.
//!
//! Every connection's task is wrapped in [`Swept`]; sessions, of which there are many, are reached by the
//! [`SessionHandle`] that they have anyway, and requests over HTTP/2 by their connection. [`net_io::sweep`] is how a
//! socket is read once more. Kept connections to backends are checked every second by the pool.

use std::cell::RefCell;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use atomic_waker::AtomicWaker;
use frame_core::handle::SessionHandle;
use frame_core::timer::take_late_count;
use net_io::sweep::{looking, take_found};
use pin_project_lite::pin_project;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::sleep;
use tracing::warn;

/// From the end of one round to the beginning of the next. What a first look finds is left to the wake-up that
/// may be on its way, so a lost one costs two rounds at most.
const PAUSE: Duration = Duration::from_secs(10);
/// How many are looked at before other tasks have their turn.
const SLICE: usize = 64;

static LATE_WAKEUPS: AtomicU64 = AtomicU64::new(0);

/// How often in this process something was polled more than a second after it should have been.
pub(crate) fn late_wakeups() -> u64 {
    LATE_WAKEUPS.load(Ordering::Relaxed)
}

thread_local! {
    /// That of this thread's worker.
    static HERE: RefCell<Option<Arc<Sweep>>> = const { RefCell::new(None) };
}

/// Runs a task beside that of a connection, which is looked at too. For those that last: it costs a place.
pub(crate) fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    match HERE.with_borrow(Clone::clone) {
        Some(sweep) => tokio::spawn(sweep.over(task)),
        None => tokio::spawn(task),
    }
}

/// The tasks of one worker's connections.
#[derive(Debug, Default)]
pub struct Sweep(Mutex<Spots>);

#[derive(Debug, Default)]
struct Spots {
    next: u64,
    live: HashMap<u64, Arc<Spot>>,
}

/// How a task is reached.
#[derive(Debug, Default)]
struct Spot {
    waker: AtomicWaker,
    /// The next poll is a look.
    look: AtomicBool,
}

impl Sweep {
    /// `task`, which is looked at from now on.
    pub fn over<F>(self: &Arc<Self>, task: F) -> Swept<F> {
        let spot = Arc::<Spot>::default();
        let mut spots = self.lock();
        let id = spots.next;
        spots.next += 1;
        spots.live.insert(id, spot.clone());
        Swept { task, place: Place { sweep: self.clone(), id, spot } }
    }

    fn lock(&self) -> MutexGuard<'_, Spots> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tasks that are looked at.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.lock().live.len()
    }

    fn spots(&self) -> Vec<Arc<Spot>> {
        self.lock().live.values().cloned().collect()
    }
}

/// A task's place in its worker's [`Sweep`], until it is dropped.
#[derive(Debug)]
struct Place {
    sweep: Arc<Sweep>,
    id: u64,
    spot: Arc<Spot>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.sweep.lock().live.remove(&self.id);
    }
}

pin_project! {
    /// A task that is looked at now and then.
    #[derive(Debug)]
    pub struct Swept<F> {
        #[pin]
        task: F,
        place: Place,
    }
}

impl<F: Future> Future for Swept<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let spot = &this.place.spot;
        spot.waker.register(cx.waker());
        if spot.look.load(Ordering::Acquire) {
            spot.look.store(false, Ordering::Release);
            return looking(|| this.task.poll(cx));
        }
        this.task.poll(cx)
    }
}

pin_project! {
    /// The task of a session, which is looked at by its handle.
    #[derive(Debug)]
    pub struct SweptSession<F> {
        handle: SessionHandle,
        #[pin]
        session: F,
    }
}

impl<F> SweptSession<F> {
    /// `session`, whose handle this is.
    pub(crate) fn new(handle: SessionHandle, session: F) -> Self {
        Self { handle, session }
    }
}

impl<F: Future> Future for SweptSession<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if this.handle.take_poll_request() {
            return looking(|| this.session.poll(cx));
        }
        this.session.poll(cx)
    }
}

/// Looks at everything, round after round; `handles` are those of all sessions. To be run on the worker's own thread.
pub(crate) async fn run(sweep: Arc<Sweep>, handles: impl Fn() -> Vec<SessionHandle>) {
    HERE.set(Some(sweep.clone()));
    loop {
        sleep(PAUSE).await;
        round(&sweep, &handles()).await;
    }
}

async fn round(sweep: &Sweep, handles: &[SessionHandle]) {
    for slice in handles.chunks(SLICE) {
        slice.iter().for_each(SessionHandle::request_poll);
        yield_now().await;
    }
    for slice in sweep.spots().chunks(SLICE) {
        for spot in slice {
            spot.look.store(true, Ordering::Release);
            spot.waker.wake();
        }
        yield_now().await;
    }
    let late = take_found() + take_late_count();
    if late > 0 {
        LATE_WAKEUPS.fetch_add(late, Ordering::Relaxed);
        warn!(late, "connections or timers were served late: a wake-up was lost, or this worker was blocked");
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// A task without a wake-up is polled once a round, and not after it has ended.
    #[tokio::test(start_paused = true)]
    async fn a_task_whose_wake_up_is_lost_goes_on() {
        let sweep = Arc::<Sweep>::default();
        let polls = Arc::<AtomicUsize>::default();
        let task = {
            let polls = polls.clone();
            poll_fn(move |_| match polls.fetch_add(1, Ordering::Relaxed) {
                2 => Poll::Ready(()),
                _ => Poll::Pending, // and no waker is left anywhere
            })
        };
        let task = tokio::spawn(sweep.over(task));
        let sweeping = tokio::spawn(run(sweep.clone(), Vec::new));
        tokio::time::timeout(3 * PAUSE, task).await.unwrap().unwrap();
        assert_eq!((polls.load(Ordering::Relaxed), sweep.len()), (3, 0));
        sweeping.abort();
    }

    #[tokio::test]
    async fn a_session_is_reached_by_its_handle() {
        let handle = SessionHandle::new();
        let mut polls = 0;
        let session = poll_fn(|cx: &mut Context<'_>| {
            polls += 1;
            assert_eq!(handle.poll(cx, &mut Default::default()), None);
            if polls == 2 { Poll::Ready(()) } else { Poll::Pending }
        });
        let looks = async {
            yield_now().await;
            handle.request_poll();
        };
        tokio::join!(SweptSession::new(handle.clone(), session), looks);
        assert_eq!(polls, 2);
        assert!(!handle.take_poll_request());
    }
}
