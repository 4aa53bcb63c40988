//! What a cluster needs of an engine, whatever its protocol is.

use std::io;

use tls_acceptor::{ConnectError, ConnectorError};

use crate::elsewhere::Publish;

/// An engine that can be connected with again and again.
pub(super) trait Engine: Send + Sync + 'static {
    /// A connection with it.
    type Link: Link;

    /// Connects. What other processes publish on channels that are listened to goes into `inbox`, in the order in which
    /// the engine has it, until the link is dropped.
    ///
    /// # Errors
    /// See [`EngineError`].
    fn connect<I: Inbox>(&self, inbox: I) -> impl Future<Output = Result<Self::Link, EngineError>> + Send;
}

/// Where it puts what other processes have published, and what it asks.
pub(super) trait Inbox: Clone + Send + Sync + 'static {
    /// A line has come.
    fn receive(&self, channel: &[u8], line: &[u8]);

    /// A line has come that is longer than [`Self::line_max`], and wasn't read.
    fn skip(&self, len: usize);

    /// Bytes of a line.
    fn line_max(&self) -> usize;

    /// How many sessions this process has, by the name of a channel without its prefix.
    fn count(&self, name: &str) -> usize;
}

/// A connection with an engine. After an error of any call it is good for nothing, and dropped. No call is made while
/// another one runs; calls may be dropped by a timeout, after which none comes.
pub(super) trait Link: Send {
    /// Of the server, as logs name it.
    fn address(&self) -> &str;

    /// Publishes lines in their order. What each was answered: why it was refused, if it was.
    fn publish(
        &mut self,
        batch: &[Publish],
    ) -> impl Future<Output = Result<Vec<Option<String>>, EngineError>> + Send;

    /// Listens to some channels from now on, and no longer to others.
    fn listen(
        &mut self,
        begin: &[String],
        end: &[String],
    ) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Tells other processes how many sessions this one has, by the names of channels without their prefix.
    fn tell(&mut self, counts: &[(String, usize)]) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// The process is alive: what it has told holds for another while. `false`: it holds no longer, and has to be told
    /// again.
    fn refresh(&mut self) -> impl Future<Output = Result<bool, EngineError>> + Send;

    /// How many sessions other processes have, by the name of a channel without its prefix.
    fn count(&mut self, name: &str) -> impl Future<Output = Result<usize, EngineError>> + Send;

    /// The process ends: what it has told holds no longer.
    fn leave(&mut self) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Ready when the connection has ended: why it has.
    fn closed(&mut self) -> impl Future<Output = EngineError> + Send;
}

/// Why there is no connection with the engine, or no longer.
#[derive(Debug, thiserror::Error)]
pub(super) enum EngineError {
    #[error("can't be reached: {0}")]
    Io(#[from] io::Error),
    #[error("TLS can't be set up: {0}")]
    Connector(#[from] ConnectorError),
    #[error("TLS: {0}")]
    Tls(#[from] ConnectError),
    #[error("{0}")]
    Redis(#[from] redis::RedisError),
    #[error("no sentinel knows the address of {service:?}{}", last.as_ref().map(|e| format!("; the last one said: {e}")).unwrap_or_default())]
    NoMaster { service: String, last: Option<String> },
    #[error("this is no master at this moment")]
    NotMaster,
    #[error("no answer within {0:?}")]
    Silent(std::time::Duration),
    #[error("{0}")]
    Protocol(String),
    #[error("the file of credentials {path}: {cause}")]
    Credentials { path: String, cause: String },
    #[error("the engine says: {0}")]
    Said(String),
    #[error("the engine has closed the connection")]
    Closed,
    #[error("{address}: {cause}")]
    At { address: String, cause: Box<EngineError> },
}

impl EngineError {
    /// Says which of several servers it was.
    pub(super) fn at(self, address: &str) -> Self {
        Self::At { address: address.to_owned(), cause: Box::new(self) }
    }
}
