//! Server names as certificates and clients write them (RFC 6066 §3, RFC 9525 §6.3).
//!
//! Parsed once: lower case, no trailing dot. A wildcard stands for exactly one label, and only
//! for the leftmost.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use rustls_pki_types::DnsName;

/// A name that a certificate is valid for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CertName {
    /// `a.example`, lower case, no trailing dot.
    Exact(Box<str>),
    /// `*.example`, held as `example`.
    Wildcard(Box<str>),
    /// An address. No SNI can ask for it (RFC 6066 §3), but it may be the default.
    Ip(IpAddr),
}

impl CertName {
    /// Reads a DNS name or `*.` before one; `None` if it is neither.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let (wildcard, rest) = match name.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, name),
        };
        let rest = normalize(rest);
        DnsName::try_from(&*rest).ok()?;
        let rest = Box::from(rest);
        Some(if wildcard { Self::Wildcard(rest) } else { Self::Exact(rest) })
    }
}

impl fmt::Display for CertName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(parent) => write!(f, "*.{parent}"),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

/// Lower case, without one trailing dot. Copies only what it has to change.
#[must_use]
pub fn normalize(name: &str) -> Cow<'_, str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|b| b.is_ascii_uppercase()) { name.to_ascii_lowercase().into() } else { name.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let exact = |s: &str| Some(CertName::Exact(s.into()));
        let wildcard = |s: &str| Some(CertName::Wildcard(s.into()));
        assert_eq!(CertName::parse("Domain.COM"), exact("domain.com"));
        assert_eq!(CertName::parse("domain.com."), exact("domain.com"));
        assert_eq!(CertName::parse("*.Domain.com"), wildcard("domain.com"));
        assert_eq!(CertName::parse("_dmarc.domain.com"), exact("_dmarc.domain.com"));
        assert_eq!(CertName::parse("localhost"), exact("localhost"));
        for bad in
            ["", ".", "*", "*.", "*.*.com", "a.*.com", "f*.com", "a..b", "-a.com", "a b.com", "bücher.de"]
        {
            assert_eq!(CertName::parse(bad), None, "{bad:?}");
        }
    }
}
