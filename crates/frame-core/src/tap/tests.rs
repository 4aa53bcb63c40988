//! Streams that are watched, and relays that become so in the middle.

use std::task::Waker;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::clock::Exact;
use crate::handle::SessionHandle;
use crate::policy::Policy;
use crate::relay::{Ending, relay, relay_from};
use crate::sequence::Limits;
use crate::test_io::{frame, masked};

fn watch(sender: TapSender, has_frames: bool) -> Watch {
    Watch { session: 7, capture_len: 100, deflate: false, has_frames, sender }
}

/// The copies that are in the queue, in one direction.
fn copies(queue: &mut TapReceiver, from: Sender) -> Vec<Vec<u8>> {
    let events = std::iter::from_fn(|| queue.try_recv());
    let copy = events.filter_map(|event| match event {
        TapEvent::Copy(copy) if copy.sender == from => Some(copy.wire),
        _ => None,
    });
    copy.collect()
}

#[tokio::test]
async fn both_ways_are_copied() {
    let (sender, mut queue) = tap_queue();
    let (near, mut far) = duplex(1000);
    let mut tapped = Tapped::new(near, watch(sender, true), TapStart::Beginning);
    assert!(matches!(queue.try_recv(), Some(TapEvent::Began { session: 7, is_whole: true, deflate: false })));
    let (up, down) = (masked(0x81, b"up"), frame(0x82, b"down"));
    far.write_all(&up[..3]).await.unwrap();
    tapped.read_exact(&mut [0; 3]).await.unwrap();
    assert!(queue.try_recv().is_none(), "not before it is whole");
    far.write_all(&up[3..]).await.unwrap();
    tapped.read_exact(&mut vec![0; up.len() - 3]).await.unwrap();
    tapped.write_all(&down).await.unwrap();
    let Some(TapEvent::Copy(first)) = queue.try_recv() else { panic!("nothing") };
    assert_eq!((first.kind, first.sender, first.len, &first.wire), (CopyKind::Frame, Sender::Client, 2, &up));
    assert_eq!(copies(&mut queue, Sender::Server), [down]);
}

#[tokio::test]
async fn bytes_of_another_protocol_are_copied_as_they_come() {
    let (sender, mut queue) = tap_queue();
    let (near, _far) = duplex(1000);
    let mut tapped = Tapped::new(near, watch(sender, false), TapStart::Beginning);
    tapped.write_all(&[9; 300]).await.unwrap();
    queue.try_recv();
    let Some(TapEvent::Copy(copy)) = queue.try_recv() else { panic!("nothing") };
    assert_eq!((copy.kind, copy.len, copy.wire.len()), (CopyKind::Bytes, 300, 100));
}

#[tokio::test]
async fn who_reads_nothing_loses_frames_and_the_session_nothing() {
    let (sender, mut queue) = tap_queue();
    let (near, mut far) = duplex(1 << 20);
    let mut tapped = Tapped::new(near, watch(sender.clone(), true), TapStart::Beginning);
    let wire = frame(0x82, &[0; 100]);
    let mut read = vec![0; wire.len()];
    for _ in 0..40_000 {
        tapped.write_all(&wire).await.unwrap();
        far.read_exact(&mut read).await.unwrap();
    }
    let dropped = queue.dropped();
    assert!(dropped > 20_000, "{dropped}");
    let left = copies(&mut queue, Sender::Server);
    assert_eq!(left.len() as u64 + dropped, 40_000);
    // The next one says how many are missing.
    tapped.write_all(&wire).await.unwrap();
    let Some(TapEvent::Copy(copy)) = queue.try_recv() else { panic!("nothing") };
    assert_eq!(copy.dropped, dropped);
    tapped.write_all(&wire).await.unwrap();
    let Some(TapEvent::Copy(copy)) = queue.try_recv() else { panic!("nothing") };
    assert_eq!(copy.dropped, 0);
}

/// Polls a relay that waits for more.
fn step(relaying: Pin<&mut impl Future<Output = Ending>>) -> Option<Ending> {
    match relaying.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(ending) => Some(ending),
        Poll::Pending => None,
    }
}

fn take(io: &mut DuplexStream) -> usize {
    let mut all = vec![0; 1 << 16];
    let mut free = ReadBuf::new(&mut all);
    let _ = Pin::new(io).poll_read(&mut Context::from_waker(Waker::noop()), &mut free);
    free.filled().len()
}

