//! Servers that go when they are told to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use support::backend::{Backend, Seen};
use support::http1::{Head, read_head};
use support::ws::{CLOSE, PING, PONG, TEXT, WebSocket, accept, encode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
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
    /// It takes sessions.
    pub(crate) serves: bool,
}

/// What a server answers to a handshake.
pub(crate) type Answer = Arc<dyn Fn(&Head) -> String + Send + Sync>;

/// A server that echoes texts with its name before them, and goes when it is told to.
pub(crate) struct Server {
    backend: Backend,
    orders: watch::Sender<Orders>,
    pub(crate) seen: Seen,
    /// Texts that it has read whole, by `Wssgate-Session`.
    pub(crate) heard: Heard,
}

pub(crate) type Heard = Arc<Mutex<BTreeMap<String, Vec<String>>>>;

impl Server {
    pub(crate) async fn start(name: &'static str) -> Self {
        Self::answering(name, Arc::new(|head| switching(head, ""))).await
    }

    pub(crate) async fn answering(name: &'static str, answer: Answer) -> Self {
        let (orders, told) = watch::channel(Orders { count: 0, fate: Fate::Dies, serves: true });
        let (seen, heard) = (Seen::default(), Heard::default());
        let all = (seen.clone(), heard.clone());
        let backend = Backend::start(move |tcp| {
            let ((seen, heard), told, answer) = (all.clone(), told.clone(), answer.clone());
            async move {
                let mut tcp = tcp;
                let Some(head) = read_head(&mut tcp).await else { return };
                let Orders { serves, count, .. } = *told.borrow();
                seen.push(head.clone());
                if !serves {
                    return;
                }
                let answer = answer(&head);
                if tcp.write_all(answer.as_bytes()).await.is_err() || !answer.starts_with("HTTP/1.1 101") {
                    return;
                }
                let session = head.get("wssgate-session").unwrap_or_default().to_owned();
                converse(name, tcp, (told, count), |text| {
                    heard.lock().unwrap().entry(session.clone()).or_default().push(text);
                })
                .await;
            }
        })
        .await;
        Self { backend, orders, seen, heard }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.backend.address
    }

    pub(crate) fn tell(&self, fate: Fate, serves: bool) {
        self.orders.send_modify(|orders| *orders = Orders { count: orders.count + 1, fate, serves });
    }

    /// It goes, and is there again at once.
    pub(crate) fn restart(&self, fate: Fate) {
        self.tell(fate, true);
    }

    /// It goes.
    pub(crate) fn stop(&self, fate: Fate) {
        self.tell(fate, false);
    }

    /// It is there again.
    pub(crate) fn serve(&self) {
        self.orders.send_modify(|orders| orders.serves = true);
    }

    pub(crate) fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().values().flatten().cloned().collect()
    }
}

pub(crate) fn switching(head: &Head, fields: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n{fields}\r\n",
        accept(head.get("sec-websocket-key").expect("a key"))
    )
}

pub(crate) async fn converse(
    name: &str,
    tcp: TcpStream,
    (mut told, since): (watch::Receiver<Orders>, u32),
    heard: impl Fn(String),
) {
    let (reads, mut writes) = tcp.into_split();
    let mut socket = WebSocket { io: Box::new(tokio::io::join(reads, tokio::io::sink())), client: false };
    let (mut closes, mut begun) = (false, Vec::new());
    loop {
        let mut reading = std::pin::pin!(async {
            let b0 = socket.io.read_u8().await.ok()?;
            socket.hear_rest(b0).await
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
                heard(text.clone());
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

pub(crate) async fn told_to_go(told: &mut watch::Receiver<Orders>, since: u32) -> Fate {
    told.wait_for(|orders| orders.count > since).await.map_or(Fate::Dies, |orders| orders.fate)
}
