//! The string by which a live session can be ended from outside, and asked how it is.
//!
//! Whoever pulls it wakes the session; a session that nobody pulls looks at one word whenever it
//! is awake anyway.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use tokio::sync::oneshot;

use crate::relay::Snapshot;

/// How a session is to end. Later orders are harsher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Manner {
    /// Finish the messages in flight, then close.
    AfterMessages,
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
pub struct Control(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// The code of the order in force (0: none), and above it the bits below.
    word: AtomicU32,
    /// Of the session's task.
    waker: Mutex<Option<Waker>>,
    question: Mutex<Option<oneshot::Sender<Snapshot>>>,
}

/// What a session remembers of its [`Control`]: which of its tasks is woken.
#[derive(Debug, Default)]
pub struct Ear(Option<Waker>);

impl Ear {
    /// The task of `cx` is the one that is woken.
    fn hears(&self, cx: &Context<'_>) -> bool {
        self.0.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()))
    }
}

/// The order's manner is [`Manner::Now`].
const NOW: u32 = 1 << 16;
/// There is a question.
const ASKED: u32 = 1 << 17;

impl Control {
    /// A session that nobody has asked to end.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the session to end. A harsher order replaces a milder one, never the other way round.
    pub fn end(&self, order: Order) {
        let word = u32::from(order.code) | if order.manner == Manner::Now { NOW } else { 0 };
        // The first code stays, so that both peers are told the same.
        let _ = self.0.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| match old & !ASKED {
            0 => Some(old | word),
            order if word & NOW > order & NOW => Some(old | NOW),
            _ => None,
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

    fn wake(&self) {
        let waker = lock(&self.0.waker).clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Answers the question, if there is one. To be called after [`Self::poll`].
    pub fn answer(&self, tell: impl FnOnce() -> Snapshot) {
        if self.0.word.load(Ordering::Acquire) & ASKED == 0 {
            return;
        }
        self.0.word.fetch_and(!ASKED, Ordering::AcqRel);
        if let Some(reply) = lock(&self.0.question).take() {
            let _ = reply.send(tell());
        }
    }

    /// The order in force. The task of `cx` is woken when it changes.
    pub fn poll(&self, cx: &Context<'_>, ear: &mut Ear) -> Option<Order> {
        if !ear.hears(cx) {
            ear.0 = Some(cx.waker().clone());
            // Before the word is read: who changes it later finds this.
            lock(&self.0.waker).clone_from(&ear.0);
        }
        self.order()
    }

    /// There is neither an order nor a question, and the task of `cx` is woken when there is.
    #[must_use]
    pub fn is_silent(&self, cx: &Context<'_>, ear: &Ear) -> bool {
        ear.hears(cx) && self.0.word.load(Ordering::Acquire) == 0
    }

    /// The order in force.
    #[must_use]
    pub fn order(&self) -> Option<Order> {
        let word = self.0.word.load(Ordering::Acquire);
        let code = u16::try_from(word & 0xFFFF).ok().filter(|&code| code != 0)?;
        Some(Order { code, manner: if word & NOW == 0 { Manner::AfterMessages } else { Manner::Now } })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;
    use std::time::Duration;

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
        let control = Control::new();
        assert_eq!(control.order(), None);
        let gentle = Order { code: 1001, manner: Manner::AfterMessages };
        control.end(gentle);
        assert_eq!(control.order(), Some(gentle));
        control.end(Order { code: 1012, manner: Manner::AfterMessages });
        assert_eq!(control.order(), Some(gentle));
        control.end(Order { code: 1012, manner: Manner::Now });
        assert_eq!(control.order(), Some(Order { code: 1001, manner: Manner::Now }));
        control.end(gentle);
        assert_eq!(control.order(), Some(Order { code: 1001, manner: Manner::Now }));
    }

    #[test]
    fn the_task_that_looked_last_is_woken_each_time() {
        let (control, mut ear) = (Control::new(), Ear::default());
        let tasks: [Arc<Counts>; 2] = Default::default();
        let woken = || tasks.each_ref().map(|task| task.0.load(Ordering::Relaxed));
        let [first, second] = tasks.each_ref().map(|task| Waker::from(task.clone()));
        let (first, second) = (Context::from_waker(&first), Context::from_waker(&second));
        assert_eq!(control.poll(&first, &mut ear), None);
        assert!(control.is_silent(&first, &ear) && !control.is_silent(&second, &ear));
        drop(control.ask());
        assert_eq!(woken(), [1, 0]);
        assert!(!control.is_silent(&first, &ear));
        control.answer(Snapshot::default);
        assert!(control.is_silent(&first, &ear));
        assert_eq!(control.poll(&second, &mut ear), None);
        assert!(!control.is_silent(&first, &ear));
        let order = Order { code: 1001, manner: Manner::AfterMessages };
        control.end(order);
        control.end(Order { manner: Manner::Now, ..order });
        assert_eq!(woken(), [1, 2]);
        assert!(control.poll(&second, &mut ear).is_some() && !control.is_silent(&second, &ear));
    }

    #[test]
    fn a_question_is_answered_once_and_touches_no_order() {
        let control = Control::new();
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
