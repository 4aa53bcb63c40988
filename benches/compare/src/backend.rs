//! The backend of every row: echoes WebSocket messages, answers any other request with one sentence.
//!
//! It streams: a frame is echoed as its bytes come, whatever its length. Buffers are shared by all
//! connections, so that thousands of idle ones cost next to nothing.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown};
use std::time::{Duration, Instant};

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use sha1::{Digest, Sha1};

use crate::frame::{self, Head, HeadReader};

/// The answer to a plain request.
pub(crate) const GREETING: &[u8] = b"Hello from the backend.\n";

/// Read by one call.
const INPUT: usize = 256 << 10;
/// The same of a step, see [`Backend::look`].
const STEP_INPUT: usize = 64 << 10;
/// A multiple of a mask's length.
const BLOCK: usize = 4 << 10;
/// The token of the waker that tells the loop of a new order.
pub(crate) const ORDERS: Token = Token(1 << 31);
/// Tokens from here on are the backend's own; those below belong to the load that shares the loop.
const OURS: usize = 1 << 32;
const LISTENER: Token = Token(usize::MAX);

/// The backend and the loop that it runs in.
pub(crate) struct Backend {
    poll: Poll,
    events: Events,
    listener: TcpListener,
    connections: Connections,
    input: Vec<u8>,
    output: Vec<u8>,
    /// In turns that found nothing to do.
    idle: Duration,
    /// Connections of long messages that have something to do.
    waiting: VecDeque<usize>,
}

impl Backend {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let any_port = (Ipv4Addr::LOCALHOST, 0).into();
        let mut listener = TcpListener::bind(any_port).context("no port for the backend")?;
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            events: Events::with_capacity(1024),
            listener,
            connections: Connections::default(),
            input: vec![0; INPUT],
            output: Vec::with_capacity(INPUT),
            idle: Duration::ZERO,
            waiting: VecDeque::new(),
        })
    }

    pub(crate) fn port(&self) -> io::Result<u16> {
        Ok(self.listener.local_addr()?.port())
    }

    pub(crate) fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// For how long there was nothing to do in turns that didn't wait.
    pub(crate) fn idle(&self) -> Duration {
        self.idle
    }

    /// Waits until something happens, and answers it; `other` is told what happened to others.
    pub(crate) fn wait(&mut self, other: impl FnMut(&Event) -> anyhow::Result<()>) -> anyhow::Result<()> {
        self.poll(None)?;
        self.answer(other)
    }

    /// Answers what has happened, without waiting: a thread that sleeps has to be woken, which on a
    /// virtual machine costs the gateway several times what its message does. Says whether that was
    /// anything.
    pub(crate) fn turn(&mut self, other: impl FnMut(&Event) -> anyhow::Result<()>) -> anyhow::Result<bool> {
        let begun = Instant::now();
        self.poll(Some(Duration::ZERO))?;
        if self.events.is_empty() {
            self.idle += begun.elapsed();
            return Ok(false);
        }
        self.answer(other)?;
        Ok(true)
    }

    /// Answers short messages that have come, without waiting, and puts connections of long ones in a queue, so
    /// that short ones never wait for more than one step. The number of connections that were answered.
    pub(crate) fn look(
        &mut self,
        mut other: impl FnMut(&Event) -> anyhow::Result<()>,
    ) -> anyhow::Result<usize> {
        self.poll(Some(Duration::ZERO))?;
        let mut answered = 0;
        for event in &self.events {
            match event.token() {
                LISTENER => self.connections.accept(&self.listener, self.poll.registry())?,
                Token(ours) if ours >= OURS => {
                    let index = ours - OURS;
                    if self.connections.is_long(index) {
                        if !self.waiting.contains(&index) {
                            self.waiting.push_back(index);
                        }
                        continue;
                    }
                    answered += 1;
                    if self.connections.step(index, &mut self.input[..STEP_INPUT], &mut self.output) {
                        self.waiting.push_back(index);
                    }
                }
                _ => other(event)?,
            }
        }
        Ok(answered)
    }

    /// Answers what one read brings of long messages. Says whether there was a connection to do it for.
    pub(crate) fn step(&mut self) -> bool {
        let Some(index) = self.waiting.pop_front() else { return false };
        if self.connections.step(index, &mut self.input[..STEP_INPUT], &mut self.output) {
            self.waiting.push_back(index);
        }
        true
    }

    /// Connections of long messages that wait are answered without bound from now on.
    pub(crate) fn release(&mut self) {
        for index in self.waiting.drain(..) {
            self.connections.turn(index, &mut self.input, &mut self.output);
        }
    }

    fn poll(&mut self, most: Option<Duration>) -> io::Result<()> {
        match self.poll.poll(&mut self.events, most) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {
                self.events.clear();
                Ok(())
            }
            result => result,
        }
    }

    fn answer(&mut self, mut other: impl FnMut(&Event) -> anyhow::Result<()>) -> anyhow::Result<()> {
        for event in &self.events {
            match event.token() {
                LISTENER => self.connections.accept(&self.listener, self.poll.registry())?,
                Token(ours) if ours >= OURS => {
                    self.connections.turn(ours - OURS, &mut self.input, &mut self.output);
                }
                _ => other(event)?,
            }
        }
        Ok(())
    }
}

