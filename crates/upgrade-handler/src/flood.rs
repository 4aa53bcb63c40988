//! Clients over HTTP/2 that send frames which ask for nothing and carry nothing (PING, SETTINGS, PRIORITY,
//! WINDOW_UPDATE, unknown ones) as fast as they can (RFC 9113 §10.5): each costs work, and h2 doesn't count them.
//!
//! They are counted where bytes are read, a frame at a time, against an allowance that grows with time and with
//! what a client is sent, since that has to be acknowledged. What carries something, small frames of WebSockets
//! included, costs nothing here: other limits are for that.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// Frames that a client may send at once.
pub const BURST: u64 = 20_000;
/// And more every second for ever: at this rate they cost less than a hundredth of a core.
const RATE: u64 = 5_000;
/// A large frame counts as one for each so many bytes.
const FRAME_LEN: u32 = 64;
/// For so many bytes that it is sent, a client may acknowledge a stream's and the connection's.
const ACKNOWLEDGED_LEN: u64 = 1024;

/// "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
const PREFACE_LEN: u32 = 24;
const HEAD_LEN: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;

/// The allowance of one connection.
#[derive(Debug)]
struct Allowance {
    /// Frames.
    left: u64,
    /// Up to then time has been counted.
    counted: Instant,
    /// Bytes that the client was sent and that bought nothing yet.
    sent: u64,
    /// The head of the frame that is being read.
    head: [u8; HEAD_LEN],
    head_len: usize,
    /// Bytes before the next head.
    skip: u32,
}

impl Allowance {
    fn new() -> Self {
        let (head, head_len) = ([0; HEAD_LEN], 0);
        Self { left: BURST, counted: Instant::now(), sent: 0, head, head_len, skip: PREFACE_LEN }
    }

    /// Says whether these bytes, the next that have come, are within it.
    fn read(&mut self, mut bytes: &[u8]) -> bool {
        let mut cost = 0;
        loop {
            let skipped = bytes.len().min(self.skip as usize);
            bytes = &bytes[skipped..];
            self.skip -= u32::try_from(skipped).unwrap_or(self.skip);
            if bytes.is_empty() {
                return self.spend(cost);
            }
            let taken = bytes.len().min(HEAD_LEN - self.head_len);
            self.head[self.head_len..self.head_len + taken].copy_from_slice(&bytes[..taken]);
            self.head_len += taken;
            bytes = &bytes[taken..];
            if self.head_len == HEAD_LEN {
                self.head_len = 0;
                let [a, b, c, kind, ..] = self.head;
                self.skip = u32::from_be_bytes([0, a, b, c]);
                cost += match kind {
                    DATA if self.skip > 0 => 0,
                    HEADERS => 0,
                    _ => u64::from(1 + self.skip / FRAME_LEN),
                };
            }
        }
    }

    /// So many bytes were sent.
    fn sent(&mut self, len: usize) {
        self.sent += len as u64;
    }

    fn spend(&mut self, cost: u64) -> bool {
        if cost > self.left {
            // Only now, so that the usual client costs no look at the clock.
            let earned = u64::try_from(self.counted.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.counted = Instant::now();
            let earned = earned.saturating_mul(RATE) / 1000 + self.sent / ACKNOWLEDGED_LEN;
            self.sent %= ACKNOWLEDGED_LEN;
            self.left = self.left.saturating_add(earned).min(BURST);
        }
        let is_within = cost <= self.left;
        self.left = self.left.saturating_sub(cost);
        is_within
    }
}

/// A connection whose frames are counted: when there are too many, no more are read.
#[derive(Debug)]
pub struct Counted<T> {
    io: T,
    allowance: Allowance,
    flooded: Arc<AtomicBool>,
}

impl<T> Counted<T> {
    /// The connection, and what says that nothing is read from it any more.
    pub fn new(io: T) -> (Self, Flood) {
        let flooded = Arc::<AtomicBool>::default();
        (Self { io, allowance: Allowance::new(), flooded: flooded.clone() }, Flood(flooded))
    }
}

/// Says when too many frames have come. To be asked by the task that reads the connection.
#[derive(Debug)]
pub struct Flood(Arc<AtomicBool>);

impl Flood {
    /// Returns once for each time that there were too many. It is looked at whenever the task is polled.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn noticed(&self) {
        poll_fn(|_| if self.0.swap(false, Ordering::Relaxed) { Poll::Ready(()) } else { Poll::Pending })
            .await;
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        if self.allowance.read(&buf.filled()[before..]) {
            return Poll::Ready(Ok(()));
        }
        self.flooded.store(true, Ordering::Relaxed);
        buf.set_filled(before);
        Poll::Pending
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let len = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        self.allowance.sent(len);
        Poll::Ready(Ok(len))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, bufs))?;
        self.allowance.sent(len);
        Poll::Ready(Ok(len))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PING: u8 = 6;

    fn frame(kind: u8, len: u16) -> Vec<u8> {
        let [a, b] = len.to_be_bytes();
        let mut frame = vec![0, a, b, kind, 0, 0, 0, 0, 1];
        frame.resize(HEAD_LEN + usize::from(len), 0xff);
        frame
    }

    fn allowance() -> Allowance {
        let mut allowance = Allowance::new();
        assert!(allowance.read(&[0; PREFACE_LEN as usize]));
        allowance
    }

    #[tokio::test(start_paused = true)]
    async fn frames_count_unless_they_carry_something() {
        for (kind, len, cost) in [
            (DATA, 1, 0),
            (DATA, 16_384, 0),
            (HEADERS, 30, 0),
            (DATA, 0, 1),
            (PING, 8, 1),
            (4, 640, 11),
            (3, 4, 1),
        ] {
            let mut allowance = allowance();
            assert!(allowance.read(&frame(kind, len)));
            assert_eq!(allowance.left, BURST - cost, "{kind} {len}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_and_what_was_sent_buy_more() {
        let mut allowance = allowance();
        let pings = frame(PING, 8).repeat(1000);
        for _ in 0..BURST / 1000 {
            assert!(allowance.read(&pings));
        }
        assert!(!allowance.read(&frame(PING, 8)));
        tokio::time::advance(tokio::time::Duration::from_secs(2)).await;
        for _ in 0..2 * RATE / 1000 {
            assert!(allowance.read(&pings));
        }
        assert!(!allowance.read(&frame(PING, 8)));
        allowance.sent(1000 * 1024);
        assert!(allowance.read(&pings));
        assert!(!allowance.read(&frame(PING, 8)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_ping_every_second_is_within_it_for_days() {
        let mut allowance = allowance();
        for _ in 0..3 * 86_400 {
            assert!(allowance.read(&frame(PING, 8)));
            tokio::time::advance(tokio::time::Duration::from_secs(1)).await;
        }
    }

    proptest! {
        #[test]
        fn pieces_give_the_same_result(
            frames in proptest::collection::vec((0..10u8, 0..300u16), 0..20),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..10),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let _within = runtime.enter();
            let wire: Vec<u8> = frames.iter().flat_map(|&(kind, len)| frame(kind, len)).collect();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(wire.len() + 1)).collect();
            cuts.extend([0, wire.len()]);
            cuts.sort_unstable();
            let (mut whole, mut pieces) = (allowance(), allowance());
            prop_assert!(whole.read(&wire));
            for piece in cuts.windows(2) {
                prop_assert!(pieces.read(&wire[piece[0]..piece[1]]));
            }
            prop_assert_eq!(whole.left, pieces.left);
        }
    }
}
