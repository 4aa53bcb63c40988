//! Who may see the page, and who may change something by it.
//!
//! A page of another site that is open in the operator's browser can send requests here, too. It can't read their answers,
//! unless its own name has come to mean this address (DNS rebinding): so the `Host` has to be one of the listener's, and
//! an `Origin` has to be that host. Pure.

use std::net::{IpAddr, SocketAddr};

use http::Version;
use http::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, ORIGIN};

use crate::net::listening::UNIX_PEER;
use crate::site::admin_token::AdminToken;
use crate::site::host::{Host, HostPattern};

/// What the configuration says of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PageRules {
    /// More names of the listener.
    pub(crate) hosts: Vec<HostPattern>,
    /// What has to be known; `None`: the page is shown where it needs none.
    pub(crate) token: Option<AdminToken>,
    /// Something may be changed.
    pub(crate) has_actions: bool,
}

/// What a request has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Only this machine can send it.
    Nothing,
    /// The token.
    Token,
}

/// Why a request is refused, whatever it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stranger {
    /// It has none, or several, or one that is no host.
    #[error("a request needs one Host field, with a name or an address")]
    NoHost,
    /// Perhaps another site's name leads here.
    #[error(
        "this page has another name: ask for it by the address of [admin], over a Unix socket as localhost, or add this \
         name to host in [admin] and reload"
    )]
    Host,
    /// Another site sends it.
    #[error("another site sends this request, so it is refused")]
    Origin,
}

/// Says that a request came by another machine, whatever it says of that.
const FORWARDED_BY: [&str; 3] = ["forwarded", "via", "x-real-ip"];
/// What fields that say so begin with.
const FORWARDED_PREFIX: &str = "x-forwarded-";

impl PageRules {
    /// Judges a request that came from `peer` to `local`; over a Unix socket both are [`UNIX_PEER`].
    ///
    /// # Errors
    /// Why it is refused.
    pub(crate) fn judge(
        &self,
        headers: &HeaderMap,
        version: Version,
        peer: SocketAddr,
        local: SocketAddr,
    ) -> Result<Needs, Stranger> {
        let host = only(headers, &HOST).and_then(Host::parse).ok_or(Stranger::NoHost)?;
        let is_own = is_own(&host, local);
        if !is_own && !self.hosts.iter().any(|pattern| pattern.matches(&host.name)) {
            return Err(Stranger::Host);
        }
        if !is_from_own_page(headers, &host) {
            return Err(Stranger::Origin);
        }
        let is_here = is_unix(local) || is_loopback(peer.ip()) && is_loopback(local.ip());
        // A name of the configuration's may lead over a proxy.
        let is_direct = is_own && is_here && !is_forwarded(headers, version);
        Ok(if is_direct { Needs::Nothing } else { Needs::Token })
    }

    /// `text` is the token.
    #[must_use]
    pub(crate) fn knows(&self, text: &[u8]) -> bool {
        self.token.as_ref().is_some_and(|token| token.is(text))
    }
}

/// What stands in `Authorization: Bearer` (RFC 6750 §2.1).
#[must_use]
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, token) = only(headers, &AUTHORIZATION)?.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// A proxy sends it.
fn is_forwarded(headers: &HeaderMap, version: Version) -> bool {
    let is_said = FORWARDED_BY.iter().any(|name| headers.contains_key(*name))
        || headers.keys().any(|name| name.as_str().starts_with(FORWARDED_PREFIX));
    // No browser speaks HTTP/1.0; nginx does by default, with the address of its server as Host.
    is_said || version == Version::HTTP_10
}

