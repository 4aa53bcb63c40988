//! Names of servers become servers, as many as they stand for. Pure.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use crate::site::endpoint::Endpoint;
use crate::site::names::{Found, Service};
use crate::site::server::Server;

/// The servers that names stand for.
#[derive(Debug)]
pub(super) struct Expanded {
    pub(super) servers: Vec<Server>,
    /// Each name has been found.
    pub(super) is_whole: bool,
}

/// The servers that `configured` stands for: each address that was found for a name, or each target. What is no name
/// stays. A server that was in `old` keeps its endpoint; one that is found twice is there once.
pub(super) fn expand(configured: &[Server], old: &[Server]) -> Expanded {
    let mut servers: Vec<Server> = Vec::new();
    let mut is_whole = true;
    let mut add = |server: Server| {
        let name = server.endpoint.name();
        if servers.iter().any(|other| other.endpoint.name() == name) {
            return;
        }
        let kept = old.iter().find(|old| old.endpoint == server.endpoint);
        let endpoint = kept.map_or(server.endpoint, |old| old.endpoint.clone());
        servers.push(Server { endpoint, ..server });
    };
    for server in configured {
        let Some(known) = server.endpoint.known() else {
            add(server.clone());
            continue;
        };
        match known.found().as_deref() {
            None => is_whole = false,
            Some(Found::Addresses(found)) => {
                for ip in one_family(found) {
                    add(Server { endpoint: at(&server.endpoint, &ip.to_string(), None), ..server.clone() });
                }
            }
            Some(Found::Services(found)) => {
                let weights = weights(found);
                for (service, weight) in found.iter().zip(weights) {
                    let endpoint = at(&server.endpoint, &service.host, Some(service.port));
                    add(Server { endpoint, weight, priority: service.priority, ..server.clone() });
                }
            }
        }
    }
    Expanded { servers, is_whole }
}

fn at(name: &Endpoint, host: &str, port: Option<u16>) -> Arc<Endpoint> {
    Arc::new(name.resolved(host, port.unwrap_or_else(|| name.port())))
}

/// Servers of two families can't be told to be one server, so there are those of one: IPv4, if there are any.
fn one_family(found: &[IpAddr]) -> impl Iterator<Item = &IpAddr> {
    let has_v4 = found.iter().any(IpAddr::is_ipv4);
    found.iter().filter(move |ip| ip.is_ipv4() == has_v4)
}

