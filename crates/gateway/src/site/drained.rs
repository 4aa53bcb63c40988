//! Routes and servers that an operator has drained: their sessions are sent away, and nothing new
//! goes to them until that is taken back. Pure.

use std::fmt;

use crate::site::endpoint::Endpoint;
use crate::site::route::{Action, Route, RouteId};

/// What can be drained by itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DrainTarget {
    /// One route.
    Route(RouteId),
    /// One backend, whichever routes lead to it.
    Server(
        /// As the log has it, names in lower case.
        Box<str>,
    ),
}

impl DrainTarget {
    /// Reads a route as the log shows it (`domain.com/wss`, `/wss`), or a server (`127.0.0.1:8282`,
    /// `unix:/run/app.sock`, also with `http://` before it). A route has a slash, a server on a port has none.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let address = if text.contains("://") || text.starts_with("unix:") {
            text.to_owned()
        } else if text.contains('/') {
            return RouteId::parse(text).map(Self::Route);
        } else {
            format!("http://{text}")
        };
        match Endpoint::parse(&address) {
            Ok((endpoint, _)) => Ok(Self::Server(endpoint.name())),
            Err(_) => Err(format!(
                "expected a route such as \"domain.com/wss\" or \"/wss\", or a server such as \
                 \"127.0.0.1:8282\", found {text:?}"
            )),
        }
    }

    /// Everything by which `route` can be drained.
    #[must_use]
    pub fn all_of(route: &Route) -> Vec<Self> {
        let mut all = vec![Self::Route(route.id.clone())];
        if let Action::Proxy(upstream) = &route.action {
            all.push(Self::Server(upstream.endpoint.name()));
        }
        all
    }

    /// It is this route, or the server behind it.
    #[must_use]
    pub fn covers(&self, route: &Route) -> bool {
        match (self, &route.action) {
            (Self::Route(id), _) => *id == route.id,
            (Self::Server(name), Action::Proxy(upstream)) => upstream.endpoint.name() == *name,
            (Self::Server(_), Action::Service(_) | Action::Redirect(_) | Action::Respond(_)) => false,
        }
    }
}

impl fmt::Display for DrainTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Route(id) => id.fmt(f),
            Self::Server(name) => f.write_str(name),
        }
    }
}

/// What is drained now: a value, swapped whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drained(Vec<DrainTarget>);

impl Drained {
    /// What drains `route`, if anything does.
    #[must_use]
    pub fn covers(&self, route: &Route) -> Option<&DrainTarget> {
        self.0.iter().find(|target| target.covers(route))
    }

    /// It is drained by this very name.
    #[must_use]
    pub fn contains(&self, target: &DrainTarget) -> bool {
        self.0.contains(target)
    }

    /// The same and `target`.
    #[must_use]
    pub fn with(&self, target: DrainTarget) -> Self {
        let mut targets = self.without(&target).0;
        targets.push(target);
        Self(targets)
    }

    /// The same without `target`.
    #[must_use]
    pub fn without(&self, target: &DrainTarget) -> Self {
        self.filter(|drained| drained != target)
    }

    /// Those that `keep` picks.
    #[must_use]
    pub fn filter(&self, keep: impl Fn(&DrainTarget) -> bool) -> Self {
        Self(self.0.iter().filter(|target| keep(target)).cloned().collect())
    }

    /// All of them, in the order they were drained.
    pub fn iter(&self) -> impl Iterator<Item = &DrainTarget> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    #[test]
    fn names_as_people_write_them() {
        for (text, expect) in [
            ("/", "/"),
            ("/wss/", "/wss"),
            ("Domain.com/wss", "domain.com/wss"),
            ("*.domain.com/", "*.domain.com/"),
            ("127.0.0.1:8282", "127.0.0.1:8282"),
            ("http://127.0.0.1:8282", "127.0.0.1:8282"),
            ("ws://backend/wss", "backend:80"),
            ("[::1]:8080", "[::1]:8080"),
            ("Backend", "backend:80"),
            ("unix:/run/App.sock", "unix:/run/App.sock"),
            ("http://unix:/run/app.sock:/x", "unix:/run/app.sock"),
        ] {
            assert_eq!(DrainTarget::parse(text).map(|target| target.to_string()).as_deref(), Ok(expect));
        }
        for bad in ["", "a b", "a b/c", "/../x", "/a?b", "a:99999", "https://a"] {
            DrainTarget::parse(bad).expect_err(bad);
        }
    }

    #[test]
    fn a_server_is_drained_for_all_routes_that_lead_to_it() {
        let text = "[[route]]\npath = \"/a\"\nproxy = \"http://b:1\"\n[[route]]\npath = \"/c\"\nproxy = \"http://B:1\"\n\
                    [[route]]\npath = \"/d\"\nproxy = \"http://b:2\"\n[[route]]\npath = \"/e\"\nservice = \"echo\"\n";
        let routes = Config::parse(Path::new("wssgate.toml"), text).0.routes;
        let covered = |drained: &Drained| -> Vec<bool> {
            routes.iter().map(|route| drained.covers(route).is_some()).collect()
        };
        let server = DrainTarget::parse("b:1").unwrap();
        let drained = Drained::default().with(server.clone()).with(server.clone());
        assert_eq!(covered(&drained), [true, true, false, false]);
        let both = drained.with(DrainTarget::parse("/e").unwrap());
        assert_eq!(covered(&both), [true, true, false, true]);
        assert_eq!(covered(&both.without(&server)), [false, false, false, true]);
        assert_eq!(both.iter().count(), 2);
    }
}
