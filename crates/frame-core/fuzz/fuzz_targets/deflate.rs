#![no_main]

#[path = "../relations.rs"]
#[allow(dead_code)]
mod relations;

libfuzzer_sys::fuzz_target!(|data: &[u8]| relations::deflate(data));
