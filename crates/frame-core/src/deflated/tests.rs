//! Both directions in any pieces, beside what a session without compression would see; and a relay over it.

use std::collections::VecDeque;
use std::task::Waker;

use bytes::BytesMut;
use net_io::memory;
use net_io::state::{StateReader, StateWriter};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::reading::{FILL_LEN, PART_LEN, WORK_MAX};
use super::*;
use crate::clock::Exact;
use crate::deflate::{Deflater, Inflater, Window};
use crate::handle::SessionHandle;
use crate::head::{OpCode, Scan, Sender, scan_head, unmask};
use crate::outcome::Cause;
use crate::policy::Policy;
use crate::relay::relay;
use crate::sequence::Limits;
use crate::test_io::{frame, masked, outcome};
use crate::test_net::Random;
use crate::violation::{Violation, violation_of};

const SMALL: Window = Window { bits: 12, is_kept: true };
const HISTORY_MAX: usize = 4096;
/// In the first byte of a frame.
const RSV1: u8 = 0x40;
const TICK: &[u8] =
    br#"{"symbol":"EURUSD","bid":1.08412,"ask":1.08415,"time":"2026-11-30T12:00:00Z","volume":1200000}"#;

fn deflating(from_client: Window, to_client: Window) -> Box<Deflating> {
    let (inflater, deflater) = (Inflater::new(from_client), Deflater::new(to_client, HISTORY_MAX));
    Deflating::new(Codec { inflater, deflater, share: None }, HISTORY_MAX)
}

/// A client's socket.
#[derive(Debug, Default)]
struct Socket {
    sent: VecDeque<u8>,
    received: Vec<u8>,
    /// So many bytes at once, one after the other and around; 0: not at this moment.
    steps: Vec<usize>,
    at: usize,
}

impl Socket {
    fn step(&mut self) -> Option<usize> {
        self.at += 1;
        match self.steps.get(self.at % self.steps.len().max(1)) {
            Some(0) => None,
            Some(&step) => Some(step),
            None => Some(usize::MAX),
        }
    }
}

impl ClientStream for Socket {}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(step) = self.step() else { return Poll::Pending };
        if self.sent.is_empty() {
            return Poll::Pending;
        }
        let len = step.min(buf.remaining()).min(self.sent.len());
        self.sent.drain(..len).for_each(|byte| buf.put_slice(&[byte]));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Some(step) = self.step() else { return Poll::Pending };
        let len = step.min(buf.len());
        self.received.extend_from_slice(&buf[..len]);
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// Reads once, so many bytes at most.
fn read(client: &mut Deflated<Socket>, room: usize) -> Poll<io::Result<Vec<u8>>> {
    let mut bytes = vec![0; room];
    let mut buf = ReadBuf::new(&mut bytes);
    Pin::new(client).poll_read(&mut cx(), &mut buf).map_ok(|()| buf.filled().to_vec())
}

/// Reads until the socket has had nothing for a while.
fn read_all(client: &mut Deflated<Socket>, room: usize) -> Vec<u8> {
    let (mut all, mut pending) = (Vec::new(), 0);
    while pending < 64 {
        match read(client, room) {
            Poll::Ready(read) => {
                all.extend(read.unwrap());
                pending = 0;
            }
            Poll::Pending => pending += 1,
        }
    }
    all
}

fn write_all(client: &mut Deflated<Socket>, mut bytes: &[u8], steps: usize) {
    while !bytes.is_empty() {
        let step = steps.min(bytes.len());
        if let Poll::Ready(written) = Pin::new(&mut *client).poll_write(&mut cx(), &bytes[..step]) {
            bytes = &bytes[written.unwrap()..];
        }
    }
}

fn flush(client: &mut Deflated<Socket>) {
    while Pin::new(&mut *client).poll_flush(&mut cx()).is_pending() {}
}

/// The first byte of each frame, and its payload.
fn frames(mut wire: &[u8], sender: Sender) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while !wire.is_empty() {
        let Ok(Scan::Head(head)) = scan_head(wire, sender) else { panic!("{wire:02X?}") };
        let len = head.head_len + usize::try_from(head.payload_len).unwrap();
        let mut payload = wire[head.head_len..len].to_vec();
        unmask(&mut payload, head.mask.unwrap_or_default(), 0);
        frames.push((wire[0], payload));
        wire = &wire[len..];
    }
    frames
}

