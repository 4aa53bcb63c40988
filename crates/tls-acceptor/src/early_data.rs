//! Early data that was rejected: its records are passed over (RFC 8446 §4.2.10).
//!
//! No early data is ever accepted here. A client with a ticket from elsewhere may offer it nevertheless, and
//! has sent it before it learns that. rustls passes over such records too, but counts one again whenever it is
//! shown more, so that a few small ones use up its limit.

use rustls::SupportedCipherSuite;

use crate::record::{Cipher, Fault, HEADER_LEN, Header, Secret};

/// Bytes of early data that a client may send: what OpenSSL's servers allow by default. The ticket
/// may be another server's, so the gateway can't know better.
const LEN_MAX: usize = 16 * 1024;
/// What TLS 1.3 adds to the content of a record: its type and the tag.
const ADDED_LEN: usize = 17;

/// What is left to be passed over.
#[derive(Debug)]
pub(crate) struct EarlyData {
    left: usize,
    /// Opens the record that follows it.
    trial: Option<Cipher>,
}

impl EarlyData {
    pub(crate) fn new() -> Self {
        Self { left: LEN_MAX, trial: None }
    }

    /// Whether the `record` is early data: whether `keys`, which the client's handshake goes on with, don't open
    /// it; without keys the client was asked for another ClientHello. `None`: it is no protected record.
    ///
    /// # Errors
    /// If there was too much of it, or if `keys` are none of TLS 1.3.
    pub(crate) fn is(
        &mut self,
        record: &[u8],
        keys: Option<(SupportedCipherSuite, &Secret)>,
    ) -> Result<Option<bool>, Fault> {
        let Ok(Some(header)) = Header::parse(record, true) else { return Ok(None) };
        let Some(body) = record.get(HEADER_LEN..header.record_len()) else { return Ok(None) };
        if let (None, Some((suite, secret))) = (&self.trial, keys) {
            self.trial = Some(Cipher::first(suite, secret)?);
        }
        if let Some(cipher) = &mut self.trial
            && cipher.open(header, body, &mut vec![0; body.len()]).is_ok()
        {
            return Ok(Some(false));
        }
        // An empty record counts too.
        let len = body.len().saturating_sub(ADDED_LEN).max(1);
        self.left = self.left.checked_sub(len).ok_or(Fault::UNEXPECTED_MESSAGE)?;
        Ok(Some(true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(content_type: u8, len: usize) -> Vec<u8> {
        let [high, low] = u16::try_from(len).unwrap().to_be_bytes();
        [&[content_type, 3, 3, high, low][..], &vec![5; len]].concat()
    }

    #[test]
    fn so_much_of_it_however_it_is_cut() {
        for (record_len, records) in
            [(1 + ADDED_LEN, LEN_MAX), (1000 + ADDED_LEN, 16), (0, LEN_MAX), (16_401, 1)]
        {
            let mut early = EarlyData::new();
            for _ in 0..records {
                assert_eq!(early.is(&record(23, record_len), None), Ok(Some(true)), "{record_len}");
            }
            assert_eq!(early.is(&record(23, record_len), None), Err(Fault::UNEXPECTED_MESSAGE));
        }
    }

    #[test]
    fn nothing_else_is() {
        let mut early = EarlyData::new();
        for other in [&record(20, 1)[..], &record(22, 40), &record(21, 2), &record(23, 40)[..9], b"", b"\x17"]
        {
            assert_eq!(early.is(other, None), Ok(None), "{other:?}");
        }
        assert_eq!(early.left, LEN_MAX);
    }
}
