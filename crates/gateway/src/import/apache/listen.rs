//! `Listen`: the addresses that Apache takes connections at.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::context::Context;
use crate::import::book::Outcome;
use crate::import::sheet::Section;
use crate::import::tree::Directive;

/// The addresses that Apache listens on.
#[derive(Debug)]
pub(super) struct Listens {
    addresses: Vec<(String, u16)>,
    /// Nothing says on which: this is a part of a configuration.
    is_unsaid: bool,
}

impl Listens {
    pub(super) fn of(context: &mut Context<'_>, outer: &[&Directive], head: &mut Section) -> Self {
        let mut addresses = Vec::new();
        let mut is_unsaid = true;
        for listen in outer.iter().filter(|directive| directive.name == "listen") {
            is_unsaid = false;
            match listen_addresses(listen.arg(0)) {
                Some(found) => {
                    context.book.mark(listen, Outcome::Key);
                    addresses.extend(found);
                }
                None => {
                    context.book.misses(head, listen, "this is no address with a port: write the listener");
                }
            }
        }
        Self { addresses, is_unsaid }
    }

    pub(super) fn ports(&self) -> Vec<u16> {
        let mut ports: Vec<u16> = self.addresses.iter().map(|(_, port)| *port).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// All with this port, or all. Where nothing says `Listen`, there is one for every port that a virtual host names.
    pub(super) fn of_port(&mut self, port: Option<u16>) -> Vec<(String, u16)> {
        let fits = |(_, other): &&(String, u16)| port.is_none_or(|port| port == *other);
        let found: Vec<_> = self.addresses.iter().filter(fits).cloned().collect();
        if !found.is_empty() || !self.is_unsaid {
            return found;
        }
        let all = everywhere(port.unwrap_or(80));
        self.addresses.extend(all.iter().cloned());
        all
    }

    /// Those that are not among these; where there is none at all, port 80.
    pub(super) fn left(&mut self, taken: &[(String, u16)]) -> Vec<(String, u16)> {
        if self.addresses.is_empty() {
            return self.of_port(None);
        }
        let is_left = |address: &&(String, u16)| !taken.contains(address);
        self.addresses.iter().filter(is_left).cloned().collect()
    }
}

/// `Listen 80` takes connections of both families.
fn everywhere(port: u16) -> Vec<(String, u16)> {
    let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    any.map(|ip| (SocketAddr::new(ip, port).to_string(), port)).to_vec()
}

fn listen_addresses(text: &str) -> Option<Vec<(String, u16)>> {
    if let Ok(port) = text.strip_prefix("*:").unwrap_or(text).parse() {
        return Some(everywhere(port));
    }
    let address: SocketAddr = text.parse().ok()?;
    Some(vec![(address.to_string(), address.port())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_listen() {
        let found =
            |text| listen_addresses(text).map(|found| found.into_iter().map(|(a, _)| a).collect::<Vec<_>>());
        assert_eq!(found("80").unwrap(), ["0.0.0.0:80", "[::]:80"]);
        assert_eq!(found("*:80").unwrap(), ["0.0.0.0:80", "[::]:80"]);
        assert_eq!(found("[::1]:80").unwrap(), ["[::1]:80"]);
        assert_eq!(found("name:80"), None);
    }
}
