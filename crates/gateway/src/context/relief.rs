//! What a worker does near the end of its memory budget: those who have taken nothing for the longest go first.

use std::sync::atomic::Ordering;

use frame_core::close::TRY_AGAIN_LATER;
use frame_core::handle::{EndMode, Order};
use net_io::memory::set_limit;
use tokio::time::{Duration, Instant};
use tracing::{info, warn};

use crate::context::registry::Registry;
use crate::net::budget::{Pressure, Share, held, press, take_cut};

/// How often a worker looks while it holds much.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// A session that was ordered to end has ended after so long.
const GONE_TIME: Duration = Duration::from_secs(2);
/// The same when all is used up, and what inflates messages waits: those who gave nothing back may hold much less than others.
const GONE_TIME_FULL: Duration = Duration::from_millis(500);
/// Between two lines of the log about it.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// What a session holds whose client doesn't read: a buffer, and as much in records.
const STALLED_LEN: u64 = 512 * 1024;

/// What a worker does about its memory.
#[derive(Debug)]
pub(crate) struct Relief {
    /// Much is held: the next look comes soon.
    pub is_urgent: bool,
    /// Those who were given up are still going until then.
    next: Instant,
    /// When the next line of the log may be written.
    log_at: Instant,
    shed_unlogged: usize,
    is_short: bool,
}

impl Default for Relief {
    fn default() -> Self {
        let now = Instant::now();
        Self { is_urgent: false, next: now, log_at: now, shed_unlogged: 0, is_short: false }
    }
}

impl Relief {
    /// Looks at what is held, and gives up whom it must.
    pub(crate) fn look(&mut self, pressure: &Pressure, share: Option<Share>, sessions: &Registry) {
        let held = held();
        pressure.held.store(held, Ordering::Relaxed);
        let cut = take_cut();
        pressure.shed.fetch_add(cut, Ordering::Relaxed);
        self.shed_unlogged += usize::try_from(cut).unwrap_or(usize::MAX);
        set_limit(share.map_or(usize::MAX, |share| usize::try_from(share.0).unwrap_or(usize::MAX)));
        let Some(share) = share else {
            self.is_urgent = false;
            press(false);
            return;
        };
        self.is_urgent = held >= share.0 / 2;
        press(held >= share.shed_at());
        let now = Instant::now();
        if held >= share.shed_at() && now >= self.next {
            let count = (held - share.shed_to()).div_ceil(STALLED_LEN);
            let slowest = sessions.slowest(usize::try_from(count).unwrap_or(usize::MAX));
            for handle in &slowest {
                handle.end(Order { code: TRY_AGAIN_LATER, mode: EndMode::Now });
            }
            if !slowest.is_empty() {
                pressure.shed.fetch_add(slowest.len() as u64, Ordering::Relaxed);
                self.shed_unlogged += slowest.len();
                self.next = now + if held >= share.0 { GONE_TIME_FULL } else { GONE_TIME };
            }
        }
        self.log(share, held, now);
    }

    fn log(&mut self, share: Share, held: u64, now: Instant) {
        let is_short = share.is_short(held);
        let is_new = (is_short && !self.is_short) || self.shed_unlogged > 0;
        if is_new && now >= self.log_at {
            let refuses = if is_short { "yes" } else { "no" };
            warn!(
                held_bytes = held,
                share_bytes = share.0,
                closed = self.shed_unlogged,
                refuses_new = refuses,
                "max_memory is nearly used up: the clients that have read nothing for the longest time are closed with 1013"
            );
            self.log_at = now + LOG_INTERVAL;
            self.shed_unlogged = 0;
            self.is_short = is_short;
        } else if self.is_short && held < share.shed_at() {
            info!(held_bytes = held, share_bytes = share.0, "memory use is well below max_memory again");
            self.is_short = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, Request};
    use tokio::io::AsyncWriteExt;
    use tokio::time::sleep;

    use super::*;
    use crate::test_io::{Scene, read_head, soon};

    const TIGHT: &str = "max_memory = \"4MiB\"";

    /// Sends a request over a new connection, and says whether it gets 503 because memory is short.
    async fn is_refused(scene: &Scene) -> bool {
        let mut backend = scene.backend();
        let (mut client, _serving) = scene.http1();
        client.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
        tokio::select! {
            head = read_head(&mut client) => head.starts_with("HTTP/1.1 503 "),
            _ = read_head(&mut backend) => false,
        }
    }

    /// Begins one after the other what is to use memory, until there is no more; how many that took.
    async fn fill<T>(scene: &Scene, begin: impl AsyncFn() -> T) -> usize {
        let mut begun = Vec::new();
        assert_eq!(held(), 0);
        while !is_refused(scene).await {
            begun.push(begin().await);
            sleep(Duration::from_millis(10)).await;
            assert!(begun.len() < 1000, "{} bytes are held", held());
        }
        assert!(held() < 4 << 20, "{}", held());
        let count = begun.len();
        drop(begun);
        sleep(Duration::from_millis(10)).await;
        assert_eq!(held(), 0, "when all have gone");
        count
    }

    /// What clients have sent and backends don't take is held, over HTTP/1.1 and HTTP/2.
    #[tokio::test(start_paused = true)]
    async fn uploads_to_slow_backends_are_bounded() {
        let scene = Scene::new(TIGHT);
        let head = b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
        let chunk = [&b"8000\r\n"[..], &[b'a'; 0x8000], b"\r\n"].concat();
        let http1 = async || {
            let mut backend = scene.backend();
            let (mut client, _) = scene.http1();
            client.write_all(head).await.unwrap();
            soon(read_head(&mut backend)).await;
            for _ in 0..10 {
                let _ = tokio::time::timeout(Duration::from_millis(1), client.write_all(&chunk)).await;
            }
            (client, backend)
        };
        let count = fill(&scene, http1).await;
        assert!((16..60).contains(&count), "{count}");
        let http2 = async || {
            let mut backend = scene.backend();
            let mut client = scene.client(65_535).await;
            let post = Request::builder().method(Method::POST).uri("https://a.test/").body(()).unwrap();
            let (response, mut send) = client.send_request(post, false).unwrap();
            send.send_data(vec![b'a'; 1 << 20].into(), false).unwrap();
            soon(read_head(&mut backend)).await;
            (client, response, send, backend)
        };
        let count = fill(&scene, http2).await;
        assert!((16..60).contains(&count), "{count}");
    }

    /// So is what backends have sent and clients don't take.
    #[tokio::test(start_paused = true)]
    async fn answers_to_slow_clients_are_bounded() {
        let scene = Scene::new(TIGHT);
        let answer = async || {
            let mut backend = scene.backend();
            let (mut client, _) = scene.http1();
            client.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
            soon(read_head(&mut backend)).await;
            backend.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            let body = [b'a'; 1 << 16];
            for _ in 0..10 {
                let _ = tokio::time::timeout(Duration::from_millis(1), backend.write_all(&body)).await;
            }
            (client, backend)
        };
        let count = fill(&scene, answer).await;
        assert!((16..60).contains(&count), "{count}");
    }

    /// And heads that are not whole.
    #[tokio::test(start_paused = true)]
    async fn heads_that_are_not_whole_are_bounded() {
        let scene = Scene::new(TIGHT);
        let begin = async || {
            let (mut client, _) = scene.http1();
            client.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\nX-Long: ").await.unwrap();
            client.write_all(&[b'a'; 50_000]).await.unwrap();
            client
        };
        let count = fill(&scene, begin).await;
        assert!((56..90).contains(&count), "{count}");
    }
}
