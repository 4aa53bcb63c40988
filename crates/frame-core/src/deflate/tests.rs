use bytes::BytesMut;
use miniz_oxide::deflate::core::{CompressorOxide, create_comp_flags_from_zip_params};
use miniz_oxide::deflate::stream::deflate as miniz_deflate;
use miniz_oxide::inflate::decompress_to_vec;
use miniz_oxide::{MZFlush, MZStatus};
use net_io::state::{StateReader, StateWriter};
use proptest::prelude::*;
use zlib_rs::{Inflate, InflateFlush};

use super::window::TAIL;
use super::*;
use crate::violation::Violation;

const KEPT: Window = Window { bits: 15, is_kept: true };
const ALONE: Window = Window { bits: 15, is_kept: false };
/// An empty last block, by which a stream that was flushed ends.
const LAST: [u8; 5] = [0x01, 0x00, 0x00, 0xFF, 0xFF];

/// One message to a client: RSV1, and the payload of its frame.
fn deflated(deflater: &mut Deflater, payload: &[u8]) -> (bool, Vec<u8>) {
    let mut out = vec![0xEE];
    let is_deflated = deflater.message(payload, &mut out);
    assert_eq!(out.remove(0), 0xEE, "it is appended");
    if !is_deflated {
        assert!(out.is_empty());
        out = payload.to_vec();
    }
    (is_deflated, out)
}

/// One message of a client in these frames, inflated with so much room at once.
fn inflated(inflater: &mut Inflater, frames: &[&[u8]], room: usize) -> Result<Vec<u8>, Violation> {
    let mut out = BytesMut::new();
    for (at, frame) in frames.iter().enumerate() {
        let mut input = *frame;
        let fin = at + 1 == frames.len();
        loop {
            let before = out.len();
            let done = inflater.inflate(&mut input, fin, &mut out, room)?;
            assert!(out.len() - before <= room);
            if done {
                assert!(input.is_empty());
                break;
            }
            assert_eq!(out.len() - before, room, "it stops for the lack of room alone");
        }
    }
    assert!(!inflater.is_in_message());
    Ok(out.into())
}

/// A client's compressor, of another make.
struct Other(CompressorOxide);

impl Other {
    fn new(level: i32) -> Self {
        Self(CompressorOxide::new(create_comp_flags_from_zip_params(level, -15, 0)))
    }

    fn message(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![0; payload.len() * 2 + 1024];
        let result = miniz_deflate(&mut self.0, payload, &mut out, MZFlush::Sync);
        assert_eq!((result.status, result.bytes_consumed), (Ok(MZStatus::Ok), payload.len()));
        out.truncate(result.bytes_written);
        assert_eq!(out.split_off(out.len() - 4), TAIL);
        out
    }
}

/// Inflates a stream by zlib with a small window, a few bytes at a time: what refers too far back fails.
fn inflates_in_window(stream: &[u8], bits: u8) -> Result<Vec<u8>, zlib_rs::InflateError> {
    let (mut inflate, mut whole, mut out) = (Inflate::new(false, bits), Vec::new(), [0; 16]);
    loop {
        let (at, before) = (usize::try_from(inflate.total_in()).unwrap(), whole.len());
        let given = inflate.total_out();
        inflate.decompress(&stream[at..], &mut out, InflateFlush::NoFlush)?;
        whole.extend_from_slice(&out[..usize::try_from(inflate.total_out() - given).unwrap()]);
        if whole.len() == before {
            return Ok(whole);
        }
    }
}

