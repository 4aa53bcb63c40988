//! Routes and backends that an operator has drained: their sessions are sent away, and nothing new
//! goes to them until that is taken back. Pure.

use std::fmt;
use std::sync::Arc;

use crate::site::endpoint::Endpoint;
use crate::site::matcher::Matcher;
use crate::site::route::Route;
use crate::site::route_id::RouteId;
use crate::site::server::{Server, ServerState};

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
    /// Reads what an operator calls a route of `routes`: by its name, as the log shows it, or by one of its hosts and
    /// its path (`domain.com/wss`, `/wss`); or a backend (`127.0.0.1:8282`, `unix:/run/app.sock`, also with `http://`
    /// before it). A backend on a port has no slash.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub fn parse(text: &str, routes: &[Arc<Route>]) -> Result<Self, String> {
        if let Some(route) = routes.iter().find(|route| route.id.as_str() == text) {
            return Ok(Self::Route(route.id.clone()));
        }
        let address = if text.contains("://") || text.starts_with("unix:") {
            text.to_owned()
        } else if text.contains('/') {
            return Self::by_path(text, routes);
        } else {
            format!("http://{text}")
        };
        match Endpoint::parse(&address) {
            Ok((endpoint, _)) => Ok(Self::Server(endpoint.name())),
            Err(_) => Err(format!(
                "expected a route such as \"domain.com/wss\" or \"/wss\", or a backend such as \
                 \"127.0.0.1:8282\", found {text:?}"
            )),
        }
    }

    /// The only route with this host and path, whatever its name and its conditions are.
    fn by_path(text: &str, routes: &[Arc<Route>]) -> Result<Self, String> {
        let wanted = Matcher::parse(text)?;
        let id = wanted.id();
        if routes.iter().any(|route| route.id == id) {
            return Ok(Self::Route(id));
        }
        let is_wanted = |route: &&Arc<Route>| {
            let Matcher { hosts, path, .. } = &route.matcher;
            *path == wanted.path
                && wanted.hosts.iter().all(|host| hosts.contains(host))
                && hosts.is_empty() == wanted.hosts.is_empty()
        };
        let found: Vec<_> = routes.iter().filter(is_wanted).collect();
        match found[..] {
            [] => Ok(Self::Route(id)), // it may have gone from the configuration
            [route] => Ok(Self::Route(route.id.clone())),
            _ => {
                let ids: Vec<_> = found.iter().map(|route| route.id.as_str()).collect();
                Err(format!("{text} may be one of several routes; write one of: {}", ids.join(", ")))
            }
        }
    }

    /// Everything by which `route` can be drained.
    #[must_use]
    pub fn all_of(route: &Route) -> Vec<Self> {
        let mut all = vec![Self::Route(route.id.clone())];
        if let Some(upstream) = route.action.upstream() {
            let current = upstream.current();
            let servers = upstream.servers.iter().chain(&current.servers);
            all.extend(servers.map(|server| Self::Server(server.endpoint.name())));
        }
        all
    }

    /// It is this route, or one of the backends behind it.
    #[must_use]
    pub fn covers(&self, route: &Route) -> bool {
        matches!(self, Self::Route(id) if *id == route.id)
            || route.action.upstream().is_some_and(|upstream| {
                let current = upstream.current();
                upstream.servers.iter().chain(&current.servers).any(|server| self.is_server(server))
            })
    }

    /// It takes a session of `route` at `server` with it.
    #[must_use]
    pub fn takes(&self, route: &Route, server: Option<&ServerState>) -> bool {
        match self {
            Self::Route(id) => *id == route.id,
            Self::Server(name) => server.is_some_and(|server| server.endpoint.name() == *name),
        }
    }

    fn is_server(&self, server: &Server) -> bool {
        matches!(self, Self::Server(name) if server.endpoint.name() == *name)
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
    #[inline]
    pub fn covers(&self, route: &Route) -> Option<&DrainTarget> {
        if self.0.is_empty() {
            return None; // as nearly always
        }
        self.search(route)
    }

    fn search(&self, route: &Route) -> Option<&DrainTarget> {
        let mut all = self.0.iter();
        all.find(|target| matches!(target, DrainTarget::Route(id) if *id == route.id)).or_else(|| {
            // A route is served as long as one of its servers is.
            let mut drains = None;
            for server in &route.action.upstream()?.current().servers {
                drains = Some(self.0.iter().find(|target| target.is_server(server))?);
            }
            drains
        })
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
            ("https://backend", "backend:443"),
            ("[::1]:8080", "[::1]:8080"),
            ("Backend", "backend:80"),
            ("unix:/run/App.sock", "unix:/run/App.sock"),
            ("http://unix:/run/app.sock:/x", "unix:/run/app.sock"),
        ] {
            assert_eq!(DrainTarget::parse(text, &[]).map(|target| target.to_string()).as_deref(), Ok(expect));
        }
        for bad in ["", "a b", "a b/c", "/../x", "/a?b", "a:99999", "ftp://a"] {
            DrainTarget::parse(bad, &[]).expect_err(bad);
        }
    }

    #[test]
    fn a_route_is_called_by_its_name_or_by_its_host_and_path() {
        let text = "[[route]]\nname = \"chat\"\nhost = [\"a.test\", \"b.test\"]\npath = \"/wss\"\nservice = \"echo\"\n\
                    [[route]]\npath = \"/x\"\nwhen = { upgrade = true }\nservice = \"echo\"\n\
                    [[route]]\npath = \"/x\"\nwhen = { method = \"PUT\" }\nservice = \"echo\"\n\
                    [[route]]\npath = \"/y\"\nwhen = { upgrade = true }\nservice = \"echo\"\n";
        let (config, problems) = Config::parse(Path::new("wssgate.toml"), text);
        assert!(problems.iter().all(|problem| problem.what.contains("[[listener]]")), "{problems:?}");
        let parse = |text: &str| DrainTarget::parse(text, &config.routes).map(|target| target.to_string());
        for text in ["chat", "a.test/wss", "B.test/wss/"] {
            assert_eq!(parse(text).as_deref(), Ok("chat"), "{text}");
        }
        assert_eq!(parse("/y").as_deref(), Ok("/y[upgrade=true]"));
        assert_eq!(parse("/x[upgrade=true]").as_deref(), Ok("/x[upgrade=true]"));
        assert_eq!(parse("chat:80").as_deref(), Ok("chat:80"), "a backend");
        let why = parse("/x").unwrap_err();
        assert!(why.contains("/x[upgrade=true], /x[method=PUT]"), "{why}");
    }

    #[test]
    fn a_backend_is_drained_for_all_routes_that_lead_to_it() {
        let text = "[[route]]\npath = \"/a\"\nproxy = \"http://b:1\"\n[[route]]\npath = \"/c\"\nproxy = \"http://B:1\"\n\
                    [[route]]\npath = \"/d\"\nproxy = \"http://b:2\"\n[[route]]\npath = \"/e\"\nservice = \"echo\"\n";
        let routes = Config::parse(Path::new("wssgate.toml"), text).0.routes;
        let covered = |drained: &Drained| -> Vec<bool> {
            routes.iter().map(|route| drained.covers(route).is_some()).collect()
        };
        let backend = DrainTarget::parse("b:1", &routes).unwrap();
        let drained = Drained::default().with(backend.clone()).with(backend.clone());
        assert_eq!(covered(&drained), [true, true, false, false]);
        let both = drained.with(DrainTarget::parse("/e", &routes).unwrap());
        assert_eq!(covered(&both), [true, true, false, true]);
        assert_eq!(covered(&both.without(&backend)), [false, false, false, true]);
        assert_eq!(both.iter().count(), 2);
    }
}
