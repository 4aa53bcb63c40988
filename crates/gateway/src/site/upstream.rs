//! Backends as routes name them. Pure.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::site::endpoint::Endpoint;
use crate::site::path::RoutePath;

/// How long a connection to a server may take where nothing is said.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a server may keep a request waiting where nothing is said.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// How servers of an upstream are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connector {
    /// For a TCP connection, the look-up of the name included.
    pub connect_timeout: Duration,
    /// Connections are kept for other requests.
    pub pooled: bool,
}

/// What a route names behind `proxy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Its server.
    pub endpoint: Arc<Endpoint>,
    /// How its server is reached.
    pub connector: Connector,
    /// From the request to the head of the answer.
    pub response_timeout: Duration,
    /// What stands behind its address, in place of the route's own path; `None`: nothing, not even a slash.
    pub path: Option<RoutePath>,
    /// Field names are passed on over HTTP/1.1 as they were sent.
    pub keeps_names: bool,
}

impl Upstream {
    /// Reads `http://host[:port][/path]` or `ws://…`, which means the same. The timeouts and the other settings are the
    /// defaults.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        const EXAMPLE: &str = "such as \"http://127.0.0.1:8080\"";
        let rest = match text.split_once("://") {
            Some(("http" | "ws", rest)) => rest,
            Some((scheme @ ("https" | "wss"), _)) => {
                return Err(format!("TLS towards backends is not supported yet ({scheme}://); use http://"));
            }
            _ => return Err(format!("expected an address {EXAMPLE}, found {text:?}")),
        };
        let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let path = match rest {
            "" => None,
            rest if rest.starts_with('/') => Some(
                RoutePath::parse(rest).map_err(|what| format!("what stands behind the address: {what}"))?,
            ),
            rest => {
                return Err(format!("an address ends with its path, found {rest:?} behind it: remove it"));
            }
        };
        let authority: http::uri::Authority =
            authority.parse().map_err(|_| format!("expected an address {EXAMPLE}, found {text:?}"))?;
        if authority.as_str().contains('@') {
            return Err("user names and passwords in an address are not supported; remove them".into());
        }
        // `Authority::port` takes a number that is too large for none.
        let port = match authority.as_str()[authority.host().len()..].strip_prefix(':') {
            Some(port) => port.parse().map_err(|_| format!("expected a port number, found {port:?}"))?,
            None => 80,
        };
        if authority.host().is_empty() || port == 0 {
            return Err(format!("expected an address {EXAMPLE}, found {text:?}"));
        }
        Ok(Self {
            endpoint: Arc::new(Endpoint::new(authority.host(), port)),
            connector: Connector { connect_timeout: CONNECT_TIMEOUT, pooled: true },
            response_timeout: RESPONSE_TIMEOUT,
            path,
            keeps_names: false,
        })
    }

    /// The server that the next request goes to.
    #[must_use]
    pub fn choose(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.endpoint.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let parse = |text: &str| {
            Upstream::parse(text)
                .map(|u| (u.to_string(), u.path.map_or(String::new(), |path| path.to_string())))
        };
        for (text, address, path) in [
            ("http://127.0.0.1:8282", "127.0.0.1:8282", ""),
            ("ws://127.0.0.1:8282", "127.0.0.1:8282", ""),
            ("http://backend", "backend:80", ""),
            ("http://[::1]:8080", "[::1]:8080", ""),
            ("http://127.0.0.1:8080/", "127.0.0.1:8080", "/"),
            ("ws://127.0.0.1:8282/wss", "127.0.0.1:8282", "/wss"),
            ("ws://127.0.0.1:8282/wss/", "127.0.0.1:8282", "/wss"),
        ] {
            assert_eq!(parse(text), Ok((address.to_owned(), path.to_owned())), "{text}");
        }
        for (bad, why) in [
            ("127.0.0.1:8080", "expected an address"),
            ("https://127.0.0.1", "not supported yet"),
            ("http://", "expected an address"),
            ("http://a:0", "expected an address"),
            ("http://a:99999", "port number"),
            ("http://user:secret@a", "user names"),
            ("http://a/../b", "behind the address"),
            ("http://a/wss?x", "without ?"),
            ("http://a?x", "ends with its path"),
            ("http://a b", "expected an address"),
        ] {
            let error = parse(bad).expect_err(bad);
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
