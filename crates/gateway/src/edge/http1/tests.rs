//! Clients over HTTP/1.1 that keep to no rule, in memory.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::{Instant, sleep};

use super::*;
use crate::net::limits::{ClientLimits, STALL_MAX};
use crate::test_io::{Scene, answer, read_head, read_rest, soon};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

async fn read_answer(client: &mut DuplexStream) -> String {
    let mut head = read_head(client).await;
    let field = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).expect("a length");
    let mut body = vec![0; field.parse().unwrap()];
    soon(client.read_exact(&mut body)).await.unwrap();
    head.push_str(std::str::from_utf8(&body).unwrap());
    head
}

/// A client that reads nothing gets nothing more, and after a while not even the backend's attention.
#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_given_up_and_its_backend_freed() {
    let scene = Scene::new("");
    let (mut client, serving) = scene.http1();
    let mut backend = scene.backend();
    client.write_all(GET).await.unwrap();
    answer(&mut backend, "HTTP/1.1 200 OK\r\n\r\n").await;
    let since = Instant::now();
    while soon(backend.write_all(&[b'a'; 1000])).await.is_ok() {}
    assert_eq!(since.elapsed().as_secs(), STALL_MAX.as_secs());
    soon(serving).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_head_that_is_too_long_is_refused() {
    for (len, status) in [(HEAD_LEN_MAX - 1000, "200 OK"), (HEAD_LEN_MAX, "431 ")] {
        let scene = Scene::new("");
        let (mut client, _serving) = scene.http1();
        let mut backend = scene.backend();
        let head = format!("GET / HTTP/1.1\r\nHost: a.test\r\nX-Long: {}\r\n\r\n", "a".repeat(len));
        client.write_all(head.as_bytes()).await.unwrap();
        if status.starts_with("200") {
            answer(&mut backend, OK).await;
        }
        let head = read_head(&mut client).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
    }
}

/// Both ends of the wait for a request: for its first byte, and for the rest of its head.
#[tokio::test(start_paused = true)]
async fn a_silent_connection_ends() {
    let scene = Scene::new("");
    let ClientLimits { header_timeout, keep_alive_timeout, .. } = ClientLimits::DEFAULT;
    for (before, said, patience) in [
        (0, &b""[..], header_timeout),
        (0, &GET[..20], header_timeout),
        (1, b"", keep_alive_timeout),
        (1, &GET[..20], header_timeout),
    ] {
        let (mut client, _serving) = scene.http1();
        for _ in 0..before {
            let mut backend = scene.backend();
            client.write_all(GET).await.unwrap();
            answer(&mut backend, OK).await;
            read_answer(&mut client).await;
        }
        client.write_all(said).await.unwrap();
        let since = Instant::now();
        read_rest(&mut client).await;
        assert_eq!(since.elapsed().as_secs(), patience.as_secs(), "{before} {said:?}");
    }
}

/// A short body that is not used is read, since the next request follows it; the end of the connection is
/// told before a long one.
#[tokio::test(start_paused = true)]
async fn an_unwanted_body_is_read_if_it_is_short() {
    for (len, is_kept) in [(UNREAD_MAX, true), (UNREAD_MAX + 1, false)] {
        let scene = Scene::new("");
        let (mut client, _serving) = scene.http1();
        let head = format!("POST /echo HTTP/1.1\r\nHost: a.test\r\nContent-Length: {len}\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        if is_kept {
            client.write_all(&vec![b'a'; usize::try_from(len).unwrap()]).await.unwrap();
        }
        let answered = read_answer(&mut client).await;
        assert_eq!(answered.contains("Connection: close"), !is_kept, "{len}: {answered}");
        if is_kept {
            let mut backend = scene.backend();
            client.write_all(GET).await.unwrap();
            answer(&mut backend, OK).await;
            assert!(read_answer(&mut client).await.ends_with("ok"));
        } else {
            // Still, what comes is thrown away for a while, so that the answer isn't destroyed.
            sleep(linger::LINGER_SILENCE - Duration::from_secs(1)).await;
            client.write_all(&[b'a'; 1000]).await.unwrap();
            sleep(linger::LINGER_SILENCE - Duration::from_secs(1)).await;
            client.write_all(&[b'a'; 1000]).await.unwrap();
            sleep(linger::LINGER_SILENCE + Duration::from_secs(1)).await;
            client.write_all(&[b'a'; 1000]).await.unwrap_err();
        }
    }
}
