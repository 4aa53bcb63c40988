//! How long an HTTP/1.1 connection waits for a request: until its first byte as long as an idle connection is
//! kept, from then on as long as a head may take.
//!
//! hyper has one timer for both. It asks for that timer when it begins to wait, polls it when nothing has come,
//! and drops it when the head is there: here it gets one that knows of the bytes.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt;
use tokio::time::{Instant, Sleep, sleep};

use crate::context::idle::{IdleWait, IdleWaits};
use crate::net::limits::ClientLimits;
use crate::net::patience::HeadReading;

/// The timer of one connection, for hyper.
#[derive(Debug)]
pub(crate) struct HeadTimer {
    limits: ClientLimits,
    head_reading: Arc<HeadReading>,
    /// Where the connection may have to end for another one; `None`: nowhere.
    waits: Option<IdleWaits>,
    kept: Kept,
    /// The time that hyper sees.
    created: std::time::Instant,
}

/// The runtime's timer between two waits: set to a later time over and over, it costs next to nothing. `None`: it
/// was not needed yet, or is in use.
type Kept = Arc<Mutex<Option<Pin<Box<Sleep>>>>>;

impl HeadTimer {
    /// `head_reading` is the stream's.
    pub(crate) fn new(
        limits: ClientLimits,
        head_reading: Arc<HeadReading>,
        waits: Option<IdleWaits>,
    ) -> Self {
        Self { limits, head_reading, waits, kept: Kept::default(), created: std::time::Instant::now() }
    }

    fn wait(&self) -> HeadWait {
        self.head_reading.anything.store(false, Ordering::Relaxed);
        self.head_reading.head_begins();
        let ClientLimits { header_timeout, keep_alive_timeout, .. } = self.limits;
        let (sleep, idle) = match lock(&self.kept).take() {
            Some(mut sleep) => {
                sleep.as_mut().reset(Instant::now() + keep_alive_timeout);
                (sleep, self.waits.as_ref().map(IdleWaits::begin))
            }
            None => (Box::pin(sleep(header_timeout)), None), // the first wait
        };
        HeadWait {
            sleep: Some(sleep),
            idle,
            kept: self.kept.clone(),
            header_timeout,
            head_reading: Some(self.head_reading.clone()),
        }
    }
}

impl rt::Timer for HeadTimer {
    fn sleep(&self, _: Duration) -> Pin<Box<dyn rt::Sleep>> {
        Box::pin(self.wait())
    }

    fn sleep_until(&self, _: std::time::Instant) -> Pin<Box<dyn rt::Sleep>> {
        Box::pin(self.wait()) // hyper waits for nothing but heads
    }

    /// hyper makes deadlines of it, which are not looked at above: so neither is the clock here.
    fn now(&self) -> std::time::Instant {
        self.created
    }
}

fn lock(kept: &Kept) -> MutexGuard<'_, Option<Pin<Box<Sleep>>>> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

struct HeadWait {
    /// There until the drop.
    sleep: Option<Pin<Box<Sleep>>>,
    /// Until a head has begun.
    idle: Option<IdleWait>,
    /// Where it goes then.
    kept: Kept,
    header_timeout: Duration,
    /// `None`: a head has begun.
    head_reading: Option<Arc<HeadReading>>,
}

impl Drop for HeadWait {
    fn drop(&mut self) {
        *lock(&self.kept) = self.sleep.take();
    }
}

impl rt::Sleep for HeadWait {}

impl Future for HeadWait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let Some(sleep) = &mut this.sleep else { return Poll::Pending };
        if this.head_reading.take_if(|head_reading| head_reading.anything.load(Ordering::Relaxed)).is_some() {
            sleep.as_mut().reset(Instant::now() + this.header_timeout);
            this.idle = None;
        }
        if this.idle.as_mut().is_some_and(|idle| idle.as_mut().poll(cx).is_ready()) {
            this.idle = None;
            return Poll::Ready(()); // as if it had waited long enough
        }
        sleep.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::Empty;
    use hyper::server::conn::http1::Builder;
    use hyper::service::service_fn;
    use hyper::{Request, Response};
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::task::JoinHandle;

    use super::*;
    use crate::net::patience::StallTimeout;

    const LIMITS: ClientLimits = ClientLimits {
        header_timeout: Duration::from_secs(10),
        keep_alive_timeout: Duration::from_secs(75),
        ..ClientLimits::DEFAULT
    };

    fn serve_silent_client() -> (DuplexStream, JoinHandle<Duration>) {
        let (near, far) = duplex(1024);
        let io = StallTimeout::new(near);
        let answer = async |_: Request<_>| Ok::<_, Infallible>(Response::new(Empty::<&[u8]>::new()));
        let serving = Builder::new()
            .timer(HeadTimer::new(LIMITS, io.head_reading(), None))
            .header_read_timeout(LIMITS.header_timeout)
            .serve_connection(TokioIo::new(io), service_fn(answer));
        let started = Instant::now();
        let lived = async move { serving.await.map_err(|e| assert!(e.is_timeout())).map_or((), drop) };
        (
            far,
            tokio::spawn(async move {
                lived.await;
                started.elapsed()
            }),
        )
    }

    async fn ask(far: &mut DuplexStream, request: &str) {
        far.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(far.read_u8().await.unwrap());
        }
    }

    const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok";

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_kept_longer_than_a_head_may_take() {
        let second = Duration::from_secs(1);
        // Nothing is asked.
        let (far, lived) = serve_silent_client();
        assert_eq!(lived.await.unwrap(), 10 * second);
        drop(far);
        // Something is, with a body.
        let (mut far, lived) = serve_silent_client();
        tokio::time::sleep(9 * second).await;
        ask(&mut far, POST).await;
        tokio::time::sleep(74 * second).await;
        ask(&mut far, POST).await;
        assert_eq!(lived.await.unwrap(), (9 + 74 + 75) * second);
        // A head has begun: its bytes don't buy time.
        for begun in [0, 70] {
            let (mut far, lived) = serve_silent_client();
            ask(&mut far, POST).await;
            tokio::time::sleep(begun * second).await;
            let dripping = async {
                for _ in 0..9 {
                    far.write_all(b"G").await.unwrap();
                    tokio::time::sleep(second).await;
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                lived = lived => assert_eq!(lived.unwrap(), (begun + 10) * second),
                () = dripping => {}
            }
        }
    }
}
