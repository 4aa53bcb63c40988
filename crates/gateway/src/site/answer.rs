//! Answers that a configuration holds: redirects, and fixed ones. Pure.

use std::fmt;

use http::{HeaderValue, StatusCode};

use crate::site::path::RoutePath;
use crate::site::template::{OF_TARGET, Placeholder, Template};

/// What a request has to put into an answer.
#[derive(Debug, Clone, Copy)]
pub struct Requested<'a> {
    /// The name that was asked for, without a port; empty if there is none.
    pub host: &'a str,
    /// The path as it was sent.
    pub path: &'a str,
    /// The query as it was sent, without its `?`.
    pub query: Option<&'a str>,
    /// The path of the route; `None` if it is for single paths.
    pub route: Option<&'a RoutePath>,
    /// What the groups of the route's pattern have matched.
    pub groups: &'a [&'a str],
}

impl<'a> Requested<'a> {
    /// A template with the values of this request.
    #[must_use]
    pub fn fill(&self, template: &Template) -> String {
        let query = self.query.map(|query| format!("?{query}")).unwrap_or_default();
        template.fill(|placeholder| match placeholder {
            Placeholder::Host => self.host,
            Placeholder::Path => self.path,
            Placeholder::Query => &query,
            Placeholder::Rest => self.rest(),
            Placeholder::Group(number) => self.groups.get(usize::from(number) - 1).unwrap_or(&""),
            _ => "", // not in OF_TARGET
        })
    }

    /// The part of the path behind the route's own, as it was sent; begins with a slash or is empty.
    #[must_use]
    pub fn rest(&self) -> &'a str {
        self.route.map_or("", |route| route.rest_of(self.path))
    }

    /// The path of a file in the directory of the route: what is behind the route's own path, or all of it if the route
    /// is for single paths.
    #[must_use]
    pub fn file(&self) -> &'a str {
        self.route.map_or(self.path, |route| route.rest_of(self.path))
    }
}

/// Sends clients to another place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// A URL, or a path.
    to: Template,
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
}

impl Redirect {
    /// Reads the target.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub fn parse(to: &str, status: StatusCode) -> Result<Self, String> {
        let template = Template::parse(to, OF_TARGET)?;
        if HeaderValue::from_str(to).is_err() || to.contains(' ') || !to.is_ascii() {
            return Err(format!(
                "expected a URL without spaces, with other letters percent-encoded, found {to:?}"
            ));
        }
        let prefix = template.prefix();
        let group = (1..=9).filter_map(|number| to.find(&format!("{{{number}}}"))).min();
        if let Some((_, behind)) = group.and_then(|group| to[..group].split_once("://"))
            && !behind.contains('/')
        {
            return Err(format!(
                "a group of path_regex may stand only behind the host and a slash, or clients could choose the host; \
                 found {to:?}"
            ));
        }
        let begins_with_path = ["/", "{path}", "{rest}"].iter().any(|start| to.starts_with(start));
        match prefix.split_once("://") {
            // What stands behind the scheme decides where clients go: a path there would let them choose the host.
            Some((scheme, behind)) if is_scheme(scheme) => {
                let names_host = !behind.is_empty() && !behind.starts_with(['/', '\\', '?', '#']);
                let host_is_asked_for = behind.is_empty() && to[prefix.len()..].starts_with("{host}");
                if !names_host && !host_is_asked_for {
                    return Err(format!("expected a host behind \"{scheme}://\", found {to:?}"));
                }
            }
            _ if begins_with_path => {}
            _ => {
                return Err(format!(
                    "expected a URL such as \"https://domain.com{{path}}{{query}}\", or a path such as \
                     \"/new{{rest}}\", found {to:?}"
                ));
            }
        }
        Ok(Self { to: template, status })
    }

    /// The target needs a host, which a request over HTTP/1.0 may not name.
    #[must_use]
    pub fn needs_host(&self) -> bool {
        self.to.contains(Placeholder::Host)
    }

    /// The number of groups that the route's pattern must have.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.to.groups()
    }

    /// Where a client is sent to.
    #[must_use]
    pub fn target(&self, asked: &Requested<'_>) -> String {
        local(asked.fill(&self.to))
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

/// A target without a scheme stays on this host: browsers read `//a.test` and `/\a.test` as another one.
#[must_use]
pub fn local(target: String) -> String {
    if !target.is_empty() && !target.starts_with(['/', '\\', '?']) {
        return target;
    }
    let path = target.trim_start_matches(['/', '\\']);
    if target.len() - path.len() == 1 && target.starts_with('/') { target } else { format!("/{path}") }
}

impl fmt::Display for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "redirect {} to {}", self.status.as_u16(), self.to)
    }
}

