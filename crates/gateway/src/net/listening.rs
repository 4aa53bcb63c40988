//! Where connections are accepted: at an address and a port, or on a Unix socket; and what a peer is called that has no
//! address.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What stands before the path of a Unix socket.
const UNIX: &str = "unix:";
/// The longest path of a Unix socket, without the NUL behind it (unix(7)).
const UNIX_PATH_MAX: usize = 107;

/// Where a listener listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum ListenAddress {
    /// At an address; port 0 lets the system choose.
    Ip(SocketAddr),
    /// On the Unix socket with this absolute path.
    Unix(Arc<str>),
}

impl ListenAddress {
    /// Its port; 0 on a Unix socket.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.ip().map_or(0, |address| address.port())
    }

    /// Its address; `None`: it is a Unix socket.
    #[must_use]
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{path}"),
        }
    }
}

impl From<ListenAddress> for String {
    fn from(address: ListenAddress) -> Self {
        address.to_string()
    }
}

impl TryFrom<String> for ListenAddress {
    type Error = BadAddress;

    fn try_from(text: String) -> Result<Self, BadAddress> {
        text.parse()
    }
}

/// Why a text is no address to listen at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    /// Neither of both.
    #[error("expected an IP address and a port, or \"unix:\" and a path, found {0:?}")]
    Neither(String),
    /// The path of a Unix socket that can't be one.
    #[error(
        "expected the absolute path of a Unix socket, such as \"unix:/run/wssgate/http.sock\", found {0:?}"
    )]
    Path(String),
    /// Clients couldn't connect to it.
    #[error("the path of a Unix socket may have {UNIX_PATH_MAX} bytes, and this is a longer one: {0:?}")]
    TooLong(String),
}

impl FromStr for ListenAddress {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let Some(path) = text.strip_prefix(UNIX) else {
            return text.parse().map(Self::Ip).map_err(|_| BadAddress::Neither(text.to_owned()));
        };
        if !path.starts_with('/') || path.ends_with('/') || path.bytes().any(|b| b.is_ascii_control()) {
            return Err(BadAddress::Path(text.to_owned()));
        }
        if path.len() > UNIX_PATH_MAX {
            return Err(BadAddress::TooLong(path.to_owned()));
        }
        Ok(Self::Unix(path.into()))
    }
}

/// Stands for every peer over a Unix socket, which has no address. No peer over TCP has this one.
pub(crate) const UNIX_PEER: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
/// What such a peer is called.
pub(crate) const UNIX_PEER_NAME: &str = "unix";

/// A peer as the log names it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PeerName(pub(crate) SocketAddr);

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.ip() == UNIX_PEER { f.write_str(UNIX_PEER_NAME) } else { self.0.fmt(f) }
    }
}

/// A client as the log names it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientName(pub(crate) IpAddr);

impl fmt::Display for ClientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == UNIX_PEER { f.write_str(UNIX_PEER_NAME) } else { self.0.fmt(f) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_shown() {
        for text in ["0.0.0.0:443", "[::1]:0", "unix:/run/wssgate/http.sock"] {
            let address: ListenAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            assert_eq!(serde_json::to_string(&address).unwrap(), format!("{text:?}"));
            assert_eq!(serde_json::from_str::<ListenAddress>(&format!("{text:?}")).unwrap(), address);
        }
        let long = format!("unix:/{}", "x".repeat(UNIX_PATH_MAX));
        for (text, says) in [
            ("443", "expected an IP address"),
            ("unix:http.sock", "absolute path"),
            ("unix:/run/", "absolute path"),
            ("unix:", "absolute path"),
            (&long, "may have 107 bytes"),
        ] {
            let what = text.parse::<ListenAddress>().unwrap_err().to_string();
            assert!(what.contains(says), "{text}: {what}");
        }
    }

    #[test]
    fn peers_without_an_address_have_a_name() {
        assert_eq!(PeerName((UNIX_PEER, 0).into()).to_string(), "unix");
        assert_eq!(PeerName("127.0.0.1:1".parse().unwrap()).to_string(), "127.0.0.1:1");
        assert_eq!(ClientName(UNIX_PEER).to_string(), "unix");
        assert_eq!(ClientName("::1".parse().unwrap()).to_string(), "::1");
    }
}
