//! A relay whose server changes, over in-memory streams, on a paused clock.

mod moving;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::clock::Exact;
use crate::head::{Scan, scan_head, unmask};
use crate::outcome::{Cause, Ended, Outcome, Party};
use crate::policy::Policy;
use crate::relay::{Ending, relay};
use crate::sequence::Limits;
use crate::test_io::{Drip, frame, masked, outcome, resets};

const OPTIONS: Options = Options { held_max: 1000, may_repeat: false };

type Io = Box<dyn Duplex>;

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Hands out what it is given.
struct Queue {
    servers: Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<Result<Io, Close>>>>,
    lost: Arc<Mutex<Vec<Lost>>>,
    cuts: Arc<Mutex<u32>>,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Queue")
    }
}

impl Redialer<Io> for Queue {
    fn redial(&mut self, lost: Lost) -> Redialling<Io> {
        if !moving::is_moving() {
            self.lost.lock().unwrap().push(lost); // else it has been told
        }
        let servers = self.servers.clone();
        Box::pin(async move { servers.lock().await.recv().await.unwrap() })
    }

    fn write_state(&self, _: &mut net_io::state::StateWriter) {}

    fn leave(&mut self, mut server: Io) {
        tokio::spawn(async move {
            let _ = server.shutdown().await;
            let _ = tokio::io::copy(&mut server, &mut tokio::io::sink()).await;
        });
    }

    fn cut(&mut self) {
        *self.cuts.lock().unwrap() += 1;
    }
}

struct Rig {
    client: DuplexStream,
    server: DuplexStream,
    servers: mpsc::UnboundedSender<Result<Io, Close>>,
    lost: Arc<Mutex<Vec<Lost>>>,
    /// Sessions that ended because of a message that was passed on in part.
    cuts: Arc<Mutex<u32>>,
    handle: SessionHandle,
    relay: JoinHandle<(Outcome, Option<Close>)>,
}

fn rig(options: Options) -> Rig {
    rig_of(options, 4096, |io| Box::new(io))
}

fn rig_of(options: Options, len: usize, wrap: impl FnOnce(DuplexStream) -> Io) -> Rig {
    let (client, mut near) = duplex(4096);
    let (server, first) = duplex(len);
    let (servers, queue) = mpsc::unbounded_channel();
    let lost = Arc::<Mutex<Vec<Lost>>>::default();
    let cuts = Arc::<Mutex<u32>>::default();
    let queue =
        Queue { servers: Arc::new(tokio::sync::Mutex::new(queue)), lost: lost.clone(), cuts: cuts.clone() };
    let handle = SessionHandle::new();
    let mut stream = RedialStream::new(wrap(first), Box::new(queue), handle.clone(), options);
    let own = handle.clone();
    let relay = tokio::spawn(async move {
        let policy = Policy {
            limits: Limits { message_max: u64::MAX, deflate: false },
            idle_timeout: None,
            lifetime: None,
            ping_interval: None,
            pong_timeout: Duration::from_secs(10),
        };
        if moving::moves() {
            return moving::run(near, stream, policy, own).await;
        }
        let ending = relay(&mut near, &mut stream, policy, &own, Exact::begin()).await;
        (outcome(ending), stream.close_sent().cloned())
    });
    Rig { client, server, servers, lost, cuts, handle, relay }
}

impl Rig {
    /// A new server, and how its session begins.
    fn replace(&mut self) {
        let (server, next) = duplex(4096);
        self.server = server;
        self.servers.send(Ok(Box::new(next))).unwrap();
    }

    fn last_lost(&self) -> (u64, Option<u16>) {
        let lost = self.lost.lock().unwrap();
        let last = lost.last().expect("a server was lost");
        (last.messages, last.code)
    }

    async fn lost(&self, count: usize) {
        while self.lost.lock().unwrap().len() < count {
            tokio::task::yield_now().await;
        }
    }
}

