//! The old gateway's side, against a new one that is played by the test and fails at every point.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant as StdInstant;

use frame_core::handle::{EndMode, Order};
use support::backend::{Backend, echo};
use support::soon;
use support::ws::WebSocket;
use tokio::net::TcpStream;

use super::*;
use crate::config::Config;
use crate::context::transit::ArrivingSession;
use crate::lifecycle::gateway::{Begun, RunningGateway};
use crate::lifecycle::load::ConfigSource;
use crate::lifecycle::upgrade::new::Inherited;
use crate::lifecycle::upgrade::origin::Program;

const WAIT: Duration = Duration::from_millis(200);

struct Rig {
    begun: Begun,
    live: Vec<WebSocket>,
    _backend: Backend,
}

impl Rig {
    /// A gateway with so many sessions.
    async fn with(sessions: usize) -> Self {
        let (backend, _seen) = echo().await;
        let text = format!(
            "workers = 2\n[[listener]]\naddress = \"127.0.0.1:0\"\ntls = false\n[[route]]\npath = \"/\"\nproxy = \"http://{}\"\n",
            backend.address
        );
        let (config, problems) = Config::parse(Path::new("wssgate.toml"), &text);
        assert!(problems.is_empty(), "{problems:?}");
        let source = ConfigSource::Given(Arc::new(config));
        let program = Program { path: PathBuf::new(), arguments: Vec::new() };
        let (mut begun, closed) =
            RunningGateway::start(source, program, Inherited::new(Vec::new())).await.unwrap();
        let address = closed.listeners[0].local.clone();
        begun.gateway.open(closed, StdInstant::now());
        let mut live = Vec::new();
        for _ in 0..sessions {
            let io = TcpStream::connect(address.ip().unwrap()).await.unwrap();
            live.push(WebSocket::connect(io, "a.test", "/", "").await.unwrap().0);
        }
        let mut rig = Self { begun, live, _backend: backend };
        rig.all_echo("before").await;
        rig
    }

    async fn all_echo(&mut self, text: &str) {
        for socket in &mut self.live {
            socket.echoes(text).await;
        }
    }

    /// Moves the sessions to a process that does `play`.
    async fn moves<T>(&self, play: impl AsyncFnOnce(Channel) -> T) -> (io::Result<()>, MoveCount, T) {
        let (old, new) = Channel::pair().unwrap();
        let new = Channel::new(new).unwrap();
        let mut count = MoveCount::default();
        let gateway = &self.begun.gateway;
        let moving = async {
            let nothing = &mut Nothing;
            let moving = move_sessions(&old, &gateway.workers, &gateway.transit, WAIT, &mut count, nothing);
            let result = moving.await;
            drop(old);
            result
        };
        let (result, played) = soon(async { tokio::join!(moving, play(new)) }).await;
        (result, count, played)
    }

    fn live(&self) -> usize {
        self.begun.gateway.workers.iter().map(|worker| worker.sessions.len()).sum()
    }
}

/// The next batch, if it is one.
async fn batch(channel: &Channel) -> Option<Vec<ArrivingSession>> {
    let (message, descriptors) = channel.receive().await.unwrap()?;
    let UpgradeMessage::Sessions { count, bytes, last_id } = message else { panic!("{message:?}") };
    assert!(last_id > IDS_RESERVED);
    batch::receive(channel, descriptors, count, bytes).await.unwrap()
}

/// The orders that sessions take along when they begin.
async fn begun(channel: &Channel) -> Vec<PlacedOrder> {
    let message = channel.receive().await.unwrap().unwrap().0;
    let UpgradeMessage::Begin { orders } = message else { panic!("{message:?}") };
    orders
}

/// No operator asks for anything.
struct Nothing;

