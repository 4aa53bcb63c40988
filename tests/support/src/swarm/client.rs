//! One live socket of a swarm.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpSocket;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::SERVER_NAME;
use super::backend::{SLOWNESS, digest};
use super::kind::{Kind, SLOW_BURST, Talk, of_burst};
use crate::BoxIo;
use crate::tls::{Rekeying, Tls};
use crate::ws::{BINARY, CLOSE, Frame, PING, PONG, TEXT, WebSocket, encode};

/// Messages that are sent together, so that order is something to keep.
pub(super) const BURST: u64 = 2;
/// Of each kind, so many faults are told.
const TOLD: usize = 5;
/// What the kernel keeps for a client that reads slowly: so little that the gateway has to wait with its write.
const SMALL_BUFFER: u32 = 16 << 10;
/// Between two long messages, or bursts, at least.
const LONG_PERIOD: Duration = Duration::from_secs(3);
/// The second half of a frame comes so much later.
const LATE: Duration = Duration::from_millis(200);

/// What the sockets of a process have in common.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Messages that are answered when all is well, and those that were.
    sent: u64,
    echoed: u64,
    /// Messages to the gateway and from it.
    messages: [u64; 2],
    /// Microseconds.
    latencies: Vec<u64>,
    pub(super) ended: BTreeMap<String, u64>,
    wrong: Vec<String>,
}

impl Tally {
    pub(super) fn as_json(&mut self) -> Value {
        let mut latencies = std::mem::take(&mut self.latencies);
        latencies.sort_unstable();
        let worst = latencies.last().copied().unwrap_or_default();
        let p999 = latencies.get(latencies.len() * 999 / 1000).copied().unwrap_or(worst);
        json!({
            "sent": self.sent, "echoed": self.echoed, "messages": self.messages, "worst_us": worst,
            "p999_us": p999, "ended": self.ended, "wrong": self.wrong,
        })
    }
}

/// When to talk.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Running {
    NotYet,
    Since(Instant),
    NoMore,
}

pub(super) struct Client {
    socket: WebSocket,
    kind: Kind,
    tally: Arc<Mutex<Tally>>,
    index: usize,
    sent: u64,
    /// Over all that was sent to a slow backend.
    slow_sum: u64,
}