/// The next frame, unmasked; `None` at the end between two frames.
async fn receive(io: &mut DuplexStream, sender: Sender) -> Option<(u8, Vec<u8>)> {
    let mut wire = Vec::new();
    loop {
        match scan_head(&wire, sender).unwrap() {
            Scan::Need(_) => match io.read_u8().await {
                Ok(byte) => wire.push(byte),
                Err(_) if wire.is_empty() => return None,
                Err(e) => panic!("an end inside a head: {e}"),
            },
            Scan::Head(head) => {
                let mut payload = vec![0; usize::try_from(head.payload_len).unwrap()];
                io.read_exact(&mut payload).await.unwrap();
                if let Some(mask) = head.mask {
                    unmask(&mut payload, mask, 0);
                }
                return Some((wire[0], payload));
            }
        }
    }
}

#[track_caller]
fn hears(io: &mut DuplexStream, sender: Sender, b0: u8, payload: &[u8]) -> impl Future<Output = ()> {
    let at = std::panic::Location::caller();
    let payload = payload.to_vec();
    async move {
        let heard = tokio::time::timeout(Duration::from_secs(3600), receive(io, sender)).await;
        assert_eq!(
            heard.unwrap_or_else(|_| panic!("nothing comes, at {at}")),
            Some((b0, payload)),
            "at {at}"
        );
    }
}

const CLOSE_1012: [u8; 2] = 1012_u16.to_be_bytes();

