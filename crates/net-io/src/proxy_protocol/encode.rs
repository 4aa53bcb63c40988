//! A header for a server: who the client is, in front of a connection that is this client's alone. Pure.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Section 2.2: how version 2 begins.
pub(super) const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Section 2.1: how version 1 begins.
pub(super) const WORD: &[u8; 6] = b"PROXY ";

/// How the header is written (HAProxy's `doc/proxy-protocol.txt`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProxyVersion {
    /// Section 2.1: a line of text.
    V1,
    /// Section 2.2: binary.
    V2,
}

/// The header of a client that has connected from `source` to `destination`. Addresses of two families are both
/// written as IPv6, and IPv4 addresses in IPv6 ones as IPv4, where both are.
pub fn encode(version: ProxyVersion, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    if source.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        return encode_local(version); // a peer over a Unix socket, which has no address
    }
    let (from, to) = (source.ip().to_canonical(), destination.ip().to_canonical());
    let (from, to) = match (from, to) {
        (IpAddr::V4(_), IpAddr::V4(_)) => (from, to),
        _ => (in_ipv6(from).into(), in_ipv6(to).into()),
    };
    let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
    match version {
        ProxyVersion::V1 => {
            let word = WORD.escape_ascii();
            format!("{word}{family} {from} {to} {} {}\r\n", source.port(), destination.port()).into_bytes()
        }
        ProxyVersion::V2 => {
            let (kind, addresses) = match (from, to) {
                (IpAddr::V4(from), IpAddr::V4(to)) => (0x11, [from.octets(), to.octets()].concat()),
                (from, to) => (0x21, [in_ipv6(from).octets(), in_ipv6(to).octets()].concat()),
            };
            let len: u8 = if kind == 0x11 { 12 } else { 36 };
            let ports = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
            [&SIGNATURE[..], &[0x21, kind, 0, len], &addresses, &ports].concat()
        }
    }
}

/// The header of a connection that the gateway makes for itself: a probe.
pub fn encode_local(version: ProxyVersion) -> Vec<u8> {
    match version {
        ProxyVersion::V1 => b"PROXY UNKNOWN\r\n".to_vec(),
        ProxyVersion::V2 => [&SIGNATURE[..], &[0x20, 0, 0, 0]].concat(),
    }
}

fn in_ipv6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proxy_header::{ParseConfig, ProxyHeader};

    use super::*;
    use crate::proxy_protocol::{Header, HeaderReader};

    #[test]
    fn headers_as_the_specification_has_them() {
        let line = |source: &str, destination: &str| {
            let line = encode(ProxyVersion::V1, source.parse().unwrap(), destination.parse().unwrap());
            String::from_utf8(line).unwrap()
        };
        assert_eq!(line("192.0.2.1:80", "198.51.100.2:443"), "PROXY TCP4 192.0.2.1 198.51.100.2 80 443\r\n");
        assert_eq!(line("[2001:db8::1]:80", "[::1]:443"), "PROXY TCP6 2001:db8::1 ::1 80 443\r\n");
        assert_eq!(
            line("[::ffff:192.0.2.1]:80", "198.51.100.2:443"),
            "PROXY TCP4 192.0.2.1 198.51.100.2 80 443\r\n"
        );
        assert_eq!(
            line("[2001:db8::1]:80", "198.51.100.2:443"),
            "PROXY TCP6 2001:db8::1 ::ffff:198.51.100.2 80 443\r\n"
        );
        let v2 =
            encode(ProxyVersion::V2, "192.0.2.1:8080".parse().unwrap(), "198.51.100.2:443".parse().unwrap());
        let addresses = [192, 0, 2, 1, 198, 51, 100, 2, 0x1f, 0x90, 1, 0xbb];
        assert_eq!(v2, [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &addresses].concat());
    }

    proptest! {
        #[test]
        fn readers_of_others_and_ours_find_the_client(source: SocketAddr, destination: SocketAddr) {
            let client = SocketAddr::new(source.ip().to_canonical(), source.port());
            for version in [ProxyVersion::V1, ProxyVersion::V2] {
                let header = encode(version, source, destination);
                let (parsed, len) = ProxyHeader::parse(&header, ParseConfig::default()).unwrap();
                let parsed = parsed.proxied_address().unwrap();
                prop_assert_eq!(len, header.len());
                prop_assert_eq!(parsed.source.ip().to_canonical(), client.ip());
                prop_assert_eq!((parsed.source.port(), parsed.destination.port()), (client.port(), destination.port()));
                prop_assert_eq!(parsed.destination.ip().to_canonical(), destination.ip().to_canonical());
                let read = HeaderReader::default().feed(&header);
                prop_assert_eq!(read, Ok((header.len(), Some(Header::Client(client)))));
            }
        }
    }
}
