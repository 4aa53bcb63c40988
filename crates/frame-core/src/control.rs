//! The string by which a live session can be ended from outside, and asked how it is.
//!
//! Whoever pulls it wakes the session; a session that nobody pulls looks at one word whenever it
//! is awake anyway.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Context;

use atomic_waker::AtomicWaker;
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
    waker: AtomicWaker,
    question: Mutex<Option<oneshot::Sender<Snapshot>>>,
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
        self.0.waker.wake();
    }

    /// Asks the session how it is. No answer comes from one that is over, or that is asked again
    /// before it has answered.
    #[must_use]
    pub fn ask(&self) -> oneshot::Receiver<Snapshot> {
        let (reply, answer) = oneshot::channel();
        *self.0.question.lock().unwrap_or_else(PoisonError::into_inner) = Some(reply);
        self.0.word.fetch_or(ASKED, Ordering::AcqRel);
        self.0.waker.wake();
        answer
    }

    /// Answers the question, if there is one. To be called after [`Self::poll`].
    pub fn answer(&self, tell: impl FnOnce() -> Snapshot) {
        if self.0.word.load(Ordering::Acquire) & ASKED == 0 {
            return;
        }
        self.0.word.fetch_and(!ASKED, Ordering::AcqRel);
        if let Some(reply) = self.0.question.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = reply.send(tell());
        }
    }

    /// The order in force. The task of `cx` is woken when it changes.
    pub fn poll(&self, cx: &Context<'_>) -> Option<Order> {
        self.0.waker.register(cx.waker());
        self.order()
    }

    /// The order in force.
    #[must_use]
    pub fn order(&self) -> Option<Order> {
        let word = self.0.word.load(Ordering::Acquire);
        let code = u16::try_from(word & 0xFFFF).ok().filter(|&code| code != 0)?;
        Some(Order { code, manner: if word & NOW == 0 { Manner::AfterMessages } else { Manner::Now } })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

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
