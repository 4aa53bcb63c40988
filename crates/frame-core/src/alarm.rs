//! One timer per session, moved as rarely as possible.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

/// Rings at the earliest moment anyone asked for.
#[derive(Debug)]
pub(crate) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    pub(crate) fn new() -> Self {
        Self(None)
    }

    /// Ready once `at` has come. An alarm that was set for earlier is let ring first: moving it
    /// with every message would cost more than waking up once for nothing.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        let mut timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(at))).as_mut();
        if at < timer.deadline() || timer.is_elapsed() {
            timer.as_mut().reset(at);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if timer.deadline() >= at {
                return Poll::Ready(());
            }
            timer.as_mut().reset(at);
        }
        Poll::Pending
    }
}