/// The address that the connection came to, or `localhost`, with its port. A Unix socket has neither: there, it is any
/// loopback address, as `ssh -L` gives it one.
fn is_own(host: &Host, local: SocketAddr) -> bool {
    let field = host.field.to_str().unwrap_or_default();
    let is_port = |digits: &&str| digits.bytes().all(|byte| byte.is_ascii_digit());
    let port = field.rsplit_once(':').map(|(_, port)| port).filter(is_port);
    let port = port.map_or(Some(80), |digits| digits.parse().ok());
    let name = host.name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(&host.name);
    let address = name.parse::<IpAddr>().map(|address| address.to_canonical());
    if is_unix(local) {
        return address.map_or(name == "localhost", |address| address.is_loopback());
    }
    let is_name = match address {
        Ok(address) => address == local.ip().to_canonical(),
        Err(_) => name == "localhost" && is_loopback(local.ip()),
    };
    is_name && port == Some(local.port())
}

/// No other site sends it, as far as browsers say.
fn is_from_own_page(headers: &HeaderMap, host: &Host) -> bool {
    if headers.contains_key(ORIGIN) {
        // TLS may have been taken off on the way, so that either scheme is right.
        let origin = only(headers, &ORIGIN).map_or(&b""[..], http::HeaderValue::as_bytes);
        let authority = origin.strip_prefix(b"http://").or(origin.strip_prefix(b"https://"));
        return authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host.field.as_bytes()));
    }
    // (Fetch Metadata §2.4) A link on another site may lead here: that site sees nothing of it.
    let site = headers.get("sec-fetch-site").map(http::HeaderValue::as_bytes);
    let is_link = headers.get("sec-fetch-mode").is_some_and(|mode| mode == "navigate");
    matches!(site, None | Some(b"same-origin" | b"none")) || is_link
}

