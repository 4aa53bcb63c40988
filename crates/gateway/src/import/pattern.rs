//! Patterns of other servers (PCRE, found anywhere in a path) as ours (a whole path). Pure.

use crate::site::matcher::PathRegex;

/// Writes a pattern so that it matches a path from its first slash to its end.
///
/// # Errors
/// A sentence: there is something in it that our patterns don't have, such as looking ahead.
pub(super) fn whole(pattern: &str, is_insensitive: bool) -> Result<String, String> {
    let alternatives = alternatives(pattern);
    let wholes: Vec<String> = alternatives.iter().map(|one| whole_one(one)).collect();
    let joined = match &wholes[..] {
        [one] => one.clone(),
        several => several.join("|"),
    };
    let flag = if is_insensitive { "(?i)" } else { "" };
    let text = format!("{flag}{joined}");
    PathRegex::parse(&text).map_err(|what| format!("{what} (the pattern is {pattern:?})"))?;
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

/// A backslash that counts stands in front of the byte at `at`.
fn is_escaped(text: &str, at: usize) -> bool {
    text[..at].bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

/// What stands between the `|`s that are in no parentheses or brackets.
pub(super) fn alternatives(pattern: &str) -> Vec<&str> {
    let (mut found, mut start, mut depth, mut in_class) = (Vec::new(), 0, 0_usize, false);
    let bytes = pattern.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'[' if !in_class => in_class = true,
            b']' => in_class = false,
            b'(' if !in_class => depth += 1,
            b')' if !in_class => depth = depth.saturating_sub(1),
            b'|' if !in_class && depth == 0 => {
                found.push(&pattern[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    found.push(&pattern[start..]);
    found
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

/// The characters that mean themselves at the beginning of a pattern, and what is behind them.
pub(super) fn literal_front(pattern: &str) -> (String, &str) {
    let mut front = String::new();
    let mut rest = pattern;
    loop {
        let mut chars = rest.chars();
        let (c, behind) = match chars.next() {
            Some('\\') => match chars.next() {
                Some(c) if c.is_ascii_punctuation() => (c, chars.as_str()),
                _ => break,
            },
            Some(c) if !"^$.|?*+()[]{}".contains(c) => (c, chars.as_str()),
            _ => break,
        };
        // A sign for repetition belongs to the character in front of it.
        if behind.starts_with(['?', '*', '{']) {
            break;
        }
        if let Some(further) = behind.strip_prefix('+') {
            // `a+??` may be nothing.
            if further.starts_with(['?', '*', '+', '{']) {
                break;
            }
            front.push(c);
            return (front, behind);
        }
        front.push(c);
        rest = behind;
    }
    (front, rest)
}

/// A path as a pattern that matches it alone.
pub(super) fn escaped(path: &str) -> String {
    let mut out = String::new();
    for c in path.chars() {
        if "\\^$.|?*+()[]{}".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
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
        for pattern in ["^/(?!api)", r"(a)\1", "(", "^(?>a)"] {
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

        #[test]
        fn escaped_paths_are_themselves(path: String, other: String) {
            let regex = Regex::new(&format!("^(?:{})$", escaped(&path))).unwrap();
            prop_assert!(regex.is_match(&path));
            prop_assert_eq!(regex.is_match(&other), path == other);
        }
    }
}