#[test]
fn the_examples_of_the_rfc() {
    // RFC 7692 §7.2.3: a compressed Hello, in two frames, with a window that is kept, stored, as a last block, in two blocks
    let hello = [0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00];
    let mut inflater = Inflater::new(KEPT);
    let mut check = |frames: &[&[u8]]| assert_eq!(inflated(&mut inflater, frames, 99).unwrap(), b"Hello");
    check(&[&hello]);
    check(&[&hello[..3], &hello[3..]]);
    check(&[&[0xF2, 0x00, 0x11, 0x00, 0x00]]);
    check(&[&[0x00, 0x05, 0x00, 0xFA, 0xFF, 0x48, 0x65, 0x6C, 0x6C, 0x6F, 0x00]]);
    check(&[&[0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00]]);
    check(&[&[0xF2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xCA, 0xC9, 0xC9, 0x07, 0x00]]);
    check(&[&[0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00]]); // a last block, and nothing behind it
    check(&[&[0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00], &[]]); // nor in a frame of its own
    let mut alone = Inflater::new(ALONE);
    assert_eq!(inflated(&mut alone, &[&hello], 99).unwrap(), b"Hello");
    assert_eq!(inflated(&mut alone, &[&[0xF2, 0x00, 0x11, 0x00, 0x00]], 99), Err(Violation::Deflate));
    // §7.2.3.6: an empty message
    assert_eq!(inflated(&mut Inflater::new(KEPT), &[&[0x00]], 99).unwrap(), b"");
}

#[test]
fn a_message_is_not_far_longer_than_what_it_becomes() {
    let empty = [0x00, 0x00, 0x00, 0xFF, 0xFF];
    let waste = Err(Violation::DeflateWaste { max: 16 });
    assert_eq!(inflated(&mut Inflater::new(KEPT), &[&empty.repeat(200), &[0x00]], 999).unwrap(), b"");
    assert_eq!(inflated(&mut Inflater::new(KEPT), &[&empty.repeat(250), &[0x00]], 999), waste);
    assert_eq!(
        inflated(&mut Inflater::new(KEPT), &[&empty.repeat(14_000), &[]], 999),
        waste,
        "before its end"
    );
    // Each byte in a stored block of its own, with an empty one behind it, as who flushes behind each sends it.
    let byte = [&[0x00, 0x01, 0x00, 0xFE, 0xFF, b'x'][..], &empty].concat();
    let flushed = [&byte.repeat(5000)[..], &[0x00]].concat();
    assert_eq!(inflated(&mut Inflater::new(KEPT), &[&flushed], 999).unwrap(), b"x".repeat(5000));
}

#[test]
fn a_message_begins_again_behind_each_last_block_but_not_for_ever() {
    let last_block = [0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00];
    let times = |n| last_block.repeat(n);
    assert_eq!(inflated(&mut Inflater::new(KEPT), &[&times(8)], 7).unwrap(), b"Hello".repeat(8));
    assert_eq!(inflated(&mut Inflater::new(KEPT), &[&times(10)], 999), Err(Violation::Deflate));
}

/// RFC 7692 §7.2.3.4 and §7.2.3.5: within a message a block may refer to all before it, also over one that said it was the last.
#[test]
fn a_message_refers_over_its_last_blocks() {
    let (last, refers) = ([0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00], [0xF2, 0x00, 0x11, 0x00, 0x00]);
    let wire = [&last[..], &refers].concat();
    for window in [KEPT, ALONE, Window { bits: 9, is_kept: true }] {
        for room in [1, 3, 5, 999] {
            let mut inflater = Inflater::new(window);
            for frames in [&[&wire[..]][..], &[&last[..], &refers], &[&wire[..4], &wire[4..9], &wire[9..]]] {
                assert_eq!(
                    inflated(&mut inflater, frames, room).unwrap(),
                    b"HelloHello",
                    "{window:?}, {room}"
                );
            }
            // The next message refers to this one only where that was agreed upon.
            let next = inflated(&mut inflater, &[&refers], room);
            let is_kept = window.is_kept;
            assert_eq!(next, if is_kept { Ok(b"Hello".to_vec()) } else { Err(Violation::Deflate) });
        }
    }
}

