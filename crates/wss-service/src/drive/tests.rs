//! Sessions over in-memory streams, on a paused clock.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use frame_core::handle::{EndMode, FreezeMode, SessionHandle};
use support::ws::{CLOSE, PING, PONG, TEXT, WebSocket, encode};
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::sleep;

use super::*;
use crate::client::{Link, Opening};
use crate::closed::Party;
use crate::hub::Hub;
use crate::outbox::Outbox;
use crate::settings::{Settings, SlowClient};
use crate::stream::Client;

impl ClientStream for Client<DuplexStream> {}

/// Does what messages say, and notes them.
#[derive(Default)]
struct Obedient {
    seen: Mutex<Vec<String>>,
    go_on: Notify,
}

impl Handler for Obedient {
    async fn on_message(&self, session: &Session, message: Message) -> Result<(), HandlerError> {
        let text = message.as_text().unwrap_or("binary").to_owned();
        self.seen.lock().unwrap().push(text.clone());
        match text.as_str() {
            "wait" => self.go_on.notified().await,
            "wait and send" => {
                self.go_on.notified().await;
                session.send("sent").await?;
            }
            "fail" => {
                session.send("before").await?;
                return Err("it can't".into());
            }
            "panic" => {
                session.send("before").await?;
                panic!("as it was told");
            }
            "close" => {
                session.send("before").await?;
                session.close(CloseCode::new(4000)?, "bye");
                session.send("behind").await?;
            }
            "flood" => {
                for _ in 0..100 {
                    session.send(vec![0; 1000]).await?;
                }
            }
            text => session.send(text).await?,
        }
        Ok(())
    }
}

struct Scene {
    client: WebSocket,
    session: Session,
    handler: Arc<Obedient>,
    running: JoinHandle<Driven<Client<DuplexStream>>>,
}

fn session(settings: &Settings) -> Session {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let link = Arc::new(Link { peer: address, source: address.ip(), local: Some(address), tls: None });
    let head = http::Request::get("/").body(()).unwrap().into_parts().0;
    let opening = Opening::of(&head, address.ip(), None);
    let outbox = Outbox::new(settings.outbox_max, settings.slow_client);
    Session::new(link, opening, outbox, Hub::default().groups().clone(), SessionHandle::new())
}

/// A session whose client's link holds so many bytes.
fn scene(room: usize, settings: &Settings) -> Scene {
    let (far, near) = duplex(room);
    let (session, handler) = (session(settings), Arc::<Obedient>::default());
    let running = {
        let (session, handler, policy) = (session.clone(), handler.clone(), settings.policy());
        tokio::spawn(async move {
            let endpoint = Endpoint::new(Client(near), policy, session.handle().clone());
            run(endpoint, &session, &handler).await
        })
    };
    Scene { client: WebSocket { io: Box::new(far), client: true }, session, handler, running }
}

impl Scene {
    fn new() -> Self {
        scene(1 << 16, &Settings::default())
    }

    fn seen(&self) -> Vec<String> {
        self.handler.seen.lock().unwrap().clone()
    }

    /// The client answers a Close and goes.
    async fn end(mut self) -> Ran {
        self.client.close(1000).await;
        drop(self.client);
        over(self.running.await.unwrap())
    }
}

fn over<S>(driven: Driven<S>) -> Ran {
    match driven {
        Driven::Over(ran) => *ran,
        Driven::Frozen(..) => panic!("it has frozen"),
    }
}