impl Meanwhile for Nothing {
    async fn obey(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_process_that_dies_before_it_has_acknowledged_takes_nothing_along() {
    let mut rig = Rig::with(5).await;
    // At once, in the middle of a batch, with a batch in its hands, and with nonsense on its lips.
    for how in 0..4 {
        let (result, count, ()) = rig
            .moves(async |channel| match how {
                0 => drop(channel),
                1 => drop(channel.receive().await),
                2 => drop(batch(&channel).await),
                _ => {
                    batch(&channel).await;
                    channel.send(&UpgradeMessage::Go, &[]).await.unwrap();
                    assert!(channel.receive().await.unwrap().is_none());
                }
            })
            .await;
        assert!(result.is_err(), "{how}");
        assert_eq!((count.moved, rig.live()), (0, 5), "{how}");
        rig.all_echo("as if nothing had happened").await;
    }
}

#[tokio::test]
async fn what_a_process_has_acknowledged_is_lost_with_it_and_nothing_else() {
    let mut rig = Rig::with(SESSIONS_AT_ONCE + 10).await;
    let (result, count, ()) = rig
        .moves(async |channel| {
            let sessions = batch(&channel).await.unwrap();
            channel.send(&UpgradeMessage::Taken { refused: Vec::new() }, &[]).await.unwrap();
            begun(&channel).await;
            assert!(batch(&channel).await.is_some());
            drop((channel, sessions));
        })
        .await;
    assert!(result.is_err());
    let lost = count.moved;
    assert!((1..=SESSIONS_AT_ONCE).contains(&lost), "{lost}");
    assert_eq!(rig.live(), SESSIONS_AT_ONCE + 10 - lost);
    let (mut ended, mut echoed) = (0, 0);
    for socket in &mut rig.live {
        let _ = tokio::io::AsyncWriteExt::write_all(
            &mut socket.io,
            &support::ws::encode(support::ws::TEXT, b"x", true),
        )
        .await;
        match socket.receive().await {
            None => ended += 1,
            Some(frame) => echoed += usize::from(frame.payload == b"x"),
        }
    }
    assert_eq!((ended, echoed), (lost, SESSIONS_AT_ONCE + 10 - lost));
}

#[tokio::test]
async fn what_a_process_refuses_stays_and_the_rest_goes() {
    let mut rig = Rig::with(6).await;
    let (result, count, sessions) = rig
        .moves(async |channel| {
            let mut all = Vec::new();
            while let Some(sessions) = batch(&channel).await {
                // The first of each batch is of a later release, say.
                let refused = vec![(0, "too new".to_owned())];
                channel.send(&UpgradeMessage::Taken { refused }, &[]).await.unwrap();
                begun(&channel).await;
                all.extend(sessions.into_iter().skip(1));
            }
            all
        })
        .await;
    result.unwrap();
    let refused = count.left[REFUSED];
    assert_eq!((count.moved, sessions.len()), (6 - refused, 6 - refused));
    assert!(refused > 0 && rig.live() == refused);
    // What was let go of was not shut down: who has the descriptors may go on.
    let mut echoed = 0;
    for socket in &mut rig.live {
        socket.text("who hears this?").await;
        if let Ok(Some(frame)) = tokio::time::timeout(WAIT, socket.receive()).await {
            assert_eq!(frame.payload, b"who hears this?");
            echoed += 1;
        }
    }
    assert_eq!(echoed, refused);
}

#[tokio::test]
async fn an_order_to_a_session_on_its_way_is_not_lost() {
    let order = Order { code: 1012, mode: EndMode::AfterMessages { within: WAIT } };
    for is_taken in [true, false] {
        let mut rig = Rig::with(3).await;
        let overview = rig.begun.gateway.overview.clone();
        let handles: Vec<_> = overview.sessions.iter().flat_map(|sessions| sessions.handles()).collect();
        let (_, count, orders) = rig
            .moves(async |channel| {
                let mut all = Vec::new();
                while let Some(sessions) = batch(&channel).await {
                    handles.iter().for_each(|handle| assert!(handle.end(order)));
                    if !is_taken {
                        break;
                    }
                    channel.send(&UpgradeMessage::Taken { refused: Vec::new() }, &[]).await.unwrap();
                    let orders = begun(&channel).await;
                    assert_eq!(orders.len(), sessions.len());
                    all.extend(orders.into_iter().map(PlacedOrder::order));
                }
                all
            })
            .await;
        if is_taken {
            assert_eq!((count.moved, orders), (3, vec![order; 3]));
            assert!(
                handles.iter().all(|handle| !handle.end(order)),
                "they are told that it is too late here"
            );
            continue;
        }
        for socket in &mut rig.live {
            socket.expect_close(1012).await;
        }
    }
}

#[tokio::test]
async fn descriptors_that_the_kernel_has_dropped_are_missed() {
    let (old, new) = Channel::pair().unwrap();
    let new = Channel::new(new).unwrap();
    old.send_bytes(&[0, 0, 0, 1, 7], &[]).await.unwrap();
    assert!(batch::receive(&new, Vec::new(), 1, 5).await.unwrap().is_none());
    for (count, bytes, packet) in [
        (batch::SESSIONS_MAX + 1, 5, &[0, 0, 0, 1, 7][..]),
        (0, 4, &[0, 0, 0, 1, 7]),
        (0, 5, &[0, 0, 0, 1, 7]),
    ] {
        old.send_bytes(packet, &[]).await.unwrap();
        assert!(batch::receive(&new, Vec::new(), count, bytes).await.is_err(), "{count} {bytes}");
        if count > batch::SESSIONS_MAX {
            new.receive_bytes().await.unwrap();
        }
    }
}
