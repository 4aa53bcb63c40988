//! Ticket keys from a file: those of a gateway that restarts, or of several that are one to clients.
//!
//! In: lines of 64 hexadecimal digits; `#` begins a comment. Out: keys, the first of which seals while
//! all open. Refused: anything else, a key that is there twice, one that can't be random, none at all.
//! What a line holds is never repeated in a message.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use aws_lc_rs::rand;
use zeroize::Zeroizing;

use crate::ticket_key::{KEYS_MAX, SECRET_LEN, TicketError, TicketKey};

const FILE_LEN_MAX: u64 = 64 * 1024;
/// 32 random bytes hold 30 different ones, give or take two.
const DIFFERENT_BYTES_MIN: usize = 16;

/// What a file of ticket keys holds.
#[derive(Debug, Clone)]
pub struct TicketKeys {
    /// Between 1 and [`KEYS_MAX`].
    pub(crate) keys: Vec<TicketKey>,
    mode: Option<u32>,
}

/// Why a file of ticket keys can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TicketFileError {
    /// The operating system's error.
    #[error("can't be read: {0}")]
    Io(#[from] io::Error),
    /// A directory, a pipe, or something much longer than all the keys it may hold.
    #[error("is not a file of ticket keys")]
    NoKeyFile,
    /// Lines that can't be used, in their order.
    #[error("{} of its lines can't be used", .0.len())]
    Lines(Vec<LineProblem>),
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
#[error("{error}; `wssgate ticket-key` makes a valid line")]
pub struct LineProblem {
    /// Counted from 1.
    pub line: usize,
    /// What.
    pub error: LineError,
}

/// Why a line is no key.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
pub enum LineError {
    /// There may be a comment behind it, and nothing else.
    #[error("expected a key of {} hexadecimal digits, found {len} characters", 2 * SECRET_LEN)]
    Length {
        /// Characters up to the comment.
        len: usize,
    },
    /// A character that is none.
    #[error("expected hexadecimal digits, found another character at {column}")]
    NoDigit {
        /// Counted from 1.
        column: usize,
    },
    /// Zeros, a pattern, a word repeated.
    #[error("this key is not random, so it can be guessed")]
    NotRandom,
    /// One key twice.
    #[error("this key is already in the file (line {line})")]
    Twice {
        /// Where.
        line: usize,
    },
    /// Keys that were never removed.
    #[error(
        "more than {KEYS_MAX} keys; remove those at the end: 12 hours after a key stops encrypting it is useless"
    )]
    TooMany,
    /// Nothing but comments.
    #[error("the file has no key")]
    Nothing,
}

impl TicketKeys {
    /// Reads a file; blocks.
    ///
    /// # Errors
    /// [`TicketFileError`].
    pub fn read(path: &Path) -> Result<Self, TicketFileError> {
        let metadata = fs::metadata(path)?;
        if !metadata.is_file() || metadata.len() > FILE_LEN_MAX {
            return Err(TicketFileError::NoKeyFile);
        }
        let capacity = usize::try_from(FILE_LEN_MAX).unwrap_or_default() + 1; // no copy is left behind
        let mut text = Zeroizing::new(Vec::with_capacity(capacity));
        fs::File::open(path)?.take(FILE_LEN_MAX).read_to_end(&mut text)?;
        let mut keys = Self::parse(&text).map_err(TicketFileError::Lines)?;
        keys.mode = Some(metadata.permissions().mode() & 0o7777);
        Ok(keys)
    }

    /// Understands a file's text.
    ///
    /// # Errors
    /// Every line that can't be used.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, Vec<LineProblem>> {
        let (mut keys, mut problems) = (Vec::new(), Vec::new());
        let mut lines: Vec<usize> = Vec::new();
        let mut count = 0;
        for (line, text) in text.split(|&byte| byte == b'\n').enumerate() {
            let line = line + 1;
            count = line;
            let text = text.split(|&byte| byte == b'#').next().unwrap_or_default().trim_ascii();
            if text.is_empty() {
                continue;
            }
            match key(text) {
                Err(error) => problems.push(LineProblem { line, error }),
                Ok(key) => {
                    if let Some(at) = keys.iter().position(|other: &TicketKey| other.name() == key.name()) {
                        problems.push(LineProblem { line, error: LineError::Twice { line: lines[at] } });
                    } else if keys.len() == KEYS_MAX {
                        problems.push(LineProblem { line, error: LineError::TooMany });
                        break;
                    } else {
                        keys.push(key);
                        lines.push(line);
                    }
                }
            }
        }
        if keys.is_empty() && problems.is_empty() {
            problems.push(LineProblem { line: count.max(1), error: LineError::Nothing });
        }
        if problems.is_empty() { Ok(Self { keys, mode: None }) } else { Err(problems) }
    }

    /// What the keys are called, for people: the first seals. Not secret.
    pub fn names(&self) -> impl Iterator<Item = String> {
        self.keys.iter().map(TicketKey::short_name)
    }

    /// The file's permissions, if others than its owner and its group may use it.
    #[must_use]
    pub fn open_to_others(&self) -> Option<u32> {
        self.mode.filter(|mode| mode & 0o007 != 0)
    }

    /// A line with a fresh key; `note` is said behind its name in the comment.
    ///
    /// # Errors
    /// If there is no randomness to be had.
    pub fn fresh_line(note: &str) -> Result<Zeroizing<String>, TicketError> {
        let mut secret = Zeroizing::new([0; SECRET_LEN]);
        rand::fill(&mut secret[..]).map_err(|_| TicketError::Randomness)?;
        let name = TicketKey::new(&secret).short_name();
        let mut line = Zeroizing::new(String::with_capacity(2 * SECRET_LEN + 16 + note.len()));
        for byte in *secret {
            for digit in [byte >> 4, byte & 0xf] {
                line.extend(char::from_digit(digit.into(), 16));
            }
        }
        line.push_str(&format!(" # {name} {note}\n"));
        Ok(line)
    }
}

