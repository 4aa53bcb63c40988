//! Messages that are echoed, each compared byte for byte.

use std::mem;
use std::rc::Rc;

use anyhow::{bail, ensure};
use tokio::select;

use super::connection::Connection;
use super::shared::Shared;
use crate::frame::{self, Head, HeadReader};

/// A prime, so that no part of a long message is like its neighbour, whatever it is cut into.
const PERIOD: usize = 4093;
const NUMBER_LEN: usize = 8;
/// What an idle socket has sent before.
const IDLE_SIZE: usize = 64;

/// One message, then nothing but answers to pings; at the end another, to show that the socket lives.
pub(super) async fn idle(shared: Rc<Shared>, index: usize, resumed: bool) -> anyhow::Result<()> {
    let mut messages = Messages::new(index, IDLE_SIZE);
    let mut connection = match resumed {
        true => come_back(&shared, index).await?,
        false => connect(&shared, index).await?,
    };
    messages.exchange(&mut connection).await?;
    let ready = shared.ready();
    tokio::pin!(ready);
    loop {
        select! {
            () = &mut ready => break,
            turn = connection.exchange() => {
                let (input, outbox) = turn?;
                messages.receive(input, outbox)?;
            }
        }
    }
    messages.exchange(&mut connection).await?;
    shared.count(1);
    Ok(())
}

pub(super) async fn connect(shared: &Shared, index: usize) -> anyhow::Result<Connection> {
    let _permit = shared.connection_permit().await?;
    shared.client.upgrade(index).await
}

/// The same with the ticket of a connection before, once there are as many as are made at a time.
async fn come_back(shared: &Shared, index: usize) -> anyhow::Result<Connection> {
    let _permit = shared.connection_permit().await?;
    let returning = shared.returning.borrow_mut().pop();
    let has_ticket = returning.is_some();
    let client = returning.unwrap_or_else(|| shared.client.resuming());
    let connection = client.upgrade(index).await?;
    ensure!(
        connection.resumed() == has_ticket,
        "resumed: {}; had a ticket: {has_ticket}",
        connection.resumed()
    );
    shared.returning.borrow_mut().push(client);
    Ok(connection)
}

