//! Warnings about listeners, routes and certificates that only show when they are looked at together. Pure.
//!
//! In: a configuration without problems, and its certificates. Out: warnings, each with what to do.

use std::collections::BTreeSet;
use std::sync::Arc;

use tls_acceptor::{CertName, CertSet};

use crate::config::Config;
use crate::config::Listener;
use crate::config::acme;
use crate::config::admin;
use crate::config::pools;
use crate::config::redirects;
use crate::site::host::HostPattern;
use crate::site::matcher::PathMatcher;
use crate::site::route::Route;

/// Where browsers expect TLS.
const TLS_PORTS: [u16; 2] = [443, 8443];
/// Where they expect none.
const PLAIN_PORTS: [u16; 2] = [80, 8080];

/// Everything that is probably a mistake.
#[must_use]
pub fn warnings(config: &Config, set: &CertSet) -> Vec<String> {
    let mut hosts: BTreeSet<Option<&HostPattern>> = BTreeSet::new();
    for route in &config.routes {
        hosts.extend(route.matcher.hosts.iter().map(Some));
        hosts.extend(route.matcher.hosts.is_empty().then_some(None));
    }
    let mut warnings = Vec::new();
    warnings.extend(config.routes.iter().filter_map(|route| never_asked(route, &config.routes)));
    for listener in &config.listeners {
        warnings.extend(listens_oddly(listener, config));
    }
    warnings.extend(
        config
            .unmatched
            .iter()
            .map(|pattern| format!("include: no file matches {pattern}; correct it, or put a file there")),
    );
    warnings.extend(acme::warning(config));
    warnings.extend(admin::warning(config));
    warnings.extend(redirects::loops(config));
    warnings.extend(pools::warnings(config));
    warnings.extend(config.routes.iter().flat_map(|route| passwords(route)));
    if !config.has_tls() {
        if !set.certificates().is_empty() {
            warnings.push(
                "there are certificates, but every listener has tls = false, so no client gets them"
                    .to_owned(),
            );
        }
        return warnings;
    }
    let named = || hosts.iter().copied().flatten();
    let on_demand = config.acme.as_ref().and_then(|acme| acme.on_demand.as_ref());
    let is_on_demand = |name: &str| on_demand.is_some_and(|on_demand| on_demand.allowed.allows(name));
    warnings.extend(named().filter_map(|host| uncovered(host, set, is_on_demand)));
    if !hosts.contains(&None) {
        let hosts: Vec<&HostPattern> = named().collect();
        for certificate in set.served() {
            let names = &certificate.leaf.names;
            if !names.iter().any(|name| hosts.iter().any(|host| may_meet(name, host))) {
                let file =
                    certificate.files.first().map(|file| file.display().to_string()).unwrap_or_default();
                let names: Vec<_> = names.iter().map(ToString::to_string).collect();
                let names = names.join(", ");
                warnings.push(format!(
                    "{file}: the certificate of {names} can't be used, since no route has one of its names as \
                     host; add a [[route]], or remove the certificate"
                ));
            }
        }
        warnings.extend(hosts.iter().filter_map(|host| bare_name_left_out(host, &hosts, set)));
    }
    warnings
}

/// Passwords that are badly kept.
fn passwords(route: &Route) -> Vec<String> {
    let auth = route.access.as_ref().and_then(|access| access.auth.as_ref());
    let Some(basic) = auth.and_then(|auth| auth.basic.as_ref()) else { return Vec::new() };
    let file = basic.users.path.display();
    let weak = basic.users.get().map(|users| users.weak()).unwrap_or_default();
    let shown = weak.iter().take(3).copied().collect::<Vec<_>>().join(", ");
    let more = if weak.len() > 3 { ", ..." } else { "" };
    let of_weak = (!weak.is_empty()).then(|| {
        format!(
            "{file}: the passwords of {shown}{more} are hashed by apr1 or {{SHA}}, which is too fast to be safe; \
             write them again with `htpasswd -B`"
        )
    });
    let of_mode = basic.users.is_open().then(|| {
        format!("{file}: every user of this machine can read the password hashes; run: chmod 640 {file}")
    });
    of_weak.into_iter().chain(of_mode).collect()
}

