//! Patterns of other servers (PCRE, found anywhere in a path) as ours (a whole path). Pure.

use super::pieces::is_escaped;
pub(super) use super::pieces::{alternatives, escaped, literal_front};
use super::{lookahead, spelling};
use crate::site::matcher::PathRegex;

/// Writes a pattern so that it matches a path from its first slash to its end.
///
/// # Errors
/// A sentence: there is something in it that our patterns don't have, such as looking ahead.
pub(super) fn whole(pattern: &str, is_insensitive: bool) -> Result<String, String> {
    let spelled = spelling::of_pattern(pattern)?;
    let wholes: Vec<String> = alternatives(&spelled)
        .into_iter()
        .map(|one| whole_one(&lookahead::without(one).unwrap_or_else(|| one.to_owned())))
        .collect();
    let joined = match &wholes[..] {
        [one] => one.clone(),
        several => several.join("|"),
    };
    let flag = if is_insensitive { "(?i)" } else { "" };
    let text = format!("{flag}{joined}");
    PathRegex::parse(&text).map_err(|what| match lookahead::is_of_pcre(pattern) {
        true => format!("patterns here can't look around, nor name an earlier group ({pattern:?})"),
        false => format!("{what} (the pattern is {pattern:?})"),
    })?;
    Ok(text)
}

fn whole_one(pattern: &str) -> String {
    let (anchored, rest) = match pattern.strip_prefix('^') {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    let ends = rest.ends_with('$') && !is_escaped(rest, rest.len() - 1);
    let body = if ends { &rest[..rest.len() - 1] } else { rest };
    let front = if anchored || body.starts_with(".*") { "" } else { ".*" };
    let back = if ends || body.ends_with(".*") { "" } else { ".*" };
    format!("{front}{body}{back}")
}

/// The only path that a pattern matches, if it is `^/path$`.
pub(super) fn only_path(pattern: &str) -> Option<String> {
    let inside = pattern.strip_prefix('^')?;
    let inside = inside.strip_suffix('$').filter(|inside| !is_escaped(pattern, inside.len() + 1))?;
    let (path, rest) = literal_front(inside);
    (rest.is_empty() && path.starts_with('/')).then_some(path)
}

/// What every path begins with that a pattern matches; empty: nothing is known.
pub(super) fn front(pattern: &str) -> String {
    let Some(inside) = pattern.strip_prefix('^') else { return String::new() };
    if alternatives(pattern).len() > 1 {
        return String::new();
    }
    literal_front(inside).0
}

/// The pattern matches every path: `^`, `.*`, `^/(.*)$` and their like. What its first group is then: `None`, if it has none.
pub(super) fn matches_all(pattern: &str) -> Option<Option<Group>> {
    let bare = pattern.strip_prefix('^').unwrap_or(pattern);
    let bare = bare.strip_suffix('$').unwrap_or(bare);
    match bare {
        "" | "/" | ".*" | "/.*" => Some(None),
        "(.*)" => Some(Some(Group::Path)),
        "/(.*)" | "/?(.*)" => Some(Some(Group::PathWithoutSlash)),
        _ => None,
    }
}

/// What the only group of a pattern stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    /// The whole path.
    Path,
    /// What is behind its first slash.
    PathWithoutSlash,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::Regex;

    use super::*;

    #[test]
    fn patterns_match_whole_paths() {
        for (pattern, insensitive, expect) in [
            (r"\.php$", false, r".*\.php"),
            (r"^/api/(.*)$", false, "/api/(.*)"),
            ("^/a|/b$", false, "/a.*|.*/b"),
            (r"\.(js|css)$", true, r"(?i).*\.(js|css)"),
            ("/x/", false, ".*/x/.*"),
            ("^/a.*", false, "/a.*"),
            (r"^/a\$", false, r"/a\$.*"),
            ("[|]", false, ".*[|].*"),
        ] {
            assert_eq!(whole(pattern, insensitive).as_deref(), Ok(expect), "{pattern}");
        }
        assert_eq!(whole(r"/\.(?!a).*", false).as_deref(), Ok(r".*/\.(?:(?:[^a]).*|)"));
        for pattern in ["^/(?!api)x", r"(a)\1", "(", "^(?>a)"] {
            assert!(whole(pattern, false).is_err(), "{pattern}");
        }
    }

    #[test]
    fn what_is_known_of_a_pattern() {
        for (pattern, path, begins) in [
            ("^/a$", Some("/a"), "/a"),
            (r"^/a\.b$", Some("/a.b"), "/a.b"),
            (r"^/a\$", None, "/a$"),
            ("^/ab?c", None, "/a"),
            ("^/ab+c", None, "/ab"),
            ("^/a/(.*)$", None, "/a/"),
            ("/a", None, ""),
            ("^/a|/b", None, ""),
        ] {
            assert_eq!((only_path(pattern).as_deref(), front(pattern).as_str()), (path, begins), "{pattern}");
        }
        assert_eq!(matches_all("^"), Some(None));
        assert_eq!(matches_all("^(.*)$"), Some(Some(Group::Path)));
        assert_eq!(matches_all("^/(.*)"), Some(Some(Group::PathWithoutSlash)));
        assert_eq!(matches_all("^/a"), None);
    }

    proptest! {
        #[test]
        fn the_same_paths_match(pattern in "\\^?(/|a|b|\\.|\\(a\\|b\\)|\\||.\\*|[ab]){1,6}\\$?", path in "/[ab/.]{0,8}") {
            if let (Ok(theirs), Ok(ours)) = (Regex::new(&pattern), whole(&pattern, false)) {
                let ours = PathRegex::parse(&ours).unwrap();
                prop_assert_eq!(theirs.is_match(&path), ours.is_match(&path), "{}", pattern);
            }
        }

        #[test]
        fn paths_begin_as_said(pattern in "\\^(/|a|b|\\\\\\.|\\?|\\+|\\(a\\|b\\)|.\\*){1,6}", path in "/[ab/.]{0,8}") {
            if let Ok(theirs) = Regex::new(&pattern)
                && theirs.is_match(&path)
            {
                prop_assert!(path.starts_with(&front(&pattern)), "{pattern}");
            }
        }
    }
}
