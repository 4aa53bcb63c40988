//! Which route serves a request. Pure.
//!
//! Exact host first, then wildcard, then routes for any host; within one, the longest path; what
//! finds no path in one falls through to the next.

use std::collections::HashMap;
use std::fmt;
use std::iter;
use std::sync::Arc;
use std::time::Duration;

use frame_core::policy::Policy;
use frame_core::sequence::Limits;
use upgrade_handler::origin::OriginPattern;

use crate::site::answer::{Redirect, Respond};
use crate::site::host::HostPattern;
use crate::site::path::{RequestPath, RoutePath};
use crate::site::rewrite::Rewrite;
use crate::site::upstream::Upstream;

/// What makes a route the same route after a reload.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId {
    /// `None`: any host.
    pub host: Option<HostPattern>,
    /// A prefix of the path.
    pub path: RoutePath,
}

impl RouteId {
    /// Reads a route as the log shows it: `domain.com/wss`, or `/wss` for any host.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (host, path) = text.split_at(text.find('/').unwrap_or(text.len()));
        let host = match host {
            "" => None,
            host => Some(HostPattern::parse(host).ok_or_else(|| {
                format!("expected a route such as \"domain.com/wss\" or \"/wss\", found {text:?}")
            })?),
        };
        Ok(Self { host, path: RoutePath::parse(path)? })
    }
}

impl fmt::Display for RouteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(host) = &self.host {
            write!(f, "{host}")?;
        }
        write!(f, "{}", self.path)
    }
}

/// What is done with requests of a route.
#[derive(Debug)]
pub struct Route {
    /// Host and path.
    pub id: RouteId,
    /// Where they go.
    pub action: Action,
    /// How its server knows the paths of requests; `None`: as clients do.
    pub rewrite: Option<Rewrite>,
    /// What WebSocket sessions must obey.
    pub policy: Policy,
    /// Pages that may open WebSockets; `None`: all.
    pub origins: Option<Vec<OriginPattern>>,
}

impl Route {
    /// The rules for WebSockets where nothing is said. Messages have no limit.
    pub const POLICY: Policy = Policy {
        limits: Limits { message_max: u64::MAX, deflate: false }, // each handshake decides about `deflate`
        idle_timeout: None,
        lifetime: None,
        ping_interval: Some(Duration::from_secs(30)),
        pong_timeout: Duration::from_secs(10),
    };
    /// Messages that end at the gateway are held in memory, so they have a limit where nothing is said. In bytes.
    pub const SERVICE_MESSAGE_MAX: u64 = 16 * 1024 * 1024;

    /// A route with the default rules, for pages of every origin.
    #[must_use]
    pub fn new(id: RouteId, action: Action) -> Self {
        let policy = Self::policy(matches!(action, Action::Service(_)));
        Self { id, action, rewrite: None, policy, origins: None }
    }

    /// The rules for WebSockets where nothing is said: for those that end at the gateway, or that a server has.
    #[must_use]
    pub fn policy(is_service: bool) -> Policy {
        let message_max =
            if is_service { Self::SERVICE_MESSAGE_MAX } else { Self::POLICY.limits.message_max };
        Policy { limits: Limits { message_max, ..Self::POLICY.limits }, ..Self::POLICY }
    }
}

/// Where requests go.
#[derive(Debug, Clone)]
pub enum Action {
    /// To a backend.
    Proxy(Arc<Upstream>),
    /// To the gateway itself.
    Service(Service),
    /// To another place.
    Redirect(Arc<Redirect>),
    /// They all get the same answer.
    Respond(Arc<Respond>),
}

/// What the gateway can do by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// WebSockets that say everything back.
    Echo,
    /// A page to try WebSockets with.
    Console,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proxy(upstream) => upstream.fmt(f),
            Self::Service(Service::Echo) => f.write_str("echo service"),
            Self::Service(Service::Console) => f.write_str("console page"),
            Self::Redirect(redirect) => redirect.fmt(f),
            Self::Respond(respond) => respond.fmt(f),
        }
    }
}

