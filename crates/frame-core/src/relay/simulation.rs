//! A relay in a small world of its own, driven by a seed: streams that give and take in parts, stall and
//! break, budgets that end, a clock that lags, a worker that is busy, alarms and orders. The task is polled
//! only when its waker was woken, and streams keep a waker only while they have nothing: a wake-up that is
//! lost shows as a session that sleeps although there is something to do.
//!
//! A seed that fails says so; `SIMULATION_SEED=… cargo test -p frame-core simulation` runs it alone.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::Waker;

use tokio::time::{Instant, advance};

use super::*;
use crate::handle::{EndMode, FreezeMode};
use crate::head::{Scan, scan_head, unmask};
use crate::test_io::{frame, masked};
use crate::test_net::{Net, Random, Stream, Task};

const SEEDS: u64 = 10_000;
/// Of sessions that go from process to process.
const MOVING_SEEDS: u64 = 1_000;
const THREADS: usize = 2;
/// How late an alarm may be seen: the clock's lag, and the millisecond that tokio's timers round up to.
const LATE_MAX: Duration = Duration::from_millis(LAG_MS + 2);
const LAG_MS: u64 = 10;
/// A session that is ordered to end, and whose peers do all they should, has ended so long after it.
const END_MAX: Duration = Duration::from_secs(60);

/// A clock that is behind by less than so many milliseconds.
#[derive(Clone, Copy, Debug)]
struct Lagging(Instant, u64);

impl Clock for Lagging {
    fn now(&self) -> Duration {
        let exact = u64::try_from(self.0.elapsed().as_millis()).unwrap();
        Duration::from_millis(exact / self.1 * self.1)
    }

    fn now_exactly(&self) -> Duration {
        self.0.elapsed()
    }

    fn instant(&self, at: Duration) -> Instant {
        self.0 + at
    }
}

/// A client or a backend: what it sends, and what it has received.
struct Far {
    net: Rc<RefCell<Net>>,
    party: Party,
    /// Whole frames that are still to be sent.
    script: VecDeque<Vec<u8>>,
    /// The rest of the frame that is being sent.
    rest: VecDeque<u8>,
    /// Frames that must arrive at the other side, as they are.
    sent: Vec<Vec<u8>>,
    /// How many of the other side's have arrived here.
    received: usize,
    received_len: usize,
    /// It answers pings of the gateway's.
    answers: bool,
    closed: bool,
    has_received_close: bool,
}

impl Far {
    fn new(party: Party, random: &mut Random, world: u64) -> Self {
        let net = Net::new(random.below(2000), world);
        let mut far = Self {
            net: Rc::new(RefCell::new(net)),
            party,
            script: VecDeque::new(),
            rest: VecDeque::new(),
            sent: Vec::new(),
            received: 0,
            received_len: 0,
            answers: !random.one_in(4),
            closed: false,
            has_received_close: false,
        };
        for number in 0..random.below(8) {
            let fragments = 1 + random.below(3);
            for i in 0..fragments {
                let first = if i == 0 { 0x02 } else { 0x00 };
                let fin = if i + 1 == fragments { 0x80 } else { 0x00 };
                let most = if random.one_in(60) { 600_000 } else { 300 };
                let payload = vec![u8::try_from(number).unwrap(); random.below(most)];
                far.script.push_back(far.encode(first | fin, &payload));
                if random.one_in(6) {
                    far.script.push_back(far.encode(0x8A, b"unasked"));
                }
            }
        }
        if random.one_in(3) {
            far.script.push_back(far.encode(0x88, &1000_u16.to_be_bytes()));
        }
        far
    }

    fn encode(&self, b0: u8, payload: &[u8]) -> Vec<u8> {
        if self.party == Party::Client { masked(b0, payload) } else { frame(b0, payload) }
    }

    /// Sends at most so many bytes of its script.
    fn send(&mut self, mut most: usize) {
        let net = &mut *self.net.borrow_mut();
        if net.end.is_some() {
            return;
        }
        while most > 0 {
            if self.rest.is_empty() {
                let Some(frame) = self.script.pop_front() else { break };
                self.rest.extend(&frame);
                match frame[0] {
                    0x88 => {
                        self.closed = true;
                        self.script.clear(); // nothing may follow (RFC 6455 §5.5.1)
                    }
                    0x8A if !frame.ends_with(&self.encode(0x8A, b"unasked")) => {}
                    _ => self.sent.push(frame),
                }
            }
            let n = most.min(self.rest.len());
            net.incoming.extend(self.rest.drain(..n));
            most -= n;
        }
        if !net.incoming.is_empty() {
            net.reader.take().into_iter().for_each(Waker::wake);
        }
    }

