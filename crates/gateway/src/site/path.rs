//! Paths, as routes have them and as requests do. Pure.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// A route's path: it matches itself and everything below it, on segment borders.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoutePath(pub(super) Box<str>);

impl RoutePath {
    /// Reads a path from a configuration. A slash at its end makes no difference.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let path = checked(text)?;
        Ok(Self(path.strip_suffix('/').unwrap_or(&path).into()))
    }

    /// The path `/`, which all others are below.
    #[must_use]
    pub fn root() -> Self {
        Self(Box::default())
    }

    /// The part behind this one of a request's path as it was sent; begins with a slash or is empty. The path has
    /// to be one that this route was found for: then both have the same segments in front.
    #[must_use]
    pub fn rest_of<'a>(&self, sent: &'a str) -> &'a str {
        let segments = self.0.bytes().filter(|byte| *byte == b'/').count();
        sent.match_indices('/').nth(segments).map_or("", |(at, _)| &sent[at..])
    }

    /// The part of a request's path behind this one; begins with a slash or is empty.
    #[must_use]
    pub fn strip<'a>(&self, path: &'a str) -> Option<&'a str> {
        path.strip_prefix(&*self.0).filter(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl fmt::Display for RoutePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "/" } else { &self.0 })
    }
}

/// A route's path that matches itself alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExactPath(Box<str>);

impl ExactPath {
    /// Reads a path from a configuration. A slash at its end makes it another path.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        Ok(Self(checked(text)?.into()))
    }

    /// The path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A path of a configuration as requests are compared with it, or what is wrong with it.
fn checked(text: &str) -> Result<Cow<'_, str>, String> {
    if !text.starts_with('/') {
        return Err(format!("expected a path that begins with a slash, found {text:?}"));
    }
    if text.bytes().any(|b| b.is_ascii_control() || matches!(b, b' ' | b'?' | b'#')) || !text.is_ascii() {
        return Err(format!("expected a path as in a URL, without ?, # or spaces, found {text:?}"));
    }
    let path = RequestPath::parse(text).map_err(|e| format!("{e}, found {text:?}"))?;
    if path.matched.contains("//") {
        return Err(format!("a path must not have an empty segment (//), found {text:?}"));
    }
    if let Some(reading) = path.readings.first() {
        return Err(format!(
            "servers read this path as {reading:?}, so that every request for it would get 400; \
             write the path as servers read it, found {text:?}"
        ));
    }
    Ok(path.matched)
}

/// A request's path, checked; only the copies that routes are matched with are ever changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestPath<'a> {
    /// Percent-encoded letters, digits and `-._~` decoded, other bytes in one spelling
    /// (RFC 3986 §6.2.2): the same path for every backend.
    pub(super) matched: Cow<'a, str>,
    /// What backends make of it, if that is something else.
    pub(super) readings: Vec<String>,
}

/// A path whose meaning depends on who resolves it.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
#[error("a path must not have . or .. segments, percent-encoded or not")]
pub struct DotSegments;

impl<'a> RequestPath<'a> {
    /// Checks a path as it was sent.
    ///
    /// # Errors
    /// If some segment is `.` or `..`, in whatever encoding.
    pub fn parse(path: &'a str) -> Result<Self, DotSegments> {
        if is_plain(path.as_bytes()) {
            return Ok(Self { matched: Cow::from(path), readings: Vec::new() });
        }
        let matched = decode(path, |byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte));
        let mut readings = Vec::new();
        let has_parameters = path.contains(';') || path.contains("%3b") || path.contains("%3B");
        for steps in &ORDERS[..if has_parameters { ORDERS.len() } else { 1 }] {
            let reading = merge_slashes(&steps.iter().fold(matched.clone(), |path, step| step(&path)));
            if reading.split('/').any(|segment| matches!(segment, "." | "..")) {
                return Err(DotSegments);
            }
            if reading != matched && !readings.contains(&reading) {
                readings.push(reading);
            }
        }
        Ok(Self { matched: Cow::from(matched), readings })
    }

    /// The path that routes are matched with.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.matched
    }
}

/// All servers read this path in the same way: it has no encoded bytes, parameters, backslashes, empty
/// segments, and none that begin with a dot.
fn is_plain(path: &[u8]) -> bool {
    let mut is_behind_slash = false;
    for &byte in path {
        is_behind_slash = match byte {
            b'%' | b';' | b'\\' | 0x80.. => return false,
            b'/' | b'.' if is_behind_slash => return false,
            byte => byte == b'/',
        };
    }
    true
}

/// What servers do with a path before they look for what it names.
type Step = fn(&str) -> String;

