//! A server of FastCGI, which does what a test wants with each request.

use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{BoxIo, Io, soon};

/// A connection with a request on it.
pub struct Asked {
    io: BoxIo,
    /// The variables of the request.
    pub variables: BTreeMap<String, String>,
}

impl Asked {
    /// Reads the variables of a request.
    ///
    /// # Panics
    /// If what comes is no request.
    pub async fn read(io: impl Io + 'static) -> Self {
        let mut asked = Self { io: Box::new(io), variables: BTreeMap::new() };
        assert_eq!(asked.record().await, Some((1, vec![0, 1, 0, 0, 0, 0, 0, 0])), "a responder, not kept");
        let mut wire = Vec::new();
        loop {
            match asked.record().await.expect("variables") {
                (4, content) if content.is_empty() => break,
                (4, content) => wire.extend(content),
                other => panic!("{other:?}"),
            }
        }
        let mut wire = &wire[..];
        while !wire.is_empty() {
            let lens = [take_len(&mut wire), take_len(&mut wire)];
            let [name, value] = lens.map(|len| {
                let (text, rest) = wire.split_at(len);
                wire = rest;
                String::from_utf8(text.to_vec()).unwrap()
            });
            let twice = asked.variables.insert(name, value);
            assert!(twice.is_none(), "{twice:?}");
        }
        asked
    }

    async fn record(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut header = [0; 8];
        soon(self.io.read_exact(&mut header)).await.ok()?;
        let [version, kind, 0, 1, high, low, padding, _] = header else { panic!("{header:?}") };
        assert_eq!(version, 1);
        let len: usize = u16::from_be_bytes([high, low]).into();
        let mut content = vec![0; len + usize::from(padding)];
        soon(self.io.read_exact(&mut content)).await.ok()?;
        content.truncate(len);
        Some((kind, content))
    }

    /// The next part of the body; `None`: it has ended.
    ///
    /// # Panics
    /// If something else comes.
    pub async fn part(&mut self) -> Option<Vec<u8>> {
        match self.record().await? {
            (5, content) => (!content.is_empty()).then_some(content),
            other => panic!("{other:?}"),
        }
    }

    /// The whole body.
    pub async fn body(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        while let Some(part) = self.part().await {
            body.extend(part);
        }
        body
    }

    /// Waits until the gateway has closed the connection.
    pub async fn closed(&mut self) {
        let _ = soon(self.io.read_to_end(&mut Vec::new())).await;
    }

    /// Writes these bytes, whatever they are.
    pub async fn write(&mut self, bytes: &[u8]) {
        let _ = self.io.write_all(bytes).await;
        let _ = self.io.flush().await;
    }

    /// Writes to the answer.
    pub async fn out(&mut self, text: impl AsRef<[u8]>) {
        for part in text.as_ref().chunks(65_535) {
            self.write(&record(6, part)).await;
        }
    }

    /// Writes to the standard error.
    pub async fn error(&mut self, text: &str) {
        self.write(&record(7, text.as_bytes())).await;
    }

    /// Ends the request with this status of the protocol.
    pub async fn end(&mut self, status: u8) {
        self.write(&record(3, &[0, 0, 0, 0, status, 0, 0, 0])).await;
        let _ = self.io.shutdown().await;
    }
}

/// A record of the first request, with padding.
///
/// # Panics
/// If it is too long.
#[must_use]
pub fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[1, kind, 0, 1, high, low, 3, 0][..], content, &[0xff; 3]].concat()
}

fn take_len(wire: &mut &[u8]) -> usize {
    let (len, rest) = wire.split_at(if wire[0] < 0x80 { 1 } else { 4 });
    *wire = rest;
    match *len {
        [short] => short.into(),
        [a, b, c, d] => (u32::from_be_bytes([a, b, c, d]) & 0x7fff_ffff).try_into().unwrap(),
        _ => unreachable!(),
    }
}
