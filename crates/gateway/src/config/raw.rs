//! A TOML tree read key by key: every problem is noted with its place, and reading goes on.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{SECTIONS, TOP_LEVEL, elsewhere};
use super::problem::{Lines, Place, Problem};
use super::secret;
use super::values;

/// A value, and where it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// The file, and what was found wrong with it so far.
pub(super) struct Document<'a> {
    file: PathBuf,
    lines: Lines<'a>,
    problems: Vec<Problem>,
    /// Where it stops being TOML.
    broken_at: Option<Place>,
}

impl<'a> Document<'a> {
    /// Parses `text`; its syntax errors are noted, and what can be understood is returned.
    pub(super) fn parse(file: &Path, text: &'a str) -> (Self, Spanned<DeTable<'a>>) {
        let mut document =
            Self { file: file.to_owned(), lines: Lines::of(text), problems: Vec::new(), broken_at: None };
        let (tree, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let place = document.place(error.span());
            let what = secret::left_out(format!("this is not TOML: {}", error.message().replace('\n', " ")));
            document.problems.push(Problem { file: document.file.clone(), place, what });
            document.broken_at = Some(document.broken_at.map_or(place, |first| first.min(place)));
        }
        (document, tree)
    }

    /// All problems, in the order of the file.
    pub(super) fn finish(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|problem| problem.place);
        self.problems
    }

    /// Something that is there and wrong. Behind a syntax error nothing is what it seems.
    pub(super) fn problem(&mut self, place: Place, what: impl Into<String>) {
        if self.broken_at.is_none_or(|broken| place < broken) {
            let what = secret::left_out(what.into());
            self.problems.push(Problem { file: self.file.clone(), place, what });
        }
    }

    /// Something that is missing. With a syntax error in the file it may only seem so.
    pub(super) fn missing(&mut self, place: Place, what: impl Into<String>) {
        if self.broken_at.is_none() {
            self.problem(place, what);
        }
    }

    fn place(&self, span: Option<Range<usize>>) -> Place {
        self.lines.place(span)
    }
}

/// One table, being read.
pub(super) struct Section<'a> {
    /// As the file calls it: `[[listener]]`.
    name: &'static str,
    pub(super) place: Place,
    table: &'a DeTable<'a>,
    /// Every key that was asked for.
    asked: BTreeSet<&'static str>,
}

impl<'a> Section<'a> {
    pub(super) fn root(document: &Document<'_>, tree: &'a Spanned<DeTable<'a>>) -> Self {
        Self::new(document, TOP_LEVEL, tree.span(), tree.get_ref())
    }

    fn new(document: &Document<'_>, name: &'static str, span: Range<usize>, table: &'a DeTable<'a>) -> Self {
        Self { name, place: document.place(Some(span)), table, asked: BTreeSet::new() }
    }

    fn get(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        debug_assert!(
            SECTIONS.iter().any(|(name, keys)| *name == self.name && keys.contains(&key)),
            "config/keys.rs lacks {key} of {}",
            self.name
        );
        self.asked.insert(key);
        self.table.get(key)
    }

    /// The key is there, whatever it holds.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Where the key's value is; the section's own place if it isn't there.
    pub(super) fn place_of(&self, document: &Document<'_>, key: &str) -> Place {
        self.table.get(key).map_or(self.place, |value| document.place(Some(value.span())))
    }

