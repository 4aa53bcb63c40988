//! Values as bytes, for a process that takes sessions over from another: with lengths and a version, so that
//! different releases of a program understand each other.
//!
//! ```text
//!   state    needs (1 byte)   section
//!   section  length (4 bytes)   fields, one behind the other
//!   field    a number, most significant byte first; or a length (4 bytes) and bytes; or a section
//! ```
//!
//! A later release adds fields at the end of a section. An earlier one skips them by the length of the section,
//! unless the state says that it `needs` a reader that knows them; then the reader refuses the state as a whole. A
//! reader that knows a field which an earlier release did not write sees that the section is at its end
//! ([`StateReader::is_at_end`]), and takes the value that the field had before there was one.

use std::time::Duration;

use zeroize::Zeroizing;

/// Why bytes are not the state that they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// It was written by a later release, and can't be understood without what that one knows.
    #[error("the state needs a reader of version {needs}; this one is of version {known}")]
    TooNew {
        /// The least version that understands it.
        needs: u8,
        /// That of the reader.
        known: u8,
    },
    /// There are fewer bytes than it says.
    #[error("the state is cut off")]
    Truncated,
    /// There are more bytes than it says.
    #[error("bytes follow the state")]
    Overlong,
    /// A field has a value that no writer writes.
    #[error("invalid value in the state: {0}")]
    Invalid(&'static str),
}

/// The most that a counter in a state may have reached: what is added to it later never overflows.
pub const COUNT_MAX: u64 = u64::MAX >> 2;

/// A state as bytes. They are zeroised.
pub type StateBytes = Zeroizing<Vec<u8>>;

/// Writes a state. All memory that it has used is zeroised.
#[derive(Debug)]
pub struct StateWriter(StateBytes);

impl StateWriter {
    /// A state that readers of version `needs` and of later ones understand.
    #[must_use]
    pub fn new(needs: u8) -> Self {
        let mut bytes = Zeroizing::new(Vec::with_capacity(512));
        bytes.extend_from_slice(&[needs, 0, 0, 0, 0]);
        Self(bytes)
    }

    /// What was written.
    #[must_use]
    pub fn finish(mut self) -> StateBytes {
        self.end_section(1);
        self.0
    }

