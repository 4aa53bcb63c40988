//! What is said of directives that never are keys, whichever server they are of.

/// What is said about a directive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// The gateway does that by itself.
    Itself(&'static str),
    /// There is no counterpart, and little changes.
    Lacks(&'static str),
    /// There is no counterpart, and something will be different.
    Misses(&'static str),
}
