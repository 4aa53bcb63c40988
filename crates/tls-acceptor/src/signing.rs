//! Keys that sign what clients keep for a gateway: a mark that only holders of the key can make.
//!
//! In: a key file, a random secret, or what another process exported; and a text. Out: the text's mark, by HMAC-SHA256
//! (RFC 2104) cut to 128 bits (§5 there).

use std::fmt;

use aws_lc_rs::hmac;

use crate::ticket_file::TicketKeys;
use crate::ticket_key::{SECRET_LEN, TicketKey};

/// The length of a mark.
pub const MARK_LEN: usize = 16;

/// Signing keys, of which the first signs and all are accepted.
#[derive(Clone)]
pub struct SigningKeys(Vec<TicketKey>);

impl SigningKeys {
    /// The key with this secret, which has to be random.
    #[must_use]
    pub fn new(secret: &[u8; SECRET_LEN]) -> Self {
        Self(vec![TicketKey::new(secret)])
    }

    /// The keys of a file, in its order.
    #[must_use]
    pub fn of(file: &TicketKeys) -> Self {
        Self(file.keys.clone())
    }

    /// The secret of the first key, for another process.
    #[must_use]
    pub fn secret(&self) -> Option<&[u8; SECRET_LEN]> {
        self.0.first().map(|key| &*key.secret)
    }

    /// The marks of `text` by each key; the first is the one to be given out.
    pub fn marks(&self, text: &[u8]) -> impl Iterator<Item = [u8; MARK_LEN]> {
        self.0.iter().map(move |key| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, &key.for_signing()[..]);
            let mut mark = [0; MARK_LEN];
            mark.iter_mut().zip(hmac::sign(&key, text).as_ref()).for_each(|(to, from)| *to = *from);
            mark
        })
    }
}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0).finish() // names alone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_depends_on_its_key_and_its_text() {
        let keys = SigningKeys::new(&[7; SECRET_LEN]);
        let mark = |keys: &SigningKeys, text: &[u8]| keys.marks(text).next().unwrap();
        assert_eq!(mark(&keys, b"a"), mark(&keys.clone(), b"a"));
        assert_ne!(mark(&keys, b"a"), mark(&keys, b"b"));
        assert_ne!(mark(&keys, b"a"), mark(&SigningKeys::new(&[8; SECRET_LEN]), b"a"));
        let again = SigningKeys::new(keys.secret().unwrap());
        assert_eq!(mark(&keys, b"a"), mark(&again, b"a"));
        assert!(!format!("{keys:?}").contains("7, 7"));
    }

    #[test]
    fn the_first_key_of_a_file_signs_and_the_others_are_accepted() {
        let lines = [0, 1].map(|_| TicketKeys::fresh_line("").unwrap());
        let file = |lines: &[&str]| SigningKeys::of(&TicketKeys::parse(lines.concat().as_bytes()).unwrap());
        let (both, old) = (file(&[&lines[0], &lines[1]]), file(&[&lines[1]]));
        let marks: Vec<_> = both.marks(b"a").collect();
        assert_eq!(marks.len(), 2);
        assert_eq!(marks[1], old.marks(b"a").next().unwrap());
        assert_ne!(marks[0], marks[1]);
    }
}
