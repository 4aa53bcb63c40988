//! Replays the fuzzing corpus of states: what was once found stays found.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may be blunt, their helpers too")]

use std::path::Path;

#[path = "../fuzz/states.rs"]
mod states;

#[test]
fn states_of_connections() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/tls_state");
    let files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 10, "the corpus is there");
    for file in files {
        states::tls_state(&std::fs::read(file).unwrap());
    }
}
