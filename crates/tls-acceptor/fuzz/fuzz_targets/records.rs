#![no_main]

#[path = "../../src/record/mod.rs"]
#[allow(dead_code, unused_imports)]
mod record;

#[path = "../relations.rs"]
#[allow(dead_code)]
mod relations;

libfuzzer_sys::fuzz_target!(|data: &[u8]| relations::records(data));