fn is_unix(local: SocketAddr) -> bool {
    local.ip() == UNIX_PEER
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// The field's value, if there is exactly one.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a http::HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: &str = "127.0.0.1:9180";

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let pairs = fields.iter().map(|(name, value)| {
            (HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse::<http::HeaderValue>().unwrap())
        });
        let mut headers = HeaderMap::new();
        headers.extend(pairs);
        headers
    }

    fn rules() -> PageRules {
        let hosts = ["ops.test", "*.wild.test"].map(|host| HostPattern::parse(host).unwrap());
        PageRules { hosts: hosts.into(), ..PageRules::default() }
    }

    #[track_caller]
    fn check(local: &str, peer: &str, fields: &[(&str, &str)], expect: Result<Needs, Stranger>) {
        let (peer, local) = (peer.parse().unwrap(), local.parse().unwrap());
        let judged = rules().judge(&headers(fields), Version::HTTP_11, peer, local);
        assert_eq!(judged, expect, "{fields:?}");
    }

    #[test]
    fn hosts() {
        let here = |host, expect| check(LOCAL, "127.0.0.1:5", &[("host", host)], expect);
        for own in [LOCAL, "localhost:9180", "LOCALHOST:9180"] {
            here(own, Ok(Needs::Nothing));
        }
        for name in ["ops.test", "ops.test:9180", "OPS.test:1", "a.wild.test"] {
            here(name, Ok(Needs::Token));
        }
        for other in [
            "attacker.test:9180",
            "127.0.0.1",
            "127.0.0.1:80",
            "127.0.0.2:9180",
            "localhost",
            "localhost.attacker.test:9180",
            "ops.test.attacker.test",
            "wild.test",
            "a.b.wild.test",
            "[::1]:9180",
            "127.0.0.1:09181",
            "2130706433:9180",
        ] {
            here(other, Err(Stranger::Host));
        }
        for none in ["", "a b", "user@127.0.0.1:9180", "127.0.0.1:9180/"] {
            here(none, Err(Stranger::NoHost));
        }
        check(LOCAL, "127.0.0.1:5", &[], Err(Stranger::NoHost));
        check(LOCAL, "127.0.0.1:5", &[("host", LOCAL), ("host", LOCAL)], Err(Stranger::NoHost));
        check("[::1]:9180", "[::1]:5", &[("host", "[::1]:9180")], Ok(Needs::Nothing));
        check("[::1]:80", "[::1]:5", &[("host", "[::1]")], Ok(Needs::Nothing));
        check("127.0.0.1:80", "127.0.0.1:5", &[("host", "localhost")], Ok(Needs::Nothing));
    }

    #[test]
    fn from_another_machine_the_token_is_needed() {
        check("192.0.2.1:9180", "192.0.2.2:5", &[("host", "192.0.2.1:9180")], Ok(Needs::Token));
        check("192.0.2.1:9180", "192.0.2.2:5", &[("host", "localhost:9180")], Err(Stranger::Host));
        check("[::ffff:127.0.0.1]:9180", "[::ffff:127.0.0.1]:5", &[("host", LOCAL)], Ok(Needs::Nothing));
        for forwarded in
            ["x-forwarded-for", "forwarded", "via", "x-real-ip", "x-forwarded-host", "x-forwarded-proto"]
        {
            check(LOCAL, "127.0.0.1:5", &[("host", LOCAL), (forwarded, "x")], Ok(Needs::Token));
        }
        let (peer, local) = ("127.0.0.1:5".parse().unwrap(), LOCAL.parse().unwrap());
        let old = rules().judge(&headers(&[("host", LOCAL)]), Version::HTTP_10, peer, local);
        assert_eq!(old, Ok(Needs::Token), "a proxy's");
    }

    #[test]
    fn a_unix_socket_is_called_by_any_address_of_this_machine() {
        const UNIX: &str = "[::]:0";
        let host = |host, expect| check(UNIX, UNIX, &[("host", host)], expect);
        for own in ["localhost", "localhost:9180", "127.0.0.1:9999", "[::1]:80", "127.0.0.3"] {
            host(own, Ok(Needs::Nothing));
        }
        host("ops.test", Ok(Needs::Token));
        for other in ["attacker.test", "192.0.2.1:9180", "[::]:80", "localhost.attacker.test"] {
            host(other, Err(Stranger::Host));
        }
        let fields = [("host", "localhost:9180"), ("origin", "http://localhost:9180")];
        check(UNIX, UNIX, &fields, Ok(Needs::Nothing));
        check(UNIX, UNIX, &[fields[0], ("origin", "http://attacker.test")], Err(Stranger::Origin));
        check(UNIX, UNIX, &[fields[0], ("x-forwarded-for", "192.0.2.1")], Ok(Needs::Token));
    }

    #[test]
    fn other_sites_are_refused() {
        let with = |fields: &[(&str, &str)], expect| {
            let fields = [&[("host", LOCAL)], fields].concat();
            check(LOCAL, "127.0.0.1:5", &fields, expect);
        };
        for own in [
            "http://127.0.0.1:9180",
            "https://127.0.0.1:9180",
            "HTTP://127.0.0.1:9180".to_lowercase().as_str(),
        ] {
            with(&[("origin", own)], Ok(Needs::Nothing));
        }
        for other in [
            "null",
            "",
            "http://attacker.test",
            "http://127.0.0.1",
            "http://localhost:9180",
            "file://",
            LOCAL,
        ] {
            with(&[("origin", other)], Err(Stranger::Origin));
        }
        with(&[("origin", "http://127.0.0.1:9180"), ("origin", "http://a.test")], Err(Stranger::Origin));
        for (site, mode, expect) in [
            ("same-origin", "cors", Ok(Needs::Nothing)),
            ("none", "navigate", Ok(Needs::Nothing)),
            ("cross-site", "navigate", Ok(Needs::Nothing)),
            ("cross-site", "no-cors", Err(Stranger::Origin)),
            ("same-site", "cors", Err(Stranger::Origin)),
        ] {
            with(&[("sec-fetch-site", site), ("sec-fetch-mode", mode)], expect);
        }
    }

    #[test]
    fn bearers() {
        let of = |value: &str| bearer(&headers(&[("authorization", value)])).map(<[u8]>::to_vec);
        assert_eq!(of("Bearer abc").as_deref(), Some(&b"abc"[..]));
        assert_eq!(of("bearer  abc ").as_deref(), Some(&b"abc"[..]));
        for none in ["Basic abc", "abc", "", "Bearer"] {
            assert_eq!(of(none), None, "{none}");
        }
    }
}