    /// Bytes of a number that the reader knows how many they are.
    pub fn array<const N: usize>(&mut self, bytes: &[u8; N]) {
        self.put(bytes);
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    /// Two bytes.
    pub fn u16(&mut self, value: u16) {
        self.put(&value.to_be_bytes());
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) {
        self.put(&value.to_be_bytes());
    }

    /// One byte.
    pub fn bool(&mut self, value: bool) {
        self.u8(value.into());
    }

    /// Nanoseconds; one that is longer than 584 years becomes that long.
    pub fn duration(&mut self, value: Duration) {
        self.u64(u64::try_from(value.as_nanos()).unwrap_or(u64::MAX));
    }

    /// A length, and so many bytes (4 GiB at most; what follows is cut off).
    pub fn bytes(&mut self, bytes: &[u8]) {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.u32(len);
        self.put(&bytes[..bytes.len().min(usize::try_from(len).unwrap_or(usize::MAX))]);
    }

    /// Whether there is a value, and if so that value as `write` writes it.
    pub fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.bool(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    /// A section of its own, to which later releases can add fields.
    pub fn section(&mut self, write: impl FnOnce(&mut Self)) {
        let at = self.0.len();
        self.u32(0);
        write(self);
        self.end_section(at);
    }

    /// The section whose length stands at `at` ends here.
    fn end_section(&mut self, at: usize) {
        let len = u32::try_from(self.0.len() - at - 4).unwrap_or(u32::MAX);
        self.0[at..at + 4].copy_from_slice(&len.to_be_bytes());
    }

    fn put(&mut self, bytes: &[u8]) {
        let len = self.0.len() + bytes.len();
        if len > self.0.capacity() {
            // A vector that grows by itself leaves its old memory as it is.
            let mut larger = Zeroizing::new(Vec::with_capacity(len.max(2 * self.0.capacity())));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
        self.0.extend_from_slice(bytes);
    }
}

/// Reads a state, field by field. It allocates nothing.
#[derive(Debug, Clone)]
pub struct StateReader<'a>(&'a [u8]);

impl<'a> StateReader<'a> {
    /// A reader of version `known` for a whole state.
    ///
    /// # Errors
    /// If the state needs a later version, or is of another length than it says.
    pub fn new(state: &'a [u8], known: u8) -> Result<Self, StateError> {
        let (&needs, section) = state.split_first().ok_or(StateError::Truncated)?;
        if needs > known {
            return Err(StateError::TooNew { needs, known });
        }
        let mut section = Self(section);
        let fields = section.section()?;
        if section.is_at_end() { Ok(fields) } else { Err(StateError::Overlong) }
    }

    /// The section has no further field.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of a known number.
    ///
    /// # Errors
    /// If there are fewer.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], StateError> {
        let (array, rest) = self.0.split_first_chunk().ok_or(StateError::Truncated)?;
        self.0 = rest;
        Ok(*array)
    }

    /// One byte.
    ///
    /// # Errors
    /// If there is none.
    pub fn u8(&mut self) -> Result<u8, StateError> {
        self.array().map(u8::from_be_bytes)
    }

    /// Two bytes.
    ///
    /// # Errors
    /// If there are fewer.
    pub fn u16(&mut self) -> Result<u16, StateError> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes.
    ///
    /// # Errors
    /// If there are fewer.
    pub fn u32(&mut self) -> Result<u32, StateError> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight bytes.
    ///
    /// # Errors
    /// If there are fewer.
    pub fn u64(&mut self) -> Result<u64, StateError> {
        self.array().map(u64::from_be_bytes)
    }

    /// A counter, which may go on counting.
    ///
    /// # Errors
    /// If it is above [`COUNT_MAX`], or cut off.
    pub fn count(&mut self) -> Result<u64, StateError> {
        let count = self.u64()?;
        if count <= COUNT_MAX { Ok(count) } else { Err(StateError::Invalid("a counter")) }
    }

    /// Zero or one.
    ///
    /// # Errors
    /// If it is neither, or missing.
    pub fn bool(&mut self) -> Result<bool, StateError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(StateError::Invalid("neither true nor false")),
        }
    }

    /// Bytes that are a text.
    ///
    /// # Errors
    /// If they are not UTF-8, or cut off.
    pub fn text(&mut self) -> Result<&'a str, StateError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| StateError::Invalid("a text"))
    }

    /// Nanoseconds.
    ///
    /// # Errors
    /// If they are cut off.
    pub fn duration(&mut self) -> Result<Duration, StateError> {
        self.u64().map(Duration::from_nanos)
    }

    /// A length, and so many bytes.
    ///
    /// # Errors
    /// If there are fewer.
    pub fn bytes(&mut self) -> Result<&'a [u8], StateError> {
        let len = usize::try_from(self.u32()?).map_err(|_| StateError::Truncated)?;
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(StateError::Truncated)?;
        self.0 = rest;
        Ok(bytes)
    }

    /// A value, if there is one, as `read` reads it.
    ///
    /// # Errors
    /// Those of `read`, and those of [`Self::bool`].
    pub fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, StateError>,
    ) -> Result<Option<T>, StateError> {
        if self.bool()? { read(self).map(Some) } else { Ok(None) }
    }

    /// The fields of a section.
    ///
    /// # Errors
    /// If it is cut off.
    pub fn section(&mut self) -> Result<Self, StateError> {
        self.bytes().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All kinds of fields; `later` writes what a later release adds.
    fn write(needs: u8, later: impl Fn(&mut StateWriter)) -> Zeroizing<Vec<u8>> {
        let mut out = StateWriter::new(needs);
        out.u8(1);
        out.section(|out| {
            out.bool(true);
            out.bytes(&[7; 1000]);
            later(out);
        });
        out.u16(2);
        out.option(Some(5), StateWriter::u64);
        out.option(None, StateWriter::u64);
        out.duration(Duration::MAX);
        out.array(b"abc");
        later(&mut out);
        out.finish()
    }

    fn read(state: &[u8]) -> Result<(), StateError> {
        let mut fields = StateReader::new(state, 3)?;
        assert_eq!(fields.u8()?, 1);
        let mut section = fields.section()?;
        assert_eq!((section.bool()?, section.bytes()?), (true, &[7; 1000][..]));
        assert_eq!((fields.u16()?, fields.option(StateReader::count)?), (2, Some(5)));
        assert_eq!(
            (fields.option(StateReader::u64)?, fields.duration()?),
            (None, Duration::from_nanos(u64::MAX))
        );
        assert_eq!(&fields.array()?, b"abc");
        Ok(())
    }

    #[test]
    fn what_was_written_is_read() {
        assert_eq!(read(&write(3, |_| ())), Ok(()));
        assert!(StateReader::new(&StateWriter::new(0).finish(), 0).unwrap().is_at_end());
    }

    #[test]
    fn what_a_later_release_adds_is_skipped_unless_it_is_needed() {
        let add = |out: &mut StateWriter| out.bytes(b"history");
        assert_eq!(read(&write(3, add)), Ok(()));
        assert_eq!(read(&write(4, add)), Err(StateError::TooNew { needs: 4, known: 3 }));
    }

    #[test]
    fn bytes_that_are_no_state_are_refused() {
        let state = write(1, |_| ());
        for len in 0..state.len() {
            assert_eq!(read(&state[..len]), Err(StateError::Truncated), "{len}");
        }
        assert_eq!(read(&[&state[..], b"x"].concat()), Err(StateError::Overlong));
        let mut two = state.to_vec();
        two[1 + 4 + 1 + 4] = 2;
        assert_eq!(read(&two), Err(StateError::Invalid("neither true nor false")));
        let mut out = StateWriter::new(0);
        out.u64(COUNT_MAX + 1);
        let count = out.finish();
        let mut fields = StateReader::new(&count, 0).unwrap();
        assert_eq!(fields.count(), Err(StateError::Invalid("a counter")));
    }

    /// A length that is a lie costs nothing: no memory is taken for it.
    #[test]
    fn a_length_is_believed_only_if_so_many_bytes_are_there() {
        let mut out = StateWriter::new(0);
        out.u32(u32::MAX);
        let state = out.finish();
        let mut fields = StateReader::new(&state, 0).unwrap();
        assert_eq!(fields.clone().bytes(), Err(StateError::Truncated));
        assert_eq!(fields.section().unwrap_err(), StateError::Truncated);
    }
}
