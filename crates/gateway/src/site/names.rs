//! Names of servers: what is asked about them, what was found, and when they are asked about again. Pure.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// What becomes of the names of an upstream's servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Resolve {
    /// A name is one server, whatever number of addresses it has; they are looked up again and again.
    #[default]
    Host,
    /// A name is one server, and its addresses are looked up once.
    Once,
    /// Each address of a name is a server.
    Dns,
    /// Each target of a name's SRV records is a server (RFC 2782).
    Srv,
}

impl Resolve {
    /// The servers depend on what is found.
    #[must_use]
    pub fn makes_servers(self) -> bool {
        matches!(self, Self::Dns | Self::Srv)
    }
}

/// What is asked of the DNS.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Question {
    /// The name, in lower case.
    pub name: Box<str>,
    /// For which use; `Host` and `Dns` ask the same.
    pub resolve: Resolve,
}

impl Question {
    /// About a name for a use.
    #[must_use]
    pub fn new(name: &str, resolve: Resolve) -> Self {
        let resolve = if resolve == Resolve::Dns { Resolve::Host } else { resolve };
        Self { name: name.to_ascii_lowercase().into(), resolve }
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A target of SRV records.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Service {
    /// Targets with a lower number come first.
    pub priority: u16,
    /// The name of its host, without the dot at the end.
    pub host: Box<str>,
    /// Its port.
    pub port: u16,
    /// Its part of the requests of its priority.
    pub weight: u16,
    /// The addresses of its host.
    pub addresses: Vec<IpAddr>,
}

/// What was found about a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Its addresses.
    Addresses(Vec<IpAddr>),
    /// The targets of its SRV records.
    Services(Vec<Service>),
}

/// So much of an answer counts: more is a mistake, or an attack.
pub const FOUND_MAX: usize = 1000;

impl Found {
    /// Addresses, each once, as many as count.
    #[must_use]
    pub fn addresses(mut found: Vec<IpAddr>) -> Self {
        found.sort_unstable();
        found.dedup();
        found.truncate(FOUND_MAX);
        Self::Addresses(found)
    }

    /// Targets, each once, as many as count, those that come first before the others. Those without an address are left
    /// out.
    #[must_use]
    pub fn services(mut found: Vec<Service>) -> Self {
        found.retain(|service| !service.addresses.is_empty() && service.port != 0);
        found.sort_unstable();
        let mut once: Vec<Service> = Vec::new();
        for service in found {
            let is_known = |other: &Service| (&other.host, other.port) == (&service.host, service.port);
            if once.len() < FOUND_MAX && !once.iter().any(is_known) {
                once.push(service);
            }
        }
        Self::Services(once)
    }

    /// There is no address.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Addresses(addresses) => addresses.is_empty(),
            Self::Services(services) => services.is_empty(),
        }
    }

    /// The addresses of a host: the name itself, or that of a target.
    #[must_use]
    pub fn of(&self, host: &str, port: u16) -> &[IpAddr] {
        match self {
            Self::Addresses(addresses) => addresses,
            Self::Services(services) => services
                .iter()
                .find(|service| service.port == port && *service.host == *host)
                .map_or(&[], |service| &service.addresses),
        }
    }

    /// All of it, as it is shown.
    #[must_use]
    pub fn list(&self) -> Vec<String> {
        match self {
            Self::Addresses(addresses) => addresses.iter().map(ToString::to_string).collect(),
            Self::Services(services) => {
                services.iter().map(|service| format!("{}:{}", service.host, service.port)).collect()
            }
        }
    }
}

/// What one look-up has brought for one family of addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Looked {
    /// These, for so long.
    Some(Vec<IpAddr>, Duration),
    /// There are none, for so long.
    None(Option<Duration>),
    /// It isn't known.
    Failed(String),
}

/// Why a name was not resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Unresolved {
    /// For people.
    pub why: String,
    /// How long it is known to stay so.
    pub for_time: Option<Duration>,
    /// The name is known not to exist, or has no record of the kind.
    pub is_certain: bool,
}

