//! Problems of a configuration: where, what, and what to do about it.

use std::fmt;
use std::path::PathBuf;

pub use crate::site::written::Place;

/// Where something is missing that the whole file lacks.
pub(super) const FIRST_LINE: Place = Place { file: 0, line: 1, column: 1 };

/// Where the lines of a text begin, so that a place costs the same in a file of any length.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    /// Finds the lines of `text`.
    pub(super) fn of(text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    /// The length of the text in bytes.
    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    /// The line and the character of a byte offset.
    pub(super) fn position(&self, at: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|start| *start <= at);
        let start = line.checked_sub(1).and_then(|index| self.starts.get(index)).copied().unwrap_or(0);
        match self.text.get(start..at) {
            Some(before) => (line, before.chars().count() + 1),
            None => (1, 1),
        }
    }
}

/// One thing that is wrong. Prints as `file:line:column: what; what to do`, without the place where there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file it is in; empty for a configuration that was made of values.
    pub file: PathBuf,
    /// Where in it.
    pub place: Place,
    /// What is wrong, and what to do.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { line, column, .. } = self.place;
        if self.place == Place::default() {
            return f.write_str(&self.what);
        }
        write!(f, "{}:{line}:{column}: {}", self.file.display(), self.what)
    }
}

/// Everything that is wrong, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq, Default, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_from_one_and_in_characters() {
        let text = "a = 1\nbü = 2\n";
        let at = |offset| Lines::of(text).position(offset);
        assert_eq!(at(0), (1, 1));
        assert_eq!(at(4), (1, 5));
        assert_eq!(at(6), (2, 1));
        assert_eq!(at(10), (2, 4)); // ü is two bytes
        assert_eq!(at(14), (3, 1));
        assert_eq!(at(15), (1, 1)); // behind the end
    }
}
