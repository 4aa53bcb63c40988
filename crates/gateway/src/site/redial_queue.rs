//! Sessions that come to a server from other ones: only so many at the same time, in the order in which they have come.

use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

/// Handshakes with one server that are under way, of all workers.
#[derive(Debug)]
pub(crate) struct Handshakes {
    free: Semaphore,
    size: Mutex<Size>,
}

#[derive(Debug, Default)]
struct Size {
    /// How many may be under way.
    max: usize,
    /// How many are, with what is free. It is more than `max` after a reload that allows fewer.
    permits: usize,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Handshake<'a>(&'a Handshakes);

impl Default for Handshakes {
    fn default() -> Self {
        Self { free: Semaphore::const_new(0), size: Mutex::default() }
    }
}

impl Handshakes {
    /// Begins one when fewer than `max` are under way.
    ///
    /// # Cancel safety
    /// A dropped call leaves the queue.
    pub(crate) async fn begin(&self, max: NonZeroU32) -> Handshake<'_> {
        self.resize(max.get() as usize);
        if let Ok(permit) = self.free.acquire().await {
            permit.forget(); // it comes back with the handshake's end
        }
        Handshake(self)
    }

    fn resize(&self, max: usize) {
        let mut size = self.lock();
        size.max = max;
        if max > size.permits {
            self.free.add_permits(max - size.permits);
            size.permits = max;
        } else {
            size.permits -= self.free.forget_permits(size.permits - max);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Size> {
        self.size.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Handshake<'_> {
    fn drop(&mut self) {
        let mut size = self.0.lock();
        if size.permits > size.max {
            size.permits -= 1;
        } else {
            self.0.free.add_permits(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    const ONE: NonZeroU32 = NonZeroU32::MIN;
    const TWO: NonZeroU32 = NonZeroU32::new(2).unwrap();

    /// `begin`, if it ends at once.
    macro_rules! now {
        ($begin:expr) => {
            match $begin.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(handshake) => Some(handshake),
                Poll::Pending => None,
            }
        };
    }

    #[tokio::test]
    async fn no_more_than_so_many_are_under_way_and_each_comes_in_its_turn() {
        let handshakes = Handshakes::default();
        let (first, second) = (handshakes.begin(TWO).await, handshakes.begin(TWO).await);
        let mut third = pin!(handshakes.begin(TWO));
        let mut fourth = pin!(handshakes.begin(TWO));
        assert!(now!(third).is_none() && now!(fourth).is_none());
        drop(first);
        assert!(now!(fourth).is_none(), "the third comes first");
        drop((second, now!(third).unwrap()));
        drop(now!(fourth).unwrap());
        assert_eq!(handshakes.free.available_permits(), 2);
    }

    #[tokio::test]
    async fn one_that_waits_no_longer_keeps_no_other_from_its_turn() {
        let handshakes = Handshakes::default();
        let (first, _second) = (handshakes.begin(TWO).await, handshakes.begin(TWO).await);
        let mut fourth = {
            let mut third = pin!(handshakes.begin(TWO));
            assert!(now!(third).is_none());
            let mut fourth = Box::pin(handshakes.begin(TWO));
            assert!(now!(fourth).is_none());
            drop(first); // the third has its turn, and is dropped before it looks
            fourth
        };
        assert!(now!(fourth).is_some());
    }

    #[tokio::test]
    async fn a_reload_may_allow_fewer_and_more() {
        let handshakes = Handshakes::default();
        let (first, second) = (handshakes.begin(TWO).await, handshakes.begin(TWO).await);
        let mut third = pin!(handshakes.begin(ONE));
        assert!(now!(third).is_none());
        drop(first);
        assert!(now!(third).is_none(), "one is under way");
        drop(second);
        let _third = now!(third).unwrap();
        let mut fourth = pin!(handshakes.begin(ONE));
        assert!(now!(fourth).is_none());
        let mut fifth = pin!(handshakes.begin(TWO));
        assert!(now!(fifth).is_none(), "the fourth comes first");
        assert!(now!(fourth).is_some());
    }
}
