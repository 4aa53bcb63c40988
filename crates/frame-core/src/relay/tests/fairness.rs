//! Sessions that move many bytes wait for each other; a session that moves few does not wait.

use std::future::poll_fn;
use std::sync::atomic::AtomicUsize;

use super::*;

/// Has always more to be read, and takes everything.
struct Endless {
    read: Arc<AtomicUsize>,
    /// Then it is silent, so that a session that never yields makes the test fail and not hang.
    most: usize,
    /// Bytes of one read at most.
    piece: usize,
}

impl AsyncRead for Endless {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = self.read.load(Ordering::Relaxed);
        if before >= self.most {
            return Poll::Pending;
        }
        let head = [0x82, 127, 0x40, 0, 0, 0, 0, 0, 0, 0];
        let mut piece = buf.take(self.piece);
        piece.put_slice(&head[before.min(head.len())..]);
        let rest = piece.initialize_unfilled().len();
        piece.advance(rest);
        let len = piece.filled().len();
        buf.advance(len);
        self.read.fetch_add(len, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl ClientStream for Endless {}

impl AsyncWrite for Endless {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_with_endless_bytes_lets_other_tasks_run() {
    const POLLS: usize = 10;
    let read = Arc::<AtomicUsize>::default();
    let endless = |most| Endless { read: read.clone(), most, piece: usize::MAX };
    let (mut client, mut backend) = (endless(0), endless(1 << 28));
    let relay = tokio::spawn(async move {
        let handle = SessionHandle::new();
        relay(&mut client, &mut backend, policy(), &handle, Exact::begin()).await
    });
    for _ in 0..POLLS {
        tokio::task::yield_now().await;
    }
    let read = read.load(Ordering::Relaxed);
    assert!(read >= (POLLS - 1) * QUANTUM_LEN, "{read}: it goes on by itself");
    assert!(read <= (POLLS + 1) * (QUANTUM_LEN + BUFFER_LEN), "{read}");
    relay.abort();
}

/// Between two polls of the driver, a small message waits for one session that moves many bytes, however many there
/// are.
#[tokio::test(start_paused = true)]
async fn of_sessions_with_endless_bytes_one_reads_between_two_polls_of_the_driver() {
    const SESSIONS: usize = 8;
    const POLLS: usize = 40;
    let caller = tokio::spawn(crate::fair_queue::run());
    let reads: Vec<_> = (0..SESSIONS).map(|_| Arc::<AtomicUsize>::default()).collect();
    let tasks: Vec<_> = reads
        .iter()
        .map(|read| {
            let endless = |most| Endless { read: read.clone(), most, piece: usize::MAX };
            let (mut client, mut backend) = (endless(0), endless(1 << 28));
            tokio::spawn(async move {
                let handle = SessionHandle::new();
                relay(&mut client, &mut backend, policy(), &handle, Exact::begin()).await
            })
        })
        .collect();
    let all = || reads.iter().map(|read| read.load(Ordering::Relaxed)).sum::<usize>();
    for _ in 0..2 {
        tokio::task::yield_now().await; // each reads once before it is known to move many bytes
    }
    let mut before = all();
    for poll in 0..POLLS {
        tokio::task::yield_now().await;
        let read = all() - before;
        assert!(read <= QUANTUM_LEN + BUFFER_LEN, "{read} in poll {poll}");
        before += read;
    }
    let shares: Vec<_> = reads.iter().map(|read| read.load(Ordering::Relaxed)).collect();
    let fair = POLLS / SESSIONS * QUANTUM_LEN;
    assert!(shares.iter().all(|share| *share >= fair), "{shares:?}: each has its turn");
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    caller.abort();
}

/// Bytes that each of two peers has had read after one poll, if they give these pieces without end.
async fn read_in_one_poll(pieces: [Option<usize>; 2]) -> [usize; 2] {
    let reads: [Arc<AtomicUsize>; 2] = Default::default();
    let [mut client, mut backend] = [0, 1].map(|n| Endless {
        read: reads[n].clone(),
        most: pieces[n].map_or(0, |_| 1 << 20),
        piece: pieces[n].unwrap_or(0),
    });
    let mut relay = Relay::new(&policy(), Exact::begin(), Scanner::disabled);
    poll_once(&mut relay, &mut client, &mut backend).await;
    reads.map(|read| read.load(Ordering::Relaxed))
}

async fn poll_once<C, B>(relay: &mut Relay<Exact>, client: &mut C, backend: &mut B)
where
    C: ClientStream,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let handle = SessionHandle::new();
    poll_fn(|cx| {
        assert!(relay.poll(cx, client, backend, &handle).is_pending());
        Poll::Ready(())
    })
    .await;
}

/// A poll ends when both directions, or one of them twice, have used up the rounds of a pump: many small reads must
/// not take longer than one large read.
#[tokio::test(start_paused = true)]
async fn small_reads_end_a_poll_early() {
    let len = 20;
    // Every second round reads, the one behind it scans.
    let read = usize::try_from(pump::ROUNDS_MAX).unwrap() / 2 * len;
    assert_eq!(read_in_one_poll([Some(len), Some(len)]).await, [read; 2]);
    assert_eq!(read_in_one_poll([None, Some(len)]).await, [0, 2 * read]);
    assert_eq!(read_in_one_poll([Some(len), None]).await, [2 * read, 0]);
}

/// Both directions count, whether the timer had to be looked at or not.
#[tokio::test(start_paused = true)]
async fn how_much_a_session_has_read_decides_whether_it_is_queued() {
    for policy in [policy(), pinging()] {
        for (up, down, expected) in [
            (100, 100, QueueState::Light),
            (0, 40 << 10, QueueState::Light),
            (40 << 10, 0, QueueState::Light),
            (40 << 10, 40 << 10, QueueState::Bulk),
            (70 << 10, 0, QueueState::Bulk),
        ] {
            let (mut client_far, mut client) = duplex(1 << 20);
            let (mut backend_far, mut backend) = duplex(1 << 20);
            client_far.write_all(&masked(0x82, &vec![0; up])).await.unwrap();
            backend_far.write_all(&frame(0x82, &vec![0; down])).await.unwrap();
            let scanner = |sender| Scanner::new(sender, policy.limits);
            let mut relay = Relay::new(&policy, Exact::begin(), scanner);
            poll_once(&mut relay, &mut client, &mut backend).await;
            assert_eq!(relay.queue_state, expected, "{up} {down} {policy:?}");
        }
    }
}
