//! Clients over HTTP/2 that keep to no rule, in memory.

use std::sync::atomic::Ordering;

use http::header::HeaderName;
use tokio::io::{AsyncWriteExt, DuplexStream, WriteHalf, split};
use tokio::task::JoinHandle;
use upgrade_handler::flood;

use super::*;
use crate::net::limits::ClientLimits;
use crate::net::patience::UNSENT_LEN;
use crate::test_io::{
    ACK, DATA, END_STREAM, GOAWAY, HEADERS, PING, PRIORITY, RST_STREAM, Raw, SETTINGS, Scene, WINDOW_UPDATE,
    answer, read_head, read_rest, soon,
};
use crate::upstream::h1::connection::READ_LEN;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn request(method: Method, path: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("https://a.test{path}")).body(()).unwrap()
}

fn trailers(name: &str, value: &str) -> HeaderMap {
    HeaderMap::from_iter([(HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap())])
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
                let mut body = soon(response).await.unwrap().into_body();
                send.send_trailers(trailers(name, value)).unwrap();
                soon(body.data()).await.unwrap().unwrap_err()
            } else {
                send.send_trailers(trailers(name, value)).unwrap();
                soon(response).await.expect_err(&case)
            };
            assert_eq!(e.reason(), Some(Reason::PROTOCOL_ERROR), "{case}");
            assert_eq!(String::from_utf8(read_rest(&mut backend).await).unwrap(), "1\r\na\r\n", "{case}");
        }
    }
    let mut backend = scene.backend();
    let (response, _) = client.send_request(request(Method::GET, "/"), true).unwrap();
    answer(&mut backend, OK).await;
    assert_eq!(soon(response).await.unwrap().status(), 200);
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
        assert_eq!(String::from_utf8(read_rest(&mut backend).await).unwrap(), "1\r\na\r\n", "{name}");
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

/// An endless answer; says when the gateway closed its connection.
fn pour(mut backend: DuplexStream) -> JoinHandle<Instant> {
    tokio::spawn(async move {
        read_head(&mut backend).await;
        let head = "HTTP/1.1 200 OK\r\n\r\n";
        backend.write_all(head.as_bytes()).await.unwrap();
        while backend.write_all(&[b'a'; 1000]).await.is_ok() {}
        Instant::now()
    })
}

/// A client that gives its stream no window gets nothing, and after a while not even the backend's attention;
/// until then it may go on.
#[tokio::test(start_paused = true)]
async fn a_stream_that_takes_nothing_is_given_up_and_its_backend_freed() {
    let scene = Scene::new("");
    let mut client = scene.client(100).await;
    let backend = pour(scene.backend());
    let (response, _) = client.send_request(request(Method::GET, "/"), true).unwrap();
    let mut body = soon(response).await.unwrap().into_body();
    for _ in 0..3 {
        tokio::time::sleep(STALL_MAX - Duration::from_secs(1)).await;
        let mut room = 100;
        while room > 0 {
            let data = soon(body.data()).await.unwrap().unwrap();
            room -= data.len();
            body.flow_control().release_capacity(data.len()).unwrap();
        }
    }
    let mut end = soon(body.data()).await;
    let since = Instant::now();
    while let Some(Ok(_)) = end {
        end = soon(body.data()).await; // the window is full, and stays so
    }
    assert_eq!(end.unwrap().unwrap_err().reason(), Some(Reason::CANCEL));
    assert_eq!(since.elapsed().as_secs(), STALL_MAX.as_secs());
    assert_eq!(soon(backend).await.unwrap().duration_since(since).as_secs(), STALL_MAX.as_secs());
    let mut backend = scene.backend();
    let (response, _) = client.send_request(request(Method::GET, "/"), true).unwrap();
    answer(&mut backend, OK).await;
    assert_eq!(soon(response).await.unwrap().status(), 200);
}