proptest! {
    /// Wherever a relay is interrupted, and however little its client takes, the frames that begin after that are copied as
    /// they are, and no other.
    #[test]
    fn a_relay_that_is_interrupted_shows_the_frames_that_begin_then(
        lens in proptest::collection::vec(0..300usize, 2..8),
        up_cut in any::<prop::sample::Index>(),
        down_cut in any::<prop::sample::Index>(),
        room in 20..2000usize,
    ) {
        let policy = Policy {
            limits: Limits { message_max: u64::MAX, deflate: false },
            idle_timeout: None, lifetime: None, ping_interval: None,
            pong_timeout: std::time::Duration::from_secs(9),
        };
        let (up, down): (Vec<_>, Vec<_>) =
            lens.iter().map(|len| (masked(0x82, &vec![1; *len]), frame(0x82, &vec![2; *len]))).unzip();
        let (up_wire, down_wire) = (up.concat(), down.concat());
        let (up_cut, down_cut) = (up_cut.index(up_wire.len()), down_cut.index(down_wire.len()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (seen_up, seen_down) = runtime.block_on(tokio::task::unconstrained(async {
            let ((mut client, mut near), (mut backend, mut far)) = (duplex(room), duplex(room));
            let handle = SessionHandle::new();
            let (mut up_sent, mut down_sent) = (0, 0);
            let mut push = |client: &mut DuplexStream, backend: &mut DuplexStream, up_end: usize, down_end: usize| {
                let mut cx = Context::from_waker(Waker::noop());
                if let Poll::Ready(Ok(n)) = Pin::new(client).poll_write(&mut cx, &up_wire[up_sent..up_end]) { up_sent += n; }
                if let Poll::Ready(Ok(n)) = Pin::new(backend).poll_write(&mut cx, &down_wire[down_sent..down_end]) { down_sent += n; }
                (up_sent, down_sent)
            };
            let state = {
                let mut relaying = Box::pin(relay(&mut near, &mut far, policy, &handle, Exact::begin()));
                for _ in 0..40 {
                    push(&mut client, &mut backend, up_cut, down_cut);
                    assert!(step(relaying.as_mut()).is_none());
                }
                handle.interrupt();
                let Some(Ending::Frozen(state)) = step(relaying.as_mut()) else { panic!("not frozen") };
                state
            };
            let (sender, mut queue) = tap_queue();
            let mut tapped = Tapped::new(&mut near, watch(sender, true), state.tap_start());
            let mut relaying = Box::pin(relay_from(state, &mut tapped, &mut far, &handle, Exact::begin()));
            for _ in 0..5000 {
                push(&mut client, &mut backend, up_wire.len(), down_wire.len());
                assert!(step(relaying.as_mut()).is_none());
                take(&mut client);
                take(&mut backend);
            }
            assert_eq!(push(&mut client, &mut backend, up_wire.len(), down_wire.len()), (up_wire.len(), down_wire.len()));
            let (mut seen_up, mut seen_down) = (Vec::new(), Vec::new());
            while let Some(event) = queue.try_recv() {
                match event {
                    TapEvent::Copy(copy) if copy.sender == Sender::Client => seen_up.push(copy.wire),
                    TapEvent::Copy(copy) => seen_down.push(copy.wire),
                    _ => {}
                }
            }
            (seen_up, seen_down)
        }));
        let fronts = |frames: &[Vec<u8>]| -> Vec<Vec<u8>> {
            frames.iter().map(|frame| {
                let head_len = if frame[1] & 0x7F == 126 { 4 } else { 2 } + if frame[1] & 0x80 != 0 { 4 } else { 0 };
                frame[..frame.len().min(head_len + 100)].to_vec()
            }).collect()
        };
        let (up, down) = (fronts(&up), fronts(&down));
        prop_assert!(up.ends_with(&seen_up), "up");
        prop_assert!(down.ends_with(&seen_down), "down");
        // All that had not begun when it was interrupted.
        let begun = |frames: &[Vec<u8>], cut: usize| {
            let mut at = 0;
            lens.iter().zip(frames).take_while(|(len, frame)| {
                let before = at;
                at += **len + if frame[1] & 0x7F == 126 { 4 } else { 2 } + if frame[1] & 0x80 != 0 { 4 } else { 0 };
                before < cut
            }).count()
        };
        prop_assert!(seen_up.len() + begun(&up, up_cut) >= lens.len());
        prop_assert!(seen_down.len() + begun(&down, down_cut) >= lens.len());
    }
}
