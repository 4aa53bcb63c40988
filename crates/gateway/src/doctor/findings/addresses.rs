//! Where the gateway listens: whether other programs do, too, and whether clients of both families come there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{ADDRESSES, Findings, Level};
use crate::doctor::facts::{Facts, Listening, Owner};

impl Findings {
    pub(super) fn addresses(&mut self, facts: &Facts) {
        let configured = facts.config.iter().flat_map(|config| config.listeners.iter().copied());
        let said = facts
            .gateway
            .iter()
            .flat_map(|status| status.listeners.iter().filter_map(|text| text.parse().ok()));
        let mut listeners: Vec<SocketAddr> = configured.chain(said).collect();
        listeners.sort_unstable();
        listeners.dedup();
        self.strangers(facts, &listeners);
        self.families(facts, &listeners);
    }

    /// Other programs at the gateway's addresses.
    fn strangers(&mut self, facts: &Facts, listeners: &[SocketAddr]) {
        let status = facts.gateway.as_ref();
        for Listening { address, owner, .. } in &facts.listening {
            let Some(listener) = listeners.iter().find(|listener| overlaps(listener, address)) else {
                continue;
            };
            let whose = match owner {
                Some(Owner { pid, .. }) if status.is_some_and(|status| status.pid == *pid) => continue,
                // Processes of a takeover, or of a gateway that another control socket belongs to.
                Some(Owner { program, .. }) if status.is_some() && program == "wssgate" => continue,
                Some(Owner { pid, program }) => format!("{program} (process {pid})"),
                None if status.is_some() => continue, // probably the gateway itself
                None => "a program that this user can't see".to_owned(),
            };
            let what =
                format!("{whose} listens on {address}, which takes connections of the listener {listener}");
            let see = format!("ss -ltnp 'sport = :{}'", address.port());
            self.add(Level::Problem, ADDRESSES, what, &see, "stop it, or give the gateway another address");
        }
    }

    /// IPv4 without IPv6, or the other way round.
    fn families(&mut self, facts: &Facts, listeners: &[SocketAddr]) {
        for listener in listeners.iter().filter(|listener| listener.ip() == Ipv6Addr::UNSPECIFIED) {
            let port = listener.port();
            if port != 0 && !listeners.iter().any(|other| other.port() == port && other.is_ipv4()) {
                let what = format!(
                    "{listener} takes no IPv4, whatever net.ipv6.bindv6only says, and nothing listens on 0.0.0.0:{port}"
                );
                let todo = format!("address = [\"0.0.0.0:{port}\", \"[::]:{port}\"] in the listener");
                self.add(Level::Warning, ADDRESSES, what, "ss -ltn", todo);
            }
        }
        let has_public_v4 = listeners.iter().any(|one| is_public(one.ip()) && one.is_ipv4());
        let has_v6 = listeners.iter().any(|one| one.is_ipv6() && one.ip() != Ipv6Addr::LOCALHOST);
        if has_public_v4
            && !has_v6
            && let Some((name, address)) = facts.names_with_ipv6.first()
        {
            let what = format!(
                "{name} has the IPv6 address {address}, and the gateway listens on IPv4 alone: such clients wait, or fail"
            );
            let todo = "add \"[::]:443\" to the listener's address, or take the AAAA record away";
            self.add(Level::Warning, ADDRESSES, what, &format!("dig AAAA {name}; ss -ltn"), todo);
        }
        if has_v6
            && facts.has_ipv6 == Some(false)
            && let Some((name, address)) = facts.names_with_ipv6.first()
        {
            let what =
                format!("{name} has the IPv6 address {address}, and this machine has none that others reach");
            let todo = "give the machine its address, or take the AAAA record away";
            self.add(Level::Warning, ADDRESSES, what, "ip -6 address show scope global", todo);
        }
    }
}

fn is_public(ip: IpAddr) -> bool {
    !ip.is_loopback()
}

/// Connections to the first may come to the second.
fn overlaps(one: &SocketAddr, other: &SocketAddr) -> bool {
    let is_any = |ip: IpAddr| ip == Ipv4Addr::UNSPECIFIED || ip == Ipv6Addr::UNSPECIFIED;
    // A socket of both families listens on [::].
    let same_family = one.is_ipv4() == other.is_ipv4() || other.ip() == Ipv6Addr::UNSPECIFIED;
    one.port() == other.port()
        && one.port() != 0
        && same_family
        && (one.ip() == other.ip() || is_any(one.ip()) || is_any(other.ip()))
}