/// So is a connection that takes nothing: what is queued for it is not for ever, nor more than so much.
#[tokio::test(start_paused = true)]
async fn a_connection_that_takes_nothing_is_given_up() {
    let scene = Scene::new("");
    let (io, serving) = scene.http2();
    let mut client = Raw::new(io).await;
    // SETTINGS_INITIAL_WINDOW_SIZE, and the connection's.
    client.send(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]).await;
    client.send(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0, 0]).await;
    let backend = pour(scene.backend());
    client.request(END_STREAM, 1, "GET", "/", &[]).await;
    let since = Instant::now();
    tokio::time::sleep(STALL_MAX - Duration::from_secs(1)).await;
    let held = net_io::memory::held();
    // Beside what is queued: what hasn't left HTTP, and what was read from the backend last.
    let beside = UNSENT_LEN..=UNSENT_LEN + READ_LEN;
    let least = beside.start() + SEND_BUFFER - CHUNK_LEN;
    assert!((least..=beside.end() + SEND_BUFFER + CHUNK_LEN).contains(&held), "{held}");
    assert!(!serving.is_finished());
    assert_eq!(soon(backend).await.unwrap().duration_since(since).as_secs(), STALL_MAX.as_secs());
    soon(serving).await.unwrap();
    assert_eq!(net_io::memory::held(), 0);
}

/// Not even a short answer is waited with for ever.
#[tokio::test(start_paused = true)]
async fn a_connection_that_does_not_take_a_short_answer_is_given_up() {
    let scene = Scene::new("");
    let (io, serving) = scene.narrow_http2(64);
    let mut client = Raw::new(io).await;
    let mut backend = scene.backend();
    client.request(END_STREAM, 1, "GET", "/", &[]).await;
    let since = Instant::now();
    answer(&mut backend, OK).await;
    soon(serving).await.unwrap();
    assert_eq!(since.elapsed().as_secs(), (STALL_MAX + linger::LINGER_SILENCE).as_secs());
}

/// The settings that the gateway sends.
async fn settings(client: &mut Raw) -> Vec<(u16, u32)> {
    let payload = client.wait(SETTINGS, 0).await;
    let pair = |pair: &[u8]| {
        let id = u16::from_be_bytes([pair[0], pair[1]]);
        (id, u32::from_be_bytes([pair[2], pair[3], pair[4], pair[5]]))
    };
    payload.chunks(6).map(pair).collect()
}

#[tokio::test(start_paused = true)]
async fn streams_and_heads_beyond_the_limits_are_refused() {
    let scene = Scene::new("");
    let mut client = Raw::new(scene.http2().0).await;
    let told = settings(&mut client).await;
    for setting in [(3, STREAMS_MAX), (4, STREAM_WINDOW), (6, 64 * 1024), (8, 1)] {
        assert!(told.contains(&setting), "{setting:?} in {told:?}");
    }
    let socket = [(":protocol", "websocket"), ("sec-websocket-version", "13")];
    for stream in (1..).step_by(2).take(STREAMS_MAX as usize) {
        client.request(0, stream, "CONNECT", "/echo", &socket).await;
        client.wait(HEADERS, stream).await;
    }
    client.request(0, 1001, "CONNECT", "/echo", &socket).await;
    assert_eq!(client.wait(RST_STREAM, 1001).await, [0, 0, 0, 7], "REFUSED_STREAM");
    client.send(RST_STREAM, 0, 1, &[0, 0, 0, 8]).await;
    client.request(0, 1003, "CONNECT", "/echo", &socket).await;
    client.wait(HEADERS, 1003).await;
    // As many fields as make 64 KiB by RFC 9113 §6.5.2, over two frames.
    for (fields, status) in [(500, 200), (600, 431)] {
        let mut client = scene.client(65_535).await;
        let mut get = request(Method::GET, "/");
        for i in 0..fields {
            let name = HeaderName::try_from(format!("x-{i:03}")).unwrap();
            get.headers_mut().insert(name, "a".repeat(80).parse().unwrap());
        }
        let mut backend = scene.backend();
        let (response, _) = client.send_request(get, true).unwrap();
        if status == 200 {
            answer(&mut backend, OK).await;
        }
        assert_eq!(soon(response).await.unwrap().status(), status);
    }
}