/// The messages of one socket: bytes that look random, the first eight of them the message's number.
///
/// A long one repeats itself after [`PERIOD`] bytes, and the socket's mask stays the same: what is compared
/// and what is sent are near the processor, and the load costs no more than the gateway.
pub(super) struct Messages {
    size: usize,
    /// The payload of number 0, as far as it doesn't repeat itself.
    pattern: Vec<u8>,
    /// The same, masked.
    masked: Vec<u8>,
    head: Vec<u8>,
    sent: u64,
    received: u64,
    /// How much has been sent of the frame that is being sent.
    offset: usize,
    reader: HeadReader,
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
        let bytes = std::iter::repeat_with(|| random.next().to_le_bytes()).flatten();
        let mut pattern: Vec<u8> = bytes.take(size.min(PERIOD)).collect();
        pattern.iter_mut().take(NUMBER_LEN).for_each(|byte| *byte = 0);
        let [mask, _] = halves(random.next());
        let mut masked: Vec<u8> = pattern.iter().copied().cycle().take(size.min(4 * PERIOD)).collect();
        frame::apply_mask(&mut masked, mask, 0);
        let mut head = Vec::new();
        Head { first: frame::BINARY, payload_len: size as u64, mask: Some(mask) }.put(&mut head);
        Self {
            size,
            pattern,
            masked,
            head,
            sent: 0,
            received: 0,
            offset: 0,
            reader: HeadReader::default(),
            part: Part::Head,
        }
    }

    pub(super) fn under_way(&self) -> u64 {
        self.sent - self.received
    }

    pub(super) fn frame_len(&self) -> usize {
        self.head.len() + self.size
    }

    /// How much is missing of a frame that has been begun.
    pub(super) fn rest_len(&self) -> usize {
        if self.offset == 0 { 0 } else { self.frame_len() - self.offset }
    }

    pub(super) fn send(&mut self, outbox: &mut Vec<u8>) {
        let start = outbox.len();
        outbox.resize(start + self.frame_len(), 0);
        self.fill(&mut outbox[start..]);
    }

    /// The next so many bytes of frame after frame.
    pub(super) fn fill(&mut self, mut out: &mut [u8]) {
        while !out.is_empty() {
            self.sent += u64::from(self.offset == 0);
            self.offset += match self.offset.checked_sub(self.head.len()) {
                None => {
                    let head = &self.head[self.offset..];
                    let part = take_mut(&mut out, head.len());
                    part.copy_from_slice(&head[..part.len()]);
                    part.len()
                }
                Some(at) => {
                    let part = take_mut(&mut out, self.size - at);
                    self.put_payload(at, part);
                    part.len()
                }
            };
            if self.offset == self.frame_len() {
                self.offset = 0;
            }
        }
    }

    /// The bytes of the payload from there on, masked.
    fn put_payload(&self, at: usize, part: &mut [u8]) {
        let mut done = 0;
        while done < part.len() {
            let from = &self.masked[(at + done) % self.masked.len()..];
            let len = from.len().min(part.len() - done);
            part[done..done + len].copy_from_slice(&from[..len]);
            done += len;
        }
        let number = (self.sent - 1).to_le_bytes();
        part.iter_mut().zip(number.iter().skip(at)).for_each(|(byte, number)| *byte ^= number);
    }

    /// Compares what has come; the number of payload bytes in it.
    pub(super) fn receive(&mut self, mut input: &[u8], outbox: &mut Vec<u8>) -> anyhow::Result<u64> {
        ensure!(!input.is_empty(), "the gateway has closed the connection");
        let mut echoed = 0;
        while !input.is_empty() {
            match &mut self.part {
                Part::Head => {
                    if let Some(head) = self.reader.read(&mut input) {
                        self.part = self.begin(head)?;
                    }
                }
                Part::Payload { offset } => {
                    let part = take(&mut input, self.size - *offset);
                    ensure!(
                        is_part(part, *offset, self.received, &self.pattern),
                        "the echo differs from the message"
                    );
                    echoed += part.len() as u64;
                    *offset += part.len();
                    if *offset == self.size {
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
            (frame::BINARY, len) if len == self.size && self.received < self.sent => {
                Ok(Part::Payload { offset: 0 })
            }
            (frame::PING, missing @ ..=125) => Ok(Part::Ping { payload: Vec::new(), missing }),
            _ => bail!("an unexpected frame: {head:?}"),
        }
    }

    async fn exchange(&mut self, connection: &mut Connection) -> anyhow::Result<()> {
        self.send(&mut connection.outbox);
        while self.under_way() > 0 {
            let (input, outbox) = connection.exchange().await?;
            self.receive(input, outbox)?;
        }
        Ok(())
    }
}

/// Whether `part` is what stands at `offset` in the message of that number.
fn is_part(part: &[u8], offset: usize, number: u64, pattern: &[u8]) -> bool {
    let number = number.to_le_bytes();
    let front = number.len().saturating_sub(offset).min(part.len());
    let (numbered, mut rest) = part.split_at(front);
    let mut at = offset + front;
    let mut same = numbered == number.get(offset..at).unwrap_or_default();
    while same && !rest.is_empty() {
        let expected = &pattern[at % pattern.len()..];
        let part = take(&mut rest, expected.len());
        same = *part == expected[..part.len()];
        at += part.len();
    }
    same
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

/// Marsaglia's xorshift: good enough for test data.
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
        let mut bytes = Vec::new();
        frame::Head { mask: None, ..head }.put(&mut bytes);
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn echoes_are_accepted_in_any_split() {
        for cut in 1..200 {
            let mut messages = Messages::new(3, 200);
            let mut bytes = echo(&mut messages);
            bytes.extend(echo(&mut messages));
            let echoed: u64 =
                bytes.chunks(cut).map(|part| messages.receive(part, &mut Vec::new()).unwrap()).sum();
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
    fn long_messages_repeat_themselves_behind_their_number() {
        let size = 5 * PERIOD;
        let mut messages = Messages::new(3, size);
        for number in [0, 1] {
            let bytes = echo(&mut messages);
            let payload = &bytes[bytes.len() - size..];
            assert_eq!(payload[..NUMBER_LEN], u64::to_le_bytes(number));
            assert_eq!(payload[PERIOD + NUMBER_LEN..2 * PERIOD], payload[NUMBER_LEN..PERIOD]);
            for (offset, cut) in [(0, 3), (4, 9), (PERIOD - 1, PERIOD + 1), (3, size)] {
                assert!(is_part(&payload[offset..cut.max(offset)], offset, number, &messages.pattern));
                let shifted = &payload[offset..size - 4096];
                assert!(!is_part(shifted, offset + 4096, number, &messages.pattern));
            }
        }
    }

    #[test]
    fn any_other_byte_is_noticed() {
        for at in 0..66 {
            let mut messages = Messages::new(3, 64);
            let mut bytes = echo(&mut messages);
            bytes[at] ^= 1;
            let more = vec![0; 200];
            let verdict = messages.receive(&bytes, &mut Vec::new());
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
