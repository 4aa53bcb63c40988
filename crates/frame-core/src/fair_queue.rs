//! A fair queue of the sessions of one thread that move many bytes, so that a small message of another session waits
//! for one of them and not for all.
//!
//! A session reads one quantum at a time. If it has more to read, it goes to the end of the thread's queue. [`run`]
//! wakes the first of the queue each time the runtime has polled its driver, which is how it learns what else is
//! ready. So one quantum is read between two polls of the driver, however many sessions move many bytes.
//!
//! Every session in the queue is woken in its turn; one that was dropped while it waited costs the others one poll of
//! the driver. On a thread without [`run`], a session yields after each quantum and is not queued.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use tokio::task::yield_now;

/// A session that reads at least so many bytes in one poll moves many bytes.
const BULK_MIN: usize = 64 << 10;

thread_local! {
    static QUEUE: RefCell<Queue> = const { RefCell::new(Queue::new()) };
}

struct Queue {
    /// The tasks of the sessions that wait, the first to be woken in front.
    waiting: VecDeque<Waker>,
    /// A session has read many bytes since the driver was polled last.
    bulk_has_read: bool,
    /// [`run`] runs on this thread.
    is_served: bool,
    /// The task of [`run`], while it has nothing to do.
    server: Option<Waker>,
}

impl Queue {
    const fn new() -> Self {
        Self { waiting: VecDeque::new(), bulk_has_read: false, is_served: false, server: None }
    }

    fn push(&mut self, waker: &Waker) {
        self.waiting.push_back(waker.clone());
        self.wake_server();
    }

    fn wake_server(&mut self) {
        if let Some(server) = self.server.take() {
            server.wake();
        }
    }
}

/// What the queue knows of one session. It is small, since each idle session has one.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueueState {
    /// It read few bytes when it was polled last, so it may read at any time.
    #[default]
    Light,
    /// It read many bytes when it was polled last.
    Bulk,
    /// It is in the queue.
    Queued,
}

impl QueueState {
    /// Of a session that goes to another thread or process, where no queue knows it. `is_bulk`: it moves many bytes.
    pub(crate) fn unqueued(is_bulk: bool) -> Self {
        if is_bulk { Self::Bulk } else { Self::Light }
    }

    /// Whether the session may read now; if not, it is woken when it may.
    pub(crate) fn may_read(&mut self, cx: &Context<'_>) -> bool {
        if *self == Self::Light {
            return true;
        }
        QUEUE.with_borrow_mut(|queue| {
            if *self == Self::Bulk && queue.bulk_has_read {
                *self = Self::Queued;
                queue.push(cx.waker());
                return false;
            }
            // It may be polled for another reason. If its task is not in the queue any more, it was woken by `run`.
            *self == Self::Bulk || !queue.waiting.iter().any(|waiting| waiting.will_wake(cx.waker()))
        })
    }

    /// The session has read `read_len` bytes since [`Self::may_read`]; `wants_more`: it would have read more than its
    /// quantum. Then it is woken when it may go on.
    pub(crate) fn on_read(&mut self, cx: &mut Context<'_>, read_len: usize, wants_more: bool) {
        *self = if read_len >= BULK_MIN { Self::Bulk } else { Self::Light };
        if *self == Self::Light && !wants_more {
            return;
        }
        let is_served = QUEUE.with_borrow_mut(|queue| {
            queue.bulk_has_read |= queue.is_served;
            if wants_more && queue.is_served {
                *self = Self::Queued;
                queue.push(cx.waker());
            } else {
                queue.wake_server();
            }
            queue.is_served
        });
        if wants_more && !is_served {
            yield_to_driver(cx);
        }
    }
}

/// Wakes the task when all other ready tasks have run and the driver was polled: `yield_now` defers the wake-up
/// until then (tokio's `task/yield_now.rs`; `park_yield` in `runtime/scheduler/current_thread/mod.rs`). With a plain
/// `wake_by_ref` the run queue would never be empty, and then the driver is polled only once in 61 tasks: what other
/// sessions wait for would be seen late.
pub(crate) fn yield_to_driver(cx: &mut Context<'_>) {
    let _pending = pin!(yield_now()).poll(cx);
}

