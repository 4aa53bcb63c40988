//! One connection with Redis.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, FromRedisValue, Pipeline, RedisConnectionInfo, Value, cmd, pipe};
use tokio_util::task::AbortOnDropHandle;

use crate::cluster::engine::{EngineError, Link};
use crate::cluster::stream::Stream;
use crate::elsewhere::Publish;

/// Keys of a process, and how long they hold.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
    process: String,
    /// A hash: how many sessions this process has.
    own: String,
    /// A set: the names of processes. Those that have died are taken out by the first process that notices.
    processes: String,
    ttl: Duration,
}

impl Keys {
    pub(super) fn new(prefix: &str, process: String, ttl: Duration) -> Self {
        let own = format!("{prefix}process:{process}");
        Self { own, processes: format!("{prefix}processes"), prefix: prefix.to_owned(), process, ttl }
    }
}

/// A connection, and the task that reads and writes it.
pub(super) struct Open {
    pub(super) connection: MultiplexedConnection,
    task: AbortOnDropHandle<()>,
}

/// Logs in.
pub(super) async fn open(
    settings: &RedisConnectionInfo,
    stream: Stream,
    config: AsyncConnectionConfig,
) -> Result<Open, EngineError> {
    let (connection, driver) = MultiplexedConnection::new_with_config(settings, stream, config).await?;
    Ok(Open { connection, task: AbortOnDropHandle::new(tokio::spawn(driver)) })
}

/// A connection with Redis.
pub(in crate::cluster) struct RedisLink {
    pub(super) open: Open,
    pub(super) keys: Keys,
}

impl RedisLink {
    async fn ask<T: FromRedisValue>(&mut self, pipeline: &Pipeline) -> Result<T, EngineError> {
        Ok(pipeline.query_async(&mut self.open.connection).await?)
    }

    /// A sentinel may say what was true a moment ago.
    pub(super) async fn demand_master(&mut self, address: String) -> Result<(), EngineError> {
        let role: Vec<Value> = cmd("ROLE").query_async(&mut self.open.connection).await?;
        let is_master = matches!(role.first(), Some(Value::BulkString(role)) if role == b"master");
        is_master.then_some(()).ok_or(EngineError::NotMaster { address })
    }
}

impl Link for RedisLink {
    async fn publish(&mut self, batch: &[Publish]) -> Result<Vec<Option<String>>, EngineError> {
        let mut pipeline = pipe();
        for publish in batch {
            pipeline.cmd("PUBLISH").arg(&publish.channel).arg(&publish.line[..]);
        }
        let answers: Vec<Value> = self.ask(pipeline.ignore_errors()).await?;
        let refused = |answer| match answer {
            Value::ServerError(error) => {
                Some(format!("{} {}", error.code(), error.details().unwrap_or_default()))
            }
            _ => None,
        };
        Ok(answers.into_iter().map(refused).collect())
    }

    async fn listen(&mut self, begin: &[String], end: &[String]) -> Result<(), EngineError> {
        // One command for each: redis takes each channel's answer for that of a command.
        let mut pipeline = pipe();
        for channel in begin {
            pipeline.cmd("SUBSCRIBE").arg(channel).ignore();
        }
        for channel in end {
            pipeline.cmd("UNSUBSCRIBE").arg(channel).ignore();
        }
        self.ask(&pipeline).await
    }

    async fn tell(&mut self, counts: &[(String, usize)]) -> Result<(), EngineError> {
        let mut pipeline = pipe();
        for (name, count) in counts {
            match count {
                0 => pipeline.cmd("HDEL").arg(&self.keys.own).arg(name).ignore(),
                _ => pipeline.cmd("HSET").arg(&self.keys.own).arg(name).arg(count).ignore(),
            };
        }
        pipeline.cmd("PEXPIRE").arg(&self.keys.own).arg(millis(self.keys.ttl)).ignore();
        self.ask(&pipeline).await
    }

    async fn refresh(&mut self) -> Result<bool, EngineError> {
        let mut pipeline = pipe();
        pipeline.cmd("PEXPIRE").arg(&self.keys.own).arg(millis(self.keys.ttl));
        pipeline.cmd("SADD").arg(&self.keys.processes).arg(&self.keys.process).ignore();
        // A key that is never empty: it would vanish with its last field.
        pipeline.cmd("HSETNX").arg(&self.keys.own).arg("alive").arg(1).ignore();
        pipeline.cmd("PEXPIRE").arg(&self.keys.own).arg(millis(self.keys.ttl)).ignore();
        let (held,): (bool,) = self.ask(&pipeline).await?;
        Ok(held)
    }

    async fn count(&mut self, name: &str) -> Result<usize, EngineError> {
        let Keys { prefix, process, processes, .. } = &self.keys;
        let others: Vec<String> =
            cmd("SMEMBERS").arg(processes).query_async(&mut self.open.connection).await?;
        let others: Vec<_> = others.into_iter().filter(|other| other != process).collect();
        if others.is_empty() {
            return Ok(0);
        }
        let mut pipeline = pipe();
        for other in &others {
            pipeline.cmd("HMGET").arg(format!("{prefix}process:{other}")).arg("alive").arg(name);
        }
        let found: Vec<(Option<String>, Option<usize>)> =
            pipeline.query_async(&mut self.open.connection).await?;
        let is_dead = |(_, (alive, _)): &(&String, &(Option<String>, _))| alive.is_none();
        let dead: Vec<_> = others.iter().zip(&found).filter(is_dead).map(|(other, _)| other).collect();
        if !dead.is_empty() {
            let mut removal = pipe();
            removal.cmd("SREM").arg(processes).arg(&dead).ignore();
            removal.exec_async(&mut self.open.connection).await?;
        }
        Ok(found.into_iter().filter_map(|(_, count)| count).sum())
    }

    async fn leave(&mut self) -> Result<(), EngineError> {
        let mut pipeline = pipe();
        pipeline.cmd("DEL").arg(&self.keys.own).ignore();
        pipeline.cmd("SREM").arg(&self.keys.processes).arg(&self.keys.process).ignore();
        self.ask(&pipeline).await
    }

    async fn closed(&mut self) -> EngineError {
        let _ = (&mut self.open.task).await;
        EngineError::Closed
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
