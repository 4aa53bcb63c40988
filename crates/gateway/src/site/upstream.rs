//! Backends as routes name them. Pure.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use crate::net::proxy_protocol::ProxyVersion;
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
    /// Servers are told by the PROXY protocol who the client is.
    pub proxy_protocol: Option<ProxyVersion>,
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
    /// A body without a length that has at most so many bytes is waited for, and sent with one.
    pub buffer_request: Option<u64>,
    /// What stands behind its address, in place of the route's own path; `None`: nothing, not even a slash.
    pub path: Option<RoutePath>,
    /// Field names are passed on over HTTP/1.1 as they were sent.
    pub keeps_names: bool,
}

impl Upstream {
    /// The server at an address as [`Endpoint::parse`] reads it. The timeouts and the other settings are the defaults.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (endpoint, path) = Endpoint::parse(text)?;
        Ok(Self {
            endpoint: Arc::new(endpoint),
            connector: Connector { connect_timeout: CONNECT_TIMEOUT, pooled: true, proxy_protocol: None },
            response_timeout: RESPONSE_TIMEOUT,
            buffer_request: None,
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
