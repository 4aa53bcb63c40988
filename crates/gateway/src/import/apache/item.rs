//! Some paths, and what is done there. Pure.

use super::address::Server;
use crate::import::sheet::Section;
use crate::import::tree::Directive;
use crate::import::{lookahead, pattern};

/// Which paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Taken {
    /// This one, and what is below it.
    Path(String),
    /// This one alone.
    Exact(String),
    /// Those that a pattern of ours matches, and what they all begin with.
    Pattern { ours: String, front: String },
}

impl Taken {
    /// Reads a pattern of Apache's.
    ///
    /// # Errors
    /// A sentence: there is something in it that our patterns don't have.
    pub(super) fn pattern(theirs: &str, is_insensitive: bool) -> Result<Self, String> {
        if let Some(path) = pattern::only_path(theirs).filter(|_| !is_insensitive) {
            return Ok(Self::Exact(path));
        }
        let front = if is_insensitive { String::new() } else { pattern::front(theirs) };
        Ok(Self::Pattern { ours: pattern::whole(theirs, is_insensitive)?, front })
    }

    /// The paths of a pattern, and perhaps more: what ours don't have is left out of it.
    pub(super) fn wider(theirs: &str, is_insensitive: bool) -> Self {
        Self::pattern(&lookahead::wider(theirs), is_insensitive)
            .unwrap_or_else(|_| Self::Path("/".to_owned()))
    }

    /// All of its paths are this one, or below it.
    pub(super) fn is_below(&self, path: &str) -> bool {
        match self {
            Self::Path(own) => is_below(own, path),
            // `/a` is outside of `/a/`.
            Self::Exact(own) => is_below(own, path) && (own != bare(path) || own == path),
            Self::Pattern { front, .. } => {
                bare(path).is_empty() || front.starts_with(&format!("{}/", bare(path)))
            }
        }
    }

    /// Some of its paths may be this one, or below it.
    pub(super) fn may_be_below(&self, path: &str) -> bool {
        let met = match self {
            Self::Path(own) => is_below(path, own),
            Self::Exact(_) => false,
            Self::Pattern { front, .. } => path.starts_with(front.as_str()),
        };
        met || self.is_below(path)
            || matches!(self, Self::Pattern { front, .. } if front.starts_with(bare(path)))
    }

    /// Both may take the same path.
    pub(super) fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Path(path), other) | (other, Self::Path(path)) => other.may_be_below(path),
            (Self::Exact(one), Self::Exact(other)) => one == other,
            (Self::Exact(path), Self::Pattern { front, .. })
            | (Self::Pattern { front, .. }, Self::Exact(path)) => path.starts_with(front.as_str()),
            (Self::Pattern { front: one, .. }, Self::Pattern { front: other, .. }) => {
                one.starts_with(other.as_str()) || other.starts_with(one.as_str())
            }
        }
    }
}

/// A path without the slash at its end; empty for `/`.
pub(super) fn bare(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

/// `path` is `front`, or below it.
pub(super) fn is_below(path: &str, front: &str) -> bool {
    bare(path).strip_prefix(bare(front)).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What is done.
#[derive(Debug, Clone)]
pub(super) enum What<'a> {
    /// A server is asked. Its path stands in place of `base`; without a base, it has the groups of a pattern.
    Proxy { server: Server, base: Option<String>, by: &'a Directive },
    /// Files of a directory, which stands for the path `base`.
    Files { directory: String, base: String, by: &'a Directive },
    /// An answer that is written already.
    Answer(Section),
}

/// Some paths, and what is done there.
#[derive(Debug, Clone)]
pub(super) struct Item<'a> {
    pub taken: Taken,
    pub what: What<'a>,
    /// It is answered before Apache asks who may come.
    pub is_early: bool,
    /// The section for a pattern of paths or names that it is made for.
    pub of: Option<&'a Directive>,
    /// It is for WebSockets alone, or for all others.
    pub upgrade: Option<bool>,
    /// It is for connections with TLS alone, or for those without.
    pub tls: Option<bool>,
    /// It is a path that has to stand behind patterns.
    pub is_late: bool,
    /// Rules of access that are lost here.
    pub lost: Vec<&'a Directive>,
}

impl<'a> Item<'a> {
    pub(super) fn new(taken: Taken, what: What<'a>) -> Self {
        Self {
            taken,
            what,
            is_early: false,
            of: None,
            upgrade: None,
            tls: None,
            is_late: false,
            lost: Vec::new(),
        }
    }

    /// What Apache answers before it asks who may come.
    pub(super) fn early(taken: Taken, answer: Section) -> Self {
        Self { is_early: true, ..Self::new(taken, What::Answer(answer)) }
    }

    /// The same for some of its paths.
    pub(super) fn narrowed(&self, taken: Taken) -> Self {
        Self { taken, ..self.clone() }
    }

    pub(super) fn has_condition(&self) -> bool {
        self.upgrade.is_some() || self.tls.is_some()
    }

    pub(super) fn is_files(&self) -> bool {
        matches!(self.what, What::Files { .. })
    }
}

/// An answer without a text.
pub(super) fn answer(status: u32) -> Section {
    let mut section = Section::default();
    section.set("respond", status, None);
    section
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_paths() {
        let path = |text: &str| Taken::Path(text.to_owned());
        let pattern = |text: &str| Taken::pattern(text, false).unwrap();
        for (one, other, is_below, meets) in [
            (path("/a/b"), "/a", true, true),
            (path("/a/"), "/a", true, true),
            (path("/ab"), "/a", false, false),
            (path("/"), "/a", false, true),
            (Taken::Exact("/a/".into()), "/a/", true, true),
            (Taken::Exact("/a".into()), "/a/", false, false),
            (Taken::Exact("/a".into()), "/a", true, true),
            (pattern("^/a/(.*)$"), "/a", true, true),
            (pattern("^/a"), "/a", false, true),
            (pattern("^/b"), "/a", false, false),
            (pattern("\\.php$"), "/a", false, true),
            (pattern("\\.php$"), "/", true, true),
        ] {
            assert_eq!((one.is_below(other), one.meets(&path(other))), (is_below, meets), "{one:?} {other}");
        }
        assert_eq!(pattern("^/x$"), Taken::Exact("/x".into()));
        assert_eq!(
            Taken::wider("^/a/(?!b).*x$", false),
            Taken::Pattern { ours: "/a/.*x".into(), front: "/a/".into() }
        );
        assert_eq!(Taken::wider("^/(?(1)a|b)", false), path("/"));
    }
}
