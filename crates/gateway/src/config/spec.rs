//! What an option and a section are: their description, from which `wssgate reference` and `wssgate schema` are made.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::problem::Place;

/// The part of the file above its first section.
pub(super) const TOP_LEVEL: &str = "the top level";

/// A value, and where it is written. A default has the place of its section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// Where a section and its values are written.
pub(super) struct Written {
    pub(super) place: Place,
    pub(super) keys: BTreeMap<String, Place>,
}

/// A section, described.
pub(super) struct SectionSpec {
    pub(super) name: &'static str,
    pub(super) sentence: String,
    pub(super) options: Vec<OptionSpec>,
}

/// An option, described.
pub(super) struct OptionSpec {
    pub(super) key: &'static str,
    pub(super) shape: Shape,
    pub(super) default: Default,
    /// What it does.
    pub(super) sentence: String,
}

/// What an option holds.
pub(super) enum Shape {
    /// A value.
    Value {
        /// Its type and range, in words.
        words: String,
        /// The same in JSON Schema.
        schema: Json,
    },
    /// A value, or a section of its own.
    Either {
        /// The type and range of both, in words.
        words: String,
        /// That of the value in JSON Schema.
        schema: Json,
        /// The section.
        section: SectionSpec,
    },
    /// Any number of those, or one alone.
    Each {
        /// The type and range of all, in words.
        words: String,
        /// That of a value in JSON Schema.
        schema: Json,
        /// The section.
        section: SectionSpec,
    },
    /// A section of its own.
    Section(SectionSpec),
    /// Any number of sections.
    Sections(SectionSpec),
}

/// What holds where a file doesn't have the option.
pub(super) enum Default {
    /// A problem. The example is TOML.
    Required(&'static str),
    /// This value.
    Value(Json),
    /// What these words say.
    Words(&'static str),
    /// Nothing.
    Nothing,
}

impl SectionSpec {
    /// This section and those in it, in their order.
    pub(super) fn walk(&self) -> Vec<&Self> {
        let inner = self.options.iter().filter_map(|option| match &option.shape {
            Shape::Section(spec)
            | Shape::Sections(spec)
            | Shape::Either { section: spec, .. }
            | Shape::Each { section: spec, .. } => Some(spec),
            Shape::Value { .. } => None,
        });
        std::iter::once(self).chain(inner.flat_map(Self::walk)).collect()
    }
}

/// A JSON value as TOML writes it.
pub(super) fn toml_text(value: &Json) -> String {
    match value {
        Json::Array(items) => format!("[{}]", items.iter().map(toml_text).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

/// The lines of a doc comment as one text.
pub(super) fn sentence(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}
