//! A TLS stream in a small world of its own, driven by a seed: a client that sends its records in parts, between
//! them empty ones, alerts and KeyUpdates, that stalls, breaks off and doesn't read; budgets that end, a task
//! that is given up for another, looks of the sweep. The sockets are real and small. The task is polled only when
//! its waker was woken: a wake-up that is lost shows as a stream that sleeps although there is something to do.
//!
//! A seed that fails says so; `SIMULATION_SEED=… cargo test -p tls-acceptor simulation` runs it alone.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use net_io::sweep;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::{set_socket_linger, set_socket_send_buffer_size};
use rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES;
use rustls::crypto::cipher::{AeadKey, Iv};
use rustls::{CipherSuite, ConnectionTrafficSecrets, SupportedCipherSuite};
use tokio::net::TcpStream;
use tokio::task::coop::{has_budget_remaining, poll_proceed};

use super::TlsState;
use super::*;
use crate::record::{Header, Secret};

const SEEDS: u64 = 10_000;
/// Of connections that go from process to process.
const MOVING_SEEDS: u64 = 2_000;
const THREADS: usize = 2;
/// One seed in so many is a connection over TCP; the others are pairs of sockets, which deliver at once.
const TCP_EVERY: u64 = 16;
/// What the kernel may take to deliver over TCP, on a busy machine.
const DELIVERY_MAX: Duration = Duration::from_secs(10);
/// Quiet records in a row; a few more end the connection.
const QUIET_MAX: usize = 28;
const TICKET: &[u8] = &[4, 0, 0, 3, 7, 7, 7];

/// Steele and others' splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// Mostly few, seldom many.
    fn some(&mut self, many: usize) -> usize {
        let most = [2, 40, 2000, many][self.below(4)];
        1 + self.below(most.min(many))
    }
}

/// What both sides send is known at every place.
fn bytes_at(place: usize, len: usize) -> &'static [u8] {
    const PERIOD: usize = 65_521;
    static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut random = Random(0);
        let mut noise: Vec<u8> = (0..PERIOD).map(|_| random.next().to_le_bytes()[0]).collect();
        (0..5).for_each(|_| noise.extend_from_within(..PERIOD));
        noise
    });
    &NOISE[place % PERIOD..][..len]
}

/// The stream's task, as the run queue sees it.
struct Task(AtomicBool);

impl Task {
    /// A task begins with a poll.
    fn new() -> Arc<Self> {
        Arc::new(Self(AtomicBool::new(true)))
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn ready_now(fd: impl AsFd, flags: PollFlags) -> bool {
    let mut fds = [PollFd::new(&fd, flags)];
    poll(&mut fds, Some(&Timespec::default())).unwrap() > 0
}

/// The keys of both directions, for each end; and what makes the next ones.
struct Keys {
    ciphers: [Cipher; 2],
    secrets: Secrets,
}

impl Keys {
    fn new(suite: SupportedCipherSuite) -> Self {
        if suite.tls13().is_some() {
            let secret = |byte| Secret::new(&[byte; 32]).unwrap();
            let secrets = Secrets { peer: secret(1), own: secret(2) };
            let ciphers = [&secrets.peer, &secrets.own].map(|one| Cipher::first(suite, one).unwrap());
            return Self { ciphers, secrets };
        }
        let ciphers = [1, 2].map(|byte| {
            let (key, iv) = (AeadKey::from([byte; 32]), Iv::copy(&[byte; 12]));
            Cipher::new(suite, (1, ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv })).unwrap()
        });
        let [client, server] = [1, 2].map(|byte| Secret::of_key(&[byte; 32]).unwrap());
        Self { ciphers, secrets: Secrets { peer: client, own: server } }
    }
}

/// How the client's direction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    CloseNotify,
    /// With this alert.
    GivenUp(u8),
    /// A record that can't be authenticated.
    Junk,
    /// TCP's end alone.
    Cut,
    /// The whole connection is gone at once.
    Reset,
}

