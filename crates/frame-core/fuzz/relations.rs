//! What must hold for any bytes. Shared by the fuzz targets and the test that replays their corpus.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use frame_core::clock::Exact;
use frame_core::deflate::{Deflater, Inflater, Window};
use frame_core::endpoint::EndpointState;
use frame_core::endpoint::bridge::BridgeState;
use frame_core::handle::{EndMode, FreezeMode, Order, SessionHandle};
use frame_core::head::{FrameHead, HEAD_MAX, Scan, Sender, scan_head};
use frame_core::opaque::OpaqueState;
use frame_core::redial::RedialState;
use frame_core::relay::{ClientStream, Ending, RelayState, relay_from};
use frame_core::scanner::{Boundary, ControlKind, Next, Scanner, Tally};
use frame_core::sequence::Limits;
use frame_core::violation::Violation;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};

/// A verdict never changes with more bytes, what is said to be missing really is, and a head is
/// written in only one way.
pub(crate) fn head(data: &[u8]) {
    for sender in [Sender::Client, Sender::Server] {
        let whole = scan_head(data, sender);
        for seen in 0..data.len().min(HEAD_MAX + 1) {
            match scan_head(&data[..seen], sender) {
                Ok(Scan::Need(n)) => {
                    assert!(n > 0);
                    if let Ok(Scan::Head(head)) = whole {
                        assert!(seen + n <= head.head_len, "asks for more than the head");
                    }
                }
                verdict => assert_eq!(verdict, whole, "after {seen} bytes"),
            }
        }
        if let Ok(Scan::Head(head)) = whole {
            assert_eq!(encode(&head), &data[..head.head_len]);
        }
    }
}

/// RFC 6455 §5.2, from the other side.
fn encode(head: &FrameHead) -> Vec<u8> {
    use frame_core::head::OpCode::*;
    let opcode = match head.opcode {
        Continuation => 0x0,
        Text => 0x1,
        Binary => 0x2,
        Close => 0x8,
        Ping => 0x9,
        Pong => 0xA,
    };
    let mut wire = vec![u8::from(head.fin) << 7 | u8::from(head.rsv1) << 6 | opcode];
    let mask_bit = u8::from(head.mask.is_some()) << 7;
    if let Ok(len @ 0..=125) = u8::try_from(head.payload_len) {
        wire.push(mask_bit | len);
    } else if let Ok(len) = u16::try_from(head.payload_len) {
        wire.push(mask_bit | 126);
        wire.extend(len.to_be_bytes());
    } else {
        wire.push(mask_bit | 127);
        wire.extend(head.payload_len.to_be_bytes());
    }
    wire.extend(head.mask.iter().flatten());
    wire
}

/// Everything a stream has to say.
#[derive(Debug, Default, PartialEq, Eq)]
struct Scanned {
    passed: usize,
    controls: Vec<ControlKind>,
    violation: Option<Violation>,
    tally: Tally,
}

/// However the bytes of a stream are cut, the verdict is the same. The first bytes of `data` say
/// who sends, under which limits, and where the cuts are.
pub(crate) fn sequence(data: &[u8]) {
    let [flags, limit, step, wire @ ..] = data else { return };
    let sender = if flags & 1 == 0 { Sender::Client } else { Sender::Server };
    let message_max = if flags & 2 == 0 { u64::MAX } else { u64::from(*limit) };
    let limits = Limits { message_max, deflate: flags & 4 != 0 };
    let whole = scan_in_pieces(wire, wire.len().max(1), sender, limits);
    for step in [1, usize::from(*step).max(1)] {
        assert_eq!(scan_in_pieces(wire, step, sender, limits), whole, "in steps of {step}");
    }
    // Asked to stop, the scanner stands at a boundary; and it stands at one after a violation.
    let mut scanner = Scanner::new(sender, limits);
    if let (_, Ok(Next::Boundary)) = scanner.scan(wire, Some(Boundary::Message)) {
        assert!(scanner.at(Boundary::Message) && scanner.at(Boundary::Frame));
    }
    let mut scanner = Scanner::new(sender, limits);
    if let (_, Err(_)) = scanner.scan(wire, None) {
        assert!(scanner.at(Boundary::Frame));
    }
}

fn scan_in_pieces(wire: &[u8], step: usize, sender: Sender, limits: Limits) -> Scanned {
    let (mut scanner, mut scanned) = (Scanner::new(sender, limits), Scanned::default());
    let (mut start, mut end) = (0, 0);
    while end < wire.len() {
        end = (end + step).min(wire.len());
        loop {
            let (passed, next) = scanner.scan(&wire[start..end], None);
            scanned.passed += passed;
            start += passed;
            match next {
                Ok(Next::Control(control)) => {
                    start += control.frame_len;
                    scanned.controls.push(control.kind);
                }
                Ok(Next::Need(n)) => {
                    assert!(n > 0);
                    break;
                }
                Ok(Next::Boundary) => unreachable!("not asked for"),
                Err(violation) => {
                    scanned.violation = Some(violation);
                    scanned.tally = scanner.tally();
                    return scanned;
                }
            }
        }
    }
    scanned.tally = scanner.tally();
    scanned
}

/// A client's end of a stream.
struct Client(DuplexStream);

