//! A connection to a backend, under a deadline.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use net_io::Unix;
use socket2::SockRef;
use tls_acceptor::{Alpn, ConnectError, TlsStream};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream, UnixStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use crate::net::clock;
use crate::net::error::BoxError;
use crate::net::options;
use crate::net::shortage::is_shortage;
use crate::site::endpoint::{Endpoint, Place};
use crate::site::server_tls::ServerTls;
use crate::site::sources::Sources;
use crate::site::upstream::Connector;
use crate::upstream::stream::BackendStream;

/// The first wait before a Unix socket whose queue is full is tried again; each further one is twice as long.
const QUEUE_WAIT: Duration = Duration::from_millis(1);

/// Connects to a server for HTTP/1.1, by whichever address of its name answers first, all under one deadline.
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
            let mut tcp = dial_tcp(connector, endpoint, host, *port, deadline).await?;
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

/// How long an attempt has for itself before the next address is tried beside it (RFC 8305 §5, Connection Attempt Delay).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Attempts that go on at the same time.
const ATTEMPTS_MAX: usize = 4;
/// How long a failed connection waits for a new look at the name.
const SECOND_LOOK: Duration = Duration::from_secs(1);

async fn dial_tcp(
    connector: Connector,
    endpoint: &Endpoint,
    host: &str,
    port: u16,
    deadline: Instant,
) -> Result<TcpStream, DialError> {
    if let Some(address) = endpoint.literal() {
        let tried = attempt(connector, address, endpoint.sources.clone(), deadline).await;
        if let (Err(DialError::Connect { .. } | DialError::Timeout { .. }), Some(name)) =
            (&tried, endpoint.known())
        {
            name.want(clock::now()); // the address may have gone
        }
        return tried;
    }
    let Some(name) = endpoint.known() else {
        // No resolver follows it: this endpoint belongs to no site.
        let addresses = match timeout_at(deadline, lookup_host((host, port))).await {
            Ok(Ok(addresses)) => addresses.collect(),
            Ok(Err(error)) => return Err(DialError::Name { why: error.to_string() }),
            Err(_) => return Err(DialError::Timeout { after: connector.connect_timeout }),
        };
        return race(connector, endpoint, addresses, deadline).await;
    };
    let addresses = name.addresses(host, port);
    if addresses.is_empty() {
        let why = name.last().problem.unwrap_or_else(|| "it has not been looked up yet".into());
        return Err(DialError::Name { why: why.into() });
    }
    let failure = match race(connector, endpoint, addresses.clone(), deadline).await {
        Err(failure @ (DialError::Connect { .. } | DialError::Timeout { .. })) => failure,
        done => return done,
    };
    // A server that has come back at another address is found, whatever the TTL is.
    let Some(mut looked) = name.want(clock::now()) else { return Err(failure) };
    let until = deadline.min(Instant::now() + SECOND_LOOK);
    let _ = timeout_at(until, looked.changed()).await;
    let mut others = name.addresses(host, port);
    others.retain(|address| !addresses.contains(address));
    if others.is_empty() { Err(failure) } else { race(connector, endpoint, others, deadline).await }
}

/// Connects to whichever of `addresses` answers first; each has some time before the next one is tried beside it (RFC 8305
/// §5).
async fn race(
    connector: Connector,
    endpoint: &Endpoint,
    addresses: Vec<SocketAddr>,
    deadline: Instant,
) -> Result<TcpStream, DialError> {
    let mut addresses = addresses.into_iter().peekable();
    let mut attempts = JoinSet::new();
    let mut failure = DialError::Name { why: io::Error::from(io::ErrorKind::NotFound).to_string() };
    loop {
        if attempts.len() < ATTEMPTS_MAX
            && let Some(address) = addresses.next()
        {
            if attempts.is_empty() && addresses.peek().is_none() {
                let sources = endpoint.sources.clone();
                return attempt(connector, address, sources, deadline).await; // the last of them needs no task
            }
            attempts.spawn(attempt(connector, address, endpoint.sources.clone(), deadline));
        }
        let may_start = attempts.len() < ATTEMPTS_MAX && addresses.peek().is_some();
        let joined = tokio::select! {
            joined = attempts.join_next() => joined,
            () = sleep(ATTEMPT_DELAY), if may_start => continue,
        };
        match joined {
            None => return Err(failure),
            Some(Ok(Ok(tcp))) => return Ok(tcp),
            Some(Ok(Err(error @ DialError::Shortage { .. }))) => return Err(error),
            Some(Ok(Err(error))) => failure = error,
            Some(Err(_)) => {} // an attempt neither panics nor is it cancelled
        }
    }
}