/// The client: what it sends, and what it has received.
struct Far {
    socket: Option<std::net::TcpStream>,
    random: Random,
    seals: Cipher,
    opens: Cipher,
    secrets: Secrets,
    /// Records until the end.
    left: usize,
    end: End,
    has_ended: bool,
    quiet: usize,
    /// Sealed, and not sent yet.
    wire: Vec<u8>,
    /// Bytes of data in what was sealed.
    sent: usize,
    inbox: Vec<u8>,
    received: usize,
    has_ticket: bool,
    alert: Option<u8>,
    at_end: bool,
}

impl Far {
    fn seal(&mut self, content_type: ContentType, content: &[u8]) {
        let mut record = vec![0; content.len() + OVERHEAD_MAX];
        let len = self.seals.seal(content_type, Content::Elsewhere(content), &mut record).unwrap();
        self.wire.extend_from_slice(&record[..len]);
    }

    /// Seals what comes next, or says that nothing does.
    fn seal_next(&mut self) -> bool {
        if self.left == 0 {
            if self.has_ended {
                return false;
            }
            self.has_ended = true;
            match self.end {
                End::CloseNotify => self.seal(ContentType::Alert, &alert(CLOSE_NOTIFY)),
                End::GivenUp(description) => self.seal(ContentType::Alert, &[2, description]),
                End::Junk => {
                    self.wire.extend_from_slice(b"\x17\x03\x03\x00\x20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
                }
                End::Cut | End::Reset => {}
            }
            if matches!(self.end, End::CloseNotify | End::GivenUp(_)) && self.random.one_in(4) {
                self.wire.extend_from_slice(b"what follows an end");
            }
            return true;
        }
        self.left -= 1;
        let tls13 = self.seals.is_tls13();
        let kind = if self.quiet > QUIET_MAX { 9 } else { self.random.below(14) };
        self.quiet += 2;
        match kind {
            0 => self.seal(ContentType::ApplicationData, b""),
            1 => self.seal(ContentType::Alert, &[1, 90]),
            2 | 3 if tls13 => {
                let update = [24, 0, 0, 1, u8::from(!self.random.one_in(3))];
                let cut = if self.random.one_in(2) { 5 } else { 1 + self.random.below(4) };
                for part in [&update[..cut], &update[cut..]] {
                    if !part.is_empty() {
                        self.seal(ContentType::Handshake, part);
                    }
                }
                self.seals = self.seals.successor(&mut self.secrets.peer).unwrap();
            }
            2 => self.seal(ContentType::Handshake, &[1, 0, 0, 0]), // a renegotiation
            _ => {
                self.quiet = 0;
                let len = self.random.some(PLAINTEXT_MAX);
                let data = bytes_at(self.sent, len);
                self.sent += len;
                self.seal(ContentType::ApplicationData, data);
            }
        }
        true
    }

    /// Sends so many bytes at most.
    fn send(&mut self, mut most: usize) {
        while most > 0 && self.socket.is_some() {
            if self.wire.is_empty() && !self.seal_next() {
                return;
            }
            let front = &self.wire[..self.wire.len().min(most)];
            let mut socket = self.socket.as_ref().unwrap();
            if !front.is_empty() {
                let Ok(n) = socket.write(front) else { return };
                self.wire.drain(..n);
                most -= n;
            }
            if self.has_ended && self.wire.is_empty() {
                match self.end {
                    End::Cut => socket.shutdown(std::net::Shutdown::Write).unwrap_or_default(),
                    End::Reset => {
                        let _ = set_socket_linger(socket, Some(Duration::ZERO)); // no matter to a pair
                        self.socket = None;
                    }
                    _ => {}
                }
            }
        }
    }

    /// Reads so many bytes at most, and looks at the records in them.
    fn receive(&mut self, most: usize) -> Result<(), String> {
        let Some(mut socket) = self.socket.as_ref() else { return Ok(()) };
        let mut some = vec![0; most];
        match socket.read(&mut some) {
            Ok(0) => self.at_end = true,
            Ok(n) => self.inbox.extend_from_slice(&some[..n]),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(format!("the client can't read: {e}")),
        }
        let mut at = 0;
        while let Some(header) = Header::parse(&self.inbox[at..], self.opens.is_tls13()).unwrap() {
            let Some(body) = self.inbox.get(at + HEADER_LEN..at + header.record_len()) else { break };
            let mut content = vec![0; body.len()];
            let opened = self.opens.open(header, body, &mut content).map_err(|e| e.to_string())?;
            at += header.record_len();
            self.on_record(opened.0, &content[..opened.1])?;
        }
        self.inbox.drain(..at);
        Ok(())
    }

    fn on_record(&mut self, content_type: ContentType, content: &[u8]) -> Result<(), String> {
        if let Some(alert) = self.alert.filter(|alert| *alert != NO_RENEGOTIATION) {
            return Err(format!("a record follows the alert {alert}"));
        }
        match content_type {
            ContentType::ApplicationData if content == bytes_at(self.received, content.len()) => {
                self.received += content.len();
            }
            ContentType::Handshake if content == TICKET && self.received == 0 && !self.has_ticket => {
                self.has_ticket = true;
            }
            ContentType::Handshake if content == KEY_UPDATE => {
                self.opens = self.opens.successor(&mut self.secrets.own).unwrap();
            }
            ContentType::Alert => self.alert = Some(content[1]),
            _ => return Err(format!("{content_type:?} is not what was to come at {}", self.received)),
        }
        Ok(())
    }
}

/// The stream's user: one task that reads and writes.
struct Near {
    tls: TlsStream,
    random: Random,
    /// It reads; else it waits for something else.
    reads: bool,
    read: usize,
    read_end: Option<io::Result<()>>,
    /// Bytes that it wants to write now.
    to_write: usize,
    written: usize,
    write_error: Option<io::Error>,
    must_flush: bool,
    /// Wants to shut down after what there is to write.
    ends: bool,
    has_shut_down: bool,
    /// Nothing has been sent since the handshake: what it left may go along with the first answer.
    tickets_pending: bool,
}

impl Near {
    fn poll(&mut self, cx: &mut Context<'_>) -> Result<(), String> {
        if self.random.one_in(2) {
            self.poll_write(cx)?;
            self.poll_read(cx)?;
        } else {
            self.poll_read(cx)?;
            self.poll_write(cx)?;
        }
        let has_sent = self.tls.state.outgoing.is_tls13() && self.tls.state.unsent.is_empty();
        self.tickets_pending &= self.written == 0 && !has_sent;
        Ok(())
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Result<(), String> {
        while self.reads && self.read_end.is_none() {
            if self.random.one_in(10) {
                cx.waker().wake_by_ref(); // others first
                break;
            }
            let mut memory = vec![0; self.random.some(300_000)];
            let mut buf = ReadBuf::new(&mut memory);
            match Pin::new(&mut self.tls).poll_read(cx, &mut buf) {
                Poll::Pending => break,
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    let len = buf.filled().len();
                    if *buf.filled() != *bytes_at(self.read, len) {
                        return Err(format!("other bytes than those that were sent, after {}", self.read));
                    }
                    self.read += len;
                }
                Poll::Ready(end) => self.read_end = Some(end),
            }
        }
        Ok(())
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<(), String> {
        while self.to_write > 0 && self.write_error.is_none() {
            let len = self.random.some(self.to_write.min(300_000));
            let bytes = bytes_at(self.written, len);
            let (one, two) = bytes.split_at(self.random.below(len));
            let slices = [io::IoSlice::new(one), io::IoSlice::new(two)];
            match Pin::new(&mut self.tls).poll_write_vectored(cx, &slices) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => return Err("a write of nothing".into()),
                Poll::Ready(Ok(n)) => {
                    (self.written, self.to_write) = (self.written + n, self.to_write - n);
                    self.must_flush = true;
                    if self.tls.state.key_wanted {
                        return Err("data under a key that the client wanted no more".into());
                    }
                }
                Poll::Ready(Err(e)) => self.write_error = Some(e),
            }
        }
        if self.write_error.is_none() && (self.must_flush || self.random.one_in(10)) {
            match Pin::new(&mut self.tls).poll_flush(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(()))
                    if self.must_flush && !(self.tls.state.parting || self.tls.state.unsent.is_empty()) =>
                {
                    return Err("flushed, and something is unsent".into());
                }
                Poll::Ready(Ok(())) => self.must_flush = false,
                Poll::Ready(Err(e)) => self.write_error = Some(e),
            }
        }
        if self.ends && !self.has_shut_down && (self.to_write == 0 || self.write_error.is_some()) {
            self.has_shut_down = match Pin::new(&mut self.tls).poll_shutdown(cx) {
                Poll::Pending => {
                    self.must_flush = true; // nothing waits for the shutdown any longer
                    false
                }
                Poll::Ready(Ok(())) => true,
                Poll::Ready(Err(e)) => {
                    self.write_error = Some(e);
                    true
                }
            };
        }
        Ok(())
    }