fn key(text: &[u8]) -> Result<TicketKey, LineError> {
    let no_digit = |byte: &u8| !byte.is_ascii_hexdigit();
    if text.len() != 2 * SECRET_LEN {
        return Err(LineError::Length { len: String::from_utf8_lossy(text).chars().count() });
    }
    if let Some(at) = text.iter().position(no_digit) {
        return Err(LineError::NoDigit { column: at + 1 });
    }
    let value =
        |digit: u8| (digit as char).to_digit(16).and_then(|v| u8::try_from(v).ok()).unwrap_or_default();
    let mut secret = Zeroizing::new([0; SECRET_LEN]);
    for (byte, pair) in secret.iter_mut().zip(text.as_chunks::<2>().0) {
        *byte = value(pair[0]) << 4 | value(pair[1]);
    }
    if secret.iter().collect::<HashSet<_>>().len() < DIFFERENT_BYTES_MIN {
        return Err(LineError::NotRandom);
    }
    Ok(TicketKey::new(&secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    const B: &str = "F0E1D2C3B4A5968778695A4B3C2D1E0F00112233445566778899AABBCCDDEEFF";

    #[track_caller]
    fn wrong(text: &str, expect: &[(usize, LineError)]) {
        let found: Vec<_> =
            TicketKeys::parse(text.as_bytes()).unwrap_err().iter().map(|p| (p.line, p.error)).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn keys_are_lines() {
        for (text, count) in [
            (A.to_owned(), 1),
            (format!("{A}\n{B}\n"), 2),
            (format!("# ours\r\n\r\n  {A} # the old one\r\n\t{B}#\r\n"), 2),
        ] {
            assert_eq!(TicketKeys::parse(text.as_bytes()).unwrap().keys.len(), count, "{text:?}");
        }
        let keys = TicketKeys::parse(format!("{B}\n{A}\n").as_bytes()).unwrap();
        let lower = TicketKeys::parse(B.to_lowercase().as_bytes()).unwrap();
        assert_eq!(keys.names().next(), lower.names().next());
        assert_eq!(keys.names().count(), 2);
    }

    #[test]
    fn everything_else_is_a_problem_with_its_line() {
        use LineError::*;
        wrong("", &[(1, Nothing)]);
        wrong("# none\n\n", &[(3, Nothing)]);
        wrong(&A[1..], &[(1, Length { len: 63 })]);
        wrong(&format!("{A} {B}"), &[(1, Length { len: 129 })]);
        wrong(&A.replacen('f', "g", 1), &[(1, NoDigit { column: 32 })]);
        wrong(&format!("{}\n{}", "0".repeat(64), "5a".repeat(32)), &[(1, NotRandom), (2, NotRandom)]);
        wrong(
            &format!("{A}\nx\n{B}\n{}", A.to_uppercase()),
            &[(2, Length { len: 1 }), (4, Twice { line: 1 })],
        );
        // A random key has so many different bytes; another one may be a pattern.
        let [few, enough] =
            [15, 16].map(|n: u8| (0..32).map(|i: u8| format!("{:02x}", i % n)).collect::<String>());
        wrong(&few, &[(1, NotRandom)]);
        assert_eq!(TicketKeys::parse(enough.as_bytes()).unwrap().keys.len(), 1);
        let many: String =
            (0..17).map(|n| A.replacen("00", &format!("{:02x}", 0x80 + n), 1) + "\n").collect();
        wrong(&many, &[(17, TooMany)]);
        assert!(TicketKeys::parse(b"\xff\xfe\x00").is_err());
        let said = TicketKeys::parse(&A.as_bytes()[1..]).unwrap_err()[0].to_string();
        assert!(!said.contains("0506") && said.contains("ticket-key"), "{said}");
    }

    #[test]
    fn fresh_lines_are_good_and_differ() {
        let lines = [(); 2].map(|()| TicketKeys::fresh_line("made today").unwrap());
        let text = lines[0].to_string() + &lines[1];
        let keys = TicketKeys::parse(text.as_bytes()).unwrap();
        let names: Vec<_> = keys.names().collect();
        assert!(names[0] != names[1] && names.iter().all(|name| name.len() == 8), "{names:?}");
        for (line, name) in lines.iter().zip(keys.names()) {
            assert!(line.ends_with(&format!(" # {name} made today\n")), "{name}");
        }
    }

    #[test]
    fn files_and_what_is_none() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("keys");
        assert!(matches!(TicketKeys::read(&path), Err(TicketFileError::Io(_))));
        assert!(matches!(TicketKeys::read(directory.path()), Err(TicketFileError::NoKeyFile)));
        fs::write(&path, format!("{A}\n")).unwrap();
        for (mode, shown) in [(0o600, None), (0o640, None), (0o644, Some(0o644)), (0o602, Some(0o602))] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(TicketKeys::read(&path).unwrap().open_to_others(), shown);
        }
        let longest = format!("{A}{:width$}", '#', width = usize::try_from(FILE_LEN_MAX).unwrap() - A.len());
        fs::write(&path, &longest).unwrap();
        assert_eq!(TicketKeys::read(&path).unwrap().keys.len(), 1);
        fs::write(&path, longest + "#").unwrap();
        assert!(matches!(TicketKeys::read(&path), Err(TicketFileError::NoKeyFile)));
    }
}
