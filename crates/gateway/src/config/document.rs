//! A TOML tree read key by key: every problem is noted with its place, and reading goes on.

use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::environment::{Variables, expand};
use super::foreign;
use super::problem::{Lines, Place, Problem};
use super::secret;
use super::spec::{SectionSpec, Shape, Written};
use crate::site::endpoint::{self, Endpoint};
use crate::site::hidden::Hidden;

/// The files, and what was found wrong with them so far.
pub(super) struct Document<'a> {
    /// The configuration file, and behind it those that it includes.
    sources: Vec<Source<'a>>,
    variables: &'a Variables<'a>,
    /// What the files took from the environment.
    hidden: Hidden,
    /// Every section that a file may have.
    described: SectionSpec,
    problems: Vec<Problem>,
    /// Where the values are whose variables can't be put in, and the lists that have such values.
    unexpanded: Vec<Place>,
    /// Directories that have to be there, and where they are named.
    directories: Vec<(PathBuf, Place)>,
    /// Unix sockets of servers, and where they are named.
    sockets: Vec<(PathBuf, Place)>,
}

/// One file.
struct Source<'a> {
    path: PathBuf,
    lines: Lines<'a>,
    /// Where its text begins, if the texts of all files stand one behind the other. Spans count from the first.
    start: usize,
    /// Where it stops being TOML.
    broken_at: Option<Place>,
}

impl<'a> Document<'a> {
    /// No file yet. Values may name `variables`.
    pub(super) fn new(variables: &'a Variables<'a>, described: SectionSpec) -> Self {
        Self {
            sources: Vec::new(),
            variables,
            hidden: Hidden::default(),
            described,
            problems: Vec::new(),
            unexpanded: Vec::new(),
            directories: Vec::new(),
            sockets: Vec::new(),
        }
    }

    /// Takes in one more file, parsed from `text`: its syntax errors are noted, and what could be understood is returned,
    /// with the environment's variables in it.
    pub(super) fn add(
        &mut self,
        file: &Path,
        text: &'a str,
        (tree, errors): (Spanned<DeTable<'a>>, Vec<toml::de::Error>),
    ) -> Spanned<DeTable<'a>> {
        let start = self.sources.last().map_or(0, |last| last.start + last.lines.len() + 1);
        self.sources.push(Source { path: file.to_owned(), lines: Lines::of(text), start, broken_at: None });
        for error in errors {
            let place = self.place(error.span().map(|span| shifted(span, start)).or(Some(start..start)));
            let what = secret::left_out(format!("this is not TOML: {}", error.message().replace('\n', " ")));
            self.problems.push(Problem { file: file.to_owned(), place, what });
            if let Some(source) = self.sources.last_mut() {
                source.broken_at = Some(source.broken_at.map_or(place, |first| first.min(place)));
            }
        }
        let span = shifted(tree.span(), start);
        let mut table = shifted_table(tree.into_inner(), start);
        self.expand_table(&mut table);
        Spanned::new(span, table)
    }

