//! The directives that hold somewhere: its own, and behind them those around it. Pure.

use crate::import::tree::Directive;

/// The directives of a virtual host, and those outside of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope<'a> {
    pub own: Vec<&'a Directive>,
    pub outer: Vec<&'a Directive>,
}

impl<'a> Scope<'a> {
    /// The last of this name, of its own if there is one.
    pub(super) fn find(&self, name: &str) -> Option<&'a Directive> {
        let last = |all: &[&'a Directive]| all.iter().rev().find(|directive| directive.name == name).copied();
        last(&self.own).or_else(|| last(&self.outer))
    }

    /// All of this name, those outside first.
    pub(super) fn all(&self, name: &str) -> Vec<&'a Directive> {
        self.every().filter(|directive| directive.name == name).collect()
    }

    /// All of this name that are its own, else those outside.
    pub(super) fn nearest(&self, name: &str) -> Vec<&'a Directive> {
        let of = |all: &[&'a Directive]| -> Vec<&'a Directive> {
            all.iter().copied().filter(|directive| directive.name == name).collect()
        };
        let own = of(&self.own);
        if own.is_empty() { of(&self.outer) } else { own }
    }

    /// All directives, those outside first.
    pub(super) fn every(&self) -> impl Iterator<Item = &'a Directive> {
        self.outer.iter().chain(&self.own).copied()
    }
}
