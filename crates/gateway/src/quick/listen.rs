//! Where one command listens: on the loopback addresses and a free port, or where `--listen` says.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::str::FromStr;

/// Without `--listen`, the first of these that is free.
const PORTS: std::ops::Range<u16> = 8443..8463;

/// `--listen`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// This port of the loopback addresses.
    Port(u16),
    /// This address alone.
    Address(SocketAddr),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = text.strip_prefix("localhost:").or(text.strip_prefix(':')).unwrap_or(text);
        if let Ok(port) = port.parse() {
            return Ok(Self::Port(port));
        }
        text.parse().map(Self::Address).map_err(|_| {
            format!("expected a port such as 9443, or an address such as 0.0.0.0:443 or [::1]:9443, found {text:?}")
        })
    }
}

/// The addresses to listen on.
///
/// # Errors
/// With the address that is in use, or can't be listened on.
pub(super) fn addresses(wish: Option<Listen>) -> Result<Vec<SocketAddr>, (SocketAddr, io::Error)> {
    let wanted: Vec<SocketAddr> = match wish {
        None => return Ok(free()),
        Some(Listen::Address(address)) => vec![address],
        Some(Listen::Port(port)) => loopback().into_iter().map(|ip| (ip, port).into()).collect(),
    };
    for address in &wanted {
        TcpListener::bind(address).map_err(|e| (*address, e))?;
    }
    Ok(wanted)
}

/// The loopback addresses that this machine has.
fn loopback() -> Vec<IpAddr> {
    let mut addresses = vec![IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
    addresses.retain(|&ip| ip.is_ipv4() || TcpListener::bind((ip, 0)).is_ok());
    addresses
}

/// All of them, with a port that is free on each.
fn free() -> Vec<SocketAddr> {
    let addresses = loopback();
    let is_free = |&ip: &IpAddr, port: u16| TcpListener::bind((ip, port)).is_ok();
    let port = PORTS.into_iter().find(|&port| addresses.iter().all(|ip| is_free(ip, port)));
    // If none is free, the gateway says which one is taken, and how to see by which program.
    let port = port.unwrap_or(PORTS.start);
    addresses.into_iter().map(|ip| (ip, port).into()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_to_listen() {
        let parse = |text: &str| text.parse::<Listen>();
        for text in ["9443", ":9443", "localhost:9443"] {
            assert_eq!(parse(text), Ok(Listen::Port(9443)));
        }
        let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 443));
        assert_eq!(parse("0.0.0.0:443"), Ok(Listen::Address(everywhere)));
        for wrong in ["", "99999", "domain.com", "127.0.0.1", "domain.com:443"] {
            assert!(parse(wrong).unwrap_err().contains("expected a port"), "{wrong}");
        }
    }

    #[test]
    fn a_port_in_use_is_found() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(addresses(Some(Listen::Address(taken))).unwrap(), [taken]);
        let _held = TcpListener::bind(taken).unwrap();
        for wish in [Listen::Address(taken), Listen::Port(taken.port())] {
            let (address, error) = addresses(Some(wish)).unwrap_err();
            assert_eq!((address, error.kind()), (taken, io::ErrorKind::AddrInUse));
        }
        let free = addresses(None).unwrap();
        assert!(free.iter().all(|address| address.ip().is_loopback() && address.port() == free[0].port()));
    }
}
