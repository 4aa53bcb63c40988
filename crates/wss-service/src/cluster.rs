//! Users and groups that span processes, over an engine that is there already: Redis, Valkey, or NATS.
//!
//! Each process listens to the engine's channels of the users and groups that it has sessions of. [`Hub::send_to`] delivers to
//! the sessions of this process, and publishes for the others.

mod counts;
mod engine;
mod hall;
mod nats;
mod redis;
mod stream;
mod supervisor;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tls_acceptor::{ClientCertificate, ConnectorSettings};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::engine::Engine;
use self::hall::Hall;
use self::nats::{Nats, NatsUrl};
use self::redis::{Redis, RedisUrl};
use self::supervisor::Supervisor;
use crate::elsewhere::{Channel, Channels, Command, Name, Publisher};
use crate::hub::{Hub, To};
use crate::unreached::Unreached;

/// At the end of the service, to tell the engine.
const END_WAIT: Duration = Duration::from_secs(2);

/// How several processes of a service share users and groups (feature `cluster`).
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use wss_service::{Cluster, Service};
///
/// let cluster = Cluster::connect("redis://:password@10.0.0.7:6379/0")?.prefix("chat:");
/// let service = Service::bind("0.0.0.0:8282")?.cluster(cluster);
/// # Ok(())
/// # }
/// ```
///
/// # What holds
/// - A message reaches a session once or not at all. Those of one sender arrive in their order.
/// - From another process, it waits for no client: a session whose outbox is full misses it, where
///   [`SlowClient::Wait`](crate::SlowClient::Wait) holds ([`ClusterState::missed`]).
/// - While the engine is away, sessions of the same process go on hearing each other, and senders are told
///   ([`Delivery::unreached`](crate::Delivery::unreached)). It is connected again as soon as it is there. What was published
///   meanwhile is lost.
/// - A session hears from other processes some moments after it has joined a group. [`Hub::settle`] waits for that.
/// - A process that dies is no longer counted after [`Self::presence_ttl`].
/// - Of what others publish, no more is kept in memory than the line of a message of [`Self::message_max`] may have: six times as
///   many bytes, since JSON may write one as `\u0000`. The rest is passed over, and dropped as below. (Redis itself ends a
///   connection that it can't get rid of a message on: `client-output-buffer-limit pubsub`, 32 MiB.)
///
/// # Publishers that are no Rust program
/// Channels are called `PREFIXall`, `PREFIXuser:NAME` and `PREFIXgroup:NAME`. A message is one JSON object: `{"text":"hello"}`, or
/// `{"binary":"/wA="}` in base64. So a group hears of this by plain `PUBLISH`:
///
/// ```php
/// $redis->publish("chat:group:tea", json_encode(["text" => "milk?"]));
/// ```
///
/// On `PREFIXsession`, the object has a member `session` too: the number of the session, 16 hexadecimal digits. A member `from`
/// is the process that has sent it. Other members mean nothing. What is anything else is dropped, counted
/// ([`ClusterState::dropped`]) and logged.
///
/// On NATS, subjects are called so, too. In names of users and groups, spaces, `.`, `*`, `>`, `%`, and all but visible ASCII are
/// written as in URLs there: `PREFIXgroup:tea%20time`.
///
/// On Redis, how many sessions a process has is in the hash `PREFIXprocess:PROCESS`, with fields `all`, `user:NAME` and `group:NAME`. It
/// expires with its process. The set `PREFIXprocesses` has the names of processes; of more than a thousand, as many are counted.
///
/// # What a user of the engine needs
/// Who may publish on these channels may send to every session, and who may write these keys may change counts. So other
/// programs have users of their own. The secrets are in no log.
///
/// For the prefix `chat:`, a user of Redis needs no more rights than these, `+select` if its database isn't 0, and `+role` only
/// behind Sentinel. A user of Sentinel needs `+hello +sentinel|get-master-addr-by-name`.
///
/// ```text
/// ACL SETUSER chat on >PASSWORD resetchannels &chat:* ~chat:process* -@all +hello +role +publish +subscribe +unsubscribe
///     +hset +hsetnx +hdel +hmget +del +pexpire +sadd +srem +srandmember
/// ```
///
/// In permissions of NATS, `chat.>` means all that begins with `chat.`, so the prefix ends with a dot there:
///
/// ```text
/// permissions: { publish: ["chat.>", "_INBOX.>"], subscribe: ["chat.>", "_INBOX.>"] }
/// ```
#[derive(Debug, Clone)]
pub struct Cluster {
    url: EngineUrl,
    prefix: Box<str>,
    tls: ConnectorSettings,
    /// Of NATS.
    credentials: Option<PathBuf>,
    presence_ttl: Duration,
    message_max: usize,
}

