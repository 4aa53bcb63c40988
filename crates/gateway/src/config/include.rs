//! `include`: the sections of more files, behind those of the first.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::document::Document;
use super::environment::{Variables, expand};
use super::file;
use super::spec::Shape;
use super::values;
use crate::site::hidden::Hidden;

/// So many files are read at most.
const FILES_MAX: usize = 10_000;

/// A file that the first one includes, read.
pub(super) struct Included {
    pub(super) path: PathBuf,
    /// What it holds, or why it can't be read.
    pub(super) text: Result<String, String>,
    /// Where the first file names it.
    named: Range<usize>,
}

/// Reads every file that the first one includes, in the order of the patterns and, for each, of the names. A pattern that is
/// wrong is left out here: it is noted when the option is read. The second are the patterns that no file matches, as they
/// are written.
pub(super) fn files(
    file: &Path,
    first: &DeTable<'_>,
    variables: &Variables<'_>,
) -> (Vec<Included>, Vec<String>) {
    let mut unmatched = Vec::new();
    let Some(value) = first.get("include") else { return (Vec::new(), unmatched) };
    let patterns = match value.get_ref() {
        DeValue::Array(items) => items.iter().collect(),
        _ => vec![value],
    };
    let base = file.parent().unwrap_or(Path::new(""));
    let mut found: Vec<Included> = Vec::new();
    // Each is read once, if two patterns name it; and a pattern may name the file that it is in.
    let mut known = HashSet::from([file.to_owned()]);
    for pattern in patterns {
        let DeValue::String(text) = pattern.get_ref() else { continue };
        let written = text;
        let text = match expand(text, variables, &mut Hidden::default()) {
            Ok(None) => text.to_string(),
            Ok(Some(expanded)) => expanded,
            Err(_) => continue,
        };
        let span = pattern.span();
        let unread = |path, what| Included { path, text: Err(what), named: span.clone() };
        if values::files(&text).is_err() {
            continue;
        }
        let paths = matching(base, &text);
        if paths.is_empty() {
            unmatched.push(written.to_string());
        }
        for path in paths {
            let path = match path {
                Ok(path) => path,
                Err(what) => {
                    found.push(unread(file.to_owned(), what));
                    continue;
                }
            };
            if found.len() == FILES_MAX {
                found.push(unread(path, format!("more than {FILES_MAX} files are included")));
                return (found, unmatched);
            }
            if known.insert(path.clone()) {
                let text = read(&path).map_err(|e| format!("{} can't be read: {e}", path.display()));
                found.push(Included { path, text, named: span.clone() });
            }
        }
    }
    (found, unmatched)
}

fn read(path: &Path) -> io::Result<String> {
    file::metadata(path)?;
    fs::read_to_string(path)
}

/// A pattern that names no file is no problem, since its directory may be empty. A name without a pattern is that of a file.
fn matching(base: &Path, pattern: &str) -> Vec<Result<PathBuf, String>> {
    if !pattern.contains(['*', '?', '[']) {
        return vec![Ok(base.join(pattern))];
    }
    let pattern = match base.to_str() {
        // The directory is no part of the pattern.
        Some(base) if !pattern.starts_with('/') && !base.is_empty() => {
            format!("{}/{pattern}", glob::Pattern::escape(base))
        }
        _ => pattern.to_owned(),
    };
    // Files that an editor or a package manager leaves beside the others begin with a dot.
    let options = glob::MatchOptions { require_literal_leading_dot: true, ..glob::MatchOptions::new() };
    match glob::glob_with(&pattern, options) {
        Ok(paths) => paths.map(|path| path.map_err(|e| e.to_string())).collect(),
        Err(_) => Vec::new(),
    }
}

/// Appends the sections of `included` to those of the first file.
pub(super) fn append<'a>(document: &mut Document<'a>, first: &mut DeTable<'a>, included: &'a [Included]) {
    for Included { path, text, named } in included {
        match text {
            Ok(text) => {
                let tree = document.add(path, text, DeTable::parse_recoverable(text));
                for (key, value) in tree.into_inner() {
                    add(document, first, key, value);
                }
            }
            Err(what) => document.problem(document.place(Some(named.clone())), format!("include: {what}")),
        }
    }
}

fn add<'a>(
    document: &mut Document<'_>,
    first: &mut DeTable<'a>,
    key: Spanned<std::borrow::Cow<'a, str>>,
    value: Spanned<DeValue<'a>>,
) {
    let name = key.get_ref().as_ref();
    let place = document.place(Some(key.span()));
    if let Some(Shape::Value { .. }) = document.shape(name) {
        let what = format!(
            "{name} belongs to the top level of the configuration file; a file that is included has only sections"
        );
        return document.problem(place, what);
    }
    let Some(there) = first.get_mut(name) else {
        first.insert(key, value);
        return;
    };
    match (document.shape(name), there.get_mut(), value.get_ref()) {
        (Some(Shape::Sections(_)), DeValue::Array(all), DeValue::Array(more)) => {
            for section in more.iter() {
                all.push(section.clone());
            }
        }
        // An unknown key is noted where it is first.
        (None, ..) => {}
        (Some(_), there_value, _) => {
            let is_table = matches!(there_value, DeValue::Table(_));
            let shown = document.shown(document.place(Some(there.span())), place);
            let what = if is_table {
                format!("[{name}] stands at {shown} already; a configuration has one")
            } else {
                format!("expected what [[{name}]] is at {shown}")
            };
            document.problem(place, what);
        }
    }
}

#[cfg(test)]
mod tests;
