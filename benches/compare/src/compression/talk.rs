//! What clients say, and what they read of the echoes (RFC 7692). Pure.

use anyhow::{Context, ensure};
use zlib_rs::{Deflate, DeflateFlush, Inflate, InflateFlush};

use self::trades::trades;
use crate::frame::{Head, TEXT, put_masked};

#[path = "../../../trades.rs"]
mod trades;

/// In the first byte of a frame: the message is compressed (RFC 7692 §6).
const RSV1: u8 = 0x40;
const FIN: u8 = 0x80;
/// What a flush ends with, and a message leaves out (RFC 7692 §7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xFF, 0xFF];
/// zlib's own default.
const LEVEL: i32 = 6;
const MASK: [u8; 4] = [1, 2, 3, 4];

/// How messages are compressed, both ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Plain,
    /// Each by itself.
    Alone,
    /// A message may refer to this power of two of bytes before it.
    Kept(u8),
}

impl Mode {
    pub(super) const ALL: [Self; 4] = [Self::Plain, Self::Alone, Self::Kept(12), Self::Kept(15)];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "not compressed",
            Self::Alone => "each by itself",
            Self::Kept(12) => "4 KiB kept",
            Self::Kept(_) => "32 KiB kept",
        }
    }

    /// The extension that is offered, which has to be the answer.
    const fn extension(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Alone => Some("permessage-deflate; server_no_context_takeover; client_no_context_takeover"),
            Self::Kept(12) => {
                Some("permessage-deflate; server_max_window_bits=12; client_max_window_bits=12")
            }
            Self::Kept(_) => Some("permessage-deflate"),
        }
    }

    /// The field of the request.
    pub(super) fn offer(self) -> String {
        let field = self.extension().map(|extension| format!("Sec-WebSocket-Extensions: {extension}\r\n"));
        field.unwrap_or_default()
    }

    /// It is what the head of an answer agrees to.
    pub(super) fn check(self, answer: &str) -> anyhow::Result<()> {
        let fields = answer.lines().filter_map(|line| line.split_once(": "));
        let agreed = fields.filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-extensions"));
        let agreed: Vec<_> = agreed.map(|(_, value)| value).collect();
        let wanted: Vec<_> = self.extension().into_iter().collect();
        ensure!(agreed == wanted, "{wanted:?} was offered, and {agreed:?} is the answer");
        Ok(())
    }
}

/// What each client says, in this order, and the frames of it.
pub(super) struct Words {
    pub(super) messages: Vec<String>,
    pub(super) frames: Vec<Vec<u8>>,
}

impl Words {
    pub(super) fn new(mode: Mode, len: usize, count: usize) -> anyhow::Result<Self> {
        let messages: Vec<_> = (0..count as u64).map(|number| trades(1000 * number, len)).collect();
        let mut deflate = Deflate::new(LEVEL, false, if let Mode::Kept(bits) = mode { bits } else { 15 });
        let mut frames = Vec::with_capacity(messages.len());
        for message in &messages {
            let mut frame = Vec::new();
            if mode == Mode::Plain {
                put_masked(&mut frame, TEXT, &[message.as_bytes()], MASK);
            } else {
                if mode == Mode::Alone {
                    deflate.reset();
                }
                let payload = compressed(&mut deflate, message.as_bytes())?;
                put_masked(&mut frame, TEXT | RSV1, &[&payload], MASK);
            }
            frames.push(frame);
        }
        Ok(Self { messages, frames })
    }
}

fn compressed(deflate: &mut Deflate, payload: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut out = vec![0; payload.len() + 128];
    let before = deflate.total_out();
    deflate
        .compress(payload, &mut out, DeflateFlush::SyncFlush)
        .map_err(|e| anyhow::anyhow!(e.as_str()))
        .context("a message can't be compressed")?;
    out.truncate(usize::try_from(deflate.total_out() - before)?);
    ensure!(out.ends_with(&TAIL), "a message is longer when it is compressed");
    out.truncate(out.len() - TAIL.len());
    Ok(out)
}

/// What comes back to a client.
pub(super) struct Echoes {
    mode: Mode,
    input: Vec<u8>,
    /// The frames of a message that isn't whole yet.
    payload: Vec<u8>,
    inflate: Inflate,
    /// Payloads as they were on the wire, of all messages.
    pub(super) bytes: u64,
}