    fn end(&self, kind: Option<io::ErrorKind>) {
        let net = &mut *self.net.borrow_mut();
        net.end.get_or_insert(kind);
        net.reader.take().into_iter().for_each(Waker::wake);
    }

    fn make_room(&self, len: usize) {
        let net = &mut *self.net.borrow_mut();
        net.room += len;
        if net.room > 0 {
            net.writer.take().into_iter().for_each(Waker::wake);
        }
    }

    fn refuse(&self) {
        let net = &mut *self.net.borrow_mut();
        net.refuses = true;
        net.writer.take().into_iter().for_each(Waker::wake);
    }

    /// Looks at what has arrived: frames of the other side as they were sent and in their order, and
    /// between them those of the gateway.
    fn receive(&mut self, other: &[Vec<u8>]) -> Result<(), String> {
        loop {
            let net = self.net.borrow();
            let wire = &net.out[self.received_len..];
            let sender = if self.party == Party::Client { Sender::Server } else { Sender::Client };
            let head = match scan_head(wire, sender) {
                Ok(Scan::Head(head)) => head,
                Ok(Scan::Need(_)) => return Ok(()),
                Err(e) => return Err(format!("{:?} sender nonsense: {e}", self.party)),
            };
            let mask_len = if head.mask.is_some() { 4 } else { 0 };
            let extended = match wire[1] & 0x7F {
                126 => 2,
                127 => 8,
                _ => 0,
            };
            let head_len = 2 + extended + mask_len;
            let len = head_len + usize::try_from(head.payload_len).unwrap();
            let Some(received) = wire.get(..len).map(<[u8]>::to_vec) else { return Ok(()) };
            drop(net);
            self.received_len += len;
            match received[0] {
                0x89 if self.answers => {
                    let mut payload = received[head_len..].to_vec();
                    if let Some(mask) = head.mask {
                        unmask(&mut payload, mask, 0);
                    }
                    if !self.closed {
                        self.script.push_front(self.encode(0x8A, &payload));
                    }
                }
                0x89 => {}
                0x88 => {
                    self.has_received_close = true;
                    self.script.clear();
                    if !self.closed {
                        self.script.push_back(self.encode(0x88, &1000_u16.to_be_bytes()));
                    }
                }
                _ if other.get(self.received) == Some(&received) => self.received += 1,
                b0 => return Err(format!("{:?} sender {b0:#x}, number {}", self.party, self.received)),
            }
        }
    }
}

struct World {
    random: Random,
    clock: Lagging,
    relay: Relay<Lagging>,
    task: Arc<Task>,
    budget: Rc<Cell<u32>>,
    client: Far,
    backend: Far,
    streams: (Stream, Stream),
    handle: SessionHandle,
    outcome: Option<Outcome>,
    /// What says when the session goes to another process; `None`: never.
    moves: Option<Random>,
    /// How often it did.
    moved: u32,
    /// Nothing was broken, ended by order, or slow for long enough to be given up.
    is_sound: bool,
}

