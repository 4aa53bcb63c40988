//! What a process has to say to its engine: messages that wait, in the order of their senders, and questions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::channel::{Channel, Channels};
use super::line::{encode, line_max};
use super::name::Name;
use crate::message::Message;
use crate::unreached::Unreached;

/// Messages that may wait for the engine, and questions.
const PENDING_MAX: usize = 4096;
/// Bytes of lines that may wait, and of those of which the engine has said nothing yet. A longer line may wait alone.
const PENDING_BYTES: usize = 16 * 1024 * 1024;

/// What is asked of the task that holds the connection with the engine.
#[derive(Debug)]
pub(crate) enum Command {
    Publish(Publish),
    /// How many sessions other processes have of this name.
    Count {
        name: Name,
        answer: oneshot::Sender<Result<usize, Unreached>>,
    },
    /// Is answered when the engine knows all users and groups of the moment when it was asked.
    Settle {
        answer: oneshot::Sender<()>,
    },
}

/// A line that is to be published.
#[derive(Debug)]
pub(crate) struct Publish {
    pub(crate) channel: String,
    pub(crate) line: Vec<u8>,
    pub(crate) answer: oneshot::Sender<Result<(), Unreached>>,
    /// Its part of what may wait.
    pub(crate) _room: OwnedSemaphorePermit,
}

/// What has happened so far.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    pub(crate) is_connected: AtomicBool,
    pub(crate) connections: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) missed: AtomicU64,
}

/// The way to the engine, for all who send. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Publisher(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    process: String,
    channels: Channels,
    message_max: usize,
    commands: mpsc::Sender<Command>,
    room: Arc<Semaphore>,
    numbers: Numbers,
}

impl Publisher {
    /// Of a process of this name, and what it asks for, for the task that holds the connection.
    pub(crate) fn new(
        process: String,
        channels: Channels,
        message_max: usize,
    ) -> (Self, mpsc::Receiver<Command>) {
        let (commands, asked) = mpsc::channel(PENDING_MAX);
        let room = PENDING_BYTES.max(line_max(message_max)).min(u32::MAX as usize);
        let (room, numbers) = (Arc::new(Semaphore::new(room)), Numbers::default());
        (Self(Arc::new(Inner { process, channels, message_max, commands, room, numbers })), asked)
    }

    pub(crate) fn process(&self) -> &str {
        &self.0.process
    }

    pub(crate) fn channels(&self) -> &Channels {
        &self.0.channels
    }

    pub(crate) fn message_max(&self) -> usize {
        self.0.message_max
    }

    pub(crate) fn numbers(&self) -> &Numbers {
        &self.0.numbers
    }

    /// Queues a message for the engine; `session` is the one that is meant, on [`Channel::Session`].
    pub(crate) fn publish(&self, channel: Channel<'_>, session: Option<u64>, message: &Message) -> Published {
        self.queue(channel, session, message).map_or_else(Published::No, Published::Queued)
    }

    fn queue(
        &self,
        channel: Channel<'_>,
        session: Option<u64>,
        message: &Message,
    ) -> Result<oneshot::Receiver<Result<(), Unreached>>, Unreached> {
        if channel.is_too_long() || message.as_bytes().len() > self.0.message_max {
            return Err(Unreached::TooLong);
        }
        self.is_connected()?;
        let line = encode(&self.0.process, session, message);
        let len = u32::try_from(line.len()).map_err(|_| Unreached::TooLong)?;
        let room = self.0.room.clone().try_acquire_many_owned(len).map_err(|_| Unreached::Full)?;
        let (answer, answered) = oneshot::channel();
        let channel = self.0.channels.name(channel);
        self.ask(Command::Publish(Publish { channel, line, answer, _room: room }))?;
        Ok(answered)
    }

    /// How many sessions other processes have of this name.
    pub(crate) async fn count(&self, name: Name) -> Result<usize, Unreached> {
        if Channel::of(&name).any(Channel::is_too_long) {
            return Err(Unreached::TooLong);
        }
        self.is_connected()?;
        let (answer, answered) = oneshot::channel();
        self.ask(Command::Count { name, answer })?;
        answered.await.unwrap_or(Err(Unreached::Unanswered))
    }

    /// Waits until the engine knows all users and groups of this moment.
    pub(crate) async fn settle(&self) -> Result<(), Unreached> {
        self.is_connected()?;
        let (answer, answered) = oneshot::channel();
        self.ask(Command::Settle { answer })?;
        answered.await.map_err(|_| Unreached::Away)
    }

    fn is_connected(&self) -> Result<(), Unreached> {
        self.0.numbers.is_connected.load(Ordering::Acquire).then_some(()).ok_or(Unreached::Away)
    }

    fn ask(&self, command: Command) -> Result<(), Unreached> {
        self.0.commands.try_send(command).map_err(|e| match e {
            TrySendError::Full(_) => Unreached::Full,
            TrySendError::Closed(_) => Unreached::Away,
        })
    }
}

/// A message on its way to the engine.
#[derive(Debug)]
pub(crate) enum Published {
    /// There are no other processes that it could be for.
    Alone,
    No(Unreached),
    Queued(oneshot::Receiver<Result<(), Unreached>>),
}

impl Published {
    /// What is known without waiting.
    pub(crate) fn so_far(&self) -> Option<Unreached> {
        match self {
            Self::No(why) => Some(*why),
            Self::Alone | Self::Queued(_) => None,
        }
    }

    /// What has become of it. A dropped call leaves it on its way.
    pub(crate) async fn done(self) -> Option<Unreached> {
        match self {
            Self::Alone => None,
            Self::No(why) => Some(why),
            Self::Queued(answered) => answered.await.unwrap_or(Err(Unreached::Unanswered)).err(),
        }
    }
}
