//! Turns of sessions that move much, so that others wait for one of them and not for all.
//!
//! A session that has more to move than one turn takes a place in the thread's queue. [`run`] calls the one in
//! front each time the runtime has looked for what is ready elsewhere. So between two looks one long turn is
//! taken, and a small message waits for that, however many sessions move much at the time.
//!
//! Nobody is passed over: who is called is at the front, and a session that is dropped in the queue costs the
//! others one look. On a thread where [`run`] doesn't run, a session only lets others go first.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use tokio::task::yield_now;

/// From so many bytes in one poll on a session moves much.
const MUCH: usize = 64 << 10;

thread_local! {
    static QUEUE: RefCell<Queue> = const { RefCell::new(Queue::new()) };
}

struct Queue {
    /// The tasks of those that wait.
    waiting: VecDeque<Waker>,
    /// A long turn was taken since the runtime has looked.
    taken: bool,
    /// Somebody calls.
    runs: bool,
    /// Who calls, while there is nothing to do.
    caller: Option<Waker>,
}

impl Queue {
    const fn new() -> Self {
        Self { waiting: VecDeque::new(), taken: false, runs: false, caller: None }
    }

    fn push(&mut self, waker: &Waker) {
        self.waiting.push_back(waker.clone());
        self.wake_caller();
    }

    fn wake_caller(&mut self) {
        if let Some(caller) = self.caller.take() {
            caller.wake();
        }
    }
}

/// What a session knows of its turns. It is small, as each idle session has one.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turns {
    /// It moved little when it last could: it reads when it likes.
    #[default]
    Short,
    /// It moved much.
    Long,
    /// It has taken a place in the queue.
    Waits,
}

impl Turns {
    /// Whether the session may read now; if not, it is woken when it may.
    pub(crate) fn may_begin(&mut self, cx: &Context<'_>) -> bool {
        if *self == Self::Short {
            return true;
        }
        QUEUE.with_borrow_mut(|queue| {
            if *self == Self::Long && queue.taken {
                *self = Self::Waits;
                queue.push(cx.waker());
                return false;
            }
            // It may be polled for another reason than a call. A task that is not in the queue was called.
            *self == Self::Long || !queue.waiting.iter().any(|waiting| waiting.will_wake(cx.waker()))
        })
    }

    /// The session has read so many bytes since it could begin; `is_over`: and would read on. Then it is woken
    /// for its next turn.
    pub(crate) fn end(&mut self, cx: &mut Context<'_>, read_len: usize, is_over: bool) {
        *self = if read_len >= MUCH { Self::Long } else { Self::Short };
        if *self == Self::Short && !is_over {
            return;
        }
        let is_called = QUEUE.with_borrow_mut(|queue| {
            queue.taken |= queue.runs;
            if is_over && queue.runs {
                *self = Self::Waits;
                queue.push(cx.waker());
            } else {
                queue.wake_caller();
            }
            queue.runs
        });
        if is_over && !is_called {
            others_first(cx);
        }
    }
}

/// The task goes on when all others that are ready have had their turn and the runtime has looked for more:
/// `yield_now` defers the wake-up until the driver was polled (tokio's `task/yield_now.rs`; `park_yield` in
/// `runtime/scheduler/current_thread/mod.rs`). A plain `wake_by_ref` would keep the run queue from getting
/// empty, and then the driver is polled once in 61 tasks only: what small sessions wait for isn't seen.
pub(crate) fn others_first(cx: &mut Context<'_>) {
    let _pending = pin!(yield_now()).poll(cx);
}

/// Calls the sessions of this thread to their turns; runs until it is dropped. It is for a current-thread
/// runtime, whose tasks stay where the queue is.
///
/// # Cancel safety
/// Safe: who waits is called at once when this is dropped.
pub async fn run() {
    let _ending = Ending::begin();
    loop {
        poll_fn(|cx| {
            QUEUE.with_borrow_mut(|queue| {
                if queue.taken || !queue.waiting.is_empty() {
                    return Poll::Ready(());
                }
                queue.caller = Some(cx.waker().clone());
                Poll::Pending
            })
        })
        .await;
        yield_now().await;
        let next = QUEUE.with_borrow_mut(|queue| {
            queue.taken = false;
            queue.waiting.pop_front()
        });
        if let Some(next) = next {
            next.wake();
        }
    }
}

/// Nobody calls any more when this is dropped.
struct Ending(());

