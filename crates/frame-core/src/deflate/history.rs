//! The end of what has passed, as much of it as what follows may refer to.

use net_io::state::{StateError, StateReader, StateWriter};

/// The last bytes, up to a bound. It grows as they come.
#[derive(Debug)]
pub(super) struct History {
    bytes: Vec<u8>,
    max: usize,
}

impl History {
    pub(super) fn new(max: usize) -> Self {
        Self { bytes: Vec::new(), max }
    }

    /// The bound.
    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// Bytes that it takes.
    pub(super) fn memory(&self) -> usize {
        self.bytes.capacity()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn push(&mut self, data: &[u8]) {
        let data = &data[data.len().saturating_sub(self.max)..];
        let excess = (self.bytes.len() + data.len()).saturating_sub(self.max);
        self.bytes.drain(..excess);
        if self.bytes.capacity() < self.bytes.len() + data.len() {
            // Doubled, but not beyond the bound.
            let len = (2 * self.bytes.len()).clamp(self.bytes.len() + data.len(), self.max);
            self.bytes.reserve_exact(len - self.bytes.len());
        }
        self.bytes.extend_from_slice(data);
    }

    /// Nothing may be referred to any more.
    pub(super) fn clear(&mut self) {
        self.bytes = Vec::new();
    }

    /// Writes what [`Self::read_state`] reads.
    pub(super) fn write_state(&self, out: &mut StateWriter) {
        let Self { bytes, max: _ } = self; // by what was agreed upon
        out.bytes(bytes);
    }

    /// Goes on where another one left off.
    pub(super) fn read_state(fields: &mut StateReader<'_>, max: usize) -> Result<Self, StateError> {
        let mut history = Self::new(max);
        history.push(fields.bytes()?);
        Ok(history)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_bytes_stay() {
        let mut history = History::new(8);
        for (data, kept) in [
            (&b"abc"[..], &b"abc"[..]),
            (b"", b"abc"),
            (b"defgh", b"abcdefgh"),
            (b"ij", b"cdefghij"),
            (b"0123456789", b"23456789"),
        ] {
            history.push(data);
            assert_eq!(history.bytes(), kept);
        }
        assert_eq!(history.bytes.capacity(), 8);
        let mut nothing = History::new(0);
        nothing.push(b"abc");
        assert_eq!((nothing.bytes(), nothing.bytes.capacity()), (&b""[..], 0));
    }
}
