//! The string by which a live session can be ended from outside, and asked how it is.
//!
//! Whoever pulls it wakes the session; a session that nobody pulls looks at one word whenever it
//! is awake anyway.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::outcome::Snapshot;

/// How a session is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Finish the messages in flight, then close.
    AfterMessages {
        /// What isn't finished so long after the order ends as with [`Manner::Now`]: one message that is
        /// kept open must not keep the session. Whole milliseconds, 49 days at most.
        within: Duration,
    },
    /// Close between two frames if the bytes sent so far allow it, else cut.
    Now,
}

/// An order to end: the close code both peers are told, and the manner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// The close code, for instance 1001.
    pub code: u16,
    /// How soon.
    pub manner: Manner,
}

/// Shared by a session and whoever may end it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct SessionHandle(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// The code of the order in force (0: none), above it the bits below, and in the upper half the
    /// milliseconds that it leaves for messages in flight.
    word: AtomicU64,
    /// Of the session's task.
    waker: Mutex<Option<Waker>>,
    question: Mutex<Option<oneshot::Sender<Snapshot>>>,
    /// Since when a peer has taken nothing of what waits for it, in milliseconds since [`EPOCH`] and one;
    /// 0: nothing waits.
    stalled: AtomicU64,
}

static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// What a session remembers of its [`SessionHandle`]: which of its tasks is woken.
#[derive(Debug, Default)]
pub struct RegisteredWaker(Option<Waker>);

impl RegisteredWaker {
    /// The task of `cx` is the one that is woken.
    fn is_task_of(&self, cx: &Context<'_>) -> bool {
        self.0.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()))
    }
}

/// The order's manner is [`Manner::Now`].
const NOW: u64 = 1 << 16;
/// There is a question.
const ASKED: u64 = 1 << 17;
/// The session is to look at its streams once more.
const LOOK: u64 = 1 << 18;
/// Where the milliseconds begin.
const WITHIN_SHIFT: u32 = 32;

