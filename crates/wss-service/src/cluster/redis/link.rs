//! One connection with Redis.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Cmd, FromRedisValue, Pipeline, RedisConnectionInfo, RedisError, Value, cmd, pipe,
};
use tokio_util::task::AbortOnDropHandle;

use super::bounded::Bounded;
use super::resp::{Limiter, RespError};
use crate::cluster::engine::{EngineError, Link};
use crate::cluster::stream::Stream;
use crate::elsewhere::{NAME_MAX, Publish};

/// Processes that are asked about.
const OTHERS_MAX: usize = 1000;

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

    /// Bytes of the longest name of a channel.
    pub(super) fn channel_max(&self) -> usize {
        self.prefix.len() + "group:".len() + NAME_MAX
    }
}

/// A connection, and the task that reads and writes it.
pub(super) struct Open {
    connection: MultiplexedConnection,
    task: AbortOnDropHandle<()>,
    /// Why no more is read.
    broken: Arc<OnceLock<RespError>>,
}

/// Logs in. `push_max`: bytes of what comes without being asked for.
pub(super) async fn open(
    settings: &RedisConnectionInfo,
    stream: Stream,
    config: AsyncConnectionConfig,
    push_max: usize,
) -> Result<Open, EngineError> {
    let broken = Arc::<OnceLock<_>>::default();
    let stream = Bounded::new(stream, Limiter::new(push_max), broken.clone());
    let (connection, driver) = MultiplexedConnection::new_with_config(settings, stream, config)
        .await
        .map_err(|error| failure(&broken, error))?;
    Ok(Open { connection, task: AbortOnDropHandle::new(tokio::spawn(driver)), broken })
}

fn failure(broken: &OnceLock<RespError>, error: RedisError) -> EngineError {
    broken.get().map_or_else(|| error.into(), |broken| EngineError::Protocol(broken.to_string()))
}

impl Open {
    /// Asks one thing.
    pub(super) async fn ask<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, EngineError> {
        command.query_async(&mut self.connection).await.map_err(|error| failure(&self.broken, error))
    }

    async fn ask_all<T: FromRedisValue>(&mut self, commands: &Pipeline) -> Result<T, EngineError> {
        commands.query_async(&mut self.connection).await.map_err(|error| failure(&self.broken, error))
    }
}

/// A connection with Redis.
pub(in crate::cluster) struct RedisLink {
    pub(super) address: String,
    pub(super) open: Open,
    pub(super) keys: Keys,
}

impl RedisLink {
    /// A sentinel may say what was true a moment ago.
    pub(super) async fn demand_master(&mut self) -> Result<(), EngineError> {
        let role: Vec<Value> = self.open.ask(&cmd("ROLE")).await?;
        let is_master = matches!(role.first(), Some(Value::BulkString(role)) if role == b"master");
        is_master.then_some(()).ok_or(EngineError::NotMaster)
    }
}

impl Link for RedisLink {
    fn address(&self) -> &str {
        &self.address
    }

    async fn publish(&mut self, batch: &[Publish]) -> Result<Vec<Option<String>>, EngineError> {
        let mut pipeline = pipe();
        for publish in batch {
            pipeline.cmd("PUBLISH").arg(&publish.channel).arg(&publish.line[..]);
        }
        let answers: Vec<Value> = self.open.ask_all(pipeline.ignore_errors()).await?;
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
        self.open.ask_all(&pipeline).await
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
        self.open.ask_all(&pipeline).await
    }

    async fn refresh(&mut self) -> Result<bool, EngineError> {
        let mut pipeline = pipe();
        pipeline.cmd("PEXPIRE").arg(&self.keys.own).arg(millis(self.keys.ttl));
        pipeline.cmd("SADD").arg(&self.keys.processes).arg(&self.keys.process).ignore();
        // A key that is never empty: it would vanish with its last field.
        pipeline.cmd("HSETNX").arg(&self.keys.own).arg("alive").arg(1).ignore();
        pipeline.cmd("PEXPIRE").arg(&self.keys.own).arg(millis(self.keys.ttl)).ignore();
        let (held,): (bool,) = self.open.ask_all(&pipeline).await?;
        Ok(held)
    }

    async fn count(&mut self, name: &str) -> Result<usize, EngineError> {
        let Keys { prefix, process, processes, .. } = &self.keys;
        let mut question = cmd("SRANDMEMBER"); // all of them, if they are no more
        let members: Vec<Value> = self.open.ask(question.arg(processes).arg(OTHERS_MAX)).await?;
        let others: Vec<_> = members.iter().filter_map(text).filter(|other| other != process).collect();
        if others.is_empty() {
            return Ok(0);
        }
        let mut pipeline = pipe();
        for other in &others {
            pipeline.cmd("HMGET").arg(format!("{prefix}process:{other}")).arg("alive").arg(name);
        }
        // Other programs may have written what they like.
        let found: Vec<Value> = self.open.ask_all(pipeline.ignore_errors()).await?;
        let counts: Vec<_> = found.iter().map(count_of_living).collect();
        let dead: Vec<&str> =
            others.iter().zip(&counts).filter(|(_, c)| c.is_none()).map(|(o, _)| *o).collect();
        if !dead.is_empty() {
            let mut removal = cmd("SREM");
            let () = self.open.ask(removal.arg(processes).arg(&dead)).await?;
        }
        Ok(counts.into_iter().flatten().fold(0, usize::saturating_add))
    }

    async fn leave(&mut self) -> Result<(), EngineError> {
        let mut pipeline = pipe();
        pipeline.cmd("DEL").arg(&self.keys.own).ignore();
        pipeline.cmd("SREM").arg(&self.keys.processes).arg(&self.keys.process).ignore();
        self.open.ask_all(&pipeline).await
    }

    async fn closed(&mut self) -> EngineError {
        let _ = (&mut self.open.task).await;
        self.open.broken.get().map_or(EngineError::Closed, |broken| EngineError::Protocol(broken.to_string()))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => str::from_utf8(bytes).ok(),
        _ => None,
    }
}

/// Of what a process has told, whether it is alive and a number of sessions. `None`: it isn't alive. What is no number counts
/// nothing.
fn count_of_living(told: &Value) -> Option<usize> {
    let Value::Array(told) = told else { return None };
    let [alive, count] = &told[..] else { return None };
    let is_alive = !matches!(alive, Value::Nil);
    is_alive.then(|| text(count).and_then(|count| count.parse::<u32>().ok()).unwrap_or_default() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_other_programs_have_written_is_judged() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let told = |alive: Value, count: Value| count_of_living(&Value::Array(vec![alive, count]));
        assert_eq!(told(text("1"), text("7")), Some(7));
        assert_eq!(told(text("1"), Value::Nil), Some(0));
        for no_number in ["", "-1", "many", "18446744073709551615"] {
            assert_eq!(told(text("1"), text(no_number)), Some(0), "{no_number}");
        }
        assert_eq!(told(text("1"), Value::Int(5000)), Some(0), "it was too long to be read");
        assert_eq!(told(Value::Nil, text("7")), None);
        assert_eq!(count_of_living(&Value::Nil), None);
    }
}
