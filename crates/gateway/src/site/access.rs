//! Who may use a route, and how much. Pure.

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::net::networks::Networks;
use crate::site::auth::Auth;
use crate::site::rate::Rate;

/// Who may use a route, and how much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Clients of other addresses are refused, unless this is empty.
    pub allow: Networks,
    /// Clients of these addresses are refused.
    pub deny: Networks,
    /// Requests, handshakes included, of one client.
    pub requests: Option<Rate>,
    /// Handshakes of WebSockets, of one client.
    pub handshakes: Option<Rate>,
    /// Live sessions of one client.
    pub sessions: Option<u32>,
    /// What one client is.
    pub per: Per,
    /// How it is found out who sends a request; `None`: it isn't.
    pub auth: Option<Box<Auth>>,
    /// The longest body of a request, in bytes.
    pub max_body: Option<u64>,
}

impl Access {
    /// Clients with this address may use the route.
    #[must_use]
    pub fn admits(&self, client: IpAddr) -> bool {
        (self.allow.is_empty() || self.allow.contains(client)) && !self.deny.contains(client)
    }
}

/// What is counted as one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Per {
    /// An address; of IPv6 a network of 64 bits, since that is what one subscriber has.
    Client,
    /// A value of this field. Requests without it count by their address.
    Header(HeaderName),
    /// Whom the route has found out. Requests of others count by their address.
    Subject,
}

impl Per {
    /// The value of the field by which this client is known; `None`: it is known by its address.
    #[must_use]
    pub fn value<'a>(&self, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
        match self {
            Self::Client | Self::Subject => None,
            Self::Header(name) => headers.get(name),
        }
    }

    /// What [`Self::value`] is taken of, in another process.
    #[must_use]
    pub fn headers(&self, value: Option<HeaderValue>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let (Self::Header(name), Some(value)) = (self, value) {
            headers.insert(name, value);
        }
        headers
    }

    /// Feeds `hasher` with what tells this client from others.
    pub fn hash_into(
        &self,
        client: IpAddr,
        headers: &HeaderMap,
        subject: Option<&str>,
        hasher: &mut impl Hasher,
    ) {
        if let (Self::Subject, Some(subject)) = (self, subject) {
            return subject.hash(hasher);
        }
        if let Some(value) = self.value(headers) {
            return value.hash(hasher);
        }
        match client.to_canonical() {
            IpAddr::V4(address) => address.hash(hasher),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).hash(hasher),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hash::DefaultHasher;

    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_one_client_is() {
        let id = |per: &Per, client: &str, key: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.extend(key.map(|key| (HeaderName::from_static("x-key"), HeaderValue::from_static(key))));
            let mut hasher = DefaultHasher::new();
            per.hash_into(client.parse().unwrap(), &headers, Some("alice"), &mut hasher);
            hasher.finish()
        };
        let per = Per::Client;
        assert_eq!(id(&per, "2001:db8:1:2:3::4", None), id(&per, "2001:db8:1:2:ffff::1", None));
        assert_ne!(id(&per, "2001:db8:1:2::1", None), id(&per, "2001:db8:1:3::1", None));
        assert_ne!(id(&per, "192.0.2.1", None), id(&per, "192.0.2.2", None));
        assert_eq!(id(&per, "192.0.2.1", None), id(&per, "::ffff:192.0.2.1", Some("a")));
        let per = Per::Header(HeaderName::from_static("x-key"));
        assert_eq!(id(&per, "192.0.2.1", Some("a")), id(&per, "192.0.2.2", Some("a")));
        assert_ne!(id(&per, "192.0.2.1", Some("a")), id(&per, "192.0.2.1", Some("b")));
        assert_eq!(id(&per, "192.0.2.1", None), id(&Per::Client, "192.0.2.1", None));
        let per = Per::Subject;
        assert_eq!(id(&per, "192.0.2.1", None), id(&per, "192.0.2.2", None));
        assert_ne!(id(&per, "192.0.2.1", None), id(&Per::Client, "192.0.2.1", None));
    }
}
