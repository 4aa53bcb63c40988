//! Messages of a client, inflated: as much at once as the caller has room for.

use std::fmt;

use bytes::BytesMut;
use net_io::state::{StateError, StateReader, StateWriter};
use zlib_rs::{Inflate, InflateFlush, Status};

use super::engines;
use super::history::History;
use super::window::{TAIL, WINDOW_BITS_MAX, Window};
use crate::violation::Violation;

/// What a message is followed by: the end that its sender has left out (RFC 7692 §7.2.2), and an empty last block, by which
/// zlib says whether the message ended where a block ends.
const END: [u8; 9] = [TAIL[0], TAIL[1], TAIL[2], TAIL[3], 0x01, 0x00, 0x00, 0xFF, 0xFF];
/// Blocks of a message that say they are the last one (RFC 7692 §7.2.3.4 has one of them). zlib is reset behind each.
const LAST_BLOCKS_MAX: u8 = 8;
/// A longer message may not grow by more than [`GROWTH_MAX`].
const GROWTH_FREE_LEN: u64 = 1024 * 1024;
/// Inflated bytes for each byte that has come. deflate can do 1,032; text and records stay far below this.
const GROWTH_MAX: u64 = 256;
/// Of a message, bytes that may come and become nothing; and of one that goes on, which may become more.
const WASTE_FREE_LEN: u64 = 1024;
const WASTE_OPEN_LEN: u64 = 64 * 1024;
/// Bytes that may come for each inflated one. A sender that flushes behind each byte needs about seven.
const WASTE_MAX: u64 = 16;

/// Inflates the messages of one session, in the order in which they come.
///
/// Between two messages it keeps its history alone; within one, an inflater of zlib, too.
#[derive(Debug)]
pub struct Inflater {
    window: Window,
    history: History,
    message: Option<Box<Message>>,
}

/// What a step has done. With the number of bytes that it wrote.
enum Step {
    Inflated(usize),
    /// A block has said that it is the last one, and the message goes on.
    LastBlock(usize),
    /// The message is over.
    Ended(usize),
    /// There is nothing to be inflated.
    Starved,
}

/// A message that has begun and not ended.
struct Message {
    inflate: Option<Inflate>,
    /// Of [`END`].
    end_at: usize,
    last_blocks: u8,
    /// Bytes that have come, and those that they became.
    wire_len: u64,
    len: u64,
}

impl Inflater {
    /// With what was agreed upon.
    #[must_use]
    pub fn new(window: Window) -> Self {
        Self { window, history: Self::history(window), message: None }
    }

    /// Of what a message may refer to. Within itself it may in any case.
    fn history(window: Window) -> History {
        History::new(1 << window.bits.min(WINDOW_BITS_MAX))
    }

    /// Inflates the payload of a frame, or a part of it, to the end of `out`, `room` bytes at most. `input` is what has come,
    /// and loses what is taken of it; `fin`: the message ends with it. `true`: all has been inflated. `false`: there is no room,
    /// and the next call goes on.
    ///
    /// # Errors
    /// [`Violation::Deflate`], [`Violation::DeflateGrowth`] and [`Violation::DeflateWaste`]. It can't be used any more then.
    pub fn inflate(
        &mut self,
        input: &mut &[u8],
        fin: bool,
        out: &mut BytesMut,
        mut room: usize,
    ) -> Result<bool, Violation> {
        let mut noted = out.len(); // up to here, it is in the history
        engines::with_scratch(|scratch| {
            loop {
                let step_len = room.min(scratch.len());
                let step = self.step(input, fin, &mut scratch[..step_len])?;
                let (Step::Inflated(len) | Step::LastBlock(len) | Step::Ended(len)) = step else {
                    self.history.push(&out[noted..]);
                    return Ok(true); // the rest of the message has not come
                };
                out.extend_from_slice(&scratch[..len]);
                room -= len;
                match step {
                    Step::Ended(_) => {
                        self.end(&out[noted..]);
                        return Ok(true);
                    }
                    // What follows may refer to what is before it (RFC 7692 §7.2.3.5), of which zlib, reset, knows nothing.
                    Step::LastBlock(_) => {
                        self.history.push(&out[noted..]);
                        noted = out.len();
                        self.begin_again()?;
                    }
                    Step::Inflated(_) | Step::Starved => {}
                }
                if room == 0 {
                    self.history.push(&out[noted..]);
                    return Ok(false);
                }
            }
        })
    }

