//! The streams that engines are spoken with over.

use std::io;
use std::path::Path;

use tls_acceptor::{Alpn, ConnectorSettings, ServerName, TlsConnector};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::spawn_blocking;

use super::engine::EngineError;

pub(super) trait Io: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Io for S {}

pub(super) type Stream = Box<dyn Io>;

/// `tls`: whom the other end is trusted by; `None`: without TLS.
pub(super) async fn tcp(
    host: &str,
    port: u16,
    tls: Option<&ConnectorSettings>,
) -> Result<Stream, EngineError> {
    let tcp = connect(host, port).await?;
    match tls {
        Some(settings) => secure(tcp, host, settings).await,
        None => Ok(Box::new(tcp)),
    }
}

pub(super) async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let tcp = TcpStream::connect((bare, port)).await?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

/// TLS with the server of this name, from here on.
pub(super) async fn secure(
    tcp: TcpStream,
    host: &str,
    settings: &ConnectorSettings,
) -> Result<Stream, EngineError> {
    let no_name = || io::Error::new(io::ErrorKind::InvalidInput, format!("{host:?} is no name of a server"));
    let name = ServerName::parse(host).ok_or_else(no_name)?;
    let settings = settings.clone();
    let connector =
        spawn_blocking(move || TlsConnector::new(&settings)).await.map_err(io::Error::other)??;
    Ok(Box::new(connector.connect(tcp, &name, Alpn::Http11).await?))
}

pub(super) async fn unix(path: &Path) -> Result<Stream, EngineError> {
    Ok(Box::new(UnixStream::connect(path).await?))
}
