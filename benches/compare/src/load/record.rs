//! TLS 1.3 records with TLS_AES_128_GCM_SHA256, sealed and opened where they are (RFC 8446 §5.2). A load
//! that shares its core with the backend can't afford the copies of a buffered connection, and a gateway
//! that waits for its load is not measured but the load is.

use anyhow::{anyhow, bail, ensure};
use rustls::ConnectionTrafficSecrets;
use rustls::crypto::cipher::NONCE_LEN;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// Most bytes of content in a record.
pub(crate) const CONTENT_MAX: usize = 1 << 14;
/// What sealing adds.
pub(crate) const OVERHEAD: usize = HEADER_LEN + 1 + TAG_LEN;
/// The longest record there may be.
pub(crate) const RECORD_MAX: usize = HEADER_LEN + CONTENT_MAX + 256;

const HEADER_LEN: usize = 5;
const TAG_LEN: usize = 16;
const APPLICATION_DATA: u8 = 23;
const HANDSHAKE: u8 = 22;
const ALERT: u8 = 21;
const CLOSE_NOTIFY: [u8; 2] = [1, 0];

/// One direction: its key and where it is in the sequence of nonces.
pub(crate) struct Records {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    sequence: u64,
}

impl Records {
    /// Goes on where the handshake has stopped.
    pub(crate) fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> anyhow::Result<Self> {
        let ConnectionTrafficSecrets::Aes128Gcm { key, iv } = secrets else { bail!("another cipher suite") };
        let key = UnboundKey::new(&AES_128_GCM, key.as_ref()).map_err(|_| anyhow!("invalid key length"))?;
        Ok(Self { key: LessSafeKey::new(key), iv: iv.as_ref().try_into()?, sequence })
    }

    fn nonce(&mut self) -> Nonce {
        let mut nonce = self.iv;
        let (_, end) = nonce.split_at_mut(NONCE_LEN - 8);
        end.iter_mut().zip(self.sequence.to_be_bytes()).for_each(|(byte, other)| *byte ^= other);
        self.sequence += 1;
        Nonce::assume_unique_for_key(nonce)
    }

    /// Appends a record to `wire`, whose content `fill` puts in its place.
    pub(crate) fn seal(
        &mut self,
        wire: &mut Vec<u8>,
        content_len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> anyhow::Result<()> {
        self.seal_as(APPLICATION_DATA, wire, content_len, fill)
    }

    /// Appends a close_notify.
    pub(crate) fn seal_close(&mut self, wire: &mut Vec<u8>) -> anyhow::Result<()> {
        self.seal_as(ALERT, wire, CLOSE_NOTIFY.len(), |place| place.copy_from_slice(&CLOSE_NOTIFY))
    }

    fn seal_as(
        &mut self,
        content_type: u8,
        wire: &mut Vec<u8>,
        content_len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> anyhow::Result<()> {
        let [high, low] = u16::try_from(content_len + 1 + TAG_LEN)?.to_be_bytes();
        let header = [APPLICATION_DATA, 3, 3, high, low];
        wire.extend_from_slice(&header);
        let start = wire.len();
        wire.resize(start + content_len + 1, content_type);
        fill(&mut wire[start..start + content_len]);
        let nonce = self.nonce();
        let tag = self.key.seal_in_place_separate_tag(nonce, Aad::from(header), &mut wire[start..]);
        wire.extend_from_slice(tag.map_err(|_| anyhow!("can't seal a record"))?.as_ref());
        Ok(())
    }

    /// Opens the record at the front of `wire`.
    pub(crate) fn open<'a>(&mut self, wire: &'a mut [u8]) -> anyhow::Result<Opened<'a>> {
        let Some(header) = wire.first_chunk::<HEADER_LEN>().copied() else { return Ok(Opened::Part(wire)) };
        let [outer, _, _, high, low] = header;
        let end = HEADER_LEN + usize::from(u16::from_be_bytes([high, low]));
        ensure!(outer == APPLICATION_DATA && end <= RECORD_MAX, "not a record: {header:?}");
        if wire.len() < end {
            return Ok(Opened::Part(wire));
        }
        let (record, rest) = wire.split_at_mut(end);
        let nonce = self.nonce();
        let opened = self.key.open_in_place(nonce, Aad::from(header), &mut record[HEADER_LEN..]);
        let inner: &[u8] = opened.map_err(|_| anyhow!("a record that was not sealed with our key"))?;
        let typed = inner.iter().rposition(|byte| *byte != 0).unwrap_or_default();
        match inner.split_at_checked(typed) {
            Some((content, [APPLICATION_DATA, ..])) => Ok(Opened::Content(content, rest)),
            Some((_, [HANDSHAKE, ..])) => Ok(Opened::Content(&[], rest)),
            _ => Ok(Opened::Closed),
        }
    }
}

/// What is at the front of the wire.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opened<'a> {
    /// Content, none if it is a ticket, and what is behind it.
    Content(&'a [u8], &'a mut [u8]),
    /// A record that isn't whole.
    Part(&'a mut [u8]),
    /// An alert.
    Closed,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(sequence: u64) -> Records {
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[7; 16]).unwrap());
        Records { key, iv: [3; NONCE_LEN], sequence }
    }

    fn sealed(sequence: u64, contents: &[&[u8]]) -> Vec<u8> {
        let (mut wire, mut records) = (Vec::new(), records(sequence));
        for content in contents {
            records.seal(&mut wire, content.len(), |place| place.copy_from_slice(content)).unwrap();
        }
        wire
    }

    #[test]
    fn what_is_sealed_is_opened_record_after_record() {
        let long = [9; CONTENT_MAX];
        let mut wire = sealed(5, &[b"one", &long]);
        assert_eq!(wire.len(), 3 + CONTENT_MAX + 2 * OVERHEAD);
        let mut records = records(5);
        let Opened::Content(b"one", rest) = records.open(&mut wire).unwrap() else { panic!("not whole") };
        let Opened::Content(content, rest) = records.open(rest).unwrap() else { panic!("not whole") };
        assert_eq!(content, long);
        assert_eq!(records.open(rest).unwrap(), Opened::Part(&mut []));
    }

    #[test]
    fn a_part_of_a_record_is_left_as_it_is() {
        let wire = sealed(0, &[b"some text"]);
        let mut records = records(0);
        for len in 0..wire.len() {
            let mut part = wire[..len].to_vec();
            let left = &mut wire[..len].to_vec();
            assert_eq!(records.open(&mut part).unwrap(), Opened::Part(left));
        }
        assert_eq!(records.open(&mut wire.clone()).unwrap(), Opened::Content(b"some text", &mut []));
    }

    #[test]
    fn an_alert_is_the_end() {
        let mut wire = Vec::new();
        records(0).seal_close(&mut wire).unwrap();
        assert_eq!(records(0).open(&mut wire).unwrap(), Opened::Closed);
    }

    #[test]
    fn any_other_bit_and_any_other_turn_is_refused() {
        let wire = sealed(0, &[b"some text"]);
        for at in [0, HEADER_LEN, wire.len() - 1] {
            let mut other = wire.clone();
            other[at] ^= 1;
            assert!(records(0).open(&mut other).is_err(), "byte {at}");
        }
        assert!(records(1).open(&mut wire.clone()).is_err());
    }
}
