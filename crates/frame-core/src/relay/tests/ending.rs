//! Endings take no longer than they must, lose nothing, and are what they look like. And frames of the
//! gateway in unusual places.

use super::*;

fn order(mode: EndMode) -> Order {
    Order { code: 1001, mode }
}

#[tokio::test(start_paused = true)]
async fn after_both_closes_nothing_is_waited_for_but_the_peers_ends() {
    let mut rig = rig(policy()).await;
    let before = Instant::now();
    rig.client.send(&masked(0x88, &close(1000))).await;
    assert_eq!(rig.backend.receive_close().await.code, Some(1000));
    rig.backend.send(&frame(0x88, &close(1000))).await;
    assert_eq!(rig.client.receive_close().await.code, Some(1000));
    assert_eq!(rig.client.receive().await, None);
    drop((rig.client, rig.backend));
    rig.relay.await.unwrap();
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_lost_peer_is_passed_on_at_once() {
    let before = Instant::now();
    let Rig { client, mut backend, relay, .. } = rig(policy()).await;
    drop(client);
    assert_eq!(backend.receive().await, None);
    drop(backend);
    relay.await.unwrap();
    let Rig { mut client, backend, relay, .. } = rig(policy()).await;
    drop(backend);
    assert_eq!(client.receive_close().await.code, Some(1011));
    client.send(&masked(0x88, &close(1011))).await;
    assert_eq!(client.receive().await, None);
    drop(client);
    relay.await.unwrap();
    // Inside a frame there is nothing to be said.
    let Rig { client, mut backend, relay, .. } = rig(policy()).await;
    backend.send(&frame(0x81, b"cut off")[..5]).await;
    drop(backend);
    assert_eq!(relay.await.unwrap().client, Exit::Cut);
    drop(client);
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_violators_own_close_is_not_waited_for() {
    let mut rig = rig(policy()).await;
    let before = Instant::now();
    rig.backend.send(&masked(0x81, b"bad")).await;
    assert_eq!(rig.client.receive_close().await.code, Some(1002));
    rig.client.send(&masked(0x88, &close(1002))).await;
    assert_eq!(rig.backend.receive_close().await.code, Some(1002));
    assert_eq!(rig.client.receive().await, None);
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_violator_that_can_not_get_a_close_is_cut_when_the_others_time_is_over() {
    let mut rig = rig(policy()).await;
    let before = Instant::now();
    rig.backend.send(&frame(0x82, b"half")[..3]).await;
    rig.client.io.read_exact(&mut [0; 3]).await.unwrap();
    rig.client.send(&[0xFF, 0x80]).await;
    drop(rig.client);
    assert_eq!(rig.backend.receive_close().await.code, Some(1002));
    let outcome = rig.relay.await.unwrap();
    assert_eq!((outcome.client, before.elapsed()), (Exit::Cut, CLOSE_WAIT + CLOSE_WAIT));
}

#[tokio::test(start_paused = true)]
async fn the_last_words_before_a_close_reach_a_violator() {
    let mut rig = rig(policy()).await;
    rig.client.send(&[0xFF, 0x80]).await;
    assert_eq!(rig.backend.receive_close().await.code, Some(1002));
    rig.backend.send(&[frame(0x81, b"still"), frame(0x88, &close(1002)), vec![0xFF; 9]].concat()).await;
    assert_eq!(rig.client.receive().await, Some(received(0x81, b"still")));
    assert_eq!(rig.client.receive_close().await.code, Some(1002));
    assert_eq!(rig.client.receive().await, None);
    drop((rig.client, rig.backend));
    assert_eq!(rig.relay.await.unwrap().from_backend.messages, 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_deaf_when_the_backend_has_ended_is_not_waited_for() {
    let mut rig = rig_over(policy(), 1 << 20, Deaf, |near| near).await;
    let before = Instant::now();
    rig.backend.send(&[frame(0x81, b"last"), frame(0x88, &close(1000))].concat()).await;
    drop(rig.backend);
    rig.relay.await.unwrap();
    assert_eq!(before.elapsed(), CLOSE_WAIT, "for its end, and for nothing before");
    drop(rig.client);
}

#[tokio::test(start_paused = true)]
async fn what_a_client_sent_before_it_vanished_still_goes_on() {
    for kind in [io::ErrorKind::UnexpectedEof, io::ErrorKind::TimedOut] {
        let Rig { mut client, mut backend, relay, .. } =
            rig_over(policy(), 64, |near| Breaks::new(near, kind), |near| near).await;
        let before = Instant::now();
        let wire = masked(0x82, &[7; 500]);
        let received = tokio::spawn(async move {
            tokio::time::sleep(SECOND).await;
            backend.receive_rest().await
        });
        client.send(&wire).await;
        drop(client);
        assert!(received.await.unwrap() == wire, "{kind}");
        let outcome = relay.await.unwrap();
        assert_eq!((outcome.client, before.elapsed()), (Exit::Cut, SECOND), "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_resets_before_the_answer_to_its_close_resets_the_backend() {
    let mut rig = rig_over(policy(), 1024, resets, |near| near).await;
    rig.client.send(&masked(0x88, &close(1000))).await;
    assert_eq!(rig.backend.receive_close().await.code, Some(1000));
    drop(rig.client);
    let outcome = rig.relay.await.unwrap();
    assert_eq!((outcome.client, outcome.backend), (Exit::Cut, Exit::Reset));
}

#[tokio::test(start_paused = true)]
async fn a_reset_of_the_client_after_both_closes_is_not_passed_on() {
    let mut rig = rig_over(policy(), 64, resets, |near| near).await;
    rig.client.send(&masked(0x88, &close(1000))).await;
    assert_eq!(rig.backend.receive_close().await.code, Some(1000));
    rig.backend.send(&frame(0x82, &[1; 40])).await;
    tokio::time::sleep(SECOND).await;
    // The last of it waits for room.
    rig.backend.send(&[frame(0x82, &[2; 50]), frame(0x88, &close(1000))].concat()).await;
    tokio::time::sleep(SECOND).await;
    drop(rig.client);
    drop(rig.backend);
    assert_eq!(rig.relay.await.unwrap().backend, Exit::Orderly);
}

#[tokio::test(start_paused = true)]
async fn a_message_in_flight_may_take_longer_than_a_close() {
    let mut rig = rig(policy()).await;
    rig.backend.send(&frame(0x01, b"begun")).await;
    assert_eq!(rig.client.receive().await, Some(received(0x01, b"begun")));
    rig.handle.end(order(EndMode::AfterMessages { within: 30 * SECOND }));
    assert_eq!(rig.backend.receive_close().await.code, Some(1001));
    tokio::time::sleep(5 * CLOSE_WAIT).await;
    rig.backend.send(&frame(0x80, b"done")).await;
    assert_eq!(rig.client.receive().await, Some(received(0x80, b"done")));
    assert_eq!(rig.client.receive_close().await.code, Some(1001));
}

/// The rest of the message that the order waits for can not come any more.
#[tokio::test(start_paused = true)]
async fn a_backend_that_ends_inside_a_message_ends_the_wait_of_an_order() {
    let mut rig = rig(policy()).await;
    rig.backend.send(&frame(0x01, b"begun")).await;
    assert_eq!(rig.client.receive().await, Some(received(0x01, b"begun")));
    rig.handle.end(order(EndMode::AfterMessages { within: 30 * SECOND }));
    assert_eq!(rig.backend.receive_close().await.code, Some(1001));
    let before = Instant::now();
    drop(rig.backend);
    assert_eq!((rig.client.receive_close().await.code, before.elapsed()), (Some(1001), Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_no_whole_frames_is_cut_too() {
    let mut rig = rig_over(policy(), 64, |near| near, |near| near).await;
    rig.backend.send(&frame(0x82, &[1; 60])).await;
    rig.backend.send(&frame(0x82, &[2; 60])).await;
    tokio::time::sleep(SECOND).await;
    rig.handle.end(order(EndMode::Now));
    assert_eq!(rig.relay.await.unwrap().client, Exit::Cut);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_answers_no_close_is_left_when_its_time_is_over() {
    let mut rig = rig(policy()).await;
    let before = Instant::now();
    rig.handle.end(order(EndMode::Now));
    assert_eq!(rig.client.receive_close().await.code, Some(1001));
    assert_eq!(rig.backend.receive_close().await.code, Some(1001));
    rig.client.send(&masked(0x88, &close(1001))).await;
    assert_eq!(rig.backend.receive().await, None);
    assert_eq!(before.elapsed(), END_NOW_WAIT.0);
}

#[tokio::test(start_paused = true)]
async fn a_ping_that_has_no_place_yet_gives_way_to_a_close() {
    let mut rig = rig(pinging()).await;
    let wire = frame(0x82, b"a long frame");
    rig.backend.send(&wire[..6]).await;
    tokio::time::sleep(31 * SECOND).await;
    rig.handle.end(order(EndMode::AfterMessages { within: 30 * SECOND }));
    rig.backend.send(&wire[6..]).await;
    assert_eq!(rig.client.receive().await, Some(received(0x82, b"a long frame")));
    assert_eq!(rig.client.receive_close().await.code, Some(1001));
}

#[tokio::test(start_paused = true)]
async fn a_ping_that_is_half_written_is_finished_before_a_close() {
    let mut rig = rig_over(pinging(), 4, |near| near, |near| near).await;
    tokio::time::sleep(31 * SECOND).await;
    rig.handle.end(order(EndMode::Now));
    tokio::task::yield_now().await;
    let ping = rig.client.receive().await.unwrap();
    assert_eq!((ping.b0, ping.payload.len()), (0x89, 8));
    assert_eq!(rig.client.receive_close().await.code, Some(1001));
}

#[tokio::test(start_paused = true)]
async fn what_comes_behind_a_pong_that_is_taken_out_goes_on_at_once() {
    let mut rig = rig(pinging()).await;
    let ping = rig.client.receive().await.unwrap();
    rig.client.send(&[masked(0x8A, &ping.payload), masked(0x81, b"behind")].concat()).await;
    let before = Instant::now();
    assert_eq!(rig.backend.receive().await, Some(received(0x81, b"behind")));
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_ping_of_the_clients_own_does_not_stand_for_the_gateways() {
    let mut rig = rig(pinging()).await;
    let before = Instant::now();
    rig.client.send(&masked(0x89, b"mine")).await;
    assert_eq!(rig.backend.receive().await, Some(received(0x89, b"mine")));
    assert_eq!(rig.client.receive().await.unwrap().b0, 0x89);
    assert_eq!(before.elapsed(), 30 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_holds_no_buffer() {
    let before = net_io::memory::held();
    let mut rig = rig(policy()).await;
    rig.client.send(&[&masked(0x81, b"whole")[..], &[0x81]].concat()).await;
    assert_eq!(rig.backend.receive().await, Some(received(0x81, b"whole")));
    rig.backend.send(&frame(0x81, b"answer")).await;
    assert_eq!(rig.client.receive().await, Some(received(0x81, b"answer")));
    tokio::time::sleep(SECOND).await;
    assert_eq!(net_io::memory::held(), before);
}

/// The rest of the client's frame goes nowhere, so that nothing can follow what the backend has of it.
#[tokio::test(start_paused = true)]
async fn a_backend_that_ends_while_it_receives_a_frame_gets_no_close_inside_it() {
    for order_first in [false, true] {
        let mut rig = rig(policy()).await;
        let wire = masked(0x82, b"half of it is relayed");
        rig.client.send(&wire[..9]).await;
        rig.backend.io.read_exact(&mut [0; 9]).await.unwrap();
        if order_first {
            rig.handle.end(order(EndMode::AfterMessages { within: 30 * SECOND }));
            tokio::task::yield_now().await;
        }
        rig.backend.io.shutdown().await.unwrap(); // it still reads
        tokio::time::sleep(SECOND / 10).await;
        assert_eq!(rig.client.receive_close().await.code, Some(if order_first { 1001 } else { 1011 }));
        rig.client.send(&wire[9..]).await;
        rig.handle.end(order(EndMode::Now));
        tokio::time::sleep(SECOND / 2).await;
        rig.client.send(&masked(0x88, &close(1011))).await;
        assert_eq!(rig.backend.receive_rest().await, b"", "order first: {order_first}");
        rig.relay.await.unwrap();
    }
}
