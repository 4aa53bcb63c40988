//! Each message is echoed, compressed as the client has offered: `rama-ws`, a fork of tungstenite that knows permessage-deflate.
//!
//! Arguments: certificate chain and key. The port is the first line on stdout.

use std::env::args;
use std::sync::Arc;

use anyhow::{Context, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rama_core::ServiceInput;
use rama_ws::AsyncWebSocket;
use rama_ws::protocol::{PerMessageDeflateConfig, Role, WebSocketConfig};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha1::{Digest, Sha1};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let [chain, key] = args().skip(1).collect::<Vec<_>>().try_into().ok().context("a chain and a key")?;
    let chain = CertificateDer::pem_file_iter(chain)?.collect::<Result<Vec<_>, _>>()?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ticketer = Ticketer::new()?;
    let tls = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    loop {
        let (tcp, _) = listener.accept().await?;
        tokio::spawn(serve(tcp, tls.clone()));
    }
}

/// The client ends the connection.
async fn serve(tcp: TcpStream, tls: TlsAcceptor) -> anyhow::Result<()> {
    tcp.set_nodelay(true)?;
    let mut io = tls.accept(tcp).await?;
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if io.read_buf(&mut request).await? == 0 {
            bail!("the client has gone");
        }
    }
    let request = String::from_utf8(request)?;
    let field = |name: &str| {
        let fields = request.lines().filter_map(|line| line.split_once(": "));
        fields.filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    };
    let key = field("sec-websocket-key").context("no handshake")?;
    let accept = BASE64_STANDARD.encode(Sha1::digest(format!("{key}{GUID}")));
    let offer = field("sec-websocket-extensions");
    let extensions = offer.map(|offer| format!("Sec-WebSocket-Extensions: {offer}\r\n")).unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{extensions}\r\n"
    );
    io.write_all(answer.as_bytes()).await?;
    io.flush().await?;
    let mut config = WebSocketConfig::default();
    config.per_message_deflate = offer.map(agreed).transpose()?;
    let mut socket =
        AsyncWebSocket::from_raw_socket(ServiceInput::new(io), Role::Server, Some(config)).await;
    loop {
        let message = socket.recv_message().await?;
        socket.send_message(message).await?;
    }
}

/// What the one offer says.
fn agreed(offer: &str) -> anyhow::Result<PerMessageDeflateConfig> {
    let mut agreed = PerMessageDeflateConfig {
        server_no_context_takeover: false,
        client_no_context_takeover: false,
        server_max_window_bits: None,
        client_max_window_bits: None,
    };
    for parameter in offer.split("; ").skip(1) {
        match parameter.split_once('=') {
            None if parameter == "server_no_context_takeover" => agreed.server_no_context_takeover = true,
            None if parameter == "client_no_context_takeover" => agreed.client_no_context_takeover = true,
            Some(("server_max_window_bits", bits)) => agreed.server_max_window_bits = Some(bits.parse()?),
            Some(("client_max_window_bits", bits)) => agreed.client_max_window_bits = Some(bits.parse()?),
            _ => bail!("unknown: {parameter}"),
        }
    }
    Ok(agreed)
}
