//! The configuration that is written: sections with keys and comments, as text. Pure.

use std::fmt::Write;

use super::tree::At;

/// The width of comments.
const WIDTH: usize = 116;

/// What a key has.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(String),
    Number(i64),
    Flag(bool),
    List(Vec<Value>),
    Table(Vec<(String, Value)>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

/// A list of one is its only value.
impl From<Vec<String>> for Value {
    fn from(items: Vec<String>) -> Self {
        let mut items: Vec<Self> = items.into_iter().map(Self::Text).collect();
        if items.len() == 1 { items.remove(0) } else { Self::List(items) }
    }
}

/// All addresses, as a list of networks.
pub(super) fn every_address() -> Value {
    ["0.0.0.0/0", "::/0"].map(str::to_owned).to_vec().into()
}

/// A table of keys, in their order.
pub(super) fn table<const N: usize>(keys: [(&str, Value); N]) -> Value {
    Value::Table(keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

impl Value {
    fn write(&self, out: &mut String) {
        match self {
            Self::Text(text) => out.push_str(&quoted(text)),
            Self::Number(number) => drop(write!(out, "{number}")),
            Self::Flag(flag) => drop(write!(out, "{flag}")),
            Self::List(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    out.push_str(if i > 0 { ", " } else { "" });
                    item.write(out);
                }
                out.push(']');
            }
            Self::Table(keys) => {
                out.push_str("{ ");
                for (i, (key, value)) in keys.iter().enumerate() {
                    out.push_str(if i > 0 { ", " } else { "" });
                    let _ = write!(out, "{} = ", bare(key));
                    value.write(out);
                }
                out.push_str(" }");
            }
        }
    }
}

/// A text as TOML has it. `${` would be a variable of the environment, and `$${` is not.
fn quoted(text: &str) -> String {
    let text = text.replace("${", "$${");
    if !text.contains(char::is_control) {
        return toml::Value::from(text).to_string();
    }
    // The library would write several lines.
    basic(&text)
}

/// A text on one line, between double quotes.
fn basic(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => drop(write!(out, "\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out + "\""
}

/// One part of a key.
fn bare(key: &str) -> String {
    let is_bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    if is_bare { key.to_owned() } else { basic(key) }
}

/// The parts of a key, such as `response_headers`, `add` and the name of a field.
pub(super) fn path(parts: &[&str]) -> String {
    parts.iter().map(|part| bare(part)).collect::<Vec<_>>().join(".")
}

#[derive(Debug, Clone, PartialEq)]
enum Line {
    Comment(String),
    Key { key: String, value: Value, origin: Option<At> },
}

/// A section, or what stands above the first one.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Section {
    /// `[[route]]`; empty: there is no line for it.
    title: &'static str,
    lines: Vec<Line>,
    /// What stands behind the keys.
    notes: Vec<String>,
}

impl Section {
    pub(super) fn new(title: &'static str) -> Self {
        Self { title, ..Self::default() }
    }

    /// A comment in front of what is written next.
    pub(super) fn comment(&mut self, text: impl Into<String>) {
        self.lines.push(Line::Comment(text.into()));
    }

    /// A comment behind all keys; the same is said once.
    pub(super) fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// Sets a key, written as in a file. A value that it has already is replaced.
    pub(super) fn set(&mut self, key: &str, value: impl Into<Value>, origin: Option<&At>) {
        let (value, origin) = (value.into(), origin.cloned());
        let there = self.lines.iter_mut().find_map(|line| match line {
            Line::Key { key: other, value, .. } if other == key => Some(value),
            _ => None,
        });
        match there {
            Some(there) => *there = value,
            None => self.lines.push(Line::Key { key: key.to_owned(), value, origin }),
        }
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.lines.iter().find_map(|line| match line {
            Line::Key { key: other, value, .. } if other == key => Some(value),
            _ => None,
        })
    }

    /// Takes a key away.
    pub(super) fn unset(&mut self, key: &str) {
        self.lines.retain(|line| !matches!(line, Line::Key { key: other, .. } if other == key));
    }

    /// Nothing was written, but comments perhaps.
    pub(super) fn has_no_keys(&self) -> bool {
        !self.lines.iter().any(|line| matches!(line, Line::Key { .. }))
    }

    /// There is nothing at all.
    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.notes.is_empty()
    }

    /// The lines of `other` stand behind those of this section.
    pub(super) fn append(&mut self, other: Self) {
        self.lines.extend(other.lines);
        other.notes.into_iter().for_each(|note| self.note(note));
    }

    /// Writes the section; without a title or a key there are comments alone.
    pub(super) fn write(&self, out: &mut String) {
        if self.is_empty() && self.title.is_empty() {
            return;
        }
        if !out.is_empty() {
            out.push('\n');
        }
        if !self.title.is_empty() {
            let _ = writeln!(out, "{}", self.title);
        }
        for line in &self.lines {
            match line {
                Line::Comment(text) => comment(out, text),
                Line::Key { key, value, origin } => {
                    let _ = write!(out, "{key} = ");
                    value.write(out);
                    if let Some(origin) = origin {
                        let _ = write!(out, " # {origin}");
                    }
                    out.push('\n');
                }
            }
        }
        self.notes.iter().for_each(|note| comment(out, note));
    }
}

/// A comment, in lines that are not too long.
fn comment(out: &mut String, text: &str) {
    let mut width = 0;
    for word in text.split_whitespace() {
        let len = word.chars().count();
        if width > 0 && width + 1 + len > WIDTH {
            out.push_str("\n#  ");
            width = 3;
        } else if width == 0 {
            out.push('#');
            width = 1;
        }
        // TOML has no control characters in comments.
        out.push(' ');
        out.extend(word.chars().map(|c| if c.is_control() { '?' } else { c }));
        width += 1 + len;
    }
    if width > 0 {
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sections_are_toml() {
        let at = At { file: "nginx.conf".into(), line: 7 };
        let mut section = Section::new("[[route]]");
        section.set("path", "/", Some(&at));
        section.comment("why");
        section.set(&path(&["response_headers", "add", "X-Odd.Name"]), "a\"b ${C}", None);
        section.set("access.allow", vec!["10.0.0.0/8".to_owned(), "::1".to_owned()], None);
        section.set("files", table([("directory", "www".into()), ("listing", true.into())]), None);
        section.set("path", "/x", None);
        section.note("behind\nall");
        let mut out = String::new();
        section.write(&mut out);
        assert_eq!(
            out,
            "[[route]]\npath = \"/x\" # nginx.conf:7\n# why\nresponse_headers.add.\"X-Odd.Name\" = 'a\"b $${C}'\n\
             access.allow = [\"10.0.0.0/8\", \"::1\"]\nfiles = { directory = \"www\", listing = true }\n# behind all\n"
        );
    }

    proptest! {
        #[test]
        fn whatever_is_written_can_be_read(text: String, key: String, comment: String) {
            let mut section = Section::new("[[route]]");
            section.comment(comment.clone());
            section.set(&path(&["a", &key]), text.clone(), None);
            section.set("list", vec![text.clone(), text.clone()], None);
            section.note(comment);
            let mut out = String::new();
            section.write(&mut out);
            let read: toml::Table = out.parse().unwrap();
            let value = &read["route"][0]["list"][1];
            prop_assert_eq!(value.as_str().unwrap(), text.replace("${", "$${"));
            prop_assert!(read["route"][0]["a"].as_table().unwrap().contains_key(&key));
        }
    }
}