/// What a session makes of the frames: messages, with their opcode, and control frames.
fn messages(frames: Vec<(u8, Vec<u8>)>) -> Vec<(OpCode, Vec<u8>)> {
    let (mut messages, mut message) = (Vec::new(), None);
    for (b0, payload) in frames {
        assert_eq!(b0 & 0x70, 0, "it is not compressed");
        let opcode = OpCode::parse(b0 & 0x0F).unwrap();
        if opcode.is_control() {
            messages.push((opcode, payload));
            continue;
        }
        assert_eq!(opcode == OpCode::Continuation, message.is_some());
        message.get_or_insert((opcode, Vec::new())).1.extend(payload);
        if b0 & 0x80 != 0 {
            messages.extend(message.take());
        }
    }
    assert!(message.is_none());
    messages
}

/// The other process's.
fn moved(client: Deflated<Socket>) -> Deflated<Socket> {
    let (socket, deflating) = client.into_parts();
    let mut out = StateWriter::new(0);
    deflating.write_state(&mut out);
    Deflated::new(socket, read_moved(&out.finish()))
}

#[test]
fn a_session_of_a_release_that_did_not_count_the_wire_goes_on() {
    let mut client = client_of(&[masked(0xC1, &compressed(TICK))]);
    assert_eq!(read_all(&mut client, 999).len(), TICK.len() + 6);
    let wire = client.on_wire().unwrap();
    assert!((20..TICK.len() as u64).contains(&wire.from_client), "{wire:?}");
    assert_eq!(moved(client_of(&[])).on_wire(), Some(OnWire::default()));
    let mut out = StateWriter::new(0);
    client.deflating.write_state(&mut out);
    let mut state = out.finish();
    assert_eq!(read_moved(&state).on_wire(), wire);
    // The state, and the only section in it: each has its length in front.
    let shorter = state.len() - 16;
    state.truncate(shorter);
    for at in [1, 5] {
        let len = u32::try_from(shorter - at - 4).unwrap();
        state[at..at + 4].copy_from_slice(&len.to_be_bytes());
    }
    assert_eq!(read_moved(&state).on_wire(), OnWire::default());
}

fn read_moved(state: &[u8]) -> Box<Deflating> {
    let mut fields = StateReader::new(state, 0).unwrap();
    let deflating = Deflating::read_state(&mut fields, &Budget::new(0)).unwrap();
    assert!(fields.is_at_end());
    deflating
}

/// A message, its opcode, whether it is compressed, and where its frames end.
type Message = (Vec<u8>, OpCode, bool, Vec<prop::sample::Index>);

fn some_messages() -> impl Strategy<Value = Vec<Message>> {
    let payload = prop_oneof![
        3 => (0..TICK.len(), 1..40_usize).prop_map(|(len, times)| TICK[..len].repeat(times)),
        1 => prop::collection::vec(any::<u8>(), 0..300),
        1 => (any::<u8>(), 30_000..60_000_usize).prop_map(|(byte, len)| vec![byte; len]),
    ];
    let opcode = prop::sample::select(vec![OpCode::Text, OpCode::Binary, OpCode::Ping]);
    let cuts = prop::collection::vec(any::<prop::sample::Index>(), 0..4);
    prop::collection::vec((payload, opcode, any::<bool>(), cuts), 1..6)
}

