//! HTTP/1.1 by hand: what is sent is what the test wrote, and what comes back is shown raw.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{Io, soon};

/// A message head and what stands behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The first line.
    pub line: String,
    /// Names as they are written, values trimmed.
    pub fields: Vec<(String, String)>,
}

impl Head {
    /// The first value of a field.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).into_iter().next()
    }

    /// All values of a field.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<&str> {
        let same = |field: &&(String, String)| field.0.eq_ignore_ascii_case(name);
        self.fields.iter().filter(same).map(|field| field.1.as_str()).collect()
    }

    /// The status of an answer.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.line.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

/// An answer with its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its head.
    pub head: Head,
    /// Its body, unchunked.
    pub body: Vec<u8>,
    /// Fields behind the last chunk.
    pub trailers: Vec<(String, String)>,
    /// The body ended as its head says.
    pub whole: bool,
}

impl Answer {
    /// The status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.head.status()
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

/// Reads up to the empty line, byte by byte, so that nothing behind it is lost. `None` at the end
/// of the stream.
pub async fn read_head(io: &mut (impl Io + ?Sized)) -> Option<Head> {
    let mut wire = Vec::new();
    while !wire.ends_with(b"\r\n\r\n") {
        match soon(io.read_u8()).await {
            Ok(byte) => wire.push(byte),
            Err(_) => return None,
        }
    }
    let text = String::from_utf8_lossy(&wire);
    let mut lines = text.trim_end().split("\r\n");
    let line = lines.next().unwrap().to_owned();
    Some(Head { line, fields: lines.map(field).collect() })
}

fn field(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap_or((line, ""));
    (name.to_owned(), value.trim().to_owned())
}

/// Sends `request` as it is and reads the answer.
///
/// # Panics
/// If there is none.
pub async fn ask(io: &mut (impl Io + ?Sized), request: impl AsRef<[u8]>) -> Answer {
    let request = request.as_ref();
    io.write_all(request).await.unwrap();
    io.flush().await.unwrap();
    read_answer(io, request.starts_with(b"HEAD ")).await.expect("an answer")
}

/// Reads an answer; `None` at the end of the stream.
pub async fn read_answer(io: &mut (impl Io + ?Sized), to_head: bool) -> Option<Answer> {
    let head = read_head(io).await?;
    let mut answer = Answer { head, body: Vec::new(), trailers: Vec::new(), whole: true };
    let status = answer.status();
    if to_head || status < 200 || status == 204 || status == 304 {
        return Some(answer);
    }
    if answer.head.get("transfer-encoding") == Some("chunked") {
        answer.whole = read_chunks(io, &mut answer).await.is_some();
    } else if let Some(length) = answer.head.get("content-length") {
        let mut left: usize = length.parse().unwrap();
        let mut buffer = vec![0; 1 << 16];
        while left > 0 {
            let most = left.min(buffer.len());
            match soon(io.read(&mut buffer[..most])).await {
                Ok(n @ 1..) => {
                    answer.body.extend(&buffer[..n]);
                    left -= n;
                }
                _ => {
                    answer.whole = false;
                    break;
                }
            }
        }
    } else {
        answer.whole = soon(io.read_to_end(&mut answer.body)).await.is_ok();
    }
    Some(answer)
}

async fn read_chunks(io: &mut (impl Io + ?Sized), answer: &mut Answer) -> Option<()> {
    loop {
        let size = read_line(io).await?;
        let size = usize::from_str_radix(size.split(';').next().unwrap(), 16).unwrap();
        if size == 0 {
            break;
        }
        let mut chunk = vec![0; size];
        soon(io.read_exact(&mut chunk)).await.ok()?;
        answer.body.extend(chunk);
        read_line(io).await?;
    }
    loop {
        let line = read_line(io).await?;
        if line.is_empty() {
            return Some(());
        }
        answer.trailers.push(field(&line));
    }
}

async fn read_line(io: &mut (impl Io + ?Sized)) -> Option<String> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.push(soon(io.read_u8()).await.ok()?);
    }
    line.truncate(line.len() - 2);
    Some(String::from_utf8(line).unwrap())
}
