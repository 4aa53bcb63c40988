//! One connection with NATS: a task that reads and writes, and what the cluster asks of it.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::frame::{Frame, Frames};
use super::presence::{Names, Presence, Sign};
use crate::cluster::engine::{EngineError, Inbox, Link};
use crate::cluster::stream::Stream;
use crate::elsewhere::Publish;

/// How long an answer to a question is waited for.
const ANSWER_WAIT: Duration = Duration::from_millis(250);
/// Bytes that are read together.
const READ: usize = 16 * 1024;
/// Complaints of the server that are kept until the next answer: one for each message of a batch, and some more.
const COMPLAINTS_MAX: usize = 300;

/// A server that waits for commands, and what it has sent already.
pub(super) struct Peer {
    pub(super) stream: Stream,
    pub(super) buffer: BytesMut,
}

/// A connection with NATS.
pub(in crate::cluster) struct NatsLink {
    address: String,
    names: Names,
    max_payload: usize,
    /// Numbers of subscriptions, by channel.
    numbers: HashMap<String, u64>,
    last_number: u64,
    out: mpsc::Sender<Out>,
    shared: Arc<Shared>,
    began: Instant,
    task: AbortOnDropHandle<EngineError>,
}

/// What is to be written.
struct Out {
    bytes: Vec<u8>,
    /// Is told what the server complained of until it had read all this.
    flushed: oneshot::Sender<Vec<String>>,
}

#[derive(Default)]
struct Shared {
    presence: Mutex<Presence>,
    answered: Notify,
}

impl Shared {
    fn presence(&self) -> MutexGuard<'_, Presence> {
        self.presence.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NatsLink {
    /// Of a server that waits for commands.
    pub(super) async fn begin<I: Inbox>(
        address: String,
        peer: Peer,
        inbox: I,
        names: Names,
        max_payload: usize,
    ) -> Result<Self, EngineError> {
        let (out, asked) = mpsc::channel(1);
        let shared = Arc::<Shared>::default();
        let driver = Driver { peer, inbox, names: names.clone(), shared: shared.clone() };
        let task = AbortOnDropHandle::new(tokio::spawn(driver.run(asked)));
        let (numbers, began) = (HashMap::new(), Instant::now());
        let mut link =
            Self { address, names, max_payload, numbers, last_number: 0, out, shared, began, task };
        let Names { alive, ask, inbox, .. } = link.names.clone();
        let mut bytes = String::new();
        for subject in [alive, ask, inbox] {
            link.subscribe(&mut bytes, subject.clone(), &subject);
        }
        link.insist(bytes.into_bytes()).await?;
        link.say(Sign::Hello).await?;
        Ok(link)
    }

    fn subscribe(&mut self, bytes: &mut String, channel: String, subject: &str) {
        self.last_number += 1;
        let _ = write!(bytes, "SUB {subject} {}\r\n", self.last_number); // into a String
        self.numbers.insert(channel, self.last_number);
    }

    /// Writes this, and waits until the server has read it. Returns what it complained of.
    async fn flush(&mut self, mut bytes: Vec<u8>) -> Result<Vec<String>, EngineError> {
        bytes.extend_from_slice(b"PING\r\n");
        let (flushed, done) = oneshot::channel();
        self.out.send(Out { bytes, flushed }).await.map_err(|_| EngineError::Closed)?;
        done.await.map_err(|_| EngineError::Closed)
    }

    /// The same, where the server must not complain.
    async fn insist(&mut self, bytes: Vec<u8>) -> Result<(), EngineError> {
        let complaints = self.flush(bytes).await?;
        complaints.into_iter().next().map_or(Ok(()), |said| Err(EngineError::Said(said)))
    }

    async fn say(&mut self, sign: Sign) -> Result<(), EngineError> {
        let mut bytes = Vec::new();
        publish(&mut bytes, &self.names.alive, None, sign.write(&self.names.process).as_bytes());
        self.insist(bytes).await
    }
}

impl Link for NatsLink {
    fn address(&self) -> &str {
        &self.address
    }

    async fn publish(&mut self, batch: &[Publish]) -> Result<Vec<Option<String>>, EngineError> {
        let mut bytes = Vec::new();
        let mut answers = Vec::with_capacity(batch.len());
        for line in batch {
            if line.line.len() > self.max_payload {
                answers.push(Err(format!("longer than `max_payload`, {} bytes", self.max_payload)));
                continue;
            }
            let subject = self.names.subjects.of_channel(&line.channel);
            publish(&mut bytes, &subject, None, &line.line);
            answers.push(Ok(subject));
        }
        let complaints = self.flush(bytes).await?;
        let refused = |subject: &str| {
            let to = format!("Publish to \"{subject}\"");
            complaints.iter().find(|said| said.contains(&to)).cloned()
        };
        Ok(answers.into_iter().map(|answer| answer.map_or_else(Some, |subject| refused(&subject))).collect())
    }

    async fn listen(&mut self, begin: &[String], end: &[String]) -> Result<(), EngineError> {
        let mut bytes = String::new();
        for channel in begin {
            let subject = self.names.subjects.of_channel(channel);
            self.subscribe(&mut bytes, channel.clone(), &subject);
        }
        for channel in end {
            if let Some(number) = self.numbers.remove(channel) {
                let _ = write!(bytes, "UNSUB {number}\r\n"); // into a String
            }
        }
        self.insist(bytes.into_bytes()).await
    }

