//! The files of another server, as they are asked for.

use std::path::{Path, PathBuf};

/// Why a file is not read. Prints as a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReadError {
    /// It isn't there, or not for us.
    #[error("{0}")]
    Missing(String),
    /// There may not be more.
    #[error("{0}")]
    TooMuch(String),
}

/// Where files come from.
pub(super) trait Sources {
    /// What a file holds.
    ///
    /// # Errors
    /// It isn't there, or there would be too many or too much.
    fn read(&mut self, file: &Path) -> Result<Vec<u8>, ReadError>;

    /// The files that a pattern means, in their order; the pattern itself if it has no wildcard.
    ///
    /// # Errors
    /// A sentence about what is wrong with the pattern.
    fn matching(&mut self, pattern: &Path) -> Result<Vec<PathBuf>, String>;
}

/// Files of a test.
#[cfg(test)]
#[derive(Debug)]
pub(super) struct Memory(std::collections::BTreeMap<PathBuf, Vec<u8>>);

#[cfg(test)]
impl Memory {
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        Self(files.iter().map(|(path, text)| (path.into(), text.as_bytes().to_owned())).collect())
    }
}

#[cfg(test)]
impl Sources for Memory {
    fn read(&mut self, file: &Path) -> Result<Vec<u8>, ReadError> {
        self.0.get(file).cloned().ok_or_else(|| ReadError::Missing("there is no such file".to_owned()))
    }

    fn matching(&mut self, pattern: &Path) -> Result<Vec<PathBuf>, String> {
        let text = pattern.to_str().unwrap();
        if !text.contains(['*', '?', '[']) {
            return Ok(vec![pattern.to_owned()]);
        }
        let pattern = glob::Pattern::new(text).map_err(|e| e.to_string())?;
        Ok(self.0.keys().filter(|file| pattern.matches_path(file)).cloned().collect())
    }
}
