//! Messages to a client, compressed.

use net_io::state::{StateError, StateReader, StateWriter};

use super::engines;
use super::history::History;
use super::window::{TAIL, WINDOW_BITS_MAX, Window};

/// Shorter messages are sent as they are: compressing them gains a few bytes at best.
pub const DEFLATED_LEN_MIN: usize = 64;

/// Compresses the messages of one session, in the order in which they are sent.
///
/// zlib is reset before each frame, and is given the history. A message that was not sent compressed is in no history:
/// neither in the client's nor in this one.
#[derive(Debug)]
pub struct Deflater {
    window: Window,
    history: History,
}

impl Deflater {
    /// What was agreed upon, and how many bytes of earlier messages are kept at most, of those that may be.
    #[must_use]
    pub fn new(window: Window, history_max: usize) -> Self {
        Self { window, history: History::new(Self::history_len(window, history_max)) }
    }

    fn history_len(window: Window, history_max: usize) -> usize {
        // Within a message sent in parts, each may refer to those before it in any case.
        history_max.min(1 << window.bits.min(WINDOW_BITS_MAX))
    }

    /// Appends the payload of one frame that has all of the message, for RSV1 to be set (RFC 7692 §6.1). `false`: the message
    /// is to be sent as it is, being short, or longer when compressed.
    #[must_use]
    pub fn message(&mut self, payload: &[u8], out: &mut Vec<u8>) -> bool {
        let is_deflated = deflate_message(self.window.bits, self.history.bytes(), payload, out);
        if is_deflated && self.window.is_kept {
            self.history.push(payload);
        }
        is_deflated
    }

    /// Appends the payload of the next frame of a message that is sent in several; RSV1 is set in the first of them (RFC 7692
    /// §6.1). `fin`: it is the last one. Between them no other message may be compressed.
    pub fn part(&mut self, payload: &[u8], fin: bool, out: &mut Vec<u8>) {
        engines::deflate(self.window.bits, self.history.bytes(), payload, out);
        if fin {
            out.truncate(out.len() - TAIL.len()); // RFC 7692 §7.2.1
        }
        if fin && !self.window.is_kept {
            self.history.clear();
        } else {
            self.history.push(payload);
        }
    }

    /// Bytes that are kept between two messages, at most.
    #[must_use]
    pub fn kept_len(window: Window, history_max: usize) -> usize {
        history_max.min(window.kept_len())
    }

    /// Bytes that it takes for a message that is being sent in parts, beside what is kept in any case.
    #[must_use]
    pub fn message_memory(&self) -> usize {
        if self.window.is_kept { 0 } else { self.history.memory() }
    }

    /// What was agreed upon.
    #[must_use]
    pub fn window(&self) -> Window {
        self.window
    }

    /// Writes what [`Self::read_state`] reads.
    pub fn write_state(&self, out: &mut StateWriter) {
        let Self { window, history } = self;
        window.write_state(out);
        history.write_state(out);
    }

    /// Goes on where another one left off.
    pub fn read_state(fields: &mut StateReader<'_>, history_max: usize) -> Result<Self, StateError> {
        let window = Window::read_state(fields)?;
        let history = History::read_state(fields, Self::history_len(window, history_max))?;
        Ok(Self { window, history })
    }
}

/// Appends a message that is compressed by itself; see [`Deflater::message`].
#[must_use]
pub fn deflate_alone(window_bits: u8, payload: &[u8], out: &mut Vec<u8>) -> bool {
    deflate_message(window_bits, &[], payload, out)
}

fn deflate_message(window_bits: u8, history: &[u8], payload: &[u8], out: &mut Vec<u8>) -> bool {
    if payload.len() < DEFLATED_LEN_MIN {
        return false;
    }
    let at = out.len();
    engines::deflate(window_bits, history, payload, out);
    out.truncate(out.len() - TAIL.len()); // RFC 7692 §7.2.1
    let is_shorter = out.len() - at < payload.len();
    if !is_shorter {
        out.truncate(at);
    }
    is_shorter
}
