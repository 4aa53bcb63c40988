//! What is known of the files of a configuration: where they say something, for problems that are found when they are
//! read, and by what it is seen that they have changed. Pure.

/// A place in the configuration, as editors count: from 1. The default stands for no place at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Place {
    /// 0: the configuration file. Else one of the files that it includes, counted from 1.
    pub file: usize,
    /// The line.
    pub line: usize,
    /// The character in the line.
    pub column: usize,
}

/// By what a change of a file is seen: the seconds and nanoseconds of its last change, its length, and the number of its
/// inode; `None`: there is no file.
pub type Stamp = Option<(i64, i64, u64, u64)>;
