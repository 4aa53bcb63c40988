//! Which module of a crate names which other, read from the sources. Good enough for this workspace: a file is a
//! module, tests are left out, and paths are followed where they begin with `crate`, `super`, `self` or the name
//! of a module below.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Files that hold nothing but tests, or what tests need.
const TESTS: [&str; 6] =
    ["tests.rs", "test_io.rs", "test_moving.rs", "test_net.rs", "test_rig.rs", "simulation.rs"];

/// By module (`a::b`; the crate itself is empty): the modules of the same crate that it names.
pub(crate) type Imports = BTreeMap<String, BTreeSet<String>>;

/// Reads a crate; `sources` is its `src`.
pub(crate) fn imports(sources: &Path) -> Imports {
    let mut codes = BTreeMap::new();
    collect(sources, &[], &mut codes);
    let modules: BTreeSet<String> = codes.keys().cloned().collect();
    codes.iter().map(|(module, code)| (module.clone(), named(module, code, &modules))).collect()
}

fn collect(directory: &Path, inside: &[String], codes: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let mut module = inside.to_vec();
        if path.is_dir() {
            if stem != "tests" {
                module.push(stem);
                collect(&path, &module, codes);
            }
        } else if name.ends_with(".rs") && !TESTS.contains(&name) {
            if stem != "mod" && !(inside.is_empty() && stem == "lib") {
                module.push(stem);
            }
            codes.insert(module.join("::"), code(&fs::read_to_string(&path).unwrap()));
        }
    }
}

/// A file's text without its tests, comments and string literals.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let mut out = String::new();
    let mut is_for_tests = false;
    for line in text.lines() {
        let line = line.split("//").next().unwrap();
        // An attribute and the item of one line behind it.
        if line.trim() == "#[cfg(test)]" {
            is_for_tests = true;
        } else if !std::mem::take(&mut is_for_tests) {
            out.extend(line.split('"').step_by(2)); // good enough: no name stands behind an escaped quote
            out.push('\n');
        }
    }
    out
}

/// The names and signs of a text.
fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        let len = match first {
            c if is_name(c) => rest.find(|c| !is_name(c)).unwrap_or(rest.len()),
            ':' if rest.starts_with("::") => 2,
            c => c.len_utf8(),
        };
        if !first.is_whitespace() {
            tokens.push(&rest[..len]);
        }
        rest = &rest[len..];
    }
    tokens
}

fn named(module: &str, code: &str, modules: &BTreeSet<String>) -> BTreeSet<String> {
    let tokens = tokens(code);
    let here: Vec<&str> = module.split("::").filter(|name| !name.is_empty()).collect();
    let mut found = BTreeSet::new();
    for (at, token) in tokens.iter().enumerate() {
        // The rest of a path, or the module in `pub(in crate::module)`.
        let before = &tokens[..at];
        if tokens.get(at + 1) != Some(&"::") || before.ends_with(&["::"]) || before.ends_with(&["(", "in"]) {
            continue;
        }
        let mut child = here.clone();
        child.push(token);
        let (prefix, at) = match *token {
            "crate" => (Vec::new(), at + 2),
            "self" => (here.clone(), at + 2),
            "super" => (here[..here.len().saturating_sub(1)].to_vec(), at + 2),
            _ if modules.contains(&child.join("::")) => (here.clone(), at),
            _ => continue,
        };
        follow(&tokens, at, prefix, modules, &mut found);
    }
    found.remove(module);
    found
}

/// Follows a path, or a tree of them, from `at`; returns what comes behind it.
fn follow<'a>(
    tokens: &[&'a str],
    mut at: usize,
    mut path: Vec<&'a str>,
    modules: &BTreeSet<String>,
    found: &mut BTreeSet<String>,
) -> usize {
    while let Some(token) = tokens.get(at) {
        match *token {
            "super" => drop(path.pop()),
            "{" => {
                while tokens.get(at).is_some_and(|token| matches!(*token, "{" | ",")) {
                    at = follow(tokens, at + 1, path.clone(), modules, found);
                }
                return at + 1;
            }
            "self" | "}" | "*" => {}
            name => path.push(name),
        }
        if tokens.get(at + 1) != Some(&"::") || *token == "}" {
            at += usize::from(*token != "}");
            break;
        }
        at += 2;
    }
    // The longest front of the path that is a module.
    let longest =
        (1..=path.len()).rev().map(|len| path[..len].join("::")).find(|front| modules.contains(front));
    found.extend(longest);
    // `name as other` in a tree.
    while tokens.get(at).is_some_and(|token| !matches!(*token, "," | "}" | ";" | "{" | "(" | ")")) {
        if tokens[at] != "as" {
            break;
        }
        at += 2;
    }
    at
}

/// A circle of modules, if there is one.
pub(crate) fn circle(imports: &Imports) -> Option<Vec<String>> {
    fn walk<'a>(
        imports: &'a Imports,
        module: &'a str,
        way: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<Vec<String>> {
        if let Some(at) = way.iter().position(|other| *other == module) {
            return Some(way[at..].iter().map(ToString::to_string).collect());
        }
        if done.contains(module) {
            return None;
        }
        way.push(module);
        let found = imports[module].iter().find_map(|next| walk(imports, next, way, done));
        way.pop();
        done.insert(module);
        found
    }
    let mut done = BTreeSet::new();
    imports.keys().find_map(|module| walk(imports, module, &mut Vec::new(), &mut done))
}

#[test]
fn paths_are_followed() {
    let modules = ["a", "a::b", "c", "c::d"].map(String::from).into();
    let named =
        |module: &str, code: &str| named(module, &self::code(code), &modules).into_iter().collect::<Vec<_>>();
    for (module, text, expect) in [
        ("a::b", "use crate::c::{d::{X, self}, Y as Z};", &["c", "c::d"][..]),
        ("c::d", "use super::Y; use super::super::a::b::{self, T};", &["a::b", "c"]),
        ("c", "pub use self::d::X; fn f() { d::g() }", &["c::d"]),
        ("c", "// crate::a\nconst X: &str = \"crate::a\"; let x = crate::a::f();", &["a"]),
        ("c", "use crate::unknown::X; use std::a::b;", &[]),
        ("c", "pub(in crate::a) fn f() {}", &[]),
        ("c", "fn f() {}\n#[cfg(test)]\nmod tests { use crate::a; }", &[]),
    ] {
        assert_eq!(named(module, text), expect, "{module}: {text}");
    }
}

#[test]
fn circles_are_found() {
    let imports = |arrows: &[(&str, &str)]| {
        let mut imports = Imports::new();
        for (from, to) in arrows {
            imports.entry((*to).to_owned()).or_default();
            imports.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        }
        imports
    };
    assert_eq!(circle(&imports(&[("a", "b"), ("b", "c"), ("a", "c")])), None);
    assert_eq!(circle(&imports(&[("a", "b"), ("b", "c"), ("c", "b")])), Some(vec!["b".into(), "c".into()]));
}
