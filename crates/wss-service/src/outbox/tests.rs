use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use frame_core::endpoint::MessageKind;
use tokio::time::timeout;

use super::*;

/// Room for so many frames.
struct Room(usize, Vec<usize>);

impl Sink for Room {
    fn has_room(&self) -> bool {
        self.0 > 0
    }

    fn queue(&mut self, frame: &SharedFrame) {
        self.0 -= 1;
        self.1.push(frame.wire_len());
    }
}

/// So many bytes on the wire, which tells frames apart.
fn frame(len: usize) -> SharedFrame {
    SharedFrame::message(MessageKind::Binary, Bytes::from(vec![0; len - 2]))
}

/// Lengths of the frames that come out, and what is left.
fn take(outbox: &Outbox, room: usize) -> (Vec<usize>, Left) {
    let mut sink = Room(room, Vec::new());
    let left = outbox.take_into(&mut sink, &Context::from_waker(Waker::noop()));
    (sink.1, left)
}

fn left(bytes: usize) -> Left {
    Left { bytes, order: None }
}

fn bye() -> Order {
    Order { code: CloseCode::NORMAL, reason: "bye".into(), cause: Cause::ClosedByServer }
}

async fn waits<T>(future: impl Future<Output = T>) -> bool {
    timeout(Duration::from_secs(9), future).await.is_err()
}

#[test]
fn frames_come_out_in_order_while_there_is_room() {
    let outbox = Outbox::new(100, SlowClient::Wait);
    for len in [10, 20, 30] {
        outbox.offer(&frame(len)).unwrap();
    }
    assert_eq!(take(&outbox, 2), (vec![10, 20], left(30)));
    assert!(outbox.has_more());
    assert_eq!(take(&outbox, 2), (vec![30], left(0)));
    assert!(!outbox.has_more());
}

#[test]
fn no_more_than_the_bound_waits_but_for_one_long_message() {
    let outbox = Outbox::new(100, SlowClient::Wait);
    outbox.offer(&frame(120)).unwrap();
    assert_eq!(outbox.offer(&frame(10)), Err(SendError::Full));
    take(&outbox, 1);
    outbox.offer(&frame(60)).unwrap();
    outbox.offer(&frame(40)).unwrap();
    assert_eq!(outbox.offer(&frame(2)), Err(SendError::Full));
    assert_eq!(outbox.bytes(), 100);
}

#[tokio::test(start_paused = true)]
async fn frames_of_few_bytes_are_bounded_too() {
    let (max, frames_max) = (6400, 116);
    let outbox = Outbox::new(max, SlowClient::Wait);
    let taken = (0..max).take_while(|_| outbox.offer(&frame(2)).is_ok()).count();
    assert_eq!(taken, frames_max);
    assert_eq!(take(&outbox, max).0.len(), frames_max);
    outbox.open_message().await.unwrap();
    for _ in 0..frames_max {
        outbox.send_part(&frame(2), false).await.unwrap();
    }
    assert!(waits(outbox.send_part(&frame(2), false)).await);
    let outbox = Outbox::new(max, SlowClient::DropOldest);
    (0..max).for_each(|_| outbox.offer(&frame(2)).unwrap());
    assert_eq!((outbox.bytes(), outbox.dropped()), (2 * frames_max, (max - frames_max) as u64));
}

#[tokio::test(start_paused = true)]
async fn a_sender_waits_for_room_and_a_sender_that_gives_up_has_sent_nothing() {
    let outbox = Outbox::new(100, SlowClient::Wait);
    outbox.offer(&frame(90)).unwrap();
    assert!(waits(outbox.send(&frame(50))).await);
    let later = frame(60);
    let (sent, ()) = tokio::join!(outbox.send(&later), async {
        tokio::task::yield_now().await;
        assert_eq!(take(&outbox, 9).0, [90]);
    });
    sent.unwrap();
    assert_eq!(take(&outbox, 9).0, [60], "the one of 50 was not queued");
}

#[tokio::test(start_paused = true)]
async fn the_end_wakes_those_who_wait() {
    for end in [Outbox::end, |outbox: &Outbox| outbox.close(bye()), |outbox: &Outbox| outbox.close_now(bye())]
    {
        let outbox = Outbox::new(100, SlowClient::Wait);
        outbox.offer(&frame(90)).unwrap();
        let later = frame(60);
        let (sent, ()) = tokio::join!(outbox.send(&later), async {
            tokio::task::yield_now().await;
            end(&outbox);
        });
        assert_eq!(sent, Err(SendError::Over));
        assert!(outbox.is_over());
        assert_eq!(outbox.offer(&frame(2)), Err(SendError::Over));
    }
}