impl World {
    fn new(seed: u64, moves: bool, lag_ms: u64) -> Self {
        let mut random = Random(seed);
        let seconds = |random: &mut Random, end| Duration::from_secs(1 + random.below(end) as u64);
        let policy = Policy {
            limits: crate::sequence::Limits { message_max: u64::MAX, deflate: false },
            idle_timeout: (!random.one_in(3)).then(|| seconds(&mut random, 40)),
            lifetime: random.one_in(4).then(|| seconds(&mut random, 60)),
            ping_interval: (!random.one_in(3)).then(|| seconds(&mut random, 20)),
            pong_timeout: seconds(&mut random, 10),
        };
        let client = Far::new(Party::Client, &mut random, seed ^ 1);
        let backend = Far::new(Party::Backend, &mut random, seed ^ 2);
        let budget = Rc::<Cell<u32>>::default();
        let stream = |far: &Far| Stream { net: far.net.clone(), budget: budget.clone() };
        let streams = (stream(&client), stream(&backend));
        let clock = Lagging(Instant::now(), lag_ms);
        Self {
            random,
            clock,
            relay: Relay::new(&policy, clock, |sender| Scanner::new(sender, policy.limits)),
            task: Arc::new(Task(AtomicBool::new(true))),
            budget,
            client,
            backend,
            streams,
            handle: SessionHandle::new(),
            outcome: None,
            moves: moves.then_some(Random(seed ^ 3)),
            moved: 0,
            is_sound: true,
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
            0..=23 => {
                let most = if self.random.one_in(2) { 40 } else { 1 << 20 };
                let most = self.random.below(most);
                self.far().send(most);
            }
            24..=43 => {
                let most = if self.random.one_in(2) { 100 } else { 1 << 20 };
                let len = self.random.below(most);
                self.far().make_room(len);
            }
            44..=53 => {
                let most = if self.random.one_in(4) { 5000 } else { 50 };
                advance(self.random.millis(most)).await;
            }
            54 => {
                self.is_sound = false;
                self.order();
            }
            55..=57 => drop(self.handle.request_snapshot()),
            58 if self.random.one_in(4) => {
                self.is_sound = false;
                let reset = self.random.one_in(2).then_some(io::ErrorKind::ConnectionReset);
                self.far().end(reset);
            }
            59 if self.random.one_in(4) => {
                self.is_sound = false;
                self.far().refuse();
            }
            _ => {}
        }
    }

    /// Now and then the session is asked to freeze; its task is woken.
    fn ask_to_freeze(&mut self) {
        if let Some(moves) = &mut self.moves
            && moves.one_in(3)
        {
            let mode = if moves.one_in(2) { FreezeMode::BetweenWrites } else { FreezeMode::AsItIs };
            self.handle.freeze(mode);
        }
    }

    /// Another process takes the session over: it has a task, a handle and a runtime of its own.
    fn take_over(&mut self, state: Box<RelayState>) -> Result<(), String> {
        let (bytes, snapshot) = (state.encode(), state.snapshot());
        drop(state);
        let state = RelayState::decode(&bytes).map_err(|e| e.to_string())?;
        assert_eq!(
            (state.encode(), state.snapshot()),
            (bytes, snapshot),
            "nothing is added or lost on the way"
        );
        self.relay = state.thaw(self.clock);
        (self.task, self.handle) = (Arc::new(Task(AtomicBool::new(true))), SessionHandle::new());
        self.moved += 1;
        Ok(())
    }

    /// Polls the task if it was woken.
    async fn turn(&mut self) -> Result<(), String> {
        tokio::task::yield_now().await; // those that let others go first are woken
        if self.outcome.is_none() && self.task.0.swap(false, Ordering::Relaxed) {
            let budget = if self.random.one_in(3) { self.random.below(6) } else { 128 };
            self.budget.set(u32::try_from(budget).unwrap());
            let waker = Waker::from(self.task.clone());
            let cx = &mut Context::from_waker(&waker);
            let (client, backend) = (&mut self.streams.0, &mut self.streams.1);
            match self.relay.poll(cx, client, backend, &self.handle) {
                Poll::Ready(Ending::Over(outcome)) => self.outcome = Some(outcome),
                Poll::Ready(Ending::Frozen(state)) => self.take_over(state)?,
                Poll::Pending => {
                    tokio::task::yield_now().await;
                    self.look()?;
                }
            }
        }
        self.client.receive(&self.backend.sent)?;
        self.backend.receive(&self.client.sent)
    }

    /// A session that sleeps has nothing to do.
    fn look(&self) -> Result<(), String> {
        if self.task.0.load(Ordering::Relaxed) {
            return Ok(());
        }
        let now = self.clock.now_exactly();
        if let Some(next) = self.relay.supervisor.next_due()
            && now > next + LATE_MAX
        {
            return Err(format!("it sleeps at {now:?}, after its deadline {next:?}"));
        }
        if self.relay.shutdown.is_some() || self.relay.cause.is_some() {
            return Ok(());
        }
        for (from, to) in [(&self.client, &self.backend), (&self.backend, &self.client)] {
            let (source, sink) = (from.net.borrow(), to.net.borrow());
            if sink.writer.is_some() {
                continue; // it will be woken when there is room
            }
            if !source.incoming.is_empty() || source.reader.is_none() && source.end.is_none() {
                return Err(format!(
                    "it sleeps with {} bytes of {:?} unread; a waker: {}",
                    source.incoming.len(),
                    from.party,
                    source.reader.is_some()
                ));
            }
        }
        Ok(())
    }

