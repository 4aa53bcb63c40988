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
use crate::setup::HOST;

/// One request after the other on a kept connection.
pub(super) async fn http1(shared: Rc<Shared>, index: usize) -> anyhow::Result<()> {
    let permit = shared.connecting.acquire().await?;
    let mut connection = Connection::new(shared.client.connect(index).await?, 16 << 10);
    drop(permit);
    shared.ready().await;
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let mut answer = Vec::new();
    while !shared.stopped.get() {
        connection.outbox.extend_from_slice(request.as_bytes());
        while !is_whole(&answer)? {
            let (input, _) = connection.exchange().await?;
            ensure!(!input.is_empty(), "the gateway has closed the connection");
            answer.extend_from_slice(input);
        }
        answer.clear();
        shared.count(1);
    }
    Ok(())
}

/// Whether an answer is complete; an error if it is not the backend's.
fn is_whole(answer: &[u8]) -> anyhow::Result<bool> {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(false) };
    let body = &answer[end + 4..];
    let right = answer.starts_with(b"HTTP/1.1 200") && GREETING.starts_with(body);
    ensure!(right, "another answer than the backend's: {}", String::from_utf8_lossy(answer));
    Ok(body.len() == GREETING.len())
}

/// One request after the other on each of the streams of a connection.
pub(super) async fn http2(shared: Rc<Shared>, index: usize, streams: usize) -> anyhow::Result<()> {
    let stream = shared.client.connect(index).await?;
    let (requests, connection) = h2::client::handshake(stream).await.context("HTTP/2")?;
    let connection = tokio::task::spawn_local(connection);
    shared.ready().await;
    let mut tasks = JoinSet::new();
    for _ in 0..streams {
        tasks.spawn_local(stream_after_stream(shared.clone(), requests.clone()));
    }
    drop(requests);
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    connection.abort();
    Ok(())
}

async fn stream_after_stream(shared: Rc<Shared>, mut requests: SendRequest<Bytes>) -> anyhow::Result<()> {
    let uri = format!("https://{HOST}/");
    while !shared.stopped.get() {
        requests = requests.ready().await?;
        let (answer, _) = requests.send_request(Request::get(&uri).body(())?, true)?;
        let answer = answer.await?;
        ensure!(answer.status() == 200, "status {}", answer.status());
        let mut body = answer.into_body();
        let mut received = 0;
        while let Some(part) = body.data().await {
            let part = part?;
            ensure!(GREETING[received..].starts_with(&part), "another answer than the backend's");
            received += part.len();
            body.flow_control().release_capacity(part.len())?;
        }
        ensure!(received == GREETING.len(), "an answer cut short");
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
            assert!(!is_whole(&whole[..cut]).unwrap());
        }
        assert!(is_whole(&whole).unwrap());
        assert!(is_whole(&[&whole[..], b"x"].concat()).is_err());
        assert!(is_whole(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").is_err());
    }
}