/// These payloads as the frames of a message.
fn framed(
    wire: &[u8],
    opcode: OpCode,
    bits: u8,
    cuts: &[prop::sample::Index],
    encode: impl Fn(u8, &[u8]) -> Vec<u8>,
) -> Vec<u8> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(wire.len() + 1)).collect();
    ends.push(wire.len());
    ends.sort_unstable();
    let (mut out, mut start) = (Vec::new(), 0);
    for (at, &end) in ends.iter().enumerate() {
        let b0 = if at == 0 { opcode.nibble() | bits } else { 0 };
        let fin = if at + 1 == ends.len() { 0x80 } else { 0 };
        out.extend(encode(b0 | fin, &wire[start..end]));
        start = end;
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What a client sends comes out as it meant it, in whatever pieces it comes, and if the session moves in between.
    #[test]
    fn what_a_client_sends_is_inflated(
        sent in some_messages(), is_kept: bool, room in prop_oneof![1..40_usize, 40..70_000_usize],
        steps in prop::collection::vec(prop_oneof![Just(0), 1..9_usize, 9..70_000_usize], 1..8), seed: u64,
    ) {
        prop_assume!(steps.iter().any(|&step| step > 0));
        let window = Window { is_kept, ..SMALL };
        let (mut deflater, mut socket, mut meant) = (Deflater::new(window, HISTORY_MAX), Socket::default(), Vec::new());
        socket.steps = steps;
        for (payload, opcode, is_compressed, cuts) in sent {
            if opcode.is_control() {
                let payload = payload[..payload.len().min(125)].to_vec();
                socket.sent.extend(masked(0x80 | opcode.nibble(), &payload));
                meant.push((opcode, payload));
                continue;
            }
            let mut wire = Vec::new();
            let is_compressed = is_compressed && deflater.message(&payload, &mut wire);
            let (wire, bits) = if is_compressed { (wire, RSV1) } else { (payload.clone(), 0) };
            socket.sent.extend(framed(&wire, opcode, bits, &cuts, masked));
            meant.push((opcode, payload));
        }
        let mut client = Deflated::new(socket, deflating(window, SMALL));
        let (mut random, mut seen, mut pending) = (Random(seed), Vec::new(), 0);
        while pending < 64 {
            match read(&mut client, room) {
                Poll::Ready(read) => {
                    seen.extend(read.unwrap());
                    pending = 0;
                }
                Poll::Pending => pending += 1,
            }
            if random.one_in(3) && client.deflating.is_still() {
                client = moved(client);
            }
        }
        let seen = frames(&seen, Sender::Client);
        prop_assert!(seen.iter().all(|(_, payload)| payload.len() <= 60_000));
        prop_assert_eq!(messages(seen), meant);
    }

    /// What a session writes is read by a client that compresses.
    #[test]
    fn what_a_client_is_sent_is_compressed(
        sent in some_messages(), is_kept: bool, step in prop_oneof![1..40_usize, 40..70_000_usize],
        steps in prop::collection::vec(prop_oneof![Just(0), 1..9_usize, 9..70_000_usize], 1..8), seed: u64,
    ) {
        prop_assume!(steps.iter().any(|&step| step > 0));
        let window = Window { bits: 15, is_kept };
        let mut client = Deflated::new(Socket { steps, ..Socket::default() }, deflating(SMALL, window));
        let (mut random, mut meant) = (Random(seed), Vec::new());
        for (mut payload, opcode, _, cuts) in sent {
            let is_control = opcode.is_control();
            payload.truncate(if is_control { 125 } else { usize::MAX });
            let cuts = if is_control { &[] } else { &cuts[..] };
            let wire = framed(&payload, opcode, 0, cuts, frame);
            let (front, back) = wire.split_at(random.below(wire.len() + 1));
            write_all(&mut client, front, step);
            if random.one_in(2) {
                client = moved(client); // in the middle of a message, a frame, or a head
            }
            write_all(&mut client, back, step);
            if random.one_in(2) {
                flush(&mut client);
            }
            meant.push((opcode, payload));
        }
        flush(&mut client);
        let (mut inflater, mut is_compressed, mut seen) = (Inflater::new(window), false, Vec::new());
        for (b0, payload) in frames(&client.get_ref().received, Sender::Server) {
            let is_control = b0 & 0x08 != 0;
            if !is_control && b0 & 0x0F != 0 {
                is_compressed = b0 & RSV1 != 0;
            }
            prop_assert!(is_control || is_compressed || payload.len() < 60_000);
            let mut inflated = BytesMut::new();
            if is_compressed && !is_control {
                prop_assert!(inflater.inflate(&mut &payload[..], b0 & 0x80 != 0, &mut inflated, 1 << 20).unwrap());
            } else {
                inflated.extend_from_slice(&payload);
            }
            seen.push((b0 & !RSV1, inflated.to_vec()));
        }
        prop_assert_eq!(messages(seen), meant);
        prop_assert_eq!(client.deflating.held.bytes(), 0);
    }
}