    /// What a stream that sleeps leaves undone.
    fn undone(&self) -> Option<&'static str> {
        let tls = &self.tls;
        let reads = self.reads && self.read_end.is_none();
        if reads && (ready_now(tls, PollFlags::IN | PollFlags::RDHUP) || tls.holds_record(&tls.state.wire)) {
            return Some("there is something to read");
        }
        let writes = self.must_flush || self.to_write > 0 || self.ends && !self.has_shut_down;
        // Tickets, and what was asked for before anything was answered, may go along with the answer.
        let control_pending = tls.state.control_pending
            || !self.tickets_pending
                && (tls.state.key_wanted && !tls.state.close_sent || !tls.state.unsent.is_empty());
        let waits = self.write_error.is_none() && (writes || reads && control_pending && !tls.state.parting);
        (waits && ready_now(tls, PollFlags::OUT)).then_some("there is something to send")
    }
}

struct World {
    random: Random,
    task: Arc<Task>,
    near: Near,
    far: Far,
}

impl World {
    fn new(seed: u64, listener: &std::net::TcpListener) -> Self {
        let mut random = Random(seed);
        let tls13 = !random.one_in(4);
        let wanted = if tls13 {
            CipherSuite::TLS13_AES_128_GCM_SHA256
        } else {
            CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        };
        let suite = *ALL_CIPHER_SUITES.iter().find(|suite| suite.suite() == wanted).unwrap();
        let (near, far) = if seed.is_multiple_of(TCP_EVERY) {
            let far = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            (listener.accept().unwrap().0, far)
        } else {
            let (near, far) = UnixStream::pair().unwrap();
            set_socket_send_buffer_size(&near, 1 << random.below(17)).unwrap();
            set_socket_send_buffer_size(&far, 1 << random.below(17)).unwrap();
            (OwnedFd::from(near).into(), OwnedFd::from(far).into())
        };
        near.set_nonblocking(true).unwrap();
        far.set_nonblocking(true).unwrap();

        let [rx, mut tx] = Keys::new(suite).ciphers;
        let mut unsent = Vec::new();
        if tls13 {
            unsent = vec![0; TICKET.len() + OVERHEAD_MAX];
            let len = tx.seal(ContentType::Handshake, Content::Elsewhere(TICKET), &mut unsent).unwrap();
            unsent.truncate(len);
        }
        if tls13 && random.one_in(4) {
            tx.expire_after(random.below(6) as u64);
        }
        let Keys { ciphers: [seals, opens], secrets } = Keys::new(suite);
        let ends = [End::CloseNotify, End::GivenUp(80), End::Junk, End::Cut, End::Reset];
        let mut far = Far {
            socket: Some(far),
            random: Random(seed ^ 1),
            seals,
            opens,
            secrets,
            left: random.some(60),
            end: ends[random.below(ends.len())],
            has_ended: false,
            quiet: 0,
            wire: Vec::new(),
            sent: 0,
            inbox: Vec::new(),
            received: 0,
            has_ticket: false,
            alert: None,
            at_end: false,
        };
        // What came behind the handshake.
        let mut wire = Vec::new();
        if random.one_in(4) {
            while far.left > 0 && far.wire.len() < 300_000 && !random.one_in(30) {
                far.seal_next();
            }
            let len = if random.one_in(2) { far.wire.len() } else { random.below(far.wire.len() + 1) };
            wire = far.wire.drain(..len).collect();
        }
        let tls = TlsStream {
            tcp: TcpStream::from_std(near).unwrap().into(),
            state: TlsState {
                incoming: Incoming::new(rx),
                outgoing: tx,
                secrets: Keys::new(suite).secrets,
                reading: Reading::Open,
                wire,
                ahead: Pending::default(),
                control_pending: !unsent.is_empty(),
                tickets_pending: true,
                unsent: Pending::new(unsent),
                key_wanted: false,
                close_sent: false,
                parting: false,
                gathers: random.one_in(2),
            },
        };
        let near = Near {
            tls,
            random: Random(seed ^ 2),
            reads: true,
            read: 0,
            read_end: None,
            to_write: 0,
            written: 0,
            write_error: None,
            must_flush: false,
            ends: false,
            has_shut_down: false,
            tickets_pending: true,
        };
        Self { random, task: Task::new(), near, far }
    }

