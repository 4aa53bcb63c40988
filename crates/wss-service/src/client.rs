//! What is known of a client: its connection, and the request that opened the session.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use ipnet::IpNet;
use tls_acceptor::{ClientRules, PeerCertificate};
use tokio::sync::OwnedSemaphorePermit;

/// What a TLS handshake has brought.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The name that the client asked for, in lower case.
    pub server_name: Option<Box<str>>,
    /// As the protocol calls it, `TLSv1.3`.
    pub version: &'static str,
    /// The session was resumed from a ticket.
    pub resumed: bool,
    /// The certificate that the client has shown, where the certificates ask for one, verified.
    pub client_certificate: Option<Box<PeerCertificate>>,
    /// Under which rules it was asked for.
    pub(crate) client_rules: Option<ClientRules>,
}

/// Who sends a request. It is among the extensions of each request that [`Service::when`](crate::Service::when) judges or the
/// service beside the sessions answers ([`Service::otherwise`](crate::Service::otherwise)): axum's handlers have it by
/// `Extension<Peer>`. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Peer {
    link: Arc<Link>,
    client: IpAddr,
}

impl Peer {
    pub(crate) fn new(link: Arc<Link>, client: IpAddr) -> Self {
        Self { link, client }
    }

    /// Where the connection comes from; as [`Session::peer`](crate::Session::peer).
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.link.peer
    }

    /// The client's address; as [`Session::client`](crate::Session::client).
    #[must_use]
    pub fn client(&self) -> IpAddr {
        self.client
    }

    /// The address of this service; as [`Session::local`](crate::Session::local).
    #[must_use]
    pub fn local(&self) -> Option<SocketAddr> {
        self.link.local
    }

    /// What the TLS handshake has brought; as [`Session::tls`](crate::Session::tls).
    #[must_use]
    pub fn tls(&self) -> Option<&Tls> {
        self.link.tls.as_ref()
    }
}

/// A client's connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) peer: SocketAddr,
    /// Whose connection it is: the peer's, or that of the client whom a balancer has named in front of it.
    pub(crate) source: IpAddr,
    /// `None`: the program accepts connections itself.
    pub(crate) local: Option<SocketAddr>,
    pub(crate) tls: Option<Tls>,
}

/// A connection, as its tasks hold it: a program that keeps a session for ever keeps no place of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(crate) link: Arc<Link>,
    /// Among all connections that there may be.
    pub(crate) _place: Option<Arc<OwnedSemaphorePermit>>,
}

/// A request, as much of it as a session keeps: nothing of it shares memory with the connection's buffer.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) client: IpAddr,
    pub(crate) version: Version,
    pub(crate) path: Box<str>,
    pub(crate) query: Option<Box<str>>,
    pub(crate) fields: HeaderMap,
    pub(crate) protocol: Option<Box<str>>,
}

impl Opening {
    pub(crate) fn of(head: &Parts, client: IpAddr, protocol: Option<Box<str>>) -> Self {
        Self {
            client,
            version: head.version,
            path: head.uri.path().into(),
            query: head.uri.query().map(Into::into),
            fields: copied(&head.headers),
            protocol,
        }
    }
}

/// hyper's fields are pieces of the buffer that they were read into, and would keep all of it.
fn copied(headers: &HeaderMap) -> HeaderMap {
    let mut copy = HeaderMap::with_capacity(headers.keys_len());
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_str().as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.as_bytes())) {
            copy.append(name, value);
        }
    }
    copy
}

/// The client's address: the connection's, or, if that is a trusted proxy, the last one in `X-Forwarded-For` that is not.
/// What stands before it the client may have written itself.
pub(crate) fn client_address(source: IpAddr, fields: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(&address));
    let mut client = source.to_canonical(); // ::ffff:10.0.0.1 is 10.0.0.1
    let lines = fields.get_all("x-forwarded-for").into_iter().rev();
    for element in lines.flat_map(|line| line.as_bytes().rsplit(|&byte| byte == b',')) {
        if !is_trusted(client) {
            break;
        }
        let Some(address) = str::from_utf8(element).ok().and_then(address) else { break };
        client = address;
    }
    client
}

/// An address as it stands in `X-Forwarded-For`: some proxies add a port.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"');
    let bare = text.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or(text, |(ip, _)| ip);
    let address = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().map(|socket| socket.ip()).ok());
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(peer: &str, lines: &[&str], client: &str) {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        let mut fields = HeaderMap::new();
        for line in lines {
            fields.append("x-forwarded-for", line.parse().unwrap());
        }
        let seen = client_address(peer.parse().unwrap(), &fields, &trusted);
        assert_eq!(seen, client.parse::<IpAddr>().unwrap());
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        check("192.0.2.1", &["198.51.100.1"], "192.0.2.1");
        check("10.0.0.1", &["198.51.100.1"], "198.51.100.1");
        check("10.0.0.1", &["1.2.3.4, 198.51.100.1"], "198.51.100.1");
        check("10.0.0.1", &["1.2.3.4", "198.51.100.1, 10.0.0.2"], "198.51.100.1");
        check("::ffff:10.0.0.1", &["198.51.100.1"], "198.51.100.1");
        check("::1", &["[2001:db8::1]:443"], "2001:db8::1");
        check("10.0.0.1", &["198.51.100.1:8080"], "198.51.100.1");
    }

    #[test]
    fn what_is_no_address_ends_the_way_back() {
        check("10.0.0.1", &[], "10.0.0.1");
        check("10.0.0.1", &["198.51.100.1, unknown"], "10.0.0.1");
        check("10.0.0.1", &["198.51.100.1, unknown, 10.0.0.2"], "10.0.0.2");
        check("10.0.0.1", &["10.0.0.3"], "10.0.0.3");
    }
}
