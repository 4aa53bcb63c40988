//! One timer per session, moved as rarely as possible.

use std::cell::Cell;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::task::coop::unconstrained;
use tokio::time::{Sleep, sleep_until};

use crate::clock::Clock;

/// The kernel's timers and a busy thread are late by less.
const LATE_AFTER: Duration = Duration::from_secs(1);

thread_local! {
    static LATE: Cell<u64> = const { Cell::new(0) };
}

/// How many timers of this thread's sessions were noticed more than a second after they were due, since the last
/// call: a wake-up was lost, or the thread was stuck.
#[must_use]
pub fn take_late_count() -> u64 {
    LATE.replace(0)
}

/// Wakes the session's task at the earliest moment that was asked for.
#[derive(Debug, Default)]
pub(crate) struct SessionTimer {
    sleep: Option<Pin<Box<Sleep>>>,
    set_for: Option<Duration>,
}

impl SessionTimer {
    /// It will still wake the task that polled it last: the `Sleep` was polled, which registered the task's
    /// waker, and has not fired. tokio promises that wake-up (`time/sleep.rs`, `Sleep::poll`), and clears the
    /// registration when it fires (`runtime/time/entry.rs`, `TimerEntry::is_elapsed`). No clock is
    /// asked: one that lags would say that a timer which has fired is still to fire.
    pub(crate) fn is_armed(&self) -> bool {
        self.set_for.is_some() && !self.has_fired()
    }

    /// It has fired, and was not polled since.
    fn has_fired(&self) -> bool {
        self.set_for.is_some() && self.sleep.as_ref().is_some_and(|sleep| sleep.is_elapsed())
    }

    /// Counts, for [`take_late_count`], a timer that was due long before `now`.
    fn count_if_late(&self, now: Duration) {
        if self.set_for.is_some_and(|at| now.saturating_sub(at) > LATE_AFTER) {
            LATE.set(LATE.get() + 1);
        }
    }

    /// If it has fired: the time now, by which it is counted as late or not; it is set for nothing then.
    pub(crate) fn take_fired(&mut self, clock: &impl Clock) -> Option<Duration> {
        self.has_fired().then(|| {
            let now = clock.now_exactly();
            self.count_if_late(now);
            self.set_for = None;
            now
        })
    }

    /// Ready once `at` has come. A timer that was set for an earlier moment is left to fire first: moving it
    /// with every message would cost more than waking up once for nothing.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, at: Duration, clock: &impl Clock) -> Poll<()> {
        if self.set_for.is_none_or(|earlier| at < earlier) {
            self.set(at, clock);
        }
        while let (Some(sleep), Some(set_for)) = (&mut self.sleep, self.set_for) {
            // Without a budget: "pending" must mean that the timer holds the task's waker, and never that the
            // task has used up its budget (tokio's `task/coop/mod.rs`, `poll_proceed`, in `Sleep::poll_elapsed`).
            ready!(pin!(unconstrained(sleep.as_mut())).poll(cx));
            self.set_for = None;
            if set_for >= at {
                break;
            }
            self.set(at, clock);
        }
        Poll::Ready(())
    }

    fn set(&mut self, at: Duration, clock: &impl Clock) {
        self.set_for = Some(at);
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(clock.instant(at)),
            None => self.sleep = Some(Box::pin(sleep_until(clock.instant(at)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Waker;

    use tokio::task::coop::{has_budget_remaining, poll_proceed};

    use super::*;
    use crate::clock::Exact;

    #[tokio::test(start_paused = true)]
    async fn it_fires_for_a_task_that_has_used_up_its_budget() {
        let clock = Exact::begin();
        let waiting = tokio::spawn(async move {
            let (mut timer, at) = (SessionTimer::default(), Duration::from_secs(1));
            poll_fn(|cx| {
                while has_budget_remaining() {
                    let Poll::Ready(proceed) = poll_proceed(cx) else { break };
                    proceed.made_progress();
                }
                assert!(!timer.is_armed() && !timer.has_fired());
                assert!(timer.poll(cx, at, &clock).is_pending());
                assert!(timer.is_armed() && !timer.has_fired());
                Poll::Ready(())
            })
            .await;
            // As in a session in which only bytes move, it is not polled until the task is woken.
            let mut polls = 0;
            poll_fn(|_| {
                polls += 1;
                if polls > 1 { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            assert!(timer.has_fired() && !timer.is_armed());
        });
        tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_put_off_fires_at_the_later_moment() {
        let (clock, mut timer) = (Exact::begin(), SessionTimer::default());
        let mut cx = Context::from_waker(Waker::noop());
        let [early, late] = [1, 2].map(Duration::from_secs);
        assert!(timer.poll(&mut cx, late, &clock).is_pending());
        assert!(timer.poll(&mut cx, early, &clock).is_pending());
        assert!(timer.poll(&mut cx, late, &clock).is_pending());
        tokio::time::sleep(early).await;
        assert!(timer.has_fired(), "it is left to fire");
        assert!(timer.poll(&mut cx, late, &clock).is_pending());
        tokio::time::sleep(late - early).await;
        assert!(timer.poll(&mut cx, late, &clock).is_ready());
        assert!(!timer.is_armed() && !timer.has_fired());
    }

    #[tokio::test(start_paused = true)]
    async fn those_noticed_late_are_counted() {
        let (clock, mut timer) = (Exact::begin(), SessionTimer::default());
        let at = Duration::from_secs(5);
        timer.count_if_late(at + 2 * LATE_AFTER);
        assert!(timer.poll(&mut Context::from_waker(Waker::noop()), at, &clock).is_pending());
        timer.count_if_late(Duration::ZERO);
        timer.count_if_late(at + LATE_AFTER);
        assert_eq!(take_late_count(), 0);
        for late in [LATE_AFTER + Duration::from_nanos(1), 2 * LATE_AFTER] {
            timer.count_if_late(at + late);
        }
        assert_eq!((take_late_count(), take_late_count()), (2, 0));
    }
}