#[test]
fn the_oldest_go_for_the_newest() {
    let outbox = Outbox::new(100, SlowClient::DropOldest);
    for len in [30, 31, 32, 33] {
        outbox.offer(&frame(len)).unwrap();
    }
    assert_eq!((outbox.dropped(), outbox.bytes()), (1, 96));
    outbox.offer(&frame(99)).unwrap();
    assert_eq!((take(&outbox, 9).0, outbox.dropped()), (vec![99], 4));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_whole_message_is_not_dropped() {
    let outbox = Outbox::new(100, SlowClient::DropOldest);
    outbox.open_message().await.unwrap();
    outbox.send_part(&frame(95), false).await.unwrap();
    outbox.offer(&frame(20)).unwrap();
    assert_eq!((outbox.dropped(), outbox.bytes()), (1, 95), "there is no room for it");
    assert_eq!(take(&outbox, 9).0, [95]);
}

#[test]
fn a_slow_client_is_closed_with_what_was_queued_dropped() {
    let outbox = Outbox::new(100, SlowClient::Close(CloseCode::TRY_AGAIN_LATER));
    outbox.offer(&frame(90)).unwrap();
    assert_eq!(outbox.offer(&frame(20)), Err(SendError::Over));
    let (frames, left) = take(&outbox, 9);
    assert_eq!((frames, left.bytes), (vec![], 0));
    let order = left.order.unwrap();
    assert_eq!((order.code, order.cause), (CloseCode::TRY_AGAIN_LATER, Cause::SlowClient));
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_room_hears_that_the_client_is_too_slow() {
    let outbox = Outbox::new(100, SlowClient::Close(CloseCode::TRY_AGAIN_LATER));
    outbox.open_message().await.unwrap();
    outbox.send_part(&frame(95), false).await.unwrap();
    let part = frame(90);
    let mut waiting = pin!(outbox.send_part(&part, false));
    assert!(waits(&mut waiting).await);
    assert_eq!(outbox.offer(&frame(20)), Err(SendError::Over));
    assert_eq!(timeout(Duration::from_secs(9), waiting).await, Ok(Err(SendError::Over)));
}

#[test]
fn a_close_comes_behind_what_was_sent_before_it() {
    let outbox = Outbox::new(100, SlowClient::Wait);
    outbox.offer(&frame(10)).unwrap();
    outbox.offer(&frame(11)).unwrap();
    outbox.close(bye());
    outbox.close(Order { code: CloseCode::GOING_AWAY, ..bye() });
    assert_eq!(take(&outbox, 1), (vec![10], left(11)));
    assert_eq!(take(&outbox, 1), (vec![11], Left { bytes: 0, order: Some(bye()) }));
    assert!(
        outbox.is_over() && outbox.offer(&frame(12)) == Err(SendError::Over),
        "nothing comes behind the Close"
    );
}

#[tokio::test(start_paused = true)]
async fn the_parts_of_a_message_stay_together() {
    let outbox = Outbox::new(100, SlowClient::Wait);
    outbox.offer(&frame(10)).unwrap();
    outbox.open_message().await.unwrap();
    outbox.send_part(&frame(11), false).await.unwrap();
    outbox.offer(&frame(12)).unwrap();
    outbox.offer_control(&SharedFrame::ping(Bytes::from(vec![0; 5]))).unwrap();
    assert!(waits(outbox.open_message()).await, "one at a time");
    outbox.send_part(&frame(13), true).await.unwrap();
    assert_eq!(take(&outbox, 9).0, [10, 11, 7, 13, 12]);
    outbox.open_message().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_waits_behind_a_message_does_not_hold_it_up() {
    let outbox = Outbox::new(100, SlowClient::Wait);
    outbox.open_message().await.unwrap();
    outbox.offer(&frame(99)).unwrap();
    outbox.send_part(&frame(60), false).await.unwrap();
    assert!(waits(outbox.send_part(&frame(60), true)).await);
    assert_eq!(take(&outbox, 9).0, [60]);
    outbox.send_part(&frame(60), true).await.unwrap();
    assert_eq!(take(&outbox, 9).0, [60, 99]);
}

#[tokio::test]
async fn the_task_is_woken_once_for_what_has_come() {
    let outbox = Outbox::new(100, SlowClient::Wait);
    let mut taken = taking_task(&outbox);
    assert!(taken.poll().is_pending());
    outbox.offer(&frame(10)).unwrap();
    outbox.offer(&frame(11)).unwrap();
    assert_eq!(taken.woken(), 1);
    assert_eq!(taken.poll(), Poll::Ready(21));
}

#[test]
fn senders_are_woken_when_half_of_what_waited_is_taken() {
    let outbox = Outbox::new(100, SlowClient::Wait);
    for _ in 0..10 {
        outbox.offer(&frame(10)).unwrap();
    }
    let (more, wakes) = (frame(10), std::sync::Arc::<Wakes>::default());
    let waker = Waker::from(wakes.clone());
    let mut sending = pin!(outbox.send(&more));
    assert!(sending.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    for taken in 1..=5 {
        take(&outbox, 1);
        assert_eq!(wakes.0.load(std::sync::atomic::Ordering::Relaxed), usize::from(taken == 5), "{taken}");
    }
    assert_eq!(sending.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Ready(Ok(())));
}

/// A task that is ready with the bytes that it took.
struct TakingTask<'a>(&'a Outbox, std::sync::Arc<Wakes>);

#[derive(Default)]
struct Wakes(std::sync::atomic::AtomicUsize);

impl std::task::Wake for Wakes {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

fn taking_task(outbox: &Outbox) -> TakingTask<'_> {
    TakingTask(outbox, std::sync::Arc::default())
}

impl TakingTask<'_> {
    fn poll(&mut self) -> Poll<usize> {
        let mut sink = Room(9, Vec::new());
        self.0.take_into(&mut sink, &Context::from_waker(&Waker::from(self.1.clone())));
        if sink.1.is_empty() { Poll::Pending } else { Poll::Ready(sink.1.iter().sum()) }
    }

    fn woken(&self) -> usize {
        self.1.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}
