//! How long a client may keep a request waiting without giving or taking a byte.

use std::io;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use net_io::memory::Claim;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use crate::net::budget;
use crate::net::limits::HEAD_LEN_MAX;
use crate::net::limits::STALL_MAX;
use crate::net::stream::Transport;

/// How long a body may be waited for at any rate.
const PACE_GRACE: Duration = Duration::from_secs(20);

/// How slow a body may come: after the first 20 s of waiting for it, each further second has to be bought by so
/// many bytes. Only time counts in which the client is waited for.
#[derive(Debug)]
pub(crate) struct BodyPace {
    rate: Option<NonZeroU64>,
    /// Still to be waited.
    left: Duration,
}

impl BodyPace {
    /// Bytes a second; `None`: no bound.
    #[must_use]
    pub(crate) fn new(rate: Option<NonZeroU64>) -> Self {
        Self { rate, left: PACE_GRACE }
    }

    /// After waiting so long so many bytes have come.
    pub(crate) fn moved(&mut self, waited: Duration, bytes: u64) {
        if let Some(rate) = self.rate {
            let bought = Duration::from_secs(bytes / rate)
                + Duration::from_secs(bytes % rate) / u32::try_from(rate.get()).unwrap_or(u32::MAX);
            self.left = self.left.saturating_sub(waited).saturating_add(bought);
        }
    }

    /// How much longer the client may be waited for.
    #[must_use]
    pub(crate) fn left(&self) -> Duration {
        if self.rate.is_some() { self.left } else { Duration::MAX }
    }
}

/// How often a client that takes nothing is looked at: it has so much time where memory is short.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Runs while the gateway waits for a peer.
#[derive(Debug, Default)]
pub(crate) struct StallTimer(Option<(Instant, Pin<Box<Sleep>>)>);

impl StallTimer {
    /// Something has moved, after so long.
    pub(crate) fn moved(&mut self) -> Duration {
        self.0.take().map_or(Duration::ZERO, |(since, _)| since.elapsed())
    }

    /// Still nothing; ready when that was so for `patience`, as it was said first.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, patience: Duration) -> Poll<()> {
        let begin = || (Instant::now(), Box::pin(sleep(patience)));
        self.0.get_or_insert_with(begin).1.as_mut().poll(cx)
    }
}

/// A stream whose other end must take something of what is written, or its machine acknowledge something, within
/// [`STALL_MAX`], or the write fails with [`io::ErrorKind::TimedOut`].
#[derive(Debug)]
pub(crate) struct StallTimeout<T> {
    io: T,
    stall: StallTimer,
    /// How long it has taken nothing, up to the last look.
    waited: Duration,
    /// What its machine had acknowledged at the last look.
    acknowledged: Option<u64>,
    head_reading: Arc<HeadReading>,
    /// The head that is being read, as [`HeadReading`] numbers them, and its bytes so far.
    head: (u32, Claim),
    /// What HTTP has buffered for a client that takes nothing.
    unsent: Claim,
}

/// What HTTP/1.1 and its stream know of each other.
#[derive(Debug, Default)]
pub(crate) struct HeadReading {
    /// Something was read.
    pub anything: AtomicBool,
    /// Odd while a head is read; each has another number.
    head: AtomicU32,
}

impl HeadReading {
    /// What is read from now on is a request's head.
    pub(crate) fn head_begins(&self) {
        self.head.store((self.head.load(Ordering::Relaxed) | 1).wrapping_add(2), Ordering::Relaxed);
    }

    /// What is read from now on is not.
    pub(crate) fn head_ends(&self) {
        self.head.store((self.head.load(Ordering::Relaxed) | 1).wrapping_add(1), Ordering::Relaxed);
    }
}

/// What hyper or h2 has buffered at most for a client that takes nothing.
pub(crate) const UNSENT_LEN: usize = HEAD_LEN_MAX;

impl<T> StallTimeout<T> {
    /// Watches what is written to `io`.
    pub(crate) fn new(io: T) -> Self {
        Self {
            io,
            stall: StallTimer::default(),
            waited: Duration::ZERO,
            acknowledged: None,
            head_reading: Arc::default(),
            head: (0, Claim::default()),
            unsent: Claim::default(),
        }
    }

    /// What has been read of the next request head.
    pub(crate) fn head_reading(&self) -> Arc<HeadReading> {
        self.head_reading.clone()
    }

    /// The stream itself, no longer watched.
    pub(crate) fn into_inner(self) -> T {
        self.io
    }
}

