//! What a NATS server sends: lines, and payloads behind some of them. Pure.
//!
//! Lines and payloads are bounded; a longer payload is passed over without being kept.
//! <https://docs.nats.io/reference/reference-protocols/nats-protocol>

use bytes::{Buf, Bytes, BytesMut};

/// Bytes of a line. That of INFO has the addresses of a whole cluster of servers.
const LINE_MAX: usize = 64 * 1024;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Info(Bytes),
    Message {
        subject: String,
        reply: Option<String>,
        payload: Bytes,
    },
    /// One whose payload is longer than it may be.
    TooLong {
        subject: String,
        len: usize,
    },
    Ping,
    Pong,
    /// The server complains, and mostly closes the connection then.
    Error(String),
}

/// Not NATS.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not the NATS protocol")]
pub(super) struct NotNats;

/// Takes frames from the front of a buffer.
#[derive(Debug)]
pub(super) struct Frames {
    payload_max: usize,
    /// Bytes that are still to be passed over.
    skipping: usize,
}

impl Frames {
    pub(super) fn new(payload_max: usize) -> Self {
        Self { payload_max, skipping: 0 }
    }

    /// The next whole frame; `None`: there is none yet.
    ///
    /// # Errors
    /// [`NotNats`]; nothing behind it means anything.
    pub(super) fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, NotNats> {
        loop {
            let skipped = self.skipping.min(buffer.len());
            buffer.advance(skipped);
            self.skipping -= skipped;
            let front = &buffer[..buffer.len().min(LINE_MAX)];
            let Some(end) = front.windows(2).position(|two| two == b"\r\n") else {
                return if front.len() == LINE_MAX { Err(NotNats) } else { Ok(None) };
            };
            let line = str::from_utf8(&buffer[..end]).map_err(|_| NotNats)?;
            let (word, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
            let frame = match word.to_ascii_uppercase().as_str() {
                "MSG" => {
                    let head = rest.to_owned();
                    return self.message(&head, end + 2, buffer);
                }
                "INFO" => Frame::Info(Bytes::copy_from_slice(rest.as_bytes())),
                "PING" => Frame::Ping,
                "PONG" => Frame::Pong,
                "-ERR" => Frame::Error(rest.trim_matches([' ', '\'']).to_owned()),
                "+OK" => {
                    buffer.advance(end + 2);
                    continue;
                }
                _ => return Err(NotNats),
            };
            buffer.advance(end + 2);
            return Ok(Some(frame));
        }
    }

    /// `MSG subject sid [reply] length`; its payload begins at `begin`.
    fn message(&mut self, head: &str, begin: usize, buffer: &mut BytesMut) -> Result<Option<Frame>, NotNats> {
        let words: Vec<&str> = head.split_ascii_whitespace().collect();
        let (subject, reply, len) = match words[..] {
            [subject, _, len] => (subject, None, len),
            [subject, _, reply, len] => (subject, Some(reply.to_owned()), len),
            _ => return Err(NotNats),
        };
        let (subject, len) = (subject.to_owned(), len.parse::<u32>().map_err(|_| NotNats)? as usize);
        if len > self.payload_max {
            buffer.advance(begin);
            self.skipping = len + 2;
            return Ok(Some(Frame::TooLong { subject, len }));
        }
        if buffer.len() < begin + len + 2 {
            return Ok(None);
        }
        buffer.advance(begin);
        let payload = buffer.split_to(len).freeze();
        if buffer[..2] != *b"\r\n" {
            return Err(NotNats);
        }
        buffer.advance(2);
        Ok(Some(Frame::Message { subject, reply, payload }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STREAM: &[u8] =
        b"INFO {\"a\":1}\r\n+OK\r\nMSG a.b 7 5\r\nhello\r\nping\r\nMSG a 7 reply 2\r\n\r\n\r\n\
        MSG a 7 11\r\nhello world\r\nPONG\r\n-ERR 'Authorization Violation'\r\n";

    fn all(parts: &[&[u8]]) -> Result<Vec<Frame>, NotNats> {
        let (mut frames, mut buffer, mut found) = (Frames::new(10), BytesMut::new(), Vec::new());
        for part in parts {
            buffer.extend_from_slice(part);
            while let Some(frame) = frames.next(&mut buffer)? {
                found.push(frame);
            }
        }
        Ok(found)
    }

    #[test]
    fn frames_are_read() {
        let message = |subject: &str, reply: Option<&str>, payload: &'static [u8]| Frame::Message {
            subject: subject.to_owned(),
            reply: reply.map(ToOwned::to_owned),
            payload: Bytes::from_static(payload),
        };
        let expected = [
            Frame::Info(Bytes::from_static(b"{\"a\":1}")),
            message("a.b", None, b"hello"),
            Frame::Ping,
            message("a", Some("reply"), b"\r\n"),
            Frame::TooLong { subject: "a".to_owned(), len: 11 },
            Frame::Pong,
            Frame::Error("Authorization Violation".to_owned()),
        ];
        assert_eq!(all(&[STREAM]).unwrap(), expected);
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let bad: [&[u8]; 7] = [
            b"HTTP/1.1 400\r\n",
            b"MSG a 7\r\n",
            b"MSG a 7 x\r\n",
            b"MSG a 7 99999999999\r\n",
            b"MSG a 7 -1\r\n",
            b"MSG a 7 1\r\nabc",
            b"\xFF\r\n",
        ];
        for bytes in bad {
            assert_eq!(all(&[bytes]), Err(NotNats), "{bytes:?}");
        }
        assert_eq!(all(&[&[b'x'; LINE_MAX]]), Err(NotNats));
    }

    proptest! {
        #[test]
        fn where_it_is_cut_changes_nothing(cuts in prop::collection::vec(0..STREAM.len(), 0..8)) {
            let mut cuts = cuts;
            cuts.extend([0, STREAM.len()]);
            cuts.sort_unstable();
            let parts: Vec<_> = cuts.windows(2).map(|cut| &STREAM[cut[0]..cut[1]]).collect();
            prop_assert_eq!(all(&parts), all(&[STREAM]));
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, words in "(MSG|INFO|PING| a| 3|\r\n|x){0,12}") {
            let _ = all(&[&bytes]);
            let _ = all(&[words.as_bytes()]);
        }
    }
}
