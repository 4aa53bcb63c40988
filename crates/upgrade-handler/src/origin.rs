//! Which pages may open a WebSocket (RFC 6455 §10.2): cookies come with the request whoever's
//! script made it.

use std::fmt;

use http::Uri;
use http::header::{HeaderMap, ORIGIN};

use crate::refusal::Refusal;

/// An origin (RFC 6454): scheme, host and port, in their one spelling, or `null`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(Box<str>);

impl Origin {
    /// Reads `scheme://host[:port]` or `null`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == "null" {
            return Some(Self(text.into()));
        }
        let (scheme, authority) = text.split_once("://")?;
        let uri: Uri = text.parse().ok()?;
        let host = uri.host().filter(|host| !host.is_empty())?;
        if authority.contains(['/', '?', '#', '@']) {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        let default = match scheme.as_str() {
            "http" | "ws" => Some(80),
            "https" | "wss" => Some(443),
            _ => None,
        };
        // `Uri::port` takes a number that is too large for none.
        let port = match authority.get(host.len()..)?.strip_prefix(':') {
            Some(port) => Some(port.parse::<u16>().ok()?),
            None => None,
        };
        let host = host.to_ascii_lowercase();
        Some(Self(
            match port.filter(|port| Some(*port) != default) {
                Some(port) => format!("{scheme}://{host}:{port}"),
                None => format!("{scheme}://{host}"),
            }
            .into(),
        ))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Lets a request pass that names no origin (no browser) or one of `allowed`.
///
/// # Errors
/// [`Refusal::Origin`] for any other.
pub fn check(headers: &HeaderMap, allowed: &[Origin]) -> Result<(), Refusal> {
    let known = |value: &http::HeaderValue| {
        value.to_str().ok().and_then(Origin::parse).is_some_and(|origin| allowed.contains(&origin))
    };
    if headers.get_all(ORIGIN).into_iter().all(known) { Ok(()) } else { Err(Refusal::Origin) }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn one_spelling() {
        let same = |a, b| assert_eq!(Origin::parse(a), Origin::parse(b));
        same("https://Domain.com", "HTTPS://domain.com:443");
        same("http://domain.com:80", "http://domain.com");
        assert_ne!(Origin::parse("https://domain.com"), Origin::parse("http://domain.com"));
        assert_ne!(Origin::parse("https://domain.com"), Origin::parse("https://domain.com:8443"));
        assert_eq!(Origin::parse("https://[::1]:8443").unwrap().to_string(), "https://[::1]:8443");
        for bad in [
            "",
            "domain.com",
            "https://",
            "https://a/b",
            "https://u@a",
            "https://a?b",
            "https://a:99999",
            "https://a:",
            "*",
        ] {
            assert_eq!(Origin::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn foreign_origins_are_refused() {
        let allowed = [Origin::parse("https://domain.com").unwrap()];
        let check = |origins: &[&'static str]| {
            let headers = origins.iter().map(|&o| (ORIGIN, HeaderValue::from_static(o))).collect();
            check(&headers, &allowed).is_ok()
        };
        assert!(check(&[]));
        assert!(check(&["https://domain.com"]));
        assert!(check(&["https://DOMAIN.com:443"]));
        for foreign in ["https://evil.com", "null", "", "https://domain.com.evil.com", "http://domain.com"] {
            assert!(!check(&[foreign]), "{foreign:?}");
        }
        assert!(!check(&["https://domain.com", "https://evil.com"]));
    }
}
