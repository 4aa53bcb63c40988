//! Both ends of a real HTTP/2 connection, in memory.

use h2::ext::Protocol;
use h2::{client, server};
use http::{Method, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;

struct Rig {
    near: Tunnel,
    far: Far,
}

/// The client's end, raw.
struct Far {
    send: SendStream<Bytes>,
    recv: RecvStream,
}

async fn rig() -> Rig {
    let (near_io, far_io) = duplex(1 << 16);
    let near = async {
        let mut connection =
            server::Builder::new().enable_connect_protocol().handshake::<_, Bytes>(near_io).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        let send = respond.send_response(Response::new(()), false).unwrap();
        tokio::spawn(async move { while connection.accept().await.is_some() {} });
        Tunnel::new(send, request.into_body())
    };
    let far = async {
        let (mut client, mut connection) = client::handshake(far_io).await.unwrap();
        // The setting has to have arrived before extended CONNECT may be used (RFC 8441 §3).
        std::future::poll_fn(|cx| {
            let _ = Pin::new(&mut connection).poll(cx);
            if client.is_extended_connect_protocol_enabled() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        tokio::spawn(connection);
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = "https://a.test/".parse().unwrap();
        request.extensions_mut().insert(Protocol::from_static("websocket"));
        let (response, send) = client.send_request(request, false).unwrap();
        Far { send, recv: response.await.unwrap().into_body() }
    };
    let (near, far) = tokio::join!(near, far);
    Rig { near, far }
}

#[tokio::test]
async fn bytes_and_orderly_ends_both_ways() {
    let mut rig = rig().await;
    rig.far.send.send_data(Bytes::from_static(b"to the gateway"), true).unwrap();
    let mut text = String::new();
    rig.near.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "to the gateway");
    rig.near.write_all(b"to the client").await.unwrap();
    rig.near.shutdown().await.unwrap();
    rig.near.shutdown().await.unwrap(); // may be said twice
    let mut got = Vec::new();
    while let Some(data) = rig.far.recv.data().await {
        let data = data.unwrap();
        rig.far.recv.flow_control().release_capacity(data.len()).unwrap();
        got.extend_from_slice(&data);
    }
    assert_eq!(got, b"to the client");
}

#[tokio::test]
async fn trailers_are_no_orderly_end() {
    let mut rig = rig().await;
    rig.far.send.send_data(Bytes::from_static(b"x"), false).unwrap();
    rig.far.send.send_trailers(http::HeaderMap::new()).unwrap();
    assert_eq!(rig.near.read_u8().await.unwrap(), b'x');
    assert_eq!(rig.near.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    let end = rig.far.recv.data().await.unwrap().unwrap_err();
    assert_eq!(end.reason(), Some(Reason::PROTOCOL_ERROR));
}

#[tokio::test]
async fn a_drop_is_a_cancel_and_keeps_what_was_flushed() {
    let mut rig = rig().await;
    rig.near.write_all(b"last words").await.unwrap();
    rig.near.flush().await.unwrap();
    drop(rig.near);
    assert_eq!(rig.far.recv.data().await.unwrap().unwrap(), "last words");
    let end = rig.far.recv.data().await.unwrap().unwrap_err();
    assert_eq!(end.reason(), Some(Reason::CANCEL));
}

#[tokio::test]
async fn a_drop_after_an_orderly_end_is_no_cancel() {
    let mut rig = rig().await;
    rig.near.shutdown().await.unwrap();
    drop(rig.near);
    assert_eq!(rig.far.recv.data().await.unwrap().unwrap(), ""); // the frame that ends the stream
    assert!(rig.far.recv.is_end_stream());
    assert!(rig.far.recv.data().await.is_none());
}

#[tokio::test]
async fn a_reset_of_the_clients_is_seen_when_reading_and_when_writing() {
    let mut rig = rig().await;
    rig.far.send.send_reset(Reason::CANCEL);
    let read = rig.near.read_u8().await.unwrap_err();
    assert_eq!(read.kind(), io::ErrorKind::ConnectionReset);
    let write = rig.near.write_all(b"x").await.unwrap_err();
    assert_eq!(write.kind(), io::ErrorKind::ConnectionReset, "{write}");
}

#[tokio::test]
async fn a_client_that_takes_nothing_stalls_the_writer() {
    let mut rig = rig().await;
    let mut written = 0;
    let stalled = async {
        loop {
            written += rig.near.write(&[0; 60_000]).await.unwrap();
        }
    };
    let stall = tokio::time::timeout(std::time::Duration::from_millis(100), stalled);
    assert!(stall.await.is_err());
    assert_eq!(written, 65_535, "the default window and no more");
    // A reset wakes the writer that waits for room.
    let writer = tokio::spawn(async move { rig.near.write_all(b"more").await });
    rig.far.send.send_reset(Reason::CANCEL);
    assert_eq!(writer.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}