#[test]
fn fragments_that_are_there_at_once_share_a_flush() {
    let fragments = || [frame(0x01, &TICK[..40]), frame(0x00, b""), frame(0x00, &TICK[40..60])];
    let (ping, last) = (frame(0x89, b"now"), frame(0x80, &TICK[60..]));
    let heads = |wire: &[&[u8]]| {
        let mut client = client_of(&[]);
        for wire in wire {
            write_all(&mut client, wire, usize::MAX);
        }
        let seen = frames(&client.get_ref().received, Sender::Server);
        let (mut inflater, mut inflated) = (Inflater::new(SMALL), BytesMut::new());
        for (b0, payload) in seen.iter().filter(|(b0, _)| b0 & 0x08 == 0) {
            assert!(inflater.inflate(&mut &payload[..], b0 & 0x80 != 0, &mut inflated, 1 << 16).unwrap());
        }
        assert_eq!(&inflated[..], TICK);
        assert_eq!(memory::held(), 0);
        seen.iter().map(|(b0, _)| *b0).collect::<Vec<_>>()
    };
    let [first, empty, second] = fragments();
    assert_eq!(heads(&[&[&first[..], &empty, &second, &last].concat()]), [0xC1], "a whole message");
    assert_eq!(heads(&[&[&first[..], &empty, &second].concat(), &last]), [0x41, 0x80]);
    assert_eq!(heads(&[&first, &empty, &second, &last]), [0x41, 0x00, 0x00, 0x80]);
    assert_eq!(heads(&[&[&first[..], &ping, &second, &last].concat()]), [0x41, 0x89, 0x80], "in order");
    let (begun, rest) = second.split_at(7);
    assert_eq!(
        heads(&[&[&first[..], begun].concat(), &[rest, &last].concat()]),
        [0x41, 0x80],
        "what is whole does not wait for what is not"
    );
}

/// A client that has sent this, compressed where it has an RSV1.
fn client_of(sent: &[Vec<u8>]) -> Deflated<Socket> {
    let sent = sent.concat().into();
    Deflated::new(Socket { sent, ..Socket::default() }, deflating(SMALL, SMALL))
}

fn compressed(payload: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    assert!(Deflater::new(SMALL, 0).message(payload, &mut wire));
    wire
}

#[test]
fn a_long_message_goes_on_in_parts_and_short_ones_together() {
    let long = vec![b'x'; 2 * PART_LEN + 9];
    let ticks = (0..50).map(|_| masked(0xC1, &compressed(TICK)));
    let mut client = client_of(&ticks.chain([masked(0xC2, &compressed(&long))]).collect::<Vec<_>>());
    let Poll::Ready(Ok(first)) = read(&mut client, 64 * 1024) else { panic!("there is something") };
    let seen = frames(&first, Sender::Client);
    assert_eq!(seen.len(), 53, "all of it in one call");
    assert!(seen[..50].iter().all(|(b0, payload)| (*b0, &payload[..]) == (0x81, TICK)));
    let parts: Vec<_> = seen[50..].iter().map(|(b0, payload)| (*b0, payload.len())).collect();
    assert_eq!(parts, [(0x02, PART_LEN), (0x00, PART_LEN), (0x80, 9)]);
    assert!(read(&mut client, 64 * 1024).is_pending());
    for len in [PART_LEN, 64 * PART_LEN] {
        let seen = read_all(&mut client_of(&[masked(0xC2, &compressed(&vec![b'x'; len]))]), 70_000);
        assert_eq!(messages(frames(&seen, Sender::Client)), [(OpCode::Binary, vec![b'x'; len])]);
    }
}

