//! Sentinels: which Redis is the master at this moment. They are asked for each connection, so that it is found after a
//! failover. Which one is asked first is chance: one that knows only what was true is not asked again and again.

use std::time::Duration;

use redis::{AsyncConnectionConfig, RedisConnectionInfo, cmd};
use tls_acceptor::ConnectorSettings;
use tokio::time::timeout;

use super::link::open;
use crate::cluster::engine::EngineError;
use crate::cluster::stream;

/// How long one of them may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// The address of the service's master, from the first sentinel that knows it.
pub(super) async fn ask(
    sentinels: &[(String, u16)],
    login: &RedisConnectionInfo,
    service: &str,
    tls: Option<&ConnectorSettings>,
) -> Result<(String, u16), EngineError> {
    let mut last = None;
    let first = rand::random_range(0..sentinels.len());
    for (host, port) in sentinels.iter().cycle().skip(first).take(sentinels.len()) {
        let why = match timeout(PATIENCE, ask_one(host, *port, login, service, tls)).await {
            Ok(Ok(Some(address))) => return Ok(address),
            Ok(Ok(None)) => "there is no such service".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {PATIENCE:?}"),
        };
        last = Some(format!("{host}:{port}: {why}"));
    }
    Err(EngineError::NoMaster { service: service.to_owned(), last })
}

async fn ask_one(
    host: &str,
    port: u16,
    login: &RedisConnectionInfo,
    service: &str,
    tls: Option<&ConnectorSettings>,
) -> Result<Option<(String, u16)>, EngineError> {
    let stream = stream::tcp(host, port, tls).await?;
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let mut sentinel = open(login, stream, config, 0).await?;
    let mut question = cmd("SENTINEL");
    question.arg("GET-MASTER-ADDR-BY-NAME").arg(service);
    sentinel.ask(&question).await
}
