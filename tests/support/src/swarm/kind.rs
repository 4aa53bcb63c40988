//! What a socket of a mixed swarm is like, and what it says.

use rustls::CipherSuite;

/// Bytes of a long message.
pub(super) const LONG_LEN: usize = 10 << 20;
/// A burst to or from a peer that reads slowly: so many messages of such a length.
pub(super) const SLOW_BURST: u64 = 8;
/// See [`SLOW_BURST`].
pub(super) const SLOW_LEN: usize = 64 << 10;
/// Bytes of a short message.
const SHORT_LEN: usize = 1 << 10;

/// How a socket talks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Talk {
    /// Short messages of many lengths, echoed.
    Various,
    /// Messages of 1 KiB, echoed.
    Short,
    /// The same, deflated (RFC 7692).
    Deflated,
    /// The same; the second half of a frame comes much later than the first.
    InHalves,
    /// The same; pings are not answered while it has nothing to say.
    Deaf,
    /// A message of 10 MiB, echoed.
    Long,
    /// Asks for a burst and reads it slowly.
    SlowReader,
    /// Sends a burst to a backend that reads it slowly.
    SlowBackend,
}

/// What a socket is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) talk: Talk,
    /// `None`: what client and gateway agree on.
    pub(super) suite: Option<CipherSuite>,
    /// It changes its keys with every other write (RFC 8446 §4.6.3).
    pub(super) rekeys: bool,
}

impl Kind {
    /// The kind of all sockets of a swarm that is not mixed.
    pub(super) const USUAL: Self = Self { talk: Talk::Various, suite: None, rekeys: false };

    /// The kind of this socket in a mixed swarm. Every way to talk meets every suite if there are some hundred sockets.
    pub(super) fn of(index: usize) -> Self {
        const SUITES: [CipherSuite; 6] = [
            CipherSuite::TLS13_AES_128_GCM_SHA256,
            CipherSuite::TLS13_AES_256_GCM_SHA384,
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        ];
        let suite = index / 7 % SUITES.len();
        let talk = match index {
            0 | 21 => Talk::Long, // one over either version of TLS
            _ if index % 50 == 17 => Talk::SlowReader,
            _ if index % 50 == 34 => Talk::SlowBackend,
            _ if index % 10 == 1 => Talk::Deflated,
            _ if index % 10 == 2 => Talk::InHalves,
            _ if index % 10 == 3 => Talk::Deaf,
            _ => Talk::Short,
        };
        Self { talk, suite: Some(SUITES[suite]), rekeys: suite < 3 && index % 4 < 2 }
    }

    /// The path of its upgrade, below that of the swarm. It tells the backend what to do.
    pub(super) fn path(self) -> &'static str {
        match self.talk {
            Talk::Deflated => "deflate",
            Talk::SlowReader => "burst",
            Talk::SlowBackend => "slow",
            Talk::Various | Talk::Short | Talk::InHalves | Talk::Deaf | Talk::Long => "",
        }
    }

    /// A message of this socket: tells of its place.
    pub(super) fn message(self, index: usize, number: u64) -> Vec<u8> {
        let len = match self.talk {
            Talk::Various => (index as u64 * 31 + number * 97) % 700,
            Talk::Long => LONG_LEN as u64,
            _ => SHORT_LEN as u64,
        };
        let mut message = format!("{index} {number} ").into_bytes();
        let len = message.len().max(usize::try_from(len).unwrap());
        match self.talk {
            Talk::Long => message.extend(pattern(index as u64 + number, len - message.len())),
            _ => message.resize(len, b'.'),
        }
        if self.talk == Talk::Deflated { deflate(&message) } else { message }
    }
}

/// So many bytes that look like noise.
pub(super) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 8);
    for n in 0..len.div_ceil(8) as u64 {
        let word = (seed << 32 | n).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31);
        bytes.extend_from_slice(&word.to_be_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// One message of a burst.
pub(super) fn of_burst(index: usize, number: u64, place: u64) -> Vec<u8> {
    pattern((index as u64) << 20 | (number * SLOW_BURST + place), SLOW_LEN)
}

/// A message of permessage-deflate, made of stored blocks (RFC 7692 §7.2.1, RFC 1951 §3.2.4).
fn deflate(message: &[u8]) -> Vec<u8> {
    let mut deflated = Vec::new();
    for block in message.chunks(usize::from(u16::MAX)) {
        let len = u16::try_from(block.len()).unwrap();
        deflated.push(0);
        deflated.extend(len.to_le_bytes());
        deflated.extend((!len).to_le_bytes());
        deflated.extend(block);
    }
    deflated.push(0); // an empty block, whose last four octets are left out
    deflated
}
