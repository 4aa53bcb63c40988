//! The backend of every row: echoes WebSocket messages, answers any other request with one sentence.
//!
//! It streams: a frame is echoed as its bytes come, whatever its length. Buffers are shared by all
//! connections, so that thousands of idle ones cost next to nothing.

use std::cell::RefCell;
use std::io::{self, ErrorKind, Write};

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::frame::{self, Head, HeadReader};

/// The answer to a plain request.
pub(crate) const GREETING: &[u8] = b"Hello from the backend.\n";

thread_local! {
    static BUFFERS: RefCell<(Vec<u8>, Vec<u8>)> = RefCell::new((vec![0; 256 << 10], Vec::with_capacity(256 << 10)));
}

/// Serves until it is ended; its port goes to stdout.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("no port for the backend")?;
    writeln!(io::stdout(), "{}", listener.local_addr()?.port())?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            // Peers vanish as they like; the load generator is the one that complains.
            let _ = converse(stream).await;
        });
    }
}

async fn converse(mut stream: TcpStream) -> io::Result<()> {
    let mut session = Session::default();
    loop {
        stream.readable().await?;
        let rest = BUFFERS.with_borrow_mut(|(input, output)| {
            output.clear();
            let read = match stream.try_read(input) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => read,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(Vec::new()),
                Err(e) => return Err(e),
            };
            session.answer(&input[..read], output)?;
            if output.is_empty() {
                return Ok(Vec::new());
            }
            match stream.try_write(output) {
                Ok(written) => Ok(output[written..].to_vec()),
                Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(output.clone()),
                Err(e) => Err(e),
            }
        })?;
        stream.write_all(&rest).await?;
        if session.closed {
            return stream.shutdown().await;
        }
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
            let start = out.len();
            out.extend_from_slice(part);
            frame::apply_mask(&mut out[start..], self.mask, self.offset);
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