/// A pattern that a route for every path of the same hosts comes before.
fn never_asked(route: &Route, routes: &[Arc<Route>]) -> Option<String> {
    let Route { id, matcher, .. } = route;
    if !matches!(matcher.path, PathMatcher::Regex(_)) {
        return None;
    }
    let takes_all = |other: &&Arc<Route>| {
        let hosts = &other.matcher.hosts;
        let has_hosts = hosts.is_empty() && matcher.hosts.is_empty()
            || !matcher.hosts.is_empty() && matcher.hosts.iter().all(|host| hosts.contains(host));
        has_hosts
            && other.matcher.conditions() == 0
            && other.matcher.path.prefix().is_some_and(|prefix| prefix.to_string() == "/")
    };
    let other = routes.iter().find(takes_all)?;
    Some(format!(
        "the route {id} is never asked: a path comes before a path_regex, and {} takes every path of the same host; \
         give that one longer paths, or a path_regex of its own",
        other.id
    ))
}

/// A port on which clients expect the opposite, or a way around TLS.
fn listens_oddly(listener: &Listener, config: &Config) -> Option<String> {
    let has_tls = config.has_tls();
    // Those that don't say where they are served are meant for TLS.
    let has_open = config.routes.iter().any(|route| route.matcher.listeners.is_empty());
    let address = &listener.address;
    let port = address.port();
    match listener.tls {
        Some(_) if PLAIN_PORTS.contains(&port) => Some(format!(
            "the listener {address} speaks TLS, but clients speak plain HTTP on port {port}; write tls = false \
             for it, or another port"
        )),
        None if TLS_PORTS.contains(&port) => Some(format!(
            "the listener {address} has tls = false, but clients speak TLS on port {port}; remove tls = false, \
             or write another port"
        )),
        None if has_tls
            && has_open
            && !listener.redirect
            && address.ip().is_some_and(|address| !address.ip().is_loopback()) =>
        {
            Some(format!(
                "the listener {address} has tls = false and serves every route without encryption, beside those \
             with TLS; write redirect = \"https\" to send clients to TLS, or 127.0.0.1 as its address if only a proxy \
             on this machine is to use it"
            ))
        }
        _ => None,
    }
}

/// A warning if clients can't ask for the host of a route over TLS.
fn uncovered(host: &HostPattern, set: &CertSet, is_on_demand: impl Fn(&str) -> bool) -> Option<String> {
    let has = |name: &CertName| set.names().any(|(other, _)| other == *name);
    let hint = match host {
        HostPattern::Exact(name) => {
            if set.lookup(name).is_some() || set.awaits(name) || is_on_demand(name) || is_address(name) {
                return None; // a client that asks for an address sends no name
            }
            let wildcard = || {
                let above = || name.split_once('.').map(|(_, above)| above);
                // A wildcard stands for exactly one label (RFC 9525 §6.3).
                std::iter::successors(above(), |above| above.split_once('.').map(|(_, above)| above))
                    .find(|above| has(&CertName::Wildcard((*above).into())))
            };
            if has(&CertName::Wildcard((&**name).into())) {
                format!(": *.{name} is not valid for {name} itself")
            } else if let Some(above) = wildcard() {
                format!(": *.{above} is valid for one label before {above} and not for two")
            } else {
                String::new()
            }
        }
        HostPattern::Wildcard(parent) => {
            let is_below = |name: &CertName| match name {
                CertName::Exact(name) => name.split_once('.').is_some_and(|(_, above)| above == &**parent),
                CertName::Wildcard(other) => **other == **parent,
                CertName::Ip(_) => false,
            };
            if set.names().any(|(name, _)| is_below(&name)) || is_on_demand(&format!("any.{parent}")) {
                return None;
            }
            match has(&CertName::Exact((&**parent).into())) {
                true => format!(": that of {parent} is valid for {parent} alone"),
                false => String::new(),
            }
        }
    };
    let effect = match set.has_default() {
        true => "clients get the default's certificate and refuse it",
        false => "TLS clients that ask for it are refused",
    };
    Some(format!("no certificate is valid for the route's host {host}{hint}; {effect}"))
}

