//! Backends: what an address in a route means, a TCP connection to it under a deadline, and HTTP/1.1 over that.

pub mod answer;
pub mod decode;
pub(crate) mod encode;
pub mod identity;
pub mod pool;
pub mod sending;
pub mod wire;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http::HeaderValue;
use socket2::SockRef;
use tls_acceptor::Tcp;
use tokio::net::{TcpSocket, lookup_host};
use tokio::time::{Instant, timeout_at};

use crate::route::RoutePath;
use crate::shortage::is_shortage;
use crate::socket;

/// A backend as a route names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// A name or an address; IPv6 in brackets.
    pub host: Box<str>,
    /// The port.
    pub port: u16,
    /// Both, as the log has them and the pool finds connections by.
    pub address: Box<str>,
    /// For a TCP connection, the look-up of the name included.
    pub connect_timeout: Duration,
    /// From the request to the head of the answer.
    pub response_timeout: Duration,
    /// Connections are kept for other requests.
    pub pooled: bool,
    /// Field names are passed on over HTTP/1.1 as they were sent.
    pub keeps_names: bool,
}

impl Upstream {
    /// Reads `http://host[:port]` or `ws://…`, which means the same. The route's own path may stand
    /// behind it, as Apache's users write it. The timeouts, and whether connections are kept, are for the
    /// caller to set.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub fn parse(text: &str, path: Option<&RoutePath>) -> Result<Self, String> {
        const EXAMPLE: &str = "such as \"http://127.0.0.1:8080\"";
        let rest = match text.split_once("://") {
            Some(("http" | "ws", rest)) => rest,
            Some((scheme @ ("https" | "wss"), _)) => {
                return Err(format!("TLS towards backends is not supported yet ({scheme}://); use http://"));
            }
            _ => return Err(format!("expected an address {EXAMPLE}, found {text:?}")),
        };
        let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if !rest.is_empty() && path.is_some_and(|path| RoutePath::parse(rest).as_ref() != Ok(path)) {
            let path = path.map(ToString::to_string).unwrap_or_default();
            return Err(format!(
                "requests are passed on with their path unchanged, so the address can't have a path \
                 other than the route's own ({path}); found {rest:?}: remove it"
            ));
        }
        let authority: http::uri::Authority =
            authority.parse().map_err(|_| format!("expected an address {EXAMPLE}, found {text:?}"))?;
        if authority.as_str().contains('@') {
            return Err("user names and passwords in an address are not supported; remove them".into());
        }
        // `Authority::port` takes a number that is too large for none.
        let port = match authority.as_str()[authority.host().len()..].strip_prefix(':') {
            Some(port) => port.parse().map_err(|_| format!("expected a port number, found {port:?}"))?,
            None => 80,
        };
        if authority.host().is_empty() || port == 0 {
            return Err(format!("expected an address {EXAMPLE}, found {text:?}"));
        }
        Ok(Self {
            host: authority.host().into(),
            port,
            address: format!("{}:{port}", authority.host()).into(),
            connect_timeout: Duration::MAX,
            response_timeout: Duration::MAX,
            pooled: true,
            keeps_names: false,
        })
    }

    /// As a `Host` of its own.
    #[must_use]
    pub fn field(&self) -> HeaderValue {
        HeaderValue::from_str(&self.address).unwrap_or(HeaderValue::from_static(""))
    }

    /// Connects, trying each address of the name in turn, all under one deadline.
    ///
    /// # Errors
    /// Why the last attempt failed.
    ///
    /// # Cancel safety
    /// A dropped call drops the attempt.
    pub async fn dial(&self) -> Result<Tcp, DialError> {
        let deadline = Instant::now() + self.connect_timeout;
        let look_up = lookup_host((self.host.trim_matches(['[', ']']), self.port));
        let addresses: Vec<SocketAddr> = match timeout_at(deadline, look_up).await {
            Ok(Ok(addresses)) => addresses.collect(),
            Ok(Err(error)) => return Err(DialError::Name { error }),
            Err(_) => return Err(DialError::Timeout { after: self.connect_timeout }),
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
                Err(_) => failure = DialError::Timeout { after: self.connect_timeout },
            }
        }
        Err(failure)
    }
}

async fn connect(address: SocketAddr) -> io::Result<Tcp> {
    let tcp = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket::tune_towards(&SockRef::from(&tcp), address.ip());
    Ok(tcp.connect(address).await?.into())
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
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
    /// Nobody answered in time.
    #[error("no connection to the backend within {after:?} (connect_timeout)")]
    Timeout {
        /// The limit.
        after: Duration,
    },
    /// The operating system's word, most often "connection refused".
    #[error("can't connect to {address}: {error}")]
    Connect {
        /// The address tried last.
        address: SocketAddr,
        /// Why not.
        error: io::Error,
    },
    /// The gateway's own fault: no descriptor, or no memory for one.
    #[error(
        "the gateway can't open a connection to the backend: {error}; raise the limit on open files, or the memory"
    )]
    Shortage {
        /// What is short.
        error: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let wss = RoutePath::parse("/wss").unwrap();
        let root = RoutePath::parse("/").unwrap();
        let parse = |text: &str, path| Upstream::parse(text, Some(path)).map(|u| u.to_string());
        for (text, expect) in [
            ("http://127.0.0.1:8282", "127.0.0.1:8282"),
            ("ws://127.0.0.1:8282", "127.0.0.1:8282"),
            ("http://backend", "backend:80"),
            ("http://[::1]:8080", "[::1]:8080"),
            ("ws://127.0.0.1:8282/wss", "127.0.0.1:8282"),
            ("ws://127.0.0.1:8282/wss/", "127.0.0.1:8282"),
        ] {
            assert_eq!(parse(text, &wss).as_deref(), Ok(expect));
        }
        assert!(parse("http://127.0.0.1:8080/", &root).is_ok());
        for (bad, why) in [
            ("127.0.0.1:8080", "expected an address"),
            ("https://127.0.0.1", "not supported yet"),
            ("http://", "expected an address"),
            ("http://a:0", "expected an address"),
            ("http://a:99999", "port number"),
            ("http://user:secret@a", "user names"),
            ("http://a/other", "path unchanged"),
            ("http://a/", "path unchanged"),
            ("http://a/wss?x", "path unchanged"),
            ("http://a b", "expected an address"),
        ] {
            let error = parse(bad, &wss).expect_err(bad);
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[tokio::test]
    async fn a_port_that_nobody_listens_on_is_refused_and_a_name_without_address_is_told() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let upstream = Upstream {
            connect_timeout: Duration::from_secs(5),
            ..Upstream::parse(&format!("http://{free}"), None).unwrap()
        };
        assert!(matches!(upstream.dial().await, Err(DialError::Connect { .. })));
        let upstream = Upstream { host: "name.invalid".into(), ..upstream };
        assert!(matches!(upstream.dial().await, Err(DialError::Name { .. })));
    }
}
