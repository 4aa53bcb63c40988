//! A server's side of a session that it leaves when it is told to.

use support::Io;
use support::http1::Head;
use support::ws::{CLOSE, PING, PONG, TEXT, WebSocket, accept, encode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

/// How a server goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Close with this code, and it reads until it is answered.
    Closes(u16),
    /// Its sockets close as those of a process that is killed.
    Dies,
}

/// What a server was told last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Orders {
    /// How often it was told to go.
    pub(crate) count: u32,
    pub(crate) fate: Fate,
}

/// The answer that opens a session.
pub(crate) fn switching(head: &Head, fields: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n{fields}\r\n",
        accept(head.get("sec-websocket-key").expect("a key"))
    )
}

/// What a server reads.
pub(crate) enum Read<'a> {
    /// The first byte of a frame.
    Begin,
    /// A text, which it echoes.
    Text(&'a str),
    /// A text that it doesn't answer: it has begun to close.
    LateText(&'a str),
}

/// Echoes texts with its name before them until it is told to go, or the client goes.
pub(crate) async fn converse(
    name: &str,
    io: impl Io + 'static,
    (mut told, since): (watch::Receiver<Orders>, u32),
    on: impl Fn(Read<'_>),
) {
    let (reads, mut writes) = tokio::io::split(io);
    let mut socket = WebSocket { io: Box::new(tokio::io::join(reads, tokio::io::sink())), client: false };
    let (mut closes, mut begun) = (false, Vec::new());
    loop {
        let mut reading = std::pin::pin!(async {
            let b0 = socket.io.read_u8().await.ok()?;
            on(Read::Begin);
            socket.receive_rest(b0).await
        });
        let frame = loop {
            tokio::select! {
                biased;
                fate = told_to_go(&mut told, since), if !closes => match fate {
                    Fate::Closes(code) => {
                        closes = true;
                        if writes.write_all(&encode(CLOSE, &code.to_be_bytes(), false)).await.is_err() {
                            return;
                        }
                    }
                    Fate::Dies => return,
                },
                frame = &mut reading => break frame,
            }
        };
        let Some(frame) = frame else { return };
        let answer = match frame.b0 {
            0x01 => {
                begun = frame.payload;
                continue;
            }
            TEXT | 0x80 => {
                begun.extend(frame.payload);
                let text = String::from_utf8(std::mem::take(&mut begun)).unwrap();
                on(if closes { Read::LateText(&text) } else { Read::Text(&text) });
                if closes {
                    continue;
                }
                encode(TEXT, format!("{name} {text}").as_bytes(), false)
            }
            PING => encode(PONG, &frame.payload, false),
            CLOSE => {
                if !closes {
                    let _ = writes.write_all(&encode(CLOSE, &frame.payload, false)).await;
                }
                return;
            }
            _ => continue,
        };
        if writes.write_all(&answer).await.is_err() {
            return;
        }
    }
}

async fn told_to_go(told: &mut watch::Receiver<Orders>, since: u32) -> Fate {
    told.wait_for(|orders| orders.count > since).await.map_or(Fate::Dies, |orders| orders.fate)
}
