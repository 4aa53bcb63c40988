//! Addresses, as [`PeerName`](crate::net::listening::PeerName) and [`ClientName`](crate::net::listening::ClientName) show
//! them, without the machinery of `fmt`.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use super::line_buf::LineBuf;
use crate::net::listening::{UNIX_PEER, UNIX_PEER_NAME};

/// An address with its port.
pub(super) fn write_address(address: SocketAddr, out: &mut LineBuf) {
    match address {
        SocketAddr::V4(address) => {
            write_ip((*address.ip()).into(), out);
            out.text(":");
            out.number(address.port().into());
        }
        SocketAddr::V6(_) if address.ip() == UNIX_PEER => out.text(UNIX_PEER_NAME),
        SocketAddr::V6(address) => {
            let _ = write!(out, "{address}");
        }
    }
}

/// An address.
pub(super) fn write_ip(ip: IpAddr, out: &mut LineBuf) {
    match ip {
        IpAddr::V4(ip) => out.ipv4(ip.octets()),
        ip if ip == UNIX_PEER => out.text(UNIX_PEER_NAME),
        IpAddr::V6(ip) => {
            let _ = write!(out, "{ip}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::listening::{ClientName, PeerName};

    #[test]
    fn addresses_are_written_as_they_are_shown() {
        for address in ["0.0.0.0:1", "255.10.0.99:65535", "[::1]:443", "[fe80::1%3]:80", "[::]:0"] {
            let address: SocketAddr = address.parse().unwrap();
            let (mut peer, mut client) = (LineBuf::NEW, LineBuf::NEW);
            write_address(address, &mut peer);
            write_ip(address.ip(), &mut client);
            assert_eq!(peer.into_string(), PeerName(address).to_string());
            assert_eq!(client.into_string(), ClientName(address.ip()).to_string());
        }
    }
}