#[test]
fn what_is_not_compressed_passes_as_it_is() {
    let (text, ping) = (masked(0x01, b"a fragment"), masked(0x89, b"ping"));
    let (rest, close) = (masked(0x80, &[b'y'; 70_000]), masked(0x88, &1000_u16.to_be_bytes()));
    let sent = [text, ping, rest, close];
    assert_eq!(read_all(&mut client_of(&sent), 999), sent.concat());
    let mut client = client_of(&[]);
    let short = [frame(0x81, &[b'z'; 63]), frame(0x8A, b"pong"), frame(0x82, b"")].concat();
    write_all(&mut client, &short, 7);
    assert_eq!(client.get_ref().received, short);
}

#[test]
fn a_broken_rule_is_said_behind_what_came_before_it() {
    let tick = masked(0xC1, &compressed(TICK));
    for (bad, violation) in [
        (masked(0xC1, b"\xFF\xFF"), Violation::Deflate),
        (masked(0xC1, b""), Violation::Deflate),
        (masked(0xC9, b""), Violation::ReservedBits { bits: 4 }),
        (masked(0xC0, b""), Violation::UnexpectedContinuation),
        (frame(0xC1, &compressed(TICK)), Violation::Unmasked),
    ] {
        let mut client = client_of(&[tick.clone(), bad]);
        let Poll::Ready(Ok(first)) = read(&mut client, 999) else { panic!("there is something") };
        assert_eq!(frames(&first, Sender::Client), [(0x81, TICK.to_vec())]);
        assert!(!client.deflating.is_still());
        let Poll::Ready(Err(e)) = read(&mut client, 999) else { panic!("a rule is broken") };
        assert_eq!(violation_of(&e), Some(violation));
    }
    // In the middle of a frame, whose rest nothing is made of.
    let bomb = masked(0xC2, &compressed(&vec![0; 3_000_000]));
    let mut client = client_of(&[bomb, tick]);
    let e = loop {
        if let Poll::Ready(Err(e)) = read(&mut client, 70_000) {
            break e;
        }
    };
    assert_eq!(violation_of(&e), Some(Violation::DeflateGrowth { max: 256 }));
    read_all(&mut client, 70_000);
    assert_eq!(violation_of(&io::ErrorKind::InvalidData.into()), None);
}

#[test]
fn messages_that_become_little_do_not_hold_up_a_thread() {
    let tiny = masked(0xC1, &compressed(&[b'x'; 70]));
    let count = 10_000;
    let mut client = client_of(&[tiny.repeat(count)]);
    let (mut seen, mut turns, mut at_once) = (0, 0, 0);
    while seen < count {
        match read(&mut client, 1 << 20) {
            Poll::Ready(Ok(some)) => at_once += frames(&some, Sender::Client).len(),
            Poll::Ready(Err(e)) => panic!("{e}"),
            Poll::Pending => {
                assert!(at_once <= WORK_MAX / 4096 + 1, "{at_once}");
                (seen, turns, at_once) = (seen + at_once, turns + 1, 0);
            }
        }
    }
    assert!(turns > count * 4096 / WORK_MAX - 2, "{turns}");
}

/// What counts frames above counts these, too.
#[test]
fn a_frame_that_becomes_nothing_goes_on_as_an_empty_one() {
    let mut client = client_of(&[masked(0x41, b""), masked(0x00, b""), masked(0x80, &compressed(TICK))]);
    let (begin, go_on, end) = ((0x01, Vec::new()), (0x00, Vec::new()), (0x80, TICK.to_vec()));
    assert_eq!(frames(&read_all(&mut client, 999), Sender::Client), [begin, go_on, end]);
}

/// While its reader takes no more, and while the rest of a message is waited for.
#[test]
fn little_is_kept_of_what_is_not_taken() {
    let before = memory::held();
    let noise: Vec<u8> = (0..100_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[2]).collect();
    let mut client = client_of(&[masked(0xC2, &compressed(&noise)), masked(0xC2, &compressed(&noise))]);
    assert_eq!(client.holds_message(), Some(false));
    for _ in 0..20 {
        assert!(read(&mut client, 100).is_ready());
        let held = memory::held() - before;
        assert!(held <= FILL_LEN + 2 * PART_LEN + 48 * 1024 + HISTORY_MAX, "{held}");
        assert_eq!(client.holds_message(), Some(true));
    }
    read_all(&mut client, 999);
    assert_eq!((client.holds_message(), memory::held()), (Some(false), before));
}

