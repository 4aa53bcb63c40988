//! What must hold for any bytes. Shared by the fuzz targets and the test that replays their corpus.

use frame_core::head::{FrameHead, HEAD_MAX, Scan, Sender, scan_head};
use frame_core::scanner::{Boundary, ControlKind, Next, Scanner, Tally};
use frame_core::sequence::Limits;
use frame_core::violation::Violation;

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