/// All routes, ready to be asked.
#[derive(Debug, Default)]
pub struct Routes {
    exact: HashMap<Arc<str>, Paths>,
    /// By the part behind `*.`.
    wildcard: HashMap<Arc<str>, Paths>,
    any: Paths,
}

#[derive(Debug, Default)]
struct Paths {
    /// That of the path `/`, which nearly every host has: it is found without a search.
    root: Option<Arc<Route>>,
    /// The others.
    by_path: HashMap<Box<str>, Arc<Route>>,
    /// Segments of the longest path: no prefix with more of them is looked up.
    segments_max: usize,
}

/// A path whose route depends on who reads it.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
#[error("this path can be read in two ways that lead to different routes")]
pub struct TwoRoutes;

impl Routes {
    /// Sorts routes; no two may have the same id.
    #[must_use]
    pub fn new(routes: &[Arc<Route>]) -> Self {
        let mut sorted = Self::default();
        for route in routes {
            let paths = match &route.id.host {
                Some(HostPattern::Exact(name)) => sorted.exact.entry(name.clone()).or_default(),
                Some(HostPattern::Wildcard(parent)) => sorted.wildcard.entry(parent.clone()).or_default(),
                None => &mut sorted.any,
            };
            let path = &route.id.path.0;
            paths.segments_max = paths.segments_max.max(path.matches('/').count());
            if path.is_empty() {
                paths.root = Some(route.clone());
            } else {
                paths.by_path.insert(path.clone(), route.clone());
            }
        }
        sorted
    }

    /// The route for a request to `host` (normalized, no port); `None` if there is none. Costs do not grow
    /// with the number of routes.
    ///
    /// # Errors
    /// If a server that reads the path in another way would see the path of another route: what
    /// that route forbids (`origins`) could be evaded by this one.
    pub fn find(&self, host: &str, path: &RequestPath<'_>) -> Result<Option<&Arc<Route>>, TwoRoutes> {
        let Some(route) = self.find_one(host, &path.matched) else { return Ok(None) };
        let is_same =
            |reading: &String| self.find_one(host, reading).is_some_and(|other| Arc::ptr_eq(other, route));
        if path.readings.iter().all(is_same) { Ok(Some(route)) } else { Err(TwoRoutes) }
    }

    fn find_one(&self, host: &str, path: &str) -> Option<&Arc<Route>> {
        let exact = self.exact.get(host);
        let wildcard = if self.wildcard.is_empty() {
            None
        } else {
            let parent = host.split_once('.').filter(|(label, _)| !label.is_empty());
            parent.and_then(|(_, parent)| self.wildcard.get(parent))
        };
        [exact, wildcard, Some(&self.any)].into_iter().flatten().find_map(|paths| paths.find(path))
    }
}

