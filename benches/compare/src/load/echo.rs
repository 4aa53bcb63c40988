//! Messages that are echoed, each compared byte for byte.

use std::mem;
use std::rc::Rc;

use anyhow::{bail, ensure};
use tokio::select;

use super::Shared;
use super::wire::Wire;
use crate::frame::{self, Head, HeadReader};

/// What an idle socket has sent before.
const IDLE_SIZE: usize = 64;

/// One message, then nothing but answers to pings; at the end another, to show that the socket lives.
pub(super) async fn idle(shared: Rc<Shared>, index: usize) -> anyhow::Result<()> {
    let mut messages = Messages::new(index, IDLE_SIZE);
    let mut wire = connect(&shared, index).await?;
    messages.exchange(&mut wire).await?;
    let ready = shared.ready();
    tokio::pin!(ready);
    loop {
        select! {
            () = &mut ready => break,
            turn = wire.turn() => {
                let (input, outbox) = turn?;
                messages.receive(input, outbox)?;
            }
        }
    }
    messages.exchange(&mut wire).await?;
    shared.count(1);
    Ok(())
}

pub(super) async fn connect(shared: &Shared, index: usize) -> anyhow::Result<Wire> {
    let _permit = shared.connecting.acquire().await?;
    shared.turn().await;
    shared.client.upgrade(index).await
}

/// The messages of one socket: bytes that look random, the first eight of them the message's number.
pub(super) struct Messages {
    pattern: Vec<u8>,
    sent: u64,
    received: u64,
    masks: Random,
    /// The frame that is being sent: its head, its mask, and how much of it has been.
    sending: (Vec<u8>, [u8; 4]),
    offset: usize,
    head: HeadReader,
    part: Part,
}

/// Where in the stream of echoes we are.
enum Part {
    Head,
    Payload { offset: usize },
    Ping { payload: Vec<u8>, missing: usize },
}

impl Messages {
    pub(super) fn new(index: usize, size: usize) -> Self {
        let mut random = Random(index as u64 + 1);
        let pattern = std::iter::repeat_with(|| random.next().to_le_bytes()).flatten().take(size).collect();
        Self {
            pattern,
            sent: 0,
            received: 0,
            masks: random,
            sending: Default::default(),
            offset: 0,
            head: HeadReader::default(),
            part: Part::Head,
        }
    }

    pub(super) fn under_way(&self) -> u64 {
        self.sent - self.received
    }

    pub(super) fn frame_len(&self) -> usize {
        let mut head = Vec::new();
        self.put_head([0; 4], &mut head);
        head.len() + self.pattern.len()
    }

    /// How much is missing of a frame that has been begun.
    pub(super) fn rest_len(&self) -> usize {
        if self.offset == 0 { 0 } else { self.sending.0.len() + self.pattern.len() - self.offset }
    }

    fn put_head(&self, mask: [u8; 4], out: &mut Vec<u8>) {
        Head { first: frame::BINARY, payload_len: self.pattern.len() as u64, mask: Some(mask) }.put(out);
    }

    pub(super) fn send(&mut self, outbox: &mut Vec<u8>) {
        let start = outbox.len();
        outbox.resize(start + self.frame_len(), 0);
        self.fill(&mut outbox[start..]);
    }

    /// The next so many bytes of frame after frame.
    pub(super) fn fill(&mut self, mut out: &mut [u8]) {
        while !out.is_empty() {
            if self.offset == 0 {
                let [mask, _] = halves(self.masks.next());
                let mut head = mem::take(&mut self.sending.0);
                head.clear();
                self.put_head(mask, &mut head);
                self.sending = (head, mask);
                self.sent += 1;
            }
            let (head, mask) = &self.sending;
            let part = match head.get(self.offset..) {
                Some(head) if !head.is_empty() => {
                    let part = take_mut(&mut out, head.len());
                    part.copy_from_slice(&head[..part.len()]);
                    part
                }
                _ => {
                    let at = self.offset - head.len();
                    let part = take_mut(&mut out, self.pattern.len() - at);
                    part.copy_from_slice(&self.pattern[at..at + part.len()]);
                    let number = (self.sent - 1).to_le_bytes();
                    part.iter_mut().zip(number.iter().skip(at)).for_each(|(byte, number)| *byte = *number);
                    frame::apply_mask(part, *mask, at);
                    part
                }
            };
            self.offset += part.len();
            if self.offset == head.len() + self.pattern.len() {
                self.offset = 0;
            }
        }
    }

