//! Host names: as requests carry them and as routes ask for them (RFC 9110 §7.2, RFC 3986 §3.2).

use std::borrow::Cow;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, OnceLock};

use http::HeaderValue;
use tls_acceptor::normalize;

/// Bytes of a label, and of a name in text (RFC 1035 §2.3.4): no client can ask for a longer one.
const LABEL_LEN_MAX: usize = 63;
const NAME_LEN_MAX: usize = 253;

/// A valid `Host`: the field as the client wrote it, and the name in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// As it was sent, port and all.
    pub field: HeaderValue,
    /// Lower case, no port, no trailing dot. An IPv6 address keeps its brackets.
    pub name: Arc<str>,
}

impl Host {
    /// That of a request which names none, as HTTP/1.0 allows (RFC 9112 §3.3): only routes for any host serve it.
    #[must_use]
    pub fn none() -> Self {
        Self { field: HeaderValue::from_static(""), name: "".into() }
    }

    /// The same as [`Self::parse`], for one request of a connection after the other. The first name that is written as
    /// it is compared is kept in `known`, and is not checked again.
    #[must_use]
    pub fn parse_known(field: &HeaderValue, known: &OnceLock<Arc<str>>) -> Option<Self> {
        if let Some(name) = known.get().filter(|name| name.as_bytes() == field.as_bytes()) {
            return Some(Self { field: field.clone(), name: name.clone() });
        }
        let host = Self::parse(field)?;
        if host.name.as_bytes() == field.as_bytes() {
            known.get_or_init(|| host.name.clone());
        }
        Some(host)
    }

    /// Checks a `Host` field or `:authority`: a name or an address, and perhaps a port.
    #[must_use]
    pub fn parse(field: &HeaderValue) -> Option<Self> {
        let text = field.to_str().ok()?;
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']')?;
                address.parse::<Ipv6Addr>().ok()?;
                (&text[..address.len() + 2], port)
            }
            // Each request has one: its name is looked at once.
            None => {
                text.split_at_checked(text.bytes().position(|byte| !in_name(byte)).unwrap_or(text.len()))?
            }
        };
        let port_is_good = match port.strip_prefix(':') {
            Some(digits) => digits.bytes().all(|b| b.is_ascii_digit()) && digits.len() <= 5,
            None => port.is_empty(),
        };
        let name_is_good = matches!(host.len(), 1..=255);
        (port_is_good && name_is_good).then(|| Self { field: field.clone(), name: normalize(host).into() })
    }
}

/// What names are made of in practice: RFC 3986 would allow more, but no name has it and many a
/// backend stumbles over it.
fn in_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

/// A host that a route is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// Exactly this name.
    Exact(Arc<str>),
    /// Any one label before this one; shown with `*.`.
    Wildcard(Arc<str>),
}

impl HostPattern {
    /// Reads a name, an address, or `*.` before a name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (wildcard, name) = match text.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, text),
        };
        // Without brackets as well, since that is how people write addresses.
        let bracketed = match name.parse::<Ipv6Addr>() {
            Ok(_) if !wildcard => Cow::from(format!("[{name}]")),
            _ => Cow::from(name),
        };
        let host = Host::parse(&HeaderValue::from_str(&bracketed).ok()?)?;
        let has_port = bracketed.strip_suffix('.').unwrap_or(&bracketed).len() != host.name.len();
        let labels_are_good = host.name.starts_with('[')
            || host.name.len() <= NAME_LEN_MAX
                && host.name.split('.').all(|label| (1..=LABEL_LEN_MAX).contains(&label.len()));
        let ip = wildcard && (name.parse::<Ipv4Addr>().is_ok() || name.starts_with('['));
        if has_port || !labels_are_good || ip {
            return None;
        }
        Some(if wildcard { Self::Wildcard(host.name) } else { Self::Exact(host.name) })
    }

    /// `host`, which is normalized, is one of those.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => **name == *host,
            Self::Wildcard(parent) => {
                host.split_once('.').is_some_and(|(label, above)| !label.is_empty() && *above == **parent)
            }
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(parent) => write!(f, "*.{parent}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_name_changes_nothing() {
        let known = OnceLock::new();
        for text in ["A.test", "a.test:80", "a..", "a.", "a.test", "a.test", "A.test", "b.test", "a b", ""] {
            let field = HeaderValue::from_static(text);
            assert_eq!(Host::parse_known(&field, &known), Host::parse(&field), "{text}");
        }
        assert_eq!(known.get().map(|name| &**name), Some("a.test"));
    }

    #[test]
    fn hosts() {
        let name =
            |text: &str| Some(Host::parse(&HeaderValue::from_bytes(text.as_bytes()).ok()?)?.name.to_string());
        for (text, expect) in [
            ("domain.com", "domain.com"),
            ("Domain.COM.:443", "domain.com"),
            ("a_b.domain.com:", "a_b.domain.com"),
            ("127.0.0.1:8443", "127.0.0.1"),
            ("[::1]", "[::1]"),
            ("[2001:DB8::1]:8443", "[2001:db8::1]"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(name(text).as_deref(), Some(expect), "{text}");
        }
        for bad in [
            "",
            ":80",
            "a b",
            "a/b",
            "user@domain.com",
            "domain.com:x",
            "domain.com:80:80",
            "domain.com:123456",
            "[::1",
            "[::g]",
            "[::1]x",
            "::1",
            "a,b",
            "a%2eb",
            "bücher.de",
            "a\"b",
            "a\tb",
        ] {
            assert_eq!(name(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn patterns() {
        let pattern = |text: &str| HostPattern::parse(text).map(|p| p.to_string());
        assert_eq!(pattern("Domain.com.").as_deref(), Some("domain.com"));
        assert_eq!(pattern("*.Domain.com").as_deref(), Some("*.domain.com"));
        assert_eq!(pattern("::1").as_deref(), Some("[::1]"));
        assert_eq!(pattern("[::1]").as_deref(), Some("[::1]"));
        assert_eq!(pattern("10.0.0.1").as_deref(), Some("10.0.0.1"));
        for bad in
            ["", "*", "*.", "a.*.com", "domain.com:443", "a..b", "https://a", "*.10.0.0.1", "a/b", ".a"]
        {
            assert_eq!(pattern(bad), None, "{bad:?}");
        }
        let label = "a".repeat(LABEL_LEN_MAX);
        let name = [&*label; 4].join(".");
        assert!(pattern(&format!("*.{label}.com")).is_some());
        assert!(pattern(&name[..NAME_LEN_MAX]).is_some());
        assert_eq!(pattern(&format!("a{label}.com")), None);
        assert_eq!(pattern(&name[..=NAME_LEN_MAX]), None);
    }

    #[test]
    fn addresses_have_no_wildcards() {
        assert_eq!(HostPattern::parse("::1").unwrap().to_string(), "[::1]");
        for text in ["*.::1", "*.[::1]", "*.127.0.0.1"] {
            assert_eq!(HostPattern::parse(text).map(|pattern| pattern.to_string()), None, "{text}");
        }
    }
}