    async fn tell(&mut self, _: &[(String, usize)]) -> Result<(), EngineError> {
        Ok(()) // each process answers for itself
    }

    async fn refresh(&mut self) -> Result<bool, EngineError> {
        self.shared.presence().forget(self.names.ttl, Instant::now());
        self.say(Sign::Alive).await?;
        Ok(true)
    }

    async fn count(&mut self, name: &str) -> Result<usize, EngineError> {
        let number = {
            let mut presence = self.shared.presence();
            presence.forget(self.names.ttl, Instant::now());
            presence.ask()
        };
        let mut bytes = Vec::new();
        publish(&mut bytes, &self.names.ask, Some(&self.names.inbox), format!("{number} {name}").as_bytes());
        self.insist(bytes).await?;
        let shared = self.shared.clone();
        // Those who are there have said so soon after this connection began.
        let is_young = self.began.elapsed() < ANSWER_WAIT;
        let all = async {
            while is_young || !shared.presence().found().1 {
                shared.answered.notified().await;
            }
        };
        let _ = timeout(ANSWER_WAIT, all).await;
        Ok(self.shared.presence().found().0)
    }

    async fn leave(&mut self) -> Result<(), EngineError> {
        self.say(Sign::Bye).await
    }

    async fn closed(&mut self) -> EngineError {
        (&mut self.task).await.unwrap_or(EngineError::Closed)
    }
}

/// `PUB subject [reply] length`, and the payload.
fn publish(bytes: &mut Vec<u8>, subject: &str, reply: Option<&str>, payload: &[u8]) {
    let (space, reply) = if let Some(reply) = reply { (" ", reply) } else { ("", "") };
    bytes.extend_from_slice(format!("PUB {subject}{space}{reply} {}\r\n", payload.len()).as_bytes());
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(b"\r\n");
}

/// The task of a connection.
struct Driver<I> {
    peer: Peer,
    inbox: I,
    names: Names,
    shared: Arc<Shared>,
}

impl<I: Inbox> Driver<I> {
    /// Runs until the connection ends.
    async fn run(mut self, mut asked: mpsc::Receiver<Out>) -> EngineError {
        match self.read_and_write(&mut asked).await {
            Ok(()) => EngineError::Closed,
            Err(failure) => failure,
        }
    }

    async fn read_and_write(&mut self, asked: &mut mpsc::Receiver<Out>) -> Result<(), EngineError> {
        let mut frames = Frames::new(self.inbox.line_max());
        let mut flushes = VecDeque::new();
        let mut complaints = Vec::new();
        loop {
            self.peer.buffer.reserve(READ);
            let mut bytes = Vec::new();
            tokio::select! {
                read = self.peer.stream.read_buf(&mut self.peer.buffer) => {
                    if read? == 0 {
                        return complaints.pop().map_or(Ok(()), |said| Err(EngineError::Said(said)));
                    }
                    while let Some(frame) = frames.next(&mut self.peer.buffer)? {
                        match frame {
                            Frame::Ping => bytes.extend_from_slice(b"PONG\r\n"),
                            Frame::Pong => {
                                let said = std::mem::take(&mut complaints);
                                let flushed: Option<oneshot::Sender<_>> = flushes.pop_front();
                                let _ = flushed.map(|flushed| flushed.send(said));
                            }
                            Frame::Error(said) if complaints.len() < COMPLAINTS_MAX => complaints.push(said),
                            Frame::Error(_) => {}
                            Frame::Info(_) => {}
                            Frame::TooLong { len, .. } => self.inbox.skip(len),
                            Frame::Message { subject, reply, payload } => {
                                self.receive(&subject, reply.as_deref(), &payload, &mut bytes);
                            }
                        }
                    }
                }
                out = asked.recv() => {
                    let Some(out) = out else { return Ok(()) };
                    flushes.push_back(out.flushed);
                    bytes = out.bytes;
                }
            }
            if !bytes.is_empty() {
                self.peer.stream.write_all(&bytes).await?;
                self.peer.stream.flush().await?;
            }
        }
    }

    fn receive(&self, subject: &str, reply: Option<&str>, payload: &[u8], bytes: &mut Vec<u8>) {
        let Names { subjects, process, alive, ask, inbox, .. } = &self.names;
        let text = str::from_utf8(payload).unwrap_or_default();
        if subject == alive {
            let Some((other, sign)) = Sign::read(text) else { return };
            self.shared.presence().note(other, sign, Instant::now());
            if sign == Sign::Hello {
                publish(bytes, alive, None, Sign::Alive.write(process).as_bytes());
            }
            self.shared.answered.notify_one(); // of those who have gone, there is no answer
        } else if subject == ask {
            // Only where clients of NATS wait for answers: to other subjects this process may have no right to write.
            let reply = reply.filter(|reply| reply.starts_with("_INBOX."));
            if let (Some((number, name)), Some(reply)) = (text.split_once(' '), reply) {
                let number = number.parse::<u64>().unwrap_or_default();
                let count = self.inbox.count(name);
                publish(bytes, reply, None, format!("{number} {process} {count}").as_bytes());
            }
        } else if subject == inbox {
            self.shared.presence().answer(text);
            self.shared.answered.notify_one();
        } else {
            match subjects.to_channel(subject) {
                Some(channel) => self.inbox.receive(channel.as_bytes(), payload),
                None => self.inbox.receive(subject.as_bytes(), payload),
            }
        }
    }
}
