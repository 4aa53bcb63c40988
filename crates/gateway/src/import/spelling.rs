//! Paths and patterns as requests spell them: other servers compare decoded paths, and ours are compared with percent-encoded
//! bytes but for letters, digits and `-._~` (RFC 3986 §6.2.2). Pure.

use std::fmt::Write;

use super::pieces::escaped;
use crate::site::path::{ExactPath, RoutePath};

/// What clients never write as it is.
fn is_always_encoded(c: char) -> bool {
    !c.is_ascii() || c.is_ascii_control() || matches!(c, ' ' | '%' | '?' | '#')
}

/// What some clients encode and others don't.
fn is_sometimes_encoded(c: char) -> bool {
    matches!(c, '"' | '<' | '>' | '[' | ']' | '^' | '`' | '{' | '|' | '}')
}

/// Writes a character percent-encoded (RFC 3986 §2.1).
pub(super) fn encode(c: char, out: &mut String) {
    for byte in c.encode_utf8(&mut [0; 4]).bytes() {
        let _ = write!(out, "%{byte:02X}"); // a string takes everything
    }
}

/// A decoded path as our routes have it.
///
/// # Errors
/// A sentence: no route can have this path, or requests for it are spelled in several ways ([`pattern`] has them all).
pub(super) fn path(decoded: &str) -> Result<String, String> {
    let mut out = String::new();
    for c in decoded.chars() {
        if is_always_encoded(c) {
            encode(c, &mut out);
        } else {
            out.push(c);
        }
    }
    if let Some(c) = decoded.chars().find(|c| is_sometimes_encoded(*c)) {
        return Err(format!("clients may write {c:?} in two ways"));
    }
    RoutePath::parse(&out).and_then(|_| ExactPath::parse(&out)).map(|_| out)
}

/// A decoded path as a pattern that matches it alone.
///
/// # Errors
/// A sentence: no request can have this path.
pub(super) fn pattern(decoded: &str) -> Result<String, String> {
    let usual: String = decoded.chars().map(|c| if is_sometimes_encoded(c) { 'x' } else { c }).collect();
    path(&usual)?;
    Ok(decoded.chars().fold(String::new(), |mut out, c| {
        literal(c, &mut out);
        out
    }))
}

/// A character as a pattern of its spellings.
fn literal(c: char, out: &mut String) {
    if is_always_encoded(c) {
        out.push_str("(?:");
        encode(c, out);
        out.push(')');
    } else if is_sometimes_encoded(c) {
        let _ = write!(out, "(?:{}|", escaped(&c.to_string()));
        encode(c, out);
        out.push(')');
    } else {
        out.push_str(&escaped(&c.to_string()));
    }
}

/// A pattern of decoded paths as one of paths in requests.
///
/// # Errors
/// A sentence: it has something in it that is several characters in a request, where only one can be.
pub(super) fn of_pattern(decoded: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut chars = decoded.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c)
                    if !c.is_ascii_alphanumeric() && (is_always_encoded(c) || is_sometimes_encoded(c)) =>
                {
                    literal(c, &mut out);
                }
                Some('s') => out.push_str("(?:%20|%09|%0A|%0D)"),
                Some(c) => out.extend(['\\', c]),
                None => out.push('\\'),
            },
            '[' => {
                let class = class(&mut chars);
                let is_negated = class.starts_with('^');
                if !is_negated && let Some(c) = class.chars().find(|c| is_always_encoded(*c)) {
                    return Err(format!("clients encode {c:?}, which a class such as [{class}] can't have"));
                }
                let _ = write!(out, "[{class}]");
            }
            c if !c.is_ascii() || matches!(c, ' ' | '%' | '#' | '"' | '<' | '>' | '`') => {
                // `(?<name>` and `(?#` are no text.
                if matches!(c, '<' | '>' | '#') && is_in_name(&out, c) {
                    out.push(c);
                } else {
                    literal(c, &mut out);
                }
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

/// What stands between the brackets, the first of which has been read.
fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> String {
    let mut class = String::new();
    while let Some(c) = chars.next() {
        match c {
            '\\' => class.extend(['\\'].into_iter().chain(chars.next())),
            // At its beginning a bracket means itself.
            ']' if !matches!(class.as_str(), "" | "^") => break,
            ']' => class.push_str("\\]"),
            c => class.push(c),
        }
    }
    class
}

/// The sign belongs to the name of a group, or to the sign of a group.
fn is_in_name(before: &str, sign: char) -> bool {
    let group = before.rsplit_once("(?").map(|(_, behind)| behind);
    match sign {
        '<' => matches!(group, Some("" | "P")),
        '>' => group.is_some_and(|behind| {
            behind.is_empty()
                || behind
                    .split_once('<')
                    .is_some_and(|(_, name)| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
        }),
        _ => group == Some(""),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::site::matcher::PathRegex;
    use crate::site::path::RequestPath;

    #[test]
    fn paths_are_those_of_requests() {
        for (decoded, expect) in [
            ("/a", Some("/a")),
            ("/a b/", Some("/a%20b/")),
            ("/caf\u{e9}", Some("/caf%C3%A9")),
            ("/100%", Some("/100%25")),
            ("/a%20b", Some("/a%2520b")),
            ("/a?b#c", Some("/a%3Fb%23c")),
            ("/a:@!$&'()*+,=", Some("/a:@!$&'()*+,=")),
            ("/{a}", None),
            ("/a\"b", None),
            ("/a;b", None),
            ("/a\\b", None),
            ("/a//b", None),
            ("/../a", None),
        ] {
            assert_eq!(path(decoded).ok().as_deref(), expect, "{decoded}");
        }
        assert_eq!(pattern("/a b{").as_deref(), Ok("/a(?:%20)b(?:\\{|%7B)"));
        assert!(pattern("/a;b").is_err() && pattern("/a//b").is_err());
    }

    #[test]
    fn patterns_are_those_of_requests() {
        for (decoded, expect) in [
            (r"^/a b/(.*)\.php$", Some(r"^/a(?:%20)b/(.*)\.php$")),
            (r"^/a\ b\{", Some(r"^/a(?:%20)b(?:\{|%7B)")),
            ("/\u{fc}+", Some("/(?:%C3%BC)+")),
            ("^/(?<name>[^ /]+)$", Some("^/(?<name>[^ /]+)$")),
            ("^/(?P<a_b>x)(?>y)", Some("^/(?P<a_b>x)(?>y)")),
            ("^/a>b", Some("^/a(?:>|%3E)b")),
            (r"[\w ]", None),
            ("[]a]", Some("[\\]a]")),
            (r"\d{2}\sx", Some(r"\d{2}(?:%20|%09|%0A|%0D)x")),
        ] {
            assert_eq!(of_pattern(decoded).ok().as_deref(), expect, "{decoded}");
        }
    }

    proptest! {
        /// However a client writes a path, the pattern takes it.
        #[test]
        fn every_spelling_is_taken(decoded in "/[a \u{e9}%?\"{|x-]{0,6}", encoded: [bool; 6]) {
            let regex = PathRegex::parse(&pattern(&decoded).unwrap()).unwrap();
            let mut sent = String::new();
            for (i, c) in decoded.chars().enumerate() {
                if is_always_encoded(c) || c != '/' && encoded[i % 6] {
                    encode(c, &mut sent);
                } else {
                    sent.push(c);
                }
            }
            let request = RequestPath::parse(&sent).unwrap();
            prop_assert!(regex.is_match(request.as_str()), "{decoded:?} {sent}");
            if let Ok(path) = path(&decoded) {
                prop_assert_eq!(path.as_str(), request.as_str());
            }
        }
    }
}
