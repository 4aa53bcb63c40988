//! What other servers' patterns have and ours don't: looking ahead, where it can be written otherwise. Pure.

use std::fmt::Write;

use super::pieces::{alternatives, escaped, literal_front};

/// Writes `(?!a|b)` before the end of a pattern, or before a `.*` there, as an alternative of all that begins otherwise.
/// Other patterns stay as they are.
pub(super) fn without(pattern: &str) -> Option<String> {
    let at = pattern.find("(?!")?;
    let (front, behind) = (&pattern[..at], &pattern[at + 3..]);
    let (inside, rest) = behind.split_once(')')?;
    let literals: Option<Vec<String>> = alternatives(inside)
        .into_iter()
        .map(|one| Some(literal_front(one)).filter(|(_, rest)| rest.is_empty()).map(|(text, _)| text))
        .collect();
    let others = other_than(&literals?.iter().map(String::as_str).collect::<Vec<_>>());
    // What stands in parentheses that are open at this place goes on behind them.
    match rest {
        "" | "$" | ".*" | ".*$" => Some(format!("{front}(?:{others})$")),
        "(.*)" | "(.*)$" => Some(format!("{front}({others})$")),
        _ => None,
    }
}

/// All texts that begin with none of these: such as differ from each at some place, and such as end before.
fn other_than(literals: &[&str]) -> String {
    let (differ, end) = (differing(literals), ending(literals));
    // One `.*` for all of them keeps automata small.
    format!("(?:{differ}).*|{end}")
}

fn differing(literals: &[&str]) -> String {
    let firsts = firsts(literals);
    let class: String = firsts.iter().map(|first| escaped_in_class(*first)).collect();
    let mut out = format!("[^{class}]");
    for (first, behind) in branches(&firsts, literals) {
        let _ = write!(out, "|{first}(?:{})", differing(&behind)); // a string takes everything
    }
    out
}

fn ending(literals: &[&str]) -> String {
    let branches = branches(&firsts(literals), literals);
    let ends: Vec<String> =
        branches.iter().map(|(first, behind)| format!("{first}{}", ending(behind))).collect();
    if ends.is_empty() { String::new() } else { format!("(?:{})?", ends.join("|")) }
}

fn firsts(literals: &[&str]) -> Vec<char> {
    let mut firsts: Vec<char> = Vec::new();
    for first in literals.iter().filter_map(|text| text.chars().next()) {
        if !firsts.contains(&first) {
            firsts.push(first);
        }
    }
    firsts
}

/// Each first character that more has to follow, and what that is.
fn branches<'a>(firsts: &[char], literals: &[&'a str]) -> Vec<(String, Vec<&'a str>)> {
    let behind = |first: &char| -> Vec<&'a str> {
        literals.iter().filter_map(|text| text.strip_prefix(*first)).collect()
    };
    let all = firsts.iter().map(|first| (escaped(&first.to_string()), behind(first)));
    all.filter(|(_, behind)| !behind.contains(&"")).collect()
}

fn escaped_in_class(c: char) -> String {
    if c.is_ascii_punctuation() { format!("\\{c}") } else { c.to_string() }
}

/// There is something in it that PCRE takes, and ours don't.
pub(super) fn is_of_pcre(pattern: &str) -> bool {
    wider(pattern) != pattern
}

/// A pattern that takes all that this one takes, and perhaps more: what ours don't have is left out.
pub(super) fn wider(pattern: &str) -> String {
    let mut out = String::new();
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        let looks = ["(?!", "(?=", "(?<!", "(?<="].iter().any(|front| rest.starts_with(front));
        if looks {
            rest = &rest[end_of_group(rest)..];
        } else if let Some(behind) = rest.strip_prefix("(?>") {
            out.push_str("(?:");
            rest = behind;
        } else if let Some(escape) = rest.strip_prefix('\\').and_then(|behind| behind.chars().next()) {
            if escape.is_ascii_digit() {
                out.push_str(".*");
            } else {
                out.extend(['\\', escape]);
            }
            rest = &rest[1 + escape.len_utf8()..];
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    out
}

/// Where the group ends with which the text begins.
fn end_of_group(text: &str) -> usize {
    let (mut depth, mut in_class, mut is_escaped) = (0_usize, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => {
                is_escaped = false;
                continue;
            }
            b'\\' => is_escaped = true,
            b'[' => in_class = true,
            b']' => in_class = false,
            b'(' if !in_class => depth += 1,
            b')' if !in_class && depth == 1 => return at + 1,
            b')' if !in_class => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::site::matcher::PathRegex;

    #[test]
    fn looking_ahead_is_an_alternative() {
        assert_eq!(without(r"/\.(?!ab)").as_deref(), Some(r"/\.(?:(?:[^a]|a(?:[^b])).*|(?:a)?)$"));
        assert_eq!(without("^/((?!a).*)$"), None);
        assert_eq!(without("^/(?!a)(.*)$").as_deref(), Some("^/((?:[^a]).*|)$"));
        assert_eq!(without("^/(?!a*)"), None);
        assert_eq!(without("^/(?!a)b"), None);
        assert_eq!(without("^/a"), None);
    }

    #[test]
    fn what_is_left_out_makes_it_wider() {
        for (pattern, expect) in [
            (r"^/(?!api|a(b)\))x", "^/x"),
            (r"(a)\1(?>b)", "(a).*(?:b)"),
            (r"\(?!a", r"\(?!a"),
            ("(?<!a)b", "b"),
        ] {
            assert_eq!(wider(pattern), expect, "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn all_other_beginnings_are_taken(literals in proptest::collection::vec("[ab.]{1,3}", 1..4), path in "[ab.]{0,5}") {
            let inside = literals.iter().map(|text| escaped(text)).collect::<Vec<_>>().join("|");
            let pattern = without(&format!("^/(?!{inside})")).unwrap();
            let regex = PathRegex::parse(pattern.trim_start_matches('^').trim_end_matches('$')).unwrap();
            let begins = literals.iter().any(|text| path.starts_with(text.as_str()));
            prop_assert_eq!(regex.is_match(&format!("/{path}")), !begins);
        }
    }
}