    /// Compares what has come; the number of payload bytes in it.
    pub(super) fn receive(&mut self, mut input: &[u8], outbox: &mut Vec<u8>) -> anyhow::Result<u64> {
        ensure!(!input.is_empty(), "the gateway has closed the connection");
        let mut echoed = 0;
        while !input.is_empty() {
            match &mut self.part {
                Part::Head => {
                    if let Some(head) = self.head.read(&mut input) {
                        self.part = self.begin(head)?;
                    }
                }
                Part::Payload { offset } => {
                    let part = take(&mut input, self.pattern.len() - *offset);
                    ensure!(
                        is_part(part, *offset, self.received, &self.pattern),
                        "the echo differs from the message"
                    );
                    echoed += part.len() as u64;
                    *offset += part.len();
                    if *offset == self.pattern.len() {
                        self.received += 1;
                        self.part = Part::Head;
                    }
                }
                Part::Ping { payload, missing } => {
                    let part = take(&mut input, *missing);
                    payload.extend_from_slice(part);
                    *missing -= part.len();
                }
            }
            if let Part::Ping { payload, missing: 0 } = &self.part {
                frame::put_masked(outbox, frame::PONG, &[payload], [1, 2, 3, 4]);
                self.part = Part::Head;
            }
        }
        Ok(echoed)
    }

    fn begin(&self, head: frame::Head) -> anyhow::Result<Part> {
        match (head.first, usize::try_from(head.payload_len)?) {
            (frame::BINARY, len) if len == self.pattern.len() && self.received < self.sent => {
                Ok(Part::Payload { offset: 0 })
            }
            (frame::PING, missing @ ..=125) => Ok(Part::Ping { payload: Vec::new(), missing }),
            _ => bail!("an unexpected frame: {head:?}"),
        }
    }

    async fn exchange(&mut self, wire: &mut Wire) -> anyhow::Result<()> {
        self.send(&mut wire.outbox);
        while self.under_way() > 0 {
            let (input, outbox) = wire.turn().await?;
            self.receive(input, outbox)?;
        }
        Ok(())
    }
}

/// Whether `part` is what stands at `offset` in the message of that number.
fn is_part(part: &[u8], offset: usize, number: u64, pattern: &[u8]) -> bool {
    let number = number.to_le_bytes();
    let front = number.len().saturating_sub(offset).min(part.len());
    let (numbered, rest) = part.split_at(front);
    let at = offset + front;
    numbered == number.get(offset..at).unwrap_or_default() && rest == &pattern[at..at + rest.len()]
}

fn take<'a>(input: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (part, rest) = input.split_at(most.min(input.len()));
    *input = rest;
    part
}

fn take_mut<'a>(out: &mut &'a mut [u8], most: usize) -> &'a mut [u8] {
    let most = most.min(out.len());
    let (part, rest) = mem::take(out).split_at_mut(most);
    *out = rest;
    part
}

fn halves(word: u64) -> [[u8; 4]; 2] {
    let [a, b, c, d, e, f, g, h] = word.to_le_bytes();
    [[a, b, c, d], [e, f, g, h]]
}

/// Marsaglia's xorshift: nobody here needs to be surprised.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a server would echo.
    fn echo(messages: &mut Messages) -> Vec<u8> {
        let mut outbox = Vec::new();
        messages.send(&mut outbox);
        let (head, len) = frame::Head::parse(&outbox).unwrap();
        let mut payload = outbox.split_off(len);
        frame::apply_mask(&mut payload, head.mask.unwrap(), 0);
        let mut wire = Vec::new();
        frame::Head { mask: None, ..head }.put(&mut wire);
        wire.extend(payload);
        wire
    }

    #[test]
    fn echoes_are_accepted_in_any_split() {
        for cut in 1..200 {
            let mut messages = Messages::new(3, 200);
            let mut wire = echo(&mut messages);
            wire.extend(echo(&mut messages));
            let echoed: u64 =
                wire.chunks(cut).map(|part| messages.receive(part, &mut Vec::new()).unwrap()).sum();
            assert_eq!((echoed, messages.under_way()), (400, 0));
        }
    }

    #[test]
    fn frames_are_the_same_in_any_parts() {
        let mut whole = vec![0; 1000];
        Messages::new(3, 200).fill(&mut whole);
        for step in 1..300 {
            let (mut messages, mut parts) = (Messages::new(3, 200), vec![0; 1000]);
            parts.chunks_mut(step).for_each(|part| messages.fill(part));
            assert_eq!(parts, whole);
            assert_eq!((messages.under_way(), messages.rest_len()), (5, 5 * messages.frame_len() - 1000));
        }
    }

    #[test]
    fn any_other_byte_is_noticed() {
        for at in 0..66 {
            let mut messages = Messages::new(3, 64);
            let mut wire = echo(&mut messages);
            wire[at] ^= 1;
            let more = vec![0; 200];
            let verdict = messages.receive(&wire, &mut Vec::new());
            assert!(verdict.and_then(|_| messages.receive(&more, &mut Vec::new())).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_ping_is_answered() {
        let mut outbox = Vec::new();
        let mut messages = Messages::new(3, 64);
        messages.receive(&[frame::PING, 2, b'h'], &mut outbox).unwrap();
        messages.receive(b"o", &mut outbox).unwrap();
        let mut expected = Vec::new();
        frame::put_masked(&mut expected, frame::PONG, &[b"ho"], [1, 2, 3, 4]);
        assert_eq!(outbox, expected);
    }
}
