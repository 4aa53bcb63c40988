//! NATS: subjects, and presence by questions, since there are no keys. One connection for all.
//!
//! The protocol is spoken here, not by a library: those put off what is published while they connect again, and give each
//! subscription a queue of its own, which loses the order between them.
//!
//! Each process says on `PREFIXalive` that it is there. Who wants a count asks on `PREFIXask`, and waits until all have answered
//! who are there.

mod credentials;
mod frame;
mod link;
mod login;
mod nkey;
mod presence;
mod subject;
mod url;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::BytesMut;
use tls_acceptor::ConnectorSettings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use self::credentials::Credentials;
use self::frame::{Frame, Frames, NotNats};
use self::link::{NatsLink, Peer};
use self::login::{Info, Login};
use self::presence::Names;
pub(super) use self::url::NatsUrl;
use super::engine::{Engine, EngineError, Inbox};
use super::stream::{Stream, connect, secure};

/// How long one of several servers may take. A single one may take as long as a connection may.
const PATIENCE: Duration = Duration::from_secs(1);

/// A NATS that can be connected with.
pub(super) struct Nats {
    url: NatsUrl,
    tls: ConnectorSettings,
    /// The file of who logs in, where the URL doesn't say it.
    credentials: Option<PathBuf>,
    names: Names,
}

impl Nats {
    /// For a process of this name.
    pub(super) fn new(
        url: NatsUrl,
        tls: ConnectorSettings,
        credentials: Option<PathBuf>,
        prefix: &str,
        process: String,
        ttl: Duration,
    ) -> Self {
        Self { url, tls, credentials, names: Names::new(prefix, process, ttl) }
    }

    async fn credentials(&self) -> Result<Option<Credentials>, EngineError> {
        let Some(path) = self.credentials.clone() else { return Ok(None) };
        let shown = path.display().to_string();
        let read = spawn_blocking(move || Credentials::read(&path)).await.map_err(io::Error::other)?;
        read.map(Some).map_err(|cause| EngineError::Credentials { path: shown, cause: cause.to_string() })
    }

    async fn log_in(&self, host: &str, port: u16) -> Result<(Peer, Info), EngineError> {
        let (mut tcp, mut buffer) = (connect(host, port).await?, BytesMut::new());
        let Frame::Info(text) = answer(&mut tcp, &mut buffer).await? else { return Err(NotNats.into()) };
        let info: Info = serde_json::from_slice(&text).map_err(|_| NotNats)?;
        let is_tls = self.url.is_tls || info.tls_required;
        if is_tls && !buffer.is_empty() {
            return Err(NotNats.into()); // before the handshake, anybody on the way may have written it
        }
        let mut stream: Stream = if is_tls { secure(tcp, host, &self.tls).await? } else { Box::new(tcp) };
        let credentials = self.credentials().await?;
        let login = Login::new(&self.url, credentials.as_ref(), &info, is_tls)
            .map_err(|error| EngineError::Said(error.to_string()))?;
        let login = serde_json::to_string(&login).map_err(io::Error::other)?;
        stream.write_all(format!("CONNECT {login}\r\nPING\r\n").as_bytes()).await?;
        stream.flush().await?;
        match answer(&mut stream, &mut buffer).await? {
            Frame::Pong => Ok((Peer { stream, buffer }, info)),
            Frame::Error(said) => Err(EngineError::Said(said)),
            _ => Err(NotNats.into()),
        }
    }
}

impl Engine for Nats {
    type Link = NatsLink;

    async fn connect<I: Inbox>(&self, inbox: I) -> Result<NatsLink, EngineError> {
        let servers = &self.url.servers;
        let first = rand::random_range(0..servers.len()); // not all processes with the same one
        let patience = if servers.len() > 1 { PATIENCE } else { Duration::MAX };
        let mut failure = EngineError::Closed;
        for (host, port) in servers.iter().cycle().skip(first).take(servers.len()) {
            let address = format!("{host}:{port}");
            failure = match timeout(patience, self.log_in(host, *port)).await {
                Ok(Ok((peer, info))) => {
                    let names = self.names.clone();
                    return NatsLink::begin(address, peer, inbox, names, info.max_payload).await;
                }
                Ok(Err(error)) => error.at(&address),
                Err(_) => EngineError::Silent(PATIENCE).at(&address),
            };
        }
        Err(failure)
    }
}

impl From<NotNats> for EngineError {
    fn from(error: NotNats) -> Self {
        Self::Protocol(error.to_string())
    }
}

/// The server's answer, while nothing is listened to.
async fn answer(
    stream: &mut (impl AsyncReadExt + Unpin),
    buffer: &mut BytesMut,
) -> Result<Frame, EngineError> {
    let mut frames = Frames::new(0);
    loop {
        match frames.next(buffer)? {
            Some(Frame::Ping) => {} // it comes again
            Some(frame) => return Ok(frame),
            None => {
                buffer.reserve(4096);
                if stream.read_buf(buffer).await? == 0 {
                    return Err(EngineError::Closed);
                }
            }
        }
    }
}