impl SessionHandle {
    /// A session that nobody has asked to end.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the session to end. Of several orders the first code counts, so that both peers are told the
    /// same, and the earliest end.
    pub fn end(&self, order: Order) {
        let manner = match order.manner {
            Manner::AfterMessages { within } => {
                u64::from(u32::try_from(within.as_millis()).unwrap_or(u32::MAX)) << WITHIN_SHIFT
            }
            Manner::Now => NOW,
        };
        let _ = self.0.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| {
            let (code, asked) = (old & 0xFFFF, old & (ASKED | LOOK));
            match code {
                0 => Some(u64::from(order.code) | manner | asked),
                _ if old & NOW != 0 => None,
                _ if manner == NOW || manner < old >> WITHIN_SHIFT << WITHIN_SHIFT => {
                    Some(code | manner | asked)
                }
                _ => None,
            }
        });
        self.wake();
    }

    /// Asks the session how it is. No answer comes from one that is over, or that is asked again
    /// before it has answered.
    #[must_use]
    pub fn ask(&self) -> oneshot::Receiver<Snapshot> {
        let (reply, answer) = oneshot::channel();
        *lock(&self.0.question) = Some(reply);
        self.0.word.fetch_or(ASKED, Ordering::AcqRel);
        self.wake();
        answer
    }

    /// Something of the session waits in memory for one of its peers (`waits`), which has just taken some of
    /// it (`took`) or not.
    pub fn on_stall(&self, waits: bool, took: bool) {
        let since = self.0.stalled.load(Ordering::Relaxed);
        if waits && (took || since == 0) {
            let now = u64::try_from(EPOCH.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
            self.0.stalled.store(now + 1, Ordering::Relaxed);
        } else if !waits && since != 0 {
            self.0.stalled.store(0, Ordering::Relaxed);
        }
    }

    /// Since when a peer has taken nothing of what waits for it; `None`: nothing waits. To be compared with
    /// another session's.
    #[must_use]
    pub fn stalled_since(&self) -> Option<Duration> {
        self.0.stalled.load(Ordering::Relaxed).checked_sub(1).map(Duration::from_millis)
    }

    /// Has the session polled, in case a wake-up was lost; [`Self::take_look`] tells it why.
    pub fn look(&self) {
        self.0.word.fetch_or(LOOK, Ordering::AcqRel);
        self.wake();
    }

    /// The session was woken by [`Self::look`], which this call takes note of.
    #[must_use]
    pub fn take_look(&self) -> bool {
        self.0.word.load(Ordering::Acquire) & LOOK != 0
            && self.0.word.fetch_and(!LOOK, Ordering::AcqRel) & LOOK != 0
    }

    fn wake(&self) {
        let waker = lock(&self.0.waker).clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Answers the question, if there is one. To be called after [`Self::poll`].
    pub(crate) fn answer(&self, tell: impl FnOnce() -> Snapshot) {
        if self.0.word.load(Ordering::Acquire) & ASKED == 0 {
            return;
        }
        self.0.word.fetch_and(!ASKED, Ordering::AcqRel);
        if let Some(reply) = lock(&self.0.question).take() {
            let _ = reply.send(tell());
        }
    }

    /// The order in force. The task of `cx` is woken when it changes.
    pub fn poll(&self, cx: &Context<'_>, registered: &mut RegisteredWaker) -> Option<Order> {
        if !registered.is_task_of(cx) {
            registered.0 = Some(cx.waker().clone());
            // Before the word is read: who changes it later finds this.
            lock(&self.0.waker).clone_from(&registered.0);
        }
        self.order()
    }

    /// There is neither an order nor a question, and the task of `cx` is woken when there is.
    #[must_use]
    pub(crate) fn is_silent(&self, cx: &Context<'_>, registered: &RegisteredWaker) -> bool {
        registered.is_task_of(cx) && self.0.word.load(Ordering::Acquire) == 0
    }

    /// The order in force.
    #[must_use]
    pub fn order(&self) -> Option<Order> {
        let word = self.0.word.load(Ordering::Acquire);
        let code = u16::try_from(word & 0xFFFF).ok().filter(|&code| code != 0)?;
        let within = Duration::from_millis(word >> WITHIN_SHIFT);
        let manner = if word & NOW == 0 { Manner::AfterMessages { within } } else { Manner::Now };
        Some(Order { code, manner })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Counts(AtomicUsize);

    impl Wake for Counts {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn orders_only_get_harsher() {
        let control = SessionHandle::new();
        assert_eq!(control.order(), None);
        let within = |seconds| Manner::AfterMessages { within: Duration::from_secs(seconds) };
        let gentle = Order { code: 1001, manner: within(9) };
        control.end(Order { code: 1001, manner: within(20) });
        for manner in [within(9), within(9), within(10)] {
            control.end(Order { code: 1012, manner });
            assert_eq!(control.order(), Some(gentle), "the first code, the earliest end");
        }
        let question = control.ask();
        control.end(Order { manner: within(8), ..gentle });
        assert_eq!(control.order(), Some(Order { manner: within(8), ..gentle }));
        control.answer(Snapshot::default);
        drop(question);
        control.end(Order { code: 1012, manner: Manner::Now });
        assert_eq!(control.order(), Some(Order { code: 1001, manner: Manner::Now }));
        control.end(gentle);
        assert_eq!(control.order(), Some(Order { code: 1001, manner: Manner::Now }));
    }

    #[test]
    fn a_peer_stalls_from_the_last_byte_that_it_took() {
        let control = SessionHandle::new();
        assert_eq!(control.stalled_since(), None);
        control.on_stall(true, false);
        let first = control.stalled_since().unwrap();
        while EPOCH.elapsed() < first + Duration::from_millis(2) {}
        control.on_stall(true, false);
        assert_eq!(control.stalled_since(), Some(first));
        control.on_stall(true, true);
        assert!(control.stalled_since().unwrap() > first);
        control.on_stall(false, true);
        assert_eq!(control.stalled_since(), None);
    }

    #[test]
    fn the_task_that_looked_last_is_woken_each_time() {
        let (control, mut registered) = (SessionHandle::new(), RegisteredWaker::default());
        let tasks: [Arc<Counts>; 2] = Default::default();
        let woken = || tasks.each_ref().map(|task| task.0.load(Ordering::Relaxed));
        let [first, second] = tasks.each_ref().map(|task| Waker::from(task.clone()));
        let (first, second) = (Context::from_waker(&first), Context::from_waker(&second));
        assert_eq!(control.poll(&first, &mut registered), None);
        assert!(control.is_silent(&first, &registered) && !control.is_silent(&second, &registered));
        drop(control.ask());
        assert_eq!(woken(), [1, 0]);
        assert!(!control.is_silent(&first, &registered));
        control.answer(Snapshot::default);
        assert!(control.is_silent(&first, &registered));
        assert_eq!(control.poll(&second, &mut registered), None);
        assert!(!control.is_silent(&first, &registered));
        let order = Order { code: 1001, manner: Manner::AfterMessages { within: Duration::MAX } };
        control.end(order);
        control.end(Order { manner: Manner::Now, ..order });
        assert_eq!(woken(), [1, 2]);
        assert!(control.poll(&second, &mut registered).is_some() && !control.is_silent(&second, &registered));
    }

    #[test]
    fn a_look_wakes_the_session_and_is_taken_once() {
        let (control, mut registered, task) =
            (SessionHandle::new(), RegisteredWaker::default(), Arc::<Counts>::default());
        let waker = Waker::from(task.clone());
        let context = Context::from_waker(&waker);
        assert_eq!(control.poll(&context, &mut registered), None);
        assert!(!control.take_look());
        control.look();
        assert_eq!(task.0.load(Ordering::Relaxed), 1);
        assert_eq!((control.is_silent(&context, &registered), control.order()), (false, None));
        let mut answer = control.ask();
        let order = Order { code: 1001, manner: Manner::AfterMessages { within: Duration::from_secs(1) } };
        control.end(order);
        assert!(control.take_look() && !control.take_look());
        control.answer(Snapshot::default);
        assert_eq!((answer.try_recv(), control.order()), (Ok(Snapshot::default()), Some(order)));
    }

    #[test]
    fn a_question_is_answered_once_and_touches_no_order() {
        let control = SessionHandle::new();
        control.answer(|| panic!("nobody has asked"));
        let mut answer = control.ask();
        assert_eq!(control.order(), None);
        let order = Order { code: 1001, manner: Manner::Now };
        control.end(order);
        assert_eq!(control.order(), Some(order));
        let snapshot = Snapshot { idle: Duration::from_secs(7), ..Snapshot::default() };
        control.answer(|| snapshot);
        assert_eq!((answer.try_recv(), control.order()), (Ok(snapshot), Some(order)));
        control.answer(|| panic!("it is answered"));
        let mut unanswered = control.ask();
        drop(control);
        assert!(unanswered.try_recv().is_err());
    }
}
