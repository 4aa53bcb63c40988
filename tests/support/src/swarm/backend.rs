//! The backend of a swarm: echoes, and does what the sockets of a mixed swarm need.

use std::time::Duration;

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::kind::{SLOW_BURST, of_burst};
use crate::backend::{Backend, answer, echo_frames, read_frame};
use crate::http1::read_head;
use crate::ws::{BINARY, CLOSE, PING, PONG, TEXT, WebSocket, accept, encode};

/// Between two messages that are read slowly.
pub(super) const SLOWNESS: Duration = Duration::from_millis(50);

/// Starts it.
pub(super) async fn start() -> Backend {
    Backend::start(serve).await
}

async fn serve(tcp: TcpStream) {
    let mut tcp = BufReader::new(tcp);
    let (head, key) = loop {
        let Some(head) = read_head(&mut tcp).await else { return };
        match head.get("sec-websocket-key").map(str::to_owned) {
            Some(key) => break (head, key),
            None if answer(&mut tcp, &head).await => {}
            None => return,
        }
    };
    let what = head.line.split(' ').nth(1).and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    let extension = match what {
        "deflate" => "Sec-WebSocket-Extensions: permessage-deflate\r\n",
        _ => "",
    };
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n{extension}\r\n",
        accept(&key)
    );
    if tcp.write_all(head.as_bytes()).await.is_err() {
        return;
    }
    let socket = WebSocket { io: Box::new(tcp), client: false };
    match what {
        "burst" | "slow" => be_slow(socket).await,
        _ => echo_frames(socket).await,
    }
}

/// A text asks for a burst, which is sent as fast as it is taken. Anything else is part of a burst, and is read slowly;
/// a text follows it that says what has come.
async fn be_slow(mut socket: WebSocket) {
    let (mut place, mut sum) = (0, 0);
    while let Some(frame) = read_frame(&mut socket).await {
        let mut wire = Vec::new();
        match frame.b0 {
            TEXT => {
                let text = String::from_utf8(frame.payload).unwrap();
                let (index, number) = text.split_once(' ').unwrap();
                let (index, number) = (index.parse().unwrap(), number.parse().unwrap());
                for place in 0..SLOW_BURST {
                    wire.extend(encode(BINARY, &of_burst(index, number, place), false));
                }
            }
            BINARY => {
                sum = digest(sum, &frame.payload);
                place += 1;
                if place % SLOW_BURST == 0 {
                    wire = encode(TEXT, sum.to_string().as_bytes(), false);
                }
                sleep(SLOWNESS).await;
            }
            PING => wire = encode(PONG, &frame.payload, false),
            CLOSE => wire = encode(CLOSE, &frame.payload, false),
            _ => {}
        }
        if socket.io.write_all(&wire).await.is_err() {
            return;
        }
        if frame.b0 == CLOSE {
            let _ = socket.io.shutdown().await;
            return;
        }
    }
}

/// Goes on with a sum over bytes and their order.
pub(super) fn digest(sum: u64, bytes: &[u8]) -> u64 {
    let words = bytes.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_be_bytes(word)
    });
    words.fold(sum, |sum, word| (sum.rotate_left(5) ^ word).wrapping_mul(0x0100_0000_01B3))
}