/// The orders in which they do it. In between lies nothing else: a server that leaves steps out, and one of
/// these that doesn't, see the same segments in front as long as nothing among these is to be changed. Behind
/// each stands [`merge_slashes`].
const ORDERS: [&[Step]; 4] = [
    &[decode_all, replace_backslashes, drop_parameters],
    &[decode_all, drop_parameters, replace_backslashes],
    &[drop_parameters, decode_all, replace_backslashes],
    &[replace_backslashes, drop_parameters, decode_all, replace_backslashes],
];

/// `%2F` and its like become what they stand for. What can't stand in a path by itself stays.
fn decode_all(path: &str) -> String {
    decode(path, |byte| byte.is_ascii_graphic() && !b"%?#".contains(&byte))
}

fn replace_backslashes(path: &str) -> String {
    path.replace('\\', "/")
}

/// `/a;b=c/d` becomes `/a/d` (RFC 3986 §3.3).
fn drop_parameters(path: &str) -> String {
    let names: Vec<&str> = path.split('/').map(|segment| segment.split(';').next().unwrap_or("")).collect();
    names.join("/")
}

fn merge_slashes(path: &str) -> String {
    let mut merged = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !merged.ends_with('/') {
            merged.push(c);
        }
    }
    merged
}

/// Decodes the percent-encoded bytes that are `chosen`, and spells the others in one way.
fn decode(path: &str, chosen: impl Fn(u8) -> bool) -> String {
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, behind @ ..] = rest {
        rest = behind;
        let hex = if *first == b'%' { behind.split_at_checked(2) } else { None };
        let encoded = hex.and_then(|(hex, behind)| Some((from_hex(hex)?, behind)));
        match encoded {
            Some((byte, behind)) => {
                rest = behind;
                if chosen(byte) {
                    decoded.push(char::from(byte));
                } else {
                    let _ = write!(decoded, "%{byte:02X}"); // a string takes everything
                }
            }
            // A `%` that no two hexadecimal digits follow: as `%25`, so that it can't make an escape with what is decoded
            // behind it.
            None if *first == b'%' => decoded.push_str("%25"),
            None if first.is_ascii() => decoded.push(char::from(*first)),
            None => {
                let _ = write!(decoded, "%{first:02X}");
            }
        }
    }
    decoded
}

fn from_hex(digits: &[u8]) -> Option<u8> {
    let digits = str::from_utf8(digits).ok().filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()))?;
    u8::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parameters_are_seen_in_every_encoding() {
        for semicolon in [";", "%3b", "%3B"] {
            let path = format!("/a{semicolon}%2fb");
            let mut readings = RequestPath::parse(&path).unwrap().readings;
            readings.sort_unstable();
            assert!(readings.len() > 1, "{path}: {readings:?}");
        }
    }

    #[test]
    fn dot_segments_in_every_disguise() {
        for bad in [
            "/.",
            "/..",
            "/a/../b",
            "/a/./b",
            "/%2e",
            "/%2E%2e/",
            "/.%2e/a",
            "/a/..%2fb",
            "/a%2f..%2fb",
            "/a\\..\\b",
            "/a%5c..%5Cb",
            "/..;x=1/b",
            "/%2e%2e;/b",
            "/..%3bx/b",
            "/;%2f../b",
        ] {
            assert_eq!(RequestPath::parse(bad), Err(DotSegments), "{bad}");
        }
        for good in ["/...", "/.well-known/x", "/a..b", "/a/..b", "/%2e%2ea", "/%", "/%zz", "/a%2fb", "/;/.a"]
        {
            assert!(RequestPath::parse(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn paths_in_a_configuration() {
        for bad in [
            "", "wss", "/a b", "/a?b", "/a#b", "/../a", "/a//b", "/ü", "/a;b", "/a%2fb", "/a\\b", "/%40a",
            "/a%5c",
        ] {
            assert!(RoutePath::parse(bad).is_err(), "{bad}");
        }
        let path = RoutePath::parse("/wss/").unwrap();
        assert_eq!(path.to_string(), "/wss");
        assert_eq!(path.strip("/wss"), Some(""));
        assert_eq!(path.strip("/wss/x"), Some("/x"));
        assert_eq!(path.strip("/wssx"), None);
        assert_eq!(RoutePath::parse("/").unwrap().strip("/x"), Some("/x"));
    }

    proptest! {
        #[test]
        fn a_path_without_anything_special_is_never_refused(path in "(/[a-z0-9@:!$&'()*+,=~_-]{1,4}){0,5}/?") {
            let parsed = RequestPath::parse(&path).unwrap();
            prop_assert_eq!((parsed.as_str(), parsed.readings.len()), (&*path, 0));
        }
    }
}
