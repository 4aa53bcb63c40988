//! The addresses of this machine that connections to a server come from. Pure.
//!
//! Between two addresses and one port there can be no more connections than ports at the other end, about 64,000 at most
//! (RFC 9293 §3.4.1: a connection is known by both ends). Each further source address makes room for as many.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Addresses of which connections get one after the other.
#[derive(Debug)]
pub struct Sources {
    addresses: Box<[IpAddr]>,
    turn: AtomicUsize,
}

impl Sources {
    /// These addresses, each of which is there once.
    #[must_use]
    pub fn new(addresses: Vec<IpAddr>) -> Self {
        Self { addresses: addresses.into(), turn: AtomicUsize::new(0) }
    }

    /// All of them, as they are written.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Those of the family of `server`, in the order in which they are tried for one connection: each connection begins
    /// with another one.
    pub fn towards(&self, server: IpAddr) -> impl Iterator<Item = IpAddr> {
        let is_of_family = move |source: &&IpAddr| source.is_ipv4() == server.is_ipv4();
        let count = self.addresses.iter().filter(is_of_family).count();
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % count.max(1);
        self.addresses.iter().filter(is_of_family).cycle().skip(first).take(count).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_connection_begins_with_another_address_of_its_family() {
        let ips = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        let sources = Sources::new(ips(&["10.0.0.1", "fd00::1", "10.0.0.2", "10.0.0.3"]));
        let towards = |server: &str| sources.towards(server.parse().unwrap()).collect::<Vec<_>>();
        assert_eq!(towards("192.0.2.1"), ips(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]));
        assert_eq!(towards("192.0.2.1"), ips(&["10.0.0.2", "10.0.0.3", "10.0.0.1"]));
        assert_eq!(towards("2001:db8::1"), ips(&["fd00::1"]));
        assert_eq!(towards("192.0.2.1"), ips(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]));
        let only = Sources::new(ips(&["10.0.0.1"]));
        assert_eq!(only.towards("::1".parse().unwrap()).count(), 0);
    }
}
