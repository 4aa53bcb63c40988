//! One timer per session, moved as rarely as possible.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Sleep, sleep_until};

use crate::clock::Clock;

/// Rings at the earliest moment anyone asked for.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    timer: Option<Pin<Box<Sleep>>>,
    set_for: Option<Duration>,
}

impl Alarm {
    /// When it will ring, for the task that polled it last.
    pub(crate) fn set_for(&self) -> Option<Duration> {
        self.set_for
    }

    /// Ready once `at` has come. An alarm that was set for earlier is let ring first: moving it
    /// with every message would cost more than waking up once for nothing.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, at: Duration, clock: &impl Clock) -> Poll<()> {
        if self.set_for.is_none_or(|earlier| at < earlier) {
            self.set(at, clock);
        }
        while let (Some(timer), Some(set_for)) = (&mut self.timer, self.set_for) {
            ready!(timer.as_mut().poll(cx));
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
