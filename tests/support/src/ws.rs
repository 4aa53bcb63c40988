//! WebSockets by hand, from either side, over any stream.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::http1::{Head, read_head};
use crate::{BoxIo, Io, soon};

/// The key of every handshake here.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// First bytes of whole frames.
pub const TEXT: u8 = 0x81;
/// See [`TEXT`].
pub const BINARY: u8 = 0x82;
/// See [`TEXT`].
pub const CLOSE: u8 = 0x88;
/// See [`TEXT`].
pub const PING: u8 = 0x89;
/// See [`TEXT`].
pub const PONG: u8 = 0x8A;

/// The proof that a server has read `key`.
#[must_use]
pub fn accept(key: &str) -> String {
    let mut sha1 = Sha1::new();
    sha1.update(key);
    sha1.update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(sha1.finalize())
}

/// A proper handshake; `fields` are whole lines, each with its line end.
#[must_use]
pub fn handshake(host: &str, path: &str, fields: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{fields}\r\n"
    )
}

/// A frame as it was heard, unmasked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// FIN, RSV and opcode.
    pub b0: u8,
    /// Masked on the wire.
    pub masked: bool,
    /// Unmasked.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The code of a Close; 1005 if it has none.
    #[must_use]
    pub fn close_code(&self) -> u16 {
        assert_eq!(self.b0, CLOSE, "{self:?}");
        self.payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code))
    }
}

/// One end of a WebSocket.
pub struct WebSocket {
    /// The stream, for what isn't a frame.
    pub io: BoxIo,
    /// This end masks.
    pub client: bool,
}

impl WebSocket {
    /// Asks for an upgrade over HTTP/1.1.
    ///
    /// # Errors
    /// The answer, if it isn't a proper 101.
    pub async fn connect(
        io: impl Io + 'static,
        host: &str,
        path: &str,
        fields: &str,
    ) -> Result<(Self, Head), Head> {
        let mut io: BoxIo = Box::new(io);
        io.write_all(handshake(host, path, fields).as_bytes()).await.unwrap();
        io.flush().await.unwrap();
        let head = read_head(&mut io).await.expect("an answer");
        if head.status() != 101 || head.get("sec-websocket-accept") != Some(&accept(KEY)) {
            return Err(head);
        }
        Ok((Self { io, client: true }, head))
    }

    /// Answers an upgrade as a server; `fields` are whole lines, each with its line end.
    ///
    /// # Panics
    /// If there is no handshake.
    pub async fn serve(io: impl Io + 'static, fields: &str) -> (Self, Head) {
        let mut io: BoxIo = Box::new(io);
        let head = read_head(&mut io).await.expect("a handshake");
        let key = head.get("sec-websocket-key").expect("a key").to_owned();
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n{fields}\r\n",
            accept(&key)
        );
        io.write_all(answer.as_bytes()).await.unwrap();
        io.flush().await.unwrap();
        (Self { io, client: false }, head)
    }

    /// Bytes as they are.
    pub async fn send_raw(&mut self, wire: &[u8]) {
        self.io.write_all(wire).await.unwrap();
        self.io.flush().await.unwrap();
    }

    /// A frame.
    pub async fn send(&mut self, b0: u8, payload: impl AsRef<[u8]>) {
        let wire = encode(b0, payload.as_ref(), self.client);
        self.send_raw(&wire).await;
    }

    /// A text message.
    pub async fn text(&mut self, text: &str) {
        self.send(TEXT, text).await;
    }

    /// A Close with a code.
    pub async fn close(&mut self, code: u16) {
        self.send(CLOSE, code.to_be_bytes()).await;
    }

    /// The next frame; `None` at the end of the stream between two frames.
    ///
    /// # Panics
    /// At an end inside a frame, or if nothing comes.
    #[track_caller]
    pub fn receive(&mut self) -> impl Future<Output = Option<Frame>> {
        let caller = std::panic::Location::caller();
        async move {
            let Ok(b0) = soon(self.io.read_u8()).await else { return None };
            self.receive_rest(b0).await.unwrap_or_else(|| panic!("the end inside a frame at {caller}")).into()
        }
    }

    /// What follows the first byte of a frame; `None` at an end inside it.
    pub async fn receive_rest(&mut self, b0: u8) -> Option<Frame> {
        let b1 = soon(self.io.read_u8()).await.ok()?;
        let len = match b1 & 0x7F {
            126 => u64::from(soon(self.io.read_u16()).await.ok()?),
            127 => soon(self.io.read_u64()).await.ok()?,
            len => u64::from(len),
        };
        let mut mask = [0; 4];
        if b1 & 0x80 != 0 {
            soon(self.io.read_exact(&mut mask)).await.ok()?;
        }
        let mut payload = vec![0; usize::try_from(len).unwrap()];
        soon(self.io.read_exact(&mut payload)).await.ok()?;
        apply_mask(&mut payload, mask);
        Some(Frame { b0, masked: b1 & 0x80 != 0, payload })
    }

    /// The next frame is this text.
    #[track_caller]
    pub fn expect_text(&mut self, text: &str) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let frame = self.receive().await.unwrap_or_else(|| panic!("the end, not {text:?}, at {caller}"));
            let seen = String::from_utf8_lossy(&frame.payload);
            assert_eq!((frame.b0, &*seen), (TEXT, text), "at {caller}");
        }
    }

    /// The next frame is a Close with this code.
    #[track_caller]
    pub fn expect_close(&mut self, code: u16) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let frame = self.receive().await.unwrap_or_else(|| panic!("the end, not a Close, at {caller}"));
            assert_eq!(frame.close_code(), code, "{} at {caller}", String::from_utf8_lossy(&frame.payload));
        }
    }

    /// The stream ends here, between two frames.
    #[track_caller]
    pub fn expect_end(&mut self) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let frame = self.receive().await;
            assert_eq!(frame, None, "at {caller}");
        }
    }

    /// A text there and back.
    pub async fn echoes(&mut self, text: &str) {
        self.text(text).await;
        self.expect_text(text).await;
    }
}

/// A frame, masked where a client sends it.
#[must_use]
pub fn encode(b0: u8, payload: &[u8], client: bool) -> Vec<u8> {
    const MASK: [u8; 4] = [0x5A, 0x01, 0xFE, 0x33];
    let bit = if client { 0x80 } else { 0 };
    let mut wire = vec![b0];
    match payload.len() {
        len @ 0..=125 => wire.push(bit | u8::try_from(len).unwrap()),
        len @ 126..=0xFFFF => {
            wire.push(bit | 126);
            wire.extend(u16::try_from(len).unwrap().to_be_bytes());
        }
        len => {
            wire.push(bit | 127);
            wire.extend((len as u64).to_be_bytes());
        }
    }
    if client {
        wire.extend(MASK);
    }
    let begin = wire.len();
    wire.extend(payload);
    if client {
        apply_mask(&mut wire[begin..], MASK);
    }
    wire
}

/// Masks a payload, or unmasks it (RFC 6455 §5.3). By words, since messages of many megabytes would keep a thread of an
/// unoptimized test busy for seconds.
pub fn apply_mask(payload: &mut [u8], mask: [u8; 4]) {
    let word = u64::from_ne_bytes([mask, mask].concat().try_into().unwrap());
    let (words, rest) = payload.as_chunks_mut::<8>();
    for bytes in words {
        *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= mask;
    }
}
