//! Which requests a route takes: its listeners, hosts and path, and further conditions. Pure.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use http::header::SEC_WEBSOCKET_PROTOCOL;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use regex::{Captures, Regex, RegexBuilder};
use upgrade_handler::fields::tokens;

use crate::site::host::HostPattern;
use crate::site::path::{ExactPath, RequestPath, RoutePath};
use crate::site::route_id::RouteId;

/// The memory that one pattern may need, in bytes.
const REGEX_SIZE_MAX: usize = 1024 * 1024;

/// Which requests a route takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matcher {
    /// Names of listeners; empty: every listener.
    pub listeners: Vec<Arc<str>>,
    /// Empty: every host.
    pub hosts: Vec<HostPattern>,
    /// The path.
    pub path: PathMatcher,
    /// Further conditions.
    pub when: When,
}

/// The paths that a route takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatcher {
    /// A path and everything below it.
    Prefix(RoutePath),
    /// One path.
    Exact(ExactPath),
    /// Every path that a pattern matches.
    Regex(PathRegex),
}

/// A regular expression that a whole path is compared with.
#[derive(Debug, Clone)]
pub struct PathRegex {
    text: Box<str>,
    regex: Regex,
}

/// Conditions besides listener, host and path. What is empty or `None` is no condition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct When {
    /// Whether the request opens a WebSocket.
    pub upgrade: Option<bool>,
    /// One of these methods. `GET` stands for `HEAD`, too.
    pub methods: Vec<Method>,
    /// Each of these fields, with one of its values.
    pub headers: Vec<(HeaderName, Vec<HeaderValue>)>,
    /// One of these is among the subprotocols that the client offers.
    pub subprotocols: Vec<Box<str>>,
}

/// What a route is chosen by.
#[derive(Debug, Clone, Copy)]
pub struct Criteria<'a> {
    /// The name of the listener.
    pub listener: &'a str,
    /// Only routes that name the listener are asked.
    pub bound: bool,
    /// Normalized, without a port.
    pub host: &'a str,
    /// The path.
    pub path: &'a RequestPath<'a>,
    /// The method; `GET` for a WebSocket over HTTP/2.
    pub method: &'a Method,
    /// The fields.
    pub headers: &'a HeaderMap<HeaderValue>,
    /// The request opens a WebSocket.
    pub upgrade: bool,
}

/// The first reason why a route doesn't take a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// It came to another listener.
    #[error("the request comes to another listener")]
    Listener,
    /// It is for another host.
    #[error("the host is another one")]
    Host,
    /// It has another path.
    #[error("the path is another one")]
    Path,
    /// It opens a WebSocket, or it doesn't.
    #[error("{}", if *.wanted { "the request opens no WebSocket" } else { "the request opens a WebSocket" })]
    Upgrade {
        /// What the route takes.
        wanted: bool,
    },
    /// It has another method.
    #[error("the method is another one")]
    Method,
    /// A field is missing, or has another value.
    #[error("the field {0} is missing or has another value")]
    Header(HeaderName),
    /// No subprotocol fits.
    #[error("the client offers none of the subprotocols")]
    Subprotocol,
}

impl Matcher {
    /// All requests to this host (`None`: to every host) below this path.
    #[must_use]
    pub fn new(host: Option<HostPattern>, path: RoutePath) -> Self {
        Self {
            listeners: Vec::new(),
            hosts: host.into_iter().collect(),
            path: PathMatcher::Prefix(path),
            when: When::default(),
        }
    }

