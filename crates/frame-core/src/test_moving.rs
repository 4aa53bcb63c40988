//! A session that goes from process to process between any two polls does, poll by poll, what one does that stays.
//!
//! A seed that fails says so; `SIMULATION_SEED=… cargo test -p frame-core moving` runs it alone.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use net_io::count::Sizes;
use net_io::state::{StateBytes, StateError};
use tokio::time::advance;

use crate::handle::{EndMode, Order, SessionHandle};
use crate::head::{Scan, Sender, scan_head};
use crate::ledger::{Carried, Ledger};
use crate::outcome::{Outcome, Snapshot};
use crate::policy::Policy;
use crate::sequence::Limits;
use crate::test_io::masked;
use crate::test_net::{Net, Random, Stream, Task};

const SEEDS: u64 = 1_000;
/// Steps in which a session that was ordered to end has to end.
const END_STEPS: usize = 4_000;

/// A session of one kind, with its streams.
pub(crate) trait Moving: Sized {
    /// The client gets frames, and not a server's bytes as they are.
    const IS_FRAMED: bool;

    fn new(client: Stream, backend: Stream, policy: Policy, handle: SessionHandle) -> Self;
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome>;
    /// Its state as bytes, and the session that is made of these; `None`: its end has begun.
    fn move_over(self, handle: SessionHandle) -> Result<Self, Self>;
    /// How it is, and in what time something is due.
    fn look(&self) -> (Snapshot, Option<Duration>);
}

/// What a session did.
#[derive(Debug, PartialEq, Eq)]
struct Trace {
    steps: Vec<(Snapshot, Option<Duration>)>,
    outcome: Outcome,
    received: [Vec<u8>; 2],
}

/// A peer.
struct Far {
    net: Rc<RefCell<Net>>,
    /// What it is still to send.
    script: VecDeque<u8>,
}

impl Far {
    fn new(random: &mut Random, world: u64, script: Vec<u8>) -> Self {
        let net = Net::new(random.below(2000), world);
        Self { net: Rc::new(RefCell::new(net)), script: script.into() }
    }

    fn send(&mut self, most: usize) {
        let net = &mut *self.net.borrow_mut();
        if net.end.is_some() {
            return;
        }
        let most = most.min(self.script.len());
        net.incoming.extend(self.script.drain(..most));
        net.reader.take().into_iter().for_each(Waker::wake);
    }

    fn make_room(&self, len: usize) {
        let net = &mut *self.net.borrow_mut();
        net.room += len;
        net.writer.take().into_iter().for_each(Waker::wake);
    }

    fn end(&self, kind: Option<io::ErrorKind>) {
        let net = &mut *self.net.borrow_mut();
        net.end.get_or_insert(kind);
        net.reader.take().into_iter().for_each(Waker::wake);
    }
}

/// Frames of a client: most of them good ones.
fn frames(random: &mut Random) -> Vec<u8> {
    let mut wire = Vec::new();
    for _ in 0..random.below(12) {
        let most = if random.one_in(20) { 200_000 } else { 300 };
        let mut payload = vec![b'x'; random.below(most)];
        match random.below(12) {
            0 => wire.extend(masked(0x89, b"ping")),
            1 => wire.extend(masked(0x8A, b"unasked")),
            2 => {
                payload.extend("κόσμε".bytes());
                let at = random.below(payload.len() + 1);
                wire.extend(masked(0x01, &payload[..at]));
                wire.extend(masked(0x89, b"between"));
                wire.extend(masked(0x80, &payload[at..]));
            }
            3 if random.one_in(4) => wire.extend(masked(0x80, b"no message has begun")),
            4 if random.one_in(4) => wire.extend(masked(0x81, b"no text: \xFF")),
            5 if random.one_in(4) => wire.extend(masked(0x88, &1000_u16.to_be_bytes())),
            6 => wire.extend(masked(0x81, &payload)),
            _ => wire.extend(masked(0x82, &payload)),
        }
    }
    wire
}

struct World<M> {
    random: Random,
    session: Option<M>,
    handle: SessionHandle,
    task: Arc<Task>,
    budget: Rc<Cell<u32>>,
    client: Far,
    backend: Far,
    /// What says when the session goes to another process; `None`: never.
    moves: Option<Random>,
    moved: u32,
}

