//! How connections of a listener are received.

use std::sync::Arc;

use ipnet::IpNet;
use net_io::count::ByWorker;
use tls_acceptor::Acceptor;

use crate::net::limits::ClientLimits;
use crate::net::listening::ListenAddress;
use crate::net::networks::Networks;
use crate::site::counts::ListenerCounts;

/// How connections of a listener are received.
#[derive(Debug)]
pub struct ListenerState {
    /// What routes call it.
    pub name: Arc<str>,
    /// `None`: plain text.
    pub acceptor: Option<Acceptor>,
    /// How long clients are waited for.
    pub limits: Arc<ClientLimits>,
    /// WebSockets may be opened over HTTP/2 (RFC 8441).
    pub websocket_over_http2: bool,
    /// Balancers whose connections begin with a header of the PROXY protocol.
    pub proxy_protocol: Networks,
    /// Plain HTTP is sent to `https://`.
    pub redirect: bool,
    /// What each worker counts of it. It survives reloads.
    pub counts: Arc<ByWorker<ListenerCounts>>,
}

/// What a listener is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerSettings {
    /// What routes call it.
    pub name: Arc<str>,
    /// The address; port 0 lets the system choose.
    pub address: ListenAddress,
    /// `None`: plain text, HTTP/1.1 only.
    pub tls: Option<tls_acceptor::AcceptorSettings>,
    /// How long clients are waited for.
    pub limits: ClientLimits,
    /// WebSockets may be opened over HTTP/2 (RFC 8441).
    pub websocket_over_http2: bool,
    /// Balancers whose connections begin with a header of the PROXY protocol.
    pub proxy_protocol: Vec<IpNet>,
    /// Plain HTTP is sent to `https://`: by a listener without TLS for every host that one with TLS serves, by one with
    /// TLS for its own hosts.
    pub redirect: bool,
}
