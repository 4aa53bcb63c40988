//! An order to stop that a task waits for beside everything else, and that costs nearly nothing until it comes.
//!
//! `select!` polls all its branches whenever its task is woken. A [`CancellationToken`] takes locks in each such poll,
//! which is 1 % of a small request; here the first poll registers the task, and later ones read a flag.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use pin_project_lite::pin_project;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// An order to stop, given once.
#[derive(Debug, Default)]
pub struct StopSignal {
    is_given: AtomicBool,
    token: CancellationToken,
}

impl StopSignal {
    /// Gives the order.
    pub fn cancel(&self) {
        self.is_given.store(true, Ordering::Release); // before those who wait are woken, and look at it
        self.token.cancel();
    }

    /// The order has been given.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.is_given.load(Ordering::Acquire)
    }

    /// Waits for the order.
    ///
    /// # Cancel safety
    /// Safe.
    pub fn cancelled(&self) -> Stopped<'_> {
        Stopped { signal: self, waiting: self.token.cancelled(), registered: None }
    }
}

pin_project! {
    /// Ready when the order has been given.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless they are polled"]
    pub struct Stopped<'a> {
        signal: &'a StopSignal,
        #[pin]
        waiting: WaitForCancellationFuture<'a>,
        // Of the task that `waiting` wakes.
        registered: Option<Waker>,
    }
}

impl Future for Stopped<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let is_registered = this.registered.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if is_registered && !this.signal.is_cancelled() {
            return Poll::Pending;
        }
        let poll = this.waiting.poll(cx);
        *this.registered = poll.is_pending().then(|| cx.waker().clone());
        poll
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_task_that_polled_last_is_woken() {
        let signal = StopSignal::default();
        let mut stopped = pin!(signal.cancelled());
        let (first, second) = (Arc::<Count>::default(), Arc::<Count>::default());
        let mut poll =
            |task: &Arc<Count>| stopped.as_mut().poll(&mut Context::from_waker(&task.clone().into()));
        for task in [&first, &first, &second, &second] {
            assert_eq!(poll(task), Poll::Pending);
        }
        assert!(!signal.is_cancelled());
        signal.cancel();
        assert!(signal.is_cancelled());
        let woken = [&first, &second].map(|task| task.0.load(Ordering::Relaxed));
        assert_eq!(woken, [0, 1]);
        assert_eq!(poll(&second), Poll::Ready(()));
    }

    #[test]
    fn an_order_that_came_before_is_seen_at_once() {
        let signal = StopSignal::default();
        signal.cancel();
        let poll = pin!(signal.cancelled()).poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(poll, Poll::Ready(()));
    }
}