/// Both families together. If one is not known, what was known of both stays: an address that is up must not go because
/// a packet was lost. Without anything known before, half of it is better than nothing.
///
/// # Errors
/// If there is nothing to go on with.
pub fn both(v6: Looked, v4: Looked, is_known: bool) -> Result<(Vec<IpAddr>, Duration), Unresolved> {
    let failed = |why| Err(Unresolved { why, for_time: None, is_certain: false });
    match (v6, v4) {
        (Looked::Some(mut all, time), Looked::Some(more, other)) => {
            all.extend(more);
            Ok((all, time.min(other)))
        }
        (Looked::Some(all, time), Looked::None(_)) | (Looked::None(_), Looked::Some(all, time)) => {
            Ok((all, time))
        }
        (Looked::Some(all, time), Looked::Failed(why)) | (Looked::Failed(why), Looked::Some(all, time)) => {
            if is_known {
                failed(why)
            } else {
                Ok((all, time))
            }
        }
        (Looked::Failed(why), _) | (_, Looked::Failed(why)) => failed(why),
        (Looked::None(one), Looked::None(other)) => Err(Unresolved {
            why: "the name has no address".to_owned(),
            for_time: one.into_iter().chain(other).min(),
            is_certain: true,
        }),
    }
}

/// A TTL of 0 is common, and must not make a stream of questions.
pub const TTL_MIN: Duration = Duration::from_secs(1);
/// Entries of hosts files have a day.
pub const TTL_MAX: Duration = Duration::from_secs(300);
/// The longest time until a name that isn't resolved is asked about again, if older addresses are there.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// The same, if there are no older addresses, so that requests fail.
const RETRY_MAX_UNKNOWN: Duration = Duration::from_secs(5);

/// When a name is asked about again. `failures` is how many look-ups in a row have failed, `jitter` is from 0 to 1. It is
/// never before the TTL has ended, since a cache would answer the same.
#[must_use]
pub fn wait_after(
    looked: Result<Duration, Option<Duration>>,
    failures: u32,
    is_known: bool,
    jitter: f64,
) -> Duration {
    let base = match looked {
        Ok(ttl) => ttl.clamp(TTL_MIN, TTL_MAX),
        Err(negative) => {
            let max = if is_known { RETRY_MAX } else { RETRY_MAX_UNKNOWN };
            let backed_off = TTL_MIN * 2u32.saturating_pow(failures.saturating_sub(1).min(10));
            negative.unwrap_or(backed_off).clamp(TTL_MIN, max)
        }
    };
    base.mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 10.0)
}

