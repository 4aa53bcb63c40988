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

/// How many alarms of sessions of this thread's were heard more than a second after their moment, since the last
/// call: a wake-up was lost, or the thread was stuck.
#[must_use]
pub fn take_late() -> u64 {
    LATE.replace(0)
}

/// Rings at the earliest moment anyone asked for.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    timer: Option<Pin<Box<Sleep>>>,
    set_for: Option<Duration>,
}

impl Alarm {
    /// It will still wake the task that polled it last: the timer was polled, which registered the task's
    /// waker, and has not fired. tokio promises that wake-up (`time/sleep.rs`, `Sleep::poll`), and clears the
    /// timer's registration when it fires (`runtime/time/entry.rs`, `TimerEntry::is_elapsed`). No clock is
    /// asked: one that lags would say that a timer which has fired is still to fire.
    pub(crate) fn is_set(&self) -> bool {
        self.set_for.is_some() && !self.has_rung()
    }

    /// Its moment has come, and nobody has polled it since.
    pub(crate) fn has_rung(&self) -> bool {
        self.set_for.is_some() && self.timer.as_ref().is_some_and(|timer| timer.is_elapsed())
    }

    /// Counts, for [`take_late`], an alarm that has rung long before `now`.
    pub(crate) fn heard(&self, now: Duration) {
        if self.set_for.is_some_and(|at| now.saturating_sub(at) > LATE_AFTER) {
            LATE.set(LATE.get() + 1);
        }
    }

    /// [`Self::heard`] once, if it has rung; it is set for nothing then.
    pub(crate) fn take_ring(&mut self, clock: &impl Clock) {
        if self.has_rung() {
            self.heard(clock.now_exactly());
            self.set_for = None;
        }
    }

    /// Ready once `at` has come. An alarm that was set for earlier is let ring first: moving it
    /// with every message would cost more than waking up once for nothing.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, at: Duration, clock: &impl Clock) -> Poll<()> {
        if self.set_for.is_none_or(|earlier| at < earlier) {
            self.set(at, clock);
        }
        while let (Some(timer), Some(set_for)) = (&mut self.timer, self.set_for) {
            // Without a budget: "pending" has to mean that the timer holds the task's waker, never that the
            // task has had its share (tokio's `task/coop/mod.rs`, `poll_proceed`, in `Sleep::poll_elapsed`).
            ready!(pin!(unconstrained(timer.as_mut())).poll(cx));
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
        match &mut self.timer {
            Some(timer) => timer.as_mut().reset(clock.instant(at)),
            None => self.timer = Some(Box::pin(sleep_until(clock.instant(at)))),
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
    async fn it_rings_for_a_task_that_has_used_up_its_budget() {
        let clock = Exact::begin();
        let ringing = tokio::spawn(async move {
            let (mut alarm, at) = (Alarm::default(), Duration::from_secs(1));
            poll_fn(|cx| {
                while has_budget_remaining() {
                    let Poll::Ready(proceed) = poll_proceed(cx) else { break };
                    proceed.made_progress();
                }
                assert!(!alarm.is_set() && !alarm.has_rung());
                assert!(alarm.poll(cx, at, &clock).is_pending());
                assert!(alarm.is_set() && !alarm.has_rung());
                Poll::Ready(())
            })
            .await;
            // As a calm session does, nobody polls it until the task is woken.
            let mut polls = 0;
            poll_fn(|_| {
                polls += 1;
                if polls > 1 { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            assert!(alarm.has_rung() && !alarm.is_set());
        });
        tokio::time::timeout(Duration::from_secs(10), ringing).await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_put_off_rings_at_the_later_moment() {
        let (clock, mut alarm) = (Exact::begin(), Alarm::default());
        let mut cx = Context::from_waker(Waker::noop());
        let [early, late] = [1, 2].map(Duration::from_secs);
        assert!(alarm.poll(&mut cx, late, &clock).is_pending());
        assert!(alarm.poll(&mut cx, early, &clock).is_pending());
        assert!(alarm.poll(&mut cx, late, &clock).is_pending());
        tokio::time::sleep(early).await;
        assert!(alarm.has_rung(), "it is let ring");
        assert!(alarm.poll(&mut cx, late, &clock).is_pending());
        tokio::time::sleep(late - early).await;
        assert!(alarm.poll(&mut cx, late, &clock).is_ready());
        assert!(!alarm.is_set() && !alarm.has_rung());
    }

    #[tokio::test(start_paused = true)]
    async fn those_heard_late_are_counted() {
        let (clock, mut alarm) = (Exact::begin(), Alarm::default());
        let at = Duration::from_secs(5);
        alarm.heard(at + 2 * LATE_AFTER);
        assert!(alarm.poll(&mut Context::from_waker(Waker::noop()), at, &clock).is_pending());
        alarm.heard(Duration::ZERO);
        alarm.heard(at + LATE_AFTER);
        assert_eq!(take_late(), 0);
        for late in [LATE_AFTER + Duration::from_nanos(1), 2 * LATE_AFTER] {
            alarm.heard(at + late);
        }
        assert_eq!((take_late(), take_late()), (2, 0));
    }
}
