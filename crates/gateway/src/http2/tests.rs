//! Clients over HTTP/2 that keep to no rule, in memory.

use http::header::HeaderName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;
use crate::test_io::{Scene, answer, read_head};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn request(method: Method, path: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("https://a.test{path}")).body(()).unwrap()
}

fn trailers(name: &str, value: &str) -> HeaderMap {
    HeaderMap::from_iter([(HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap())])
}

/// A client that writes its frames itself.
struct Raw(DuplexStream);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

impl Raw {
    /// After the preface and a frame of settings.
    async fn new(mut io: DuplexStream) -> Self {
        io.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let mut raw = Self(io);
        raw.send(SETTINGS, 0, 0, &[]).await;
        raw
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.0.write_all(&frame).await.unwrap();
    }

    /// Fields as literals without indexing (RFC 7541 §6.2.2).
    async fn send_fields(&mut self, flags: u8, stream: u32, fields: &[(&str, &str)]) {
        let mut block = Vec::new();
        for (name, value) in fields {
            block.push(0);
            for text in [name, value] {
                block.push(u8::try_from(text.len()).unwrap());
                block.extend_from_slice(text.as_bytes());
            }
        }
        self.send(HEADERS, flags | END_HEADERS, stream, &block).await;
    }

    async fn request(&mut self, flags: u8, stream: u32, method: &str, path: &str, fields: &[(&str, &str)]) {
        let mut head =
            vec![(":method", method), (":scheme", "https"), (":authority", "a.test"), (":path", path)];
        head.extend(fields);
        self.send_fields(flags, stream, &head).await;
    }

    /// The next frame's type, stream and payload; `None`: there is none.
    async fn frame(&mut self) -> Option<(u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.0.read_exact(&mut payload).await.ok()?;
        Some((head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
    }

    /// The payload of the next frame of this type and stream.
    async fn wait(&mut self, kind: u8, stream: u32) -> Vec<u8> {
        loop {
            let (got, of, payload) = self.frame().await.expect("a frame");
            if (got, of) == (kind, stream) {
                return payload;
            }
        }
    }
}

/// A blank around a value is malformed in trailers as it is in a head (RFC 9113 §8.1.1, §8.2.1): the stream is
/// reset, the backend doesn't get the request's end, and other streams live on.
#[tokio::test(start_paused = true)]
async fn malformed_trailers_end_their_stream_and_the_request() {
    let scene = Scene::new("");
    let mut client = scene.client(65_535).await;
    for (name, value) in
        [("x-sum", " 1"), ("x-sum", "1 "), ("x-sum", "\t1"), ("x-sum", "1\t"), ("x-sum", " ")]
    {
        for answered in [false, true] {
            let case = format!("{name}: {value:?}, answered: {answered}");
            let mut backend = scene.backend();
            let mut post = request(Method::POST, "/");
            post.headers_mut().insert("trailer", name.parse().unwrap());
            let (response, mut send) = client.send_request(post, false).unwrap();
            send.send_data("a".into(), false).unwrap();
            read_head(&mut backend).await;
            let e = if answered {
                let head = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n";
                backend.write_all(head.as_bytes()).await.unwrap();
                let mut body = response.await.unwrap().into_body();
                send.send_trailers(trailers(name, value)).unwrap();
                body.data().await.unwrap().unwrap_err()
            } else {
                send.send_trailers(trailers(name, value)).unwrap();
                response.await.expect_err(&case)
            };
            assert_eq!(e.reason(), Some(Reason::PROTOCOL_ERROR), "{case}");
            let mut rest = Vec::new();
            backend.read_to_end(&mut rest).await.unwrap();
            assert_eq!(String::from_utf8(rest).unwrap(), "1\r\na\r\n", "{case}");
        }
    }
    let mut backend = scene.backend();
    let (response, _) = client.send_request(request(Method::GET, "/"), true).unwrap();
    answer(&mut backend, OK).await;
    assert_eq!(response.await.unwrap().status(), 200);
}

/// So are fields of one hop (RFC 9113 §8.2.2), and names that are not in lower case don't pass (§8.2).
#[tokio::test(start_paused = true)]
async fn trailers_of_one_hop_end_their_stream_and_the_request() {
    let scene = Scene::new("");
    let mut client = Raw::new(scene.http2().0).await;
    let fields = [
        ("connection", "x-sum"),
        ("keep-alive", "1"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
    ];
    for ((name, value), stream) in fields.into_iter().zip((1..).step_by(2)) {
        let mut backend = scene.backend();
        client.request(0, stream, "POST", "/", &[("trailer", name)]).await;
        client.send(DATA, 0, stream, b"a").await;
        read_head(&mut backend).await;
        client.send_fields(END_STREAM, stream, &[(name, value)]).await;
        assert_eq!(client.wait(RST_STREAM, stream).await, [0, 0, 0, 1], "{name}");
        let mut rest = Vec::new();
        backend.read_to_end(&mut rest).await.unwrap();
        assert_eq!(String::from_utf8(rest).unwrap(), "1\r\na\r\n", "{name}");
    }
    let mut backend = scene.backend();
    client.request(END_STREAM, 101, "GET", "/", &[]).await;
    answer(&mut backend, OK).await;
    assert_eq!(client.wait(DATA, 101).await, b"ok");
}

/// Only DATA frames may come over a tunnel (RFC 9113 §8.5).
#[tokio::test(start_paused = true)]
async fn trailers_end_a_tunnel_with_an_error() {
    let scene = Scene::new("");
    let mut client = Raw::new(scene.http2().0).await;
    let fields = [(":protocol", "websocket"), ("sec-websocket-version", "13")];
    client.request(0, 1, "CONNECT", "/echo", &fields).await;
    client.wait(HEADERS, 1).await;
    client.send_fields(END_STREAM, 1, &[("x-a", "b")]).await;
    assert_eq!(client.wait(RST_STREAM, 1).await, [0, 0, 0, 1]);
}