#[test]
fn a_last_block_may_end_where_there_is_no_room() {
    let wire = [0xF3, 0x48, 0xFF, 0xFF, 0xFF, 0x0F, 0x03, 0xFF, 0xFF, 0xFF, 0x05, 0xFF, 0x00];
    let whole = inflated(&mut Inflater::new(KEPT), &[&wire], 999).unwrap();
    for room in 1..12 {
        assert_eq!(inflated(&mut Inflater::new(KEPT), &[&wire], room).as_ref(), Ok(&whole), "{room}");
    }
}

#[test]
fn what_can_not_be_inflated() {
    let whole = Other::new(6).message(&b"a message, a message".repeat(20));
    let fails = |wire: &[u8]| inflated(&mut Inflater::new(KEPT), &[wire], 9999) == Err(Violation::Deflate);
    assert!(fails(b"\xFF\xFF"));
    assert!(fails(b""), "a sender leaves out four bytes, not all five");
    for len in 1..whole.len() {
        assert!(fails(&whole[..len]), "{len} bytes");
    }
    assert!(!fails(&whole));
}

#[test]
fn a_bomb_ends_before_it_is_large() {
    let mut deflater = Deflater::new(ALONE, 0);
    let (is_deflated, wire) = deflated(&mut deflater, &vec![0; 64 << 20]);
    assert!(is_deflated && wire.len() < 128 * 1024);
    let (mut inflater, mut out) = (Inflater::new(KEPT), BytesMut::new());
    let result = inflater.inflate(&mut &wire[..], true, &mut out, usize::MAX);
    assert_eq!(result, Err(Violation::DeflateGrowth { max: 256 }));
    assert!(out.len() < 2 << 20, "{}", out.len());
    // A megabyte is let through.
    let (_, wire) = deflated(&mut deflater, &vec![0; 1 << 20]);
    assert_eq!(inflated(&mut Inflater::new(KEPT), &[&wire], usize::MAX).unwrap().len(), 1 << 20);
}

#[test]
fn short_messages_and_what_does_not_shrink_go_as_they_are_and_leave_nothing_behind() {
    let (mut deflater, mut inflater) = (Deflater::new(KEPT, 4096), Inflater::new(KEPT));
    let mut random = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        random = random.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
        random.to_be_bytes()[0]
    })
    .take(2000)
    .collect();
    let text = b"all that is told again is shorter ".repeat(4);
    for payload in [&text[..], &noise, b"short", &text, b"", &noise, &text] {
        let (is_deflated, wire) = deflated(&mut deflater, payload);
        assert_eq!(is_deflated, payload == text);
        if is_deflated {
            assert_eq!(inflated(&mut inflater, &[&wire], 10).unwrap(), payload);
        }
    }
}

#[test]
fn what_was_sent_before_makes_the_next_message_shorter() {
    let text =
        br#"{"symbol":"EURUSD","bid":1.08412,"ask":1.08415,"time":"2026-11-30T12:00:00Z","venue":"LMAX"}"#;
    let len = |window| {
        let mut deflater = Deflater::new(window, 4096);
        drop(deflated(&mut deflater, text));
        deflated(&mut deflater, text).1.len()
    };
    assert!(len(KEPT) < 16, "{}", len(KEPT));
    assert!(len(ALONE) > 70, "{}", len(ALONE));
}

#[test]
fn a_state_goes_on_elsewhere() {
    let text = b"what another process has sent and received".repeat(9);
    let (mut deflater, mut inflater) = (Deflater::new(KEPT, 4096), Inflater::new(KEPT));
    for _ in 0..3 {
        let (is_deflated, wire) = deflated(&mut deflater, &text);
        assert!(is_deflated);
        assert_eq!(inflated(&mut inflater, &[&wire], 100).unwrap(), text);
        let mut out = StateWriter::new(1);
        deflater.write_state(&mut out);
        inflater.write_state(&mut out);
        let state = out.finish();
        let mut fields = StateReader::new(&state, 1).unwrap();
        deflater = Deflater::read_state(&mut fields, 4096).unwrap();
        inflater = Inflater::read_state(&mut fields).unwrap();
        assert!(fields.is_at_end());
    }
    assert!(deflated(&mut deflater, &text).1.len() < 30, "it knows what went before");
}

