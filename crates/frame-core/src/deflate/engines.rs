//! What each thread has of zlib: a compressor for each size of a window, made when it is first needed, and some inflaters.

use std::cell::RefCell;

use zlib_rs::{Deflate, DeflateConfig, DeflateFlush, Inflate, Method, Strategy};

use super::window::{WINDOW_BITS_MAX, WINDOW_BITS_MIN, WINDOW_SIZES};

/// Of 1 to 9: speed before size, since each message waits for it.
const LEVEL: i32 = 3;
/// What is asked for at once, at most.
const STEP_LEN: usize = 16 * 1024;
/// Inflaters without a message that a thread keeps.
const SPARE_INFLATERS: usize = 2;
/// Bytes that an inflater of zlib-rs takes, whatever its window.
pub(super) const INFLATER_LEN: usize = 47_552;

thread_local! {
    static DEFLATERS: RefCell<[Option<Deflate>; WINDOW_SIZES]> = const { RefCell::new([const { None }; WINDOW_SIZES]) };
    static INFLATERS: RefCell<Vec<Inflate>> = const { RefCell::new(Vec::new()) };
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Memory to write to, so that what is kept is no larger than it has to be.
pub(super) fn with_scratch<T>(write: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.resize(STEP_LEN, 0);
        write(scratch)
    })
}

/// Appends `payload` to `out`, compressed and flushed: it ends with [`TAIL`](super::window::TAIL). It may refer to `history`, at most a
/// window of it.
pub(super) fn deflate(window_bits: u8, history: &[u8], payload: &[u8], out: &mut Vec<u8>) {
    let window_bits = window_bits.clamp(WINDOW_BITS_MIN, WINDOW_BITS_MAX);
    DEFLATERS.with_borrow_mut(|deflaters| {
        let slot = &mut deflaters[usize::from(window_bits - WINDOW_BITS_MIN)];
        let deflate = match slot {
            Some(deflate) => {
                deflate.reset();
                deflate
            }
            None => slot.insert(Deflate::new_with_config(DeflateConfig {
                level: LEVEL,
                method: Method::Deflated,
                window_bits: -i32::from(window_bits), // raw: without a head
                mem_level: 8,
                strategy: Strategy::Default,
            })),
        };
        run(deflate, history, payload, out);
    });
}

#[expect(
    clippy::expect_used,
    reason = "a compressor that was made has no error for any input: memory is all it could lack"
)]
fn run(deflate: &mut Deflate, history: &[u8], mut payload: &[u8], out: &mut Vec<u8>) {
    if !history.is_empty() {
        deflate.set_dictionary(history).expect("a compressor at its beginning takes a history");
    }
    let room = (payload.len() / 2 + 64).min(STEP_LEN);
    loop {
        let at = out.len();
        let (taken, given) = (deflate.total_in(), deflate.total_out());
        out.resize(at + room, 0);
        deflate.compress(payload, &mut out[at..], DeflateFlush::SyncFlush).expect("a compressor compresses");
        let given = usize::try_from(deflate.total_out() - given).unwrap_or(room);
        out.truncate(at + given);
        payload = &payload[usize::try_from(deflate.total_in() - taken).unwrap_or(payload.len())..];
        if given < room {
            return; // zlib's sign that all is flushed
        }
    }
}

/// An inflater at the beginning of a stream; it may refer to `history`.
#[expect(clippy::expect_used, reason = "an inflater at its beginning takes a history of any length")]
pub(super) fn inflater(history: &[u8]) -> Inflate {
    let mut inflate = match INFLATERS.with_borrow_mut(Vec::pop) {
        Some(mut inflate) => {
            inflate.reset(false);
            inflate
        }
        None => Inflate::new(false, WINDOW_BITS_MAX),
    };
    if !history.is_empty() {
        inflate.set_dictionary(history).expect("an inflater at its beginning");
    }
    inflate
}

/// Gives an inflater back, for the next message of any session.
pub(super) fn give_back(inflate: Inflate) {
    INFLATERS.with_borrow_mut(|spare| {
        if spare.len() < SPARE_INFLATERS {
            spare.push(inflate);
        }
    });
}
