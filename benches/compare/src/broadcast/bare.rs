//! What a broadcast can't help: for each client the frame is sealed by rustls and written, and nothing else is done. It
//! knows no limits, no timers, and of HTTP as much as a handshake takes.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;

use anyhow::{Context, bail};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::frame::{BINARY, Head, apply_mask};
use crate::load::connection::ACCEPT;

type Client = StreamOwned<ServerConnection, std::net::TcpStream>;

/// Serves until the first client's connection ends. All clients have to come before the first message does.
pub(super) fn serve(listener: &TcpListener, config: &Arc<ServerConfig>, count: usize) -> anyhow::Result<()> {
    let mut clients = Vec::with_capacity(count);
    while clients.len() < count {
        let (tcp, _) = listener.accept()?;
        tcp.set_nodelay(true)?;
        let mut client = StreamOwned::new(ServerConnection::new(config.clone())?, tcp);
        upgrade(&mut client).context("handshake")?;
        clients.push(client);
    }
    loop {
        let message = read_message(clients.first_mut().context("nobody is there")?)?;
        let mut frame = Vec::with_capacity(message.len() + 10);
        Head { first: BINARY, payload_len: message.len() as u64, mask: None }.put(&mut frame);
        frame.extend(message);
        for client in &mut clients {
            client.conn.writer().write_all(&frame)?;
            client.conn.write_tls(&mut client.sock)?;
        }
    }
}

fn upgrade(client: &mut Client) -> anyhow::Result<()> {
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.ends_with(b"\r\n\r\n") {
        match client.read(&mut buffer)? {
            0 => bail!("the client has gone"),
            len => request.extend(&buffer[..len]),
        }
    }
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    );
    client.write_all(answer.as_bytes())?;
    Ok(client.flush()?)
}

/// One message in one frame.
fn read_message(client: &mut Client) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        if let Some((head, head_len)) = Head::parse(&bytes)
            && bytes.len() as u64 >= head_len as u64 + head.payload_len
        {
            let mut payload = bytes.split_off(head_len);
            apply_mask(&mut payload, head.mask.unwrap_or_default(), 0);
            return Ok(payload);
        }
        match client.read(&mut buffer)? {
            0 => bail!("the first client has gone"),
            len => bytes.extend(&buffer[..len]),
        }
    }
}
