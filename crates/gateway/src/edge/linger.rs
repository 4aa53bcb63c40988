//! The end of a client's connection: first ours is told (close_notify, then FIN), then what still comes is
//! read and thrown away. Closing a socket with unread bytes resets it, and may destroy an answer that is on
//! its way (RFC 9112 §9.6).

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use net_io::Buffer;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout};

use crate::net::stop::StopSignal;

/// How long a client is read after everything has been sent to it. No number of bytes limits it.
pub(crate) const LINGER_TIME: Duration = Duration::from_secs(30);
/// How long it may send nothing meanwhile.
pub(crate) const LINGER_SILENCE: Duration = Duration::from_secs(5);

/// Ends our side, and lingers.
pub(crate) async fn end<T: AsyncRead + AsyncWrite + Unpin>(mut io: T, draining: &StopSignal) {
    // RFC 8446 §6.1. A client that takes nothing doesn't keep us waiting for it.
    if let Ok(Ok(())) = timeout(LINGER_SILENCE, io.shutdown()).await {
        linger(io, draining).await;
    }
}

/// Reads and throws away until the client has ended its side too, was silent for [`LINGER_SILENCE`], or
/// [`LINGER_TIME`] is over; and not while the gateway is `draining`.
pub(crate) async fn linger<T: AsyncRead + Unpin>(mut io: T, draining: &StopSignal) {
    let bounds = Bounds::begin();
    while bounds.hold(poll_fn(|cx| poll_discard(&mut io, cx)), draining).await == Some(true) {}
}

/// Says whether something came. The memory is the thread's: a connection that lingers holds none.
fn poll_discard<T: AsyncRead + Unpin>(io: &mut T, cx: &mut Context<'_>) -> Poll<bool> {
    let mut buffer = Buffer::take();
    let mut read = ReadBuf::new(&mut buffer);
    let result = ready!(Pin::new(io).poll_read(cx, &mut read));
    Poll::Ready(result.is_ok() && !read.filled().is_empty())
}

/// The bounds of lingering.
#[derive(Debug)]
pub(crate) struct Bounds {
    end: Instant,
}

impl Bounds {
    /// From now on.
    pub(crate) fn begin() -> Self {
        Self { end: Instant::now() + LINGER_TIME }
    }

    /// Waits for what a client sends next; `None`: no longer.
    pub(crate) async fn hold<F: Future>(&self, next: F, draining: &StopSignal) -> Option<F::Output> {
        let patience = self.end.saturating_duration_since(Instant::now()).min(LINGER_SILENCE);
        if patience.is_zero() {
            return None; // it may be ready for ever
        }
        tokio::select! {
            biased;
            () = draining.cancelled() => None,
            next = timeout(patience, next) => next.ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, duplex};
    use tokio::time::sleep;

    use super::*;

    /// How long a client is read that sends a byte every `interval`, `count` times.
    async fn lingers(interval: Duration, count: usize) -> Duration {
        let (near, mut far) = duplex(64);
        tokio::spawn(async move {
            assert_eq!(far.read(&mut [0]).await.unwrap(), 0, "our end comes first");
            for _ in 0..count {
                sleep(interval).await;
                if far.write_all(b"x").await.is_err() {
                    return;
                }
            }
            std::future::pending::<()>().await;
        });
        let started = Instant::now();
        end(near, &StopSignal::default()).await;
        started.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_is_read_while_it_sends_but_not_for_ever() {
        let second = Duration::from_secs(1);
        assert_eq!(lingers(second, 0).await, LINGER_SILENCE);
        assert_eq!(lingers(4 * second, 3).await, 12 * second + LINGER_SILENCE);
        assert_eq!(lingers(second / 10, 1_000_000).await, LINGER_TIME);
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_no_lingering_when_the_client_has_ended_or_the_gateway_is_about_to() {
        let started = Instant::now();
        let (near, far) = duplex(64);
        drop(far);
        end(near, &StopSignal::default()).await;
        let (near, mut far) = duplex(64);
        let draining = StopSignal::default();
        draining.cancel();
        end(near, &draining).await;
        assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(started.elapsed(), Duration::ZERO);
    }
}