#[tokio::test(start_paused = true)]
async fn messages_are_handled_one_behind_the_other() {
    let mut scene = Scene::new();
    for text in ["wait", "one", "two"] {
        scene.client.text(text).await;
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(scene.seen(), ["wait"]);
    scene.handler.go_on.notify_one();
    scene.client.expect_text("one").await;
    scene.client.expect_text("two").await;
    let ran = scene.end().await;
    assert_eq!(
        (ran.closed.by, ran.closed.code, ran.closed.cause),
        (Party::Client, 1000, Cause::ClosedByClient)
    );
    assert_eq!((ran.outcome.from_client.messages, ran.outcome.from_backend.messages), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn while_a_handler_runs_pings_are_answered_and_others_may_send() {
    let mut scene = Scene::new();
    scene.client.text("wait").await;
    scene.client.send(PING, "still there?").await;
    assert_eq!(scene.client.receive().await.unwrap().b0, PONG);
    scene.session.send("from another task").await.unwrap();
    scene.client.expect_text("from another task").await;
    scene.handler.go_on.notify_one();
    scene.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_handler_learns_that_its_session_has_ended() {
    let mut scene = Scene::new();
    scene.client.text("wait and send").await;
    scene.client.close(4001).await;
    scene.client.expect_close(4001).await;
    assert!(scene.session.is_over());
    assert_eq!(scene.session.send("too late").await, Err(SendError::Over));
    scene.handler.go_on.notify_one();
    drop(scene.client);
    let ran = over(scene.running.await.unwrap());
    assert!(ran.failure.is_none(), "an end is no failure");
    assert_eq!(ran.closed.code, 4001);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_fails_ends_its_session_behind_what_it_sent() {
    crate::panics::note_places();
    for (text, cause, shown) in
        [("fail", Cause::HandlerFailed, "it can't"), ("panic", Cause::HandlerPanicked, "drive/tests.rs:")]
    {
        let mut scene = Scene::new();
        scene.client.text(text).await;
        scene.client.text("not handled").await;
        scene.client.expect_text("before").await;
        scene.client.expect_close(1011).await;
        assert_eq!(scene.seen(), [text]);
        let ran = scene.end().await;
        assert_eq!((ran.closed.by, ran.closed.code, ran.closed.cause), (Party::Server, 1011, cause));
        let failure = ran.failure.unwrap().to_string();
        assert!(failure.contains(shown), "{failure}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_comes_behind_what_was_sent_and_before_what_was_not_handled() {
    let mut scene = Scene::new();
    scene.client.text("close").await;
    scene.client.text("not handled").await;
    scene.client.expect_text("before").await;
    scene.client.expect_close(4000).await;
    let seen = scene.handler.clone();
    let ran = scene.end().await;
    assert_eq!(*seen.seen.lock().unwrap(), ["close"]);
    let closed = ran.closed;
    assert_eq!((closed.by, closed.code, &*closed.reason), (Party::Server, 4000, "bye"));
    assert_eq!(closed.cause, Cause::ClosedByServer);
    assert!(ran.failure.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_session_is_closed_from_another_task() {
    let mut scene = Scene::new();
    scene.client.echoes("here").await;
    scene.session.close(CloseCode::NORMAL, "");
    scene.client.expect_close(1000).await;
    assert_eq!(scene.end().await.closed.cause, Cause::ClosedByServer);
}

#[tokio::test(start_paused = true)]
async fn a_sender_waits_for_its_client() {
    let settings = Settings { outbox_max: 10_000, ..Settings::default() };
    let mut scene = scene(1000, &settings);
    scene.client.text("flood").await;
    for _ in 0..100 {
        yield_now().await;
        assert!(scene.session.queued_bytes() <= 10_000);
        assert_eq!(scene.client.receive().await.unwrap().payload.len(), 1000);
    }
    scene.client.echoes("all there").await;
    scene.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_given_up() {
    let settings = Settings { outbox_max: 10_000, ping_interval: None, ..Settings::default() };
    let mut scene = scene(1000, &settings);
    scene.client.text("flood").await;
    let before = tokio::time::Instant::now();
    let ran = over(scene.running.await.unwrap());
    assert_eq!((ran.closed.cause, before.elapsed().as_secs()), (Cause::Stalled, 60));
    assert!(ran.failure.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_is_closed_where_the_settings_say_so() {
    let slow_client = SlowClient::Close(CloseCode::TRY_AGAIN_LATER);
    let settings = Settings { outbox_max: 10_000, slow_client, ..Settings::default() };
    let mut scene = scene(1000, &settings);
    scene.client.text("flood").await;
    let ran = over(scene.running.await.unwrap());
    assert_eq!((ran.closed.by, ran.closed.code), (Party::Server, 1013));
    assert_eq!(ran.closed.cause, Cause::SlowClient);
}

#[tokio::test(start_paused = true)]
async fn the_newest_messages_reach_a_slow_client() {
    let settings = Settings { outbox_max: 1000, slow_client: SlowClient::DropOldest, ..Settings::default() };
    let mut scene = scene(100, &settings);
    scene.client.echoes("here").await;
    scene.client.text("wait").await;
    while scene.seen().len() < 2 {
        yield_now().await;
    }
    // More than the endpoint and the outbox hold.
    for n in 0..100_000 {
        scene.session.try_send(format!("{n}")).unwrap();
        if n % 100 == 0 {
            yield_now().await;
        }
    }
    let (mut seen, mut last) = (0, -1);
    while last < 99_999 {
        let n: i32 =
            String::from_utf8(scene.client.receive().await.unwrap().payload).unwrap().parse().unwrap();
        assert!(n > last, "in order");
        (seen, last) = (seen + 1, n);
    }
    assert_eq!(scene.session.dropped_messages(), 100_000 - seen);
    assert!(seen < 50_000, "{seen}");
    scene.handler.go_on.notify_one();
    scene.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_the_answer_of_a_handler() {
    let mut scene = Scene::new();
    scene.client.text("wait and send").await;
    sleep(Duration::from_secs(1)).await;
    let within = Duration::from_secs(10);
    scene
        .session
        .handle()
        .end(frame_core::handle::Order { code: 1012, mode: EndMode::AfterMessages { within } });
    sleep(Duration::from_secs(5)).await;
    scene.handler.go_on.notify_one();
    scene.client.expect_text("sent").await;
    scene.client.expect_close(1012).await;
    assert_eq!(scene.end().await.closed.cause, Cause::Drained);
}

#[tokio::test(start_paused = true)]
async fn a_drain_does_not_wait_for_ever() {
    let mut scene = Scene::new();
    scene.client.text("wait").await;
    sleep(Duration::from_secs(1)).await;
    let within = Duration::from_secs(10);
    scene
        .session
        .handle()
        .end(frame_core::handle::Order { code: 1001, mode: EndMode::AfterMessages { within } });
    let before = tokio::time::Instant::now();
    scene.client.expect_close(1001).await;
    assert_eq!(before.elapsed().as_secs(), within.as_secs());
    scene.handler.go_on.notify_one();
    scene.end().await;
}

/// What is polled together is dropped and begun again at each wake-up: nothing of a message may be lost by it.
#[tokio::test(start_paused = true)]
async fn messages_that_come_byte_by_byte_are_whole_whatever_happens_meanwhile() {
    let mut scene = Scene::new();
    let texts: Vec<String> = (0..50).map(|n| "x".repeat(n * 7 % 200)).collect();
    let pinged = {
        let session = scene.session.clone();
        tokio::spawn(async move {
            let mut pings: usize = 0;
            while session.ping(Bytes::from_static(b"?")).is_ok() {
                pings += 1;
                sleep(Duration::from_micros(70)).await;
            }
            pings
        })
    };
    let (mut answers, mut pings): (Vec<String>, usize) = (Vec::new(), 0);
    let note = |frame: support::ws::Frame, answers: &mut Vec<String>, pings: &mut usize| match frame.b0 {
        TEXT => answers.push(String::from_utf8(frame.payload).unwrap()),
        PING => *pings += 1,
        other => panic!("{other:x}"),
    };
    for (n, text) in texts.iter().enumerate() {
        for byte in encode(TEXT, text.as_bytes(), true) {
            scene.client.io.write_all(&[byte]).await.unwrap();
            sleep(Duration::from_micros(10)).await;
        }
        while answers.len() <= n {
            note(scene.client.receive().await.unwrap(), &mut answers, &mut pings);
        }
    }
    assert_eq!(answers, texts);
    scene.session.close(CloseCode::NORMAL, "");
    loop {
        let frame = scene.client.receive().await.unwrap();
        if frame.b0 == CLOSE {
            break;
        }
        note(frame, &mut answers, &mut pings);
    }
    assert_eq!(pinged.await.unwrap(), pings);
    assert!(pings > 50, "{pings}");
    scene.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_in_parts_arrives_as_one() {
    let mut scene = Scene::new();
    let mut parts = scene.session.begin_text().await.unwrap();
    parts.send("one, ").await.unwrap();
    scene.session.send("behind").await.unwrap();
    parts.send("two").await.unwrap();
    parts.finish().await.unwrap();
    for (b0, payload) in [(0x01, "one, "), (0x00, "two"), (0x80, ""), (TEXT, "behind")] {
        let frame = scene.client.receive().await.unwrap();
        assert_eq!((frame.b0, frame.payload), (b0, payload.into()));
    }
    let mut parts = scene.session.begin_binary().await.unwrap();
    parts.send(vec![1, 2]).await.unwrap();
    drop(parts);
    scene.client.expect_close(1011).await;
    assert_eq!(scene.end().await.closed.cause, Cause::Unfinished);
}

#[tokio::test(start_paused = true)]
async fn a_session_freezes_and_goes_on() {
    let mut scene = Scene::new();
    scene.client.echoes("here").await;
    let handle = scene.session.handle().clone();
    handle.freeze(FreezeMode::AsItIs);
    let Driven::Frozen(io, state) = scene.running.await.unwrap() else { panic!("it is over") };
    assert_eq!(scene.session.send("too late").await, Err(SendError::Over));
    scene.client.text("meanwhile").await;
    let (session, handle) = (session(&Settings::default()), SessionHandle::new());
    let endpoint = Endpoint::thaw(io, state, handle);
    let handler = scene.handler.clone();
    let running = tokio::spawn(async move { run(endpoint, &session, &handler).await });
    scene.client.expect_text("meanwhile").await;
    let ran = Scene { running, ..scene }.end().await;
    assert_eq!((ran.outcome.from_client.messages, ran.outcome.from_backend.messages), (2, 2));
}

/// What has come is answered, and what was sent is in what freezes, or has left.
#[tokio::test(start_paused = true)]
async fn no_session_freezes_within_its_handler_or_within_a_message() {
    let mut scene = scene(1000, &Settings::default());
    scene.client.text("wait and send").await;
    while scene.seen().is_empty() {
        yield_now().await;
    }
    scene.client.text("ahead").await;
    let mut parts = scene.session.begin_text().await.unwrap();
    parts.send(&"x".repeat(100_000)).await.unwrap();
    scene.session.handle().freeze(FreezeMode::AsItIs);
    sleep(Duration::from_secs(1)).await;
    scene.handler.go_on.notify_one();
    sleep(Duration::from_secs(1)).await;
    parts.finish().await.unwrap();
    assert!(!scene.running.is_finished(), "the handler has begun a message that does not fit");
    assert_eq!(scene.client.receive().await.unwrap().payload.len(), 100_000);
    assert_eq!(scene.client.receive().await.unwrap().b0, 0x80);
    scene.client.expect_text("sent").await;
    scene.client.expect_text("ahead").await;
    assert!(matches!(scene.running.await.unwrap(), Driven::Frozen(..)));
    assert_eq!(*scene.handler.seen.lock().unwrap(), ["wait and send", "ahead"]);
}
