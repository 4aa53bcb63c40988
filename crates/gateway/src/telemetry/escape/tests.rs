use std::fs;
use std::path::Path;

use super::*;

/// What also holds for the fuzz target.
#[path = "../../../fuzz/relations/log_values.rs"]
mod relations;

#[test]
fn what_fuzzing_has_found_is_written_as_it_should_be() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/log_values");
    let files: Vec<_> = fs::read_dir(directory).unwrap().collect();
    assert!(files.len() > 3);
    for file in files {
        relations::log_values(&fs::read(file.unwrap().path()).unwrap());
    }
}

#[test]
fn a_byte_that_needs_an_escape_is_found_wherever_it_is() {
    for len in 0..20 {
        for at in 0..len {
            for byte in 0..=u8::MAX {
                let mut text = "a~ ".repeat(len).into_bytes();
                text.truncate(len);
                let text: String = text
                    .iter()
                    .enumerate()
                    .map(|(n, &b)| char::from(if n == at { byte } else { b }))
                    .collect();
                let expect = text.chars().all(|char| matches!(char, ' '..='~') && escape_len(char) == 1);
                assert_eq!(is_verbatim(&text), expect, "{text:?}");
            }
        }
    }
}

proptest::proptest! {
    #[test]
    fn values_stay_between_their_quotes(data: Vec<u8>, text: String) {
        relations::log_values(&data);
        relations::log_values(text.as_bytes());
    }
}
