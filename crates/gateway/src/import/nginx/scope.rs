//! Which directives hold at a place: its own, and those of the blocks around it. Pure.

use crate::import::tree::Directive;

/// The blocks around a place, the outermost first, with the one that it is in.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope<'a> {
    blocks: Vec<&'a [Directive]>,
}

impl<'a> Scope<'a> {
    /// One block further in.
    pub(super) fn inside(&self, block: &'a [Directive]) -> Self {
        let mut blocks = self.blocks.clone();
        blocks.push(block);
        Self { blocks }
    }

    /// All of them, the outermost first.
    pub(super) fn blocks(&self) -> impl Iterator<Item = &'a [Directive]> {
        self.blocks.iter().copied()
    }

    /// What stands in the innermost block.
    pub(super) fn own(&self) -> &'a [Directive] {
        self.blocks.last().copied().unwrap_or_default()
    }

    /// The directives of this name in the innermost block alone.
    pub(super) fn own_all(&self, name: &str) -> impl Iterator<Item = &'a Directive> {
        self.own().iter().filter(move |directive| directive.name == name)
    }

    /// The directive of this name that stands furthest in.
    pub(super) fn find(&self, name: &str) -> Option<&'a Directive> {
        self.all(name).pop()
    }

    /// The directives of this name in the innermost block that has any: a block with one `add_header` has none of those
    /// around it.
    pub(super) fn all(&self, name: &str) -> Vec<&'a Directive> {
        self.any(&[name])
    }

    /// The directives of these names in the innermost block that has any of them, in their order.
    pub(super) fn any(&self, names: &[&str]) -> Vec<&'a Directive> {
        let of = |block: &&'a [Directive]| -> Vec<&'a Directive> {
            block.iter().filter(|directive| names.contains(&directive.name.as_str())).collect()
        };
        self.blocks.iter().rev().map(of).find(|found| !found.is_empty()).unwrap_or_default()
    }

    /// The directive of this name says `on`.
    pub(super) fn is_on(&self, name: &str) -> bool {
        self.find(name).is_some_and(|directive| directive.arg(0) == "on")
    }
}