#[tokio::test(start_paused = true)]
async fn what_is_inflated_waits_for_memory() {
    let mut client = client_of(&[masked(0xC2, &compressed(&[b'x'; 50_000])), masked(0x81, b"plain")]);
    memory::set_limit(memory::held() + 30_000);
    assert!(read_all(&mut client, 999).is_empty());
    let mut some = [0; 10];
    let (read, ()) = tokio::join!(client.read(&mut some), async {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        memory::set_limit(usize::MAX);
    });
    assert_eq!(read.unwrap(), 10, "woken when there is some again");
    assert!(read_all(&mut client, 999).len() > 50_000);
}

#[test]
fn an_idle_session_holds_no_buffer() {
    let before = memory::held();
    let tick = masked(0xC1, &compressed(TICK));
    let mut client = client_of(&[tick.clone(), tick[..7].to_vec()]);
    assert_eq!(read_all(&mut client, 999).len(), TICK.len() + 6);
    assert!(memory::held() > before, "an inflater, for the message that has begun");
    client.client.sent.extend(&tick[7..]);
    read_all(&mut client, 999);
    write_all(&mut client, &frame(0x81, TICK), 999);
    assert_eq!(memory::held(), before);
    assert!(client.deflating.is_still());
    assert!(size_of::<Deflating>() <= 512, "{}", size_of::<Deflating>());
}

/// So that it is among those that are given up when memory is short.
#[tokio::test(start_paused = true)]
async fn a_session_waits_for_its_client_in_the_middle_of_a_compressed_message() {
    let (mut client, near) = duplex(1 << 16);
    let (mut backend, mut to_backend) = duplex(1 << 16);
    let policy = Policy {
        limits: Limits { message_max: u64::MAX, deflate: false },
        idle_timeout: None,
        lifetime: None,
        ping_interval: None,
        pong_timeout: std::time::Duration::from_secs(10),
    };
    let handle = SessionHandle::new();
    let session = {
        let handle = handle.clone();
        tokio::spawn(async move {
            let mut near = Deflated::new(near, deflating(SMALL, SMALL));
            outcome(relay(&mut near, &mut to_backend, policy, &handle, Exact::begin()).await)
        })
    };
    let tick = masked(0xC1, &compressed(TICK));
    for _ in 0..2 {
        client.write_all(&tick[..20]).await.unwrap();
        while handle.stalled_since().is_none() {
            tokio::task::yield_now().await;
        }
        client.write_all(&tick[20..]).await.unwrap();
        while handle.stalled_since().is_some() {
            tokio::task::yield_now().await;
        }
    }
    drop(client);
    let mut seen = Vec::new();
    backend.read_to_end(&mut seen).await.unwrap();
    session.await.unwrap();
}

#[tokio::test]
async fn a_message_that_grows_too_long_is_ended_before_it_is_inflated() {
    let (mut client, near) = duplex(1 << 16);
    let (mut backend, mut to_backend) = duplex(1 << 24);
    let policy = Policy {
        limits: Limits { message_max: 100_000, deflate: false },
        idle_timeout: None,
        lifetime: None,
        ping_interval: None,
        pong_timeout: std::time::Duration::from_secs(10),
    };
    let handle = SessionHandle::new();
    let session = tokio::spawn(async move {
        let mut near = Deflated::new(near, deflating(SMALL, SMALL));
        outcome(relay(&mut near, &mut to_backend, policy, &handle, Exact::begin()).await)
    });
    client.write_all(&masked(0xC2, &compressed(&vec![0; 10_000_000]))).await.unwrap();
    let mut close = [0; 4];
    client.read_exact(&mut close).await.unwrap();
    assert_eq!(u16::from_be_bytes([close[2], close[3]]), 1009);
    client.shutdown().await.unwrap();
    let mut seen = Vec::new();
    backend.read_to_end(&mut seen).await.unwrap();
    assert!(seen.len() < 100_000 + 2 * PART_LEN, "{}", seen.len());
    let cause = session.await.unwrap().cause;
    assert!(
        matches!(cause, Cause::Violation { violation: Violation::MessageTooBig { .. }, .. }),
        "{cause:?}"
    );
}