impl Echoes {
    pub(super) fn new(mode: Mode) -> Self {
        let (input, payload) = (Vec::new(), Vec::new());
        Self { mode, input, payload, inflate: Inflate::new(false, 15), bytes: 0 }
    }

    /// Takes what was read. Says whether the message is whole, which then is this one.
    pub(super) fn is_whole(&mut self, input: &[u8], message: &str) -> anyhow::Result<bool> {
        self.input.extend_from_slice(input);
        while let Some((head, head_len)) = Head::parse(&self.input) {
            let end = head_len + usize::try_from(head.payload_len)?;
            if self.input.len() < end {
                break;
            }
            let compressed = if self.mode == Mode::Plain { 0 } else { RSV1 };
            let first = if self.payload.is_empty() { TEXT & !FIN | compressed } else { 0 };
            ensure!(head.first & !FIN == first, "a frame begins with {:#x}", head.first);
            self.payload.extend_from_slice(&self.input[head_len..end]);
            self.input.drain(..end);
            if head.first & FIN != 0 {
                self.compare(message)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn compare(&mut self, message: &str) -> anyhow::Result<()> {
        self.bytes += self.payload.len() as u64;
        if self.mode != Mode::Plain {
            if self.mode == Mode::Alone {
                self.inflate.reset(false);
            }
            self.payload.extend(TAIL);
            let (mut text, before) = (vec![0; message.len() + 1], self.inflate.total_out());
            self.inflate
                .decompress(&self.payload, &mut text, InflateFlush::SyncFlush)
                .map_err(|e| anyhow::anyhow!(e.as_str()))
                .context("an echo can't be inflated")?;
            text.truncate(usize::try_from(self.inflate.total_out() - before)?);
            self.payload = text;
        }
        ensure!(self.payload == message.as_bytes(), "an echo is not what was sent");
        self.payload.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::apply_mask;

    /// As a server that passes the client's payloads back.
    fn echo(frame: &[u8], parts: usize) -> Vec<u8> {
        let (head, head_len) = Head::parse(frame).unwrap();
        let mut payload = frame[head_len..].to_vec();
        apply_mask(&mut payload, head.mask.unwrap(), 0);
        let chunks: Vec<_> = payload.chunks(payload.len().div_ceil(parts)).collect();
        let mut out = Vec::new();
        for (index, chunk) in chunks.iter().enumerate() {
            let first = if index == 0 { head.first & !FIN } else { 0 };
            let first = first | if index + 1 == chunks.len() { FIN } else { 0 };
            Head { first, payload_len: chunk.len() as u64, mask: None }.put(&mut out);
            out.extend_from_slice(chunk);
        }
        out
    }

    #[test]
    fn echoes_are_compared_in_each_mode_and_in_any_parts() {
        for mode in Mode::ALL {
            let words = Words::new(mode, 200, 9).unwrap();
            let mut echoes = Echoes::new(mode);
            for (parts, (message, frame)) in words.messages.iter().zip(&words.frames).enumerate() {
                let wire = echo(frame, parts + 1);
                let (last, rest) = wire.split_last().unwrap();
                for byte in rest {
                    assert!(!echoes.is_whole(&[*byte], message).unwrap());
                }
                assert!(echoes.is_whole(&[*last], message).unwrap());
            }
            assert!((mode == Mode::Plain) == (echoes.bytes == 9 * 200), "{mode:?}: {}", echoes.bytes);
            assert!(echoes.is_whole(&echo(&words.frames[0], 1), "another").is_err());
        }
    }

    #[test]
    fn messages_differ_and_shrink_by_what_is_kept() {
        let lens = Mode::ALL.map(|mode| {
            let words = Words::new(mode, 200, 100).unwrap();
            assert!(words.messages.windows(2).all(|pair| pair[0] != pair[1] && pair[0].len() == 200));
            words.frames.iter().map(Vec::len).sum::<usize>()
        });
        assert!(lens.is_sorted_by(|longer, shorter| longer > shorter), "{lens:?}");
    }

    #[test]
    fn the_answer_has_to_be_what_was_offered() {
        for mode in Mode::ALL {
            let head = |fields: &str| format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n");
            assert!(mode.check(&head(&mode.offer())).is_ok());
            assert!(mode.check(&head("sec-websocket-extensions: other\r\n")).is_err());
            assert_eq!(mode.check(&head("")).is_ok(), mode == Mode::Plain);
        }
    }
}