impl<T: Transport> StallTimeout<T> {
    /// Its machine has acknowledged something since the last look: a kernel holds megabytes for a slow link.
    fn acknowledges(&mut self) -> bool {
        let now = self.io.acknowledged();
        let before = std::mem::replace(&mut self.acknowledged, now);
        before.is_some() && before != now
    }

    fn watch_write<O>(&mut self, cx: &mut Context<'_>, write: Poll<io::Result<O>>) -> Poll<io::Result<O>> {
        if write.is_ready() {
            self.stall.moved();
            (self.waited, self.acknowledged) = (Duration::ZERO, None);
            self.unsent.set(0);
            return write;
        }
        self.unsent.set(UNSENT_LEN);
        loop {
            ready!(self.stall.poll(cx, LOOK_INTERVAL.min(STALL_MAX.saturating_sub(self.waited))));
            self.waited += self.stall.moved();
            let waited = self.waited;
            if self.acknowledges() && !budget::cuts() {
                self.waited = Duration::ZERO;
                continue;
            }
            let what = if waited >= STALL_MAX {
                format!("the client read nothing for {STALL_MAX:?}")
            } else if budget::cuts() {
                format!("the client read nothing for {waited:?}, and max_memory is nearly used up")
            } else {
                continue;
            };
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, what)));
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for StallTimeout<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let head = self.head_reading.head.load(Ordering::Relaxed);
        if head != self.head.0 {
            self.head.0 = head;
            self.head.1.set(0);
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        self.head_reading.anything.store(true, Ordering::Relaxed);
        if head % 2 == 1 {
            let len = self.head.1.bytes() + buf.filled().len() - before;
            self.head.1.set(len.min(HEAD_LEN_MAX));
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: Transport> AsyncWrite for StallTimeout<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.io).poll_write(cx, buf);
        self.watch_write(cx, write)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flush = Pin::new(&mut self.io).poll_flush(cx);
        self.watch_write(cx, flush)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shutdown = Pin::new(&mut self.io).poll_shutdown(cx);
        self.watch_write(cx, shutdown)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.watch_write(cx, write)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[test]
    fn a_body_buys_its_time() {
        let second = Duration::from_secs(1);
        let mut pace = BodyPace::new(NonZeroU64::new(500));
        assert_eq!(pace.left(), 20 * second);
        pace.moved(5 * second, 1250); // half the rate
        assert_eq!(pace.left(), 20 * second - 5 * second / 2);
        for _ in 0..1000 {
            pace.moved(second, 500);
        }
        assert_eq!(pace.left(), 20 * second - 5 * second / 2);
        pace.moved(17 * second, 1); // a byte now and then
        assert_eq!(pace.left(), second / 2 + second / 500);
        pace.moved(second, 0);
        assert_eq!(pace.left(), Duration::ZERO);
        pace.moved(Duration::MAX, u64::MAX);
        let mut free = BodyPace::new(None);
        free.moved(1000 * second, 1);
        assert_eq!(free.left(), Duration::MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn where_memory_is_short_a_reader_that_takes_nothing_has_two_seconds() {
        let (near, _far) = duplex(10);
        let mut near = StallTimeout::new(near);
        let started = Instant::now();
        budget::press(true);
        let error = near.write_all(&[0; 100]).await.unwrap_err();
        budget::press(false);
        assert_eq!((error.kind(), started.elapsed().as_secs()), (io::ErrorKind::TimedOut, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_may_be_slow_but_not_gone() {
        let (near, mut far) = duplex(10);
        let mut near = StallTimeout::new(near);
        let started = Instant::now();
        let write = near.write_all(&[0; 100]);
        let read = async {
            let mut some = [0; 10];
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_secs(50)).await;
                far.read_exact(&mut some).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(write, read);
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(started.elapsed(), Duration::from_secs(250) + STALL_MAX);
    }

    /// Takes nothing, while its other end's machine acknowledges what the test says.
    struct Slow(Arc<AtomicU64>);

    impl AsyncRead for Slow {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Slow {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl Transport for Slow {
        fn acknowledged(&self) -> Option<u64> {
            Some(self.0.load(Ordering::Relaxed))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_whose_machine_takes_what_the_kernel_holds_is_not_gone() {
        let acknowledged = Arc::<AtomicU64>::default();
        let mut near = StallTimeout::new(Slow(acknowledged.clone()));
        let started = Instant::now();
        let takes = async {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_secs(50)).await;
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
        };
        let (written, ()) = tokio::join!(near.write_all(&[0; 100]), takes);
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let lived = started.elapsed();
        assert!((0..=2).contains(&(lived - Duration::from_secs(500) - STALL_MAX).as_secs()), "{lived:?}");
    }
}
