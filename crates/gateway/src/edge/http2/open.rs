//! The open streams of a connection over HTTP/2: how many there are, and how their tasks are reached.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use atomic_waker::AtomicWaker;
use net_io::sweep::{is_looking, looking};
use pin_project_lite::pin_project;

/// What is known of them.
#[derive(Debug, Default)]
pub(super) struct OpenStreams {
    count: AtomicUsize,
    /// The last one has ended, which the connection's task hasn't seen yet.
    is_emptied: AtomicBool,
    /// Requests that were reset before they were answered.
    given_up: AtomicUsize,
    /// The connection's task.
    connection: AtomicWaker,
    /// Those of the streams.
    wakers: Mutex<Wakers>,
    /// How often all were looked at.
    looks: AtomicU64,
}

/// Those of the tasks that had to wait. A sweep of the worker's reaches them through their connection, since a
/// place in the sweep would cost each request 3 %.
#[derive(Debug, Default)]
struct Wakers {
    places: Vec<Option<Waker>>,
    free: Vec<usize>,
}

/// One of them, until this is dropped.
pub(super) struct OpenStream(Arc<OpenStreams>);

impl OpenStreams {
    pub(super) fn enter(self: &Arc<Self>) -> OpenStream {
        self.count.fetch_add(1, Ordering::Relaxed);
        OpenStream(self.clone())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// Returns when the last one has ended. Only the connection's task waits for that, each time it is polled.
    pub(super) async fn all_closed(&self) {
        poll_fn(|cx| {
            self.connection.register(cx.waker()); // before the flag is read: what sets it later finds the waker
            if self.is_emptied.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Requests that were reset before they were answered, since the last call.
    pub(super) fn take_given_up(&self) -> usize {
        self.given_up.swap(0, Ordering::Relaxed)
    }

    /// When the connection's task is looked at ([`crate::net::sweep`]), so are its streams'. Never ready.
    pub(super) async fn sweep_with_connection(&self) {
        poll_fn::<(), _>(|_| {
            if is_looking() {
                self.looks.fetch_add(1, Ordering::Relaxed);
                self.lock().places.iter().flatten().for_each(Waker::wake_by_ref);
            }
            Poll::Pending
        })
        .await;
    }

    fn lock(&self) -> MutexGuard<'_, Wakers> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(self: &Arc<Self>, waker: Waker) -> WakerPlace {
        let mut wakers = self.lock();
        let place = wakers.free.pop().unwrap_or(wakers.places.len());
        if place == wakers.places.len() {
            wakers.places.push(Some(waker));
        } else {
            wakers.places[place] = Some(waker);
        }
        WakerPlace { of: self.clone(), place }
    }
}

impl OpenStream {
    /// The client has reset it before there was an answer.
    pub(super) fn give_up(&self) {
        self.0.given_up.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.is_emptied.store(true, Ordering::Release);
            self.0.connection.wake();
        }
    }
}

/// Where a task's waker is, until this is dropped.
#[derive(Debug)]
struct WakerPlace {
    of: Arc<OpenStreams>,
    place: usize,
}

impl Drop for WakerPlace {
    fn drop(&mut self) {
        let mut wakers = self.of.lock();
        let waker = wakers.places[self.place].take();
        wakers.free.push(self.place);
        drop(wakers);
        drop(waker);
    }
}

pin_project! {
    /// The task of a stream, which is looked at with its connection. It has a place once it has waited; a task's
    /// waker is always the same (tokio's `runtime/task/harness.rs`, `poll_inner`: a reference to the task's header).
    #[derive(Debug)]
    pub(super) struct SweptStream<F> {
        #[pin]
        task: F,
        open: Arc<OpenStreams>,
        place: Option<WakerPlace>,
        // Looks it has had.
        looks: u64,
    }
}

impl<F> SweptStream<F> {
    pub(super) fn new(task: F, open: Arc<OpenStreams>) -> Self {
        let looks = open.looks.load(Ordering::Relaxed);
        Self { task, open, place: None, looks }
    }
}

impl<F: Future> Future for SweptStream<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let looks = this.open.looks.load(Ordering::Relaxed);
        let poll = if *this.looks == looks {
            this.task.poll(cx)
        } else {
            *this.looks = looks;
            looking(|| this.task.poll(cx))
        };
        if poll.is_pending() && this.place.is_none() {
            *this.place = Some(this.open.place(cx.waker().clone()));
        }
        poll
    }
}
