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

proptest::proptest! {
    #[test]
    fn values_stay_between_their_quotes(data: Vec<u8>, text: String) {
        relations::log_values(&data);
        relations::log_values(text.as_bytes());
    }
}