    /// Reads a host and a path: `domain.com/wss`, or `/wss` for every host.
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
        Ok(Self::new(host, RoutePath::parse(path)?))
    }

    /// The name of a route that was given none.
    #[must_use]
    pub fn id(&self) -> RouteId {
        let mut hasher = DefaultHasher::new();
        self.when.headers.hash(&mut hasher);
        let fields = if self.when.headers.is_empty() { 0 } else { hasher.finish() };
        RouteId::new(&self.to_string(), fields)
    }

    /// The conditions besides host and path: the more there are, the earlier a route is criteria.
    #[must_use]
    pub fn conditions(&self) -> usize {
        let Self { listeners, when: When { upgrade, methods, headers, subprotocols }, .. } = self;
        [!listeners.is_empty(), upgrade.is_some(), !methods.is_empty(), !subprotocols.is_empty()]
            .map(usize::from)
            .iter()
            .sum::<usize>()
            + headers.len()
    }

    /// The conditions in brackets; nothing if there are none.
    #[must_use]
    pub fn conditions_shown(&self) -> String {
        let Self { listeners, when: When { upgrade, methods, headers, subprotocols }, .. } = self;
        let lists = [
            ("listener", joined(listeners, "|")),
            ("upgrade", upgrade.map(|upgrade| upgrade.to_string()).unwrap_or_default()),
            ("method", joined(methods, "|")),
            ("header", joined(headers.iter().map(|(name, _)| name), "+")),
            ("subprotocol", joined(subprotocols, "|")),
        ];
        let lists = lists.iter().filter(|(_, values)| !values.is_empty());
        let lists: Vec<_> = lists.map(|(key, values)| format!("{key}={values}")).collect();
        if lists.is_empty() { String::new() } else { format!("[{}]", lists.join(",")) }
    }

    /// The listener, and the conditions of `when`, of which one isn't met.
    #[must_use]
    pub fn mismatch(&self, criteria: &Criteria<'_>) -> Option<Mismatch> {
        let Self { listeners, when: When { upgrade, methods, headers, subprotocols }, .. } = self;
        let is_open = listeners.is_empty() && !criteria.bound;
        if !is_open && listeners.iter().all(|name| **name != *criteria.listener) {
            return Some(Mismatch::Listener);
        }
        if let Some(wanted) = *upgrade
            && wanted != criteria.upgrade
        {
            return Some(Mismatch::Upgrade { wanted });
        }
        let is_asked = |method: &Method| {
            method == criteria.method || method == Method::GET && criteria.method == Method::HEAD
        };
        if !methods.is_empty() && !methods.iter().any(is_asked) {
            return Some(Mismatch::Method);
        }
        for (name, values) in headers {
            if !criteria.headers.get_all(name).iter().any(|value| values.contains(value)) {
                return Some(Mismatch::Header(name.clone()));
            }
        }
        let is_offered =
            |wanted: &str| tokens(criteria.headers, SEC_WEBSOCKET_PROTOCOL).any(|offered| offered == wanted);
        let fits = subprotocols.is_empty() || subprotocols.iter().any(|wanted| is_offered(wanted));
        (!fits).then_some(Mismatch::Subprotocol)
    }

    /// Why the request isn't for this route; `None` if it may be.
    #[must_use]
    pub fn explain(&self, criteria: &Criteria<'_>) -> Option<Mismatch> {
        if !self.hosts.is_empty() && !self.hosts.iter().any(|host| host.matches(criteria.host)) {
            return Some(Mismatch::Host);
        }
        let path = criteria.path.as_str();
        let is_path = match &self.path {
            PathMatcher::Prefix(prefix) => prefix.strip(path).is_some(),
            PathMatcher::Exact(exact) => exact.as_str() == path,
            PathMatcher::Regex(regex) => regex.is_match(path),
        };
        if is_path { self.mismatch(criteria) } else { Some(Mismatch::Path) }
    }
}

impl PathMatcher {
    /// The path below which everything is taken.
    #[must_use]
    pub fn prefix(&self) -> Option<&RoutePath> {
        match self {
            Self::Prefix(path) => Some(path),
            Self::Exact(_) | Self::Regex(_) => None,
        }
    }
}

impl PathMatcher {
    /// What the groups of the pattern stand for; nothing if it is none. A group that takes no part is empty.
    #[must_use]
    pub fn groups_of<'a>(&self, path: &'a RequestPath<'_>) -> Vec<&'a str> {
        let Self::Regex(regex) = self else { return Vec::new() };
        let Some(captures) = regex.captures(path) else { return Vec::new() };
        captures.iter().skip(1).map(|group| group.map_or("", |group| group.as_str())).collect()
    }

    /// The number of groups.
    #[must_use]
    pub fn groups(&self) -> usize {
        match self {
            Self::Regex(regex) => regex.groups(),
            Self::Prefix(_) | Self::Exact(_) => 0,
        }
    }
}

impl PathRegex {
    /// Reads a pattern; it has to match a path from its first slash to its end.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        // The parentheses keep `a|b` together.
        let regex = RegexBuilder::new(&format!("^(?:{text})$")).size_limit(REGEX_SIZE_MAX).build();
        let regex = regex.map_err(|e| match e {
            regex::Error::CompiledTooBig(_) => {
                format!("the pattern needs more than {} MiB; write a shorter one", REGEX_SIZE_MAX >> 20)
            }
            e => format!("this is no regular expression: {}", last_line(&e.to_string())),
        })?;
        Ok(Self { text: text.into(), regex })
    }

    /// The pattern matches the whole path.
    #[must_use]
    pub fn is_match(&self, path: &str) -> bool {
        self.regex.is_match(path)
    }

    /// What the groups of the pattern stand for.
    #[must_use]
    pub fn captures<'a>(&self, path: &'a RequestPath<'_>) -> Option<Captures<'a>> {
        self.regex.captures(path.as_str())
    }

    /// The number of groups; the whole path, which is group 0, is not counted.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.regex.captures_len() - 1
    }

    /// The pattern as it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// The parser's messages show the pattern, marks below it, and the reason.
fn last_line(message: &str) -> &str {
    message.trim().lines().last().unwrap_or(message).trim().trim_start_matches("error: ")
}

impl PartialEq for PathRegex {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for PathRegex {}

/// As the log and the commands show a route without a name: `domain.com/wss`; an exact path and a pattern begin with
/// `=` and `~`, conditions stand in brackets behind it. Values of fields may be secrets, and are left out.
impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", joined(&self.hosts, ","), self.path, self.conditions_shown())
    }
}

impl fmt::Display for PathMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(path) => path.fmt(f),
            Self::Exact(path) => write!(f, "={}", path.as_str()),
            Self::Regex(regex) => write!(f, "~{}", regex.text),
        }
    }
}

/// In one order, however they are written.
fn joined<T: ToString>(items: impl IntoIterator<Item = T>, between: &str) -> String {
    let mut items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    items.sort_unstable();
    items.join(between)
}

#[cfg(test)]
mod tests;
