//! What the files of another server say, before it is understood: directives, each with its place.

use std::fmt;
use std::sync::Arc;

/// Blocks may stand this deep in each other. The trees are walked by recursion, so there has to be a limit.
pub(super) const DEPTH_MAX: usize = 32;

/// Where something is written. Prints as `file:line`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct At {
    /// The file as comments call it: below the directory of the first one, if it is there.
    pub file: Arc<str>,
    /// The line, counted from 1.
    pub line: usize,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// A file that can't be understood, as its own server wouldn't either. Prints as `file:line: what`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {what}")]
pub(super) struct SyntaxError {
    pub at: At,
    pub what: String,
}

/// One directive, or one section with what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directive {
    /// Its number, counted from 0 in the order of reading: what became of it is noted by this.
    pub id: usize,
    /// As it is compared: Apache's are in lower case.
    pub name: String,
    /// Without quotes and escapes.
    pub args: Vec<String>,
    pub at: At,
    /// What stands between its braces or tags; `None`: it has none.
    pub block: Option<Vec<Directive>>,
}

impl Directive {
    /// An argument, or nothing.
    pub(super) fn arg(&self, index: usize) -> &str {
        self.args.get(index).map_or("", String::as_str)
    }

    /// What is in it.
    pub(super) fn inside(&self) -> &[Directive] {
        self.block.as_deref().unwrap_or_default()
    }

    /// As comments and messages show it, on one line and not too long.
    pub(super) fn shown(&self) -> String {
        const LEN_MAX: usize = 72;
        let mut text = self.name.clone();
        for arg in &self.args {
            text.push(' ');
            text.extend(arg.chars().map(|c| if c.is_control() { ' ' } else { c }));
        }
        if text.chars().count() > LEN_MAX {
            text = text.chars().take(LEN_MAX - 1).collect();
            text.push('…');
        }
        text
    }
}

/// The number of directives, with those inside of others.
#[cfg(test)]
pub(super) fn count(directives: &[Directive]) -> usize {
    directives.iter().map(|directive| 1 + count(directive.inside())).sum()
}
