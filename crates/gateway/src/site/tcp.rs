//! Servers behind `tcp://`, which speak no HTTP, and the subprotocol that a WebSocket to one of them gets. Pure.

use std::fmt;
use std::sync::Arc;

use crate::site::upstream::Upstream;

/// What a route names behind `proxy` with `tcp://`.
#[derive(Debug, Clone)]
pub struct TcpServer {
    /// Its server, and how it is reached.
    pub upstream: Arc<Upstream>,
    /// Subprotocols that clients may choose.
    pub subprotocols: Box<[Box<str>]>,
}

impl TcpServer {
    /// Reads the rest of `tcp://host:port`. The timeouts are the defaults, and there are no subprotocols.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub fn parse(address: &str) -> Result<Upstream, String> {
        const EXAMPLE: &str = "such as \"tcp://127.0.0.1:5900\"";
        if address.contains('@') {
            // A message that quotes it would repeat a password.
            return Err(format!(
                "expected an address {EXAMPLE}; user names and passwords in it are not supported"
            ));
        }
        let found = format!("found \"tcp://{address}\"");
        if address.contains(['/', '?', '#']) {
            return Err(format!("a TCP stream has no path: expected an address {EXAMPLE}, {found}"));
        }
        let has_port = address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        if !has_port || address.parse::<std::net::Ipv6Addr>().is_ok() {
            return Err(format!("the port is missing: expected an address {EXAMPLE}, {found}"));
        }
        Upstream::parse(&format!("http://{address}"))
            .map_err(|_| format!("expected an address {EXAMPLE}, {found}"))
    }

    /// The first of the client's subprotocols that is known here; `None`: the client gets none (RFC 6455 §4.2.2).
    #[must_use]
    pub fn subprotocol(&self, offered: &[Box<str>]) -> Option<&str> {
        let known = |offered| self.subprotocols.iter().find(|known| *known == offered);
        offered.iter().find_map(known).map(|protocol| &**protocol)
    }
}

impl fmt::Display for TcpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tcp://{}", self.upstream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for address in ["127.0.0.1:5900", "vnc.internal:5900", "[::1]:1883"] {
            assert_eq!(TcpServer::parse(address).unwrap().to_string(), address);
        }
        for (bad, why) in [
            ("127.0.0.1", "the port is missing"),
            ("vnc", "the port is missing"),
            ("::1", "the port is missing"),
            ("a:0", "expected an address"),
            ("a:99999", "the port is missing"),
            ("user@a:1", "expected an address"),
            ("a:1/", "has no path"),
            ("a:1?x", "has no path"),
            (":5900", "expected an address"),
            ("", "the port is missing"),
        ] {
            let error = TcpServer::parse(bad).expect_err(bad);
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn the_client_chooses_its_subprotocol() {
        let upstream = Arc::new(TcpServer::parse("a:1").unwrap());
        let server = TcpServer { upstream, subprotocols: ["binary".into(), "mqtt".into()].into() };
        for (offered, expect) in [
            (&["mqtt", "binary"][..], Some("mqtt")),
            (&["chat", "binary"], Some("binary")),
            (&["Binary"], None),
            (&[], None),
        ] {
            let offered: Vec<Box<str>> = offered.iter().map(|&name| name.into()).collect();
            assert_eq!(server.subprotocol(&offered), expect, "{offered:?}");
        }
        assert_eq!(server.to_string(), "tcp://a:1");
    }
}