/// Wakes the sessions of this thread's queue one after the other; runs until it is dropped. It is for a
/// current-thread runtime, whose tasks stay on the thread of the queue.
///
/// # Cancel safety
/// Safe: when this is dropped, all sessions in the queue are woken.
pub async fn run() {
    let _serving = Serving::begin();
    loop {
        poll_fn(|cx| {
            QUEUE.with_borrow_mut(|queue| {
                if queue.bulk_has_read || !queue.waiting.is_empty() {
                    return Poll::Ready(());
                }
                queue.server = Some(cx.waker().clone());
                Poll::Pending
            })
        })
        .await;
        yield_now().await;
        let next = QUEUE.with_borrow_mut(|queue| {
            queue.bulk_has_read = false;
            queue.waiting.pop_front()
        });
        if let Some(next) = next {
            next.wake();
        }
    }
}

/// [`run`] runs as long as this exists.
struct Serving(());

impl Serving {
    fn begin() -> Self {
        QUEUE.with_borrow_mut(|queue| queue.is_served = true);
        Self(())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let waiting = QUEUE.try_with(|queue| {
            let mut queue = queue.borrow_mut();
            (queue.is_served, queue.bulk_has_read, queue.server) = (false, false, None);
            std::mem::take(&mut queue.waiting)
        });
        waiting.into_iter().flatten().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use tokio::task::LocalSet;

    use super::*;

    /// A session that always has more to read; notes each time that it reads.
    async fn endless(turns: Rc<RefCell<Vec<usize>>>, name: usize) {
        let mut own = QueueState::default();
        poll_fn(|cx| {
            if own.may_read(cx) {
                turns.borrow_mut().push(name);
                own.on_read(cx, BULK_MIN, true);
            }
            Poll::<()>::Pending
        })
        .await;
    }

    #[tokio::test]
    async fn one_quantum_is_read_between_two_polls_of_the_driver_and_each_session_has_its_turn() {
        let turns = Rc::<RefCell<Vec<usize>>>::default();
        LocalSet::new()
            .run_until(async {
                tokio::task::spawn_local(run());
                yield_now().await;
                for name in 0..4 {
                    tokio::task::spawn_local(endless(turns.clone(), name));
                }
                yield_now().await; // each reads once before it is known to move many bytes
                let begun = std::mem::take(&mut *turns.borrow_mut());
                assert_eq!(begun, [0, 1, 2, 3]);
                for _ in 0..12 {
                    yield_now().await;
                }
            })
            .await;
        let turns = turns.borrow();
        assert!((10..=12).contains(&turns.len()), "{turns:?}: one a poll of the driver");
        assert!(turns.iter().zip(turns.iter().skip(4)).all(|(a, b)| a == b), "{turns:?}: in one order");
    }

    #[tokio::test]
    async fn a_dropped_session_does_not_stop_the_queue() {
        let turns = Rc::<RefCell<Vec<usize>>>::default();
        LocalSet::new()
            .run_until(async {
                let caller = tokio::task::spawn_local(run());
                yield_now().await;
                let tasks: Vec<_> =
                    (0..3).map(|name| tokio::task::spawn_local(endless(turns.clone(), name))).collect();
                yield_now().await;
                tasks[0].abort();
                turns.borrow_mut().clear();
                for _ in 0..12 {
                    yield_now().await;
                }
                let seen = turns.borrow().len();
                assert!(seen >= 8 && !turns.borrow().contains(&0), "{turns:?}");
                // Without `run` they go on by themselves.
                caller.abort();
                turns.borrow_mut().clear();
                for _ in 0..4 {
                    yield_now().await;
                }
                assert!(turns.borrow().len() >= 6, "{turns:?}");
            })
            .await;
    }

    #[tokio::test]
    async fn a_session_that_reads_few_bytes_never_waits() {
        let polls = Rc::<Cell<usize>>::default();
        let turns = Rc::<RefCell<Vec<usize>>>::default();
        LocalSet::new()
            .run_until(async {
                tokio::task::spawn_local(run());
                tokio::task::spawn_local(endless(turns.clone(), 0));
                let mut own = QueueState::default();
                for _ in 0..8 {
                    poll_fn(|cx| {
                        assert!(own.may_read(cx));
                        own.on_read(cx, BULK_MIN - 1, false);
                        Poll::Ready(())
                    })
                    .await;
                    polls.set(polls.get() + 1);
                    yield_now().await;
                }
            })
            .await;
        assert_eq!(polls.get(), 8);
        assert!(turns.borrow().len() >= 4, "{turns:?}");
    }

    /// A session's task, and how often it was woken.
    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Task {
        fn woken(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    /// The number of tasks in the queue, and whether many bytes were read since the last poll of the driver.
    fn queue() -> (usize, bool) {
        QUEUE.with_borrow(|queue| (queue.waiting.len(), queue.bulk_has_read))
    }

    /// What [`run`] does after each poll of the driver.
    fn wake_next() {
        let next = QUEUE.with_borrow_mut(|queue| {
            queue.bulk_has_read = false;
            queue.waiting.pop_front()
        });
        next.unwrap().wake();
    }

    #[test]
    fn a_session_in_the_queue_does_not_read_before_it_is_woken_by_it() {
        let (_run, task) = (Serving::begin(), Arc::<Task>::default());
        let waker = Waker::from(task.clone());
        let (mut cx, mut own) = (Context::from_waker(&waker), QueueState::default());
        assert!(own.may_read(&cx));
        own.on_read(&mut cx, BULK_MIN, true);
        assert_eq!((own, queue(), task.woken()), (QueueState::Queued, (1, true), 0));
        // Its peer, or a timer, wakes it.
        assert!(!own.may_read(&cx));
        assert_eq!(queue(), (1, true), "it has one place and not two");
        wake_next();
        assert_eq!(task.woken(), 1);
        assert!(own.may_read(&cx));
    }

    #[test]
    fn a_session_that_read_many_bytes_waits_only_if_a_quantum_was_read_meanwhile() {
        let (_run, task) = (Serving::begin(), Arc::<Task>::default());
        let waker = Waker::from(task.clone());
        let (mut cx, mut own) = (Context::from_waker(&waker), QueueState::default());
        own.on_read(&mut cx, BULK_MIN, false);
        assert_eq!((own, queue()), (QueueState::Bulk, (0, true)), "it has nothing more to read");
        assert!(!own.may_read(&cx));
        assert_eq!((own, queue()), (QueueState::Queued, (1, true)));
        wake_next();
        assert!(own.may_read(&cx));
        own.on_read(&mut cx, BULK_MIN, false);
        QUEUE.with_borrow_mut(|queue| queue.bulk_has_read = false);
        assert!(own.may_read(&cx));
        assert_eq!((own, queue()), (QueueState::Bulk, (0, false)));
        // One that has read few bytes does not delay others.
        own.on_read(&mut cx, BULK_MIN - 1, false);
        assert_eq!((own, queue()), (QueueState::Light, (0, false)));
        own.on_read(&mut cx, BULK_MIN - 1, true);
        assert_eq!((own, queue(), task.woken()), (QueueState::Queued, (1, true), 1));
    }

    #[test]
    fn without_run_a_session_with_more_to_read_is_woken_at_once() {
        let task = Arc::<Task>::default();
        let waker = Waker::from(task.clone());
        let (mut cx, mut own) = (Context::from_waker(&waker), QueueState::default());
        own.on_read(&mut cx, BULK_MIN, false);
        assert_eq!((own, queue(), task.woken()), (QueueState::Bulk, (0, false), 0));
        own.on_read(&mut cx, BULK_MIN, true);
        assert_eq!((own, queue(), task.woken()), (QueueState::Bulk, (0, false), 1));
        assert!(own.may_read(&cx));
    }
}