    /// Inflates some of it.
    fn step(&mut self, input: &mut &[u8], fin: bool, out: &mut [u8]) -> Result<Step, Violation> {
        let message = self.message.get_or_insert_with(|| Box::new(Message::begin(self.history.bytes())));
        let is_end = input.is_empty() && fin;
        if is_end && message.is_fresh() {
            message.check_waste(WASTE_FREE_LEN)?;
            return Ok(Step::Ended(0)); // the last block was the end, and a frame of its own says so
        }
        let mut source = if is_end { &END[message.end_at..] } else { *input };
        if source.is_empty() && !is_end {
            return Ok(Step::Starved);
        }
        let before = source.len();
        let (status, len) = message.step(&mut source, out)?;
        let taken = before - source.len();
        if is_end {
            message.end_at += taken;
        } else {
            *input = source;
            message.wire_len += taken as u64;
        }
        message.check_growth(len)?;
        if status == Status::StreamEnd {
            // Of a last block that lacked room alone, nothing of what a message is followed by has been taken.
            if is_end && (1..END.len()).contains(&message.end_at) {
                return Err(Violation::Deflate); // the end of the message became a part of its last block
            }
            let is_over = is_end || (input.is_empty() && fin);
            message.check_waste(if is_over { WASTE_FREE_LEN } else { WASTE_OPEN_LEN })?;
            return Ok(if is_over { Step::Ended(len) } else { Step::LastBlock(len) });
        } else if len < out.len() && (taken == 0 || (is_end && source.is_empty())) {
            return Err(Violation::Deflate); // there is room, and it needs more than there is
        }
        message.check_waste(WASTE_OPEN_LEN)?;
        Ok(Step::Inflated(len))
    }

    /// What was agreed upon.
    #[must_use]
    pub fn window(&self) -> Window {
        self.window
    }

    /// A message has begun, and its end has not been inflated.
    #[must_use]
    pub fn is_in_message(&self) -> bool {
        self.message.is_some()
    }

    /// Bytes that it takes for the message in progress.
    #[must_use]
    pub fn message_memory(&self) -> usize {
        let history_len = if self.window.is_kept { 0 } else { self.history.memory() };
        if self.is_in_message() { engines::INFLATER_LEN + history_len } else { 0 }
    }

    fn begin_again(&mut self) -> Result<(), Violation> {
        let Some(message) = &mut self.message else { return Ok(()) };
        message.begin_again(self.history.bytes())
    }

    /// Behind the message, whose end this is.
    fn end(&mut self, inflated: &[u8]) {
        self.message = None;
        if self.window.is_kept {
            self.history.push(inflated);
        } else {
            self.history.clear();
        }
    }

    /// Writes what [`Self::read_state`] reads. Not within a message, of which zlib knows more than can be written.
    pub fn write_state(&self, out: &mut StateWriter) {
        let Self { window, history, message: _ } = self;
        window.write_state(out);
        history.write_state(out);
    }

    /// Goes on where another one left off.
    pub fn read_state(fields: &mut StateReader<'_>) -> Result<Self, StateError> {
        let window = Window::read_state(fields)?;
        Ok(Self { window, history: History::read_state(fields, Self::history(window).max())?, message: None })
    }
}

impl Message {
    fn begin(history: &[u8]) -> Self {
        Self { inflate: Some(engines::inflater(history)), end_at: 0, last_blocks: 0, wire_len: 0, len: 0 }
    }

    /// How it is, and how many bytes have been written to `out`.
    fn step(&mut self, source: &mut &[u8], out: &mut [u8]) -> Result<(Status, usize), Violation> {
        let inflate = self.inflate.as_mut().ok_or(Violation::Deflate)?;
        let (taken, given) = (inflate.total_in(), inflate.total_out());
        let status =
            inflate.decompress(source, out, InflateFlush::SyncFlush).map_err(|_| Violation::Deflate)?;
        let taken = usize::try_from(inflate.total_in() - taken).unwrap_or(source.len());
        *source = &source[taken..];
        Ok((status, usize::try_from(inflate.total_out() - given).unwrap_or(out.len())))
    }

    /// Behind a block that said it was the last one. zlib ends there, and the message need not.
    fn begin_again(&mut self, history: &[u8]) -> Result<(), Violation> {
        self.last_blocks += 1;
        if self.last_blocks > LAST_BLOCKS_MAX {
            return Err(Violation::Deflate);
        }
        self.give_back();
        self.inflate = Some(engines::inflater(history));
        Ok(())
    }

    fn check_growth(&mut self, len: usize) -> Result<(), Violation> {
        self.len += len as u64;
        let is_bounded = self.len <= GROWTH_FREE_LEN || self.len / GROWTH_MAX <= self.wire_len;
        if is_bounded { Ok(()) } else { Err(Violation::DeflateGrowth { max: GROWTH_MAX }) }
    }

    fn check_waste(&self, free_len: u64) -> Result<(), Violation> {
        let is_useful = self.wire_len <= free_len + self.len.saturating_mul(WASTE_MAX);
        if is_useful { Ok(()) } else { Err(Violation::DeflateWaste { max: WASTE_MAX }) }
    }

    /// A last block was its end so far.
    fn is_fresh(&self) -> bool {
        self.last_blocks > 0 && self.inflate.as_ref().is_some_and(|inflate| inflate.total_in() == 0)
    }

    fn give_back(&mut self) {
        if let Some(inflate) = self.inflate.take() {
            engines::give_back(inflate);
        }
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("wire_len", &self.wire_len)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}
