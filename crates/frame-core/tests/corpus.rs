//! Replays the fuzzing corpus: what was once found stays found.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may be blunt, their helpers too")]

use std::path::Path;

#[path = "../fuzz/relations.rs"]
mod relations;

#[track_caller]
fn replay(target: &str, relation: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 10, "the corpus is there");
    for file in files {
        relation(&std::fs::read(file).unwrap());
    }
}

#[test]
fn heads() {
    replay("head", relations::head);
}

#[test]
fn sequences() {
    replay("sequence", relations::sequence);
}

#[test]
fn compressed_messages() {
    replay("deflate", relations::deflate);
}

#[test]
fn states_of_relays() {
    replay("relay_state", relations::relay_state);
}