/// A target of weight 0 has "a very small chance of being selected" beside others (RFC 2782).
fn weights(found: &[Service]) -> Vec<NonZeroU32> {
    let has_zero = |of: u16| found.iter().any(|other| other.priority == of && other.weight == 0);
    let weight = |service: &Service| {
        let scale = if has_zero(service.priority) { 100 } else { 1 };
        NonZeroU32::new(u32::from(service.weight) * scale).unwrap_or(NonZeroU32::MIN)
    };
    found.iter().map(weight).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::site::known_name::KnownName;
    use crate::site::names::{Question, Resolve};
    use crate::site::upstream::Upstream;

    fn server(url: &str, resolve: Resolve) -> (Server, Option<Arc<KnownName>>) {
        let (endpoint, _) = Endpoint::parse(url).unwrap();
        let known = endpoint.host_name().map(|name| Arc::new(KnownName::new(Question::new(name, resolve))));
        known.iter().for_each(|known| endpoint.named(known));
        (Server::new(endpoint), known)
    }

    fn addresses(list: &[&str]) -> Found {
        Found::addresses(list.iter().map(|ip| ip.parse().unwrap()).collect())
    }

    fn shown(servers: &[Server]) -> Vec<String> {
        let shown = |s: &Server| format!("{} {} {}", s.endpoint, s.weight, s.priority);
        servers.iter().map(shown).collect()
    }

    #[test]
    fn each_address_and_each_target_is_a_server() {
        let (app, known) = server("https://App.internal:8443/x", Resolve::Dns);
        let known = known.unwrap();
        let (fixed, _) = server("http://10.0.0.2:8443", Resolve::Dns);
        let all = [app, fixed];
        let expanded = expand(&all, &[]);
        assert_eq!(
            (shown(&expanded.servers), expanded.is_whole),
            (vec!["10.0.0.2:8443 1 0".to_owned()], false)
        );
        known.settle(Ok(addresses(&["10.0.0.1", "10.0.0.2", "::1"])), Duration::ZERO);
        let expanded = expand(&all, &[]);
        // Once each, and IPv4 alone.
        assert_eq!(shown(&expanded.servers), ["10.0.0.1:8443 1 0", "10.0.0.2:8443 1 0"]);
        assert!(expanded.is_whole);
        let first = &expanded.servers[0].endpoint;
        assert_eq!(first.field(), "App.internal:8443", "the name is what the server knows of");
        assert_eq!(first.tls.as_ref().unwrap().name.to_string().to_lowercase(), "app.internal");
        known.settle(Ok(addresses(&["::1"])), Duration::ZERO);
        assert_eq!(shown(&expand(&all[..1], &[]).servers), ["[::1]:8443 1 0"]);
    }

    #[test]
    fn weights_and_priorities_of_targets() {
        let (app, known) = server("http://_chat._tcp.internal", Resolve::Srv);
        let target = |priority, host: &str, port, weight| Service {
            priority,
            host: host.into(),
            port,
            weight,
            addresses: vec![[10, 0, 0, 1].into()],
        };
        let found = vec![
            target(1, "a.internal", 81, 0),
            target(1, "b.internal", 82, 3),
            target(2, "c.internal", 83, 7),
            target(3, "d.internal", 84, 0),
        ];
        known.unwrap().settle(Ok(Found::services(found)), Duration::ZERO);
        let servers = expand(&[app], &[]).servers;
        assert_eq!(
            shown(&servers),
            ["a.internal:81 1 1", "b.internal:82 300 1", "c.internal:83 7 2", "d.internal:84 1 3"]
        );
        assert_eq!(servers[0].endpoint.field(), "a.internal:81");
        assert_eq!(servers[0].endpoint.known().unwrap().addresses("a.internal", 81).len(), 1);
    }

    proptest! {
        /// Servers come, stay with what is known of them, and go; a server is flagged as left exactly once.
        #[test]
        fn what_stays_is_the_same_server(steps in prop::collection::vec(prop::collection::btree_set(1u8..9, 0..6), 1..12)) {
            let (app, known) = server("http://app:80", Resolve::Dns);
            let known = known.unwrap();
            let mut upstream = Upstream::new(vec![app]);
            upstream.resolve = Resolve::Dns;
            let mut sessions = Vec::new();
            let mut before = std::collections::BTreeSet::new();
            for step in steps {
                let found = step.iter().map(|n| IpAddr::from([10, 0, 0, *n])).collect();
                known.settle(Ok(Found::addresses(found)), Duration::ZERO);
                let left = upstream.resolve_now(Duration::ZERO, Duration::ZERO);
                let now = upstream.current();
                let name = |n: &u8| format!("10.0.0.{n}:80");
                let expected: Vec<_> = step.iter().map(name).collect();
                prop_assert_eq!(now.states().iter().map(|s| s.endpoint.to_string()).collect::<Vec<_>>(), expected);
                let gone: std::collections::BTreeSet<_> = left.iter().map(|s| s.endpoint.to_string()).collect();
                let expected = before.difference(&step).map(name).collect();
                prop_assert_eq!(&gone, &expected);
                for state in now.states() {
                    prop_assert!(!state.has_left());
                    let held = sessions.iter().filter(|s: &&crate::site::server::Assignment| s.endpoint() == &state.endpoint).count();
                    prop_assert_eq!(state.live() as usize, held, "what it had before it left counts");
                    sessions.push(state.assign(None).unwrap());
                }
                before = step;
            }
        }
    }
}
