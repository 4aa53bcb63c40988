//! Frames that are made once, and endpoints that are polled.

use bytes::Bytes;

use super::*;

fn text(payload: &'static str) -> SharedFrame {
    SharedFrame::message(MessageKind::Text, Bytes::from_static(payload.as_bytes()))
}

fn queue(endpoint: &mut Endpoint<DuplexStream>, frame: &SharedFrame) {
    assert!(endpoint.has_room());
    endpoint.queue_frame(frame);
}

async fn settle(endpoint: &mut Endpoint<DuplexStream>) {
    poll_fn(|cx| {
        assert!(endpoint.poll_unread(cx).is_pending());
        Poll::Ready(())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn one_frame_goes_to_many() {
    let long = Bytes::from(vec![7; COPY_MAX + 1]);
    let frames = [
        text("one"),
        SharedFrame::fragment(Some(MessageKind::Text), false, Bytes::from_static(b"be")),
        SharedFrame::fragment(None, true, Bytes::from_static(b"gun")),
        SharedFrame::ping(Bytes::from(vec![1; 200])),
        SharedFrame::message(MessageKind::Binary, long.clone()),
    ];
    let wire = [
        frame(0x81, b"one"),
        frame(0x01, b"be"),
        frame(0x80, b"gun"),
        frame(0x89, &[1; 125]),
        frame(0x82, &long),
    ]
    .concat();
    assert_eq!(frames.iter().map(SharedFrame::wire_len).sum::<usize>(), wire.len());
    for _ in 0..2 {
        let (mut client, near) = duplex(1 << 16);
        let mut endpoint = Endpoint::new(near, policy(), SessionHandle::new());
        for frame in &frames {
            queue(&mut endpoint, frame);
        }
        assert!(!endpoint.has_room(), "a long one has to leave first");
        settle(&mut endpoint).await;
        assert!(endpoint.has_room());
        let mut seen = vec![0; wire.len()];
        client.read_exact(&mut seen).await.unwrap();
        assert_eq!(seen, wire);
        let ended = tokio::spawn(endpoint.end());
        drop(client);
        let sent = ended.await.unwrap().from_backend;
        assert_eq!((sent.messages, sent.payload_bytes), (3, 3 + 5 + long.len() as u64));
    }
}

/// What stands behind a long payload that is under way stays behind it.
#[tokio::test(start_paused = true)]
async fn a_frame_behind_a_long_one_keeps_its_place() {
    let (mut client, near) = duplex(100);
    let mut endpoint = Endpoint::new(near, policy(), SessionHandle::new());
    let long = vec![7; COPY_MAX + 1];
    endpoint.queue_frame(&SharedFrame::message(MessageKind::Binary, long.clone().into()));
    endpoint.queue_frame(&SharedFrame::message(MessageKind::Binary, long.clone().into()));
    endpoint.queue_frame(&text("last"));
    let wire = [frame(0x82, &long), frame(0x82, &long), frame(0x81, b"last")].concat();
    let mut seen = vec![0; wire.len()];
    let read = tokio::spawn(async move { client.read_exact(&mut seen).await.map(|_| seen) });
    let over = timeout(SECOND, poll_fn(|cx| endpoint.poll_unread(cx))).await;
    assert!(over.is_err(), "all has left, and the session goes on");
    assert_eq!(read.await.unwrap().unwrap(), wire);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_not_read_is_not_pinged_and_its_message_stays_where_it_is() {
    let (mut client, near) = duplex(1024);
    let policy = Policy { ping_interval: Some(SECOND), pong_timeout: SECOND, ..policy() };
    let mut endpoint = Endpoint::new(near, policy, SessionHandle::new());
    client.write_all(&masked(0x81, b"later")).await.unwrap();
    assert!(timeout(10 * SECOND, poll_fn(|cx| endpoint.poll_unread(cx))).await.is_err());
    let message = endpoint.recv().await.unwrap();
    assert_eq!(message.payload, "later");
    let mut byte = [0];
    assert!(timeout(Duration::ZERO, client.read(&mut byte)).await.is_err(), "no ping was sent");
}

#[tokio::test(start_paused = true)]
async fn an_order_waits_for_what_is_worked_on_outside() {
    let (_client, near) = duplex(1024);
    let handle = SessionHandle::new();
    let mut endpoint = Endpoint::new(near, policy(), handle.clone());
    endpoint.set_waiting_outside(1, 0);
    handle.end(Order { code: 1001, mode: EndMode::AfterMessages { within: 5 * SECOND } });
    assert!(timeout(4 * SECOND, poll_fn(|cx| endpoint.poll_unread(cx))).await.is_err());
    assert!(!endpoint.is_over());
    endpoint.set_waiting_outside(0, 0);
    assert_eq!(timeout(Duration::ZERO, endpoint.recv()).await, Ok(None));
    assert!(endpoint.is_over());
}