/// The order in which addresses are tried: IPv6 first, then each family in its turn (RFC 8305 §4). Each `turn` begins with
/// another one, so that all of them are used.
#[must_use]
pub fn order(addresses: &[IpAddr], port: u16, turn: usize) -> Vec<SocketAddr> {
    let family = |is_v6: bool| {
        let all: Vec<_> = addresses.iter().filter(|ip| ip.is_ipv6() == is_v6).collect();
        let count = all.len();
        (0..count).map(move |i| SocketAddr::new(*all[(i + turn) % count], port))
    };
    let (mut v6, mut v4) = (family(true), family(false));
    let mut order = Vec::with_capacity(addresses.len());
    loop {
        let before = order.len();
        order.extend(v6.next());
        order.extend(v4.next());
        if order.len() == before {
            return order;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ips(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn families_together() {
        let some = |list: &[&str], ttl| Looked::Some(ips(list), seconds(ttl));
        let none = |ttl: Option<u64>| Looked::None(ttl.map(seconds));
        let lost = || Looked::Failed("timed out".to_owned());
        for (v6, v4, is_known, expect) in [
            (some(&["::1"], 9), some(&["127.0.0.1"], 5), true, Ok((ips(&["::1", "127.0.0.1"]), seconds(5)))),
            (some(&["::1"], 9), none(Some(1)), true, Ok((ips(&["::1"]), seconds(9)))),
            (none(None), some(&["127.0.0.1"], 5), false, Ok((ips(&["127.0.0.1"]), seconds(5)))),
            // Half of an answer replaces nothing.
            (lost(), some(&["127.0.0.1"], 5), true, Err((None, false))),
            (lost(), some(&["127.0.0.1"], 5), false, Ok((ips(&["127.0.0.1"]), seconds(5)))),
            (lost(), none(Some(60)), true, Err((None, false))),
            (none(Some(60)), lost(), false, Err((None, false))),
            (none(Some(60)), none(Some(7)), true, Err((Some(seconds(7)), true))),
            (none(None), none(None), true, Err((None, true))),
        ] {
            let got = both(v6, v4, is_known).map_err(|e| (e.for_time, e.is_certain));
            assert_eq!(got, expect);
        }
    }

    #[test]
    fn times() {
        for (looked, failures, is_known, expect) in [
            (Ok(0), 0, true, 1),
            (Ok(5), 0, true, 5),
            (Ok(86_400), 0, true, 300),
            (Err(None), 1, true, 1),
            (Err(None), 3, true, 4),
            (Err(None), 60, true, 30),
            (Err(None), 60, false, 5),
            (Err(Some(0)), 1, true, 1),
            (Err(Some(12)), 1, true, 12),
            (Err(Some(3600)), 9, true, 30),
            (Err(Some(3600)), 9, false, 5),
        ] {
            let looked = looked.map(seconds).map_err(|ttl: Option<u64>| ttl.map(seconds));
            assert_eq!(wait_after(looked, failures, is_known, 0.0), seconds(expect), "{looked:?} {failures}");
        }
        assert_eq!(wait_after(Ok(seconds(10)), 0, true, 1.0), seconds(11));
    }

    #[test]
    fn the_order_of_attempts() {
        let addresses = ips(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "2001:db8::1", "2001:db8::2"]);
        let tried = |turn| {
            let order = order(&addresses, 80, turn);
            order.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(tried(0), "2001:db8::1 10.0.0.1 2001:db8::2 10.0.0.2 10.0.0.3");
        assert_eq!(tried(1), "2001:db8::2 10.0.0.2 2001:db8::1 10.0.0.3 10.0.0.1");
        assert_eq!(order(&[], 80, 7), []);
    }

    #[test]
    fn targets_are_sorted_and_each_is_there_once() {
        let service = |priority, host: &str, weight, addresses: &[&str]| Service {
            priority,
            host: host.into(),
            port: 80,
            weight,
            addresses: ips(addresses),
        };
        let found = Found::services(vec![
            service(2, "spare", 1, &["10.0.0.9"]),
            service(1, "b", 5, &["10.0.0.2"]),
            service(1, "a", 5, &["10.0.0.1"]),
            service(2, "b", 5, &["10.0.0.2"]),
            service(1, "nowhere", 5, &[]),
        ]);
        assert_eq!(found.list(), ["a:80", "b:80", "spare:80"]);
        assert_eq!(found.of("b", 80), ips(&["10.0.0.2"]));
        assert!(found.of("b", 81).is_empty());
        assert!(Found::services(vec![service(1, "nowhere", 5, &[])]).is_empty());
    }

    proptest! {
        #[test]
        fn every_address_is_tried_once(list: Vec<IpAddr>, turn: usize) {
            let Found::Addresses(list) = Found::addresses(list) else { unreachable!() };
            let mut tried: Vec<_> = order(&list, 1, turn % 1_000_000).iter().map(SocketAddr::ip).collect();
            // No family waits for a second of the other as long as it has one left.
            let v6 = list.iter().filter(|ip| ip.is_ipv6()).count();
            let both = v6.min(list.len() - v6);
            for pair in tried[..2 * both].chunks(2) {
                prop_assert!(pair[0].is_ipv6() && pair[1].is_ipv4());
            }
            tried.sort_unstable();
            prop_assert_eq!(tried, list);
        }

        #[test]
        fn a_name_is_asked_about_neither_too_often_nor_too_rarely(
            looked: Result<Duration, Option<Duration>>,
            failures: u32,
            is_known: bool,
            jitter in 0.0..1.0,
        ) {
            let wait = wait_after(looked, failures, is_known, jitter);
            prop_assert!(wait >= TTL_MIN && wait <= TTL_MAX.mul_f64(1.1));
            if let Ok(ttl) = looked {
                prop_assert!(wait >= ttl.min(TTL_MAX), "a cache would still have it");
            }
        }
    }
}
