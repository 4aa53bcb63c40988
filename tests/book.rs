//! The book in `docs/`: nothing in it leads nowhere, and what it shows is what the gateway takes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use support::backend::Backend;
use support::book::{directory, fill, page, pages, runnable};
use support::pki::Pki;
use tempfile::TempDir;

/// What lines of a page are text, and not code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// Where the links of a page lead to, as they are written.
fn links(text: &str) -> Vec<String> {
    let text: String = prose(text).flat_map(|line| [line, "\n"]).collect();
    // What stands in backticks is no link.
    let plain: Vec<_> = text.split('`').step_by(2).collect();
    let plain = plain.join("");
    let targets = plain.split("](").skip(1).map(|rest| rest.split(')').next().unwrap());
    targets.map(|target| target.replace('\n', "")).collect()
}

/// The anchors of a page's headings, as mdBook and code forges make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut found = BTreeMap::<String, usize>::new();
    let mut anchors = BTreeSet::new();
    for line in prose(text) {
        let level = line.len() - line.trim_start_matches('#').len();
        let Some(title) = line[level..].strip_prefix(' ').filter(|_| level > 0) else { continue };
        let anchor: String = title
            .chars()
            .filter(|c| c.is_alphanumeric() || " _-".contains(*c))
            .flat_map(char::to_lowercase)
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let count = found.entry(anchor.clone()).or_default();
        anchors.insert(if *count == 0 { anchor } else { format!("{anchor}-{count}") });
        *count += 1;
    }
    anchors
}

/// A path without `..`.
fn simple(path: &Path) -> PathBuf {
    let mut simple = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => assert!(simple.pop(), "{} leads out of the book", path.display()),
            part => simple.push(part),
        }
    }
    simple
}

#[test]
fn every_page_is_in_the_summary() {
    let summary = links(&page("SUMMARY.md").text);
    let listed: BTreeSet<_> = summary.iter().cloned().collect();
    assert_eq!(listed.len(), summary.len(), "a page is listed twice");
    let written: BTreeSet<_> = pages().into_iter().map(|page| page.name).collect();
    assert_eq!(listed, written);
    assert!(written.len() > 10, "{written:?}: is the test still right?");
}

/// In the book to pages, their headings and pictures of the book; in other documents to the book.
#[test]
fn every_link_leads_somewhere() {
    let known: BTreeMap<_, _> =
        pages().into_iter().map(|page| (PathBuf::from(&page.name), anchors(&page.text))).collect();
    let mut sources: Vec<_> =
        pages().into_iter().map(|page| (PathBuf::from("docs").join(page.name), page.text)).collect();
    for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "PERFORMANCE.md"] {
        sources.push((name.into(), fs::read_to_string(directory().join("..").join(name)).unwrap()));
    }
    let (mut seen, mut wrong) = (0, Vec::new());
    for (name, text) in sources {
        let own = anchors(&text);
        for link in links(&text).into_iter().filter(|link| !link.contains("://")) {
            seen += 1;
            let (path, anchor) = link.split_once('#').map_or((&*link, None), |(path, at)| (path, Some(at)));
            let target = simple(&name.parent().unwrap().join(path));
            let is_there = match target.strip_prefix("docs").map(|inside| (inside, known.get(inside))) {
                _ if path.is_empty() => own.contains(anchor.unwrap()),
                Ok((_, Some(anchors))) => anchor.is_none_or(|anchor| anchors.contains(anchor)),
                Ok((inside, None)) => directory().join(inside).exists(),
                // The built book has nothing but its own files.
                Err(_) => !name.starts_with("docs") && directory().join("..").join(&target).exists(),
            };
            if !is_there {
                wrong.push(format!("{}: {link}", name.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "links that lead nowhere: {wrong:#?}");
    assert!(seen > 50, "{seen} links: is the test still right?");
}

/// What is typed and written to files is the same in every language.
#[test]
fn translations_have_the_same_code() {
    fn code(name: &str) -> Vec<String> {
        let text = page(name).text;
        text.split("\n```").skip(1).step_by(2).map(str::to_owned).collect()
    }
    let english = code("tutorial/en.md");
    assert!(english.len() > 10, "{english:?}");
    for language in ["ja", "zh"] {
        assert_eq!(code(&format!("tutorial/{language}.md")), english, "{language}");
    }
}

#[tokio::test]
async fn every_configuration_passes_check() {
    let server = Backend::start(async |_| {}).await;
    let mut seen = 0;
    for page in pages() {
        for (nth, configuration) in page.configurations().iter().enumerate() {
            let root = TempDir::new().unwrap();
            fill(root.path(), &Pki::new());
            let file = root.path().join("wssgate.toml");
            fs::write(&file, runnable(configuration, root.path(), server.address.port())).unwrap();
            let checked =
                Command::new(env!("CARGO_BIN_EXE_wssgate")).arg("check").arg(&file).output().unwrap();
            let said = String::from_utf8_lossy(&checked.stderr);
            assert!(checked.status.success(), "configuration {} of {}:\n{said}", nth + 1, page.name);
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen} configurations: is the test still right?");
}