/// Connections, and the places in the list that are free.
#[derive(Default)]
struct Connections {
    list: Vec<Option<Connection>>,
    free: Vec<usize>,
}

impl Connections {
    fn accept(&mut self, listener: &TcpListener, registry: &Registry) -> io::Result<()> {
        loop {
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            };
            stream.set_nodelay(true)?;
            let index = self.free.pop().unwrap_or(self.list.len());
            let interest = Interest::READABLE | Interest::WRITABLE;
            registry.register(&mut stream, Token(OURS + index), interest)?;
            let (session, unsent) = (Session::default(), Vec::new());
            let connection = Some(Connection { stream, session, unsent, is_long: false });
            match self.list.get_mut(index) {
                Some(place) => *place = connection,
                None => self.list.push(connection),
            }
        }
    }

    fn turn(&mut self, index: usize, input: &mut [u8], output: &mut Vec<u8>) {
        while self.step(index, input, output) {}
    }

    /// Whether there may be more to do at once.
    fn step(&mut self, index: usize, input: &mut [u8], output: &mut Vec<u8>) -> bool {
        let Some(place) = self.list.get_mut(index) else { return false };
        let Some(connection) = place else { return false };
        match connection.step(input, output) {
            Ok(Step::More) => return true,
            Ok(Step::Wait) => {}
            // Peers vanish as they like; the load generator is the one that complains.
            Ok(Step::End) | Err(_) => {
                *place = None;
                self.free.push(index);
            }
        }
        false
    }

    /// It has filled the input of a step before.
    fn is_long(&self, index: usize) -> bool {
        self.list.get(index).and_then(Option::as_ref).is_some_and(|connection| connection.is_long)
    }
}

struct Connection {
    stream: TcpStream,
    session: Session,
    /// What the socket hasn't taken yet; until it has, nothing more is read.
    unsent: Vec<u8>,
    is_long: bool,
}

/// What is next for a connection.
enum Step {
    More,
    /// The next event.
    Wait,
    End,
}

impl Connection {
    /// Reads once and answers that.
    fn step(&mut self, input: &mut [u8], output: &mut Vec<u8>) -> io::Result<Step> {
        if !self.unsent.is_empty() {
            let written = written(self.stream.write(&self.unsent))?;
            self.unsent.drain(..written);
            if !self.unsent.is_empty() {
                return Ok(Step::Wait);
            }
        }
        if self.session.closed {
            self.stream.shutdown(Shutdown::Write)?;
            return Ok(Step::End);
        }
        let read = match self.stream.read(input) {
            Ok(0) => return Ok(Step::End),
            Ok(read) => read,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(Step::Wait),
            Err(e) => return Err(e),
        };
        output.clear();
        self.session.answer(&input[..read], output)?;
        if !output.is_empty() {
            let written = written(self.stream.write(output))?;
            self.unsent.extend_from_slice(&output[written..]);
        }
        self.is_long |= read == input.len();
        // After less than it could take, the socket is empty.
        let is_done = read < input.len() && self.unsent.is_empty() && !self.session.closed;
        Ok(if is_done { Step::Wait } else { Step::More })
    }
}

fn written(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(0),
        result => result,
    }
}

/// One connection, without its socket: bytes in, bytes out.
#[derive(Debug, Default)]
struct Session {
    websocket: bool,
    request: Vec<u8>,
    head: HeadReader,
    payload: Option<Payload>,
    closed: bool,
}

#[derive(Debug)]
struct Payload {
    mask: [u8; 4],
    offset: usize,
    remaining: u64,
    first: u8,
}

