//! Which pages may open a WebSocket (RFC 6455 §10.2): cookies come with a request of any
//! page's script.
//!
//! In: what a configuration allows, and the `Origin` fields of a request. Out: yes or no. Pure.

use std::fmt;
use std::net::Ipv4Addr;

use http::Uri;
use http::header::{HeaderMap, HeaderValue, ORIGIN};

use crate::refusal::Refusal;

/// An origin (RFC 6454 §6.2): scheme, host and port, in their one spelling, or `null`.
///
/// Schemes other than http and https are those of apps (`capacitor://localhost`, `chrome-extension://…`);
/// `file://` alone has no host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(Box<str>);

impl Origin {
    /// Reads `scheme://host[:port]`, `file://` or `null`.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text == "null" {
            return Some(Self(text.into()));
        }
        let (scheme, authority) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        if !is_scheme(&scheme) {
            return None;
        }
        let text = match (scheme.as_str(), authority) {
            // Browsers say null for files, apps made with a browser inside say this.
            ("file", "" | "/") => "file://".to_owned(),
            ("http", _) => with_port(&scheme, authority, 80)?,
            ("https", _) => with_port(&scheme, authority, 443)?,
            _ if is_opaque_host(authority) => format!("{scheme}://{}", authority.to_ascii_lowercase()),
            _ => return None,
        };
        Some(Self(text.into()))
    }
}

/// (RFC 3986 §3.1)
fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

/// What the hosts of other schemes are made of is their own matter.
fn is_opaque_host(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && !b"/?#@\\*\"<>".contains(&b))
}

/// A host as the web knows it, without the port that goes without saying.
fn with_port(scheme: &str, authority: &str, default: u16) -> Option<String> {
    if authority.contains(['/', '?', '#', '@', '*']) {
        return None;
    }
    let uri: Uri = format!("{scheme}://{authority}").parse().ok()?;
    let host = uri.host().filter(|host| !host.is_empty())?.to_ascii_lowercase();
    // `Uri::port` takes a number that is too large for none.
    let port = match authority.get(host.len()..)?.strip_prefix(':') {
        Some(port) => Some(port.parse::<u16>().ok()?),
        None => None,
    };
    Some(match port.filter(|port| *port != default) {
        Some(port) => format!("{scheme}://{host}:{port}"),
        None => format!("{scheme}://{host}"),
    })
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Origins that a configuration allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginPattern {
    /// This one.
    Exact(Origin),
    /// Any one label in front of this name, as a wildcard in a certificate or a route's host: neither the name
    /// by itself nor two labels.
    Wildcard {
        /// `https://`
        scheme: Box<str>,
        /// `.domain.com`, with its port if that isn't the scheme's.
        parent: Box<str>,
    },
}

impl OriginPattern {
    /// Reads an origin, or one with `*.` before its host.
    ///
    /// # Errors
    /// A sentence about what is wrong, and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Err("\"*\" would allow every page; to allow every page, remove origins".to_owned());
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            if scheme.eq_ignore_ascii_case("ws") || scheme.eq_ignore_ascii_case("wss") {
                let page = if scheme.len() == 2 { "http" } else { "https" };
                return Err(format!(
                    "an origin is the page's address, not the socket's: write \"{page}://{rest}\", found {text:?}"
                ));
            }
            if let Some(parent) = rest.strip_prefix("*.")
                && matches!(&*scheme.to_ascii_lowercase(), "http" | "https")
                && let Some(pattern) = Self::wildcard(scheme, parent)
            {
                return Ok(pattern);
            }
            if rest.contains('*') {
                return Err(format!(
                    "a * stands for one label at the front of a name, as in \"https://*.domain.com\", found {text:?}"
                ));
            }
        }
        if let Some(origin) = Origin::parse(text) {
            return Ok(Self::Exact(origin));
        }
        let hint = match text.split_once("://") {
            None => Origin::parse(&format!("https://{text}")).filter(|_| !text.contains(':')),
            Some((scheme, rest)) => rest
                .split(['/', '?', '#'])
                .next()
                .and_then(|authority| Origin::parse(&format!("{scheme}://{authority}"))),
        };
        let found = hint.map_or_else(String::new, |hint| format!("write \"{hint}\", "));
        Err(format!(
            "expected an origin such as \"https://domain.com\" (scheme and host, no path): {found}found {text:?}"
        ))
    }

    fn wildcard(scheme: &str, parent: &str) -> Option<Self> {
        let Origin(whole) = Origin::parse(&format!("{scheme}://{parent}"))?;
        let (scheme, parent) = whole.split_once("://")?;
        let name = parent.split(':').next()?;
        if name.parse::<Ipv4Addr>().is_ok() || name.split('.').any(str::is_empty) || name.starts_with('[') {
            return None;
        }
        Some(Self::Wildcard { scheme: format!("{scheme}://").into(), parent: format!(".{parent}").into() })
    }

    /// The pattern allows this origin.
    #[must_use]
    pub(crate) fn matches(&self, origin: &Origin) -> bool {
        match self {
            Self::Exact(exact) => exact == origin,
            Self::Wildcard { scheme, parent } => {
                let host = origin.0.strip_prefix(&**scheme);
                let label = host.and_then(|host| host.strip_suffix(&**parent));
                label.is_some_and(|label| !label.is_empty() && !label.contains(['.', ':', '[']))
            }
        }
    }
}