    fn scalar<T>(
        &mut self,
        document: &mut Document<'_>,
        key: &'static str,
        read: impl FnOnce(&DeValue<'a>) -> Result<T, String>,
    ) -> Option<At<T>> {
        let value = self.get(key)?;
        let place = document.place(Some(value.span()));
        match read(value.get_ref()) {
            Ok(value) => Some(At { value, place }),
            Err(what) => {
                document.problem(place, format!("{key}: {what}"));
                None
            }
        }
    }

    /// A string that `parse` understands.
    pub(super) fn string<T>(
        &mut self,
        document: &mut Document<'_>,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<At<T>> {
        self.scalar(document, key, |value| match value {
            DeValue::String(text) => parse(text),
            other => Err(format!("expected a string in quotes, found {}", describe(other))),
        })
    }

    pub(super) fn boolean(&mut self, document: &mut Document<'_>, key: &'static str) -> Option<At<bool>> {
        self.scalar(document, key, |value| match value {
            DeValue::Boolean(value) => Ok(*value),
            other => Err(format!("expected true or false, found {}", describe(other))),
        })
    }

    /// An integer from 1 to `max`.
    pub(super) fn count(
        &mut self,
        document: &mut Document<'_>,
        key: &'static str,
        max: usize,
    ) -> Option<At<usize>> {
        self.scalar(document, key, |value| match value {
            DeValue::Integer(digits) => usize::from_str_radix(digits.as_str(), digits.radix())
                .ok()
                .filter(|n| (1..=max).contains(n))
                .ok_or_else(|| format!("expected a number from 1 to {max}, found {digits}")),
            other => Err(format!("expected a number from 1 to {max}, found {}", describe(other))),
        })
    }

    /// A string that `parse` understands as a duration.
    pub(super) fn duration<T>(
        &mut self,
        document: &mut Document<'_>,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<At<T>> {
        self.scalar(document, key, |value| match value {
            DeValue::String(text) => parse(text),
            DeValue::Integer(digits) => Err(values::number_for_duration(digits.as_str())),
            other => Err(format!("expected a duration in quotes such as \"30s\", found {}", describe(other))),
        })
    }

    /// A size in bytes: a string such as "16MiB", or an integer that can't be meant as anything but bytes;
    /// `None` is "off".
    pub(super) fn size_or_off(
        &mut self,
        document: &mut Document<'_>,
        key: &'static str,
    ) -> Option<At<Option<u64>>> {
        const HINT: &str = "expected a size such as \"16MiB\" or \"64KB\", or \"off\"";
        self.scalar(document, key, |value| match value {
            DeValue::String(text) if *text == "off" => Ok(None),
            DeValue::String(text) => values::size(text).map(Some),
            DeValue::Integer(digits) => match u64::from_str_radix(digits.as_str(), digits.radix()) {
                Ok(bytes @ (1..1024)) => Err(format!(
                    "a unit is missing behind {bytes}: write \"{bytes}B\" for bytes, or \"{bytes}MiB\""
                )),
                Ok(bytes) => Ok(Some(bytes)),
                Err(_) => Err(format!("{HINT}, found {digits}")),
            },
            other => Err(format!("{HINT}, found {}", describe(other))),
        })
    }

    /// Strings that `parse` understands, or a single one; each problem is at its own string.
    pub(super) fn strings<T>(
        &mut self,
        document: &mut Document<'_>,
        key: &'static str,
        mut parse: impl FnMut(&str) -> Result<T, String>,
    ) -> Option<At<Vec<T>>> {
        let value = self.get(key)?;
        let place = document.place(Some(value.span()));
        let items = match value.get_ref() {
            DeValue::Array(items) => items.iter().collect(),
            DeValue::String(_) => vec![value],
            other => {
                let found = describe(other);
                document.problem(place, format!("{key}: expected a list of strings, found {found}"));
                return None;
            }
        };
        let mut values = Vec::new();
        for item in items {
            let place = document.place(Some(item.span()));
            match item.get_ref() {
                DeValue::String(text) => match parse(text) {
                    Ok(value) => values.push(value),
                    Err(what) => document.problem(place, format!("{key}: {what}")),
                },
                other => {
                    let found = describe(other);
                    document.problem(place, format!("{key}: expected a string in quotes, found {found}"));
                }
            }
        }
        Some(At { value: values, place })
    }

    /// The table `[key]`, to be read as `name`.
    pub(super) fn table(
        &mut self,
        document: &mut Document<'_>,
        key: &'static str,
        name: &'static str,
    ) -> Option<Section<'a>> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::Table(table) => Some(Section::new(document, name, value.span(), table)),
            other => {
                let (place, found) = (document.place(Some(value.span())), describe(other));
                document.problem(place, format!("expected a table {name}, found {found}"));
                None
            }
        }
    }

    /// The tables `[[key]]`, to be read as `name`.
    pub(super) fn tables(
        &mut self,
        document: &mut Document<'_>,
        key: &'static str,
        name: &'static str,
    ) -> Vec<Section<'a>> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let DeValue::Array(items) = value.get_ref() else {
            let place = document.place(Some(value.span()));
            let found = describe(value.get_ref());
            document.problem(place, format!("expected tables {name} (two brackets), found {found}"));
            return Vec::new();
        };
        let mut sections = Vec::new();
        for item in items.iter() {
            match item.get_ref() {
                DeValue::Table(table) => sections.push(Section::new(document, name, item.span(), table)),
                other => {
                    let (place, found) = (document.place(Some(item.span())), describe(other));
                    document.problem(place, format!("expected a table {name}, found {found}"));
                }
            }
        }
        sections
    }

    /// Notes a key that has to be there and isn't. Something that is there but wrong was noted
    /// when it was read.
    pub(super) fn require(&self, document: &mut Document<'_>, key: &'static str, example: &str) {
        if !self.has(key) {
            document
                .missing(self.place, format!("{} needs {key}, for instance {key} = {example}", self.name));
        }
    }

    /// Notes every key that the section doesn't have.
    pub(super) fn finish(self, document: &mut Document<'_>) {
        for key in self.table.keys() {
            let text = key.get_ref().as_ref();
            if self.asked.contains(text) {
                continue;
            }
            let place = document.place(Some(key.span()));
            if let Some(what) = elsewhere(text, self.name) {
                document.problem(place, format!("unknown key {text:?} in {}; {what}", self.name));
                continue;
            }
            let near = self.asked.iter().map(|asked| (strsim::damerau_levenshtein(text, asked), asked));
            let near = near.filter(|(distance, _)| *distance <= 1 + text.len() / 4).min();
            let hint = match near {
                Some((_, asked)) => format!("did you mean {asked}?"),
                None => {
                    let known: Vec<_> = self.asked.iter().copied().collect();
                    format!("known here: {}", known.join(", "))
                }
            };
            document.problem(place, format!("unknown key {text:?} in {}; {hint}", self.name));
        }
    }
}

fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the string {text:?}"),
        DeValue::Integer(digits) => format!("the number {digits}"),
        DeValue::Boolean(value) => value.to_string(),
        other => {
            let kind = other.type_str();
            let article = if kind.starts_with(['a', 'i']) { "an" } else { "a" };
            format!("{article} {kind}")
        }
    }
}
