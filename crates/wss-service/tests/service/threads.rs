//! Connections on threads of their own.

use std::collections::HashSet;

use super::*;

/// A service that says on which thread its handler runs.
fn on_threads(count: usize) -> Service {
    bind().threads(count).on_message(async |session: Session, _: Message| {
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        session.send(thread).await
    })
}

async fn thread_of(client: &mut WebSocket) -> String {
    client.text("where?").await;
    String::from_utf8(client.receive().await.unwrap().payload).unwrap()
}

#[tokio::test]
async fn connections_are_dealt_to_the_threads_in_turn() {
    let running = start(on_threads(2));
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(running.open("/").await);
    }
    let mut threads = HashSet::new();
    for client in &mut clients {
        let thread = thread_of(client).await;
        assert_eq!(thread_of(client).await, thread, "a session stays where it is");
        threads.insert(thread);
    }
    assert_eq!(threads, HashSet::from(["wss-1".to_owned(), "wss-2".to_owned()]));
}

#[tokio::test]
async fn a_broadcast_and_a_drain_reach_all_threads() {
    let (noting, mut closes) = closes();
    let settings = Settings { drain_window: Duration::ZERO, ..Settings::default() };
    let running = start(on_threads(2).settings(settings).on_close(noting));
    let mut clients = [running.open("/").await, running.open("/").await];
    until(async || running.hub.count(To::All) == 2).await;
    let sent = running.hub.send_to(To::All, "to all").await;
    assert_eq!((sent.queued, sent.missed), (2, 0));
    for client in &mut clients {
        client.expect_text("to all").await;
    }
    running.stop.send(()).unwrap();
    for client in &mut clients {
        client.expect_close(1001).await;
        client.close(1001).await;
        client.expect_end().await;
    }
    drop(clients);
    assert!(soon(running.serving).await.unwrap().is_ok());
    for _ in 0..2 {
        assert_eq!(closes.try_recv().unwrap().cause, Cause::Drained);
    }
}