impl fmt::Display for OriginPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(origin) => origin.fmt(f),
            Self::Wildcard { scheme, parent } => write!(f, "{scheme}*{parent}"),
        }
    }
}

/// Lets a request pass that names no origin (no browser) or only ones that are `allowed`.
///
/// # Errors
/// [`Refusal::Origin`] for any other.
pub fn check(headers: &HeaderMap, allowed: &[OriginPattern]) -> Result<(), Refusal> {
    let is_allowed = |value: &HeaderValue| {
        let origin = value.to_str().ok().and_then(Origin::parse);
        origin.is_some_and(|origin| allowed.iter().any(|pattern| pattern.matches(&origin)))
    };
    if headers.get_all(ORIGIN).into_iter().all(is_allowed) { Ok(()) } else { Err(Refusal::Origin) }
}

/// Bytes of an origin that a log line shows.
const SHOWN_MAX: usize = 256;

/// The origins of a request for a log line: escaped, and cut.
#[must_use]
pub fn shown(headers: &HeaderMap) -> String {
    let all: Vec<&[u8]> = headers.get_all(ORIGIN).into_iter().map(HeaderValue::as_bytes).collect();
    let all = all.join(&b", "[..]);
    match all.get(..SHOWN_MAX) {
        Some(cut) => format!("\"{}…\"", cut.escape_ascii()),
        None => format!("\"{}\"", all.escape_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling() {
        let same = |a, b| assert_eq!(Origin::parse(a).unwrap(), Origin::parse(b).unwrap());
        same("https://Domain.com", "HTTPS://domain.com:443");
        same("http://domain.com:80", "http://domain.com");
        same("file://", "FILE:///");
        same("chrome-extension://AbC", "Chrome-Extension://abc");
        assert_ne!(Origin::parse("https://domain.com"), Origin::parse("http://domain.com"));
        assert_ne!(Origin::parse("https://domain.com"), Origin::parse("https://domain.com:8443"));
        assert_eq!(Origin::parse("https://[::1]:8443").unwrap().to_string(), "https://[::1]:8443");
        for app in [
            "null",
            "file://",
            "capacitor://localhost",
            "app://obsidian.md",
            "moz-extension://0-a_b",
            "x+y.z://a:1",
        ] {
            assert_eq!(Origin::parse(app).unwrap().to_string(), app);
        }
        for bad in [
            "",
            "domain.com",
            "https://",
            "https:///",
            "https://a/b",
            "https://u@a",
            "https://a?b",
            "https://a:99999",
            "https://a:",
            "https://*.a",
            "*",
            "file://a/b",
            "app://",
            "app:///a",
            "1app://a",
            "a b://c",
            "app://a b",
            "Null",
        ] {
            assert_eq!(Origin::parse(bad), None, "{bad:?}");
        }
    }

    fn allows(allowed: &[&str], origins: &[&str]) -> bool {
        let allowed: Vec<_> = allowed.iter().map(|text| OriginPattern::parse(text).unwrap()).collect();
        let line = |origin: &&str| (ORIGIN, HeaderValue::from_bytes(origin.as_bytes()).unwrap());
        check(&origins.iter().map(line).collect(), &allowed).is_ok()
    }

    #[test]
    fn foreign_origins_are_refused() {
        let allowed = &["https://domain.com"];
        assert!(allows(allowed, &[]));
        assert!(allows(allowed, &["https://domain.com"]));
        assert!(allows(allowed, &["https://DOMAIN.com:443"]));
        for foreign in [
            "https://evil.com",
            "null",
            "",
            "https://domain.com.evil.com",
            "http://domain.com",
            "https://dom\u{e4}in.com",
        ] {
            assert!(!allows(allowed, &[foreign]), "{foreign:?}");
        }
        assert!(!allows(allowed, &["https://domain.com", "https://evil.com"]));
    }

    #[test]
    fn a_wildcard_is_one_label() {
        let allowed = &["HTTPS://*.Domain.com:443"];
        for good in ["https://a.domain.com", "https://A-1.domain.com:443"] {
            assert!(allows(allowed, &[good]), "{good}");
        }
        for foreign in [
            "https://domain.com",
            "https://.domain.com",
            "https://a.b.domain.com",
            "https://a.domain.com:8443",
            "http://a.domain.com",
            "https://evildomain.com",
            "https://a.domain.com.evil.com",
            "https://evil:1.domain.com",
            "https://*.domain.com",
        ] {
            assert!(!allows(allowed, &[foreign]), "{foreign}");
        }
        assert!(allows(&["http://*.localhost:3000"], &["http://app.localhost:3000"]));
        assert!(!allows(&["http://*.localhost:3000"], &["http://app.localhost"]));
        assert_eq!(
            OriginPattern::parse("https://*.Domain.com:8443").unwrap().to_string(),
            "https://*.domain.com:8443"
        );
    }

    #[test]
    fn apps_can_be_allowed() {
        for app in ["file://", "null", "capacitor://localhost", "ionic://localhost", "chrome-extension://abc"]
        {
            assert!(allows(&[app], &[app]), "{app}");
            assert!(!allows(&[app], &["https://localhost"]), "{app}");
        }
        assert!(allows(&["file://"], &["file:///"]));
    }

    #[test]
    fn an_invalid_origin_is_an_error_that_names_the_valid_form() {
        for (bad, write) in [
            ("wss://domain.com", "write \"https://domain.com\""),
            ("WS://domain.com:8080", "write \"http://domain.com:8080\""),
            ("wss://*.domain.com", "write \"https://*.domain.com\""),
            ("*", "remove origins"),
            ("domain.com", "write \"https://domain.com\""),
            ("https://Domain.com/", "write \"https://domain.com\""),
            ("https://domain.com/app?x", "write \"https://domain.com\""),
            ("https://*", "as in \"https://*.domain.com\""),
            ("https://*.*.domain.com", "as in \"https://*.domain.com\""),
            ("https://a.*.com", "as in \"https://*.domain.com\""),
            ("https://domain.com:*", "as in \"https://*.domain.com\""),
            ("https://*.127.0.0.1", "as in \"https://*.domain.com\""),
            ("https://*..com", "as in \"https://*.domain.com\""),
            ("app://*.domain", "as in \"https://*.domain.com\""),
            ("https://", "expected an origin"),
            ("", "expected an origin"),
            ("localhost:3000", "expected an origin"),
        ] {
            let error = OriginPattern::parse(bad).unwrap_err();
            assert!(error.contains(write), "{bad}: {error}");
        }
    }

    #[test]
    fn a_log_line_shows_an_escaped_part() {
        let shown = |origin: &[u8]| {
            super::shown(&[(ORIGIN, HeaderValue::from_bytes(origin).unwrap())].into_iter().collect())
        };
        assert_eq!(shown(b"https://evil.com"), "\"https://evil.com\"");
        assert_eq!(shown(b"a\tb\"\xff"), r#""a\tb\"\xff""#);
        assert_eq!(shown(&[b'a'; 60_000]).len(), SHOWN_MAX + "\"…\"".len());
    }
}
