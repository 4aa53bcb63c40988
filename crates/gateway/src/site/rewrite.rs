//! Paths of a route as its server knows them, and back. Pure.
//!
//! In: a request's path. Out: the path that the server gets. The prefix is what stands before the n-th slash, so that
//! all else reaches the server as it was sent, encoded bytes included.
//! In: a URI reference, or the path of a cookie, from the server's answer. Out: what it is called for clients
//! (RFC 3986 §5.2, RFC 6265 §5.1.4), or nothing if it needs no change.

use std::borrow::Cow;
use std::fmt;

use crate::site::matcher::{PathMatcher, PathRegex};
use crate::site::path::{RequestPath, RoutePath};
use crate::site::template::{OF_REWRITE, Placeholder, Template};

/// Stands in a template for what is behind the prefix.
const REST: &str = "{rest}";

/// How a path is rewritten for a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// What clients write and servers don't see.
    prefix: RoutePath,
    /// What stands in its place.
    before: Box<str>,
    /// What stands behind the rest of the path; `None`: the rest isn't passed on.
    behind: Option<Box<str>>,
    /// Stands in place of all that: what groups of the route's pattern have matched goes into a template.
    groups: Option<Box<(PathMatcher, Template)>>,
    /// Answers come back with the prefix: Location, Content-Location, Refresh, and paths of cookies.
    pub location: bool,
}

/// What an answer belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The path that the server got.
    pub path: &'a str,
    /// The `Host` that it got, which is the one that the client asked for.
    pub host: &'a str,
    /// Its own address and port; `None` if it has none.
    pub server: Option<&'a str>,
}

impl Rewrite {
    /// `new` stands in place of `prefix`. `None` if that changes nothing.
    #[must_use]
    pub fn replace(prefix: &RoutePath, new: &RoutePath) -> Option<Self> {
        (prefix != new).then(|| Self {
            prefix: prefix.clone(),
            before: new.0.clone(),
            behind: Some(Box::default()),
            groups: None,
            location: true,
        })
    }

    /// Servers get `template`, in which `{rest}` is what stands behind `prefix`.
    ///
    /// # Errors
    /// A sentence about what is wrong with the template.
    pub fn template(prefix: &RoutePath, template: &str) -> Result<Self, String> {
        let (before, behind) = match template.split_once(REST) {
            Some((before, behind)) => (before, Some(behind)),
            None => (template, None),
        };
        let literal = [before, behind.unwrap_or_default()].concat();
        if literal.contains(['{', '}', '$', '*']) {
            return Err(format!(
                "{{rest}} is the only placeholder, and stands once for what is behind the route's path; found \
                 {template:?}"
            ));
        }
        if !before.is_empty() || behind.is_none() {
            RoutePath::parse(before)?;
        }
        if let Some(behind) = behind {
            RoutePath::parse(&format!("/{}", behind.trim_start_matches('/')))?;
        }
        let location = behind == Some("");
        let behind = behind.map(Into::into);
        Ok(Self { prefix: prefix.clone(), before: before.into(), behind, groups: None, location })
    }

    /// Servers get `template`, in which `{1}` to `{9}` are what the groups of `pattern` have matched.
    ///
    /// # Errors
    /// A sentence about what is wrong with the template.
    pub fn of_groups(pattern: &PathRegex, template: &str) -> Result<Self, String> {
        if template.contains(['$', '*', '?', '#']) || !template.starts_with('/') {
            return Err(format!("expected a path such as \"/new/{{1}}\", found {template:?}"));
        }
        let path = Template::parse(template, OF_REWRITE)?;
        let (wanted, groups) = (path.groups(), pattern.groups());
        if wanted > groups {
            return Err(format!(
                "{{{wanted}}} is a group of path_regex, which has {groups} of them; write them in parentheses there"
            ));
        }
        RoutePath::parse(&path.fill(|_| "x"))?;
        Ok(Self {
            prefix: RoutePath::root(),
            before: Box::default(),
            behind: None,
            groups: Some(Box::new((PathMatcher::Regex(pattern.clone()), path))),
            location: false,
        })
    }

