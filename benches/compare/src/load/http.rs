//! Plain requests over HTTP/1.1 and HTTP/2, each answer compared.

use std::rc::Rc;

use anyhow::{Context, ensure};
use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use tokio::task::JoinSet;

use super::connection::Connection;
use super::shared::Shared;
use crate::backend::GREETING;
use crate::setup::{HOST, content};

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Page {
    /// What the backend answers.
    Greeting,
    /// A file of the gateway.
    File(usize),
}

impl Page {
    fn path(self) -> String {
        match self {
            Self::Greeting => "/".to_owned(),
            Self::File(len) => format!("/files/{len}"),
        }
    }

    fn content(self) -> Vec<u8> {
        match self {
            Self::Greeting => GREETING.to_vec(),
            Self::File(len) => content(len),
        }
    }
}

/// One request after the other on a kept connection.
pub(super) async fn http1(shared: Rc<Shared>, index: usize, page: Page) -> anyhow::Result<()> {
    let permit = shared.connecting.acquire().await?;
    let mut connection = Connection::new(shared.client.connect(index).await?, 16 << 10);
    drop(permit);
    shared.ready().await;
    let request = format!("GET {} HTTP/1.1\r\nHost: {HOST}\r\n\r\n", page.path());
    let expected = page.content();
    let mut answer = Reader::default();
    while !shared.stopped.get() {
        connection.outbox.extend_from_slice(request.as_bytes());
        loop {
            let (input, _) = connection.exchange().await?;
            ensure!(!input.is_empty(), "the gateway has closed the connection");
            if answer.is_whole(input, &expected)? {
                break;
            }
        }
        answer = Reader::default();
        shared.count(1);
    }
    Ok(())
}

/// An answer, piece by piece.
#[derive(Debug, Default)]
struct Reader {
    /// As far as it has come, with its end.
    head: Vec<u8>,
    /// How much of the body has come; `None`: the head isn't complete.
    received: Option<usize>,
}

impl Reader {
    /// Whether the answer is complete with this piece; an error if it is another one than was expected.
    fn is_whole(&mut self, mut input: &[u8], expected: &[u8]) -> anyhow::Result<bool> {
        let received = match self.received {
            Some(received) => received,
            None => {
                let before = self.head.len();
                self.head.extend_from_slice(input);
                let Some(end) = self.head.windows(4).position(|four| four == b"\r\n\r\n") else {
                    return Ok(false);
                };
                input = &input[end + 4 - before..];
                let head = String::from_utf8_lossy(&self.head[..end]);
                ensure!(head.starts_with("HTTP/1.1 200"), "another answer than was expected: {head}");
                0
            }
        };
        ensure!(expected[received..].starts_with(input), "another body than was expected");
        self.received = Some(received + input.len());
        Ok(received + input.len() == expected.len())
    }
}

/// One request after the other on each of the streams of a connection.
pub(super) async fn http2(
    shared: Rc<Shared>,
    index: usize,
    streams: usize,
    page: Page,
) -> anyhow::Result<()> {
    let stream = shared.client.connect(index).await?;
    let mut client = h2::client::Builder::new();
    if let Page::File(_) = page {
        // As browsers do, or each file would wait for windows.
        client.initial_window_size(6 << 20).initial_connection_window_size(15 << 20);
    }
    let (requests, connection) = client.handshake(stream).await.context("HTTP/2")?;
    let connection = tokio::task::spawn_local(connection);
    shared.ready().await;
    let mut tasks = JoinSet::new();
    for _ in 0..streams {
        tasks.spawn_local(stream_after_stream(shared.clone(), requests.clone(), page));
    }
    drop(requests);
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    connection.abort();
    Ok(())
}

async fn stream_after_stream(
    shared: Rc<Shared>,
    mut requests: SendRequest<Bytes>,
    page: Page,
) -> anyhow::Result<()> {
    let uri = format!("https://{HOST}{}", page.path());
    let expected = page.content();
    while !shared.stopped.get() {
        requests = requests.ready().await?;
        let (answer, _) = requests.send_request(Request::get(&uri).body(())?, true)?;
        let answer = answer.await?;
        ensure!(answer.status() == 200, "status {}", answer.status());
        let mut body = answer.into_body();
        let mut received = 0;
        while let Some(part) = body.data().await {
            let part = part?;
            ensure!(expected[received..].starts_with(&part), "another body than was expected");
            received += part.len();
            body.flow_control().release_capacity(part.len())?;
        }
        ensure!(received == expected.len(), "an answer cut short");
        shared.count(1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_whole_or_not_or_wrong() {
        let whole = [b"HTTP/1.1 200 OK\r\nContent-Length: 24\r\n\r\n", GREETING].concat();
        for cut in 0..whole.len() {
            let mut reader = Reader::default();
            assert!(!reader.is_whole(&whole[..cut], GREETING).unwrap());
            assert!(reader.is_whole(&whole[cut..], GREETING).unwrap());
        }
        assert!(Reader::default().is_whole(&[&whole[..], b"x"].concat(), GREETING).is_err());
        assert!(Reader::default().is_whole(b"HTTP/1.1 502 Bad Gateway\r\n\r\n", GREETING).is_err());
    }
}