    /// One of the things that happen to a connection.
    fn happen(&mut self) -> Result<(), String> {
        match self.random.below(32) {
            0..=11 => {
                let most = self.random.some(200_000);
                self.far.send(most);
            }
            12..=19 => {
                let most = self.random.some(100_000);
                self.far.receive(most)?;
            }
            20..=24 if !self.near.ends => {
                self.near.to_write += self.random.some(100_000);
                self.task.clone().wake();
            }
            25 | 26 => {
                self.near.reads = !self.near.reads;
                self.task.clone().wake();
            }
            27 => self.task = Task::new(),
            28 if self.random.one_in(8) => self.end(),
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self) {
        if !self.near.ends && self.random.one_in(2) {
            self.near.tls.begin_shutdown();
            self.near.to_write += self.random.some(8000);
        }
        self.near.ends = true;
        self.task.clone().wake();
    }

    /// Polls the task if it was woken.
    async fn turn(&mut self) -> Result<(), String> {
        tokio::task::yield_now().await; // the driver reports what has happened
        let sweeps = self.random.one_in(30);
        if self.task.0.swap(false, Ordering::Relaxed) || sweeps {
            if self.random.one_in(3) {
                spend_budget(self.random.below(4)).await;
            }
            let waker = Waker::from(self.task.clone());
            let cx = &mut Context::from_waker(&waker);
            if sweeps { sweep::looking(|| self.near.poll(cx))? } else { self.near.poll(cx)? }
        }
        if sweep::take_found() > 0 {
            return Err("the sweep has found something that the runtime was to tell".into());
        }
        self.look().await
    }

    /// A task that sleeps has nothing to do. The kernel may be about to wake it.
    async fn look(&self) -> Result<(), String> {
        let begun = Instant::now();
        while !self.task.0.load(Ordering::Relaxed)
            && let Some(undone) = self.near.undone()
        {
            if begun.elapsed() > DELIVERY_MAX / 10 {
                let Near { tls, to_write, must_flush, ends, .. } = &self.near;
                return Err(format!(
                    "it sleeps though {undone}: to write {to_write}, to flush {must_flush}, ends {ends}; \
                     control_pending {}, tickets_pending {}, key wanted {}, close sent {}, parting {}, unsent {}",
                    tls.state.control_pending,
                    tls.state.tickets_pending,
                    tls.state.key_wanted,
                    tls.state.close_sent,
                    tls.state.parting,
                    tls.state.unsent.left().len()
                ));
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// The connection goes to another process, whose runtime knows nothing of it.
    fn move_on(mut self) -> Result<Self, String> {
        let (tcp, state) = self.near.tls.freeze();
        let bytes = state.encode().map_err(|e| e.to_string())?;
        drop(state);
        let state = TlsState::decode(&bytes).map_err(|e| e.to_string())?;
        assert_eq!(state.encode().unwrap(), bytes, "nothing is added or lost on the way");
        let tcp = Tcp::from_std(tcp.into_std().unwrap()).unwrap();
        self.near.tls = TlsStream::thaw(tcp, state);
        self.task = Task::new();
        Ok(self)
    }

    /// `moves`: now and then the connection goes to another process.
    async fn live(mut self, moves: bool) -> Result<Self, String> {
        for _ in 0..10 + self.random.below(60) {
            if moves && self.random.one_in(4) {
                self = self.move_on()?;
            }
            self.happen()?;
            if !self.random.one_in(8) {
                self.turn().await?;
            }
        }
        Ok(self)
    }

    /// From here on the client sends all that it has and takes everything.
    async fn settle(mut self, moves: bool) -> Result<(), String> {
        self.near.reads = true;
        self.task.clone().wake();
        let begun = Instant::now();
        let is_over = |world: &Self| {
            world.near.read_end.is_some()
                && world.near.has_shut_down
                && (world.far.at_end || world.far.socket.is_none())
        };
        while !is_over(&self) {
            if moves && self.random.one_in(8) {
                self = self.move_on()?;
            }
            if begun.elapsed() > DELIVERY_MAX {
                let (read, received) = (self.near.read, self.far.received);
                return Err(format!("it doesn't end: {read} bytes read and {received} received"));
            }
            self.far.send(1 << 20);
            self.far.receive(1 << 20)?;
            self.turn().await?;
            if !self.near.ends && self.near.read_end.is_some() {
                self.end();
            }
        }
        self.check()
    }

    fn check(&self) -> Result<(), String> {
        let (near, far) = (&self.near, &self.far);
        let end = near.read_end.as_ref().unwrap().as_ref().map_err(ToString::to_string);
        let is_due = match (far.end, &end) {
            (End::Reset, _) => return Ok(()),
            (End::CloseNotify, end) => end.is_ok(),
            (End::GivenUp(alert), Err(e)) => {
                *e == format!("the client aborted the connection (TLS alert {alert})")
            }
            (End::Junk, Err(e)) => *e == Fault::BAD_RECORD_MAC.to_string(),
            (End::Cut, Err(e)) => *e == io::Error::from(io::ErrorKind::UnexpectedEof).to_string(),
            _ => false,
        };
        if !is_due {
            return Err(format!("{:?} reads as {end:?}", far.end));
        }
        if near.read != far.sent {
            return Err(format!("{} bytes of {} were read", near.read, far.sent));
        }
        let last = if far.end == End::Junk && near.read_end.is_some() {
            &[CLOSE_NOTIFY, 20][..]
        } else {
            &[CLOSE_NOTIFY]
        };
        if !far.alert.is_some_and(|alert| last.contains(&alert)) {
            return Err(format!("the client received {:?} at the end", far.alert));
        }
        if let Some(e) = &near.write_error
            && !(far.end == End::Junk && e.kind() == io::ErrorKind::BrokenPipe)
        {
            return Err(format!("a write failed: {e}"));
        }
        if near.written != far.received || far.has_ticket != far.opens.is_tls13() {
            return Err(format!(
                "{} bytes of {} were received; {}",
                far.received, near.written, far.has_ticket
            ));
        }
        Ok(())
    }
}

/// Leaves so many operations to this turn.
async fn spend_budget(left: usize) {
    tokio::task::yield_now().await; // a whole one
    let mut spent = 0;
    std::future::poll_fn(|cx| {
        while has_budget_remaining() && spent + left < 128 {
            let Poll::Ready(proceed) = poll_proceed(cx) else { break };
            proceed.made_progress();
            spent += 1;
        }
        Poll::Ready(())
    })
    .await;
}

fn simulate(seeds: impl Iterator<Item = u64>, moves: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for seed in seeds {
        let life = async {
            let world = World::new(seed, &listener).live(moves).await?;
            world.settle(moves).await
        };
        let lived = catch_unwind(AssertUnwindSafe(|| runtime.block_on(life)));
        let lived = lived.unwrap_or_else(|_| Err("it panics, as sent above".into()));
        if let Err(what) = lived {
            panic!("SIMULATION_SEED={seed}: {what}");
        }
    }
}

/// All seeds below `end`, or the one that is asked for.
fn simulate_all(end: u64, moves: bool) {
    if let Ok(seed) = std::env::var("SIMULATION_SEED") {
        return simulate(std::iter::once(seed.parse().unwrap()), moves);
    }
    std::thread::scope(|scope| {
        for thread in 0..THREADS as u64 {
            scope.spawn(move || simulate((thread..end).step_by(THREADS), moves));
        }
    });
}

#[test]
fn ten_thousand_connections_lose_nothing_and_sleep_through_nothing() {
    simulate_all(SEEDS, false);
}

#[test]
fn connections_that_go_from_process_to_process_lose_nothing_and_sleep_through_nothing() {
    simulate_all(MOVING_SEEDS, true);
}