    /// All problems, in the order of the files.
    pub(super) fn finish(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|problem| problem.place);
        self.problems
    }

    /// The directory that relative paths in a value start from: that of its file.
    pub(super) fn base(&self, value: &Spanned<DeValue<'_>>) -> &Path {
        let file = self.source(value.span().start).and_then(|(_, source)| source.path.parent());
        file.unwrap_or(Path::new(""))
    }

    /// What the option `key` of the top level holds.
    pub(super) fn shape(&self, key: &str) -> Option<&Shape> {
        self.described.options.iter().find(|option| option.key == key).map(|option| &option.shape)
    }

    /// The files behind the first, in their order.
    pub(super) fn included(&self) -> Vec<PathBuf> {
        self.sources.iter().skip(1).map(|source| source.path.clone()).collect()
    }

    /// The values whose variables can't be put in, which is noted: what else is wrong with them says nothing.
    pub(super) fn unexpanded(&self) -> &[Place] {
        &self.unexpanded
    }

    /// What the files took from the environment.
    pub(super) fn take_hidden(&mut self) -> Hidden {
        std::mem::take(&mut self.hidden)
    }

    /// A directory that has to be there when the configuration is carried out.
    pub(super) fn directory(&mut self, directory: PathBuf, place: Place) {
        self.directories.push((directory, place));
    }

    /// All such directories.
    pub(super) fn take_directories(&mut self) -> Vec<(PathBuf, Place)> {
        std::mem::take(&mut self.directories)
    }

    /// A server that is named here: if it listens on a Unix socket, that is noted.
    pub(super) fn server(&mut self, endpoint: &Endpoint, place: Place) {
        if let endpoint::Place::Unix(path) = &endpoint.place {
            self.sockets.push((PathBuf::from(&**path), place));
        }
    }

    /// All such sockets.
    pub(super) fn take_sockets(&mut self) -> Vec<(PathBuf, Place)> {
        std::mem::take(&mut self.sockets)
    }

    /// Something that is there and wrong. Behind a syntax error the places of values can't be trusted.
    pub(super) fn problem(&mut self, place: Place, what: impl Into<String>) {
        let Some(source) = self.sources.get(place.file).filter(|_| !self.unexpanded.contains(&place)) else {
            return;
        };
        if source.broken_at.is_none_or(|broken| place < broken) {
            let what = secret::left_out(self.hidden.hide(&what.into()));
            self.problems.push(Problem { file: source.path.clone(), place, what });
        }
    }

    /// Something that is missing. With a syntax error in a file it may only seem so.
    pub(super) fn missing(&mut self, place: Place, what: impl Into<String>) {
        if self.sources.iter().all(|source| source.broken_at.is_none()) {
            self.problem(place, what);
        }
    }

    pub(super) fn place(&self, span: Option<Range<usize>>) -> Place {
        let at = span.map_or(0, |span| span.start);
        let Some((file, source)) = self.source(at) else { return Place::default() };
        let (line, column) = source.lines.position(at - source.start);
        Place { file, line, column }
    }

    /// How messages call another place than that which they are about.
    pub(super) fn shown(&self, Place { file, line, .. }: Place, here: Place) -> String {
        match self.sources.get(file) {
            Some(source) if file != here.file => format!("{}:{line}", source.path.display()),
            _ => format!("line {line}"),
        }
    }

    /// The file that a byte offset is in, and its number.
    fn source(&self, at: usize) -> Option<(usize, &Source<'a>)> {
        let file = self.sources.partition_point(|source| source.start <= at).checked_sub(1)?;
        Some((file, self.sources.get(file)?))
    }

    /// Puts the environment's variables into every string.
    fn expand_table(&mut self, table: &mut DeTable<'_>) {
        for (_, value) in table.iter_mut() {
            self.expand(value);
        }
    }

    fn expand(&mut self, value: &mut Spanned<DeValue<'_>>) {
        let place = self.place(Some(value.span()));
        match value.get_mut() {
            DeValue::String(text) => match expand(text, self.variables, &mut self.hidden) {
                Ok(None) => {}
                Ok(Some(expanded)) => *text = expanded.into(),
                Err(what) => {
                    self.problem(place, what);
                    self.unexpanded.push(place);
                }
            },
            DeValue::Array(items) => {
                let before = self.unexpanded.len();
                for item in items.iter_mut() {
                    self.expand(item);
                }
                if self.unexpanded.len() > before {
                    self.unexpanded.push(place);
                }
            }
            DeValue::Table(table) => self.expand_table(table),
            _ => {}
        }
    }
}

/// A tree whose spans count from `start` on.
fn shifted_table(table: DeTable<'_>, start: usize) -> DeTable<'_> {
    let pairs = table.into_iter();
    let pairs = pairs.map(|(key, value)| {
        let key = Spanned::new(shifted(key.span(), start), key.into_inner());
        (key, shifted_value(value, start))
    });
    pairs.collect()
}

fn shifted_value(value: Spanned<DeValue<'_>>, start: usize) -> Spanned<DeValue<'_>> {
    let span = shifted(value.span(), start);
    let value = match value.into_inner() {
        DeValue::Array(items) => {
            DeValue::Array(items.into_iter().map(|item| shifted_value(item, start)).collect())
        }
        DeValue::Table(table) => DeValue::Table(shifted_table(table, start)),
        other => other,
    };
    Spanned::new(span, value)
}

fn shifted(span: Range<usize>, start: usize) -> Range<usize> {
    span.start + start..span.end + start
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
