//! Servers: which one a connection leads to. Pure.

use std::cmp::Ordering;
use std::fmt;

use http::HeaderValue;

/// A server. A connection to one of two equal endpoints serves requests for the other.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// A name or an address; IPv6 in brackets.
    pub host: Box<str>,
    /// The port.
    pub port: u16,
    /// Both, as the log has them. Endpoints are compared by this.
    pub address: Box<str>,
}

impl Endpoint {
    /// The server on this port of this host.
    #[must_use]
    pub fn new(host: &str, port: u16) -> Self {
        Self { host: host.into(), port, address: format!("{host}:{port}").into() }
    }

    /// As a `Host` of its own.
    #[must_use]
    pub fn field(&self) -> HeaderValue {
        HeaderValue::from_str(&self.address).unwrap_or(HeaderValue::from_static(""))
    }
}

impl PartialEq for Endpoint {
    fn eq(&self, other: &Self) -> bool {
        self.address == other.address
    }
}

impl Eq for Endpoint {}

impl PartialOrd for Endpoint {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Endpoint {
    fn cmp(&self, other: &Self) -> Ordering {
        self.address.cmp(&other.address)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}