impl<M: Moving> World<M> {
    fn new(seed: u64, moves: bool) -> Self {
        let mut random = Random(seed);
        let mut seconds = |end| Duration::from_secs(1 + random.below(end) as u64);
        let (idle, lifetime, ping, pong) = (seconds(40), seconds(60), seconds(20), seconds(10));
        let policy = Policy {
            limits: Limits { message_max: 1 << 20, deflate: false },
            idle_timeout: (!random.one_in(3)).then_some(idle),
            lifetime: random.one_in(4).then_some(lifetime),
            ping_interval: (!random.one_in(3)).then_some(ping),
            pong_timeout: pong,
        };
        let script = frames(&mut random);
        let client = Far::new(&mut random, seed ^ 1, script);
        let most = if random.one_in(4) { 300_000 } else { 1000 };
        let script = (0..random.below(most)).map(|at| at.to_le_bytes()[at % 2]).collect();
        let backend = Far::new(&mut random, seed ^ 2, script);
        let budget = Rc::<Cell<u32>>::default();
        let stream = |far: &Far| Stream { net: far.net.clone(), budget: budget.clone() };
        let handle = SessionHandle::new();
        Self {
            session: Some(M::new(stream(&client), stream(&backend), policy, handle.clone())),
            random,
            handle,
            task: Arc::default(),
            budget,
            client,
            backend,
            moves: moves.then_some(Random(seed ^ 3)),
            moved: 0,
        }
    }

    fn far(&mut self) -> &mut Far {
        if self.random.one_in(2) { &mut self.client } else { &mut self.backend }
    }

    fn order(&mut self) {
        let within = self.random.millis(8000);
        self.handle.end(Order { code: 1001, mode: EndMode::AfterMessages { within } });
    }

    /// One of the things that happen to a session.
    async fn happen(&mut self) {
        match self.random.below(64) {
            0..=25 => {
                let most = if self.random.one_in(2) { 40 } else { 1 << 17 };
                let most = self.random.below(most);
                self.far().send(most);
            }
            26..=43 => {
                let most = if self.random.one_in(2) { 100 } else { 1 << 17 };
                let len = self.random.below(most);
                self.far().make_room(len);
            }
            44..=53 => {
                let most = if self.random.one_in(4) { 5000 } else { 50 };
                advance(self.random.millis(most)).await;
            }
            54 => self.order(),
            55..=57 => drop(self.handle.request_snapshot()),
            58 if self.random.one_in(4) => {
                let reset = self.random.one_in(2).then_some(io::ErrorKind::ConnectionReset);
                self.far().end(reset);
            }
            59 if self.random.one_in(4) => self.far().net.borrow_mut().refuses = true,
            _ => {}
        }
    }

    async fn trace(mut self) -> Result<(Trace, u32), String> {
        let mut steps = Vec::new();
        let lively = 20 + self.random.below(150);
        let outcome = loop {
            if steps.len() < lively {
                self.happen().await;
            } else {
                if steps.len() == lively {
                    self.order();
                }
                if steps.len() > lively + END_STEPS {
                    return Err("it doesn't end".into());
                }
                for far in [&mut self.client, &mut self.backend] {
                    far.send(1 << 20);
                    far.make_room(1 << 20);
                    if far.net.borrow().shut {
                        far.end(None);
                    }
                }
                advance(Duration::from_millis(20)).await;
            }
            let Some(mut session) = self.session.take() else { return Err("it is lost".into()) };
            let budget = if self.random.one_in(3) { self.random.below(6) } else { 128 };
            self.budget.set(u32::try_from(budget).unwrap());
            let waker = Waker::from(self.task.clone());
            if let Poll::Ready(outcome) = session.poll(&mut Context::from_waker(&waker)) {
                break outcome;
            }
            steps.push(session.look());
            if self.moves.as_mut().is_some_and(|moves| moves.one_in(2)) {
                // A process has a handle of its own. An order that is in force goes along.
                let handle = SessionHandle::new();
                session = match session.move_over(handle.clone()) {
                    Ok(moved) => {
                        (self.handle, self.task) = (handle, Arc::default());
                        self.moved += 1;
                        moved
                    }
                    Err(stays) => stays,
                };
            }
            self.session = Some(session);
        };
        let client = self.client.net.borrow().out.clone();
        let client = if M::IS_FRAMED { without_pings(client) } else { client };
        let received = [client, self.backend.net.borrow().out.clone()];
        Ok((Trace { steps, outcome, received }, self.moved))
    }
}

/// The payloads of the gateway's pings are drawn.
fn without_pings(mut wire: Vec<u8>) -> Vec<u8> {
    let mut at = 0;
    while let Ok(Scan::Head(head)) = scan_head(&wire[at..], Sender::Server) {
        let from = at + head.head_len;
        let to = from.saturating_add(usize::try_from(head.payload_len).unwrap()).min(wire.len());
        if wire[at] == 0x89 {
            wire[from..to].fill(0);
        }
        at = to;
    }
    wire
}

