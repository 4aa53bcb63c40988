//! Which route serves a request. Pure.
//!
//! Exact host first, then wildcard, then routes for any host; within one, the longest path; what
//! finds no path in one falls through to the next.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::iter;
use std::sync::Arc;

use frame_core::relay::Policy;
use upgrade_handler::origin::Origin;

use crate::host::HostPattern;
use crate::upstream::Upstream;

/// What makes a route the same route after a reload.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId {
    /// `None`: any host.
    pub host: Option<HostPattern>,
    /// A prefix of the path.
    pub path: RoutePath,
}

impl fmt::Display for RouteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(host) = &self.host {
            write!(f, "{host}")?;
        }
        write!(f, "{}", self.path)
    }
}

/// A route's path: it matches itself and everything below it, on segment borders.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoutePath(Box<str>);

impl RoutePath {
    /// Reads a path from a configuration. A slash at its end makes no difference.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !text.starts_with('/') {
            return Err(format!("expected a path that begins with a slash, found {text:?}"));
        }
        if text.bytes().any(|b| b.is_ascii_control() || matches!(b, b' ' | b'?' | b'#')) || !text.is_ascii() {
            return Err(format!("expected a path as it is in a URL, without ? # or blanks, found {text:?}"));
        }
        let path = RequestPath::parse(text).map_err(|e| format!("{e}, found {text:?}"))?;
        if path.matched.contains("//") {
            return Err(format!("an empty segment would match nothing that people expect, found {text:?}"));
        }
        Ok(Self(path.matched.strip_suffix('/').unwrap_or(&path.matched).into()))
    }

    /// The part of a request's path behind this one; begins with a slash or is empty.
    #[must_use]
    pub fn strip<'a>(&self, path: &'a str) -> Option<&'a str> {
        path.strip_prefix(&*self.0).filter(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl fmt::Display for RoutePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "/" } else { &self.0 })
    }
}

/// What is done with requests of a route.
#[derive(Debug)]
pub struct Route {
    /// Host and path.
    pub id: RouteId,
    /// Where they go.
    pub action: Action,
    /// What WebSocket sessions must obey.
    pub policy: Policy,
    /// Pages that may open WebSockets; `None`: all.
    pub origins: Option<Vec<Origin>>,
}

/// Where requests go.
#[derive(Debug, Clone)]
pub enum Action {
    /// To a backend.
    Proxy(Arc<Upstream>),
    /// To the gateway itself.
    Service(Service),
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
    by_path: HashMap<Box<str>, Arc<Route>>,
    /// Segments of the longest path: no prefix with more of them is looked up.
    segments_max: usize,
}

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
            paths.by_path.insert(path.clone(), route.clone());
        }
        sorted
    }

    /// The route for a request to `host` (normalized, no port). Costs do not grow with the number
    /// of routes.
    #[must_use]
    pub fn find(&self, host: &str, path: &RequestPath<'_>) -> Option<&Arc<Route>> {
        let parent = host.split_once('.').filter(|(label, _)| !label.is_empty()).map(|(_, parent)| parent);
        let exact = self.exact.get(host);
        let wildcard = parent.and_then(|parent| self.wildcard.get(parent));
        [exact, wildcard, Some(&self.any)].into_iter().flatten().find_map(|paths| paths.find(&path.matched))
    }
}

impl Paths {
    fn find(&self, path: &str) -> Option<&Arc<Route>> {
        // Prefixes that end on a segment border, that is before a slash or at the end; the longest first.
        let longest = path.match_indices('/').nth(self.segments_max).map_or(path, |(at, _)| &path[..at]);
        let shorter = |prefix: &&'_ str| prefix.rfind('/').map(|at| &path[..at]);
        iter::successors(Some(longest), shorter).find_map(|prefix| self.by_path.get(prefix))
    }
}

/// A request's path, checked; only the copy that routes are matched with is ever changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestPath<'a> {
    /// Percent-encoded letters, digits and `-._~` decoded (RFC 3986 §6.2.2.2): the same path for
    /// every backend.
    matched: Cow<'a, str>,
}