/// A client that only writes, and what it received meanwhile.
async fn deaf(io: DuplexStream) -> (Raw<WriteHalf<DuplexStream>>, JoinHandle<Vec<u8>>) {
    let mut client = Raw::new(io).await;
    client.wait(SETTINGS, 0).await;
    client.send(SETTINGS, ACK, 0, &[]).await; // until then the windows are smaller
    let (mut read, write) = split(client.0);
    let reading = tokio::spawn(async move { read_rest(&mut read).await });
    (Raw(write), reading)
}

/// Half the streams that the window allows may be full of small frames which are not read (see
/// [`SMALL_FRAMES_BUDGET`]), and no more.
#[tokio::test(start_paused = true)]
async fn small_frames_that_are_not_taken_have_a_bound() {
    const FRAMES: usize = SMALL_FRAMES_BUDGET / 255;
    let scene = Scene::new("");
    let (io, serving) = scene.http2();
    let (mut client, goes) = deaf(io).await;
    let mut backends = Vec::new();
    let mut sent = 0;
    'all: for stream in (1..).step_by(2) {
        backends.push(scene.backend());
        client.request(0, stream, "POST", "/", &[]).await;
        for _ in 0..STREAM_WINDOW / 2 {
            if goes.is_finished() {
                break 'all;
            }
            client.send(DATA, 0, stream, b"a").await;
            sent += 1;
        }
    }
    assert!((FRAMES..FRAMES + 30_000).contains(&sent), "{sent}");
    drop(client);
    let all = goes.await.unwrap();
    assert!(all.ends_with(b"\0\0\0\x0btoo_many_data_frames"), "ENHANCE_YOUR_CALM");
    soon(serving).await.unwrap();
}

/// Each wait for a client that says nothing has an end, which it is told (GOAWAY) if it has spoken at all.
#[tokio::test(start_paused = true)]
async fn a_silent_connection_ends() {
    let ClientLimits { header_timeout, keep_alive_timeout, .. } = ClientLimits::DEFAULT;
    let scene = Scene::new("");
    let since = Instant::now();
    let (mut client, _serving) = scene.http2();
    read_rest(&mut client).await;
    assert_eq!(since.elapsed().as_secs(), header_timeout.as_secs(), "no preface");

    let mut client = Raw::new(scene.http2().0).await;
    let since = Instant::now();
    client.wait(GOAWAY, 0).await;
    assert_eq!(since.elapsed().as_secs(), header_timeout.as_secs(), "no request");
    while client.frame().await.is_some() {}
    assert_eq!(since.elapsed().as_secs(), (header_timeout + END_WAIT).as_secs(), "no word on the end");

    let mut client = Raw::new(scene.http2().0).await;
    let mut backend = scene.backend();
    client.request(END_STREAM, 1, "GET", "/", &[]).await;
    answer(&mut backend, OK).await;
    client.wait(DATA, 1).await;
    let since = Instant::now();
    client.wait(GOAWAY, 0).await;
    assert_eq!(since.elapsed().as_secs(), keep_alive_timeout.as_secs(), "no more requests");
    while client.frame().await.is_some() {}
    assert_eq!(since.elapsed().as_secs(), (keep_alive_timeout + END_WAIT).as_secs());
}