async fn attempt(
    connector: Connector,
    address: SocketAddr,
    sources: Option<Arc<Sources>>,
    deadline: Instant,
) -> Result<TcpStream, DialError> {
    match timeout_at(deadline, connect(address, sources.as_deref())).await {
        Ok(Ok(tcp)) => Ok(tcp),
        Ok(Err(error)) if is_shortage(&error) => Err(DialError::Shortage { error }),
        Ok(Err(error)) => Err(DialError::Connect { address: address.to_string(), error }),
        Err(_) => Err(DialError::Timeout { after: connector.connect_timeout }),
    }
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

async fn connect(address: SocketAddr, sources: Option<&Sources>) -> io::Result<TcpStream> {
    let mut failure = None;
    for source in sources.into_iter().flat_map(|sources| sources.towards(address.ip())) {
        match connect_from(Some(source), address).await {
            // All of its ports lead to this server already, or it is not this machine's: there may be another one.
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => failure = Some(error),
            done => return done,
        }
    }
    match failure {
        Some(error) => Err(error),
        None => connect_from(None, address).await,
    }
}

async fn connect_from(source: Option<IpAddr>, address: SocketAddr) -> io::Result<TcpStream> {
    let tcp = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    options::tune_towards(&SockRef::from(&tcp), address.ip());
    if let Some(source) = source {
        options::bind_source(&tcp, source)?;
    }
    tcp.connect(address).await
}

/// What to do about a connection that has no end here.
fn hint(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::AddrNotAvailable {
        "; each port here leads to it already, or a source address is not one of this machine: more `source_addresses` make \
         room for more connections"
    } else {
        ""
    }
}

/// Why there is no connection to a backend.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Its name has no address.
    #[error("the server's name can't be resolved: {why}")]
    Name {
        /// The resolver's word.
        why: String,
    },
    /// The backend did not answer in time.
    #[error("no connection to the backend within {after:?} (connect_timeout)")]
    Timeout {
        /// The limit.
        after: Duration,
    },
    /// The operating system's error, most often "connection refused".
    #[error("can't connect to {address}: {error}{}", hint(error))]
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

    #[tokio::test]
    async fn connections_come_from_each_source_address_in_turn_and_one_that_is_not_here_is_passed_over() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let ips = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let sources = Sources::new(ips(&["127.0.0.2", "198.51.100.77", "127.0.0.3", "::1"]));
        for expected in ["127.0.0.2", "127.0.0.3", "127.0.0.3", "127.0.0.2"] {
            let tcp = connect(address, Some(&sources)).await.unwrap();
            assert_eq!(tcp.local_addr().unwrap().ip().to_string(), expected);
        }
        let other_family = connect(address, Some(&Sources::new(ips(&["::1"])))).await.unwrap();
        assert_eq!(other_family.local_addr().unwrap().ip().to_string(), "127.0.0.1");
        let gone =
            connect(address, Some(&Sources::new(ips(&["198.51.100.77", "203.0.113.77"])))).await.unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::AddrNotAvailable);
        let told = DialError::Connect { address: address.to_string(), error: gone }.to_string();
        assert!(told.contains("source address is not one of this machine"), "{told}");
    }
}
