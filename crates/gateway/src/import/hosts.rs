//! Which requests come to a virtual host, and its routes for them. Pure.

use std::collections::HashSet;

use super::sheet::Section;
use crate::site::host::HostPattern;

/// A listener, and the virtual hosts that it brings requests to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reach {
    /// What routes call it.
    pub name: String,
    pub has_tls: bool,
    /// By their position.
    pub servers: Vec<usize>,
    /// The one of them that takes what no other one takes.
    pub default: usize,
}

/// A route without its listener and hosts.
#[derive(Debug, Clone)]
pub(super) struct Body {
    pub section: Section,
    /// It is for connections with TLS alone, or for those without.
    pub tls: Option<bool>,
    /// It is for this host alone.
    pub host: Option<String>,
}

impl From<Section> for Body {
    fn from(section: Section) -> Self {
        Self { section, tls: None, host: None }
    }
}

/// For which listeners and hosts the routes of a virtual host are written.
struct Variant {
    reaches: Vec<usize>,
    /// Empty: every host.
    hosts: Vec<String>,
}

/// The routes of the virtual host at `index`, whose `hosts` are those of all. `answered` are hosts that have bodies of their
/// own. `None`: no request comes to it.
pub(super) fn routes(
    reaches: &[Reach],
    hosts: &[&[String]],
    index: usize,
    bodies: &[Body],
    answered: &[String],
) -> Option<Vec<Section>> {
    let variants = variants(reaches, hosts, index);
    if variants.is_empty() {
        return None;
    }
    let mut routes = Vec::new();
    for Variant { reaches: numbers, hosts } in variants {
        let left: Vec<String> = hosts.iter().filter(|host| !answered.contains(host)).cloned().collect();
        for Body { section, tls, host } in bodies {
            let fits = |number: &&usize| tls.is_none_or(|tls| reaches[**number].has_tls == tls);
            let listeners: Vec<usize> = numbers.iter().filter(fits).copied().collect();
            if listeners.is_empty() || host.is_none() && left.is_empty() && !hosts.is_empty() {
                continue;
            }
            let mut route = Section::new("[[route]]");
            if listeners.len() < reaches.len() {
                let names: Vec<String> =
                    listeners.iter().map(|number| reaches[*number].name.clone()).collect();
                route.set("listener", names, None);
            }
            match host {
                Some(host) => route.set("host", host.clone(), None),
                None if hosts.is_empty() => {}
                None => route.set("host", left.clone(), None),
            }
            route.append(section.clone());
            routes.push(route);
        }
    }
    Some(routes)
}

fn variants(reaches: &[Reach], all: &[&[String]], index: usize) -> Vec<Variant> {
    let mut variants: Vec<Variant> = Vec::new();
    let mut add =
        |number: usize, hosts: Vec<String>| match variants.iter_mut().find(|other| other.hosts == hosts) {
            Some(variant) => variant.reaches.push(number),
            None => variants.push(Variant { reaches: vec![number], hosts }),
        };
    for (number, reach) in reaches.iter().enumerate().filter(|(_, reach)| reach.servers.contains(&index)) {
        // The first that has a name takes it.
        let earlier = reach.servers.iter().filter(|other| **other < index);
        let earlier: HashSet<&String> = earlier.flat_map(|other| all[*other]).collect();
        let hosts: Vec<String> = all[index].iter().filter(|host| !earlier.contains(host)).cloned().collect();
        if reach.default != index {
            if !hosts.is_empty() {
                add(number, hosts);
            }
            continue;
        }
        // A wildcard of another one would take hosts of this one.
        let others = reach.servers.iter().filter(|other| **other != index).flat_map(|other| all[*other]);
        let wildcards: Vec<HostPattern> = others
            .filter(|other| other.starts_with("*."))
            .filter_map(|other| HostPattern::parse(other))
            .collect();
        let is_taken = |host: &String| wildcards.iter().any(|pattern| pattern.matches(host));
        let taken: Vec<String> = hosts.into_iter().filter(is_taken).collect();
        if !taken.is_empty() {
            add(number, taken);
        }
        add(number, Vec::new());
    }
    variants
}

/// A name for a listener that no other one has: `http` and `https` for the usual ports, with the port else.
/// `port` is `None` for a Unix socket.
pub(super) fn listener_name(port: Option<u16>, has_tls: bool, is_taken: impl Fn(&str) -> bool) -> String {
    let scheme = if has_tls { "https" } else { "http" };
    let name = match port {
        None => format!("{scheme}-unix"),
        Some(80) if !has_tls => scheme.to_owned(),
        Some(443) if has_tls => scheme.to_owned(),
        Some(port) => format!("{scheme}-{port}"),
    };
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    std::iter::once(name.clone()).chain(numbered).find(|name| !is_taken(name)).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hosts and listeners of the routes of a virtual host, which has one body.
    fn shown(
        reaches: &[(&str, bool, &[usize], usize)],
        hosts: &[&[&str]],
        index: usize,
    ) -> Option<Vec<String>> {
        let reaches: Vec<Reach> = reaches
            .iter()
            .map(|(name, has_tls, servers, default)| Reach {
                name: (*name).to_owned(),
                has_tls: *has_tls,
                servers: servers.to_vec(),
                default: *default,
            })
            .collect();
        let owned: Vec<Vec<String>> =
            hosts.iter().map(|hosts| hosts.iter().map(ToString::to_string).collect()).collect();
        let hosts: Vec<&[String]> = owned.iter().map(Vec::as_slice).collect();
        let routes = routes(&reaches, &hosts, index, &[Section::default().into()], &[])?;
        let text = |section: &Section| {
            let mut out = String::new();
            section.write(&mut out);
            out.replace("[[route]]\n", "").replace('\n', ";")
        };
        Some(routes.iter().map(text).collect())
    }

    #[test]
    fn the_default_one_takes_every_host() {
        let plain: (&str, bool, &[usize], usize) = ("http", false, &[0, 1], 0);
        assert_eq!(shown(&[plain], &[&["a"], &["b"]], 0).unwrap(), [""]);
        assert_eq!(shown(&[plain], &[&["a"], &["b"]], 1).unwrap(), ["host = \"b\";"]);
        assert_eq!(shown(&[plain], &[&["a"], &["a"]], 1), None);
        // A wildcard elsewhere would take what is this one's.
        assert_eq!(shown(&[plain], &[&["x.a"], &["*.a"]], 0).unwrap(), ["host = \"x.a\";", ""]);
        let tls: (&str, bool, &[usize], usize) = ("https", true, &[1], 1);
        assert_eq!(
            shown(&[plain, tls], &[&["a"], &["b"]], 1).unwrap(),
            ["listener = \"http\";host = \"b\";", "listener = \"https\";"]
        );
    }

    #[test]
    fn names_are_short_and_not_taken_twice() {
        assert_eq!(listener_name(Some(80), false, |_| false), "http");
        assert_eq!(listener_name(Some(443), true, |name| name == "https"), "https-2");
        assert_eq!(listener_name(Some(443), false, |_| false), "http-443");
    }
}