impl Ending {
    fn begin() -> Self {
        QUEUE.with_borrow_mut(|queue| queue.runs = true);
        Self(())
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let waiting = QUEUE.try_with(|queue| {
            let mut queue = queue.borrow_mut();
            (queue.runs, queue.taken, queue.caller) = (false, false, None);
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

    /// A session that has always more to move; counts its turns.
    async fn endless(turns: Rc<RefCell<Vec<usize>>>, name: usize) {
        let mut own = Turns::default();
        poll_fn(|cx| {
            if own.may_begin(cx) {
                turns.borrow_mut().push(name);
                own.end(cx, MUCH, true);
            }
            Poll::<()>::Pending
        })
        .await;
    }

    #[tokio::test]
    async fn one_long_turn_is_taken_between_two_looks_and_everybody_has_his() {
        let turns = Rc::<RefCell<Vec<usize>>>::default();
        LocalSet::new()
            .run_until(async {
                tokio::task::spawn_local(run());
                yield_now().await;
                for name in 0..4 {
                    tokio::task::spawn_local(endless(turns.clone(), name));
                }
                yield_now().await; // none knows yet that it moves much
                let begun = std::mem::take(&mut *turns.borrow_mut());
                assert_eq!(begun, [0, 1, 2, 3]);
                for _ in 0..12 {
                    yield_now().await;
                }
            })
            .await;
        let turns = turns.borrow();
        assert!((10..=12).contains(&turns.len()), "{turns:?}: one a look");
        assert!(turns.iter().zip(turns.iter().skip(4)).all(|(a, b)| a == b), "{turns:?}: in one order");
    }

    #[tokio::test]
    async fn who_was_dropped_keeps_nobody_waiting() {
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
                // Without a caller they go on by themselves.
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
    async fn who_moves_little_never_waits() {
        let polls = Rc::<Cell<usize>>::default();
        let turns = Rc::<RefCell<Vec<usize>>>::default();
        LocalSet::new()
            .run_until(async {
                tokio::task::spawn_local(run());
                tokio::task::spawn_local(endless(turns.clone(), 0));
                let mut own = Turns::default();
                for _ in 0..8 {
                    poll_fn(|cx| {
                        assert!(own.may_begin(cx));
                        own.end(cx, MUCH - 1, false);
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

    /// The number of tasks in the queue, and whether a long turn was taken since the last look.
    fn queue() -> (usize, bool) {
        QUEUE.with_borrow(|queue| (queue.waiting.len(), queue.taken))
    }

    /// What [`run`] does after each look of the runtime.
    fn call_next() {
        let next = QUEUE.with_borrow_mut(|queue| {
            queue.taken = false;
            queue.waiting.pop_front()
        });
        next.unwrap().wake();
    }

    #[test]
    fn a_session_in_the_queue_does_not_read_before_it_is_called() {
        let (_run, task) = (Ending::begin(), Arc::<Task>::default());
        let waker = Waker::from(task.clone());
        let (mut cx, mut own) = (Context::from_waker(&waker), Turns::default());
        assert!(own.may_begin(&cx));
        own.end(&mut cx, MUCH, true);
        assert_eq!((own, queue(), task.woken()), (Turns::Waits, (1, true), 0));
        // Its peer, or a timer, wakes it.
        assert!(!own.may_begin(&cx));
        assert_eq!(queue(), (1, true), "it has one place and not two");
        call_next();
        assert_eq!(task.woken(), 1);
        assert!(own.may_begin(&cx));
    }

    #[test]
    fn a_session_that_moved_much_waits_only_if_a_long_turn_was_taken() {
        let (_run, task) = (Ending::begin(), Arc::<Task>::default());
        let waker = Waker::from(task.clone());
        let (mut cx, mut own) = (Context::from_waker(&waker), Turns::default());
        own.end(&mut cx, MUCH, false);
        assert_eq!((own, queue()), (Turns::Long, (0, true)), "it has nothing more to read");
        assert!(!own.may_begin(&cx));
        assert_eq!((own, queue()), (Turns::Waits, (1, true)));
        call_next();
        assert!(own.may_begin(&cx));
        own.end(&mut cx, MUCH, false);
        QUEUE.with_borrow_mut(|queue| queue.taken = false);
        assert!(own.may_begin(&cx));
        assert_eq!((own, queue()), (Turns::Long, (0, false)));
        // One that has moved little takes nobody's turn.
        own.end(&mut cx, MUCH - 1, false);
        assert_eq!((own, queue()), (Turns::Short, (0, false)));
        own.end(&mut cx, MUCH - 1, true);
        assert_eq!((own, queue(), task.woken()), (Turns::Waits, (1, true), 1));
    }

    #[test]
    fn where_nobody_calls_a_session_with_more_to_read_is_woken_at_once() {
        let task = Arc::<Task>::default();
        let waker = Waker::from(task.clone());
        let (mut cx, mut own) = (Context::from_waker(&waker), Turns::default());
        own.end(&mut cx, MUCH, false);
        assert_eq!((own, queue(), task.woken()), (Turns::Long, (0, false), 0));
        own.end(&mut cx, MUCH, true);
        assert_eq!((own, queue(), task.woken()), (Turns::Long, (0, false), 1));
        assert!(own.may_begin(&cx));
    }
}
