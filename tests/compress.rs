//! Answers that are compressed on their way, over HTTP/1.1 and HTTP/2.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::io::Read;
use std::sync::Arc;

use compression_codecs::core::util::{PartialBuffer, WriteBuffer};
use compression_codecs::{DecodeV2, GzipDecoder, ZstdDecoder};
use http::Method;
use support::backend::Backend;
use support::both::{both, http1};
use support::gateway::{Gateway, Setup, config};
use support::http1::read_head;
use support::http2::Http2;
use support::soon;
use support::tls::Tls;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

fn start(routes: &str) -> Gateway {
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"]);
    std::fs::create_dir(setup.path().join("www")).unwrap();
    std::fs::write(setup.path().join("www/large.css"), text(300_000)).unwrap();
    setup.start(&config("", routes))
}

/// Text that is worth compressing.
fn text(len: usize) -> String {
    (0..).flat_map(|i| format!("line {i}: some words\n").into_bytes()).take(len).map(char::from).collect()
}

fn decoder(coding: &str) -> Box<dyn DecodeV2> {
    match coding {
        "gzip" => Box::new(GzipDecoder::new()),
        "zstd" => Box::new(ZstdDecoder::new()),
        other => panic!("{other}"),
    }
}

/// What can be read of `body` already.
fn decoded(decoder: &mut dyn DecodeV2, body: &[u8]) -> String {
    let mut input = PartialBuffer::new(body);
    let mut text = Vec::new();
    loop {
        let mut room = vec![0; 1 << 16];
        let mut output = WriteBuffer::new_initialized(&mut room);
        let ended = decoder.decode(&mut input, &mut output).unwrap();
        let written = output.written_len();
        text.extend_from_slice(&room[..written]);
        if ended || (input.unwritten().is_empty() && written < room.len()) {
            return String::from_utf8(text).unwrap();
        }
    }
}

#[tokio::test]
async fn files_in_the_coding_that_the_client_prefers() {
    let gateway = start("[[route]]\npath = \"/\"\nfiles = \"www\"\ncompress = true\n");
    let plain = text(300_000);
    for (accepts, coding) in [
        ("gzip, deflate, br, zstd", Some("zstd")),
        ("gzip", Some("gzip")),
        ("zstd;q=0.5, gzip;q=0.6", Some("gzip")),
        ("br", None),
        ("gzip;q=0", None),
        ("", None),
    ] {
        both(&gateway, Method::GET, "/large.css", &[("accept-encoding", accepts)], |answer| {
            assert_eq!(answer.get("content-encoding"), coding, "{accepts}");
            assert_eq!(answer.all("vary"), ["accept-encoding"]);
            assert!(answer.status == 200 && answer.whole);
            let etag = answer.get("etag").unwrap();
            match coding {
                Some(coding) => {
                    assert!(answer.body.len() < plain.len() / 4, "{} bytes", answer.body.len());
                    assert_eq!(decoded(&mut *decoder(coding), &answer.body), plain);
                    assert!(etag.starts_with("W/\""), "{etag}");
                    assert!(answer.get("content-length").is_none() && answer.get("accept-ranges").is_none());
                }
                None => {
                    assert_eq!(answer.text(), plain);
                    assert!(etag.starts_with('"'), "{etag}");
                }
            }
        })
        .await;
    }
    // By another implementation.
    let answer = http1(&gateway, &Method::GET, "/large.css", &[("accept-encoding", "gzip")]).await;
    let mut read = String::new();
    flate2::read::GzDecoder::new(&*answer.body).read_to_string(&mut read).unwrap();
    assert_eq!(read, plain);
    // The copy that a client has is still good, and parts are of the file itself.
    let etag = answer.get("etag").unwrap().to_owned();
    let fields = [("accept-encoding", "gzip"), ("if-none-match", &*etag)];
    both(&gateway, Method::GET, "/large.css", &fields, |answer| assert_eq!(answer.status, 304)).await;
    let fields = [("accept-encoding", "gzip"), ("range", "bytes=0-2047")];
    both(&gateway, Method::GET, "/large.css", &fields, |answer| {
        assert_eq!((answer.status, answer.get("content-encoding")), (206, None));
        assert_eq!(answer.text(), plain[..2048]);
    })
    .await;
}