    /// Paths of answers can be called what clients call them.
    #[must_use]
    pub fn is_reversible(&self) -> bool {
        self.behind.as_deref() == Some("")
    }

    /// What clients write may stand anywhere in the path that the server gets.
    #[must_use]
    pub fn puts_groups(&self) -> bool {
        self.groups.is_some()
    }

    /// The path that the server gets; `path` is a request's, and below the prefix.
    #[must_use]
    pub fn forward(&self, path: &str) -> String {
        if let Some(groups) = &self.groups {
            let (pattern, template) = &**groups;
            let Ok(path) = RequestPath::parse(path) else { return path.to_owned() };
            let values = pattern.groups_of(&path);
            return absolute(template.fill(|placeholder| match placeholder {
                Placeholder::Group(number) => values.get(usize::from(number) - 1).unwrap_or(&""),
                _ => "", // not in OF_REWRITE
            }));
        }
        let Some(behind) = &self.behind else { return self.before.to_string() };
        let (_, mut rest) = split_segments(path, segments(&self.prefix.0));
        if behind.starts_with('/') {
            rest = rest.trim_end_matches('/');
        }
        let before = if rest.is_empty() { &*self.before } else { self.before.trim_end_matches('/') };
        absolute([before, rest, behind].concat())
    }

    /// What clients call the path `path` of the server; `None` if no path of theirs leads there.
    fn back(&self, path: &str) -> Option<String> {
        if !self.is_reversible() {
            return None;
        }
        let before = self.before.trim_end_matches('/');
        let (front, rest) = split_segments(path, segments(before));
        (RequestPath::parse(front).ok()?.as_str() == before)
            .then(|| absolute([&*self.prefix.0, rest].concat()))
    }

    /// What clients call `reference`, from Location and its like. `None`: the same.
    #[must_use]
    pub fn reference(&self, reference: &str, asked: &Asked<'_>) -> Option<String> {
        let (scheme, hierarchy) = split_scheme(reference);
        let (authority, rest) = match hierarchy.strip_prefix("//") {
            Some(hierarchy) => {
                let (authority, rest) =
                    hierarchy.split_at(hierarchy.find(['/', '?', '#']).unwrap_or(hierarchy.len()));
                (Some(authority), rest)
            }
            None => (None, hierarchy),
        };
        // What stands before the path, in the answer.
        let kept = match (scheme, authority) {
            (None, None) => "",
            (Some(_), None) => return None,
            (scheme, Some(authority)) => {
                let port = match scheme {
                    None => "443", // the scheme is the client's own; what has no port on both sides is equal anyway
                    Some(scheme) if scheme.eq_ignore_ascii_case("https") => "443",
                    Some(scheme) if scheme.eq_ignore_ascii_case("http") => "80",
                    Some(_) => return None,
                };
                let is_same = |other| is_same_authority(authority, other, port);
                if is_same(asked.host) {
                    &reference[..reference.len() - rest.len()]
                } else if asked.server.is_some_and(is_same) {
                    "" // clients don't reach the server by its own address
                } else {
                    return None;
                }
            }
        };
        let (path, query) = rest.split_at(rest.find(['?', '#']).unwrap_or(rest.len()));
        let path = match path {
            "" if authority.is_none() => return None, // the same document
            "" => "/".to_owned(),
            path if path.starts_with('/') => without_dots(path),
            // Relative to a path that clients don't know (RFC 3986 §5.2.3).
            path => {
                without_dots(&[&asked.path[..asked.path.rfind('/').map_or(0, |at| at + 1)], path].concat())
            }
        };
        let new = [kept, &self.back(&path)?, query].concat();
        (new != reference).then_some(new)
    }

    /// What clients call the URL in a Refresh field, such as `5; url=/x`. `None`: the same.
    #[must_use]
    pub fn refresh(&self, field: &str, asked: &Asked<'_>) -> Option<String> {
        let at = field.to_ascii_lowercase().find("url=")? + "url=".len();
        let (before, url) = field.split_at(at);
        let url = url.trim();
        let quote = ["\"", "'"].into_iter().find(|quote| url.starts_with(quote)).unwrap_or_default();
        let bare = url.trim_matches(|c| quote.contains(c));
        Some([before, quote, &self.reference(bare, asked)?, quote].concat())
    }