/// A drain waits for streams in flight, and for the client to have seen it.
#[tokio::test(start_paused = true)]
async fn a_drained_connection_ends_behind_its_streams() {
    let scene = Scene::new("");
    let (io, serving) = scene.http2();
    let mut client = Raw::new(io).await;
    let mut backend = scene.backend();
    client.request(END_STREAM, 1, "GET", "/", &[]).await;
    read_head(&mut backend).await;
    scene.worker.draining.cancel();
    client.wait(GOAWAY, 0).await;
    tokio::time::sleep(10 * END_WAIT).await;
    assert!(!serving.is_finished());
    backend.write_all(OK.as_bytes()).await.unwrap();
    assert_eq!(client.wait(DATA, 1).await, b"ok");
    let since = Instant::now();
    soon(serving).await.unwrap();
    assert_eq!(since.elapsed().as_secs(), END_WAIT.as_secs());

    let scene = Scene::new("");
    let (io, serving) = scene.http2();
    let mut idle = Raw::new(io).await;
    idle.wait(SETTINGS, 0).await;
    scene.worker.draining.cancel();
    idle.wait(GOAWAY, 0).await;
    let since = Instant::now();
    soon(serving).await.unwrap();
    assert_eq!(since.elapsed().as_secs(), END_WAIT.as_secs(), "nothing was asked");
}

/// A body that is not used is read after its answer, but not for ever.
#[tokio::test(start_paused = true)]
async fn an_unwanted_body_is_read_for_a_while() {
    let scene = Scene::new("");
    let mut client = Raw::new(scene.http2().0).await;
    client.request(0, 1, "POST", "/echo", &[]).await;
    client.wait(DATA, 1).await;
    let since = Instant::now();
    for _ in 0..3 {
        tokio::time::sleep(linger::LINGER_SILENCE - Duration::from_secs(1)).await;
        client.send(DATA, 0, 1, b"a").await;
    }
    assert_eq!(client.wait(RST_STREAM, 1).await, [0, 0, 0, 0], "NO_ERROR");
    let waited = 4 * linger::LINGER_SILENCE - 3 * Duration::from_secs(1);
    assert_eq!(since.elapsed().as_secs(), waited.as_secs());
}

/// A client that sends nothing but `frame` until it hears the end, for an hour at most; how many it sent.
async fn flood(frame: (u8, u8, u32, &[u8])) -> u64 {
    let scene = Scene::new("");
    let (mut client, goes) = deaf(scene.http2().0).await;
    let (kind, flags, stream, payload) = frame;
    let mut sent = 0;
    while !goes.is_finished() {
        client.send(kind, flags, stream, payload).await;
        sent += 1;
        assert!(sent < 10 * flood::BURST, "{frame:?} is not ended");
    }
    drop(client);
    let all = goes.await.unwrap();
    let end = &all[all.len() - 17..];
    assert_eq!((end[3], &end[13..]), (GOAWAY, &[0, 0, 0, 11][..]), "{frame:?}");
    sent
}

/// Frames that ask for nothing and carry nothing are taken for a flood when there are too many (RFC 9113 §10.5).
#[tokio::test(start_paused = true)]
async fn floods_of_control_frames_are_ended() {
    for frame in [
        (PING, 0, 0, &[0; 8][..]),
        (PING, ACK, 0, &[0; 8]),
        (SETTINGS, 0, 0, &[]),
        (SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]),
        (WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
        (PRIORITY, 0, 1, &[0, 0, 0, 3, 0]),
        (0xfa, 0, 0, &[0; 8]),
    ] {
        // What was on its way counts too.
        let sent = flood(frame).await;
        assert!((flood::BURST..flood::BURST + 20_000).contains(&sent), "{frame:?}: {sent}");
    }
}

/// The same from a client that reads what it is answered.
#[tokio::test(start_paused = true)]
async fn a_client_that_pings_without_end_is_sent_away() {
    let scene = Scene::new("");
    let mut client = Raw::new(scene.http2().0).await;
    for _ in 0..2 * flood::BURST {
        client.send(PING, 0, 0, &[0; 8]).await;
        let Some((kind, ..)) = client.frame().await else { panic!("no GOAWAY") };
        if kind == GOAWAY {
            return;
        }
    }
    panic!("it goes on");
}

