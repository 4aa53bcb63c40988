//! Who may use a route, and how much. Pure.

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::net::networks::Networks;
use crate::site::auth::Auth;

/// Who may use a route, and how much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Clients of other addresses are refused, unless this is empty.
    pub allow: Networks,
    /// Clients of these addresses are refused.
    pub deny: Networks,
    /// Requests, handshakes included, of one client.
    pub requests: Option<Rate>,
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
}

impl Per {
    /// The value of the field by which this client is known; `None`: it is known by its address.
    #[must_use]
    pub fn value<'a>(&self, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
        match self {
            Self::Client => None,
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
    pub fn hash_into(&self, client: IpAddr, headers: &HeaderMap, hasher: &mut impl Hasher) {
        if let Some(value) = self.value(headers) {
            return value.hash(hasher);
        }
        match client.to_canonical() {
            IpAddr::V4(address) => address.hash(hasher),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).hash(hasher),
        }
    }
}

/// So many in so much time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    count: NonZeroU32,
    /// In nanoseconds.
    period: u64,
}

impl Rate {
    /// Reads `50/s`, `600/m` or `1000/h`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (count, unit) = text.split_once('/')?;
        let secs = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return None,
        };
        let count = count.bytes().all(|byte| byte.is_ascii_digit()).then_some(count)?.parse().ok()?;
        Some(Self { count, period: secs * 1_000_000_000 })
    }

    /// Whether one more is within the rate at `now`: the time from which on the client is as if it had never come,
    /// or how long it has to wait. `before` is the former of its last one. Both in nanoseconds. A client may send all of
    /// a period at once.
    ///
    /// # Errors
    /// How long it has to wait.
    pub fn take(self, before: u64, now: u64) -> Result<u64, Duration> {
        // The generic cell rate algorithm (ITU-T I.371, annex A), as virtual scheduling.
        let interval = self.period / u64::from(self.count.get());
        let next = before.max(now) + interval;
        match (next - now).checked_sub(interval * u64::from(self.count.get())) {
            None | Some(0) => Ok(next),
            Some(wait) => Err(Duration::from_nanos(wait)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hash::DefaultHasher;

    use http::HeaderValue;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn rates_as_people_write_them() {
        assert_eq!(Rate::parse("50/s").unwrap().period, SECOND);
        assert_eq!(Rate::parse("600/m").unwrap().count.get(), 600);
        for bad in ["", "50", "0/s", "+5/s", "-1/s", "50/d", "5 /s", "1e3/s", "5000000000/s", "/s", "50/ s"] {
            assert_eq!(Rate::parse(bad), None, "{bad}");
        }
    }

    /// How many of `count` requests pass, which come every so many nanoseconds.
    fn passed(rate: &str, count: u64, every: u64) -> u64 {
        let rate = Rate::parse(rate).unwrap();
        let (mut before, mut passed) = (0, 0);
        for n in 0..count {
            if let Ok(next) = rate.take(before, SECOND * 1000 + n * every) {
                (before, passed) = (next, passed + 1);
            }
        }
        passed
    }

    #[test]
    fn a_second_at_once_and_then_the_rate() {
        assert_eq!(passed("50/s", 1000, 0), 50);
        // Ten seconds, ten times as many as allowed: a second's worth, and then the rate, within one in a hundred.
        let all = passed("100/s", 10_000, SECOND / 1000);
        assert!((1090..=1101).contains(&all), "{all}");
        assert_eq!(passed("100/s", 1000, SECOND / 100), 1000, "at the rate nothing is refused");
        assert_eq!(passed("7/m", 100, SECOND), 7 + 99 * 7 / 60);
        let rate = Rate::parse("2/s").unwrap();
        assert_eq!(rate.take(3 * SECOND, 2 * SECOND), Err(Duration::from_millis(500)));
    }

    #[test]
    fn what_one_client_is() {
        let id = |per: &Per, client: &str, key: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.extend(key.map(|key| (HeaderName::from_static("x-key"), HeaderValue::from_static(key))));
            let mut hasher = DefaultHasher::new();
            per.hash_into(client.parse().unwrap(), &headers, &mut hasher);
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
    }
}
