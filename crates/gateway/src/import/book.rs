//! What became of each directive: a key, nothing to do, or a comment that says what it means. Pure.

use super::sheet::{Section, Value};
use super::tree::{At, Directive};

/// The best that became of a directive, from the least to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    /// It has no counterpart, and a comment says what that means.
    Commented,
    /// The gateway does that without being told.
    ByItself,
    /// It is in the configuration.
    Key,
}

/// How many directives became what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// All that were read.
    pub directives: usize,
    /// Those that are keys now.
    pub keys: usize,
    /// Those that say what the gateway does by itself.
    pub by_itself: usize,
    /// Those without a counterpart, which comments explain.
    pub commented: usize,
}

/// Something that will be different, and needs a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remark {
    pub at: At,
    pub what: String,
}

/// The outcomes of all directives so far, and what has to be said about them.
#[derive(Debug)]
pub(super) struct Book {
    outcomes: Vec<Option<Outcome>>,
    remarks: Vec<Remark>,
}

impl Book {
    /// For so many directives.
    pub(super) fn new(directives: usize) -> Self {
        Self { outcomes: vec![None; directives], remarks: Vec::new() }
    }

    /// Notes an outcome; a better one that was noted before stays.
    pub(super) fn mark(&mut self, directive: &Directive, outcome: Outcome) {
        if let Some(noted) = self.outcomes.get_mut(directive.id) {
            *noted = (*noted).max(Some(outcome));
        }
    }

    /// Something was said about it already.
    pub(super) fn knows(&self, directive: &Directive) -> bool {
        self.outcomes.get(directive.id).is_some_and(Option::is_some)
    }

    /// What became of it.
    pub(super) fn outcome(&self, directive: &Directive) -> Option<Outcome> {
        self.outcomes.get(directive.id).copied().flatten()
    }

    /// The directive is this key.
    pub(super) fn key(
        &mut self,
        section: &mut Section,
        directive: &Directive,
        key: &str,
        value: impl Into<Value>,
    ) {
        self.mark(directive, Outcome::Key);
        section.set(key, value, Some(&directive.at));
    }

    /// The directive is this key, but not quite: `how` says in what it differs.
    pub(super) fn nearly(
        &mut self,
        section: &mut Section,
        directive: &Directive,
        (key, value): (&str, impl Into<Value>),
        how: &str,
    ) {
        section.comment(format!("{}: {}: {how}", directive.at, directive.shown()));
        self.key(section, directive, key, value);
    }

    /// The gateway does that without being told.
    pub(super) fn itself(&mut self, section: &mut Section, directive: &Directive, how: &str) {
        self.say(section, directive, Outcome::ByItself, how);
    }

    /// There is no counterpart, which changes little.
    pub(super) fn lacks(&mut self, section: &mut Section, directive: &Directive, meaning: &str) {
        self.say(section, directive, Outcome::Commented, meaning);
    }

    /// There is no counterpart, and clients or operators will notice.
    pub(super) fn misses(&mut self, section: &mut Section, directive: &Directive, meaning: &str) {
        self.remark(directive, meaning);
        self.say(section, directive, Outcome::Commented, meaning);
    }

    /// A line for the person who imports, beside the file.
    pub(super) fn remark(&mut self, directive: &Directive, what: &str) {
        let remark = Remark { at: directive.at.clone(), what: format!("{}: {what}", directive.shown()) };
        if !self.remarks.contains(&remark) {
            self.remarks.push(remark);
        }
    }

    fn say(&mut self, section: &mut Section, directive: &Directive, outcome: Outcome, what: &str) {
        self.mark(directive, outcome);
        section.note(format!("{}: {}: {what}", directive.at, directive.shown()));
    }

    /// All of what is in `directives`, and they themselves, have this outcome if they have none yet.
    pub(super) fn mark_all(&mut self, directives: &[Directive], outcome: Outcome) {
        for directive in directives {
            if !self.knows(directive) {
                self.mark(directive, outcome);
            }
            self.mark_all(directive.inside(), outcome);
        }
    }

    /// The directives of which nothing was said, as they stand in the tree.
    pub(super) fn unknown<'a>(&self, directives: &'a [Directive]) -> Vec<&'a Directive> {
        directives.iter().filter(|directive| !self.knows(directive)).collect()
    }

    /// What has to be looked at, in the order of the files' reading.
    pub(super) fn into_remarks(self) -> Vec<Remark> {
        self.remarks
    }

    pub(super) fn counts(&self) -> Counts {
        let count = |outcome| self.outcomes.iter().filter(|noted| **noted == Some(outcome)).count();
        Counts {
            directives: self.outcomes.len(),
            keys: count(Outcome::Key),
            by_itself: count(Outcome::ByItself),
            commented: count(Outcome::Commented),
        }
    }
}
