//! The crate's public items, as its sources have them, against a committed list: a change of the surface is seen in review.
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
    let mut texts = Vec::new();
    for entry in fs::read_dir(root.join("src")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            texts.push(fs::read_to_string(path).unwrap());
        }
    }
    let names: BTreeSet<&str> = texts.iter().flat_map(|text| public_names(text)).collect();
    let items: BTreeSet<String> = texts.iter().flat_map(|text| items(text, &names)).collect();
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
        if line.starts_with(|c: char| c.is_alphabetic() || c == '}') {
            inside = None;
        }
        if line.starts_with("impl") || (is_public && !line.starts_with(' ')) {
            let head = signature(&lines[at..]);
            let mentions = |name: &&str| head.split(|c: char| !c.is_alphanumeric()).any(|word| word == *name);
            if is_public || names.iter().any(mentions) {
                if is_public || head.contains(" for ") {
                    found.push(head.clone());
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
                found.push(format!("{head}: {}", signature(&lines[at..]).trim_end_matches(',')));
            }
        }
    }
    found
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
        if whole.matches('(').count() == whole.matches(')').count() && whole.ends_with("),") {
            break;
        }
        whole.push(' ');
    }
    whole.trim_end_matches(['{', ';', ' ']).to_owned()
}