    /// A Set-Cookie field for clients. `None`: the same.
    #[must_use]
    pub fn cookie(&self, field: &str) -> Option<String> {
        // Clients take such a cookie only with the path "/" (RFC 6265bis §4.1.3.2).
        const HOST_PREFIX: &str = "__Host-";
        let is_bound = field
            .trim_start()
            .get(..HOST_PREFIX.len())
            .is_some_and(|front| front.eq_ignore_ascii_case(HOST_PREFIX));
        if is_bound {
            return None;
        }
        let mut is_new = false;
        let attributes: Vec<Cow<'_, str>> = field
            .split(';')
            .enumerate()
            .map(|(i, text)| match self.path_attribute(text).filter(|_| i > 0) {
                Some(new) => {
                    is_new = true;
                    new.into()
                }
                None => text.into(),
            })
            .collect();
        is_new.then(|| attributes.join(";"))
    }

    fn path_attribute(&self, text: &str) -> Option<String> {
        let (name, path) = text.split_once('=')?;
        let path =
            if name.trim().eq_ignore_ascii_case("path") { self.cookie_path(path.trim()) } else { None }?;
        Some(format!("{name}={path}"))
    }

    fn cookie_path(&self, path: &str) -> Option<String> {
        if !path.starts_with('/') {
            return None; // clients ignore it (RFC 6265 §5.2.4)
        }
        let before = self.before.trim_end_matches('/');
        // A path that covers everything which the route leads to covers the route.
        let covers = before.strip_prefix(path.trim_end_matches('/')).is_some_and(|rest| match rest {
            "" => before.is_empty() || !path.ends_with('/'),
            rest => rest.starts_with('/') && path != "/",
        });
        let new = if covers && self.is_reversible() { self.prefix.to_string() } else { self.back(path)? };
        (new != path).then_some(new)
    }
}

impl fmt::Display for Rewrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { prefix, before, behind, groups, .. } = self;
        if let Some(groups) = groups {
            let (pattern, template) = &**groups;
            return write!(f, "{pattern} as {template}");
        }
        match behind {
            Some(behind) => write!(f, "{prefix} as {before}{REST}{behind}"),
            None => write!(f, "{prefix} as {before}"),
        }
    }
}

fn segments(path: &str) -> usize {
    path.matches('/').count()
}

/// The first `count` segments, and what is behind them, which is empty or begins with a slash.
fn split_segments(path: &str, count: usize) -> (&str, &str) {
    path.split_at(path.match_indices('/').nth(count).map_or(path.len(), |(at, _)| at))
}

/// A path with one slash at its beginning: with two, and with a backslash for the second, there are clients and
/// servers that take what follows for a host.
fn absolute(path: String) -> String {
    match path.as_bytes() {
        [b'/'] | [b'/', b'/' | b'\\', ..] | [] => format!("/{}", path.trim_start_matches(['/', '\\'])),
        [b'/', ..] => path,
        _ => format!("/{path}"),
    }
}

/// A scheme without its colon, and the rest (RFC 3986 §3.1).
fn split_scheme(reference: &str) -> (Option<&str>, &str) {
    match reference.split_once(':') {
        Some((scheme, rest))
            if scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b)) =>
        {
            (Some(scheme), rest)
        }
        _ => (None, reference),
    }
}

/// Host and port are the same; a missing port is `default`.
fn is_same_authority(one: &str, other: &str, default: &str) -> bool {
    let split = |authority| match str::rsplit_once(authority, ':') {
        Some((host, port)) if !port.ends_with(']') => (host, if port.is_empty() { default } else { port }),
        _ => (authority, default),
    };
    let ((host, port), (other_host, other_port)) = (split(one), split(other));
    host.eq_ignore_ascii_case(other_host) && port == other_port
}

/// RFC 3986 §5.2.4, for a path that begins with a slash.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if is_last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests;