/// Small messages are no flood, nor is the WINDOW_UPDATE for each.
#[tokio::test(start_paused = true)]
async fn small_messages_are_no_flood() {
    let scene = Scene::new("");
    let mut client = Raw::new(scene.http2().0).await;
    let fields = [(":protocol", "websocket"), ("sec-websocket-version", "13")];
    client.request(0, 1, "CONNECT", "/echo", &fields).await;
    client.wait(HEADERS, 1).await;
    client.send(SETTINGS, ACK, 0, &[]).await;
    // A message of a byte, a byte a frame.
    for _ in 0..flood::BURST / 3 {
        for byte in [0x81, 0x81, 0, 0, 0, 0, b'a'] {
            client.send(DATA, 0, 1, &[byte]).await;
        }
        assert_eq!(client.wait(DATA, 1).await, [0x81, 1, b'a']);
        client.send(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 3]).await;
        client.send(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 3]).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A client that resets a stream in the middle of its answer frees the backend at once.
#[tokio::test(start_paused = true)]
async fn a_reset_in_the_middle_of_an_answer_frees_the_backend() {
    let scene = Scene::new("");
    let mut client = Raw::new(scene.http2().0).await;
    let mut backend = scene.backend();
    client.request(END_STREAM, 1, "GET", "/", &[]).await;
    answer(&mut backend, "HTTP/1.1 200 OK\r\n\r\na").await;
    client.wait(DATA, 1).await;
    let since = Instant::now();
    client.send(RST_STREAM, 0, 1, &[0, 0, 0, 8]).await;
    assert!(read_rest(&mut backend).await.is_empty());
    assert_eq!(since.elapsed().as_secs(), 0);
}

/// A task whose wake-up was lost is polled again: one that waits for an answer, and one that uploads behind it.
#[tokio::test(start_paused = true)]
async fn a_request_whose_wake_up_is_lost_goes_on() {
    let scene = Scene::new("");
    let mut client = Raw::new(scene.http2().0).await;
    let (mut backend, loses) = scene.lossy_backend();
    client.request(END_STREAM, 1, "GET", "/", &[]).await;
    answer(&mut backend, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok").await;
    assert_eq!(client.wait(DATA, 1).await, b"ok");
    loses.store(true, Ordering::Relaxed);
    backend.write_all(b"a").await.unwrap(); // what it is woken for is not there
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(!loses.load(Ordering::Relaxed));
    backend.write_all(b"b").await.unwrap();
    let since = Instant::now();
    assert_eq!(client.wait(DATA, 1).await, b"ab");
    assert!(since.elapsed() < Duration::from_secs(25), "{:?}", since.elapsed());

    let (mut backend, loses) = scene.lossy_backend();
    client.request(0, 3, "POST", "/", &[]).await;
    answer(&mut backend, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok").await;
    assert_eq!(client.wait(DATA, 3).await, b"ok");
    loses.store(true, Ordering::Relaxed);
    client.send(DATA, END_STREAM, 3, b"body").await;
    let since = Instant::now();
    assert_eq!(read_head(&mut backend).await, "4\r\nbody\r\n0\r\n\r\n");
    assert!(since.elapsed() < Duration::from_secs(25), "{:?}", since.elapsed());
}

#[test]
fn frames_fill_records_unless_there_would_be_more_of_them() {
    for (len, frames) in [
        (1, vec![1]),
        (RECORD_LEN, vec![RECORD_LEN]),
        (CHUNK_LEN, vec![CHUNK_LEN]),
        (4 * RECORD_LEN, vec![RECORD_LEN; 4]),
        (4 * CHUNK_LEN, vec![CHUNK_LEN; 4]),
        (2 * RECORD_LEN + 9, vec![CHUNK_LEN, CHUNK_LEN - 9]),
        (20_000, vec![RECORD_LEN, 20_000 - RECORD_LEN]),
    ] {
        let mut left = len;
        let mut sent = Vec::new();
        while left > 0 {
            let frame = frame_len(left).min(left);
            sent.push(frame);
            left -= frame;
        }
        assert_eq!(sent, frames, "{len}");
    }
}