/// Messages in which much comes again, and some noise.
fn messages() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let words =
        prop::collection::vec(prop::sample::select(vec!["alpha", "beta ", "{\"gamma\":", "0", "\n"]), 0..600);
    let message = prop_oneof![
        4 => words.prop_map(|words| words.concat().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..400),
        1 => (any::<u8>(), 0..70_000_usize).prop_map(|(byte, len)| vec![byte; len]),
    ];
    prop::collection::vec(message, 1..8)
}

fn cut<'a>(bytes: &'a [u8], at: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = at.iter().map(|at| at.index(bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever was agreed upon, what is compressed here is read by another implementation, and by a window of that size.
    #[test]
    fn another_implementation_reads_it(
        messages in messages(), bits in 9..=15_u8, is_kept: bool, history_max in prop::sample::select(vec![0, 700, 4096, 32768]),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4), in_parts: bool,
    ) {
        let window = Window { bits, is_kept };
        let (mut deflater, mut stream, mut sent) = (Deflater::new(window, history_max), Vec::new(), Vec::new());
        for message in &messages {
            let mut wire = Vec::new();
            let is_deflated = if in_parts {
                let parts = cut(message, &cuts);
                for (at, part) in parts.iter().enumerate() {
                    deflater.part(part, at + 1 == parts.len(), &mut wire);
                }
                true
            } else {
                deflater.message(message, &mut wire)
            };
            if !is_deflated {
                continue;
            }
            wire.extend(TAIL);
            if is_kept {
                stream.extend(wire);
                sent.extend_from_slice(message);
            } else {
                let wire = [&wire[..], &LAST].concat();
                prop_assert_eq!(&decompress_to_vec(&wire).unwrap(), message);
                prop_assert_eq!(&inflates_in_window(&wire, bits).unwrap(), message);
            }
        }
        stream.extend(LAST);
        prop_assert_eq!(&decompress_to_vec(&stream).unwrap(), &sent);
        prop_assert_eq!(&inflates_in_window(&stream, bits).unwrap(), &sent);
    }

    /// What another implementation compresses is read here, in any fragments and with any room.
    #[test]
    fn what_another_implementation_writes_is_read(
        messages in messages(), is_kept: bool, level in 0..=9, room in prop_oneof![1..50_usize, 1000..50_000_usize],
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let mut inflater = Inflater::new(Window { bits: 15, is_kept });
        let mut other = Other::new(level);
        for message in &messages {
            if !is_kept {
                other = Other::new(level);
            }
            let wire = other.message(message);
            prop_assert_eq!(&inflated(&mut inflater, &cut(&wire, &cuts), room).unwrap(), message);
        }
    }

    /// Ours to ours, with each size of a window.
    #[test]
    fn there_and_back(
        messages in messages(), bits in 9..=15_u8, is_kept: bool, history_max in 0..40_000_usize,
        room in 1..40_000_usize, cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let window = Window { bits, is_kept };
        let (mut deflater, mut inflater) = (Deflater::new(window, history_max), Inflater::new(window));
        for message in &messages {
            let (is_deflated, wire) = deflated(&mut deflater, message);
            if is_deflated {
                prop_assert_eq!(&inflated(&mut inflater, &cut(&wire, &cuts), room).unwrap(), message);
            }
        }
    }

    /// Nothing that comes makes it fail in another way, or write more than it may.
    #[test]
    fn noise(wire: Vec<u8>, room in 1..2000_usize) {
        let mut inflater = Inflater::new(KEPT);
        let (mut input, mut out) = (&wire[..], BytesMut::new());
        while let Ok(false) = inflater.inflate(&mut input, true, &mut out, room) {
            prop_assert_eq!(out.len(), room);
            out.clear();
        }
    }
}