/// The same answer to every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Respond {
    /// Not 1xx: those come before an answer.
    pub status: StatusCode,
    /// What it says.
    pub body: Template,
    /// What that is.
    pub content_type: HeaderValue,
}

impl fmt::Display for Respond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "respond {}", self.status.as_u16())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(to: &str, route: &str, path: &str, query: Option<&str>) -> String {
        let redirect = Redirect::parse(to, StatusCode::FOUND).unwrap();
        let route = RoutePath::parse(route).unwrap();
        redirect.target(&Requested { host: "a.test", path, query, route: Some(&route), groups: &[] })
    }

    #[test]
    fn groups_are_put_in_behind_the_host() {
        let target = |to: &str, groups: &[&str]| {
            let redirect = Redirect::parse(to, StatusCode::FOUND)?;
            let asked = Requested { host: "a.test", path: "/x", query: None, route: None, groups };
            Ok::<_, String>(redirect.target(&asked))
        };
        assert_eq!(target("https://b.test/u/{2}?id={1}", &["17", "x"]).unwrap(), "https://b.test/u/x?id=17");
        assert_eq!(target("/{1}", &["/evil.test"]).unwrap(), "/evil.test");
        assert_eq!(target("/a{3}", &["1"]).unwrap(), "/a");
        for to in
            ["https://{1}/", "https://b.test{1}", "https://{host}{1}", "https://b.{1}/x", "{1}", "//{0}"]
        {
            assert!(target(to, &["x"]).is_err() || to == "//{0}", "{to}");
        }
    }

    #[test]
    fn values_are_put_in_as_they_were_sent() {
        for (to, route, path, query, expect) in [
            ("https://{host}{path}{query}", "/", "/a%2Fb", Some("c=%20d"), "https://a.test/a%2Fb?c=%20d"),
            ("https://b.test/new{rest}{query}", "/old", "/old/x", None, "https://b.test/new/x"),
            ("https://b.test/new{rest}{query}", "/old", "/%6fld/%78", Some(""), "https://b.test/new/%78?"),
            ("/new{rest}", "/old/er", "/old/er", None, "/new"),
            ("/fixed?to={path}", "/", "/a", Some("b"), "/fixed?to=/a"),
            ("{rest}", "/old", "/old", Some("b"), "/"),
            ("{rest}{query}", "/old", "/old", Some("b"), "/?b"),
        ] {
            assert_eq!(target(to, route, path, query), expect, "{to} {path}");
        }
    }

    #[test]
    fn no_path_leads_to_another_host() {
        for (path, expect) in [
            ("/old//evil.test", "/evil.test"),
            ("/old///evil.test", "/evil.test"),
            ("/old/\\evil.test", "/evil.test"),
            ("/old//\\/evil.test/a//b", "/evil.test/a//b"),
            ("/old/a", "/a"),
            ("/old/", "/"),
            ("/old/%2fevil.test", "/%2fevil.test"),
        ] {
            assert_eq!(target("{rest}", "/old", path, None), expect, "{path}");
        }
        assert_eq!(target("{path}", "/", "//evil.test/x", None), "/evil.test/x");
        assert_eq!(target("//{path}", "/", "/evil.test", None), "/evil.test");
    }

    #[test]
    fn targets_that_clients_could_choose_the_host_of() {
        for to in [
            "",
            "new",
            "{host}/a",
            "{query}",
            "https:{path}",
            "https://{path}",
            "https:///a",
            "https://{rest}",
            "https://?{path}",
            "a b",
            "/a b",
            "/\u{fc}",
            "/a\n",
            "{unknown}",
        ] {
            assert!(Redirect::parse(to, StatusCode::FOUND).is_err(), "{to}");
        }
        for to in
            ["/", "{path}", "{rest}x", "https://a.test", "wss://{host}:8443{path}", "http://a.test{query}"]
        {
            assert!(Redirect::parse(to, StatusCode::FOUND).is_ok(), "{to}");
        }
    }
}