/// Routes for every `*.domain.com` and none for `domain.com`, for which there is a certificate.
fn bare_name_left_out(host: &HostPattern, hosts: &[&HostPattern], set: &CertSet) -> Option<String> {
    let HostPattern::Wildcard(parent) = host else { return None };
    let name = CertName::Exact((&**parent).into());
    let has_route = hosts.iter().any(|host| may_meet(&name, host));
    let has_certificate = set.names().any(|(other, _)| other == name);
    (has_certificate && !has_route).then(|| {
        format!(
            "no route takes {parent}, although a certificate is valid for it: {host} stands for one label before \
             it, not for {parent} itself; add a [[route]] with host = \"{parent}\""
        )
    })
}

/// Some request for `name` may be for `host`.
fn may_meet(name: &CertName, host: &HostPattern) -> bool {
    let is_below = |name: &str, parent: &str| name.split_once('.').is_some_and(|(_, above)| above == parent);
    match (name, host) {
        (CertName::Exact(name), HostPattern::Exact(host)) => **name == **host,
        (CertName::Exact(name), HostPattern::Wildcard(parent)) => is_below(name, parent),
        (CertName::Wildcard(parent), HostPattern::Exact(host)) => is_below(host, parent),
        (CertName::Wildcard(name), HostPattern::Wildcard(host)) => **name == **host,
        (CertName::Ip(ip), HostPattern::Exact(host)) => host.trim_matches(['[', ']']) == ip.to_string(),
        (CertName::Ip(_), HostPattern::Wildcard(_)) => false,
    }
}