impl ClientStream for Client {}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// However a compressed message is cut, and however much room there is, it becomes the same; and what it has become can be
/// compressed and inflated again. The first bytes of `data` say what was agreed upon, and where the cuts are.
pub(crate) fn deflate(data: &[u8]) {
    let [flags, step, room, wire @ ..] = data else { return };
    let window = Window { bits: 8 + flags % 8, is_kept: flags & 8 != 0 };
    let whole = inflate_twice(window, wire, wire.len().max(1), 1 << 20);
    if whole.as_ref().is_ok_and(|whole| whole.len() > SLOW_LEN) || grows(&whole) {
        return;
    }
    for (step, room) in [(1, 1 << 20), (usize::from(*step).max(1), usize::from(*room).max(1))] {
        let pieces = inflate_twice(window, wire, step, room);
        assert_eq!(pieces, whole, "in steps of {step}, {room} bytes at once");
    }
    let Ok(whole) = whole else { return };
    let to_client = Window { bits: window.bits.max(9), ..window };
    let (mut deflater, mut inflater) = (Deflater::new(to_client, 700), Inflater::new(to_client));
    for _ in 0..2 {
        let mut again = Vec::new();
        if deflater.message(&whole, &mut again) {
            assert!(again.len() < whole.len());
            assert_eq!(inflate(&mut inflater, &again, again.len(), 1 << 20).as_deref(), Ok(&whole[..]));
        }
    }
}

/// Longer messages are looked at once.
const SLOW_LEN: usize = 64 * 1024;

/// How far a message has come when it is found to have grown too much depends on the room that there is.
fn grows(inflated: &Result<Vec<u8>, Violation>) -> bool {
    matches!(inflated, Err(Violation::DeflateGrowth { .. }))
}

/// The second time, the message may refer to itself.
fn inflate_twice(window: Window, wire: &[u8], step: usize, room: usize) -> Result<Vec<u8>, Violation> {
    let mut inflater = Inflater::new(window);
    let first = inflate(&mut inflater, wire, step, room)?;
    let second = inflate(&mut inflater, wire, step, room)?;
    Ok([first, second].concat())
}

fn inflate(inflater: &mut Inflater, wire: &[u8], step: usize, room: usize) -> Result<Vec<u8>, Violation> {
    let mut whole = Vec::new();
    let mut frames = wire.chunks(step).peekable();
    loop {
        let mut input = frames.next().unwrap_or_default();
        let fin = frames.peek().is_none();
        loop {
            let mut out = BytesMut::new();
            let is_done = inflater.inflate(&mut input, fin, &mut out, room)?;
            assert!(out.len() <= room && (is_done || out.len() == room));
            whole.extend_from_slice(&out);
            if is_done {
                break;
            }
        }
        assert!(input.is_empty());
        if fin {
            assert!(!inflater.is_in_message());
            return Ok(whole);
        }
    }
}

/// What a state of an earlier release lacks, and is written again with it, in bytes.
const ADDED_LEN_MAX: usize = 128;

/// Reads a state and writes it again, if it is one.
type ReadAndWrite = fn(&[u8]) -> Option<Vec<u8>>;

/// What is taken for the state of a session of any kind is written again as it was read, and the relay that it becomes
/// does nothing worse than to end, whatever its peers send and however long it takes.
pub(crate) fn relay_state(data: &[u8]) {
    let others: [ReadAndWrite; 4] = [
        |data| EndpointState::decode(data).ok().map(|state| state.encode().to_vec()),
        |data| BridgeState::decode(data).ok().map(|state| state.encode().to_vec()),
        |data| OpaqueState::decode(data).ok().map(|state| state.encode().to_vec()),
        |data| RedialState::decode(data).ok().map(|state| state.encode().to_vec()),
    ];
    for again in others {
        let Some(bytes) = again(data) else { continue };
        assert!(bytes.len() <= data.len() + ADDED_LEN_MAX, "no state is larger than what it was made of");
        assert_eq!(again(&bytes).expect("what was written is read"), bytes);
    }
    let Ok(state) = RelayState::decode(data) else { return };
    let bytes = state.encode();
    assert!(bytes.len() <= data.len() + ADDED_LEN_MAX, "no state is larger than what it was made of");
    let again = RelayState::decode(&bytes).expect("what was written is read");
    assert_eq!((again.encode(), again.snapshot()), (bytes, state.snapshot()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(live(state, data));
}

async fn live(state: Box<RelayState>, data: &[u8]) {
    let clock = Exact::begin();
    let (mut client_far, client) = duplex(256);
    let (mut backend_far, mut backend) = duplex(256);
    let (mut client, handle) = (Client(client), SessionHandle::new());
    let cx = &mut Context::from_waker(Waker::noop());
    let mut relaying = relay_from(state, &mut client, &mut backend, &handle, clock);
    for step in 0..40_u64 {
        match Pin::new(&mut relaying).poll(cx) {
            Poll::Ready(Ending::Over(_)) => return,
            Poll::Ready(Ending::Frozen(_)) => unreachable!("it was not asked to"),
            Poll::Pending => {}
        }
        let mut taken = [0; 64];
        for far in [&mut client_far, &mut backend_far] {
            let _ = Pin::new(&mut *far).poll_read(cx, &mut ReadBuf::new(&mut taken));
            let _ = pin!(far.write_all(&data[..data.len().min(9)])).poll(cx);
        }
        tokio::time::advance(Duration::from_millis(10 << step.min(20))).await;
        match step {
            20 => {
                handle.end(Order { code: 1001, mode: EndMode::Now });
            }
            30 => {
                handle.freeze(FreezeMode::AsItIs);
                if Pin::new(&mut relaying).poll(cx).is_ready() {
                    return;
                }
            }
            _ => {}
        }
    }
}
