//! What a handshake has agreed upon, in the few bytes that each connection can spare.

use rustls::{CipherSuite, NamedGroup};

/// Application protocols, by their ALPN names (RFC 7301 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alpn {
    /// `h2`
    H2,
    /// `http/1.1`
    Http11,
}

impl Alpn {
    /// As it is on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::H2 => "h2",
            Self::Http11 => "http/1.1",
        }
    }

    /// As clients offer it, what is preferred first. Who speaks `http/1.1` answers HTTP/1.0 too
    /// (RFC 9110 §2.5), which some clients offer by its own name.
    pub(crate) fn names(self) -> &'static [&'static str] {
        match self {
            Self::H2 => &["h2"],
            Self::Http11 => &["http/1.1", "http/1.0"],
        }
    }

    /// The protocol of that name.
    #[must_use]
    pub(crate) fn parse(name: &str) -> Option<Self> {
        [Self::H2, Self::Http11].into_iter().find(|alpn| alpn.as_str() == name)
    }
}

/// What a handshake has agreed upon besides its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Negotiated {
    /// By its number (RFC 8446 §B.4).
    suite: u16,
    /// By its number (RFC 8446 §4.2.7); 0: none, since a session of TLS 1.2 was resumed.
    group: u16,
    alpn: Option<Alpn>,
    is_resumed: bool,
}

impl Negotiated {
    /// What these say; `alpn` is a name.
    pub(crate) fn new(
        suite: CipherSuite,
        group: Option<NamedGroup>,
        alpn: Option<&[u8]>,
        is_resumed: bool,
    ) -> Self {
        let name = alpn.and_then(|name| std::str::from_utf8(name).ok());
        Self {
            suite: suite.into(),
            group: group.map_or(0, u16::from),
            alpn: name.and_then(Alpn::parse),
            is_resumed,
        }
    }

    /// The cipher suite, as IANA calls it.
    #[must_use]
    pub fn suite(self) -> &'static str {
        match self.suite {
            0x1301 => "TLS_AES_128_GCM_SHA256",
            0x1302 => "TLS_AES_256_GCM_SHA384",
            0x1303 => "TLS_CHACHA20_POLY1305_SHA256",
            other => CipherSuite::from(other).as_str().unwrap_or("?"),
        }
    }

    /// The group of the key exchange, as IANA calls it; `None`: there was no exchange.
    #[must_use]
    pub fn group(self) -> Option<&'static str> {
        (self.group != 0).then(|| NamedGroup::from(self.group).as_str().unwrap_or("?"))
    }

    /// The application protocol; `None`: the client offered none.
    #[must_use]
    pub fn alpn(self) -> Option<Alpn> {
        self.alpn
    }

    /// The session was resumed from a ticket.
    #[must_use]
    pub fn is_resumed(self) -> bool {
        self.is_resumed
    }

    /// Bytes of which [`Self::from_bytes`] makes the same.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 6] {
        let [a, b] = self.suite.to_be_bytes();
        let [c, d] = self.group.to_be_bytes();
        let alpn = match self.alpn {
            None => 0,
            Some(Alpn::Http11) => 1,
            Some(Alpn::H2) => 2,
        };
        [a, b, c, d, alpn, self.is_resumed.into()]
    }

    /// What [`Self::to_bytes`] has written; `None`: something else.
    #[must_use]
    pub fn from_bytes([a, b, c, d, alpn, resumed]: [u8; 6]) -> Option<Self> {
        Some(Self {
            suite: u16::from_be_bytes([a, b]),
            group: u16::from_be_bytes([c, d]),
            alpn: match alpn {
                0 => None,
                1 => Some(Alpn::Http11),
                2 => Some(Alpn::H2),
                _ => return None,
            },
            is_resumed: match resumed {
                0 => false,
                1 => true,
                _ => return None,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_iana_and_bytes_are_read_back() {
        for (bytes, suite, group, alpn, is_resumed) in [
            (
                [0x13, 0x01, 0x11, 0xEC, 2, 0],
                "TLS_AES_128_GCM_SHA256",
                Some("X25519MLKEM768"),
                Some(Alpn::H2),
                false,
            ),
            (
                [0x13, 0x03, 0, 0x1D, 1, 1],
                "TLS_CHACHA20_POLY1305_SHA256",
                Some("X25519"),
                Some(Alpn::Http11),
                true,
            ),
            ([0xC0, 0x2F, 0, 0, 0, 1], "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", None, None, true),
        ] {
            let negotiated = Negotiated::from_bytes(bytes).unwrap();
            assert_eq!((negotiated.suite(), negotiated.group()), (suite, group));
            assert_eq!((negotiated.alpn(), negotiated.is_resumed()), (alpn, is_resumed));
            assert_eq!(negotiated.to_bytes(), bytes);
        }
        for bytes in [[0x13, 1, 0, 0x1D, 3, 0], [0x13, 1, 0, 0x1D, 0, 2]] {
            assert_eq!(Negotiated::from_bytes(bytes), None);
        }
    }
}
