//! A connection to a backend, under a deadline.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use net_io::Unix;
use socket2::SockRef;
use tls_acceptor::{Alpn, ConnectError, TlsStream};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream, UnixStream, lookup_host};
use tokio::time::{Instant, sleep, timeout_at};

use crate::net::error::BoxError;
use crate::net::options;
use crate::net::shortage::is_shortage;
use crate::site::endpoint::{Endpoint, Place};
use crate::site::server_tls::ServerTls;
use crate::site::upstream::Connector;
use crate::upstream::stream::BackendStream;

/// The first wait before a Unix socket whose queue is full is tried again; each further one is twice as long.
const QUEUE_WAIT: Duration = Duration::from_millis(1);

/// Connects to a server for HTTP/1.1, trying each address of a name in turn, all under one deadline.
///
/// # Errors
/// Why the last attempt failed.
///
/// # Cancel safety
/// A dropped call drops the attempt.
pub(crate) async fn dial(connector: Connector, endpoint: &Endpoint) -> Result<BackendStream, DialError> {
    dial_for(connector, endpoint, Alpn::Http11).await
}

/// The same for this protocol.
///
/// # Errors
/// Why the last attempt failed.
///
/// # Cancel safety
/// A dropped call drops the attempt.
pub(crate) async fn dial_for(
    connector: Connector,
    endpoint: &Endpoint,
    alpn: Alpn,
) -> Result<BackendStream, DialError> {
    let deadline = Instant::now() + connector.connect_timeout;
    let header = endpoint.header.as_deref().unwrap_or_default();
    match &endpoint.place {
        Place::Tcp { host, port } => {
            let mut tcp = dial_tcp(connector, host, *port, deadline).await?;
            if !header.is_empty() {
                // A new socket takes so little at once.
                tcp.write_all(header)
                    .await
                    .map_err(|error| DialError::Connect { address: endpoint.to_string(), error })?;
            }
            let Some(tls) = &endpoint.tls else { return Ok(BackendStream::Tcp(tcp.into())) };
            // Larger than the rest, and for few.
            let handshake = Box::pin(shake_hands(tls, tcp, alpn));
            match timeout_at(deadline, handshake).await {
                Ok(done) => Ok(BackendStream::Tls(Box::new(done?))),
                Err(_) => Err(DialError::TlsTimeout { after: connector.connect_timeout }),
            }
        }
        Place::Unix(path) => match timeout_at(deadline, dial_unix(path, header)).await {
            Ok(Ok(unix)) => Ok(BackendStream::Unix(unix)),
            Ok(Err(error)) if is_shortage(&error) => Err(DialError::Shortage { error }),
            Ok(Err(error)) => Err(DialError::Connect { address: endpoint.to_string(), error }),
            Err(_) => Err(DialError::Timeout { after: connector.connect_timeout }),
        },
    }
}

async fn shake_hands(tls: &ServerTls, tcp: TcpStream, alpn: Alpn) -> Result<TlsStream, DialError> {
    let connector = tls.connector().ok_or(DialError::Unprepared)?;
    connector.connect(tcp, &tls.name, alpn).await.map_err(|error| match error {
        ConnectError::Protocol { .. } => DialError::NotHttp2 { error: NotHttp2::Alpn(error) },
        error => error.into(),
    })
}

async fn dial_tcp(
    connector: Connector,
    host: &str,
    port: u16,
    deadline: Instant,
) -> Result<TcpStream, DialError> {
    let look_up = lookup_host((host.trim_matches(['[', ']']), port));
    let addresses: Vec<SocketAddr> = match timeout_at(deadline, look_up).await {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(error)) => return Err(DialError::Name { error }),
        Err(_) => return Err(DialError::Timeout { after: connector.connect_timeout }),
    };
    let mut failure = DialError::Name { error: io::ErrorKind::NotFound.into() };
    for (i, &address) in addresses.iter().enumerate() {
        // A black hole among the addresses must not use up the time of those behind it.
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - i).unwrap_or(u32::MAX);
        match timeout_at(Instant::now() + share, connect(address)).await {
            Ok(Ok(tcp)) => return Ok(tcp),
            Ok(Err(error)) if is_shortage(&error) => return Err(DialError::Shortage { error }),
            Ok(Err(error)) => failure = DialError::Connect { address: address.to_string(), error },
            Err(_) => failure = DialError::Timeout { after: connector.connect_timeout },
        }
    }
    Err(failure)
}

