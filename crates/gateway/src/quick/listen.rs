//! Where one command listens: on the loopback addresses and a free port, or where `--listen` says.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::str::FromStr;

use socket2::{Domain, Socket, Type};

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

/// The addresses to listen on. `but`: not on this port, if it can be chosen.
///
/// # Errors
/// With the address that is in use, or can't be listened on.
pub(super) fn addresses(
    wish: Option<Listen>,
    but: Option<u16>,
) -> Result<Vec<SocketAddr>, (SocketAddr, io::Error)> {
    match wish {
        None => Ok(free(but)),
        Some(Listen::Address(address)) => not_in_use(vec![address]),
        Some(Listen::Port(port)) => not_in_use(on(&loopback(), port)),
    }
}

/// The same for names that other machines know: on every address, and on port 443 if nothing else is wished.
///
/// # Errors
/// As above.
pub(super) fn public(wish: Option<Listen>) -> Result<Vec<SocketAddr>, (SocketAddr, io::Error)> {
    not_in_use(plain(wish))?;
    not_in_use(match wish {
        Some(Listen::Address(address)) => vec![address],
        Some(Listen::Port(port)) => everywhere(port),
        None => everywhere(443),
    })
}

/// Where plain HTTP leads from there to TLS: port 80, or nowhere if the other port is not 443.
pub(super) fn plain(wish: Option<Listen>) -> Vec<SocketAddr> {
    match wish {
        None | Some(Listen::Port(443)) => everywhere(80),
        Some(Listen::Address(address)) if address.port() == 443 => everywhere(80),
        Some(_) => Vec::new(),
    }
}

/// This port of every address that this machine has.
fn everywhere(port: u16) -> Vec<SocketAddr> {
    on(&present([Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]), port)
}

fn on(ips: &[IpAddr], port: u16) -> Vec<SocketAddr> {
    ips.iter().map(|&ip| (ip, port).into()).collect()
}

fn not_in_use(wanted: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, (SocketAddr, io::Error)> {
    for address in &wanted {
        bind(*address).map_err(|e| (*address, e))?;
    }
    Ok(wanted)
}

/// As the gateway does: `[::]` is IPv6 alone.
fn bind(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(1)
}

/// The loopback addresses that this machine has.
fn loopback() -> Vec<IpAddr> {
    present([Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])
}

/// Without that of IPv6, if this machine has none.
fn present(ips: [IpAddr; 2]) -> Vec<IpAddr> {
    ips.into_iter().filter(|&ip| ip.is_ipv4() || TcpListener::bind((ip, 0)).is_ok()).collect()
}

/// All of them, with a port that is free on each.
fn free(but: Option<u16>) -> Vec<SocketAddr> {
    let addresses = loopback();
    let is_free = |&ip: &IpAddr, port: u16| TcpListener::bind((ip, port)).is_ok();
    let port =
        PORTS.into_iter().find(|&port| Some(port) != but && addresses.iter().all(|ip| is_free(ip, port)));
    // If none is free, the gateway says which one is taken, and how to see by which program.
    on(&addresses, port.unwrap_or(PORTS.start))
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
        assert_eq!(addresses(Some(Listen::Address(taken)), None).unwrap(), [taken]);
        let _held = TcpListener::bind(taken).unwrap();
        for wish in [Listen::Address(taken), Listen::Port(taken.port())] {
            let (address, error) = addresses(Some(wish), None).unwrap_err();
            assert_eq!((address, error.kind()), (taken, io::ErrorKind::AddrInUse));
        }
        let free = addresses(None, None).unwrap();
        assert!(free.iter().all(|address| address.ip().is_loopback() && address.port() == free[0].port()));
        assert_ne!(addresses(None, Some(PORTS.start)).unwrap()[0].port(), PORTS.start);
    }

    #[test]
    fn port_80_leads_to_port_443_alone() {
        for (wish, expect) in [("443", true), ("0.0.0.0:443", true), ("8443", false), ("0.0.0.0:8443", false)]
        {
            let plain = plain(Some(wish.parse().unwrap()));
            assert!(plain.is_empty() != expect && plain.iter().all(|address| address.port() == 80), "{wish}");
        }
        assert_eq!(plain(None), everywhere(80));
    }
}