    /// A worker that is busy elsewhere lets a session wait; what happens meanwhile comes together.
    async fn live(&mut self) -> Result<(), String> {
        for _ in 0..20 + self.random.below(100) {
            self.happen().await;
            self.ask_to_freeze();
            if self.random.one_in(8) {
                continue;
            }
            self.turn().await?;
            self.look_when_asleep()?;
            if self.outcome.is_some() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn look_when_asleep(&self) -> Result<(), String> {
        if self.outcome.is_some() { Ok(()) } else { self.look() }
    }

    /// From here on peers say all they have to say, take everything, and end when they should.
    async fn settle(&mut self) -> Result<(), String> {
        self.is_sound &= self.clock.now() < CLOSE_ANSWER_WAIT;
        self.order();
        let begun = Instant::now();
        while self.outcome.is_none() {
            if begun.elapsed() > END_MAX {
                return Err(format!("it doesn't end: {:?}", self.relay));
            }
            for far in [&mut self.client, &mut self.backend] {
                far.send(1 << 20);
                far.make_room(1 << 20);
                if far.net.borrow().shut {
                    far.end(None);
                }
            }
            self.ask_to_freeze();
            self.turn().await?;
            self.look_when_asleep()?;
            if !self.task.0.load(Ordering::Relaxed) {
                advance(self.random.millis(400)).await;
            }
        }
        let whole = |to: &Far, from: &Far| to.received == from.sent.len();
        let (client, backend) = (&self.client, &self.backend);
        let outcome = self.outcome.as_ref().unwrap();
        if self.is_sound
            && matches!(outcome.cause, Cause::Closed { by: Party::Client, .. })
            && !whole(backend, client)
        {
            return Err("frames before the client's Close are missing".into());
        }
        if self.is_sound
            && matches!(outcome.cause, Cause::Closed { by: Party::Backend, .. })
            && !whole(client, backend)
        {
            return Err("frames before the backend's Close are missing".into());
        }
        Ok(())
    }
}

/// What a session did, for comparison with another.
#[derive(Debug, PartialEq, Eq)]
struct Trace {
    /// After each poll: what it has carried, and when something is due.
    steps: Vec<(Snapshot, Option<Duration>)>,
    outcome: Outcome,
    /// All that each peer has received, without masks, which are drawn, and without the payloads of pings.
    received: [Vec<(u8, Vec<u8>)>; 2],
}

impl World {
    /// Everything happens at the same time and in the same polls, whether the session moves or not: it
    /// moves between any two polls.
    async fn trace(mut self) -> Result<(Trace, u32), String> {
        let mut steps = Vec::new();
        let lively = 20 + self.random.below(150);
        let begun = Instant::now();
        while self.outcome.is_none() {
            if steps.len() < lively {
                self.happen().await;
            } else {
                if steps.len() == lively {
                    self.order();
                }
                if begun.elapsed() > 20 * END_MAX {
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
            self.task.0.store(true, Ordering::Relaxed); // a poll too many does no harm
            self.poll_and_move()?;
            self.client.receive(&self.backend.sent)?;
            self.backend.receive(&self.client.sent)?;
            let now = self.clock.now_exactly();
            steps.push((self.relay.snapshot(now), self.relay.supervisor.next_due()));
        }
        let received = [&self.client, &self.backend].map(Far::received_frames);
        Ok((Trace { steps, outcome: self.outcome.unwrap(), received }, self.moved))
    }

    fn poll_and_move(&mut self) -> Result<(), String> {
        let budget = if self.random.one_in(3) { self.random.below(6) } else { 128 };
        self.budget.set(u32::try_from(budget).unwrap());
        let waker = Waker::from(self.task.clone());
        let cx = &mut Context::from_waker(&waker);
        let (client, backend) = (&mut self.streams.0, &mut self.streams.1);
        match self.relay.poll(cx, client, backend, &self.handle) {
            Poll::Ready(Ending::Over(outcome)) => self.outcome = Some(outcome),
            Poll::Ready(Ending::Frozen(_)) => return Err("nothing has asked for it".into()),
            Poll::Pending => {}
        }
        let now = self.clock.now_exactly();
        if self.outcome.is_none() && self.moves.as_mut().is_some_and(|moves| moves.one_in(2)) {
            self.handle.freeze(FreezeMode::AsItIs);
            match self.relay.freeze(&self.handle, now, None) {
                Some(state) => self.take_over(state)?,
                None => self.handle.cancel_freeze(), // it is being shut down
            }
        }
        Ok(())
    }
}

impl Far {
    fn received_frames(&self) -> Vec<(u8, Vec<u8>)> {
        let net = self.net.borrow();
        let sender = if self.party == Party::Client { Sender::Server } else { Sender::Client };
        let (mut wire, mut frames) = (&net.out[..], Vec::new());
        while let Ok(Scan::Head(head)) = scan_head(wire, sender) {
            let len = usize::try_from(head.payload_len).unwrap().min(wire.len() - head.head_len);
            let mut payload = wire[head.head_len..head.head_len + len].to_vec();
            if let Some(mask) = head.mask {
                unmask(&mut payload, mask, 0);
            }
            if wire[0] == 0x89 || (len as u64) < head.payload_len {
                payload.fill(0); // drawn; or perhaps not from the peer, if the frame was cut off
            }
            frames.push((wire[0], payload));
            wire = &wire[head.head_len + len..];
        }
        frames
    }
}

fn lives(seeds: impl Iterator<Item = u64>, live: impl AsyncFn(u64) -> Result<(), String>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    for seed in seeds {
        let lived = catch_unwind(AssertUnwindSafe(|| runtime.block_on(live(seed))));
        let lived = lived.unwrap_or_else(|_| Err("it panics, as said above".into()));
        if let Err(what) = lived {
            panic!("SIMULATION_SEED={seed}: {what}");
        }
    }
}

/// All seeds below `end`, or the one that is asked for.
fn simulate(end: u64, live: impl AsyncFn(u64) -> Result<(), String> + Copy + Send) {
    if let Ok(seed) = std::env::var("SIMULATION_SEED") {
        return lives(std::iter::once(seed.parse().unwrap()), live);
    }
    std::thread::scope(|scope| {
        for thread in 0..THREADS as u64 {
            scope.spawn(move || lives((thread..end).step_by(THREADS), live));
        }
    });
}

#[test]
fn ten_thousand_sessions_lose_nothing_and_sleep_through_nothing() {
    simulate(SEEDS, async |seed| {
        let mut world = World::new(seed, false, LAG_MS);
        world.live().await?;
        world.settle().await
    });
}

#[test]
fn sessions_that_go_from_process_to_process_lose_nothing_and_sleep_through_nothing() {
    let moved = AtomicU32::new(0);
    let moved_so_far = &moved;
    simulate(MOVING_SEEDS, async move |seed| {
        let mut world = World::new(seed, true, LAG_MS);
        world.live().await?;
        let settled = world.settle().await;
        moved_so_far.fetch_add(world.moved, Ordering::Relaxed);
        settled
    });
    let moved = moved.into_inner();
    assert!(moved > 3, "{moved}");
}

/// Between any two polls. The clock is exact: a timer that has fired, and is set again, must not seem to be late.
#[test]
fn a_session_that_goes_from_process_to_process_does_what_it_would_have_done() {
    let moved = AtomicU32::new(0);
    let moved_so_far = &moved;
    simulate(MOVING_SEEDS, async move |seed| {
        let (stays, _) = World::new(seed, false, 1).trace().await?;
        let (moves, moved) = World::new(seed, true, 1).trace().await?;
        moved_so_far.fetch_add(moved, Ordering::Relaxed);
        if stays.steps != moves.steps {
            let differs = stays.steps.iter().zip(&moves.steps).position(|(a, b)| a != b);
            let at = differs.unwrap_or_else(|| stays.steps.len().min(moves.steps.len()));
            return Err(format!(
                "step {at}: {:?} and, moved, {:?}",
                stays.steps.get(at),
                moves.steps.get(at)
            ));
        }
        if stays.outcome != moves.outcome {
            return Err(format!("{:?} and, moved, {:?}", stays.outcome, moves.outcome));
        }
        for (stays, moves) in stays.received.iter().zip(&moves.received) {
            let differs = stays.iter().zip(moves).position(|(a, b)| a != b);
            if stays != moves {
                let at = differs.unwrap_or_else(|| stays.len().min(moves.len()));
                return Err(format!("frame {at}: {:?} and, moved, {:?}", stays.get(at), moves.get(at)));
            }
        }
        Ok(())
    });
    let moved = moved.into_inner();
    assert!(moved > 3, "{moved}");
}
