//! The crate's public items, as its sources have them, and those of the types that it has from other crates, against a
//! committed list: a change of the surface is seen in review.
//!
//! `WSS_SERVICE_SURFACE=write cargo test -p wss-service --test surface` writes the list again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn the_public_items_are_those_of_the_list() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let texts = sources(&root.join("src"));
    let names: BTreeSet<&str> = texts.iter().flat_map(|text| public_names(text)).collect();
    let mut items: BTreeSet<String> = texts.iter().flat_map(|text| items(text, &names)).collect();
    for library in ["tls-acceptor", "frame-core"] {
        let texts_there = sources(&root.join("..").join(library).join("src"));
        let names = given_on(&texts, &library.replace('-', "_"));
        assert!(!names.is_empty(), "{library}");
        items.extend(texts_there.iter().flat_map(|text| items_of(text, &names)));
    }
    assert!(items.len() > 150, "{} items: is the test still right?", items.len());
    let seen: String = items.iter().map(|item| format!("{item}\n")).collect();
    let list = root.join("tests/surface.txt");
    if std::env::var("WSS_SERVICE_SURFACE").is_ok_and(|mode| mode == "write") {
        fs::write(&list, &seen).unwrap();
    }
    let committed = fs::read_to_string(&list).unwrap();
    let before: BTreeSet<String> = committed.lines().map(ToOwned::to_owned).collect();
    let added: Vec<_> = items.difference(&before).collect();
    let removed: Vec<_> = before.difference(&items).collect();
    assert!(added.is_empty() && removed.is_empty(), "added: {added:#?}\nremoved: {removed:#?}");
}

/// The texts of the files of a directory. What stands deeper in this crate is private.
fn sources(directory: &Path) -> Vec<String> {
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.is_file()).map(|path| fs::read_to_string(path).unwrap()).collect()
}

/// Types of another crate that `pub use` has made this crate's.
fn given_on<'a>(texts: &'a [String], library: &str) -> BTreeSet<&'a str> {
    let uses = texts.iter().flat_map(|text| text.split("pub use ").skip(1));
    let lists = uses.filter(|list| list.starts_with(library)).map(|list| list.split(';').next().unwrap());
    let words = lists.flat_map(|list| list.split(|c: char| !c.is_alphanumeric() && c != '_'));
    words.filter(|word| word.starts_with(|c: char| c.is_ascii_uppercase())).collect()
}

/// Public items of a file that are of these types.
fn items_of(text: &str, names: &BTreeSet<&str>) -> Vec<String> {
    let mut items = items(text, names);
    items.retain(|item| {
        let head = item.split(['{', ':']).next().unwrap_or_default();
        let subject = head.rsplit(" for ").next().unwrap_or_default();
        let mut words = subject.split(|c: char| !c.is_alphanumeric() && c != '_');
        words.any(|word| names.contains(word))
    });
    items
}

/// Names of public types and traits.
fn public_names(text: &str) -> impl Iterator<Item = &str> {
    let kinds = ["pub struct ", "pub enum ", "pub trait ", "pub type "];
    text.lines().filter_map(move |line| {
        let rest = kinds.iter().find_map(|kind| line.strip_prefix(kind))?;
        rest.split(|c: char| !c.is_alphanumeric()).next()
    })
}

/// Public items of a file. It is formatted, so what is at the top begins a line, and what is in it stands four spaces in.
fn items(text: &str, names: &BTreeSet<&str>) -> Vec<String> {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    let mut inside: Option<String> = None;
    for (at, line) in lines.iter().enumerate() {
        let is_public = line.trim_start().starts_with("pub ");
        let above = attributes(&lines[..at]);
        if line.starts_with(|c: char| c.is_alphabetic() || c == '}') {
            inside = None;
        }
        if line.starts_with("impl") || (is_public && !line.starts_with(' ')) {
            let head = signature(&lines[at..]);
            let mentions = |name: &&str| head.split(|c: char| !c.is_alphanumeric()).any(|word| word == *name);
            if is_public || names.iter().any(mentions) {
                if is_public || head.contains(" for ") {
                    found.push(head.clone());
                    found.extend(above.iter().map(|attribute| format!("{head}: {attribute}")));
                }
                let has_items = !head.contains(" for ") || is_public;
                inside = (has_items && !head.starts_with("pub use ")).then_some(head);
            }
        } else if let (Some(head), Some(item)) = (&inside, line.strip_prefix("    ")) {
            let is_item = if head.starts_with("impl") || head.starts_with("pub struct") {
                is_public
            } else {
                item.starts_with(|c: char| c.is_ascii_uppercase())
                    || (head.starts_with("pub trait") && item.starts_with("fn "))
            };
            if is_item {
                let item = format!("{head}: {}", signature(&lines[at..]).trim_end_matches(','));
                found.extend(above.iter().map(|attribute| format!("{item}: {attribute}")));
                found.push(item);
            }
        }
    }
    found
}

/// What is derived for the item behind these lines, whether it may grow, and the feature that it needs.
fn attributes<'a>(before: &[&'a str]) -> Vec<&'a str> {
    let above = before.iter().rev().map(|line| line.trim());
    let above = above.take_while(|line| line.starts_with("#[") || line.starts_with("///"));
    let kinds = ["#[derive(", "#[non_exhaustive]", "#[cfg("];
    above.filter(|line| kinds.iter().any(|kind| line.starts_with(kind))).collect()
}

/// From its first line to its body, in one line.
fn signature(lines: &[&str]) -> String {
    let mut whole = String::new();
    for line in lines {
        let line = line.trim();
        whole.push_str(line);
        if whole.starts_with("pub use ") && !line.ends_with(';') {
            whole.push(' ');
            continue;
        }
        if line.ends_with(['{', ';', '}'])
            || (whole.starts_with("pub ") && line.ends_with(',') && !whole.contains('('))
        {
            break;
        }
        if !whole.contains('(') && whole.ends_with(',') {
            break; // a variant, or a field
        }
        let is_balanced = whole.matches('(').count() == whole.matches(')').count();
        if is_balanced && (whole.ends_with("),") || (whole.ends_with(',') && !whole.contains("fn "))) {
            break;
        }
        whole.push(' ');
    }
    whole.trim_end_matches(['{', ';', ' ']).to_owned()
}
