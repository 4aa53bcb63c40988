//! The clients of a broadcast: all of them read, and the first one speaks.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::frame::{BINARY, HeadReader, TEXT, put_masked};
use crate::load::connection::{Client, Connection};

/// Handshakes at the same time.
const CONNECTING: usize = 64;
/// How long one broadcast may take to reach everybody.
const PATIENCE: Duration = Duration::from_secs(60);
/// A client reads at most so many bytes at once.
const BUFFER: usize = 4 << 10;

/// Clients that are connected.
pub(crate) struct Crowd {
    count: u64,
    speaker: mpsc::UnboundedSender<Vec<u8>>,
    arrived: Arc<Arrived>,
    expected: u64,
}

/// Messages that clients have read whole.
#[derive(Default)]
struct Arrived {
    messages: AtomicU64,
    /// Connections that have ended.
    ended: AtomicU64,
    changed: Notify,
}

impl Crowd {
    /// Connects so many clients to a server of this certificate (PEM).
    pub(crate) async fn connect(certificate: &Path, port: u16, count: usize) -> anyhow::Result<Self> {
        let client = Arc::new(Client::of(certificate, port, "http/1.1", BUFFER)?);
        let (arrived, places) = (Arc::new(Arrived::default()), Arc::new(Semaphore::new(CONNECTING)));
        let (speaker, words) = mpsc::unbounded_channel();
        tokio::spawn(read(client.upgrade(0).await?, Some(words), arrived.clone()));
        let mut connecting = JoinSet::new();
        for index in 1..count {
            let (client, places) = (client.clone(), places.clone());
            connecting.spawn(async move {
                let _place = places.acquire_owned().await?;
                client.upgrade(index).await
            });
        }
        while let Some(connection) = connecting.join_next().await {
            tokio::spawn(read(connection??, None, arrived.clone()));
        }
        Ok(Self { count: count as u64, speaker, arrived, expected: 0 })
    }

    /// The first client sends a message of this length. Returns when all have read it.
    pub(crate) async fn broadcast(&mut self, len: usize) -> anyhow::Result<()> {
        let mut frame = Vec::with_capacity(len + 14);
        put_masked(&mut frame, BINARY, &[&vec![b'x'; len]], [1, 2, 3, 4]);
        self.expected += self.count;
        self.speaker.send(frame).ok().context("the first client's connection has ended")?;
        let arriving = async {
            loop {
                let changed = self.arrived.changed.notified();
                let ended = self.arrived.ended.load(Ordering::Relaxed);
                ensure!(ended == 0, "{ended} connections have ended");
                if self.arrived.messages.load(Ordering::Relaxed) >= self.expected {
                    return Ok(());
                }
                changed.await;
            }
        };
        timeout(PATIENCE, arriving).await.context("not everybody has got the message")??;
        let seen = self.arrived.messages.load(Ordering::Relaxed);
        ensure!(seen == self.expected, "{seen} messages have come in place of {}", self.expected);
        Ok(())
    }
}

async fn read(
    mut connection: Connection,
    mut words: Option<mpsc::UnboundedReceiver<Vec<u8>>>,
    arrived: Arc<Arrived>,
) {
    let (mut head, mut left, mut counts) = (HeadReader::default(), 0, false);
    loop {
        let said = async {
            match &mut words {
                Some(words) => words.recv().await,
                None => std::future::pending().await,
            }
        };
        let mut input = tokio::select! {
            read = connection.exchange() => match read {
                Ok((input, _)) if !input.is_empty() => input,
                _ => break,
            },
            said = said => match said {
                Some(frame) => {
                    connection.outbox.extend(frame);
                    continue;
                }
                None => return, // the crowd goes home
            },
        };
        let mut messages = 0;
        while !input.is_empty() {
            if left == 0 {
                let Some(next) = head.read(&mut input) else { break };
                (left, counts) = (next.payload_len, matches!(next.first, BINARY | TEXT));
                messages += u64::from(counts && left == 0);
            }
            let part = left.min(input.len() as u64);
            left -= part;
            input = &input[usize::try_from(part).unwrap_or(input.len())..];
            messages += u64::from(counts && part > 0 && left == 0);
        }
        arrived.messages.fetch_add(messages, Ordering::Relaxed);
        arrived.changed.notify_one();
    }
    arrived.ended.fetch_add(1, Ordering::Relaxed);
    arrived.changed.notify_one();
}
