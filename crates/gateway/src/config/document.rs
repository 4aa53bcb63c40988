//! A TOML tree read key by key: every problem is noted with its place, and reading goes on.

use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::foreign;
use super::problem::{Lines, Place, Problem};
use super::secret;
use super::spec::{SectionSpec, Written};

/// The file, and what was found wrong with it so far.
pub(super) struct Document<'a> {
    file: PathBuf,
    lines: Lines<'a>,
    /// Every section that a file may have.
    described: SectionSpec,
    problems: Vec<Problem>,
    /// Directories that have to be there, and where they are named.
    directories: Vec<(PathBuf, Place)>,
    /// Where it stops being TOML.
    broken_at: Option<Place>,
}

impl<'a> Document<'a> {
    /// Parses `text`; its syntax errors are noted, and what can be understood is returned.
    pub(super) fn parse(file: &Path, text: &'a str, described: SectionSpec) -> (Self, Spanned<DeTable<'a>>) {
        let mut document = Self {
            file: file.to_owned(),
            lines: Lines::of(text),
            described,
            problems: Vec::new(),
            directories: Vec::new(),
            broken_at: None,
        };
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

    /// The directory that relative paths start from.
    pub(super) fn base(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new(""))
    }

    /// A directory that has to be there when the configuration is carried out.
    pub(super) fn directory(&mut self, directory: PathBuf, place: Place) {
        self.directories.push((directory, place));
    }

    /// All such directories.
    pub(super) fn take_directories(&mut self) -> Vec<(PathBuf, Place)> {
        std::mem::take(&mut self.directories)
    }

    /// Something that is there and wrong. Behind a syntax error the places of values can't be trusted.
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

    pub(super) fn place(&self, span: Option<Range<usize>>) -> Place {
        self.lines.place(span)
    }
}

/// One table of the file.
pub(super) struct Section<'a> {
    /// As messages call it: `[[listener]]`.
    name: &'static str,
    pub(super) place: Place,
    table: &'a DeTable<'a>,
}

impl<'a> Section<'a> {
    pub(super) fn new(
        document: &Document<'_>,
        name: &'static str,
        span: Range<usize>,
        table: &'a DeTable<'a>,
    ) -> Self {
        Self { name, place: document.place(Some(span)), table }
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table.get(key)
    }

    /// Notes a key that has to be there and isn't. A value that is there but wrong was noted when it was read.
    pub(super) fn require(&self, document: &mut Document<'_>, key: &'static str, example: &str) {
        if !self.table.contains_key(key) {
            document
                .missing(self.place, format!("{} needs {key}, for instance {key} = {example}", self.name));
        }
    }

    /// Where the section and its values are.
    pub(super) fn written(&self, document: &Document<'_>) -> Written {
        let keys = self.table.iter();
        let keys = keys
            .map(|(key, value)| (key.get_ref().to_string(), document.place(Some(value.span()))))
            .collect();
        Written { place: self.place, keys }
    }

    /// Notes every key that is not `known`.
    pub(super) fn unknown(&self, document: &mut Document<'_>, known: &[&str]) {
        for key in self.table.keys() {
            let text = key.get_ref().as_ref();
            if known.contains(&text) {
                continue;
            }
            let place = document.place(Some(key.span()));
            let hint =
                foreign::elsewhere(text, self.name, &document.described).unwrap_or_else(|| near(text, known));
            document.problem(place, format!("unknown key {text:?} in {}; {hint}", self.name));
        }
    }
}

/// What may have been meant by a key.
fn near(text: &str, known: &[&str]) -> String {
    let distances = known.iter().map(|known| (strsim::damerau_levenshtein(text, known), known));
    match distances.filter(|(distance, _)| *distance <= 1 + text.len() / 4).min() {
        Some((_, known)) => format!("did you mean {known}?"),
        None => {
            let mut known = known.to_vec();
            known.sort_unstable();
            format!("known here: {}", known.join(", "))
        }
    }
}

/// A value of another type than the expected one, for messages.
pub(super) fn describe(value: &DeValue<'_>) -> String {
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
