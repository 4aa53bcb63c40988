//! The task of a cluster over an engine of the test's: what it listens to, tells, publishes and delivers, through outages.
//! On a paused clock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, MutexGuard};

use support::ws::WebSocket;
use tokio::io::{DuplexStream, duplex};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::engine::{Engine, EngineError, Inbox, Link};
use super::*;
use crate::client::{Link as ClientLink, Opening};
use crate::drive;
use crate::elsewhere::Publish;
use crate::handler::Closures;
use crate::hub::Delivery;
use crate::outbox::Outbox;
use crate::session::Session;
use crate::settings::{Settings, SlowClient};
use crate::stream::Client;
use frame_core::endpoint::Endpoint;
use frame_core::handle::SessionHandle;

/// What the engine does with calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Up,
    /// Connections have ended, and none begins.
    Down,
    /// No call is answered.
    Silent,
    /// Says no to all that is published.
    Refusing,
    /// Says no to all who listen.
    Deaf,
}

/// An engine for several processes.
#[derive(Clone)]
struct Broker {
    mode: Arc<watch::Sender<Mode>>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    links: Vec<FakeListener>,
    /// By process.
    told: BTreeMap<String, BTreeMap<String, usize>>,
    published: usize,
    connections: usize,
}

type Receive = dyn Fn(&[u8], &[u8]) + Send;

struct FakeListener {
    id: u64,
    channels: BTreeSet<String>,
    receive: Box<Receive>,
}

struct FakeEngine {
    broker: Broker,
    process: String,
}

struct FakeLink {
    broker: Broker,
    process: String,
    id: u64,
}

