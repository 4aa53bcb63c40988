//! Servers that send what one client says to all of them, each written as its users write it: wss-service, and what Rust
//! programs use today.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message as AxumMessage, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::any;
use clap::{Args, ValueEnum};
use futures_util::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::runtime::Builder;
use tokio::sync::{broadcast, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::Message;
use wss_service::{Certificates, Service, Settings, To};

use super::bare;

/// Messages that wait for one client of axum's channel.
const CHANNEL: usize = 64;

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Sealing and writing alone.
    Bare,
    Service,
    Tungstenite,
    Axum,
}

#[derive(Debug, Args)]
pub(crate) struct Options {
    kind: Kind,
    chain: PathBuf,
    key: PathBuf,
    /// How many clients will come
    count: usize,
}

/// Serves until it is ended; the port is the first line on stdout.
pub(crate) fn serve(options: &Options) -> anyhow::Result<()> {
    let Options { kind, chain, key, count } = options;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    writeln!(io::stdout(), "{}", listener.local_addr()?.port())?;
    if *kind == Kind::Bare {
        return bare::serve(&listener, &tls(chain, key)?, *count);
    }
    listener.set_nonblocking(true)?;
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        match kind {
            Kind::Bare => Ok(()),
            Kind::Service => service(listener, chain, key).await,
            Kind::Tungstenite => {
                tungstenite(tokio::net::TcpListener::from_std(listener)?, tls(chain, key)?).await
            }
            Kind::Axum => axum(tokio::net::TcpListener::from_std(listener)?, tls(chain, key)?).await,
        }
    })
}

fn tls(chain: &Path, key: &Path) -> anyhow::Result<Arc<ServerConfig>> {
    let chain = CertificateDer::pem_file_iter(chain)?.collect::<Result<Vec<_>, _>>()?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ticketer = Ticketer::new()?;
    Ok(Arc::new(config))
}

async fn service(listener: TcpListener, chain: &Path, key: &Path) -> anyhow::Result<()> {
    // The other servers send no pings.
    let settings = Settings { ping_interval: None, ..Settings::default() };
    let service =
        Service::new().listen(listener).settings(settings).certificates(Certificates::files(chain, key)?);
    let hub = service.hub();
    let to_all = move |_, message: wss_service::Message| {
        let hub = hub.clone();
        async move {
            let _ = hub.send_to(To::All, message).await;
        }
    };
    Ok(service.on_message(to_all).run().await?)
}

/// A map of channels, as its example of a chat has it.
async fn tungstenite(listener: tokio::net::TcpListener, config: Arc<ServerConfig>) -> anyhow::Result<()> {
    type Clients = Arc<Mutex<HashMap<u64, mpsc::UnboundedSender<Message>>>>;

    async fn client(
        tcp: tokio::net::TcpStream,
        tls: TlsAcceptor,
        clients: Clients,
        id: u64,
    ) -> anyhow::Result<()> {
        tcp.set_nodelay(true)?;
        let socket = tokio_tungstenite::accept_async(tls.accept(tcp).await?).await?;
        let (mut sink, mut stream) = socket.split();
        let (sender, mut outgoing) = mpsc::unbounded_channel();
        clients.lock().unwrap_or_else(PoisonError::into_inner).insert(id, sender);
        loop {
            tokio::select! {
                message = outgoing.recv() => sink.send(message.context("it is in the map")?).await?,
                message = stream.next() => match message {
                    Some(Ok(message)) if message.is_binary() => {
                        for client in clients.lock().unwrap_or_else(PoisonError::into_inner).values() {
                            let _ = client.send(message.clone());
                        }
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => break,
                },
            }
        }
        clients.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        Ok(())
    }

    let (tls, clients) = (TlsAcceptor::from(config), Clients::default());
    for id in 0.. {
        let (tcp, _) = listener.accept().await?;
        tokio::spawn(client(tcp, tls.clone(), clients.clone(), id));
    }
    Ok(())
}

/// A broadcast channel, as its example of a chat has it.
async fn axum(listener: tokio::net::TcpListener, config: Arc<ServerConfig>) -> anyhow::Result<()> {
    type Channel = broadcast::Sender<AxumMessage>;

    async fn upgrade(upgrade: WebSocketUpgrade, State(channel): State<Channel>) -> Response {
        upgrade.on_upgrade(|socket| client(socket, channel))
    }

    async fn client(mut socket: WebSocket, channel: Channel) {
        let mut incoming = channel.subscribe();
        loop {
            tokio::select! {
                message = incoming.recv() => {
                    let Ok(message) = message else { return };
                    if socket.send(message).await.is_err() {
                        return;
                    }
                }
                message = socket.recv() => match message {
                    Some(Ok(message @ AxumMessage::Binary(_))) => drop(channel.send(message)),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return,
                },
            }
        }
    }

    let (channel, _) = broadcast::channel(CHANNEL);
    let router: Router = Router::new().route("/wss", any(upgrade)).with_state(channel);
    let tls = TlsAcceptor::from(config);
    loop {
        let (tcp, _) = listener.accept().await?;
        let (tls, router) = (tls.clone(), router.clone());
        tokio::spawn(async move {
            tcp.set_nodelay(true)?;
            let io = TokioIo::new(tls.accept(tcp).await?);
            let service = TowerToHyperService::new(router);
            let serving =
                hyper::server::conn::http1::Builder::new().serve_connection(io, service).with_upgrades();
            serving.await.map_err(io::Error::other)
        });
    }
}