impl Paths {
    fn find(&self, path: &str) -> Option<&Arc<Route>> {
        let root = self.root.as_ref().filter(|_| path.is_empty() || path.starts_with('/'));
        if self.by_path.is_empty() {
            return root;
        }
        // Prefixes that end on a segment border, that is before a slash or at the end; the longest first.
        let longest = path.match_indices('/').nth(self.segments_max).map_or(path, |(at, _)| &path[..at]);
        let shorter = |prefix: &&'_ str| prefix.rfind('/').map(|at| &path[..at]);
        iter::successors(Some(longest), shorter).find_map(|prefix| self.by_path.get(prefix)).or(root)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn route(host: &str, path: &str) -> Arc<Route> {
        let host = (!host.is_empty()).then(|| HostPattern::parse(host).unwrap());
        let id = RouteId { host, path: RoutePath::parse(path).unwrap() };
        Arc::new(Route::new(id, Action::Service(Service::Echo)))
    }

    fn found(routes: &[(&str, &str)], host: &str, path: &str) -> Option<String> {
        let routes: Vec<_> = routes.iter().map(|(host, path)| route(host, path)).collect();
        let routes = Routes::new(&routes);
        let found = routes.find(host, &RequestPath::parse(path).unwrap()).unwrap();
        found.map(|route| route.id.to_string())
    }

    #[test]
    fn prefixes_end_on_segment_borders() {
        let routes = [("", "/wss"), ("", "/wss/deep/er"), ("", "/trailing/")];
        let found = |path| found(&routes, "a", path);
        for path in
            ["/wss", "/wss/", "/wss/x", "/wss/deep", "/%77ss", "/wss%2Fx/../".trim_end_matches("/../")]
        {
            let expect = if path.contains("%2F") { None } else { Some("/wss") };
            assert_eq!(found(path).as_deref(), expect, "{path}");
        }
        assert_eq!(found("/wss/deep/er/est").as_deref(), Some("/wss/deep/er"));
        assert_eq!(found("/trailing").as_deref(), Some("/trailing"));
        for path in ["/wssx", "/", "", "*", "/WSS", "//wss"] {
            assert_eq!(found(path), None, "{path}");
        }
    }

    #[test]
    fn actions_are_told_to_people() {
        let told = [Service::Echo, Service::Console].map(|service| Action::Service(service).to_string());
        assert_eq!(told, ["echo service", "console page"]);
    }

    #[test]
    fn exact_then_wildcard_then_any_with_fall_through() {
        let routes = [
            ("a.test", "/x"),
            ("a.test", "/x/y"),
            ("*.test", "/"),
            ("*.test", "/x/y/z"),
            ("", "/"),
            ("", "/x/y/z/longest"),
        ];
        let found = |host, path| found(&routes, host, path).unwrap();
        assert_eq!(found("a.test", "/x/y/z/longest"), "a.test/x/y");
        assert_eq!(found("a.test", "/x/q"), "a.test/x");
        assert_eq!(found("a.test", "/q"), "*.test/");
        assert_eq!(found("b.test", "/x/y/z"), "*.test/x/y/z");
        assert_eq!(found("b.b.test", "/q"), "/");
        assert_eq!(found("test", "/x/y/z/longest"), "/x/y/z/longest");
    }

    /// Of routes for `/` and `/ws`: `None` if the path is refused.
    fn chosen(path: &str) -> Option<String> {
        let routes = Routes::new(&[route("", "/"), route("", "/ws"), route("", "/caf%c3%a9")]);
        let path = RequestPath::parse(path).ok()?;
        routes.find("a", &path).ok().map(|route| route.unwrap().id.to_string())
    }

    #[test]
    fn a_path_that_leads_to_two_routes_is_refused() {
        for path in [
            "//ws",
            "/%2fws",
            "/%2Fws/x",
            "/;/ws",
            "/;a=b/ws",
            "/\\ws",
            "/%5cws",
            "/ws;a",
            "/ws;a/b",
            "/ws%3Ba",
            "/ws%2fx",
            "/ws\\x",
            "/;%2fx/ws",
            "/;\\x/ws",
            "/;%5cx/ws",
            "/%2f;x%2f/%77s",
        ] {
            assert_eq!(chosen(path), None, "{path}");
        }
    }

    #[test]
    fn a_path_that_leads_to_one_route_goes_there_whatever_is_in_it() {
        for path in [
            "/",
            "//",
            "/a//ws",
            "/a%2Fws",
            "/projects/a%2Fb;c=d//e\\f",
            "/%",
            "/%2",
            "/%zz",
            "/%252fws",
            "/%3Fws",
            "/%00",
            "/a%20b",
            "/wsx;/",
            "/.well-known/a",
        ] {
            assert_eq!(chosen(path).as_deref(), Some("/"), "{path}");
        }
        for path in ["/ws", "/ws/", "/ws//", "/%77s", "/ws/;a/b%2fc\\d", "/ws/%20"] {
            assert_eq!(chosen(path).as_deref(), Some("/ws"), "{path}");
        }
        for path in ["/caf%C3%A9", "/caf%c3%A9/x", "/caf\u{e9}"] {
            assert_eq!(chosen(path).as_deref(), Some("/caf%C3%A9"), "{path}");
        }
    }

    /// Steps that servers take, written in another way than above.
    fn step(kind: u8, path: &str) -> String {
        match kind % 4 {
            0 => {
                let (mut out, mut rest) = (String::new(), path);
                while let Some(c) = rest.chars().next() {
                    let code =
                        ["%2f", "%2F", "%5c", "%3b", "%77"].into_iter().find(|code| rest.starts_with(code));
                    out.push(code.map_or(c, |code| char::from(u8::from_str_radix(&code[1..], 16).unwrap())));
                    rest = &rest[code.map_or(c.len_utf8(), str::len)..];
                }
                out
            }
            1 => {
                let mut is_dropped = false;
                path.chars()
                    .filter(|c| {
                        is_dropped = *c == ';' || is_dropped && *c != '/';
                        !is_dropped
                    })
                    .collect()
            }
            2 => path.chars().map(|c| if c == '\\' { '/' } else { c }).collect(),
            _ => {
                let mut path = path.to_owned();
                while path.contains("//") {
                    path = path.replace("//", "/");
                }
                path
            }
        }
    }

    proptest! {
        #[test]
        fn no_server_sees_the_path_of_another_route_than_the_one_that_was_chosen(
            pieces in proptest::collection::vec(
                proptest::sample::select(
                    vec!["/", "/", "\\", "%2f", "%2F", "%5c", ";", "%3b", "a", "ws", "%77s", "b", "..", "%", "%25"],
                ),
                0..10,
            ),
            steps in proptest::collection::vec(0_u8..4, 0..6),
        ) {
            let path = format!("/{}", pieces.concat());
            let routes = ["/", "/ws", "/ws/a", "/a", "/a/ws", "/a/b"].map(|path| route("", path));
            let routes = Routes::new(&routes);
            let Ok(parsed) = RequestPath::parse(&path) else { return Ok(()) };
            let Ok(Some(chosen)) = routes.find("a", &parsed) else { return Ok(()) };
            // Decoding twice is not reading but a fault, which no gateway can make good.
            let mut decoded = false;
            let mut seen = path.clone();
            for &kind in &steps {
                if kind == 0 && std::mem::replace(&mut decoded, true) {
                    continue;
                }
                seen = step(kind, &seen);
                prop_assert!(!seen.split('/').any(|segment| segment == ".."), "{} {}", path, seen);
            }
            // How a server finds what a path names.
            let seen = step(3, &seen).replace("%77", "w");
            let found = routes.find_one("a", &seen).unwrap();
            prop_assert_eq!(&found.id, &chosen.id, "{} is seen as {}", path, seen);
        }

        #[test]
        fn the_table_finds_what_a_walk_over_all_routes_finds(
            routes in proptest::collection::hash_set("(/[ab]{1,2}){0,3}", 0..8),
            path in "(/[ab]{1,2}){0,4}/?",
        ) {
            let routes: Vec<String> = routes.into_iter().map(|p| if p.is_empty() { "/".into() } else { p }).collect();
            let table: Vec<_> = routes.iter().map(|path| ("", path.as_str())).collect();
            let below = |r: &&String| r.as_str() == "/" && path.starts_with('/')
                || path == **r || path.starts_with(&format!("{r}/"));
            let expect = routes.iter().filter(below).max_by_key(|r| r.trim_end_matches('/').len()).cloned();
            prop_assume!(!path.is_empty());
            prop_assert_eq!(found(&table, "a", &path), expect);
        }
    }
}