impl Broker {
    fn new() -> Self {
        Self { mode: Arc::new(watch::Sender::new(Mode::Up)), state: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Waits as long as the engine is silent.
    async fn answer(&self) -> Result<(), EngineError> {
        let mode = *self.mode.subscribe().wait_for(|mode| *mode != Mode::Silent).await.unwrap();
        if mode == Mode::Down { Err(EngineError::Closed) } else { Ok(()) }
    }

    fn publish(&self, channel: &str, line: &[u8]) {
        let mut state = self.lock();
        state.published += 1;
        for link in state.links.iter().filter(|link| link.channels.contains(channel)) {
            (link.receive)(channel.as_bytes(), line);
        }
    }

    /// What the processes listen to, those for all sessions left out.
    fn channels(&self) -> Vec<Vec<String>> {
        let names = |link: &FakeListener| {
            let names = link.channels.iter().filter(|name| name.contains(':'));
            names.map(|name| name.replace("chat/", "")).collect()
        };
        self.lock().links.iter().map(names).collect()
    }

    fn told(&self, process: &Process) -> Vec<(String, usize)> {
        let name = process.hub.groups().publisher.get().unwrap().process().to_owned();
        self.lock().told.get(&name).cloned().unwrap_or_default().into_iter().collect()
    }
}

impl Engine for FakeEngine {
    type Link = FakeLink;

    async fn connect<I: Inbox>(&self, inbox: I) -> Result<FakeLink, EngineError> {
        self.broker.answer().await?;
        let receive = Box::new(move |channel: &[u8], line: &[u8]| inbox.receive(channel, line));
        let id = rand::random();
        self.broker.lock().connections += 1;
        self.broker.lock().links.push(FakeListener { id, channels: BTreeSet::new(), receive });
        Ok(FakeLink { broker: self.broker.clone(), process: self.process.clone(), id })
    }
}

impl Drop for FakeLink {
    fn drop(&mut self) {
        self.broker.lock().links.retain(|link| link.id != self.id);
    }
}

impl Link for FakeLink {
    fn address(&self) -> &str {
        "a.test:1"
    }

    async fn publish(&mut self, batch: &[Publish]) -> Result<Vec<Option<String>>, EngineError> {
        self.broker.answer().await?;
        if *self.broker.mode.borrow() == Mode::Refusing {
            return Ok(batch.iter().map(|_| Some("NOPERM".to_owned())).collect());
        }
        for publish in batch {
            self.broker.publish(&publish.channel, &publish.line);
        }
        Ok(batch.iter().map(|_| None).collect())
    }

    async fn listen(&mut self, begin: &[String], end: &[String]) -> Result<(), EngineError> {
        self.broker.answer().await?;
        if *self.broker.mode.borrow() == Mode::Deaf {
            return Err(EngineError::Said("NOPERM".to_owned()));
        }
        let mut state = self.broker.lock();
        let link = state.links.iter_mut().find(|link| link.id == self.id).unwrap();
        for channel in begin {
            assert!(link.channels.insert(channel.clone()), "{channel} twice");
        }
        for channel in end {
            assert!(link.channels.remove(channel), "{channel} was not listened to");
        }
        Ok(())
    }

    async fn tell(&mut self, counts: &[(String, usize)]) -> Result<(), EngineError> {
        self.broker.answer().await?;
        let mut state = self.broker.lock();
        let told = state.told.entry(self.process.clone()).or_default();
        told.extend(counts.iter().cloned());
        told.retain(|_, count| *count > 0);
        Ok(())
    }

    async fn refresh(&mut self) -> Result<bool, EngineError> {
        self.broker.answer().await?;
        let mut state = self.broker.lock();
        let held = state.told.contains_key(&self.process);
        state.told.entry(self.process.clone()).or_default();
        Ok(held)
    }

    async fn count(&mut self, name: &str) -> Result<usize, EngineError> {
        self.broker.answer().await?;
        let state = self.broker.lock();
        let others = state.told.iter().filter(|(process, _)| **process != self.process);
        Ok(others.filter_map(|(_, told)| told.get(name)).sum())
    }

    async fn leave(&mut self) -> Result<(), EngineError> {
        self.broker.answer().await?;
        self.broker.lock().told.remove(&self.process);
        Ok(())
    }

    async fn closed(&mut self) -> EngineError {
        self.broker.mode.subscribe().wait_for(|mode| *mode == Mode::Down).await.unwrap();
        EngineError::Closed
    }
}

/// A process of the cluster, in this one.
struct Process {
    hub: Hub,
    running: RunningCluster,
}

impl Process {
    fn start(broker: &Broker) -> Self {
        Self::start_with(broker, 1000)
    }

    fn start_with(broker: &Broker, message_max: usize) -> Self {
        let hub = Hub::default();
        let cluster = Cluster::connect("redis://unused").unwrap().prefix("chat/").message_max(message_max);
        let unconnected = cluster.of(&hub);
        let process = hub.groups().publisher.get().unwrap().process().to_owned();
        let running = unconnected.start_over(FakeEngine { broker: broker.clone(), process });
        Self { hub, running }
    }

    async fn connected(broker: &Broker) -> Self {
        let process = Self::start(broker);
        until(|| process.state().is_connected).await;
        process
    }

    fn state(&self) -> ClusterState {
        self.hub.cluster_state().unwrap()
    }

    /// A session and its client.
    async fn enter(&self, user: &str, groups: &[&str]) -> (Session, WebSocket) {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let link =
            Arc::new(ClientLink { peer: address, source: address.ip(), local: Some(address), tls: None });
        let head = http::Request::get("/").body(()).unwrap().into_parts().0;
        let opening = Opening::of(&head, address.ip(), None);
        let outbox = Outbox::new(1000, SlowClient::Wait);
        let session = Session::new(link, opening, outbox, self.hub.groups().clone(), SessionHandle::new());
        assert!(self.hub.groups().enter(&session));
        session.bind_user(user);
        groups.iter().for_each(|group| assert!(session.join(group)));
        let (far, near) = duplex(1 << 16);
        let running = session.clone();
        tokio::spawn(async move {
            let policy = Settings { ping_interval: None, ..Settings::default() }.policy();
            let endpoint = Endpoint::new(Client::<DuplexStream>(near), policy, running.handle().clone());
            drive::run(endpoint, &running, &Arc::new(Closures::default())).await
        });
        let _ = self.hub.settle().await;
        (session, WebSocket { io: Box::new(far), client: true })
    }
}

async fn until(holds: impl Fn() -> bool) {
    for _ in 0..100_000 {
        if holds() {
            return;
        }
        sleep(Duration::from_millis(1)).await;
    }
    panic!("it never holds");
}

fn delivery(queued: usize) -> Delivery {
    Delivery { queued, ..Delivery::default() }
}

#[test]
fn a_file_of_credentials_is_for_nats_and_for_urls_that_say_nobody() {
    let wrong = |url: &str| Cluster::connect(url).unwrap().credentials_file("chat.creds").unwrap_err();
    Cluster::connect("nats://a.test").unwrap().credentials_file("chat.creds").unwrap();
    for url in ["redis://a.test", "nats://token@a.test", "tls://ann:secret@a.test"] {
        assert!(!wrong(url).to_string().contains("secret"), "{url}");
    }
}

#[tokio::test(start_paused = true)]
async fn users_groups_and_all_span_processes() {
    let broker = Broker::new();
    let (a, b) = (Process::connected(&broker).await, Process::connected(&broker).await);
    let (_ann, mut ann) = a.enter("ann", &["tea"]).await;
    let (bob, mut bobs) = b.enter("bob", &["tea"]).await;
    assert_eq!(a.hub.send_to(To::Group("tea"), "to the group").await, delivery(1));
    assert_eq!(a.hub.send_to(To::User("bob"), "to a user").await, delivery(0));
    assert_eq!(b.hub.send_to(To::All, "to all").await, delivery(1));
    assert_eq!(a.hub.send_to(To::Session(bob.id()), vec![0xFF]).await, delivery(0));
    assert_eq!(a.hub.send_to(To::Group("coffee"), "to none").await, delivery(0));
    ann.expect_text("to the group").await;
    ann.expect_text("to all").await;
    bobs.expect_text("to the group").await;
    bobs.expect_text("to a user").await;
    bobs.expect_text("to all").await;
    assert_eq!(bobs.receive().await.unwrap().payload, [0xFF]);
    assert_eq!((bob.queued_bytes(), a.state().dropped, b.state().dropped), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn messages_of_one_sender_arrive_in_their_order_and_once() {
    let broker = Broker::new();
    let (a, b) = (Process::connected(&broker).await, Process::connected(&broker).await);
    let (_ann, mut ann) = a.enter("ann", &["tea"]).await;
    let (_bob, mut bob) = b.enter("bob", &["tea"]).await;
    for number in 0..500 {
        let to = if number % 3 == 0 { To::All } else { To::Group("tea") };
        assert_eq!(a.hub.send_to(to, format!("{number}")).await.unreached, None);
        bob.expect_text(&format!("{number}")).await;
    }
    for number in 0..500 {
        ann.expect_text(&format!("{number}")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_listens_for_those_whom_it_has() {
    let broker = Broker::new();
    let a = Process::connected(&broker).await;
    assert_eq!(broker.channels(), [Vec::<String>::new()]);
    let (first, _client) = a.enter("ann", &["tea", "milk"]).await;
    let (second, _client) = a.enter("ann", &["tea"]).await;
    assert_eq!(broker.channels(), [["group:milk", "group:tea", "user:ann"]]);
    first.leave("tea");
    first.leave("milk");
    a.hub.settle().await.unwrap();
    assert_eq!(broker.channels(), [["group:tea", "user:ann"]]);
    a.hub.groups().depart(second.id());
    first.unbind_user();
    a.hub.settle().await.unwrap();
    assert_eq!(broker.channels(), [Vec::<String>::new()]);
    a.hub.groups().depart(first.id());
    a.hub.settle().await.unwrap();
    assert!(broker.lock().links[0].channels.is_empty());
}

#[tokio::test(start_paused = true)]
async fn thousands_of_names_are_listened_to_and_told_again_by_a_new_connection() {
    let broker = Broker::new();
    let a = Process::connected(&broker).await;
    let (session, _client) = a.enter("ann", &[]).await;
    for number in 0..2500 {
        session.join(&format!("{number}"));
    }
    a.hub.settle().await.unwrap();
    assert_eq!((broker.channels()[0].len(), broker.told(&a).len()), (2501, 2502));
    broker.set(Mode::Down);
    until(|| !a.state().is_connected).await;
    session.leave("7");
    session.join("another");
    broker.lock().told.clear(); // it was restarted
    broker.set(Mode::Up);
    until(|| a.state().is_connected).await;
    assert_eq!((broker.channels()[0].len(), broker.told(&a).len()), (2501, 2502));
    assert!(broker.channels()[0].contains(&"group:another".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn what_was_told_and_perhaps_not_heard_is_told_again() {
    let broker = Broker::new();
    let a = Process::connected(&broker).await;
    let (_session, _client) = a.enter("ann", &["tea"]).await;
    let expected =
        [("all", 1), ("group:tea", 1), ("user:ann", 1)].map(|(name, count)| (name.to_owned(), count));
    assert_eq!(broker.told(&a), expected);
    broker.set(Mode::Down);
    until(|| !a.state().is_connected).await;
    broker.lock().told.values_mut().for_each(BTreeMap::clear); // the process is still known
    broker.set(Mode::Up);
    until(|| a.state().is_connected).await;
    assert_eq!(broker.told(&a), expected);
}

#[tokio::test(start_paused = true)]
async fn while_the_engine_is_away_a_process_goes_on_alone_and_says_so() {
    let broker = Broker::new();
    broker.set(Mode::Down);
    let (a, b) = (Process::start(&broker), Process::start(&broker));
    let (_ann, mut ann) = a.enter("ann", &["tea"]).await;
    let (_bob, mut bob) = b.enter("bob", &["tea"]).await;
    let alone = |queued| Delivery { queued, missed: 0, unreached: Some(Unreached::Away) };
    assert_eq!(a.hub.send_to(To::Group("tea"), "lost").await, alone(1));
    assert_eq!(a.hub.try_send_to(To::User("bob"), "lost"), alone(0));
    ann.expect_text("lost").await;
    assert_eq!(a.hub.is_online_anywhere("ann").await, Ok(true), "it is here");
    assert_eq!(a.hub.is_online_anywhere("bob").await, Err(Unreached::Away));
    assert_eq!(a.hub.settle().await, Err(Unreached::Away));
    for connections in 1..=3 {
        broker.set(Mode::Up);
        until(|| a.state().is_connected && b.state().is_connected).await;
        assert_eq!(a.state().connections, connections);
        assert_eq!(a.hub.send_to(To::Group("tea"), "heard").await, delivery(1));
        ann.expect_text("heard").await;
        bob.expect_text("heard").await;
        broker.set(Mode::Down);
        until(|| !a.state().is_connected && !b.state().is_connected).await;
        assert_eq!(a.hub.send_to(To::Group("tea"), "lost").await, alone(1));
        ann.expect_text("lost").await;
    }
    assert_eq!(broker.lock().published, 3, "nothing is published twice");
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_says_nothing_is_given_up_and_its_messages_are_not_sent_again() {
    let broker = Broker::new();
    let a = Process::connected(&broker).await;
    broker.set(Mode::Silent);
    let begun = Instant::now();
    assert_eq!(a.hub.send_to(To::All, "perhaps").await.unreached, Some(Unreached::Unanswered));
    assert_eq!(begun.elapsed().as_secs(), 3);
    assert_eq!(a.hub.send_to(To::All, "no").await.unreached, Some(Unreached::Away));
    broker.set(Mode::Up);
    until(|| a.state().is_connected).await;
    assert_eq!(broker.lock().published, 0);
    // Without a message it is noticed, too.
    broker.set(Mode::Silent);
    until(|| !a.state().is_connected).await;
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_can_not_be_used_is_left_in_peace() {
    let broker = Broker::new();
    broker.set(Mode::Deaf);
    let a = Process::start(&broker);
    let (_session, _client) = a.enter("ann", &[]).await;
    sleep(Duration::from_secs(60)).await;
    let connections = broker.lock().connections;
    assert!((30..100).contains(&connections), "{connections}");
    assert!(!a.state().is_connected);
    broker.set(Mode::Up);
    until(|| a.state().is_connected).await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_the_engine_is_bounded_in_messages_and_in_bytes() {
    for (length, fit) in [(1, 4096), (1024 * 1024, 15)] {
        let broker = Broker::new();
        let a = Process::start_with(&broker, length);
        until(|| a.state().is_connected).await;
        broker.set(Mode::Silent);
        a.hub.try_send_to(To::All, "1");
        sleep(Duration::from_millis(1)).await; // it is taken
        let text = "x".repeat(length);
        for _ in 0..fit {
            assert_eq!(a.hub.try_send_to(To::All, &*text).unreached, None);
        }
        assert_eq!(a.hub.send_to(To::All, &*text).await.unreached, Some(Unreached::Full));
        broker.set(Mode::Up);
        until(|| broker.lock().published == fit + 1).await;
        assert_eq!(a.hub.send_to(To::All, &*text).await.unreached, None);
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_engine_brings_is_judged() {
    let broker = Broker::new();
    let a = Process::connected(&broker).await;
    let (session, mut ann) = a.enter("ann", &["tea"]).await;
    let long = format!(r#"{{"text":"{}"}}"#, "x".repeat(1001));
    let bad: [(&str, &[u8]); 7] = [
        ("chat/all", b"hello"),
        ("chat/all", b"{\"text\":\"\xFF\"}"),
        ("chat/group:tea", b"{}"),
        ("chat/group:tea", long.as_bytes()),
        ("chat/user:ann", br#"{"binary":"not base64"}"#),
        ("chat/session", br#"{"text":"for whom?"}"#),
        ("chat/session", br#"{"text":"for whom?","session":"ann"}"#),
    ];
    for (channel, line) in bad {
        broker.publish(channel, line);
    }
    assert_eq!(a.state().dropped, bad.len() as u64);
    broker.publish("chat/group:tea", br#"{"text":"milk?"}"#);
    let line = format!(r#"{{"text":"for you","session":"{:016x}"}}"#, session.id());
    broker.publish("chat/session", line.as_bytes());
    ann.expect_text("milk?").await;
    ann.expect_text("for you").await;
    assert_eq!((a.state().dropped, a.state().missed), (bad.len() as u64, 0));
    // The task of the session does not run between these.
    for _ in 0..5 {
        broker.publish("chat/user:ann", &long.as_bytes()[1..]);
        broker.publish("chat/user:ann", format!(r#"{{"text":"{}"}}"#, "x".repeat(900)).as_bytes());
    }
    assert_eq!((a.state().dropped, a.state().missed), (12, 4));
}

#[tokio::test(start_paused = true)]
async fn what_is_too_long_or_refused_is_said() {
    let broker = Broker::new();
    let a = Process::connected(&broker).await;
    let name = "x".repeat(1025);
    let (_session, _client) = a.enter("ann", &[&name]).await;
    let unreached = async |to, text: &str| a.hub.send_to(to, text).await.unreached;
    assert_eq!(unreached(To::All, &"x".repeat(1001)).await, Some(Unreached::TooLong));
    assert_eq!(unreached(To::Group(&name), "").await, Some(Unreached::TooLong));
    assert_eq!(broker.channels(), [["user:ann"]]);
    assert_eq!(unreached(To::Group(&name[1..]), &"x".repeat(1000)).await, None);
    broker.set(Mode::Refusing);
    assert_eq!(unreached(To::All, "no").await, Some(Unreached::Refused));
    assert!(a.state().is_connected);
}

#[tokio::test(start_paused = true)]
async fn who_is_here_is_known_everywhere() {
    let broker = Broker::new();
    let (a, b) = (Process::connected(&broker).await, Process::connected(&broker).await);
    let (_first, _client) = a.enter("ann", &["tea"]).await;
    let (_second, _client) = b.enter("ann", &["tea"]).await;
    let (bob, _client) = b.enter("bob", &["tea"]).await;
    for hub in [&a.hub, &b.hub] {
        assert_eq!(hub.count_everywhere(To::User("ann")).await, Ok(2));
        assert_eq!(hub.count_everywhere(To::Group("tea")).await, Ok(3));
        assert_eq!(hub.count_everywhere(To::All).await, Ok(3));
        assert_eq!(hub.is_online_anywhere("bob").await, Ok(true));
        assert_eq!(hub.is_online_anywhere("eve").await, Ok(false));
    }
    b.hub.groups().depart(bob.id());
    b.hub.settle().await.unwrap();
    assert_eq!(a.hub.is_online_anywhere("bob").await, Ok(false));
    // The engine has forgotten it all.
    broker.lock().told.clear();
    until(|| broker.told(&a).len() == 3 && broker.told(&b).len() == 3).await;
    // A process ends, another one is dropped.
    b.running.end().await;
    assert_eq!(a.hub.count_everywhere(To::User("ann")).await, Ok(1));
    drop(a.running);
    until(|| broker.lock().links.is_empty() && broker.lock().told.is_empty()).await;
}
