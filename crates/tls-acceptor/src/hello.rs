//! A glance at a ClientHello, for what rustls doesn't pass on (RFC 8446 §4.1.2, RFC 5246 §7.4.1.2). Pure.
//!
//! In: the first record. Out: whether the client speaks nothing newer than TLS 1.1, whether data of its own follows
//! at once (0-RTT), and whether it is an authority that validates a name. Nothing is refused here: rustls judges.

use crate::record::HEADER_LEN;

/// Type and length of a handshake message.
const MESSAGE_HEADER_LEN: usize = 4;
/// ProtocolVersion TLS 1.2.
const TLS12: [u8; 2] = [3, 3];
const RANDOM_LEN: usize = 32;
/// Extensions (RFC 8446 §4.2).
const ALPN: u16 = 16; // RFC 7301 §3.1
const EARLY_DATA: u16 = 42;
const SUPPORTED_VERSIONS: u16 = 43;

/// What was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Glance {
    /// The newest version that the client speaks, if that is older than TLS 1.2.
    pub(crate) old: Option<[u8; 2]>,
    /// The client may send early data. So it is when the rest of the message is in other records.
    pub(crate) early_data: bool,
}

impl Glance {
    /// Looks at the first `record` of a connection, header included.
    pub(crate) fn of(record: &[u8]) -> Self {
        let message = record.get(HEADER_LEN + MESSAGE_HEADER_LEN..).unwrap_or_default();
        let Some(version) = message.first_chunk::<2>() else {
            return Self { old: None, early_data: true };
        };
        let mut seen = Self { old: (*version < TLS12).then_some(*version), early_data: false };
        let is_whole = extensions(message, |extension, _| match extension {
            EARLY_DATA => seen.early_data = true,
            SUPPORTED_VERSIONS => seen.old = None, // it counts instead of the other (RFC 8446 §4.2.1)
            _ => {}
        });
        seen.early_data |= is_whole.is_none();
        seen
    }
}

/// The first `record` of a connection, header included, is of an authority that validates a name: it offers the
/// protocol for that, and no other (RFC 8737 §3). Such a ClientHello is short, and in one record.
pub(crate) fn is_challenge(record: &[u8]) -> bool {
    /// A list of one name, with its lengths (RFC 7301 §3.1).
    const ACME_TLS: &[u8] = b"\x00\x0b\x0aacme-tls/1";
    let message = record.get(HEADER_LEN + MESSAGE_HEADER_LEN..).unwrap_or_default();
    let mut found = false;
    let _ = extensions(message, |extension, body| found |= extension == ALPN && body == ACME_TLS);
    found
}

/// Shows the type of each extension and what is in it; `None` if the message ends before they do.
fn extensions(hello: &[u8], mut see: impl FnMut(u16, &[u8])) -> Option<()> {
    let rest = hello.get(2 + RANDOM_LEN..)?;
    let (_session_id, rest) = rest.split_at_checked(1 + usize::from(*rest.first()?))?;
    let (_cipher_suites, rest) = rest.split_at_checked(2 + two(rest)?)?;
    let (_compression, rest) = rest.split_at_checked(1 + usize::from(*rest.first()?))?;
    if rest.is_empty() {
        return Some(()); // before TLS 1.2 there were none
    }
    let mut rest = rest.get(2..2 + two(rest)?)?;
    while !rest.is_empty() {
        let extension = u16::from_be_bytes(*rest.first_chunk()?);
        let body = rest.get(2..)?;
        let len = 2 + two(body)?;
        see(extension, body.get(2..len).unwrap_or_default());
        rest = body.get(len..)?;
    }
    Some(())
}

/// The number in the first two bytes.
fn two(bytes: &[u8]) -> Option<usize> {
    bytes.first_chunk().map(|two| usize::from(u16::from_be_bytes(*two)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A record with a ClientHello of this version and these extensions.
    fn record(version: [u8; 2], extensions: Option<&[u16]>) -> Vec<u8> {
        let mut hello = [&version[..], &[7; RANDOM_LEN], &[1, 9], &[0, 2, 19, 1], &[1, 0]].concat();
        if let Some(extensions) = extensions {
            let bodies =
                extensions.iter().flat_map(|kind| [&kind.to_be_bytes()[..], &[0, 3, 1, 2, 3]].concat());
            let bodies: Vec<u8> = bodies.collect();
            hello.extend(u16::try_from(bodies.len()).unwrap().to_be_bytes());
            hello.extend(bodies);
        }
        [&[22, 3, 1, 0, 0, 1, 0, 0, 0][..], &hello].concat()
    }

    #[test]
    fn versions_and_early_data() {
        let seen = |old, early_data| Glance { old, early_data };
        for (version, extensions, expect) in [
            ([3, 3], Some(&[0, 43, 51][..]), seen(None, false)),
            ([3, 3], Some(&[0, 42, 43]), seen(None, true)),
            ([3, 3], None, seen(None, false)),
            ([3, 1], None, seen(Some([3, 1]), false)),
            ([3, 2], Some(&[0, 10]), seen(Some([3, 2]), false)),
            ([3, 1], Some(&[43]), seen(None, false)),
            ([3, 4], Some(&[]), seen(None, false)),
        ] {
            assert_eq!(Glance::of(&record(version, extensions)), expect, "{version:?} {extensions:?}");
        }
        // What is cut may go on with it.
        let whole = record([3, 1], Some(&[0, 10]));
        for cut in 0..whole.len() {
            let seen = Glance::of(&whole[..cut]);
            assert!(seen.early_data || cut == 9 + 2 + RANDOM_LEN + 2 + 4 + 2, "{cut}: {seen:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..120), at in 0_usize..90, byte: u8) {
            Glance::of(&bytes);
            let mut record = record([3, 3], Some(&[0, 42, 43]));
            if let Some(old) = record.get_mut(at) {
                *old = byte;
            }
            Glance::of(&record);
        }
    }
}