/// A Unix socket whose queue is full doesn't make a connection wait as TCP does: it refuses with EAGAIN (connect(2)).
async fn dial_unix(path: &str, header: &[u8]) -> io::Result<Unix> {
    let mut wait = QUEUE_WAIT;
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(wait).await,
            connected => {
                let mut unix = connected?;
                unix.write_all(header).await?;
                return Ok(unix.into());
            }
        }
        wait *= 2;
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let tcp = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    options::tune_towards(&SockRef::from(&tcp), address.ip());
    tcp.connect(address).await
}

/// Why there is no connection to a backend.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Its name has no address.
    #[error("the backend's name can't be resolved: {error}")]
    Name {
        /// The resolver's word.
        error: io::Error,
    },
    /// The backend did not answer in time.
    #[error("no connection to the backend within {after:?} (connect_timeout)")]
    Timeout {
        /// The limit.
        after: Duration,
    },
    /// The operating system's error, most often "connection refused".
    #[error("can't connect to {address}: {error}")]
    Connect {
        /// The address tried last.
        address: String,
        /// Why not.
        error: io::Error,
    },
    /// The server is not the one that is meant, or speaks no TLS.
    #[error("{0}")]
    Tls(#[from] ConnectError),
    /// The server did not answer in time.
    #[error("no TLS connection to the backend within {after:?} (connect_timeout)")]
    TlsTimeout {
        /// The limit.
        after: Duration,
    },
    /// The server doesn't speak HTTP/2, which its upstream says it does.
    #[error("{error}; if it doesn't speak HTTP/2, set protocol = \"http/1.1\"")]
    NotHttp2 {
        /// What is wrong with it.
        error: NotHttp2,
    },
    /// The files of its TLS were not read, which is done before requests are served.
    #[error("the TLS settings of this backend were not prepared")]
    Unprepared,
    /// The gateway's own fault: no descriptor, or no memory for one.
    #[error(
        "the gateway can't open a connection to the backend: {error}; raise the limit on open files, or add memory"
    )]
    Shortage {
        /// What is short.
        error: io::Error,
    },
}

/// What a server has in place of HTTP/2.
#[derive(Debug, thiserror::Error)]
pub enum NotHttp2 {
    /// Another protocol below TLS.
    #[error("{0}")]
    Alpn(ConnectError),
    /// What it began with is no frame of settings.
    #[error("the backend began with what is not HTTP/2: {0}")]
    Frames(BoxError),
    /// It ended the connection.
    #[error("the backend ended the connection in place of an answer to the HTTP/2 preface")]
    End,
    /// Its settings say that it takes no stream, or didn't come.
    #[error("the backend sent no HTTP/2 settings within {after:?} (connect_timeout), or took no stream")]
    Silent {
        /// The limit.
        after: Duration,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::upstream::Protocol;

    #[tokio::test]
    async fn a_closed_port_and_a_name_without_an_address_are_errors() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let connector = Connector {
            connect_timeout: Duration::from_secs(5),
            pooled: true,
            proxy_protocol: None,
            protocol: Protocol::Http1,
        };
        let refused = dial(connector, &Endpoint::new("127.0.0.1", free.port())).await;
        assert!(matches!(refused, Err(DialError::Connect { .. })));
        let nameless = dial(connector, &Endpoint::new("name.invalid", free.port())).await;
        assert!(matches!(nameless, Err(DialError::Name { .. })));
    }
    #[tokio::test]
    async fn a_unix_socket_with_a_full_queue_is_waited_for_and_one_that_is_not_there_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock").to_str().unwrap().to_owned();
        let connector = Connector {
            connect_timeout: Duration::from_millis(50),
            pooled: true,
            proxy_protocol: None,
            protocol: Protocol::Http1,
        };
        let missing = dial(connector, &Endpoint::unix(&path)).await.unwrap_err();
        assert!(missing.to_string().contains(&format!("can't connect to unix:{path}: ")), "{missing}");
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        socket.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
        socket.listen(0).unwrap();
        let first = dial(connector, &Endpoint::unix(&path)).await.unwrap();
        let full = dial(connector, &Endpoint::unix(&path)).await;
        assert!(matches!(full, Err(DialError::Timeout { .. })), "{full:?}");
        let patient = Connector {
            connect_timeout: Duration::from_secs(20),
            pooled: true,
            proxy_protocol: None,
            protocol: Protocol::Http1,
        };
        let endpoint = Endpoint::unix(&path);
        let waiting = dial(patient, &endpoint);
        tokio::pin!(waiting);
        assert!(tokio::time::timeout(Duration::from_millis(5), &mut waiting).await.is_err());
        socket.accept().unwrap();
        waiting.await.unwrap();
        drop(first);
    }
}