#[tokio::test]
async fn what_is_never_compressed() {
    let body = text(4000);
    for (fields, len, is_compressed) in [
        ("Content-Type: text/html; charset=utf-8", 4000, true),
        ("Content-Type: APPLICATION/JSON", 4000, true),
        ("Content-Type: text/html", 1023, false),
        ("Content-Type: text/html", 1024, true),
        ("Content-Type: image/png", 4000, false),
        ("X-No: type", 4000, false),
        ("Content-Type: text/html\r\nContent-Encoding: br", 4000, false),
        ("Content-Type: text/html\r\nCache-Control: private, no-transform", 4000, false),
        ("Content-Type: text/html\r\nContent-Range: bytes 0-3999/8000", 4000, false),
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\n{fields}\r\nContent-Length: {len}\r\n\r\n{}", &body[..len]);
        let backend = Backend::saying(answer).await;
        let gateway = start(&format!(
            "[[route]]\npath = \"/\"\nproxy = \"http://{}\"\ncompress = true\n",
            backend.address
        ));
        both(&gateway, Method::GET, "/", &[("accept-encoding", "gzip")], |answer| {
            let coding = answer.get("content-encoding").filter(|coding| *coding != "br");
            assert_eq!(coding, is_compressed.then_some("gzip"), "{fields} {len}");
            if is_compressed {
                assert_eq!(decoded(&mut *decoder("gzip"), &answer.body), body[..len]);
            } else {
                assert_eq!(answer.text(), body[..len]);
            }
        })
        .await;
    }
    // HEAD and 204 have no body.
    let gateway = start(
        "[[route]]\npath = \"/\"\nfiles = \"www\"\ncompress = true\n\
         [[route]]\npath = \"/204\"\nrespond = 204\ncompress = { types = \"text/*\", min_length = \"off\" }\n\
         [[route]]\npath = \"/off\"\nfiles = \"www\"\ncompress = false\n",
    );
    for (method, path) in
        [(Method::HEAD, "/large.css"), (Method::GET, "/204"), (Method::GET, "/off/large.css")]
    {
        both(&gateway, method, path, &[("accept-encoding", "gzip")], |answer| {
            assert!(answer.get("content-encoding").is_none() && answer.whole, "{path}");
        })
        .await;
    }
}

/// A backend that sends an event, and the next one when there is a permit.
async fn events(go_on: Arc<Semaphore>) -> Backend {
    Backend::start(move |mut tcp| {
        let go_on = go_on.clone();
        async move {
            if read_head(&mut tcp).await.is_none() {
                return;
            }
            let head =
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            tcp.write_all(head.as_bytes()).await.unwrap();
            for i in 0..3 {
                let event = format!("data: event {i}\n\n");
                let chunk = format!("{:x}\r\n{event}\r\n", event.len());
                if tcp.write_all(chunk.as_bytes()).await.is_err() {
                    return;
                }
                go_on.acquire().await.unwrap().forget();
            }
            let _ = tcp.write_all(b"0\r\n\r\n").await;
        }
    })
    .await
}

#[tokio::test]
async fn events_arrive_at_once() {
    for coding in ["gzip", "zstd"] {
        let go_on = Arc::new(Semaphore::new(0));
        let backend = events(go_on.clone()).await;
        let gateway = start(&format!(
            "[[route]]\npath = \"/\"\nproxy = \"http://{}\"\ncompress = true\n",
            backend.address
        ));
        let mut io = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
        let request = format!("GET / HTTP/1.1\r\nHost: default.test\r\nAccept-Encoding: {coding}\r\n\r\n");
        io.write_all(request.as_bytes()).await.unwrap();
        let head = read_head(&mut io).await.unwrap();
        assert_eq!(head.get("content-encoding"), Some(coding));
        let mut read = decoder(coding);
        let mut line = Vec::new();
        for i in 0..3 {
            let mut seen = String::new();
            while !seen.contains(&format!("data: event {i}\n\n")) {
                line.clear();
                while !line.ends_with(b"\r\n") {
                    line.push(soon(io.read_u8()).await.unwrap());
                }
                let len = usize::from_str_radix(str::from_utf8(&line).unwrap().trim(), 16).unwrap();
                let mut chunk = vec![0; len + 2];
                soon(io.read_exact(&mut chunk)).await.unwrap();
                seen += &decoded(&mut *read, &chunk[..len]);
            }
            go_on.add_permits(1);
        }
        let tls = Tls::new("default.test", &["h2"]).connect(gateway.address()).await.unwrap();
        let mut client = Http2::connect(tls, "default.test").await;
        let mut request = client.request(Method::GET, "/");
        request.headers_mut().insert("accept-encoding", coding.parse().unwrap());
        let (response, _send) = client.send(request, true).await.unwrap();
        let mut recv = response.into_body();
        let mut read = decoder(coding);
        for i in 0..3 {
            let mut seen = String::new();
            while !seen.contains(&format!("data: event {i}\n\n")) {
                let data = soon(recv.data()).await.unwrap().unwrap();
                recv.flow_control().release_capacity(data.len()).unwrap();
                seen += &decoded(&mut *read, &data);
            }
            go_on.add_permits(1);
        }
        while let Some(data) = soon(recv.data()).await {
            data.unwrap();
        }
    }
}