/// Why a URL leads to no engine. It doesn't repeat the URL, which may have a password in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the URL of the cluster's engine: {0}")]
pub struct ClusterUrlError(String);

/// Where an engine is, and which one.
#[derive(Debug, Clone)]
enum EngineUrl {
    Redis(RedisUrl),
    Nats(NatsUrl),
}

impl EngineUrl {
    fn parse(url: &str) -> Result<Self, String> {
        match NatsUrl::parse(url) {
            Some(url) => url.map(Self::Nats),
            None => RedisUrl::parse(url).map(Self::Redis),
        }
    }
}

/// How a cluster stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterState {
    /// The engine is connected, and knows all users and groups but those of the last moment.
    pub is_connected: bool,
    /// How often it was connected.
    pub connections: u64,
    /// Messages from the engine that were none.
    pub dropped: u64,
    /// Messages from other processes that a session has missed, since it was over or its outbox full.
    pub missed: u64,
}

impl Cluster {
    /// A cluster over the engine at this address. Nothing is connected before the service runs.
    ///
    /// - `redis://USER:PASSWORD@HOST:6379/0`; `rediss://` with TLS; `redis+unix:///PATH`
    /// - `redis+sentinel://USER:PASSWORD@HOST:26379,HOST:26379/SERVICE/0`: the master that these sentinels know at that moment;
    ///   `rediss+sentinel://` with TLS, to the sentinels too. User and password are the master's. Where sentinels want some of
    ///   their own, the URL ends with `?sentinel_username=USER&sentinel_password=PASSWORD`, or with the password alone
    /// - `nats://USER:PASSWORD@HOST:4222,HOST:4222`, or `nats://TOKEN@HOST`; `tls://` where a server without TLS won't do. For nkeys
    ///   and JWTs there is [`Self::credentials_file`]
    ///
    /// Each part but hosts and the service may be missing. `valkey` stands for `redis` as well. Special characters of a password
    /// are written as `%40`. Redis Cluster is not supported, Redis 6 is the oldest that will do.
    ///
    /// # Errors
    /// If it is none of these.
    pub fn connect(url: &str) -> Result<Self, ClusterUrlError> {
        Ok(Self {
            url: EngineUrl::parse(url).map_err(ClusterUrlError)?,
            prefix: "wss:".into(),
            tls: ConnectorSettings::default(),
            credentials: None,
            presence_ttl: Duration::from_secs(15),
            message_max: 1024 * 1024,
        })
    }

    /// Stands before the name of each channel and key, so that several services can use one engine. `wss:`.
    #[must_use]
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// A file with certificates of authorities that the engine's certificate may be signed by, in place of those that the
    /// system trusts. It is read again for each connection.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.tls.authorities.push(path.into());
        self
    }

    /// Files (PEM) with a certificate, and those that issued it, and with its private key, for engines that want to see one: a
    /// Redis over TLS does, unless its `tls-auth-clients` is `no`. They are read again for each connection.
    #[must_use]
    pub fn client_certificate(mut self, chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.tls.client_certificate = Some(ClientCertificate { chain: chain.into(), key: key.into() });
        self
    }

    /// NATS: a file that says who logs in, in place of the URL. It has the seed of an nkey, or a JWT and a seed (`.creds`, as `nsc`
    /// writes it). It is read again for each connection. The seed stays in this process.
    ///
    /// # Errors
    /// If the URL has a user or a token already, or is another engine's.
    pub fn credentials_file(mut self, path: impl Into<PathBuf>) -> Result<Self, ClusterUrlError> {
        let wrong = match &self.url {
            EngineUrl::Nats(url) if !url.says_who() => None,
            EngineUrl::Nats(_) => Some("it says who logs in, and so does a file of credentials"),
            EngineUrl::Redis(_) => Some("it is not that of a NATS, which alone knows files of credentials"),
        };
        self.credentials = Some(path.into());
        wrong.map_or(Ok(self), |wrong| Err(ClusterUrlError(wrong.to_owned())))
    }

    /// How long sessions are counted after their process has died. 15 s, at least a second and at most a day; it tells that it
    /// is alive three times as often.
    #[must_use]
    pub fn presence_ttl(mut self, ttl: Duration) -> Self {
        self.presence_ttl = ttl.clamp(Duration::from_secs(1), Duration::from_secs(24 * 3600));
        self
    }

    /// Bytes of a message to or from other processes: a longer one is not sent, or dropped. 1 MiB; at most 64 MiB.
    #[must_use]
    pub fn message_max(mut self, max: usize) -> Self {
        self.message_max = max.min(64 * 1024 * 1024);
        self
    }

    /// The cluster of a hub that has no other one. Before it is started, the engine is away.
    pub(crate) fn of(self, hub: &Hub) -> Unconnected {
        let process = format!("{:016x}", rand::random::<u64>());
        let channels = Channels { prefix: self.prefix.clone() };
        let (publisher, commands) = Publisher::new(process, channels, self.message_max);
        let changed = Arc::new(Notify::new());
        let wake = changed.clone();
        hub.groups().watch(|name| !Channel::of(name).any(Channel::is_too_long), move || wake.notify_one());
        let _ = hub.groups().publisher.set(publisher.clone());
        Unconnected { cluster: self, hall: Hall::new(hub.clone(), publisher), commands, changed }
    }
}