fn is_address(host: &str) -> bool {
    host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use support::pki::Pki;
    use tempfile::TempDir;

    use super::*;

    const TLS: &str = "[[listener]]\naddress = \"127.0.0.1:4433\"\n";

    /// The warnings for these listeners, hosts of routes, and certificates.
    fn warnings_for(
        listeners: &str,
        hosts: &[Option<&str>],
        certificates: &[&[&str]],
        default: Option<&str>,
    ) -> Vec<String> {
        let directory = TempDir::new().unwrap();
        let pki = Pki::new();
        for (i, names) in certificates.iter().enumerate() {
            pki.issue(names).write(directory.path(), &i.to_string());
        }
        let mut text = listeners.to_owned();
        if !certificates.is_empty() {
            text += &format!("[certificates]\ndirectory = {:?}\n", directory.path().to_str().unwrap());
            text += &default.map(|name| format!("default = {name:?}\n")).unwrap_or_default();
        }
        for host in hosts {
            text += "[[route]]\npath = \"/\"\nservice = \"echo\"\n";
            text += &host.map(|host| format!("host = {host:?}\n")).unwrap_or_default();
        }
        let (config, problems) = Config::parse(Path::new("test.toml"), &text);
        assert_eq!(problems, []);
        let loaded = match certificates {
            [] => tls_acceptor::Loaded::default(),
            _ => tls_acceptor::load(&config.certificates, None).unwrap(),
        };
        warnings(&config, &loaded.set)
    }

    #[track_caller]
    fn assert_contains(found: &[String], expect: &[&str]) {
        assert_eq!(found.len(), expect.len(), "{found:?}");
        for (found, expect) in found.iter().zip(expect) {
            assert!(found.contains(expect), "{found} lacks {expect}");
        }
    }

    #[test]
    fn hosts_of_routes_that_no_certificate_is_valid_for() {
        let tls = |hosts: &[Option<&str>], names: &[&str]| warnings_for(TLS, hosts, &[names], None);
        assert_contains(&tls(&[Some("a.test")], &["a.test"]), &[]);
        assert_contains(&tls(&[Some("x.a.test")], &["*.a.test"]), &[]);
        assert_contains(&tls(&[Some("*.a.test")], &["*.a.test"]), &[]);
        assert_contains(&tls(&[Some("*.a.test")], &["x.a.test"]), &[]);
        assert_contains(&tls(&[Some("192.0.2.1"), None], &["a.test"]), &[]);
        assert_contains(
            &tls(&[Some("b.test"), None], &["a.test"]),
            &["for the route's host b.test; TLS clients that ask"],
        );
        assert_contains(
            &tls(&[Some("a.test"), None], &["*.a.test"]),
            &["*.a.test is not valid for a.test itself"],
        );
        assert_contains(
            &tls(&[Some("x.y.a.test"), None], &["*.a.test"]),
            &["valid for one label before a.test"],
        );
        assert_contains(
            &tls(&[Some("*.a.test"), None], &["a.test"]),
            &["that of a.test is valid for a.test alone"],
        );
        let with_default = warnings_for(TLS, &[Some("b.test"), None], &[&["a.test"]], Some("a.test"));
        assert_contains(&with_default, &["clients get the default's certificate"]);
    }

    #[test]
    fn certificates_that_no_route_leads_to() {
        let all =
            |hosts: &[Option<&str>], certificates: &[&[&str]]| warnings_for(TLS, hosts, certificates, None);
        let lonely: &[&[&str]] = &[&["a.test"], &["b.test", "*.c.test"]];
        let unused = "the certificate of b.test, *.c.test can't be used";
        assert_contains(&all(&[Some("a.test")], lonely), &[unused]);
        for hosts in
            [&[None, Some("a.test")], &[Some("a.test"), Some("x.c.test")], &[Some("a.test"), Some("b.test")]]
        {
            assert_contains(&all(hosts, lonely), &[]);
        }
        assert_contains(&all(&[Some("192.0.2.1")], &[&["192.0.2.1"]]), &[]);
        let bare = all(&[Some("*.a.test")], &[&["a.test", "*.a.test"]]);
        assert_contains(&bare, &["no route takes a.test, although a certificate is valid for it"]);
    }

    #[test]
    fn a_pattern_behind_a_route_for_every_path_is_never_asked() {
        let warnings_for = |routes: &str| {
            let text = format!("[[listener]]\naddress = \"127.0.0.1:1\"\ntls = false\n{routes}");
            let (config, problems) = Config::parse(Path::new("test.toml"), &text);
            assert_eq!(problems, []);
            warnings(&config, &tls_acceptor::Loaded::default().set)
        };
        let all = |keys: &str| format!("[[route]]\npath = \"/\"\nservice = \"echo\"\n{keys}");
        let pattern =
            "[[route]]\nhost = [\"a.test\", \"b.test\"]\npath_regex = \"/x.*\"\nservice = \"echo\"\n";
        let hosts = "host = [\"b.test\", \"a.test\", \"c.test\"]\n";
        assert_contains(
            &warnings_for(&(all(hosts) + pattern)),
            &["the route a.test,b.test~/x.* is never asked"],
        );
        for others in ["", "host = \"a.test\"\n", &format!("{hosts}when = {{ upgrade = true }}\n")] {
            assert_contains(&warnings_for(&(all(others) + pattern)), &[]);
        }
    }

    #[test]
    fn listeners_that_clients_misunderstand() {
        let listener =
            |address: &str, tls: bool| format!("[[listener]]\naddress = \"{address}\"\ntls = {tls}\n");
        let plain = |address| listener(address, false);
        assert_contains(&warnings_for(&plain("0.0.0.0:80"), &[None], &[], None), &[]);
        assert_contains(
            &warnings_for(&plain("0.0.0.0:443"), &[None], &[], None),
            &["has tls = false, but clients speak TLS"],
        );
        let certificates: &[&[&str]] = &[&["a.test"]];
        let both = |other: String| warnings_for(&(TLS.to_owned() + &other), &[None], certificates, None);
        assert_contains(&both(plain("127.0.0.1:8081")), &[]);
        assert_contains(&both(plain("0.0.0.0:80")), &["serves every route without encryption"]);
        assert_contains(&both(plain("0.0.0.0:80") + "redirect = \"https\"\n"), &[]);
        assert_contains(
            &both(listener("0.0.0.0:80", true)),
            &["speaks TLS, but clients speak plain HTTP on port 80"],
        );
        assert_contains(
            &warnings_for(&plain("127.0.0.1:1"), &[None], certificates, None),
            &["so no client gets them"],
        );
    }
}