/// Compares, for many seeds, a session that moves between any two polls with one that stays.
pub(crate) fn check<M: Moving>() {
    let only = std::env::var("SIMULATION_SEED").ok().map(|seed| seed.parse().unwrap());
    let seeds = only.map_or(0..SEEDS, |seed: u64| seed..seed + 1);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let mut moved = 0;
    for seed in seeds {
        let traces = runtime.block_on(async {
            let (stays, _) = World::<M>::new(seed, false).trace().await?;
            let (moves, moved) = World::<M>::new(seed, true).trace().await?;
            Ok::<_, String>((stays, moves, moved))
        });
        let (stays, moves, times) = traces.unwrap_or_else(|e| panic!("SIMULATION_SEED={seed}: {e}"));
        moved += times;
        let differs = stays.steps.iter().zip(&moves.steps).position(|(a, b)| a != b);
        if let Some(at) = differs {
            panic!(
                "SIMULATION_SEED={seed}, step {at}: {:?} and, moved, {:?}",
                stays.steps[at], moves.steps[at]
            );
        }
        assert_eq!(stays.steps.len(), moves.steps.len(), "SIMULATION_SEED={seed}");
        assert_eq!(stays.outcome, moves.outcome, "SIMULATION_SEED={seed}");
        assert!(stays.received == moves.received, "SIMULATION_SEED={seed}: other bytes");
    }
    assert!(u64::from(moved) > 5 * SEEDS || only.is_some(), "{moved}");
}

/// The bytes of a sample, which has lines of hexadecimal digits.
pub(crate) fn sample(text: &str) -> Vec<u8> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let digits: String = lines.flat_map(str::split_whitespace).collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// What this release writes of a sample of version 1: `len` bytes more, which say that nothing has been measured. They
/// are a section at the end of the last of those that begin at `sections`, each within the one before.
pub(crate) fn with_nothing_measured(mut sample: Vec<u8>, sections: &[usize], len: usize) -> Vec<u8> {
    let len_at = |sample: &[u8], at: usize| u32::from_be_bytes(sample[at..at + 4].try_into().unwrap());
    let last = *sections.last().unwrap();
    let end = last + 4 + usize::try_from(len_at(&sample, last)).unwrap();
    let new = [&u32::try_from(len).unwrap().to_be_bytes()[..], &vec![0; len]].concat();
    let added = u32::try_from(new.len()).unwrap();
    sample.splice(end..end, new);
    for &at in sections {
        let len = len_at(&sample, at) + added;
        sample[at..at + 4].copy_from_slice(&len.to_be_bytes());
    }
    sample
}

/// What this release and those before it have written is understood for ever, and what is no state is refused. `again`
/// reads a state, and writes it; `new` is how it writes the sample today.
pub(crate) fn check_sample(
    text: &str,
    new: impl Fn(Vec<u8>) -> Vec<u8>,
    again: fn(&[u8]) -> Result<StateBytes, StateError>,
) {
    let state = sample(text);
    let today = new(state.clone());
    assert_eq!(*again(&state).unwrap(), today, "a field was added: keep the sample, and read it as before");
    assert_eq!(*again(&today).unwrap(), today);
    let added = today.len() - state.len();
    for len in 0..state.len() {
        assert_eq!(again(&state[..len]).unwrap_err(), StateError::Truncated, "{len}");
    }
    assert_eq!(again(&[&state[..], b"x"].concat()).unwrap_err(), StateError::Overlong);
    let mut newer = state.clone();
    newer[0] = 200;
    assert!(matches!(again(&newer), Err(StateError::TooNew { needs: 200, .. })));
    for at in 1..state.len() {
        for value in [0, 1, 2, 3, 5, 0x7F, 0x80, 0xFF] {
            let mut other = state.clone();
            other[at] = value;
            if let Ok(written) = again(&other) {
                assert!(written.len() <= other.len() + added, "{at} {value}");
            }
        }
    }
}

/// Messages and bytes from the client, then from the backend, each time; how long pings took; and messages by size.
#[derive(Debug, Default)]
pub(crate) struct Page(
    pub(crate) Mutex<Vec<[u64; 4]>>,
    pub(crate) Mutex<Vec<u32>>,
    pub(crate) [Arc<Sizes>; 2],
);

impl Ledger for Page {
    fn add(&self, carried: &Carried) {
        let Carried { from_client: up, from_backend: down } = carried;
        self.0.lock().unwrap().push([up.messages, up.payload_bytes, down.messages, down.payload_bytes]);
    }

    fn ping(&self, took_us: u32) {
        self.1.lock().unwrap().push(took_us);
    }

    fn sizes(&self) -> [&Arc<Sizes>; 2] {
        self.2.each_ref()
    }
}