/// A cluster that was not started yet.
pub(crate) struct Unconnected {
    cluster: Cluster,
    hall: Hall,
    commands: mpsc::Receiver<Command>,
    changed: Arc<Notify>,
}

impl Unconnected {
    /// Connects, in a task of the runtime that calls this.
    pub(crate) fn start(self) -> RunningCluster {
        let Cluster { url, prefix, tls, credentials, presence_ttl, .. } = self.cluster.clone();
        let process = self.hall.publisher().process().to_owned();
        match url {
            EngineUrl::Redis(url) => self.start_over(Redis::new(url, tls, &prefix, process, presence_ttl)),
            EngineUrl::Nats(url) => {
                self.start_over(Nats::new(url, tls, credentials, &prefix, process, presence_ttl))
            }
        }
    }

    fn start_over(self, engine: impl Engine) -> RunningCluster {
        let Self { cluster: Cluster { presence_ttl, .. }, hall, commands, changed } = self;
        let told = HashMap::new();
        let supervisor = Supervisor { engine, hall, commands, changed, presence_ttl, told };
        let running = RunningCluster { end: CancellationToken::new(), tasks: TaskTracker::new() };
        running.tasks.spawn(supervisor.run(running.end.clone()));
        running.tasks.close();
        running
    }
}

/// A cluster that is connected, or tries to be. Its end begins when this is dropped.
#[derive(Debug)]
pub(crate) struct RunningCluster {
    end: CancellationToken,
    tasks: TaskTracker,
}

impl RunningCluster {
    /// Tells the engine that this process has no sessions any more.
    pub(crate) async fn end(&self) {
        self.end.cancel();
        let _ = timeout(END_WAIT, self.tasks.wait()).await;
    }
}

impl Drop for RunningCluster {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

/// Across all processes of a cluster. Without one, this process is all there is.
impl Hub {
    /// The user has a session in any of the processes.
    ///
    /// # Errors
    /// See [`Unreached`]: only this process's sessions are known at this moment ([`Hub::is_online`]).
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn is_online_anywhere(&self, user: &str) -> Result<bool, Unreached> {
        Ok(self.is_online(user) || self.count_everywhere(To::User(user)).await? > 0)
    }

    /// How many sessions are meant, in all processes together. A process that has died is counted until
    /// [`Cluster::presence_ttl`] is over. Of a single session, only this process knows.
    ///
    /// # Errors
    /// See [`Unreached`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn count_everywhere(&self, to: To<'_>) -> Result<usize, Unreached> {
        let name = match to {
            To::Session(_) => None,
            To::User(user) => Some(Name::User(user.into())),
            To::Group(group) => Some(Name::Group(group.into())),
            To::All => Some(Name::All),
        };
        let elsewhere = match (self.groups().publisher.get(), name) {
            (Some(publisher), Some(name)) => publisher.count(name).await?,
            _ => 0,
        };
        Ok(self.count(to).saturating_add(elsewhere))
    }

    /// Waits until the engine knows all users and groups of this moment: what other processes send from now on is heard. In
    /// [`Handler::on_open`](crate::Handler::on_open), behind [`Session::join`](crate::Session::join), a client then misses nothing
    /// that is sent after its handshake.
    ///
    /// # Errors
    /// See [`Unreached`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn settle(&self) -> Result<(), Unreached> {
        match self.groups().publisher.get() {
            Some(publisher) => publisher.settle().await,
            None => Ok(()),
        }
    }

    /// How the cluster stands; `None`: there is none.
    #[must_use]
    pub fn cluster_state(&self) -> Option<ClusterState> {
        let numbers = self.groups().publisher.get()?.numbers();
        Some(ClusterState {
            is_connected: numbers.is_connected.load(Ordering::Acquire),
            connections: numbers.connections.load(Ordering::Relaxed),
            dropped: numbers.dropped.load(Ordering::Relaxed),
            missed: numbers.missed.load(Ordering::Relaxed),
        })
    }
}

#[cfg(test)]
mod tests;