impl Session {
    fn answer(&mut self, mut input: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        while !input.is_empty() && !self.closed {
            if !self.websocket {
                self.request(&mut input, out);
            } else if let Some(payload) = &mut self.payload {
                if payload.take(&mut input, out) {
                    self.closed = payload.first == frame::CLOSE;
                    self.payload = None;
                }
            } else if let Some(head) = self.head.read(&mut input) {
                self.payload = self.begin(head, out)?;
            }
        }
        Ok(())
    }

    fn request(&mut self, input: &mut &[u8], out: &mut Vec<u8>) {
        let before = self.request.len();
        self.request.extend_from_slice(input);
        let Some(end) = self.request.windows(4).position(|four| four == b"\r\n\r\n") else {
            *input = &[];
            return;
        };
        *input = &input[end + 4 - before..];
        let head = String::from_utf8_lossy(&self.request[..end]);
        match field(&head, "sec-websocket-key") {
            Some(key) => {
                self.websocket = true;
                out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n");
                out.extend_from_slice(b"Connection: Upgrade\r\nSec-WebSocket-Accept: ");
                out.extend_from_slice(accept(key).as_bytes());
                out.extend_from_slice(b"\r\n\r\n");
            }
            None => {
                let length = GREETING.len();
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n"
                );
                out.extend_from_slice(head.as_bytes());
                out.extend_from_slice(GREETING);
            }
        }
        self.request.clear();
    }

    /// The head of the echo.
    fn begin(&mut self, head: Head, out: &mut Vec<u8>) -> io::Result<Option<Payload>> {
        let Some(mask) = head.mask else { return Err(ErrorKind::InvalidData.into()) };
        let first = if head.first == frame::PING { frame::PONG } else { head.first };
        if head.first != frame::PONG {
            Head { first, mask: None, ..head }.put(out);
        }
        self.closed = head.first == frame::CLOSE && head.payload_len == 0;
        let payload = Payload { mask, offset: 0, remaining: head.payload_len, first: head.first };
        Ok((head.payload_len > 0).then_some(payload))
    }
}

impl Payload {
    /// Echoes what is there of it; whether that was the rest.
    fn take(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> bool {
        let len = usize::try_from(self.remaining).map_or(input.len(), |remaining| remaining.min(input.len()));
        let (part, rest) = input.split_at(len);
        *input = rest;
        if self.first != frame::PONG {
            // Block by block, so that what was copied is near when it is unmasked.
            for block in part.chunks(BLOCK) {
                let start = out.len();
                out.extend_from_slice(block);
                frame::apply_mask(&mut out[start..], self.mask, self.offset);
            }
        }
        self.offset = (self.offset + len) % 4;
        self.remaining -= len as u64;
        self.remaining == 0
    }
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// RFC 6455 §4.2.2.
fn accept(key: &str) -> String {
    let mut sha1 = Sha1::new();
    sha1.update(key);
    sha1.update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(sha1.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HANDSHAKE: &[u8] = b"GET / HTTP/1.1\r\nSec-Websocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

    #[test]
    fn frames_are_echoed_unmasked_in_any_split() {
        let mut input = HANDSHAKE.to_vec();
        frame::put_masked(&mut input, frame::BINARY, &[&[7; 300]], [1, 2, 3, 4]);
        frame::put_masked(&mut input, frame::PING, &[b"ho"], [5, 6, 7, 8]);
        frame::put_masked(&mut input, frame::PONG, &[b"hi"], [5, 6, 7, 8]);
        frame::put_masked(&mut input, frame::CLOSE, &[&[3, 232]], [9, 9, 9, 9]);
        let mut expected = Vec::new();
        for (first, payload) in
            [(frame::BINARY, &[7; 300][..]), (frame::PONG, b"ho"), (frame::CLOSE, &[3, 232])]
        {
            Head { first, payload_len: payload.len() as u64, mask: None }.put(&mut expected);
            expected.extend_from_slice(payload);
        }
        for size in [1, 2, 3, 7, 1000] {
            let (mut session, mut out) = (Session::default(), Vec::new());
            for part in input.chunks(size) {
                session.answer(part, &mut out).unwrap();
            }
            assert!(session.closed);
            assert!(out.starts_with(b"HTTP/1.1 101 "));
            assert!(String::from_utf8_lossy(&out).contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
            assert!(out.ends_with(&expected));
        }
    }

    #[test]
    fn requests_are_answered_one_after_the_other() {
        let (mut session, mut out) = (Session::default(), Vec::new());
        session.answer(&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2), &mut out).unwrap();
        assert!(out.ends_with(GREETING));
        assert_eq!(out.windows(GREETING.len()).filter(|part| *part == GREETING).count(), 2);
    }
}
