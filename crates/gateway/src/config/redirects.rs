//! Redirects that lead back to themselves, as far as that can be known without a client. Pure.
//!
//! Each redirect is followed from a request for its route, on each scheme that is listened for, as long as its target
//! is served by this configuration.

use std::collections::HashSet;

use http::{HeaderMap, Method, Uri};

use super::Config;
use crate::site::answer::Requested;
use crate::site::host::HostPattern;
use crate::site::matcher::{Criteria, PathMatcher};
use crate::site::path::RequestPath;
use crate::site::route::{Action, Route};
use crate::site::route_id::RouteId;
use crate::site::routes::Routes;

/// More redirects in a row than a site has for a reason; clients follow some twenty.
const HOPS_MAX: usize = 10;

/// A place that clients ask for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    tls: bool,
    /// Behind the host, if it isn't that of the scheme.
    port: u16,
    host: String,
    /// With the query.
    path: String,
}

/// Warnings, one for each loop.
pub(super) fn loops(config: &Config) -> Vec<String> {
    let routes = Routes::new(&config.routes);
    let mut told = HashSet::new();
    let mut warnings = Vec::new();
    for route in config.routes.iter().filter(|route| matches!(route.action, Action::Redirect(_))) {
        for start in starts(config, route) {
            if told.contains(&route.id) {
                break;
            }
            let way = follow(config, &routes, start);
            if let Some((places, ids)) = way {
                told.extend(ids);
                let shown: Vec<_> = places.iter().map(Place::to_string).collect();
                let route = &route.id;
                warnings.push(format!(
                    "the redirect of the route {route} leads clients in a circle: {}; write another target, or a \
                     narrower path",
                    shown.join(" -> ")
                ));
            }
        }
    }
    warnings
}

/// Requests that the route takes.
fn starts(config: &Config, route: &Route) -> Vec<Place> {
    let mut hosts: Vec<_> = route.matcher.hosts.iter().map(a_host).collect();
    if hosts.is_empty() {
        hosts.push("any-host.invalid".to_owned());
    }
    let paths = match &route.matcher.path {
        PathMatcher::Prefix(path) => {
            vec![path.to_string(), format!("{}/x", path.to_string().trim_end_matches('/'))]
        }
        PathMatcher::Exact(path) => vec![path.as_str().to_owned()],
        PathMatcher::Regex(_) => Vec::new(),
    };
    let mut seen = HashSet::new();
    let listeners = config.listeners.iter().map(|listener| (listener.tls.is_some(), listener.address.port()));
    let mut places = Vec::new();
    for (tls, port) in listeners.filter(|listener| seen.insert(*listener)) {
        for host in &hosts {
            let place = |path: &String| Place { tls, port, host: host.clone(), path: path.clone() };
            places.extend(paths.iter().map(place));
        }
    }
    places
}

fn a_host(pattern: &HostPattern) -> String {
    match pattern {
        HostPattern::Exact(name) => name.to_string(),
        HostPattern::Wildcard(parent) => format!("www.{parent}"),
    }
}

/// The way from `place` until it comes to a place for the second time; `None` if it ends before.
fn follow(config: &Config, routes: &Routes, place: Place) -> Option<(Vec<Place>, Vec<RouteId>)> {
    let (mut places, mut ids) = (vec![place], Vec::new());
    loop {
        let (next, id) = step(config, routes, places.last()?)?;
        let is_circle = places.contains(&next) || places.len() > HOPS_MAX;
        places.push(next);
        ids.push(id);
        if is_circle {
            return Some((places, ids));
        }
    }
}

/// Where a client is sent from `place`, and by which route.
fn step(config: &Config, routes: &Routes, place: &Place) -> Option<(Place, RouteId)> {
    let (path, query) = match place.path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (&*place.path, None),
    };
    let mut listeners = config.listeners.iter();
    let listener = listeners
        .find(|listener| listener.tls.is_some() == place.tls && listener.address.port() == place.port)?;
    let request_path = RequestPath::parse(path).ok()?;
    let criteria = Criteria {
        listener: &listener.name,
        bound: false,
        host: &place.host,
        path: &request_path,
        method: &Method::GET,
        headers: &HeaderMap::new(),
        upgrade: false,
    };
    let route = routes.find(&criteria).ok()??;
    let groups = route.matcher.path.groups_of(criteria.path);
    let Action::Redirect(redirect) = &route.action else { return None };
    let target = redirect.target(&Requested {
        host: &place.host,
        path,
        query,
        route: route.matcher.path.prefix(),
        groups: &groups,
    });
    let target = target.split('#').next()?;
    let next = if target.starts_with('/') {
        Place { path: target.to_owned(), ..place.clone() }
    } else {
        let uri: Uri = target.parse().ok()?;
        let tls = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let is_ours = config
            .listeners
            .iter()
            .any(|listener| listener.tls.is_some() == tls && listener.address.port() == port);
        if !is_ours {
            return None;
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Place { tls, port, host: tls_acceptor::normalize(uri.host()?).into_owned(), path }
    };
    Some((next, route.id.clone()))
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (scheme, default) = if self.tls { ("https", 443) } else { ("http", 80) };
        write!(f, "{scheme}://{}", self.host)?;
        if self.port != default {
            write!(f, ":{}", self.port)?;
        }
        f.write_str(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The warnings about routes of the form `host/path target`.
    fn found(routes: &[&str]) -> Vec<String> {
        let mut text = "[[listener]]\naddress = \"0.0.0.0:80\"\ntls = false\n\
                        [[listener]]\naddress = \"0.0.0.0:443\"\n[certificates]\ndirectory = \"certs\"\n"
            .to_owned();
        for route in routes {
            let (from, to) = route.split_once(' ').unwrap();
            let (host, path) = from.split_at(from.find('/').unwrap());
            text += &format!("[[route]]\npath = {path:?}\nredirect = {to:?}\n");
            if !host.is_empty() {
                text += &format!("host = {host:?}\n");
            }
        }
        let (config, problems) = Config::parse(Path::new("test.toml"), &text);
        assert_eq!(problems, []);
        loops(&config)
    }

    #[test]
    fn circles_are_reported_once_each() {
        for (routes, circle) in [
            (&["/a /a"][..], "http://any-host.invalid/a -> http://any-host.invalid/a;"),
            (&["/a /b", "/b /a"], "/a -> http://any-host.invalid/b -> http://any-host.invalid/a;"),
            (&["/ https://{host}{path}{query}"], "https://any-host.invalid/ -> https://any-host.invalid/;"),
            (
                &["a.test/ https://b.test{path}", "b.test/ http://a.test{path}"],
                "http://a.test/ -> https://b.test/",
            ),
            (&["/ /x{path}"], "/x/x/x"),
            (&["*.a.test/ https://www.a.test/"], "https://www.a.test/"),
            (&["/a /a?b"], "/a?b"),
        ] {
            let found = found(routes);
            assert_eq!(found.len(), 1, "{routes:?}: {found:?}");
            assert!(found[0].contains(circle), "{found:?} lacks {circle}");
        }
    }

    #[test]
    fn what_ends_is_no_circle() {
        for routes in [
            &["/a /b"][..],
            &["/a /b", "/b /c", "/c /d"],
            &["a.test/ https://b.test{path}"],
            &["/ https://{host}:8443{path}"],
            &["/ wss://{host}{path}"],
            &["/old /new{rest}", "/older /old{rest}"],
            &["*.a.test/ https://a.test{path}"],
        ] {
            assert_eq!(found(routes), Vec::<String>::new(), "{routes:?}");
        }
    }
}
