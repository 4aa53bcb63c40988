//! Redis and Valkey: channels, and keys with expiry. One connection over RESP3 for all.

mod bounded;
mod link;
mod resp;
mod sentinel;
mod url;

use std::time::Duration;

use redis::{AsyncConnectionConfig, PushInfo, PushKind, Value};
use tls_acceptor::ConnectorSettings;

use self::link::{Keys, Open, RedisLink, open};
use self::url::Place;
pub(super) use self::url::RedisUrl;
use super::engine::{Engine, EngineError, Inbox};
use super::stream::{self, Stream};

/// Bytes of what the engine sends for a message, beside its line and its channel.
const PUSH_BESIDE: usize = 1024;

/// A Redis that can be connected with.
pub(super) struct Redis {
    url: RedisUrl,
    tls: ConnectorSettings,
    keys: Keys,
}

impl Redis {
    /// For a process of this name.
    pub(super) fn new(
        url: RedisUrl,
        tls: ConnectorSettings,
        prefix: &str,
        process: String,
        ttl: Duration,
    ) -> Self {
        Self { url, tls, keys: Keys::new(prefix, process, ttl) }
    }

    async fn log_in<I: Inbox>(&self, stream: Stream, inbox: I) -> Result<Open, EngineError> {
        let push_max = inbox.line_max().saturating_add(self.keys.channel_max()).saturating_add(PUSH_BESIDE);
        // Runs in the task of the connection, so that no more is read than is delivered.
        let push = move |push: PushInfo| {
            match (push.kind, push.data.as_slice()) {
                (PushKind::Message, [Value::BulkString(channel), Value::BulkString(line)]) => {
                    inbox.receive(channel, line);
                }
                // In place of a line that is too long.
                (PushKind::Message, [_, Value::Int(len)]) => {
                    inbox.skip(usize::try_from(*len).unwrap_or_default());
                }
                _ => {}
            }
            Ok::<(), ()>(())
        };
        let config = AsyncConnectionConfig::new().set_push_sender(push).set_response_timeout(None);
        open(&self.url.settings, stream, config, push_max).await
    }
}

impl Engine for Redis {
    type Link = RedisLink;

    async fn connect<I: Inbox>(&self, inbox: I) -> Result<RedisLink, EngineError> {
        let RedisUrl { place, is_tls, sentinel_settings, .. } = &self.url;
        let tls = is_tls.then_some(&self.tls);
        let (address, stream, is_elected) = match place {
            Place::Tcp { host, port } => {
                (format!("{host}:{port}"), stream::tcp(host, *port, tls).await, false)
            }
            Place::Unix(path) => (path.display().to_string(), stream::unix(path).await, false),
            Place::Sentinels { sentinels, service } => {
                let (host, port) = sentinel::ask(sentinels, sentinel_settings, service, tls).await?;
                (format!("{host}:{port}"), stream::tcp(&host, port, tls).await, true)
            }
        };
        let link = async {
            let open = self.log_in(stream?, inbox).await?;
            let mut link = RedisLink { address: address.clone(), open, keys: self.keys.clone() };
            if is_elected {
                link.demand_master().await?;
            }
            Ok(link)
        };
        link.await.map_err(|cause: EngineError| cause.at(&address))
    }
}
