//! A TCP connection to a backend, under a deadline.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use net_io::Tcp;
use socket2::SockRef;
use tokio::net::{TcpSocket, lookup_host};
use tokio::time::{Instant, timeout_at};

use crate::net::options;
use crate::net::shortage::is_shortage;
use crate::site::endpoint::Endpoint;
use crate::site::upstream::Connector;

/// Connects to a server, trying each address of the name in turn, all under one deadline.
///
/// # Errors
/// Why the last attempt failed.
///
/// # Cancel safety
/// A dropped call drops the attempt.
pub(crate) async fn dial(connector: Connector, endpoint: &Endpoint) -> Result<Tcp, DialError> {
    let deadline = Instant::now() + connector.connect_timeout;
    let look_up = lookup_host((endpoint.host.trim_matches(['[', ']']), endpoint.port));
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
            Ok(Err(error)) => failure = DialError::Connect { address, error },
            Err(_) => failure = DialError::Timeout { after: connector.connect_timeout },
        }
    }
    Err(failure)
}

async fn connect(address: SocketAddr) -> io::Result<Tcp> {
    let tcp = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    options::tune_towards(&SockRef::from(&tcp), address.ip());
    Ok(tcp.connect(address).await?.into())
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
        address: SocketAddr,
        /// Why not.
        error: io::Error,
    },
    /// The gateway's own fault: no descriptor, or no memory for one.
    #[error(
        "the gateway can't open a connection to the backend: {error}; raise the limit on open files, or add memory"
    )]
    Shortage {
        /// What is short.
        error: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_nobody_listens_on_is_refused_and_a_name_without_address_is_told() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let connector = Connector { connect_timeout: Duration::from_secs(5), pooled: true };
        let refused = dial(connector, &Endpoint::new("127.0.0.1", free.port())).await;
        assert!(matches!(refused, Err(DialError::Connect { .. })));
        let nameless = dial(connector, &Endpoint::new("name.invalid", free.port())).await;
        assert!(matches!(nameless, Err(DialError::Name { .. })));
    }
}
