//! UTF-8 across fragment borders (RFC 6455 §8.1): a code point may be split anywhere.

use net_io::state::{StateError, StateReader, StateWriter};

use crate::violation::Violation;

/// Checks a text message piece by piece, holding at most three bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Utf8 {
    /// The front of a code point whose rest is still to come.
    partial: [u8; 4],
    partial_len: usize,
}

impl Utf8 {
    /// Takes the next piece.
    ///
    /// # Errors
    /// [`Violation::Utf8`] as soon as no continuation can make the bytes valid.
    pub(crate) fn push(&mut self, mut piece: &[u8]) -> Result<(), Violation> {
        while self.partial_len > 0 {
            let Some((&next, rest)) = piece.split_first() else { return Ok(()) };
            self.partial[self.partial_len] = next;
            piece = rest;
            match std::str::from_utf8(&self.partial[..=self.partial_len]) {
                Ok(_) => self.partial_len = 0,
                Err(e) if e.error_len().is_some() => return Err(Violation::Utf8),
                Err(_) => self.partial_len += 1,
            }
        }
        let Err(e) = simdutf8::compat::from_utf8(piece) else { return Ok(()) };
        if e.error_len().is_some() {
            return Err(Violation::Utf8);
        }
        let tail = &piece[e.valid_up_to()..];
        self.partial[..tail.len()].copy_from_slice(tail);
        self.partial_len = tail.len();
        Ok(())
    }

    /// Writes what [`Self::read_state`] reads.
    pub(crate) fn write_state(&self, out: &mut StateWriter) {
        let Self { partial, partial_len } = self;
        out.bytes(&partial[..*partial_len]);
    }

    /// Goes on in the middle of a message.
    pub(crate) fn read_state(fields: &mut StateReader<'_>) -> Result<Self, StateError> {
        let front = fields.bytes()?;
        let is_front = |e: std::str::Utf8Error| e.valid_up_to() == 0 && e.error_len().is_none();
        if !std::str::from_utf8(front).map_or_else(is_front, str::is_empty) {
            return Err(StateError::Invalid("the front of a code point"));
        }
        let mut utf8 = Self { partial_len: front.len(), ..Self::default() };
        utf8.partial[..front.len()].copy_from_slice(front);
        Ok(utf8)
    }

    /// Ends the message.
    ///
    /// # Errors
    /// [`Violation::Utf8`] if it ended inside a code point.
    pub(crate) fn finish(self) -> Result<(), Violation> {
        if self.partial_len == 0 { Ok(()) } else { Err(Violation::Utf8) }
    }
}

/// Checks a text message that came as a whole.
///
/// # Errors
/// [`Violation::Utf8`].
pub(crate) fn check(text: &[u8]) -> Result<(), Violation> {
    simdutf8::basic::from_utf8(text).map(drop).map_err(|_| Violation::Utf8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn verdict(pieces: &[&[u8]]) -> Result<(), Violation> {
        let mut utf8 = Utf8::default();
        for piece in pieces {
            utf8.push(piece)?;
        }
        utf8.finish()
    }

    #[test]
    fn code_points_split_over_pieces() {
        assert_eq!(verdict(&["κόσμε".as_bytes()]), Ok(()));
        assert_eq!(verdict(&[b"\xF0", b"\x9F", b"\x98", b"\x80"]), Ok(()));
        assert_eq!(verdict(&[b"\xF0\x9F", b"", b"\x98\x80x"]), Ok(()));
        assert_eq!(verdict(&[b"ab\xF0\x9F\x98"]), Err(Violation::Utf8)); // ends inside
        assert_eq!(verdict(&[b"\xED\xA0\x80"]), Err(Violation::Utf8)); // surrogate
        assert_eq!(verdict(&[b"\xC0\xAF"]), Err(Violation::Utf8)); // overlong
        assert_eq!(verdict(&[b"\xF4", b"\x90\x80\x80"]), Err(Violation::Utf8)); // above U+10FFFF
        assert_eq!(verdict(&[b"\xE2\x82", b"A"]), Err(Violation::Utf8));
    }

    #[test]
    fn a_hopeless_start_fails_before_its_end() {
        let mut utf8 = Utf8::default();
        assert_eq!(utf8.push(b"\xF4"), Ok(()));
        assert_eq!(utf8.push(b"\x90"), Err(Violation::Utf8)); // no third byte needed
    }

    proptest! {
        #[test]
        fn any_split_gives_the_verdict_of_the_whole(
            // text with single bytes broken, so that both verdicts are common
            text in "\\PC{0,24}",
            damage in proptest::option::of((any::<proptest::sample::Index>(), any::<u8>())),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..6),
        ) {
            let mut wire = text.into_bytes();
            if let (Some((at, byte)), false) = (damage, wire.is_empty()) {
                let at = at.index(wire.len());
                wire[at] = byte;
            }
            let mut cuts: Vec<usize> = cuts.iter().map(|c| c.index(wire.len() + 1)).collect();
            cuts.push(0);
            cuts.push(wire.len());
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &wire[w[0]..w[1]]).collect();
            prop_assert_eq!(verdict(&pieces).is_ok(), std::str::from_utf8(&wire).is_ok());
        }
    }
}