impl Client {
    /// Connects from `source`.
    pub(super) async fn connect(
        kind: Kind,
        tls: &Tls,
        source: Ipv4Addr,
        gateway: SocketAddr,
        path: &str,
        (index, tally): (usize, Arc<Mutex<Tally>>),
    ) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((source, 0))).unwrap();
        if kind.talk == Talk::SlowReader {
            socket.set_recv_buffer_size(SMALL_BUFFER).unwrap();
        }
        let tcp = socket.connect(gateway).await.unwrap();
        let tls = kind.suite.map_or_else(|| tls.clone(), |suite| tls.clone().with_suite(suite));
        let io = tls.over(tcp).await.unwrap();
        let io: BoxIo = if kind.rekeys { Box::new(Rekeying::new(io, 2)) } else { Box::new(io) };
        let extension = match kind.talk {
            Talk::Deflated => "Sec-WebSocket-Extensions: permessage-deflate\r\n",
            _ => "",
        };
        let path = format!("{path}{}", kind.path());
        let (socket, head) = WebSocket::connect(io, SERVER_NAME, &path, extension).await.expect("an upgrade");
        assert_eq!(head.get("sec-websocket-extensions").is_some(), !extension.is_empty());
        Self { socket, kind, tally, index, sent: 0, slow_sum: 0 }
    }

    /// Sends a burst every `period` and compares its echo, until told to stop. Returns how the
    /// socket ended; in order, with 1000.
    pub(super) async fn converse(
        &mut self,
        mut due: Instant,
        period: Duration,
        mut running: watch::Receiver<Running>,
    ) -> String {
        let period = match self.kind.talk {
            Talk::Long | Talk::SlowReader | Talk::SlowBackend => period.max(LONG_PERIOD),
            _ => period,
        };
        loop {
            tokio::select! {
                _ = running.changed() => {
                    self.socket.close(1000).await;
                    return match self.next().await {
                        Some(frame) if frame.b0 == CLOSE => frame.close_code().to_string(),
                        other => format!("in place of a Close: {other:?}"),
                    };
                }
                () = sleep_until(due) => {
                    if let Err(how) = self.talk(due).await {
                        return how;
                    }
                    due += period;
                }
                // Silence is due: this is the end, or a ping.
                b0 = self.socket.io.read_u8(), if self.kind.talk != Talk::Deaf => {
                    let frame = match b0 {
                        Ok(b0) => self.socket.receive_rest(b0).await,
                        Err(e) => return format!("cut off: {e}"),
                    };
                    match frame {
                        Some(frame) if frame.b0 == PING => self.socket.send(PONG, frame.payload).await,
                        frame => return ending(frame),
                    }
                }
            }
        }
    }

    /// Says what is due, and hears the answer.
    async fn talk(&mut self, due: Instant) -> Result<(), String> {
        let first = self.sent;
        match self.kind.talk {
            Talk::Various | Talk::Short | Talk::Deflated | Talk::InHalves | Talk::Deaf => {
                let numbers = first..first + BURST;
                for number in numbers.clone() {
                    self.send_message(number).await;
                }
                self.sent += BURST;
                self.count(BURST, [BURST, 0]);
                for number in numbers {
                    self.receive_echo(number, due).await?;
                }
            }
            Talk::Long => {
                self.send_message(first).await;
                self.sent += 1;
                self.count(1, [1, 0]);
                self.receive_echo(first, due).await?;
            }
            Talk::SlowReader => {
                let index = self.index;
                self.socket.text(&format!("{index} {first}")).await;
                self.sent += 1;
                self.count(SLOW_BURST, [1, 0]);
                for place in 0..SLOW_BURST {
                    self.receive(&of_burst(index, first, place), first, None).await?;
                    sleep(SLOWNESS).await;
                }
            }
            Talk::SlowBackend => {
                self.sent += 1;
                self.count(1, [SLOW_BURST, 0]);
                // The backend's sum goes on from burst to burst, too.
                for place in 0..SLOW_BURST {
                    let message = of_burst(self.index, first, place);
                    self.slow_sum = digest(self.slow_sum, &message);
                    self.socket.send(BINARY, message).await;
                }
                let sum = self.slow_sum.to_string();
                self.receive(sum.as_bytes(), first, None).await?;
            }
        }
        Ok(())
    }

    async fn send_message(&mut self, number: u64) {
        let message = self.kind.message(self.index, number);
        let b0 = match self.kind.talk {
            Talk::Deflated => TEXT | 0x40, // RSV1 (RFC 7692 §6)
            Talk::Long => BINARY,
            _ => TEXT,
        };
        let wire = encode(b0, &message, true);
        if self.kind.talk == Talk::InHalves {
            // Sometimes within the frame's header.
            let place = match number % 3 {
                0 => 1 + self.index % 7,
                _ => wire.len() / 2,
            };
            self.socket.send_raw(&wire[..place]).await;
            sleep(LATE).await;
            return self.socket.send_raw(&wire[place..]).await;
        }
        self.socket.send_raw(&wire).await;
    }

    fn count(&self, sent: u64, messages: [u64; 2]) {
        let mut tally = self.tally.lock().unwrap();
        tally.sent += sent;
        tally.messages[0] += messages[0];
        tally.messages[1] += messages[1];
    }

    async fn receive_echo(&mut self, number: u64, due: Instant) -> Result<(), String> {
        let message = self.kind.message(self.index, number);
        let is_quick = matches!(self.kind.talk, Talk::Various | Talk::Short | Talk::Deflated | Talk::Deaf);
        self.receive(&message, number, is_quick.then_some(due)).await
    }

    /// The next message is this one. If it was `due` to be asked for at a time, its latency counts.
    async fn receive(&mut self, message: &[u8], number: u64, due: Option<Instant>) -> Result<(), String> {
        let frame = match self.next().await {
            Some(frame) if matches!(frame.b0 & !0x40, TEXT | BINARY) => frame,
            other => return Err(ending(other)),
        };
        let mut tally = self.tally.lock().unwrap();
        tally.messages[1] += 1;
        if frame.payload == message {
            tally.echoed += 1;
        } else if tally.wrong.len() < TOLD {
            let heard = String::from_utf8_lossy(&frame.payload[..frame.payload.len().min(100)]).into_owned();
            tally.wrong.push(format!("socket {} in place of message {number}: {heard}", self.index));
        }
        tally.latencies.extend(due.map(|due| u64::try_from(due.elapsed().as_micros()).unwrap()));
        Ok(())
    }

    /// The next frame that is not a ping.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            let frame = self.socket.receive().await?;
            match frame.b0 {
                PING => self.socket.send(PONG, frame.payload).await,
                _ => return Some(frame),
            }
        }
    }
}

fn ending(frame: Option<Frame>) -> String {
    match frame {
        Some(frame) if frame.b0 == CLOSE => frame.close_code().to_string(),
        Some(frame) => format!("an unexpected frame: {:#04x}", frame.b0),
        None => "cut off".to_owned(),
    }
}