/// A path whose meaning depends on who resolves it.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
#[error("a path must not have . or .. segments, percent-encoded or not")]
pub struct DotSegments;

impl<'a> RequestPath<'a> {
    /// Checks a path as it was sent.
    ///
    /// # Errors
    /// If some segment is `.` or `..`, in whatever encoding.
    pub fn parse(path: &'a str) -> Result<Self, DotSegments> {
        let matched = if path.contains('%') { Cow::from(decode(path)) } else { Cow::from(path) };
        // Backends that decode slashes and backslashes would see these segments.
        let decoded;
        let resolved = if matched.contains(['%', '\\']) {
            decoded = replace_slashes(&matched);
            &decoded
        } else {
            &*matched
        };
        // Parameters as in `/..;x=1/` are cut off by some backends first.
        let is_dots = |segment: &str| matches!(segment.split(';').next(), Some("." | ".."));
        if resolved.contains('.') && resolved.split('/').any(is_dots) {
            return Err(DotSegments);
        }
        Ok(Self { matched })
    }

    /// The path that routes are matched with.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.matched
    }
}

/// Decodes what need not be encoded.
fn decode(path: &str) -> String {
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let (before, from) = rest.split_at(at);
        decoded.push_str(before);
        let byte = from.get(1..3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match byte {
            Some(byte) if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') => {
                decoded.push(char::from(byte));
                rest = &from[3..];
            }
            _ => {
                decoded.push('%');
                rest = &from[1..];
            }
        }
    }
    decoded.push_str(rest);
    decoded
}

fn replace_slashes(path: &str) -> String {
    let path = path.replace('\\', "/");
    ["%2f", "%2F", "%5c", "%5C"].into_iter().fold(path, |path, code| path.replace(code, "/"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn route(host: &str, path: &str) -> Arc<Route> {
        let host = (!host.is_empty()).then(|| HostPattern::parse(host).unwrap());
        let id = RouteId { host, path: RoutePath::parse(path).unwrap() };
        let limits = frame_core::sequence::Limits { message_max: u64::MAX, deflate: false };
        let policy = Policy {
            limits,
            idle_timeout: None,
            ping_interval: None,
            pong_timeout: std::time::Duration::from_secs(10),
        };
        Arc::new(Route { id, action: Action::Service(Service::Echo), policy, origins: None })
    }

    fn found(routes: &[(&str, &str)], host: &str, path: &str) -> Option<String> {
        let routes: Vec<_> = routes.iter().map(|(host, path)| route(host, path)).collect();
        Routes::new(&routes).find(host, &RequestPath::parse(path).unwrap()).map(|route| route.id.to_string())
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

    #[test]
    fn dot_segments_in_every_disguise() {
        for bad in [
            "/.",
            "/..",
            "/a/../b",
            "/a/./b",
            "/%2e",
            "/%2E%2e/",
            "/.%2e/a",
            "/a/..%2fb",
            "/a%2f..%2fb",
            "/a\\..\\b",
            "/a%5c..%5Cb",
            "/..;x=1/b",
            "/%2e%2e;/b",
        ] {
            assert_eq!(RequestPath::parse(bad), Err(DotSegments), "{bad}");
        }
        for good in ["/...", "/.well-known/x", "/a..b", "/a/..b", "/%2e%2ea", "/%", "/%zz", "/a%2fb", "/;/.a"]
        {
            assert!(RequestPath::parse(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn paths_in_a_configuration() {
        for bad in ["", "wss", "/a b", "/a?b", "/a#b", "/../a", "/a//b", "/ü"] {
            assert!(RoutePath::parse(bad).is_err(), "{bad}");
        }
        let path = RoutePath::parse("/wss/").unwrap();
        assert_eq!(path.to_string(), "/wss");
        assert_eq!(path.strip("/wss"), Some(""));
        assert_eq!(path.strip("/wss/x"), Some("/x"));
        assert_eq!(path.strip("/wssx"), None);
        assert_eq!(RoutePath::parse("/").unwrap().strip("/x"), Some("/x"));
    }

    proptest! {
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
