//! Servers behind the gateway, good and bad.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::task::JoinHandle;

use crate::Io;
use crate::http1::{Head, read_head};
use crate::ws::{CLOSE, PING, PONG, WebSocket, accept, apply_mask, encode};

/// A listening socket and what it does with each connection. It ends when dropped.
pub struct Backend {
    /// Where it listens.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Backend {
    /// Runs `serve` for every connection.
    pub async fn start<F, Fut>(serve: F) -> Self
    where
        F: Fn(TcpStream) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), serve)
    }

    /// The same on a socket that listens already.
    pub fn on<F, Fut>(listener: TcpListener, serve: F) -> Self
    where
        F: Fn(TcpStream) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self { address: listener.local_addr().unwrap(), task: tokio::spawn(accept_all(listener, serve)) }
    }

    /// Says `answer`, byte for byte, to whatever is asked, and closes.
    pub async fn saying(answer: impl Into<Vec<u8>>) -> Self {
        let answer = Arc::new(answer.into());
        Self::start(move |mut tcp| {
            let answer = answer.clone();
            async move {
                if read_head(&mut tcp).await.is_some() {
                    let _ = tcp.write_all(&answer).await;
                    let _ = tcp.shutdown().await;
                    // Until the other side has read it all.
                    let _ = tokio::io::copy(&mut tcp, &mut tokio::io::sink()).await;
                }
            }
        })
        .await
    }

    /// An address on which nothing listens.
    #[must_use]
    pub fn unreachable() -> SocketAddr {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }
}

async fn accept_all<F, Fut>(listener: TcpListener, serve: F)
where
    F: Fn(TcpStream) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        tcp.set_nodelay(true).unwrap();
        tokio::spawn(serve(tcp));
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Request heads that a backend has seen.
#[derive(Debug, Clone, Default)]
pub struct Seen(Arc<Mutex<Vec<Head>>>);

impl Seen {
    /// The last one.
    #[must_use]
    pub fn last(&self) -> Head {
        self.0.lock().unwrap().last().expect("the backend was asked").clone()
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<Head> {
        self.0.lock().unwrap().clone()
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Adds one.
    pub fn push(&self, head: Head) {
        self.0.lock().unwrap().push(head);
    }
}

/// A server that echoes WebSocket messages frame by frame, and answers plain requests with 200 and
/// the first line of the request.
pub async fn echo() -> (Backend, Seen) {
    let seen = Seen::default();
    let heads = seen.clone();
    let backend = Backend::start(move |tcp| {
        let heads = heads.clone();
        async move { serve(tcp, &heads).await }
    })
    .await;
    (backend, seen)
}

/// The same on a socket that listens already.
#[must_use]
pub fn echo_at(listener: TcpListener) -> (Backend, Seen) {
    let seen = Seen::default();
    let heads = seen.clone();
    let backend = Backend::on(listener, move |tcp| {
        let heads = heads.clone();
        async move { serve(tcp, &heads).await }
    });
    (backend, seen)
}

/// The same on a Unix socket, until the task is aborted.
#[must_use]
pub fn echo_on(path: &Path) -> (JoinHandle<()>, Seen) {
    let listener = UnixListener::bind(path).unwrap();
    let seen = Seen::default();
    let heads = seen.clone();
    let task = tokio::spawn(async move {
        loop {
            let (unix, _) = listener.accept().await.unwrap();
            let heads = heads.clone();
            tokio::spawn(async move { serve(unix, &heads).await });
        }
    });
    (task, seen)
}

/// The same over a connection that is there already.
pub async fn serve(io: impl Io + 'static, seen: &Seen) {
    let mut tcp = BufReader::new(io);
    while let Some(head) = read_head(&mut tcp).await {
        seen.push(head.clone());
        if let Some(key) = head.get("sec-websocket-key") {
            let protocol = head.get("sec-websocket-protocol").and_then(|offer| offer.split(',').next());
            let protocol = protocol.map(|p| format!("Sec-WebSocket-Protocol: {p}\r\n")).unwrap_or_default();
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {}\r\n{protocol}\r\n",
                accept(key)
            );
            if tcp.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
            return echo_frames(WebSocket { io: Box::new(tcp), client: false }).await;
        }
        if !answer(&mut tcp, &head).await {
            return;
        }
    }
}

/// Answers a plain request with the first line of its head. Returns whether another may follow.
pub(crate) async fn answer(io: &mut (impl Io + ?Sized), head: &Head) -> bool {
    let length = head.get("content-length").and_then(|len| len.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    if tokio::io::AsyncReadExt::read_exact(io, &mut body).await.is_err() {
        return false;
    }
    let text = format!("{}\n", head.line);
    let body = if head.line.starts_with("HEAD ") { "" } else { text.as_str() };
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", text.len());
    io.write_all(answer.as_bytes()).await.is_ok()
}

/// Echoes until the closing handshake is done or the stream ends.
pub async fn echo_frames(mut socket: WebSocket) {
    while let Some(frame) = read_frame(&mut socket).await {
        assert!(frame.masked, "the gateway is the client here");
        let b0 = if frame.b0 == PING { PONG } else { frame.b0 };
        if frame.b0 != PONG && socket.io.write_all(&encode(b0, &frame.payload, false)).await.is_err() {
            return;
        }
        if b0 == CLOSE {
            let _ = socket.io.shutdown().await;
            return;
        }
    }
}

/// Like [`WebSocket::receive`], but waits for ever, and takes an end inside a frame for an end.
pub(crate) async fn read_frame(socket: &mut WebSocket) -> Option<crate::ws::Frame> {
    use tokio::io::AsyncReadExt;
    let io = &mut socket.io;
    let (b0, b1) = (io.read_u8().await.ok()?, io.read_u8().await.ok()?);
    let len = match b1 & 0x7F {
        126 => usize::from(io.read_u16().await.ok()?),
        127 => usize::try_from(io.read_u64().await.ok()?).ok()?,
        len => usize::from(len),
    };
    let mut mask = [0; 4];
    if b1 & 0x80 != 0 {
        io.read_exact(&mut mask).await.ok()?;
    }
    let mut payload = vec![0; len];
    io.read_exact(&mut payload).await.ok()?;
    apply_mask(&mut payload, mask);
    Some(crate::ws::Frame { b0, masked: b1 & 0x80 != 0, payload })
}
