//! Which route serves a request. Pure.
//!
//! Exact host first, then wildcard, then routes for any host; within one the exact path, then the longest prefix, then
//! patterns in the order of the file; of routes for the same paths that with more conditions, then that which the file
//! has first. If a route's conditions aren't met, the next one is criteria.

use std::collections::HashMap;
use std::iter;
use std::sync::Arc;

use crate::site::host::HostPattern;
use crate::site::matcher::{Criteria, PathMatcher};
use crate::site::route::Route;

/// All routes, ready to be criteria.
#[derive(Debug, Default)]
pub struct Routes {
    exact: HashMap<Arc<str>, Paths>,
    /// By the part behind `*.`.
    wildcard: HashMap<Arc<str>, Paths>,
    any: Paths,
}

/// The routes of one host.
#[derive(Debug, Default)]
struct Paths {
    /// Those of the path `/`, which nearly every host has: they are found without a search.
    root: Ranked,
    /// The other prefixes.
    by_path: HashMap<Box<str>, Ranked>,
    /// Segments of the longest prefix: none with more of them is looked up.
    segments_max: usize,
    exact: HashMap<Box<str>, Ranked>,
    by_regex: Vec<Arc<Route>>,
}

/// Routes for the same host and path, the first one to be criteria in front; each with the number of its conditions.
#[derive(Debug, Default)]
struct Ranked(Vec<(Arc<Route>, usize)>);

/// A path whose route depends on who reads it.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
#[error("this path can be read in two ways that lead to different routes")]
pub struct TwoRoutes;

impl Routes {
    /// Sorts routes.
    #[must_use]
    pub fn new(routes: &[Arc<Route>]) -> Self {
        let mut sorted = Self::default();
        for route in routes {
            if route.matcher.hosts.is_empty() {
                sorted.any.add(route);
            }
            for host in &route.matcher.hosts {
                let paths = match host {
                    HostPattern::Exact(name) => sorted.exact.entry(name.clone()).or_default(),
                    HostPattern::Wildcard(parent) => sorted.wildcard.entry(parent.clone()).or_default(),
                };
                paths.add(route);
            }
        }
        sorted
    }

    /// The route for a request; `None` if there is none. Costs do not grow with the number of hosts and paths; routes
    /// for the same host and path are criteria one after the other, and so are the patterns of a host.
    ///
    /// # Errors
    /// If a server that reads the path in another way would see the path of another route: what
    /// that route forbids (`origins`) could be evaded by this one.
    pub fn find(&self, criteria: &Criteria<'_>) -> Result<Option<&Arc<Route>>, TwoRoutes> {
        let Some(route) = self.find_one(criteria, &criteria.path.matched) else { return Ok(None) };
        let is_same = |reading: &String| {
            self.find_one(criteria, reading).is_some_and(|other| Arc::ptr_eq(other, route))
        };
        if criteria.path.readings.iter().all(is_same) { Ok(Some(route)) } else { Err(TwoRoutes) }
    }

    /// Some route takes requests for `host` that come to `listener`, whatever else it asks for.
    #[must_use]
    pub fn takes_host(&self, host: &str, listener: &str) -> bool {
        self.of_host(host).into_iter().flatten().flat_map(Paths::all).any(|route| {
            let listeners = &route.matcher.listeners;
            listeners.is_empty() || listeners.iter().any(|name| **name == *listener)
        })
    }

    fn find_one(&self, criteria: &Criteria<'_>, path: &str) -> Option<&Arc<Route>> {
        self.of_host(criteria.host).into_iter().flatten().find_map(|paths| paths.find(criteria, path))
    }

    /// The routes of a host, the most exact ones first.
    fn of_host(&self, host: &str) -> [Option<&Paths>; 3] {
        let exact = self.exact.get(host);
        let wildcard = if self.wildcard.is_empty() {
            None
        } else {
            let parent = host.split_once('.').filter(|(label, _)| !label.is_empty());
            parent.and_then(|(_, parent)| self.wildcard.get(parent))
        };
        [exact, wildcard, Some(&self.any)]
    }
}

impl Paths {
    fn add(&mut self, route: &Arc<Route>) {
        match &route.matcher.path {
            PathMatcher::Prefix(path) if path.0.is_empty() => self.root.add(route),
            PathMatcher::Prefix(path) => {
                self.segments_max = self.segments_max.max(path.0.matches('/').count());
                self.by_path.entry(path.0.clone()).or_default().add(route);
            }
            PathMatcher::Exact(path) => self.exact.entry(path.as_str().into()).or_default().add(route),
            PathMatcher::Regex(_) => self.by_regex.push(route.clone()),
        }
    }

    fn find(&self, criteria: &Criteria<'_>, path: &str) -> Option<&Arc<Route>> {
        if !self.exact.is_empty()
            && let Some(route) = self.exact.get(path).and_then(|routes| routes.find(criteria))
        {
            return Some(route);
        }
        self.find_prefix(criteria, path).or_else(|| {
            self.by_regex.iter().find(|route| {
                matches!(&route.matcher.path, PathMatcher::Regex(regex) if regex.is_match(path))
                    && route.matcher.mismatch(criteria).is_none()
            })
        })
    }

    fn find_prefix(&self, criteria: &Criteria<'_>, path: &str) -> Option<&Arc<Route>> {
        let root = || self.root.find(criteria).filter(|_| path.is_empty() || path.starts_with('/'));
        if self.by_path.is_empty() {
            return root();
        }
        // Prefixes that end on a segment border, that is before a slash or at the end; the longest first.
        let longest = path.match_indices('/').nth(self.segments_max).map_or(path, |(at, _)| &path[..at]);
        let shorter = |prefix: &&'_ str| prefix.rfind('/').map(|at| &path[..at]);
        iter::successors(Some(longest), shorter)
            .find_map(|prefix| self.by_path.get(prefix).and_then(|routes| routes.find(criteria)))
            .or_else(root)
    }
}

impl Paths {
    fn all(&self) -> impl Iterator<Item = &Arc<Route>> {
        let ranked = iter::once(&self.root).chain(self.by_path.values()).chain(self.exact.values());
        ranked.flat_map(|ranked| ranked.0.iter().map(|(route, _)| route)).chain(&self.by_regex)
    }
}

impl Ranked {
    fn add(&mut self, route: &Arc<Route>) {
        let conditions = route.matcher.conditions();
        let at = self.0.partition_point(|(_, others)| *others >= conditions);
        self.0.insert(at, (route.clone(), conditions));
    }

    fn find(&self, criteria: &Criteria<'_>) -> Option<&Arc<Route>> {
        let fits = |route: &Route, conditions| {
            conditions == 0 && !criteria.bound || route.matcher.mismatch(criteria).is_none()
        };
        self.0.iter().find(|(route, conditions)| fits(route, *conditions)).map(|(route, _)| route)
    }
}

#[cfg(test)]
mod tests;
