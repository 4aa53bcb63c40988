//! Where the configuration says something, for problems that are found when its files are read. Pure.

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