#[tokio::test(start_paused = true)]
async fn a_server_that_closes_is_answered_and_replaced() {
    let mut rig = rig(OPTIONS);
    rig.client.write_all(&masked(0x81, b"one")).await.unwrap();
    hears(&mut rig.server, Sender::Client, 0x81, b"one").await;
    let last = [frame(0x81, b"last"), frame(0x88, &CLOSE_1012)].concat();
    rig.server.write_all(&last).await.unwrap();
    hears(&mut rig.server, Sender::Client, 0x88, &CLOSE_1012).await;
    hears(&mut rig.client, Sender::Server, 0x81, b"last").await;
    assert_eq!(receive(&mut rig.server, Sender::Client).await, None);
    rig.lost(1).await;
    // There is none now: pings are answered, messages wait.
    rig.client.write_all(&[masked(0x81, b"two"), masked(0x89, b"there?")].concat()).await.unwrap();
    hears(&mut rig.client, Sender::Server, 0x8A, b"there?").await;
    rig.replace();
    hears(&mut rig.server, Sender::Client, 0x81, b"two").await;
    rig.server.write_all(&frame(0x81, b"hello")).await.unwrap();
    hears(&mut rig.client, Sender::Server, 0x81, b"hello").await;
    assert_eq!(rig.last_lost(), (1, Some(1012)));
    rig.client.write_all(&masked(0x88, &1000_u16.to_be_bytes())).await.unwrap();
    hears(&mut rig.server, Sender::Client, 0x88, &1000_u16.to_be_bytes()).await;
    rig.server.write_all(&frame(0x88, &1000_u16.to_be_bytes())).await.unwrap();
    hears(&mut rig.client, Sender::Server, 0x88, &1000_u16.to_be_bytes()).await;
    drop(rig.server);
    drop(rig.client);
    let (outcome, close) = rig.relay.await.unwrap();
    assert!(matches!(outcome.cause, Cause::Closed { by: Party::Client, .. }) && close.is_none());
    assert_eq!((outcome.from_client.messages, outcome.from_backend.messages), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_lost_server_is_replaced_between_two_messages() {
    for reset in [false, true] {
        let mut rig = rig_of(OPTIONS, 4096, |io| if reset { Box::new(resets(io)) } else { Box::new(io) });
        rig.client.write_all(&[masked(0x01, b"o"), masked(0x80, b"ne")].concat()).await.unwrap();
        hears(&mut rig.server, Sender::Client, 0x01, b"o").await;
        hears(&mut rig.server, Sender::Client, 0x80, b"ne").await;
        drop(std::mem::replace(&mut rig.server, duplex(1).0));
        rig.lost(1).await;
        rig.replace();
        rig.client.write_all(&masked(0x81, b"two")).await.unwrap();
        hears(&mut rig.server, Sender::Client, 0x81, b"two").await;
        assert_eq!(rig.last_lost(), (1, None));
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_the_lost_server_has_a_part_of_ends_the_session() {
    let mut rig = rig(OPTIONS);
    rig.client.write_all(&masked(0x81, b"half")[..8]).await.unwrap();
    assert_eq!(rig.server.read_u8().await.unwrap(), 0x81);
    drop(rig.server);
    let close = receive(&mut rig.client, Sender::Server).await.unwrap();
    assert_eq!((close.0, &close.1[..2]), (0x88, &1011_u16.to_be_bytes()[..]));
    // The rest of it can still come, as can the client's Close.
    rig.client.write_all(&[&masked(0x81, b"half")[8..], &masked(0x88, b"\x03\xF3")].concat()).await.unwrap();
    assert_eq!(receive(&mut rig.client, Sender::Server).await, None);
    drop(rig.client);
    let (_, close) = rig.relay.await.unwrap();
    assert_eq!(close.unwrap().code, Some(1011));
    assert!(rig.lost.lock().unwrap().is_empty());
    assert_eq!(*rig.cuts.lock().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_held_whole_goes_to_the_next_server_where_it_may() {
    let mut rig = rig(Options { may_repeat: true, ..OPTIONS });
    let message = [masked(0x01, b"first"), masked(0x89, b"p"), masked(0x80, b"second")].concat();
    rig.client.write_all(&masked(0x81, b"before")).await.unwrap();
    rig.client.write_all(&message[..message.len() - 3]).await.unwrap();
    hears(&mut rig.server, Sender::Client, 0x81, b"before").await;
    hears(&mut rig.server, Sender::Client, 0x01, b"first").await;
    drop(std::mem::replace(&mut rig.server, duplex(1).0));
    rig.lost(1).await;
    rig.replace();
    rig.client.write_all(&message[message.len() - 3..]).await.unwrap();
    hears(&mut rig.server, Sender::Client, 0x01, b"first").await;
    hears(&mut rig.server, Sender::Client, 0x89, b"p").await;
    hears(&mut rig.server, Sender::Client, 0x80, b"second").await;
    assert_eq!(rig.last_lost(), (1, None));
    // One that is too long is not held.
    rig.client.write_all(&masked(0x82, &[7; 2000])[..1500]).await.unwrap();
    let mut part = [0; 1500];
    rig.server.read_exact(&mut part).await.unwrap();
    drop(rig.server);
    let close = receive(&mut rig.client, Sender::Server).await.unwrap();
    assert_eq!((close.0, &close.1[..2]), (0x88, &1011_u16.to_be_bytes()[..]));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_has_closed_gets_the_message_under_way_to_its_end() {
    let mut rig = rig(OPTIONS);
    let message = masked(0x81, b"a long one");
    rig.client.write_all(&message[..9]).await.unwrap();
    rig.server.read_exact(&mut [0; 9]).await.unwrap();
    rig.server.write_all(&frame(0x88, &CLOSE_1012)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await; // it has been read
    let rest = [&message[9..], &masked(0x81, b"next")].concat();
    rig.client.write_all(&rest).await.unwrap();
    let mut end = vec![0; message.len() - 9];
    rig.server.read_exact(&mut end).await.unwrap();
    assert_eq!(end, message[9..]);
    hears(&mut rig.server, Sender::Client, 0x88, &CLOSE_1012).await;
    assert_eq!(receive(&mut rig.server, Sender::Client).await, None);
    rig.lost(1).await;
    assert_eq!(rig.last_lost(), (1, Some(1012)));
    rig.replace();
    hears(&mut rig.server, Sender::Client, 0x81, b"next").await;
}

#[tokio::test(start_paused = true)]
async fn a_half_message_of_the_server_ends_the_session() {
    // Inside a frame, the client's connection is cut; else it is told.
    for (wire, is_told) in [(frame(0x01, b"first"), true), (frame(0x81, b"first")[..4].to_vec(), false)] {
        let mut rig = rig(OPTIONS);
        rig.server.write_all(&wire).await.unwrap();
        rig.client.read_exact(&mut vec![0; wire.len()]).await.unwrap();
        drop(rig.server);
        if is_told {
            let close = receive(&mut rig.client, Sender::Server).await.unwrap();
            assert_eq!((close.0, &close.1[..2]), (0x88, &1011_u16.to_be_bytes()[..]));
            rig.client.write_all(&masked(0x88, b"\x03\xF3")).await.unwrap();
            assert_eq!(receive(&mut rig.client, Sender::Server).await, None);
            drop(rig.client);
        }
        let (outcome, close) = rig.relay.await.unwrap();
        assert_eq!(close.is_some(), is_told);
        assert_eq!(*rig.cuts.lock().unwrap(), 1);
        if !is_told {
            assert_eq!(outcome.cause, Cause::Lost { party: Party::Backend, how: Ended::Eof });
        }
    }
    // What is not a whole head has not gone on.
    let mut rig = rig(OPTIONS);
    rig.server.write_all(&[0x82]).await.unwrap();
    drop(std::mem::replace(&mut rig.server, duplex(1).0));
    rig.lost(1).await;
    rig.replace();
    rig.server.write_all(&frame(0x81, b"whole")).await.unwrap();
    hears(&mut rig.client, Sender::Server, 0x81, b"whole").await;
}

#[tokio::test(start_paused = true)]
async fn other_closes_are_passed_on() {
    for code in [1000_u16, 1008, 4000] {
        let mut rig = rig(OPTIONS);
        rig.server.write_all(&frame(0x88, &code.to_be_bytes())).await.unwrap();
        hears(&mut rig.client, Sender::Server, 0x88, &code.to_be_bytes()).await;
        rig.client.write_all(&masked(0x88, &code.to_be_bytes())).await.unwrap();
        hears(&mut rig.server, Sender::Client, 0x88, &code.to_be_bytes()).await;
        drop((rig.server, rig.client));
        let (outcome, _) = rig.relay.await.unwrap();
        assert!(matches!(outcome.cause, Cause::Closed { by: Party::Backend, .. }));
        assert!(rig.lost.lock().unwrap().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_to_be_left_says_its_last() {
    let mut rig = rig(OPTIONS);
    rig.client.write_all(&masked(0x81, b"one")).await.unwrap();
    hears(&mut rig.server, Sender::Client, 0x81, b"one").await;
    rig.handle.redial();
    hears(&mut rig.server, Sender::Client, 0x88, &1001_u16.to_be_bytes()).await;
    rig.client.write_all(&masked(0x81, b"two")).await.unwrap();
    let last = [frame(0x01, b"la"), frame(0x80, b"st"), frame(0x88, &1001_u16.to_be_bytes())].concat();
    rig.server.write_all(&last).await.unwrap();
    hears(&mut rig.client, Sender::Server, 0x01, b"la").await;
    hears(&mut rig.client, Sender::Server, 0x80, b"st").await;
    rig.lost(1).await;
    rig.replace();
    hears(&mut rig.server, Sender::Client, 0x81, b"two").await;
    assert_eq!(rig.last_lost(), (1, Some(1001)));
}

#[tokio::test(start_paused = true)]
async fn what_is_held_has_a_limit_and_nothing_is_lost() {
    let mut rig = rig(OPTIONS);
    drop(std::mem::replace(&mut rig.server, duplex(1).0));
    rig.lost(1).await;
    let mut sent = Vec::new();
    let wire: Vec<u8> = (0..200_u8).flat_map(|n| masked(0x82, &[n; 50])).collect();
    let writing = async {
        rig.client.write_all(&wire).await.unwrap();
    };
    tokio::select! {
        () = writing => panic!("more was taken than may be held"),
        () = tokio::time::sleep(Duration::from_secs(60)) => {}
    }
    // How much has gone is not known any more, so this client sends no more: what has come is looked at.
    rig.replace();
    let reading = async {
        let mut buffer = [0; 4096];
        loop {
            let n = rig.server.read(&mut buffer).await.unwrap();
            sent.extend_from_slice(&buffer[..n]);
        }
    };
    let _: Result<(), _> = tokio::time::timeout(Duration::from_secs(60), reading).await;
    assert!(sent.len() > 1000 && wire.starts_with(&sent), "{}", sent.len());
}

#[tokio::test(start_paused = true)]
async fn a_search_that_fails_says_why() {
    let mut rig = rig(OPTIONS);
    drop(std::mem::replace(&mut rig.server, duplex(1).0));
    rig.lost(1).await;
    let close = Close { code: Some(1008), reason: "no".into() };
    rig.servers.send(Err(close.clone())).unwrap();
    hears(&mut rig.client, Sender::Server, 0x88, b"\x03\xF0no").await;
    rig.client.write_all(&masked(0x88, b"\x03\xF0")).await.unwrap();
    assert_eq!(receive(&mut rig.client, Sender::Server).await, None);
    drop(rig.client);
    assert_eq!(rig.relay.await.unwrap().1, Some(close));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_closes_meanwhile_is_answered_unless_it_has_more_to_say() {
    let mut rig = rig(OPTIONS);
    drop(std::mem::replace(&mut rig.server, duplex(1).0));
    rig.lost(1).await;
    rig.client.write_all(&masked(0x88, b"\x03\xE8")).await.unwrap();
    hears(&mut rig.client, Sender::Server, 0x88, b"\x03\xE8").await;
    drop(rig.client);
    let (outcome, _) = rig.relay.await.unwrap();
    assert!(matches!(outcome.cause, Cause::Closed { by: Party::Client, .. }));

    let mut rig = super::tests::rig(OPTIONS);
    drop(std::mem::replace(&mut rig.server, duplex(1).0));
    rig.lost(1).await;
    rig.client.write_all(&[masked(0x81, b"last"), masked(0x88, b"\x03\xE8")].concat()).await.unwrap();
    tokio::task::yield_now().await;
    rig.replace();
    hears(&mut rig.server, Sender::Client, 0x81, b"last").await;
    hears(&mut rig.server, Sender::Client, 0x88, b"\x03\xE8").await;
    rig.server.write_all(&frame(0x88, b"\x03\xE8")).await.unwrap();
    hears(&mut rig.client, Sender::Server, 0x88, b"\x03\xE8").await;
}

/// What a server of the property does at its end.
#[derive(Debug, Clone, Copy)]
enum Last {
    Closes,
    Breaks,
    IsLeft,
}

proptest! {
    /// Servers come and go while messages go both ways: each message arrives once, whole and in its order, unless the
    /// session was cut, or its server was lost with it.
    #[test]
    fn messages_arrive_once_and_in_order(
        lasts in proptest::collection::vec(
            (prop_oneof![Just(Last::Closes), Just(Last::Breaks), Just(Last::IsLeft)], 1..8_usize), 1..5),
        lens in proptest::collection::vec(0..300_usize, 1..30),
        repeat: bool,
        seed: u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let world = one_world(lasts, lens, repeat, seed);
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(3600), world).await }).unwrap();
    }
}

/// Messages from the client are numbered by their first byte; a server answers each with its own number.
async fn one_world(lasts: Vec<(Last, usize)>, lens: Vec<usize>, repeat: bool, seed: u64) {
    let options = Options { may_repeat: repeat, held_max: 400 };
    let mut rig = rig_of(options, 64, |io| Box::new(Drip::new(io, seed)));
    let count = lens.len();
    let (mut from_client, mut to_client) = tokio::io::split(rig.client);
    let sending = tokio::spawn(async move {
        for (n, len) in lens.into_iter().enumerate() {
            let mut payload = vec![u8::try_from(n).unwrap(); len + 1];
            let half = payload.split_off(payload.len() / 2);
            let message = [masked(0x02, &payload), masked(0x80, &half)].concat();
            if to_client.write_all(&message).await.is_err() {
                return to_client;
            }
        }
        to_client
    });
    let is_cut = Arc::<AtomicBool>::default();
    let seen = is_cut.clone();
    let answers = tokio::spawn(async move {
        let mut answers = Vec::new();
        while let Some((b0, payload)) = try_hear(&mut from_client, Sender::Server).await {
            match b0 {
                0x82 => answers.push(payload[0]),
                0x88 => break,
                other => panic!("{other:#x}"),
            }
        }
        seen.store(true, Ordering::Relaxed);
        answers
    });
    // What servers have heard whole, and said whole.
    let mut heard = Vec::new();
    let mut has_broken = false;
    for (i, (last, messages)) in lasts.iter().chain([&(Last::Closes, usize::MAX)]).enumerate() {
        let is_final = i == lasts.len();
        let mut current: Option<Vec<u8>> = None;
        let mut here = 0;
        while heard.len() < count && (here < *messages || is_final) {
            let Some(Ok(Some((b0, payload)))) = Some(
                tokio::time::timeout(Duration::from_secs(60), try_hear(&mut rig.server, Sender::Client))
                    .await,
            ) else {
                break;
            };
            match b0 {
                0x02 => current = Some(payload),
                0x80 => {
                    let mut message = current.take().expect("no continuation without a beginning");
                    message.extend(payload);
                    assert!(message.iter().all(|byte| *byte == message[0]), "a message is whole");
                    heard.push(message[0]);
                    here += 1;
                    let _ = rig.server.write_all(&frame(0x82, &message[..1])).await;
                }
                other => panic!("{other:#x}"),
            }
        }
        if is_final || heard.len() == count || is_cut.load(Ordering::Relaxed) {
            break;
        }
        let expects = rig.lost.lock().unwrap().len() + 1;
        match last {
            Last::Breaks => {}
            Last::Closes => {
                let _ = rig.server.write_all(&frame(0x88, &CLOSE_1012)).await;
            }
            Last::IsLeft => rig.handle.redial(),
        }
        if matches!(last, Last::Closes | Last::IsLeft) {
            // It reads until the gateway's Close, and answers.
            let mut current: Option<Vec<u8>> = None;
            while let Some((b0, payload)) = try_hear(&mut rig.server, Sender::Client).await {
                match b0 {
                    0x02 => current = Some(payload),
                    0x80 => {
                        let mut message = current.take().unwrap();
                        message.extend(payload);
                        heard.push(message[0]);
                        if matches!(last, Last::IsLeft) {
                            let _ = rig.server.write_all(&frame(0x82, &message[..1])).await;
                        }
                    }
                    0x88 => break,
                    other => panic!("{other:#x}"),
                }
            }
            assert!(current.is_none(), "no message is cut by an end in order");
            if matches!(last, Last::IsLeft) {
                let _ = rig.server.write_all(&frame(0x88, &1001_u16.to_be_bytes())).await;
            }
        } else {
            has_broken = true;
        }
        let (server, next) = duplex(64);
        drop(std::mem::replace(&mut rig.server, server));
        while rig.lost.lock().unwrap().len() < expects && !is_cut.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let _ = rig.servers.send(Ok(Box::new(Drip::new(next, seed ^ i as u64))));
    }
    let is_sorted = heard.windows(2).all(|pair| pair[0] < pair[1]);
    assert!(is_sorted, "nothing is reordered or duplicated: {heard:?}");
    if !has_broken {
        assert_eq!(heard.len(), count, "all arrive where servers end in order");
        assert!(!is_cut.load(Ordering::Relaxed));
    }
    drop(rig.server);
    rig.relay.abort();
    let answers = answers.await.unwrap();
    assert!(answers.windows(2).all(|pair| pair[0] < pair[1]), "{answers:?}");
    assert!(answers.iter().all(|answer| heard.contains(answer)));
    drop(sending);
}

/// The next whole frame; `None` at any end.
async fn try_hear(io: &mut (impl AsyncRead + Unpin), sender: Sender) -> Option<(u8, Vec<u8>)> {
    let mut wire = Vec::new();
    loop {
        match scan_head(&wire, sender).unwrap() {
            Scan::Need(_) => wire.push(io.read_u8().await.ok()?),
            Scan::Head(head) => {
                let mut payload = vec![0; usize::try_from(head.payload_len).unwrap()];
                io.read_exact(&mut payload).await.ok()?;
                if let Some(mask) = head.mask {
                    unmask(&mut payload, mask, 0);
                }
                return Some((wire[0], payload));
            }
        }
    }
}
